"""Changes of files as the kernel tells them: inotify(7) through ctypes.

Nothing but the standard library: this runs in `ha` on a router, where every further package has to
be built, shipped and kept; three system calls and one structure are less than any wheel. A rename
and a close after writing are told at once, nothing else of a file being written is. What the kernel
could not tell (its queue ran over) is told as "look at everything".
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import logging
import os
import struct
from collections.abc import Callable, Iterable
from typing import Final

log = logging.getLogger("sync")

ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO = 0x4, 0x8, 0x40, 0x80
CREATE, DELETE, DELETE_SELF, MOVE_SELF = 0x100, 0x200, 0x400, 0x800
OVERFLOW, IGNORED = 0x4000, 0x8000
ONLY_DIRECTORY, DO_NOT_FOLLOW, IS_DIRECTORY = 0x01000000, 0x02000000, 0x40000000

_EVENT: Final = struct.Struct("iIII")
_FILES: Final = ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE
_MASK: Final = _FILES | DELETE_SELF | MOVE_SELF | ONLY_DIRECTORY


class Watch:
    """Watches directories. ``on_changed`` gets paths; ``on_lost`` says that all must be looked at.

    Both are called in the event loop and must return at once. Raises ``OSError`` when the kernel
    has no inotify or grants no further instance.
    """

    def __init__(self, on_changed: Callable[[set[str]], None], on_lost: Callable[[], None]) -> None:
        self._on_changed = on_changed
        self._on_lost = on_lost
        self._library = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise _error("inotify")
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._read)
        self._directories: dict[int, tuple[str, bool]] = {}
        self._roots: tuple[tuple[str, bool], ...] = ()
        self.problem = ""

    def configure(self, roots: Iterable[tuple[str, bool]]) -> None:
        """Watch these (directory, everything below) and nothing else.

        The same ones again change nothing: what the kernel has told and nobody has read yet would
        be lost with the old watches. Other ones want everything to be looked at afterwards.
        """
        chosen = tuple(roots)
        if chosen == self._roots:
            return
        for number in list(self._directories):
            self._library.inotify_rm_watch(self._descriptor, number)
        self._directories.clear()
        self._roots = chosen
        self.problem = ""
        for root, deep in self._roots:
            self._add_root(root, deep)

    def close(self) -> None:
        """Stop watching. Idempotent."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def directories(self) -> int:
        """How many directories are watched."""
        return len(self._directories)

    def _add_root(self, root: str, deep: bool) -> None:
        if os.path.isdir(root):
            self._add(root, deep)
            return
        # A file, or nothing yet: what is above it tells when it appears.
        above = os.path.dirname(root)
        while above != "/" and not os.path.isdir(above):
            above = os.path.dirname(above)
        self._add(above, False)

    def _add(self, directory: str, deep: bool) -> set[str]:
        """Watch a directory and, if ``deep``, what is below; return the files that are there."""
        found: set[str] = set()
        waiting = [directory]
        while waiting:
            place = waiting.pop()
            number = self._library.inotify_add_watch(self._descriptor, os.fsencode(place), _MASK)
            if number < 0:
                self._cannot_watch(place)
                continue
            known = self._directories.get(number)
            self._directories[number] = (place, deep or (known is not None and known[1]))
            if not deep:
                continue
            try:
                with os.scandir(place) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
                        else:
                            found.add(entry.path)
            except OSError:
                continue  # gone again: the kernel tells
        return found

    def _cannot_watch(self, place: str) -> None:
        error = _error(place)
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return
        hint = ""
        if error.errno == errno.ENOSPC:
            hint = " (raise fs.inotify.max_user_watches)"
        self.problem = f"{place}: cannot be watched: {error.strerror}{hint}"
        log.error("%s; changes there are found by the next full synchronisation", self.problem)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return
        changed: set[str] = set()
        is_lost = False
        at = 0
        while at < len(data):
            number, mask, _cookie, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            name = os.fsdecode(data[at : at + length].rstrip(b"\0"))
            at += length
            if mask & OVERFLOW:
                is_lost = True
            elif mask & IGNORED:
                self._directories.pop(number, None)
            elif number in self._directories:
                is_lost |= self._happened(number, mask, name, changed)
        if is_lost:
            for root, deep in self._roots:
                self._add_root(root, deep)
            self._on_lost()
        elif changed:
            self._on_changed(changed)

    def _happened(self, number: int, mask: int, name: str, changed: set[str]) -> bool:
        """Note one event; return True when everything must be looked at."""
        directory, deep = self._directories[number]
        if mask & (DELETE_SELF | MOVE_SELF):
            return True
        path = os.path.join(directory, name)
        if mask & IS_DIRECTORY:
            if mask & (CREATE | MOVED_TO):
                if deep:
                    changed |= self._add(path, True)
                return not deep and any(
                    root == path or root.startswith(path + "/") for root, _deep in self._roots
                )
            return bool(mask & MOVED_FROM and deep)
        if not name.startswith(".") and not mask & CREATE:
            changed.add(path)
        return False


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)
