"""Which keys are expelled from the cluster for ever (``revoked.json``). Standard library only.

Theory of operation. A record names a key by its fingerprint, not a node by its name: a node that
was stolen stays out under whatever name it comes, and one that was set up anew with new keys may
have the old name. Records are only ever added, by a person at any node or by a linked peer that
passes on what it knows, so every order in which nodes hear of each other ends in the same set:
neither a node that was away nor a restored file of pins brings a key back (``TrustStore`` leaves
expelled keys out of the pins whatever the file of pins says). The addresses are those the node had:
its own Console Server is no longer asked from there, until another node is pinned with them.

Not here: what follows from a record for links, SSH and the database.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from controlone_ha.errors import TrustError
from controlone_ha.peers.files import write_atomically

REVOKED = "links.revoked"
MAX_REVOKED = 4096
RECORDS_PER_MESSAGE = 64
_MAX_TEXT = 300
_KEY = re.compile(r"SHA256:[A-Za-z0-9+/]{43}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Revocation:
    """One expelled key. ``at`` is UTC, ISO 8601; ``node`` is where ``by`` ordered it."""

    key: str
    """``SHA256:…``, as ``ssh-keygen -l`` prints it."""
    name: str
    at: str
    node: str
    by: str = ""
    why: str = ""
    certificate_sha256: str = ""
    addresses: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object, as on disk and on the wire."""
        return {**asdict(self), "addresses": list(self.addresses)}

    def sentence(self) -> str:
        """Return it as people read it."""
        because = f": {self.why}" if self.why else ""
        return f"{self.name} was expelled on {self.at} by {self.by or '?'} at {self.node}{because}"


def revocation_from_json(raw: object) -> Revocation:
    """Return the record in ``raw``, every field checked; raise ``TrustError``."""
    if not isinstance(raw, Mapping):
        raise TrustError(f"expected a JSON object for an expelled key, got {type(raw).__name__}")
    texts = {}
    for field in ("key", "name", "at", "node", "by", "why", "certificate_sha256"):
        value = raw.get(field, "")
        if not isinstance(value, str) or len(value) > _MAX_TEXT:
            raise TrustError(f"{field}: expected a text of at most {_MAX_TEXT} characters")
        texts[field] = "".join(letter if letter.isprintable() else "?" for letter in value)
    if not _KEY.fullmatch(texts["key"]):
        raise TrustError(f"key: expected SHA256:…, got {texts['key'][:60]!r}")
    addresses = raw.get("addresses", [])
    if (
        not isinstance(addresses, list | tuple)
        or len(addresses) > 16
        or not all(isinstance(item, str) and 0 < len(item) <= 255 for item in addresses)
    ):
        raise TrustError("addresses: expected a list of at most 16 texts")
    return Revocation(**texts, addresses=tuple(addresses))


def revocation_messages(records: Sequence[Revocation]) -> Iterable[dict[str, Any]]:
    """Return the params of as many notifications as ``records`` need to fit into frames."""
    for start in range(0, len(records), RECORDS_PER_MESSAGE):
        part = records[start : start + RECORDS_PER_MESSAGE]
        yield {"revoked": [record.as_json() for record in part]}


def read_revocations(params: Mapping[str, Any]) -> list[Revocation]:
    """Return the records in a message; raise ``TrustError``."""
    found = params.get("revoked")
    if not isinstance(found, list) or len(found) > RECORDS_PER_MESSAGE:
        raise TrustError(f"revoked: expected a list of at most {RECORDS_PER_MESSAGE}")
    return [revocation_from_json(item) for item in found]


def load_revocations(path: Path) -> dict[str, Revocation]:
    """Return the records by key; raise ``TrustError``: an unreadable file is no empty one."""
    try:
        raw = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise TrustError(f"{path}: {error}; restore it from another node") from error
    if not isinstance(raw, list):
        raise TrustError(f"{path}: expected a list; restore it from another node")
    try:
        records = [revocation_from_json(item) for item in raw]
    except TrustError as error:
        raise TrustError(f"{path}: {error}; restore it from another node") from error
    return {record.key: record for record in records}


def save_revocations(path: Path, records: Mapping[str, Revocation]) -> None:
    """Write the records; raise ``OSError``."""
    content = [record.as_json() for record in records.values()]
    text = json.dumps(content, indent=1, ensure_ascii=False)
    write_atomically(path, text.encode() + b"\n", mode=0o600)


def expelled_addresses(
    records: Iterable[Revocation], pinned: Iterable[Sequence[str]]
) -> frozenset[str]:
    """Return the addresses of expelled nodes that no node has that is trusted now. Pure."""
    taken = {address for addresses in pinned for address in addresses}
    return frozenset(
        address for record in records for address in record.addresses if address not in taken
    )
