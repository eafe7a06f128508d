"""The failure detector: observations in, one verdict per peer out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controlone_ha.core.detector import PeerTracker
from controlone_ha.core.model import Role, State, Verdict, Yielding
from controlone_ha.core.observations import Outcome, Service
from controlone_ha.core.timing import Timing
from tests.unit.core_builders import make_report, probe

TIMING = Timing()
BOTH = (Service.CONSOLE, Service.CONFERENCE)


def linked(now: float = 0.0, role: Role = Role.MASTER, **changes: Any) -> PeerTracker:
    """A tracker of a peer that was heard at ``now``."""
    tracker = PeerTracker(peer="m1", timing=TIMING)
    tracker.link_up(now)
    tracker.reported(now, make_report("m1", role, **changes))
    assert tracker.view(now).verdict is Verdict.ALIVE
    return tracker


def word_of(tracker: PeerTracker) -> Yielding:
    assert tracker.word is not None
    return tracker.word.yielding


def fail(tracker: PeerTracker, now: float, outcome: Outcome, times: int, *services: Service):
    for number in range(times):
        for service in services or BOTH:
            tracker.probe(now + number * 0.25, probe(service, outcome))


@pytest.mark.parametrize(
    ("interval", "failures", "heartbeat", "suspect_after", "fast_interval", "fast_timeout"),
    [
        (10.0, 3, 1.0, 1.65, 0.25, 0.6),
        (1.0, 2, 0.1, 0.21, 0.05, 0.15),
        (5.0, 3, 0.5, 0.85, 0.125, 0.3),
        (60.0, 3, 1.0, 1.65, 0.25, 0.6),
        (0.5, 3, 0.1, 0.21, 0.05, 0.15),
    ],
)
def test_F1_the_times_follow_from_interval_and_failures(
    interval: float,
    failures: int,
    heartbeat: float,
    suspect_after: float,
    fast_interval: float,
    fast_timeout: float,
) -> None:
    timing = Timing.of(interval=interval, failures=failures)
    assert timing.heartbeat == pytest.approx(heartbeat)
    assert timing.suspect_after == pytest.approx(suspect_after)
    assert timing.fast_interval == pytest.approx(fast_interval)
    assert timing.fast_timeout == pytest.approx(fast_timeout)
    assert (timing.interval, timing.failures) == (interval, failures)


def test_the_default_times_are_those_of_the_formula() -> None:
    made, default = Timing.of(interval=10.0, failures=3), Timing()
    for name in Timing.__dataclass_fields__:
        assert getattr(made, name) == pytest.approx(getattr(default, name)), name


def test_an_explicit_heartbeat_overrides_the_one_that_follows_from_the_interval() -> None:
    assert Timing.of(interval=10.0, failures=3, heartbeat=0.2).suspect_after == pytest.approx(0.37)


def test_a_peer_that_never_answered_is_unknown_whatever_fails() -> None:
    tracker = PeerTracker(peer="m1", timing=TIMING)
    tracker.link_down(1.0, "refused")
    fail(tracker, 1.0, Outcome.REFUSED, 5)
    assert tracker.view(60.0).verdict is Verdict.UNKNOWN


def test_F3_a_missed_heartbeat_makes_a_suspect_that_is_probed_fast() -> None:
    tracker = linked()
    assert tracker.next_check(0.0) == pytest.approx(1.65)
    assert tracker.view(1.6).verdict is Verdict.ALIVE
    assert not tracker.is_probed_fast(1.6)
    assert tracker.view(1.66).verdict is Verdict.SUSPECT
    assert tracker.is_probed_fast(1.66)


def test_one_heartbeat_clears_a_suspect() -> None:
    tracker = linked()
    assert tracker.view(2.0).verdict is Verdict.SUSPECT
    tracker.heartbeat(2.1)
    assert tracker.view(2.1).verdict is Verdict.ALIVE


def test_a_closed_link_makes_a_suspect_at_once() -> None:
    tracker = linked()
    tracker.link_down(0.5, "reset")
    view = tracker.view(0.5)
    assert view.verdict is Verdict.SUSPECT
    assert [item.text for item in view.evidence] == ["link: reset"]


def test_F3_a_reset_link_and_refused_ports_fail_a_peer_at_once() -> None:
    tracker = linked()
    tracker.link_down(0.5, "reset")
    fail(tracker, 0.51, Outcome.REFUSED, 1)
    assert tracker.view(0.52).verdict is Verdict.FAILED


def test_refused_ports_alone_need_their_count_while_the_link_is_open() -> None:
    tracker = linked()
    fail(tracker, 2.0, Outcome.REFUSED, 2)
    assert tracker.view(2.5).verdict is Verdict.SUSPECT
    fail(tracker, 2.5, Outcome.REFUSED, 1)
    assert tracker.view(2.5).verdict is Verdict.FAILED


def test_F3_silence_on_every_path_is_silent_after_the_count_of_failures() -> None:
    tracker = linked()
    fail(tracker, 2.0, Outcome.TIMEOUT, 2)
    assert tracker.view(2.6).verdict is Verdict.SUSPECT
    fail(tracker, 2.6, Outcome.TIMEOUT, 1)
    assert tracker.view(2.7).verdict is Verdict.SILENT


def test_an_accepted_connection_that_is_never_answered_shows_that_the_machine_is_there() -> None:
    tracker = linked()
    for _ in range(3):
        tracker.probe(2.0, probe(Service.CONSOLE, Outcome.TIMEOUT, connected=True))
        tracker.probe(2.0, probe(Service.CONFERENCE, Outcome.TIMEOUT))
    assert tracker.view(2.1).verdict is Verdict.FAILED


def test_a_machine_that_refused_and_then_goes_dark_is_silent_at_last() -> None:
    """Else a stopped passive node would be reached for ever, and count against a partition."""
    tracker = linked(role=Role.PASSIVE)
    tracker.link_down(0.5, "closed")
    fail(tracker, 0.6, Outcome.REFUSED, 2)
    fail(tracker, 5.0, Outcome.TIMEOUT, 2)
    assert tracker.view(6.0).verdict is Verdict.NO_DAEMON
    fail(tracker, 6.0, Outcome.TIMEOUT, 1)
    assert tracker.view(6.1).verdict is Verdict.SILENT
    fail(tracker, 7.0, Outcome.REFUSED, 1)
    assert tracker.view(7.1).verdict is Verdict.NO_DAEMON


def test_services_that_answer_after_the_link_closed_mean_that_only_ha_is_away() -> None:
    tracker = linked()
    tracker.link_down(0.5, "closed")
    fail(tracker, 0.6, Outcome.ANSWERED, 1)
    assert tracker.view(0.7).verdict is Verdict.NO_DAEMON


def test_answers_from_before_the_trouble_prove_nothing_about_it() -> None:
    tracker = linked()
    fail(tracker, 0.4, Outcome.ANSWERED, 1)
    tracker.link_down(0.5, "reset")
    assert tracker.view(0.6).verdict is Verdict.SUSPECT


def test_failures_from_before_the_trouble_prove_nothing_about_it() -> None:
    """Its Conference Server was restarting once; later its `ha` is restarted."""
    tracker = linked()
    tracker.probe(0.1, probe(Service.CONFERENCE, Outcome.REFUSED))
    tracker.link_down(9.0, "closed")
    tracker.probe(9.05, probe(Service.CONSOLE, Outcome.ANSWERED))
    assert tracker.view(9.1).verdict is Verdict.SUSPECT


def test_a_refusal_from_before_a_partition_does_not_turn_silence_into_failure() -> None:
    tracker = linked()
    tracker.probe(0.1, probe(Service.CONFERENCE, Outcome.REFUSED))
    fail(tracker, 3.0, Outcome.TIMEOUT, 3)
    assert tracker.view(4.0).verdict is Verdict.SILENT


def test_a_connection_accepted_before_a_cut_does_not_show_that_the_machine_is_there() -> None:
    """A probe of the calm times meets the partition on its way and ends long after."""
    tracker = linked()
    fail(tracker, 2.0, Outcome.TIMEOUT, 3)
    assert tracker.view(4.0).verdict is Verdict.SILENT
    late = replace(probe(Service.CONSOLE, Outcome.TIMEOUT, connected=True), took=10.0)
    tracker.probe(10.5, late)
    assert tracker.view(10.5).verdict is Verdict.SILENT


def test_the_silence_of_a_probe_sent_before_the_peer_returned_says_nothing() -> None:
    tracker = linked()
    fail(tracker, 2.0, Outcome.TIMEOUT, 3)
    assert tracker.view(4.0).verdict is Verdict.SILENT
    tracker.probe(5.0, probe(Service.CONSOLE))
    for service in BOTH:
        tracker.probe(5.5, replace(probe(service, Outcome.TIMEOUT), took=1.0))
    assert tracker.view(5.6).verdict is Verdict.SUSPECT
    tracker.probe(5.7, probe(Service.CONFERENCE))
    assert tracker.view(5.8).verdict is Verdict.NO_DAEMON


@pytest.mark.parametrize("failed", BOTH)
def test_F3_one_service_that_fails_while_the_other_answers_is_named(failed: Service) -> None:
    tracker = linked()
    tracker.link_down(0.5, "closed")
    for _ in range(3):
        assert tracker.view(0.6).verdict is Verdict.SUSPECT  # it may be just starting
        for service in BOTH:
            outcome = Outcome.REFUSED if service is failed else Outcome.ANSWERED
            tracker.probe(0.6, probe(service, outcome))
    view = tracker.view(0.7)
    assert (view.verdict, view.failed_service) == (Verdict.SERVICE_FAILED, failed.value)


def test_what_failed_while_a_peer_was_silent_says_nothing_about_it_when_it_returns() -> None:
    """A path heals: one service answers before the other has been asked again."""
    tracker = linked()
    tracker.link_down(0.5, "silent")
    fail(tracker, 1.0, Outcome.TIMEOUT, 3)
    assert tracker.view(2.0).verdict is Verdict.SILENT
    tracker.probe(60.0, probe(Service.CONFERENCE))
    for number in range(5):  # on their way when the path healed
        late = replace(probe(Service.CONSOLE, Outcome.TIMEOUT), took=1.0)
        tracker.probe(60.1 + number * 0.1, late)
        view = tracker.view(60.1 + number * 0.1)
        assert (view.verdict, view.returned_at) == (Verdict.SUSPECT, 60.0)
    tracker.probe(60.7, probe(Service.CONSOLE))
    assert tracker.view(60.7).verdict is Verdict.NO_DAEMON


def test_F3_a_service_that_stays_away_when_its_peer_has_returned_has_failed() -> None:
    tracker = linked()
    tracker.link_down(0.5, "silent")
    fail(tracker, 1.0, Outcome.TIMEOUT, 3)
    assert tracker.view(2.0).verdict is Verdict.SILENT
    tracker.probe(60.0, probe(Service.CONFERENCE))
    fail(tracker, 61.5, Outcome.TIMEOUT, 3, Service.CONSOLE)
    tracker.probe(65.0, probe(Service.CONFERENCE))
    fail(tracker, 65.0, Outcome.TIMEOUT, 1, Service.CONSOLE)
    assert tracker.view(65.1).verdict is Verdict.SERVICE_FAILED


def test_F3_a_service_that_is_merely_silent_beside_another_is_looked_at_for_longer() -> None:
    """A frozen Conference Server says nothing at all; neither do packets that were lost."""
    tracker = linked()
    tracker.link_down(0.5, "closed")
    for number in range(20):
        now = 0.6 + number * 0.25
        tracker.probe(now, probe(Service.CONSOLE))
        tracker.probe(now, probe(Service.CONFERENCE, Outcome.TIMEOUT))
        expected = Verdict.SERVICE_FAILED if now - 0.6 >= TIMING.fresh else Verdict.SUSPECT
        assert tracker.view(now).verdict is expected, now


def test_of_a_peer_that_never_said_what_it_runs_one_answer_is_enough() -> None:
    tracker = PeerTracker(peer="m1", timing=TIMING, is_known=True)
    for _ in range(3):
        tracker.probe(1.0, probe(Service.CONSOLE))
        tracker.probe(1.0, probe(Service.CONFERENCE, Outcome.REFUSED))
    assert tracker.view(1.1).verdict is Verdict.NO_DAEMON


def test_F3_a_standby_peer_is_not_expected_to_run_its_conference_server() -> None:
    tracker = linked(role=Role.SLAVE)
    tracker.link_down(0.5, "closed")
    tracker.probe(0.6, probe(Service.CONSOLE, Outcome.ANSWERED))
    tracker.probe(0.6, probe(Service.CONFERENCE, Outcome.REFUSED))
    assert tracker.view(0.7).verdict is Verdict.NO_DAEMON


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [(Outcome.REFUSED, Verdict.NO_DAEMON), (Outcome.TIMEOUT, Verdict.SILENT)],
)
def test_C1_a_passive_peer_runs_no_service_so_a_refusal_is_a_sign_of_life(
    outcome: Outcome, verdict: Verdict
) -> None:
    tracker = linked(role=Role.PASSIVE)
    tracker.link_down(0.5, "closed")
    fail(tracker, 0.6, outcome, 3)
    assert tracker.view(1.5).verdict is verdict


def test_while_its_ha_is_heard_the_peers_own_word_counts_and_not_our_probes() -> None:
    tracker = linked()
    fail(tracker, 0.1, Outcome.TIMEOUT, 9)
    assert tracker.view(1.0).verdict is Verdict.ALIVE


def test_a_node_that_stood_still_gives_its_peers_the_time_it_was_away() -> None:
    tracker = linked()
    fail(tracker, 0.1, Outcome.TIMEOUT, 3)
    tracker.forgive(30.0)
    assert tracker.view(30.5).verdict is Verdict.ALIVE
    assert tracker.view(32.0).verdict is Verdict.SUSPECT


def test_a_node_that_is_late_stretches_its_patience() -> None:
    tracker = linked()
    tracker.stretch = 3.0
    assert tracker.view(4.9).verdict is Verdict.ALIVE
    assert tracker.view(5.0).verdict is Verdict.SUSPECT


def test_the_verdict_keeps_the_time_it_began() -> None:
    tracker = linked()
    assert tracker.view(2.0).since_at == 2.0
    assert tracker.view(2.4).since_at == 2.0
    tracker.heartbeat(2.5)
    assert tracker.view(2.5).since_at == 2.5


@pytest.mark.parametrize(
    ("age", "sees", "denies"),
    [
        pytest.param(0.2, True, False, id="heard since the trouble began"),
        pytest.param(0.8, False, False, id="heard before, and its next heartbeat is not due yet"),
        pytest.param(1.6, False, False, id="its next heartbeat is late, not yet suspiciously"),
        pytest.param(1.7, False, True, id="it would suspect the peer itself"),
        pytest.param(60.0, False, True, id="not heard for long"),
    ],
)
def test_F3_what_a_witness_says_at_2_s_of_a_trouble_that_began_at_1_65_s(
    age: float, sees: bool, denies: bool
) -> None:
    tracker = linked()
    tracker.sighting(2.0, "m2", age)
    view = tracker.view(2.0)
    assert (view.sees, view.denies) == (
        frozenset({"m2"} if sees else ()),
        frozenset({"m2"} if denies else ()),
    )


def test_what_a_witness_said_before_the_trouble_does_not_count() -> None:
    tracker = linked()
    tracker.sighting(1.0, "m2", 60.0)
    assert tracker.view(2.0).denies == frozenset()


def test_A2_an_answer_denies_now_for_a_moment_only() -> None:
    tracker = linked()
    tracker.sighting(3.0, "m2", 60.0)
    often = tracker.timing.fast_interval
    assert tracker.view(3.0 + 2 * often).denies_now == {"m2"}
    later = tracker.view(3.1 + 2 * often)
    assert later.denies == {"m2"}
    assert later.denies_now == frozenset()


def test_a_witness_that_saw_the_peer_long_after_our_path_was_cut_denies_when_it_dies() -> None:
    tracker = linked()
    tracker.sighting(60.0, "m2", 0.1)
    assert tracker.view(60.1).sees == {"m2"}
    tracker.sighting(62.0, "m2", 2.1)
    assert tracker.view(62.0).sees == {"m2"}  # fresh enough to veto
    tracker.sighting(64.0, "m2", 4.1)
    assert tracker.view(64.0).denies == {"m2"}


def test_a_witness_that_has_never_seen_the_peer_confirms_nothing() -> None:
    """It may not even have it in its list (C2)."""
    tracker = linked()
    tracker.sighting(2.0, "p1", None)
    view = tracker.view(2.1)
    assert (view.sees, view.denies) == (frozenset(), frozenset())


@pytest.mark.parametrize(
    ("heard", "hears"), [(0.1, True), (1.2, True), (1.7, False), (None, False)]
)
def test_F3_a_witness_hears_the_ha_of_a_peer_while_its_heartbeats_are_not_late(
    heard: float | None, hears: bool
) -> None:
    tracker = linked()
    tracker.sighting(3.0, "m2", 0.1, heard)
    assert bool(tracker.view(3.0).hears) is hears


def test_a_witness_whose_link_is_gone_is_forgotten() -> None:
    tracker = linked()
    tracker.sighting(2.0, "m2", 60.0)
    tracker.forget_reporter("m2")
    assert tracker.view(2.1).denies == frozenset()


def test_an_answer_that_is_not_renewed_is_no_witness_any_more() -> None:
    tracker = linked()
    tracker.sighting(2.0, "m2", 60.0)
    assert tracker.view(6.0).denies == {"m2"}
    assert tracker.view(7.0).denies == frozenset()


def test_the_link_that_is_closed_for_silence_does_not_restart_the_trouble() -> None:
    """Heartbeats were missed long before the link was given up: what was found out since counts."""
    tracker = linked()
    fail(tracker, 2.0, Outcome.ANSWERED, 1)
    assert tracker.view(9.0).verdict is Verdict.NO_DAEMON
    tracker.link_down(10.0, "silent")
    assert tracker.view(10.0).verdict is Verdict.NO_DAEMON


def test_an_overdue_heartbeat_asks_for_no_further_check() -> None:
    """Otherwise a linked but silent peer would wake the node without a pause."""
    assert linked().next_check(5.0) is None


def test_a_check_at_the_very_moment_at_which_a_heartbeat_is_late_is_followed_by_another() -> None:
    """15.2 + 1.65 - 15.2 is less than 1.65 in floating point."""
    beat_at = 15.200086878223118
    tracker = linked(now=beat_at)
    due_at = tracker.next_check(beat_at)
    assert due_at is not None and tracker.view(due_at).verdict is Verdict.ALIVE
    assert tracker.next_check(due_at) == due_at


def test_the_next_check_is_when_a_witness_runs_out_of_its_sign() -> None:
    tracker = linked()
    tracker.sighting(2.0, "m2", 0.1)
    assert tracker.next_check(2.0) == pytest.approx(1.9 + TIMING.fresh)


def test_F3_all_the_evidence_appears_in_the_view() -> None:
    tracker = linked()
    tracker.link_down(0.5, "reset")
    tracker.probe(0.6, probe(Service.CONSOLE, Outcome.REFUSED))
    tracker.probe(0.6, probe(Service.CONFERENCE, Outcome.TIMEOUT))
    tracker.sighting(0.7, "m2", 60.0)
    kinds = [item.kind for item in tracker.view(0.8).evidence]
    assert kinds == ["link", "probe_conference", "probe_server", "witness"]


def test_serving_is_counted_from_the_last_outage_and_a_passing_suspicion_is_none() -> None:
    tracker = linked(now=5.0)
    assert tracker.serving_at == 5.0
    assert tracker.view(9.0).verdict is Verdict.SUSPECT
    tracker.heartbeat(9.5)
    tracker.view(9.5)
    assert tracker.serving_at == 5.0
    tracker.reported(10.0, make_report("m1", state=State.DISABLED, yielding=Yielding.YIELDED))
    tracker.view(10.0)
    assert tracker.serving_at is None


def test_what_a_peer_said_before_its_link_closed_is_not_taken_for_what_it_says_now() -> None:
    tracker = linked(state=State.DISABLED, yielding=Yielding.YIELDED)
    tracker.link_down(5.0, "reset")
    assert word_of(tracker) is Yielding.YIELDED
    tracker.link_up(60.0)
    assert tracker.view(60.0).verdict is Verdict.ALIVE
    assert word_of(tracker) is Yielding.NO
    tracker.reported(60.1, make_report("m1", state=State.DISABLED, yielding=Yielding.YIELDED))
    assert word_of(tracker) is Yielding.YIELDED


@pytest.mark.parametrize(
    ("failures", "confirmations", "needed"),
    [(3, 0, 3), (3, 1, 3), (3, 2, 2), (3, 9, 2), (5, 2, 4), (5, 9, 2), (2, 5, 2), (1, 3, 1)],
)
def test_F3_independent_confirmations_shorten_a_suspicion(
    failures: int, confirmations: int, needed: int
) -> None:
    timing = Timing.of(interval=10.0, failures=failures)
    assert timing.failures_needed(confirmations) == needed


def test_F3_a_second_witness_that_denies_saves_a_probe() -> None:
    tracker = linked()
    fail(tracker, 2.0, Outcome.TIMEOUT, 2)
    assert tracker.view(2.5).verdict is Verdict.SUSPECT
    tracker.sighting(2.5, "m2", 60.0)
    assert tracker.view(2.5).verdict is Verdict.SUSPECT
    tracker.sighting(2.5, "p1", 60.0)
    assert tracker.view(2.5).verdict is Verdict.SILENT


def test_F3_consoles_that_arrive_having_lost_the_peer_are_evidence_and_confirm() -> None:
    tracker = linked()
    for number in range(5):
        tracker.lost_by(1.0, f"console{number}")
    assert tracker.view(1.0).verdict is Verdict.ALIVE  # its own word counts as long as it is heard
    tracker.sighting(2.4, "m2", 60.0)
    fail(tracker, 2.0, Outcome.TIMEOUT, 2)
    view = tracker.view(2.5)
    assert view.verdict is Verdict.SILENT
    (found,) = [item for item in view.evidence if item.kind == "console"]
    assert found.text == "5 consoles arrived that had lost it: console0, console1, console2, …"
    assert not [item for item in tracker.view(32.0).evidence if item.kind == "console"]


def out_and_back(tracker: PeerTracker, now: float) -> None:
    tracker.link_down(now, "reset")
    fail(tracker, now, Outcome.REFUSED, 1)
    assert tracker.view(now).verdict is Verdict.FAILED
    tracker.link_up(now + 5)
    tracker.reported(now + 5, make_report("m1"))
    tracker.view(now + 5)


def test_the_times_a_peer_has_come_back_lately_are_counted() -> None:
    tracker = linked()
    assert tracker.returns(0.0) == 0
    out_and_back(tracker, 10.0)
    out_and_back(tracker, 100.0)
    assert tracker.returns(110.0) == 2
    assert tracker.returns(700.0) == 1


def test_a_suspicion_that_passes_is_no_outage() -> None:
    tracker = linked()
    assert tracker.view(2.0).verdict is Verdict.SUSPECT
    tracker.heartbeat(2.5)
    assert tracker.view(2.5).verdict is Verdict.ALIVE
    assert tracker.returns(2.5) == 0 and tracker.serving_at == 0.0


def test_a_peer_that_disabled_its_console_server_and_came_back_had_an_outage() -> None:
    tracker = linked()
    tracker.reported(1.0, make_report("m1", state=State.DISABLED, yielding=Yielding.YIELDED))
    tracker.view(1.0)
    tracker.reported(1.5, make_report("m1"))
    tracker.view(1.5)
    assert tracker.returns(1.5) == 1
