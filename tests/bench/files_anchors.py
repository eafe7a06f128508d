"""What files are compared with: lsyncd, rsync and scp between the same nodes and SSH servers."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from controlone_ha.errors import LabError
from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.node import LabNode

WATCHED = "/var/lib/controlone/anchor"
"""What lsyncd of m1 keeps equal; outside of every item."""
SCRATCH = "/var/lib/controlone/anchor.scratch"


def login(lab: Lab, source: str, target: str) -> list[str]:
    """Let root of one node log in to another by a key; return the SSH options for that."""
    here, there = lab.node(source), lab.node(target)
    key = here.path("/root/.ssh") / "bench"
    if not key.exists():
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/bench"]
        here.exec(make, check=True)
    line = key.with_suffix(".pub").read_text()
    accepted = there.path("/root/.ssh") / "authorized_keys"
    if not accepted.exists() or line not in accepted.read_text():
        with accepted.open("a") as keys:
            keys.write(line)
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
    return ["-i", "/root/.ssh/bench", *(part for one in options for part in ("-o", one))]


def rsync(lab: Lab, directory: str) -> tuple[float, float]:
    """Return (bytes both ways, seconds) of ``rsync -a`` of a directory from m1 to s1."""
    target = f"root@{lab.node('s1').address}:{directory}/"
    ssh = " ".join(["ssh", *login(lab, "m1", "s1")])
    command = ["rsync", "-a", "--stats", "-e", ssh, f"{directory}/", target]
    start = time.perf_counter()
    done = lab.node("m1").exec(command, check=True, timeout=120.0)
    spent = time.perf_counter() - start
    moved = re.findall(r"Total bytes (?:sent|received): ([\d,]+)", done.stdout)
    return float(sum(int(text.replace(",", "")) for text in moved)), spent


def scp(lab: Lab, source: str, target: str, path: str) -> float:
    """Return the seconds in which scp brings a file from one node to another, synced to disk.

    It is run on m1, as the link between the two is dialed by m1: a put or a get.
    """
    arrived = "/var/lib/controlone/scp.bin"
    options = login(lab, "m1", "s1")
    far = f"root@{lab.node('s1').address}"
    there = (path, f"{far}:{arrived}") if source == "m1" else (f"{far}:{path}", arrived)
    place = lab.node(target).path(arrived)
    start = time.perf_counter()
    lab.node("m1").exec(["scp", "-q", *options, *there], check=True, timeout=300.0)
    subprocess.run(["sync", str(place)], check=True)
    spent = time.perf_counter() - start
    place.unlink()
    return spent


class Lsyncd:
    """lsyncd on m1 without delay, one rsync to each peer over a connection that stays open."""

    def __init__(self, lab: Lab, peers: tuple[str, ...]) -> None:
        self._source: LabNode = lab.node("m1")
        self._targets = [lab.node(name).path(WATCHED) / "server" for name in peers]

    def change(self, text: str) -> float:
        """Rename a new file into place; return the ms until it is on every peer."""
        fresh = self._source.path(SCRATCH) / "fresh"
        fresh.write_text(text)
        before = [inode(target) for target in self._targets]
        return replaced(fresh, self._source.path(WATCHED) / "server", self._targets, before)


def inode(path: Path) -> int:
    """Return which file lies there; 0: none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def replaced(fresh: Path, place: Path, targets: list[Path], before: list[int]) -> float:
    """Rename a file into place; return the ms until other files lie at all of ``targets``."""
    start = time.perf_counter()
    os.replace(fresh, place)
    waiting = set(range(len(targets)))
    while waiting and time.perf_counter() - start < 10:
        waiting = {n for n in waiting if inode(targets[n]) == before[n]}
        if waiting:
            time.sleep(0.0003)
    return (time.perf_counter() - start) * 1000


@contextlib.contextmanager
def lsyncd(lab: Lab, peers: tuple[str, ...]) -> Iterator[Lsyncd]:
    """Run it for the length of the block."""
    m1 = lab.node("m1")
    for node in lab.nodes.values():
        node.path(WATCHED).mkdir(parents=True, exist_ok=True)
    m1.path(SCRATCH).mkdir(parents=True, exist_ok=True)
    lines = ["settings { nodaemon = true, maxProcesses = 8 }"]
    for name in peers:
        options = " ".join(login(lab, "m1", name))
        shared = "-o ControlMaster=auto -o ControlPath=/root/.ssh/bench-%h -o ControlPersist=60"
        address = lab.node(name).address
        # The connection is opened before: only what a change costs is compared.
        m1.exec(["sh", "-c", f"ssh {options} {shared} root@{address} true"], check=True)
        lines.append(
            f'sync {{ default.rsync, source = "{WATCHED}", target = "root@{address}:{WATCHED}",'
            f' delay = 0, rsync = {{ archive = true, rsh = "ssh {options} {shared}" }} }}'
        )
    (m1.path(SCRATCH) / "lsyncd.lua").write_text("\n".join(lines) + "\n")
    with m1.log_path("lsyncd").open("wb") as log:
        process = m1.spawn(["lsyncd", f"{SCRATCH}/lsyncd.lua"], stdout=log, stderr=log)
        try:
            running = Lsyncd(lab, peers)
            for number in range(5):  # it has begun to watch once this arrives in time
                time.sleep(1.0)
                last = running.change(f"first {number}")
                if last < 1000:
                    break
            else:
                raise LabError(f"lsyncd brings nothing: {m1.read_log('lsyncd')[-500:]}")
            yield running
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=10)
            for name in peers:
                address = lab.node(name).address
                m1.exec(["ssh", "-O", "exit", "-o", f"ControlPath=/root/.ssh/bench-{address}", "x"])
