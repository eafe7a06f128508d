"""What `ha status` shows, in both languages."""

from __future__ import annotations

import copy
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controlone_ha.control.language import LANGUAGES, Texts, choose_language
from controlone_ha.control.render import is_healthy, render_status
from controlone_ha.control.table import width
from controlone_ha.core.catalog import sentence

NOW = 1_750_000_000.0
STATUS = json.loads(
    (Path(__file__).resolve().parents[1] / "data" / "control" / "status.json").read_text()
)
ANSI = re.compile(r"\x1b\[[\d;]*m")


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.localtime", time.gmtime)


def status(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(STATUS) | changes


def shown(given: dict[str, Any], language: str = "en", **options: Any) -> str:
    return render_status(given, Texts(language), now=NOW, **options)


def test_G3_the_node_comes_first_with_role_state_since_and_reason_with_evidence() -> None:
    lines = shown(status()).splitlines()
    assert lines[:5] == [
        "s1: role slave, ACTIVE for 3 min 12 s, since 2025-06-15 15:03:28",
        "Because   m1 failed: its services refuse and its `ha` does not answer",
        "          · port 7551 of 10.1.0.1 refused (direct, 0.2 s before)",
        "          · SIP OPTIONS refused by the host (ICMP port unreachable)"
        " (direct, 0.3 s before)",
        "          · s2 has no sign of life either (via s2, 0.1 s before)",
    ]
    assert lines[5] == (
        "Node      address 10.1.0.2, site north, priority 100, version 0.1.0, `ha` up 2 d 3 h"
    )


def test_G3_services_and_peers_are_tables() -> None:
    text = shown(status())
    assert "server      serving  2 d 2 h      812         0  3 consoles\n" in text
    assert "database    stopped  -              -         0  not configured\n" in text
    assert (
        "m2    master   active   2 d 2 h     up    0.4 ms  +2.2 ms  in sync 5 min  in sync 1 h\n"
        in text
    )
    assert (
        "s2    slave    standby  2 d 2 h     up    0.4 ms    +12 s  held 1 min     never\n" in text
    )


def test_a_peer_that_is_not_fine_is_explained_below_the_table() -> None:
    text = shown(status())
    assert (
        "m1  failed for 3 min 12 s, last seen active: its ports refuse\n"
        "    · server: refused (connection refused)\n"
        "    · conference: no answer (no answer in 2 s)\n"
        "    link down for 3 min 13 s: the connection was reset\n"
        "s2  configuration is held back: clock differs by 12 s\n"
    ) in text
    assert "\nm2  " not in text.partition("DATA")[2].partition("m1  failed for")[2]


def test_a_probe_that_the_verdict_tells_already_is_not_told_twice() -> None:
    given = status()
    given["peers"][0]["verdict_text"] = "its ports refuse: connection refused"
    text = shown(given)
    assert text.count("connection refused") == 1
    assert "· conference: no answer (no answer in 2 s)\n" in text


def test_a_peer_that_serves_although_it_is_abnormal_says_why() -> None:
    given = status()
    reason = {"code": "x", "text": "/ is 99 % full; nobody else can serve", "params": {}}
    given["peers"][1] |= {"state": "degraded", "reason": reason}
    assert "\nm2  degraded: / is 99 % full; nobody else can serve\n" in shown(given)


def test_warnings_carry_their_remedy() -> None:
    assert shown(status()).endswith(
        "Warning  /etc/config/ha:12: ha.default.intervall is unknown, nearest name: interval\n"
        "         → uci rename ha.default.intervall=interval"
    )


def test_G3_the_same_in_portuguese_reasons_from_the_catalogue() -> None:
    text = shown(status(), "pt_BR")
    assert text.startswith("s1: função slave, ATIVO há 3 min 12 s, desde 2025-06-15 15:03:28\n")
    assert "Motivo   m1 falhou: seus serviços recusam conexões e seu `ha` não responde\n" in text
    assert "(direto, 0,2 s antes)" in text
    verdict = sentence("failed", {}, "pt_BR")
    assert verdict is not None
    assert verdict != sentence("failed", {}, "en")
    told = " ".join(text.split())
    assert f"m1 em falha há 3 min 12 s, visto por último ativo: {verdict} ·" in told
    assert "    enlace fora há 3 min 13 s: a conexão foi reiniciada\n" in text
    assert re.search(r"^m2 +master +ativo +2 d 2 h +ativo +0,4 ms", text, re.MULTILINE)


def test_a_reason_inside_a_reason_is_translated_too() -> None:
    inner = {"code": "own_paused", "text": "it is paused", "params": {}}
    reason = {"code": "not_eligible", "text": "t", "params": {"peer": "m1", "why": inner}}
    assert "não pode assumir: ele está pausado" in shown(status(reason=reason), "pt_BR")


def test_an_unknown_reason_is_shown_in_the_words_of_who_sent_it() -> None:
    reason = {"code": "from_the_future", "text": "because of something new", "params": {}}
    for language in LANGUAGES:
        assert "because of something new" in shown(status(reason=reason), language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_line_fits_100_columns_and_columns_are_aligned(language: str) -> None:
    given = status()
    for peer in given["peers"]:
        peer["name"] = f"controlone-servidor-{peer['name']}-matriz"
        peer["sync"]["config"]["state"] = "held"
    text = shown(given, language)
    assert max(map(width, text.splitlines())) <= 100
    table = text.split("\n\n")[2].splitlines()
    texts = Texts(language)
    left = ["role", "state", "since", "link", "config", "data"]
    for name in left:
        start = table[0].index(texts(f"column.{name}"))
        assert all(line[start - 2 : start] == "  " for line in table), name
        assert not any(line[start].isspace() for line in table), name
    for name in ("rtt", "skew"):
        end = table[0].index(texts(f"column.{name}")) + len(texts(f"column.{name}"))
        assert all(line[end : end + 2] == "  " and line[end - 1] != " " for line in table), name


@pytest.mark.parametrize("language", LANGUAGES)
def test_colours_are_only_added_never_needed(language: str) -> None:
    plain = shown(status(), language)
    coloured = shown(status(), language, colour=True)
    assert "\x1b" not in plain
    assert "\x1b[1;31m" in coloured
    stripped = [line.rstrip() for line in ANSI.sub("", coloured).splitlines()]
    assert stripped == plain.splitlines()


def test_G4_forced_and_paused_states_are_shown() -> None:
    paused = {"since": NOW - 60, "by": "ana", "reason": "cabling"}
    text = shown(status(forced="passive", paused=paused))
    assert "Forced    passive, until `ha resume`\n" in text
    assert (
        "Paused    by ana since 2025-06-15 15:05:40,"
        " no automatic change until `ha resume`: cabling\n"
    ) in text


def test_abnormalities_are_shown_with_their_age() -> None:
    item = {"kind": "disk", "text": "/ is 99 % full", "since": NOW - 30}
    assert "Abnormal  / is 99 % full (for 30 s)\n" in shown(status(abnormalities=[item]))


def test_what_a_peer_sent_cannot_drive_the_terminal() -> None:
    given = status()
    given["peers"][0]["name"] = "m1\x1b[2J"
    given["peers"][0]["verdict_text"] = "\x1b]0;owned\x07"
    given["reason"]["text"] = "a\nb\x1bc"
    assert not set(shown(given)) & {"\x1b", "\x07"}


def deletions(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every part of a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in items:
        yield (*path, key)
        if isinstance(part, dict | list):
            yield from deletions(part, (*path, key))


def test_a_status_with_any_part_missing_or_null_is_still_shown() -> None:
    texts = Texts("pt_BR")
    paths = list(deletions(STATUS))
    assert len(paths) > 150
    for path in paths:
        for replacement in ("delete", None):
            given = status()
            target = given
            for key in path[:-1]:
                target = target[key]
            if replacement is None and isinstance(target, dict):
                target[path[-1]] = None
            else:
                del target[path[-1]]
            assert render_status(given, texts, now=NOW)
            assert is_healthy(given) is False


def test_an_empty_status_says_that_there_are_no_peers() -> None:
    assert "No peers are configured" in shown({})


def healthy() -> dict[str, Any]:
    given = status(warnings=[])
    given["peers"] = [peer for peer in given["peers"] if peer["name"] in ("m2", "p1")]
    return given


@pytest.mark.parametrize(
    "change",
    [
        {"state": "degraded"},
        {"forced": "active"},
        {"paused": {"by": "ana"}},
        {"abnormalities": [{"kind": "disk"}]},
        {"warnings": [{"code": "x"}]},
        {"services": [{"name": "server", "state": "failed"}]},
        {"peers": [{"name": "m2", "verdict": "suspect"}]},
    ],
)
def test_health_is_lost_by_anything_that_needs_a_person(change: dict[str, Any]) -> None:
    assert is_healthy(healthy())
    assert not is_healthy(healthy() | change)


@pytest.mark.parametrize(
    ("peer", "fine"),
    [
        ({}, True),
        ({"link": {"state": "down"}}, False),
        ({"state": "disabled"}, False),
        ({"sync": {"config": {"state": "held"}}}, False),
        ({"sync": {"config": {"state": "pending"}, "data": None}}, True),
    ],
)
def test_health_looks_at_link_state_and_held_synchronisation(
    peer: dict[str, Any], fine: bool
) -> None:
    given = healthy()
    given["peers"][0] |= peer
    assert is_healthy(given) is fine


@pytest.mark.parametrize(
    ("asked", "environment", "language"),
    [
        (None, {}, "en"),
        (None, {"LANG": "pt_BR.UTF-8"}, "pt_BR"),
        (None, {"LANG": "pt_BR.UTF-8", "LC_ALL": "C"}, "en"),
        (None, {"LANG": "C", "LC_MESSAGES": "pt_PT"}, "pt_BR"),
        ("en", {"LC_ALL": "pt_BR"}, "en"),
        ("pt", {"LANG": "en_US.UTF-8"}, "pt_BR"),
        ("de", {}, "en"),
    ],
)
def test_the_language_comes_from_the_option_then_the_locale(
    asked: str | None, environment: dict[str, str], language: str
) -> None:
    assert choose_language(asked, environment) == language
