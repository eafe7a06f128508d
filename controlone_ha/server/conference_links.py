"""Connections to Conference Servers: the one of this node, and those behind other nodes' doors.

A link follows the live calls of one Conference Server and carries requests to it. It is kept for as
long as ``run`` runs: what is gone is looked for again every ``AGAIN`` seconds. The local one is the
controller's Unix socket; a remote one is TCP/7551 of the other node, where this node shows its
certificate, and both prove the cluster's secret before anything else is said (``door``).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlone_ha.errors import ControlOneError, PeerError
from controlone_ha.jsonrpc import MAX_LINE, Connection, RpcError, connect_unix
from controlone_ha.server.door import Proof

log = logging.getLogger("server")

Json = dict[str, Any]

AGAIN = 1.0
PING = 3.0
PATIENCE = 5.0


class ConferenceLink(ABC):
    """One Conference Server; ``calls`` are its live ones by id."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: dict[str, Json] = {}
        self.on_call: Callable[[ConferenceLink, Json], None] = lambda link, call: None
        self._connection: Connection | None = None
        self._is_following = False
        self._younger: set[str] = set()
        """Calls that were told since the connection was made and before its list was read."""
        self._complaint = ""

    @property
    def is_up(self) -> bool:
        """True while requests can be carried."""
        return self._is_following

    async def run(self) -> None:
        """Keep the connection until cancelled."""
        while True:
            try:
                await self._live()
            except (OSError, ssl.SSLError, TimeoutError, ControlOneError) as error:
                self._complain(error)
            await asyncio.sleep(AGAIN)

    async def _live(self) -> None:
        before = dict(self.calls)
        self._younger = set()
        connection = await self._connect()
        self._connection = connection
        try:
            answer = await self._follow(connection)
            for call in answer["calls"]:
                if call["id"] not in self._younger:
                    self._take(call)
            # A release before this one knows no ``all``: it sent everything.
            present = set(answer.get("all") or (call["id"] for call in answer["calls"]))
            for call_id, call in before.items():
                # What came since the list was made is younger than the list.
                if call_id not in present and self.calls.get(call_id) is call:
                    del self.calls[call_id]
                    self.on_call(self, {**call, "state": "ended"})
            self._is_following = True
            self._complaint = ""
            await self._stay(connection)
        finally:
            self._is_following, self._connection = False, None
            await connection.close()

    @abstractmethod
    async def _connect(self) -> Connection:
        """Return a connection over which requests may be made."""

    async def _follow(self, connection: Connection) -> Any:
        return await connection.call("follow", timeout=PATIENCE)

    async def _stay(self, connection: Connection) -> None:
        await connection.context["task"]

    async def ask(self, method: str, params: Json) -> Any:
        """Carry a request; raise ``PeerError``, ``RpcError`` or ``TimeoutError``."""
        if self._connection is None or not self._is_following:
            raise PeerError(f"the Conference Server {self.name} is not connected")
        return await self._connection.call(method, params, timeout=12.0)

    async def _told(self, _connection: Connection, method: str, params: Json) -> None:
        if method == "call":
            if not self._is_following:
                self._younger.add(str(params["id"]))
            self._take(params)

    def _take(self, call: Json) -> None:
        if call.get("state") == "ended":
            self.calls.pop(str(call["id"]), None)
        else:
            self.calls[str(call["id"])] = call
        self.on_call(self, call)

    def _complain(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        if text != self._complaint:
            self._complaint = text
            log.info("Conference Server %s: %s", self.name, text)


class LocalLink(ConferenceLink):
    """The controller of this node."""

    def __init__(self, socket: Path) -> None:
        super().__init__("local")
        self._socket = socket

    async def _connect(self) -> Connection:
        return await connect_unix(self._socket, self._told)


@dataclass(frozen=True, kw_only=True)
class Door:
    """Where another node's door is and what it is known by."""

    host: str
    port: int
    certificates_sha256: tuple[str, ...]
    """One, or two while that node changes its key."""


class RemoteLink(ConferenceLink):
    """The Conference Server of another node. ``find`` is asked at each attempt where it is."""

    def __init__(
        self,
        name: str,
        find: Callable[[], Door],
        context: Callable[[], ssl.SSLContext],
        proof: Callable[[], Proof],
    ) -> None:
        super().__init__(name)
        self._find = find
        self._context = context
        self._proof = proof

    async def _connect(self) -> Connection:
        door = self._find()
        loop = asyncio.get_running_loop()
        proof = await loop.run_in_executor(None, self._proof)  # derives a key, once
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(
                door.host, door.port, ssl=self._context(), server_hostname="", limit=MAX_LINE
            )
        connection = Connection(reader, writer, self._told)
        connection.context["task"] = asyncio.ensure_future(connection.run())
        try:
            await self._prove(connection, proof, door)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _prove(self, connection: Connection, proof: Proof, door: Door) -> None:
        stream = connection.writer.get_extra_info("ssl_object")
        shown = hashlib.sha256(stream.getpeercert(binary_form=True) or b"").hexdigest()
        if shown not in door.certificates_sha256:
            raise PeerError(f"{door.host} presents another certificate than that of {self.name}")
        nonce = secrets.token_hex(32)
        answer = await connection.call("node.hello", {"nonce": nonce}, timeout=PATIENCE)
        theirs = str(answer["nonce"])
        if not proof.is_right("server", shown, nonce, theirs, str(answer["proof"])):
            raise PeerError(f"{self.name} does not know the secret of this cluster")
        mine = proof.make("client", shown, nonce, theirs)
        await connection.call("node.prove", {"proof": mine}, timeout=PATIENCE)

    async def _follow(self, connection: Connection) -> Any:
        return await connection.call("node.follow", timeout=PATIENCE)

    async def _stay(self, connection: Connection) -> None:
        """Ask for a sign of life now and then: the door closes on who is silent."""
        task = connection.context["task"]
        while not task.done():
            await asyncio.wait((task,), timeout=PING)
            if not task.done():
                await connection.call("ping", timeout=PATIENCE)

    async def ask(self, method: str, params: Json) -> Any:
        """Carry a request through the door."""
        return await super().ask("node.conference", {"method": method, "params": params})

    async def _told(self, connection: Connection, method: str, params: Json) -> None:
        if method == "node.call":
            await super()._told(connection, "call", params)


def is_refusal(error: Exception) -> bool:
    """Tell whether a Conference Server has said no, so that another one may be asked."""
    return isinstance(error, PeerError | OSError) or (
        isinstance(error, RpcError) and error.number <= -32000
    )
