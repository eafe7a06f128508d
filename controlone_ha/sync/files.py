"""Files on disk for synchronisation: what is there, and putting something there without a trace of
a half-written state. Blocking; knows nothing of versions and peers.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from typing import Final

from controlone_ha.sync.items import BadPathError, Item, check_path
from controlone_ha.sync.journal import Signature

CHUNK: Final = 1 << 20
MARK: Final = ".ha-"
"""In the names of temporary files: ``.NAME.ha-CHECKSUM``."""


class PlaceError(OSError):
    """Something that is no plain file is where the file belongs, or leads elsewhere."""


def look(path: str) -> tuple[Signature, int] | None:
    """Return (signature, mode) of the regular file ``path``, None when there is nothing.

    Raises ``PlaceError`` for anything else.
    """
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISLNK(found.st_mode):
        raise PlaceError(f"{path}: is a symbolic link; only regular files are synchronised")
    if stat.S_ISDIR(found.st_mode):
        raise PlaceError(f"{path}: a directory is in the way")
    if not stat.S_ISREG(found.st_mode):
        raise PlaceError(f"{path}: is no regular file")
    return _signature(found), stat.S_IMODE(found.st_mode)


def _signature(found: os.stat_result) -> Signature:
    return Signature(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def open_file(path: str) -> int:
    """Return a descriptor for reading; a symbolic link is refused."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)


def read_whole(path: str, most: int) -> bytes:
    """Return the content of a file of at most ``most`` bytes; raise ``OSError``."""
    descriptor = open_file(path)
    try:
        parts, size = [], 0
        while data := os.read(descriptor, CHUNK):
            parts.append(data)
            size += len(data)
            if size > most:
                raise OSError(f"{path}: more than {most} bytes")
        return b"".join(parts)
    finally:
        os.close(descriptor)


def checksum_of(path: str) -> tuple[str, int]:
    """Return (SHA-256, size) of a file, never holding more than a chunk of it."""
    descriptor = open_file(path)
    try:
        hasher, size = hashlib.sha256(), 0
        buffer = bytearray(CHUNK)
        view = memoryview(buffer)
        with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as stream:
            while count := stream.readinto(buffer):
                hasher.update(view[:count])
                size += count
        return hasher.hexdigest(), size
    finally:
        os.close(descriptor)


LARGE: Final = 16 << 20
"""Bytes from which a file is read outside of the worker."""


def is_large(path: str) -> bool:
    """Tell whether reading the file takes its time."""
    try:
        return os.lstat(path).st_size >= LARGE
    except OSError:
        return False


def walk(item: Item) -> Iterator[tuple[str, list[os.DirEntry[str]], dict[str, str]]]:
    """Return (directory, files of the item, refusals) of every directory of an item.

    Refusals: path -> one sentence about what can never be synchronised; ``directory/`` -> why it
    cannot be listed. Links are not followed.
    """
    for root, deep in item.roots():
        waiting = [root]
        if not os.path.isdir(root):
            waiting = [os.path.dirname(root)]
            deep = False
        while waiting:
            directory = waiting.pop()
            files: list[os.DirEntry[str]] = []
            refusals: dict[str, str] = {}
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        if entry.name.startswith("."):
                            _drop_stale(entry)
                        elif entry.is_dir(follow_symlinks=False):
                            if deep:
                                waiting.append(entry.path)
                        elif item.covers(entry.path):
                            try:
                                check_path(entry.path)
                            except BadPathError as error:
                                refusals[entry.path] = str(error)
                                continue
                            if entry.is_file(follow_symlinks=False):
                                files.append(entry)
                            else:
                                refusals[entry.path] = (
                                    f"{entry.path}: only regular files are synchronised"
                                )
            except (FileNotFoundError, NotADirectoryError):
                pass
            except OSError as error:
                refusals[f"{directory}/"] = f"{directory}: {os.strerror(error.errno or 0)}"
            yield directory, files, refusals


STALE_AFTER: Final = 7 * 86400.0


def _drop_stale(entry: os.DirEntry[str]) -> None:
    """Remove what an unfinished transfer left that nobody has resumed for a week."""
    import time

    if MARK not in entry.name:
        return
    with contextlib.suppress(OSError):
        if entry.stat(follow_symlinks=False).st_mtime < time.time() - STALE_AFTER:
            os.unlink(entry.path)


def temporary_name(path: str, checksum: str) -> str:
    """Return the name under which the content of that checksum arrives, in the same directory."""
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name[:180]}{MARK}{checksum[:16]}")


def check_place(item: Item, path: str) -> None:
    """Make the directory of ``path``; raise ``OSError`` when a link on the way leads elsewhere."""
    root = item.root_of(path)
    if root == path:
        root = os.path.dirname(path)
    parent = os.path.dirname(path)
    os.makedirs(parent, exist_ok=True)
    expected = os.path.normpath(os.path.join(os.path.realpath(root), os.path.relpath(parent, root)))
    if os.path.realpath(parent) != expected:
        raise PlaceError(f"{path}: a symbolic link leads out of {root}")
    look(path)


class Part:
    """A file on its way in: written, hashed by reading it back, and kept over a cut to go on."""

    def __init__(self, path: str, checksum: str) -> None:
        self.path = temporary_name(path, checksum)
        self.checksum = checksum
        self.size = 0
        self._hasher = hashlib.sha256()
        self._unsynced = 0
        self._descriptor = os.open(
            self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        while data := os.pread(self._descriptor, CHUNK, self.size):
            self._hasher.update(data)
            self.size += len(data)

    def append(self, data: bytes) -> None:
        """Write ``data`` at the end and take what the file system gives back into the checksum."""
        view, at = memoryview(data), self.size
        while view:
            count = os.pwrite(self._descriptor, view, at)
            view, at = view[count:], at + count
        while self.size < at:
            again = os.pread(self._descriptor, min(CHUNK, at - self.size), self.size)
            if not again:
                raise OSError(f"{self.path}: what was written cannot be read back")
            self._hasher.update(again)
            self.size += len(again)
        self._unsynced += len(data)
        if self._unsynced >= 64 * CHUNK:  # else all of a large file would have to go out at the end
            os.fdatasync(self._descriptor)
            self._unsynced = 0

    def seal(self, *, mode: int, mtime_ns: int, owner: tuple[int, int] | None) -> None:
        """Check the whole, set mode, owner and mtime, and sync; raise ``OSError``."""
        if self._hasher.hexdigest() != self.checksum:
            self.drop()
            raise OSError(f"{self.path}: the content that arrived has another checksum")
        if owner is not None and os.geteuid() == 0:
            os.fchown(self._descriptor, *owner)
        os.fchmod(self._descriptor, mode)
        os.utime(self._descriptor, ns=(mtime_ns, mtime_ns))
        os.fsync(self._descriptor)

    def put(self, path: str) -> Signature:
        """Rename into place and sync the directory; return how the file looks there."""
        os.replace(self.path, path)
        sync_directory(os.path.dirname(path))
        signature = _signature(os.fstat(self._descriptor))
        self.close()
        return signature

    def close(self) -> None:
        """Close and keep what has arrived. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def drop(self) -> None:
        """Close and remove. Idempotent."""
        self.close()
        with contextlib.suppress(OSError):
            os.unlink(self.path)


def owner_for(path: str) -> tuple[int, int] | None:
    """Return the owner the new file gets: that of the present one, else of the directory."""
    for place in (path, os.path.dirname(path)):
        with contextlib.suppress(OSError):
            found = os.lstat(place)
            return found.st_uid, found.st_gid
    return None


def sync_directory(directory: str) -> None:
    """Put the names in a directory on stable storage."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
