"""Whose legs are taken in which order and way, and what came of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controlone_ha.core.calls import Call, CallState, Leg, LegState
from controlone_ha.core.takeover import (
    Outcome,
    Way,
    is_final,
    is_takeable,
    outcome_of,
    plans,
    replaces_of,
    ways,
)


def leg(name: str, role: str = "console", **changes: Any) -> Leg:
    made = Leg(
        id=name,
        role=role,
        party=name,
        state=LegState.CONFIRMED,
        call_id=f"{name}-call",
        local_tag="ours",
        remote_tag="theirs",
        remote_target=f"sip:{name}@10.0.0.1",
    )
    return replace(made, **changes)


def call(name: str = "c", **changes: Any) -> Call:
    made = Call(
        id=name,
        owner="m1",
        state=CallState.UP,
        answered=10.0,
        legs=(leg("desk"), leg("trunk", "gateway")),
    )
    return replace(made, **changes)


def test_A1_the_gateway_is_the_lock() -> None:
    (plan,) = plans([call()])
    assert (plan.lock.id, [other.id for other in plan.others]) == ("trunk", ["desk"])
    inside = call(legs=(leg("desk"), leg("other"), leg("third")))
    (plan,) = plans([inside])
    assert [one.id for one in plan.legs] == ["desk", "other", "third"]


def test_A1_the_highest_priority_goes_first_then_the_longest_call() -> None:
    made = [
        call("young", answered=30.0),
        call("old", answered=20.0),
        call("urgent", answered=40.0, priority=200),
    ]
    assert [plan.call.id for plan in plans(made)] == ["urgent", "old", "young"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"state": CallState.HELD}, True),
        ({"state": CallState.LOST}, True),
        ({"state": CallState.LOST, "answered": None, "direction": "out"}, False),
        ({"state": CallState.RINGING}, False),
        ({"state": CallState.ENDED}, False),
        ({"legs": (leg("desk"), leg("trunk", "gateway", remote_tag=""))}, False),
        ({"legs": ()}, False),
        ({"legs": (leg("desk"), leg("trunk", "gateway", state=LegState.EARLY))}, False),
        ({"legs": (leg("a"), leg("b"), leg("gone", state=LegState.ENDED))}, True),
    ],
)
def test_A1_half_a_call_and_one_that_nobody_answered_is_not_taken(
    changes: dict[str, Any], expected: bool
) -> None:
    assert is_takeable(call(**changes)) is expected
    assert len(plans([call(**changes)])) == expected


@pytest.mark.parametrize(
    "legs",
    [
        (leg("desk"),),
        (leg("desk"), leg("trunk", "gateway", state=LegState.ENDED)),
    ],
)
def test_A1_who_is_alone_in_an_answered_call_is_told_that_it_is_over(legs: tuple[Leg, ...]) -> None:
    (plan,) = plans([call(legs=legs)])
    assert (plan.lock.id, plan.others) == (legs[0].id, ())


@pytest.mark.parametrize("state", [CallState.QUEUED, CallState.RINGING, CallState.LOST])
def test_A1_of_a_call_that_nobody_answered_the_caller_is_taken(state: CallState) -> None:
    early = leg("trunk", "gateway", state=LegState.EARLY, incoming=True)
    waiting = call(state=state, answered=None, legs=(early, leg("desk", state=LegState.EARLY)))
    (plan,) = plans([waiting])
    assert (plan.lock.id, plan.others) == ("trunk", ())
    assert ways(plan.lock) == (Way.REPLACE,)
    assert ways(plan.lock, knows_replaces=False) == ()
    assert replaces_of(plan.lock) == "trunk-call;to-tag=theirs;from-tag=ours;early-only"
    # Taken once already: answered by us, and as good as any party.
    (plan,) = plans([replace(waiting, legs=(leg("trunk", "gateway"),))])
    assert ways(plan.lock) == (Way.REPLACE, Way.ADOPT)


@pytest.mark.parametrize(
    "changes",
    [
        {"direction": "out"},
        {"state": CallState.ENDED},
        {"legs": (leg("trunk", "gateway", state=LegState.EARLY, remote_tag=""),)},
    ],
)
def test_A1_of_other_calls_that_nobody_answered_nothing_is_taken(changes: dict[str, Any]) -> None:
    early = leg("trunk", "gateway", state=LegState.EARLY)
    made = call(state=CallState.RINGING, answered=None, legs=(early,))
    assert plans([replace(made, **changes)]) == ()


def test_A1_who_waits_is_taken_after_who_talks() -> None:
    waiting = call("waiting", state=CallState.QUEUED, answered=None, created=1.0)
    later = replace(waiting, id="later", created=2.0)
    urgent = replace(waiting, id="urgent", priority=200)
    made = [later, waiting, call("talking"), urgent]
    assert [plan.call.id for plan in plans(made)] == ["urgent", "talking", "waiting", "later"]


def test_A1_behind_proxies_adoption_comes_first() -> None:
    assert ways(leg("desk")) == (Way.REPLACE, Way.ADOPT)
    assert ways(leg("desk", route_set=("<sip:proxy;lr>",))) == (Way.ADOPT, Way.REPLACE)


def test_A1_a_gateway_that_is_said_not_to_know_replaces_is_not_asked_for_it() -> None:
    assert ways(leg("trunk", "gateway"), knows_replaces=False) == (Way.ADOPT,)


def test_A1_replaces_names_the_partys_tag_as_its_own() -> None:
    assert replaces_of(leg("desk")) == "desk-call;to-tag=theirs;from-tag=ours"


@pytest.mark.parametrize(
    ("way", "status", "rang", "expected", "final"),
    [
        (Way.REPLACE, 200, False, Outcome.TAKEN, True),
        (Way.REPLACE, 481, False, Outcome.GONE, True),
        (Way.REPLACE, 420, False, Outcome.REFUSED, False),
        (Way.REPLACE, 486, False, Outcome.REFUSED, False),
        (Way.REPLACE, 0, True, Outcome.GHOST, False),
        (Way.REPLACE, 0, False, Outcome.UNREACHABLE, True),
        (Way.REPLACE, 408, False, Outcome.UNREACHABLE, True),
        (Way.ADOPT, 500, False, Outcome.ALREADY_TAKEN, True),
        (Way.REPLACE, 500, False, Outcome.REFUSED, False),
    ],
)
def test_A1_what_a_partys_answer_means(
    way: Way, status: int, rang: bool, expected: Outcome, final: bool
) -> None:
    outcome = outcome_of(way, status, rang=rang)
    assert outcome is expected
    assert is_final(outcome) is final
    assert outcome.is_taken is (expected is Outcome.TAKEN)
