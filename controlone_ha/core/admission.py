"""Which incoming call is let in, and with what answer the others are refused. Pure.

Theory of operation. The number that is called names the queue. A call is let in when this
Conference Server is active, has room, knows the number, and a console that monitors the queue is
connected here. The refusals differ on the wire, because a gateway acts on them (RFC 3261 section
21; the Q.850 cause travels in the header Reason, RFC 3326):

======================================  ======  =====  ========================================
situation                               status  cause  what the gateway does
======================================  ======  =====  ========================================
no console here for the queue (L2)      603     none   tries another Conference Server
number is no queue                      404     1      gives up: it is wrong everywhere
not active, draining, no controller     503     34     tries another Conference Server
as many calls as allowed                503     42     tries another Conference Server
nobody answered, no overflow            480     19     tells the caller
all consoles of the queue are busy      486     17     tells the caller
======================================  ======  =====  ========================================

Settling: right after activation consoles are still on their way from the server that failed. Until
``settled`` a call to a queue without consoles waits instead of being declined.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Strategy(StrEnum):
    """How the consoles of a queue are rung; see ``core.ringing``."""

    ALL = "all"
    ROUND_ROBIN = "round_robin"
    LEAST_RECENT = "least_recent"


@dataclass(frozen=True, kw_only=True)
class QueueRule:
    """One queue. Times in seconds; ``overflow``: number of the next queue, empty: refuse."""

    number: str
    strategy: Strategy = Strategy.ALL
    ring_timeout: float = 60.0
    ring_step: float = 15.0
    overflow: str = ""
    priority: int = 100
    record: bool = False


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A final answer: ``status`` of SIP, ``cause`` of Q.850 (0: none), ``code`` for people."""

    status: int
    cause: int
    code: str


NO_CONSOLE = Refusal(status=603, cause=0, code="no_console")
UNKNOWN_NUMBER = Refusal(status=404, cause=1, code="unknown_number")
NOT_ACTIVE = Refusal(status=503, cause=34, code="not_active")
FULL = Refusal(status=503, cause=42, code="full")
NO_ANSWER = Refusal(status=480, cause=19, code="no_answer")
BUSY = Refusal(status=486, cause=17, code="busy")

REFUSALS = (NO_CONSOLE, UNKNOWN_NUMBER, NOT_ACTIVE, FULL, NO_ANSWER, BUSY)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the settings say. Without any queue in them every number is one."""

    queues: Mapping[str, QueueRule] = field(default_factory=dict)
    max_calls: int = 0
    default: QueueRule = field(default_factory=lambda: QueueRule(number=""))

    def queue(self, number: str) -> QueueRule:
        """Return the rule of a queue; one that only consoles know gets the defaults."""
        found = self.queues.get(number)
        return found if found is not None else _named(self.default, number)


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What is the case now. ``monitored``: queue -> how many connected consoles monitor it."""

    is_active: bool
    is_settled: bool
    calls: int
    monitored: Mapping[str, int]


class Verdict(StrEnum):
    """What becomes of the call."""

    ACCEPT = "accept"
    WAIT = "wait"
    REFUSE = "refuse"


@dataclass(frozen=True, kw_only=True)
class Admission:
    """The decision; ``refusal`` is there when the verdict is REFUSE."""

    verdict: Verdict
    refusal: Refusal | None = None


ACCEPTED = Admission(verdict=Verdict.ACCEPT)
WAITING = Admission(verdict=Verdict.WAIT)


def admit(number: str, rules: Rules, situation: Situation) -> Admission:
    """Decide about a new call to ``number``; ``situation.calls`` does not count this one."""
    if not situation.is_active:
        return _refused(NOT_ACTIVE)
    if rules.max_calls and situation.calls >= rules.max_calls:
        return _refused(FULL)
    if situation.monitored.get(number):
        return ACCEPTED
    if rules.queues and number not in rules.queues:
        # A queue that the settings do not know but consoles may: one still on its way counts.
        return WAITING if not situation.is_settled else _refused(UNKNOWN_NUMBER)
    return WAITING if not situation.is_settled else _refused(NO_CONSOLE)


def overflow(queue: QueueRule, visited: frozenset[str], rules: Rules) -> QueueRule | None:
    """Return the queue a call goes to that nobody answered; None: refuse. No queue twice."""
    following = queue.overflow
    if not following or following in visited:
        return None
    return rules.queue(following)


def _refused(refusal: Refusal) -> Admission:
    return Admission(verdict=Verdict.REFUSE, refusal=refusal)


def _named(rule: QueueRule, number: str) -> QueueRule:
    return QueueRule(
        number=number,
        strategy=rule.strategy,
        ring_timeout=rule.ring_timeout,
        ring_step=rule.ring_step,
        overflow="",
        priority=rule.priority,
        record=rule.record,
    )
