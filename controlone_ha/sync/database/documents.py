"""Between BSON and version rows: raw documents, keys of ids, rows in the database.

Documents travel and are hashed as raw BSON and never decoded, so that every type and field name
stays as it is. Ids are compared as MongoDB does, where 1, 1.0 and Int64(1) are one id: ``key_of``
hashes a canonical form. Rows are written and read byte by byte here, since each document of a copy
has one and the driver takes six times as long for it; a row whose fields are in another order than
ours is read by the driver.
"""

from __future__ import annotations

import functools
import hashlib
import math
import struct
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import bson
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.decimal128 import Decimal128
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp

from controlone_ha.sync.database.versions import KEY_SIZE, Row

RAW: CodecOptions[RawBSONDocument] = CodecOptions(
    document_class=RawBSONDocument,
    uuid_representation=UuidRepresentation.UNSPECIFIED,
    datetime_conversion=DatetimeConversion.DATETIME_MS,
    unicode_decode_error_handler="surrogateescape",
)
PLAIN: CodecOptions[dict[str, Any]] = CodecOptions(
    document_class=dict,
    uuid_representation=UuidRepresentation.UNSPECIFIED,
    datetime_conversion=DatetimeConversion.DATETIME_MS,
)

_SEPARATOR = b"\x00"
_INT32 = struct.Struct("<i")
_INT64 = struct.Struct("<q")
_FIXED = {0x07: 12, 0x10: 4, 0x12: 8, 0x01: 8, 0x08: 1, 0x09: 8}
"""Bytes of the values of BSON types of an id that always have as many."""
_SIZES = {**_FIXED, 0x0A: 0, 0x11: 8, 0xFF: 0, 0x7F: 0}


def key_of(namespace: str, identity: RawBSONDocument) -> bytes:
    """Return the key of the document with the ``{_id: …}`` given as raw BSON."""
    text = namespace.encode() + _SEPARATOR + _canonical_identity(identity)
    return hashlib.blake2b(text, digest_size=KEY_SIZE).digest()


def _canonical_identity(identity: RawBSONDocument) -> bytes:
    raw = bytes(identity.raw)
    kind = raw[4]
    # int32, int64, double and decimal may be equal; so may documents and arrays that hold them.
    if kind in (0x01, 0x10, 0x12, 0x13):
        return _number(identity["_id"])
    if kind == 0x03:
        return b"{" + _canonical(identity["_id"]) + b"}"
    return raw


def _canonical(value: Any) -> bytes:
    if isinstance(value, Mapping):
        parts = (name.encode() + _SEPARATOR + _canonical(item) for name, item in value.items())
        return b"{" + b",".join(parts) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(_canonical(item) for item in value) + b"]"
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, int | float | Decimal128):
        return _number(value)
    return bson.encode({"": value})


def _number(value: Any) -> bytes:
    if isinstance(value, Decimal128):
        value = value.to_decimal()
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        return b"number " + str(float(value)).encode()
    exact = Decimal(value)
    if exact == exact.to_integral_value():
        return b"number " + str(int(exact)).encode()
    return b"number " + str(exact.normalize()).encode()


def identity_of(document: RawBSONDocument) -> RawBSONDocument:
    """Return ``{_id: …}`` of a document, the id's bytes as they are."""
    raw = document.raw
    if raw[5:9] == b"_id\x00":
        size = _FIXED.get(raw[4])
        if size is None and raw[4] == 0x02:
            size = 4 + int(_INT32.unpack_from(raw, 9)[0])
        if size is not None:
            body = bytes(raw[4 : 9 + size])
            return RawBSONDocument(_INT32.pack(5 + len(body)) + body + b"\x00", RAW)
    return RawBSONDocument(bson.encode({"_id": document["_id"]}, codec_options=RAW), RAW)


def identity_from(value: Any) -> RawBSONDocument:
    """Return ``{_id: value}`` as raw BSON."""
    return RawBSONDocument(bson.encode({"_id": value}, codec_options=RAW), RAW)


def row_document(row: Row, lane_field: str, sequence: int) -> RawBSONDocument:
    """Return the document of a row, numbered in a lane (fields: see ``versions``)."""
    if row.raw is not None:
        at = len(row.raw) - (9 if row.content is None else 33)
        if row.raw[at - 2 : at] == lane_field.encode() + b"\x00":
            raw = row.raw[:at] + _INT64.pack(sequence) + row.raw[at + 8 :]
            return RawBSONDocument(raw, RAW)
    seen = b"".join(
        b"\x12" + node.encode() + b"\x00" + _INT64.pack(time) for node, time in row.seen.items()
    )
    body = b"".join(
        (
            b"\x05_id\x00\x10\x00\x00\x00\x00",
            row.key,
            _text_field("s", row.namespace),
            b"\x03k\x00",
            row.identity.raw,
            b"\x12t\x00",
            _INT64.pack(row.time),
            _text_field("n", row.node),
            b"\x10z\x00",
            _INT32.pack(row.size),
            b"\x03v\x00",
            _INT32.pack(len(seen) + 5),
            seen,
            b"\x00\x10b\x00",
            _INT32.pack(row.bucket),
            b"\x12x\x00",
            _INT64.pack(row.digest),
            b"\x12" + lane_field.encode() + b"\x00",
            _INT64.pack(sequence),
            b"" if row.content is None else b"\x05h\x00\x10\x00\x00\x00\x00" + row.content,
        )
    )
    return RawBSONDocument(_INT32.pack(len(body) + 5) + body + b"\x00", RAW)


@functools.lru_cache(256)
def _text_field(name: str, text: str) -> bytes:
    value = text.encode("utf-8", "surrogateescape")
    return b"\x02" + name.encode() + b"\x00" + _INT32.pack(len(value) + 1) + value + b"\x00"


def row_from(found: Mapping[str, Any]) -> Row:
    """Return the row of a document read with ``RAW``."""
    if isinstance(found, RawBSONDocument):
        row = _row_of_bytes(bytes(found.raw))
        if row is not None:
            return row
    content = found.get("h")
    return Row(
        key=bytes(found["_id"]),
        namespace=found["s"],
        identity=found["k"],
        time=int(found["t"]),
        node=found["n"],
        content=bytes(content) if content is not None else None,
        size=int(found["z"]),
        seen={node: int(time) for node, time in found["v"].items()},
    )


def _row_of_bytes(raw: bytes) -> Row | None:
    """Return the row of a document with exactly the layout of ``row_document``, else None."""
    if raw[4:14] != b"\x05_id\x00\x10\x00\x00\x00\x00" or raw[30:33] != b"\x02s\x00":
        return None
    at = 37 + _INT32.unpack_from(raw, 33)[0]
    namespace = _text(raw[37 : at - 1])
    if raw[at : at + 3] != b"\x03k\x00":
        return None
    end = at + 3 + _INT32.unpack_from(raw, at + 3)[0]
    identity = raw[at + 3 : end]
    if raw[end : end + 3] != b"\x12t\x00" or raw[end + 11 : end + 14] != b"\x02n\x00":
        return None
    time = _INT64.unpack_from(raw, end + 3)[0]
    at = end + 18 + _INT32.unpack_from(raw, end + 14)[0]
    node = _text(raw[end + 18 : at - 1])
    if raw[at : at + 3] != b"\x10z\x00" or raw[at + 7 : at + 10] != b"\x03v\x00":
        return None
    size = _INT32.unpack_from(raw, at + 3)[0]
    end = at + 10 + _INT32.unpack_from(raw, at + 10)[0]
    at += 14
    seen: dict[str, int] = {}
    while at < end - 1:
        stop = raw.index(0, at)
        if raw[at] != 0x12:
            return None
        seen[_text(raw[at + 1 : stop])] = _INT64.unpack_from(raw, stop + 1)[0]
        at = stop + 9
    if raw[end : end + 3] != b"\x10b\x00" or raw[end + 7 : end + 10] != b"\x12x\x00":
        return None
    at = end + 18
    if raw[at] != 0x12 or raw[at + 2] != 0:
        return None
    at += 11
    content: bytes | None = None
    if raw[at : at + 8] == b"\x05h\x00\x10\x00\x00\x00\x00":
        content = raw[at + 8 : at + 24]
        at += 24
    if at != len(raw) - 1:
        return None
    return Row(
        raw[14:30], namespace, RawBSONDocument(identity, RAW), time, node, content, size, seen, raw
    )


@functools.lru_cache(1024)
def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


class WriteEvent(NamedTuple):
    """What the stamper needs of a change stream's event about one document. wall: ms of 1970."""

    kind: str
    namespace: str
    identity: RawBSONDocument
    wall: int
    document: RawBSONDocument | None


_WRITES = {name.encode(): name for name in ("insert", "update", "replace", "delete")}


def write_event(event: RawBSONDocument) -> WriteEvent | None:
    """Return the event of a write to a document, None for another. Read as rows are, for speed."""
    raw = bytes(event.raw)
    kind = namespace = identity = document = None
    wall = 0
    at, end = 4, len(raw) - 1
    while at < end:
        code = raw[at]
        start = raw.index(0, at) + 1
        if code in (0x03, 0x04):
            stop = start + int(_INT32.unpack_from(raw, start)[0])
        elif code == 0x02:
            stop = start + 4 + int(_INT32.unpack_from(raw, start)[0])
        elif code == 0x05:
            stop = start + 5 + int(_INT32.unpack_from(raw, start)[0])
        else:
            stop = start + _SIZES[code]
        name = raw[at + 1 : start - 1]
        at = stop
        if name == b"operationType":
            kind = _WRITES.get(raw[start + 4 : stop - 1])
            if kind is None:
                return None
        elif name == b"ns":
            namespace = _namespace(raw[start:stop])
        elif name == b"documentKey":
            identity = identity_of(RawBSONDocument(raw[start:stop], RAW))
        elif name == b"wallTime":
            wall = _INT64.unpack_from(raw, start)[0]
        elif name == b"fullDocument" and code == 0x03:
            document = RawBSONDocument(raw[start:stop], RAW)
    if kind is None or namespace is None or identity is None:
        return None
    return WriteEvent(kind, namespace, identity, wall, document)


@functools.lru_cache(256)
def _namespace(raw: bytes) -> str:
    names = RawBSONDocument(raw, RAW)
    return f"{names['db']}.{names.get('coll', '')}"


def birth_of(identity: RawBSONDocument) -> int:
    """Return the milliseconds at which an ObjectId was made, 0 for other ids."""
    value = identity["_id"]
    return int(value.generation_time.timestamp() * 1000) if isinstance(value, ObjectId) else 0


def token_time(token: Mapping[str, Any]) -> Timestamp:
    """Return the cluster time that a resume token of a change stream stands for.

    The token is a key string: 0x82 (timestamp), then seconds and increment, 32 bits each.
    """
    text = str(token["_data"])
    if not text.startswith("82") or len(text) < 18:
        raise ValueError(f"resume token of an unknown kind: {text[:24]}")
    return Timestamp(int(text[2:10], 16), int(text[10:18], 16))


def in_batches(rows: list[Row], most: int, most_bytes: int) -> Iterator[list[Row]]:
    """Split rows so that the documents of each part stay below ``most_bytes`` where possible."""
    part: list[Row] = []
    size = 0
    for row in rows:
        if part and (len(part) >= most or size + row.size > most_bytes):
            yield part
            part, size = [], 0
        part.append(row)
        size += row.size
    if part:
        yield part
