"""The rule of CO-LICE-HA (C6): one licence for each master of the cluster, valid on every node.

What is licensed is that a master is *replaced*: that a standby node becomes active for it and takes
its calls. A master itself starts and serves without a licence, as a machine without high
availability does, and nothing that runs is ever stopped for a licence.

Which masters: with L valid licences the first L of all known masters by name. Every node computes
the same from the same names and the same files, so the two halves of a cluster that was cut in two
go on as before: a master that cannot be reached any more still counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from controlone_ha.errors import TrustError

PRODUCT = "CO-LICE-HA"
FORMAT = 1
MAX_FILE = 16 * 1024
MAX_NODES = 512
_DATE = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])", re.ASCII)
_SERIAL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?", re.ASCII)
_KEY = re.compile(r"SHA256:[A-Za-z0-9+/]{43}", re.ASCII)
_MAX_TEXT = 200


class LicenceError(TrustError):
    """A licence file is not one; the text says why."""

    code = "licence"


@dataclass(frozen=True, kw_only=True)
class Licence:
    """What the vendor has signed. ``nodes``: fingerprints of keys, one of which has to belong to
    the cluster (empty: any cluster). Dates are ``YYYY-MM-DD``, ``expires`` empty for never: that
    day is the last.
    """

    serial: str
    customer: str = ""
    nodes: frozenset[str] = frozenset()
    issued: str = ""
    expires: str = ""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A file that was found: its licence, or why it holds none (``forged``, ``unreadable``)."""

    file: str
    licence: Licence | None = None
    problem: str = ""
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A file and what it is worth: ``valid``, ``expired``, ``foreign``, ``duplicate``, ``forged``,
    ``unreadable``.
    """

    found: Found
    state: str

    @property
    def is_valid(self) -> bool:
        """True when it counts."""
        return self.state == "valid"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What there is, what is needed, and who is covered by it."""

    files: tuple[Judged, ...] = ()
    masters: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many licences count."""
        return sum(item.is_valid for item in self.files)

    @property
    def unlicensed(self) -> frozenset[str]:
        """The masters that nobody may replace."""
        return unlicensed(self.masters, self.count)


def unlicensed(masters: Collection[str], count: int | None) -> frozenset[str]:
    """Return the masters for which ``count`` licences are too few; None: no licence is needed.

    ``masters`` are names of nodes; one that is named twice counts once.
    """
    if count is None:
        return frozenset()
    return frozenset(sorted(set(masters))[max(0, count) :])


def judge(found: Iterable[Found], *, keys: Collection[str], today: str) -> tuple[Judged, ...]:
    """Return what each file is worth. ``keys``: every key that belongs or belonged to this cluster;
    ``today``: ``YYYY-MM-DD``. The same serial counts once, whatever the files are called.
    """
    known = frozenset(keys)
    seen: set[str] = set()
    judged = []
    for item in sorted(found, key=lambda item: item.file):
        licence = item.licence
        if licence is None:
            state = item.problem or "unreadable"
        elif licence.expires and licence.expires < today:
            state = "expired"
        elif licence.nodes and not licence.nodes & known:
            state = "foreign"
        elif licence.serial in seen:
            state = "duplicate"
        else:
            state = "valid"
            seen.add(licence.serial)
        judged.append(Judged(found=item, state=state))
    return tuple(judged)


def read_envelope(content: bytes) -> tuple[bytes, bytes]:
    """Return what was signed and the signature; raise ``LicenceError``.

    The file is ``{"format": 1, "licence": TEXT, "signature": BASE64}``; TEXT, the JSON of the
    licence, is signed byte by byte, so that no rule of writing JSON is needed.
    """
    import base64
    import binascii

    if len(content) > MAX_FILE:
        raise LicenceError(f"a licence of {len(content)} bytes, expected at most {MAX_FILE}")
    raw = _object(content)
    if raw.get("format") != FORMAT or isinstance(raw.get("format"), bool):
        raise LicenceError(f"format: got {str(raw.get('format'))[:20]!r}, expected {FORMAT}")
    signed, signature = raw.get("licence"), raw.get("signature")
    if not isinstance(signed, str) or not isinstance(signature, str):
        raise LicenceError("expected the texts licence and signature")
    try:
        return signed.encode(), base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError) as error:
        raise LicenceError("signature: not base64") from error


def read_licence(signed: bytes) -> Licence:
    """Return the licence in what was signed, every field checked; raise ``LicenceError``."""
    raw = _object(signed)
    if raw.get("product") != PRODUCT:
        raise LicenceError(f"product: got {str(raw.get('product'))[:40]!r}, expected {PRODUCT!r}")
    serial, customer = raw.get("serial"), raw.get("customer", "")
    if not isinstance(serial, str) or not _SERIAL.fullmatch(serial):
        raise LicenceError("serial: expected up to 64 letters, digits, '.', '_' and '-'")
    if not isinstance(customer, str) or len(customer) > _MAX_TEXT or not customer.isprintable():
        raise LicenceError(f"customer: expected at most {_MAX_TEXT} printable characters")
    nodes = raw.get("nodes", [])
    if (
        not isinstance(nodes, list)
        or len(nodes) > MAX_NODES
        or not all(isinstance(key, str) and _KEY.fullmatch(key) for key in nodes)
    ):
        raise LicenceError("nodes: expected a list of fingerprints SHA256:…")
    return Licence(
        serial=serial,
        customer=customer,
        nodes=frozenset(nodes),
        issued=_date(raw, "issued"),
        expires=_date(raw, "expires"),
    )


def _date(raw: Mapping[str, Any], field: str) -> str:
    value = raw.get(field) or ""
    if not isinstance(value, str) or (value and not _DATE.fullmatch(value)):
        raise LicenceError(f"{field}: expected YYYY-MM-DD")
    return value


def _object(content: bytes) -> dict[str, Any]:
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise LicenceError("not JSON") from error
    if not isinstance(raw, dict):
        raise LicenceError("expected a JSON object")
    return raw
