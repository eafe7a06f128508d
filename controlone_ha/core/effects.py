"""What the core of a node asks of its shell, and what it wants kept over restarts. Data only."""

from __future__ import annotations

from dataclasses import dataclass, field

from controlone_ha.core.model import Ground, PeerView, Report, Role, State, Verdict
from controlone_ha.core.observations import Service
from controlone_ha.core.reasons import Reason, reason


@dataclass(frozen=True, kw_only=True)
class KnownPeer:
    """What a peer was when it was last heard; it is judged by that after a restart."""

    name: str
    role: Role
    state: State
    site: str = ""


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """What survives a restart of `ha` and a reboot: orders of the operator, known peers, state.

    ``known``: peers that have ever answered. ``peers``: those that have said what they are.
    """

    forced: str = ""
    forced_by: str = ""
    paused_by: str = ""
    known: frozenset[str] = frozenset()
    peers: frozenset[KnownPeer] = frozenset()
    state: State = State.STARTING
    reason: Reason = field(default_factory=lambda: reason("starting"))
    covering: frozenset[str] = frozenset()
    cause: Reason | None = None

    def stand_in(self, name: str) -> Report | None:
        """Return what stands for a peer's last report, older than any that the peer will send."""
        last = next((item for item in self.peers if item.name == name), None)
        if last is None:
            return None
        return Report(
            node=name,
            role=last.role,
            state=last.state,
            site=last.site,
            reason=reason("starting"),
            incarnation=-1,
        )


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Root of what ``step`` asks of the shell."""


@dataclass(frozen=True, kw_only=True)
class Publish(Effect):
    """Send this report to every linked peer."""

    report: Report


@dataclass(frozen=True, kw_only=True)
class AskSightings(Effect):
    """Ask every other linked peer when it last had a sign of life of ``peer``."""

    peer: str


@dataclass(frozen=True, kw_only=True)
class AskReports(Effect):
    """Ask every linked peer for its report again (after this node stood still)."""


@dataclass(frozen=True, kw_only=True)
class RestartService(Effect):
    """Kill and start a service that runs and does not answer."""

    service: Service


@dataclass(frozen=True, kw_only=True)
class TakeCalls(Effect):
    """Take the live calls of ``peer`` over: this node has published that it does."""

    peer: str
    ground: Ground


@dataclass(frozen=True, kw_only=True)
class Transition(Effect):
    """This node's state or its reason changed: log and history."""

    before: State
    after: State
    reason: Reason


@dataclass(frozen=True, kw_only=True)
class PeerTransition(Effect):
    """The verdict on a peer changed: log and history."""

    before: Verdict
    view: PeerView


@dataclass(frozen=True, kw_only=True)
class Remember(Effect):
    """Write this to stable storage before anything that follows from it is done."""

    remembered: Remembered
