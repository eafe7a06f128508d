"""One run: builds the cluster of a schedule, lets its faults happen, checks that all ends well."""

from __future__ import annotations

from dataclasses import dataclass, field

from controlone_ha.core.model import Rules
from controlone_ha.core.node_settings import NodeSettings
from tests.simulation.calls import SimCalls
from tests.simulation.ending import Ending
from tests.simulation.faults import Faults
from tests.simulation.ledger import Ledger, RuleBrokenError, Tally
from tests.simulation.links import Dialer
from tests.simulation.rules import TOLERANCE
from tests.simulation.schedule import NodeSpec, Schedule
from tests.simulation.shell import SimNode
from tests.simulation.world import World

CALM = 3
"""Seconds in a row in which all is well, until a run is taken to have ended well."""
PATIENT = 8
"""Of so many runs one goes on to its very end, to see that what is well stays well."""


@dataclass(kw_only=True)
class Result:
    """How a run ended. ``broken`` None: every rule held."""

    broken: RuleBrokenError | None
    tally: Tally
    ended_at: float
    trace: list[str] = field(default_factory=list)


def run(schedule: Schedule, *, trace: bool = False) -> Result:
    """Run ``schedule``; never raises for a broken rule, it returns it."""
    cluster = Cluster(schedule, trace=trace)
    broken = None
    try:
        cluster.play()
    except RuleBrokenError as error:
        broken = error
    return Result(
        broken=broken,
        tally=cluster.ledger.tally,
        ended_at=cluster.world.now,
        trace=cluster.world.trace or [],
    )


class Cluster:
    """The nodes of one schedule, and what its faults do to them."""

    def __init__(self, schedule: Schedule, *, trace: bool = False) -> None:
        self.schedule = schedule
        self.world = World(schedule.seed, delay=schedule.delay, loss=schedule.loss)
        if trace:
            self.world.trace = []
        self.nodes = {
            spec.name: SimNode(self.world, spec, self._settings(spec)) for spec in schedule.nodes
        }
        self.ledger = Ledger(self.world, self.nodes)
        self.calls = SimCalls(self.world, self.nodes, self.ledger)
        for node in self.nodes.values():
            node.ledger = self.ledger
            node.calls = self.calls
            node.cluster = self.nodes
            node.dialers = {peer: Dialer(node, self.nodes[peer]) for peer in node.spec.peers}
        self.world.network.on_heal = self._path_opened
        self._faults = Faults(schedule, self.world, self.nodes, self.ledger)
        self._faults.calls = self.calls
        self._ending = Ending(self.nodes, self.ledger)

    def _settings(self, spec: NodeSpec) -> NodeSettings:
        return NodeSettings(
            name=spec.name,
            role=spec.role,
            monitored=dict(spec.peers),
            priority=spec.priority,
            site=spec.site,
            timing=self.schedule.timing,
            rules=self.schedule.rules(spec),
        )

    def _path_opened(self, source: str, target: str) -> None:
        self.calls.disturbed(source)
        self.calls.disturbed(target)
        link = self.nodes[source].links.get(target) if source in self.nodes else None
        if link is not None:
            link.path_opened(source)

    def prepare(self) -> None:
        """Have every node boot, and every fault happen in its time."""
        self.calls.prepare()
        for node in self.nodes.values():
            self.world.at(self.world.chance(node.name).random(), node.boot)
        for fault in self.schedule.faults:
            self.world.at(fault.at, self._faults.begin, fault)

    def run_to(self, time: float) -> None:
        """Let time pass up to ``time``."""
        self.world.run(time)

    def play(self) -> None:
        """Run to the end: raise when a rule does not hold, or when all is not well in time."""
        self.prepare()
        calm, calm_at, second = 0, None, 0.0
        while second < self.schedule.end_at:
            second += 1.0
            self.world.run(second)
            self.ledger.second()
            if second <= self.schedule.heal_at:
                continue
            if calm_at is not None:
                self._stays_calm(calm_at)
                continue
            problem = self._ending.trouble()
            calm = 0 if problem else calm + 1
            if calm >= CALM:
                calm_at = second
                if self.schedule.seed % PATIENT:
                    return
        if calm_at is None:
            name, text = problem or ("", "did not stay well")
            raise RuleBrokenError("all_ends_well", name, self.world.now, text)

    def _stays_calm(self, calm_at: float) -> None:
        for name, changed_at in self.ledger.changed_at.items():
            # Where another node stays out of service for good, a slave whose own master is back
            # may be in its place until it fails back, and that is well, too.
            failback = self.schedule.failback_delay * Rules().failback_damping * (1 + TOLERANCE)
            if changed_at > calm_at + failback:
                text = f"changed at {changed_at:.3f} s, although all had been well"
                raise RuleBrokenError("all_stays_well", name, self.world.now, text)
