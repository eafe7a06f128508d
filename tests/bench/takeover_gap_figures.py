"""How long the parties of a live call hear nothing when its server fails: whole nodes, real `ha`.

m1 serves ten calls, s1 is its slave at the same site, and a passive node p1 there has a word in
who is silent. Every call has a tone both ways; the twenty phones note when packets come. Half of
them know Replaces, the others answer 420 and are adopted. m1's processes are killed, or its cable
is cut, or its Asterisk alone is killed. A gap runs from the last packet before to the first one
after, at the phone; one that never ends is a call that was lost. And two sites are cut off from
each other while the phones reach both, with two nodes at each and with one at each.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from controlone_ha.errors import ControlOneError, LabError
from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.figures import Figure, median_figure
from controlone_ha.lab.node import LabNode
from tests.bench.takeover_lab import lab_of, owners, talking
from tests.cluster.support import ask, history

RUNS = 2
CALLS = 10
PATIENCE = 20.0
CUT = 12.0
"""Seconds that the sites are cut off: every rule about silence has been applied by then."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One kind of failure. ``name``: of its figures; "" for that of the plain names."""

    name: str
    fail: Callable[[LabNode], None]
    ha: dict[str, str]
    goal: float


def _kill(node: LabNode) -> None:
    node.kill()


def _cut(node: LabNode) -> None:
    node.cut()


def _kill_asterisk(node: LabNode) -> None:
    node.kill_service("conference")


CASES = (
    Case(name="", fail=_kill, ha={}, goal=3.0),
    Case(name="_crash_fast", fail=_kill, ha={"interval": "1"}, goal=1.5),
    Case(name="_cut", fail=_cut, ha={}, goal=6.0),
    Case(name="_asterisk_own", fail=_kill_asterisk, ha={}, goal=3.0),
    Case(name="_asterisk_peer", fail=_kill_asterisk, ha={"own_recovery": "0"}, goal=3.0),
)


def figures() -> list[Figure]:
    """Measure everything; takes about five minutes."""
    found: list[Figure] = []
    for case in CASES:
        found += measure(case)
    return (
        found
        + site_cut("4", {"m1": 1, "s1": 1, "m2": 2, "s2": 2})
        + site_cut("2", {"m1": 1, "s1": 2})
    )


def measure(case: Case, runs: int = RUNS) -> list[Figure]:
    """Measure one kind of failure; return its figures."""
    gaps: list[float] = []
    heard, parties, reason = 0, 0, ""
    for _ in range(runs):
        try:
            rows = _one(case)
        except (ControlOneError, OSError, AssertionError, subprocess.SubprocessError) as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"[:200]
            print(f"   gap{case.name}: {reason}", flush=True)
            continue
        parties += len(rows)
        heard += sum(bool(row["is_heard"]) for row in rows)
        gaps += [row["gap"] for row in rows if row["gap"] is not None]
        for kind in ("replaces", "420"):
            some = sorted(row["gap"] for row in rows if row["kind"] == kind and row["gap"])
            print(f"   gap{case.name} {kind}: {some}", flush=True)
    gaps.sort()
    figures = [
        median_figure(
            f"audio_gap_{label}_s{case.name}",
            [gaps[min(len(gaps) - 1, int(len(gaps) * share))]] if gaps else [],
            "s",
            goal=case.goal,
            reason=reason,
        )
        for label, share in (("p50", 0.5), ("p99", 0.99))
    ]
    share = heard / parties if parties else None
    figures.append(
        Figure(
            name=f"audio_again_share{case.name}",
            value=share,
            unit="ratio",
            runs=runs,
            goal=1.0,
            is_lower_bound=True,
            reason=reason if share is None else "",
        )
    )
    return figures


def _one(case: Case) -> list[dict[str, Any]]:
    with lab_of({"m1": 1, "s1": 1, "p1": 1}, case.ha) as lab, talking(lab) as parties:
        began, clock = time.monotonic(), time.time()
        case.fail(lab.node("m1"))
        limit = began + PATIENCE
        while True:
            time.sleep(0.5)
            rows = parties.gaps(began)
            is_over = all(row["is_heard"] and row["gap"] is not None for row in rows)
            if is_over or time.monotonic() > limit:
                _show_course(lab.node("s1"), clock)
                return rows


def _show_course(node: LabNode, since: float) -> None:
    """Print what the taker wrote down, with the seconds since the failure."""
    for entry in history(node, since=since):
        why = entry.get("reason", {}).get("code", "")
        print(f"   {entry['time'] - since:6.2f} s  {entry['kind']}: {why}", flush=True)


def _far_peers(lab: Lab, sites: dict[str, int]) -> list[dict[str, Any]]:
    """What m1 says of the nodes at the other site."""
    peers: list[dict[str, Any]] = ask(lab.node("m1"), "status")["peers"]
    return [peer for peer in peers if sites[peer["name"]] != sites["m1"]]


def site_cut(name: str, sites: dict[str, int]) -> list[Figure]:
    """Cut two sites from each other while the phones reach both: no call may move or be halved."""
    rows: list[dict[str, Any]] = []
    moved, reason = 0, ""
    try:
        with lab_of(sites, {}) as lab, talking(lab) as parties:
            began = time.monotonic()
            lab.partition(1, 2)
            time.sleep(CUT)
            rows = parties.gaps(began)
            if any(peer["link"]["state"] == "up" for peer in _far_peers(lab, sites)):
                raise LabError("the sites still reach each other")
            moved = max(
                sum(owner != "m1" for owner in owners(lab.node(node)))
                + sum(entry["kind"] == "takeover" for entry in history(lab.node(node)))
                for node in sites
            )
    except (ControlOneError, OSError, AssertionError, subprocess.SubprocessError) as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"[:200]
    silent = sum(not row["is_heard"] for row in rows)
    gap = max((row["gap"] or 0.0 for row in rows), default=0.0)
    print(f"   site cut, {name} nodes: {moved} moved, longest gap {gap:.3f} s {reason}", flush=True)
    return [
        Figure(
            name=f"calls_moved_site_cut_{name}",
            value=None if reason else moved,
            unit="calls",
            goal=0,
            reason=reason,
        ),
        Figure(
            name=f"phones_silent_site_cut_{name}",
            value=None if reason else silent,
            unit="phones",
            goal=0,
            reason=reason,
        ),
    ]
