"""Versions of files and what two nodes do about them. Pure: no file, no clock, no link.

Theory of operation. A version is the content of one path as one edit left it: a stamp (hybrid
logical clock and node) that orders it among all versions of the cluster, the checksum of the
content that peers share, mode, mtime, and a version vector. The stamp says who wins; the vector
says whether the loser had been known to the winner (then it is merely history) or not (then it was
a conflict). A version is made once, where the edit happened; passing it on changes nothing of it.

A vector maps a node to the wall clock (microseconds) of its last edit that is contained. Using the
clock and not a counter makes the edits of a node restored from an old image differ from those it
has forgotten.

``present`` is about this node alone: a version can be known whose file was deleted here. Deletions
are not replicated, so nobody learns more of it than that the bytes cannot be had from here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from controlone_ha.errors import PeerError
from controlone_ha.sync.items import BadPathError, check_path
from controlone_ha.sync.stamps import Stamp

Json = dict[str, Any]

MAX_NODES_OF_VECTOR: Final = 64
_CHECKSUM_LENGTH: Final = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """See the module's text. ``size`` is that of the shared content; ``detail`` is what merging
    needs to know of a UCI file (``uci_merge.StampedPackage`` as JSON text), else empty.
    """

    path: str
    item: str
    stamp: Stamp
    checksum: str
    size: int
    mode: int
    mtime_ns: int
    vector: Mapping[str, int] = field(default_factory=dict)
    present: bool = True
    detail: str = ""

    @property
    def identity(self) -> tuple[str, str, int]:
        """What makes two versions the same one."""
        return (self.stamp.text(), self.checksum, self.mode)

    def line(self) -> bytes:
        """Return what the digests are made of."""
        return "\0".join((self.path, *map(str, self.identity))).encode()

    def to_json(self) -> Json:
        """Return the version as it is sent to peers."""
        fields: Json = {
            "path": self.path,
            "stamp": self.stamp.text(),
            "checksum": self.checksum,
            "size": self.size,
            "mode": self.mode,
            "mtime_ns": self.mtime_ns,
            "vector": dict(self.vector),
        }
        if not self.present:
            fields["absent"] = True
        if self.detail:
            fields["detail"] = self.detail
        return fields


def version_from_json(raw: object, item: str) -> Version:
    """Return a peer's version; raise ``PeerError`` for nonsense, ``BadPathError`` for its path."""
    if not isinstance(raw, dict):
        raise PeerError("a version that is no object")
    path = check_path(raw.get("path"))
    checksum, size, mode = raw.get("checksum"), raw.get("size"), raw.get("mode")
    mtime_ns, vector = raw.get("mtime_ns"), raw.get("vector")
    if not isinstance(checksum, str) or len(checksum) != _CHECKSUM_LENGTH:
        raise PeerError(f"{path}: a version without a checksum")
    numbers = (size, mode, mtime_ns)
    if not all(isinstance(number, int) and 0 <= number < 1 << 63 for number in numbers):
        raise PeerError(f"{path}: a version without size, mode or mtime")
    if not isinstance(vector, dict) or len(vector) > MAX_NODES_OF_VECTOR:
        raise PeerError(f"{path}: a version without a vector")
    try:
        stamp = Stamp.parse(str(raw.get("stamp")))
        counted = {str(node): int(count) for node, count in vector.items()}
    except (ValueError, TypeError) as error:
        raise PeerError(f"{path}: {error}") from error
    return Version(
        path=path,
        item=item,
        stamp=stamp,
        checksum=checksum,
        size=int(size or 0),
        mode=int(mode or 0) & 0o7777,
        mtime_ns=int(mtime_ns or 0),
        vector=counted,
        present=not raw.get("absent"),
        detail=str(raw.get("detail") or ""),
    )


class Verdict(StrEnum):
    """What to do about a peer's version of a path."""

    SAME = "same"
    """Nothing: both know the same."""
    ADOPT = "adopt"
    """The content is ours already; take over stamp, mode and vector."""
    WANT = "want"
    """Ask the peer for the bytes."""
    OFFER = "offer"
    """Ours is the later one: the peer should have it."""
    NOTHING = "nothing"
    """The peer knows a version whose bytes it cannot give."""


def compare(mine: Version | None, theirs: Version | None, *, merges: bool = False) -> Verdict:
    """Return what this node does about a path of which a peer has ``theirs``.

    ``merges``: both contents go into the result (UCI files), so any difference wants the bytes.
    Two nodes that apply this to each other's answer never both WANT in vain, and never both OFFER.
    """
    if theirs is None:
        return Verdict.OFFER if mine is not None and mine.present else Verdict.NOTHING
    if mine is None:
        return Verdict.WANT if theirs.present else Verdict.NOTHING
    if mine.identity == theirs.identity:
        return Verdict.SAME
    if mine.checksum == theirs.checksum:
        if not mine.present and theirs.present and mine.stamp < theirs.stamp:
            return Verdict.WANT
        return Verdict.ADOPT if _order(mine) < _order(theirs) else Verdict.OFFER
    if merges and theirs.present and mine.present:
        return Verdict.OFFER if contains(mine, theirs) else Verdict.WANT
    if _order(mine) < _order(theirs):
        return Verdict.WANT if theirs.present else Verdict.NOTHING
    return Verdict.OFFER if mine.present else Verdict.NOTHING


def contains(version: Version, other: Version) -> bool:
    """Tell whether ``version`` was made by somebody who knew ``other``, or made it."""
    return all(version.vector.get(node, 0) >= count for node, count in other.vector.items())


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """What became of a peer's version: the version now known here, whether the file changed, and
    whether only what is known of it did (``adopted``).
    """

    version: Version | None
    verdict: Verdict
    changed: bool = False
    adopted: bool = False

    def is_other_than(self, theirs: Version) -> bool:
        """Tell whether another version is here now than the peer's: it should hear of that."""
        if self.version is None or not self.version.present:
            return False
        return self.version.identity != theirs.identity


def is_conflict(loser: Version, winner: Version) -> bool:
    """Tell whether ``winner`` was made by somebody who did not know ``loser``."""
    if loser.checksum == winner.checksum:
        return False
    return not contains(winner, loser)


def joined(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    """Return the vector that contains both."""
    return {
        node: max(first.get(node, 0), second.get(node, 0)) for node in sorted({*first, *second})
    }


def _order(version: Version) -> tuple[Stamp, str, int]:
    return (version.stamp, version.checksum, version.mode)


# -- digests -------------------------------------------------------------------------------------

BUCKETS: Final = 256
DIGEST_BYTES: Final = 8
EMPTY: Final = bytes(DIGEST_BYTES)


def bucket_of(path: str) -> int:
    """Return the bucket that a path belongs to, the same on every node."""
    return hashlib.blake2s(path.encode(), digest_size=1).digest()[0]


def digest_of(version: Version) -> bytes:
    """Return what a version adds to the digest of its bucket."""
    return hashlib.blake2s(version.line(), digest_size=DIGEST_BYTES).digest()


def combined(first: bytes, second: bytes) -> bytes:
    """Add or remove ``second``: order does not matter, and twice is not at all."""
    both = int.from_bytes(first, "big") ^ int.from_bytes(second, "big")
    return both.to_bytes(DIGEST_BYTES, "big")


def root_of(buckets: bytes) -> str:
    """Return the one digest of all buckets (each ``DIGEST_BYTES`` long, in order)."""
    return hashlib.blake2s(buckets, digest_size=16).hexdigest()


def differing(mine: bytes, theirs: bytes) -> list[int]:
    """Return the buckets that differ; raise ``PeerError`` for digests of another shape."""
    if len(mine) != BUCKETS * DIGEST_BYTES or len(theirs) != len(mine):
        raise PeerError("the peer's digests have another shape")
    return [
        number
        for number in range(BUCKETS)
        if mine[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]
        != theirs[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]
    ]


def vector_text(vector: Mapping[str, int]) -> str:
    """Return a vector as the journal keeps it."""
    return json.dumps(vector, sort_keys=True, separators=(",", ":"))


__all__ = [
    "BUCKETS", "DIGEST_BYTES", "EMPTY", "BadPathError", "Verdict", "Version", "bucket_of",
    "combined", "compare", "contains", "differing", "digest_of", "is_conflict", "joined", "root_of",
    "vector_text", "version_from_json",
]  # fmt: skip
