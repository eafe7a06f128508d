"""The sockets of a SIP user agent: UDP, TCP and TLS, in the loop that called ``start``. Thin.

Theory of operation. One UDP socket and one listener each for TCP and TLS. What is read is framed,
parsed, judged by ``message.fault`` and handed over as a message with the place it came from; what
cannot be read is dropped and counted. A message for TCP or TLS goes over the connection that exists
to that place, be it ours or the other's (RFC 3261, 18.2.2), else over a new one, for which up to
``MAX_WAITING`` messages wait. A place that cannot be reached is told by ``on_failure``; for UDP
that is only what the local kernel says when it is asked to send.

Names are looked up when something is sent; the answer counts for ``NAME_AGE`` seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import re
import socket
import ssl
from collections.abc import Callable
from typing import Any, cast

from controlone_ha.sip.message import Request, Response, SipSyntaxError, fault, parse
from controlone_ha.sip.uri import Hop

log = logging.getLogger("sip")

MAX_MESSAGE = 65535
MAX_WAITING = 100
MAX_CONNECTIONS = 500
CONNECT_TIME = 5.0
NAME_AGE = 30.0

_LENGTH = re.compile(rb"\r?\n(?:content-length|l)[ \t]*:[ \t]*([0-9]{1,6})[ \t]*\r?\n", re.I)

OnMessage = Callable[[Request | Response, Hop], None]
OnFailure = Callable[[Hop, str], None]


class SipTransport(asyncio.DatagramProtocol):
    """The sockets. Callbacks must return at once."""

    def __init__(self, on_message: OnMessage, on_failure: OnFailure) -> None:
        self._on_message = on_message
        self._on_failure = on_failure
        self._bind = ""
        self._udp: asyncio.DatagramTransport | None = None
        self._servers: list[asyncio.Server] = []
        self._connections: dict[Hop, asyncio.StreamWriter] = {}
        self._waiting: dict[Hop, list[bytes]] = {}
        self._names: dict[str, tuple[str, float]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._client_tls: ssl.SSLContext | None = None
        self.ports: dict[str, int] = {}
        self.dropped = 0
        self.most_connections = MAX_CONNECTIONS

    async def start(
        self,
        bind: str,
        port: int,
        *,
        listens: bool = True,
        server_tls: ssl.SSLContext | None = None,
        tls_port: int = 0,
        client_tls: ssl.SSLContext | None = None,
    ) -> None:
        """Open the sockets; ``bind`` empty: all IPv4 addresses. Raises ``OSError``, leaving none
        open. ``listens`` False: UDP and connections of ours only.
        """
        loop = asyncio.get_running_loop()
        self._bind = bind
        host = bind or "0.0.0.0"
        self._client_tls = client_tls
        try:
            await loop.create_datagram_endpoint(lambda: self, local_addr=(host, port))
            assert self._udp is not None
            self.ports["udp"] = int(self._udp.get_extra_info("sockname")[1])
            if listens:
                await self._listen("tcp", host, self.ports["udp"], None)
                if server_tls is not None and tls_port:
                    await self._listen("tls", host, tls_port, server_tls)
        except OSError:
            self.close()
            raise

    async def _listen(
        self, transport: str, host: str, port: int, context: ssl.SSLContext | None
    ) -> None:
        async def came(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            peer = writer.get_extra_info("peername")
            if not peer:
                writer.transport.abort()
                return
            if len(self._connections) >= self.most_connections:
                # The one that has been silent longest goes: its party connects again if it wants.
                next(iter(self._connections.values())).transport.abort()
            await self._read_stream(Hop(transport, peer[0], peer[1]), reader, writer)

        server = await asyncio.start_server(came, host, port, ssl=context, limit=MAX_MESSAGE)
        self._servers.append(server)
        self.ports[transport] = int(server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Close everything. Idempotent."""
        for task in list(self._tasks):
            task.cancel()
        if self._udp is not None:
            self._udp.close()
            self._udp = None
        for server in self._servers:
            server.close()
        self._servers.clear()
        for writer in list(self._connections.values()):
            writer.transport.abort()
        self._connections.clear()
        self._waiting.clear()

    def local_address(self, hop: Hop) -> str:
        """Return our address as the place ``hop`` sees it; raise ``OSError`` without a route."""
        if self._bind:
            return self._bind
        family = socket.AF_INET6 if ":" in hop.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as scratch:
            scratch.connect((hop.host, hop.port))
            return str(scratch.getsockname()[0])

    def send(self, data: bytes, hop: Hop) -> None:
        """Send one message, now or as soon as name and connection are there."""
        literal = self._literal(hop)
        if literal is None:
            self._spawn(self._resolve_and_send(data, hop))
        elif hop.transport == "udp":
            self._send_datagram(data, literal, hop)
        else:
            self._send_stream(data, literal, hop)

    async def resolve(self, hop: Hop) -> Hop:
        """Return ``hop`` with an address for its name; raise ``OSError`` when it has none."""
        literal = self._literal(hop)
        if literal is not None:
            return literal
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIME):
                found = await loop.getaddrinfo(hop.host, hop.port, type=socket.SOCK_DGRAM)
        except TimeoutError:
            raise OSError(f"no address of {hop.host} within {CONNECT_TIME:g} s") from None
        if len(self._names) > 1000:
            self._names.clear()
        self._names[hop.host] = (str(found[0][4][0]), loop.time())
        return Hop(hop.transport, str(found[0][4][0]), hop.port)

    def _literal(self, hop: Hop) -> Hop | None:
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(hop.host)
            return hop
        known = self._names.get(hop.host)
        if known is not None and asyncio.get_running_loop().time() - known[1] < NAME_AGE:
            return Hop(hop.transport, known[0], hop.port)
        return None

    async def _resolve_and_send(self, data: bytes, hop: Hop) -> None:
        try:
            literal = await self.resolve(hop)
        except OSError as error:
            self._on_failure(hop, str(error))
            return
        if hop.transport == "udp":
            self._send_datagram(data, literal, hop)
        else:
            self._send_stream(data, literal, hop)

    # --- UDP -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the socket."""
        self._udp = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Hand a datagram on."""
        self._take(data, Hop("udp", str(addr[0]), addr[1]))

    def error_received(self, exc: Exception) -> None:
        """Note what the kernel says of an earlier datagram; it does not say of which."""
        log.debug("a datagram was not delivered: %s", exc)

    def _send_datagram(self, data: bytes, literal: Hop, hop: Hop) -> None:
        if self._udp is None:
            return
        try:
            self._udp.sendto(data, (literal.host, literal.port))
        except OSError as error:
            loop = asyncio.get_running_loop()
            loop.call_soon(self._on_failure, hop, str(error))

    def _take(self, data: bytes, source: Hop) -> None:
        try:
            message = parse(data)
        except SipSyntaxError:
            self.dropped += 1
            return
        if fault(message) is not None:
            self.dropped += 1
            return
        self._on_message(message, source)

    # --- TCP and TLS -----------------------------------------------------------------------------

    def _send_stream(self, data: bytes, literal: Hop, hop: Hop) -> None:
        writer = self._connections.get(literal)
        if writer is not None and not writer.is_closing():
            writer.write(data)
            return
        waiting = self._waiting.get(literal)
        if waiting is not None:
            if len(waiting) < MAX_WAITING:
                waiting.append(data)
            return
        self._waiting[literal] = [data]
        self._spawn(self._connect(literal, hop))

    async def _connect(self, literal: Hop, hop: Hop) -> None:
        context = self._client_tls if literal.transport == "tls" else None
        try:
            if literal.transport == "tls" and context is None:
                raise OSError("no certificate for SIP over TLS here")
            local = (self._bind, 0) if self._bind else None
            async with asyncio.timeout(CONNECT_TIME):
                reader, writer = await asyncio.open_connection(
                    literal.host, literal.port, ssl=context, local_addr=local, limit=MAX_MESSAGE
                )
        except (OSError, TimeoutError) as error:
            self._waiting.pop(literal, None)
            self._on_failure(hop, str(error) or f"no connection within {CONNECT_TIME:g} s")
            return
        for data in self._waiting.pop(literal, []):
            writer.write(data)
        await self._read_stream(literal, reader, writer)

    async def _read_stream(
        self, hop: Hop, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._connections[hop] = writer
        try:
            while True:
                data = await _read_message(reader, writer)
                if data is None:
                    return
                if self._connections.get(hop) is writer:
                    self._connections[hop] = self._connections.pop(hop)  # last in order of use
                self._take(data, hop)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return
        finally:
            if self._connections.get(hop) is writer:
                del self._connections[hop]
            writer.transport.abort()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _read_message(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes | None:
    """Return the next message of a stream, None when it cannot go on (RFC 3261, 18.3)."""
    while not (head := (await reader.readuntil(b"\r\n\r\n")).lstrip(b"\r\n")):
        writer.write(b"\r\n")  # a keep-alive and its answer, RFC 5626, 4.4.1
    length = _LENGTH.search(head)
    if length is None or int(length[1]) > MAX_MESSAGE:
        return None
    return head + await reader.readexactly(int(length[1]))


def client_context(certificate: str = "", key: str = "") -> ssl.SSLContext:
    """Return a context for SIP over TLS to gateways. Their certificates are not verified, as the
    engine does not verify them: no authority vouches for a private exchange.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate:
        context.load_cert_chain(certificate, key)
    return context
