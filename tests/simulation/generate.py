"""Random schedules from a seed: clusters of 2 to 50 nodes, and faults that overlap as they like."""

from __future__ import annotations

import dataclasses
from random import Random

from controlone_ha.core.model import Role
from tests.simulation.schedule import Fault, NodeSpec, Schedule

HEAL_AT = 26.0

WEIGHTS = {
    "partition": 6,
    "cut": 4,
    "cut_one_way": 4,
    "unplug": 2,
    "break_link": 3,
    "kill": 6,
    "power": 6,
    "freeze": 4,
    "kill_ha": 5,
    "restart_ha": 3,
    "freeze_ha": 5,
    "crash": 5,
    "freeze_service": 4,
    "abnormal": 4,
    "slow": 3,
    "clock": 2,
    "loss": 3,
    "delay": 2,
    "duplicate": 1,
    "order": 4,
    "load": 2,
    "licence": 1,
    "reload": 1,
}


def figure(chance: Random) -> tuple[NodeSpec, ...]:
    """Figure 1 of the specification: full lists, two sites."""
    rows = [
        ("m1", Role.MASTER, "site1"),
        ("s1", Role.SLAVE, "site1"),
        ("m2", Role.MASTER, "site2"),
        ("s2", Role.SLAVE, "site2"),
        ("p1", Role.PASSIVE, "site2"),
    ]
    names = [row[0] for row in rows]
    return tuple(
        NodeSpec(
            name=name,
            role=role,
            site=site,
            peers={peer: True for peer in names if peer != name},
            failback=chance.random() < 0.8,
        )
        for name, role, site in rows
    )


def any_cluster(chance: Random, size: int) -> tuple[NodeSpec, ...]:
    """A cluster of ``size`` nodes whose lists, sites, priorities and roles differ (C1, C2)."""
    roles = [Role.MASTER] + [
        chance.choices(list(Role), weights=(3, 5, 1 if size > 2 else 0))[0] for _ in range(size - 1)
    ]
    names = [f"{role.value[0]}{number}" for number, role in enumerate(roles, 1)]
    chance.shuffle(names)
    sites = chance.choice([[""], ["a"], ["a", "b"], ["a", "b", "c"], ["a", "b", ""]])
    is_full = chance.random() < 0.5
    specs = []
    for name in names:
        role = next(role for role in Role if role.value[0] == name[0])
        others = [peer for peer in names if peer != name]
        peers = {
            peer: is_full or chance.random() < 0.85
            for peer in others
            if is_full or chance.random() < 0.8
        }
        if not peers:
            peers = {chance.choice(others): True}
        specs.append(
            NodeSpec(
                name=name,
                role=role,
                site=chance.choice(sites),
                peers=peers,
                priority=chance.choice([100, 100, 100, 50, 200]),
                failback=chance.random() < 0.8,
            )
        )
    return tuple(specs)


def random_schedule(seed: int, *, size: int | None = None) -> Schedule:
    """Return the schedule of this seed; ``size`` fixes the number of nodes."""
    chance = Random(seed)
    draw = chance.random()
    if size is not None and size != 5:
        nodes = any_cluster(chance, size)
    elif draw < 0.5:
        nodes = figure(chance)
    elif size == 5 or draw < 0.7:
        nodes = any_cluster(chance, 5)
    else:
        nodes = any_cluster(chance, chance.choice([2, 2, 3, 3, 4, 6, 7]))
    is_fast = chance.random() < 0.5
    schedule = Schedule(
        seed=seed,
        nodes=nodes,
        faults=(),
        heal_at=HEAL_AT,
        interval=1.0 if is_fast else 10.0,
        failures=chance.choice([2, 3]),
        failback_delay=chance.choice([1.0, 3.0, 6.0]),
        stable=chance.choice([1.0, 3.0, 6.0]),
        delay=chance.choice([0.0005, 0.005, 0.03]),
        loss=chance.choice([0.0, 0.0, 0.01]),
    )
    # A master that came back many times is waited for up to 16 times as long.
    schedule = dataclasses.replace(schedule, end_at=60.0 + 15 * schedule.failback_delay)
    number = chance.choice([1, 1, 2, 2, 3, 3, 4, 5, 6, 8])
    faults = [_fault(chance, nodes) for _ in range(number)]
    return schedule.without(tuple(sorted(faults, key=lambda fault: fault.at)))


def _fault(chance: Random, nodes: tuple[NodeSpec, ...]) -> Fault:
    kind = chance.choices(list(WEIGHTS), weights=list(WEIGHTS.values()))[0]
    names = [spec.name for spec in nodes]
    node = chance.choice(names)
    other = chance.choice([name for name in names if name != node])
    # Often right after another: faults in a row are where the interesting cases are.
    at = chance.choice([4.0, 8.0, 12.0]) + chance.choice([0.3, 2.0, 8.0]) * chance.random()
    longest = HEAL_AT - at
    duration = min(longest, chance.choice([0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 20.0])) * (
        0.5 + 0.5 * chance.random()
    )
    value, text = 0.0, ""
    if kind in ("partition", "cut", "cut_one_way"):
        value = float(chance.random() < 0.25)
        text = ",".join(_group(chance, nodes)) if kind == "partition" else ""
    elif kind in ("crash", "freeze_service"):
        text = chance.choice(["server", "conference"])
    elif kind == "freeze":
        value = float(chance.random() < 0.3)
    elif kind == "kill_ha":
        value = float(chance.choice([0, 0, 1, 2, 3]))
    elif kind == "slow":
        value = chance.choice([0.05, 0.3, 1.0, 1.9])
    elif kind == "clock":
        value = chance.choice([0.93, 1.07])
    elif kind == "loss":
        value = chance.choice([0.05, 0.3, 0.6])
    elif kind == "delay":
        value = chance.choice([0.1, 0.4, 1.0])
    elif kind == "duplicate":
        value = 0.5
    elif kind == "order":
        text = chance.choice(["force_active", "force_passive", "pause"])
        duration = 0.0 if chance.random() < 0.2 else duration
    elif kind == "load":
        value = float(chance.randint(1, 9))
    return Fault(
        at=round(at, 4),
        kind=kind,
        node="" if kind in ("partition", "loss", "delay", "duplicate") else node,
        other=other if kind in ("cut", "cut_one_way", "break_link", "reload") else "",
        duration=0.0 if kind == "break_link" else round(duration, 4),
        value=value,
        text=text,
    )


def _group(chance: Random, nodes: tuple[NodeSpec, ...]) -> list[str]:
    """Return a side of a partition: a site, one node, or any group."""
    names = [spec.name for spec in nodes]
    draw = chance.random()
    if draw < 0.4:
        site = chance.choice(nodes).site
        group = [spec.name for spec in nodes if spec.site == site]
        if len(group) < len(names):
            return group
    if draw < 0.7:
        return [chance.choice(names)]
    return chance.sample(names, chance.randint(1, len(names) - 1))
