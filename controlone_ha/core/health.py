"""A node's hardware and operating system: samples in, abnormalities out. Pure.

Theory of operation. Each measured value has a ``Limit``. A value at or above its limit starts a
clock; still there after ``duration`` seconds it is abnormal, and stays so until it falls below
``limit - hysteresis``. A value that falls below the limit before that resets the clock. Limit 0
switches a check off. A value that could not be measured (None) is not abnormal: no sensor, no
verdict. Storage that cannot be written is abnormal at once: there is nothing to wait for, the node
can no longer keep what it acknowledges.

What an abnormal node does about it (disable, or serve on as degraded) is decided elsewhere
(``core.decide``), and so is how long it must be well before it comes back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from controlone_ha.core.reasons import Evidence, Reason, reason


class HostKind(StrEnum):
    """What is watched. Also the UCI option's name in section ``limits`` (STORAGE has none)."""

    CPU = "cpu"
    MEMORY = "memory"
    DISK = "disk"
    LOAD = "load"
    TEMPERATURE = "temperature"
    LATENESS = "lateness"
    STORAGE = "storage"


class StorageFault(StrEnum):
    """Why a write check failed."""

    FULL = "full"
    READ_ONLY = "read_only"
    HANGING = "hanging"
    OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class DiskUse:
    """How full the file system of ``path`` is, in percent of what root may use."""

    path: str
    percent: float


@dataclass(frozen=True, kw_only=True)
class StorageError:
    """A write check that failed: where, why, and the system's words."""

    path: str
    fault: StorageFault
    detail: str


@dataclass(frozen=True, kw_only=True)
class HostSample:
    """One measurement; None where a value could not be measured.

    Percent are 0 to 100; ``cpu_percent`` is the mean since the sample before; ``load_per_core`` is
    the 1-minute load average; temperature in °C of the hottest sensor; lateness in seconds.
    """

    cpu_percent: float | None = None
    memory_percent: float | None = None
    disks: tuple[DiskUse, ...] = ()
    load_per_core: float | None = None
    temperature: float | None = None
    sensor: str = ""
    lateness: float | None = None
    storage_error: StorageError | None = None


@dataclass(frozen=True, kw_only=True)
class Limit:
    """``limit`` 0: off. ``duration`` in seconds; ``hysteresis`` in the unit of the limit."""

    limit: float
    duration: float = 30.0
    hysteresis: float = 0.0

    def __post_init__(self) -> None:
        if self.limit < 0 or self.duration < 0 or not 0 <= self.hysteresis <= self.limit:
            raise ValueError(
                f"limit {self.limit}, duration {self.duration}, hysteresis {self.hysteresis}: "
                "none may be negative, and the hysteresis not above the limit"
            )


@dataclass(frozen=True, kw_only=True)
class HealthLimits:
    """UCI section ``limits``: for each KIND the options KIND, KIND_duration and KIND_hysteresis."""

    cpu: Limit = Limit(limit=95.0, duration=30.0, hysteresis=5.0)
    memory: Limit = Limit(limit=95.0, duration=10.0, hysteresis=3.0)
    disk: Limit = Limit(limit=95.0, duration=10.0, hysteresis=2.0)
    load: Limit = Limit(limit=0.0, duration=60.0)
    temperature: Limit = Limit(limit=90.0, duration=30.0, hysteresis=5.0)
    lateness: Limit = Limit(limit=0.0, duration=10.0)

    def of(self, kind: HostKind) -> Limit:
        """Return the limit of a kind; STORAGE has none."""
        limits = {
            HostKind.CPU: self.cpu,
            HostKind.MEMORY: self.memory,
            HostKind.DISK: self.disk,
            HostKind.LOAD: self.load,
            HostKind.TEMPERATURE: self.temperature,
            HostKind.LATENESS: self.lateness,
        }
        return limits[kind]


def limits_from_options(options: Mapping[str, float]) -> HealthLimits:
    """Return limits from option values as in UCI (``cpu``, ``cpu_duration``, ``cpu_hysteresis``).

    What is not given keeps its default; a limit below its default hysteresis gets none. Raises
    ``ValueError`` for values that make no sense.
    """
    defaults = HealthLimits()
    made: dict[str, Limit] = {}
    for kind in HostKind:
        if kind is HostKind.STORAGE:
            continue
        default = defaults.of(kind)
        limit = options.get(kind.value, default.limit)
        made[kind.value] = Limit(
            limit=limit,
            duration=options.get(f"{kind.value}_duration", default.duration),
            hysteresis=options.get(f"{kind.value}_hysteresis", min(default.hysteresis, limit)),
        )
    return HealthLimits(**made)


@dataclass(frozen=True, kw_only=True)
class Abnormality:
    """One thing that is wrong with the host.

    ``value`` is the present one; ``sentence`` and the reason's parameters keep the value at which
    it was declared, so that a lasting abnormality stays one cause. ``since`` is the monotonic time
    at which the limit was reached. ``subject`` is a path or a sensor, or empty.
    """

    kind: HostKind
    value: float
    limit: float
    since: float
    cause: Reason
    subject: str = ""

    @property
    def sentence(self) -> str:
        """One English sentence for a person."""
        return self.cause.text()

    def reason(self, now: float) -> Reason:
        """Return the reason with evidence as of ``now``."""
        unit = _UNITS[self.kind]
        if self.kind is HostKind.STORAGE:
            text = self.sentence
        else:
            text = f"{self.kind.value} now {_number(self.value)}{unit}"
        return Reason(
            code=self.cause.code,
            params=self.cause.params,
            evidence=(Evidence(kind="host", text=text, path="own", age=now - self.since),),
        )


_UNITS: Final[Mapping[HostKind, str]] = {
    HostKind.CPU: " %",
    HostKind.MEMORY: " %",
    HostKind.DISK: " %",
    HostKind.LOAD: " per core",
    HostKind.TEMPERATURE: " °C",
    HostKind.LATENESS: " s",
    HostKind.STORAGE: "",
}

_STORAGE_CODES: Final[Mapping[StorageFault, str]] = {
    StorageFault.FULL: "host_storage_full",
    StorageFault.READ_ONLY: "host_storage_read_only",
    StorageFault.HANGING: "host_storage_hanging",
    StorageFault.OTHER: "host_storage",
}

Key = tuple[HostKind, str]


@dataclass
class _Watch:
    """One value over its limit: since when, and the cause once it is declared abnormal."""

    since: float
    cause: Reason | None = None


@dataclass
class Health:
    """Remembers which values are over their limits, and since when."""

    limits: HealthLimits = field(default_factory=HealthLimits)
    _watches: dict[Key, _Watch] = field(default_factory=dict)

    def update(self, now: float, sample: HostSample) -> tuple[Abnormality, ...]:
        """Take a sample; return all that is abnormal at ``now``, storage first."""
        found: list[Abnormality] = []
        seen: set[Key] = set()
        if sample.storage_error is not None:
            key = (HostKind.STORAGE, sample.storage_error.path)
            seen.add(key)
            found.append(self._storage(now, sample.storage_error, key))
        for kind, subject, value in _values(sample):
            limit = self.limits.of(kind)
            key = (kind, subject)
            if limit.limit <= 0 or not self._is_over(now, key, value, limit):
                continue
            seen.add(key)
            abnormality = self._judge(now, key, value, limit)
            if abnormality is not None:
                found.append(abnormality)
        for key in [key for key in self._watches if key not in seen]:
            del self._watches[key]
        return tuple(found)

    def _is_over(self, now: float, key: Key, value: float, limit: Limit) -> bool:
        watch = self._watches.get(key)
        if watch is None or watch.cause is None:
            return value >= limit.limit
        return value >= limit.limit - limit.hysteresis

    def _judge(self, now: float, key: Key, value: float, limit: Limit) -> Abnormality | None:
        kind, subject = key
        watch = self._watches.setdefault(key, _Watch(now))
        if watch.cause is None:
            if now - watch.since < limit.duration:
                return None
            watch.cause = reason(
                f"host_{kind.value}",
                value=_number(value),
                limit=_number(limit.limit),
                duration=_number(limit.duration),
                subject=subject,
            )
        return Abnormality(
            kind=kind,
            value=value,
            limit=limit.limit,
            since=watch.since,
            cause=watch.cause,
            subject=subject,
        )

    def _storage(self, now: float, error: StorageError, key: Key) -> Abnormality:
        watch = self._watches.setdefault(key, _Watch(now))
        watch.cause = reason(_STORAGE_CODES[error.fault], path=error.path, detail=error.detail)
        return Abnormality(
            kind=HostKind.STORAGE,
            value=1.0,
            limit=0.0,
            since=watch.since,
            cause=watch.cause,
            subject=error.path,
        )


def _values(sample: HostSample) -> Iterator[tuple[HostKind, str, float]]:
    for disk in sample.disks:
        yield HostKind.DISK, disk.path, disk.percent
    for kind, subject, value in (
        (HostKind.MEMORY, "", sample.memory_percent),
        (HostKind.CPU, "", sample.cpu_percent),
        (HostKind.TEMPERATURE, sample.sensor, sample.temperature),
        (HostKind.LOAD, "", sample.load_per_core),
        (HostKind.LATENESS, "", sample.lateness),
    ):
        if value is not None:
            yield kind, subject, value


def _number(value: float) -> str:
    """Return a value as people write it: 97, 2.5, 0.25."""
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.2f}".rstrip("0").rstrip(".")
