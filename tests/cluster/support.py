"""Helpers of the cluster tests: real daemons of figure 1 in namespaces, asked and broken.

What a test waits for is asked over the node's local API, which is cheap; what a person would do or
read goes through the `ha` command (``ha``). All waiting is bounded, and what was awaited in vain is
told with the status and the last log lines of every node. The bounds are there to end a test that
hangs; they say nothing about speed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from controlone_ha.errors import ControlOneError
from controlone_ha.jsonrpc import RpcError, call
from controlone_ha.lab import namespaces
from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.figure import figure_one
from controlone_ha.lab.node import LabNode
from controlone_ha.lab.node_files import prepare_files
from controlone_ha.lab.node_services import definitions
from controlone_ha.lab.pairing import pin_everybody
from controlone_ha.lab.topology import NodeSpec

Json = dict[str, Any]
Value = TypeVar("Value")

LIMIT = 60.0
"""Seconds until a wait is given up, on a machine that others use, too."""

POLL = 0.1
SLOTS = 3.0
"""Seconds in which a standby node would have activated: several slots of rank."""
LOG_LINES = 25

FAST = {"interval": "1", "heartbeat": "1", "failback_delay": "1", "stable": "2"}
FAST["failback_damping"] = "1"
"""Options of ``ha.default`` that make a test short: nodes that fail in every test of a module are
not distrusted for it. The heartbeat, and with it the patience with
peers, is that of the default settings: a machine that is busy with other things is no failure.
"""

LIMITS = {
    "disk_paths": "/var/lib/controlone",
    "disk": "90",
    "disk_duration": "1",
    "cpu": "30",
    "cpu_duration": "2",
}
"""Thresholds of the standard cluster: the data disk is small and the test does not wait long."""

HEALTHY = {"m1": "active", "s1": "standby", "m2": "active", "s2": "standby", "p1": "passive"}
"""The states of figure 1 when nothing is wrong."""


# -- a cluster -----------------------------------------------------------------------------------


class PairedLab(Lab):
    """A lab whose nodes have pinned each other before their first boot."""

    def __init__(self, nodes: Sequence[NodeSpec]) -> None:
        super().__init__(nodes, services=definitions, prepare=prepare_files)
        self._is_paired = False

    def boot_all(self) -> None:
        """Pair once, then boot."""
        if not self._is_paired:
            pin_everybody(self)
            self._is_paired = True
        super().boot_all()


def standard_nodes() -> list[NodeSpec]:
    """Return figure 1 with short waits and a data disk that can be filled."""
    return figure_one(ha=FAST, limits=LIMITS, data_disk_mb=16)


@contextlib.contextmanager
def paired_lab(nodes: Sequence[NodeSpec]) -> Iterator[Lab]:
    """A calm cluster of a test module's own: figure 1 with whatever options it needs."""
    with PairedLab(nodes) as lab:
        calm(lab)
        yield lab


# -- what a node says ----------------------------------------------------------------------------


def ask(node: LabNode, method: str, **params: Any) -> Any:
    """Ask the daemon over its local API; raise ``OSError`` or ``RpcError``."""
    return call(node.path("/var/run/controlone/ha.sock"), method, params, timeout=10.0)


def status(node: LabNode) -> Json:
    """Return the daemon's status; raise ``OSError`` or ``RpcError`` when it has none to give."""
    found: Json = ask(node, "status")
    return found


def history(node: LabNode, kind: str | None = None, *, since: float = 0.0) -> list[Json]:
    """Return the entries after ``since`` (wall clock), oldest first."""
    found: list[Json] = ask(node, "history", limit=200, kind=kind, since=since)
    return found[::-1]


def transitions(node: LabNode, *, since: float = 0.0) -> list[tuple[str, str, str]]:
    """Return (from, to, code of the reason) of every change of state since then, oldest first.

    Entries that tell a new reason for the same state are left out.
    """
    return [
        (entry["from"], entry["to"], entry["reason"]["code"])
        for entry in history(node, "state", since=since)
        if entry["from"] != entry["to"]
    ]


def state(node: LabNode) -> str:
    """Return the node's state."""
    return str(status(node)["state"])


def peer(node: LabNode, name: str) -> Json:
    """Return what ``node`` says about one of its peers."""
    found: Json = next(item for item in status(node)["peers"] if item["name"] == name)
    return found


def service(node: LabNode, name: str) -> Json:
    """Return what the node says about one of its own services."""
    found: Json = next(item for item in status(node)["services"] if item["name"] == name)
    return found


def ha(node: LabNode, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the `ha` command on a node, as a person would; the exit code is for the test to judge."""
    return node.exec(["ha", *words], timeout=30.0)


def set_option(node: LabNode, option: str, value: str) -> None:
    """Change one UCI option of `ha` as a person would, and have the daemon read it."""
    node.exec(["uci", "set", f"{option}={value}"], check=True)
    node.exec(["uci", "commit", "ha"], check=True)
    node.exec(["service", "ha", "reload"], check=True)


def evidence_text(reason: Json) -> str:
    """Return the evidence of a reason as one text."""
    return "; ".join(item["text"] for item in reason["evidence"])


def processes(node: LabNode) -> dict[str, int]:
    """Return the PIDs (inside the node) of its running services but `ha`."""
    return {
        name: item["pid"]
        for name, item in node.services().items()
        if item["pid"] is not None and name != "ha"
    }


# -- waiting -------------------------------------------------------------------------------------


def wait_until(
    lab: Lab, condition: Callable[[], Value | None], what: str, *, limit: float = LIMIT
) -> Value:
    """Return the first true value of ``condition``; fail with every node's word after ``limit`` s.

    A node that is down or just booting has nothing to say: the errors of asking it are not true.
    """
    end = time.monotonic() + limit
    last: object = None
    while True:
        try:
            found = condition()
            if found:
                return found
            last = found
        except (ControlOneError, OSError, RpcError, ValueError) as error:
            last = error
        if time.monotonic() > end:
            raise AssertionError(
                f"{what}: not within {limit:g} s (last: {last!r})\n{describe(lab)}"
            )
        time.sleep(POLL)


def wait_for_state(lab: Lab, name: str, wanted: str, *, limit: float = LIMIT) -> Json:
    """Return the node's status once it is in the state ``wanted``."""

    def arrived() -> Json | None:
        said = status(lab.node(name))
        return said if said["state"] == wanted else None

    return wait_until(lab, arrived, f"{name} is {wanted}", limit=limit)


def describe(lab: Lab) -> str:
    """Return the status and the end of the log of every node, for a failure's text."""
    parts = []
    for node in lab.nodes.values():
        if not node.is_up:
            parts.append(f"--- {node.name}: down")
        else:
            try:
                parts.append(f"--- {ha(node, 'status').stdout.strip()}")
            except ControlOneError as error:
                parts.append(f"--- {node.name}: {error}")
        log = node.read_log("ha").strip().splitlines()
        parts += [f"    {line}" for line in log[-LOG_LINES:]]
    return "\n".join(parts)


# -- peace ---------------------------------------------------------------------------------------


def calm(lab: Lab, *, limit: float = LIMIT) -> None:
    """Undo every kind of damage a test does to nodes and network, and wait until all is well."""
    lab.heal(1, 2)
    for node in lab.nodes.values():
        if not node.is_up:
            lab.boot(node.name)
        node.heal()
        node.thaw()
        for name, item in node.services().items():
            if item["held"]:
                node.release(name, start=False)
            if name in ("ha", "sshd"):
                node.start_service(name)
    wait_until(lab, lambda: all(map(_resumed, lab.nodes.values())), "every `ha` answers")
    wait_until(lab, lambda: not unrest(lab), "the cluster is calm", limit=limit)


def _resumed(node: LabNode) -> bool:
    said = status(node)
    if said["forced"] or said["paused"]:
        ask(node, "resume", by="tests")
    return True


def unrest(lab: Lab) -> str:
    """Return the first thing that is not as in a healthy cluster, or an empty text."""
    for node in lab.nodes.values():
        said = status(node)
        if said["state"] != HEALTHY[node.name] or said["abnormalities"] or said["forced"]:
            return f"{node.name} is {said['state']}"
        for name, wanted in _expected_services(said["state"]).items():
            found = next(item for item in said["services"] if item["name"] == name)
            if found["state"] != wanted:
                return f"{name} of {node.name} is {found['state']}"
        for other in said["peers"]:
            if (
                other["link"]["state"] != "up"
                or other["verdict"] != "alive"
                or other["state"] != HEALTHY[other["name"]]
            ):
                return f"{node.name}: {other['name']} is {other['verdict']} ({other['state']})"
    return ""


def _expected_services(state_of_node: str) -> dict[str, str]:
    return {
        "active": {"server": "serving", "conference": "serving"},
        "standby": {"server": "disabled", "conference": "stopped"},
        "passive": {"server": "stopped", "conference": "stopped"},
    }[state_of_node]


# -- consoles and gateways -----------------------------------------------------------------------


def socket_in(lab: Lab, name: str, kind: int) -> socket.socket:
    """Return a socket that lives in the network of a node; this process stays where it is."""
    made: list[socket.socket] = []
    errors: list[ControlOneError] = []

    def make() -> None:
        try:
            # setns(2) moves the calling thread alone.
            namespaces.set_namespace(lab.network.namespace_path(name), namespaces.CLONE_NEWNET)
            made.append(socket.socket(socket.AF_INET, kind))
        except ControlOneError as error:
            errors.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return made[0]


class Console:
    """A console: one TLS connection from the network of node ``at`` to the server ``to``.

    Raises ``OSError`` for what the network does and ``RpcError`` for what the server refuses.
    """

    def __init__(self, lab: Lab, to: str, *, at: str = "p1", timeout: float = 10.0) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # whose certificate it is is tested elsewhere
        stream = socket_in(lab, at, socket.SOCK_STREAM)
        stream.settimeout(timeout)
        try:
            stream.connect((lab.node(to).address, 7551))
            self._stream = context.wrap_socket(stream)
        except OSError:
            stream.close()
            raise
        self._received = b""
        self._next_id = 0
        self.notifications: list[Json] = []

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._stream.close()

    def call(self, method: str, **params: Any) -> Json:
        """Return the server's answer; raise ``RpcError``."""
        self._next_id += 1
        request = {"jsonrpc": "2.0", "id": self._next_id, "method": method, "params": params}
        self._stream.sendall(json.dumps(request).encode() + b"\n")
        while True:
            message = self._read()
            if message.get("id") != self._next_id:
                self.notifications.append(message)
            elif "error" in message:
                error = message["error"]
                raise RpcError(error["code"], error["message"], error.get("data"))
            else:
                result: Json = message["result"]
                return result

    def ping(self) -> Json:
        """Return what the node says of itself."""
        return self.call("ping")

    def login(self, name: str = "desk-1") -> Json:
        """Log in."""
        return self.call("login", console=name, queues=["190"])

    def wait_for(self, method: str) -> Json:
        """Return the parameters of the next notification of that kind."""
        while True:
            while self.notifications:
                message = self.notifications.pop(0)
                if message.get("method") == method:
                    params: Json = message["params"]
                    return params
            self.notifications.append(self._read())

    def _read(self) -> Json:
        while b"\n" not in self._received:
            data = self._stream.recv(65536)
            if not data:
                raise ConnectionResetError("the server has closed the connection")
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        message: Json = json.loads(line)
        return message


def ping(lab: Lab, to: str, *, at: str = "p1") -> Json:
    """Return the answer of a node's Console Server to a ping."""
    with Console(lab, to, at=at) as console:
        return console.ping()


def accepts_login(lab: Lab, to: str, *, at: str = "p1") -> bool:
    """Return True when a console may log in there, False when it is refused; raise ``OSError``."""
    with Console(lab, to, at=at) as console:
        try:
            console.login("tester")
        except RpcError:
            return False
        return True


def refusal_of_login(lab: Lab, to: str, *, at: str = "p1") -> Json | None:
    """Return number, code, text and servers of a refused login; None when it was accepted, or by a
    server so new that it has not heard of its node yet.
    """
    with Console(lab, to, at=at) as console:
        try:
            console.login("tester")
        except RpcError as error:
            refusal: Json = {"number": error.number, **(error.data or {})}
            return None if refusal.get("code") == "waiting_for_ha" else refusal
        return None


def answers_sip(lab: Lab, to: str, *, at: str = "p1", timeout: float = 1.0) -> bool:
    """Return whether the node's SIP port answers an OPTIONS (RFC 3261, section 11) with 200."""
    address = lab.node(to).address
    number = os.urandom(6).hex()
    with socket_in(lab, at, socket.SOCK_DGRAM) as port:
        port.settimeout(timeout)
        port.connect((address, 5060))
        own = "{}:{}".format(*port.getsockname())
        lines = (
            f"OPTIONS sip:{address} SIP/2.0",
            f"Via: SIP/2.0/UDP {own};branch=z9hG4bK{number};rport",
            "Max-Forwards: 70",
            f"From: <sip:gateway@{own}>;tag={number}",
            f"To: <sip:{address}>",
            f"Call-ID: {number}",
            "CSeq: 1 OPTIONS",
            f"Contact: <sip:gateway@{own}>",
            "Content-Length: 0",
        )
        port.send("\r\n".join((*lines, "", "")).encode())
        try:
            return port.recv(65536).startswith(b"SIP/2.0 200 ")
        except OSError:
            return False


def wait_until_serving(lab: Lab, name: str, *, limit: float = LIMIT) -> None:
    """Return when a console may log in at the node and its SIP port answers."""
    wait_until(lab, lambda: accepts_login(lab, name), f"{name} accepts a console", limit=limit)
    wait_until(lab, lambda: answers_sip(lab, name), f"{name} answers SIP", limit=limit)


# -- trouble -------------------------------------------------------------------------------------


@contextlib.contextmanager
def program(node: LabNode, argv: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A program in the node that is ended, with all it has started, at the end of the block."""
    process = node.spawn(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)


@contextlib.contextmanager
def full_disk(node: LabNode) -> Iterator[None]:
    """Fill the small file system of /var/lib/controlone for the length of the block."""
    file = node.path("/var/lib/controlone") / "filling"
    try:
        with open(file, "wb", buffering=0) as out, contextlib.suppress(OSError):
            while True:
                out.write(bytes(1 << 16))
        yield
    finally:
        file.unlink(missing_ok=True)
