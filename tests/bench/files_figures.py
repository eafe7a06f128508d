"""Synchronisation of files on figure 1: latency, healing, 10,000 equal files, a large file.

Everything is measured on real nodes with fsync on the disk of the machine, which carries all five
nodes at once. lsyncd, rsync and scp go through the same SSH servers to the same nodes, interleaved.
``python -m tests.bench.files_figures [latency|healing|many|large …]`` prints some of it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from controlone_ha.errors import LabError
from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.figure import figure_one
from controlone_ha.lab.figures import Figure, figures_table, median_figure
from controlone_ha.lab.node import LabNode
from controlone_ha.lab.topology import Section
from tests.bench.files_anchors import Lsyncd, inode, lsyncd, replaced, rsync, scp
from tests.cluster.support import ask, paired_lab, status, wait_until

COMMITS = 120
PAUSE = 1.5
"""Seconds after a change: five nodes run `reload_config` for it on this one machine, and what is
measured is one commit, not as many as the processors bear."""
RUNS = 3
FILES = 10_000
LARGE = int(os.environ.get("CONTROLONE_BENCH_LARGE_MB", "1000")) << 20
SOUNDS = "/var/lib/controlone/sounds"
RECORDINGS = "/var/lib/controlone/recordings"
OTHERS = ("s1", "m2", "s2", "p1")


def figures(pieces: Sequence[str] = ()) -> list[Figure]:
    """Measure everything, or some pieces of it; takes some minutes."""
    nodes = figure_one(ha={"timeout": "3"})
    for node in nodes:
        items = [
            Section(kind="item", name=name, options={"paths": path})
            for name, path in (("sounds", SOUNDS), ("recordings", RECORDINGS))
        ]
        node.packages["ha"] = (*node.packages["ha"], *items)  # type: ignore[index]
    found: list[Figure] = []
    with paired_lab(nodes) as lab:
        for name, measure in PIECES.items():
            if not pieces or name in pieces:
                wait_until(lab, lambda: not unequal(lab), "everything is in sync", limit=120)
                found += measure(lab)
    return found


def unequal(lab: Lab, item: str = "") -> bool:
    """Tell whether an item of a node is not in sync with a peer."""
    return any(
        standing["state"] != "in sync"
        for node in lab.nodes.values()
        for row in status(node)["sync"]
        if not item or row["item"] == item
        for standing in row["peers"].values()
    )


def _config(node: LabNode) -> Path:
    return node.path("/etc/config/server")


def _latency(lab: Lab) -> list[Figure]:
    """From the rename of a commit on m1 until the new file is in place on all four peers."""
    ours: list[float] = []
    theirs: list[float] = []
    source = _config(lab.node("m1"))
    targets = [_config(lab.node(name)) for name in OTHERS]
    with contextlib.ExitStack() as stack:
        anchor: Lsyncd | None = None
        if shutil.which("lsyncd") is not None:
            anchor = stack.enter_context(lsyncd(lab, OTHERS))
        for number in range(COMMITS):
            text = f"config server 'default'\n\toption max_connections '{1000 + number}'\n\n"
            text += "".join(
                f"config note 'n{i}'\n\toption text '{'x' * 50}'\n\n" for i in range(25)
            )
            temporary = source.with_name(".server.bench")
            temporary.write_text(text)
            before = [inode(target) for target in targets]
            ours.append(replaced(temporary, source, targets, before))
            time.sleep(PAUSE)
            if anchor is not None:
                theirs.append(anchor.change(text))
                time.sleep(PAUSE)
    name = "lsyncd, multiplexed SSH" if theirs else "lsyncd is not on this machine"
    found = []
    for share, goal in ((50, 20.0), (99, 40.0)):
        found.append(
            Figure(
                name=f"commit_to_peers_p{share}_ms",
                value=round(_percentile(ours, share), 2),
                unit="ms",
                runs=len(ours),
                anchor=name,
                anchor_value=round(_percentile(theirs, share), 2) if theirs else None,
                goal=goal,
            )
        )
    return found


def _percentile(values: list[float], share: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * share // 100)]


def _healing(lab: Lab) -> list[Figure]:
    """From the last link between the sites being up until every node has the same files."""
    took = []
    for number in range(RUNS):
        lab.partition(1, 2)
        wait_until(lab, lambda: _links(lab) == 8, "the sites have lost each other")
        for name in ("m1", "s2"):
            for file in ("both", name):
                target = lab.node(name).path(SOUNDS) / f"{file}-{number}.wav"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(f"{name} {number}".encode() * 100)
        time.sleep(1.0)
        lab.heal(1, 2)
        wait_until(lab, lambda: _links(lab) == 20, "all links are up")
        start = time.perf_counter()
        wait_until(lab, partial(_same, lab, number), "all nodes are equal")
        took.append(time.perf_counter() - start)
    return [median_figure("heal_to_equal_s", took, "s", goal=2.0)]


def _links(lab: Lab) -> int:
    return sum(
        peer["link"]["state"] == "up"
        for node in lab.nodes.values()
        for peer in status(node)["peers"]
    )


def _same(lab: Lab, number: int) -> bool:
    for file in ("both", "m1", "s2"):
        paths = [node.path(SOUNDS) / f"{file}-{number}.wav" for node in lab.nodes.values()]
        if not all(path.exists() for path in paths):
            return False
        if len({path.read_bytes() for path in paths}) != 1:
            return False
    return True


# -- 10,000 files ----------------------------------------------------------------------------------


def _many(lab: Lab) -> list[Figure]:
    m1 = lab.node("m1")
    for number in range(FILES):
        directory = m1.path(SOUNDS) / f"d{number % 20}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number}").write_bytes(os.urandom(512) * 2)
    wait_until(
        lab,
        lambda: all(_count(node) >= FILES for node in lab.nodes.values()),
        "10,000 files are everywhere",
        limit=600,
    )
    wait_until(lab, lambda: not unequal(lab, "sounds"), "everything is in sync", limit=120)
    time.sleep(5.0)
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    peers = len(lab.nodes) - 1
    for _ in range(RUNS):
        idle = _quiet_rate(m1)
        before, start = _wire(m1), time.perf_counter()
        answer = ask(m1, "sync", item="sounds")
        while not answer["done"]:
            time.sleep(0.01)
            answer = ask(m1, "sync_progress", run=answer["run"])
        spent = time.perf_counter() - start
        ours.append(((_wire(m1) - before - idle * spent) / peers, answer["seconds"] / peers))
        if shutil.which("rsync") is not None:
            theirs.append(rsync(lab, SOUNDS))
    reason = "rsync is not on this machine" if not theirs else ""
    return [
        median_figure(
            "full_sync_10k_bytes", [size for size, _ in ours], "B",
            anchor="rsync -a" if theirs else reason,
            anchor_values=[size for size, _ in theirs], goal=1000.0,
        ),
        median_figure(
            "full_sync_10k_s", [seconds for _, seconds in ours], "s",
            anchor="rsync -a" if theirs else reason,
            anchor_values=[seconds for _, seconds in theirs], goal=0.1,
        ),
    ]  # fmt: skip


def _count(node: LabNode) -> int:
    return next(int(row["present"]) for row in status(node)["sync"] if row["item"] == "sounds")


def _wire(node: LabNode) -> int:
    """Return the bytes that a node's network has carried, both ways."""
    text = node.exec(["cat", "/proc/net/dev"], check=True).stdout
    total = 0
    for line in text.splitlines()[2:]:
        name, _, fields = line.partition(":")
        if name.strip() != "lo":
            numbers = fields.split()
            total += int(numbers[0]) + int(numbers[8])
    return total


def _quiet_rate(node: LabNode) -> float:
    """Return bytes a second that heartbeats and probes cost anyway."""
    before = _wire(node)
    time.sleep(2.0)
    return (_wire(node) - before) / 2.0


# -- a large file --------------------------------------------------------------------------------


def _large(lab: Lab) -> list[Figure]:
    """One large recording at a time from m1 to s1 and back; the others do not take recordings."""
    for name in ("m2", "s2", "p1"):
        lab.node(name).exec(["uci", "set", "ha.recordings.direction=none"], check=True)
        lab.node(name).exec(["uci", "commit", "ha"], check=True)
        lab.node(name).exec(["service", "ha", "reload"], check=True)
    time.sleep(3.0)
    growth: list[float] = []
    found: list[Figure] = []
    ways = {"put": ("m1", "s1"), "get": ("s1", "m1")}
    ratios: dict[str, list[float]] = {way: [] for way in ways}
    rates: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
    for number in range(RUNS):
        for way, (source, target) in ways.items():
            name = f"{way}{number}.wav"
            moving, whole, grown = _copy_ours(lab, source, target, name)
            growth.append(grown)
            theirs = scp(lab, source, target, f"{RECORDINGS}/{name}")
            ratios[way].append(theirs / moving)
            rates[way].append((LARGE / 1e6 / moving, LARGE / 1e6 / theirs, LARGE / 1e6 / whole))
            for node in (source, target):
                (lab.node(node).path(RECORDINGS) / name).unlink()
    # The worse direction is the figure: the goal is meant for both.
    worst = min(ways, key=lambda way: statistics.median(ratios[way]))
    found.append(
        Figure(
            name="large_file_vs_scp", value=round(statistics.median(ratios[worst]), 3),
            unit="ratio", runs=RUNS * len(ways), anchor=f"scp ({worst} is the worse)",
            anchor_value=1.0, goal=1.0, is_lower_bound=True,
        )
    )  # fmt: skip
    for way in ways:
        found.append(
            median_figure(
                f"large_file_{way}_mb_per_s", [row[0] for row in rates[way]], "MB/s",
                anchor="scp", anchor_values=[row[1] for row in rates[way]], is_lower_bound=True,
            )
        )  # fmt: skip
        found.append(
            median_figure(
                f"large_file_{way}_with_checksum_mb_per_s", [row[2] for row in rates[way]], "MB/s",
                is_lower_bound=True,
            )
        )  # fmt: skip
    return [*found, median_figure("sync_rss_growth_mb", growth, "MB", goal=20.0)]


def _copy_ours(lab: Lab, source: str, target: str, name: str) -> tuple[float, float, float]:
    """Return (seconds from the first byte to the rename, seconds from the rename on the source,
    MB by which the larger `ha` grew): the source is read for its checksum before it is told.
    """
    directory = lab.node(source).path(RECORDINGS)
    directory.mkdir(parents=True, exist_ok=True)
    place = lab.node(target).path(RECORDINGS)
    place.mkdir(parents=True, exist_ok=True)
    made = directory / f".{name}"
    _fill(made)
    processes = [_process(lab.node(node)) for node in (source, target)]
    before = [_rss(process) for process in processes]
    peak = list(before)
    begun = 0.0
    told = time.perf_counter()
    os.replace(made, directory / name)
    while not (place / name).exists():
        if not begun and any(".ha-" in entry for entry in os.listdir(place)):
            begun = time.perf_counter()
        peak = [max(top, _rss(pid)) for top, pid in zip(peak, processes, strict=True)]
        assert time.perf_counter() < told + 300, "the large file did not arrive"
        time.sleep(0.05)
    ended = time.perf_counter()
    grown = max(top - first for top, first in zip(peak, before, strict=True))
    return ended - begun, ended - told, grown


def _fill(path: Path) -> None:
    block = os.urandom(1 << 20)
    with path.open("wb") as out:
        for _ in range(LARGE >> 20):
            out.write(block)
        out.flush()
        os.fsync(out.fileno())


def _process(node: LabNode) -> int:
    """Return the PID of a node's `ha` as this machine has it: asking through it would cost time."""
    inside = str(node.services()["ha"]["pid"])
    init = node.init
    assert init is not None
    namespace = os.readlink(f"/proc/{init[0]}/ns/pid")
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                lines = (entry / "status").read_text().splitlines()
                known = next(line for line in lines if line.startswith("NSpid:")).split()
                if known[-1] == inside and os.readlink(entry / "ns/pid") == namespace:
                    return int(entry.name)
    raise LabError(f"{node.name}: its ha is not among the processes of this machine")


def _rss(process: int) -> float:
    """Return resident MB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


PIECES: Mapping[str, Callable[[Lab], list[Figure]]] = {
    "latency": _latency,
    "healing": _healing,
    "many": _many,
    "large": _large,
}


if __name__ == "__main__":
    print(figures_table(figures(sys.argv[1:])))
