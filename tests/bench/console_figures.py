"""Consoles: 500 of them when their server dies or falls silent; what 2000 idle ones cost a server.

The 500 run the shipped client's session in four processes on the passive node of figure 1, with the
list m1, s1, m2: the second is a standby. Times are from the fault to the accepted login, on the
clock that all processes of a machine share. The anchor: as many bare TLS connections, begun at
once, to the same server in the same run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from controlone_ha.console.connection import client_context
from controlone_ha.core.credentials import verifier_of
from controlone_ha.errors import LabError
from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.figure import figure_one
from controlone_ha.lab.figures import Figure, median_figure
from controlone_ha.peers.keys import certificate_sha256
from tests.bench.consoles import console_name, token_of
from tests.cluster.support import paired_lab, set_option, wait_for_state
from tests.console_servers import CHECKOUT, ServerProcess
from tests.ports import free_port

RUNS = 3
COUNT = 500
IDLE = 2000
PROCESSES = 4
LIST = ("m1", "s1", "m2")
WINDOW = 15.0
ANCHOR = f"{COUNT} bare TLS connections"


def figures() -> list[Figure]:
    """Measure everything; takes about six minutes."""
    return [*_failovers(), *_costs()]


# -- processes of consoles -----------------------------------------------------------------------


class Crowd:
    """Consoles in a few processes."""

    def __init__(self, processes: Sequence[subprocess.Popen[str]], count: int) -> None:
        self.processes = processes
        self.count = count

    def ask(self, line: str) -> list[Any]:
        """Return what each process answers."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(line + "\n")
            process.stdin.flush()
        answers = []
        for process in self.processes:
            assert process.stdout is not None
            text = process.stdout.readline()
            if not text:
                raise LabError("a process of consoles has ended")
            answers.append(json.loads(text))
        return answers

    def where(self) -> list[tuple[str | None, float]]:
        """Return node and moment of the login of every console."""
        return [(node, at) for part in self.ask("where") for node, at in part]

    def wait_on(self, node: str, limit: float) -> list[float]:
        """Return the moments at which consoles have logged in there: all, or after ``limit`` s
        those that have.
        """
        end = time.monotonic() + limit
        while True:
            there = [at for name, at in self.where() if name == node]
            if len(there) == self.count or time.monotonic() > end:
                return there
            time.sleep(0.2)

    def end(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.kill()
            process.wait()


def _order(index: int, count: int, **more: Any) -> str:
    part = count // PROCESSES
    return json.dumps({"first": index * part, "count": part, **more})


# -- failover --------------------------------------------------------------------------------------


@contextlib.contextmanager
def _crowd_in_lab(lab: Lab) -> Iterator[Crowd]:
    pins, sections = [], []
    for name, node in lab.nodes.items():
        pins.append((name, certificate_sha256(node.path("/etc/controlone/node.crt").read_text())))
    for number in range(COUNT):
        name = console_name(number)
        key = "c_" + hashlib.sha256(name.encode()).hexdigest()[:16]
        verifier = verifier_of(token_of(number))
        sections.append(
            f"config console '{key}'\n\toption name '{name}'\n\toption verifier '{verifier}'\n"
        )
    for node in lab.nodes.values():
        node.path("/etc/config/consoles").write_text("\n".join(sections))
    rules = {"policy": "at_once", "return_delay": 1.0, "standby_wait": 8.0, "check_interval": 20.0}
    servers = [lab.node(name).address for name in LIST]
    processes = []
    for index in range(PROCESSES):
        order = _order(
            index, COUNT, servers=servers, port=7551, rules=rules, pins=pins, spread=0.01
        )
        processes.append(
            lab.node("p1").spawn(
                [sys.executable, "-P", "-m", "tests.bench.consoles", order],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    crowd = Crowd(processes, COUNT)
    try:
        yield crowd
    finally:
        crowd.end()


def _failovers() -> list[Figure]:
    crash: list[list[float]] = []
    anchor: list[list[float]] = []
    cuts: dict[tuple[float, str], list[list[float]]] = {
        (10.0, "default"): [],
        (1.0, "default"): [],
        (1.0, "fast"): [],
    }
    lost = 0
    problem = ""
    with paired_lab(figure_one(ha={"failback_damping": "1"})) as lab:
        try:
            with _crowd_in_lab(lab) as crowd:
                for _ in range(RUNS):
                    _all_on_first(lab, crowd)
                    began = time.monotonic()
                    lab.node("m1").kill()
                    crash.append(_arrivals(crowd, began))
                    lost += COUNT - len(crash[-1])
                    parts = crowd.ask(f"bare {lab.node('s1').address}")
                    anchor.append([seconds for part in parts for seconds in part])
                    lab.boot("m1")
            for (timeout, speed), runs in cuts.items():
                if speed == "fast":
                    for node in lab.nodes.values():
                        set_option(node, "ha.default.interval", "1")
                # Anew: consoles trust a server less each time that it takes them back and fails.
                with _crowd_in_lab(lab) as crowd:
                    crowd.ask("rules " + json.dumps({"timeout": timeout}))
                    for _ in range(RUNS):
                        _all_on_first(lab, crowd)
                        began = time.monotonic()
                        lab.node("m1").cut()
                        runs.append(_arrivals(crowd, began))
                        lost += COUNT - len(runs[-1])
                        lab.node("m1").heal()
        except LabError as error:
            problem = str(error)  # what was measured so far counts
            print(f"   {problem}", flush=True)
    rows: list[Figure] = [
        median_figure(
            "crash_500_p50_s",
            [_share(times, 0.50) for times in crash],
            "s",
            anchor=ANCHOR,
            anchor_values=[_share(times, 0.50) for times in anchor],
            reason=problem,
        ),
        median_figure(
            "crash_500_p99_s",
            [_share(times, 0.99) for times in crash],
            "s",
            anchor=ANCHOR,
            anchor_values=[_share(times, 0.99) for times in anchor],
            reason=problem,
            goal=1.5,
        ),
        median_figure("crash_500_max_s", [max(times) for times in crash], "s", reason=problem),
    ]
    for (timeout, speed), runs in cuts.items():
        name = "cut_500_p99_minus_timeout_s" if timeout == 10 else "cut_500_1s_p99_minus_timeout_s"
        if speed == "fast":
            name = "cut_500_1s_fast_p99_minus_timeout_s"
        values = [_share(times, 0.99) - timeout for times in runs]
        unit = f"s, timeout {timeout:g} s, {speed} settings of the cluster"
        rows.append(median_figure(name, values, unit, goal=1.0, reason=problem))
    runs_done = len(crash) + sum(len(runs) for runs in cuts.values())
    rows.append(Figure(name="lost_consoles", value=lost, unit="consoles", runs=runs_done, goal=0))
    return rows


def _all_on_first(lab: Lab, crowd: Crowd) -> None:
    """Return when the cluster is calm and every console is on the first server."""
    wait_for_state(lab, "m1", "active", limit=120.0)
    there = crowd.wait_on("m1", 90.0)
    if len(there) < COUNT:
        places = Counter(node for node, _ in crowd.where())
        raise LabError(f"not all consoles are on the first server: {dict(places)}")
    time.sleep(3.0)


def _arrivals(crowd: Crowd, began: float) -> list[float]:
    times = sorted(at - began for at in crowd.wait_on("s1", 45.0))
    if not times:
        raise LabError("no console has arrived at the second server")
    return times


def _share(times: Sequence[float], share: float) -> float:
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


# -- what consoles cost a server -----------------------------------------------------------------


def _costs() -> list[Figure]:
    directory = Path(tempfile.mkdtemp(prefix="c1b-", dir="/tmp"))
    port = free_port()
    server = ServerProcess(directory, "a", "127.0.0.1", port)
    crowd: Crowd | None = None
    try:
        server.start()
        ratio = [_slow_ratio(server) for _ in range(RUNS)]
        before = _memory(server)
        processes = []
        for index in range(PROCESSES):
            order = _order(
                index, IDLE, servers=["127.0.0.1"], port=port, rules={}, pins=[], spread=0.02
            )
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-P", "-m", "tests.bench.consoles", order],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
                )
            )
        crowd = Crowd(processes, IDLE)
        there = len(crowd.wait_on("a", 90.0))
        if there < IDLE:
            raise LabError(f"only {there} of {IDLE} consoles are logged in")
        time.sleep(5.0)
        memory = (_memory(server) - before) / IDLE
        processor = [_processor(server) for _ in range(RUNS)]
    finally:
        if crowd is not None:
            crowd.end()
        server.end()
        shutil.rmtree(directory)
    return [
        median_figure("kb_per_console", [memory], "KiB, 2000 consoles"),
        median_figure("cpu_2000_idle_percent", processor, "% of a core, a ping each 2.5 s"),
        median_figure("slow_console_p99_ratio", ratio, "p99 of the others, with / without"),
    ]


def _memory(server: ServerProcess) -> float:
    assert server.process is not None
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    return float(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1])


def _processor(server: ServerProcess) -> float:
    assert server.process is not None

    def spent(pid: int) -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    pid, began = server.process.pid, time.monotonic()
    before = spent(pid)
    time.sleep(WINDOW)
    return 100 * (spent(pid) - before) / (time.monotonic() - began)


class _Raw:
    """A blocking console: enough to measure an answer, or to read none."""

    def __init__(self, server: ServerProcess, name: str, *, receive: int = 0) -> None:
        stream = socket.socket()
        if receive:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        stream.settimeout(20.0)
        stream.connect((server.address, server.port))
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream: ssl.SSLSocket = client_context().wrap_socket(stream)
        self.send("login", {"console": name})
        self.stream.recv(65536)

    def send(self, method: str, params: dict[str, Any]) -> None:
        line = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        self.stream.sendall(json.dumps(line).encode() + b"\n")

    def ping(self) -> float:
        began = time.perf_counter()
        self.send("ping", {})
        self.stream.recv(65536)
        return time.perf_counter() - began


def _slow_ratio(server: ServerProcess) -> float:
    """Return the p99 of 20 consoles' pings while one reads nothing, over the p99 without it."""
    others = [_Raw(server, f"other-{number}") for number in range(20)]

    def p99() -> float:
        times = []
        for _ in range(150):
            times += [console.ping() for console in others]
            time.sleep(0.005)
        return statistics.quantiles(times, n=100)[98]

    p99()  # warms up
    without = p99()
    slow = _Raw(server, "slow", receive=4096)
    ended = threading.Event()

    def shout() -> None:
        with contextlib.suppress(OSError):
            while not ended.is_set():
                slow.send("ping", {})
                time.sleep(0.011)

    thread = threading.Thread(target=shout)
    thread.start()
    beside = p99()
    ended.set()
    thread.join()
    for console in [*others, slow]:
        console.stream.close()
    return beside / without
