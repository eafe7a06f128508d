"""Version rows of documents: who wrote what when, in 150 bytes a document. Pure.

Theory of operation. Every synchronised document has one row in ``controlone_ha.versions``, which
outlives the document as a tombstone. A version is ordered by (time, node, content): time is a
hybrid logical clock in 64 bits, milliseconds of the database's own clock times 65536 plus a counter
(``next_time``), so that a node's later write to a document is always later than what it replaced.
MongoDB stores it as one integer, which indexes and sums; ``core``'s text stamps would not do that.

``seen`` is a small version vector: for each node the time of its last write that this version
knows. A version that replaces another without knowing it has won a conflict, and the loser is kept.

A row is stored with short field names because there is one for each document:

    _id  key (16 bytes, of namespace and canonical id)   s  namespace      k  {_id: …} as it is
    t    time      n  node      h  content (16 bytes; absent: deleted)      z  size in bytes
    v    seen      b  bucket (16 bits of the key)         x  digest (40 bits, of key and version)
    q|u  sequence number on the node that holds the row, in the bulk or in the urgent lane
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

COUNTER_BITS = 16
KEY_SIZE = 16
DIGEST_BITS = 40
MAX_SEEN = 16

Order = tuple[int, str, bytes]


def time_of(milliseconds: int) -> int:
    """Return the first version time of a wall-clock moment in milliseconds since 1970."""
    return max(milliseconds, 0) << COUNTER_BITS


def milliseconds_of(time: int) -> int:
    """Return the wall-clock milliseconds of a version time."""
    return time >> COUNTER_BITS


def next_time(wall_milliseconds: int, before: int) -> int:
    """Return the time of a write at that moment to a document whose version had time ``before``."""
    return max(time_of(wall_milliseconds), before + 1)


def content_hash(raw: bytes | memoryview) -> bytes:
    """Return the 16-byte content hash of a document in BSON."""
    return hashlib.blake2b(raw, digest_size=KEY_SIZE).digest()


@dataclass(frozen=True, slots=True)
class Row:
    """One version row. ``identity`` is whatever stands for ``{_id: …}`` on this side of BSON."""

    key: bytes
    namespace: str
    identity: Any
    time: int
    node: str
    content: bytes | None
    size: int
    seen: Mapping[str, int]
    raw: bytes | None = field(default=None, compare=False, repr=False)
    """The document this row was read from: as long as nothing changes it is passed on so."""

    @property
    def is_deleted(self) -> bool:
        """True for a tombstone."""
        return self.content is None

    @property
    def order(self) -> Order:
        """What decides which of two versions of a document wins: the greater."""
        return (self.time, self.node, self.content or b"")

    @property
    def bucket(self) -> int:
        """The leaf of the digest tree this row belongs to."""
        return int.from_bytes(self.key[:2], "big")

    @property
    def digest(self) -> int:
        """A number that stands for this version of this document; summed over buckets."""
        text = self.key + self.time.to_bytes(8, "big") + self.node.encode()
        text += self.content or b""
        return int.from_bytes(hashlib.blake2b(text, digest_size=DIGEST_BITS // 8).digest(), "big")

    def knows(self, other: Row) -> bool:
        """Tell whether the writer of this version had seen ``other``."""
        return self.seen.get(other.node, 0) >= other.time

    def merged(self, other: Row) -> Row:
        """Return this version, now knowing also what ``other`` knew."""
        return replace(self, seen=merge_seen(self.seen, other.seen), raw=None)


def merge_seen(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """Return the union of two version vectors; the oldest entries go beyond ``MAX_SEEN`` nodes."""
    merged = dict(one)
    for node, time in other.items():
        if merged.get(node, -1) < time:
            merged[node] = time
    if len(merged) > MAX_SEEN:
        newest = sorted(merged.items(), key=lambda item: item[1])[-MAX_SEEN:]
        merged = dict(newest)
    return merged


def local_write(
    *,
    key: bytes,
    namespace: str,
    identity: Any,
    node: str,
    wall_milliseconds: int,
    content: bytes | None,
    size: int,
    before: Row | None,
) -> Row:
    """Return the row of a write made on this node over the version ``before``."""
    time = next_time(wall_milliseconds, before.time if before is not None else 0)
    seen = merge_seen(before.seen if before is not None else {}, {node: time})
    return Row(
        key=key,
        namespace=namespace,
        identity=identity,
        time=time,
        node=node,
        content=content,
        size=size,
        seen=seen,
    )


def removed(row: Row) -> Row:
    """Return the tombstone of a version that lost a clash of unique values.

    It is the same on every node that meets the clash: one step later, by the same writer.
    """
    time = row.time + 1
    return replace(
        row, time=time, content=None, size=0, seen=merge_seen(row.seen, {row.node: time}), raw=None
    )


def is_stamped_already(row: Row | None, content: bytes | None, wall_milliseconds: int) -> bool:
    """Tell whether an event of the change stream is in ``row`` already: a replay after a restart.

    Equal content alone does not say so: a write that restores an old content is a write.
    """
    if row is None:
        return False
    return row.content == content and milliseconds_of(row.time) >= wall_milliseconds
