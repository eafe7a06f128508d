"""Whether all is well in the end: when every fault is over, the cluster is what it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlone_ha.core.model import Role, State, Verdict, Yielding
from controlone_ha.core.observations import Service

if TYPE_CHECKING:
    from tests.simulation.ledger import Ledger
    from tests.simulation.shell import SimNode


class Ending:
    """Looks at every node, from outside."""

    def __init__(self, nodes: dict[str, SimNode], ledger: Ledger) -> None:
        self.nodes = nodes
        self.ledger = ledger

    def trouble(self) -> tuple[str, str] | None:
        """Return (node, what is not well yet), None when everything is as it should be."""
        for node in self.nodes.values():
            text = self._trouble_of(node)
            if text:
                return node.name, text
        return None

    def _trouble_of(self, node: SimNode) -> str:
        core = node.core
        if core is None or node.is_still:
            return "`ha` is away"
        state = core.decision.state
        expected = self._expected(node)
        if expected and state not in expected:
            wanted = " or ".join(expected)
            return f"is {state.value}, should be {wanted}: {core.decision.reason.text()}"
        if core.decision.yielding is not Yielding.NO and not self.ledger.paused[node.name]:
            return f"yields: {core.decision.yielding.value}"
        if node.is_serving is not core.decision.console_enabled:
            return f"decided {state.value}, but its Console Server says otherwise"
        if node.services[Service.CONFERENCE].is_answering is not core.decision.conference_running:
            return f"decided {state.value}, but its Conference Server says otherwise"
        for peer, tracker in core.trackers.items():
            if core.verdict(peer) is not Verdict.ALIVE:
                return f"thinks that {peer} is {core.verdict(peer).value}"
            other = self.nodes[peer].core
            known = tracker.report
            if other is None or known is None or known.state is not other.decision.state:
                return f"believes a wrong state of {peer}"
        return self._uncovered(node)

    def _expected(self, node: SimNode) -> tuple[State, ...]:
        name = node.name
        if node.is_passive:
            return (State.PASSIVE,)
        if self.ledger.forced[name] == "active":
            return (State.ACTIVE,)
        if self.ledger.paused[name]:
            return ()
        if node.spec.role is Role.MASTER:
            return (State.ACTIVE,)
        masters = [self.nodes[peer] for peer in node.spec.peers if self._is_master(peer)]
        if not masters or any(self._expected(master) != (State.ACTIVE,) for master in masters):
            return ()
        return (State.STANDBY,) if node.spec.failback else (State.STANDBY, State.ACTIVE)

    def _is_master(self, name: str) -> bool:
        return self.nodes[name].spec.role is Role.MASTER

    def _uncovered(self, node: SimNode) -> str:
        """A master that was forced passive has somebody who serves for it, if anybody can."""
        if node.spec.role is not Role.MASTER or self.ledger.forced[node.name] != "passive":
            return ""
        able = [
            other
            for other in self.nodes.values()
            if other.spec.role is Role.SLAVE
            and other.spec.peers.get(node.name)
            and not self.ledger.paused[other.name]
            and not self.ledger.forced[other.name]
        ]
        if able and not any(other.is_serving for other in able):
            return "was forced passive and nobody serves for it"
        return ""
