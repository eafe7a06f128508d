"""Which version comes from which peer just now: nothing is fetched from two peers at once.

A large file is offered by everybody who has it, as soon as he has it. Whoever is fetching it waits
for that, unless it stalls: then another peer may give it. Lives in the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from controlone_ha.sync.versions import Version

STALLED: Final = 3.0
"""Seconds without a byte after which a file may be fetched from another peer."""


class Giver(Protocol):
    """A session: ``bytes_done`` grows while something comes."""

    bytes_done: int


@dataclass(slots=True)
class _Fetch:
    giver: Giver
    identity: tuple[str, str, int]
    seen: int
    at: float


class Fetches:
    """See the module's text."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._running: dict[str, _Fetch] = {}

    def begin(self, giver: Giver, versions: Iterable[Version]) -> None:
        """Note that these come from ``giver`` from now on."""
        now = self._clock()
        for version in versions:
            fetch = _Fetch(giver, version.identity, giver.bytes_done, now)
            self._running[version.path] = fetch

    def end(self, giver: Giver) -> None:
        """Note that nothing comes from ``giver`` any more."""
        for path in [path for path, fetch in self._running.items() if fetch.giver is giver]:
            del self._running[path]

    def is_elsewhere(self, asking: Giver, version: Version) -> bool:
        """Tell whether another peer is giving this very version, and goes on doing so."""
        fetch = self._running.get(version.path)
        if fetch is None or fetch.giver is asking or fetch.identity != version.identity:
            return False
        now = self._clock()
        if fetch.giver.bytes_done != fetch.seen:
            fetch.seen, fetch.at = fetch.giver.bytes_done, now
        return now - fetch.at < STALLED


async def wait_for_event(event: asyncio.Event, seconds: float | None) -> None:
    """Return when the event is set, or after ``seconds``."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
