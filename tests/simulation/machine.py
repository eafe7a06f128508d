"""A fake machine: its clock, its kernel, and an event loop that may be late or stand still.

Theory of operation. The machine may be dark, or up. Events for `ha` go through ``do``: they are
carried out at once, late by ``lag`` when the node is slow, or kept while `ha` or the whole machine
stands still. Their order is never changed. ``life`` counts what has begun and ended on the machine,
so that an event meant for an earlier life of `ha` finds that it comes too late.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulation.world import World

TICK = 1.0


class Machine:
    """The lower half of a simulated node."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.life = 0
        self.is_up = False
        self.is_dark = True
        self.is_ha_frozen = False
        self.is_machine_still = False
        self.lag = 0.0
        self._lag_at = 0.0
        self._held: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._not_before = 0.0
        self._clock = (0.0, 0.0, 1.0)

    # --- time ---------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """This node's monotonic clock."""
        true, own, rate = self._clock
        return own + (self.world.now - true) * rate

    def set_rate(self, rate: float) -> None:
        """Let the clock run faster or slower from now on; 0 stops it (suspended)."""
        self._clock = (self.world.now, self.now, rate)

    def true_time(self, own: float) -> float:
        """Return the true time at which the clock will show ``own``."""
        true, base, rate = self._clock
        return true + (own - base) / (rate or 1.0)

    @property
    def is_still(self) -> bool:
        """True while `ha` cannot do anything, although it is there."""
        return self.is_ha_frozen or self.is_machine_still

    def slow_down(self, lag: float) -> None:
        """Let everything in `ha` happen ``lag`` seconds later than so far."""
        self.lag = max(0.0, self.lag + lag)
        self._lag_at = self.world.now

    def is_known_late(self, limit: float) -> bool:
        """True when the node has been late for so long that its own timers have shown it."""
        shown_at = self._lag_at + 2 * (TICK + self.lag)
        return self.lag > limit * 1.1 and self.world.now > shown_at

    # --- events ---------------------------------------------------------------------------------

    def hold(self, work: Callable[..., None], *arguments: Any) -> None:
        """Keep an event until `ha` goes on."""
        self._held.append((work, arguments))

    def do(self, work: Callable[..., None], *arguments: Any) -> None:
        """An event for `ha`: now, late when the node is slow, or when it goes on."""
        if self.is_still:
            self.hold(work, *arguments)
        elif self.lag or self._not_before > self.world.now:
            time = max(self.world.now + self.lag, self._not_before + 1e-9)
            self._not_before = time
            self.world.at(time, self._do_late, self.life, work, arguments)
        else:
            work(*arguments)

    def _do_late(self, life: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if life != self.life:
            return
        if self.is_still:
            self.hold(work, *arguments)
        else:
            work(*arguments)
