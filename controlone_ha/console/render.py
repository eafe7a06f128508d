"""``console status`` as a person reads it: one line, the attention lines, the table. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from controlone_ha.console.texts import sentence, word

COLUMNS = 100
GAP = "  "
STYLES = {"": "", "good": "32", "warn": "33", "bad": "1;31", "dim": "2"}
_HEALTH_STYLE = {"serving": "good", "standby": "good", "refusing": "warn", "down": "bad"}
_STATE_STYLE = {"connected": "good", "switching": "warn", "unavailable": "bad"}


def indication(status: dict[str, Any], language: str) -> str:
    """Return one line for the operator, empty when nothing is abnormal."""
    items = status.get("abnormal") or []
    if not items:
        return ""
    first = sentence(items[0]["code"], items[0]["params"], language)
    more = f" (+{len(items) - 1})" if len(items) > 1 else ""
    return clean(f"{word('label.attention', language)}: {first}{more}")


def render_status(
    status: dict[str, Any],
    language: str,
    *,
    now: float,
    columns: int = COLUMNS,
    colour: bool = False,
) -> str:
    """Return the text of the status; ``now``: Unix time."""

    def paint(text: str, style: str) -> str:
        return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if colour and STYLES[style] else text

    state = status["state"]
    head = f"{word('label.console', language)} {clean(status['console'])}: "
    head += paint(word(f"state.{state}", language), _STATE_STYLE.get(state, ""))
    if status["node"]:
        head += f" {word('label.on', language)} {clean(status['node'])}"
    since = word("label.ago", language, time=duration(now - status["since"]))
    head += f", {since}"
    reason = status["reason"]
    lines = [head]
    if reason:
        text = sentence(reason["code"], reason["params"], language)
        lines.append(f"{word('label.reason', language)}: {clean(text)}")
    if status["queues"]:
        lines.append(f"{word('label.queues', language)}: {clean(', '.join(status['queues']))}")
    if status["calls"]:
        lines.append(f"{word('label.calls', language)}: {len(status['calls'])}")
    for item in status.get("abnormal") or []:
        text = sentence(item["code"], item["params"], language)
        mark = word("label.attention", language)
        lines.append(paint(clean(f"{mark}: {text}"), "warn"))
    rows = []
    for index, row in enumerate(status["servers"]):
        cause = row["cause"]
        params = {"server": row["node"] or row["server"], **(cause["params"] if cause else {})}
        checked = row["checked"]
        rows.append(
            (
                f"{'*' if row['active'] else ' '}{index + 1}",
                clean(row["server"]),
                clean(row["node"] or "-"),
                word(f"health.{row['health']}", language),
                "-" if checked is None else duration(now - checked),
                "-" if row["rtt_ms"] is None else f"{row['rtt_ms']:g} ms",
                clean(sentence(cause["code"], params, language)) if cause else "",
            )
        )
    names = ("number", "server", "node", "health", "checked", "rtt", "detail")
    heads = tuple(word(f"column.{name}", language) for name in names)
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    lines.append("")
    lines.append(paint(_line(heads, widths, columns), "dim"))
    for row, raw in zip(rows, status["servers"], strict=True):
        text = _line(row, widths, columns)
        lines.append(paint(text, _HEALTH_STYLE.get(raw["health"], "")))
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int], columns: int) -> str:
    text = GAP.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
    return text if len(text) <= columns else text[: columns - 1] + "…"


def clean(text: object) -> str:
    """Return ``text`` without control characters: a server must not drive the terminal."""
    value = str(text)
    if value.isprintable():
        return value
    return "".join(mark if mark.isprintable() else " " for mark in value)


def duration(seconds: float) -> str:
    """Return a duration for a person: ``12 s``, ``3 min``, ``2 h 5 min``, ``4 d 3 h``."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
