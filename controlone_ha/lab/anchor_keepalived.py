"""keepalived as users run it today, measured as a failover anchor: two nodes and a switch, by VRRP.

    python -m controlone_ha.lab.anchor_keepalived [crash|cut] [ADVERTISEMENT] [RUNS]

It makes three network namespaces of its own (two nodes and a bridge between them), starts the
Debian package's keepalived in both nodes, lets the master fail, and measures until the kernel of
the backup tells that it has the virtual address. That says that the node failed over, not that any
service is there. Everything is removed at the end, and leftovers of a killed run at the next one.

Not here: our own figures (``demo``). Linux, root; iproute2 and keepalived installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from controlone_ha.errors import LabError
from controlone_ha.lab import namespaces
from controlone_ha.lab.network import NETNS_DIRECTORY
from controlone_ha.lab.parts import REMEDY

Kind = Literal["crash", "cut"]

PREFIX = "c1anchor-"
VIRTUAL_ADDRESS = "10.73.0.100"
_ADDRESSES = {"master": "10.73.0.1", "backup": "10.73.0.2"}
_PRIORITIES = {"master": 150, "backup": 100}
_RTMGRP_IPV4_IFADDR = 0x10
_RTM_NEWADDR, _RTM_DELADDR = 20, 21
_SBIN = "/usr/sbin:/sbin:/usr/local/sbin"


class AnchorError(LabError):
    """keepalived could not be measured; the text says why."""


def measure(kind: Kind, advert_s: float, runs: int) -> list[float]:
    """Return the seconds from the failure to the address on the backup, one value a run.

    ``crash``: SIGKILL of the master's keepalived, every process of it. ``cut``: the master's port
    of the switch goes down. ``advert_s``: the advertisement interval, in seconds (VRRP version 3,
    RFC 5798). Raises ``AnchorError``.
    """
    found = []
    with _switch() as pair:
        for _ in range(runs):
            found.append(pair.one_failure(kind, advert_s))
    return found


def idle_cost(advert_s: float, seconds: float) -> dict[str, float]:
    """Return what the master's keepalived costs at rest, all its processes together.

    ``{"rss_mb", "pss_mb", "cpu_percent"}``: MB of 10^6 bytes, per cent of one core over
    ``seconds``. Raises ``AnchorError``.
    """
    with _switch() as pair, pair.running(advert_s) as nodes:
        processes = nodes["master"].processes()
        before = _cpu_seconds(processes)
        time.sleep(seconds)
        spent = _cpu_seconds(processes) - before
        memory = [_memory(pid) for pid in processes]
    return {
        "rss_mb": sum(item["Rss"] for item in memory) / 1e6,
        "pss_mb": sum(item["Pss"] for item in memory) / 1e6,
        "cpu_percent": 100 * spent / seconds,
    }


def _cpu_seconds(processes: Sequence[int]) -> float:
    ticks = 0
    for pid in processes:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> dict[str, int]:
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split()[:2]
        found[name.rstrip(":")] = int(value) * 1024
    return found


# -- the two nodes ---------------------------------------------------------------------------------


@contextlib.contextmanager
def _switch() -> Iterator[_Pair]:
    """Make the namespaces, and remove them whatever happens."""
    if os.geteuid() != 0:
        raise AnchorError("keepalived needs root (network namespaces)")
    program = shutil.which("keepalived", path=f"{os.environ.get('PATH', '')}:{_SBIN}")
    if program is None:
        raise AnchorError(f"keepalived is not on this machine: {REMEDY}")
    _remove_leftovers()
    with tempfile.TemporaryDirectory(prefix="c1-keepalived-") as directory:
        pair = _Pair(program, Path(directory))
        try:
            pair.build()
            yield pair
        finally:
            pair.remove()


class _Pair:
    def __init__(self, program: str, directory: Path) -> None:
        self._program = program
        self._directory = directory
        self._prefix = f"{PREFIX}{os.getpid()}-{secrets.token_hex(2)}-"

    def namespace(self, name: str) -> str:
        return self._prefix + name

    def build(self) -> None:
        switch = self.namespace("switch")
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "sw", "type", "bridge", "mcast_snooping", "0")
        _ip("-n", switch, "link", "set", "sw", "up")
        for name, address in _ADDRESSES.items():
            node = self.namespace(name)
            _ip("netns", "add", node)
            port = f"to-{name}"
            words = ("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", node)
            _ip("-n", switch, *words)
            _ip("-n", switch, "link", "set", port, "master", "sw", "up")
            _ip("-n", node, "link", "set", "lo", "up")
            _ip("-n", node, "addr", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", node, "link", "set", "eth0", "up")

    def remove(self) -> None:
        for name in ("master", "backup", "switch"):
            _remove_namespace(self.namespace(name))

    def set_port(self, state: str) -> None:
        """Pull (``down``) or put back (``up``) the master's cable."""
        _ip("-n", self.namespace("switch"), "link", "set", "to-master", state)

    def one_failure(self, kind: Kind, advert_s: float) -> float:
        """Start both, let the master fail, return the seconds until the backup has the address."""
        with self.running(advert_s) as nodes, _AddressWatch(self, "backup") as backup:
            started = time.monotonic()
            if kind == "crash":
                nodes["master"].kill()
            else:
                self.set_port("down")
            try:
                return backup.wait(_RTM_NEWADDR, 20 * advert_s + 5.0) - started
            finally:
                if kind == "cut":
                    self.set_port("up")

    @contextlib.contextmanager
    def running(self, advert_s: float) -> Iterator[dict[str, _Keepalived]]:
        """Both keepalived, master and backup settled in their roles."""
        nodes: dict[str, _Keepalived] = {}
        try:
            with _AddressWatch(self, "master") as master, _AddressWatch(self, "backup") as backup:
                for name in ("master", "backup"):
                    nodes[name] = self._start(name, advert_s)
                try:
                    master.wait(_RTM_NEWADDR, 20 * advert_s + 10.0)
                    # The backup may have been first, and gives the address back at once.
                    if backup.has_address():
                        backup.wait(_RTM_DELADDR, 20 * advert_s + 10.0)
                except AnchorError as error:
                    said = " / ".join(node.last_words() for node in nodes.values())
                    raise AnchorError(f"{error}; keepalived said: {said}") from None
            time.sleep(3 * advert_s)
            yield nodes
        finally:
            for node in nodes.values():
                node.kill()
            for name in nodes:
                with contextlib.suppress(AnchorError):
                    where = ("-n", self.namespace(name), "addr", "del")
                    _ip(*where, f"{VIRTUAL_ADDRESS}/32", "dev", "eth0")

    def _start(self, name: str, advert_s: float) -> _Keepalived:
        configuration = self._directory / f"{name}.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                name=name,
                state=name.upper(),
                priority=_PRIORITIES[name],
                advert=f"{advert_s:g}",
                address=VIRTUAL_ADDRESS,
            )
        )
        configuration.chmod(0o644)
        return _Keepalived(
            self._program, self.namespace(name), configuration, self._directory / f"{name}.log"
        )


_CONFIGURATION = """\
global_defs {{
    router_id {name}
    vrrp_version 3
}}
vrrp_instance anchor {{
    state {state}
    interface eth0
    virtual_router_id 71
    priority {priority}
    advert_int {advert}
    virtual_ipaddress {{
        {address}/32 dev eth0
    }}
}}
"""


class _Keepalived:
    """One keepalived (parent and VRRP child) in a namespace, in a process group of its own."""

    def __init__(self, program: str, namespace: str, configuration: Path, log: Path) -> None:
        self._log = log
        self._namespace = namespace
        # New files every time: those of a killed one count as long as its zombie is there.
        own = f"{configuration.with_suffix('')}-{secrets.token_hex(4)}"
        pids = [f"--{which}={own}.{which}" for which in ("pid", "vrrp_pid", "checkers_pid")]
        command = [program, "--dont-fork", "--log-console", "--vrrp", *pids]
        with open(log, "ab") as output:
            self._process = subprocess.Popen(
                [
                    "nsenter",
                    f"--net={NETNS_DIRECTORY / namespace}",
                    *command,
                    f"--use-file={configuration}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def processes(self) -> list[int]:
        """Return the PIDs."""
        return namespaces.processes_in(NETNS_DIRECTORY / self._namespace)

    def kill(self) -> None:
        """SIGKILL every process of it; the kernel keeps the address, as on a real node."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pid in self.processes():
            namespaces.kill_and_wait(pid)
        self._process.wait(timeout=10)

    def last_words(self) -> str:
        """Return the last line of its log."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing"


class _AddressWatch:
    """Hears from the kernel of a node when the virtual address comes or goes (rtnetlink(7))."""

    def __init__(self, pair: _Pair, name: str) -> None:
        self._namespace = pair.namespace(name)

    def __enter__(self) -> _AddressWatch:
        made: list[socket.socket] = []

        def listen() -> None:
            namespaces.set_namespace(NETNS_DIRECTORY / self._namespace, namespaces.CLONE_NEWNET)
            heard = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            heard.bind((0, _RTMGRP_IPV4_IFADDR))
            made.append(heard)

        # setns(2) moves the calling thread alone.
        thread = threading.Thread(target=listen)
        thread.start()
        thread.join()
        if not made:
            raise AnchorError(f"cannot listen in {self._namespace}")
        self._socket = made[0]
        return self

    def __exit__(self, *_error: object) -> None:
        self._socket.close()

    def wait(self, kind: int, limit: float) -> float:
        """Return the monotonic time at which the address came (or went)."""
        wanted = socket.inet_aton(VIRTUAL_ADDRESS)
        end = time.monotonic() + limit
        while (left := end - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                break
            at = time.monotonic()
            if int.from_bytes(data[4:6], sys.byteorder) == kind and wanted in data:
                return at
        what = "come" if kind == _RTM_NEWADDR else "gone"
        raise AnchorError(f"{VIRTUAL_ADDRESS} has not {what} after {limit:g} s")

    def has_address(self) -> bool:
        """Return whether the node has the address now."""
        found = json.loads(_ip("-n", self._namespace, "-j", "addr", "show", "dev", "eth0"))
        return any(item["local"] == VIRTUAL_ADDRESS for link in found for item in link["addr_info"])


def _ip(*words: str) -> str:
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=20)
    except FileNotFoundError:
        raise AnchorError(f"iproute2 is not on this machine: {REMEDY}") from None
    if done.returncode != 0:
        raise AnchorError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def _remove_namespace(name: str) -> None:
    for pid in namespaces.processes_in(NETNS_DIRECTORY / name):
        namespaces.kill_and_wait(pid)
    with contextlib.suppress(AnchorError):
        _ip("netns", "del", name)


def _remove_leftovers() -> None:
    """Remove the namespaces of runs whose process has died."""
    with contextlib.suppress(FileNotFoundError):
        for entry in NETNS_DIRECTORY.iterdir():
            if entry.name.startswith(PREFIX):
                owner = entry.name.removeprefix(PREFIX).split("-")[0]
                if not namespaces.is_alive(int(owner)):
                    _remove_namespace(entry.name)


def main() -> int:
    """Measure from the command line, for people."""
    kind: Kind = "cut" if "cut" in sys.argv[1:2] else "crash"
    advert_s = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    runs = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    try:
        found = measure(kind, advert_s, runs)
    except AnchorError as error:
        print(f"keepalived: {error}", file=sys.stderr)
        return 1
    print(
        f"keepalived, {kind}, advertisements {advert_s:g} s: {[round(item, 3) for item in found]}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
