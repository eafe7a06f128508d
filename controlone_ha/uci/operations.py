"""The changes that can be made to a package, each recorded unless it is replayed.

They are libuci's ``uci_set``, ``uci_delete``, ``uci_add_list`` and so on: what they accept, what
they leave alone and what they record. ``replayed`` means that the change comes from a file or a
delta and is not to be recorded again. Changes to packages that are not tracked are never recorded.
"""

from __future__ import annotations

from controlone_ha.uci.errors import UciInvalidError, UciNotFoundError
from controlone_ha.uci.model import Change, ChangeKind, Section
from controlone_ha.uci.names import is_type
from controlone_ha.uci.reference import Target, leading_index


def set_value(target: Target, *, replayed: bool = False, line: int = 0) -> None:
    """Set an option, or make or retype a section; an empty value removes what exists.

    Raises UciInvalidError without a value, for an option of a missing section, or a bad type.
    """
    value = _needed_value(target)
    section, option_name = target.section, target.option_name
    if section is None and (option_name is not None or target.section_name is None):
        raise UciInvalidError(_where(target) + ": there is no such section")
    if option_name is None and value and not is_type(value):
        raise UciInvalidError(
            f"{_where(target)}: got section type {value!r}, expected printable ASCII without blanks"
        )
    if not value:
        if target.complete:
            # libuci records this removal even when it replays a delta.
            delete(target)
        return
    if section is None:
        target.section = target.package.append_section(value, target.section_name, line)
    elif option_name is not None:
        if target.option is not None and target.option.value == value:
            return
        target.option = section.put_option(option_name, value, line)
    elif section.type == value:
        return
    else:
        target.package.retype_section(section, value)
    _record(target, ChangeKind.CHANGE, value, replayed)


def add_section(target: Target, type: str, *, replayed: bool = False, line: int = 0) -> Section:
    """Append an anonymous section of ``type``, which is not checked."""
    target.section = section = target.package.append_section(type, None, line)
    target.section_name = section.name
    _record(target, ChangeKind.ADD, type, replayed)
    return section


def delete(target: Target, *, replayed: bool = False) -> None:
    """Remove a section, an option, or with an index as value one item of a list.

    Raises UciNotFoundError if it does not exist, UciInvalidError for a whole package.
    """
    section = _existing_section(target)
    option = target.option
    if option is not None and isinstance(option.value, list) and target.value:
        index = leading_index(target.value)
        if index is not None and 0 <= index < len(option.value):
            _record(target, ChangeKind.REMOVE, target.value, replayed)
            del option.value[index]
        return
    _record(target, ChangeKind.REMOVE, None, replayed)
    if option is not None:
        section.remove_option(option)
        target.option = None
    else:
        target.package.remove_section(section)
        target.section = None


def add_list(target: Target, *, replayed: bool = False, line: int = 0) -> None:
    """Append an item; a plain option becomes a list. Raises UciInvalidError as ``set_value``."""
    value = _needed_value(target)
    if target.section is None:
        raise UciInvalidError(_where(target) + ": there is no such section")
    if target.option_name is not None:
        target.option = target.section.append_item(target.option_name, value, line)
    # Without an option libuci stages a line that nobody can apply; so do we.
    _record(target, ChangeKind.LIST_ADD, value, replayed)


def del_list(target: Target, *, replayed: bool = False) -> None:
    """Remove all items equal to the value; nothing happens if there is no such list."""
    value = _needed_value(target)
    if target.section is None:
        raise UciInvalidError(_where(target) + ": there is no such section")
    option = target.option
    if option is None or not isinstance(option.value, list):
        return
    _record(target, ChangeKind.LIST_DEL, value, replayed)
    option.value[:] = [item for item in option.value if item != value]


def rename(target: Target, *, replayed: bool = False) -> None:
    """Give a section or option the value as its name, which is not checked here.

    Raises UciNotFoundError if it does not exist, UciInvalidError for a whole package.
    """
    section = _existing_section(target)
    value = _needed_value(target)
    _record(target, ChangeKind.RENAME, value, replayed)
    if target.option is not None:
        section.rename_option(target.option, value)
    else:
        target.package.rename_section(section, value)


def reorder(target: Target, position: int, *, replayed: bool = False) -> None:
    """Move a section to ``position``, counted from 0. Raises UciNotFoundError if it is missing."""
    if target.section is None:
        raise UciNotFoundError(_where(target) + ": there is no such section")
    if target.package.move_section(target.section, position):
        change = Change(ChangeKind.REORDER, target.section.name, None, str(position))
        if target.package.tracked and not replayed:
            target.package.pending.append(change)


def _needed_value(target: Target) -> str:
    if target.value is None:
        raise UciInvalidError(_where(target) + ": a value is needed")
    return target.value


def _existing_section(target: Target) -> Section:
    if not target.complete:
        raise UciNotFoundError(_where(target) + ": there is no such entry")
    if target.section is None:
        raise UciInvalidError(_where(target) + ": no section is named")
    return target.section


def _record(target: Target, kind: ChangeKind, value: str | None, replayed: bool) -> None:
    if target.package.tracked and not replayed and target.section_name is not None:
        target.package.pending.append(Change(kind, target.section_name, target.option_name, value))


def _where(target: Target) -> str:
    parts = (target.package.name, target.section_name, target.option_name)
    return ".".join(part for part in parts if part is not None)
