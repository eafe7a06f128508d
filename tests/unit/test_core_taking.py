"""Whose live calls a node takes: grounds, vetoes, rank and claims."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controlone_ha.core.decide import decide
from controlone_ha.core.model import Ground, Peer, Rules, Snapshot, State, Verdict
from controlone_ha.core.taking import console_ground, ground, takings
from tests.unit.core_builders import ABNORMAL, NOW, figure, make_own, make_peer, make_snapshot


def with_peer(snapshot: Snapshot, name: str, **changes: Any) -> Snapshot:
    """Return ``snapshot`` with what ``name`` published changed."""
    peers = []
    for peer in snapshot.peers:
        if peer.name == name and peer.report is not None:
            peer = replace(peer, report=replace(peer.report, **changes))
        peers.append(peer)
    return replace(snapshot, peers=tuple(peers))


def found(snapshot: Snapshot, name: str = "m1") -> tuple[Ground, str]:
    peer = snapshot.peer(name)
    assert peer is not None
    which, why = ground(snapshot, peer)
    assert why.text("en") != why.text("pt_BR")
    return which, why.code


# --- grounds ------------------------------------------------------------------------------------


def refused(**view: Any) -> Peer:
    peer = make_peer("m1", verdict=Verdict.FAILED)
    return replace(peer, view=replace(peer.view, **{"is_conference_refused": True, **view}))


def test_A2_a_port_that_refuses_while_nobody_hears_its_ha_is_a_ground() -> None:
    snapshot = make_snapshot(make_own(), refused())
    assert found(snapshot) == (Ground.REFUSED, "calls_refused")


def test_A2_a_service_that_only_does_not_answer_may_still_carry_its_calls() -> None:
    snapshot = make_snapshot(make_own(), refused(is_conference_refused=False))
    assert found(snapshot) == (Ground.NONE, "calls_unproven")


@pytest.mark.parametrize("witness", ["sees", "hears"])
def test_A2_one_fresh_sighting_vetoes(witness: str) -> None:
    snapshot = make_snapshot(make_own(), refused(**{witness: frozenset({"m2"})}), make_peer("m2"))
    assert found(snapshot) == (Ground.NONE, "calls_seen")


def test_A2_a_node_whose_ha_is_heard_decides_itself() -> None:
    snapshot = make_snapshot(make_own(), make_peer("m1", state=State.DISABLED))
    assert found(snapshot)[0] is Ground.NONE
    assert found(with_peer(snapshot, "m1", releases=True)) == (Ground.RELEASED, "calls_released")


@pytest.mark.parametrize(
    ("owner", "denied_by", "expected"),
    [
        ("s1", ("m2", "s2", "p1"), Ground.CONFIRMED),  # it stands at the site, others confirm
        ("m2", ("s1", "s2", "p1"), Ground.CONFIRMED),  # another one stands there
        ("m2", ("s1",), Ground.NONE),  # two are heard that have yet to say so
        ("m2", ("s2", "p1"), Ground.NONE),  # a majority, but from outside
        ("s1", (), Ground.NONE),
    ],
)
def test_A2_silence_needs_two_of_whom_one_stands_at_its_site(
    owner: str, denied_by: tuple[str, ...], expected: Ground
) -> None:
    snapshot = figure(owner, silent=("m1",), denied_by=denied_by, since_at=NOW - 60)
    assert found(snapshot)[0] is expected


def test_A2_nodes_that_fell_silent_together_may_go_on_behind_a_cut_through_their_site() -> None:
    snapshot = figure("p1", silent=("m2", "s2"), denied_by=("m1", "s1"), since_at=NOW - 60)
    assert found(snapshot, "m2") == (Ground.NONE, "calls_unconfirmed")
    peers = tuple(
        make_peer("s2", verdict=Verdict.SILENT, since_at=NOW - 900) if peer.name == "s2" else peer
        for peer in snapshot.peers
    )
    assert found(replace(snapshot, peers=peers), "m2")[0] is Ground.CONFIRMED


def view_changed(snapshot: Snapshot, name: str, **changes: Any) -> Snapshot:
    """Return ``snapshot`` with this node's view of ``name`` changed."""
    peers = tuple(
        replace(peer, view=replace(peer.view, **changes)) if peer.name == name else peer
        for peer in snapshot.peers
    )
    return replace(snapshot, peers=peers)


def silent_m1() -> Snapshot:
    """m1 is silent to s1, which stands at its site, and to everybody else."""
    others = ("m2", "s2", "p1")
    snapshot = figure("s1", silent=("m1",), denied_by=others, since_at=NOW - 2)
    assert found(snapshot) == (Ground.CONFIRMED, "calls_confirmed")
    return snapshot


@pytest.mark.parametrize("still", ["m2", "s2", "p1"])
def test_A2_whoever_is_heard_must_have_said_just_now_that_it_misses_the_node(still: str) -> None:
    snapshot = silent_m1()
    fresh = frozenset({"m2", "s2", "p1"}) - {still}
    stale = view_changed(snapshot, "m1", denies_now=fresh)
    assert found(stale) == (Ground.NONE, "calls_asking")
    gone = view_changed(stale, still, verdict=Verdict.SUSPECT, since_at=NOW - 60)
    assert found(gone)[0] is Ground.CONFIRMED
    blind = with_peer(stale, still, covers=frozenset())
    assert found(blind)[0] is Ground.CONFIRMED


def test_A2_silence_of_a_node_that_was_silent_a_moment_ago_and_returned_proves_nothing() -> None:
    snapshot = silent_m1()
    unstable = view_changed(snapshot, "m1", returned_at=NOW - 10)
    assert found(unstable) == (Ground.NONE, "calls_unstable")
    assert found(view_changed(snapshot, "m1", returned_at=NOW - 40))[0] is Ground.CONFIRMED


def test_C2_A2_who_does_not_know_all_that_others_watch_cannot_tell_a_cut() -> None:
    snapshot = with_peer(silent_m1(), "m2", covers=frozenset({"m1", "s1", "stranger"}))
    assert found(snapshot) == (Ground.NONE, "calls_unseen")


def test_A2_a_majority_that_misses_a_whole_site_takes_nothing_unless_told_to() -> None:
    snapshot = figure("m2", silent=("m1", "s1"), denied_by=("s2", "p1"), since_at=NOW - 60)
    assert found(snapshot) == (Ground.NONE, "calls_unconfirmed")
    chosen = replace(snapshot, rules=Rules(takes_on_silence=True))
    assert found(chosen) == (Ground.CHOSEN, "calls_chosen")


def test_A2_two_nodes_take_on_silence_only_when_told_to() -> None:
    silent = make_peer("m1", verdict=Verdict.SILENT, site="a")
    assert found(make_snapshot(make_own(site="a"), silent))[0] is Ground.NONE
    told = make_snapshot(make_own(site="a"), silent, rules=Rules(takes_on_silence=True))
    assert found(told)[0] is Ground.CHOSEN


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (Verdict.ALIVE, Ground.NONE),
        (Verdict.SUSPECT, Ground.NONE),
        (Verdict.NO_DAEMON, Ground.NONE),
        (Verdict.SILENT, Ground.CONSOLE),
        (Verdict.FAILED, Ground.CONSOLE),
    ],
)
def test_A2_a_console_that_lost_its_server_is_the_ground_for_its_own_calls(
    verdict: Verdict, expected: Ground
) -> None:
    snapshot = make_snapshot(make_own(), make_peer("m1", verdict=verdict))
    assert console_ground(snapshot, "m1")[0] is expected
    seen = make_snapshot(make_own(), make_peer("m1", verdict=verdict, sees=("m2",)))
    assert console_ground(seen, "m1")[0] is Ground.NONE
    assert console_ground(snapshot, "nobody")[0] is Ground.NONE


def test_only_grounds_that_rest_on_silence_ask_the_parties_first() -> None:
    asking = {which for which in Ground if which.asks_parties}
    assert asking == {Ground.CONFIRMED, Ground.CHOSEN, Ground.CONSOLE}


# --- who ----------------------------------------------------------------------------------------


def after_a_crash(owner: str = "m2", **own: Any) -> Snapshot:
    snapshot = figure(owner, silent=("m1",), denied_by=("s1", "s2"), since_at=NOW - 60, **own)
    crashed = replace(refused(), report=snapshot.peer("m1").report)  # type: ignore[union-attr]
    peers = tuple(crashed if peer.name == "m1" else peer for peer in snapshot.peers)
    return replace(snapshot, peers=peers)


def test_A2_the_first_in_rank_takes_at_once_and_an_active_one_before_a_slave() -> None:
    taking = takings(after_a_crash(), State.ACTIVE)
    assert taking.takes == {"m1": Ground.REFUSED}
    assert taking.since == {"m1": NOW}


def test_A2_rank_k_waits_k_slots_from_when_the_ground_began() -> None:
    snapshot = after_a_crash("s1", state=State.ACTIVE)
    waiting = takings(snapshot, State.ACTIVE)
    assert waiting.takes == {} and waiting.wake_at == NOW + Rules().slot
    later = replace(
        snapshot, now=NOW + Rules().slot, own=replace(snapshot.own, grounds=waiting.since)
    )
    assert takings(later, State.ACTIVE).takes == {"m1": Ground.REFUSED}


def test_A2_a_published_claim_stands_the_others_down_until_its_node_is_gone() -> None:
    snapshot = after_a_crash("s1", state=State.ACTIVE, grounds={"m1": NOW - 60})
    claimed = with_peer(snapshot, "s2", takes=frozenset({"m1"}))
    assert takings(claimed, State.ACTIVE).takes == {}
    failed = make_peer("s2", verdict=Verdict.FAILED)
    gone = tuple(failed if peer.name == "s2" else peer for peer in claimed.peers)
    assert takings(replace(claimed, peers=gone), State.ACTIVE).takes == {"m1": Ground.REFUSED}


def test_A2_of_two_claims_at_the_same_moment_the_better_rank_goes_on() -> None:
    own = {"takes": {"m1": Ground.REFUSED}, "grounds": {"m1": NOW}}
    first = with_peer(after_a_crash("m2", **own), "s1", takes=frozenset({"m1"}))
    assert takings(first, State.ACTIVE).takes == {"m1": Ground.REFUSED}
    second = after_a_crash("s1", state=State.ACTIVE, **own)
    assert takings(with_peer(second, "m2", takes=frozenset({"m1"})), State.ACTIVE).takes == {}


@pytest.mark.parametrize(
    "own",
    [
        {"paused_by": "somebody"},
        {"abnormalities": (ABNORMAL,)},
        {"is_late": True},
        {"has_network": False},
        {"is_licensed": False},
    ],
)
def test_A2_who_may_not_take_over_takes_no_calls(own: dict[str, Any]) -> None:
    assert takings(after_a_crash(**own), State.ACTIVE).takes == {}


def test_C1_a_passive_node_and_one_in_standby_take_no_calls() -> None:
    assert takings(after_a_crash("p1"), State.PASSIVE).takes == {}
    assert takings(after_a_crash("s2"), State.STANDBY).takes == {}
    assert takings(after_a_crash("m2"), State.DISABLED).takes == {}


def test_a_node_that_stood_still_begins_nothing_and_drops_nothing_before_it_has_reread() -> None:
    assert takings(after_a_crash(rereading_gap=5.0), State.ACTIVE).takes == {}
    busy = after_a_crash(rereading_gap=5.0, takes={"m1": Ground.REFUSED}, grounds={"m1": NOW - 9})
    assert takings(busy, State.ACTIVE).takes == {"m1": Ground.REFUSED}


def test_C2_only_a_node_that_covers_the_failed_one_takes_its_calls() -> None:
    snapshot = after_a_crash()
    peers = tuple(replace(peer, is_monitored=peer.name != "m1") for peer in snapshot.peers)
    assert takings(replace(snapshot, peers=peers), State.ACTIVE).takes == {}


def test_A2_the_decision_carries_the_claim_and_wakes_for_the_next_rank() -> None:
    assert decide(after_a_crash()).takes == {"m1": Ground.REFUSED}
    waiting = decide(after_a_crash("s1", state=State.ACTIVE, covering=frozenset({"m1"})))
    assert waiting.takes == {} and waiting.wake_at == NOW + Rules().slot
    assert waiting.grounds == {"m1": NOW}
