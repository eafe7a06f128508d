"""Who this node trusts: the pinned keys, certificates and host keys of its peers (``pins.json``).

Standard library only, because the Console Server and the console side read pins too.

Theory of operation: trust is a set of pins, one a node, with no authority above them. Two ways in:
``pin`` (an administrator pairs: may replace what was pinned under that name) and ``merge`` (an
authenticated peer introduces nodes it knows: adds unknown names, and never changes the keys of a
known one; a contradiction is reported as a sentence and leaves the pin as it was). Who was
unpinned here comes back only by pairing: its key stays in ``unpinned.json``, so that peers that
still know it do not introduce it anew. A key that was expelled (``revocations``) is never among
the pins, whatever the file says and whoever pairs or introduces it. A node's own
word about its addresses is taken, because its link has just proven its key. Several processes write
(the daemon, the pairing command), so every change is made under a lock, on what the file holds
then, and replaces the file whole. Readers notice by the file's identity (``TrustStore.changed``).

Not here: the lines for the node's SSH server (``authorized``), the wire (``links``).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from controlone_ha.errors import TrustError
from controlone_ha.peers import succession
from controlone_ha.peers.files import locked, private_directory, write_atomically
from controlone_ha.peers.pins import (
    MAX_PINS,
    MergeResult,
    Pin,
    _identity_of,
    merge_pins,
    pin_from_json,
)
from controlone_ha.peers.revocations import (
    MAX_REVOKED,
    Revocation,
    expelled_addresses,
    load_revocations,
    save_revocations,
)

_Identity = tuple[tuple[int, int, int], tuple[int, int, int]]


class TrustStore:
    """``pins.json`` of this node: read, pin, unpin, merge. Blocking, a few milliseconds a call."""

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time) -> None:
        self.path = path
        self._now = now
        self._pins: dict[str, Pin] = {}
        self._revoked: dict[str, Revocation] = {}
        self._seen: _Identity | None = None
        self._ends = math.inf
        """When the second key of a pin ends to count."""

    def pins(self) -> Mapping[str, Pin]:
        """Return the pins, reading the file anew only when it has changed.

        Raises ``TrustError`` when it cannot be read: an unreadable file is never taken for empty.
        """
        identity = self._identity()
        if identity != self._seen or self._now() >= self._ends:
            self._revoked = load_revocations(self._revoked_path)
            self._pins = self._read()
            self._ends = min(
                (pin.until for pin in self._pins.values() if pin.other_key), default=math.inf
            )
            self._seen = identity
        return self._pins

    def revoked(self) -> Mapping[str, Revocation]:
        """Return the expelled keys; raise ``TrustError``."""
        self.pins()
        return self._revoked

    def expelled(self, name_or_address: str) -> Revocation | None:
        """Return the newest record of a node that is expelled, None for one that is pinned."""
        if self.find(name_or_address) is not None:
            return None
        found = [
            record
            for record in self._revoked.values()
            if name_or_address == record.name or name_or_address in record.addresses
        ]
        return max(found, key=lambda record: record.at, default=None)

    def expelled_addresses(self) -> frozenset[str]:
        """Return the addresses of expelled nodes that no pinned node has."""
        pins = self.pins()
        return expelled_addresses(self._revoked.values(), (pin.addresses for pin in pins.values()))

    def changed(self) -> bool:
        """Tell whether the file has changed since ``pins`` last read it."""
        return self._identity() != self._seen

    def find(self, name_or_address: str) -> Pin | None:
        """Return the pin of that name, else the only one with that address, else None."""
        pins = self.pins()
        if name_or_address in pins:
            return pins[name_or_address]
        found = [pin for pin in pins.values() if name_or_address in pin.addresses]
        return found[0] if len(found) == 1 else None

    def certificate_sha256(self, name_or_address: str) -> str | None:
        """Return the hexadecimal SHA-256 of a node's pinned certificate, None if not pinned; two
        with a blank between them while the node changes its key.
        """
        pin = self.find(name_or_address)
        return " ".join(pin.certificates_sha256) if pin is not None else None

    def pin(self, pin: Pin) -> Pin | None:
        """Pin ``pin`` by an administrator's word; return what it replaced, if anything.

        Raises ``TrustError`` when another name has that key, or when it was expelled.
        """
        with self._locked():
            record = load_revocations(self._revoked_path).get(pin.key_fingerprint)
            if record is not None:
                raise TrustError(
                    f"the key of {pin.name} is expelled from the cluster for ever "
                    f"({record.sentence()}); give that node new keys with `ha keys new`"
                )
            pins = self._read()
            for other in pins.values():
                if pin.public_key in other.public_keys and other.name != pin.name:
                    raise TrustError(f"the key of {pin.name} is pinned already as {other.name}")
            self._write_unpinned([key for key in self._unpinned() if key != pin.key_fingerprint])
            before = pins.get(pin.name)
            pins[pin.name] = replace(pin, added=self._time())
            self._write(pins)
            return before

    def unpin(self, name: str) -> bool:
        """Forget ``name`` until it is paired again; return False when it was not pinned."""
        with self._locked():
            pins = self._read()
            pin = pins.pop(name, None)
            if pin is None:
                return False
            self._write_unpinned([*self._unpinned(), *pin.key_fingerprints])
            self._write(pins)
            return True

    def expel(self, name: str, *, node: str, by: str, why: str) -> Revocation | None:
        """Expel the key that is pinned as ``name``, for ever; None when there is none.

        ``node`` and ``by``: where, and by whom, it was ordered. Raises ``TrustError``.
        """
        with self._locked():
            pins = self._read()
            pin = pins.get(name)
            if pin is None:
                return None
            records = [
                Revocation(
                    key=key,
                    name=name,
                    at=self._time(),
                    node=node,
                    by=by[:100],
                    why=why[:200],
                    certificate_sha256=certificate,
                    addresses=pin.addresses,
                )
                for key, certificate in zip(
                    pin.key_fingerprints, pin.certificates_sha256, strict=True
                )
            ]
            self._add_revoked(records)
            return records[0]

    def take_revoked(
        self, records: Sequence[Revocation], *, own_key: str, own_other: str = ""
    ) -> tuple[Revocation, ...]:
        """Take what an authenticated peer knows of expelled keys; return what was new here.

        ``own_key``, ``own_other``: this node's fingerprints, which no peer's word expels. Raises
        ``TrustError``.
        """
        with self._locked():
            return self._add_revoked(records, own_keys=(own_key, own_other))

    def _add_revoked(
        self, records: Iterable[Revocation], *, own_keys: Collection[str] = ()
    ) -> tuple[Revocation, ...]:
        known = load_revocations(self._revoked_path)
        added = [item for item in records if item.key not in known and item.key not in own_keys]
        if not added:
            return ()
        if len(known) + len(added) > MAX_REVOKED:
            raise TrustError(f"more than {MAX_REVOKED} keys are expelled; nothing was added")
        known.update((record.key, record) for record in added)
        save_revocations(self._revoked_path, known)
        self._write(self._read())
        return tuple(added)

    def merge(
        self,
        offered: Sequence[Pin],
        *,
        own_name: str,
        own_key: str,
        introducer: str,
        own_other: str = "",
    ) -> MergeResult:
        """Take what an authenticated peer introduces, by the merge rule."""
        with self._locked():
            revoked = load_revocations(self._revoked_path)
            pins, result = merge_pins(
                self._read(),
                [pin for pin in offered if not succession.is_expelled(pin, revoked)],
                own_name=own_name,
                own_key=own_key,
                introducer=introducer,
                now=self._time(),
                unpinned=self._unpinned(),
                own_other=own_other,
            )
            if result.added or result.updated:
                self._write(pins)
            return result

    def _locked(self) -> Any:
        private_directory(self.path.parent)
        return locked(self.path.parent / ".pins.lock")

    def _time(self) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._now()))

    def _identity(self) -> _Identity:
        return _identity_of(self.path), _identity_of(self._revoked_path)

    @property
    def _revoked_path(self) -> Path:
        return self.path.with_name("revoked.json")

    def _read(self) -> dict[str, Pin]:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise TrustError(f"{self.path}: {error.strerror}") from error
        try:
            raw = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise TrustError(f"{self.path}: not JSON ({error}); restore it or pair anew") from error
        if not isinstance(raw, dict):
            raise TrustError(f"{self.path}: expected a JSON object; restore it or pair anew")
        pins = {}
        revoked = load_revocations(self._revoked_path)
        for name, value in raw.items():
            try:
                pin = pin_from_json({**value, "name": name} if isinstance(value, dict) else value)
            except TrustError as error:
                raise TrustError(f"{self.path}: {name}: {error}") from error
            if not succession.is_expelled(pin, revoked):
                pins[name] = succession.at_time(pin, self._now())
        return pins

    @property
    def _unpinned_path(self) -> Path:
        return self.path.with_name("unpinned.json")

    def _unpinned(self) -> list[str]:
        try:
            raw = json.loads(self._unpinned_path.read_bytes())
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise TrustError(f"{self._unpinned_path}: {error}; restore or remove it") from error
        if not isinstance(raw, list) or not all(isinstance(item, str) for item in raw):
            raise TrustError(f"{self._unpinned_path}: expected a list of fingerprints")
        return raw

    def _write_unpinned(self, fingerprints: Sequence[str]) -> None:
        kept = list(dict.fromkeys(fingerprints))[-MAX_PINS:]
        if kept != self._unpinned():
            content = json.dumps(kept, indent=1).encode() + b"\n"
            write_atomically(self._unpinned_path, content, mode=0o600)

    def _write(self, pins: Mapping[str, Pin]) -> None:
        content = {
            name: {key: value for key, value in pin.as_json().items() if key != "name"}
            for name, pin in sorted(pins.items())
        }
        write_atomically(self.path, json.dumps(content, indent=1).encode() + b"\n", mode=0o600)
