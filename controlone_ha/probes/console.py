"""Console request: what a console does first, asked as a probe of TCP/7551.

TLS, one ``ping`` line, one answer, closed. No login, so it costs the Console Server nothing but the
handshake, and it goes through the same port and code as a console's own ping.

Theory of operation. The TLS machine runs on two memory buffers and this module moves the bytes, so
that every way to fail is told apart by the stage it happened in:

* refused connection: ``REFUSED``; a reset at any stage too, with "connection reset";
* no way to the host: ``UNREACHABLE``;
* silence before the connection is there, or after ("accepts connections but does not answer": a
  stopped process, whose kernel still accepts): ``TIMEOUT``;
* anything else than TLS with the pinned certificate and a proper answer: ``REJECTED``.

Identity is the SHA-256 of the certificate's DER form, compared with the pin. There is no authority,
and no name or date is checked: the pin is stronger than all of them.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import hmac
import json
import socket
import ssl
from collections.abc import Callable
from typing import Any, TypeVar

from controlone_ha.core.observations import Outcome, ProbeResult, Service
from controlone_ha.jsonrpc import RpcError, decode, encode_request, error_of
from controlone_ha.probes.addresses import UnresolvedError, error_text, resolve

MAX_ANSWER = 64 * 1024
_MAX_TEXT = 200

Value = TypeVar("Value")


class _BadAnswerError(Exception):
    """The other side answered, but not as a Console Server does; the text says how."""


class _Stage:
    """How far a probe has come; decides what a silence means."""

    def __init__(self) -> None:
        self.is_connected = False


async def probe_console(
    host: str, port: int = 7551, *, timeout: float = 2.0, pinned_sha256: str | None = None
) -> ProbeResult:
    """Ask the Console Server for a ping within ``timeout`` seconds.

    ``pinned_sha256``: hexadecimal digits, colons allowed, several with blanks between them; None
    checks no identity. ``answer`` is the ping's result: node, role, state, serving, reason,
    protocol. ``rtt_ms`` is from the start of the connection to the answer.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    stage = _Stage()
    try:
        async with asyncio.timeout(timeout):
            address = await resolve(host, port, timeout=timeout)
            answer = await _ask(loop, str(address), port, pinned_sha256, stage)
    except TimeoutError:
        text = (
            "accepts connections but does not answer"
            if stage.is_connected
            else "no answer to the connection attempt"
        )
        return _result(Outcome.TIMEOUT, f"{text} within {timeout:g} s")
    except UnresolvedError as error:
        return _result(Outcome.UNREACHABLE, str(error))
    except _BadAnswerError as error:
        return _result(Outcome.REJECTED, str(error))
    except ConnectionRefusedError:
        return _result(Outcome.REFUSED, "connection refused: no Console Server on it")
    except (ConnectionResetError, BrokenPipeError, ConnectionAbortedError):
        return _result(Outcome.REFUSED, "connection reset")
    except ssl.SSLError as error:
        return _result(Outcome.REJECTED, f"no TLS with it: {_reason(error)}")
    except OSError as error:
        return _result(Outcome.UNREACHABLE, error_text(error.errno))
    return ProbeResult(
        service=Service.CONSOLE,
        outcome=Outcome.ANSWERED,
        detail=_summary(answer),
        rtt_ms=(loop.time() - started) * 1000,
        answer=answer,
    )


def _result(outcome: Outcome, detail: str) -> ProbeResult:
    return ProbeResult(service=Service.CONSOLE, outcome=outcome, detail=detail)


@functools.cache
def _context() -> ssl.SSLContext:
    """Return the one context of the process; building one costs more than a probe."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the pin is checked instead, before anything is sent
    return context


async def _ask(
    loop: asyncio.AbstractEventLoop, address: str, port: int, pin: str | None, stage: _Stage
) -> dict[str, Any]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    with socket.socket(family, kind) as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_connect(stream, (address, port))
        stage.is_connected = True
        channel = _TlsChannel(loop, stream)
        try:
            await channel.handshake()
        except ssl.SSLEOFError as error:
            raise _BadAnswerError("closes the connection during the TLS handshake") from error
        if pin is not None:
            _check_pin(channel.certificate(), pin)
        await channel.write(encode_request("ping", {}, 1))
        try:
            line = await channel.read_line()
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            raise _BadAnswerError("closes the connection without an answer") from error
        channel.say_goodbye()
        return _ping_result(line)


class _TlsChannel:
    """TLS over a non-blocking socket; each call moves what bytes it needs."""

    def __init__(self, loop: asyncio.AbstractEventLoop, stream: socket.socket) -> None:
        self._loop = loop
        self._stream = stream
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = _context().wrap_bio(self._incoming, self._outgoing, server_side=False)

    async def handshake(self) -> None:
        """Do the handshake."""
        await self._drive(self._tls.do_handshake)

    def certificate(self) -> bytes:
        """Return the other side's certificate in DER, empty when it sent none."""
        return self._tls.getpeercert(binary_form=True) or b""

    async def write(self, data: bytes) -> None:
        """Send ``data``."""
        await self._drive(lambda: self._tls.write(data))

    async def read_line(self) -> bytes:
        """Return one line, without what follows it."""
        buffer = bytearray()
        while b"\n" not in buffer:
            if len(buffer) > MAX_ANSWER:
                raise _BadAnswerError(f"answers with a line longer than {MAX_ANSWER} bytes")
            data = await self._drive(lambda: self._tls.read(16384))
            if not data:
                raise _BadAnswerError("closes the connection without an answer")
            buffer += data
        return bytes(buffer.partition(b"\n")[0])

    def say_goodbye(self) -> None:
        """Send close_notify if it fits at once; the answer is there, nothing is waited for."""
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # it wants the other side's close_notify, which does not matter here
        try:
            self._stream.send(self._outgoing.read())
        except OSError:
            pass

    async def _drive(self, operation: Callable[[], Value]) -> Value:
        while True:
            try:
                value = operation()
            except ssl.SSLWantReadError:
                await self._flush()
                data = await self._loop.sock_recv(self._stream, 65536)
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            except ssl.SSLError:
                # A fatal alert of ours tells the other side's log what was wrong.
                await self._flush()
                raise
            else:
                await self._flush()
                return value

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._loop.sock_sendall(self._stream, self._outgoing.read())


def _check_pin(certificate: bytes, pin: str) -> None:
    expected = pin.replace(":", "").lower().split()
    got = hashlib.sha256(certificate).hexdigest()
    if not any(hmac.compare_digest(item.encode(), got.encode()) for item in expected):
        raise _BadAnswerError(
            f"presents certificate {got[:16]}…, pinned is {expected[0][:16]}…: "
            "another node on this address, or it was deployed anew"
        )


def _ping_result(line: bytes) -> dict[str, Any]:
    try:
        message = decode(line)
    except RpcError as error:
        raise _BadAnswerError(
            f"answers the ping with nonsense: {_printable(str(error))}"
        ) from error
    if message.error is not None:
        refusal = error_of(message)
        raise _BadAnswerError(
            f"answers the ping with error {refusal.number}: {_printable(str(refusal))}"
        )
    if message.id != 1 or message.method is not None or not isinstance(message.result, dict):
        raise _BadAnswerError("answers the ping with something else")
    return message.result


def _summary(answer: dict[str, Any]) -> str:
    if answer.get("serving"):
        return "serving"
    reason = answer.get("reason")
    text = reason.get("text") if isinstance(reason, dict) else None
    if not isinstance(text, str) or not text:
        return "answers, but does not serve consoles"
    return f"answers, but does not serve consoles: {_printable(text)}"


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()


def _printable(text: str) -> str:
    """Return a peer's words fit for one log line."""
    clean = text if text.isprintable() else json.dumps(text)
    return clean if len(clean) <= _MAX_TEXT else clean[:_MAX_TEXT] + "…"
