"""What trust costs: a handshake, pairing two nodes; and how much the parsers have been fuzzed.

The anchor of the handshake is an SSH login with the same key on the same server by the ``ssh``
command, that of pairing is copying a key with ssh-copy-id's one command, a login as well.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from controlone_ha.lab.figures import Figure, median_figure
from controlone_ha.peers.dialing import prove
from controlone_ha.peers.own import OwnNode, pinned_facts
from controlone_ha.peers.ssh import Target, dial
from tests.contract.peers_support import Node, nodes
from tests.fuzz.__main__ import read_counts
from tests.fuzz.targets import targets
from tests.waiting import until

RUNS = 7


def figures() -> list[Figure]:
    """Measure everything; takes about half a minute."""
    handshakes, logins, pairs = asyncio.run(_handshakes())
    found = [
        median_figure(
            "handshake_ms",
            handshakes,
            "ms",
            anchor="ssh login and a command",
            anchor_values=logins,
        ),
        median_figure("pair_seconds", pairs, "s"),
    ]
    counts = read_counts()
    for target in targets():
        row = counts.get(target.name)
        found.append(
            Figure(
                name=f"fuzz_inputs_{target.name}",
                value=float(row["inputs"]) if row else None,
                unit="",
                reason="" if row else "`make fuzz` was not run here",
            )
        )
    crashes = [float(row["crashes"]) for row in counts.values()]
    found.append(
        Figure(
            name="fuzz_crashes",
            value=sum(crashes) if crashes else None,
            unit="",
            goal=0.0,
            reason="" if crashes else "`make fuzz` was not run here",
        )
    )
    return found


async def _handshakes() -> tuple[list[float], list[float], list[float]]:
    """Return ms from nothing to a proven link, ms of an ssh login, and seconds of pairing."""
    ours: list[float] = []
    logins: list[float] = []
    pairs: list[float] = []
    with nodes("alfa", "beta", kind="openssh") as (alfa, beta):
        await beta.links.start()
        await alfa.links.start()
        try:
            for _ in range(RUNS):
                ours.append(await _proven(alfa, beta))
                logins.append(await asyncio.to_thread(_login, beta))
        finally:
            await alfa.links.stop()
            await beta.links.stop()
    for _ in range(3):
        pairs.append(await asyncio.to_thread(_pair))
    return ours, logins, pairs


async def _proven(alfa: Node, beta: Node) -> float:
    own: OwnNode = alfa.links._own
    pin = beta.pin()
    keys = alfa.links._keys
    assert keys is not None
    target = Target(
        peer="beta",
        host="127.0.0.1",
        port=beta.server.port,
        user="root",
        host_keys=pin.host_keys,
        key_file=alfa.paths.key_file,
    )
    started = time.monotonic()
    connection = await dial(target, timeout=10.0)
    await prove(connection, own=own.facts(), pinned=pinned_facts(pin), link_key=keys.link, ended="")
    taken = time.monotonic() - started
    connection.abort()
    await until(lambda: connection.finished)
    return taken * 1000


def _login(beta: Node) -> float:
    """Log in by the ssh command with a key of its own, and run ``true``."""
    with tempfile.TemporaryDirectory() as directory:
        key = Path(directory) / "key"
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", str(key)], check=True
        )
        before = beta.server.authorized_keys.read_bytes()
        with beta.server.authorized_keys.open("ab") as file:
            file.write(Path(f"{key}.pub").read_bytes())
        words = ["ssh", "-i", str(key), "-p", str(beta.server.port)]
        words += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        words += ["-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "root@127.0.0.1", "true"]
        started = time.monotonic()
        subprocess.run(words, check=True, capture_output=True, timeout=20)
        taken = time.monotonic() - started
        beta.server.authorized_keys.write_bytes(before)
    return taken * 1000


def _pair() -> float:
    """Pair two fresh nodes by `ha pair`: one command, both sides pinned."""
    from tests.contract.test_control_pairing import PairedNode, host_key_fingerprint

    directory = Path(tempfile.mkdtemp(prefix="ha-", dir="/tmp"))
    made: list[PairedNode] = []
    try:
        key = directory / "id"
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
        subprocess.run(make, check=True)
        for name, peer in (("alfa", "beta"), ("beta", "alfa")):
            made.append(PairedNode(name, directory / name, "openssh", peer))
        alfa, beta = made
        beta.admit(Path(f"{key}.pub").read_text())
        words = ("pair", f"root@127.0.0.1:{beta.server.port}", "-i", str(key))
        started = time.monotonic()
        done = alfa.ha(*words, "--fingerprint", host_key_fingerprint(beta))
        taken = time.monotonic() - started
        if done.returncode != 0:
            raise RuntimeError(f"{done.stderr}")
        return taken
    finally:
        for node in made:
            node.server.stop()
        shutil.rmtree(directory, ignore_errors=True)
