"""What a node costs at rest, and how long `ha status` takes: figure 1 at the default settings.

Memory and processor time are those of the worst of the five nodes, each with four peers linked.
MB are 10^6 bytes. A process's share of memory (PSS) is counted among the processes of its own node
only, from /proc/<pid>/pagemap: the kernel's own figure divides what all five nodes of this machine
have in common, which a real node shares with nobody; it stands beside as ``ha_pss_lab_mb``.
"""

from __future__ import annotations

import compileall
import json
import os
import sys
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import controlone_ha
from controlone_ha.errors import LabError
from controlone_ha.lab import anchor_keepalived, namespaces
from controlone_ha.lab.anchor_keepalived import AnchorError
from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.figure import figure_one
from controlone_ha.lab.figures import Figure, median_figure
from controlone_ha.lab.node import LabNode
from tests.cluster.support import paired_lab

RUNS = 3
SETTLE = 20.0
WINDOW = 30.0
COMMANDS = 15
PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = os.sysconf("SC_CLK_TCK")
KEEPALIVED = "keepalived (node only)"
ENTRY = Path(__file__).resolve().parents[2] / "files/usr/sbin/ha"


def figures() -> list[Figure]:
    """Measure everything; takes about three minutes."""
    # Packages come compiled: compiling a module of this checkout in `ha` would leave its traces in
    # the heap, some megabytes after a change.
    compileall.compile_dir(str(Path(controlone_ha.__file__).parent), quiet=2)
    with paired_lab(figure_one()) as lab:
        time.sleep(SETTLE)
        samples: list[dict[str, Sample]] = []
        anchors: list[dict[str, float]] = []
        for _ in range(RUNS):
            samples.append(_sample(lab))
            anchors.append(_keepalived())
        rows = _cost_figures(samples, anchors)
        rows.append(_status_command(lab.node("m1")))
    return rows


# -- processes -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process of a node: ``kind`` is ha, child (of ha), bridge, ssh or other."""

    pid: int
    kind: str


@dataclass(kw_only=True)
class Sample:
    """What one node's processes cost, by kind: MB, and per cent of a core over the window."""

    rss: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    pss: dict[str, float] = field(default_factory=dict)
    pss_lab: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    cpu: dict[str, float] = field(default_factory=dict)
    count: Counter[str] = field(default_factory=Counter)


def _processes(node: LabNode) -> list[Process]:
    init = node.init
    if init is None:
        raise LabError(f"{node.name} is down")
    pids = namespaces.processes_in(Path(f"/proc/{init[0]}/ns/pid_for_children"), "pid")
    daemon = _outer_pid(pids, int(node.service_status("ha")["pid"]))
    parents = {pid: int(_stat(pid)[1]) for pid in pids}
    found = []
    for pid in pids:
        command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        if pid == daemon:
            kind = "ha"
        elif _descends(pid, daemon, parents):
            kind = "child"
        elif "peers/bridge.py" in command and not command.startswith(("sh ", "/bin/sh ")):
            kind = "bridge"
        elif command.startswith("sshd: root"):
            kind = "ssh"
        else:
            kind = "other"
        found.append(Process(pid=pid, kind=kind))
    return found


def _outer_pid(pids: Sequence[int], inner: int) -> int:
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:") and int(line.split()[-1]) == inner:
                return pid
    raise LabError(f"no process {inner} in the node")


def _descends(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid in parents:
        pid = parents[pid]
        if pid == ancestor:
            return True
    return False


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat from the state on (proc(5), field 3)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _cpu_seconds(processes: Sequence[Process]) -> dict[str, float]:
    """Return the processor seconds by kind; of `ha`'s children that ended, too."""
    spent: dict[str, float] = defaultdict(float)
    for process in processes:
        try:
            fields = _stat(process.pid)
        except FileNotFoundError:
            continue  # a short-lived child: counted by its parent when it has ended
        spent[process.kind] += (int(fields[11]) + int(fields[12])) / TICK
        if process.kind == "ha":
            spent["child"] += (int(fields[13]) + int(fields[14])) / TICK
    return spent


# -- memory ----------------------------------------------------------------------------------------


def _rollup(pid: int) -> dict[str, float]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) * 1024 / 1e6 for line in lines}


def _frames(pid: int) -> Counter[int]:
    """Return the page frames that a process has in memory, and how often it maps each."""
    found: Counter[int] = Counter()
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            if end > 1 << 62:
                continue  # the kernel's own page
            entries = array("Q")
            entries.frombytes(
                os.pread(pagemap.fileno(), (end - start) // PAGE * 8, start // PAGE * 8)
            )
            # Bit 63: in memory; bits 0 to 54: the frame (kernel's Documentation, pagemap).
            found.update(entry & (1 << 55) - 1 for entry in entries if entry >> 63)
    if set(found) == {0}:
        raise LabError("the kernel does not tell page frames (CAP_SYS_ADMIN is missing)")
    return found


def _pss_of_node(processes: Sequence[Process]) -> dict[str, float]:
    """Return the proportional share of memory by kind, as if no other node were on the machine."""
    frames: dict[Process, Counter[int]] = {}
    for process in processes:
        try:
            frames[process] = _frames(process.pid)
        except FileNotFoundError:
            continue
    mapped: Counter[int] = Counter()
    for counts in frames.values():
        mapped.update(counts)
    shares: dict[str, float] = defaultdict(float)
    for process, counts in frames.items():
        bytes_ = sum(PAGE * times / mapped[frame] for frame, times in counts.items())
        shares[process.kind] += bytes_ / 1e6
    return shares


# -- measuring ------------------------------------------------------------------------------------


def _sample(lab: Lab) -> dict[str, Sample]:
    """Watch all nodes for one window."""
    processes = {name: _processes(node) for name, node in lab.nodes.items()}
    before = {name: _cpu_seconds(items) for name, items in processes.items()}
    started = time.monotonic()
    time.sleep(WINDOW)
    samples = {}
    for name, node in lab.nodes.items():
        items = _processes(node)
        after, seconds = _cpu_seconds(items), time.monotonic() - started
        sample = Sample(pss=_pss_of_node(items))
        for kind, spent in after.items():
            # A child that was there and is not any more has moved into its parent's account.
            sample.cpu[kind] = max(0.0, 100 * (spent - before[name].get(kind, 0.0)) / seconds)
        for process in items:
            try:
                memory = _rollup(process.pid)
            except (FileNotFoundError, ProcessLookupError):
                continue
            sample.count[process.kind] += 1
            sample.rss[process.kind] += memory["Rss"]
            sample.pss_lab[process.kind] += memory["Pss"]
        samples[name] = sample
    return samples


def _keepalived() -> dict[str, float]:
    try:
        return anchor_keepalived.idle_cost(1.0, WINDOW / 3)
    except AnchorError as error:
        print(f"   anchor: {error}", flush=True)
        return {}


def _cost_figures(
    samples: Sequence[dict[str, Sample]], anchors: Sequence[dict[str, float]]
) -> list[Figure]:
    def worst(pick: Callable[[Sample], float]) -> list[float]:
        return [max(pick(sample) for sample in nodes.values()) for nodes in samples]

    def row(
        name: str, pick: Callable[[Sample], float], unit: str, anchor: str = "", goal: float = 0.0
    ) -> Figure:
        return median_figure(
            name,
            worst(pick),
            unit,
            anchor=KEEPALIVED if anchor else "",
            anchor_values=[item[anchor] for item in anchors if anchor in item],
            goal=goal or None,
        )

    bridges = max(sample.count["bridge"] for nodes in samples for sample in nodes.values())
    return [
        row("ha_rss_mb", lambda item: item.rss["ha"], "MB", "rss_mb", 50.0),
        row("ha_pss_mb", lambda item: item.pss["ha"], "MB", "pss_mb", 36.0),
        row("ha_cpu_percent", lambda item: item.cpu["ha"], "% of a core", "cpu_percent", 1.0),
        row("ha_pss_lab_mb", lambda item: item.pss_lab["ha"], "MB"),
        row("ha_children_rss_mb", lambda item: item.rss["child"], "MB"),
        row("ha_children_pss_mb", lambda item: item.pss.get("child", 0.0), "MB"),
        row("ha_children_cpu_percent", lambda item: item.cpu.get("child", 0.0), "% of a core"),
        row("bridges_rss_mb", lambda item: item.rss["bridge"], f"MB, {bridges} bridges"),
        row("bridges_pss_mb", lambda item: item.pss.get("bridge", 0.0), f"MB, {bridges} bridges"),
        row("bridges_cpu_percent", lambda item: item.cpu.get("bridge", 0.0), "% of a core"),
        row("ssh_sessions_pss_mb", lambda item: item.pss.get("ssh", 0.0), "MB, sshd"),
        row("ssh_sessions_cpu_percent", lambda item: item.cpu.get("ssh", 0.0), "% of a core"),
    ]


_TIMES = """
import json, subprocess, sys, time
count, commands = json.loads(sys.argv[1])
times = {name: [] for name in commands}
for _ in range(count):
    for name, words in commands.items():
        started = time.perf_counter()
        subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
        times[name].append((time.perf_counter() - started) * 1000)
print(json.dumps(times))
"""


def _status_command(node: LabNode) -> Figure:
    """Time `ha status` as the package installs it, beside the bare start of its interpreter."""
    anchor = "python3 -I -S -c pass"
    commands = {
        "status": ["sh", str(ENTRY), "status"],
        "anchor": [sys.executable, "-I", "-S", "-c", "pass"],
    }
    words = [sys.executable, "-I", "-S", "-c", _TIMES, json.dumps([COMMANDS, commands])]
    done = node.exec(words, timeout=120, check=True, env={"CONTROLONE_PYTHON": sys.executable})
    times: dict[str, list[float]] = json.loads(done.stdout)
    return median_figure(
        "status_command_ms",
        times["status"],
        "ms",
        anchor=anchor,
        anchor_values=times["anchor"],
    )


if __name__ == "__main__":
    for figure in figures():
        print(figure.to_json())
