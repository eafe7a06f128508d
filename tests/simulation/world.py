"""Virtual time and the fake network. Nothing here sleeps, and chance comes from the seed alone.

Theory of operation. One heap of events drives everything. Every directed pair of nodes and every
node draws from its own stream of chance, so that leaving one fault out of a schedule disturbs the
rest as little as possible.

A path is directed and may be cut several times over. A packet that is sent while the path is cut is
lost; one that is under way arrives. What a link makes of it (it is TCP: nothing is lost or
reordered, it only comes late) stands in ``links``.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any

Event = tuple[float, int, Callable[..., None], tuple[Any, ...]]


class World:
    """Virtual time. ``now`` is true time; each node has a clock of its own."""

    def __init__(self, seed: int, *, delay: float, loss: float) -> None:
        self.now = 0.0
        self.network = Network(self, delay=delay, loss=loss)
        self.trace: list[str] | None = None
        self._seed = seed
        self._heap: list[Event] = []
        self._number = count()
        self._chances: dict[str, Random] = {}

    def at(self, time: float, work: Callable[..., None], *arguments: Any) -> None:
        """Do ``work`` at ``time``."""
        heapq.heappush(self._heap, (time, next(self._number), work, arguments))

    def after(self, delay: float, work: Callable[..., None], *arguments: Any) -> None:
        """Do ``work`` in ``delay`` seconds."""
        heapq.heappush(self._heap, (self.now + delay, next(self._number), work, arguments))

    def chance(self, name: str) -> Random:
        """Return the stream of chance of that name."""
        found = self._chances.get(name)
        if found is None:
            found = self._chances[name] = Random(f"{self._seed}/{name}")
        return found

    def run(self, until: float) -> None:
        """Let everything happen that happens before ``until``."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, work, arguments = heapq.heappop(heap)
            work(*arguments)
        self.now = until

    def note(self, text: str) -> None:
        """Add a line to the trace, when one is kept."""
        if self.trace is not None:
            self.trace.append(f"{self.now:9.4f}  {text}")


class Network:
    """Who reaches whom, how late, and with what loss."""

    def __init__(self, world: World, *, delay: float, loss: float) -> None:
        self.loss = loss
        self.extra_delay = 0.0
        self.duplicates = 0.0
        self.on_heal: Callable[[str, str], None] = lambda source, target: None
        self._world = world
        self._delay = delay
        self._told: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._cuts: defaultdict[tuple[str, str], int] = defaultdict(int)

    def is_open(self, source: str, target: str) -> bool:
        """True when packets from ``source`` reach ``target``."""
        return not self._cuts.get((source, target))

    def is_open_both_ways(self, one: str, other: str) -> bool:
        """True when packets go and come back."""
        return self.is_open(one, other) and self.is_open(other, one)

    def cut(self, source: str, target: str, *, is_told: bool = False) -> None:
        """Cut the path once more; ``is_told``: a router on it says that there is no way."""
        self._cuts[source, target] += 1
        self._told[source, target] += is_told

    def mend(self, source: str, target: str, *, is_told: bool = False) -> None:
        """Take one such cut back."""
        self._cuts[source, target] -= 1
        self._told[source, target] -= is_told
        if not self._cuts[source, target]:
            self.on_heal(source, target)

    def is_told(self, source: str, target: str) -> bool:
        """True when a router tells ``source`` that ``target`` cannot be reached."""
        return bool(self._told.get((source, target)))

    def delay(self, chance: Random) -> float:
        """Return how long a packet is under way."""
        delay = self._delay * (0.5 + chance.random())
        if self.extra_delay:
            delay += self.extra_delay * chance.random()
        return delay

    def is_lost(self, chance: Random) -> bool:
        """Return whether a packet is lost."""
        return bool(self.loss) and chance.random() < self.loss

    def retransmissions(self, chance: Random) -> float:
        """Return how late TCP gets a segment across: 0.2 s, doubling, for every loss in a row."""
        late, wait = 0.0, 0.2
        while self.is_lost(chance):
            late += wait
            wait = min(2 * wait, 10.0)
        return late
