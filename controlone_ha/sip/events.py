"""What the transaction layer keeps of a transaction and tells its owner (RFC 3261, section 17)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from controlone_ha.sip.message import Request, Response
from controlone_ha.sip.transaction import ClientTransaction
from controlone_ha.sip.uri import Hop


class State(Enum):
    """States of the figures of RFC 3261, 17 and RFC 6026."""

    CALLING = "calling"
    TRYING = "trying"
    PROCEEDING = "proceeding"
    COMPLETED = "completed"
    CONFIRMED = "confirmed"
    ACCEPTED = "accepted"
    OVER = "over"


class Reason(Enum):
    """Why a transaction failed: no answer, a transport that does not carry, no ACK of a 2xx."""

    TIMEOUT = "timeout"
    TRANSPORT = "transport"
    NO_ACK = "no_ack"


class Client:
    """A request of ours on its way; ``owner`` is the user's own."""

    __slots__ = (
        "ack", "cancel_wanted", "due", "hop", "interval", "life", "owner", "packet", "request",
        "sent", "simple", "state", "until",
    )  # fmt: skip

    def __init__(self, request: Request, hop: Hop, owner: object) -> None:
        self.request = request
        self.hop = hop
        self.owner = owner
        self.packet = request.to_bytes()
        self.state = State.CALLING if request.method == "INVITE" else State.TRYING
        self.sent = 1
        self.interval = 0.0
        self.due: float | None = None
        self.until = 0.0
        self.life = 0.0
        self.ack: bytes = b""
        self.cancel_wanted = False
        self.simple: ClientTransaction[Hop] | None = None

    @property
    def is_pending(self) -> bool:
        """True until a final answer or a failure."""
        return self.state in (State.CALLING, State.TRYING, State.PROCEEDING)


class Server:
    """A request that came in. ``hop``: where its responses go."""

    __slots__ = (
        "due", "hop", "interval", "is_acknowledged", "key", "owner", "request", "response", "state",
        "until",
    )  # fmt: skip

    def __init__(self, key: tuple[str, ...], request: Request, hop: Hop) -> None:
        self.key = key
        self.request = request
        self.hop = hop
        self.owner: object = None
        self.state = State.PROCEEDING if request.method == "INVITE" else State.TRYING
        self.response: bytes = b""
        self.interval = 0.0
        self.due: float | None = None
        self.until = 0.0
        self.is_acknowledged = False

    @property
    def is_pending(self) -> bool:
        """True until a final response was given."""
        return self.state in (State.PROCEEDING, State.TRYING)


@dataclass(frozen=True, slots=True)
class Send:
    """Put ``data`` on the wire."""

    data: bytes
    hop: Hop


@dataclass(frozen=True, slots=True)
class Answered:
    """A response to a request of ours: provisional ones above 100, and the final one once."""

    client: Client
    response: Response


@dataclass(frozen=True, slots=True)
class Failed:
    """A transaction ended without what it was for."""

    transaction: Client | Server
    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A new request; the user responds."""

    server: Server
    request: Request


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The caller gave an INVITE up (its CANCEL is answered already); the user says 487."""

    server: Server


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The ACK of a 2xx has come."""

    server: Server
    request: Request


@dataclass(frozen=True, slots=True)
class Stray:
    """A 2xx to an INVITE that nobody waits for."""

    response: Response
    source: Hop
