"""The table of the benchmarks: every area has its modules, and a wrong one is told."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from controlone_ha.lab import bench

PLACE = Path(__file__).parents[1] / "bench"


@pytest.mark.parametrize("area", bench.AREAS)
def test_every_module_of_an_area_is_there_and_measures_when_asked(area: str) -> None:
    for name in bench.AREAS[area]:
        assert re.search(
            r"^def figures\(.*\) -> list\[Figure\]:$", (PLACE / f"{name}.py").read_text(), re.M
        )


def test_no_module_is_left_out() -> None:
    listed = {name for names in bench.AREAS.values() for name in names}
    assert listed == {file.stem for file in PLACE.glob("*_figures.py")}


def test_an_unknown_area_is_told_with_those_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "fundation"])
    assert bench.main() == 2
    assert "no area 'fundation'; there are: foundation" in capsys.readouterr().err
