"""UCI files of versions: their states, and what becomes of two of them. Pure.

Joins ``versions`` (what is stored and sent) to ``uci_merge`` (what is known of each option): the
``detail`` of a version is the state of the package.
"""

from __future__ import annotations

import hashlib
import posixpath
from dataclasses import dataclass, replace

from controlone_ha.errors import PeerError
from controlone_ha.sync.stamps import Stamp
from controlone_ha.sync.uci_merge import FIRST, SECOND, StampedPackage, merge, stamp_package
from controlone_ha.sync.versions import Version, joined


@dataclass(frozen=True, kw_only=True)
class Together:
    """Two versions of a UCI file merged: the ``text`` peers share, its ``version``, and sentences
    about the settings of each side that were lost unseen; none: none were.
    """

    version: Version
    text: bytes
    mine_said: tuple[str, ...] = ()
    theirs_said: tuple[str, ...] = ()

    @property
    def mine_lost(self) -> bool:
        """Whether this node's file has to be kept."""
        return bool(self.mine_said)

    @property
    def theirs_lost(self) -> bool:
        """Whether the peer's file has to be kept."""
        return bool(self.theirs_said)


def edited_detail(path: str, known: Version | None, shared: bytes, stamp: Stamp) -> str:
    """Return the state after an edit of this node; raise ``UciError`` when it cannot be written."""
    name = posixpath.basename(path)
    old = state_of(known)
    if old is not None and stamp <= old.latest:
        old = None  # a clock was set back: the file counts as written whole
    return stamp_package(old, shared, stamp, name=name).to_bytes().decode("ascii")


def state_of(version: Version | None) -> StampedPackage | None:
    """Return the state of a version, None when it has none that can be used."""
    if version is None or not version.detail:
        return None
    try:
        state = StampedPackage.from_bytes(version.detail.encode("ascii", "replace"))
    except ValueError:
        return None
    return state if state.name == posixpath.basename(version.path) else None


def merged(mine: Version, theirs: Version) -> Together | None:
    """Return both together; None when one of them has no state: the later one wins whole.

    Raises ``PeerError`` for a state that claims edits later than its version.
    """
    first, second = state_of(mine), state_of(theirs)
    if first is None or second is None:
        return None
    if second.latest > theirs.stamp:
        raise PeerError(f"{theirs.path}: a version that is older than what it holds")
    result = merge(first, second)
    later = max(mine, theirs, key=lambda version: (version.stamp, version.mode))
    version = replace(
        later,
        checksum=hashlib.sha256(result.text).hexdigest(),
        size=len(result.text),
        vector=joined(mine.vector, theirs.vector),
        present=True,
        detail=result.package.to_bytes().decode("ascii"),
    )
    return Together(
        version=version,
        text=result.text,
        mine_said=tuple(item.text for item in result.conflicts if item.side == FIRST),
        theirs_said=tuple(item.text for item in result.conflicts if item.side == SECOND),
    )


def restamped_detail(path: str, shared: bytes, stamp: Stamp) -> str:
    """Return the state of a file all of whose settings get one stamp."""
    state = stamp_package(None, shared, stamp, name=posixpath.basename(path))
    return state.to_bytes().decode("ascii")
