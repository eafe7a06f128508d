"""How many calls are taken at the same time: so many that Asterisk is never idle, and no more.

A call whose parties say nothing costs nothing, and must not keep the others waiting: after a while
it does not count any more. How long that is follows the engine: one that has much to do is slow for
everybody, and more calls at the same time would make it slower.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

QUIET = 2.0
"""Seconds after which a call counts no more, or ``QUIET_TIMES`` the usual, if that is longer, but
``QUIET_MAX`` at most."""
QUIET_TIMES = 8
QUIET_MAX = 4.0
MEMORY = 8
"""Of so many last calls the usual is a mean, about."""


class Slots:
    """``count`` calls at the same time."""

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)
        self._usual = 0.0

    def note(self, seconds: float) -> None:
        """Note how long it took until the first party of a call has answered."""
        self._usual += (seconds - self._usual) / MEMORY

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Wait for a place, and keep it for the block or until the call has been quiet for long."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        quiet = max(QUIET, min(QUIET_MAX, QUIET_TIMES * self._usual))
        timer = loop.call_later(quiet, self._free.release)
        try:
            yield
        finally:
            if loop.time() < timer.when():  # else the timer gives it back, or has done so
                timer.cancel()
                self._free.release()
