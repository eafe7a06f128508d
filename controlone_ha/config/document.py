"""The options as a document: ``python -m controlone_ha.config.document > docs/options.md``.

``--readme`` prints the short table of /etc/config/ha that stands in README.md between its marks.
The schema is the only list of options; tests compare what is committed with it.
"""

from __future__ import annotations

import sys

from controlone_ha.config.schema import PACKAGES, OptionRow, rows_of, section_types
from controlone_ha.config.validate import expectation

_INTRODUCTION = """\
# Options

Every UCI option of the product, made from the schema that also validates them
(`python -m controlone_ha.config.document`). A value that does not fit is refused with
`FILE:LINE: package.section.option: got …, expected …`: at the first load the service does not
start, at a reload the settings in force stay. An unknown option warns, names the nearest known one
and stays in the file. Options of scope *node* are never overwritten by a peer.
"""


def document() -> str:
    """Return the Markdown text."""
    parts = [_INTRODUCTION]
    for package in PACKAGES:
        parts.append(f"\n## /etc/config/{package}\n")
        for section in section_types(package):
            parts.append(f"\n### {_title(package, section)}\n")
            parts.append("\n| option | value | default | scope | what it is |\n")
            parts.append("| --- | --- | --- | --- | --- |\n")
            parts += [_line(row) for row in rows_of(package, section).values()]
    return "".join(parts)


README_MARKS = ("<!-- options of /etc/config/ha -->\n", "<!-- end of the options -->\n")


def readme_table() -> str:
    """Return every option of ``/etc/config/ha`` as the README shows them: name, default, text."""
    parts = ["| section | option | default | what it is |\n| --- | --- | --- | --- |\n"]
    for section in section_types("ha"):
        for row in rows_of("ha", section).values():
            default = "required" if row.is_required else f"`{row.default}`" if row.default else ""
            parts.append(f"| {section} | `{row.name}` | {default} | {row.text} |\n")
    return "".join(parts)


def _title(package: str, section: str) -> str:
    if section == "peer":
        return "`config peer 'NAME'`: refines one entry of `ha.default.peers`"
    if section == "item":
        return "`config item 'NAME'`: config, jobs, recordings, sounds, or a set of your own"
    if section in ("queue", "gateway", "route"):
        return f"`config {section} 'NAME'`: as many as needed"
    return f"`config {section} 'default'`" if section == package else f"`config {section}`"


def _line(row: OptionRow) -> str:
    unit = f" {row.unit}" if row.unit and row.unit != "%" else ""
    if row.is_required:
        default = "required"
    else:
        default = f"`{row.default}`{unit}" if row.default else "empty"
    value = expectation(row)
    return f"| `{row.name}` | {value} | {default} | {row.scope.value} | {row.text} |\n"


if __name__ == "__main__":
    sys.stdout.write(readme_table() if sys.argv[1:] == ["--readme"] else document())
