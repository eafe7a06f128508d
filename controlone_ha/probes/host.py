"""The host: processor, memory, disks, load, temperature, and whether state can still be written.

``sample`` measures; what is too much is decided in ``core.health``. psutil is imported with the
first sample, not with this module.

Theory of operation. Processor, memory, load and temperature are read from /proc and /sys and cost
about a millisecond. A disk may hang, so everything that touches one runs in a thread of its own:
``measure`` waits for it only so long, and a check that has not come back is itself the finding.

The write check (a small file, fsync, removed) is not made with each sample, since state lies in
flash: it is made at the first sample, every ``write_every`` seconds, at once when the file system
says that it is read-only or has hardly any room, and with each sample while the last one failed.

Inside a container /proc shows the whole machine. With ``cpu_source``, the directory of a control
group (cpu.stat of version 2 or cpuacct.usage of version 1), the processor figure is what that
group used of the cores it may use: its cpu.max, or ``cpu_cores``.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controlone_ha.core.health import DiskUse, HostSample, StorageError, StorageFault

WRITE_EVERY = 600.0
DISK_PATIENCE = 5.0
_CHECK_BYTES = 4096
_LITTLE_ROOM = 16 * _CHECK_BYTES
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass
class _DiskCheck:
    """One round over the disks; runs in its own thread."""

    started: float
    disks: tuple[DiskUse, ...] = ()
    error: StorageError | None = None
    wrote: bool = False
    thread: threading.Thread | None = None
    done: threading.Event = field(default_factory=threading.Event)


class HostProbe:
    """Measures this host. One at a time: the processor figure is the mean since the last sample.

    ``disk_paths``: whose file systems are measured (missing ones are left out); ``write_path``: the
    directory of the write check, None for none.
    """

    def __init__(
        self,
        disk_paths: Sequence[Path],
        *,
        write_path: Path | None = None,
        write_every: float = WRITE_EVERY,
        cpu_source: Path | None = None,
        cpu_cores: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.disk_paths = tuple(disk_paths)
        self.write_path = write_path
        self.write_every = write_every
        self._clock = clock
        self._cpu: _HostCpu | _GroupCpu = (
            _HostCpu() if cpu_source is None else _GroupCpu(cpu_source, cpu_cores, clock)
        )
        self._check: _DiskCheck | None = None
        self._last_disks: tuple[DiskUse, ...] = ()
        self._last_error: StorageError | None = None
        self._wrote_at: float | None = None

    def sample(self, *, lateness: float | None = None) -> HostSample:
        """Measure now, disks included; may block as long as a disk does.

        ``lateness``: how late the caller's own timers are, in seconds; passed through.
        """
        self._start_check()
        assert self._check is not None
        self._check.done.wait()
        return self._compose(lateness)

    async def measure(
        self, *, lateness: float | None = None, patience: float = DISK_PATIENCE
    ) -> HostSample:
        """Measure without blocking the loop; a disk gets ``patience`` seconds to answer."""
        self._start_check()
        assert self._check is not None
        deadline = self._clock() + patience
        pause = 0.001
        while not self._check.done.is_set() and self._clock() < deadline:
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.1)
        return self._compose(lateness)

    def _start_check(self) -> None:
        if self._check is not None and not self._check.done.is_set():
            return  # the last one still hangs; a second would hang beside it
        now = self._clock()
        check = _DiskCheck(started=now)
        is_write_due = (
            self._wrote_at is None
            or self._last_error is not None
            or now - self._wrote_at >= self.write_every
        )
        check.thread = threading.Thread(
            target=self._run_check, args=(check, is_write_due), name="disk-check", daemon=True
        )
        self._check = check
        check.thread.start()

    def _run_check(self, check: _DiskCheck, is_write_due: bool) -> None:
        try:
            check.disks = tuple(
                use for path in self.disk_paths if (use := disk_use(path)) is not None
            )
            if self.write_path is not None and (is_write_due or _is_closed(self.write_path)):
                check.error = write_check(self.write_path)
                check.wrote = True
        finally:
            check.done.set()

    def _compose(self, lateness: float | None) -> HostSample:
        check = self._check
        assert check is not None
        error = self._last_error
        if not check.done.is_set():
            took = self._clock() - check.started
            path = str(self.write_path or (self.disk_paths[0] if self.disk_paths else "/"))
            error = StorageError(
                path=path, fault=StorageFault.HANGING, detail=f"a check takes over {took:.0f} s"
            )
        else:
            self._last_disks = check.disks
            if check.wrote:
                self._wrote_at = check.started
                self._last_error = error = check.error
        temperature, sensor = _temperature()
        return HostSample(
            cpu_percent=self._cpu.percent(),
            memory_percent=_memory_percent(),
            disks=self._last_disks,
            load_per_core=os.getloadavg()[0] / (os.cpu_count() or 1),
            temperature=temperature,
            sensor=sensor,
            lateness=lateness,
            storage_error=error,
        )


class _HostCpu:
    """Busy share of all cores since the last call, from psutil; None the first time."""

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None

    def percent(self) -> float | None:
        import psutil

        times = psutil.cpu_times()
        # guest time is contained in user time; waiting for a disk is idleness.
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        idle = times.idle + getattr(times, "iowait", 0.0)
        last, self._last = self._last, (total, idle)
        if last is None or total - last[0] <= 0:
            return None
        busy = 1.0 - (idle - last[1]) / (total - last[0])
        return min(100.0, max(0.0, 100.0 * busy))


class _GroupCpu:
    """What a control group used of the cores it may use since the last call."""

    def __init__(self, directory: Path, cores: float, clock: Callable[[], float]) -> None:
        self._directory = directory
        self._cores = cores
        self._clock = clock
        self._last: tuple[float, float] | None = None

    def percent(self) -> float | None:
        used = self._used()
        if used is None:
            self._last = None
            return None
        now = self._clock()
        last, self._last = self._last, (now, used)
        if last is None or now <= last[0]:
            return None
        share = (used - last[1]) / ((now - last[0]) * self._capacity())
        return min(100.0, max(0.0, 100.0 * share))

    def _used(self) -> float | None:
        """Return seconds of processor time, None without such a file."""
        try:
            for line in (self._directory / "cpu.stat").read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == "usage_usec":
                    return int(value) / 1e6
        except (OSError, ValueError):
            pass
        try:
            return int((self._directory / "cpuacct.usage").read_text()) / 1e9
        except (OSError, ValueError):
            return None

    def _capacity(self) -> float:
        if self._cores > 0:
            return self._cores
        try:
            quota, period = (self._directory / "cpu.max").read_text().split()
            if quota != "max":
                return int(quota) / int(period)
        except (OSError, ValueError):
            pass
        return float(os.cpu_count() or 1)


def disk_use(path: Path) -> DiskUse | None:
    """Return how full the file system of ``path`` is; None when it cannot say."""
    try:
        system = os.statvfs(path)
    except OSError:
        return None
    used = system.f_blocks - system.f_bfree
    usable = used + system.f_bavail  # as df: what is reserved for root does not count as free
    if usable <= 0:
        return None
    return DiskUse(path=str(path), percent=100.0 * used / usable)


def write_check(directory: Path) -> StorageError | None:
    """Write, sync and remove a small file; return what went wrong, or None."""
    path = directory / f".write-check-{os.getpid()}"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, b"\0" * _CHECK_BYTES)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            os.unlink(path)
    except OSError as error:
        fault = StorageFault.OTHER
        if error.errno in _FULL:
            fault = StorageFault.FULL
        elif error.errno == errno.EROFS:
            fault = StorageFault.READ_ONLY
        return StorageError(path=str(directory), fault=fault, detail=os.strerror(error.errno or 0))
    return None


def _is_closed(path: Path) -> bool:
    """True when the file system says that it is read-only, as good as full or out of inodes."""
    try:
        system = os.statvfs(path)
    except OSError:
        return True
    has_no_inode = system.f_files > 0 and system.f_favail == 0
    has_no_room = system.f_bavail * system.f_frsize < _LITTLE_ROOM
    return bool(system.f_flag & os.ST_RDONLY) or has_no_room or has_no_inode


def _memory_percent() -> float:
    """Return what is not available to new programs, in percent (caches count as available)."""
    import psutil

    memory = psutil.virtual_memory()
    return 100.0 * (1.0 - memory.available / memory.total)


def _temperature() -> tuple[float | None, str]:
    """Return the hottest plausible sensor and its name; ``(None, "")`` without any."""
    import psutil

    read: Callable[[], Any] | None = getattr(psutil, "sensors_temperatures", None)
    if read is None:
        return None, ""
    try:
        groups = read()
    except (OSError, ValueError):
        return None, ""  # a driver that fails to read
    found = [
        (entry.current, f"{group} {entry.label}".strip())
        for group, entries in groups.items()
        for entry in entries
        if entry.current is not None and -40 < entry.current < 200
    ]
    return max(found, default=(None, ""))
