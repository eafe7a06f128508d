"""Which names, types and values UCI accepts, and the names anonymous sections get.

Bytes outside UTF-8 travel through the whole room as the surrogates of ``surrogateescape``, so that
what was read is what is written.
"""

from __future__ import annotations

import re
from functools import lru_cache

ENCODING = "utf-8"
ENCODING_ERRORS = "surrogateescape"

_NAME = re.compile(r"[A-Za-z0-9_]+")
_PACKAGE_WORD = re.compile(r"[A-Za-z0-9_-]+")
_PRINTABLE = re.compile(r"[!-~]+")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
# Characters that end or change an unquoted word; types are written without quotes.
_TYPE_BREAKING = re.compile(r"""['"\\;#]""")


def to_bytes(text: str) -> bytes:
    """Return the bytes that ``text`` stands for in a file."""
    return text.encode(ENCODING, ENCODING_ERRORS)


def to_text(data: bytes | bytearray) -> str:
    """Return ``data`` as text; bytes that are not UTF-8 become lone surrogates."""
    return data.decode(ENCODING, ENCODING_ERRORS)


def is_name(text: str) -> bool:
    """Tell whether ``text`` may name a section or option: ASCII letters, digits and ``_``."""
    return _NAME.fullmatch(text) is not None


def is_package_word(text: str) -> bool:
    """Tell whether ``text`` may follow the word ``package`` in a file: a name, ``-`` allowed."""
    return _PACKAGE_WORD.fullmatch(text) is not None


def is_package_name(text: str) -> bool:
    """Tell whether ``text`` may name a package in a request: printable ASCII without blanks."""
    return _PRINTABLE.fullmatch(text) is not None


def is_type(text: str) -> bool:
    """Tell whether ``text`` may be a section type: printable ASCII without blanks."""
    return _PRINTABLE.fullmatch(text) is not None


def is_plain_type(text: str) -> bool:
    """Tell whether a section type survives being written (it is never quoted) and read again."""
    return is_type(text) and _TYPE_BREAKING.search(text) is None


def is_request_value(text: str) -> bool:
    """Tell whether ``text`` may be a value in a request: no control characters but tab, LF, CR."""
    return _CONTROL.search(text) is None


def anonymous_name(number: int, section_type: str) -> str:
    """Return the name of the ``number``-th section made in a package when it has none of its own.

    libuci: ``cfg``, the number in at least two hexadecimal digits, four digits of a hash.
    """
    return f"cfg{number:02x}{_type_hash(section_type):04x}"


@lru_cache(maxsize=256)
def _type_hash(section_type: str) -> int:
    """Return the low 16 bits of Bernstein's hash (times 33) over the type's signed bytes."""
    value = 5381
    for byte in to_bytes(section_type):
        signed = byte - 256 if byte > 127 else byte
        value = (value * 33 + signed) & 0xFFFFFFFF
    return value & 0xFFFF
