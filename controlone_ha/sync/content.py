"""What of a file peers share: everything, but node-scope options of a UCI file. Pure.

The schema marks options that belong to one node (addresses, bind). They are taken out of what is
compared and sent, and what the node has of them is put back into what is received.
"""

from __future__ import annotations

import functools
import posixpath

from controlone_ha.config.schema import SCHEMA, Scope
from controlone_ha.uci import dumps, loads
from controlone_ha.uci.model import Package, Section


@functools.cache
def _node_options(package: str) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for row in SCHEMA:
        if row.package == package and row.scope is Scope.NODE:
            found.setdefault(row.section, set()).add(row.name)
    return {section: frozenset(names) for section, names in found.items()}


def shared_content(path: str, raw: bytes) -> bytes:
    """Return what peers share of a UCI file, as a commit writes it: two files that say the same
    are the same. Raises ``UciError`` when it cannot be parsed.
    """
    name = posixpath.basename(path)
    package = loads(raw, name)
    local = _node_options(name)
    for section in package:
        for option in [item for item in section if item.name in local.get(section.type, ())]:
            section.remove_option(option)
    return dumps(package)


def with_own_options(path: str, shared: bytes, present: bytes | None) -> bytes:
    """Return the file that this node gets: ``shared`` and its own node-scope options.

    Raises ``UciError`` when ``shared`` cannot be parsed; of a ``present`` file that cannot be,
    nothing is kept.
    """
    name = posixpath.basename(path)
    package = loads(shared, name)
    local = _node_options(name)
    if not local:
        return shared
    own = loads(present, name) if present is not None else Package(name)
    for section in package:
        names = local.get(section.type, frozenset())
        for option in [item for item in section if item.name in names]:
            section.remove_option(option)
        mine = _same_section(own, package, section)
        for option in mine if mine is not None else ():
            if option.name in names:
                section.set(option.name, option.value)
    return dumps(package)


def _same_section(own: Package, package: Package, section: Section) -> Section | None:
    """Return this node's section: the one of that name, or the same anonymous one in order."""
    if not section.anonymous:
        found = own.section(section.name)
        return found if found is not None and found.type == section.type else None
    places = [item for item in package.sections(section.type) if item.anonymous]
    place = next(number for number, item in enumerate(places) if item is section)
    mine = [item for item in own.sections(section.type) if item.anonymous]
    return mine[place] if place < len(mine) else None
