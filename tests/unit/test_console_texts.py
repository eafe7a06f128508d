"""What an operator reads: the same in both languages, safe for a terminal, one line when asked."""

from __future__ import annotations

from pathlib import Path
from string import Formatter
from typing import Any

import pytest

from controlone_ha import console
from controlone_ha.console.links import has_network
from controlone_ha.console.render import duration, indication, render_status
from controlone_ha.console.status import abnormalities
from controlone_ha.console.texts import ENGLISH, PORTUGUESE, SENTENCES, WORDS, sentence, word
from controlone_ha.console.trust import Credentials, load_credentials, save_credentials
from controlone_ha.errors import TrustError

NOW = 1_795_390_000.0


def fields(template: str) -> set[str | None]:
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def status(**more: Any) -> dict[str, Any]:
    row = {"node": None, "state": None, "cause": None, "checked": NOW - 70, "rtt_ms": None}
    found: dict[str, Any] = {
        "console": "desk-9",
        "state": "connected",
        "node": "north",
        "is_first": True,
        "reason": {"code": "started", "params": {}},
        "since": NOW - 5,
        "network": True,
        "servers": [
            {**row, "server": "10.0.0.1", "node": "north", "active": True, "health": "serving"},
            {**row, "server": "10.0.0.2", "active": False, "health": "standby"},
        ],
        "queues": ["100"],
        "calls": [],
        "pins": 2,
        "problems": [],
        **more,
    }
    found["abnormal"] = [
        {"code": item.code, "params": item.params} for item in abnormalities(found)
    ]
    return found


@pytest.mark.parametrize("key", sorted([*SENTENCES, *WORDS]))
def test_a_text_takes_the_same_parameters_in_both_languages(key: str) -> None:
    english, portuguese = {**SENTENCES, **WORDS}[key]
    # A Portuguese sentence may leave the server out where it is clear; it never takes more.
    assert fields(portuguese) <= fields(english)


def test_every_cause_that_the_code_names_has_a_sentence() -> None:
    import re

    sources = [file.read_text() for file in Path(console.__file__).parent.glob("*.py")]
    named = {code for text in sources for code in re.findall(r"Cause\(\s*\"([a-z_]+)\"", text)}
    assert len(named) > 20
    assert named - set(SENTENCES) <= {"left", "dropped"}, "these are told to nobody"


def test_k4_all_well_is_no_indication() -> None:
    assert indication(status(), ENGLISH) == ""
    assert "connected on north, 5 s ago" in render_status(status(), ENGLISH, now=NOW)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"network": False, "state": "unavailable", "node": None}, "no_network"),
        ({"state": "unavailable", "node": None}, "unavailable"),
        ({"state": "switching", "node": None}, "switching"),
        ({"is_first": False}, "not_first"),
        ({"pins": 0}, "not_enrolled"),
        ({"problems": ["console:3: bad"]}, "setting"),
    ],
)
def test_k4_what_is_abnormal_is_one_line_in_both_languages(more: dict[str, Any], code: str) -> None:
    found = status(**more)
    assert found["abnormal"][0]["code"] == code
    for language, mark in ((ENGLISH, "ATTENTION: "), (PORTUGUESE, "ATENÇÃO: ")):
        line = indication(found, language)
        assert line.startswith(mark) and "\n" not in line
        assert "{" not in line


def test_a_console_whose_other_servers_are_all_down_is_told_so() -> None:
    found = status()
    found["servers"][1]["health"] = "down"
    assert [item.code for item in abnormalities(found)] == ["no_other"]


def test_what_a_server_says_cannot_drive_the_terminal() -> None:
    found = status(node="no\x1b[2Jrth", reason={"code": "goodbye", "params": {"text": "\x07\n"}})
    shown = render_status(found, ENGLISH, now=NOW)
    assert "\x1b" not in shown and "\x07" not in shown


def test_unknown_codes_and_odd_parameters_are_shown_and_not_raised() -> None:
    assert sentence("of_tomorrow", {}, ENGLISH) == "of_tomorrow"
    assert sentence("silent", {}, ENGLISH) == "silent"
    assert word("health.of_tomorrow", PORTUGUESE) == "of_tomorrow"


def test_durations() -> None:
    assert [duration(s) for s in (-1, 59, 125, 7500, 100000)] == [
        "0 s", "59 s", "2 min 5 s", "2 h 5 min", "1 d 3 h"
    ]  # fmt: skip


def test_x1_credentials_are_kept_private_and_a_spoiled_file_is_told(tmp_path: Path) -> None:
    file = tmp_path / "state" / "console.json"
    assert load_credentials(file) == Credentials()
    kept = Credentials(token="a" * 64, pins=(("north", "1" * 64),))
    save_credentials(file, kept)
    assert load_credentials(file) == kept
    assert file.stat().st_mode & 0o077 == 0
    file.write_text("{")
    with pytest.raises(TrustError, match="console enrol"):
        load_credentials(file)


def test_a_known_server_never_gets_another_certificate_by_introduction() -> None:
    known = Credentials(token="a" * 64, pins=(("north", "1" * 64),))
    offered = [
        {"name": "north", "certificate_sha256": "2" * 64},
        {"name": "south", "certificate_sha256": "3" * 64},
        {"name": "bad", "certificate_sha256": "zz"},
        "nonsense",
    ]
    learned = known.introduced(offered)
    assert learned.pins == (("north", "1" * 64), ("south", "3" * 64))
    assert learned.digest != known.digest
    assert known.introduced("nonsense") == known


def test_a_machine_without_a_link_has_no_network(tmp_path: Path) -> None:
    for name, state in (("lo", "unknown"), ("eth0", "down")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "operstate").write_text(state + "\n")
    assert not has_network(tmp_path)
    (tmp_path / "eth0" / "operstate").write_text("up\n")
    assert has_network(tmp_path)
    assert has_network(tmp_path / "nowhere"), "what cannot be known is no alarm"
