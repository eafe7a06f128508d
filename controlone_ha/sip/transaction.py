"""Non-INVITE client transactions (RFC 3261, 17.1.2) over an unreliable transport. Sans-I/O.

Theory of operation (figure 6 of the RFC):

    Trying ──1xx──▶ Proceeding          both: Timer E retransmits, Timer F or an error ends
      │                 │
      └────2xx–6xx──────┴─▶ Completed ──Timer K──▶ Terminated

Timer E starts at T1 and doubles up to T2; in Proceeding it is T2. Timer F is 64 T1 by the RFC; a
probe sets it to the time it may take. Timer K (T4) keeps a completed transaction so that late
copies of the answer are recognised; with 0 the transaction ends at once and copies match nothing.

Time is an argument everywhere (seconds, monotonic). What is to be done comes back as ``Send`` and
``Ended`` events; nothing here owns a socket or a timer. ``ClientTransactions`` keeps many of them
by branch and method (17.1.3) and knows when it wants to be woken next.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from controlone_ha.sip.message import Response

T1 = 0.5
T2 = 4.0
T4 = 5.0

Destination = TypeVar("Destination", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class SipTimers:
    """Base values in seconds (RFC 3261, table 4). ``timer_f`` None: 64 T1."""

    t1: float = T1
    t2: float = T2
    timer_f: float | None = None
    timer_k: float = T4

    def __post_init__(self) -> None:
        if not 0 < self.t1 <= self.t2:
            raise ValueError(f"T1 {self.t1} must be above 0 and at most T2 {self.t2}")
        if self.timer_k < 0 or (self.timer_f is not None and self.timer_f <= 0):
            raise ValueError("Timer F must be above 0, Timer K at least 0")

    @property
    def life(self) -> float:
        """Timer F in seconds."""
        return 64 * self.t1 if self.timer_f is None else self.timer_f


class TransactionState(Enum):
    """States of figure 6."""

    TRYING = "trying"
    PROCEEDING = "proceeding"
    COMPLETED = "completed"
    TERMINATED = "terminated"


class Ending(Enum):
    """Why a transaction ended for its user."""

    ANSWER = "answer"
    TIMEOUT = "timeout"
    TRANSPORT = "transport"


class ClientTransaction(Generic[Destination]):
    """One request on its way. Created and driven by ``ClientTransactions``."""

    __slots__ = (
        "branch",
        "destination",
        "due",
        "error",
        "method",
        "packet",
        "provisional",
        "response",
        "sent",
        "started",
        "state",
        "timer_e",
        "timer_f",
        "timers",
    )

    def __init__(
        self,
        branch: str,
        method: str,
        packet: bytes,
        destination: Destination,
        timers: SipTimers,
        now: float,
    ) -> None:
        self.branch = branch
        self.method = method
        self.packet = packet
        self.destination = destination
        self.timers = timers
        self.state = TransactionState.TRYING
        self.started = now
        self.sent = 1
        self.timer_e = timers.t1
        self.timer_f = now + timers.life
        self.due = min(now + self.timer_e, self.timer_f)
        self.provisional: Response | None = None
        self.response: Response | None = None
        self.error: str = ""

    @property
    def is_pending(self) -> bool:
        """True while the user waits for an outcome."""
        return self.state in (TransactionState.TRYING, TransactionState.PROCEEDING)


@dataclass(frozen=True, slots=True)
class Send(Generic[Destination]):
    """Put the transaction's packet on the wire."""

    transaction: ClientTransaction[Destination]


@dataclass(frozen=True, slots=True)
class Ended(Generic[Destination]):
    """The user's answer: a final response (``transaction.response``), silence, or an error."""

    transaction: ClientTransaction[Destination]
    ending: Ending


Event = Send[Destination] | Ended[Destination]


class ClientTransactions(Generic[Destination]):
    """All client transactions of one transport."""

    def __init__(self) -> None:
        self._live: dict[tuple[str, str], ClientTransaction[Destination]] = {}
        self._timers: list[tuple[float, int, ClientTransaction[Destination]]] = []
        self._order = 0

    def __len__(self) -> int:
        """Return how many are kept, completed ones under Timer K included."""
        return len(self._live)

    def __iter__(self) -> Iterator[ClientTransaction[Destination]]:
        """Iterate over a copy, so that the caller may end what it visits."""
        return iter(list(self._live.values()))

    def start(
        self,
        branch: str,
        method: str,
        packet: bytes,
        destination: Destination,
        now: float,
        timers: SipTimers,
    ) -> ClientTransaction[Destination]:
        """Register a request; the caller sends ``packet`` once, at once."""
        key = (branch, method)
        if key in self._live:
            raise ValueError(f"branch {branch!r} is in use")
        if method in ("INVITE", "ACK"):
            raise ValueError(f"{method} is not a non-INVITE transaction")
        transaction = ClientTransaction(branch, method, packet, destination, timers, now)
        self._live[key] = transaction
        self._arm(transaction)
        return transaction

    def receive(self, response: Response, now: float) -> Ended[Destination] | None:
        """Take a response; return what it ended, or None (provisional, late copy, not ours)."""
        via = response.top_via
        if via is None:
            return None
        transaction = self._live.get((via.branch, response.cseq[1]))
        if transaction is None or not transaction.is_pending:
            return None
        if not response.is_final:
            if transaction.state is TransactionState.TRYING:
                # Timer E runs on as it is set, and is T2 from its next firing on (17.1.2.2).
                transaction.state = TransactionState.PROCEEDING
            transaction.provisional = response
            return None
        transaction.response = response
        if transaction.timers.timer_k > 0:
            transaction.state = TransactionState.COMPLETED
            transaction.due = now + transaction.timers.timer_k
            self._arm(transaction)
        else:
            self._terminate(transaction)
        return Ended(transaction, Ending.ANSWER)

    def fail(
        self, transaction: ClientTransaction[Destination], error: str
    ) -> Ended[Destination] | None:
        """Report a transport error (17.1.4); return the end, or None if it had one already."""
        if not transaction.is_pending:
            return None
        transaction.error = error
        self._terminate(transaction)
        return Ended(transaction, Ending.TRANSPORT)

    def find(self, branch: str, method: str) -> ClientTransaction[Destination] | None:
        """Return the transaction of a branch, or None."""
        return self._live.get((branch, method))

    def cancel(self, transaction: ClientTransaction[Destination]) -> None:
        """Forget a transaction whose user has gone (a non-INVITE request has no CANCEL, 9.1)."""
        self._terminate(transaction)

    def next_due(self) -> float | None:
        """Return when ``advance`` is next wanted, or None."""
        timers = self._timers
        while timers:
            due, _, transaction = timers[0]
            if transaction.state is not TransactionState.TERMINATED and transaction.due == due:
                return due
            heapq.heappop(timers)
        return None

    def advance(self, now: float) -> list[Event[Destination]]:
        """Fire every timer that is due at ``now``; return what is to be done, in order of time."""
        events: list[Event[Destination]] = []
        while (due := self.next_due()) is not None and due <= now:
            _, _, transaction = heapq.heappop(self._timers)
            if transaction.state is TransactionState.COMPLETED:
                self._terminate(transaction)
            elif now >= transaction.timer_f:
                self._terminate(transaction)
                events.append(Ended(transaction, Ending.TIMEOUT))
            else:
                self._retransmit(transaction, now)
                events.append(Send(transaction))
        return events

    def _retransmit(self, transaction: ClientTransaction[Destination], now: float) -> None:
        timers = transaction.timers
        if transaction.state is TransactionState.PROCEEDING:
            transaction.timer_e = timers.t2
        else:
            transaction.timer_e = min(2 * transaction.timer_e, timers.t2)
        transaction.sent += 1
        # Counted from now, not from the due time: after a gap in the loop no burst follows.
        transaction.due = min(now + transaction.timer_e, transaction.timer_f)
        self._arm(transaction)

    def _arm(self, transaction: ClientTransaction[Destination]) -> None:
        self._order += 1
        heapq.heappush(self._timers, (transaction.due, self._order, transaction))

    def _terminate(self, transaction: ClientTransaction[Destination]) -> None:
        transaction.state = TransactionState.TERMINATED
        self._live.pop((transaction.branch, transaction.method), None)
