"""What the documents promise of named situations, at many moments of the cluster's rhythm."""

from __future__ import annotations

import dataclasses

import pytest

from controlone_ha.core.model import State
from tests.simulation.scenarios import Story, crash_bound, cut_bound, on_figure, pair
from tests.simulation.schedule import Fault

SEEDS = range(6)
INTERVALS = [10.0, 1.0]

at_many_moments = pytest.mark.parametrize("seed", SEEDS)
at_both_settings = pytest.mark.parametrize("interval", INTERVALS)


@at_many_moments
@at_both_settings
def test_F4_a_killed_master_is_replaced_by_the_slave_of_best_rank_within_the_bound(
    seed: int, interval: float
) -> None:
    schedule = on_figure(
        seed, Fault(at=0.0, kind="kill", node="m1", duration=50.0), interval=interval
    )
    story = Story(schedule)
    took = story.time_until("s1", State.ACTIVE)
    assert took is not None and took <= crash_bound(schedule), story.trace
    assert story.after(10.0).state("s2") is State.STANDBY, story.trace


@at_many_moments
@at_both_settings
def test_F4_a_master_that_goes_dark_is_replaced_within_the_bound(
    seed: int, interval: float
) -> None:
    dark = Fault(at=0.0, kind="power", node="m1", duration=50.0)
    schedule = on_figure(seed, dark, interval=interval)
    story = Story(schedule)
    took = story.time_until("s1", State.ACTIVE)
    assert took is not None and took <= cut_bound(schedule), (took, story.trace)
    assert story.after(15.0).state("s2") is State.STANDBY, story.trace


@at_many_moments
@at_both_settings
def test_F4_of_two_nodes_the_slave_replaces_the_master_that_goes_dark(
    seed: int, interval: float
) -> None:
    schedule = pair(seed, Fault(at=0.0, kind="power", node="m1", duration=50.0), interval=interval)
    story = Story(schedule)
    took = story.time_until("s1", State.ACTIVE)
    assert took is not None and took <= cut_bound(schedule), (took, story.trace)


@at_many_moments
@at_both_settings
def test_F3_a_partition_between_the_sites_and_its_end_activate_nobody(
    seed: int, interval: float
) -> None:
    cut = Fault(at=0.0, kind="partition", text="m1,s1", duration=25.0)
    story = Story(on_figure(seed, cut, interval=interval))
    before = story.states()
    for second in range(1, 45):
        assert story.after(float(second)).states() == before, story.trace
    assert "failed" not in story.trace


@at_many_moments
@pytest.mark.parametrize("name", ["m1", "s1", "m2", "s2", "p1"])
def test_C3_an_isolated_node_says_of_nobody_that_it_failed_and_changes_nothing(
    seed: int, name: str
) -> None:
    cut = Fault(at=0.0, kind="partition", text=name, duration=25.0)
    story = Story(on_figure(seed, cut))
    before = story.state(name)
    for second in range(1, 24):
        assert story.after(float(second)).state(name) is before, story.trace
    said = [line for line in story.trace.splitlines() if f"{name}:" in line]
    assert not any("failed" in line for line in said), said


@at_many_moments
def test_F3_when_only_the_ha_of_a_master_is_gone_nobody_takes_over(seed: int) -> None:
    story = Story(on_figure(seed, Fault(at=0.0, kind="kill_ha", node="m1", duration=25.0)))
    before = {name: state for name, state in story.states().items() if name != "m1"}
    for second in range(1, 24):
        states = story.after(float(second)).states()
        assert {name: states[name] for name in before} == before, story.trace


@at_many_moments
@pytest.mark.parametrize("service", ["server", "conference"])
def test_F2_a_master_whose_service_cannot_be_started_gives_way_and_comes_back(
    seed: int, service: str
) -> None:
    crash = Fault(at=0.0, kind="crash", node="m1", text=service, duration=20.0)
    story = Story(on_figure(seed, crash))
    gave_way = story.time_until("m1", State.DISABLED, within=1.0)
    assert gave_way is not None, story.trace
    assert story.time_until("s1", State.ACTIVE, within=2.0) is not None, story.trace
    story.after(19.0)
    assert story.state("m1") is State.DISABLED and story.state("s2") is State.STANDBY
    story.after(60.0)
    assert story.state("m1") is State.ACTIVE and story.state("s1") is State.STANDBY, story.trace


@at_many_moments
def test_F2_the_second_abnormal_node_serves_on_as_degraded(seed: int) -> None:
    story = Story(
        on_figure(
            seed,
            Fault(at=0.0, kind="crash", node="m1", text="conference", duration=20.0),
            Fault(at=2.0, kind="abnormal", node="m2", duration=10.0),
        )
    )
    story.after(5.0)
    assert story.state("m1") is State.DISABLED
    assert (story.state("m2"), story.code("m2")) == (State.DEGRADED, "abnormal_second")


@at_many_moments
@pytest.mark.parametrize(("failback", "state"), [(True, State.STANDBY), (False, State.ACTIVE)])
def test_F4_after_the_master_is_back_failback_says_what_the_slave_becomes(
    seed: int, failback: bool, state: State
) -> None:
    schedule = on_figure(seed, Fault(at=0.0, kind="kill", node="m1", duration=10.0))
    nodes = tuple(dataclasses.replace(spec, failback=failback) for spec in schedule.nodes)
    story = Story(dataclasses.replace(schedule, nodes=nodes))
    assert story.after(5.0).state("s1") is State.ACTIVE
    assert story.after(40.0).state("s1") is state, story.trace
    assert story.state("m1") is State.ACTIVE


@at_many_moments
def test_G4_a_forced_state_and_a_pause_outlive_ha_and_the_machine(seed: int) -> None:
    story = Story(
        on_figure(
            seed,
            Fault(at=0.0, kind="order", node="m1", text="force_passive"),
            Fault(at=0.0, kind="order", node="s2", text="pause"),
            Fault(at=2.0, kind="kill_ha", node="m1", duration=1.0),
            Fault(at=2.0, kind="power", node="s2", duration=1.0),
            Fault(at=10.0, kind="kill", node="s1", duration=30.0),
        )
    )
    assert story.after(9.0).state("m1") is State.PASSIVE
    assert story.state("s1") is State.ACTIVE
    story.after(25.0)
    assert story.state("m1") is State.PASSIVE
    assert (story.state("s2"), story.code("s2")) == (State.STANDBY, "paused")


@at_many_moments
def test_a_slave_that_stood_still_while_another_took_over_hears_of_it_before_it_acts(
    seed: int,
) -> None:
    story = Story(
        on_figure(
            seed,
            Fault(at=0.0, kind="freeze_ha", node="s1", duration=30.0),
            Fault(at=5.0, kind="kill", node="m1", duration=40.0),
        )
    )
    assert story.after(20.0).state("s2") is State.ACTIVE, story.trace
    story.after(44.0)
    assert story.state("s1") is State.STANDBY, story.trace
    assert story.code("s1") == "covered_by"
