"""``ha calls``: the live calls as a table."""

from __future__ import annotations

from controlone_ha.control.render import age
from controlone_ha.control.table import Cell, clean, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from controlone_ha.control.reports import View

_OF_A_TAKEOVER = ("reason", "ground", "calls", "up", "outcomes", "legs", "seconds")

STYLES = {"up": "good", "lost": "bad"}


def render_calls(answer: Mapping[str, Any], view: View) -> str:
    """Return one row for each live call: those of this node first."""
    texts = view.texts
    lines = [] if answer.get("followed") else [texts("calls.unheard")]
    calls = answer.get("calls") or ()
    if not calls:
        return "\n".join([*lines, texts("calls.none")])
    rows = []
    for call in calls:
        state = str(call.get("state") or "-")
        legs = [leg for leg in call.get("legs") or () if leg.get("state") != "ended"]
        protectors = ", ".join(call.get("protected_by") or ()) or texts("calls.nobody")
        since = call.get("answered") or call.get("created")
        recording = call.get("recording") or {}
        rows.append(
            [
                Cell(call.get("id") or "?"),
                Cell(call.get("owner") or "?"),
                Cell(texts.word("call", state), STYLES.get(state, "")),
                Cell(call.get("queue") or "-"),
                Cell(age(since, view.now, texts) if since else "-"),
                Cell(", ".join(clean(leg.get("party") or "?") for leg in legs) or "-"),
                Cell("●" if recording.get("running") else ""),
                Cell(protectors, "" if call.get("protected_by") else "bad"),
            ]
        )
    names = ("call", "node", "state", "queue", "since", "parties", "recording", "protected")
    lines += table(view.headers(*names), rows, view.paint, columns=view.columns, wrap_last=True)
    return "\n".join(lines)


def takeovers_of(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the takeovers among entries of the history, newest first."""
    rows = [
        {
            "time": entry.get("time"),
            "from": entry.get("peer"),
            "by": entry.get("node"),
            **{name: entry.get(name) for name in _OF_A_TAKEOVER},
        }
        for entry in entries
        if "ground" in entry
    ]
    return {"takeovers": rows}


def render_takeovers(answer: Mapping[str, Any], view: View) -> str:
    """Return one row for each takeover, and one line for each leg that was not taken."""
    texts = view.texts
    rows, lost = [], []
    for item in answer["takeovers"]:
        up, calls = item.get("up") or 0, item.get("calls") or 0
        outcomes = item.get("outcomes") or {}
        since = item.get("time")
        rows.append(
            [
                Cell(age(since, view.now, texts) if since else "-"),
                Cell(item.get("from") or "?"),
                Cell(item.get("by") or "?"),
                Cell(str(item.get("ground"))),
                Cell(f"{up}/{calls}", "good" if up == calls else "bad"),
                Cell(f"{item.get('seconds') or 0:.1f} s"),
                Cell(", ".join(f"{number} {name}" for name, number in sorted(outcomes.items()))),
            ]
        )
        for leg in item.get("legs") or ():
            if leg.get("outcome") not in ("taken", "fallback"):
                words = (leg.get("call"), leg.get("party"), leg.get("outcome"), leg.get("status"))
                lost.append("  " + "  ".join(clean(str(word)) for word in words))
    if not rows:
        return str(texts("calls.no_takeovers"))
    names = ("since", "from", "by", "ground", "taken", "longest", "legs")
    lines = table(view.headers(*names), rows, view.paint, columns=view.columns, wrap_last=True)
    return "\n".join([*lines, *lost])
