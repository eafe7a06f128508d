"""The fake links between daemons: open, carry frames in order, fall silent, end, and are redialed.

Theory of operation. A link is TCP through SSH. Frames of one direction arrive in order, late when
packets are lost, and wait while the path is cut; after the cut they come when TCP tries again. Each
end closes by itself when nothing came for ``timeout``; the other end hears of it when the path is
open. A process that dies closes its ends through its kernel; a machine that goes dark says nothing,
and its kernel resets what it does not know when it is back.

Dialing follows ``peers.links``: whoever lists a peer dials it while there is no link, the lower
name first, with the same growing, jittered waits; a new link replaces one that the other end has
not seen end yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controlone_ha.peers.choose import Backoff, first_wait

if TYPE_CHECKING:
    from tests.simulation.shell import SimNode
    from tests.simulation.world import World

SILENT = 10.0
DIAL_TIMEOUT = 10.0


class SimLink:
    """One link. ``is_open[name]``: the end at that node still holds it."""

    def __init__(self, world: World, one: SimNode, other: SimNode) -> None:
        self.world = world
        self.ends = {one.name: one, other.name: other}
        self.is_open = {one.name: True, other.name: True}
        self.received_at = {one.name: world.now, other.name: world.now}
        self._peer = {one.name: other.name, other.name: one.name}
        self._last = {one.name: 0.0, other.name: 0.0}
        self._waiting: dict[str, list[tuple[str, Any]]] = {one.name: [], other.name: []}
        self._chance = {name: world.chance(f"link {name}>{self._peer[name]}") for name in self.ends}

    def peer_of(self, name: str) -> str:
        """Return the node at the other end."""
        return self._peer[name]

    def send(self, source: str, kind: str, payload: Any = None) -> None:
        """Send a frame from the end at ``source``."""
        target = self._peer[source]
        network = self.world.network
        if self._waiting[source] or not network.is_open(source, target):
            self._waiting[source].append((kind, payload))
            return
        chance = self._chance[source]
        late = network.delay(chance)
        if network.loss:
            late += network.retransmissions(chance)
        arrival = max(self._last[source] + 1e-6, self.world.now + late)
        self._last[source] = arrival
        self.world.at(arrival, self._arrive, target, kind, payload)
        is_message = kind in ("report", "sighted")
        if is_message and network.duplicates and chance.random() < network.duplicates:
            self.world.at(arrival + 1e-7, self._arrive, target, kind, payload)

    def path_opened(self, source: str) -> None:
        """The path from ``source`` is open again: TCP notices when it tries again."""
        if self._waiting[source]:
            wait = 0.05 + 2.0 * self._chance[source].random()
            self.world.after(wait, self._resend, source)

    def _resend(self, source: str) -> None:
        if not self.world.network.is_open(source, self._peer[source]):
            return  # cut again: the next mending resends
        waiting, self._waiting[source] = self._waiting[source], []
        for kind, payload in waiting:
            self.send(source, kind, payload)

    def _arrive(self, target: str, kind: str, payload: Any) -> None:
        node = self.ends[target]
        if not self.is_open[target]:
            return
        if node.is_dark:
            return
        if node.is_still:
            node.hold(self._arrive, target, kind, payload)
            return
        self.received_at[target] = self.world.now
        if kind == "end":
            self.is_open[target] = False
            node.link_ended(self, self._peer[target], payload)
        else:
            node.receive(self, self._peer[target], kind, payload)

    def close(self, name: str, detail: str) -> None:
        """The end at ``name`` lets go; the other end hears ``detail``, sooner or later."""
        if self.is_open[name]:
            self.is_open[name] = False
            self.send(name, "end", detail)

    def drop(self, name: str) -> None:
        """The end at ``name`` is gone and nobody is told."""
        self.is_open[name] = False

    def reset_by_boot(self, name: str) -> None:
        """The machine of ``name`` has booted: it resets the connection at the next segment."""
        self.is_open[name] = False
        self.world.after(self._chance[name].random(), self.send, name, "end", "reset")


class Dialer:
    """Keeps a link from ``node`` to one peer of its list."""

    def __init__(self, node: SimNode, peer: SimNode) -> None:
        self._node = node
        self._peer = peer
        self._world = node.world
        self._chance = node.world.chance(f"dial {node.name}>{peer.name}")
        self._backoff = Backoff(self._chance.random)
        self._generation = 0
        self._life = 0

    def start(self, life: int) -> None:
        """`ha` has started, or the link has ended: dial, the lower name first."""
        self._life = life
        self._backoff.reset()
        wait = first_wait(self._node.name, self._peer.name)
        self._schedule(wait + 0.02 * self._chance.random())

    def _schedule(self, wait: float) -> None:
        self._generation += 1
        self._world.after(wait, self._dial, self._generation)

    def _is_over(self, generation: int) -> bool:
        return (
            generation != self._generation
            or self._node.life != self._life
            or self._node.core is None
            or self._peer.name in self._node.links
        )

    def _dial(self, generation: int) -> None:
        if self._is_over(generation):
            return
        node, peer, network = self._node, self._peer, self._world.network
        if node.is_still:
            self._schedule(0.3)
            return
        if (
            peer.is_dark
            or peer.is_machine_still
            or not network.is_open_both_ways(node.name, peer.name)
        ):
            # SYNs are repeated after 1, 3 and 7 s: the way back is found by one of them.
            self._schedule(1.0 + 3.0 * self._chance.random())
            return
        if peer.core is None or network.is_lost(self._chance):
            self._schedule(self._backoff.next())
            return
        handshake = 0.03 + 0.3 * self._chance.random() + 8 * network.delay(self._chance)
        self._world.after(handshake, self._finish, generation, peer.life)

    def _finish(self, generation: int, peer_life: int) -> None:
        if self._is_over(generation):
            return
        node, peer = self._node, self._peer
        is_possible = (
            peer.life == peer_life
            and peer.core is not None
            and not node.is_still
            and not peer.is_still
            and not peer.is_dark
            and self._world.network.is_open_both_ways(node.name, peer.name)
        )
        if not is_possible:
            self._schedule(self._backoff.next())
            return
        link = SimLink(self._world, node, peer)
        for end, other in ((node, peer), (peer, node)):
            old = end.links.get(other.name)
            if old is not None:
                old.drop(end.name)  # replaced: no failure
            end.links[other.name] = link
        peer.link_opened(link, node.name)
        node.link_opened(link, peer.name)
