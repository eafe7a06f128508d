"""The command line of `ha`: which commands and options there are, and reading them. Pure.

Hand-made rather than argparse: two languages, the seed's spelling (``force_passive``) beside
hyphens, options before or after the command, and a start that costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

FLAG, TEXT, NUMBER, OPTIONAL_NUMBER = "flag", "text", "number", "optional number"
COMMON = {"json": FLAG, "lang": TEXT, "help": FLAG}
SHORT = {
    "j": "json",
    "h": "help",
    "w": "watch",
    "n": "limit",
    "e": "exit_code",
    "i": "identity",
    "a": "all",
}


class CommandLine:
    """What one command takes: options by name, and how many arguments (at least, at most)."""

    __slots__ = ("least", "most", "options")

    def __init__(self, least: int = 0, most: int | None = 0, **options: str) -> None:
        self.least = least
        self.most = most
        self.options = options


COMMANDS = {
    "status": CommandLine(watch=OPTIONAL_NUMBER, exit_code=FLAG),
    "history": CommandLine(limit=NUMBER, kind=TEXT, peer=TEXT, since=TEXT, who=TEXT, node=TEXT),
    "audit": CommandLine(most=1),
    "why": CommandLine(most=1, limit=NUMBER),
    "why_not": CommandLine(least=1, most=1),
    "plan": CommandLine(least=1, most=1),
    "check": CommandLine(),
    "probe": CommandLine(least=1, most=1),
    "links": CommandLine(),
    "calls": CommandLine(takeovers=FLAG),
    "sync": CommandLine(most=1),
    "diff": CommandLine(least=1, most=2),
    "conflicts": CommandLine(most=2, all=FLAG),
    "database": CommandLine(most=1, limit=NUMBER, user=TEXT),
    "forget": CommandLine(least=1, most=1),
    "force_passive": CommandLine(),
    "force_active": CommandLine(),
    "pause": CommandLine(most=None),
    "resume": CommandLine(),
    "leave": CommandLine(),
    "keys": CommandLine(most=1, yes=FLAG, grace=NUMBER),
    "pair": CommandLine(least=1, most=1, identity=TEXT, fingerprint=TEXT, accept_host_key=FLAG),
    "pair_accept": CommandLine(),
    "pair_export": CommandLine(),
    "pair_import": CommandLine(least=1, most=1, fingerprint=TEXT),
    "unpair": CommandLine(least=1, most=1, here=FLAG, reason=TEXT),
    "licence": CommandLine(most=2),
    "console": CommandLine(most=3),
    "metrics": CommandLine(),
    "reload": CommandLine(),
    "events": CommandLine(kind=TEXT),
    "secret": CommandLine(least=1, most=1, grace=NUMBER),
    "support": CommandLine(most=1),
    "version": CommandLine(),
    "help": CommandLine(most=1),
}


class UsageError(Exception):
    """The command line is wrong; ``key`` and ``params`` name the text that says how."""

    def __init__(self, key: str, **params: Any) -> None:
        super().__init__(key)
        self.key = key
        self.params = params


class Request:
    """A command line that was understood."""

    __slots__ = ("arguments", "command", "options")

    def __init__(self, command: str, options: dict[str, Any], arguments: list[str]) -> None:
        self.command = command
        self.options = options
        self.arguments = arguments


def read_arguments(words: Sequence[str]) -> Request:
    """Return what ``words`` (without the program's name) ask for; raise ``UsageError``."""
    command = _command_of(words)
    line = COMMANDS[command]
    known = {**COMMON, **line.options}
    options: dict[str, Any] = {}
    arguments: list[str] = []
    command_seen = False
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            arguments += rest
            break
        if word.startswith("-") and len(word) > 1:
            _read_option(word, rest, known, options, command)
        elif not command_seen and _canonical(word) == command:
            command_seen = True
        else:
            arguments.append(word)
    if options.get("help"):
        return Request("help", options, [command] if command != "help" else arguments[:1])
    if len(arguments) < line.least:
        raise UsageError("error.missing", command=command)
    if line.most is not None and len(arguments) > line.most:
        raise UsageError("error.too_many", command=command, word=arguments[line.most])
    return Request(command, options, arguments)


def _canonical(word: str) -> str:
    return word.replace("-", "_")


def _command_of(words: Sequence[str]) -> str:
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in ("--version", "-V"):
            return "version"
        elif word == "--lang":
            skip = True
        elif not word.startswith("-"):
            command = _canonical(word)
            if command not in COMMANDS:
                raise UsageError("error.unknown_command", word=word, nearest=nearest(command))
            return command
    return "help"


def _read_option(
    word: str, rest: list[str], known: dict[str, str], options: dict[str, Any], command: str
) -> None:
    if word in ("--version", "-V"):
        return
    name, has_value, value = word.partition("=")
    if name.startswith("--"):
        option = _canonical(name[2:])
    else:
        option = SHORT.get(name[1], "")
        if len(name) > 2:
            has_value, value = "=", name[2:] + has_value + value
    kind = known.get(option)
    if kind is None:
        raise UsageError("error.unknown_option", word=word, command=command)
    if kind == FLAG:
        if has_value:
            raise UsageError("error.no_value", word=name)
        options[option] = True
        return
    if not has_value:
        if kind == OPTIONAL_NUMBER and not (rest and _number(rest[0]) is not None):
            options[option] = None
            return
        if not rest:
            raise UsageError("error.needs_value", word=word)
        value = rest.pop(0)
    if kind == TEXT:
        options[option] = value
        return
    number = _number(value)
    if number is None or number <= 0 or number > 10000:
        raise UsageError("error.number", word=name, value=value)
    options[option] = number


def _number(word: str) -> float | None:
    if not word or word[0] not in "0123456789.":
        return None
    try:
        return float(word)
    except ValueError:
        return None


def nearest(word: str) -> str:
    """Return the command a person may have meant, empty when none is near."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, COMMANDS, n=1)), "")
