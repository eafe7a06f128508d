"""What is kept of a version that lost: documents of the synchronised ``controlone_ha.conflicts``.

Each node that meets a conflict makes the same document under the same id, so however many do, there
is one, on every node. A document too large to be wrapped is kept as its bytes, in parts.

    _id  KEY-TIME-NODE[-PART]   namespace, key      whose version it was
    lost, won                   {at (date), node, stamp} of both versions
    document                    the version that lost, or: bytes, part, parts
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import bson
from bson.binary import Binary
from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument

from controlone_ha.sync.database.documents import RAW, identity_from, key_of
from controlone_ha.sync.database.namespaces import CONFLICTS
from controlone_ha.sync.database.versions import Row, content_hash, milliseconds_of

_WHOLE = 15 << 20
_PART = 8 << 20


def conflict_documents(
    loser: Row, winner: Row, document: RawBSONDocument, *, node: str
) -> list[tuple[Row, RawBSONDocument]]:
    """Return what to insert for a version that lost, with the rows; the first is the head."""
    base = f"{loser.key.hex()}-{loser.time:x}-{loser.node}"
    common = {
        "namespace": loser.namespace,
        "key": loser.identity,
        "lost": _version(loser),
        "won": _version(winner),
    }
    made = []
    for suffix, content in _contents(document):
        fields: dict[str, Any] = {"_id": base + suffix, **common, **content}
        raw = bson.encode(fields, codec_options=RAW)
        kept = RawBSONDocument(raw, RAW)
        identity = identity_from(base + suffix)
        row = Row(
            key=key_of(CONFLICTS, identity),
            namespace=CONFLICTS,
            identity=identity,
            # Of the winner's time, not of ours: every node makes the same.
            time=winner.time,
            node=winner.node,
            content=content_hash(raw),
            size=len(raw),
            seen={winner.node: winner.time},
        )
        made.append((row, kept))
    return made


def _contents(document: RawBSONDocument) -> Iterator[tuple[str, dict[str, Any]]]:
    raw = document.raw
    if len(raw) <= _WHOLE:
        yield "", {"document": document}
        return
    parts = [raw[start : start + _PART] for start in range(0, len(raw), _PART)]
    for number, part in enumerate(parts, 1):
        yield f"-{number}", {"bytes": Binary(part), "part": number, "parts": len(parts)}


def _version(row: Row) -> dict[str, Any]:
    return {
        "at": DatetimeMS(milliseconds_of(row.time)),
        "node": row.node,
        "stamp": Int64(row.time),
    }
