"""One authenticated link with a peer: heartbeats, requests, notifications and bodies.

Theory of operation. A ``Link`` owns a stream pair on which a handshake has succeeded, the same
at both ends, whoever dialed. One task reads; everything else is callbacks of timers and the tasks
that serve requests. One path tears down (``_end``), idempotent, and tells the owner once.

Heartbeats go out every ``heartbeat`` seconds. Each carries the sender's monotonic and wall clock,
the last stamp it had from the other side and how long ago that was, which gives the receiver the
round trip and the clock skew (as NTP does) with no further message. Any byte of the peer counts as
a sign of life; without one for ``timeout`` seconds the link ends as ``silent``. A process that was
itself frozen first reads what waits before it judges.

Not here: the handshake (``authenticate``), how bodies flow (``bodies``), which link of two stays
(``choose``).
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

from controlone_ha.errors import ControlOneError, PeerError
from controlone_ha.peers import frames
from controlone_ha.peers.bodies import WINDOW_MAX, Incoming, Served, iterate
from controlone_ha.peers.facts import Established
from controlone_ha.peers.frames import Frame, FrameDecoder, Kind, ProtocolError
from controlone_ha.peers.model import LinkDown, LinkHandler, Outgoing, RemoteError
from controlone_ha.peers.ssh import SshConnection

MAX_UNSENT = 4 << 20
MAX_SERVED = 64
MAX_BODIES = 16
READ = 1 << 18
_SAMPLES = 7

log = logging.getLogger(__name__)


class Link:
    """See the module's text. Made by ``PeerLinks``; use ``request``, ``fetch``, ``notify``."""

    def __init__(
        self,
        *,
        established: Established,
        direction: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        decoder: FrameDecoder,
        handler: LinkHandler,
        heartbeat: float,
        timeout: float,
        on_end: Callable[[Link, LinkDown], None],
        session: SshConnection | None = None,
        local_address: str = "",
        remote_address: str = "",
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.peer = established.peer
        self.direction = direction
        self.established = established
        self.local_address = local_address
        self.remote_address = remote_address
        self.now = now
        self.since = now()
        self.rtt_ms: float | None = None
        self.skew_ms: float | None = None
        self.down: LinkDown | None = None
        self._wall = wall
        self._reader = reader
        self._writer = writer
        self._decoder = decoder
        self._handler = handler
        self._heartbeat = heartbeat
        self._timeout = timeout
        self._on_end = on_end
        self._session = session
        self._last_number = 0
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._bodies: dict[int, Incoming] = {}
        self._served: dict[int, Served] = {}
        self._measured: collections.deque[tuple[float, float]] = collections.deque(maxlen=_SAMPLES)
        self._last_received = self.since
        self._stamp = (0, 0.0)  # the peer's last stamp, and our monotonic time of it
        self._loop = asyncio.get_running_loop()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._task: asyncio.Task[None] | None = None
        self._internal: Callable[[Link, str, dict[str, Any]], bool] | None = None

    def __repr__(self) -> str:
        return f"<Link {self.direction} {self.peer}>"

    # -- life ---------------------------------------------------------------------------------

    def start(self, internal: Callable[[Link, str, dict[str, Any]], bool] | None = None) -> None:
        """Begin to read and to beat. ``internal`` may take a notification for itself (True)."""
        self._internal = internal
        self._task = self._loop.create_task(self._run(), name=f"link {self.peer}")
        self._beat()
        self._judge(self.now() + self._timeout)

    def retime(self, heartbeat: float, timeout: float) -> None:
        """Use other intervals from now on."""
        self._heartbeat, self._timeout = heartbeat, timeout
        if self.down is None:
            self._beat()
            self._judge(self.now() + timeout)

    async def close(self, reason: str, code: str = "closed") -> None:
        """Say goodbye and end the link, giving the goodbye up to a second to leave."""
        if self.down is None:
            self._write(frames.encode_goodbye(code, reason))
            self._end(
                LinkDown(code="replaced" if code == "replaced" else "closed", sentence=reason)
            )
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(self._writer.wait_closed(), 1.0)
        if self._session is not None and self._writer.transport.get_write_buffer_size():
            self._session.abort()

    def abort(self, cause: LinkDown) -> None:
        """End the link at once, without a word."""
        self._end(cause, at_once=True)

    def _end(self, cause: LinkDown, *, at_once: bool = False) -> None:
        if self.down is not None:
            return
        self.down = cause
        for timer in self._timers.values():
            timer.cancel()
        problem = PeerError(f"the link with {self.peer} ended: {cause.sentence}")
        for future in self._pending.values():
            if not future.done():
                future.set_exception(problem)
        for body in list(self._bodies.values()):
            body.fail(problem)
        self._pending.clear()
        self._bodies.clear()
        for served in self._served.values():
            if served.task is not None:
                served.task.cancel()
        if self._task is not None:
            self._task.cancel()
        if at_once:
            self._drop()
        else:
            self._writer.close()
            # A peer that does not read would keep the last words, and the threads, for ever.
            self._loop.call_later(2.0, self._drop)
        self._on_end(self, cause)

    def _drop(self) -> None:
        self._writer.transport.abort()
        if self._session is not None:
            self._session.abort()

    async def _run(self) -> None:
        """Read until the stream ends, then say why."""
        try:
            while True:
                while (frame := self._decoder.next_frame()) is not None:
                    self._dispatch(frame)
                    if self.down is not None:
                        return
                data = await self._reader.read(READ)
                if not data:
                    break
                self._last_received = self.now()
                self._decoder.receive(data)
                self._handler.on_heartbeat(self.peer)
        except ProtocolError as error:
            self._write(frames.encode_goodbye("protocol", str(error)))
            sentence = f"{self.peer} broke the protocol: {error}"
            self._end(LinkDown(code="refused", sentence=sentence))
            return
        except OSError as error:
            self._end(LinkDown(code="reset", sentence=f"the link with {self.peer} broke: {error}"))
            return
        if self._session is not None:
            code, sentence = self._session.ending()
            self._end(LinkDown(code="reset" if code == "reset" else "closed", sentence=sentence))
        else:
            self._end(
                LinkDown(
                    code="closed",
                    sentence=f"the SSH session from {self.peer} ended without a goodbye",
                )
            )

    # -- timers -------------------------------------------------------------------------------

    def _set_timer(self, name: str, delay: float, action: Callable[[], None]) -> None:
        present = self._timers.get(name)
        if present is not None:
            present.cancel()
        self._timers[name] = self._loop.call_later(max(delay, 0.0), action)

    def _beat(self) -> None:
        stamp, at = self._stamp
        now = self.now()
        held = int((now - at) * 1e6) if stamp else 0
        self._write(
            frames.encode(
                Kind.HEARTBEAT,
                frames.HEARTBEAT.pack(
                    max(int(now * 1e6), 1), max(int(self._wall() * 1e6), 0), stamp, max(held, 0)
                ),
            )
        )
        if self.down is None:
            self._set_timer("beat", self._heartbeat, self._beat)

    def _judge(self, expected_at: float, grace: bool = True) -> None:
        """End a silent link; after a gap of our own, read first and judge one heartbeat later."""

        def judge() -> None:
            now = self.now()
            remaining = self._last_received + self._timeout - now
            if remaining > 0.001:
                self._judge(now + remaining)
            elif grace and now - expected_at > max(0.5 * self._heartbeat, 0.1):
                self._judge(now + self._heartbeat, grace=False)
            else:
                waited = now - self._last_received
                self._end(
                    LinkDown(
                        code="silent", sentence=f"nothing from {self.peer} for {waited:.1f} s"
                    ),
                    at_once=True,
                )

        self._set_timer("judge", expected_at - self.now(), judge)

    # -- asking -------------------------------------------------------------------------------

    async def request(self, method: str, params: dict[str, Any], *, timeout: float) -> Any:
        """Ask the peer; raise ``RemoteError``, ``TimeoutError`` or ``PeerError`` (link ended)."""
        number = self._ask(method, params, with_body=False)
        return await self._answer(number, timeout)

    async def fetch(self, method: str, params: dict[str, Any], *, timeout: float) -> Incoming:
        """Ask for an answer with a body; ``timeout`` bounds the answer, then each chunk."""
        if len(self._bodies) >= MAX_BODIES:
            raise PeerError(f"{MAX_BODIES} bodies are being fetched from {self.peer} already")
        number = self._ask(method, params, with_body=True)
        body = Incoming(self, number, timeout)
        self._bodies[number] = body
        try:
            body.result = await self._answer(number, timeout)
        except BaseException:
            self._bodies.pop(number, None)
            raise
        return body

    def notify(self, method: str, params: dict[str, Any]) -> None:
        """Tell the peer something; never blocks; lost when the link is down."""
        self._write(frames.encode_json(Kind.NOTIFY, {"method": method, "params": params}))

    def _ask(self, method: str, params: dict[str, Any], *, with_body: bool) -> int:
        if self.down is not None:
            raise PeerError(f"the link with {self.peer} ended: {self.down.sentence}")
        number = self._last_number % frames.MAX_NUMBER + 1
        fields: dict[str, Any] = {"method": method, "params": params}
        if with_body:
            fields["body"] = True
        try:
            frame = frames.encode_json(Kind.REQUEST, fields, number)
        except ValueError as error:
            raise PeerError(f"{method}: {error}") from error
        self._last_number = number
        self._pending[number] = self._loop.create_future()
        self._write(frame)
        return number

    async def _answer(self, number: int, timeout: float) -> Any:
        future = self._pending.get(number)
        if future is None:
            raise PeerError(f"the link with {self.peer} ended")
        try:
            return await asyncio.wait_for(future, timeout)
        except (TimeoutError, asyncio.CancelledError):
            self._write(frames.encode(Kind.CANCEL, frames.NUMBER.pack(number)))
            raise
        finally:
            self._pending.pop(number, None)

    def forget_body(self, number: int, *, cancel: bool) -> None:
        """Drop a body; ``cancel`` tells the peer to stop sending it."""
        if self._bodies.pop(number, None) is not None and cancel and self.down is None:
            self._write(frames.encode(Kind.CANCEL, frames.NUMBER.pack(number)))

    def grant(self, number: int, credit: int) -> None:
        """Let the peer send ``credit`` further bytes of a body."""
        self._write(frames.encode(Kind.CREDIT, frames.CREDIT.pack(number, credit)))

    def _write(self, data: bytes) -> None:
        if self.down is not None or self._writer.is_closing():
            return
        unsent = self._writer.transport.get_write_buffer_size()
        if unsent + len(data) > MAX_UNSENT:
            sentence = f"{self.peer} does not read: {unsent} bytes wait for it"
            self._end(LinkDown(code="silent", sentence=sentence), at_once=True)
            return
        self._writer.write(data)

    # -- receiving ----------------------------------------------------------------------------

    def _dispatch(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.HEARTBEAT:
                self._measure(frame.payload)
            case Kind.DATA:
                number, chunk = frame.numbered()
                body = self._bodies.get(number)
                if body is not None:  # else given up while it was on its way
                    body.feed(chunk)
                    if not chunk:
                        self._bodies.pop(number, None)
            case Kind.CREDIT:
                self._credited(frame.payload)
            case Kind.NOTIFY:
                method, params = _call_fields(frame.kind, frame.fields())
                if self._internal is None or not self._internal(self, method, params):
                    self._handler.on_notify(self.peer, method, params)
            case Kind.REQUEST:
                self._requested(frame)
            case Kind.RESPONSE:
                number, text = frame.numbered()
                fields = frames.json_object(frame.kind, text)
                future = self._pending.get(number)
                if future is not None and not future.done():
                    future.set_result(fields.get("result"))
            case Kind.ERROR:
                self._failed(frame)
            case Kind.CANCEL:
                served = self._served.get(frame.numbered()[0])
                if served is not None and served.task is not None:
                    served.task.cancel()
            case Kind.GOODBYE:
                self._bidden(frame)
            case _:
                raise ProtocolError(f"{frame.kind.name} is not allowed on a link")

    def _bidden(self, frame: Frame) -> None:
        fields = frame.fields()
        code = frames.printable(fields.get("code", "closed"), 40)
        said = frames.printable(fields.get("sentence", ""))
        down = {"replaced": "replaced", "protocol": "refused"}.get(code, "closed")
        self._end(LinkDown(code=down, sentence=f"{self.peer} ended the link: {said}", goodbye=code))

    def _failed(self, frame: Frame) -> None:
        number, text = frame.numbered()
        fields = frames.json_object(frame.kind, text)
        error = RemoteError(
            frames.printable(fields.get("code", "error"), 40),
            frames.printable(fields.get("sentence", ""), 2000),
            fields.get("data"),
        )
        future = self._pending.get(number)
        body = self._bodies.get(number)
        if future is not None and not future.done():
            future.set_exception(error)
        elif body is not None:
            body.fail(error)

    def _measure(self, payload: bytes) -> None:
        if len(payload) != frames.HEARTBEAT.size:
            raise ProtocolError(f"HEARTBEAT of {len(payload)} bytes, expected 32")
        stamp, their_wall, echo, held = frames.HEARTBEAT.unpack(payload)
        now, wall = self.now(), self._wall()
        first = not self._stamp[0]
        self._stamp = (stamp, now)
        if echo:
            rtt = now - (echo + held) / 1e6
            if 0 <= rtt < 3600:
                skew = their_wall / 1e6 + rtt / 2 - wall
                self._measured.append((rtt * 1000, skew * 1000))
                self.rtt_ms = _median([rtt for rtt, _ in self._measured])
                self.skew_ms = _median([skew for _, skew in self._measured])
        if first:
            self._beat()  # answer the first at once: both sides know the round trip from the start

    # -- serving ------------------------------------------------------------------------------

    def _requested(self, frame: Frame) -> None:
        number, text = frame.numbered()
        fields = frames.json_object(frame.kind, text)
        method, params = _call_fields(frame.kind, fields)
        if number in self._served:
            raise ProtocolError(f"REQUEST: number {number} is in use")
        if len(self._served) >= MAX_SERVED:
            self._write_error(number, "busy", f"{MAX_SERVED} requests are being served already")
            return
        served = Served(bool(fields.get("body")))
        self._served[number] = served
        served.task = self._loop.create_task(
            self._serve(number, served, method, params), name=f"serve {self.peer} {method}"
        )

        def reap(task: asyncio.Task[None]) -> None:
            self._served.pop(number, None)
            if not task.cancelled() and (problem := task.exception()) is not None:
                log.error("request %s of %s failed", method, self.peer, exc_info=problem)
                self._write_error(number, "internal", f"{type(problem).__name__} in {method}")

        served.task.add_done_callback(reap)

    async def _serve(
        self, number: int, served: Served, method: str, params: dict[str, Any]
    ) -> None:
        try:
            result = await self._handler.on_request(self.peer, method, params)
            if isinstance(result, Outgoing):
                if not served.with_body:
                    raise PeerError(f"{method} answers with a body; it has to be fetched")
                self._respond(number, method, result.result)
                await self._send_body(number, served, result)
            else:
                self._respond(number, method, result)
                if served.with_body:
                    self._write(frames.encode(Kind.DATA, frames.NUMBER.pack(number)))
        except ControlOneError as error:
            data = getattr(error, "data", None)
            self._write_error(number, error.code, str(error), data)
        except TimeoutError:
            self._write_error(number, "timeout", f"{method} took too long")

    def _respond(self, number: int, method: str, result: object) -> None:
        try:
            frame = frames.encode_json(Kind.RESPONSE, {"result": result}, number)
        except ValueError as error:
            raise PeerError(f"{method}: {error}") from error
        self._write(frame)

    def _write_error(self, number: int, code: str, sentence: str, data: Any = None) -> None:
        fields = {"code": code, "sentence": sentence[:2000], "data": data}
        try:
            frame = frames.encode_json(Kind.ERROR, fields, number)
        except (ValueError, TypeError):
            frame = frames.encode_json(Kind.ERROR, {**fields, "data": None}, number)
        self._write(frame)

    async def _send_body(self, number: int, served: Served, body: Outgoing) -> None:
        async for chunk in iterate(body.chunks):
            for start in range(0, len(chunk), frames.MAX_CHUNK):
                piece = chunk[start : start + frames.MAX_CHUNK]
                while served.credit < len(piece):
                    served.more_credit.clear()
                    await served.more_credit.wait()
                served.credit -= len(piece)
                self._write(frames.encode(Kind.DATA, frames.NUMBER.pack(number) + piece))
                await self._writer.drain()
        self._write(frames.encode(Kind.DATA, frames.NUMBER.pack(number)))

    def _credited(self, payload: bytes) -> None:
        if len(payload) != frames.CREDIT.size:
            raise ProtocolError(f"CREDIT of {len(payload)} bytes, expected {frames.CREDIT.size}")
        number, credit = frames.CREDIT.unpack(payload)
        served = self._served.get(number)
        if served is not None:
            served.credit = min(served.credit + credit, 2 * WINDOW_MAX)
            served.more_credit.set()


def _call_fields(kind: Kind, fields: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    method, params = fields.get("method"), fields.get("params", {})
    if not isinstance(method, str) or not isinstance(params, dict):
        raise ProtocolError(f"{kind.name}: expected a method and an object of params")
    return method, params


def _median(values: list[float]) -> float:
    """Return the median; `statistics` brings decimal arithmetic along, 0.7 MB in every daemon."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2
