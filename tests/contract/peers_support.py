"""Real SSH servers and nodes for the contract tests of the link: loopback, temporary files only."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from controlone_ha.paths import NodePaths, node_paths
from controlone_ha.peers import hostkeys, keys
from controlone_ha.peers.link import Link
from controlone_ha.peers.links import PeerLinks
from controlone_ha.peers.model import LinkDown, LinkStatus, PeerAddress
from controlone_ha.peers.pins import Pin
from controlone_ha.peers.trust import TrustStore
from tests.ports import free_port
from tests.waiting import until

SECRET = "tundra-Coral-92-vela"
SERVERS = ("openssh", "dropbear")
_made: dict[str, dict[str, bytes]] = {}


def remembered(what: str, directory: Path, make: Callable[[], object]) -> None:
    """Fill ``directory`` by ``make`` once, with the same files ever after: keys take time."""
    if what in _made:
        for name, content in _made[what].items():
            file = directory / name
            file.touch(mode=0o600)
            file.write_bytes(content)
        return
    before = {file.name for file in directory.iterdir()}
    make()
    _made[what] = {
        file.name: file.read_bytes()
        for file in directory.iterdir()
        if file.is_file() and file.name not in before
    }


class SshServer:
    """A real sshd or dropbear on 127.0.0.1 that reads ``directory/ssh/authorized_keys``."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self.directory = directory
        self.port = free_port()
        self.authorized_keys = directory / "ssh" / "authorized_keys"
        self.log = directory / "server.log"
        self.host_keys: tuple[str, ...] = ()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start and wait until it greets."""
        self.authorized_keys.parent.mkdir(mode=0o700, exist_ok=True)
        self.authorized_keys.touch(mode=0o600)
        command = self._openssh() if self.kind == "openssh" else self._dropbear()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 10
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1.0) as stream:
                    if stream.recv(4) == b"SSH-":
                        return
            except OSError:
                pass
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.stop()
                raise RuntimeError(f"{self.kind} did not start: {self.log.read_text()}")
            time.sleep(0.02)

    def _openssh(self) -> list[str]:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        files = [self.directory / f"host_{kind}_key" for kind in ("ed25519", "ecdsa")]

        def make() -> None:
            for file in files:
                kind = file.name.split("_")[1]
                command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(file)]
                subprocess.run(command, check=True)

        if not files[0].exists():
            remembered(f"openssh {self.directory.name}", self.directory, make)
        lines = [f"HostKey {file}" for file in files]
        self.host_keys = tuple(hostkeys.openssh_keys(str(self.directory / "host_*_key.pub")))
        configuration = self.directory / "sshd_config"
        lines += [
            f"ListenAddress 127.0.0.1:{self.port}",
            f"AuthorizedKeysFile {self.authorized_keys}",
            "StrictModes no",
            "UsePAM no",
            "PidFile none",
            "PermitRootLogin prohibit-password",
            "PasswordAuthentication no",
            "MaxStartups 300",
            "UseDNS no",
            "LogLevel VERBOSE",
        ]
        configuration.write_text("\n".join(lines) + "\n")
        return ["/usr/sbin/sshd", "-D", "-e", "-f", str(configuration)]

    def _dropbear(self) -> list[str]:
        files = [self.directory / f"dropbear_{kind}_host_key" for kind in ("ed25519", "ecdsa")]

        def make() -> None:
            for file in files:
                kind = file.name.split("_")[1]
                command = ["dropbearkey", "-t", kind, "-f", str(file)]
                subprocess.run(command, check=True, capture_output=True)

        if not files[0].exists():
            remembered(f"dropbear {self.directory.name}", self.directory, make)
        found = hostkeys.dropbear_keys(str(self.directory / "dropbear_*_host_key"))
        self.host_keys = tuple(found)
        # It reads ~/.ssh of the account only: a private mount namespace gives root another home.
        home = self.directory / "home"
        home.mkdir(mode=0o700, exist_ok=True)
        if not (home / ".ssh").exists():
            (home / ".ssh").symlink_to(self.authorized_keys.parent)
        accounts = self.directory / "passwd"
        shell = "root:x:0:0:root:{}:/bin/sh\n"
        accounts.write_text(shell.format(home))
        mount = f"mount --bind {accounts} /etc/passwd"
        options = " ".join(f"-r {file}" for file in files)
        server = f"exec dropbear -F -E -s -p 127.0.0.1:{self.port} {options}"
        return ["unshare", "-m", "sh", "-c", f"{mount} && {server}"]

    def sessions(self) -> list[int]:
        """Return the processes that serve one connection each."""
        found = []
        for pid in descendants(self.pid):
            with_name = Path(f"/proc/{pid}/comm")
            try:
                if with_name.read_text().strip() in ("sshd", "dropbear", "sshd-session"):
                    found.append(pid)
            except OSError:
                continue
        return found

    def stop(self) -> None:
        """End the server and every process of it."""
        if self._process is None:
            return
        victims = [*descendants(self._process.pid), self._process.pid]
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()
        self._process = None


def descendants(pid: int) -> list[int]:
    """Return the processes below ``pid``."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(word) for word in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


class Recorder:
    """A handler that remembers what it was told."""

    def __init__(self) -> None:
        self.ups: list[Link] = []
        self.downs: list[tuple[float, str, LinkDown]] = []
        self.heartbeats = 0
        self.notices: list[tuple[str, str, dict[str, Any]]] = []
        self.answer: Callable[[str, str, dict[str, Any]], Any] = lambda _peer, method, params: {
            "method": method,
            "params": params,
        }

    def on_link_up(self, link: Link) -> None:
        self.ups.append(link)

    def on_link_down(self, peer: str, cause: LinkDown) -> None:
        self.downs.append((time.monotonic(), peer, cause))

    def on_heartbeat(self, peer: str) -> None:
        self.heartbeats += 1

    def on_notify(self, peer: str, method: str, params: dict[str, Any]) -> None:
        self.notices.append((peer, method, params))

    async def on_request(self, peer: str, method: str, params: dict[str, Any]) -> object:
        answer = self.answer(peer, method, params)
        return await answer if asyncio.iscoroutine(answer) else answer


class Node:
    """One node: its directories, its SSH server and, while running, its links."""

    def __init__(self, name: str, directory: Path, kind: str) -> None:
        self.name = name
        self.directory = directory / name
        self.directory.mkdir()
        self.server = SshServer(kind, self.directory)
        self.paths: NodePaths = node_paths(
            {
                "CONTROLONE_STATE_DIR": str(self.directory / "state"),
                "CONTROLONE_RUN_DIR": str(self.directory / "run"),
            }
        )
        self.paths.state_dir.mkdir(mode=0o700)
        remembered(
            f"identity {name}",
            self.paths.state_dir,
            lambda: keys.ensure_identity(self.paths, name),
        )
        self.identity = keys.ensure_identity(self.paths, name)
        self.handler = Recorder()
        self.secret = SECRET
        self.links = self.make()

    def make(self, **options: Any) -> PeerLinks:
        """Return the links of a daemon that starts anew."""
        self.handler = Recorder()
        self.links = PeerLinks(
            name=self.name,
            paths=self.paths,
            secret=self.secret,
            handler=self.handler,
            authorized_keys=str(self.server.authorized_keys),
            addresses=("127.0.0.1",),
            ssh_port=self.server.port,
            own_host_keys=lambda: self.server.host_keys,
            **options,
        )
        return self.links

    def pin(self) -> Pin:
        return Pin(
            name=self.name,
            public_key=self.identity.public_key,
            certificate=self.identity.certificate,
            host_keys=self.server.host_keys,
            addresses=("127.0.0.1",),
            ssh_port=self.server.port,
        )

    def trust(self, other: Node) -> None:
        """Pin ``other`` here, as pairing does."""
        TrustStore(self.paths.pins_file).pin(other.pin())

    def address(self) -> PeerAddress:
        return PeerAddress(name=self.name, host="127.0.0.1", port=self.server.port)

    def watch(self, *others: Node, heartbeat: float = 0.2, timeout: float = 2.0) -> None:
        """Configure ``others`` as peers."""
        self.links.configure(
            [other.address() for other in others], heartbeat=heartbeat, timeout=timeout
        )

    def status(self, other: Node) -> LinkStatus:
        return self.links.status(other.name)


@contextmanager
def nodes(*names: str, kind: str, paired: bool = True) -> Iterator[list[Node]]:
    """Make nodes with running SSH servers, paired with one another; end everything afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="ha-", dir="/tmp"))
    made: list[Node] = []
    try:
        for name in names:
            made.append(Node(name, directory, kind))
            made[-1].server.start()
        if paired:
            for node in made:
                for other in made:
                    if other is not node:
                        node.trust(other)
        yield made
    finally:
        for node in made:
            node.server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def slack() -> float:
    """Return by how much an upper limit of time is stretched: 1 unless the machine is busy."""
    return 1.0 if os.getloadavg()[0] < (os.cpu_count() or 1) else 8.0


def has_link(node: Node, other: Node) -> bool:
    """Tell whether ``node`` has a link with ``other``."""
    return node.links.link(other.name) is not None


async def all_up(made: Sequence[Node], seconds: float = 40.0) -> None:
    """Wait until every node has a link with every other."""
    for node in made:
        for other in made:
            if other is not node:
                await until(partial(has_link, node, other), seconds)


class DaemonProcess:
    """A node's links in a process of their own (``peers_daemon``)."""

    def __init__(
        self, node: Node, *peers: Node, heartbeat: float = 0.2, timeout: float = 2.0
    ) -> None:
        arguments = {
            "name": node.name,
            "state": str(node.paths.state_dir),
            "run": str(node.paths.run_dir),
            "authorized_keys": str(node.server.authorized_keys),
            "port": node.server.port,
            "host_keys": node.server.host_keys,
            "secret": node.secret,
            "heartbeat": heartbeat,
            "timeout": timeout,
            "peers": [
                {"name": peer.name, "host": "127.0.0.1", "port": peer.server.port} for peer in peers
            ],
        }
        root = Path(__file__).parents[2]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.contract.peers_daemon", json.dumps(arguments)],
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        if "started" not in first:
            self.stop()
            raise RuntimeError(f"the daemon did not start: {first}")

    def stop(self) -> None:
        """Kill it; a frozen one too."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


class Proxy:
    """A TCP relay on 127.0.0.1 that can be slow, deaf, or reset its connections."""

    def __init__(self, port: int, *, bytes_per_second: float = 0.0) -> None:
        self._target = port
        self._rate = bytes_per_second
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exception: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._relay(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, back]
        try:
            await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
        finally:
            back.close()
            writer.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(16384):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
                if self._rate:
                    await asyncio.sleep(len(data) / self._rate)
            writer.close()
        except ConnectionError:
            writer.close()

    def cut(self) -> None:
        """Carry nothing more, and say nothing about it."""
        self._open.clear()

    def reset(self) -> None:
        """End every connection by RST."""
        for writer in self._writers:
            stream = writer.get_extra_info("socket")
            if stream is not None and stream.fileno() >= 0:
                linger = struct.pack("ii", 1, 0)
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
