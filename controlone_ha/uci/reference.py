"""References such as ``package.section.option=value`` and ``package.@type[index]``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from controlone_ha.uci.errors import UciInvalidError, UciParseError
from controlone_ha.uci.model import Option, Package, Section
from controlone_ha.uci.names import is_name, is_package_name, is_request_value, is_type

_INTEGER = re.compile(r"[ \t\n\v\f\r]*([+-]?)([0-9]+)")
_LONG_MAX = 2**63 - 1
_UNSIGNED_LONG_MAX = 2**64 - 1
_MAX_PARTS = 3


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference as written. ``extended``: the section is no plain name (``@type[index]``)."""

    package: str
    section: str | None = None
    option: str | None = None
    value: str | None = None
    extended: bool = False


@dataclass(slots=True)
class Target:
    """What a reference means in a package; ``complete``: all that it names exists."""

    package: Package
    section_name: str | None = None
    option_name: str | None = None
    value: str | None = None
    section: Section | None = None
    option: Option | None = None
    complete: bool = False


def parse_reference(text: str) -> Reference:
    """Take ``text`` apart. Raises UciParseError if it has no such form or a bad name or value."""
    path, equals, rest = text.partition("=")
    value = rest if equals else None
    parts = path.split(".")
    package = parts[0]
    section = parts[1] if len(parts) > 1 else None
    option = parts[2] if len(parts) > 2 else None
    if (
        len(parts) > _MAX_PARTS
        or not is_package_name(package)
        or (option is not None and not is_name(option))
        or (value is not None and not is_request_value(value))
    ):
        raise UciParseError(f"got {text!r}, expected package[.section[.option]][=value]")
    extended = section is not None and not is_name(section)
    return Reference(package, section, option, value, extended)


def resolve(package: Package, reference: Reference) -> Target:
    """Look up what ``reference`` names in ``package``.

    Raises UciInvalidError for an extended section that has not the form ``@type[index]``.
    """
    target = Target(package, reference.section, reference.option, reference.value)
    if reference.section is None:
        target.complete = True
        return target
    if reference.extended:
        target.section = _extended_section(package, reference.section)
        if target.section is not None:
            target.section_name = target.section.name
    else:
        target.section = package.section(reference.section)
    if target.section is None:
        return target
    if reference.option is not None:
        target.option = target.section.option(reference.option)
        if target.option is None:
            return target
    target.complete = True
    return target


def _extended_section(package: Package, text: str) -> Section | None:
    """Find ``@type[index]``; ``@[index]`` counts all sections, a negative index from the end."""
    type, bracket, rest = text[1:].partition("[")
    index_text, closing, behind = rest.partition("]")
    index = _strict_integer(index_text)
    if (
        not text.startswith("@")
        or not bracket
        or not closing
        or behind
        or index is None
        or (type and not is_type(type))
    ):
        raise UciInvalidError(f"got section {text!r}, expected a name or @type[index]")
    sections = list(package.sections(type or None))
    if index < 0:
        index += len(sections)
    return sections[index] if 0 <= index < len(sections) else None


def _strict_integer(text: str) -> int | None:
    """Read a whole string as C's strtol and int do; "" is 0, None if anything else is in it."""
    match = _INTEGER.match(text)
    if match is None:
        return None if text else 0
    if match.end() != len(text):
        return None
    number = min(int(match[2]), _LONG_MAX + (match[1] == "-"))
    return _as_int(-number if match[1] == "-" else number)


def leading_position(text: str) -> int:
    """Read a position as C's strtoul and int do: the number ``text`` starts with, else 0."""
    match = _INTEGER.match(text)
    if match is None:
        return 0
    number = int(match[2])
    if number > _UNSIGNED_LONG_MAX:
        return _as_int(_UNSIGNED_LONG_MAX)
    return _as_int(-number if match[1] == "-" else number)


def leading_index(text: str) -> int | None:
    """Read a list index as C's ``sscanf("%d")``: None if ``text`` starts with something else.

    Blanks alone are accepted and mean no item.
    """
    match = _INTEGER.match(text)
    if match is None:
        return None if text.strip(" \t\n\v\f\r") else -1
    number = min(int(match[2]), _LONG_MAX + (match[1] == "-"))
    return _as_int(-number if match[1] == "-" else number)


def _as_int(number: int) -> int:
    """Return ``number`` as it comes out of a 32-bit signed integer."""
    return (number + 2**31) % 2**32 - 2**31
