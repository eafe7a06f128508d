"""`ha conflicts [--all] [diff ID | restore ID]`: what lost, how it differs, and getting it back.

With the daemon down the copies are listed and compared from their files (exit code 3); restoring
needs the daemon, because a restored file is an edit of this node that peers get.
"""

from __future__ import annotations

from controlone_ha.control.arguments import UsageError
from controlone_ha.control.client import Client, DaemonError, state_dir
from controlone_ha.control.render import moment
from controlone_ha.control.syncing import size
from controlone_ha.control.table import Cell, Paint, clean, table
from controlone_ha.control.terminal import DAEMON_DOWN, DONE, Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from controlone_ha.control.arguments import Request

TIMEOUT = 120.0


def run(request: Request, terminal: Terminal, by: str) -> int:
    """Run the command; raise ``UsageError`` or ``ControlOneError``."""
    action, *rest = request.arguments or ["list"]
    if action not in ("list", "diff", "restore") or len(rest) != (action != "list"):
        raise UsageError("error.conflicts_action", word=" ".join(request.arguments))
    everything = bool(request.options.get("all"))
    if action == "restore":
        answer = _ask("restore", {"id": rest[0], "by": by})
        if terminal.is_json:
            terminal.write_json(answer)
        else:
            terminal.write(restored(answer, terminal))
        return DONE
    code = DONE
    try:
        if action == "list":
            answer = _ask("conflicts", {"everything": everything})
        else:
            answer = _ask("conflict_diff", {"id": rest[0]})
    except DaemonError as error:
        terminal.daemon_down(error)
        answer, code = _from_files(rest, everything), DAEMON_DOWN
    if terminal.is_json:
        terminal.write_json(answer)
    else:
        terminal.write((compared if rest else listed)(answer, terminal))
    return code


def _ask(method: str, params: dict[str, Any]) -> Any:
    client = Client(timeout=TIMEOUT)
    try:
        return client.call(method, params)
    finally:
        client.close()


def _from_files(rest: Sequence[str], everything: bool) -> Any:
    from pathlib import Path

    from controlone_ha.sync.conflicts import Conflicts

    store = Conflicts(Path(state_dir()) / "conflicts")
    if rest:
        return store.diff(rest[0])
    return [copy.to_json() for copy in store.list(everything=everything)]


def listed(rows: Sequence[dict[str, Any]], terminal: Terminal) -> str:
    """Return the table of copies."""
    texts = terminal.texts
    if not rows:
        return texts("conflicts.none")
    cells = [
        [
            Cell(row["id"], "bold"),
            Cell(moment(row["kept"], texts)),
            Cell(row["path"]),
            Cell(size(row["size"])),
            Cell(texts("conflicts.edit", node=row["node"], moment=moment(row["edited"], texts))),
            Cell(_why(row, terminal)),
        ]
        for row in rows
    ]
    names = ("id", "kept", "path", "size", "version", "why")
    headers = [texts(f"column.{name}") for name in names]
    lines = table(
        headers,
        cells,
        Paint(terminal.colour),
        columns=terminal.columns,
        right=frozenset((3,)),
        wrap_last=True,
    )
    return "\n".join(lines)


def _why(row: dict[str, Any], terminal: Terminal) -> str:
    texts = terminal.texts
    won = moment(row["winner_edited"], texts)
    return texts(f"conflicts.{row['why']}", node=row["winner_node"], moment=won)


def compared(answer: dict[str, Any], terminal: Terminal) -> str:
    """Return what restoring would take back: the copy (-) against the file as it is (+)."""
    texts, paint = terminal.texts, Paint(terminal.colour)
    edited = moment(answer["edited"], texts)
    lines = [
        f"{clean(answer['path'])}: {clean(_why(answer, terminal))}",
        paint(f"- {texts('conflicts.copy', node=clean(answer['node']), moment=edited)}", "bad"),
        paint(f"+ {texts('conflicts.present')}", "good"),
    ]
    lines[1:1] = [f"· {clean(texts.said(sentence))}" for sentence in answer.get("lost") or ()]
    styles = {"-": "bad", "+": "good", "@": "dim"}
    for line in answer["lines"]:
        lines.append(paint(clean(line.replace("\t", "    ")), styles.get(line[:1], "")))
    return "\n".join(lines if answer["lines"] else [*lines, texts("conflicts.same")])


def restored(answer: dict[str, Any], terminal: Terminal) -> str:
    """Return what was put back."""
    texts = terminal.texts
    return texts(
        "conflicts.restored",
        path=clean(answer["path"]),
        node=clean(answer["node"]),
        moment=moment(answer["edited"], texts),
    )
