"""History of a node: an append-only file of JSON lines, bounded, that survives crashes.

An entry is ``{"time": wall-clock seconds, "node", "kind": "state" | "peer" | "service" | "force" |
"pause" | "link" | "config" | "takeover" | …, "peer"?, "from"?, "to"?, "reason": {"code", "text",
"params", "evidence"}, "by"?}``. It records transitions, never samples.

Lines are chained as ``core.audit`` says, at the moment they are written; readers get entries
without ``n``, ``prev`` and ``chain``. Copies of the peers' histories lie in ``audit/`` beside it.

Theory of operation. ``record`` never blocks its caller: the entry is at once part of what ``read``
returns, and one thread appends what waits to the file, in order, with one sync for all of it. The
file lies on flash: a flapping fault must not wear it out, so each append spends from a budget
(``BURST`` at once, then one every ``REFILL_S`` seconds); when it is spent, entries wait in memory
for the next one. A full disk is treated alike: what waits is tried again with the next entry. More
than ``WAITING`` waiting entries lose the oldest, and the next written one says how many were lost
(``"unwritten"``). At ``MAX_BYTES`` the file is renamed to ``history.jsonl.1`` and so on, ``FILES``
files in all. A line torn by a power cut is ended before the next append and skipped when reading.
Reading goes backwards in blocks from the newest file and stops when it has enough.

Light at import: the command reads the file itself when the daemon is down.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future, ThreadPoolExecutor
    from typing import Any

    from controlone_ha.core.audit import Link

    Entry = dict[str, Any]

MAX_BYTES = 1 << 20
FILES = 5
MAX_LINE = 32 << 10
BURST = 120
REFILL_S = 10.0
WAITING = 2000
AUDIT = "audit"
APPEND = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
BLOCK = 64 << 10


class History:
    """The history of this node. ``record`` and ``append`` write, ``read`` reads."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = MAX_BYTES,
        files: int = FILES,
        monotonic: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        """``wait`` sleeps in the writing thread until the budget allows an append (tests)."""
        import threading

        self._path = os.fspath(path)
        self._max_bytes = max_bytes
        self._files = files
        self._monotonic = monotonic
        self._budget = float(BURST)
        self._budget_at = monotonic()
        self._lock = threading.Lock()  # guards _waiting and _lost
        self._waiting: list[Entry] = []
        self._link: Link | None = None
        self.on_written: Callable[[Link], None] = lambda _link: None
        self._lost = 0
        self._closing = threading.Event()
        self._wait = wait or self._closing.wait
        self._writer: ThreadPoolExecutor | None = None
        self.error: str | None = None

    def record(self, entry: Entry) -> Future[bool]:
        """Add an entry without blocking; the future tells whether it reached storage."""
        from concurrent.futures import ThreadPoolExecutor

        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, thread_name_prefix="history")
        with self._lock:
            self._waiting.append(_bounded(entry))
            if len(self._waiting) > WAITING:
                del self._waiting[0]
                self._lost += 1
        return self._writer.submit(self._save)

    def append(self, entry: Entry) -> bool:
        """Add an entry and wait until it is on storage; False when it waits in memory."""
        return self.record(entry).result()

    def close(self) -> None:
        """Write what waits, whatever the budget says, and end the writing thread. Idempotent."""
        self._closing.set()
        if self._writer is not None:
            self._writer.shutdown()
            self._writer = None

    def read(
        self,
        limit: int,
        kind: str | None = None,
        peer: str | None = None,
        since: float | None = None,
        who: str | None = None,
        node: str | None = None,
    ) -> list[Entry]:
        """Return the newest ``limit`` entries that match, newest first, waiting ones included."""
        with self._lock:
            waiting = [item for item in self._waiting if matches(item, kind, peer, since, who)]
        # The writer may save some of these before the file is read: they count once.
        wanted = limit + len(waiting)
        saved = read_history(
            self._path, wanted, kind, peer, since, who=who, node=node, files=self._files
        )
        if node is not None:
            waiting = [item for item in waiting if node in ("all", item.get("node"))]
        fresh = [entry for entry in waiting if not any(_is_same(entry, item) for item in saved)]
        return (fresh[::-1] + saved)[:limit]

    def _save(self) -> bool:
        """Append all that waits; in the writing thread."""
        with self._lock:
            if not self._waiting:
                return True  # an earlier turn took it along
        while (delay := self._budget_delay()) > 0 and not self._closing.is_set():
            self._wait(delay)
        with self._lock:
            batch = list(self._waiting)
            lost = self._lost
        from controlone_ha.core.audit import chained

        lines = []
        try:
            os.close(os.open(self._path, APPEND, 0o600))  # before the work: it may not be there
            link = self.link()
            for number, entry in enumerate(batch):
                told = {**entry, "unwritten": lost} if lost and not number else entry
                line, link = chained(told, link)
                lines.append(line)
            data = b"".join(lines)
            self._rotate_for(len(data))
            append_lines(self._path, data)
        except OSError as error:
            if self.error is None:
                logging.getLogger("history").error("not written, kept in memory: %s", error)
            self.error = f"{type(error).__name__}: {error}"
            return False
        self._budget -= 1
        self._link = link
        with self._lock:
            written = {id(entry) for entry in batch}
            self._waiting = [item for item in self._waiting if id(item) not in written]
            self._lost -= lost
        self.error = None
        self.on_written(link)
        return True

    def link(self) -> Link:
        """Return where the chain stands on storage; a chain of its own begins with no line."""
        if self._link is None:
            self._link = last_link(self._path, self._files)
        return self._link

    def _budget_delay(self) -> float:
        """Return the seconds until the next append is allowed."""
        now = self._monotonic()
        self._budget = min(float(BURST), self._budget + (now - self._budget_at) / REFILL_S)
        self._budget_at = now
        return max(0.01, (1 - self._budget) * REFILL_S) if self._budget < 1 - 1e-9 else 0.0

    def _rotate_for(self, size: int) -> None:
        try:
            if os.stat(self._path).st_size + size <= self._max_bytes:
                return
        except FileNotFoundError:
            return
        rotate(self._path, self._files)


def rotate(path: str, files: int) -> None:
    """Rename the file to ``.1``, that to ``.2`` and so on; the oldest is lost."""
    for number in range(files - 1, 0, -1):
        older = path if number == 1 else f"{path}.{number - 1}"
        if os.path.exists(older):
            os.replace(older, f"{path}.{number}")


def _is_same(entry: Entry, saved: Entry) -> bool:
    return entry == {key: value for key, value in saved.items() if key != "unwritten"}


def _bounded(entry: Entry) -> Entry:
    line = json.dumps(entry, separators=(",", ":"), ensure_ascii=False)
    if len(line.encode()) > MAX_LINE:  # evidence without end must not fill the file
        reason = entry.get("reason") or {}
        short = {"code": reason.get("code"), "text": str(reason.get("text"))[:500]}
        kept = {
            key: str(entry[key])[:200]
            for key in ("node", "kind", "peer", "from", "to", "by")
            if entry.get(key) is not None
        }
        return {"time": entry.get("time"), **kept, "reason": short}
    return entry


def last_link(path: str, files: int = FILES) -> Link:
    """Return where the chain in a file and its rotated ones stands; a new one if there is none."""
    from controlone_ha.core.audit import Link, hash_of, link_of

    for line in lines_backwards(path, files):
        found = link_of(line)
        if found is not None:
            return Link(chain=found[2], n=found[0], hash=hash_of(line))
    import secrets

    return Link(chain=secrets.token_hex(4))


def append_lines(path: str, data: bytes) -> None:
    handle = os.open(path, APPEND, 0o600)
    try:
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            data = b"\n" + data  # the last line was torn: it must not spoil the next one
        if os.write(handle, data) != len(data):
            os.ftruncate(handle, size)
            raise OSError(errno.ENOSPC, "only a part of it fitted")
        os.fsync(handle)
        if size == 0:
            _sync_directory(os.path.dirname(path) or ".")
    finally:
        os.close(handle)


def _sync_directory(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def matches(
    entry: Entry, kind: str | None, peer: str | None, since: float | None, who: str | None = None
) -> bool:
    """True when the entry is of that kind, concerns that peer, is not older than ``since`` and was
    done by ``who`` (a part of the name suffices).
    """
    if kind is not None and entry.get("kind") != kind:
        return False
    if who is not None and who.lower() not in str(entry.get("by") or "").lower():
        return False
    if peer is not None and peer not in (entry.get("peer"), _peer_of_reason(entry)):
        return False
    return since is None or float(entry.get("time") or 0) >= since


def _peer_of_reason(entry: Entry) -> Any:
    reason = entry.get("reason")
    params = reason.get("params") if isinstance(reason, dict) else None
    return params.get("peer") if isinstance(params, dict) else None


def read_history(
    path: str | os.PathLike[str],
    limit: int,
    kind: str | None = None,
    peer: str | None = None,
    since: float | None = None,
    *,
    who: str | None = None,
    node: str | None = None,
    files: int = FILES,
) -> list[Entry]:
    """Return the newest ``limit`` matching entries of the file and its rotated ones, newest first.

    ``node``: of that node (its copy here, when it is another), or of ``all``. Missing files and
    lines that are not entries are passed over.
    """
    name = os.fspath(path)
    names = [name]
    if node is not None:
        names += copies(os.path.dirname(name), None if node == "all" else node)
    found: list[Entry] = []
    for file in names:
        count = 0
        for line in lines_backwards(file, files):
            entry = _entry(line)
            if (
                entry is not None
                and matches(entry, kind, peer, since, who)
                and (node in (None, "all") or entry.get("node") == node)
            ):
                found.append(entry)
                count += 1
                if count >= limit:
                    break
    if len(names) > 1:
        found.sort(key=lambda entry: float(entry["time"]), reverse=True)
    return found[:limit]


def copies(state_dir: str, node: str | None = None) -> list[str]:
    """Return the files with copies of peers' histories: of one node, or of all."""
    directory = os.path.join(state_dir, AUDIT)
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return []
    return [
        os.path.join(directory, name)
        for name in names
        if name.endswith(".jsonl") and (node is None or name == f"{node}.jsonl")
    ]


def lines_backwards(path: str, files: int = FILES) -> Iterator[bytes]:
    """Yield the lines of a file and its rotated ones, newest first."""
    for number in range(files):
        yield from _lines_backwards(path if number == 0 else f"{path}.{number}")


def lines_forwards(path: str, files: int = FILES) -> Iterator[bytes]:
    """Yield the lines of the rotated files and the file, oldest first."""
    for number in range(files - 1, -1, -1):
        try:
            with open(path if number == 0 else f"{path}.{number}", "rb") as file:
                yield from file
        except OSError:
            continue


def _entry(line: bytes) -> Entry | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("time"), int | float):
        return None
    for name in ("n", "prev", "chain"):
        entry.pop(name, None)
    return entry


def _lines_backwards(path: str) -> Iterator[bytes]:
    try:
        file = open(path, "rb")  # noqa: SIM115 - a generator holds it open between two lines
    except OSError:
        return
    with file:
        position = file.seek(0, os.SEEK_END)
        tail = b""
        while position > 0:
            size = min(BLOCK, position)
            position -= size
            file.seek(position)
            lines = (file.read(size) + tail).split(b"\n")
            tail = lines.pop(0)
            yield from reversed(lines)
        if tail:
            yield tail
