"""Live calls in the simulator: parties at the sites, dialogs, and how a node takes calls over.

Theory of operation. A party (gateway or console) stands at a site or on a network of its own, and
reaches the nodes that its side of a partition reaches. It accepts whoever names the dialog that it
is in and refuses everybody else (481); so the truth about a call is what its parties think. Every
node has a copy of the calls, which travels over the links and merges by generation.

A console whose server has not answered for ``PATIENCE`` logs in at a serving node it reaches and
says what it lost. The taking itself is done as DESIGN orders it: where the ground rests on silence
all parties must answer first, then the gateway's dialog is asked, then the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from controlone_ha.core.calls import Call, CallTable
from controlone_ha.core.effects import Effect, TakeCalls
from controlone_ha.core.model import Ground, Role, Verdict
from controlone_ha.core.observations import Service
from controlone_ha.core.taking import console_ground

if TYPE_CHECKING:
    from tests.simulation.ledger import Ledger
    from tests.simulation.shell import SimNode
    from tests.simulation.world import World

BEGIN_AT = 8.0
PATIENCE = 3.0
THIRD = ""


def party_at(site: str) -> str:
    """Return the name under which the network knows the parties of a site."""
    return f"party/{site}"


@dataclass(kw_only=True)
class SimCall:
    """The truth about one call: whom each party talks with, and the process that anchors it."""

    id: str
    gateway: str
    console: str
    anchor: str
    process: int
    generation: int = 1
    talks_with: dict[str, tuple[str, int]] = field(default_factory=dict)
    lost_at: float | None = None

    @property
    def parties(self) -> tuple[str, str]:
        """Where its parties stand."""
        return self.gateway, self.console


class SimCalls:
    """All calls of a run."""

    def __init__(self, world: World, nodes: dict[str, SimNode], ledger: Ledger) -> None:
        self.world = world
        self.nodes = nodes
        self.ledger = ledger
        self.tables = {name: CallTable() for name in nodes}
        self.calls: dict[str, SimCall] = {}
        self._disturbed_at: dict[str, float] = {}
        self.sites = sorted({node.spec.site for node in nodes.values()} | {THIRD})

    def prepare(self) -> None:
        """Have calls begin once the cluster is up, and consoles look after their server."""
        self.world.at(BEGIN_AT, self._begin)

    def side(self, inside: set[str], site: str) -> bool:
        """Return whether the parties of ``site`` are on the side of ``inside`` in a partition.

        They go with most nodes of their site; parties of no site reach both sides.
        """
        there = [name for name, node in self.nodes.items() if node.spec.site == site]
        return len(inside) > 1 and 2 * len(inside.intersection(there)) > len(there)

    def cut_off(self, inside: set[str]) -> list[tuple[str, str]]:
        """Return the paths between nodes and parties that a partition cuts."""
        paths = []
        for site in self.sites:
            for name in self.nodes:
                is_apart = (name in inside) is not self.side(inside, site)
                if is_apart and (site != THIRD or inside == {name}):
                    paths += [(name, party_at(site)), (party_at(site), name)]
        return paths

    def _begin(self) -> None:
        chance = self.world.chance("calls")
        for node in self.nodes.values():
            service = node.services[Service.CONFERENCE]
            if node.spec.role is not Role.MASTER or not service.is_answering:
                continue
            for number in range(3):
                gateway, console = (party_at(chance.choice(self.sites)) for _ in range(2))
                call = SimCall(
                    id=f"{node.name}-{number}",
                    gateway=gateway,
                    console=f"{console}#{number}",
                    anchor=node.name,
                    process=service.process,
                )
                call.talks_with = dict.fromkeys(call.parties, (node.name, 1))
                self.calls[call.id] = call
                for table in self.tables.values():
                    table.merge(Call(id=call.id, owner=node.name))
        self.world.after(1.0, self._second)

    # --- the truth ------------------------------------------------------------------------------

    def is_open(self, node: str, party: str) -> bool:
        """True when a node and a party reach each other now."""
        place = party.partition("#")[0]
        return not self.nodes[node].is_dark and self.world.network.is_open_both_ways(node, place)

    def is_served(self, call: SimCall) -> bool:
        """True while the server that anchors the call has it and reaches every party."""
        node = self.nodes[call.anchor]
        service = node.services[Service.CONFERENCE]
        return (
            service.is_answering
            and service.process == call.process
            and all(self.is_open(call.anchor, party) for party in call.parties)
        )

    def is_served_for_some_time(self, call: SimCall) -> bool:
        """True when the server has been there for as long as a sign of life takes to be noticed:
        one that has just come back cannot be known of yet.
        """
        node = self.nodes[call.anchor]
        disturbed_at = self._disturbed_at.get(call.anchor, -1e9)
        is_settled = self.world.now - disturbed_at >= node.settings.timing.fresh
        return is_settled and self.is_served(call)

    def disturbed(self, node: str) -> None:
        """A node has gone on, or a path to it is open again."""
        self._disturbed_at[node] = self.world.now

    # --- taking ---------------------------------------------------------------------------------

    def carry_out(self, node: SimNode, effect: Effect) -> None:
        """`ha` of ``node`` has decided to take the calls of a peer."""
        if isinstance(effect, TakeCalls):
            self.world.note(f"{node.name}: takes the calls of {effect.peer}: {effect.ground.value}")
            for known in self.tables[node.name].live_of(effect.peer):
                self.world.after(0.02, self._take, node, node.life, known, effect.ground)

    def _take(self, node: SimNode, life: int, known: Call, ground: Ground) -> None:
        core = node.core
        call = self.calls[known.id]
        if core is None or life != node.life or node.is_still:
            return
        # Between the decision and the deed time passes: the ground must hold when it is done.
        if ground is Ground.CONSOLE:
            holds = console_ground(core.snapshot(node.now), known.owner)[0] is ground
        else:
            holds = known.owner in core.decision.takes
        if not holds:
            return
        if not node.services[Service.CONFERENCE].is_answering:
            if core.decision.conference_running:  # it is being started
                self.world.after(0.2, self._take, node, life, known, ground)
            return
        if ground.asks_parties and not all(self.is_open(node.name, one) for one in call.parties):
            return
        if not self._accepts(call, call.gateway, node.name, known):
            return
        self.ledger.takes_call(node, call, ground, is_served=self.is_served_for_some_time(call))
        claimed = known.claimed_by(node.name, self.world.now)
        for party in call.parties:
            if self._accepts(call, party, node.name, known):
                call.talks_with[party] = (node.name, claimed.generation)
        call.anchor, call.generation = node.name, claimed.generation
        call.process = node.services[Service.CONFERENCE].process
        call.lost_at = None
        self.tables[node.name].merge(claimed)
        for link in node.links.values():
            link.send(node.name, "call", claimed)

    def _accepts(self, call: SimCall, party: str, node: str, known: Call) -> bool:
        return self.is_open(node, party) and call.talks_with[party] == (
            known.owner,
            known.generation,
        )

    def received(self, node: str, call: Call) -> None:
        """A call's document arrived over a link."""
        self.tables[node].merge(call)

    def linked(self, node: SimNode, peer: str) -> None:
        """A link is up: the node tells all calls it knows."""
        link = node.links.get(peer)
        if link is not None:
            for call in self.tables[node.name]:
                link.send(node.name, "call", call)

    # --- consoles -------------------------------------------------------------------------------

    def _second(self) -> None:
        for call in self.calls.values():
            if self.is_served(call):
                call.lost_at = None
            elif call.lost_at is None:
                call.lost_at = self.world.now
            elif self.world.now - call.lost_at >= PATIENCE:
                self._console_arrives(call)
        self.world.after(1.0, self._second)

    def _console_arrives(self, call: SimCall) -> None:
        if self.is_open(call.anchor, call.console) and self.nodes[call.anchor].is_serving:
            return  # the console is still connected: it is the gateway that is lost
        for node in self.nodes.values():
            core = node.core
            if not node.is_serving or core is None or node.is_still:
                continue
            if node.name == call.anchor or not self.is_open(node.name, call.console):
                continue
            core.console_lost(node.now, call.console, call.anchor)
            known = self.tables[node.name].get(call.id)
            if known is None or core.verdict(known.owner) in (Verdict.ALIVE, Verdict.UNKNOWN):
                return
            ground, _ = console_ground(core.snapshot(node.now), known.owner)
            if ground is Ground.CONSOLE:
                self._take(node, node.life, known, ground)
            return
