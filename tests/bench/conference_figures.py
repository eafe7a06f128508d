"""The Conference Server: set-up rate and latency beside the same Asterisk with a plain dialplan.

Both run in one Asterisk, interleaved: SIPp calls ``100``, a queue led by the controller, and
``plain``, an extension that dials the same answering SIPp. The rate is that of as many calls as get
through, twenty at a time, without a single failure; its last word is the processor, which both
SIPps, Asterisk and the controller share here. How long a peer takes to hold a change is measured on
two real nodes, from the controller's notice to the acknowledgement over the SSH link.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from controlone_ha.conference import asterisk as engine
from controlone_ha.errors import ControlOneError, LabError
from controlone_ha.jsonrpc import call, connect_unix
from controlone_ha.lab import parts
from controlone_ha.lab.figures import Figure, median_figure
from tests.contract.conference_support import Server
from tests.ports import free_port

RUNS = 3
CALLS = 400
AT_ONCE = 20
STEADY_RATE = 10
STEADY_CALLS = 150
LIVE = 200
LEAK_CALLS = 1000
FORGOTTEN = 40.0
"""Seconds until Asterisk has let go of a call's transactions (RFC 3261, timer J: 32 s)."""
ANCHOR = "Asterisk, plain dialplan"


def figures() -> list[Figure]:
    """Measure everything; takes about seven minutes."""
    return asyncio.run(_alone()) + _with_peer()


class Bench(Server):
    """A Conference Server whose dialplan has the anchor, too."""

    def start_asterisk(self) -> None:
        engine.prepare(self.paths, self.program, ari_port=self.ari_port)
        folder = self.paths.asterisk_dir / "etc"
        plain = (
            "\n[incoming](+)\nexten => plain,1,"
            f"Dial(PJSIP/console/sip:desk@127.0.0.1:{self.desk})\n same => n,Hangup()\n"
        )
        extensions, modules = folder / "extensions.conf", folder / "modules.conf"
        extensions.write_text(extensions.read_text() + plain)
        modules.write_text(modules.read_text() + "load=app_dial.so\n")
        words = engine.command(self.paths, self.program)
        self.asterisk = self._spawn(words, "asterisk.log")

    def trim(self) -> None:
        """Have Asterisk give back what it does not use."""
        words = [word for word in engine.command(self.paths, self.program) if word != "-f"]
        subprocess.run(
            [*words, "-rx", "malloc trim"],
            env={**os.environ, **self.environment, **self.program.environment()},
            capture_output=True,
            check=True,
            timeout=30,
        )

    desk = 0


async def _alone() -> list[Figure]:
    folder = Path(tempfile.mkdtemp(prefix="c1-", dir="/tmp"))
    folder.chmod(0o711)
    server = Bench(folder, parts.asterisk(), free_port)
    server.environment["MALLOC_ARENA_MAX"] = "1"  # as in the lab, and its init script
    server.desk = free_port()
    desk = _sipp(folder, ["-sn", "uas", "-p", str(server.desk)])
    try:
        await server.start()
        sip = f"sip:desk@127.0.0.1:{server.desk}"
        await server.call("consoles", consoles=[{"name": "d", "queues": ["100"], "sip": sip}])
        await asyncio.sleep(1.0)
        return await _measure(server)
    finally:
        desk.kill()
        desk.wait()
        await server.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def _measure(server: Bench) -> list[Figure]:
    loop = asyncio.get_running_loop()
    rates: dict[str, list[float]] = {"100": [], "plain": []}
    delays: dict[str, list[list[float]]] = {"100": [], "plain": []}
    for _ in range(RUNS):
        for number, found in rates.items():
            rate = await loop.run_in_executor(None, _rate, server, number)
            if rate is not None:
                found.append(rate)
        for number, several in delays.items():
            several.append(await loop.run_in_executor(None, _delays, server, number))
    rows = [
        Figure(
            name="setup_rate_vs_plain",
            value=_ratio(rates["100"], rates["plain"]),
            unit="ratio",
            runs=RUNS,
            goal=0.6,
            is_lower_bound=True,
            reason="" if rates["100"] and rates["plain"] else "calls failed in every run",
        ),
        median_figure(
            "setup_rate",
            rates["100"],
            "calls/s",
            anchor=ANCHOR,
            anchor_values=rates["plain"],
            reason="calls failed in every run",
        ),
    ]
    for name, share in (("setup_p50_ms", 0.5), ("setup_p99_ms", 0.99)):
        ours, plain = (
            [_quantile(run, share) for run in delays[number] if run] for number in delays
        )
        rows.append(
            median_figure(
                name, ours, "ms", anchor=ANCHOR, anchor_values=plain, reason="no call got through"
            )
        )
    return rows + await _memory(server)


async def _memory(server: Bench) -> list[Figure]:
    """Both processes' memory: for calls that are up, and what many calls leave behind."""
    loop = asyncio.get_running_loop()

    async def after(number: str) -> float:
        """Return the memory that is left some time after many calls."""
        await loop.run_in_executor(None, _many, server, number, LEAK_CALLS)
        await asyncio.sleep(FORGOTTEN)
        return _resident(server)

    await asyncio.sleep(FORGOTTEN)
    before = _resident(server)
    words = ["-s", "100", "-m", str(LIVE), "-r", "20", "-d", "55000"]
    caller = _uac(server, words)
    await asyncio.sleep(LIVE / 20 + FORGOTTEN)
    up = (await server.call("status"))["calls"]
    per_call = (_resident(server) - before) / up if up else 0.0
    await loop.run_in_executor(None, caller.wait, 90)
    # The first many calls fill what is kept for the next ones.
    levels = [await after(number) for number in ("100", "100", "plain")]
    ours, plain = ((late - early) * 1000 / LEAK_CALLS for early, late in itertools.pairwise(levels))
    return [
        Figure(name="kb_per_call", value=round(per_call, 1) if up else None, unit="kB"),
        Figure(
            name="leak_kb_per_1000_calls",
            value=round(ours, 1),
            unit="kB",
            anchor=ANCHOR,
            anchor_value=round(plain, 1),
        ),
    ]


def _many(server: Bench, number: str, calls: int) -> None:
    _uac(server, ["-s", number, "-m", str(calls), "-l", "10", "-r", "60"]).wait(180)


def _resident(server: Bench) -> float:
    """Return the resident memory of Asterisk and controller in kB.

    What Asterisk has freed and only not given back to the system (a hundred MB after a burst, with
    a plain dialplan as well) is given back first: it is no leak.
    """
    server.trim()
    total = 0.0
    for process in (server.asterisk, server.controller):
        assert process is not None
        status = Path(f"/proc/{process.pid}/status").read_text()
        total += float(status.partition("VmRSS:")[2].split()[0])
    return total


def _rate(server: Bench, number: str) -> float | None:
    """Return calls a second without a failure; None when one failed."""
    started = time.monotonic()
    words = ["-s", number, "-m", str(CALLS), "-l", str(AT_ONCE), "-r", "1000"]
    code = _uac(server, words).wait(120)
    elapsed = time.monotonic() - started
    time.sleep(1.0)
    return CALLS / elapsed if code == 0 else None


def _delays(server: Bench, number: str) -> list[float]:
    """Return the milliseconds from INVITE to 200 of calls at a steady rate."""
    folder = server.directory / f"rtt-{number}-{time.monotonic_ns()}"
    folder.mkdir()
    words = ["-s", number, "-m", str(STEADY_CALLS), "-r", str(STEADY_RATE), "-trace_rtt"]
    _uac(server, [*words, "-rtt_freq", "1"], folder).wait(60)
    found = []
    for path in folder.glob("*_rtt.csv"):
        for line in path.read_text().splitlines():
            cells = line.split(";")
            with contextlib.suppress(ValueError, IndexError):
                found.append((float(cells[0]), float(cells[1]))[1])
    return found


def _uac(server: Bench, words: list[str], folder: Path | None = None) -> subprocess.Popen[bytes]:
    where = [f"127.0.0.1:{server.port}", "-sn", "uac", "-p", str(free_port())]
    return _sipp(folder or server.directory, [*where, *words])


def _sipp(folder: Path, words: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [str(parts.sipp_path()), *words, "-i", "127.0.0.1", "-ci", "127.0.0.1", "-nostdin"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TERM": "dumb"},
    )


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _ratio(ours: list[float], plain: list[float]) -> float | None:
    if not ours or not plain:
        return None
    return round(statistics.median(ours) / statistics.median(plain), 4)


# -- two nodes -----------------------------------------------------------------------------------


def _with_peer() -> list[Figure]:
    """Measure how long a peer takes to hold a change, with many live calls."""
    name = "live_calls_to_peer_p99_ms"
    try:
        values = asyncio.run(_protection())
    except (ControlOneError, OSError, AssertionError) as error:
        return [Figure(name=name, value=None, unit="ms", goal=20, reason=str(error)[:200])]
    return [median_figure(name, values, "ms", goal=20, reason="nothing was acknowledged")]


async def _protection() -> list[float]:
    from tests.cluster.test_live_calls import sipp, two_nodes

    with _entered(two_nodes()) as lab:
        m1, s1 = lab.node("m1"), lab.node("s1")
        path = m1.path("/var/run/controlone/conference.sock")
        connection = await connect_unix(path)
        consoles = [{"name": "d", "queues": ["100"], "sip": f"sip:d@{s1.address}:5095"}]
        desk = sipp(s1, ["-sn", "uas", "-p", "5095"])
        values = []
        try:
            await connection.call("consoles", {"consoles": consoles})
            await asyncio.sleep(0.5)
            for run in range(RUNS):
                words = [f"{m1.address}:5060", "-sn", "uac", "-s", "100", "-p", str(5080 + run)]
                caller = sipp(s1, [*words, "-m", str(LIVE), "-r", "20", "-d", "12000"])
                await asyncio.sleep(LIVE / 20 + 1)
                status: dict[str, Any] = call(path, "status")
                if status["calls"] < LIVE * 0.9:
                    raise LabError(f"only {status['calls']} calls are up")
                values.append(float(status["protection"]["p99_ms"]))
                await asyncio.get_running_loop().run_in_executor(None, caller.wait, 60)
        finally:
            desk.kill()
            desk.wait()
            await connection.close()
        return values


@contextlib.contextmanager
def _entered(manager: Any) -> Iterator[Any]:
    with manager as value:
        yield value
