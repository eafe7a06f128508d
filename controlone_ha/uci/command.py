"""The `uci` command: arguments and streams; ``session`` does the rest.

For hosts that have no `uci`, and for both at once on one directory. ``UCI_CONFIG_DIR`` and
``CONTROLONE_SAVE_DIR`` change the default directories; everything else is as on OpenWrt.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import BinaryIO

from controlone_ha.uci.names import to_bytes, to_text
from controlone_ha.uci.scanner import Stream
from controlone_ha.uci.session import SHOW_USAGE, Session
from controlone_ha.uci.store import CONFIG_DIR, SAVE_DIR, Store

_WITH_ARGUMENT = frozenset("cCdfpPt")
_WITHOUT_ARGUMENT = frozenset("LmnNqsSX")


def main(
    argv: Sequence[str] | None = None,
    *,
    stdin: BinaryIO | None = None,
    stdout: BinaryIO | None = None,
    stderr: BinaryIO | None = None,
) -> int:
    """Run the `uci` command with ``argv`` (without the program's name); return its exit code."""
    arguments = [to_text(os.fsencode(one)) for one in (sys.argv[1:] if argv is None else argv)]
    output = stdout or sys.stdout.buffer
    errors = stderr or sys.stderr.buffer
    session = Session(
        store=Store(
            os.environ.get("UCI_CONFIG_DIR") or CONFIG_DIR,
            os.environ.get("CONTROLONE_SAVE_DIR") or SAVE_DIR,
        ),
        input=Stream(stdin or sys.stdin.buffer),
        output=output,
        errors=errors,
    )
    opened: list[BinaryIO] = []
    try:
        code = _run(session, arguments, opened)
        output.flush()
        errors.flush()
    except BrokenPipeError:
        # The reader went away; nothing is left to say, and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    finally:
        for file in opened:
            file.close()
    return code


def _run(session: Session, arguments: list[str], opened: list[BinaryIO]) -> int:
    options, rest, complaint = _split_options(arguments)
    for letter, value in options:
        code = _apply_option(session, letter, value, opened)
        if code is not None:
            return code
    if complaint is not None:
        session.errors.write(to_bytes(f"uci: {complaint}\n"))
    if complaint is not None or not rest:
        session.print_usage()
        return 0
    code = session.run(rest)
    if code == SHOW_USAGE:
        session.print_usage()
    return code


def _split_options(arguments: list[str]) -> tuple[list[tuple[str, str]], list[str], str | None]:
    """Take the options off the front, as musl's getopt: options, the rest, what is wrong."""
    options: list[tuple[str, str]] = []
    index = 0
    while index < len(arguments):
        argument = arguments[index]
        if argument == "-" or not argument.startswith("-"):
            break
        index += 1
        if argument == "--":
            break
        for place, letter in enumerate(argument[1:], start=1):
            if letter in _WITHOUT_ARGUMENT:
                options.append((letter, ""))
            elif letter not in _WITH_ARGUMENT:
                return options, [], f"unrecognized option: {letter}"
            elif argument[place + 1 :]:
                options.append((letter, argument[place + 1 :]))
                break
            elif index < len(arguments):
                options.append((letter, arguments[index]))
                index += 1
            else:
                return options, [], f"option requires an argument: {letter}"
    return options, arguments[index:], None


def _apply_option(session: Session, letter: str, value: str, opened: list[BinaryIO]) -> int | None:
    """Set what one option says; an exit code if the command ends with it."""
    store = session.store
    match letter:
        case "c":
            store.config_dir = value
        case "C":
            store.override_dir = value or None
        case "d":
            session.delimiter = value
        case "f":
            if opened:
                session.print_error("Too many input files.\n")
                return 1
            try:
                opened.append(open(os.fsencode(value), "rb"))  # noqa: SIM115 - closed by main
            except OSError as error:
                session.print_error(f"uci: {error.strerror}")
                return 1
            session.input = Stream(opened[0])
        case "m":
            session.merge = True
        case "n" | "N":
            store.name_anonymous = letter == "n"
        case "p":
            if value not in store.delta_dirs:
                store.delta_dirs.insert(-1, value)
        case "P" | "t":
            session.no_commit = session.no_commit or letter == "P"
            store.delta_dirs = [one for one in store.delta_dirs if one != value] + [value]
            store.save_dir = value
        case "q":
            session.quiet = True
        case "s" | "S":
            store.strict = letter == "s"
            if letter == "S":
                store.report = session.report
        case "X":
            session.extended = False
        case _:
            session.print_usage()
            return 0
    return None


if __name__ == "__main__":
    sys.exit(main())
