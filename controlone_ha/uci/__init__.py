"""The UCI layer: text to packages and back, staged changes, atomic commits.

Nobody else knows the syntax. ``load`` and ``Store`` are the ways in; nothing heavy is imported.
"""

from controlone_ha.uci.errors import (
    Status,
    UciDuplicateError,
    UciFault,
    UciInvalidError,
    UciIoError,
    UciNotFoundError,
    UciParseError,
    UciSyntaxError,
)
from controlone_ha.uci.model import Change, ChangeKind, Option, Package, Section, Value
from controlone_ha.uci.parser import loads
from controlone_ha.uci.store import Store, load, save
from controlone_ha.uci.writer import dumps, export_text

__all__ = [
    "Change", "ChangeKind", "Option", "Package", "Section", "Status", "Store",
    "UciDuplicateError", "UciFault", "UciInvalidError", "UciIoError", "UciNotFoundError",
    "UciParseError", "UciSyntaxError", "Value", "dumps", "export_text", "load", "loads", "save",
]  # fmt: skip
