"""Takes the steps of a change of this node's key at their time, while its links stay up.

Theory of operation. `ha keys rotate` has made the next key (``rotation``). Linked peers hear of it
with the roster and accept both from then on; it is used once every pinned node has been linked for
``SETTLE`` seconds, in which consoles hear of it as well, and at the latest after half the time for
which both count: who was away until then is dialed with the last key while that counts. Links that
are up stay: what has proven them was right then.

Not here: the dialing itself (``links``), what the peers do with it (``succession``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from controlone_ha.errors import TrustError
from controlone_ha.paths import NodePaths
from controlone_ha.peers import rotation
from controlone_ha.peers.keys import Identity
from controlone_ha.peers.own import OwnNode

SETTLE = 10.0

log = logging.getLogger(__name__)


class KeyChange:
    """``tell`` is called after each step: peers and everybody on this node have to hear of it."""

    def __init__(self, own: OwnNode, paths: NodePaths, tell: Callable[[], None]) -> None:
        self._own = own
        self._paths = paths
        self._tell = tell
        self._seen: tuple[int, int] | None = None
        self._settled_at: float | None = None
        self._with_last: set[str] = set()

    def identity_for(self, peer: str) -> Identity:
        """Return the identity to dial a peer with: the last one if it did not know the present."""
        change = self._own.rotation
        if change is None or change.phase != rotation.USED or peer not in self._with_last:
            return self._own.known_identity
        return change.other

    def rejected(self, peer: str) -> None:
        """The peer did not know the key that it was shown: the next try is with the other one."""
        self._with_last ^= {peer}

    def is_file_new(self) -> bool:
        """Tell whether a step has been taken, by whomever, since the last look."""
        try:
            status = (self._paths.state_dir / rotation.STATE).stat()
            found: tuple[int, int] | None = (status.st_ino, status.st_mtime_ns)
        except FileNotFoundError:
            found = None
        is_new, self._seen = found != self._seen, found
        return is_new

    def next_step(self, now: float, *, is_everybody_linked: bool) -> Callable[[NodePaths], None]:
        """Return the step that is due at the wall clock's ``now``: ``use``, ``end`` or nothing."""
        change = self._own.rotation
        if change is None:
            return _nothing
        if change.phase == rotation.USED:
            return rotation.end if now >= change.until else _nothing
        if not is_everybody_linked:
            self._settled_at = None
        elif self._settled_at is None:
            self._settled_at = time.monotonic() + SETTLE
        is_settled = self._settled_at is not None and time.monotonic() >= self._settled_at
        is_late = now >= (change.since + change.until) / 2
        return rotation.use if is_settled or is_late else _nothing

    async def look(self, *, is_everybody_linked: bool) -> None:
        """Take the step that is due, and tell of one that was taken; called every second."""
        try:
            if self.is_file_new():
                await self._changed()
            step = self.next_step(time.time(), is_everybody_linked=is_everybody_linked)
            if step is not _nothing:
                step(self._paths)
                self._settled_at = None
                self._with_last.clear()
                self.is_file_new()
                await self._changed()
        except (TrustError, OSError) as error:
            log.error("the change of this node's key: %s", error)

    async def _changed(self) -> None:
        await self._own.read_again()
        change = self._own.rotation
        key = self._own.known_identity.key_fingerprint
        if change is None:
            log.info("key of this node: %s alone", key)
        else:
            log.info("key of this node: %s; %s counts, too", key, change.other.key_fingerprint)
        self._tell()


def _nothing(_paths: NodePaths) -> None:
    """No step is due."""
