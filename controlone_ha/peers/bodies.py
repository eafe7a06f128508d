"""Bodies of answers: large content that flows against credit beside everything else on a link.

Theory of operation: the receiver of a body grants the bytes it is ready to hold, and grants more as
its consumer takes them; the sender never exceeds what was granted. The window follows the rate the
receiver sees, at about a quarter of a second of it, so that a bulk transfer over a thin line does
not hold up what matters behind megabytes; a consumer that does not read stops only its own body.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from controlone_ha.errors import PeerError
from controlone_ha.peers.frames import ProtocolError

if TYPE_CHECKING:
    from controlone_ha.peers.link import Link

WINDOW_START = 256 << 10
WINDOW_MIN = 128 << 10  # at least two chunks, else the last half may never be granted
WINDOW_MAX = 4 << 20
WINDOW_SECONDS = 0.25


class Incoming:
    """An answer with a body: ``result``, then the body's chunks by ``async for``, in order.

    The iteration raises ``RemoteError`` (the peer failed midway), ``PeerError`` (the link ended)
    or ``TimeoutError`` (no chunk within the request's ``timeout``). ``close`` gives up early.
    """

    def __init__(self, link: Link, number: int, timeout: float) -> None:
        self.result: Any = None
        self._link = link
        self._number = number
        self._timeout = timeout
        self._chunks: collections.deque[bytes] = collections.deque()
        self._ready = asyncio.Event()
        self._problem: Exception | None = None
        self._finished = False
        self._window = WINDOW_START
        self._granted = WINDOW_START
        self._consumed = 0
        self._last_grant = link.now()

    def feed(self, chunk: bytes) -> None:
        """Take a chunk from the wire; empty ends the body."""
        self._granted -= len(chunk)
        if self._granted < 0:
            raise ProtocolError("DATA: the peer sent more of a body than it was granted")
        if chunk:
            self._chunks.append(chunk)
        else:
            self._finished = True
        self._ready.set()

    def fail(self, problem: Exception) -> None:
        """End the body by ``problem``, after the chunks that have come."""
        if not self._finished:
            self._problem = self._problem or problem
            self._ready.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while True:
                while self._chunks:
                    chunk = self._chunks.popleft()
                    self._grant(len(chunk))
                    yield chunk
                if self._finished:
                    return
                if self._problem is not None:
                    raise self._problem
                self._ready.clear()
                await asyncio.wait_for(self._ready.wait(), self._timeout)
        finally:
            self.close()

    def close(self) -> None:
        """Give the body up, or be done with it. Idempotent."""
        self._chunks.clear()
        self._link.forget_body(self._number, cancel=not (self._finished or self._problem))
        self._problem = self._problem or PeerError("the body was closed")

    def _grant(self, size: int) -> None:
        self._consumed += size
        if self._consumed * 2 < self._window or self._finished:
            return
        now = self._link.now()
        rate = self._consumed / max(now - self._last_grant, 1e-4)
        wanted = min(max(int(rate * WINDOW_SECONDS), self._window // 2), self._window * 2)
        wanted = min(max(wanted, WINDOW_MIN), WINDOW_MAX)
        credit = max(self._consumed + wanted - self._window, 0)
        self._window += credit - self._consumed
        self._granted += credit
        self._consumed = 0
        self._last_grant = now
        if credit:
            self._link.grant(self._number, credit)


class Served:
    """A request of the peer that is being served."""

    def __init__(self, with_body: bool) -> None:
        self.with_body = with_body
        self.credit = WINDOW_START if with_body else 0
        self.more_credit = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


async def iterate(chunks: Any) -> AsyncIterator[bytes]:
    """Iterate over both kinds of iterables, and close what can be closed at the end."""
    try:
        if hasattr(chunks, "__aiter__"):
            async for chunk in chunks:
                yield chunk
        else:
            for chunk in chunks:
                yield chunk
    finally:
        if hasattr(chunks, "aclose"):
            await chunks.aclose()
        elif hasattr(chunks, "close"):
            chunks.close()
