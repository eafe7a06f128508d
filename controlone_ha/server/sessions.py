"""The record of consoles' sessions for the audit: one JSON object a line, appended, bounded.

``{"time", "node", "event": "login" | "logout" | "refused" | "enrolled" | "revoked", "console",
"address", …}``. Entries are collected for ``DELAY`` seconds and written together, so that a login
storm costs one write. The file is turned over at ``MAX_BYTES``; one older file is kept. The
database gets every entry too (``controlone.sessions``), through the queue of records.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
from pathlib import Path
from typing import Any

from controlone_ha.records.spool import SESSIONS, Spool, date

log = logging.getLogger("server")

DELAY = 1.0
MAX_BYTES = 4 << 20


class SessionRecord:
    """Appends entries to ``path`` and hands them to ``spool``."""

    def __init__(
        self, path: Path, spool: Spool | None = None, *, max_bytes: int = MAX_BYTES
    ) -> None:
        self._path = path
        self._spool = spool
        self._numbers = itertools.count(1)
        self._begun = time.time_ns() // 1_000_000
        self._max_bytes = max_bytes
        self._lines: list[str] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, entry: dict[str, Any]) -> None:
        """Note an entry; it is on disk within ``DELAY`` seconds."""
        self._lines.append(json.dumps(entry, ensure_ascii=False, separators=(",", ":")) + "\n")
        if self._spool is not None:
            key = f"{entry.get('node', '')}-{self._begun}-{next(self._numbers)}"
            self._spool.add(SESSIONS, {"_id": key, **entry, "time": date(entry.get("time"))})
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DELAY, self.flush)

    def flush(self) -> None:
        """Write what was collected; what cannot be written is lost with one line in the log."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, []
        if not lines:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(self._path, "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write("".join(lines))
                size = file.tell()
            if size > self._max_bytes:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
        except OSError as error:
            log.error("cannot write %s: %s; entries lost: %d", self._path, error, len(lines))
