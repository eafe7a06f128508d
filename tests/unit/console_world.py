"""A simulated world for the failover client's decisions: servers that come and go, one console.

Time is a number, a day takes some seconds. Kinds of trouble: *dead* (connections are reset, ports
refuse), *cut* (silence, open connections included), *standby* (logins are refused, or the consoles
are told goodbye). The world checks two rules at every moment: never two logins at the same time,
and never without service for longer than timeout × servers while one server served all the time.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from functools import partial

from controlone_ha.console.core import Failover
from controlone_ha.console.rules import (
    Action,
    Cause,
    Drop,
    Health,
    Leave,
    LogIn,
    Open,
    Ping,
    Probe,
    Rules,
)

SERVING, STANDBY, DEAD, CUT = "serving", "standby", "dead", "cut"


class World:
    """One console and its servers; ``run`` lets time pass."""

    def __init__(self, rules: Rules, seed: int, *, grace: float = 1.0) -> None:
        self.rules = rules
        self.now = 0.0
        self.chance = random.Random(seed)
        self.core = Failover(rules, random.Random(seed + 1))
        self.status = dict.fromkeys(rules.servers, SERVING)
        self.served_since: dict[str, float] = dict.fromkeys(rules.servers, 0.0)
        self.lines: dict[int, str] = {}
        self.logged_in: set[int] = set()
        self.without_since: float | None = 0.0
        self.longest_without = 0.0
        self.moves: list[tuple[float, str]] = []
        self.problems: list[str] = []
        self.tests = 0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._timer: float | None = None
        self._bound = rules.timeout * len(rules.servers) + grace

    # -- time

    def later(self, seconds: float, work: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (self.now + seconds, self._count, work))

    def start(self) -> World:
        self.do(self.core.start(self.now))
        return self

    def run(self, until: float) -> World:
        while True:
            deadline = self.core.deadline
            event = self._queue[0][0] if self._queue else float("inf")
            moment = min(event, deadline if deadline is not None else float("inf"))
            if moment > until:
                self.now = until
                self.check()
                return self
            assert moment >= self.now - 1e-9 or moment == deadline
            self.now = max(self.now, moment)
            if event <= moment:
                heapq.heappop(self._queue)[2]()
            else:
                self.do(self.core.tick(self.now))
            self.check()

    # -- what the world does

    def turn(self, server: str, status: str) -> None:
        """Change a server."""
        before, self.status[server] = self.status[server], status
        if before == status:
            return
        if status == SERVING:
            self.served_since[server] = self.now
        for number in [n for n, key in self.lines.items() if key == server]:
            if status == DEAD:
                self._end(number, Cause("reset"))
            elif status == STANDBY and number in self.logged_in:
                self._end(number, Cause("goodbye", {"text": "sent away"}, is_loss=False))
            elif status == SERVING and number not in self.logged_in:
                self.later(self._latency(), partial(self._invite, number))

    def _invite(self, number: int) -> None:
        if number in self.lines:
            self.do(self.core.invited(self.now, number))

    def _end(self, number: int, cause: Cause) -> None:
        del self.lines[number]
        self.logged_in.discard(number)
        self.later(0.0, lambda: self.do(self.core.ended(self.now, number, cause)))

    def _latency(self) -> float:
        return self.chance.uniform(0.001, 0.05)

    # -- what the console does

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Open):
                self.later(self._latency(), partial(self._open, action))
            elif isinstance(action, LogIn):
                self.later(self._latency(), partial(self._log_in, action.number))
            elif isinstance(action, Leave | Drop):
                self.lines.pop(action.number, None)
                self.logged_in.discard(action.number)
            elif isinstance(action, Ping):
                number = action.number
                if self.status.get(self.lines.get(number, ""), CUT) != CUT:
                    self.later(
                        self._latency(),
                        partial(self._heard, number),
                    )
            elif isinstance(action, Probe):
                self.tests += 1
                self.later(self._latency(), partial(self._test, action.server))

    def _heard(self, number: int) -> None:
        self.core.heard(self.now, number)

    def _open(self, action: Open) -> None:
        status = self.status[action.server]
        if self.core.attempt is None or self.core.attempt.number != action.number:
            return
        if status == CUT:
            return
        if status == DEAD:
            self.do(self.core.ended(self.now, action.number, Cause("refused")))
            return
        self.lines[action.number] = action.server
        self.do(self.core.opened(self.now, action.number, action.server))

    def _log_in(self, number: int) -> None:
        server = self.lines.get(number)
        if server is None or self.status[server] == CUT:
            return
        if self.status[server] == SERVING:
            self.logged_in.add(number)
            if len(self.logged_in) > 1:
                self.problems.append(f"{self.now:.3f}: logged in {len(self.logged_in)} times")
            self.moves.append((self.now, server))
            self.do(self.core.logged_in(self.now, number, server))
        else:
            cause = Cause("standby")
            self.do(self.core.refused(self.now, number, cause, state="standby", waits=True))

    def _test(self, key: str) -> None:
        status = self.status[key]
        if status == CUT:
            self.later(
                self.rules.timeout,
                lambda: self.do(self.core.tested(self.now, key, Health.DOWN, Cause("silent"))),
            )
            return
        health = {SERVING: Health.SERVING, STANDBY: Health.STANDBY, DEAD: Health.DOWN}[status]
        self.do(self.core.tested(self.now, key, health, node=key))

    # -- the rules

    @property
    def is_served(self) -> bool:
        """True when the console is logged in at a server that really serves it."""
        return any(self.status[self.lines[number]] == SERVING for number in self.logged_in)

    def check(self) -> None:
        active = self.core.active
        attempt = self.core.attempt
        if active is not None and attempt is not None and attempt.phase != "opening":
            self.problems.append(f"{self.now:.3f}: a login beside an active connection")
        if self.is_served:
            self.without_since = None
            return
        if self.without_since is None:
            self.without_since = self.now
        reachable = [
            max(self.without_since, self.served_since[key])
            for key, status in self.status.items()
            if status == SERVING
        ]
        if reachable:
            waited = self.now - min(reachable)
            self.longest_without = max(self.longest_without, waited)
            if waited > self._bound:
                self.problems.append(f"{self.now:.3f}: {waited:.1f} s without a serving server")
                self.without_since = self.now
