"""What a SIP probe and reading UCI files cost this machine's processor.

The anchors, in the same run: the same OPTIONS by SIPp, and ``json.loads`` of the same settings,
which is the standard library's own parser in C.
"""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from controlone_ha.lab.figures import Figure, median_figure
from controlone_ha.probes.sip import SipProber
from controlone_ha.uci import loads
from tests.sip_server import stateless_server

RUNS = 5
BATCH = 100
BATCHES = 20
SETTINGS_MB = 2.0

_SCENARIO = """<?xml version="1.0"?>
<scenario name="options">
<send retrans="500"><![CDATA[
OPTIONS sip:probe@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:ha@[local_ip]:[local_port]>;tag=[call_number]
To: <sip:probe@[remote_ip]:[remote_port]>
Call-ID: [call_id]
CSeq: 1 OPTIONS
Max-Forwards: 70
Content-Length: 0

]]></send>
<recv response="200" />
</scenario>
"""


def figures() -> list[Figure]:
    """Measure everything; takes about half a minute."""
    ours: list[float] = []
    sipp: list[float] = []
    parsed: list[float] = []
    loaded: list[float] = []
    for _ in range(RUNS):
        ours.append(options_per_cpu_second())
        if shutil.which("sipp"):
            sipp.append(_sipp_per_cpu_second())
        parsed.append(uci_mb_per_second())
        loaded.append(_json_mb_per_second())
    return [
        median_figure(
            "options_per_cpu_second",
            ours,
            "1/s",
            anchor="SIPp",
            anchor_values=sipp,
            goal=BATCH / 0.05,
            is_lower_bound=True,
        ),
        median_figure(
            "uci_parse_mb_per_s",
            parsed,
            "MB/s",
            anchor="json.loads",
            anchor_values=loaded,
            is_lower_bound=True,
        ),
    ]


def options_per_cpu_second() -> float:
    """Return how many answered OPTIONS a second of the prober's processor time buys."""

    async def story(port: int) -> float:
        prober = SipProber()
        await prober.start("127.0.0.1")
        try:
            await asyncio.gather(*(prober.probe("127.0.0.1", port) for _ in range(BATCH)))
            before = time.process_time()
            for _ in range(BATCHES):
                probes = (prober.probe("127.0.0.1", port) for _ in range(BATCH))
                results = await asyncio.gather(*probes)
                assert all(result.is_answered for result in results)
            return BATCH * BATCHES / (time.process_time() - before)
        finally:
            prober.close()

    with stateless_server() as port:
        return asyncio.run(story(port))


def _sipp_per_cpu_second() -> float:
    count = BATCH * BATCHES
    with stateless_server() as port, tempfile.TemporaryDirectory() as directory:
        scenario = Path(directory, "options.xml")
        scenario.write_text(_SCENARIO)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        options = f"-sf {scenario} -i 127.0.0.1 -m {count} -r 2000 -nostdin -timeout 30"
        subprocess.run(
            ["sipp", f"127.0.0.1:{port}", *options.split()],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            check=True,
            timeout=40,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return count / spent


# --- settings -----------------------------------------------------------------------------------


def _settings() -> dict[str, dict[str, str | list[str]]]:
    return {
        f"queue{number}": {
            "number": f"{4000 + number}",
            "name": f"Queue of position {number}, it's busy",
            "strategy": "round_robin",
            "console": [f"console{position}" for position in range(6)],
        }
        for number in range(int(SETTINGS_MB * 1e6 / 230))
    }


def _as_uci() -> bytes:
    lines = []
    for name, options in _settings().items():
        lines.append(f"\nconfig queue '{name}'")
        for option, value in options.items():
            for one in [value] if isinstance(value, str) else value:
                word = "option" if isinstance(value, str) else "list"
                quoted = one.replace("'", "'\\''")
                lines.append(f"\t{word} {option} '{quoted}'")
    return "\n".join(lines).encode() + b"\n"


def uci_mb_per_second() -> float:
    """Return the rate at which a package of a few MB is parsed."""
    text = _as_uci()
    started = time.perf_counter()
    package = loads(text, "conference")
    took = time.perf_counter() - started
    assert len(list(package.sections("queue"))) == len(_settings())
    return len(text) / 1e6 / took


def _json_mb_per_second() -> float:
    text = json.dumps(_settings())
    started = time.perf_counter()
    assert len(json.loads(text)) == len(_settings())
    return len(text) / 1e6 / (time.perf_counter() - started)
