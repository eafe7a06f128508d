"""Opening a UCI file and finding the section that holds a package's settings."""

from __future__ import annotations

from pathlib import Path

from controlone_ha.errors import ConfigError
from controlone_ha.uci import load
from controlone_ha.uci.model import Package, Section


def open_package(file: Path) -> Package:
    """Return the package in ``file``; raise ``ConfigError`` if it is missing, or ``UciError``."""
    if not file.exists():
        raise ConfigError(f"{file}: missing; it holds the section `config {file.name} 'default'`")
    return load(file)


def main_section(package: Package, section_type: str, file: Path) -> Section:
    """Return the section `default`, or the only one of its type; raise ``ConfigError``."""
    found = [section for section in package if section.type == section_type]
    named = [section for section in found if section.name == "default"]
    if named:
        return named[0]
    if len(found) == 1:
        return found[0]
    raise ConfigError(
        f"{file}: expected one section `config {section_type} 'default'`, got {len(found)}"
    )
