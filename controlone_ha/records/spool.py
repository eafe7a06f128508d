"""The queue on disk in front of the database, and the process that empties it while there is work.

Theory of operation. Services must not wait for a database, nor carry its driver in their memory. A
service adds records; they are collected for ``DELAY`` seconds and appended, with one fsync, to
``<kind>.jsonl`` in the node's directory of records, a line each: ``{"in": COLLECTION, "document":
…}`` (extended JSON, so that times are dates). Then a writer (``python -m controlone_ha.records``)
is started, unless one of any service runs (it holds a lock for as long as it lives) or nothing
listens where the database should be: then no process waits in vain. The writer
takes the file by renaming it; both sides lock the file itself around that, so no line falls
between. It ends when nothing has come for a while; ``LOOK`` seconds later at the latest a service
sees what it left and starts the next.

With the database down the queue grows to ``MAX_BYTES``; what comes then is lost, counted and told
in the log. On a node that has no database by its settings nothing is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

log = logging.getLogger("records")

JsonObject = dict[str, Any]

DELAY = 1.0
LOOK = 10.0
KNOCK = 2.0
MAX_BYTES = 16 << 20
LOCK = "lock"
HISTORY = "controlone.history"
RECORDINGS = "controlone.recordings"
SESSIONS = "controlone.sessions"


def date(seconds: float | None) -> JsonObject | None:
    """Return wall-clock seconds as a date of the database; None stays None."""
    return None if seconds is None else {"$date": int(seconds * 1000)}


class Spool:
    """The queue of one service, ``kind``, in ``directory``. Lives in one event loop."""

    def __init__(
        self,
        directory: Path,
        kind: str,
        *,
        command: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._directory = directory
        self._file = directory / f"{kind}.jsonl"
        self._command = tuple(command) or (sys.executable, "-P", "-m", "controlone_ha.records")
        self._environment = environment
        self._max_bytes = max_bytes
        self._lines: list[bytes] = []
        self._flushing: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._writer: subprocess.Popen[bytes] | None = None
        self.address: tuple[str, int] | None = None
        """Host and port of the database. None: this node has none, so nothing is kept for it."""
        self._is_waiting = False
        self.lost = 0
        """Records for which there was no room since the start of the process."""

    def start(self) -> None:
        """See to it, from now on, that what is queued has a writer."""
        self._looking = asyncio.get_running_loop().create_task(self._look())

    def add(self, collection: str, document: JsonObject) -> None:
        """Queue a document, which has an ``_id``; it is on disk within ``DELAY`` seconds."""
        if self.address is None:
            return
        line = {"in": collection, "document": document}
        self._lines.append(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().create_task(self._flush_soon())

    async def close(self) -> None:
        """Put on disk what was added and let go; a writer ends by itself."""
        for task in (self._flushing, self._looking):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self._flushing = self._looking = None
        self.flush()

    def flush(self) -> None:
        """Append what was added; blocks for the disk."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        try:
            lost = append(self._file, lines, self._max_bytes)
        except OSError as error:
            log.error("%s: %s", self._file, error)
            lost = len(lines)
        if lost:
            self.lost += lost
            log.error("no room for %d records; lost since the start: %d", lost, self.lost)

    async def _flush_soon(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.sleep(DELAY)
            await loop.run_in_executor(None, self.flush)
        finally:
            self._flushing = None
        await self._see_to_writer()
        if self._lines and self._flushing is None:  # added while the disk was waited for
            self._flushing = loop.create_task(self._flush_soon())

    async def _look(self) -> None:
        while True:
            await self._see_to_writer()
            await asyncio.sleep(LOOK)

    async def _see_to_writer(self) -> None:
        """Start a writer where there is work, a database, and none runs."""
        if not self._needs_writer() or not await self._is_database_there():
            return
        if self._needs_writer():  # still: others were at it meanwhile
            self._start_writer()

    def _needs_writer(self) -> bool:
        if self._writer is not None and self._writer.poll() is not None:
            self._writer = None
        return (
            self._writer is None
            and self.address is not None
            and has_work(self._directory)
            and not is_locked(self._directory)
        )

    async def _is_database_there(self) -> bool:
        assert self.address is not None
        try:
            async with asyncio.timeout(KNOCK):
                _, writer = await asyncio.open_connection(*self.address)
        except (OSError, TimeoutError) as error:
            if not self._is_waiting:
                log.warning("records wait for the database: %s", error or "no answer")
            self._is_waiting = True
            return False
        writer.close()
        self._is_waiting = False
        return True

    def _start_writer(self) -> None:
        try:
            self._writer = subprocess.Popen(
                [*self._command, str(os.getpid())],
                stdin=subprocess.DEVNULL,
                env=None if self._environment is None else dict(self._environment),
            )
        except OSError as error:
            log.error("the writer of records: %s", error)


def append(path: Path, lines: Sequence[bytes], max_bytes: int) -> int:
    """Append lines and wait for the disk; return how many of them had no room."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open_locked(path) as file:
        size = os.fstat(file).st_size
        taken = path.with_suffix(".taken")
        with contextlib.suppress(OSError):
            size += taken.stat().st_size
        kept = []
        for line in lines:
            size += len(line)
            if size > max_bytes:
                break
            kept.append(line)
        content = memoryview(b"".join(kept))
        while content:
            content = content[os.write(file, content) :]
        os.fsync(file)
    return len(lines) - len(kept)


@contextlib.contextmanager
def open_locked(path: Path) -> Any:
    """Give the descriptor of the file that has this name, locked, while it has it."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                is_current = os.fstat(file).st_ino == path.stat().st_ino
            except FileNotFoundError:
                is_current = False
            if is_current:
                yield file
                return
        finally:
            os.close(file)


def has_work(directory: Path) -> bool:
    """Tell whether anything is queued."""
    for pattern in ("*.jsonl", "*.taken"):
        for path in directory.glob(pattern):
            with contextlib.suppress(OSError):
                if path.stat().st_size:
                    return True
    return False


def is_locked(directory: Path) -> bool:
    """Tell whether a writer runs."""
    try:
        file = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False
