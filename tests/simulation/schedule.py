"""What a simulated run consists of, as plain data: nodes, network, faults. Goes to JSON and back.

A fault is a record with its own beginning and end, so that any of them can be left out and the rest
still makes sense: that is what lets a failing schedule be shrunk.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from controlone_ha.core.model import Role, Rules
from controlone_ha.core.timing import Timing

KINDS = {
    "partition": "no path between the nodes in `text` (comma-separated) and all others (value 1:"
    " a router says so)",
    "cut": "no path between node and other (value 1: a router says so)",
    "cut_one_way": "no path from node to other (value 1: a router says so)",
    "unplug": "no path to node, which notices that its own network is down",
    "break_link": "the link between node and other is reset",
    "kill": "every process of the machine is killed; its kernel refuses; it boots at the end",
    "power": "the machine goes dark; it boots at the end",
    "freeze": "the whole machine stands still (value 1: suspended, its monotonic clock too)",
    "kill_ha": "`ha` is killed and started again at the end (value k: within its next step that "
    "has effects, after k of them)",
    "restart_ha": "`ha` is told to end and started again at the end",
    "freeze_ha": "`ha` is stopped and continued",
    "crash": "the service in `text` is killed; it cannot be started before the end",
    "freeze_service": "the service in `text` is stopped and continued",
    "abnormal": "the host probe reports an abnormality",
    "slow": "everything in `ha` happens value seconds late",
    "clock": "the node's monotonic clock runs value times as fast",
    "loss": "value of all packets are lost",
    "delay": "up to value seconds are added to every packet's way",
    "duplicate": "value of all reports and answers are delivered twice",
    "order": "the operator's order in `text`: force_active, force_passive, pause; resumed at the "
    "end, when it has one",
    "load": "value consoles are connected to the node",
    "licence": "the node has no licence",
    "reload": "the node's configuration is changed: it begins or ceases to cover other",
}
"""Every kind of fault and what its fields mean."""


@dataclass(frozen=True, kw_only=True)
class NodeSpec:
    """One node's configuration. ``peers``: name -> monitored (C2: lists may differ)."""

    name: str
    role: Role
    peers: dict[str, bool]
    site: str = ""
    priority: int = 100
    failback: bool = True


@dataclass(frozen=True, kw_only=True)
class Fault:
    """From ``at`` for ``duration`` seconds; duration 0 is an event without an end."""

    at: float
    kind: str
    node: str = ""
    other: str = ""
    duration: float = 0.0
    value: float = 0.0
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """One run. All faults have ended at ``heal_at``; by ``end_at`` all must be well again."""

    seed: int
    nodes: tuple[NodeSpec, ...]
    faults: tuple[Fault, ...]
    heal_at: float = 26.0
    end_at: float = 60.0
    interval: float = 10.0
    failures: int = 3
    failback_delay: float = 3.0
    stable: float = 3.0
    delay: float = 0.005
    loss: float = 0.0
    note: str = field(default="")

    @property
    def timing(self) -> Timing:
        """The detector's times, as the daemon makes them of the settings."""
        return Timing.of(interval=self.interval, failures=self.failures)

    def rules(self, spec: NodeSpec) -> Rules:
        """The rules of a node, as the daemon makes them of the settings."""
        timing = self.timing
        return Rules(
            failback=spec.failback,
            failback_delay=self.failback_delay,
            stable=self.stable,
            slot=max(0.25, timing.heartbeat),
            confirm=max(0.1, timing.fast_interval * 2),
        )

    def without(self, faults: tuple[Fault, ...]) -> Schedule:
        """Return this schedule with other faults."""
        return dataclasses.replace(self, faults=faults)

    def to_json(self) -> str:
        """Return the schedule as JSON for people to read and to replay."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False)


def from_json(text: str) -> Schedule:
    """Return the schedule written by ``to_json``."""
    raw: dict[str, Any] = json.loads(text)
    raw["nodes"] = tuple(NodeSpec(**{**node, "role": Role(node["role"])}) for node in raw["nodes"])
    raw["faults"] = tuple(Fault(**fault) for fault in raw["faults"])
    return Schedule(**raw)
