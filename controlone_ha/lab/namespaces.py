"""Linux namespaces and mounts for the lab, by ctypes: no helper program, no library outside Python.

Only what building a lab node needs: unshare, setns, mount, umount, and the questions "is this
process alive" and "which processes live in that namespace". Everything raises ``LabError`` with one
sentence that names the system call and, where there is one, the remedy. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import signal
from pathlib import Path

from controlone_ha.errors import LabError

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 0x2

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result == 0:
        return
    number = ctypes.get_errno()
    remedy = ""
    if number in (errno.EPERM, errno.EACCES):
        remedy = "; the lab needs root with CAP_SYS_ADMIN (in a container: privileged)"
    elif number in (errno.ENOSYS, errno.EINVAL, errno.ENODEV):
        remedy = "; this kernel may lack the feature"
    raise LabError(f"{what}: {os.strerror(number)}{remedy}")


def unshare(flags: int) -> None:
    """Move this process (and, for a PID namespace, its children) into new namespaces."""
    _check(_libc.unshare(flags), "unshare")


def set_namespace(path: Path, kind: int) -> None:
    """Enter the namespace that ``path`` stands for, such as ``/run/netns/NAME``."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise LabError(f"{path}: {error.strerror}; is the lab up?") from error
    try:
        _check(_libc.setns(descriptor, kind), f"setns {path}")
    finally:
        os.close(descriptor)


def mount(source: str, target: Path | str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount as mount(2) does; raise ``LabError``."""
    _check(
        _libc.mount(
            source.encode(),
            str(target).encode(),
            kind.encode() or None,
            ctypes.c_ulong(flags),
            data.encode() or None,
        ),
        f"mount {kind or source} on {target}",
    )


def bind(source: Path | str, target: Path | str) -> None:
    """Show ``source`` (file or directory) at ``target`` too."""
    mount(str(source), target, flags=MS_BIND)


def unmount(target: Path | str) -> bool:
    """Detach what is mounted on ``target``; return whether there was anything."""
    return _libc.umount2(str(target).encode(), MNT_DETACH) == 0


def make_mounts_private() -> None:
    """Keep every later mount of this mount namespace to itself."""
    mount("none", "/", flags=MS_REC | MS_PRIVATE)


def require_root() -> None:
    """Raise ``LabError`` where namespaces cannot be made."""
    if os.geteuid() != 0:
        raise LabError("the lab needs root (network, mount and PID namespaces): run it with sudo")


def start_time(pid: int) -> int | None:
    """Return the start time of ``pid`` in clock ticks since boot; None if there is no such process.

    With the number it names a process for good, as numbers are used again (proc(5), field 22).
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def is_alive(pid: int, started: int | None = None) -> bool:
    """Return whether ``pid`` runs (a zombie does not) and is still the one that started then."""
    found = start_time(pid)
    return found is not None and (started is None or started == found)


def kill_and_wait(pid: int, *, started: int | None = None, timeout: float = 5.0) -> bool:
    """SIGKILL ``pid`` if it is the process that started then; return whether it is gone in time.

    For the init of a PID namespace the kernel kills every process of the namespace first, so when
    this returns True all of them are gone.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        if not is_alive(pid, started):
            return True
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        return bool(select.select([descriptor], [], [], timeout)[0])
    finally:
        os.close(descriptor)


def processes_in(namespace: Path, kind: str = "net") -> list[int]:
    """Return the processes whose namespace of ``kind`` is the one that the file stands for."""
    try:
        wanted = os.stat(namespace)
    except OSError:
        return []
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            own = os.stat(f"/proc/{entry}/ns/{kind}")
            if (own.st_dev, own.st_ino) == (wanted.st_dev, wanted.st_ino):
                found.append(int(entry))
    return found
