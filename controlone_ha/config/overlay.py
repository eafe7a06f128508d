"""What the schema gives to the overlay: the commented UCI files, and validation for init scripts.

    python -m controlone_ha.config.overlay DIRECTORY

writes ``etc/config/<package>`` and ``usr/share/controlone/<package>.sh`` below DIRECTORY (`files`
in the repository). A test compares what is committed with the table.

The shell functions refuse less than the schema, never more: where `validate_data` (ubox) knows no
type that fits, a text is taken and left to the daemon, which has the last word and the better
message.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from controlone_ha.config.schema import PACKAGES, Kind, OptionRow, rows_of, section_types
from controlone_ha.config.validate import expectation

_ACTIVE: Final = {("ha", "enabled")}
"""Options that stand in the file as they are; all others are comments that show the default."""

_NAMED: Final[Mapping[str, str]] = {
    "peer": "s1",
    "item": "config",
    "queue": "emergency",
    "gateway": "pstn",
    "route": "national",
}
"""Example names of sections of which there may be several."""

_TITLES: Final[Mapping[str, str]] = {
    "ha": "High availability of this node. After a change: uci commit; service ha restart",
    "console": "Failover client of a console. After a change: uci commit; service console restart",
    "server": "Console Server (TCP/7551). `ha` starts, stops, enables and disables it",
    "conference": "Conference Server (SIP). `ha` starts and stops it",
    "peer": "Refines one entry of ha.default.peers; its name is that entry",
    "limits": "What of the machine's own state harms operation",
    "item": "One item of synchronisation: config, jobs, recordings, sounds, or a name of your own",
    "queue": "A queue: the calls to one destination number",
    "gateway": "A SIP gateway for outgoing calls",
    "route": "A route of the dialplan for outgoing calls",
}

_DATATYPES: Final[Mapping[Kind, str]] = {
    Kind.BOOLEAN: "bool",
    Kind.HOST: "string",
    Kind.PORT: "range(1,65535)",
    Kind.INTEGER: "integer",
    Kind.SECONDS: "float",
    Kind.PERCENT: "float",
    Kind.NUMBER: "float",
    # A UCI list and one text with commas are both right (G1); validate_data takes either so.
    Kind.HOSTS: "list(string)",
    Kind.NAMES: "list(string)",
    Kind.PATHS: "list(string)",
    Kind.PATTERNS: "list(string)",
}


def config_file(package: str) -> str:
    """Return ``/etc/config/<package>`` with every option of the schema, explained."""
    parts = [
        "# Made from the table of options; docs/options.md explains the same ones.\n"
        "# A line that begins with # shows an option and its default.\n"
    ]
    for section in section_types(package):
        rows = rows_of(package, section)
        parts.append(f"\n# {_TITLES[section]}.\n")
        is_example = section in _NAMED
        name = _NAMED.get(section, "default" if section == package else section)
        parts.append(f"{'#' if is_example else ''}config {section} '{name}'\n")
        parts += [_option_lines(row, is_example=is_example) for row in rows.values()]
    return "".join(parts)


def _option_lines(row: OptionRow, *, is_example: bool) -> str:
    value = expectation(row)
    unit = f" {row.unit}" if row.unit and row.unit not in ("%", "s") else ""
    needed = "; required" if row.is_required else ""
    head = f"\t# {row.text[0].upper() + row.text[1:]} ({value}{unit}{needed}).\n"
    mark = "" if (row.package, row.name) in _ACTIVE and not is_example else "#"
    return f"{head}\t{mark}option {row.name} '{row.default or ''}'\n"


def datatype(row: OptionRow) -> str:
    """Return the type of `validate_data` for a row: as narrow as the schema, or wider."""
    if row.kind is Kind.CHOICE:
        return "or(" + ",".join(f'"{choice}"' for choice in row.choices) + ")"
    name = _DATATYPES.get(row.kind, "string")
    if name in ("integer", "float") and row.minimum is not None and row.maximum is not None:
        return f"and({name},range({row.minimum:.15g},{row.maximum:.15g}))"
    return name


def shell_functions(package: str) -> str:
    """Return ``/usr/share/controlone/<package>.sh``: one function for each section type."""
    parts = [
        "# shellcheck shell=sh\n"
        f"# Types of /etc/config/{package} for procd, made from the table of options.\n"
        "# Each function: NAME-OF-SECTION [CALLBACK], as uci_load_validate.\n"
    ]
    for section in section_types(package):
        parts.append(f"\nvalidate_{package}_{section}() {{\n")
        words = [f'\tuci_load_validate {package} {section} "$1" "$2"']
        for row in rows_of(package, section).values():
            words.append(f"\t\t'{row.name}:{datatype(row)}'")
        parts.append(" \\\n".join(words) + "\n}\n")
    parts.append(_whole_package(package))
    return "".join(parts)


def _whole_package(package: str) -> str:
    """Return the function that looks at every section: 0 when `validate_data` refuses nothing."""
    lines = [
        f"\n# The whole of /etc/config/{package}: 1 when something is refused or missing.\n"
        f"validate_{package}() {{\n"
        "\tlocal value\n"
        "\tREFUSED=0\n"
        f"\tconfig_load {package} || return 1\n"
    ]
    for section in section_types(package):
        function = f"validate_{package}_{section}"
        lines.append(f"\tconfig_foreach controlone_section {section} {function}\n")
    for row in rows_of(package, package).values():
        if row.is_required:
            lines.append(f"\tconfig_get value default {row.name}\n")
            lines.append('\t[ -n "$value" ] || REFUSED=1\n')
    return "".join([*lines, '\treturn "$REFUSED"\n}\n'])


def overlay_files() -> dict[str, str]:
    """Return every file made from the schema: path below the root -> text."""
    files = {f"etc/config/{package}": config_file(package) for package in PACKAGES}
    for package in PACKAGES:
        files[f"usr/share/controlone/{package}.sh"] = shell_functions(package)
    return files


def main() -> int:
    """Write the files below the directory that the command line names."""
    if len(sys.argv) != 2:
        print("usage: overlay DIRECTORY", file=sys.stderr)
        return 2
    for name, text in overlay_files().items():
        path = Path(sys.argv[1]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
