"""Widths, wrapping, durations and tables of the `ha` command."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlone_ha.control.table import (
    Cell,
    Paint,
    clean,
    cut,
    duration,
    milliseconds,
    pad,
    table,
    width,
    wrap,
)

PLAIN = Paint(False)
LINES = st.text(max_size=120).map(clean)


@pytest.mark.parametrize(
    ("text", "columns"),
    [("", 0), ("node", 4), ("não", 3), ("na\u0303o", 3), ("節点", 4), ("a…·→", 4), ("e\u200b", 1)],
)
def test_a_width_is_counted_in_terminal_columns(text: str, columns: int) -> None:
    assert width(text) == columns


def test_what_a_peer_sends_cannot_drive_the_terminal() -> None:
    assert clean("a\x1b[2Jb\r\nc\u202ed\x07") == "a?[2Jb  c?d?"


@given(LINES, st.integers(1, 40))
def test_wrapped_lines_fit_and_lose_no_word(text: str, columns: int) -> None:
    lines = wrap(text, columns)
    assert all(width(line) <= columns or len(line) == 1 for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


@given(LINES, st.integers(0, 40))
def test_a_cut_text_fits_and_says_that_it_was_cut(text: str, columns: int) -> None:
    short = cut(text, columns)
    assert width(short) <= columns
    assert short == text or columns == 0 or short.endswith("…")


@pytest.mark.parametrize(
    ("seconds", "text", "short"),
    [
        (-5, "0 s", "0 s"),
        (0.9, "0 s", "0 s"),
        (59.9, "59 s", "59 s"),
        (60, "1 min", "1 min"),
        (192, "3 min 12 s", "3 min"),
        (3600, "1 h", "1 h"),
        (7500, "2 h 5 min", "2 h"),
        (86399, "23 h 59 min", "23 h"),
        (270000, "3 d 3 h", "3 d"),
    ],
)
def test_durations_read_as_people_say_them(seconds: float, text: str, short: str) -> None:
    assert duration(seconds) == text
    assert duration(seconds, short=True) == short


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.01, "0 ms"),
        (-0.04, "0 ms"),
        (0.41, "+0.4 ms"),
        (-12.4, "-12 ms"),
        (9999.0, "+9999 ms"),
        (-12000.0, "-12 s"),
    ],
)
def test_milliseconds_keep_what_matters(value: float | None, text: str) -> None:
    assert milliseconds(value, signed=True) == text


@given(
    st.lists(st.lists(LINES.map(str.strip), min_size=3, max_size=3), min_size=1, max_size=5),
    st.integers(40, 100),
    st.booleans(),
)
def test_columns_stand_under_their_headers(
    rows: list[list[str]], columns: int, wrap_last: bool
) -> None:
    cells = [[Cell(text) for text in row] for row in rows]
    lines = table(["NODE", "LINK", "TEXT"], cells, PLAIN, columns=columns, wrap_last=wrap_last)
    assert all(width(line) <= columns for line in lines)
    start = lines[0].index("TEXT")
    for line in lines[1:]:
        head = cut_columns(line, start)
        assert width(head) <= start or head.isspace()
        assert head.endswith("  ") or not line[len(head) :].strip()


def cut_columns(line: str, columns: int) -> str:
    """Return the longest beginning of ``line`` within ``columns``, trailing marks included."""
    for index in range(len(line) + 1):
        if width(line[:index]) > columns:
            return line[: index - 1]
    return line


def test_colours_change_no_column() -> None:
    rows = [
        [Cell("não", "bad"), Cell("7", "good"), Cell("é", "dim")],
        [Cell("a"), Cell("100"), Cell("")],
    ]
    plain = table(["NÓ", "N", "X"], rows, PLAIN, right=frozenset((1,)))
    coloured = table(["NÓ", "N", "X"], rows, Paint(True), right=frozenset((1,)))
    assert plain == ["NÓ     N  X", "não    7  é", "a    100"]
    assert "\x1b[1;31mnão" in coloured[1]
    assert [re.sub(r"\x1b\[[\d;]*m", "", line).rstrip() for line in coloured] == plain


def test_numbers_are_aligned_to_the_right_and_long_cells_give_way() -> None:
    rows = [[Cell("x" * 80), Cell("1"), Cell("y" * 60)]]
    (_, line) = table(["A", "B", "C"], rows, PLAIN, columns=60)
    assert width(line) == 60
    assert line.count("…") == 2
    wrapped = table(["A", "B", "C"], rows, PLAIN, columns=120, wrap_last=True)
    assert [line.strip("xy 1") for line in wrapped[1:]] == [""] * len(wrapped[1:])
    assert sum(line.count("y") for line in wrapped) == 60


def test_padding_counts_columns_not_characters() -> None:
    assert pad("節", 4) == "節  "
    assert pad("é", 3, right=True) == "  é"
