"""A report on the wire: round trip, and what a hostile or outdated peer may send."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlone_ha.core.model import Report, Role, State, Yielding
from controlone_ha.core.reasons import Evidence, Reason, reason
from controlone_ha.core.wire import MAX_NAMES, is_newer, report_from_json, report_to_json
from tests.unit.core_builders import make_report

FULL = make_report(
    "m1",
    state=State.DISABLED,
    reason=reason(
        "abnormal_yielded", what="x", node="s1", evidence=(Evidence(kind="a", text="b"),)
    ),
    since=1.5,
    priority=200,
    site="site1",
    incarnation=3,
    revision=9,
    covers=frozenset({"m2", "s1"}),
    covering=frozenset({"m2"}),
    ineligible=reason("own_late"),
    yielding=Yielding.YIELDED,
    consents=frozenset({"s2"}),
    offers=frozenset({"s2"}),
    forced="active",
    version="1.0",
)

names = st.frozensets(st.text(max_size=8), max_size=4)
texts = st.text(max_size=20)
numbers = st.floats(0, 1e12)
reports = st.builds(
    Report,
    node=texts,
    role=st.sampled_from(Role),
    state=st.sampled_from(State),
    reason=st.builds(Reason, code=texts, params=st.dictionaries(texts, texts, max_size=2)),
    since=numbers,
    priority=st.integers(-1000, 1000),
    site=texts,
    incarnation=st.integers(0, 2**40),
    revision=st.integers(0, 2**40),
    covers=names,
    covering=names,
    ineligible=st.none() | st.builds(Reason, code=texts),
    yielding=st.sampled_from(Yielding),
    consents=names,
    offers=names,
    forced=texts,
    version=texts,
)


def test_a_report_arrives_as_it_was_sent() -> None:
    assert report_from_json(json.loads(json.dumps(report_to_json(FULL))), "m1") == FULL


@given(reports)
def test_every_report_arrives_as_it_was_sent(report: Report) -> None:
    assert report_from_json(json.loads(json.dumps(report_to_json(report))), report.node) == report


def test_X1_nobody_reports_for_somebody_else() -> None:
    with pytest.raises(ValueError, match="report of 'm1' sent by 's2'"):
        report_from_json(report_to_json(FULL), "s2")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("role", "mestre"),
        ("role", None),
        ("state", "flying"),
        ("yielding", "perhaps"),
        ("priority", "100"),
        ("priority", True),
        ("priority", float("inf")),
        ("priority", float("nan")),
        ("since", float("nan")),
        ("revision", [1]),
        ("incarnation", 1e400),
        ("site", "x" * 201),
        ("site", 5),
        ("covers", "m1"),
        ("covers", {"m1": 1}),
        ("covers", [1]),
        ("covers", 7),
        ("covers", ["x"] * (MAX_NAMES + 1)),
        ("covers", ["x" * 10_000]),
        ("consents", [None]),
    ],
)
def test_a_report_with_a_bad_field_is_refused_with_a_sentence(field: str, value: object) -> None:
    raw: dict[str, Any] = {**report_to_json(FULL), field: value}
    with pytest.raises(ValueError):
        report_from_json(raw, "m1")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(report_to_json(FULL))), json_values))
def test_whatever_a_peer_sends_is_a_report_or_a_value_error(changes: dict[str, Any]) -> None:
    raw = {**report_to_json(FULL), **changes, "node": "m1"}
    try:
        report = report_from_json(raw, "m1")
    except ValueError as error:
        assert str(error)
    else:
        json.dumps(report_to_json(report), allow_nan=False)


@given(json_values)
def test_an_unknown_field_of_a_later_version_is_ignored(value: Any) -> None:
    raw = {**report_to_json(FULL), "of_a_later_version": value}
    assert report_from_json(raw, "m1") == FULL


@pytest.mark.parametrize(
    ("new", "known", "expected"),
    [
        ((1, 1), None, True),
        ((1, 2), (1, 1), True),
        ((1, 1), (1, 1), False),
        ((1, 1), (1, 2), False),
        ((2, 1), (1, 9), True),
        ((1, 9), (2, 1), False),
    ],
)
def test_a_report_is_newer_by_incarnation_then_revision(
    new: tuple[int, int], known: tuple[int, int] | None, expected: bool
) -> None:
    def build(pair: tuple[int, int]) -> Report:
        return make_report("m1", incarnation=pair[0], revision=pair[1])

    assert is_newer(build(new), build(known) if known else None) is expected
