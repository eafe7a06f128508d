"""One TLS connection to a Console Server, from the console's side: lines out, answers back.

It knows the protocol's framing and nothing of servers to choose. The certificate is checked against
the pins before a byte is sent. Every end is told once, with its cause: reset, closed, what TLS or
the line format did not like.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import socket
import ssl
from collections.abc import Callable
from typing import Any

from controlone_ha.console.rules import Cause
from controlone_ha.console.trust import Credentials
from controlone_ha.jsonrpc import Message, RpcError, decode, encode_request

MAX_LINE = 1 << 20
MAX_UNSENT = 256 * 1024

Answered = Callable[[Message | None], None]
"""Called with the answer, or with None when the connection ended before it."""


class OpenError(Exception):
    """No connection could be opened; ``cause`` says why."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.code)
        self.cause = cause


def _nothing() -> None:
    pass


def _ignore(method: str, params: dict[str, Any]) -> None:
    pass


def _forget(cause: Cause) -> None:
    pass


@functools.cache
def client_context() -> ssl.SSLContext:
    """Return the one context of the process. No authority, no name: the pins say who is who."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.options |= ssl.OP_NO_TICKET
    return context


class ServerConnection(asyncio.Protocol):
    """An open connection. The owner sets the three callbacks right after ``open_connection``."""

    def __init__(self) -> None:
        self.on_heard: Callable[[], None] = _nothing
        self.on_notify: Callable[[str, dict[str, Any]], None] = _ignore
        self.on_end: Callable[[Cause], None] = _forget
        self.certificate = ""
        self.node: str | None = None
        self.is_closed = False
        self._cause: Cause | None = None
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._pending: dict[int, Answered] = {}
        self._number = 0

    # Called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TLS is up."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        der = transport.get_extra_info("ssl_object").getpeercert(binary_form=True) or b""
        self.certificate = hashlib.sha256(der).hexdigest()

    def data_received(self, data: bytes) -> None:
        """Take what came apart into messages."""
        if self.is_closed:
            return
        self.on_heard()
        searched = len(self._buffer)
        self._buffer += data
        start = 0
        while not self.is_closed:
            end = self._buffer.find(b"\n", max(start, searched))
            if end < 0:
                break
            line = bytes(self._buffer[start:end])
            start = end + 1
            if line.strip():
                self._line(line)
        del self._buffer[:start]
        if len(self._buffer) > MAX_LINE:
            self._break_off(Cause("protocol", {"text": f"a line longer than {MAX_LINE} bytes"}))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner and everybody who waits for an answer."""
        if isinstance(exc, ssl.SSLError):
            cause = Cause("protocol", {"text": exc.reason or str(exc)})
        elif exc is not None:
            cause = Cause("reset", {"text": str(exc)})
        else:
            cause = Cause("closed")
        self._finish(self._cause or cause)

    # Called by the owner

    def ask(self, method: str, params: dict[str, Any], answered: Answered) -> None:
        """Send a request; ``answered`` is called exactly once."""
        if self.is_closed or self._transport is None or self._transport.is_closing():
            answered(None)
            return
        if self._transport.get_write_buffer_size() > MAX_UNSENT:
            answered(None)  # it does not read; that it is gone is found by its silence
            return
        self._number += 1
        self._pending[self._number] = answered
        self._transport.write(encode_request(method, params, self._number))

    async def call(self, method: str, params: dict[str, Any]) -> Any:
        """Return the answer; raise ``RpcError``, or ``OpenError`` when the connection ends."""
        future: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()

        def answered(message: Message | None) -> None:
            if not future.done():
                future.set_result(message)

        self.ask(method, params, answered)
        message = await future
        if message is None:
            raise OpenError(self._cause or Cause("closed"))
        return result_of(message)

    def leave(self) -> None:
        """Close in order, without telling the owner."""
        self.on_end = _forget
        if self._transport is not None:
            self._transport.close()
            # A server that is silent must not keep the socket for the time of a TLS farewell.
            asyncio.get_running_loop().call_later(1.0, self._transport.abort)
        self._finish(Cause("left", is_loss=False))

    def drop(self) -> None:
        """Forget the connection at once, without telling the owner."""
        self.on_end = _forget
        if self._transport is not None:
            self._transport.abort()
        self._finish(Cause("dropped"))

    # Inside

    def _line(self, line: bytes) -> None:
        try:
            message = decode(line)
        except RpcError as error:
            self._break_off(Cause("protocol", {"text": str(error)}))
            return
        if message.method is not None:
            if message.id is None:
                self.on_notify(message.method, message.params or {})
            return
        answered = self._pending.pop(message.id, None) if isinstance(message.id, int) else None
        if answered is not None:
            answered(message)
        elif message.id is None and message.error is not None:
            # The server says why it is about to close: a limit was broken.
            self._cause = Cause("protocol", {"text": str(message.error.get("message"))})

    def _break_off(self, cause: Cause) -> None:
        self._cause = cause
        if self._transport is not None:
            self._transport.abort()

    def _finish(self, cause: Cause) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self._cause = self._cause or cause
        pending, self._pending = self._pending, {}
        for answered in pending.values():
            answered(None)
        self._buffer.clear()
        on_end, self.on_end = self.on_end, _forget
        self.on_heard, self.on_notify = _nothing, _ignore
        on_end(cause)


def result_of(message: Message) -> Any:
    """Return the result in an answer; raise ``RpcError`` for an error."""
    from controlone_ha.jsonrpc import error_of

    if message.error is not None:
        raise error_of(message)
    return message.result


async def open_connection(
    host: str, port: int, trusted: Credentials, on_reached: Callable[[], None] = _nothing
) -> ServerConnection:
    """Return a connection whose certificate is pinned (or anybody's, if nothing is pinned).

    ``on_reached`` is called when TCP is up and TLS begins. The caller bounds the time. Raises
    ``OpenError``.
    """
    loop = asyncio.get_running_loop()
    connection = ServerConnection()
    plain: asyncio.Transport | None = None
    try:
        plain, _ = await loop.create_connection(
            asyncio.Protocol, host, port, happy_eyeballs_delay=0.25
        )
        on_reached()
        secured = await loop.start_tls(
            plain,
            connection,
            client_context(),
            server_hostname="",
            ssl_handshake_timeout=600.0,
            ssl_shutdown_timeout=1.0,
        )
        if secured is None:
            raise ConnectionResetError("closed during the TLS handshake")
        connection.connection_made(secured)
    except asyncio.CancelledError:
        if plain is not None:
            plain.abort()
        raise
    except ssl.SSLError as error:
        raise OpenError(Cause("protocol", {"text": error.reason or str(error)})) from error
    except socket.gaierror as error:
        raise OpenError(Cause("no_address", {"host": host, "text": str(error)})) from error
    except (ConnectionRefusedError, ConnectionResetError, BrokenPipeError) as error:
        raise OpenError(Cause("refused", {"text": str(error)})) from error
    except OSError as error:
        raise OpenError(Cause("unreachable", {"text": str(error)})) from error
    if trusted.pins:
        connection.node = trusted.name_of(connection.certificate)
        if connection.node is None:
            seen = connection.certificate[:16]
            connection.drop()
            raise OpenError(Cause("certificate", {"seen": seen}))
    return connection
