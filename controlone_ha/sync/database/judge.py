"""What to do with a version that a peer shows, when to hold, when a tombstone may go. Pure.

Theory of operation. Three things are compared: the peer's row, our row, and the content hash of our
document as it is now. A document that differs from its row was written by an application a moment
ago and its event has not been stamped yet: it must get its stamp before anything replaces it,
because it may be the last writer. Else the greater order wins. The loser is kept when the winner
was written without knowing it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from controlone_ha.sync.database.versions import Row, time_of


class Verdict(StrEnum):
    """What the applier does with one row of a peer."""

    SAME = "same"
    """We have this version."""
    OLDER = "older"
    """Ours wins."""
    UNSTAMPED = "unstamped"
    """Ours is being written: ask again when it has its stamp."""
    FUTURE = "future"
    """Refused and listed: its time is further ahead than clocks may differ."""
    APPLY = "apply"
    """Theirs wins and knew ours."""
    CONFLICT = "conflict"
    """Theirs wins without having known ours, which is kept."""


def judge(
    remote: Row, own: Row | None, content: bytes | None, *, now_ms: int, allowed_skew_ms: int
) -> Verdict:
    """Return the verdict on ``remote``.

    ``own`` is our row, ``content`` the hash of our document now (None: there is none), ``now_ms``
    our database's clock.
    """
    if remote.time > time_of(now_ms + allowed_skew_ms):
        return Verdict.FUTURE
    if own is not None and own.order == remote.order:
        return Verdict.SAME
    if content != (own.content if own is not None else None):
        return Verdict.UNSTAMPED
    if own is None:
        return Verdict.APPLY
    if remote.order < own.order:
        return Verdict.OLDER
    if own.content is None or own.content == remote.content or remote.knows(own):
        return Verdict.APPLY
    return Verdict.CONFLICT


class Hold(StrEnum):
    """Why the item is held."""

    SKEW = "skew"
    RETURNING = "returning"
    PAUSED = "paused"


def hold_for_skew(skew_ms: float | None, allowed_ms: float, is_held: bool) -> bool:
    """Tell whether to hold a peer for its clock; it is let go at 80 % of the limit only."""
    if skew_ms is None:
        return is_held
    limit = allowed_ms * 0.8 if is_held else allowed_ms
    return abs(skew_ms) > limit


@dataclass(frozen=True, kw_only=True)
class Reader:
    """How far a peer has read our rows, as far as we know.

    position: sequence number up to which it has them, by lane; seen_ms: when it said so.
    """

    peer: str
    position: Mapping[str, int]
    seen_ms: int


def may_expire(
    *, time: int, lane: str, sequence: int, now_ms: int, horizon_ms: int, readers: Iterable[Reader]
) -> bool:
    """Tell whether a tombstone may go: old enough, and every known peer has it."""
    if time > time_of(now_ms - horizon_ms):
        return False
    return all(reader.position.get(lane, -1) >= sequence for reader in readers)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What one node's meta data say about themselves or what a peer remembers of them."""

    incarnation: str
    position: Mapping[str, int]


def has_gone_back(own: Standing, remembered: Standing | None) -> bool:
    """Tell whether a peer has read rows of ours that we do not have: we are an old image."""
    if remembered is None or remembered.incarnation != own.incarnation:
        return False
    return any(own.position.get(lane, 0) < read for lane, read in remembered.position.items())
