"""The asyncio shell around the protocol core: sockets, TLS, deadlines, the control socket.

It carries bytes and effects and decides nothing but what only it can see: a console that does not
read. One buffer serves all reads, as the loop handles one connection at a time and no byte stays in
it; what one connection may make the process do in one turn is so bounded by that buffer's size.
There is one timer for all deadlines before login and none at all when nobody waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from controlone_ha import jsonrpc
from controlone_ha.errors import ControlOneError, ServiceError
from controlone_ha.paths import NodePaths
from controlone_ha.probes.child import child_environment
from controlone_ha.records.spool import Spool
from controlone_ha.server import order as orders
from controlone_ha.server.calls import CallCarrier
from controlone_ha.server.control import Control
from controlone_ha.server.core import ConsoleServer
from controlone_ha.server.door import NodeDoor, Visit
from controlone_ha.server.model import Ask, Close, Effect, Note, Record, Send, Tell
from controlone_ha.server.order import Order, Why
from controlone_ha.server.sessions import SessionRecord
from controlone_ha.server.tls import TlsChannel, TlsError

log = logging.getLogger("server")

_BACKLOG = 4096
_READ_BUFFER = memoryview(bytearray(16 * 1024))
_HIGH_WATER = 64 * 1024
_BOOK_RHYTHM = 5.0
_MOST_ASKED = 16
"""Requests of one connection that are being answered at the same time."""
_HANDSHAKES = 4
"""Handshakes in one turn of the loop; about a millisecond each."""
# A console whose machine vanished: found by the kernel after 30 + 3 × 10 s of silence, or 40 s
# after the first byte it did not acknowledge. Costs the process nothing.
_SOCKET_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 40_000),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)


class ConsoleConnection(asyncio.BufferedProtocol):
    """One TCP connection: TLS on one side, a session of the core on the other."""

    __slots__ = (
        "_channel",
        "_closing",
        "_stall",
        "_transport",
        "cause",
        "door",
        "is_local",
        "is_queued",
        "number",
        "service",
    )

    def __init__(self, service: ConsoleService) -> None:
        self.service = service
        self.number = 0
        self.cause = "closed by the console"
        self.is_local = False
        self.is_queued = False
        self.door: Visit | None = None
        self._channel = TlsChannel(service.context)
        self._transport: asyncio.Transport | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._closing = False

    # Called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open a session for the new connection."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=_HIGH_WATER)
        stream = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            for level, option, value in _SOCKET_OPTIONS:
                stream.setsockopt(level, option, value)
        peer = transport.get_extra_info("peername")
        own = transport.get_extra_info("sockname")
        self.is_local = bool(peer and own and peer[0] == own[0])
        self.service.opened(self, str(peer[0]) if peer else "unknown")

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the buffer that all connections share."""
        return _READ_BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Decrypt what came and hand it to the core."""
        if self._closing:
            return  # only waits for the other side's end
        if not self._channel.ready:
            # Its turn comes: a handshake costs more than anything else that is done here.
            self._channel.feed(_READ_BUFFER[:nbytes])
            self.service.wants_handshake(self)
            return
        self.decrypt(_READ_BUFFER[:nbytes])

    def decrypt(self, data: bytes | memoryview = b"") -> None:
        """Go on with the handshake, or take plain bytes out of encrypted ones."""
        try:
            plain, ended = self._channel.receive(data)
        except TlsError as error:
            self.cause = f"TLS: {error}"
            self._flush()
            self.abort()
            return
        self._flush()
        if plain:
            self.service.received(self, plain)
        if ended and not self._closing:
            self.close(self.cause)

    def eof_received(self) -> bool:
        """Let the transport close: half a connection is of no use here."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the session."""
        if self._stall is not None:
            self._stall.cancel()
        if exc is not None and not self._closing:
            self.cause = f"connection lost: {exc}"
        self.service.ended(self)

    def pause_writing(self) -> None:
        """Stop asking a console that does not read for more; give it a while."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
        limits = self.service.core.limits
        self._cancel_stall()
        self._stall = self.service.loop.call_later(limits.stall_timeout, self._stalled)

    def resume_writing(self) -> None:
        """Listen again: the console reads."""
        self._cancel_stall()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # Called by the service

    def send(self, line: bytes) -> None:
        """Send a line; drop this connection alone when too much waits for it."""
        if self._closing or self._transport is None or self._transport.is_closing():
            return
        unsent = self._transport.get_write_buffer_size()
        if unsent > self.service.core.limits.max_unsent:
            self.cause = f"does not read; {unsent} bytes wait for it"
            self.abort()
            return
        try:
            self._channel.send(line)
        except TlsError as error:
            self.cause = f"TLS: {error}"
            self.abort()
            return
        self._flush()

    def notify(self, method: str, params: dict[str, Any]) -> None:
        """Send a notification."""
        self.send(jsonrpc.encode_request(method, params, None))

    def peer_certificate_sha256(self) -> str:
        """Return the digest of the certificate that the other side has shown; "" without one."""
        shown = self._channel.peer_certificate()
        return hashlib.sha256(shown).hexdigest() if shown else ""

    def close(self, cause: str) -> None:
        """Close in order: what is unsent, the TLS closing alert, then the end of the stream.

        The socket is closed when the other side closes too, or after ``close_timeout``; closing
        it at once would reset the connection if the console has just sent something, and a reset
        may overtake the goodbye.
        """
        if self._closing:
            return
        self.cause = cause
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if not self._channel.ready:
            self.abort()
            return
        self._channel.close()
        self._flush()
        self._closing = True
        self._cancel_stall()
        with contextlib.suppress(OSError):
            transport.write_eof()
            transport.resume_reading()
        timeout = self.service.core.limits.close_timeout
        self._stall = self.service.loop.call_later(timeout, self.abort)

    def abort(self) -> None:
        """Drop the connection and what waits for it."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def _stalled(self) -> None:
        self.cause = f"read nothing for {self.service.core.limits.stall_timeout:g} s"
        self.abort()

    def _cancel_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _flush(self) -> None:
        data = self._channel.outgoing()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


@dataclass(frozen=True, kw_only=True)
class Calls:
    """Who answers what is asked about calls, and what nodes ask."""

    carrier: CallCarrier
    door: NodeDoor
    certificates: Callable[[], Sequence[str]]
    """The peers' certificates as pinned now."""
    pins_changed: Callable[[], None]


class ConsoleService:
    """The running Console Server: listening sockets, connections, control socket, kept order."""

    def __init__(self, core: ConsoleServer, context: ssl.SSLContext, paths: NodePaths) -> None:
        self.core = core
        self.context = context
        self.loop = asyncio.get_running_loop()
        self._paths = paths
        self._connections: dict[int, ConsoleConnection] = {}
        self._listener: asyncio.Server | None = None
        self._control: asyncio.AbstractServer | None = None
        self._controllers: set[jsonrpc.Connection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._book_timer: asyncio.TimerHandle | None = None
        self._handshakes: deque[ConsoleConnection] = deque()
        self._empty = asyncio.Event()
        self.spool = Spool(paths.records_dir, "server", environment=child_environment())
        self.calls: Calls | None = None
        self._pinned: list[str] = []
        self._asked: dict[int, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.record = SessionRecord(paths.sessions_file, self.spool)
        self.control = Control(self)

    async def start(self, bind: str, port: int) -> None:
        """Listen for consoles, then for orders; raise ``ServiceError`` when an address is taken."""
        try:
            self._listener = await self.loop.create_server(
                lambda: ConsoleConnection(self), bind or None, port, backlog=_BACKLOG
            )
        except OSError as error:
            where = bind or "all addresses"
            raise ServiceError(f"cannot listen on {where}, port {port}: {error}") from error
        self._control, self._controllers = await jsonrpc.serve_unix(
            self._paths.server_socket, self.control.handle
        )
        self._watch_book()
        self.spool.start()

    @property
    def ports(self) -> list[int]:
        """Ports listened on, one for each socket."""
        sockets = self._listener.sockets if self._listener is not None else ()
        return [stream.getsockname()[1] for stream in sockets]

    async def stop(self, reason: Why) -> None:
        """Tell the consoles, close everything in order; bounded by ``close_timeout``."""
        if self._control is not None:
            self._control.close()
        if self._listener is not None:
            self._listener.close()
        self._empty.clear()
        self.apply(self.core.stop(reason))
        if self._connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), self.core.limits.close_timeout + 0.5)
        for connection in list(self._connections.values()):
            connection.abort()
        for controller in list(self._controllers):
            await controller.close()
        for timer in (self._timer, self._book_timer):
            if timer is not None:
                timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        self.record.flush()
        await self.spool.close()
        self._paths.server_socket.unlink(missing_ok=True)

    def obey(self, order: Order) -> None:
        """Keep the order, then let it take effect; raise ``ServiceError`` if it cannot be kept."""
        if order == self.core.order:
            return
        try:
            orders.save(order, self._paths.server_state)
        except OSError as error:
            raise ServiceError(f"cannot keep the order: {error}") from error
        self.apply(self.core.obey(order))

    # Control socket

    def tell(self, method: str, params: dict[str, Any]) -> None:
        """Notify who listens on the control socket; never blocks."""
        for connection in list(self._controllers):
            kinds = connection.context.get("events")
            if kinds is not None and (not kinds or method in kinds):
                connection.notify(method, params)

    def check_credentials(self) -> None:
        """Look at the book of consoles again, if it has changed, and act on it."""
        self.apply(self.core.check_credentials())

    def _watch_book(self) -> None:
        """The book changes by other hands, too: by synchronisation with the peers."""
        if self.control.book_changed():
            self.check_credentials()
        if self.calls is not None and (pinned := list(self.calls.certificates())) != self._pinned:
            self._pinned = pinned
            self.calls.pins_changed()
        self._book_timer = self.loop.call_later(_BOOK_RHYTHM, self._watch_book)

    def status(self) -> dict[str, Any]:
        """Return the answer to ``status``, which every accepted order gets too."""
        order = self.core.order
        return {
            "serving": order.serving,
            "reason": order.reason.as_json(),
            "since": order.since,
            "consoles": self.core.consoles,
            "connections": self.core.connections,
            "node": order.node,
            "role": order.role,
            "state": order.state,
            "pid": os.getpid(),
        }

    # Connections

    def wants_handshake(self, connection: ConsoleConnection) -> None:
        """Queue a handshake. A few are done in each turn of the loop, so that in a login storm the
        consoles that are logged in, and `ha`, are answered as ever. This machine's own watchdog
        goes first: a storm is no reason to take the server for dead.
        """
        if connection.is_queued:
            return
        connection.is_queued = True
        if not self._handshakes:
            self.loop.call_soon(self._shake_hands)
        if connection.is_local:
            self._handshakes.appendleft(connection)
        else:
            self._handshakes.append(connection)

    def _shake_hands(self) -> None:
        for _ in range(min(_HANDSHAKES, len(self._handshakes))):
            connection = self._handshakes.popleft()
            connection.is_queued = False
            if connection.number in self._connections:
                connection.decrypt()
        if self._handshakes:
            self.loop.call_soon(self._shake_hands)

    def opened(self, connection: ConsoleConnection, address: str) -> None:
        """Number a new connection."""
        connection.number, effects = self.core.connected(address, self.loop.time())
        self._connections[connection.number] = connection
        self.apply(effects)

    def received(self, connection: ConsoleConnection, plain: bytes) -> None:
        """Hand plain bytes to the core."""
        self.apply(self.core.received(connection.number, plain, self.loop.time()))

    def ended(self, connection: ConsoleConnection) -> None:
        """Forget a connection."""
        self._connections.pop(connection.number, None)
        if self.calls is not None and connection.door is not None:
            self.calls.door.gone(connection)
        self.apply(self.core.disconnected(connection.number, connection.cause))
        if not self._connections:
            self._empty.set()

    def apply(self, effects: list[Effect]) -> None:
        """Do what the core has decided, in order."""
        for effect in effects:
            if isinstance(effect, Note):
                log.info("%s", effect.text)
                continue
            if isinstance(effect, Tell):
                self.tell(effect.method, effect.params)
                if self.calls is not None and effect.params.get("online"):
                    console = str(effect.params["console"])
                    self.loop.call_soon(self.calls.carrier.console_came, console)
                continue
            if isinstance(effect, Record):
                self.record.add({"time": round(time.time(), 3), **effect.entry})
                continue
            connection = self._connections.get(effect.session)
            if connection is None:
                continue
            if isinstance(effect, Send):
                connection.send(effect.line)
            elif isinstance(effect, Close):
                connection.close(effect.cause)
            else:
                self._ask(connection, effect)
        self._arm()

    # What others answer

    def carry(self, calls: Calls) -> None:
        """Have calls and nodes served from now on."""
        self.calls = calls
        self._pinned = list(calls.certificates())
        self.core.is_carrying = True
        for link in calls.carrier.links:
            self.spawn(link.run())

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside until the service stops."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def tell_console(self, console: str, call: dict[str, Any]) -> None:
        """Notify a console of a call of its own."""
        number = self.core.session_of(console)
        connection = self._connections.get(number) if number is not None else None
        if connection is not None:
            connection.notify("call", call)

    def _ask(self, connection: ConsoleConnection, asked: Ask) -> None:
        pending = self._asked.get(asked.session, 0)
        if pending >= _MOST_ASKED:
            error = jsonrpc.encode_error(asked.id, jsonrpc.REFUSED, "too many requests at once")
            connection.send(error)
            return
        self._asked[asked.session] = pending + 1
        self.spawn(self._answer(connection, asked))

    async def _answer(self, connection: ConsoleConnection, asked: Ask) -> None:
        assert self.calls is not None
        try:
            if asked.method.startswith("node."):
                result = await self.calls.door.handle(connection, asked.method, asked.params)
            else:
                assert asked.login is not None
                result = await self.calls.carrier.handle(
                    asked.login.console, asked.login.sip or "", asked.method, asked.params
                )
            line = jsonrpc.encode_result(asked.id, result)
        except jsonrpc.RpcError as error:
            line = jsonrpc.encode_error(asked.id, error.number, str(error), error.data)
        except (ControlOneError, OSError, TimeoutError) as error:
            text = f"{type(error).__name__}: {error}"
            line = jsonrpc.encode_error(asked.id, jsonrpc.INTERNAL_ERROR, text)
        finally:
            self._asked[asked.session] -= 1
            if not self._asked[asked.session]:
                del self._asked[asked.session]
        if connection.number in self._connections:
            connection.send(line)

    def _arm(self) -> None:
        """Keep the one timer no later than the soonest deadline.

        A timer that turns out to be early costs one call; moving it with every message would cost
        more.
        """
        deadline = self.core.next_deadline
        if deadline is None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None or self._timer.when() > deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self.apply(self.core.expire(self.loop.time()))
