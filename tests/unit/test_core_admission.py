"""Who is let in, how a refusal reads on the wire, and in which order consoles ring."""

from __future__ import annotations

import pytest

from controlone_ha.core.admission import (
    FULL,
    NO_CONSOLE,
    NOT_ACTIVE,
    REFUSALS,
    UNKNOWN_NUMBER,
    QueueRule,
    Refusal,
    Rules,
    Situation,
    Strategy,
    Verdict,
    admit,
    overflow,
)
from controlone_ha.core.ringing import rounds

RULES = Rules(queues={"100": QueueRule(number="100", overflow="200")}, max_calls=2)


def situation(
    *, active: bool = True, settled: bool = True, calls: int = 0, monitored: str = ""
) -> Situation:
    return Situation(
        is_active=active,
        is_settled=settled,
        calls=calls,
        monitored={monitored: 1} if monitored else {},
    )


@pytest.mark.parametrize(
    ("number", "now", "refusal"),
    [
        ("100", situation(), NO_CONSOLE),
        ("100", situation(monitored="200"), NO_CONSOLE),
        ("999", situation(), UNKNOWN_NUMBER),
        ("100", situation(active=False, monitored="100"), NOT_ACTIVE),
        ("100", situation(calls=2, monitored="100"), FULL),
        ("999", situation(active=False), NOT_ACTIVE),
    ],
)
def test_L2_a_refusal_fits_its_situation(number: str, now: Situation, refusal: Refusal) -> None:
    assert admit(number, RULES, now).refusal == refusal


def test_L2_603_means_one_thing_only() -> None:
    assert [item for item in REFUSALS if item.status == 603] == [NO_CONSOLE]
    assert len({item.cause for item in REFUSALS}) == len(REFUSALS)


def test_L1_a_queue_with_a_console_is_let_in_known_to_the_settings_or_not() -> None:
    assert admit("100", RULES, situation(monitored="100")).verdict is Verdict.ACCEPT
    assert admit("777", RULES, situation(monitored="777")).verdict is Verdict.ACCEPT


def test_while_consoles_are_arriving_a_call_waits_for_them() -> None:
    assert admit("100", RULES, situation(settled=False)).verdict is Verdict.WAIT
    assert admit("999", RULES, situation(settled=False)).verdict is Verdict.WAIT
    assert admit("100", RULES, situation(settled=False, active=False)).refusal == NOT_ACTIVE


def test_without_queues_in_the_settings_every_number_is_one() -> None:
    assert admit("5", Rules(), situation()).refusal == NO_CONSOLE


def test_an_overflow_never_comes_back_to_a_queue() -> None:
    assert overflow(RULES.queue("100"), frozenset({"100"}), RULES) == RULES.queue("200")
    assert overflow(RULES.queue("100"), frozenset({"100", "200"}), RULES) is None
    assert overflow(RULES.queue("200"), frozenset({"200"}), RULES) is None


def test_L1_all_consoles_ring_at_once() -> None:
    assert rounds(Strategy.ALL, {"b", "a"}) == (("a", "b"),)
    assert rounds(Strategy.ALL, ()) == ()


def test_L1_round_robin_begins_after_the_last_first() -> None:
    consoles = {"a", "b", "c"}
    assert rounds(Strategy.ROUND_ROBIN, consoles, last_first="a") == (("b",), ("c",), ("a",))
    assert rounds(Strategy.ROUND_ROBIN, consoles, last_first="c") == (("a",), ("b",), ("c",))
    assert rounds(Strategy.ROUND_ROBIN, consoles, last_first="bb") == (("c",), ("a",), ("b",))


def test_L1_least_recent_begins_with_who_has_rested_longest() -> None:
    order = rounds(Strategy.LEAST_RECENT, {"a", "b", "c"}, last_call={"a": 9.0, "b": 3.0})
    assert order == (("c",), ("b",), ("a",))


def test_who_is_in_a_call_is_left_out_unless_nobody_is_free() -> None:
    assert rounds(Strategy.ALL, {"a", "b"}, busy={"a"}) == (("b",),)
    assert rounds(Strategy.ALL, {"a", "b"}, busy={"a", "b"}) == (("a", "b"),)
