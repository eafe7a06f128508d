"""The `console` command on a console device: status, enrol, reload; ``run`` is the client itself.

Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 3 the client does not run; 4 it runs but is
not connected (``status``).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from controlone_ha.console.render import COLUMNS, indication, render_status
from controlone_ha.console.texts import choose_language, word
from controlone_ha.errors import ControlOneError
from controlone_ha.jsonrpc import RpcError, call
from controlone_ha.paths import NodePaths, node_paths

DONE, FAILED, USAGE, DOWN, NOT_CONNECTED = 0, 1, 2, 3, 4
WATCH_SECONDS = 2.0
TIMEOUT = 5.0


class UsageError(Exception):
    """The command line is wrong; the text is the word that is."""


class Line:
    """The command line that was understood."""

    def __init__(self, words: Sequence[str]) -> None:
        self.command = ""
        self.arguments: list[str] = []
        self.is_json = self.is_line = False
        self.watch: float | None = None
        self.language: str | None = None
        rest = list(words)
        while rest:
            item = rest.pop(0)
            if item in ("--json", "-j"):
                self.is_json = True
            elif item in ("--line", "-l"):
                self.is_line = True
            elif item in ("-w", "--watch"):
                self.watch = WATCH_SECONDS
                if rest and rest[0].replace(".", "", 1).isdigit():
                    self.watch = max(0.1, float(rest.pop(0)))
            elif item in ("-h", "--help"):
                self.command = "help"
            elif item == "--lang" or item.startswith("--lang="):
                value = item[7:] if "=" in item else (rest.pop(0) if rest else "")
                self.language = value
            elif item.startswith("-"):
                raise UsageError(item)
            elif not self.command:
                self.command = {"enroll": "enrol", "restart": "reload"}.get(item, item)
            else:
                self.arguments.append(item)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    language = choose_language(None)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        line = Line(words)
        language = choose_language(line.language)
        if not line.command:
            line.command = "help"
        return _run(line, language)
    except UsageError as error:
        _complain(word("error.usage", language, word=str(error)))
        return USAGE
    except PermissionError:
        _complain(word("error.denied", language))
        return FAILED
    except (ConnectionError, FileNotFoundError):
        _complain(word("error.down", language))
        return DOWN
    except TimeoutError:
        _complain(word("error.silent", language))
        return DOWN
    except (ControlOneError, OSError) as error:
        _complain(str(error))
        return FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return DONE
    except KeyboardInterrupt:
        return 130


def _run(line: Line, language: str) -> int:
    paths = node_paths()
    if line.arguments and line.command != "enrol":
        raise UsageError(line.arguments[0])
    match line.command:
        case "status":
            return _status(line, language, paths.console_socket)
        case "enrol":
            return _enrol(line, language, paths)
        case "reload":
            answer = call(paths.console_socket, "reload", timeout=TIMEOUT)
            if line.is_json:
                print(json.dumps(answer, ensure_ascii=False))
            else:
                print(word("reload.done", language, count=len(answer["servers"])))
                for problem in answer["problems"]:
                    _complain(problem)
            return DONE
        case "run":
            from controlone_ha.console.daemon import main as run

            return run()
        case "version":
            from controlone_ha import __version__

            print(__version__)
            return DONE
        case "help":
            print(word("help", language))
            return DONE
    raise UsageError(line.command)


def _complain(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"console: {text}\n")


def _status(line: Line, language: str, socket: Path) -> int:
    while True:
        try:
            status = call(socket, "status", timeout=TIMEOUT)
        except RpcError as error:
            _complain(str(error))
            return FAILED
        except OSError:
            if line.watch is None:
                raise
            _complain(word("error.down", language))
            time.sleep(line.watch)
            continue
        if line.watch is not None and sys.stdout.isatty() and not line.is_json:
            sys.stdout.write("\x1b[H\x1b[2J")
        _show(status, line, language)
        sys.stdout.flush()
        if line.watch is None:
            return DONE if status["state"] == "connected" else NOT_CONNECTED
        time.sleep(line.watch)


def _show(status: dict[str, Any], line: Line, language: str) -> None:
    if line.is_json:
        print(json.dumps(status, indent=None if line.watch else 2, ensure_ascii=False))
    elif line.is_line:
        print(indication(status, language))
    else:
        terminal = sys.stdout.isatty()
        columns = COLUMNS
        if terminal:
            try:
                columns = max(40, os.get_terminal_size().columns or COLUMNS)
            except OSError:
                columns = COLUMNS
        colour = terminal and not os.environ.get("NO_COLOR")
        text = render_status(status, language, now=time.time(), columns=columns, colour=colour)
        print(text)


def _enrol(line: Line, language: str, paths: NodePaths) -> int:
    import asyncio

    from controlone_ha import __version__
    from controlone_ha.console.connection import OpenError
    from controlone_ha.console.enrol import enrol
    from controlone_ha.console.settings import load_config
    from controlone_ha.console.texts import sentence
    from controlone_ha.console.trust import save_credentials

    if len(line.arguments) != 1:
        _complain(word("enrol.usage", language))
        return USAGE
    config = load_config(paths.config_dir)
    server = line.arguments[0]

    def show(code: str) -> None:
        if line.is_json:
            print(json.dumps({"console": config.name, "code": code}), flush=True)
        else:
            print(word("enrol.code", language, console=config.name, code=code), flush=True)

    software = f"console {__version__}"
    try:
        credentials = asyncio.run(
            enrol(config.name, server, config.port, show=show, software=software)
        )
    except OpenError as error:
        params = {"server": server, **error.cause.params}
        text = sentence(error.cause.code, params, language)
        _complain(word("error.enrol", language, text=text))
        return FAILED
    save_credentials(paths.console_credentials, credentials)
    count = len(credentials.pins)
    if line.is_json:
        print(json.dumps({"console": config.name, "pins": count}))
    else:
        print(word("enrol.done", language, console=config.name, count=count))
    try:
        call(paths.console_socket, "reload", timeout=TIMEOUT)
    except (OSError, RpcError):
        pass  # it does not run yet, and will read them when it starts
    return DONE
