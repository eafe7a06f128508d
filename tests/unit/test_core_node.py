"""The node as a whole: events in, effects out; restarts, force, standing still, wake-ups."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest

from controlone_ha.core.effects import (
    AskReports,
    AskSightings,
    Effect,
    PeerTransition,
    Publish,
    Remember,
    Remembered,
    RestartService,
    Transition,
)
from controlone_ha.core.model import Report, Role, State, Verdict, Yielding
from controlone_ha.core.node import Node
from controlone_ha.core.node_settings import NodeSettings
from controlone_ha.core.observations import Outcome, Service
from controlone_ha.core.reasons import reason
from tests.unit.core_builders import make_report, probe

E = TypeVar("E", bound=Effect)


def make_node(role: Role = Role.SLAVE, *peers: str, **changes: Any) -> Node:
    settings = NodeSettings(
        name=changes.pop("name", "s1"),
        role=role,
        monitored=dict.fromkeys(peers or ("m1",), True),
        site="site1",
    )
    return Node(
        settings, now=changes.pop("now", 0.0), incarnation=changes.pop("incarnation", 1), **changes
    )


def of(kind: type[E], effects: list[Effect]) -> list[E]:
    return [item for item in effects if isinstance(item, kind)]


def connect(node: Node, now: float, report: Report) -> list[Effect]:
    node.link_up(now, report.node)
    node.reported(now, report)
    return node.step(now)


def state_of(node: Node) -> State:
    return node.decision.state


def kill(node: Node, now: float, peer: str) -> list[Effect]:
    node.link_down(now, peer, "reset")
    for service in (Service.CONSOLE, Service.CONFERENCE):
        node.probed(now, peer, probe(service, Outcome.REFUSED))
    return node.step(now)


def test_C1_the_first_step_brings_a_node_into_the_state_of_its_role() -> None:
    node = make_node(Role.MASTER)
    effects = node.step(0.0)
    assert state_of(node) is State.ACTIVE
    (transition,) = of(Transition, effects)
    assert (transition.before, transition.after) == (State.STARTING, State.ACTIVE)
    assert of(Publish, effects)[0].report.state is State.ACTIVE


def test_what_is_remembered_comes_before_what_others_hear() -> None:
    effects = make_node(Role.MASTER).step(0.0)
    kinds = [type(item) for item in effects]
    assert kinds.index(Remember) < kinds.index(Publish)


def test_a_step_without_news_has_no_effects() -> None:
    node = make_node()
    connect(node, 0.0, make_report("m1"))
    node.step(0.1)
    assert node.step(0.2) == []


def test_F4_a_killed_master_is_replaced_in_one_step_and_the_peer_transition_is_told_first() -> None:
    node = make_node()
    connect(node, 0.0, make_report("m1"))
    effects = kill(node, 5.0, "m1")
    assert state_of(node) is State.ACTIVE
    assert of(PeerTransition, effects)[0].view.verdict is Verdict.FAILED
    assert of(Publish, effects)[0].report.covering == {"m1"}
    assert of(Transition, effects)[0].reason.evidence


def test_F3_a_suspect_is_asked_about_and_asked_again_at_the_fast_rhythm() -> None:
    node = make_node(Role.SLAVE, "m1", "m2")
    connect(node, 0.0, make_report("m1"))
    connect(node, 0.0, make_report("m2"))
    node.heartbeat(1.6, "m2")
    assert of(AskSightings, node.step(1.7)) == [AskSightings(peer="m1")]
    assert of(AskSightings, node.step(1.8)) == []
    assert of(AskSightings, node.step(1.95)) == [AskSightings(peer="m1")]


def test_F3_the_services_of_a_peer_are_probed_fast_while_it_is_suspected() -> None:
    node = make_node()
    timing = node.settings.timing
    connect(node, 0.0, make_report("m1"))
    assert node.probe_interval(0.0, "m1") == timing.interval
    node.step(2.0)
    assert node.probe_interval(2.0, "m1") == timing.fast_interval
    for number in range(3):
        for service in (Service.CONSOLE, Service.CONFERENCE):
            node.probed(2.1 + number, "m1", probe(service, Outcome.TIMEOUT))
    node.step(5.0)
    assert node.probe_interval(5.0, "m1") == timing.heartbeat


def test_an_answer_about_a_peer_says_how_old_this_nodes_own_sign_is() -> None:
    node = make_node()
    assert node.sign_age(0.0, "m1") is None
    assert node.sign_age(0.0, "nobody") is None
    connect(node, 1.0, make_report("m1"))
    assert node.sign_age(3.5, "m1") == pytest.approx(2.5)


def test_an_answer_about_a_peer_says_how_old_the_last_word_of_its_ha_is() -> None:
    node = make_node()
    connect(node, 1.0, make_report("m1"))
    node.probed(3.0, "m1", probe())
    assert node.heard_age(3.5, "m1") == pytest.approx(2.5)
    assert node.sign_age(3.5, "m1") == pytest.approx(0.5)
    node.link_down(4.0, "m1", "reset")
    assert node.heard_age(4.0, "m1") is None and node.heard_age(4.0, "nobody") is None


def test_a_restarted_witness_knows_nothing_until_it_has_found_the_peer_silent_itself() -> None:
    node = make_node(remembered=Remembered(known=frozenset({"m1"})))
    node.step(0.0)
    assert node.sign_age(0.1, "m1") is None
    for number in range(3):
        for service in (Service.CONSOLE, Service.CONFERENCE):
            node.probed(0.6 * number, "m1", probe(service, Outcome.TIMEOUT))
    node.step(2.0)
    age = node.sign_age(2.0, "m1")
    assert age is not None and age > node.settings.timing.fresh


def test_a_console_that_lost_a_watched_peer_is_worth_a_probe() -> None:
    node = make_node()
    connect(node, 0.0, make_report("m1"))
    assert node.console_lost(1.0, "console7", "m1")
    assert not node.console_lost(1.0, "console7", "nobody")
    effects = kill(node, 2.0, "m1")
    (transition,) = of(Transition, effects)
    assert "console" in [item.kind for item in transition.reason.evidence]


def test_an_old_report_is_dropped() -> None:
    node = make_node()
    connect(node, 0.0, make_report("m1", incarnation=1, revision=5))
    node.reported(1.0, make_report("m1", state=State.DEGRADED, incarnation=1, revision=4))
    report = node.trackers["m1"].report
    assert report is not None and report.state is State.ACTIVE


def test_events_about_strangers_are_ignored() -> None:
    node = make_node()
    node.link_up(0.0, "x")
    node.heartbeat(0.0, "x")
    node.reported(0.0, make_report("x"))
    node.probed(0.0, "x", probe())
    node.sighting(0.0, "x", "m1", 1.0)
    node.link_down(0.0, "x", "closed")
    node.step(0.0)
    assert list(node.trackers) == ["m1"] and not node.trackers["m1"].is_known


def test_the_report_sent_on_a_new_link_is_the_published_one() -> None:
    node = make_node()
    published = of(Publish, node.step(0.0))[0].report
    assert node.link_up(1.0, "m1") == published


def test_a_report_is_published_again_only_when_it_says_something_else() -> None:
    node = make_node()
    first = of(Publish, node.step(0.0))[0].report
    assert of(Publish, node.step(1.0)) == []
    node.pause("root")
    second = of(Publish, node.step(2.0))[0].report
    assert second.ineligible is not None and second.revision > first.revision


# --- restarts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["force", "pause"])
def test_G4_an_order_of_the_operator_is_remembered_even_when_the_state_stays(order: str) -> None:
    node = make_node(Role.MASTER)
    connect(node, 0.0, make_report("m1"))
    if order == "force":
        node.force("active", "root")
    else:
        node.pause("root")
    (remember,) = of(Remember, node.step(1.0))
    kept = remember.remembered
    assert (kept.forced_by or kept.paused_by) == "root"
    again = make_node(Role.MASTER, remembered=kept, services_run=True, now=2.0, incarnation=2)
    assert again.remembered.forced == kept.forced and again.remembered.paused_by == kept.paused_by


def test_G4_the_end_of_an_order_is_remembered() -> None:
    node = make_node(Role.MASTER, remembered=Remembered(paused_by="root"))
    node.step(0.0)
    assert node.resume()
    (remember,) = of(Remember, node.step(1.0))
    assert remember.remembered.paused_by == ""


def test_resume_without_an_order_says_so() -> None:
    assert not make_node().resume()


def test_G4_role_passive_refuses_to_be_forced_active_with_the_remedy() -> None:
    refusal = make_node(Role.PASSIVE).refusal_of_force("active")
    assert refusal is not None and "ha.default.role" in refusal
    assert make_node(Role.PASSIVE).refusal_of_force("passive") is None
    assert make_node(Role.SLAVE).refusal_of_force("active") is None


@pytest.mark.parametrize("state", [State.ACTIVE, State.DEGRADED, State.DISABLED])
def test_a_restarted_ha_goes_on_with_the_services_that_run(state: State) -> None:
    kept = Remembered(state=state, covering=frozenset({"m1"}), reason=reason("peer_failed"))
    node = make_node(remembered=kept, services_run=True)
    expected = State.ACTIVE if state is State.DEGRADED else state
    assert state_of(node) is expected
    assert node.decision.covering == {"m1"}
    assert (node.decision.yielding is Yielding.YIELDED) is (state is State.DISABLED)


def test_a_restarted_ha_of_a_covering_slave_does_not_stop_what_runs() -> None:
    kept = Remembered(state=State.ACTIVE, covering=frozenset({"m1"}), known=frozenset({"m1"}))
    node = make_node(remembered=kept, services_run=True)
    node.step(0.0)
    assert state_of(node) is State.ACTIVE


def test_a_slave_that_rebooted_starts_as_standby_whatever_it_was() -> None:
    node = make_node(remembered=Remembered(state=State.ACTIVE, covering=frozenset({"m1"})))
    node.step(0.0)
    assert state_of(node) is State.STANDBY


@pytest.mark.parametrize(
    ("role", "state", "expected"),
    [
        (Role.MASTER, State.ACTIVE, State.ACTIVE),
        (Role.SLAVE, State.STANDBY, State.STANDBY),
        (Role.PASSIVE, State.PASSIVE, State.STANDBY),
    ],
)
def test_after_a_reboot_a_peer_that_is_gone_is_judged_by_what_it_was(
    role: Role, state: State, expected: State
) -> None:
    """A restarted slave must replace a dead master, and nobody must replace a dead standby."""
    before = make_node()
    before.step(0.0)
    effects = connect(before, 0.0, make_report("m1", role, state=state))
    kept = of(Remember, effects)[-1].remembered
    node = make_node(remembered=kept, now=100.0, incarnation=2)
    node.step(100.0)
    for service in (Service.CONSOLE, Service.CONFERENCE):
        node.probed(100.1, "m1", probe(service, Outcome.REFUSED))
    node.step(100.2)
    assert state_of(node) is expected


def test_a_restarted_slave_does_not_activate_for_a_standby_whose_conference_is_off() -> None:
    before = make_node()
    before.step(0.0)
    kept = of(Remember, connect(before, 0.0, make_report("m1", Role.SLAVE)))[-1].remembered
    node = make_node(remembered=kept, now=100.0, incarnation=2)
    node.step(100.0)
    node.probed(100.1, "m1", probe(Service.CONSOLE))
    node.probed(100.1, "m1", probe(Service.CONFERENCE, Outcome.REFUSED))
    node.step(100.2)
    assert state_of(node) is State.STANDBY


# --- standing still, lateness, reload -----------------------------------------------------------


def test_a_node_that_stood_still_asks_for_reports_and_waits_for_them_before_it_acts() -> None:
    node = make_node(Role.SLAVE, "m1", "m2")
    connect(node, 0.0, make_report("m1"))
    connect(node, 0.0, make_report("m2", revision=1))
    node.stood_still(60.0, 59.0)
    effects = kill(node, 60.0, "m1")
    assert of(AskReports, effects) == [AskReports()]
    assert state_of(node) is State.STANDBY and node.decision.reason.code == "rereading"
    node.reported(60.1, make_report("m2", revision=2))
    node.step(60.1)
    assert state_of(node) is State.ACTIVE


def test_a_node_that_stood_still_does_not_wait_for_ever() -> None:
    node = make_node(Role.SLAVE, "m1", "m2")
    connect(node, 0.0, make_report("m1"))
    connect(node, 0.0, make_report("m2"))
    node.stood_still(60.0, 59.0)
    kill(node, 60.0, "m1")
    assert node.wake_at is not None and node.wake_at <= 60.0 + node.settings.timing.fresh
    node.heartbeat(63.0, "m2")
    node.step(60.0 + node.settings.timing.fresh)
    assert state_of(node) is State.ACTIVE


def test_a_late_node_is_patient_with_others_and_published_as_not_eligible() -> None:
    node = make_node()
    connect(node, 0.0, make_report("m1"))
    node.lateness(2.0)
    node.step(2.5)
    assert node.trackers["m1"].view(2.5).verdict is Verdict.ALIVE
    ineligible = node.decision.ineligible
    assert ineligible is not None and ineligible.code == "own_late"
    node.lateness(0.0)
    node.step(2.6)
    assert node.trackers["m1"].view(2.6).verdict is Verdict.SUSPECT


def test_a_peer_that_stays_after_a_reload_keeps_what_was_observed() -> None:
    node = make_node(Role.SLAVE, "m1", "m2")
    connect(node, 0.0, make_report("m1"))
    node.reconfigure(1.0, make_node(Role.SLAVE, "m1", "m3").settings)
    assert sorted(node.trackers) == ["m1", "m3"]
    assert node.trackers["m1"].is_linked and not node.trackers["m3"].is_known


def test_a_peer_that_a_reload_adds_is_known_by_the_link_that_is_open_already() -> None:
    node = make_node(Role.SLAVE, "m1")
    connect(node, 0.0, make_report("m2"))
    node.reconfigure(1.0, make_node(Role.SLAVE, "m1", "m2").settings)
    tracker = node.trackers["m2"]
    assert tracker.is_linked and tracker.report is not None
    assert tracker.view(1.0).verdict is Verdict.ALIVE
    node.link_down(2.0, "m2", "closed")
    node.reconfigure(3.0, make_node(Role.SLAVE, "m1").settings)
    node.reconfigure(4.0, make_node(Role.SLAVE, "m1", "m2").settings)
    assert not node.trackers["m2"].is_linked


def test_a_node_is_not_woken_without_a_pause_while_a_linked_peer_is_silent() -> None:
    node = make_node()
    connect(node, 0.0, make_report("m1"))
    now, steps = 1.7, 0
    while now < 5.0:
        node.step(now)
        assert node.wake_at is not None and node.wake_at > now
        now, steps = node.wake_at, steps + 1
    assert steps <= 16


def rested(node: Node, now: float, peer: str = "m1") -> bool:
    node.heartbeat(now, peer)
    return node.rest(now)


def test_a_node_rests_while_every_peer_is_heard_and_says_until_when() -> None:
    node = make_node()
    connect(node, 0.0, make_report("m1"))
    node.watch.probed(0.5, probe())
    node.step(0.5)
    assert rested(node, 1.6)
    assert node.wake_at == pytest.approx(1.6 + node.settings.timing.suspect_after)


def test_a_node_does_not_rest_when_a_peer_is_late_or_itself_or_it_has_not_decided_for_long() -> (
    None
):
    node = make_node()
    connect(node, 0.0, make_report("m1"))
    assert not rested(node, 0.1)  # its own Console Server has not answered yet
    node.watch.probed(0.5, probe())
    node.step(0.5)
    assert not node.rest(1.8)
    node.lateness(2.0)
    assert not rested(node, 1.9)
    node.lateness(0.0)
    assert rested(node, 2.0)
    assert not rested(node, 0.5 + node.settings.timing.interval)


def test_a_node_does_not_rest_when_a_decision_is_due_or_it_stood_still() -> None:
    node = make_node()
    connect(node, 0.0, make_report("m1", incarnation=1))
    kill(node, 5.0, "m1")
    connect(node, 10.0, make_report("m1", incarnation=2))
    for service in (Service.CONSOLE, Service.CONFERENCE):
        node.watch.probed(10.0, probe(service))
    node.step(10.1)
    due_at = node.decision.wake_at
    assert node.decision.reason.code == "failback_wait" and due_at is not None
    assert rested(node, 11.0)
    node.stood_still(11.0, 3.0)
    assert not node.rest(11.1)
    node.step(11.1)
    assert not rested(node, due_at)


# --- own services -------------------------------------------------------------------------------


def test_F2_a_node_whose_service_ended_asks_and_yields_when_a_peer_offers() -> None:
    node = make_node(Role.MASTER, "s1", name="m1")
    node.step(0.0)
    connect(node, 0.0, make_report("s1", Role.SLAVE, covers=frozenset({"m1"}), revision=1))
    node.probed(0.0, "s1", probe())
    node.watch.probed(1.0, probe(Service.CONFERENCE))
    node.watch.ended(2.0, Service.CONFERENCE, "signal 9")
    node.step(2.0)
    assert node.decision.yielding is Yielding.ASKING
    answer = make_report(
        "s1",
        Role.SLAVE,
        covers=frozenset({"m1"}),
        consents=frozenset({"m1"}),
        offers=frozenset({"m1"}),
        revision=2,
    )
    node.reported(2.1, answer)
    effects = node.step(2.1)
    assert state_of(node) is State.DISABLED
    assert "Conference Server does not run" in of(Transition, effects)[0].reason.text()


def test_F1_a_service_that_runs_and_does_not_answer_is_restarted() -> None:
    node = make_node(Role.MASTER)
    node.step(0.0)
    node.watch.probed(1.0, probe(Service.CONSOLE))
    for _ in range(3):
        node.watch.probed(2.0, probe(Service.CONSOLE, Outcome.TIMEOUT))
    assert of(RestartService, node.step(3.0)) == [RestartService(service=Service.CONSOLE)]


def test_F1_what_the_host_probe_finds_is_an_abnormality() -> None:
    node = make_node(Role.MASTER)
    node.step(0.0)
    node.host_abnormal((reason("console_down", detail="disk full"),))
    node.step(1.0)
    assert state_of(node) is State.DEGRADED
    node.host_abnormal(())
    node.step(2.0)
    assert state_of(node) is State.ACTIVE


def test_a_node_without_network_is_not_eligible() -> None:
    node = make_node()
    connect(node, 0.0, make_report("m1"))
    node.network(False)
    kill(node, 1.0, "m1")
    assert state_of(node) is State.STANDBY


def test_F4_consoles_hold_a_failback() -> None:
    node = make_node()
    connect(node, 0.0, make_report("m1", incarnation=1))
    kill(node, 5.0, "m1")
    node.load(1, 0)
    connect(node, 10.0, make_report("m1", incarnation=2))
    for second in range(11, 60):
        node.heartbeat(float(second), "m1")
        node.step(float(second))
    assert node.decision.reason.code == "failback_busy"
    node.load(0, 0)
    node.step(59.5)
    assert state_of(node) is State.STANDBY
