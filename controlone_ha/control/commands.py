"""The commands beside `ha status`: each asks the daemon once and shows the answer.

What can be answered without the daemon is: `history` from the node's files (and says so), `keys`
from the pins, `metrics` with ``controlone_ha_up 0``. Exit codes: see ``control.command``.
"""

from __future__ import annotations

import os
import sys
import time

from controlone_ha.control import reports
from controlone_ha.control.arguments import COMMANDS, Request, UsageError
from controlone_ha.control.client import Client, DaemonError, state_dir
from controlone_ha.control.render import moment
from controlone_ha.control.table import clean
from controlone_ha.control.terminal import DAEMON_DOWN, DONE, FAILED, NOT_HEALTHY, Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

HISTORY_LINES = 20
PROBE_TIMEOUT = 60.0
LEAVE_LIMIT = 40.0
"""Seconds after which `ha leave` does not wait for its services any more."""
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def run(request: Request, terminal: Terminal) -> int:
    """Run the command and return its exit code; raise ``ApiError`` or ``DaemonError``."""
    return HANDLERS[request.command](request, terminal)


def ask(method: str, params: dict[str, Any] | None = None, *, timeout: float = 10.0) -> Any:
    """Ask the daemon once."""
    client = Client(timeout=timeout)
    try:
        return client.call(method, params)
    finally:
        client.close()


def who() -> str:
    """Return who runs this command, for the history: the login behind sudo included."""
    environment = os.environ
    name = environment.get("SUDO_USER") or environment.get("LOGNAME") or environment.get("USER")
    return (name or f"uid {os.getuid()}")[:100]


def _view(terminal: Terminal) -> reports.View:
    return reports.View(
        terminal.texts, now=time.time(), columns=terminal.columns, colour=terminal.colour
    )


def _show(answer: Any, terminal: Terminal, render: Callable[[Any, reports.View], str]) -> None:
    if terminal.is_json:
        terminal.write_json(answer)
    else:
        terminal.write(render(answer, _view(terminal)))


def _history(request: Request, terminal: Terminal) -> int:
    options = request.options
    params: dict[str, Any] = {"limit": int(options.get("limit") or HISTORY_LINES)}
    for name in ("kind", "peer", "who", "node"):
        if options.get(name):
            params[name] = options[name]
    if options.get("since"):
        params["since"] = _since(options["since"])
    try:
        entries = ask("history", params)
    except DaemonError as error:
        terminal.daemon_down(error)
        from controlone_ha.control.history import read_history

        entries = read_history(state_dir() + "/history.jsonl", **params)
        _show(entries, terminal, reports.render_history)
        return DAEMON_DOWN
    _show(entries, terminal, reports.render_history)
    return DONE


def _audit(request: Request, terminal: Terminal) -> int:
    """Verify the chains; without the daemon, too, but then without the peers' word."""
    if request.arguments and request.arguments[0] != "verify":
        raise UsageError("error.audit_action", word=request.arguments[0])
    code = DONE
    try:
        answer = ask("audit", timeout=PROBE_TIMEOUT)
    except DaemonError as error:
        from controlone_ha.control.audit import verify_all

        terminal.daemon_down(error)
        rows = verify_all(state_dir() + "/history.jsonl", os.uname().nodename)
        answer = {"node": os.uname().nodename, "chains": rows, "problems": [], "held_by": {}}
        code = DAEMON_DOWN
    _show(answer, terminal, reports.render_audit)
    broken = answer["problems"] or any(row["problems"] for row in answer["chains"])
    return NOT_HEALTHY if broken else code


def _since(text: str) -> float:
    """Return the moment of ``30m``, ``2h``, ``1d`` ago, of a date, or of seconds since 1970."""
    number, unit = text[:-1], text[-1:]
    if unit in UNITS and number.isdecimal():
        return time.time() - int(number) * UNITS[unit]
    if text.isdecimal():
        return float(text)
    for form in ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"):
        try:
            return time.mktime(time.strptime(text, form))
        except (ValueError, OverflowError):
            continue
    raise UsageError("error.since", value=text)


def _why(request: Request, terminal: Terminal) -> int:
    answer = ask("why", {"peer": request.arguments[0]} if request.arguments else {})
    limit = request.options.get("limit")
    if limit and not terminal.is_json:
        answer = {**answer, "decisions": (answer.get("decisions") or [])[: int(limit)]}
    _show(answer, terminal, reports.render_why)
    return DONE


def _why_not(request: Request, terminal: Terminal) -> int:
    answer = ask("why_not", {"peer": request.arguments[0]})
    _show(answer, terminal, reports.render_why_not)
    return DONE


def _plan(request: Request, terminal: Terminal) -> int:
    _show(ask("plan", {"peer": request.arguments[0]}), terminal, reports.render_plan)
    return DONE


def _check(request: Request, terminal: Terminal) -> int:
    findings = ask("check", timeout=PROBE_TIMEOUT)
    _show(findings, terminal, reports.render_check)
    return NOT_HEALTHY if findings else DONE


def _probe(request: Request, terminal: Terminal) -> int:
    answer = ask("probe", {"peer": request.arguments[0]}, timeout=PROBE_TIMEOUT)
    _show(answer, terminal, reports.render_probe)
    probes = answer.get("probes") or []
    answered = probes and all(probe.get("outcome") == "answered" for probe in probes)
    return DONE if answered else NOT_HEALTHY


def _links(request: Request, terminal: Terminal) -> int:
    _show(ask("links"), terminal, reports.render_links)
    return DONE


def _calls(request: Request, terminal: Terminal) -> int:
    from controlone_ha.control.call_report import render_calls, render_takeovers, takeovers_of

    if request.options.get("takeovers"):
        entries = ask("history", {"kind": "takeover", "limit": 200})
        _show(takeovers_of(entries), terminal, render_takeovers)
        return DONE
    _show(ask("live_calls"), terminal, render_calls)
    return DONE


def _force(request: Request, terminal: Terminal) -> int:
    state = request.command.removeprefix("force_")
    answer = ask("force", {"state": state, "by": who()}, timeout=PROBE_TIMEOUT)
    _show(answer, terminal, reports.render_outcome)
    return DONE


def _pause(request: Request, terminal: Terminal) -> int:
    answer = ask("pause", {"by": who(), "reason": " ".join(request.arguments)})
    _show(answer, terminal, reports.render_outcome)
    return DONE


def _resume(request: Request, terminal: Terminal) -> int:
    answer = ask("resume", {"by": who()}, timeout=PROBE_TIMEOUT)
    _show(answer, terminal, reports.render_outcome)
    return DONE


def _leave(request: Request, terminal: Terminal) -> int:
    """Hand over, and return when the services have stopped; 1 when nobody can take over."""
    import time

    answer = ask("leave", {"by": who()}, timeout=PROBE_TIMEOUT)
    end = time.monotonic() + LEAVE_LIMIT
    while answer["leaves"] and time.monotonic() < end:
        said = ask("status")
        services = {item["name"]: item["state"] for item in said["services"]}
        answer = {**answer, "state": said["state"]}
        if services.get("conference") == "stopped":
            break
        time.sleep(0.2)
    if terminal.is_json:
        terminal.write_json(answer)
    else:
        terminal.write(terminal.texts("leave.done" if answer["leaves"] else "leave.nobody"))
    return DONE if answer["leaves"] else FAILED


def _metrics(request: Request, terminal: Terminal) -> int:
    try:
        text = ask("metrics")
    except DaemonError as error:
        terminal.daemon_down(error)
        from controlone_ha.control.metrics import render_down

        text = render_down()
        code = DAEMON_DOWN
    else:
        code = DONE
    if terminal.is_json:
        terminal.write_json({"metrics": text})
    else:
        sys.stdout.write(text)
    return code


def _reload(request: Request, terminal: Terminal) -> int:
    answer = ask("reload", timeout=PROBE_TIMEOUT)
    if terminal.is_json:
        terminal.write_json(answer)
    else:
        terminal.write(terminal.texts("reload.done"))
    return DONE


def _events(request: Request, terminal: Terminal) -> int:
    """Follow the transitions until interrupted or the daemon ends."""
    client = Client()
    kind = request.options.get("kind")
    client.call("events", {"kinds": [kind]} if kind else {})
    try:
        while True:
            client.wait_event(3600.0)
            for entry in client.events:
                if terminal.is_json:
                    terminal.write_json(entry, line=True)
                else:
                    stamp = moment(entry.get("time"), terminal.texts)
                    line = reports.entry_line(entry, terminal.texts)
                    peer = f"{clean(entry['peer'])}: " if entry.get("peer") else ""
                    terminal.write(f"{stamp}  {peer}{line}")
            client.events.clear()
            sys.stdout.flush()
    except KeyboardInterrupt:
        return DONE
    finally:
        client.close()


def _version(request: Request, terminal: Terminal) -> int:
    from controlone_ha import __version__

    if terminal.is_json:
        terminal.write_json({"version": __version__})
    else:
        terminal.write(f"ControlONE HA {__version__}")
    return DONE


def _help(request: Request, terminal: Terminal) -> int:
    texts = terminal.texts
    topic = request.arguments[0].replace("-", "_") if request.arguments else ""
    if topic:
        if topic not in COMMANDS:
            raise UsageError("error.unknown_command", word=request.arguments[0])
        terminal.write(f"{texts(f'usage.{topic}')}\n\n{texts(f'help.{topic}')}")
        return DONE
    width = max(len(texts(f"usage.{name}")) for name in COMMANDS) + 2
    lines = [texts("help.head"), ""]
    for name in COMMANDS:
        summary = texts(f"help.{name}").partition("\n")[0]
        lines.append(f"  {texts(f'usage.{name}').ljust(width)}{summary}")
    terminal.write("\n".join([*lines, "", texts("help.tail")]))
    return DONE


def _console(request: Request, terminal: Terminal) -> int:
    from controlone_ha.control import consoles

    return consoles.run(request, terminal, who())


def _pairing(request: Request, terminal: Terminal) -> int:
    from controlone_ha.control import pairing

    return pairing.run(request, terminal, _view(terminal))


def _licence(request: Request, terminal: Terminal) -> int:
    from controlone_ha.control import licences

    return licences.run(request, terminal, _view(terminal))


def _support(request: Request, terminal: Terminal) -> int:
    from controlone_ha.control import support

    return support.run(request, terminal)


def _syncing(request: Request, terminal: Terminal) -> int:
    from controlone_ha.control import syncing

    if request.arguments[-1:] == ["database"]:
        from controlone_ha.control import database

        if request.command == "sync":
            return database.sync(terminal)
        if len(request.arguments) > 1:
            return database.diff(request.arguments[0], terminal)
    return syncing.run(request, terminal)


def _conflicts(request: Request, terminal: Terminal) -> int:
    from controlone_ha.control import conflicts

    return conflicts.run(request, terminal, who())


def _database(request: Request, terminal: Terminal) -> int:
    from controlone_ha.control import database

    return database.run(request, terminal)


HANDLERS: dict[str, Callable[[Request, Terminal], int]] = {
    "history": _history,
    "audit": _audit,
    "why": _why,
    "why_not": _why_not,
    "plan": _plan,
    "check": _check,
    "probe": _probe,
    "links": _links,
    "calls": _calls,
    "sync": _syncing,
    "diff": _syncing,
    "conflicts": _conflicts,
    "database": _database,
    "forget": _database,
    "force_passive": _force,
    "force_active": _force,
    "pause": _pause,
    "resume": _resume,
    "leave": _leave,
    "keys": _pairing,
    "pair": _pairing,
    "pair_accept": _pairing,
    "pair_export": _pairing,
    "pair_import": _pairing,
    "unpair": _pairing,
    "licence": _licence,
    "metrics": _metrics,
    "console": _console,
    "reload": _reload,
    "events": _events,
    "secret": _pairing,
    "support": _support,
    "version": _version,
    "help": _help,
}
