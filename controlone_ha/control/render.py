"""The status of a node as text for a person. Pure: a status in, lines out, time injected.

Shape of the status: ``controlone_ha.control.api``. Every part may be missing (an older daemon, a
file written before a crash): what is missing is shown as ``-`` or left out, never an error.
"""

from __future__ import annotations

import time

from controlone_ha.control.table import Cell, Paint, clean, duration, milliseconds, table, wrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from controlone_ha.control.language import Texts

STATE_STYLES = {
    "active": "good",
    "standby": "good",
    "passive": "good",
    "degraded": "warn",
    "disabled": "bad",
    "starting": "warn",
}
VERDICT_STYLES = {"alive": "good", "suspect": "warn", "unknown": "warn", "no_daemon": "warn"}
SERVICE_STYLES = {
    "serving": "good",
    "disabled": "",
    "stopped": "",
    "failed": "bad",
    "frozen": "bad",
}
LINK_STYLES = {"up": "good", "connecting": "warn"}
SYNC_STYLES = {"in sync": "good", "pending": "warn", "held": "bad"}


def moment(epoch: float | None, texts: Texts) -> str:
    """Return a point in time as the local date and time of day, ``never`` without one."""
    if not epoch:
        return texts("never")
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(epoch))


def age(epoch: float | None, now: float, texts: Texts, *, short: bool = False) -> str:
    """Return how long ago ``epoch`` was, ``never`` without one."""
    return duration(now - epoch, short=short) if epoch else texts("never")


def evidence_text(item: Mapping[str, Any], texts: Texts) -> str:
    """Return one piece of evidence: what, by which path, how long before the decision or when."""
    text = clean(texts.reason(item))
    notes = []
    path = item.get("path")
    if path:
        via, _, node = str(path).partition(" ")
        notes.append(texts("path.via", node=clean(node)) if node else texts.word("path", via))
    if isinstance(item.get("age"), int | float):
        notes.append(texts("evidence.age", age=texts.number(_seconds(item["age"]))))
    elif item.get("at"):
        notes.append(time.strftime("%H:%M:%S", time.localtime(item["at"])))
    return f"{text} ({', '.join(notes)})" if notes else text


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 10 else duration(value)


class Block:
    """Lines of ``label  text``, the texts wrapped under each other."""

    def __init__(self, label_width: int, columns: int, paint: Paint) -> None:
        self.lines: list[str] = []
        self._label_width = label_width
        self._columns = columns
        self._paint = paint

    def add(self, label: str, text: str, style: str = "", *, bullet: str = "") -> None:
        """Add ``text`` under ``label``; ``bullet`` stands before its first line."""
        room = self._columns - self._label_width - len(bullet)
        for number, line in enumerate(wrap(text, room)):
            head = label if number == 0 else ""
            mark = bullet if number == 0 else " " * len(bullet)
            self.lines.append(
                self._paint(head.ljust(self._label_width), "dim") + mark + self._paint(line, style)
            )

    def reason(self, label: str, reason: Mapping[str, Any] | None, texts: Texts) -> None:
        """Add a reason in words and its evidence below."""
        if not reason:
            return
        self.add(label, clean(texts.reason(reason)))
        for item in reason.get("evidence") or ():
            self.add("", evidence_text(item, texts), bullet="· ")


def label_block(texts: Texts, columns: int, paint: Paint) -> Block:
    """Return a block wide enough for every label of this language."""
    labels = ("because", "node", "key", "forced", "paused", "abnormal")
    return Block(max(len(texts(f"label.{name}")) for name in labels) + 2, columns, paint)


def render_status(
    status: Mapping[str, Any],
    texts: Texts,
    *,
    now: float,
    columns: int = 100,
    colour: bool = False,
) -> str:
    """Return the whole status: the node, its services, its peers, what is not fine, warnings."""
    paint = Paint(colour)
    parts = [
        _node(status, texts, now, columns, paint),
        _services(status, texts, now, columns, paint),
        _peers(status, texts, now, columns, paint),
        _peer_notes(status, texts, now, columns, paint),
        _warnings(status, texts, columns, paint),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _node(
    status: Mapping[str, Any], texts: Texts, now: float, columns: int, paint: Paint
) -> list[str]:
    state = str(status.get("state") or "unknown")
    since = status.get("since")
    name = paint(clean(status.get("node") or "?"), "bold")
    word = paint(clean(texts.word("state", state)).upper(), STATE_STYLES.get(state, "warn"))
    head = texts("status.head", node=name, role=clean(status.get("role") or "?"), state=word)
    if since:
        head += texts("status.since", age=age(since, now, texts), moment=moment(since, texts))
    block = label_block(texts, columns, paint)
    block.reason(texts("label.because"), status.get("reason"), texts)
    forced = status.get("forced")
    if forced:
        block.add(
            texts("label.forced"),
            texts("status.forced", state=texts.word("state", forced)),
            "warn",
        )
    paused = status.get("paused")
    if paused:
        text = texts(
            "status.paused",
            by=clean(paused.get("by") or "?"),
            moment=moment(paused.get("since"), texts),
        )
        if paused.get("reason"):
            text += f": {clean(paused['reason'])}"
        block.add(texts("label.paused"), text, "warn")
    for item in status.get("abnormalities") or ():
        what = clean(texts.reason(item)) or clean(item.get("kind") or "?")
        block.add(
            texts("label.abnormal"),
            texts("status.abnormal", what=what, age=age(item.get("since"), now, texts)),
            "bad",
        )
    facts = [
        texts(f"status.{key}", value=clean(status[key]))
        for key in ("address", "site", "priority", "version")
        if status.get(key) not in (None, "")
    ]
    if status.get("started"):
        facts.append(texts("status.started", age=age(status["started"], now, texts)))
    if facts:
        block.add(texts("label.node"), ", ".join(facts))
    if status.get("fingerprint"):
        block.add(texts("label.key"), clean(status["fingerprint"]))
    return [head, *block.lines]


def _services(
    status: Mapping[str, Any], texts: Texts, now: float, columns: int, paint: Paint
) -> list[str]:
    rows = []
    for service in status.get("services") or ():
        state = str(service.get("state") or "unknown")
        restarts = service.get("restarts") or 0
        rows.append(
            [
                Cell(service.get("name") or "?"),
                Cell(texts.word("service", state), SERVICE_STYLES.get(state, "warn")),
                Cell(age(service.get("since"), now, texts) if service.get("since") else "-"),
                Cell(service.get("pid") or "-"),
                Cell(restarts, "warn" if restarts else ""),
                Cell(service.get("detail") or ""),
            ]
        )
    if not rows:
        return []
    names = ("service", "state", "since", "pid", "restarts", "detail")
    headers = [texts(f"column.{name}") for name in names]
    return table(headers, rows, paint, columns=columns, right=frozenset((3, 4)), wrap_last=True)


def _peers(
    status: Mapping[str, Any], texts: Texts, now: float, columns: int, paint: Paint
) -> list[str]:
    rows = []
    for peer in status.get("peers") or ():
        verdict = str(peer.get("verdict") or "unknown")
        link = str((peer.get("link") or {}).get("state") or "-")
        if verdict == "alive":
            state = str(peer.get("state") or "-")
            shown = Cell(texts.word("state", state), STATE_STYLES.get(state, ""))
            since = peer.get("since")
        else:
            shown = Cell(texts.word("verdict", verdict), VERDICT_STYLES.get(verdict, "bad"))
            since = peer.get("verdict_since")
        sync = peer.get("sync") or {}
        rows.append(
            [
                Cell(peer.get("name") or "?"),
                Cell(peer.get("role") or "-"),
                shown,
                Cell(age(since, now, texts) if since else "-"),
                Cell(texts.word("link", link), LINK_STYLES.get(link, "bad")),
                Cell(texts.number(milliseconds(peer.get("rtt_ms")))),
                Cell(texts.number(milliseconds(peer.get("skew_ms"), signed=True))),
                _sync_cell(sync.get("config"), now, texts),
                _sync_cell(sync.get("data"), now, texts),
            ]
        )
    if not rows:
        return [texts("status.no_peers")]
    names = ("node", "role", "state", "since", "link", "rtt", "skew", "config", "data")
    headers = [texts(f"column.{name}") for name in names]
    return table(headers, rows, paint, columns=columns, right=frozenset((5, 6)))


def _sync_cell(sync: Mapping[str, Any] | None, now: float, texts: Texts) -> Cell:
    if not sync:
        return Cell("-")
    state = str(sync.get("state") or "never")
    text = texts.word("sync", state)
    if sync.get("since") and state != "never":
        text += " " + age(sync["since"], now, texts, short=True)
    return Cell(text, SYNC_STYLES.get(state, "dim"))


def _peer_notes(
    status: Mapping[str, Any], texts: Texts, now: float, columns: int, paint: Paint
) -> list[str]:
    lines: list[str] = []
    for peer in status.get("peers") or ():
        notes = peer_notes(peer, texts, now)
        if notes:
            block = Block(len(clean(peer.get("name") or "?")) + 2, columns, paint)
            for number, (text, style) in enumerate(notes):
                block.add(clean(peer.get("name") or "?") if number == 0 else "", text, style)
            lines += block.lines
    return lines


def peer_notes(peer: Mapping[str, Any], texts: Texts, now: float) -> list[tuple[str, str]]:
    """Return what is not fine with a peer, as (sentence, style); empty when all is fine."""
    notes: list[tuple[str, str]] = []
    verdict = str(peer.get("verdict") or "unknown")
    if verdict != "alive":
        head = _for(texts.word("verdict", verdict), peer.get("verdict_since"), texts, now)
        if peer.get("state"):
            head += texts("note.last_state", state=texts.word("state", peer["state"]))
        text = f"{head}: {verdict_sentence(peer, texts)}"
        notes.append((text, VERDICT_STYLES.get(verdict, "bad")))
        for name, probe in (peer.get("probes") or {}).items():
            if probe and probe.get("outcome") not in (None, "answered"):
                detail = clean(probe.get("detail") or "")
                if detail and detail in text:
                    continue  # the verdict's own sentence tells it already
                outcome = texts.word("outcome", probe["outcome"])
                notes.append((f"· {name}: {outcome}" + (f" ({detail})" if detail else ""), ""))
    elif peer.get("state") in ("degraded", "disabled", "starting"):
        state = texts.word("state", peer["state"])
        sentence = clean(texts.reason(peer.get("reason")))
        notes.append((f"{state}: {sentence}" if sentence else state, "warn"))
    link = peer.get("link") or {}
    if link.get("state") not in (None, "up"):
        state = texts("note.link", state=texts.word("link", link["state"]))
        text = f"{_for(state, link.get('since'), texts, now)}: {clean(texts.link(link))}"
        notes.append((text, LINK_STYLES.get(str(link["state"]), "bad")))
    for kind in ("config", "data"):
        sync = (peer.get("sync") or {}).get(kind) or {}
        if sync.get("state") == "held":
            reason = clean(texts.said(sync.get("text") or "?"))
            notes.append((texts(f"note.held_{kind}", reason=reason), "bad"))
    return notes


def _for(what: str, since: float | None, texts: Texts, now: float) -> str:
    return texts("note.for", text=what, age=age(since, now, texts)) if since else what


def verdict_sentence(peer: Mapping[str, Any], texts: Texts) -> str:
    """Return this node's verdict on a peer in words."""
    text = clean(peer.get("verdict_text") or "")
    if text and texts.language == "en":
        return text
    verdict = str(peer.get("verdict") or "unknown")
    code = "never_answered" if verdict == "unknown" else verdict
    return (
        texts.sentence(code, peer.get("verdict_params")) or text or texts.word("verdict", verdict)
    )


def _warnings(status: Mapping[str, Any], texts: Texts, columns: int, paint: Paint) -> list[str]:
    labels = {name: texts(f"severity.{name}") for name in ("error", "warning")}
    block = Block(max(map(len, labels.values())) + 2, columns, paint)
    for warning in status.get("warnings") or ():
        label = labels.get(str(warning.get("severity")), labels["warning"])
        text, remedy = texts.finding(warning)
        block.add(label, clean(text), "bad" if warning.get("severity") == "error" else "warn")
        if remedy:
            block.add("", texts("status.remedy", remedy=clean(remedy)))
    return block.lines


def is_healthy(status: Mapping[str, Any]) -> bool:
    """Return False when the node or a peer needs a person: the rule of ``ha status --exit-code``.

    Healthy: the node is active, standby or passive without an abnormality, neither forced nor
    paused, none of its services failed, no warning; every peer is alive in such a state, its link
    is up and nothing is held.
    """
    fine = ("active", "standby", "passive")
    if status.get("state") not in fine or status.get("forced") or status.get("paused"):
        return False
    if status.get("abnormalities") or status.get("warnings"):
        return False
    if any(item.get("state") in ("failed", "frozen") for item in status.get("services") or ()):
        return False
    return all(
        peer.get("verdict") == "alive"
        and peer.get("state") in fine
        and (peer.get("link") or {}).get("state") == "up"
        and not any(
            (item or {}).get("state") == "held" for item in (peer.get("sync") or {}).values()
        )
        for peer in status.get("peers") or ()
    )
