"""Self-diagnosis: consents and offers, one node at a time, never without a substitute (F2)."""

from __future__ import annotations

from typing import Any

import pytest

from controlone_ha.core.decide import decide
from controlone_ha.core.model import Peer, Role, Rules, Snapshot, State, Verdict, Yielding
from controlone_ha.core.yielding import Grants, grants, has_all_consents, substitutes
from tests.unit.core_builders import ABNORMAL, NOW, make_own, make_peer, make_snapshot

M1 = frozenset({"m1"})


def asking(name: str, **changes: Any) -> Peer:
    return make_peer(name, state=State.DEGRADED, yielding=Yielding.ASKING, **changes)


def yielded(name: str, **changes: Any) -> Peer:
    return make_peer(name, state=State.DISABLED, yielding=Yielding.YIELDED, **changes)


def sick(state: State = State.DEGRADED, yielding: Yielding = Yielding.ASKING, **changes: Any):
    return make_own(
        "m1", Role.MASTER, state=state, yielding=yielding, abnormalities=(ABNORMAL,), **changes
    )


def consenting(name: str, role: Role = Role.SLAVE, offer: bool = True, **changes: Any) -> Peer:
    offers = M1 if offer else frozenset()
    return make_peer(name, role, consents=M1, offers=offers, covers=M1, **changes)


def granted(snapshot: Snapshot) -> Grants:
    return grants(snapshot, snapshot.own.yielding)


# --- the abnormal node ------------------------------------------------------------------------


def test_F2_an_abnormal_node_first_asks_and_serves_on() -> None:
    own = sick(state=State.ACTIVE, yielding=Yielding.NO)
    decision = decide(make_snapshot(own, make_peer("s1", Role.SLAVE, covers=M1)))
    assert (decision.state, decision.yielding) == (State.DEGRADED, Yielding.ASKING)
    assert decision.reason.code == "abnormal_asking"
    assert "s1: asked" in decision.reason.text()


def test_F2_it_disables_its_console_server_when_all_consent_and_one_offers() -> None:
    decision = decide(make_snapshot(sick(), consenting("s1"), consenting("m2", offer=False)))
    assert (decision.state, decision.yielding) == (State.DISABLED, Yielding.YIELDED)
    assert decision.reason.params["node"] == "s1"
    assert not decision.console_enabled and decision.conference_running


@pytest.mark.parametrize(
    "peers",
    [
        (),
        (consenting("s1", offer=False),),
        (consenting("s1"), make_peer("m2")),
        (consenting("s1", verdict=Verdict.NO_DAEMON),),
        (consenting("s1", verdict=Verdict.SUSPECT, is_linked=True),),
    ],
    ids=["alone", "no offer", "one consent missing", "offer without link", "offer of a suspect"],
)
def test_F2_it_serves_on_as_degraded_without_every_consent_and_an_offer(
    peers: tuple[Peer, ...],
) -> None:
    decision = decide(make_snapshot(sick(), *peers))
    assert (decision.state, decision.yielding) == (State.DEGRADED, Yielding.ASKING)


def test_a_passive_node_needs_not_consent() -> None:
    snapshot = make_snapshot(sick(), consenting("s1"), make_peer("p1", Role.PASSIVE))
    assert has_all_consents(snapshot)
    assert decide(snapshot).state is State.DISABLED


def test_one_node_at_a_time_the_second_serves_on_and_names_the_first() -> None:
    decision = decide(make_snapshot(sick(), consenting("s1"), yielded("m2")))
    assert (decision.state, decision.reason.code) == (State.DEGRADED, "abnormal_second")
    assert decision.reason.params["other"] == "m2"


def test_of_two_that_ask_the_lower_name_goes_first() -> None:
    decision = decide(make_snapshot(sick(), consenting("s1"), asking("m0")))
    assert (decision.state, decision.reason.code) == (State.DEGRADED, "abnormal_second")


def test_a_disabled_node_serves_again_when_nobody_can_serve_instead_any_more() -> None:
    own = sick(state=State.DISABLED, yielding=Yielding.YIELDED)
    decision = decide(make_snapshot(own, make_peer("s1", Role.SLAVE, covers=M1)))
    assert (decision.state, decision.reason.code) == (State.DEGRADED, "cover_lost")
    assert decision.console_enabled


def test_a_disabled_node_stays_so_while_a_peer_is_active_for_it() -> None:
    own = sick(state=State.DISABLED, yielding=Yielding.YIELDED)
    peer = make_peer("s1", Role.SLAVE, state=State.ACTIVE, covering=M1)
    assert decide(make_snapshot(own, peer)).state is State.DISABLED


def test_F2_it_comes_back_after_the_stable_period_not_at_the_first_good_sample() -> None:
    def at(now: float):
        own = make_own(
            "m1",
            Role.MASTER,
            state=State.DISABLED,
            yielding=Yielding.YIELDED,
            healthy_at=NOW,
        )
        return decide(make_snapshot(own, consenting("s1"), now=now))

    waiting = at(NOW + 1)
    assert (waiting.state, waiting.reason.code) == (State.DISABLED, "stabilising")
    assert waiting.wake_at == NOW + Rules().stable
    done = at(NOW + Rules().stable)
    assert (done.state, done.reason.code) == (State.ACTIVE, "recovered")
    assert done.yielding is Yielding.NO


def test_a_healthy_again_node_does_not_wait_when_nobody_serves_instead() -> None:
    own = make_own("m1", Role.MASTER, state=State.DISABLED, healthy_at=NOW)
    assert decide(make_snapshot(own, make_peer("s1", Role.SLAVE))).state is State.ACTIVE


def test_an_active_slave_that_yields_remembers_whom_it_covers() -> None:
    covering = frozenset({"m9"})
    own = make_own(
        "s1",
        state=State.DEGRADED,
        yielding=Yielding.ASKING,
        abnormalities=(ABNORMAL,),
        covering=covering,
    )
    other = make_peer("m2", consents=frozenset({"s1"}), offers=frozenset({"s1"}))
    yielding = decide(make_snapshot(own, other))
    assert (yielding.state, yielding.covering) == (State.DISABLED, covering)
    healthy = make_own(
        "s1",
        state=State.DISABLED,
        yielding=Yielding.YIELDED,
        covering=covering,
        healthy_at=NOW - 100,
    )
    assert decide(make_snapshot(healthy, other)).covering == covering


# --- the peers' answers -----------------------------------------------------------------------


def test_a_healthy_peer_consents_and_offers_to_the_one_it_covers() -> None:
    found = granted(make_snapshot(make_own("s1"), asking("m1")))
    assert (found.consents, found.offers) == (M1, M1)


def test_C2_a_peer_that_does_not_cover_the_asker_consents_but_offers_nothing() -> None:
    found = granted(make_snapshot(make_own("s1"), asking("m1", is_monitored=False)))
    assert (found.consents, found.offers) == (M1, frozenset())


def test_a_peer_that_may_not_take_over_consents_but_offers_nothing() -> None:
    found = granted(make_snapshot(make_own("s1", paused_by="root"), asking("m1")))
    assert (found.consents, found.offers) == (M1, frozenset())


def test_a_peer_consents_to_one_asker_at_a_time_and_keeps_its_word() -> None:
    both = (asking("m1"), asking("m2"))
    assert granted(make_snapshot(make_own(), *both)).consents == M1
    own = make_own(consents=frozenset({"m2"}))
    assert granted(make_snapshot(own, *both)).consents == {"m2"}


def test_while_one_is_out_nobody_else_gets_consent() -> None:
    found = granted(make_snapshot(make_own(), yielded("m2"), asking("m1")))
    assert found.consents == {"m2"}


@pytest.mark.parametrize(("asker", "consented"), [("m0", True), ("m2", False)])
def test_an_asker_consents_to_lower_names_only(asker: str, consented: bool) -> None:
    found = granted(make_snapshot(sick(), asking(asker)))
    assert (asker in found.consents) is consented


def test_an_asker_never_offers_because_it_is_abnormal_itself() -> None:
    assert granted(make_snapshot(sick(), asking("m0"))).offers == frozenset()


def test_a_node_that_yielded_consents_to_nobody() -> None:
    own = sick(state=State.DISABLED, yielding=Yielding.YIELDED)
    assert granted(make_snapshot(own, asking("m0"))).consents == frozenset()


def test_a_consent_is_withdrawn_in_the_very_report_that_asks() -> None:
    own = sick(state=State.ACTIVE, yielding=Yielding.NO, consents=frozenset({"m2"}))
    decision = decide(make_snapshot(own, asking("m2")))
    assert decision.yielding is Yielding.ASKING
    assert decision.consents == frozenset()


def test_substitutes_are_those_that_offered_over_an_open_link() -> None:
    snapshot = make_snapshot(
        sick(),
        consenting("s1"),
        consenting("s2", verdict=Verdict.NO_DAEMON),
        consenting("s3", offer=False),
    )
    assert substitutes(snapshot) == ["s1"]
