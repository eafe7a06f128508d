"""Live calls: what a document holds, how it travels, and which version stays."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlone_ha.core.calls import Call, CallState, CallTable, Leg, LegState, call_from_json

LEG = Leg(
    id="1",
    role="gateway",
    party="551199",
    state=LegState.CONFIRMED,
    incoming=True,
    call_id="a@b",
    local_tag="l",
    remote_tag="r",
    local_uri="sip:100@s",
    remote_uri="sip:x@g",
    remote_target="sip:x@g:5060",
    route_set=("<sip:p;lr>",),
    transport="tcp",
    local_address="10.0.0.1:5060",
    remote_cseq=7,
    remote_sdp="v=0",
    session_expires=1800,
    refresher="uac",
    invite={"request_uri": "sip:100@s"},
)
CALL = Call(id="n-1", owner="n", queue="100", state=CallState.UP, legs=(LEG,), created=1.5)


def test_A2_a_document_is_the_same_after_its_journey() -> None:
    assert call_from_json(json.loads(json.dumps(CALL.to_json()))) == CALL
    assert LEG.is_complete
    assert not Leg(id="2", role="console", party="d").is_complete


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": ""}, "an id"),
        ({"owner": 5}, "owner"),
        ({"generation": 0}, "begin with 1"),
        ({"sequence": True}, "whole number"),
        ({"state": "asleep"}, "asleep"),
        ({"legs": {}}, "legs"),
        ({"legs": [5]}, "a leg is an object"),
        ({"legs": [{"id": "1"}]}, "a leg has role"),
        ({"legs": [{}] * 65}, "up to 64"),
        ({"number": "1" * 2000}, "1024"),
        ({"recording": {"a": []}}, "texts and numbers"),
        ({"created": "now"}, "a number"),
    ],
)
def test_a_document_that_makes_no_sense_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call_from_json({**CALL.to_json(), **change})


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: (
    st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from([*CALL.to_json(), *CALL.to_json()["legs"][0], "other"]), inner
    )
), max_leaves=20))  # fmt: skip
def test_no_document_whatever_breaks_the_reader(raw: Any) -> None:
    try:
        call = call_from_json(raw)
    except ValueError:
        return
    assert call_from_json(call.to_json()) == call


def versions() -> list[Call]:
    second = CALL.changed_to(2.0, state=CallState.HELD)
    claimed = second.claimed_by("m", 3.0)
    return [CALL, second, claimed, claimed.changed_to(4.0, state=CallState.ENDED)]


def test_A2_the_order_of_arrival_does_not_matter() -> None:
    for order in itertools.permutations(versions()):
        table = CallTable()
        for call in order:
            table.merge(call)
        found = table.get("n-1")
        assert found is not None
        assert (found.owner, found.state) == ("m", CallState.ENDED)
        assert len(table) == 0


def test_A2_a_returned_owner_undoes_nothing_that_was_claimed() -> None:
    table = CallTable()
    claimed = CALL.claimed_by("m", 3.0)
    assert table.merge(claimed)
    stale = CALL
    for second in range(50):
        stale = stale.changed_to(10.0 + second)
        assert not table.merge(stale)
    assert table.get("n-1") == claimed


def test_a_call_that_its_owner_lists_no_more_is_over_until_it_says_otherwise() -> None:
    table = CallTable()
    table.merge(CALL)
    assert table.end_missing("m", [], 5.0) == ()
    (gone,) = table.end_missing("n", ["n-2"], 5.0)
    assert gone.id == "n-1"
    assert not table.merge(CALL)
    assert table.merge(CALL.changed_to(6.0))
    assert [call.id for call in table.live_of("n")] == ["n-1"]


def test_tombstones_are_forgotten_after_their_time_and_live_calls_never() -> None:
    table = CallTable()
    table.merge(CALL.changed_to(2.0, state=CallState.ENDED))
    table.merge(Call(id="n-2", owner="n", changed=1.0))
    assert table.forget(2.0) == 0
    assert table.forget(3.0) == 1
    assert table.get("n-1") is None
    assert table.get("n-2") is not None
