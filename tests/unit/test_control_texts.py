"""The two languages of the command say the same things, and every text the code asks for exists."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import pytest

from controlone_ha import control
from controlone_ha.control import texts_en, texts_pt
from controlone_ha.control.arguments import COMMANDS
from controlone_ha.control.command import main
from controlone_ha.control.language import LANGUAGES, Texts
from controlone_ha.control.metrics import LINK_STATES, SERVICE_STATES, SYNC_STATES
from controlone_ha.core.model import Role, State, Verdict
from controlone_ha.core.observations import Outcome

SOURCES = [
    file.read_text()
    for file in Path(control.__file__).parent.glob("*.py")
    if "texts_" not in file.name
]
ENGLISH, PORTUGUESE = texts_en.TEXTS, texts_pt.TEXTS


def fields(template: str) -> set[str | None]:
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def test_both_languages_have_the_same_keys() -> None:
    assert set(ENGLISH) == set(PORTUGUESE)


@pytest.mark.parametrize("key", sorted(ENGLISH))
def test_a_text_takes_the_same_parameters_in_both_languages(key: str) -> None:
    assert fields(ENGLISH[key]) == fields(PORTUGUESE[key])
    assert ENGLISH[key].strip()
    assert PORTUGUESE[key].strip()


def test_every_text_the_code_names_exists() -> None:
    named = {
        key
        for source in SOURCES
        for key in re.findall(r"texts\(\s*\"([a-z_]+\.[a-z_]+|never)\"", source)
        + re.findall(r"UsageError\(\s*\"([a-z_.]+)\"", source)
    }
    assert len(named) > 40
    assert not named - set(ENGLISH)


def test_every_word_of_the_api_has_a_text() -> None:
    words = {
        "state": [*State, "unknown", "paused"],
        "verdict": [*Verdict, "refused"],
        "outcome": list(Outcome),
        "service": SERVICE_STATES,
        "link": LINK_STATES,
        "sync": SYNC_STATES,
    }
    missing = [
        f"{kind}.{value}"
        for kind, values in words.items()
        for value in values
        if f"{kind}.{value}" not in ENGLISH
    ]
    assert missing == []
    assert "role.master" not in ENGLISH, "roles are settings: shown as they are written"
    assert [str(role) for role in Role] == ["master", "slave", "passive"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_command_has_usage_and_help_that_fit_a_terminal(language: str) -> None:
    texts = Texts(language)
    longest = max(len(texts(f"usage.{name}")) for name in COMMANDS)
    for name in COMMANDS:
        summary, *rest = texts(f"help.{name}").split("\n")
        assert 2 + longest + 2 + len(summary) <= 100, name
        assert all(len(line) <= 100 for line in rest), name
        assert texts(f"usage.{name}").startswith("ha ")


def test_findings_of_the_daemon_read_in_portuguese_and_keep_unknown_ones() -> None:
    texts = Texts("pt_BR")
    params = {"peer": "m1", "address": "10.0.0.1"}
    finding = {"code": "unpaired", "text": "t", "remedy": "r", "params": params}
    assert texts.finding(finding)[0] == "m1 não está pareado: nenhuma chave dele está fixada aqui"
    assert Texts("en").finding(finding) == ("t", "r")
    for odd in ({**finding, "params": None}, {**finding, "code": "new"}, {**finding, "params": 3}):
        assert texts.finding(odd) == ("t", "r")
    remedies = {key.partition(".")[2] for key in PORTUGUESE if key.startswith("remedy.")}
    findings = {key.partition(".")[2] for key in PORTUGUESE if key.startswith("finding.")}
    assert remedies == findings


def test_the_documentation_shows_the_help_as_it_is_and_names_every_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = (Path(__file__).resolve().parents[2] / "docs" / "ha-command.md").read_text()
    assert main(["help", "--lang", "en"]) == 0
    assert capsys.readouterr().out in document
    shown = {name if name.startswith("force") else name.replace("_", "-") for name in COMMANDS}
    assert [name for name in shown if f"`ha {name}" not in document] == []
