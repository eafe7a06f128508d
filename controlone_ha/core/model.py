"""What a node is, what it publishes about itself, and what is decided on.

Times named ``now`` or ``*_at`` are monotonic seconds of this node and come in as arguments; times
named ``since`` in a ``Report`` are wall-clock seconds, for people only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from controlone_ha.core.reasons import Evidence, Reason


class Role(StrEnum):
    """Configured (UCI ``ha.default.role``)."""

    MASTER = "master"
    SLAVE = "slave"
    PASSIVE = "passive"


class State(StrEnum):
    """Current. DEGRADED and DISABLED are finer reasons of active: see ``Decision``.

    ACTIVE: Console Server and Conference Server serve. DEGRADED: they serve although something is
    abnormal, because nobody else can. DISABLED: abnormal, Console Server refuses consoles, the
    Conference Server keeps its running calls. STANDBY: Console Server warm and disabled,
    Conference Server off. PASSIVE: data only, by role or by force.
    """

    STARTING = "starting"
    ACTIVE = "active"
    DEGRADED = "degraded"
    DISABLED = "disabled"
    STANDBY = "standby"
    PASSIVE = "passive"

    @property
    def is_serving(self) -> bool:
        """True when consoles are accepted in this state."""
        return self in (State.ACTIVE, State.DEGRADED)

    @property
    def runs_conference(self) -> bool:
        """True when the Conference Server runs in this state."""
        return self in (State.ACTIVE, State.DEGRADED, State.DISABLED)


class Yielding(StrEnum):
    """How far an abnormal node is with handing its consoles over."""

    NO = ""
    ASKING = "asking"
    YIELDED = "yielded"


class Ground(StrEnum):
    """Why the live calls of a failed node may be taken (``core.taking``)."""

    NONE = ""
    RELEASED = "released"
    REFUSED = "refused"
    CONFIRMED = "confirmed"
    CHOSEN = "chosen"
    CONSOLE = "console"

    @property
    def asks_parties(self) -> bool:
        """True when every party of a call must have answered before the call is taken."""
        return self in (Ground.CONFIRMED, Ground.CHOSEN, Ground.CONSOLE)


class Verdict(StrEnum):
    """What this node thinks of a peer, from its own observations and what others saw."""

    UNKNOWN = "unknown"
    ALIVE = "alive"
    SUSPECT = "suspect"
    SILENT = "silent"
    FAILED = "failed"
    SERVICE_FAILED = "service_failed"
    NO_DAEMON = "no_daemon"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a node publishes about itself. Only this counts when nodes are ranked (C2).

    ``takes``: nodes whose live calls it takes over now; ``releases``: it gives its own away.
    """

    node: str
    role: Role
    state: State
    reason: Reason
    since: float = 0.0
    priority: int = 100
    site: str = ""
    incarnation: int = 0
    revision: int = 0
    covers: frozenset[str] = frozenset()
    covering: frozenset[str] = frozenset()
    ineligible: Reason | None = None
    yielding: Yielding = Yielding.NO
    consents: frozenset[str] = frozenset()
    offers: frozenset[str] = frozenset()
    forced: str = ""
    version: str = ""
    takes: frozenset[str] = frozenset()
    releases: bool = False

    @property
    def rank_key(self) -> tuple[int, int, str]:
        """Sort key of candidates: published priority (higher first), master before slave, name."""
        return (-self.priority, 0 if self.role is Role.MASTER else 1, self.node)


@dataclass(frozen=True, kw_only=True)
class PeerView:
    """The detector's verdict on one peer.

    ``sees`` holds the peers that answered, since the suspicion began, that they have a fresh sign
    of life; ``denies`` those that answered that they have none, ``denies_now`` those of them whose
    answer is of this moment; ``hears`` those that hear its `ha`.
    ``is_refused``: its machine showed itself where the service failed (reset, or a connection never
    answered), so that what fails is not the way. ``is_conference_refused``: its SIP port was
    refused since the trouble began and has not answered since. ``returned_at``: when it last gave
    a sign of life after it had been silent, None if it never was.
    """

    peer: str
    verdict: Verdict
    since_at: float
    evidence: tuple[Evidence, ...] = ()
    failed_service: str = ""
    is_refused: bool = False
    is_conference_refused: bool = False
    sees: frozenset[str] = frozenset()
    denies: frozenset[str] = frozenset()
    denies_now: frozenset[str] = frozenset()
    hears: frozenset[str] = frozenset()
    returned_at: float | None = None

    @property
    def is_reachable(self) -> bool:
        """True when this node has a fresh sign of life itself."""
        return self.verdict in (Verdict.ALIVE, Verdict.NO_DAEMON, Verdict.SERVICE_FAILED)


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One peer in a snapshot. ``is_monitored``: this node covers it (its own list, UCI
    ``monitor``).

    ``serving_at``: since when it has been seen serving without an outage (a passing suspicion is
    none), None when it does not serve. ``standby_at``: the same of waiting in standby.
    ``returns``: how many times it has lately come back into service.
    """

    name: str
    view: PeerView
    report: Report | None = None
    is_linked: bool = False
    is_monitored: bool = True
    serving_at: float | None = None
    standby_at: float | None = None
    returns: int = 0

    @property
    def is_serving(self) -> bool:
        """True when the peer can be reached and says that it accepts consoles."""
        return (
            self.view.is_reachable
            and self.report is not None
            and self.report.state.is_serving
            and self.view.verdict is not Verdict.SERVICE_FAILED
        )


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The settings a decision depends on (UCI ``ha.default.*``), in seconds.

    ``failback_damping``: how many times longer a peer must be back that keeps failing, at most.
    ``takes_on_silence``: UCI ``takeover_on_silence`` is ``take``.
    """

    failback: bool = True
    failback_delay: float = 30.0
    failback_damping: int = 16
    stable: float = 30.0
    slot: float = 1.0
    confirm: float = 0.5
    takes_on_silence: bool = False


@dataclass(frozen=True, kw_only=True)
class Own:
    """This node in a snapshot. ``needs``, ``takes``, ``grounds``: those of its last decision.
    ``releases``: it gives its live calls away. ``unlicensed``: masters nobody may replace.
    """

    name: str
    role: Role
    state: State
    reason: Reason
    priority: int = 100
    site: str = ""
    forced: str = ""
    forced_by: str = ""
    paused_by: str = ""
    covering: frozenset[str] = frozenset()
    yielding: Yielding = Yielding.NO
    consents: frozenset[str] = frozenset()
    needs: Mapping[str, float] = field(default_factory=dict)
    takes: Mapping[str, Ground] = field(default_factory=dict)
    grounds: Mapping[str, float] = field(default_factory=dict)
    releases: bool = False
    abnormalities: tuple[Reason, ...] = ()
    healthy_at: float | None = None
    has_network: bool = True
    is_late: bool = False
    is_licensed: bool = True
    unlicensed: frozenset[str] = frozenset()
    rereading_gap: float = 0.0
    consoles: int = 0
    calls: int = 0
    cause: Reason | None = None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Everything a decision sees: taken once, immutable."""

    now: float
    own: Own
    peers: tuple[Peer, ...] = ()
    rules: Rules = field(default_factory=Rules)

    def peer(self, name: str) -> Peer | None:
        """Return the peer of that name."""
        return next((peer for peer in self.peers if peer.name == name), None)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The target: what this node shall be, and why. The shell reconciles the services to it.

    ``wake_at``: monotonic time at which the same facts may give another decision, None if never.
    ``covering``: the nodes this one is active for. ``consents`` and ``offers``: its answers to
    abnormal peers (``core.yielding``). ``ineligible``: why it may not take over, published.
    ``needs``: peer -> since when a standby node sees, without a break, that it needs a replacement:
    the slots of rank count from there. ``takes``: peer -> ground on which this node takes its live
    calls; ``grounds``: peer -> since when there has been one.
    """

    state: State
    reason: Reason
    covering: frozenset[str] = frozenset()
    consents: frozenset[str] = frozenset()
    offers: frozenset[str] = frozenset()
    yielding: Yielding = Yielding.NO
    ineligible: Reason | None = None
    needs: Mapping[str, float] = field(default_factory=dict)
    takes: Mapping[str, Ground] = field(default_factory=dict)
    grounds: Mapping[str, float] = field(default_factory=dict)
    wake_at: float | None = None

    @property
    def console_enabled(self) -> bool:
        """True when the Console Server shall accept consoles."""
        return self.state.is_serving

    @property
    def conference_running(self) -> bool:
        """True when the Conference Server shall run."""
        return self.state.runs_conference
