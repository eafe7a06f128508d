"""`ha console list|approve|revoke`: the consoles of this node, who wants in, who is thrown out.

The Console Server of the node is asked over its control socket. Where none runs (a passive node,
say) the book of consoles is read and written all the same: it is configuration, and reaches the
other nodes as such. Only an approval needs the server that the console asks.
"""

from __future__ import annotations

import time

from controlone_ha.control.arguments import UsageError
from controlone_ha.control.client import ApiError, Client, DaemonError, run_dir
from controlone_ha.control.table import Cell, Paint, duration, table
from controlone_ha.control.terminal import DONE, FAILED, Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from controlone_ha.control.arguments import Request
    from controlone_ha.server.book import ConsoleBook

ARGUMENTS = {"list": 0, "approve": 2, "revoke": 1}


def run(request: Request, terminal: Terminal, by: str) -> int:
    """Run the command; raise ``UsageError`` or ``ControlOneError``."""
    action, *rest = request.arguments or ["list"]
    if action not in ARGUMENTS:
        raise UsageError("error.console_action", word=action)
    if len(rest) != ARGUMENTS[action]:
        raise UsageError("error.console_action", word=" ".join(request.arguments))
    if action == "approve":
        answer = _server("approve", {"console": rest[0], "code": rest[1], "by": by})
        return _done(answer, "console.approved", rest[0], terminal)
    if action == "revoke":
        try:
            answer = _server("revoke", {"console": rest[0], "by": by})
        except DaemonError:
            _book().revoke(rest[0], by=by)
            answer = _from_book()
        return _done(answer, "console.revoked", rest[0], terminal)
    try:
        answer = _server("consoles", {})
    except DaemonError:
        answer = _from_book()
    if terminal.is_json:
        terminal.write_json(answer)
    else:
        terminal.write(_text(answer, terminal))
    return FAILED if answer["problem"] else DONE


def _server(method: str, params: dict[str, Any]) -> Any:
    try:
        client = Client(run_dir() + "/server.sock")
    except DaemonError as error:
        raise DaemonError(error.cause, "the Console Server of this node does not run") from error
    try:
        return client.call(method, params)
    except ApiError as error:
        if error.number == -32601:
            raise DaemonError("absent", "the Console Server is of another version") from error
        raise
    finally:
        client.close()


def _book() -> ConsoleBook:
    from controlone_ha.config.settings import load_server
    from controlone_ha.paths import node_paths
    from controlone_ha.server.book import ConsoleBook

    directory = node_paths().config_dir
    is_required = load_server(directory).authentication == "required"
    return ConsoleBook(directory / "consoles", is_required=is_required)


def _from_book() -> dict[str, Any]:
    book = _book()
    enrolled = [
        {
            "console": item.name,
            "enrolled": item.enrolled,
            "by": item.by,
            "revoked": item.is_revoked,
        }
        for item in sorted(book.consoles().values(), key=lambda item: item.name)
    ]
    return {
        "required": book.is_required,
        "problem": book.problem,
        "connected": [],
        "enrolled": enrolled,
        "pending": [],
    }


def _done(answer: Any, key: str, console: str, terminal: Terminal) -> int:
    if terminal.is_json:
        terminal.write_json(answer)
    else:
        terminal.write(terminal.texts(key, console=console))
    return DONE


def _text(answer: dict[str, Any], terminal: Terminal) -> str:
    texts = terminal.texts
    connected = {item["console"]: item for item in answer["connected"]}
    rows = []
    for item in answer["pending"]:
        state = texts("console.pending")
        since = duration(item["seconds"])
        rows.append(_row(item["console"], state, "warn", item["address"], since, item["software"]))
    known = {item["console"]: item for item in answer["enrolled"]}
    for name in sorted({*known, *connected}):
        here, entry = connected.get(name), known.get(name)
        if entry is not None and entry["revoked"]:
            state, style = texts("console.is_revoked"), "bad"
        elif here is None:
            state, style = texts("console.enrolled"), ""
        else:
            key = "console.connected" if entry is not None else "console.not_enrolled"
            state, style = texts(key), "good" if entry is not None else "warn"
        if here is not None:
            detail = ", ".join(here["queues"])
            rows.append(
                _row(name, state, style, here["address"], duration(here["seconds"]), detail)
            )
        else:
            assert entry is not None
            age = duration(time.time() - entry["enrolled"])
            rows.append(_row(name, state, style, "-", age, entry["by"]))
    lines = []
    if answer["problem"]:
        lines.append(str(answer["problem"]))
    if not answer["required"]:
        lines.append(texts("console.optional"))
    if not rows:
        return "\n".join([*lines, texts("console.none")])
    names = ("console", "state", "address", "since", "detail")
    head = [texts(f"column.{name}") for name in names]
    lines += table(head, rows, Paint(terminal.colour), columns=terminal.columns)
    return "\n".join(lines)


def _row(name: str, state: str, style: str, address: str, since: str, detail: str) -> list[Cell]:
    return [Cell(name), Cell(state, style), Cell(address), Cell(since), Cell(detail)]
