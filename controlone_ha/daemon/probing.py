"""When to probe what: peers and own services, at the rhythm the core asks for.

Each target has a rhythm (its watchdog interval, or the fast one while it is in doubt) and a bounded
number of probes in flight; probes overlap, so a lost packet never delays the next one. Nothing is
judged here: every result goes to ``deliver``.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from controlone_ha.core.observations import ProbeResult

MAX_IN_FLIGHT = 8

Probe = Callable[[float], Awaitable[ProbeResult]]
"""A probe takes its timeout in seconds and returns what it measured."""


@dataclass(kw_only=True)
class Target:
    """One thing to probe. ``rhythm()``: seconds between probes now; ``timeout()``: of each."""

    name: str
    probe: Probe
    rhythm: Callable[[], float]
    timeout: Callable[[], float]
    deliver: Callable[[ProbeResult], None]
    started_at: float = field(default=0.0)
    in_flight: int = 0
    answered_from: float = field(default=0.0)


class Prober:
    """Runs the targets. ``adjust`` is called whenever a rhythm may have changed."""

    def __init__(self) -> None:
        self._targets: dict[str, Target] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    def set_targets(self, targets: list[Target]) -> None:
        """Replace all targets; those of a known name keep their rhythm's phase."""
        now = asyncio.get_running_loop().time()
        fresh: dict[str, Target] = {}
        for target in targets:
            known = self._targets.get(target.name)
            if known is not None:
                target.started_at = known.started_at
            else:  # spread the first round, so that nodes started together do not probe together
                target.started_at = now - target.rhythm() * random.uniform(0.9, 1.0)
            fresh[target.name] = target
        self._targets = fresh
        self.adjust()

    def adjust(self) -> None:
        """Start what is due and set the timer for what is due next."""
        if self._stopped:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        due_next = None
        for target in self._targets.values():
            due = target.started_at + target.rhythm()
            if due <= now + 0.001:
                self._start(target, now)
                due = now + target.rhythm()
            due_next = due if due_next is None else min(due_next, due)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due_next is not None:
            self._timer = loop.call_at(due_next, self.adjust)

    def kick(self, name: str) -> None:
        """Probe this target now, whatever its rhythm says."""
        target = self._targets.get(name)
        if target is not None and not self._stopped:
            self._start(target, asyncio.get_running_loop().time())

    def _start(self, target: Target, now: float) -> None:
        target.started_at = now
        if target.in_flight >= MAX_IN_FLIGHT:
            return
        target.in_flight += 1
        task = asyncio.get_running_loop().create_task(self._run(target))
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    async def _run(self, target: Target) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            result = await target.probe(target.timeout())
        finally:
            target.in_flight -= 1
        result = replace(result, took=loop.time() - started)
        if result.is_answered:
            target.answered_from = max(target.answered_from, started)
        elif started < target.answered_from:
            return  # a later probe was answered meanwhile: this one's silence is old news
        if self._targets.get(target.name) is target:
            target.deliver(result)

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "probe failed", "exception": task.exception(), "task": task}
            )

    async def stop(self) -> None:
        """Cancel every probe. Idempotent."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
