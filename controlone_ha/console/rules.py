"""The vocabulary of the failover client: its rules, what it knows of a server, what it orders.

Plain data, shared by the decisions (``core``), the asyncio shell (``session``) and what people see
(``render``). Standard library only, and nothing here touches a clock or a socket.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Policy(Enum):
    """When a console that was driven away goes back to a better server of its list."""

    AT_ONCE = "at_once"
    IDLE = "idle"
    NEVER = "never"


class Health(Enum):
    """What the last test or connection said of a server. STANDBY: alive, will serve when needed;
    REFUSING: alive, but not for this console (wrong token, wrong certificate, closed for a fault).
    """

    UNKNOWN = "unknown"
    SERVING = "serving"
    STANDBY = "standby"
    REFUSING = "refusing"
    DOWN = "down"

    @property
    def is_healthy(self) -> bool:
        """True when the server would take this console, now or as soon as it is needed."""
        return self in (Health.SERVING, Health.STANDBY)


class State(Enum):
    """What the operator has. SWITCHING: between two servers, no round through the list failed."""

    CONNECTED = "connected"
    SWITCHING = "switching"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The settings that the decisions need. Seconds; ``servers``: keys, in order of preference."""

    servers: tuple[str, ...]
    timeout: float = 10.0
    lost_packets: int = 3
    ping_interval: float = 0.0
    """0: as often as makes ``lost_packets`` unanswered ones and ``timeout`` end together."""
    check_interval: float = 30.0
    policy: Policy = Policy.IDLE
    return_delay: float = 30.0
    standby_wait: float = 3.0
    jitter: float = 0.1

    @property
    def ping_every(self) -> float:
        """Seconds between two pings."""
        return self.ping_interval or max(0.05, self.timeout / (self.lost_packets + 1))


@dataclass(frozen=True, slots=True)
class Cause:
    """Why something ended or began: a stable code, and its parameters for the sentence.

    ``is_loss``: the server is gone as far as this console can tell (not an orderly goodbye).
    """

    code: str
    params: dict[str, Any] = field(default_factory=dict)
    is_loss: bool = True


@dataclass(slots=True)
class Server:
    """What is known of one server of the list."""

    key: str
    health: Health = Health.UNKNOWN
    cause: Cause | None = None
    node: str | None = None
    state: str | None = None
    rtt: float | None = None
    checked: float | None = None
    serving_since: float | None = None
    next_test: float = 0.0
    is_testing: bool = False
    damping: int = 1

    @property
    def may_serve(self) -> bool:
        """True unless something speaks against it."""
        return self.health in (Health.SERVING, Health.UNKNOWN)

    def note(self, now: float, health: Health, cause: Cause | None) -> None:
        """Note what a test or a connection has found."""
        self.health, self.cause, self.checked = health, cause, now
        if health is not Health.SERVING:
            self.serving_since = None
        elif self.serving_since is None:
            self.serving_since = now


@dataclass(slots=True)
class Line:
    """One connection: an attempt (opening, login, waiting) or the active one."""

    number: int
    server: str
    phase: str
    since: float
    deadline: float
    is_return: bool = False
    heard: float = 0.0
    patient_until: float = 0.0
    next_ping: float = 0.0
    unanswered: int = 0
    look: float = 0.0
    retry: float | None = None
    waits_until: float | None = None
    is_overdue: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """What a login reports: the name of the server that was lost, as it named itself."""

    server: str


@dataclass(frozen=True, slots=True)
class Open:
    """Connect to ``server`` and check who it is; then ``opened`` or ``ended``."""

    number: int
    server: str


@dataclass(frozen=True, slots=True)
class LogIn:
    """Log in on an open connection; then ``logged_in``, ``refused`` or ``ended``."""

    number: int
    lost: Lost | None


@dataclass(frozen=True, slots=True)
class Ping:
    """Ask the server of the active connection for a sign of life."""

    number: int


@dataclass(frozen=True, slots=True)
class Leave:
    """Close a connection in order: its server is well, the console goes elsewhere."""

    number: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Forget a connection at once, without a word."""

    number: int


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask ``server`` for a ping on a connection of its own; then ``tested``."""

    server: str


@dataclass(frozen=True, slots=True)
class Changed:
    """What people and the operator's software see has changed."""


Action = Open | LogIn | Ping | Leave | Drop | Probe | Changed
