"""Figures of the demo and the benchmarks: medians beside an anchor of the same run, table and JSON.

A figure that could not be measured has value None and a reason; it is never left out. Nothing here
measures.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from controlone_ha.control.table import Cell, Paint, table


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row. ``goal`` is an upper bound unless ``is_lower_bound``; None: no goal was set."""

    name: str
    value: float | None
    unit: str
    runs: int = 1
    anchor: str = ""
    anchor_value: float | None = None
    goal: float | None = None
    is_lower_bound: bool = False
    reason: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours over the anchor's."""
        if self.value is None or not self.anchor_value:
            return None
        return self.value / self.anchor_value

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal or a value."""
        if self.goal is None or self.value is None:
            return None
        return self.value >= self.goal if self.is_lower_bound else self.value <= self.goal

    def to_json(self) -> dict[str, object]:
        """Return the row of the JSON file."""
        row = {key: value for key, value in asdict(self).items() if key != "is_lower_bound"}
        if not self.reason:
            del row["reason"]
        row["ratio"] = None if self.ratio is None else round(self.ratio, 4)
        row["met"] = self.met
        return row


def median_figure(
    name: str,
    values: Sequence[float],
    unit: str,
    *,
    anchor: str = "",
    anchor_values: Sequence[float] = (),
    goal: float | None = None,
    is_lower_bound: bool = False,
    reason: str = "",
) -> Figure:
    """Return the figure of several runs; without runs it says ``reason``."""
    return Figure(
        name=name,
        value=round(statistics.median(values), 4) if values else None,
        unit=unit,
        runs=len(values),
        anchor=anchor,
        anchor_value=round(statistics.median(anchor_values), 4) if anchor_values else None,
        goal=goal,
        is_lower_bound=is_lower_bound,
        reason=reason if not values else "",
    )


def write_figures(path: Path, figures: Iterable[Figure]) -> None:
    """Write the JSON list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([figure.to_json() for figure in figures], indent=1) + "\n")


_HEAD = ("FIGURE", "VALUE", "UNIT", "RUNS", "GOAL", "", "ANCHOR", "ITS VALUE", "RATIO")


def figures_table(figures: Sequence[Figure]) -> str:
    """Return the figures as an aligned table, with the reasons of those not measured below."""
    met = {True: "met", False: "MISSED", None: "-"}
    rows = []
    for figure in figures:
        goal = "-"
        if figure.goal is not None:
            goal = f"{'>' if figure.is_lower_bound else '<'} {figure.goal:g}"
        row = [figure.name, _number(figure.value), figure.unit, figure.runs, goal, met[figure.met]]
        row += [figure.anchor or "-", _number(figure.anchor_value), _number(figure.ratio)]
        rows.append([Cell(value) for value in row])
    lines = table(_HEAD, rows, Paint(False), columns=160, right=frozenset((1, 3, 7, 8)))
    lines += [f"{item.name}: not measured: {item.reason}" for item in figures if item.reason]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
