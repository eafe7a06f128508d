"""Every reason has its sentence in both languages, and every placeholder its parameter."""

from __future__ import annotations

import ast
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlone_ha import core
from controlone_ha.core import selfwatch
from controlone_ha.core.catalog import LANGUAGES, SENTENCES, sentence
from controlone_ha.core.reasons import Evidence, Reason, reason, reason_from_json

CORE = Path(core.__file__).parent


def uses() -> Iterator[tuple[str, str, set[str]]]:
    """Yield (where, code, names of parameters) of every ``reason("code", …)`` in core."""
    for path in sorted(CORE.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            if node.func.id == "reason" and node.args and isinstance(node.args[0], ast.Constant):
                names = {keyword.arg or "" for keyword in node.keywords} - {"evidence"}
                yield f"{path.name}:{node.lineno}", str(node.args[0].value), names


def placeholders(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def test_the_scan_finds_the_reasons_of_core() -> None:
    assert len(list(uses())) > 40


@pytest.mark.parametrize(
    ("where", "code", "names"), [pytest.param(*use, id=f"{use[0]}-{use[1]}") for use in uses()]
)
def test_every_reason_has_a_sentence_and_gives_what_the_sentence_needs(
    where: str, code: str, names: set[str]
) -> None:
    assert code in SENTENCES, where
    for template in SENTENCES[code]:
        assert placeholders(template) <= names, where


@pytest.mark.parametrize("code", [*selfwatch._DOWN.values(), *selfwatch._MUTE.values()])
def test_every_abnormality_of_a_service_has_a_sentence_with_its_detail(code: str) -> None:
    assert all(placeholders(template) == {"detail"} for template in SENTENCES[code])


@pytest.mark.parametrize("code", sorted(SENTENCES))
def test_both_languages_say_the_same_with_the_same_placeholders(code: str) -> None:
    english, portuguese = SENTENCES[code]
    assert placeholders(english) == placeholders(portuguese)
    assert english.strip() and portuguese.strip() and english != portuguese


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_reason_is_a_sentence_in_the_language_of_the_reader(language: str) -> None:
    text = reason("peer_silent", peer="m1", witnesses="m2, p1").text(language)
    assert "m1" in text and "m2, p1" in text
    assert ("silêncio" in text) is (language == "pt_BR")


def test_a_missing_parameter_is_shown_by_its_name_and_fails_nothing() -> None:
    assert sentence("peer_failed", {}) == SENTENCES["peer_failed"][0]


def test_an_unknown_code_is_shown_as_it_is() -> None:
    assert Reason(code="of_a_later_version").text() == "of_a_later_version"


def test_a_reason_survives_the_way_over_the_link() -> None:
    evidence = (Evidence(kind="link", text="link reset", path="direct", age=0.25),)
    sent = reason("peer_failed", peer="m1", evidence=evidence)
    assert reason_from_json(sent.to_json()) == sent


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"code": 7, "params": [], "evidence": [1, "x", None]},
        {"code": "alive", "evidence": [{"age": "old"}]},
        {"code": "alive", "params": {"peer": "m1"}, "evidence": [{"kind": "x", "age": True}]},
    ],
)
def test_what_another_node_sends_as_a_reason_never_fails_here(raw: dict[str, object]) -> None:
    received = reason_from_json(raw)
    assert isinstance(received.text("pt_BR"), str)
    assert isinstance(received.to_json()["text"], str)


@pytest.mark.parametrize("evidence", [None, 7, "link"])
def test_evidence_that_is_no_list_is_left_out(evidence: object) -> None:
    assert reason_from_json({"code": "alive", "evidence": evidence}).evidence == ()


def test_hostile_placeholders_reach_no_attributes() -> None:
    received = reason_from_json({"code": "peer_failed", "params": {"peer": "{0.__class__}"}})
    assert "{0.__class__}" in received.text()


def test_two_reasons_are_the_same_cause_when_only_their_evidence_aged() -> None:
    first = reason("peer_failed", peer="m1", evidence=(Evidence(kind="link", text="a", age=1.0),))
    second = reason("peer_failed", peer="m1", evidence=(Evidence(kind="link", text="a", age=2.0),))
    assert first.is_same_cause(second)
    assert not first.is_same_cause(reason("peer_failed", peer="m2"))
