"""Packages, sections and options: what a UCI file says, in memory.

Order matters and is kept. Looking up a name finds the first that carries it: renaming may leave two
sections (or options) with one name, and libuci then shows both and finds the first. Dictionaries
hold that: the first has its name as key, later ones a key nobody can ask for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from controlone_ha.uci.errors import UciInvalidError, UciNotFoundError
from controlone_ha.uci.names import anonymous_name, is_name, is_plain_type, to_bytes

Value = str | list[str]


class ChangeKind(Enum):
    """What a staged change does; the value is the first character of its line in a delta file."""

    ADD = "+"
    REMOVE = "-"
    CHANGE = ""
    RENAME = "@"
    REORDER = "^"
    LIST_ADD = "|"
    LIST_DEL = "~"


@dataclass(frozen=True, slots=True)
class Change:
    """One staged change to a package: the section, perhaps an option of it, perhaps a value."""

    kind: ChangeKind
    section: str
    option: str | None = None
    value: str | None = None


class Option:
    """One option or list of a section. ``line`` is where its value stands in the file, 0 if new."""

    __slots__ = ("line", "name", "value")

    def __init__(self, name: str, value: Value, line: int = 0) -> None:
        self.name = name
        self.value = value
        self.line = line

    @property
    def is_list(self) -> bool:
        """Whether it was made by ``list`` rather than ``option``."""
        return isinstance(self.value, list)

    @property
    def values(self) -> list[str]:
        """The items of a list, or the one value of an option."""
        return list(self.value) if isinstance(self.value, list) else [self.value]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Option):
            return NotImplemented
        return self.name == other.name and self.value == other.value

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Option({self.name!r}, {self.value!r})"


class Section:
    """One ``config`` block. ``line`` is where it opens in the file, 0 if it was made in memory.

    ``by_name`` is for this room only.
    """

    __slots__ = ("_shadowed", "anonymous", "by_name", "line", "name", "type")

    def __init__(self, type: str, name: str, *, anonymous: bool = False, line: int = 0) -> None:
        self.type = type
        self.name = name
        self.anonymous = anonymous
        self.line = line
        self.by_name: dict[object, Option] = {}
        self._shadowed = False

    def __iter__(self) -> Iterator[Option]:
        return iter(self.by_name.values())

    def __len__(self) -> int:
        return len(self.by_name)

    def __bool__(self) -> bool:
        # An empty one is still one: `if section:` asks whether it was found.
        return True

    def __contains__(self, name: object) -> bool:
        return name in self.by_name

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Section):
            return NotImplemented
        return (
            self.type == other.type
            and self.anonymous == other.anonymous
            and (self.anonymous or self.name == other.name)
            and list(self) == list(other)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Section({self.type!r}, {self.name!r}, {list(self)!r})"

    def option(self, name: str) -> Option | None:
        """Return the option or list called ``name``, or None."""
        return self.by_name.get(name)

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return an option as one string, a list joined by blanks, or ``default``."""
        option = self.by_name.get(name)
        if option is None:
            return default
        return " ".join(option.value) if isinstance(option.value, list) else option.value

    def get_list(self, name: str) -> list[str]:
        """Return the items of a list, a one-item list for a plain option, [] if it is missing."""
        option = self.by_name.get(name)
        return [] if option is None else option.values

    def as_dict(self) -> dict[str, Value]:
        """Return the options by name, lists as new lists."""
        return {
            name: list(option.value) if isinstance(option.value, list) else option.value
            for name, option in self.by_name.items()
            if isinstance(name, str)
        }

    def set(self, name: str, value: Value) -> None:
        """Set an option, or a whole list; an empty value or list removes it, as libuci does.

        Raises UciInvalidError if ``name`` is no UCI name or the value holds a NUL.
        """
        _check_name(name)
        items = [value] if isinstance(value, str) else list(value)
        for item in items:
            check_value(item)
        if not value:
            if name in self.by_name:
                self.remove_option(self.by_name[name])
            return
        self.put_option(name, value if isinstance(value, str) else items)

    def delete(self, name: str) -> None:
        """Remove an option. Raises UciNotFoundError if there is none."""
        option = self.by_name.get(name)
        if option is None:
            raise UciNotFoundError(f"{self.name}.{name}: there is no such option")
        self.remove_option(option)

    # What follows is for this room: no checks, libuci's positions.

    def put_option(self, name: str, value: Value, line: int = 0) -> Option:
        """Set ``name`` in its place, or append it."""
        option = self.by_name.get(name)
        if option is None:
            option = self.by_name[name] = Option(name, value, line)
        else:
            option.value = value
            option.line = line
        return option

    def append_item(self, name: str, item: str, line: int = 0) -> Option:
        """Add ``item`` to the list ``name``; a plain option becomes a list in its place."""
        option = self.by_name.get(name)
        if option is None:
            option = self.by_name[name] = Option(name, [item], line)
        elif isinstance(option.value, list):
            option.value.append(item)
        else:
            option.value = [option.value, item]
        return option

    def remove_option(self, option: Option) -> None:
        """Take ``option`` out; a later one of the same name comes to light."""
        if self._shadowed:
            self._rebuild([one for one in self if one is not option])
        else:
            del self.by_name[option.name]

    def rename_option(self, option: Option, name: str) -> None:
        """Give ``option`` another name in its place."""
        option.name = name
        self._rebuild(list(self))

    def _rebuild(self, options: list[Option]) -> None:
        self.by_name, self._shadowed = {}, False
        for option in options:
            taken = option.name in self.by_name
            self._shadowed = self._shadowed or taken
            self.by_name[object() if taken else option.name] = option


@dataclass(eq=False)
class Package:
    """One configuration file.

    ``made`` counts the sections ever made in it, deleted ones included: anonymous names start with
    that number. ``path`` and what follows belong to the store: where it was read from, whether
    changes are staged in delta files (``tracked``) and which changes are pending or were read.
    """

    name: str
    made: int = 0
    path: str | None = None
    tracked: bool = False
    override: bool = False
    pending: list[Change] = field(default_factory=list)
    saved: list[Change] = field(default_factory=list)
    by_name: dict[object, Section] = field(default_factory=dict, repr=False)
    _shadowed: bool = field(default=False, repr=False)

    def __iter__(self) -> Iterator[Section]:
        return iter(self.by_name.values())

    def __len__(self) -> int:
        return len(self.by_name)

    def __bool__(self) -> bool:
        # An empty one is still one: `if section:` asks whether it was found.
        return True

    def __contains__(self, name: object) -> bool:
        return name in self.by_name

    def __eq__(self, other: object) -> bool:
        """Tell whether both say the same: names, sections in order, options in order."""
        if not isinstance(other, Package):
            return NotImplemented
        return self.name == other.name and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def sections(self, type: str | None = None) -> Iterator[Section]:
        """Iterate over the sections in order, only those of ``type`` if given."""
        return (one for one in self.by_name.values() if type is None or one.type == type)

    def section(self, name: str) -> Section | None:
        """Return the section called ``name`` (an anonymous one by its ``cfg…`` name), or None."""
        return self.by_name.get(name)

    def get(self, section: str, option: str, default: str | None = None) -> str | None:
        """Return one option as a string, or ``default`` if it or its section is missing."""
        found = self.by_name.get(section)
        return default if found is None else found.get(option, default)

    def add(self, type: str, name: str | None = None) -> Section:
        """Append a section and return it; without a name it is anonymous.

        Raises UciInvalidError for a bad type or name, or a name that is taken.
        """
        if not is_plain_type(type):
            raise UciInvalidError(
                f"{self.name}: got section type {type!r}, expected printable "
                "ASCII without blanks, quotes, backslash, ';' and '#'"
            )
        if name is not None:
            _check_name(name)
            if name in self.by_name:
                raise UciInvalidError(f"{self.name}.{name}: there is a section of this name")
        return self.append_section(type, name)

    def delete(self, name: str) -> None:
        """Remove a section. Raises UciNotFoundError if there is none."""
        section = self.by_name.get(name)
        if section is None:
            raise UciNotFoundError(f"{self.name}.{name}: there is no such section")
        self.remove_section(section)

    # What follows is for this room: no checks, libuci's positions and names.

    def append_section(self, type: str, name: str | None, line: int = 0) -> Section:
        """Append a section; an empty name makes it anonymous."""
        self.made += 1
        if name:
            section = Section(type, name, line=line)
        else:
            section = Section(type, anonymous_name(self.made, type), anonymous=True, line=line)
        taken = section.name in self.by_name
        self._shadowed = self._shadowed or taken
        self.by_name[object() if taken else section.name] = section
        return section

    def retype_section(self, section: Section, type: str) -> None:
        """Change the type in place. A type of another length makes the section a named one.

        (libuci then makes a new section under the old name, and forgets that it was anonymous.)
        """
        if len(to_bytes(section.type)) != len(to_bytes(type)):
            section.anonymous = False
        section.type = type

    def remove_section(self, section: Section) -> None:
        """Take ``section`` out; a later one of the same name comes to light."""
        if self._shadowed:
            self._rebuild([one for one in self if one is not section])
        else:
            del self.by_name[section.name]

    def rename_section(self, section: Section, name: str) -> None:
        """Give ``section`` another name in its place; it is no longer anonymous."""
        section.name = name
        section.anonymous = False
        self._rebuild(list(self))

    def move_section(self, section: Section, position: int) -> bool:
        """Move ``section`` to ``position`` (from 0, too large means last); tell if it moved."""
        order = list(self)
        old = next(index for index, one in enumerate(order) if one is section)
        del order[old]
        new = min(max(position, 0), len(order))
        order.insert(new, section)
        if new == old:
            return False
        self._rebuild(order)
        return True

    def _rebuild(self, sections: list[Section]) -> None:
        self.by_name, self._shadowed = {}, False
        for section in sections:
            taken = section.name in self.by_name
            self._shadowed = self._shadowed or taken
            self.by_name[object() if taken else section.name] = section


def _check_name(name: str) -> None:
    if not is_name(name):
        raise UciInvalidError(f"got name {name!r}, expected ASCII letters, digits and '_'")


def check_value(value: str) -> None:
    """Raise UciInvalidError if ``value`` cannot stand in a file: a NUL, or no encodable text."""
    if "\0" in value:
        raise UciInvalidError("a value cannot hold a NUL byte")
    try:
        to_bytes(value)
    except UnicodeEncodeError:
        raise UciInvalidError(f"a value cannot hold {value!r}: it has no bytes in UTF-8") from None
