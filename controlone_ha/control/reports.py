"""What the commands beside `status` show, as text for a person. Pure; shapes in ``control.api``."""

from __future__ import annotations

import time

from controlone_ha.control.render import (
    LINK_STYLES,
    STATE_STYLES,
    Block,
    age,
    evidence_text,
    label_block,
    moment,
)
from controlone_ha.control.table import Cell, Paint, clean, milliseconds, table, wrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from controlone_ha.control.language import Texts

OUTCOME_STYLES = {"answered": "good", "timeout": "bad", "refused": "bad"}


class View:
    """How to show: texts, width, colours, and the present moment (wall clock)."""

    __slots__ = ("columns", "now", "paint", "texts")

    def __init__(
        self, texts: Texts, *, now: float, columns: int = 100, colour: bool = False
    ) -> None:
        self.texts = texts
        self.now = now
        self.columns = columns
        self.paint = Paint(colour)

    def headers(self, *names: str) -> list[str]:
        """Return the column headers of those names."""
        return [self.texts(f"column.{name}") for name in names]


def entry_line(entry: Mapping[str, Any], texts: Texts) -> str:
    """Return what a history entry says in one sentence: the change, why, and by whom."""
    parts = []
    before, after = entry.get("from"), entry.get("to")
    if before and after and before != after:
        parts.append(f"{_word(entry, before, texts)} → {_word(entry, after, texts)}")
    elif after:
        parts.append(_word(entry, after, texts))
    if entry.get("service"):
        parts.append(clean(entry["service"]))
    if entry.get("refused"):
        to = clean(after or "?")
        parts = [texts("history.refused", to=to, text=clean(entry["refused"]))]
    sentence = clean(texts.reason(entry.get("reason")) or entry.get("detail") or "")
    if sentence:
        parts.append(sentence)
    text = ": ".join(parts)
    if entry.get("by"):
        text += texts("history.by", by=clean(entry["by"]))
    if entry.get("unwritten"):
        text += texts("history.unwritten", count=entry["unwritten"])
    return text or clean(entry.get("kind") or "?")


def _word(entry: Mapping[str, Any], value: Any, texts: Texts) -> str:
    kinds = {"peer": "verdict", "link": "link", "service": "service"}
    return clean(texts.word(kinds.get(str(entry.get("kind")), "state"), value))


def render_audit(answer: Mapping[str, Any], view: View) -> str:
    """Return the chains that are kept here, and everything that does not fit."""
    texts = view.texts
    rows = [
        [
            Cell(row["node"]),
            Cell(texts.word("audit", row["what"])),
            Cell(f"{row['first']}–{row['last']}"),
            Cell(str(row["lines"])),
            Cell(
                texts("audit.broken", count=len(row["problems"]))
                if row["problems"]
                else texts("audit.whole"),
                "bad" if row["problems"] else "good",
            ),
        ]
        for row in answer.get("chains") or ()
    ]
    heads = [texts(f"audit.head_{name}") for name in ("node", "what", "range", "lines", "state")]
    lines = table(heads, rows, view.paint, columns=view.columns)
    for row in answer.get("chains") or ():
        lines += [f"{clean(row['node'])}: {clean(text)}" for text in row["problems"]]
    lines += [clean(text) for text in answer.get("problems") or ()]
    held = answer.get("held_by") or {}
    if held:
        names = ", ".join(f"{clean(peer)} ({number})" for peer, number in held.items())
        lines.append(texts("audit.held", names=names))
    return "\n".join(lines)


def render_history(entries: Sequence[Mapping[str, Any]], view: View) -> str:
    """Return the entries, oldest first as in a log: the newest stands next to the prompt."""
    if not entries:
        return view.texts("history.empty")
    is_mixed = len({entry["node"] for entry in entries if entry.get("node")}) > 1
    rows = [
        [
            Cell(moment(entry.get("time"), view.texts)),
            *([Cell(entry.get("node") or "?")] if is_mixed else []),
            Cell(view.texts.word("kind", entry.get("kind") or "?")),
            Cell(entry.get("peer") or "-"),
            Cell(entry_line(entry, view.texts), _entry_style(entry)),
        ]
        for entry in reversed(entries)
    ]
    headers = view.headers("time", *(["node"] if is_mixed else []), "kind", "peer", "event")
    return "\n".join(table(headers, rows, view.paint, columns=view.columns, wrap_last=True))


def _entry_style(entry: Mapping[str, Any]) -> str:
    return {"failed": "bad", "disabled": "bad", "degraded": "warn", "silent": "bad"}.get(
        str(entry.get("to")), ""
    )


def render_why(answer: Mapping[str, Any], view: View) -> str:
    """Return the present state with its reason, and the decisions that led to it with evidence."""
    texts = view.texts
    subject = clean(answer.get("peer") or answer.get("node") or "?")
    state = str(answer.get("state") or "unknown")
    kind = "verdict" if answer.get("peer") else "state"
    head = texts(
        "why.head",
        name=view.paint(subject, "bold"),
        state=view.paint(texts.word(kind, state), STATE_STYLES.get(state, "")),
    )
    if answer.get("since"):
        head += texts(
            "status.since",
            age=age(answer["since"], view.now, texts),
            moment=moment(answer["since"], texts),
        )
    block = label_block(texts, view.columns, view.paint)
    block.reason(texts("label.because"), answer.get("reason"), texts)
    lines = [head, *block.lines]
    decisions = answer.get("decisions") or ()
    if decisions:
        lines += ["", texts("why.decisions")]
    for entry in decisions:
        lines += _decision(entry, view)
    return "\n".join(lines)


def _decision(entry: Mapping[str, Any], view: View) -> list[str]:
    stamp = moment(entry.get("time"), view.texts)
    block = Block(len(stamp) + 2, view.columns, view.paint)
    block.add(stamp, entry_line(entry, view.texts), _entry_style(entry))
    for item in (entry.get("reason") or {}).get("evidence") or ():
        block.add("", evidence_text(item, view.texts), bullet="· ")
    return block.lines


def render_why_not(answer: Mapping[str, Any], view: View) -> str:
    """Return whether this node would take over from a peer, and what keeps it from that."""
    texts = view.texts
    names = {"node": clean(answer.get("node") or "?"), "peer": clean(answer.get("peer") or "?")}
    would = bool(answer.get("would"))
    lines = [view.paint(texts("why_not.yes" if would else "why_not.no", **names), "bold")]
    obstacles = answer.get("obstacles") or ()
    first = texts.reason(answer.get("reason"))
    if first not in [texts.reason(item) for item in obstacles]:
        block = label_block(texts, view.columns, view.paint)
        block.reason(texts("label.because"), answer.get("reason"), texts)
        lines += block.lines
    lines += _bullets(obstacles, view)
    return "\n".join(lines)


def _bullets(items: Iterable[Mapping[str, Any]], view: View) -> list[str]:
    lines = []
    for item in items:
        for number, line in enumerate(wrap(clean(view.texts.reason(item)), view.columns - 4)):
            lines.append(("  · " if number == 0 else "    ") + line)
    return lines


def render_plan(answer: Mapping[str, Any], view: View) -> str:
    """Return what each node would do if that peer died now."""
    texts = view.texts
    rows = []
    for node in answer.get("nodes") or ():
        before, after = node.get("state"), node.get("to") or node.get("state")
        changes = before != after
        rows.append(
            [
                Cell(node.get("node") or "?"),
                Cell(texts.word("state", before or "unknown")),
                Cell(
                    texts.word("state", after) if changes else texts("plan.stays"),
                    STATE_STYLES.get(str(after), "") if changes else "dim",
                ),
                Cell(_after(node.get("after_s"), texts) if changes else "-"),
                Cell(texts.reason(node.get("reason"))),
            ]
        )
    lines = [texts("plan.head", peer=view.paint(clean(answer.get("peer") or "?"), "bold"))]
    if rows:
        headers = view.headers("node", "now", "then", "after", "because")
        lines += table(headers, rows, view.paint, columns=view.columns, wrap_last=True)
    lines += _bullets(answer.get("notes") or (), view)
    return "\n".join(lines)


def _after(seconds: Any, texts: Texts) -> str:
    return texts.number(f"{seconds:.1f} s") if isinstance(seconds, int | float) else "-"


def render_check(findings: Sequence[Mapping[str, Any]], view: View) -> str:
    """Return everything that was found wrong, worst first, each with its remedy."""
    texts = view.texts
    if not findings:
        return view.paint(texts("check.fine"), "good")
    lines: list[str] = []
    severities = {"error": "bad", "warning": "warn"}
    for finding in sorted(findings, key=lambda item: item.get("severity") != "error"):
        severity = str(finding.get("severity") or "error")
        style = severities.get(severity, "warn")
        label = texts.word("severity", severity)
        block = Block(
            max(len(texts.word("severity", name)) for name in severities) + 2,
            view.columns,
            view.paint,
        )
        area = clean(finding.get("area") or "")
        sentence, remedy = texts.finding(finding)
        text = clean(sentence)
        block.add(label, f"{area}: {text}" if area else text, style)
        if remedy:
            block.add("", texts("status.remedy", remedy=clean(remedy)))
        lines += block.lines
    errors = sum(finding.get("severity") == "error" for finding in findings)
    lines += ["", texts("check.sum", errors=errors, warnings=len(findings) - errors)]
    return "\n".join(lines)


def render_probe(answer: Mapping[str, Any], view: View) -> str:
    """Return the outcome of each probe of a peer."""
    rows = [
        [
            Cell(probe.get("service") or "?"),
            Cell(
                view.texts.word("outcome", probe.get("outcome")),
                OUTCOME_STYLES.get(str(probe.get("outcome")), "bad"),
            ),
            Cell(view.texts.number(milliseconds(probe.get("rtt_ms")))),
            Cell(probe.get("detail") or ""),
        ]
        for probe in answer.get("probes") or ()
    ]
    headers = view.headers("service", "outcome", "rtt", "detail")
    lines = [view.texts("probe.head", peer=clean(answer.get("peer") or "?"))]
    lines += table(
        headers, rows, view.paint, columns=view.columns, right=frozenset((2,)), wrap_last=True
    )
    return "\n".join(lines)


def render_links(links: Sequence[Mapping[str, Any]], view: View) -> str:
    """Return one row for the link to each peer."""
    texts = view.texts
    if not links:
        return texts("status.no_peers")
    rows = []
    for link in links:
        state = str(link.get("state") or "-")
        rows.append(
            [
                Cell(link.get("peer") or "?"),
                Cell(link.get("address") or "-"),
                Cell(texts.word("link", state), LINK_STYLES.get(state, "bad")),
                Cell(age(link["since"], view.now, texts) if link.get("since") else "-"),
                Cell(texts.word("direction", link.get("direction") or "-")),
                Cell(texts.number(milliseconds(link.get("rtt_ms")))),
                Cell(texts.number(milliseconds(link.get("skew_ms"), signed=True))),
                Cell("" if state == "up" else texts.link(link)),
            ]
        )
    names = ("node", "address", "link", "since", "direction", "rtt", "skew", "detail")
    return "\n".join(
        table(
            view.headers(*names),
            rows,
            view.paint,
            columns=view.columns,
            right=frozenset((5, 6)),
            wrap_last=True,
        )
    )


def render_keys(keys: Mapping[str, Any], view: View) -> str:
    """Return the fingerprints of this node and those pinned for its peers."""
    texts = view.texts
    lines: list[str] = []
    for node in (keys.get("own"), *(keys.get("pinned") or ())):
        if node is None:
            lines.append(texts("keys.no_identity"))
            continue
        name = clean(node["name"]) if node.get("name") else texts("keys.own")
        where = ", ".join(map(clean, node.get("addresses") or ()))
        lines.append(view.paint(name, "bold") + (f"  {where}" if where else ""))
        labels = [texts(f"keys.{kind}") for kind in ("key", "certificate", "host_key")]
        block = Block(max(map(len, labels)) + 4, view.columns, view.paint)
        for label, value in zip(labels, (node.get("key"), node.get("certificate")), strict=False):
            if value:
                block.add(f"  {label}", clean(value))
        if node.get("other"):
            other = node["other"]
            until = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(other["until"]))
            text = texts(f"keys.{other.get('phase', 'other')}", until=until)
            block.add(f"  {labels[0]}", f"{clean(other['key'])} ({text})")
        for value in node.get("host_keys") or ():
            block.add(f"  {labels[2]}", clean(value))
        lines += block.lines
    if not keys.get("pinned"):
        lines.append(texts("keys.none"))
    for record in keys.get("expelled") or ():
        lines.append(
            texts(
                "keys.expelled",
                name=clean(record["name"]),
                key=clean(record["key"]),
                at=clean(record["at"]),
                by=clean(record["by"] or "?"),
                node=clean(record["node"]),
                why=clean(record["why"] or "-"),
            )
        )
    return "\n".join(lines)


def render_outcome(answer: Mapping[str, Any], view: View) -> str:
    """Return what a request that changes the node led to: state, reason, what still happens."""
    texts = view.texts
    state = str(answer.get("state") or "unknown")
    lines = [
        texts(
            "outcome.state",
            state=view.paint(texts.word("state", state), STATE_STYLES.get(state, "")),
        )
    ]
    block = label_block(texts, view.columns, view.paint)
    block.reason(texts("label.because"), answer.get("reason"), texts)
    lines += block.lines
    continues = answer.get("continues") or ()
    if continues:
        lines += [texts("outcome.continues"), *_bullets(continues, view)]
    return "\n".join(lines)
