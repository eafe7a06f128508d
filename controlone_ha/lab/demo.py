"""``make demo``: figure 1 of the specification on this machine, masters dying, slaves taking over.

    python -m controlone_ha.lab.demo [--runs N] [--out FILE] [--no-anchor]

Five real nodes with real sshd, Console Server and Asterisk on their real ports. Masters are killed
(every process, SIGKILL) and cut off (interface down); a stopwatch in the network of another node
measures when the slave's Console Server accepts a login and its Asterisk answers SIP. Nothing is
scripted into the product: what is printed is what `ha status` and `ha why` say.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from controlone_ha.errors import ControlOneError, LabError
from controlone_ha.lab.anchor_keepalived import AnchorError, Kind, measure
from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.figure import figure_one, make_lab
from controlone_ha.lab.figures import Figure, figures_table, median_figure, write_figures
from controlone_ha.lab.pairing import pin_everybody

BACKUP = {"m1": "s1", "m2": "s2"}
SETTLE = {"failback_delay": "2", "stable": "5"}
"""Only how long the cluster waits before it goes back: nothing that detection or takeover use."""

PATIENCE = 60.0

_GOALS: dict[tuple[str, Kind], float] = {
    ("default", "crash"): 2.0,
    ("default", "cut"): 4.0,
    ("fast", "crash"): 0.6,
    ("fast", "cut"): 1.0,
}
_INTERVAL = {"default": "10", "fast": "1"}
_ADVERTISEMENT = {"default": 1.0, "fast": 0.1}


class Stopwatch:
    """Time from an event to service, in seconds: both services of the backup, and each alone."""

    def __init__(self, lab: Lab, backup: str) -> None:
        self._process = lab.node("p1").spawn(
            [sys.executable, "-P", "-m", "controlone_ha.lab.measure", lab.node(backup).address],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            raise LabError(f"the stopwatch could not reach {backup}")

    def read(self, started: float) -> dict[str, float]:
        """Wait until both serve; return ``{"console", "sip", "both"}``."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        self._process.wait(timeout=10)
        if not line:
            raise LabError("the backup did not begin to serve")
        times = {name: at - started for name, at in json.loads(line).items()}
        if min(times.values()) < 0:
            raise LabError(f"the backup served before the event: {times}")
        return {**times, "both": max(times.values())}


def status(lab: Lab, node: str) -> dict[str, Any]:
    """Return `ha status --json` of a node."""
    done = lab.node(node).exec(["ha", "status", "--json"], timeout=15)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def is_calm(lab: Lab) -> bool:
    """True when every link is up, the masters are active and serve, the slaves stand by."""
    for name in lab.nodes:
        said = status(lab, name)
        if "peers" not in said:
            return False  # its `ha` is not up yet
        if any(peer["link"]["state"] != "up" for peer in said["peers"]):
            return False
        expected = {"m": "active", "s": "standby", "p": "passive"}[name[0]]
        if said["state"] != expected or said["abnormalities"]:
            return False
        serving = {item["name"] for item in said["services"] if item["state"] == "serving"}
        if expected == "active" and not {"server", "conference"} <= serving:
            return False
    return True


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for ``condition``; raise ``LabError`` saying what did not come."""
    limit = time.monotonic() + PATIENCE
    while time.monotonic() < limit:
        try:
            if condition():
                return
        except (ControlOneError, ValueError, subprocess.SubprocessError):
            pass  # a node that is just booting has nothing to say yet
        time.sleep(0.2)
    raise LabError(f"{what} within {PATIENCE:g} s")


class Demo:
    """The story, step by step; ``figures`` holds what was measured."""

    def __init__(self, lab: Lab, runs: int) -> None:
        self.lab = lab
        self.runs = runs
        self.measured: dict[tuple[str, str], list[dict[str, float]]] = {}

    def tell(self, text: str) -> None:
        """Print one step of the story."""
        print(f"\n== {text}", flush=True)

    def show(self, node: str, *command: str) -> None:
        """Run a command on a node and print it with its output, as a person would see it."""
        done = self.lab.node(node).exec(list(command), timeout=20)
        print(f"{node}# {' '.join(command)}\n{done.stdout.rstrip()}", flush=True)

    def one_failure(self, settings: str, kind: str, master: str) -> None:
        """Let ``master`` fail, measure, let it return, wait until all is as before."""
        backup = BACKUP[master]
        watch = Stopwatch(self.lab, backup)
        started = time.monotonic()
        if kind == "crash":
            self.lab.node(master).kill()
        else:
            self.lab.node(master).cut()
        times = watch.read(started)
        self.measured.setdefault((settings, kind), []).append(times)
        event = "every process killed" if kind == "crash" else "power cut (interface down)"
        print(
            f"   {master}: {event} -> {backup}: Console Server accepts after"
            f" {times['console']:.3f} s, Conference Server answers after {times['sip']:.3f} s",
            flush=True,
        )
        if len(self.measured) == 1 and len(self.measured[(settings, kind)]) == 1:
            self.tell(f"why did {backup} take over?")
            self.show(backup, "ha", "why")
            self.tell("what the passive node says, far away on the other site")
            self.show("p1", "ha", "status")
        if kind == "crash":
            self.lab.node(master).boot()
        else:
            self.lab.node(master).heal()
        wait_until(lambda: is_calm(self.lab), "the cluster did not settle")

    def failures(self, settings: str) -> None:
        """All runs at one set of settings."""
        for number in range(self.runs):
            master = ("m1", "m2")[number % 2]
            for kind in ("crash", "cut"):
                self.one_failure(settings, kind, master)

    def make_fast(self) -> None:
        """The user's own commands, on every node."""
        self.tell("fast settings: the watchdog every second, on every node")
        commands = ("uci set ha.default.interval=1", "uci commit", "service ha restart")
        print("\n".join(f"every node# {command}" for command in commands))
        for node in self.lab.nodes.values():
            for command in commands:
                done = node.exec(command.split(), timeout=20)
                if done.returncode != 0:
                    raise LabError(f"{node.name}: {command}: {done.stderr.strip()}")
        time.sleep(1.0)
        wait_until(lambda: is_calm(self.lab), "the cluster did not settle")

    def figures(self, anchors: dict[tuple[str, Kind], list[float] | str]) -> list[Figure]:
        """Return what was measured beside keepalived, which checks the node only."""
        rows = []
        for (settings, kind), goal in _GOALS.items():
            runs = self.measured.get((settings, kind), [])
            anchor = anchors.get((settings, kind), "not run")
            rows.append(
                median_figure(
                    f"failover_{kind}_{settings}_s",
                    [times["both"] for times in runs],
                    "s",
                    anchor=f"keepalived, advertisements {_ADVERTISEMENT[settings]:g} s",
                    anchor_values=anchor if isinstance(anchor, list) else (),
                    goal=goal,
                    reason="no run was completed",
                )
            )
            for part in ("console", "sip"):
                name = f"failover_{kind}_{settings}_{part}_s"
                values = [times[part] for times in runs]
                rows.append(median_figure(name, values, "s", reason="no run was completed"))
        return rows


@contextmanager
def cluster() -> Iterator[Lab]:
    """Five nodes, paired and calm."""
    with make_lab(figure_one(ha=SETTLE)) as lab:
        pin_everybody(lab)
        wait_until(lambda: is_calm(lab), "the cluster did not come up")
        yield lab


def run(runs: int, *, with_anchor: bool) -> list[Figure]:
    """Tell the whole story; return the figures."""
    print(
        "Two sites, five real nodes (sshd, Console Server, Asterisk; real ports, real UCI files):"
    )
    print("  site 1: m1 master, s1 slave      site 2: m2 master, s2 slave, p1 passive")
    started = time.monotonic()
    with cluster() as lab:
        demo = Demo(lab, runs)
        demo.tell(f"the cluster is up after {time.monotonic() - started:.1f} s")
        demo.show("m1", "ha", "status")
        demo.tell("a master dies, at the default settings (watchdog every 10 s)")
        demo.failures("default")
        demo.make_fast()
        demo.tell("the same at fast settings")
        demo.failures("fast")
        demo.tell("the history of s1")
        demo.show("s1", "ha", "history", "-n", "8")
        anchors = _anchors(runs) if with_anchor else {}
        return demo.figures(anchors)


def _anchors(runs: int) -> dict[tuple[str, Kind], list[float] | str]:
    found: dict[tuple[str, Kind], list[float] | str] = {}
    print("\n== keepalived in the same run, for comparison (node only: no service, no console)")
    for settings, kind in _GOALS:
        try:
            found[settings, kind] = measure(kind, _ADVERTISEMENT[settings], runs)
        except AnchorError as error:
            print(f"   {error}")
            found[settings, kind] = str(error)
    return found


def main() -> int:
    """Run the demo; exit 0 when every figure was measured, 1 when the story broke."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="failures of each kind (default 3)")
    parser.add_argument("--out", type=Path, default=Path("build/demo.json"))
    parser.add_argument("--no-anchor", action="store_true", help="without keepalived")
    chosen = parser.parse_args()
    try:
        figures = run(chosen.runs, with_anchor=not chosen.no_anchor)
    except ControlOneError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    write_figures(chosen.out, figures)
    print(f"\n{figures_table(figures)}\n\nwritten to {chosen.out}")
    return 0 if all(figure.value is not None for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
