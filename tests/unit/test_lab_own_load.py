"""The processor figures a lab node sees: only its own."""

from __future__ import annotations

from controlone_ha.lab.own_load import render

REAL = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 9 9 9 9 9 9 9 9 9 9\nintr 5 0 0\nctxt 7\nbtime 1700000000\n"


def figures(text: str) -> dict[str, list[int]]:
    return {
        line.split()[0]: [int(value) for value in line.split()[1:]]
        for line in text.splitlines()
        if line.startswith("cpu")
    }


def test_an_idle_node_is_idle_whatever_the_machine_does():
    text = render(REAL, processors=2, ticks=0, elapsed_ticks=1000)
    assert figures(text)["cpu"][:4] == [0, 0, 0, 2000]


def test_what_the_node_used_is_shown_as_busy():
    text = render(REAL, processors=2, ticks=500, elapsed_ticks=1000)
    assert figures(text)["cpu"][:4] == [500, 0, 0, 1500]
    assert figures(text)["cpu1"][:4] == [250, 0, 0, 750]


def test_a_node_never_uses_more_than_there_is():
    text = render(REAL, processors=2, ticks=5000, elapsed_ticks=1000)
    assert figures(text)["cpu"][:4] == [2000, 0, 0, 0]


def test_other_lines_of_the_machine_are_kept():
    text = render(REAL, processors=1, ticks=0, elapsed_ticks=1)
    assert text.endswith("intr 5 0 0\nctxt 7\nbtime 1700000000\n")
