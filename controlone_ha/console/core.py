"""Which server next: the decisions of the failover client, without any I/O.

Theory of operation. A connection goes through *opening* (TCP, TLS, who is it), *login*, *waiting*
(the server is a standby: it knows the console now and will say when it serves) and *active*. There
is at most one active connection and at most one attempt beside it. An attempt beside an active
connection only opens; before it logs in, the active one is left, so that no server ever sees this
console logged in while it is logged in elsewhere.

What fails a server: its connection breaks or is refused (at once); nothing was heard of it for
``timeout`` seconds; ``lost_packets`` pings in a row stayed unanswered (where ``ping_interval`` sets
their rhythm). An orderly goodbye moves the console as well, but is no loss. After a failure the
servers are tried in a *round*: in the order of the list, those known to be down and the one that
just failed at its end. Each attempt at another than the first tests the first again beside it. A
standby is waited for ``standby_wait`` seconds, as it becomes active when the cluster finds what the
console has found. A round that failed as a whole makes the console unavailable, and the next one
begins after a growing pause.

While connected, the other servers are tested by pings every ``check_interval``. A better server of
the list that has answered "serving" for ``return_delay`` seconds takes the console back, as the
policy says. A server that took the console back and lost it must be well for twice as long.

Times are monotonic seconds and come in as ``now``; chance comes in as a ``random.Random``. After
any event ``deadline`` tells when ``tick`` wants to be called. A tick that comes late (the process
was stopped, the machine slept) proves nothing against a server: it gets a fresh chance.
"""

from __future__ import annotations

import random

from controlone_ha.console import known
from controlone_ha.console.rules import (
    Action,
    Cause,
    Changed,
    Drop,
    Health,
    Leave,
    Line,
    LogIn,
    Lost,
    Open,
    Ping,
    Policy,
    Probe,
    Rules,
    Server,
    State,
)

HEDGE = 1.0
"""Seconds after which an attempt that only hangs gives way to a server known to serve."""

BUSY = 3.0
"""The same, once it is reached, and after it accepted: many consoles may come at once."""

RETRY_LOGIN = 1.0
SUSPECT = 2.0
"""Patience with the active server after the network has changed under it."""

FIRST_PAUSE = 0.3
LONGEST_PAUSE = 5.0
LATE = 1.0
REPLACED_PAUSE = 30.0
MAX_DAMPING = 16
KEPT_LONG = 10
"""A server that kept the console for so many times ``return_delay`` is trusted as before."""

EXPECTANT = ("standby", "starting", None)
"""States of a node that refuses logins now and may take them in a moment."""


class Failover:
    """The decisions. Every event method returns what to do, in order."""

    def __init__(self, rules: Rules, chance: random.Random) -> None:
        self.rules = rules
        self.servers: dict[str, Server] = {}
        self.active: Line | None = None
        self.attempt: Line | None = None
        self.reason = Cause("started", is_loss=False)
        self.since = 0.0
        self.is_busy = False
        self.has_network = True
        self.switches = 0
        self._chance = chance
        self._number = 0
        self._round: list[str] = []
        self._tried: set[str] = set()
        self._failed_rounds = 0
        self._pause_until = 0.0
        self._lost: Lost | None = None
        self._failed: str | None = None
        self._return_at: float | None = None
        self._stopped = False
        self._expected: float | None = None

    # -- what is the case ----------------------------------------------------------------------

    @property
    def state(self) -> State:
        """What the operator has now."""
        if self.active is not None:
            return State.CONNECTED
        if self._failed_rounds or not self.has_network or not self.rules.servers:
            return State.UNAVAILABLE
        return State.SWITCHING

    @property
    def first(self) -> str | None:
        """The preferred server."""
        return self.rules.servers[0] if self.rules.servers else None

    @property
    def deadline(self) -> float | None:
        """When ``tick`` has something to do; None: never, as things stand."""
        if self._stopped:
            return None
        times = [item.next_test for item in self.servers.values() if self._is_test_due_ever(item)]
        if self.active is not None:
            line = self.active
            times += [line.next_ping, line.deadline]
            if self._return_at is not None and self.attempt is None:
                times.append(self._return_at)
        if self.attempt is not None:
            line = self.attempt
            times.append(line.deadline)
            if line.phase == "waiting":
                times += [time for time in (line.retry, line.waits_until) if time is not None]
            elif line.phase == "opening" and not line.is_return:
                times.append(line.look)
        elif self.active is None and self.rules.servers:
            times.append(self._pause_until)
        self._expected = min(times, default=None)
        return self._expected

    # -- orders ----------------------------------------------------------------------------------

    def start(self, now: float) -> list[Action]:
        """Begin: the first server first."""
        self.since = now
        actions: list[Action] = []
        self._take_list(now)
        self._advance(now, actions)
        return actions

    def stop(self) -> list[Action]:
        """End in order."""
        self._stopped = True
        actions: list[Action] = []
        if self.attempt is not None:
            actions.append(Drop(self.attempt.number))
        if self.active is not None:
            actions.append(Leave(self.active.number))
        self.active = self.attempt = None
        return actions

    def configure(self, now: float, rules: Rules) -> list[Action]:
        """Take new settings. The active connection stays as long as its server is in the list; one
        that is not any more is left only once another server is open.
        """
        self.rules = rules
        self._take_list(now)
        self._round = [key for key in self._round if key in self.servers]
        actions: list[Action] = [Changed()]
        if self.attempt is not None and self.attempt.server not in rules.servers:
            actions.append(Drop(self.attempt.number))
            self.attempt = None
        if self.active is not None:
            self.active.deadline = self._silence_ends(self.active)
            self.active.next_ping = min(self.active.next_ping, now + rules.ping_every)
        else:
            self._failed_rounds, self._pause_until = 0, now
        self._plan_return(now)
        self._advance(now, actions)
        return actions

    def busy(self, now: float, is_busy: bool) -> list[Action]:
        """Whether the operator has a call, which a return waits for."""
        if is_busy == self.is_busy:
            return []
        self.is_busy = is_busy
        actions: list[Action] = []
        self._plan_return(now)
        self._advance(now, actions)
        return actions

    def network(self, now: float, has_network: bool) -> list[Action]:
        """The links or addresses of this machine have changed."""
        actions: list[Action] = []
        if has_network != self.has_network:
            actions.append(Changed())
        came_back = has_network and not self.has_network
        self.has_network = has_network
        if self.active is not None:
            line = self.active
            line.next_ping = now
            if has_network and not came_back:
                line.deadline = min(line.deadline, now + min(SUSPECT, self.rules.timeout))
            # Else: there is nowhere else to go, and a cable that comes back finds it alive.
        elif has_network:
            self._failed_rounds = 0
            self._pause_until = now
        self._advance(now, actions)
        return actions

    # -- what happened -----------------------------------------------------------------------------

    def reached(self, now: float, number: int) -> None:
        """TCP is up, TLS begins. A server that answers so far may be busy with many consoles that
        come at once: leaving it now would only take the crowd to the next.
        """
        if self.attempt is not None and self.attempt.number == number:
            self.attempt.look = now + BUSY
            self.attempt.deadline = now + max(BUSY, self.rules.timeout)

    def opened(self, now: float, number: int, node: str | None = None) -> list[Action]:
        """The connection is there and its certificate is one of the cluster's."""
        line = self.attempt
        if line is None or line.number != number:
            return [Drop(number)]
        actions: list[Action] = []
        if node:
            self.servers[line.server].node = node
        if self.active is not None:
            if self.rules.policy is Policy.IDLE and self.is_busy:
                self.attempt = None
                self._plan_return(now)
                return [Drop(number)]
            actions.append(Leave(self.active.number))
            self.active, self._lost = None, None
            self._failed = None
            self.since = now
            self._tried = {line.server}
            self._round = known.order(self.rules, self.servers, exclude=line.server)
        line.phase = "login"
        line.deadline = now + max(BUSY, self.rules.timeout)
        return [*actions, LogIn(number, self._lost)]

    def logged_in(self, now: float, number: int, node: str | None = None) -> list[Action]:
        """The server has accepted the login: this is the active connection now."""
        line = self.attempt
        if line is None or line.number != number:
            return [Drop(number)]
        server = self.servers[line.server]
        server.node = node or server.node
        server.note(now, Health.SERVING, None)
        server.state = "active"
        line.phase = "active"
        line.heard, line.unanswered, line.patient_until = now, 0, now + BUSY
        line.retry = line.waits_until = None
        line.next_ping = now + self.rules.ping_every * self._chance.uniform(0.5, 1.0)
        line.deadline = self._silence_ends(line)
        self.attempt, self.active = None, line
        if line.is_return:
            self.reason = Cause("returned", is_loss=False)
        elif line.server == self.first and self.switches == 0:
            self.reason = Cause("started", is_loss=False)
        self.since = now
        self.switches += 1
        self._failed_rounds, self._lost = 0, None
        self._round, self._tried = [], set()
        known.hasten_tests(self.rules, self.servers, line.server, now)
        self._plan_return(now)
        actions: list[Action] = [Changed()]
        self._advance(now, actions)
        return actions

    def refused(
        self, now: float, number: int, cause: Cause, *, state: str | None = None, waits: bool
    ) -> list[Action]:
        """The server does not accept the login. ``waits``: it may in a moment (a standby)."""
        line = self.attempt
        if line is None or line.number != number:
            return [Drop(number)]
        server = self.servers[line.server]
        server.state = state
        can_wait = waits and state in EXPECTANT and not line.is_return
        server.note(now, Health.STANDBY if can_wait else Health.REFUSING, cause)
        actions: list[Action] = [Changed()]
        if can_wait:
            if line.waits_until is None:
                line.waits_until = now + self.rules.standby_wait
            line.phase = "waiting"
            line.retry = now + RETRY_LOGIN * self._chance.uniform(0.8, 1.2)
            line.deadline = now + self.rules.timeout
            self._advance(now, actions)
            return actions
        self._give_up(now, actions, cause)
        return actions

    def invited(self, now: float, number: int) -> list[Action]:
        """A server that was waited for says that it serves now."""
        line = self.attempt
        if line is None or line.number != number or line.phase != "waiting":
            return []
        line.phase, line.retry = "login", None
        line.deadline = now + max(BUSY, self.rules.timeout)
        return [LogIn(number, self._lost)]

    def ended(self, now: float, number: int, cause: Cause) -> list[Action]:
        """A connection is gone: it broke, was refused, was closed, or is not the cluster's."""
        actions: list[Action] = []
        if self.active is not None and self.active.number == number:
            self._lose(now, actions, cause)
        elif self.attempt is not None and self.attempt.number == number:
            server = self.servers[self.attempt.server]
            is_refusal = cause.code in ("certificate", "protocol", "token")
            server.note(now, Health.REFUSING if is_refusal else Health.DOWN, cause)
            self._give_up(now, actions, cause)
        return actions

    def heard(self, now: float, number: int) -> None:
        """Anything came from the active server."""
        line = self.active
        if line is not None and line.number == number:
            line.heard, line.unanswered = now, 0
            line.deadline = self._silence_ends(line)

    def tested(
        self,
        now: float,
        key: str,
        health: Health,
        cause: Cause | None = None,
        *,
        node: str | None = None,
        state: str | None = None,
        rtt: float | None = None,
    ) -> list[Action]:
        """A background test ended."""
        server = self.servers.get(key)
        if server is None:
            return []
        server.is_testing = False
        server.next_test = now + known.test_interval(
            self.rules, self._active_key, key
        ) * self._chance.uniform(0.8, 1.2)
        server.node, server.rtt = node or server.node, rtt
        server.state = state
        before = server.health
        server.note(now, health, cause)
        actions: list[Action] = [Changed()] if before is not health else []
        if health is Health.SERVING and self._is_better_than_attempt(key):
            line, self.attempt = self.attempt, None
            assert line is not None
            actions.append(Drop(line.number))
            self._round.insert(0, line.server)
            self._tried.discard(line.server)
            self._begin(now, key, actions)
        self._plan_return(now)
        self._advance(now, actions)
        return actions

    def tick(self, now: float) -> list[Action]:
        """Time has passed."""
        actions: list[Action] = []
        late = now - self._expected if self._expected is not None else 0.0
        if late > min(LATE, self.rules.ping_every):
            self._forgive(now, late)
        line = self.active
        if line is not None:
            if now >= line.deadline:
                seconds = round(now - line.heard, 1)
                actions.append(Drop(line.number))
                self._lose(now, actions, Cause("silent", {"seconds": seconds}))
            elif now >= line.next_ping:
                # Without a rhythm of its own the count ends with the timeout, which decides.
                if self.rules.ping_interval and line.unanswered >= self.rules.lost_packets:
                    actions.append(Drop(line.number))
                    cause = Cause("lost_packets", {"count": line.unanswered})
                    self._lose(now, actions, cause)
                else:
                    line.unanswered += 1
                    line.next_ping = now + self.rules.ping_every
                    actions.append(Ping(line.number))
        self._tick_attempt(now, actions)
        self._advance(now, actions)
        return actions

    # -- inside --------------------------------------------------------------------------------

    def _tick_attempt(self, now: float, actions: list[Action]) -> None:
        line = self.attempt
        if line is None:
            return
        if line.phase == "waiting":
            if (
                line.waits_until is not None
                and now >= line.waits_until
                and any(self.servers[key].may_serve for key in self._round)
            ):
                actions.append(Drop(line.number))
                self._give_up(now, actions, Cause("standby"))
                return
            if line.waits_until is not None and now >= line.waits_until:
                self._failed_rounds = max(1, self._failed_rounds)
                line.waits_until, line.is_overdue = now + SUSPECT, True
                actions += [Changed(), *self._test_all(now)]
            if line.retry is not None and now >= line.retry:
                line.phase, line.retry = "login", None
                line.deadline = now + max(BUSY, self.rules.timeout)
                actions.append(LogIn(line.number, self._lost))
            return
        is_hanging = line.phase == "opening" and not line.is_return and now >= line.look
        if is_hanging and now < line.deadline:
            actions += self._test_all(now)
            if not any(
                self.servers[key].health is Health.SERVING and key not in self._tried
                for key in self._round
            ):
                line.look = now + HEDGE
                return
        elif now < line.deadline:
            return
        cause = Cause("no_answer", {"seconds": round(now - line.since, 1)})
        actions.append(Drop(line.number))
        self.servers[line.server].note(now, Health.DOWN, cause)
        self._give_up(now, actions, cause)

    def _advance(self, now: float, actions: list[Action]) -> None:
        """Do what is due: the next attempt, the return, the tests."""
        if self._stopped:
            return
        if self.active is None and self.attempt is None and now >= self._pause_until:
            self._next(now, actions)
        elif (
            self.active is not None
            and self.attempt is None
            and self._return_at is not None
            and now >= self._return_at
        ):
            target = self._return_target(now)
            self._return_at = None
            if target is not None:
                self._begin(now, target, actions, is_return=True)
        for server in self.servers.values():
            if now >= server.next_test and self._is_test_due_ever(server):
                actions += self._test(server)

    def _next(self, now: float, actions: list[Action]) -> None:
        if not self.rules.servers:
            return
        if not self._round:
            self._tried = set()
            self._round = known.order(self.rules, self.servers, last=self._failed)
        key = self._round.pop(0)
        if key != self.first and self.first not in self._tried and self.first is not None:
            actions += self._test(self.servers[self.first])
        self._begin(now, key, actions)

    def _is_better_than_attempt(self, key: str) -> bool:
        """True when a server that has just said that it serves is to be taken instead of the one
        that is being tried: the first is back before another has taken the console, or a standby
        has been waited for long enough.
        """
        line = self.attempt
        if self.active is not None or line is None or line.server == key:
            return False
        if key == self.first and key not in self._tried and line.phase in ("opening", "waiting"):
            return True
        return line.phase == "waiting" and line.is_overdue

    def _begin(
        self, now: float, key: str, actions: list[Action], *, is_return: bool = False
    ) -> None:
        self._number += 1
        self._tried.add(key)
        if key in self._round:
            self._round.remove(key)
        self.attempt = Line(self._number, key, "opening", now, now + self.rules.timeout)
        self.attempt.is_return, self.attempt.look = is_return, now + HEDGE
        actions.append(Open(self._number, key))

    def _give_up(self, now: float, actions: list[Action], cause: Cause) -> None:
        """The attempt has failed: the next of the round, or a pause after the round."""
        line, self.attempt = self.attempt, None
        assert line is not None
        actions.append(Changed())
        if self.reason.code == "started":
            name = self.servers[line.server].node or line.server
            self.reason = Cause(cause.code, {**cause.params, "server": name}, cause.is_loss)
        if line.phase != "opening":
            actions.append(Drop(line.number))
        if line.is_return:
            server = self.servers.get(line.server)
            if server is not None:
                server.serving_since = None
                server.damping = min(MAX_DAMPING, server.damping * 2)
        if self.active is not None:
            self._plan_return(now)
        elif not self._round:
            self._failed_rounds += 1
            self._failed = None
            longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failed_rounds - 1, 10))
            self._pause_until = now + longest * self._chance.uniform(0.5, 1.0)
        self._advance(now, actions)

    def _lose(self, now: float, actions: list[Action], cause: Cause) -> None:
        """The active connection has ended."""
        line, self.active = self.active, None
        assert line is not None
        server = self.servers.get(line.server)
        name = server.node if server is not None and server.node else line.server
        if server is not None:
            health = Health.DOWN if cause.is_loss else Health.REFUSING
            server.note(now, health, cause)
            # It is tested soon: whether it is back decides about the return.
            server.next_test = now + known.test_interval(self.rules, self._active_key, line.server)
            if now - self.since > KEPT_LONG * self.rules.return_delay:
                server.damping = 1
            elif line.is_return:
                server.damping = min(MAX_DAMPING, server.damping * 2)
        self.reason = Cause(cause.code, {**cause.params, "server": name}, cause.is_loss)
        self._lost = Lost(name) if cause.is_loss else None
        self._failed = line.server
        self._return_at = None
        self.since = now
        actions.append(Changed())
        self._round, self._tried = known.order(self.rules, self.servers, last=line.server), set()
        self._pause_until = now + self._chance.uniform(0.0, self.rules.jitter)
        if cause.code == "replaced":
            # Another console has this one's name: fighting for it would harm both.
            self._failed_rounds = 1
            self._pause_until = now + REPLACED_PAUSE * self._chance.uniform(0.8, 1.2)
        if self.attempt is not None:  # the return was on its way: it is the way now
            attempt, attempt.is_return = self.attempt, False
            self._tried.add(attempt.server)
            if attempt.server in self._round:
                self._round.remove(attempt.server)
        self._advance(now, actions)

    def _forgive(self, now: float, late: float) -> None:
        """This process itself was away: nobody else's silence in that time means anything."""
        for line in (self.active, self.attempt):
            if line is None:
                continue
            line.deadline += late
            line.since += late
        if self.active is not None:
            line = self.active
            line.heard, line.unanswered = now, 0
            line.next_ping = now
            line.deadline = now + min(self.rules.timeout, max(SUSPECT, self.rules.ping_every))
        for server in self.servers.values():
            if server.serving_since is not None:
                server.serving_since += late
        if self._return_at is not None:
            self._return_at += late

    # Tests and the return

    def _take_list(self, now: float) -> None:
        self.servers = known.take_list(
            self.rules, self.servers, self._active_key, now, self._chance
        )

    @property
    def _active_key(self) -> str | None:
        return self.active.server if self.active is not None else None

    def _is_test_due_ever(self, server: Server) -> bool:
        if server.is_testing or server.key not in self.rules.servers:
            return False
        lines = [line for line in (self.active, self.attempt) if line is not None]
        return all(line.server != server.key for line in lines)

    def _test(self, server: Server) -> list[Action]:
        if server.is_testing:
            return []
        server.is_testing = True
        return [Probe(server.key)]

    def _test_all(self, now: float) -> list[Action]:
        due = [
            server
            for server in self.servers.values()
            if self._is_test_due_ever(server) and now - (server.checked or 0.0) >= HEDGE
        ]
        return [action for server in due for action in self._test(server)]

    def _return_target(self, now: float) -> str | None:
        """Return the server to go to now, None when this one is right."""
        if self.active is None or (self.rules.policy is Policy.IDLE and self.is_busy):
            return None
        return known.better_than(self.rules, self.servers, self.active.server, now)

    def _plan_return(self, now: float) -> None:
        """Set the moment of the return: a little chance in it spreads the consoles of a server."""
        if self.active is None or self.attempt is not None:
            return
        if self._return_target(now) is None:
            self._return_at = None
            # Stability is a matter of time: the next test of that server looks again.
        elif self._return_at is None:
            spread = min(5.0, self.rules.return_delay / 2)
            self._return_at = now + self._chance.uniform(0.0, max(spread, self.rules.jitter))

    def _silence_ends(self, line: Line) -> float:
        return max(line.heard + self.rules.timeout, line.patient_until)
