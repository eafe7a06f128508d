"""The decision rules, row by row: role, force, pause, standing still, standby, active, failback."""

from __future__ import annotations

from typing import Any

import pytest

from controlone_ha.core.decide import candidates_for, decide, why_not
from controlone_ha.core.model import Role, Rules, State, Verdict, Yielding
from controlone_ha.core.reasons import reason
from tests.unit.core_builders import (
    ABNORMAL,
    FIGURE,
    NOW,
    figure,
    make_own,
    make_peer,
    make_snapshot,
)

COVERS_M1 = frozenset({"m1"})


@pytest.mark.parametrize(
    ("role", "state", "code"),
    [
        (Role.MASTER, State.ACTIVE, "role_master"),
        (Role.SLAVE, State.STANDBY, "role_slave"),
        (Role.PASSIVE, State.PASSIVE, "role_passive"),
    ],
)
def test_C1_a_node_starts_in_the_state_of_its_role(role: Role, state: State, code: str) -> None:
    decision = decide(make_snapshot(make_own("n", role, state=State.STARTING)))
    assert (decision.state, decision.reason.code) == (state, code)


@pytest.mark.parametrize("state", list(State))
def test_C1_a_passive_node_runs_neither_server_whatever_it_was(state: State) -> None:
    own = make_own("p1", Role.PASSIVE, state=state, forced="active", forced_by="root")
    failed = make_peer("m1", Role.MASTER, Verdict.FAILED)
    decision = decide(make_snapshot(own, failed))
    assert decision.state is State.PASSIVE
    assert not decision.console_enabled and not decision.conference_running


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("state", list(State))
def test_a_node_forced_passive_runs_neither_server_even_when_paused(
    role: Role, state: State
) -> None:
    own = make_own("n", role, state=state, forced="passive", forced_by="root", paused_by="root")
    decision = decide(make_snapshot(own, make_peer("m1", Role.MASTER, Verdict.FAILED)))
    assert decision.state is State.PASSIVE
    assert not decision.console_enabled and not decision.conference_running


@pytest.mark.parametrize("role", [Role.MASTER, Role.SLAVE])
def test_a_node_released_from_forced_passive_starts_as_its_role_says(role: Role) -> None:
    decision = decide(make_snapshot(make_own("n", role, state=State.PASSIVE)))
    assert decision.state is (State.ACTIVE if role is Role.MASTER else State.STANDBY)


def test_G4_a_slave_forced_active_serves_and_says_who_ordered_it() -> None:
    own = make_own(forced="active", forced_by="root")
    decision = decide(make_snapshot(own, make_peer("m1")))
    assert decision.state is State.ACTIVE
    assert decision.reason.params["by"] == "root"


def test_a_node_forced_active_serves_on_as_degraded_when_abnormal() -> None:
    own = make_own(forced="active", forced_by="root", abnormalities=(ABNORMAL,))
    offering = make_peer("m1", consents=frozenset({"s1"}), offers=frozenset({"s1"}))
    decision = decide(make_snapshot(own, offering))
    assert (decision.state, decision.reason.code) == (State.DEGRADED, "abnormal_forced")
    assert decision.yielding is Yielding.NO


@pytest.mark.parametrize(
    "state", [State.ACTIVE, State.DEGRADED, State.DISABLED, State.STANDBY, State.PASSIVE]
)
def test_a_paused_node_stays_what_it_is(state: State) -> None:
    own = make_own(
        state=state, paused_by="root", covering=COVERS_M1, yielding=Yielding.NO, healthy_at=0.0
    )
    decision = decide(make_snapshot(own, make_peer("m1", Role.MASTER, Verdict.FAILED)))
    assert (decision.state, decision.covering) == (state, COVERS_M1)
    assert decision.reason.code == "paused"


def test_a_paused_node_does_not_ask_to_be_replaced_because_it_would_not_give_way() -> None:
    own = make_own(state=State.DEGRADED, yielding=Yielding.ASKING, paused_by="root")
    assert decide(make_snapshot(own, make_peer("m1"))).yielding is Yielding.NO
    out = make_own(state=State.DISABLED, yielding=Yielding.YIELDED, paused_by="root")
    assert decide(make_snapshot(out, make_peer("m1"))).yielding is Yielding.YIELDED


def test_a_paused_slave_that_boots_starts_as_standby() -> None:
    own = make_own(state=State.STARTING, paused_by="root")
    assert decide(make_snapshot(own)).state is State.STANDBY


def test_G4_an_order_to_be_active_is_obeyed_by_a_paused_node_because_it_is_not_automatic() -> None:
    own = make_own(paused_by="root", forced="active", forced_by="root")
    assert decide(make_snapshot(own, make_peer("m1"))).state is State.ACTIVE


def test_a_paused_node_is_published_as_not_eligible() -> None:
    decision = decide(make_snapshot(make_own(paused_by="root"), make_peer("m1")))
    assert decision.ineligible is not None and decision.ineligible.code == "own_paused"


@pytest.mark.parametrize("state", [State.ACTIVE, State.DISABLED, State.STANDBY])
def test_a_node_that_stood_still_changes_nothing_before_it_has_reread(state: State) -> None:
    own = make_own(state=state, rereading_gap=12.34, covering=COVERS_M1)
    decision = decide(make_snapshot(own, make_peer("m1", Role.MASTER, Verdict.FAILED)))
    assert (decision.state, decision.covering) == (state, COVERS_M1)
    assert decision.reason.code == "rereading" and decision.reason.params["gap"] == 12.3


# --- standby: what activates it ---------------------------------------------------------------


def test_F4_a_standby_activates_when_the_ports_of_its_peer_refuse() -> None:
    decision = decide(make_snapshot(make_own(), make_peer("m1", verdict=Verdict.FAILED)))
    assert (decision.state, decision.reason.code) == (State.ACTIVE, "peer_failed")
    assert decision.covering == COVERS_M1


def test_F3_a_standby_activates_when_one_service_fails_and_no_ha_is_there_to_recover_it() -> None:
    peer = make_peer("m1", verdict=Verdict.SERVICE_FAILED, failed_service="conference")
    decision = decide(make_snapshot(make_own(), peer))
    assert (decision.state, decision.reason.code) == (State.ACTIVE, "peer_service_failed")
    assert decision.reason.params["service"] == "conference"


def test_a_peer_whose_ha_is_gone_but_whose_services_answer_has_not_failed() -> None:
    decision = decide(make_snapshot(make_own(), make_peer("m1", verdict=Verdict.NO_DAEMON)))
    assert decision.state is State.STANDBY


def test_a_peer_that_never_answered_is_a_configuration_error_and_no_failure() -> None:
    snapshot = make_snapshot(make_own(), make_peer("m1", None, Verdict.UNKNOWN))
    assert decide(snapshot).state is State.STANDBY
    assert why_not(snapshot, "m1")[0].code == "never_answered"


def test_F4_with_two_nodes_silence_activates() -> None:
    decision = decide(make_snapshot(make_own(), make_peer("m1", verdict=Verdict.SILENT)))
    assert (decision.state, decision.reason.code) == (State.ACTIVE, "peer_silent_two_nodes")


def test_C2_a_node_takes_over_from_those_it_monitors_only() -> None:
    peer = make_peer("m1", verdict=Verdict.FAILED, is_monitored=False)
    snapshot = make_snapshot(make_own(), peer)
    assert decide(snapshot).state is State.STANDBY
    assert "not_monitored" in [item.code for item in why_not(snapshot, "m1")]


@pytest.mark.parametrize("verdict", [Verdict.FAILED, Verdict.SILENT])
def test_a_slave_that_was_standby_when_it_died_is_not_replaced(verdict: Verdict) -> None:
    decision = decide(
        make_snapshot(make_own(), make_peer("m1"), make_peer("s2", Role.SLAVE, verdict))
    )
    assert decision.state is State.STANDBY


def test_F4_a_slave_that_was_active_when_it_died_is_replaced() -> None:
    dead = make_peer("s2", Role.SLAVE, Verdict.FAILED, state=State.ACTIVE)
    assert decide(make_snapshot(make_own(), make_peer("m1"), dead)).state is State.ACTIVE


def test_a_dead_passive_node_is_replaced_by_nobody() -> None:
    dead = make_peer("p1", Role.PASSIVE, Verdict.FAILED)
    assert decide(make_snapshot(make_own(), make_peer("m1"), dead)).state is State.STANDBY


def test_F2_a_standby_activates_for_a_peer_that_disabled_its_console_server() -> None:
    sick = make_peer("m1", state=State.DISABLED, yielding=Yielding.YIELDED, reason=ABNORMAL)
    decision = decide(make_snapshot(make_own(), sick))
    assert (decision.state, decision.reason.code) == (State.ACTIVE, "peer_yielded")
    assert "Conference Server does not run" in decision.reason.text()


def test_a_standby_does_not_activate_for_a_degraded_peer_which_still_serves() -> None:
    sick = make_peer("m1", state=State.DEGRADED, yielding=Yielding.ASKING)
    assert decide(make_snapshot(make_own(), sick)).state is State.STANDBY


def test_G4_a_standby_activates_for_a_master_that_was_forced_passive() -> None:
    forced = make_peer("m1", state=State.PASSIVE, forced="passive")
    decision = decide(make_snapshot(make_own(), forced))
    assert (decision.state, decision.reason.code) == (State.ACTIVE, "peer_forced_passive")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"paused_by": "root"}, "own_paused"),
        ({"has_network": False}, "own_links"),
        ({"is_late": True}, "own_late"),
        ({"is_licensed": False}, "not_licensed"),
        ({"abnormalities": (ABNORMAL,)}, "own_abnormal"),
    ],
)
def test_C6_a_node_that_is_not_eligible_does_not_take_over_and_says_why(
    change: dict[str, Any], code: str
) -> None:
    snapshot = make_snapshot(make_own(**change), make_peer("m1", verdict=Verdict.FAILED))
    decision = decide(snapshot)
    assert decision.state is State.STANDBY
    assert decision.ineligible is not None and decision.ineligible.code == code
    assert code in [item.code for item in why_not(snapshot, "m1")]


def test_the_second_in_rank_waits_a_slot_and_says_for_whom() -> None:
    better = make_peer("s0", Role.SLAVE, covers=COVERS_M1, priority=200)
    failed = make_peer("m1", verdict=Verdict.FAILED, since_at=NOW)
    decision = decide(make_snapshot(make_own(), failed, better))
    assert (decision.state, decision.reason.code) == (State.STANDBY, "waiting_rank")
    assert decision.reason.params["better"] == "s0"
    assert decision.wake_at == NOW + Rules().slot


def test_the_second_in_rank_activates_when_its_slot_has_passed_without_a_claim() -> None:
    better = make_peer("s0", Role.SLAVE, covers=COVERS_M1, priority=200)
    failed = make_peer("m1", verdict=Verdict.FAILED, since_at=NOW - 1)
    first = decide(make_snapshot(make_own(), failed, better, now=NOW - 1))
    own = make_own(needs=first.needs)
    assert decide(make_snapshot(own, failed, better, now=NOW - 0.1)).state is State.STANDBY
    assert decide(make_snapshot(own, failed, better, now=NOW)).state is State.ACTIVE


def test_the_slots_count_from_when_the_need_began_not_from_when_the_peer_was_last_seen_well() -> (
    None
):
    better = make_peer("s0", Role.SLAVE, covers=COVERS_M1, priority=200)
    sick = make_peer("m1", state=State.DISABLED, yielding=Yielding.YIELDED, since_at=NOW - 500)
    decision = decide(make_snapshot(make_own(), sick, better))
    assert (decision.state, decision.reason.code) == (State.STANDBY, "waiting_rank")


def test_a_need_that_ended_starts_anew() -> None:
    failed = make_peer("m1", verdict=Verdict.FAILED)
    assert dict(decide(make_snapshot(make_own(is_late=True), failed)).needs) == {"m1": NOW}
    own = make_own(needs={"m1": NOW})
    assert dict(decide(make_snapshot(own, make_peer("m1"))).needs) == {}


def test_a_waiting_node_stands_down_on_a_claim() -> None:
    claiming = make_peer("s0", Role.SLAVE, state=State.ACTIVE, covering=COVERS_M1)
    failed = make_peer("m1", verdict=Verdict.FAILED)
    decision = decide(make_snapshot(make_own(), failed, claiming))
    assert (decision.state, decision.reason.code) == (State.STANDBY, "covered_by")


def test_candidates_are_listed_best_first() -> None:
    snapshot = make_snapshot(
        make_own("m2", Role.MASTER),
        make_peer("m1", verdict=Verdict.FAILED),
        make_peer("s1", Role.SLAVE, covers=COVERS_M1),
        make_peer("s0", Role.SLAVE, covers=COVERS_M1, priority=90),
        make_peer("s2", Role.SLAVE, covers=COVERS_M1, ineligible=reason("own_paused")),
    )
    assert [peer.name for peer in candidates_for(snapshot, "m1")] == ["s1", "s0"]


def test_nothing_keeps_the_only_standby_from_taking_over() -> None:
    assert why_not(make_snapshot(make_own(), make_peer("m1", verdict=Verdict.FAILED)), "m1") == []


def test_a_node_whose_role_became_master_while_it_was_standby_becomes_active() -> None:
    own = make_own("n", Role.MASTER, state=State.STANDBY)
    assert decide(make_snapshot(own, make_peer("m1"))).state is State.ACTIVE


# --- active slave: failback ---------------------------------------------------------------------


def active_slave(**changes: Any):
    return make_own(state=State.ACTIVE, covering=COVERS_M1, cause=reason("peer_failed"), **changes)


def test_F4_a_slave_stays_active_while_the_peer_it_covers_is_away() -> None:
    decision = decide(make_snapshot(active_slave(), make_peer("m1", verdict=Verdict.FAILED)))
    assert (decision.state, decision.covering) == (State.ACTIVE, COVERS_M1)


def test_F4_with_failback_1_a_slave_waits_the_delay_then_is_standby_again() -> None:
    back = make_peer("m1", serving_at=NOW)
    waiting = decide(make_snapshot(active_slave(), back))
    assert (waiting.state, waiting.reason.code) == (State.ACTIVE, "failback_wait")
    assert waiting.wake_at == NOW + Rules().failback_delay
    done = decide(make_snapshot(active_slave(), back, now=waiting.wake_at))
    assert (done.state, done.reason.code) == (State.STANDBY, "failed_back")
    assert done.covering == frozenset()


@pytest.mark.parametrize(("returns", "times"), [(0, 1), (1, 1), (2, 2), (3, 4), (5, 16), (99, 16)])
def test_F4_a_peer_that_keeps_coming_back_must_be_stable_for_longer(
    returns: int, times: int
) -> None:
    back = make_peer("m1", serving_at=NOW, returns=returns)
    decision = decide(make_snapshot(active_slave(), back))
    assert decision.wake_at == NOW + times * Rules().failback_delay
    assert decision.reason.code == ("failback_wait" if times == 1 else "failback_flapping")
    undamped = decide(make_snapshot(active_slave(), back, rules=Rules(failback_damping=1)))
    assert undamped.wake_at == NOW + Rules().failback_delay


@pytest.mark.parametrize("load", [{"consoles": 1}, {"calls": 1}])
def test_F4_failback_waits_until_the_last_console_and_call_have_left(load: dict[str, int]) -> None:
    back = make_peer("m1", serving_at=NOW - 1000)
    decision = decide(make_snapshot(active_slave(**load), back))
    assert (decision.state, decision.reason.code) == (State.ACTIVE, "failback_busy")


def test_F4_with_failback_0_a_slave_stays_active() -> None:
    back = make_peer("m1", serving_at=NOW - 1000)
    decision = decide(make_snapshot(active_slave(), back, rules=Rules(failback=False)))
    assert (decision.state, decision.reason.code) == (State.ACTIVE, "failback_off")


def test_a_slave_does_not_fail_back_to_a_peer_that_is_back_but_does_not_serve() -> None:
    back = make_peer("m1", state=State.DISABLED, yielding=Yielding.YIELDED)
    assert decide(make_snapshot(active_slave(), back)).state is State.ACTIVE


def test_a_slave_that_replaced_another_slave_fails_back_when_that_one_is_standby_again() -> None:
    """The other slave starts as standby, so it will never be seen serving."""
    own = make_own(state=State.ACTIVE, covering=frozenset({"s2"}))
    returned = make_peer("s2", Role.SLAVE)
    decision = decide(make_snapshot(own, make_peer("m1"), returned))
    assert decision.state is State.STANDBY


def test_a_slave_that_replaced_another_slave_inherits_whom_that_one_covered() -> None:
    dead = make_peer("s2", Role.SLAVE, Verdict.FAILED, state=State.ACTIVE, covering=COVERS_M1)
    gone = make_peer("m1", verdict=Verdict.FAILED)
    decision = decide(make_snapshot(make_own(), dead, gone))
    assert decision.covering == {"m1", "s2"}
    alone = decide(make_snapshot(make_own(), dead, make_peer("m1", is_monitored=False)))
    assert alone.covering == {"s2"}  # m1 is left to those who cover it (C2)
    own = make_own(state=State.ACTIVE, covering=decision.covering)
    returned = make_peer("s2", Role.SLAVE)
    assert decide(make_snapshot(own, gone, returned)).state is State.ACTIVE


def test_a_slave_does_not_fail_back_while_another_monitored_peer_needs_it() -> None:
    back = make_peer("m1", serving_at=NOW - 1000)
    other = make_peer("m2", verdict=Verdict.FAILED)
    assert decide(make_snapshot(active_slave(), back, other)).state is State.ACTIVE


def test_a_slave_released_from_force_is_standby_when_everybody_serves() -> None:
    own = make_own(state=State.ACTIVE, cause=reason("forced_active", by="root"))
    decision = decide(make_snapshot(own, make_peer("m1", serving_at=NOW - 1000)))
    assert decision.state is State.STANDBY


def test_F4_a_master_stays_active_when_its_peer_is_back() -> None:
    own = make_own("m2", Role.MASTER, covering=COVERS_M1)
    decision = decide(make_snapshot(own, make_peer("m1", serving_at=NOW - 1000)))
    assert decision.state is State.ACTIVE


# --- the five-node figure ---------------------------------------------------------------------


@pytest.mark.parametrize("owner", list(FIGURE))
def test_F3_a_partition_between_the_sites_activates_nobody(owner: str) -> None:
    here = FIGURE[owner][1]
    away = tuple(name for name, (_, site) in FIGURE.items() if site != here)
    near = tuple(name for name in FIGURE if name not in away and name != owner)
    snapshot = figure(owner, silent=away, denied_by=near, since_at=NOW - 60)
    before = snapshot.own.state
    decision = decide(snapshot)
    assert decision.state is before
    assert decision.reason.code not in ("peer_failed", "peer_silent", "site_silent_no_active")


@pytest.mark.parametrize("owner", list(FIGURE))
def test_C3_an_isolated_node_judges_nobody(owner: str) -> None:
    others = tuple(name for name in FIGURE if name != owner)
    snapshot = figure(owner, silent=others, since_at=NOW - 60)
    assert decide(snapshot).state is snapshot.own.state
    if owner == "s1":
        assert decide(snapshot).reason.code == "isolated"


def test_F4_the_slave_of_its_site_replaces_a_master_that_is_silent_to_everybody() -> None:
    snapshot = figure("s1", silent=("m1",), denied_by=("m2", "s2", "p1"))
    decision = decide(snapshot)
    assert (decision.state, decision.covering) == (State.ACTIVE, COVERS_M1)
    assert decision.reason.code == "peer_silent"
    assert decision.reason.params["witnesses"] == "m2, p1, s2"


def test_F4_the_other_slave_waits_for_the_better_ranked_one() -> None:
    snapshot = figure("s2", silent=("m1",), denied_by=("m2", "s1", "p1"))
    assert decide(snapshot).reason.code == "waiting_rank"


def test_the_same_snapshot_gives_the_same_decision() -> None:
    snapshot = figure("s1", silent=("m1",), denied_by=("m2", "s2", "p1"))
    assert decide(snapshot) == decide(snapshot)
