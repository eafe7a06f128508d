"""Named situations, at a random moment of the cluster's rhythm: what must happen, and how soon."""

from __future__ import annotations

import dataclasses
from random import Random

from controlone_ha.core.model import Role, State
from tests.simulation.generate import figure
from tests.simulation.run import Cluster
from tests.simulation.schedule import Fault, NodeSpec, Schedule

CALM_AT = 15.0
"""By then every node has started and all links are open."""
WAIT = 12.0


def on_figure(seed: int, *faults: Fault, interval: float = 10.0, **changes: object) -> Schedule:
    """Return a schedule of figure 1 with ``faults``, whose times count from a random moment."""
    chance = Random(seed)
    nodes = tuple(dataclasses.replace(spec, failback=True) for spec in figure(chance))
    start = CALM_AT + chance.random() * max(1.0, interval / 10)
    moved = tuple(dataclasses.replace(fault, at=start + fault.at) for fault in faults)
    return Schedule(
        seed=seed,
        nodes=nodes,
        faults=moved,
        heal_at=start + 60.0,
        end_at=start + 120.0,
        interval=interval,
        **changes,  # type: ignore[arg-type]
    )


def pair(seed: int, *faults: Fault, interval: float = 10.0) -> Schedule:
    """Return a schedule of a master and its slave alone."""
    schedule = on_figure(seed, *faults, interval=interval)
    nodes = (
        NodeSpec(name="m1", role=Role.MASTER, peers={"s1": True}),
        NodeSpec(name="s1", role=Role.SLAVE, peers={"m1": True}),
    )
    return dataclasses.replace(schedule, nodes=nodes)


class Story:
    """A cluster that can be looked at while it runs."""

    def __init__(self, schedule: Schedule) -> None:
        self.cluster = Cluster(schedule, trace=True)
        self.cluster.prepare()
        self.began_at = min((fault.at for fault in schedule.faults), default=CALM_AT)
        self.cluster.run_to(self.began_at)

    def state(self, name: str) -> State:
        """Return what ``name`` has decided to be."""
        core = self.cluster.nodes[name].core
        return State.STARTING if core is None else core.decision.state

    def code(self, name: str) -> str:
        """Return the code of the reason of ``name``."""
        core = self.cluster.nodes[name].core
        return "" if core is None else core.decision.reason.code

    def states(self) -> dict[str, State]:
        """Return what all have decided to be."""
        return {name: self.state(name) for name in self.cluster.nodes}

    def after(self, seconds: float) -> Story:
        """Go on to ``seconds`` after the first fault."""
        self.cluster.run_to(self.began_at + seconds)
        return self

    def time_until(self, name: str, state: State, *, within: float = WAIT) -> float | None:
        """Return after how many seconds ``name`` decides to be ``state``; None: it does not."""
        time = self.began_at
        while time < self.began_at + within:
            time += 0.005
            self.cluster.run_to(time)
            if self.state(name) is state:
                return time - self.began_at
        return None

    @property
    def trace(self) -> str:
        """The story so far, for a failing test."""
        return "\n".join(self.cluster.world.trace or [])


def crash_bound(schedule: Schedule) -> float:
    """Seconds from the death of a machine's processes to its replacement: the reset and one refused
    probe, each one way there and back, and the time a person would not notice.
    """
    return 8 * schedule.delay + 0.05


def cut_bound(schedule: Schedule) -> float:
    """Seconds from a silent death to the replacement, as docs/detector.md gives them: suspicion,
    probes in silence, and a round of asking.
    """
    timing, rules = schedule.timing, schedule.rules(schedule.nodes[0])
    silence = timing.failures * timing.fast_interval + timing.fast_timeout
    return timing.suspect_after + silence + rules.confirm + 8 * schedule.delay
