"""Figures of the pure core: decision time, the simulator's rate, suspicions of what is well.

``python -m tests.bench.core_figures`` prints them; ``figures()`` returns them for ``make bench``.
``--curve`` prints how decision time and messages grow, for docs/scaling.md.

A *false verdict* is one of silent, failed or service_failed about a node that was well all along; a
suspicion is less: it costs a few probes. Both are counted per hour on the five nodes of figure 1,
at default settings (interval 10 s). Loss is simulated. Load is measured: while busy loops fill this
machine, the lateness of a process's own timers is recorded, and an hour is simulated in which the
loops of the nodes are late in just this way. "Without self-doubt" is the same hour with a detector
that does not stretch its patience when it is itself late.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

from controlone_ha.core.decide import decide
from controlone_ha.core.model import Report, Role, State
from controlone_ha.core.node import Node
from controlone_ha.core.node_settings import NodeSettings
from controlone_ha.core.observations import Outcome, ProbeResult, Service
from controlone_ha.core.reasons import reason
from controlone_ha.lab.figures import Figure, figures_table, median_figure
from tests.simulation.batch import run_seeds
from tests.simulation.ledger import Tally
from tests.simulation.links import SimLink
from tests.simulation.run import Cluster
from tests.simulation.scenarios import on_figure
from tests.simulation.schedule import Fault, NodeSpec, Schedule

HOUR = 3600.0
RUNS = 3
SCHEDULES = 60
SAMPLE = 0.05


def figures() -> list[Figure]:
    """Measure everything; takes a few minutes."""
    found = [
        median_figure(
            "simulated_schedules_per_s",
            [_rate(first) for first in range(0, RUNS * SCHEDULES, SCHEDULES)],
            f"1/s, {os.cpu_count()} cores",
            is_lower_bound=True,
        ),
        median_figure(
            "decide_us_200_nodes",
            [decide_microseconds(200) for _ in range(RUNS)],
            "us",
            anchor="5 nodes",
            anchor_values=[decide_microseconds(5) for _ in range(RUNS)],
        ),
    ]
    return found + _loss_figures() + _load_figures()


# --- rate and decision time ---------------------------------------------------------------------


def _rate(first: int) -> float:
    """Return five-node schedules per second, on all processors."""
    started = time.monotonic()
    done = sum(1 for _ in run_seeds(range(first, first + SCHEDULES), size=5))
    return done / (time.monotonic() - started)


def crowded_node(count: int, *, silent: int = 0) -> Node:
    """Return a standby slave that is linked with ``count - 1`` masters, ``silent`` of them mute."""
    names = [f"n{number:03d}" for number in range(count)]
    settings = NodeSettings(
        name=names[0], role=Role.SLAVE, monitored=dict.fromkeys(names[1:], True), site="a"
    )
    node = Node(settings, now=0.0, incarnation=1)
    node.step(0.0)
    for name in names[1:]:
        node.link_up(0.0, name)
        node.reported(
            0.0,
            Report(
                node=name,
                role=Role.MASTER,
                state=State.ACTIVE,
                reason=reason("role_master"),
                site="a",
                covers=frozenset(names) - {name},
            ),
        )
    node.step(0.1)
    for name in names[1 : silent + 1]:
        node.link_down(0.2, name, "reset")
        for service in (Service.CONSOLE, Service.CONFERENCE):
            for _ in range(3):
                node.probed(0.3, name, ProbeResult(service=service, outcome=Outcome.TIMEOUT))
    node.step(0.4)
    return node


def _microseconds(work: Callable[[], object], count: int) -> float:
    times = []
    for _ in range(count):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


def decide_microseconds(count: int) -> float:
    """Return the median time of ``decide`` on a snapshot of ``count`` nodes."""
    snapshot = crowded_node(count).snapshot(0.5)
    return _microseconds(lambda: decide(snapshot), max(30, 4000 // count))


def step_microseconds(count: int, *, silent: int = 0) -> float:
    """Return the median time of a whole step: look at every peer, decide, compare."""
    node = crowded_node(count, silent=silent)
    return _microseconds(lambda: node.step(0.5), max(30, 4000 // count))


def rest_microseconds(count: int) -> float:
    """Return the median time of a look that finds all peers heard."""
    node = crowded_node(count)
    node.watch.probed(0.5, ProbeResult(service=Service.CONSOLE, outcome=Outcome.ANSWERED))
    node.step(0.5)
    assert node.rest(0.6)
    return _microseconds(lambda: node.rest(0.6), max(30, 4000 // count))


def curve(counts: Sequence[int] = (2, 5, 10, 20, 50, 100, 200)) -> str:
    """Return the table of docs/scaling.md."""
    lines = [
        "| nodes | rest | decide | step | step, a tenth silent |",
        "| --- | --- | --- | --- | --- |",
    ]
    for count in counts:
        row = (
            rest_microseconds(count),
            decide_microseconds(count),
            step_microseconds(count),
            step_microseconds(count, silent=count // 10),
        )
        lines.append(f"| {count} | " + " | ".join(f"{value:.0f} µs" for value in row) + " |")
    return "\n".join(lines)


def traffic(count: int) -> tuple[float, float, float | None]:
    """Return frames per second and node of a quiet full mesh of ``count`` nodes, the same in the
    5 s after a master went dark, and after how many seconds it was replaced. Two slaves, the rest
    masters, one site, default settings.
    """
    names = [f"m{number:03d}" for number in range(count - 2)] + ["s1", "s2"]
    nodes = tuple(
        NodeSpec(
            name=name,
            role=Role.SLAVE if name.startswith("s") else Role.MASTER,
            peers={peer: True for peer in names if peer != name},
            site="a",
        )
        for name in names
    )
    dark = Fault(at=30.0, kind="power", node=names[0], duration=60.0)
    cluster = Cluster(Schedule(seed=count, nodes=nodes, faults=(dark,), heal_at=99.0))
    sent: list[float] = []
    send = SimLink.send

    def counting(link: SimLink, source: str, kind: str, payload: object = None) -> None:
        sent.append(link.world.now)
        send(link, source, kind, payload)

    cluster.prepare()
    with patch.object(SimLink, "send", counting):
        cluster.run_to(35.0)
    slave = cluster.nodes["s1"]
    took = cluster.ledger.changed_at["s1"] - 30.0 if slave.is_serving else None
    quiet = sum(25.0 <= at < 30.0 for at in sent) / 5 / count
    return quiet, sum(30.0 <= at < 35.0 for at in sent) / 5 / count, took


def growth(counts: Sequence[int] = (5, 10, 20, 50)) -> str:
    """Return the table of messages of docs/scaling.md."""
    lines = [
        "| nodes | links | frames/s and node, quiet | after a silent death | replaced after |",
        "| --- | --- | --- | --- | --- |",
    ]
    for count in counts:
        quiet, busy, took = traffic(count)
        after = "-" if took is None else f"{took:.2f} s"
        links = count * (count - 1) // 2
        lines.append(f"| {count} | {links} | {quiet:.0f} | {busy:.0f} | {after} |")
    return "\n".join(lines)


# --- suspicions of what is well -----------------------------------------------------------------


def _count(schedule: Schedule, lateness: Sequence[float] = ()) -> Tally:
    """Return what an hour of ``schedule`` brought; nothing in it ever fails."""
    cluster = Cluster(schedule)
    cluster.prepare()
    cluster.run_to(15.0)  # started, all linked
    tally = cluster.ledger.tally = Tally()
    if lateness:
        _replay(cluster, lateness, 0)
    cluster.run_to(15.0 + HOUR)
    return tally


def _replay(cluster: Cluster, lateness: Sequence[float], position: int) -> None:
    """Let the loop of every node be late as it was measured, each from another moment on."""
    world = cluster.world
    for number, node in enumerate(cluster.nodes.values()):
        offset = number * len(lateness) // len(cluster.nodes)
        node.lag = lateness[(position + offset) % len(lateness)]
    world.after(SAMPLE, _replay, cluster, lateness, position + 1)


def _quiet_hour(seed: int, *faults: Fault) -> Schedule:
    return on_figure(seed, *faults, interval=10.0)


def _loss_figures() -> list[Figure]:
    loss = Fault(at=-10.0, kind="loss", value=0.3, duration=2 * HOUR)
    tallies = [_count(_quiet_hour(seed, loss)) for seed in range(RUNS)]
    return [
        median_figure("false_suspicions_loss30", [item.suspicions for item in tallies], "1/h"),
        median_figure("false_verdicts_loss30", [item.false_verdicts for item in tallies], "1/h"),
        median_figure(
            "needless_activations_loss30", [item.needless for item in tallies], "1/h", goal=0.0
        ),
    ]


@contextmanager
def without_self_doubt() -> Iterator[None]:
    """A detector that does not know that it may be late itself."""
    with patch.object(Node, "lateness", lambda self, seconds: None):
        yield


def _load_figures() -> list[Figure]:
    samples = [measure_lateness() for _ in range(RUNS)]
    doubting = [_count(_quiet_hour(seed), late) for seed, late in enumerate(samples)]
    with without_self_doubt():
        sure = [_count(_quiet_hour(seed), late) for seed, late in enumerate(samples)]
    worst = max(max(late) for late in samples)
    return [
        median_figure(
            "false_suspicions_cpu100",
            [item.suspicions for item in doubting],
            f"1/h, worst {worst:.2f} s late",
            anchor="without self-doubt",
            anchor_values=[item.suspicions for item in sure],
        ),
        median_figure(
            "false_verdicts_cpu100",
            [item.false_verdicts for item in doubting],
            "1/h",
            anchor="without self-doubt",
            anchor_values=[item.false_verdicts for item in sure],
        ),
    ]


def measure_lateness(seconds: float = 20.0) -> list[float]:
    """Return how late a timer of this process was, every ``SAMPLE`` s, beside four busy loops a
    processor.
    """
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(4 * (os.cpu_count() or 1))
    ]
    late: list[float] = []
    try:
        due = time.monotonic() + SAMPLE
        while len(late) < seconds / SAMPLE:
            time.sleep(max(0.0, due - time.monotonic()))
            late.append(max(0.0, time.monotonic() - due))
            due = max(due + SAMPLE, time.monotonic())
    finally:
        for loop in loops:
            loop.kill()
        for loop in loops:
            loop.wait()
    return late


if __name__ == "__main__":
    if "--curve" in sys.argv:
        print(curve(), growth(), sep="\n\n")
    else:
        print(figures_table(figures()))
