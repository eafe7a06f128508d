"""Reading, locking and replacing files, so that a reader sees the old or the new content only.

Locks are libuci's: ``flock`` on the file itself, shared to read and exclusive to change it. As a
commit replaces the file by renaming, whoever waited for the lock checks that it still holds the
file of that name.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager

from controlone_ha.uci.errors import UciIoError, UciNotFoundError

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
# Temporary files older than this were left by a process that died.
_STALE_AFTER = 600.0  # seconds


def read_shared(path: str) -> bytes:
    """Return the content of the regular file ``path`` under a shared lock.

    Raises UciNotFoundError if there is no such file, UciIoError if it cannot be read.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UciNotFoundError(f"{path}: not a regular file")
    except (OSError, ValueError) as error:
        raise UciNotFoundError(f"{path}: {_why(error)}") from None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _lock(descriptor, fcntl.LOCK_SH)
            return _read(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UciIoError(f"{path}: {_why(error)}") from None


@contextmanager
def locked(path: str, *, create_mode: int | None = None) -> Iterator[int]:
    """Open ``path`` for reading and writing and hold its exclusive lock; yields the descriptor.

    With ``create_mode`` a missing file is made with those permissions. Raises UciIoError.
    """
    flags = os.O_RDWR | os.O_CLOEXEC
    if create_mode is not None:
        flags |= os.O_CREAT
    try:
        descriptor = _open_current(path, flags, create_mode or 0)
    except (OSError, ValueError) as error:
        raise UciIoError(f"{path}: {_why(error)}") from None
    try:
        yield descriptor
    finally:
        # Closing alone would leave the lock to a child that inherited the descriptor.
        _lock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def read_descriptor(descriptor: int) -> bytes:
    """Return the whole content of an open file. Raises UciIoError."""
    try:
        return _read(descriptor)
    except OSError as error:
        raise UciIoError(f"cannot read: {_why(error)}") from None


def append(descriptor: int, data: bytes) -> None:
    """Write ``data`` at the end of an open file. Raises UciIoError."""
    try:
        os.lseek(descriptor, 0, os.SEEK_END)
        _write(descriptor, data)
    except OSError as error:
        raise UciIoError(f"cannot write: {_why(error)}") from None


def overwrite(descriptor: int, data: bytes) -> None:
    """Make ``data`` the content of an open file, in place. Raises UciIoError."""
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.ftruncate(descriptor, 0)
        _write(descriptor, data)
    except OSError as error:
        raise UciIoError(f"cannot write: {_why(error)}") from None


def replace(path: str, data: bytes) -> None:
    """Make ``data`` the content of ``path``, all or nothing, on stable storage when it returns.

    Permissions and owner of an existing file stay; a new one gets mode 0600. A symbolic link stays
    and the file it points to is replaced. Raises UciIoError, the old content then stays.
    """
    real = os.path.realpath(path)
    directory, name = os.path.split(real)
    temporary = os.path.join(directory, f".{name}.uci-{os.urandom(4).hex()}")
    try:
        try:
            old = os.stat(real)
        except FileNotFoundError:
            old = None
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE
        )
        try:
            with _closing(descriptor):
                _write(descriptor, data)
                if old is not None:
                    _take_over(descriptor, old)
                os.fsync(descriptor)
            os.rename(temporary, real)
        except OSError:
            os.unlink(temporary)
            raise
        _sync_directory(directory)
        _remove_stale(directory, f".{name}.uci-")
    except (OSError, ValueError) as error:
        raise UciIoError(f"{path}: {_why(error)}") from None


def make_directory(path: str, like: str) -> None:
    """Make the directory ``path`` with the permissions of ``like``, if it is missing."""
    try:
        mode = stat.S_IMODE(os.stat(like).st_mode)
    except OSError:
        mode = DIRECTORY_MODE
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise UciIoError(f"{path}: not a directory") from None
    except OSError as error:
        raise UciIoError(f"{path}: {_why(error)}") from None


def mode_of(path: str) -> int:
    """Return the permissions of ``path``, 0600 if it does not exist."""
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except (OSError, ValueError):
        return FILE_MODE


def _open_current(path: str, flags: int, mode: int) -> int:
    """Open and lock ``path``, again if another process replaced the file meanwhile."""
    while True:
        descriptor = os.open(path, flags, mode)
        try:
            _lock(descriptor, fcntl.LOCK_EX)
            held = os.fstat(descriptor)
            try:
                named = os.stat(path)
            except FileNotFoundError:
                named = None
            if named is not None and os.path.samestat(held, named):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, kind: int) -> None:
    try:
        fcntl.flock(descriptor, kind)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise


def _read(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    parts = []
    while part := os.read(descriptor, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _take_over(descriptor: int, old: os.stat_result) -> None:
    """Give the new file the owner and permissions of the old one."""
    new = os.fstat(descriptor)
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        try:
            os.fchown(descriptor, old.st_uid, old.st_gid)
        except PermissionError:
            # Not root: the file becomes ours, as with libuci.
            pass
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


@contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)


def _sync_directory(path: str) -> None:
    """Put a rename on stable storage. Some file systems cannot do that for directories."""
    descriptor = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with _closing(descriptor):
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise


def _remove_stale(directory: str, prefix: str) -> None:
    """Remove temporary files that a process killed in the middle of a commit left behind."""
    for name in os.listdir(directory or "."):
        if name.startswith(prefix):
            path = os.path.join(directory, name)
            try:
                if time.time() - os.stat(path).st_mtime > _STALE_AFTER:
                    os.unlink(path)
            except FileNotFoundError:
                pass


def _why(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
