"""The metrics page against the rules of OpenMetrics 1.0, read by a strict little parser."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from controlone_ha.control.metrics import Exposition, render_down, render_metrics

STATUS = json.loads(
    (Path(__file__).resolve().parents[1] / "data" / "control" / "status.json").read_text()
)
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
SAMPLE = re.compile(rf"({NAME})(?:\{{(.*)\}})? (-?[0-9.e+-]+)")
SUFFIX = {"counter": "_total", "info": "_info"}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parse(page: str) -> tuple[dict[str, str], Samples]:
    """Return the families (name to type) and the samples; fail on what is forbidden."""
    assert page.endswith("# EOF\n")
    lines = page.split("\n")[:-2]
    families: dict[str, str] = {}
    samples: Samples = {}
    family = ""
    for line in lines:
        assert line, "empty lines are forbidden"
        if line.startswith("# "):
            _, keyword, name, rest = line.split(" ", 3)
            if keyword == "TYPE":
                assert name not in families, "a family stands in one piece"
                families[name] = rest
                family = name
            elif keyword == "UNIT":
                assert name.endswith(f"_{rest}")
            else:
                assert keyword == "HELP"
            assert name == family
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        name, labels_text, value = match[1], match[2] or "", float(match[3])
        kind = families[family]
        assert name == family + SUFFIX.get(kind, "")
        pairs = LABEL.findall(labels_text)
        assert "".join(f'{key}="{text}",' for key, text in pairs)[:-1] == labels_text
        labels = frozenset(pairs)
        assert len(dict(labels)) == len(pairs)
        assert (name, labels) not in samples, "a sample stands once"
        if kind == "stateset":
            assert family in dict(labels)
            assert value in (0, 1)
        if kind == "counter":
            assert value >= 0
        samples[(name, labels)] = value
    return families, samples


def sample(page: str, name: str, **labels: str) -> float | None:
    return parse(page)[1].get((f"controlone_ha{name}", frozenset(labels.items())))


def test_the_page_of_a_full_status_obeys_openmetrics() -> None:
    families, samples = parse(render_metrics(STATUS))
    assert families["controlone_ha_state"] == "stateset"
    assert families["controlone_ha_service_restarts"] == "counter"
    assert all(name.startswith("controlone_ha") for name in families)
    assert len(samples) > 100


def test_what_matters_for_an_alarm_is_there() -> None:
    page = render_metrics(STATUS)
    assert sample(page, "_up") == 1
    assert sample(page, "_state", controlone_ha_state="active") == 1
    assert sample(page, "_state", controlone_ha_state="standby") == 0
    verdict = {"peer": "m1", "controlone_ha_peer_verdict": "failed"}
    assert sample(page, "_peer_verdict", **verdict) == 1
    assert sample(page, "_link_state", peer="m1", controlone_ha_link_state="down") == 1
    assert sample(page, "_link_round_trip_seconds", peer="m2") == pytest.approx(0.00041)
    assert sample(page, "_clock_skew_seconds", peer="s2") == 12
    assert sample(page, "_probe_answered", peer="m1", service="server") == 0
    assert sample(page, "_service_restarts_total", service="conference") == 1
    assert sample(page, "_warnings") == 1
    assert sample(page, "_forced", controlone_ha_forced="none") == 1
    held = {"peer": "s2", "kind": "config", "controlone_ha_sync_state": "held"}
    assert sample(page, "_sync_state", **held) == 1


def test_an_unmeasured_value_is_left_out_rather_than_zero() -> None:
    page = render_metrics(STATUS)
    assert sample(page, "_link_round_trip_seconds", peer="m1") is None


def test_exactly_one_state_of_a_set_holds_even_for_one_this_version_does_not_know() -> None:
    status = copy.deepcopy(STATUS) | {"state": "dancing"}
    _, samples = parse(render_metrics(status))
    held = [
        labels
        for (name, labels), value in samples.items()
        if name == "controlone_ha_state" and value
    ]
    assert held == [frozenset({("controlone_ha_state", "dancing")})]


def test_names_from_outside_cannot_break_the_page() -> None:
    status: dict[str, Any] = copy.deepcopy(STATUS)
    status["peers"][0]["name"] = 'a"b\\c\nd} 1'
    _, samples = parse(render_metrics(status))
    assert any(("peer", 'a\\"b\\\\c\\nd} 1') in labels for _, labels in samples)


def test_a_status_with_nothing_in_it_and_a_daemon_that_is_down_are_pages_too() -> None:
    assert sample(render_metrics({}), "_up") == 1
    assert parse(render_down())[1] == {("controlone_ha_up", frozenset()): 0}


def test_the_parser_of_these_tests_refuses_what_is_wrong() -> None:
    twice = Exposition()
    twice.family("x", "gauge", "t", [({}, 1)])
    twice.family("x", "gauge", "t", [({}, 1)])
    for page in (twice.text(), "# TYPE a gauge\na 1\n", "# TYPE a counter\na 1\n# EOF\n"):
        with pytest.raises(AssertionError):
            parse(page)
