"""Delta files: the staged changes of a package, one a line, as libuci writes and reads them.

A line is a mark (none, ``+ - @ ^ | ~``), a reference and, but for removals, ``='value'``. Lines
that cannot be read or applied are passed over, so that as much as possible of the rest survives.
"""

from __future__ import annotations

from collections.abc import Iterable

from controlone_ha.uci import operations
from controlone_ha.uci.errors import UciFault, UciInvalidError, UciNotFoundError, UciParseError
from controlone_ha.uci.model import Change, ChangeKind, Package
from controlone_ha.uci.names import is_name, to_bytes, to_text
from controlone_ha.uci.reference import Target, leading_position, parse_reference
from controlone_ha.uci.scanner import Scanner, Stream
from controlone_ha.uci.writer import quote

_MARKS = {kind.value: kind for kind in ChangeKind}


def format_changes(package: str, changes: Iterable[Change]) -> bytes:
    """Return the lines that stage ``changes`` to ``package``."""
    lines = []
    for change in changes:
        path = f"{package}.{change.section}"
        if change.option is not None:
            path += f".{change.option}"
        value = "" if change.value is None else "=" + quote(change.value)
        lines.append(f"{change.kind.value}{path}{value}\n")
    return to_bytes("".join(lines))


def apply_delta(package: Package, data: bytes) -> int:
    """Apply the lines of ``data`` to ``package``; return how many could be applied.

    Every readable line about the package is also kept in ``package.saved``, for `uci changes`.
    """
    applied = 0
    stream = Stream(data)
    scanner = Scanner(stream)
    while not stream.at_end:
        if not scanner.next_line():
            continue
        try:
            name, change = _read_change(scanner)
            if name != package.name:
                raise UciParseError(f"{name}: this is the delta of {package.name}")
            package.saved.append(change)
            _apply(package, change)
        except UciFault:
            continue
        applied += 1
    return applied


def without(data: bytes, package: str, section: str | None, option: str | None) -> bytes | None:
    """Return the delta ``data`` without what concerns a section, an option, or (None) anything.

    None if a line cannot be read: such a file is left as it is.
    """
    kept = []
    stream = Stream(data)
    scanner = Scanner(stream)
    while not stream.at_end:
        if not scanner.next_line():
            continue
        try:
            _, change = _read_change(scanner)
        except UciFault:
            return None
        matches = section is None or (
            change.section == section and (option is None or change.option == option)
        )
        if not matches:
            kept.append(change)
    return format_changes(package, kept)


def _read_change(scanner: Scanner) -> tuple[str, Change]:
    """Read the line at the scanner: the package it is about, and the change."""
    text = to_text(scanner.argument())
    if not scanner.is_exhausted:
        raise UciInvalidError("a delta line holds one word")
    kind = _MARKS.get(text[:1], ChangeKind.CHANGE)
    reference = parse_reference(text[len(kind.value) :])
    section, option, value = reference.section, reference.option, reference.value
    if section is None or reference.extended:
        raise UciInvalidError("a delta line names a section")
    if kind is not ChangeKind.REMOVE and value is None:
        raise UciInvalidError("a value is needed")
    if (
        (kind is ChangeKind.REORDER and option is not None)
        or (kind is ChangeKind.RENAME and not is_name(value or ""))
        or (kind in (ChangeKind.LIST_ADD, ChangeKind.LIST_DEL) and option is None)
    ):
        raise UciInvalidError("the mark does not fit what is named")
    return reference.package, Change(kind, section, option, value)


def _apply(package: Package, change: Change) -> None:
    target = Target(package, change.section, change.option, change.value)
    target.section = package.section(change.section)
    if target.section is not None and change.option is not None:
        target.option = target.section.option(change.option)
    target.complete = target.section is not None and (
        change.option is None or target.option is not None
    )
    match change.kind:
        case ChangeKind.REORDER:
            if not target.complete:
                raise UciNotFoundError(f"{package.name}.{change.section}")
            operations.reorder(target, leading_position(change.value or ""), replayed=True)
        case ChangeKind.RENAME:
            operations.rename(target, replayed=True)
        case ChangeKind.REMOVE:
            operations.delete(target, replayed=True)
        case ChangeKind.LIST_ADD:
            operations.add_list(target, replayed=True)
        case ChangeKind.LIST_DEL:
            operations.del_list(target, replayed=True)
        case ChangeKind.ADD | ChangeKind.CHANGE:
            operations.set_value(target, replayed=True)
            if (
                change.kind is ChangeKind.ADD
                and change.option is None
                and target.section is not None
            ):
                target.section.anonymous = True
