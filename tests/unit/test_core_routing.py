"""Routes, gateways in order, and servers that share the load."""

from __future__ import annotations

import re

import pytest

from controlone_ha.core.routing import (
    SILENCE,
    Attempt,
    Route,
    Spread,
    attempts,
    is_dialled_number,
    is_next_tried,
    pattern_expression,
    servers_to_try,
)


@pytest.mark.parametrize(
    ("pattern", "fitting", "other"),
    [
        ("_0ZXXXXXXX", "012345678", "002345678"),
        ("NXX", "999", "199"),
        ("[15-7]X.", "6712", "4712"),
        ("0.", "01", "0"),
        ("0!", "0", "10"),
        ("*100", "*100", "x100"),
        ("+55.", "+5511", "5511"),
    ],
)
def test_L3_a_pattern_takes_what_fits(pattern: str, fitting: str, other: str) -> None:
    assert re.fullmatch(pattern_expression(pattern), fitting)
    assert not re.fullmatch(pattern_expression(pattern), other)


@pytest.mark.parametrize("pattern", ["", "_", "0.1", "[", "[a]", "[]", "1!2"])
def test_L3_a_bad_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="got"):
        pattern_expression(pattern)


def test_L3_all_routes_of_a_number_and_all_their_gateways_are_tried_in_order_once() -> None:
    routes = [
        Route(name="long", prefix="0", strip=1, add="55", gateways=("a", "b")),
        Route(name="local", pattern="NXX", gateways=("c",)),
        Route(name="rest", gateways=("c", "d", "missing")),
        Route(name="again", prefix="0", strip=1, add="55", gateways=("b", "a")),
    ]
    assert attempts("0119", routes, {"a", "b", "c", "d"}) == (
        Attempt(route="long", gateway="a", number="55119"),
        Attempt(route="long", gateway="b", number="55119"),
        Attempt(route="rest", gateway="c", number="0119"),
        Attempt(route="rest", gateway="d", number="0119"),
    )
    assert attempts("9", routes[:2], {"a", "b", "c"}) == ()
    assert attempts("0", [Route(name="x", strip=1, gateways=("a",))], {"a"}) == ()


@pytest.mark.parametrize("status", [SILENCE, 403, 408, 500, 503, 504, 603])
def test_L3_a_gateway_s_own_trouble_leads_to_the_next(status: int) -> None:
    assert is_next_tried(status)


@pytest.mark.parametrize("status", [200, 404, 480, 484, 486, 487, 600])
def test_L3_an_answer_or_the_number_s_own_trouble_ends_the_list(status: int) -> None:
    assert not is_next_tried(status)


@pytest.mark.parametrize("number", ["", "100 200", "1;user=phone", "a@b", "-1", "1" * 65, "1,2"])
def test_what_would_be_more_than_a_number_in_a_uri_is_none(number: str) -> None:
    assert not is_dialled_number(number)


def test_L3_least_calls_first_equals_in_turn_and_failed_ones_last() -> None:
    names = ["a", "b", "c"]
    assert servers_to_try(names, calls={"a": 2, "b": 1, "c": 1}) == ("b", "c", "a")
    assert servers_to_try(names, calls={}, last="a") == ("b", "c", "a")
    assert servers_to_try(names, calls={}, failed={"a"}) == ("b", "c", "a")
    turn = servers_to_try(names, calls={"b": 9}, strategy=Spread.ROUND_ROBIN, last="a")
    assert turn == ("b", "c", "a")
