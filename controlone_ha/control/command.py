"""The `ha` command: a thin client of the local API. Here are its entry and `ha status`.

It must start at once (an operator types it in the middle of a failure), so only what the asked
command needs is imported, and nothing that pulls in asyncio, dataclasses or typing.

Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 3 the daemon does not run or does not
answer; 4 something is not healthy (`check`, `probe`, and `status --exit-code`: a plain `ha status`
that was answered is 0 whatever it shows, so that scripts do not take news for errors).
"""

from __future__ import annotations

import os
import sys
import time

from controlone_ha.control.arguments import Request, UsageError, read_arguments
from controlone_ha.control.client import DENIED, ApiError, Client, DaemonError, run_dir
from controlone_ha.control.language import Texts, choose_language
from controlone_ha.control.terminal import (
    DAEMON_DOWN,
    DONE,
    FAILED,
    NOT_HEALTHY,
    USAGE,
    Terminal,
    daemon_sentence,
)
from controlone_ha.errors import ControlOneError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

WATCH_SECONDS = 2.0
STATUS_TIMEOUT = 5.0
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a mark still works
    terminal = Terminal(Texts(choose_language(_asked_language(words))))
    try:
        code = _run(words, terminal)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `ha history | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return DONE
    except KeyboardInterrupt:
        return INTERRUPTED


def _asked_language(words: Sequence[str]) -> str | None:
    for index, word in enumerate(words):
        if word.startswith("--lang="):
            return word[7:]
        if word == "--lang" and index + 1 < len(words):
            return words[index + 1]
    return None


def _run(words: Sequence[str], terminal: Terminal) -> int:
    try:
        request = read_arguments(words)
        terminal.is_json = bool(request.options.get("json"))
        if request.command == "status":
            return _status(request, terminal)
        from controlone_ha.control.commands import run

        code = run(request, terminal)
        return code if words else USAGE
    except UsageError as error:
        terminal.complain(usage_sentence(error, terminal.texts))
        terminal.complain(terminal.texts("error.hint"))
        return USAGE
    except DaemonError as error:
        terminal.complain(daemon_sentence(error, terminal.texts))
        return FAILED if error.cause == DENIED else DAEMON_DOWN
    except ApiError as error:
        terminal.complain(refusal(error, terminal.texts))
        return FAILED
    except ControlOneError as error:
        terminal.complain(str(error))
        return FAILED


def refusal(error: ApiError, texts: Texts) -> str:
    """Return why the daemon refused: a reason in this language where it sent one."""
    data = error.data
    if isinstance(data, dict) and "params" in data:
        return texts.reason({"text": str(error), **data})
    return texts.said(error)


def usage_sentence(error: UsageError, texts: Texts) -> str:
    """Return what is wrong with the command line."""
    params = dict(error.params)
    nearest = params.pop("nearest", "")
    if "command" in params and not params["command"].startswith("force"):
        params["command"] = params["command"].replace("_", "-")
    return texts(error.key, **params) + (texts("error.nearest", word=nearest) if nearest else "")


def _status(request: Request, terminal: Terminal) -> int:
    if "watch" in request.options:
        return _watch(request.options["watch"] or WATCH_SECONDS, terminal)
    try:
        client = Client(timeout=STATUS_TIMEOUT)
        try:
            status = client.call("status")
        finally:
            client.close()
    except DaemonError as error:
        return _last_status(error, terminal)
    _show(status, terminal)
    if request.options.get("exit_code"):
        from controlone_ha.control.render import is_healthy

        return DONE if is_healthy(status) else NOT_HEALTHY
    return DONE


def _show(status: dict[str, Any], terminal: Terminal, *, line: bool = False) -> None:
    if terminal.is_json:
        terminal.write_json(status, line=line)
        return
    from controlone_ha.control.render import render_status

    terminal.write(
        render_status(
            status,
            terminal.texts,
            now=time.time(),
            columns=terminal.columns,
            colour=terminal.colour,
        )
    )


def _last_status(error: DaemonError, terminal: Terminal, *, line: bool = False) -> int:
    """Say that the daemon does not answer and show what it wrote last."""
    terminal.daemon_down(error)
    from controlone_ha.control.status_file import read_status
    from controlone_ha.control.table import duration

    now = time.time()
    last = read_status(run_dir() + "/status.json")
    if terminal.is_json:
        daemon: dict[str, Any] = {"running": False, "cause": error.cause, "written": None}
        if last is not None:
            daemon |= {"written": last[1], "age_s": round(max(0.0, now - last[1]), 3)}
        terminal.write_json({**(last[0] if last else {}), "daemon": daemon}, line=line)
    elif last is None:
        terminal.complain(terminal.texts("daemon.no_status"))
    else:
        terminal.write(terminal.texts("daemon.last_status", age=duration(now - last[1])) + "\n")
        _show(last[0], terminal)
    return DAEMON_DOWN


def _watch(seconds: float, terminal: Terminal) -> int:
    """Show the status every ``seconds`` and at every transition, until interrupted."""
    client: Client | None = None
    code = DONE
    try:
        while True:
            if terminal.is_terminal and not terminal.is_json:
                sys.stdout.write("\x1b[H\x1b[2J")
            try:
                if client is None:
                    client = Client(timeout=STATUS_TIMEOUT)
                    client.call("events")
                client.events.clear()
                status = client.call("status")
            except DaemonError as error:
                client = None
                code = _last_status(error, terminal, line=True)
            else:
                _show(status, terminal, line=True)
                code = DONE
            if not terminal.is_json:
                terminal.write("")
            sys.stdout.flush()
            client = _wait(client, seconds)
    except KeyboardInterrupt:
        return code
    finally:
        if client is not None:
            client.close()


def _wait(client: Client | None, seconds: float) -> Client | None:
    if client is None:
        time.sleep(seconds)
        return None
    try:
        client.wait_event(seconds)
    except DaemonError:
        return None
    return client


if __name__ == "__main__":
    sys.exit(main())
