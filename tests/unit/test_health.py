"""Limits with duration and hysteresis, with time handed in."""

from __future__ import annotations

import pytest

from controlone_ha.core.health import (
    Abnormality,
    DiskUse,
    Health,
    HealthLimits,
    HostKind,
    HostSample,
    Limit,
    StorageError,
    StorageFault,
    limits_from_options,
)

CPU = HealthLimits(cpu=Limit(limit=95.0, duration=30.0, hysteresis=5.0))


def run(health: Health, values: list[tuple[float, float | None]]) -> list[tuple[float, bool]]:
    """Feed processor figures; return at which times it was abnormal."""
    return [(now, bool(health.update(now, HostSample(cpu_percent=value)))) for now, value in values]


@pytest.mark.parametrize(
    ("values", "abnormal_at"),
    [
        ([(0, 99), (10, 99), (20, 99), (29, 99)], []),
        ([(0, 99), (10, 99), (20, 99), (30, 99), (40, 99)], [30, 40]),
        ([(0, 95), (30, 95)], [30]),
        ([(0, 94.9), (30, 94.9), (60, 94.9)], []),
        ([(0, 99), (20, 94), (40, 99), (60, 99)], []),
        ([(0, 99), (20, 94), (40, 99), (70, 99)], [70]),
        ([(0, 99), (30, 99), (40, 92), (50, 90), (60, 89), (70, 96)], [30, 40, 50]),
        ([(0, 99), (30, 99), (40, None), (50, 99)], [30]),
        ([(0, None), (30, None)], []),
    ],
)
def test_F1_a_value_is_abnormal_after_its_duration_and_until_below_the_hysteresis(
    values: list[tuple[float, float | None]], abnormal_at: list[float]
) -> None:
    assert [now for now, is_bad in run(Health(CPU), values) if is_bad] == abnormal_at


def test_F1_an_abnormality_tells_value_limit_since_and_a_sentence() -> None:
    health = Health(CPU)
    health.update(100.0, HostSample(cpu_percent=99.0))
    (first,) = health.update(130.0, HostSample(cpu_percent=97.4))
    (second,) = health.update(140.0, HostSample(cpu_percent=100.0))
    assert (first.kind, first.value, first.limit, first.since) == (HostKind.CPU, 97.4, 95, 100)
    assert second.value == 100.0
    assert first.sentence == "processor 97 % busy for 30 s (limit 95 %)"
    # One lasting abnormality is one cause, whatever its value does.
    assert second.reason(140.0).is_same_cause(first.reason(130.0))
    (evidence,) = second.reason(140.0).evidence
    assert (evidence.kind, evidence.text, evidence.age) == ("host", "cpu now 100 %", 40.0)
    assert "processador 97 %" in first.cause.text("pt-BR")


def test_F1_each_kind_has_its_sentence_in_both_languages() -> None:
    limits = HealthLimits(
        cpu=Limit(limit=1, duration=0),
        memory=Limit(limit=1, duration=0),
        disk=Limit(limit=1, duration=0),
        load=Limit(limit=1, duration=0),
        temperature=Limit(limit=1, duration=0),
        lateness=Limit(limit=1, duration=0),
    )
    sample = HostSample(
        cpu_percent=50.0,
        memory_percent=50.0,
        disks=(DiskUse(path="/srv", percent=50.0),),
        load_per_core=2.5,
        temperature=70.0,
        sensor="soc",
        lateness=1.25,
        storage_error=StorageError(path="/etc", fault=StorageFault.OTHER, detail="I/O error"),
    )
    found = Health(limits).update(0.0, sample)
    assert {one.kind for one in found} == set(HostKind)
    for one in found:
        english, portuguese = one.cause.text("en"), one.cause.text("pt")
        assert english != portuguese
        assert "{" not in english + portuguese
        assert not english.startswith("host_")


def test_disks_are_judged_one_by_one() -> None:
    health = Health(HealthLimits(disk=Limit(limit=90.0, duration=10.0, hysteresis=2.0)))

    def at(now: float, first: float, second: float) -> list[str]:
        disks = (DiskUse(path="/a", percent=first), DiskUse(path="/b", percent=second))
        return [one.subject for one in health.update(now, HostSample(disks=disks))]

    assert at(0, 95, 50) == []
    assert at(10, 95, 95) == ["/a"]
    assert at(20, 89, 95) == ["/a", "/b"]
    assert at(30, 80, 95) == ["/b"]
    assert [one.subject for one in health.update(40.0, HostSample())] == []


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (StorageFault.FULL, "disk full: /etc/controlone takes no more data"),
        (StorageFault.READ_ONLY, "disk of /etc/controlone is read-only"),
        (StorageFault.HANGING, "disk of /etc/controlone does not answer (detail)"),
        (StorageFault.OTHER, "/etc/controlone cannot be written (detail)"),
    ],
)
def test_F2_storage_that_cannot_be_written_is_abnormal_at_once(
    fault: StorageFault, sentence: str
) -> None:
    health = Health()
    error = StorageError(path="/etc/controlone", fault=fault, detail="detail")
    (found,) = health.update(5.0, HostSample(storage_error=error))
    assert (found.kind, found.since, found.sentence) == (HostKind.STORAGE, 5.0, sentence)
    (later,) = health.update(15.0, HostSample(storage_error=error))
    assert later.since == 5.0
    assert health.update(25.0, HostSample()) == ()


def test_a_limit_of_zero_is_off() -> None:
    health = Health(HealthLimits(cpu=Limit(limit=0.0, duration=0.0)))
    assert health.update(0.0, HostSample(cpu_percent=100.0)) == ()


def test_limits_changed_while_running_count_at_once() -> None:
    health = Health(CPU)
    run(health, [(0, 90), (30, 90)])
    health.limits = HealthLimits(cpu=Limit(limit=80.0, duration=0.0))
    assert [one.kind for one in health.update(40.0, HostSample(cpu_percent=90.0))] == [HostKind.CPU]


def test_defaults_are_those_of_the_documentation() -> None:
    limits = HealthLimits()
    assert (limits.cpu.limit, limits.cpu.duration) == (95.0, 30.0)
    assert [limits.memory.limit, limits.disk.limit, limits.temperature.limit] == [95, 95, 90]
    assert limits.load.limit == 0


def test_options_of_the_section_limits_become_limits() -> None:
    limits = limits_from_options({"cpu": 80, "cpu_duration": 5, "memory": 2, "load": 4})
    assert limits.cpu == Limit(limit=80, duration=5, hysteresis=5)
    assert limits.memory == Limit(limit=2, duration=10, hysteresis=2)
    assert limits.load.limit == 4
    assert limits.disk == HealthLimits().disk


@pytest.mark.parametrize(
    "values",
    [{"limit": -1.0}, {"limit": 5.0, "duration": -1.0}, {"limit": 5.0, "hysteresis": 6.0}],
)
def test_limits_that_make_no_sense_cannot_be_made(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="negative"):
        Limit(**values)


def test_storage_comes_first_then_disk_memory_processor() -> None:
    limits = HealthLimits(
        cpu=Limit(limit=1, duration=0),
        memory=Limit(limit=1, duration=0),
        disk=Limit(limit=1, duration=0),
    )
    error = StorageError(path="/x", fault=StorageFault.FULL, detail="")
    found: tuple[Abnormality, ...] = Health(limits).update(
        0.0,
        HostSample(
            cpu_percent=9,
            memory_percent=9,
            disks=(DiskUse(path="/x", percent=100),),
            storage_error=error,
        ),
    )
    assert [one.kind.value for one in found] == ["storage", "disk", "memory", "cpu"]
