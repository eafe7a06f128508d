"""What faults and operators do to the nodes of a run: one method a kind, which returns its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from controlone_ha.core.node import Node
from controlone_ha.core.observations import Service
from controlone_ha.core.reasons import reason
from tests.simulation.schedule import Fault, Schedule

if TYPE_CHECKING:
    from tests.simulation.calls import SimCalls
    from tests.simulation.ledger import Ledger
    from tests.simulation.shell import SimNode
    from tests.simulation.world import World


class Faults:
    """Lets the faults of one schedule happen."""

    def __init__(
        self, schedule: Schedule, world: World, nodes: dict[str, SimNode], ledger: Ledger
    ) -> None:
        self.schedule = schedule
        self.world = world
        self.nodes = nodes
        self.ledger = ledger
        self.calls: SimCalls
        self._losses: list[float] = []
        self._delays: list[float] = []

    def begin(self, fault: Fault) -> None:
        """Let ``fault`` begin now, and end when it is over."""
        self.world.note(f"fault: {describe(fault)}")
        end = getattr(self, f"_{fault.kind}")(fault)
        if end is not None:
            self.world.after(fault.duration, self._end, fault, end)

    def _end(self, fault: Fault, end: Callable[[], None]) -> None:
        self.world.note(f"over: {describe(fault)}")
        end()

    def _cut_paths(self, fault: Fault, paths: list[tuple[str, str]]) -> Callable[[], None]:
        network, is_told = self.world.network, bool(fault.value)
        for source, target in paths:
            network.cut(source, target, is_told=is_told)

        def mend() -> None:
            for source, target in paths:
                network.mend(source, target, is_told=is_told)

        return mend

    def _partition(self, fault: Fault) -> Callable[[], None]:
        inside = set(fault.text.split(","))
        return self._cut_paths(
            fault,
            [
                (one, other)
                for one in self.nodes
                for other in self.nodes
                if (one in inside) is not (other in inside)
            ]
            + self.calls.cut_off(inside),
        )

    def _cut(self, fault: Fault) -> Callable[[], None]:
        return self._cut_paths(fault, [(fault.node, fault.other), (fault.other, fault.node)])

    def _cut_one_way(self, fault: Fault) -> Callable[[], None]:
        return self._cut_paths(fault, [(fault.node, fault.other)])

    def _unplug(self, fault: Fault) -> Callable[[], None]:
        node = self.nodes[fault.node]
        mend = self._partition(replace(fault, text=fault.node))

        def network(is_up: bool) -> None:
            def told(core: Node) -> None:
                core.network(is_up)
                self.ledger.told(node, "unplugged", not is_up)

            node.has_network = is_up
            node.tell(told)

        def plug() -> None:
            mend()
            network(True)

        network(False)
        return plug

    def _break_link(self, fault: Fault) -> None:
        link = self.nodes[fault.node].links.get(fault.other)
        if link is not None:
            for name in (fault.node, fault.other):
                if link.is_open[name]:
                    link.is_open[name] = False
                    self.nodes[name].link_ended(link, link.peer_of(name), "reset")

    def _kill(self, fault: Fault) -> Callable[[], None]:
        return self._die(fault, is_dark=False)

    def _power(self, fault: Fault) -> Callable[[], None]:
        return self._die(fault, is_dark=True)

    def _die(self, fault: Fault, *, is_dark: bool) -> Callable[[], None]:
        node = self.nodes[fault.node]
        node.die(is_dark=is_dark)
        life = node.life

        def boot() -> None:
            if not node.is_up and node.life == life:
                node.boot()

        return boot

    def _freeze(self, fault: Fault) -> Callable[[], None]:
        node = self.nodes[fault.node]
        if node.is_up and not node.is_machine_still:
            node.stand_still(machine=True, is_suspended=bool(fault.value))
        return lambda: node.go_on(machine=True)

    def _freeze_ha(self, fault: Fault) -> Callable[[], None]:
        node = self.nodes[fault.node]
        node.stand_still(machine=False)
        return lambda: node.go_on(machine=False)

    def _kill_ha(self, fault: Fault) -> Callable[[], None]:
        node = self.nodes[fault.node]
        if fault.value:
            node.die_after_effects = int(fault.value)
        elif node.core is not None:
            node.kill_ha()

        def start() -> None:
            node.die_after_effects = None
            node.start_ha(node.life)

        return start

    def _restart_ha(self, fault: Fault) -> Callable[[], None]:
        node = self.nodes[fault.node]
        if node.core is not None and not node.is_still:
            node.kill_ha()
        return lambda: node.start_ha(node.life)

    def _crash(self, fault: Fault) -> Callable[[], None]:
        service = self.nodes[fault.node].services[Service(fault.text)]
        service.is_broken += 1
        service.kill()

        def repair() -> None:
            service.is_broken -= 1

        return repair

    def _freeze_service(self, fault: Fault) -> Callable[[], None]:
        service = self.nodes[fault.node].services[Service(fault.text)]
        service.is_frozen = service.is_running

        def go_on() -> None:
            service.is_frozen = False

        return go_on

    def _abnormal(self, fault: Fault) -> Callable[[], None]:
        node = self.nodes[fault.node]

        def tell(found: bool) -> None:
            what = (reason("console_down", detail="disk full"),) if found else ()

            def told(core: Node) -> None:
                core.host_abnormal(what)
                self.ledger.told(node, "abnormal", found)

            node.abnormalities = what
            node.tell(told)

        tell(True)
        return lambda: tell(False)

    def _slow(self, fault: Fault) -> Callable[[], None]:
        node = self.nodes[fault.node]
        node.slow_down(fault.value)

        def speed_up() -> None:
            node.slow_down(-fault.value)

        return speed_up

    def _clock(self, fault: Fault) -> Callable[[], None]:
        node = self.nodes[fault.node]
        if node.is_machine_still:
            return lambda: None
        node.set_rate(fault.value)
        return lambda: None if node.is_machine_still else node.set_rate(1.0)

    def _loss(self, fault: Fault) -> Callable[[], None]:
        return self._worst(self._losses, "loss", self.schedule.loss, fault.value)

    def _delay(self, fault: Fault) -> Callable[[], None]:
        return self._worst(self._delays, "extra_delay", 0.0, fault.value)

    def _duplicate(self, fault: Fault) -> Callable[[], None]:
        return self._worst([], "duplicates", 0.0, fault.value)

    def _worst(
        self, present: list[float], name: str, normal: float, value: float
    ) -> Callable[[], None]:
        network = self.world.network
        present.append(value)
        setattr(network, name, max(present))

        def over() -> None:
            present.remove(value)
            setattr(network, name, max(present, default=normal))

        return over

    def _order(self, fault: Fault) -> Callable[[], None] | None:
        self.order(fault.node, fault.text)
        return (lambda: self.order(fault.node, "resume")) if fault.duration else None

    def order(self, name: str, order: str) -> None:
        """Give an order: it counts when the node has acknowledged it, that is, carried it out."""
        node, ledger = self.nodes[name], self.ledger

        def give(core: Node) -> None:
            if order == "pause":
                core.pause("root")
            elif order == "resume":
                core.resume()
            elif core.refusal_of_force(order.removeprefix("force_")) is None:
                core.force(order.removeprefix("force_"), "root")
            else:
                return
            before = ledger.forced[name], ledger.paused[name]
            ledger.ordered(node, order)
            node.step()
            if node.core is None and node.remembered.forced != ledger.forced[name]:
                ledger.forced[name] = before[0]
            if node.core is None and bool(node.remembered.paused_by) != ledger.paused[name]:
                ledger.paused[name] = before[1]

        node.tell(give)

    def _load(self, fault: Fault) -> Callable[[], None]:
        node = self.nodes[fault.node]

        def tell(consoles: int) -> None:
            node.consoles = consoles
            node.tell(lambda core: core.load(consoles, 0))

        tell(int(fault.value))
        return lambda: tell(0)

    def _reload(self, fault: Fault) -> Callable[[], None]:
        node = self.nodes[fault.node]
        before = node.settings.monitored

        def tell(monitored: dict[str, bool]) -> None:
            node.settings = replace(node.settings, monitored=monitored)
            node.tell(lambda core: core.reconfigure(node.now, node.settings))

        tell({**before, fault.other: not before.get(fault.other)})
        return lambda: tell(before)

    def _licence(self, fault: Fault) -> Callable[[], None]:
        node = self.nodes[fault.node]

        def tell(is_licensed: bool) -> None:
            node.settings = replace(node.settings, is_licensed=is_licensed)
            node.tell(lambda core: core.reconfigure(node.now, node.settings))

        tell(False)
        return lambda: tell(True)


def describe(fault: Fault) -> str:
    """Return a fault in a few words."""
    parts = [fault.kind, fault.node, fault.other, fault.text]
    words = " ".join(part for part in parts if part)
    if fault.value:
        words += f" {fault.value:g}"
    return words + (f" for {fault.duration:.3f} s" if fault.duration else "")
