"""What others do on this node, for the audit: edits of the configuration, sessions of consoles.

Looks every ``LOOK`` seconds at the UCI files and at the record of sessions of the Console Server,
so that nothing has to pass through `ha` to be audited. What was seen last is kept on disk: an edit
that is made while `ha` is down is found when it starts. Values of secrets are never kept or told:
a salted hash says that one has changed. UCI does not say who edited; an edit that came with the
synchronisation names the peer, whose own history has it, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from controlone_ha.config.kinds import Kind
from controlone_ha.config.schema import SCHEMA
from controlone_ha.errors import UciError
from controlone_ha.logs import mask
from controlone_ha.peers.files import private_directory, write_atomically
from controlone_ha.uci import load

log = logging.getLogger("audit")

Json = dict[str, Any]

LOOK = 2.0
MAX_CHANGES = 20
MAX_VALUE = 80
MAX_SESSIONS = 1 << 20
_SECRET = re.compile(r"secret|passw|token|verifier|key|psk|\bpin\b|credential", re.IGNORECASE)
_SECRETS = frozenset((row.package, row.name) for row in SCHEMA if row.kind is Kind.SECRET)
_HIDDEN = "********"


class Changes:
    """See the module's text. ``record`` takes entries of the history."""

    def __init__(
        self,
        *,
        config_dir: Path,
        state_dir: Path,
        sessions: Path,
        record: Callable[[Json], None],
    ) -> None:
        self._config_dir = config_dir
        self._file = state_dir / "audit" / "seen.json"
        self._sessions = sessions
        self._record = record
        self._salt = ""
        self._seen: dict[str, dict[str, str]] = {}
        self._stats: dict[str, tuple[int, int, int]] = {}
        self._position = [0, 0]  # inode and offset in the record of sessions
        self._came: dict[str, str] = {}
        self._is_new = False

    def came(self, paths: list[str], peer: str) -> None:
        """Files have come from a peer: the next change of each is that one."""
        for path in paths:
            self._came[path.rpartition("/")[2]] = peer

    async def run(self) -> None:
        """Look again and again."""
        await asyncio.to_thread(self._load)
        while True:
            for entry in await asyncio.to_thread(self.look):
                self._record(entry)
            await asyncio.sleep(LOOK)

    def look(self) -> list[Json]:
        """Return what has happened since the last look. Blocking."""
        if not self._salt:
            self._load()
        before = (dict(self._stats), list(self._position))
        entries = self._edits() + self._console_sessions()
        if (self._stats, self._position) != before or self._is_new:
            self._is_new = False
            self._save()
        return entries

    # -- configuration ------------------------------------------------------------------------

    def _edits(self) -> list[Json]:
        entries: list[Json] = []
        try:
            files = sorted(path for path in self._config_dir.iterdir() if _is_package(path.name))
        except OSError:
            return entries
        present = {path.name for path in files}
        for path in files:
            try:
                status = path.stat()
            except OSError:
                continue
            stat = (status.st_ino, status.st_mtime_ns, status.st_size)
            if self._stats.get(path.name) == stat:
                continue
            try:
                fresh = self._flat(path)
            except (UciError, OSError) as error:
                log.debug("%s: %s", path, error)
                continue  # half written, or held back by the synchronisation, which tells
            self._stats[path.name] = stat
            known = self._seen.get(path.name)
            if known is None and self._is_new:
                self._seen[path.name] = fresh
                continue
            changes = _differences(known or {}, fresh)
            self._seen[path.name] = fresh
            if changes:
                entries.append(self._entry(path.name, changes))
        for name in [name for name in self._seen if name not in present]:
            del self._seen[name]
            self._stats.pop(name, None)
            entries.append(self._entry(name, ["the file was removed"]))
        return entries

    def _entry(self, name: str, changes: list[str]) -> Json:
        peer = self._came.pop(name, "")
        more = len(changes) - MAX_CHANGES
        shown = [*changes[:MAX_CHANGES], *([f"and {more} more"] if more > 0 else [])]
        return {
            "kind": "config",
            "item": name,
            "by": f"synchronised from {peer}" if peer else "edited on this node",
            "detail": mask("; ".join(shown)),
            **({"peer": peer} if peer else {}),
        }

    def _flat(self, path: Path) -> dict[str, str]:
        flat: dict[str, str] = {}
        for number, section in enumerate(load(path)):
            name = f"@{section.type}[{number}]" if section.anonymous else section.name
            flat[f"{path.name}.{name}"] = section.type
            for option in section:
                value = ", ".join(option.values)
                if (path.name, option.name) in _SECRETS or _SECRET.search(option.name):
                    value = _HIDDEN + self._hashed(value)
                flat[f"{path.name}.{name}.{option.name}"] = value
        return flat

    def _hashed(self, value: str) -> str:
        return hmac.digest(self._salt.encode(), value.encode(), hashlib.sha256).hex()[:12]

    # -- sessions -----------------------------------------------------------------------------

    def _console_sessions(self) -> list[Json]:
        """Return the lines that the Console Server has added to its record."""
        entries: list[Json] = []
        rotated = self._sessions.with_name(self._sessions.name + ".1")
        try:
            status = self._sessions.stat()
        except OSError:
            return entries
        if self._is_new:
            self._position = [status.st_ino, status.st_size]
            return entries
        if status.st_ino != self._position[0]:
            try:
                if rotated.stat().st_ino == self._position[0]:
                    entries += self._read(rotated, self._position[1])[0]
            except OSError:
                pass  # turned over twice meanwhile: what was in between is in neither file
            self._position = [status.st_ino, 0]
        if status.st_size > self._position[1]:
            found, end = self._read(self._sessions, self._position[1])
            entries += found
            self._position[1] = end
        return entries

    def _read(self, path: Path, start: int) -> tuple[list[Json], int]:
        with open(path, "rb") as stream:
            stream.seek(start)
            data = stream.read(MAX_SESSIONS)
        whole = data.rpartition(b"\n")[0]
        if not whole:
            return [], start
        entries = []
        for line in whole.split(b"\n"):
            try:
                raw = json.loads(line)
            except ValueError:
                continue
            if isinstance(raw, dict):
                entries.append(_session_entry(raw))
        return entries, start + len(whole) + 1

    # -- kept ---------------------------------------------------------------------------------

    def _load(self) -> None:
        try:
            raw = json.loads(self._file.read_bytes())
            self._salt = str(raw["salt"])
            self._seen = {str(name): dict(flat) for name, flat in raw["seen"].items()}
            self._position = [int(number) for number in raw["position"]][:2]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self._salt, self._seen, self._is_new = secrets.token_hex(16), {}, True

    def _save(self) -> None:
        content = {"salt": self._salt, "seen": self._seen, "position": self._position}
        try:
            private_directory(self._file.parent)
            write_atomically(self._file, json.dumps(content).encode(), mode=0o600)
        except OSError as error:
            log.warning("%s: %s", self._file, error)


def _is_package(name: str) -> bool:
    return all(letter.isascii() and (letter.isalnum() or letter in "_-") for letter in name)


def _differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    changes = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if old is None:
            changes.append(f"{key} = {_shown(new)}")
        elif new is None:
            changes.append(f"{key} removed (was {_shown(old)})")
        elif str(new).startswith(_HIDDEN):
            changes.append(f"{key} changed")
        else:
            changes.append(f"{key}: {_shown(old)} -> {_shown(new)}")
    return changes


def _shown(value: str | None) -> str:
    text = str(value)
    if text.startswith(_HIDDEN):
        return _HIDDEN
    return text if len(text) <= MAX_VALUE else text[:MAX_VALUE] + "…"


def _session_entry(raw: Json) -> Json:
    event = str(raw.get("event") or "")[:20]
    kind = "refused" if event == "refused" else "login"
    detail = f"console {raw.get('console')} from {raw.get('address')}: {event}"
    if raw.get("cause"):
        detail += f", {raw['cause']}"
    time_of = raw.get("time")
    at = {"time": float(time_of)} if isinstance(time_of, int | float) else {}
    return {
        **at,
        "kind": kind,
        "to": event,
        "by": str(raw.get("console") or "?")[:64],
        "detail": detail[:300],
    }
