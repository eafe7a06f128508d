"""Which peers need a replacement: own word, refusal, silence weighed with witnesses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controlone_ha.core.judging import TOGETHER, Judgement, Need, judge
from controlone_ha.core.model import Role, Snapshot, State, Verdict, Yielding
from tests.unit.core_builders import NOW, figure, make_own, make_peer, make_snapshot


def judged(snapshot: Snapshot, name: str = "m1") -> Judgement:
    peer = snapshot.peer(name)
    assert peer is not None
    return judge(snapshot, peer)


@pytest.mark.parametrize(
    ("changes", "need", "code"),
    [
        ({}, Need.NO, "alive"),
        ({"state": State.DEGRADED, "yielding": Yielding.ASKING}, Need.NO, "alive"),
        ({"state": State.DISABLED, "yielding": Yielding.YIELDED}, Need.YES, "peer_yielded"),
        ({"state": State.PASSIVE, "forced": "passive"}, Need.YES, "peer_forced_passive"),
    ],
)
def test_F2_a_peer_that_is_heard_is_believed(
    changes: dict[str, Any], need: Need, code: str
) -> None:
    judgement = judged(make_snapshot(make_own(), make_peer("m1", **changes)))
    assert (judgement.need, judgement.reason.code) == (need, code)


def test_a_slave_forced_passive_needs_no_replacement() -> None:
    peer = make_peer("s2", Role.SLAVE, state=State.PASSIVE, forced="passive")
    assert judged(make_snapshot(make_own(), peer), "s2").need is Need.NO


@pytest.mark.parametrize("verdict", list(Verdict))
def test_C1_a_passive_peer_never_needs_a_replacement(verdict: Verdict) -> None:
    peer = make_peer("p1", Role.PASSIVE, verdict, denies=("m2",))
    assert judged(make_snapshot(make_own(), peer), "p1").need is Need.NO


def test_a_suspected_peer_is_not_judged_yet() -> None:
    judgement = judged(make_snapshot(make_own(), make_peer("m1", verdict=Verdict.SUSPECT)))
    assert (judgement.need, judgement.reason.code) == (Need.NO, "confirming")


def test_F3_refused_ports_need_no_witness() -> None:
    snapshot = make_snapshot(
        make_own(), make_peer("m1", verdict=Verdict.FAILED), make_peer("m2"), make_peer("p1")
    )
    assert judged(snapshot).need is Need.YES


@pytest.mark.parametrize("verdict", [Verdict.FAILED, Verdict.SERVICE_FAILED, Verdict.SILENT])
def test_a_peer_never_heard_on_a_link_is_not_taken_as_one_that_served(verdict: Verdict) -> None:
    """Without a report nobody knows whether it is a master, a standby slave or a passive node."""
    peer = make_peer("x", None, verdict)
    assert judged(make_snapshot(make_own(), peer), "x").need is not Need.YES


def failed_service(**changes: Any) -> Snapshot:
    peer = make_peer(
        "m1",
        verdict=Verdict.SERVICE_FAILED,
        failed_service="server",
        **{"since_at": NOW - 1, **changes},
    )
    return make_snapshot(make_own(), peer, make_peer("m2"), make_peer("p1", Role.PASSIVE))


def test_F3_a_service_that_fails_while_somebody_hears_its_ha_is_left_to_that_ha() -> None:
    judgement = judged(failed_service(hears=("m2",), is_refused=True))
    assert (judgement.need, judgement.reason.code) == (Need.HELD, "service_failed_here")
    assert judgement.reason.params["witness"] == "m2"


def test_F3_a_service_whose_machine_refuses_is_replaced_without_asking() -> None:
    assert judged(failed_service(is_refused=True)).need is Need.YES


def test_a_service_that_is_merely_silent_is_asked_about_first() -> None:
    judgement = judged(failed_service())
    assert (judgement.need, judgement.wake_at) == (Need.HELD, NOW - 1 + TOGETHER)
    assert judged(failed_service(denies=("m2",))).need is Need.YES
    assert judged(failed_service(sees=("m2",))).need is Need.YES
    assert judged(failed_service(since_at=NOW - TOGETHER)).need is Need.YES


def test_with_nobody_to_ask_a_silent_service_is_replaced() -> None:
    peer = make_peer("m1", verdict=Verdict.SERVICE_FAILED, failed_service="conference")
    assert judged(make_snapshot(make_own(), peer)).need is Need.YES


# --- silence ------------------------------------------------------------------------------------


def test_silence_that_one_witness_contradicts_is_a_cut_path() -> None:
    peer = make_peer("m1", verdict=Verdict.SILENT, sees=("m2",), denies=("p1",))
    judgement = judged(make_snapshot(make_own(), peer, make_peer("m2"), make_peer("p1")))
    assert (judgement.need, judgement.reason.code) == (Need.HELD, "path_cut")
    assert judgement.reason.params["witness"] == "m2"


def test_silence_is_held_until_the_linked_peers_had_time_to_answer() -> None:
    since_at = NOW - 0.2
    judgement = judged(figure("s1", silent=("m1",), denied_by=("m2",), since_at=since_at))
    assert (judgement.need, judgement.reason.code) == (Need.HELD, "confirming")
    assert judgement.wake_at == since_at + 0.5


def test_a_peer_that_does_not_answer_about_the_silent_one_is_not_waited_for_longer() -> None:
    assert judged(figure("s1", silent=("m1",), denied_by=("m2",))).need is Need.YES


def test_silence_that_nobody_confirms_never_suffices_with_three_nodes() -> None:
    judgement = judged(figure("s1", silent=("m1",), denied_by=()))
    assert judgement.need is Need.HELD


def test_a_peer_whose_ha_is_gone_is_reached_but_cannot_confirm() -> None:
    peers = (make_peer("m1", verdict=Verdict.SILENT), make_peer("m2", verdict=Verdict.NO_DAEMON))
    assert judged(make_snapshot(make_own(), *peers)).need is Need.HELD


@pytest.mark.parametrize("owner", ["s1", "s2"])
def test_F3_a_silent_site_is_held_while_a_node_is_active_on_this_side(owner: str) -> None:
    if owner == "s2":
        snapshot = figure("s2", silent=("m1", "s1"), denied_by=("m2", "p1"), since_at=NOW - 60)
        assert judged(snapshot).reason.code == "site_silent"
    else:
        snapshot = figure("s1", silent=("m2", "s2", "p1"), denied_by=("m1",), since_at=NOW - 60)
        assert judged(snapshot, "m2").reason.code == "minority"


def test_F4_a_silent_site_is_replaced_by_a_majority_without_an_active_node() -> None:
    """Both masters stood at one site; it burns down; the other site has the majority."""
    dead = [
        make_peer(name, verdict=Verdict.SILENT, since_at=NOW - 60, denies=("s2", "p1"), site="a")
        for name in ("m1", "m2")
    ]
    near = (make_peer("s2", Role.SLAVE, site="b"), make_peer("p1", Role.PASSIVE, site="b"))
    snapshot = make_snapshot(make_own(site="b"), *dead, *near)
    judgement = judged(snapshot)
    assert (judgement.need, judgement.reason.code) == (Need.YES, "site_silent_no_active")


def test_a_neighbour_of_the_silent_node_that_is_still_suspected_holds_the_judgement() -> None:
    """A cut between the sites is noticed for one node a little earlier than for the next."""
    silent = make_peer(
        "m1", verdict=Verdict.SILENT, since_at=NOW - 1, denies=("m2", "p1"), site="site1"
    )
    late = make_peer("s1", Role.SLAVE, Verdict.SUSPECT, since_at=NOW - 0.3, site="site1")
    near = (make_peer("m2", site="site2"), make_peer("p1", Role.PASSIVE, site="site2"))
    snapshot = make_snapshot(make_own("s2", site="site2"), silent, late, *near)
    assert judged(snapshot).need is Need.HELD


def test_a_partition_that_is_just_healing_makes_no_majority_against_the_node_returning_last() -> (
    None
):
    """s1 has p1 and s2 back already; m2 follows in a moment, and m1 denies it from before."""
    snapshot = figure("s1", silent=("m2",), denied_by=("m1",), since_at=NOW - 60)
    back = {
        name: replace(peer, view=replace(peer.view, returned_at=NOW - 1))
        for name in ("p1", "s2")
        if (peer := snapshot.peer(name)) is not None
    }
    healing = replace(snapshot, peers=tuple(back.get(item.name, item) for item in snapshot.peers))
    judgement = judged(healing, "m2")
    assert (judgement.need, judgement.reason.code) == (Need.HELD, "confirming")
    assert judgement.wake_at == NOW - 1 + TOGETHER
    assert judged(replace(healing, now=NOW + TOGETHER), "m2").need is Need.YES


def test_nodes_that_fell_silent_far_apart_did_not_fall_silent_together() -> None:
    since_at = NOW - 10
    peers = {peer.name: peer for peer in figure("s2", silent=("m1",), since_at=since_at).peers}
    old = make_peer(
        "s1", Role.SLAVE, Verdict.SILENT, since_at=since_at - TOGETHER - 1, site="site1"
    )
    silent = make_peer(
        "m1", verdict=Verdict.SILENT, since_at=since_at, denies=("m2", "p1"), site="site1"
    )
    snapshot = make_snapshot(make_own("s2", site="site2"), silent, old, peers["m2"], peers["p1"])
    assert judged(snapshot).need is Need.YES


def test_without_sites_a_majority_takes_a_lone_silent_node_as_failed() -> None:
    silent = make_peer("m1", verdict=Verdict.SILENT, denies=("s2",))
    snapshot = make_snapshot(make_own(), silent, make_peer("s2", Role.SLAVE))
    assert judged(snapshot).need is Need.YES


def test_without_sites_a_minority_judges_nobody() -> None:
    silent = [
        make_peer(name, verdict=Verdict.SILENT, denies=("s2",)) for name in ("m1", "m2", "m3")
    ]
    snapshot = make_snapshot(make_own(), *silent, make_peer("s2", Role.SLAVE))
    assert judged(snapshot).reason.code == "minority"
