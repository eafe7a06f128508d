"""Makes a failing schedule small: fewer faults, fewer nodes, no losses, while the same rule breaks.

Delta debugging (ddmin) over the list of faults, then one node after the other, then the numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from tests.simulation.run import run
from tests.simulation.schedule import Fault, Schedule

Predicate = Callable[[Schedule], bool]


def shrink(schedule: Schedule) -> Schedule:
    """Return a smaller schedule that breaks the same rule; ``schedule`` must break one."""
    broken = run(schedule).broken
    assert broken is not None, "this schedule breaks no rule"
    rule = broken.rule

    def breaks(candidate: Schedule) -> bool:
        found = run(candidate).broken
        return found is not None and found.rule == rule

    before = None
    while before != schedule:
        before = schedule
        schedule = schedule.without(fewer_faults(schedule, breaks))
        schedule = _fewer_nodes(schedule, breaks)
        schedule = _simpler(schedule, breaks)
    final = run(schedule).broken
    assert final is not None
    return dataclasses.replace(schedule, note=str(final))


def fewer_faults(schedule: Schedule, breaks: Predicate) -> tuple[Fault, ...]:
    """Return a part of the faults that still breaks it and cannot lose any one of its faults."""
    faults, parts = schedule.faults, 2
    if breaks(schedule.without(())):
        return ()
    while len(faults) > 1:
        size = max(1, len(faults) // parts)
        for start in range(0, len(faults), size):
            rest = faults[:start] + faults[start + size :]
            if rest and breaks(schedule.without(rest)):
                faults, parts = rest, max(2, parts - 1)
                break
        else:
            if size == 1:
                break
            parts = min(len(faults), parts * 2)
    return faults


def _fewer_nodes(schedule: Schedule, breaks: Predicate) -> Schedule:
    for spec in schedule.nodes:
        rest = tuple(
            dataclasses.replace(
                other, peers={peer: on for peer, on in other.peers.items() if peer != spec.name}
            )
            for other in schedule.nodes
            if other is not spec
        )
        faults = tuple(
            without_node(fault, spec.name)
            for fault in schedule.faults
            if spec.name not in (fault.node, fault.other)
        )
        smaller = dataclasses.replace(schedule, nodes=rest, faults=faults)
        if len(rest) >= 2 and breaks(smaller):
            return _fewer_nodes(smaller, breaks)
    return schedule


def without_node(fault: Fault, name: str) -> Fault:
    """Return a partition without ``name``; other faults as they are."""
    if fault.kind != "partition":
        return fault
    return dataclasses.replace(
        fault, text=",".join(item for item in fault.text.split(",") if item != name)
    )


def _simpler(schedule: Schedule, breaks: Predicate) -> Schedule:
    candidates = [dataclasses.replace(schedule, loss=0.0)]
    for number, fault in enumerate(schedule.faults):
        rounded = dataclasses.replace(
            fault, at=round(fault.at, 1), duration=round(fault.duration, 1)
        )
        faults = (*schedule.faults[:number], rounded, *schedule.faults[number + 1 :])
        candidates.append(schedule.without(faults))
    for candidate in candidates:
        if candidate != schedule and breaks(candidate):
            return candidate
    return schedule
