"""Packages to text: the form `uci export` prints and `uci commit` leaves in a file."""

from __future__ import annotations

from controlone_ha.uci.model import Package
from controlone_ha.uci.names import to_bytes


def quote(value: str) -> str:
    """Return ``value`` in single quotes, each quote inside it as ``'\\''``."""
    return "'" + value.replace("'", "'\\''") + "'"


def export_text(package: Package, *, header: bool = True, name_anonymous: bool = False) -> str:
    """Return ``package`` as text.

    With ``header`` the ``package`` line stands first (`uci export`); without it this is what a
    committed file holds. ``name_anonymous`` writes the ``cfg…`` names too (`uci -n export`).
    """
    parts = [f"package {_escape(package.name)}\n"] if header else []
    for section in package:
        if section.anonymous and not name_anonymous:
            parts.append(f"\nconfig {_escape(section.type)}\n")
        else:
            parts.append(f"\nconfig {_escape(section.type)} '{_escape(section.name)}'\n")
        for option in section:
            name, value = _escape(option.name), option.value
            if isinstance(value, str):
                parts.append(f"\toption {name} '{_escape(value)}'\n")
            else:
                parts.extend(f"\tlist {name} '{_escape(item)}'\n" for item in value)
    parts.append("\n")
    return "".join(parts)


def dumps(package: Package) -> bytes:
    """Return the bytes of the file that a commit of ``package`` leaves."""
    return to_bytes(export_text(package, header=False))


def _escape(text: str) -> str:
    return text.replace("'", "'\\''") if "'" in text else text
