"""What the commands beside `ha status` show."""

from __future__ import annotations

import time
from typing import Any

import pytest

from controlone_ha.control.language import Texts
from controlone_ha.control.reports import (
    View,
    entry_line,
    render_check,
    render_history,
    render_keys,
    render_links,
    render_outcome,
    render_plan,
    render_probe,
    render_why,
    render_why_not,
)
from controlone_ha.control.table import width

NOW = 1_750_000_000.0
ENGLISH, PORTUGUESE = Texts("en"), Texts("pt_BR")
FAILED = {
    "code": "peer_failed",
    "text": "m1 failed: its services refuse and its `ha` does not answer",
    "params": {"peer": "m1"},
    "evidence": [{"text": "port 7551 refused", "path": "via s2", "age": 12.0}],
}
ACTIVATED = {
    "time": NOW - 5,
    "node": "s1",
    "kind": "state",
    "from": "standby",
    "to": "active",
    "reason": FAILED,
}


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.localtime", time.gmtime)


def view(texts: Texts = ENGLISH, columns: int = 100) -> View:
    return View(texts, now=NOW, columns=columns)


def test_history_reads_as_a_log_the_newest_last() -> None:
    forced = {"time": NOW, "kind": "force", "to": "passive", "by": "ana", "reason": {"code": "x"}}
    lines = render_history([forced, ACTIVATED], view()).splitlines()
    assert lines == [
        "TIME                 KIND   PEER  WHAT AND WHY",
        "2025-06-15 15:06:35  state  -     "
        "standby → active: m1 failed: its services refuse and its `ha` does",
        "                                  not answer",
        "2025-06-15 15:06:40  force  -     passive: x (by ana)",
    ]


def test_history_in_portuguese_and_when_empty() -> None:
    line = entry_line(ACTIVATED, PORTUGUESE)
    assert line.startswith("em espera → ativo: m1 falhou: seus serviços recusam conexões")
    assert render_history([], view(PORTUGUESE)) == "Nenhum registro."


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ({"kind": "peer", "from": "alive", "to": "no_daemon"}, "alive → no `ha`"),
        ({"kind": "service", "service": "server", "detail": "exited"}, "server: exited"),
        (
            {"kind": "force", "to": "active", "refused": "passive role"},
            "active refused: passive role",
        ),
        ({"kind": "force", "from": "active", "to": ""}, "force"),
        ({"kind": "x", "to": "y", "unwritten": 3}, "y [3 earlier entries were lost]"),
        ({"kind": "state", "from": "active", "to": "active", "detail": "why"}, "active: why"),
        ({}, "?"),
    ],
)
def test_every_kind_of_entry_says_something(entry: dict[str, Any], line: str) -> None:
    assert entry_line(entry, ENGLISH) == line


def test_why_gives_state_reason_evidence_and_the_decisions_before() -> None:
    answer = {
        "node": "s1",
        "peer": None,
        "state": "active",
        "since": NOW - 5,
        "reason": FAILED,
        "decisions": [ACTIVATED],
    }
    assert render_why(answer, view()).splitlines() == [
        "s1: active for 5 s, since 2025-06-15 15:06:35",
        "Because   m1 failed: its services refuse and its `ha` does not answer",
        "          · port 7551 refused (via s2, 12 s before)",
        "",
        "Last decisions, newest first:",
        "2025-06-15 15:06:35  "
        "standby → active: m1 failed: its services refuse and its `ha` does not answer",
        "                     · port 7551 refused (via s2, 12 s before)",
    ]
    about_peer = {**answer, "peer": "m1", "state": "no_daemon", "decisions": []}
    assert render_why(about_peer, view(PORTUGUESE)).startswith("m1: sem `ha` há 5 s")


def test_why_not_lists_every_obstacle() -> None:
    answer = {
        "node": "s1",
        "peer": "m1",
        "would": False,
        "reason": None,
        "obstacles": [
            {"code": "own_paused", "text": "it is paused", "params": {}},
            {"code": "own_links", "text": "its own network is down", "params": {}},
        ],
    }
    assert render_why_not(answer, view(PORTUGUESE)).splitlines() == [
        "s1 não assume o lugar de m1.",
        "  · ele está pausado",
        "  · sua própria rede está fora",
    ]
    assert render_why_not({**answer, "would": True, "obstacles": []}, view()) == (
        "s1 would take over from m1."
    )


def test_plan_shows_who_changes_when_and_because_of_what() -> None:
    answer = {
        "peer": "m1",
        "nodes": [
            {"node": "s1", "state": "standby", "to": "active", "after_s": 0.0, "reason": FAILED},
            {"node": "p1", "state": "passive", "to": "passive", "after_s": None, "reason": None},
        ],
        "notes": [{"code": "own_note", "text": "3 calls are protected"}],
    }
    assert render_plan(answer, view()).splitlines() == [
        "If m1 died now:",
        "NODE  NOW      THEN    AFTER  BECAUSE",
        "s1    standby  active  0.0 s  m1 failed: its services refuse and its `ha` does not answer",
        "p1    passive  stays   -",
        "  · 3 calls are protected",
    ]


def test_check_shows_errors_first_each_with_its_remedy() -> None:
    findings = [
        {"severity": "warning", "code": "w", "text": "a warning", "remedy": ""},
        {"severity": "error", "area": "keys", "code": "e", "text": "an error", "remedy": "do this"},
    ]
    assert render_check(findings, view()).splitlines() == [
        "Error    keys: an error",
        "         → do this",
        "Warning  a warning",
        "",
        "1 errors, 1 warnings",
    ]
    assert render_check([], view(PORTUGUESE)) == "Nada está errado."


def test_probe_links_and_outcome_are_shown_in_words() -> None:
    probes = [{"service": "server", "outcome": "timeout", "detail": "2 s", "rtt_ms": None}]
    assert "server   sem resposta    -  2 s" in render_probe(
        {"peer": "m1", "probes": probes}, view(PORTUGUESE)
    )
    link = {"peer": "m1", "address": "10.1.0.1", "state": "refused", "code": "wrong_secret"}
    row = render_links([{**link, "text": "the secret of m1 differs", "since": NOW - 60}], view())
    assert row.splitlines()[1] == (
        "m1    10.1.0.1  refused  1 min  -         -     -  the secret of m1 differs"
    )
    assert "o segredo difere" in render_links([link], view(PORTUGUESE))
    outcome = {
        "state": "passive",
        "reason": {"code": "forced_passive", "text": "forced passive by ana", "params": {}},
        "continues": [{"code": "x", "text": "synchronisation"}],
    }
    assert render_outcome(outcome, view()).splitlines() == [
        "This node is passive.",
        "Because   forced passive by ana",
        "Meanwhile, as before:",
        "  · synchronisation",
    ]


def test_keys_shows_what_two_administrators_compare() -> None:
    own = {"key": "SHA256:own", "certificate": "abc", "host_keys": ["SHA256:host"]}
    pinned = [{"name": "m1", "addresses": ["10.1.0.1"], "key": "SHA256:m1", "certificate": "def"}]
    assert render_keys({"own": own, "pinned": pinned}, view()).splitlines() == [
        "this node",
        "  key          SHA256:own",
        "  certificate  abc",
        "  host key     SHA256:host",
        "m1  10.1.0.1",
        "  key          SHA256:m1",
        "  certificate  def",
    ]
    assert render_keys({"own": None, "pinned": []}, view()).splitlines() == [
        "This node has no key yet.",
        "No peer is paired: run `ha pair PEER`.",
    ]


@pytest.mark.parametrize("columns", [40, 72, 100])
@pytest.mark.parametrize("texts", [ENGLISH, PORTUGUESE])
def test_every_report_fits_the_terminal(columns: int, texts: Texts) -> None:
    narrow = view(texts, columns)
    long = {**ACTIVATED, "peer": "m1", "reason": {"code": "x", "text": "word " * 60, "params": {}}}
    shown = [
        render_history([long], narrow),
        render_why({"state": "active", "reason": FAILED, "decisions": [long]}, narrow),
        render_check([{"severity": "error", "text": "x" * 300, "remedy": "y " * 90}], narrow),
    ]
    for text in shown:
        assert max(map(width, text.splitlines())) <= max(columns, 62), text
