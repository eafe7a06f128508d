"""Sentences of the synchronisation in Portuguese, by their form."""

from __future__ import annotations

import errno
import os
import re
from string import Formatter

import pytest

from controlone_ha.control.language import PORTUGUESE, Texts
from controlone_ha.control.sync_words import FORMS, in_portuguese
from controlone_ha.sync.items import BadPathError, check_path
from controlone_ha.sync.replica import describe
from controlone_ha.sync.stamps import FutureStamp, Stamp

SAMPLES = {
    "path": "/etc/controlone.d/sounds/a b.wav", "peer": "m2", "node": "s1", "item": "sounds",
    "root": "/srv", "most": "4096", "ahead": "7.2", "skew": "7.2", "limit": "5", "count": "3",
    "stamp": "17.0@m1", "why": "connection reset", "what": "voice.a.number", "method": "sync.list",
    "names": "m1, m2", "command": "reload_config", "code": "1", "name": "'abc'",
    "loser": "m1", "winner": "m2",
}  # fmt: skip


@pytest.mark.parametrize(("english", "portuguese"), FORMS)
def test_each_form_is_recognised_and_both_have_the_same_parameters(
    english: str, portuguese: str
) -> None:
    def names(form: str) -> set[str]:
        return {name for _, name, _, _ in Formatter().parse(form) if name}

    assert names(english) == names(portuguese)
    said = in_portuguese(english.format(**SAMPLES))
    values = {**SAMPLES, "ahead": "7,2", "skew": "7,2", "why": "conexão interrompida"}
    assert said == portuguese.format(**values)


@pytest.mark.parametrize(
    "path", ["etc/config/x", "/etc/" + "x" * 5000, "/etc/a\nb", "/etc/\udcff", "/etc/../x"]
)
def test_every_bad_path_is_refused_in_a_sentence_that_has_a_translation(path: str) -> None:
    with pytest.raises(BadPathError) as refused:
        check_path(path)
    sentence = str(refused.value)
    assert in_portuguese(sentence) != sentence


def test_a_held_file_is_told_in_portuguese_with_the_peer_before_it() -> None:
    texts = Texts(PORTUGUESE)
    future = describe("/etc/config/server", FutureStamp(Stamp(17, 0, "m1"), 7_200_000))
    assert texts.said(f"m2: {future}").startswith("m2: /etc/config/server: com carimbo 7,2 s no")
    full = describe("/etc/config/server", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert texts.said(full) == "/etc/config/server: não há espaço no dispositivo"
    more = "the clock of m2 is 7.2 s ahead of this node's; more than 5 s are not safe"
    assert re.fullmatch(r"o relógio de m2 está 7,2 s à frente.*", texts.said(more))


def test_a_sentence_of_an_unknown_form_stays_as_it_is() -> None:
    assert in_portuguese("something else {happened}") == "something else {happened}"
