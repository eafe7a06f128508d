"""Random schedules, the mutants that show that the rules look, and what once failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.batch import run_seed, run_seeds
from tests.simulation.generate import random_schedule
from tests.simulation.mutants import MUTANTS, mutant
from tests.simulation.run import run
from tests.simulation.schedule import Fault, from_json
from tests.simulation.shrink import fewer_faults, shrink

SCHEDULES = 150
REGRESSIONS = sorted((Path(__file__).parent / "regressions").glob("*.json"))


@pytest.mark.timeout(900)
def test_no_random_schedule_breaks_a_rule() -> None:
    broken = [
        f"seed {seed}: {result.broken}"
        for seed, result in run_seeds(range(SCHEDULES))
        if result.broken
    ]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(("size", "seed"), [(2, 1), (3, 2), (10, 3), (20, 4)])
def test_no_random_schedule_of_another_size_breaks_a_rule(size: int, seed: int) -> None:
    assert run_seed(seed, size=size)[1].broken is None


FOUND_BY = {
    "silence_suffices": {"silence_needs_a_witness", "sighting_vetoes", "isolated_judges_nobody"},
    "rank_ignored": {"rank_gives_order"},
    "frozen_acts": {"rereads_first"},
    "silence_takes": {"never_steals"},
}
# Where to begin to look: a needle is found sooner near where it was found before.
LOOK_FROM = {"frozen_acts": 700}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_mutant_is_caught_by_the_rule_it_breaks(name: str) -> None:
    first = LOOK_FROM.get(name, 0)
    with mutant(name):
        for seed in range(first, first + SCHEDULES):
            broken = run(random_schedule(seed)).broken
            if broken is not None:
                break
        else:
            pytest.fail(f"{name} ({MUTANTS[name]}) was not noticed in {SCHEDULES} schedules")
    assert broken.rule in FOUND_BY[name], broken
    assert run(random_schedule(seed)).broken is None, "the mutant outlived its context"


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in REGRESSIONS])
def test_a_schedule_that_once_broke_a_rule_breaks_none(path: Path) -> None:
    result = run(from_json(path.read_text()), trace=True)
    assert result.broken is None, "\n".join([*result.trace, str(result.broken)])


def test_the_same_seed_tells_the_same_story() -> None:
    schedule = random_schedule(3)
    first, second = run(schedule, trace=True), run(schedule, trace=True)
    assert first.trace == second.trace and len(first.trace) > 20


@pytest.mark.parametrize("seed", range(5))
def test_a_schedule_goes_to_json_and_back(seed: int) -> None:
    schedule = random_schedule(seed)
    assert from_json(schedule.to_json()) == schedule


def test_shrinking_keeps_the_faults_that_matter_and_no_other() -> None:
    schedule = random_schedule(0).without(
        tuple(Fault(at=float(number), kind="kill", node=f"n{number}") for number in range(9))
    )
    needed = {schedule.faults[2], schedule.faults[7]}
    found = fewer_faults(schedule, lambda candidate: needed <= set(candidate.faults))
    assert set(found) == needed


@pytest.mark.timeout(600)
def test_a_failing_schedule_is_made_small_and_can_be_replayed() -> None:
    with mutant("rank_ignored"):
        failing = next(
            schedule
            for schedule in map(random_schedule, range(SCHEDULES))
            if len(schedule.faults) >= 3 and run(schedule).broken
        )
        small = shrink(failing)
        replayed = run(from_json(small.to_json()))
    assert len(small.faults) < len(failing.faults)
    assert replayed.broken is not None and str(replayed.broken) == small.note
