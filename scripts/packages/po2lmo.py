#!/usr/bin/env python3
"""Turns a translation (.po) into the form in which LuCI reads it (.lmo).

    po2lmo.py INPUT.po OUTPUT.lmo

An .lmo holds the translations, each padded to four bytes, then an index sorted by the hash of the
original text (hash, number of plural forms, offset, length), then the offset of that index; all
numbers are 32 bits, big endian. The hash is Paul Hsieh's SuperFastHash with the length as seed.
"""

from __future__ import annotations

import re
import struct
import sys
from pathlib import Path

_MASK = 0xFFFFFFFF


def text_hash(data: bytes) -> int:
    """Return SuperFastHash of ``data``, seeded with its length."""
    if not data:
        return 0
    value = len(data)
    whole = len(data) & ~3
    for position in range(0, whole, 4):
        low, high = struct.unpack_from("<HH", data, position)
        value = (value + low) & _MASK
        mixed = ((high << 11) ^ value) & _MASK
        value = ((value << 16) ^ mixed) & _MASK
        value = (value + (value >> 11)) & _MASK
    rest = data[whole:]
    signed = struct.unpack("b", rest[-1:])[0] if len(rest) in (1, 3) else 0
    if len(rest) >= 2:
        value = (value + struct.unpack_from("<H", rest)[0]) & _MASK
    if len(rest) == 3:
        value = (value ^ (value << 16)) & _MASK
        value = (value ^ (signed << 18)) & _MASK
        value = (value + (value >> 11)) & _MASK
    elif len(rest) == 2:
        value = (value ^ (value << 11)) & _MASK
        value = (value + (value >> 17)) & _MASK
    elif len(rest) == 1:
        value = (value + signed) & _MASK
        value = (value ^ (value << 10)) & _MASK
        value = (value + (value >> 1)) & _MASK
    for shift, is_left in ((3, True), (5, False), (4, True), (17, False), (25, True), (6, False)):
        if is_left:
            value = (value ^ (value << shift)) & _MASK
        else:
            value = (value + (value >> shift)) & _MASK
    return value


def messages(text: str) -> dict[str, str]:
    """Return original text -> translation; the header stands under the empty text."""
    found: dict[str, str] = {}
    pattern = r'^msgid ((?:"(?:[^"\\]|\\.)*"\s*)+)^msgstr ((?:"(?:[^"\\]|\\.)*"\s*)+)'
    for original, translation in re.findall(pattern, text, re.M):
        found[_joined(original)] = _joined(translation)
    return found


def _joined(quoted: str) -> str:
    pieces = re.findall(r'"((?:[^"\\]|\\.)*)"', quoted)
    return re.sub(r'\\(["\\])', r"\1", "".join(pieces))


def lmo(text: str) -> bytes:
    """Return the .lmo of a .po."""
    body, index = b"", []
    for original, translation in messages(text).items():
        if original:
            key, entry, forms = text_hash(original.encode()), translation.encode(), 1
            if not entry or key == text_hash(entry):
                continue
        else:
            plural = re.search(r"Plural-Forms: (.*?)\\n", translation)
            if plural is None:
                continue
            key, entry, forms = 0, plural[1].encode(), 0
        index.append((key, forms, len(body), len(entry)))
        body += entry + b"\0" * (-len(entry) % 4)
    table = b"".join(struct.pack(">IIII", *row) for row in sorted(index))
    return body + table + struct.pack(">I", len(body))


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(lmo(Path(sys.argv[1]).read_text(encoding="utf-8")))
