"""UCI sections against the schema: typed values, errors and warnings that a person can act on.

A message reads ``FILE:LINE: package.section.option: got …, expected …``. Unknown options warn with
the nearest known name and lose nothing. The value of a secret is never part of a message.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from controlone_ha.config.schema import Kind, OptionRow, rows_of, section_types
from controlone_ha.errors import ConfigError
from controlone_ha.uci.model import Option, Package, Section

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}\Z")
_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?\Z")
_IPV6: Final = re.compile(r"[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9_.-]+)?\Z")
_TRUE: Final = frozenset(("1", "on", "true", "yes", "enabled"))
_FALSE: Final = frozenset(("0", "off", "false", "no", "disabled"))


class BadValueError(ValueError):
    """A value does not fit its kind; the text says what was expected."""


@dataclass(kw_only=True)
class Findings:
    """What reading a package found: every error at once, and every warning."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def raise_errors(self) -> None:
        """Raise one ``ConfigError`` with all errors, a line each; do nothing when there are
        none.
        """
        if self.errors:
            raise ConfigError("\n".join(self.errors))


def is_host(text: str) -> bool:
    """True for a host name, an IPv4 or an IPv6 address as one may write in a list of hosts."""
    return bool(_HOST.match(text)) or (":" in text and bool(_IPV6.match(text)))


def split_list(option: Option) -> list[str]:
    """Return the items of a UCI list, or of an option separated by commas or blanks (G1, G5)."""
    return [item for value in option.values for item in re.split(r"[,\s]+", value) if item]


def read_section(
    package: Package, section: Section, file: str, findings: Findings
) -> dict[str, Any]:
    """Return the typed value of every option of ``section``'s type; defaults fill what is missing.

    Errors go to ``findings``; the default then stands in, so that all errors are found at once.
    """
    rows = rows_of(package.name, section.type)
    values: dict[str, Any] = {}
    for option in section:
        row = rows.get(option.name)
        where = f"{file}:{option.line or section.line}: {package.name}.{section.name}.{option.name}"
        if row is None:
            findings.warnings.append(f"{where}: unknown option{_nearest(option.name, list(rows))}")
            continue
        try:
            values[row.name] = parse(row, option)
        except BadValueError as error:
            findings.errors.append(f"{where}: {error}")
    for row in rows.values():
        if row.name not in values:
            values[row.name] = default_of(row)
            if row.is_required and section.option(row.name) is None:
                findings.errors.append(
                    f"{file}:{section.line}: {package.name}.{section.name}.{row.name}: missing,"
                    f" expected {expectation(row)} ({row.text})"
                )
    return values


def check_types(package: Package, file: str, findings: Findings) -> None:
    """Warn about sections of a type that the product does not know."""
    known = section_types(package.name)
    for section in package:
        if section.type not in known:
            findings.warnings.append(
                f"{file}:{section.line}: {package.name}.{section.name}: unknown section type"
                f" {section.type!r}{_nearest(section.type, list(known))}"
            )


def default_of(row: OptionRow) -> Any:
    """Return the typed default of a row; an empty one gives an empty value of its kind."""
    if not row.default:
        return _EMPTY.get(row.kind, "")
    return parse(row, Option(row.name, row.default))


def parse(row: OptionRow, option: Option) -> Any:
    """Return the typed value of ``option``; raise ``BadValueError`` (got …, expected …)."""
    if row.kind in _LISTS:
        items = split_list(option)
        check = _LISTS[row.kind]
        for item in items:
            if not check(item):
                raise BadValueError(f"got {item!r}, expected {expectation(row)}")
        if len(set(items)) != len(items):
            raise BadValueError(f"got {', '.join(items)!r}, expected every item once")
        return tuple(items)
    if option.is_list:
        raise BadValueError(f"got a list, expected one value: {expectation(row)}")
    text = option.values[0].strip()
    if not text and not row.is_required:
        return default_of(row)
    if "\0" in text or "\n" in text:
        raise BadValueError("got a value with a line break, expected one line")
    return _PARSERS[row.kind](row, text)


def expectation(row: OptionRow) -> str:
    """Return in words what a value of ``row`` must be."""
    if row.kind is Kind.CHOICE:
        return ", ".join(row.choices[:-1]) + f" or {row.choices[-1]}"
    words = _WORDS[row.kind]
    if row.minimum is not None and row.maximum is not None:
        words += f" from {row.minimum:g} to {row.maximum:g}"
    return words


def _nearest(name: str, known: list[str]) -> str:
    import difflib  # here: a daemon whose configuration is right never needs it

    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _is_path(text: str) -> bool:
    return text.startswith("/") and "\0" not in text


def _bad(row: OptionRow, text: str) -> BadValueError:
    return BadValueError(f"got {text!r}, expected {expectation(row)}")


def _boolean(row: OptionRow, text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise _bad(row, text)


def _number(row: OptionRow, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise _bad(row, text) from None
    low = row.minimum if row.minimum is not None else 0
    high = row.maximum if row.maximum is not None else float("inf")
    if not low <= value <= high:
        raise _bad(row, text)
    return value


def _integer(row: OptionRow, text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise _bad(row, text)
    return int(_number(row, text))


def _port(row: OptionRow, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise _bad(row, text)
    return int(text)


def _choice(row: OptionRow, text: str) -> str:
    if text not in row.choices:
        raise _bad(row, text)
    return text


def _name(row: OptionRow, text: str) -> str:
    if not _NAME.match(text):
        raise _bad(row, text)
    return text


def _host(row: OptionRow, text: str) -> str:
    if not is_host(text):
        raise _bad(row, text)
    return text


def _path(row: OptionRow, text: str) -> str:
    if not _is_path(text):
        raise _bad(row, text)
    return text


def _secret(row: OptionRow, text: str) -> str:
    if not text:
        raise BadValueError("got an empty secret, expected the password of the cluster")
    return text


_PARSERS: Final[dict[Kind, Callable[[OptionRow, str], Any]]] = {
    Kind.TEXT: lambda _row, text: text,
    Kind.SECRET: _secret,
    Kind.NAME: _name,
    Kind.BOOLEAN: _boolean,
    Kind.INTEGER: _integer,
    Kind.SECONDS: _number,
    Kind.PERCENT: _number,
    Kind.NUMBER: _number,
    Kind.PORT: _port,
    Kind.HOST: _host,
    Kind.CHOICE: _choice,
    Kind.PATH: _path,
}

_LISTS: Final[dict[Kind, Callable[[str], bool]]] = {
    Kind.HOSTS: is_host,
    Kind.NAMES: lambda text: bool(_NAME.match(text)),
    Kind.PATHS: _is_path,
    Kind.PATTERNS: lambda text: text.isprintable(),
}

_EMPTY: Final[dict[Kind, Any]] = {**dict.fromkeys(_LISTS, ()), Kind.PORT: 0}

_WORDS: Final[dict[Kind, str]] = {
    Kind.TEXT: "one line of text",
    Kind.SECRET: "the password of the cluster",
    Kind.NAME: "a name of letters, digits, '_', '-' and '.'",
    Kind.BOOLEAN: "0 or 1",
    Kind.INTEGER: "a whole number",
    Kind.SECONDS: "a number of seconds",
    Kind.PERCENT: "a percentage",
    Kind.NUMBER: "a number",
    Kind.PORT: "a port from 1 to 65535",
    Kind.HOST: "a host name or an IP address",
    Kind.HOSTS: "host names or IP addresses, separated by commas or blanks",
    Kind.NAMES: "names, separated by commas or blanks",
    Kind.CHOICE: "one of a list",
    Kind.PATH: "an absolute path",
    Kind.PATHS: "absolute paths, separated by commas or blanks",
    Kind.PATTERNS: "patterns of file names, separated by commas or blanks",
}
