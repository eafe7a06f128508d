"""Is a gateway ready for this node? OPTIONS, and an INVITE that shows whether it knows Replaces.

Asked from the address that this node's Conference Server uses, over the gateway's own transport, so
that what shows up is what a takeover would meet: access lists, a firewall, wrong credentials, no
support for Replaces. Nothing is kept open.

The second question, asked only where it is wanted: INVITE with Replaces (RFC 3891) of a dialog that
cannot exist, and ``Require: replaces``. A gateway that knows Replaces answers 481 before anybody is
called. 420: it does not know it. One that answers 180 or 200 took it for a new call: it is
cancelled or ended at once, but a phone may have rung for a moment; hence opt-in.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from enum import StrEnum

from controlone_ha import __version__
from controlone_ha.sip.digest import challenge_of, credentials
from controlone_ha.sip.events import Answered, Client, Failed, Reason
from controlone_ha.sip.fields import BRANCH_COOKIE, parse_address
from controlone_ha.sip.layer import Event, TransactionLayer
from controlone_ha.sip.message import Request, Response, build_request
from controlone_ha.sip.transaction import SipTimers
from controlone_ha.sip.transport import SipTransport, client_context
from controlone_ha.sip.uri import Hop

PROBED_USER = "ha-check"
"""User part of what is called: no gateway routes it anywhere."""


class GatewayAnswer(StrEnum):
    """READY: answers and would let this node act. SILENT: no answer. UNREACHABLE: no way there.
    FORBIDDEN: it refuses this address or these credentials (401, 403, 407). BUSY: 503.
    NO_REPLACES: 420, or another refusal that is not 481. NEW_CALL: it took a replacement of an
    unknown dialog for a new call.
    """

    READY = "ready"
    SILENT = "silent"
    UNREACHABLE = "unreachable"
    FORBIDDEN = "forbidden"
    BUSY = "busy"
    NO_REPLACES = "no_replaces"
    NEW_CALL = "new_call"


@dataclass(frozen=True, kw_only=True)
class GatewayResult:
    """What came of a question. ``local``: the address it was asked from; ``detail``: the status
    line, or why there is none.
    """

    answer: GatewayAnswer
    detail: str = ""
    status: int = 0
    local: str = ""


@dataclass(frozen=True, kw_only=True)
class GatewayQuestion:
    """Whom to ask. ``bind``: the address to ask from, empty: what the route gives."""

    host: str
    port: int = 5060
    transport: str = "udp"
    bind: str = ""
    username: str = ""
    password: str = ""
    timeout: float = 2.0


async def ask_options(question: GatewayQuestion) -> GatewayResult:
    """Ask by OPTIONS. Never raises for what the network did."""
    return await _ask(question, "OPTIONS")


async def ask_replaces(question: GatewayQuestion) -> GatewayResult:
    """Ask by an INVITE that replaces what does not exist. Never raises for what the network did."""
    return await _ask(question, "INVITE")


async def _ask(question: GatewayQuestion, method: str) -> GatewayResult:
    asker = _Asker(question, method)
    try:
        await asker.start()
        async with asyncio.timeout(question.timeout + 1.0):
            return await asker.result
    except TimeoutError:
        return asker.silence()
    except OSError as error:
        return asker.outcome(GatewayAnswer.UNREACHABLE, str(error))
    finally:
        asker.close()


class _Asker:
    """One question with its socket and timer."""

    def __init__(self, question: GatewayQuestion, method: str) -> None:
        self._question = question
        self._method = method
        self._transport = SipTransport(self._came, self._failed)
        t1 = min(0.5, question.timeout / 7)  # three transmissions within the time there is
        self._layer = TransactionLayer(SipTimers(t1=t1, timer_f=question.timeout, timer_k=0.0))
        self._loop = asyncio.get_running_loop()
        self.result: asyncio.Future[GatewayResult] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._local = ""
        self._hop = Hop(question.transport, question.host, question.port)
        self._token = secrets.token_hex(12)
        self._cseq = 0
        self._rang = ""

    async def start(self) -> None:
        is_tls = self._question.transport == "tls"
        await self._transport.start(
            self._question.bind, 0, listens=False, client_tls=client_context() if is_tls else None
        )
        self._hop = await self._transport.resolve(self._hop)
        self._local = self._transport.local_address(self._hop)
        self._send()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._transport.close()

    def outcome(self, answer: GatewayAnswer, detail: str, status: int = 0) -> GatewayResult:
        return GatewayResult(answer=answer, detail=detail, status=status, local=self._local)

    def silence(self) -> GatewayResult:
        """Return what the lack of a final answer says."""
        if self._rang:
            return self.outcome(GatewayAnswer.NEW_CALL, self._rang)
        return self.outcome(GatewayAnswer.SILENT, f"no answer within {self._question.timeout:g} s")

    def _send(self, extra: tuple[tuple[str, str], ...] = ()) -> None:
        self._layer.request(self._compose(extra), self._hop, self._loop.time())
        self._flush()

    def _compose(self, extra: tuple[tuple[str, str], ...], method: str = "") -> Request:
        method = method or self._method
        if method != "ACK":
            self._cseq += 1
        own = Hop("udp", self._local, self._transport.ports["udp"])
        transport = self._question.transport
        suffix = "" if transport == "udp" else f";transport={transport}"
        target = f"{self._hop.bracketed}:{self._hop.port}"
        user = f"{PROBED_USER}@" if self._method == "INVITE" else ""
        uri = f"sip:{user}{target}{suffix}"
        headers = [
            (
                "Via",
                f"SIP/2.0/{transport.upper()} {own.bracketed}:{own.port};rport"
                f";branch={BRANCH_COOKIE}{self._token}{method}{self._cseq}",
            ),
            ("Max-Forwards", "70"),
            ("From", f"<sip:ha@{own.bracketed}>;tag={self._token}"),
            ("To", f"<{uri}>"),
            ("Call-ID", self._token),
            ("CSeq", f"{self._cseq} {method}"),
            ("User-Agent", f"ControlONE-HA/{__version__}"),
        ]
        if method == "INVITE":
            headers += [
                ("Contact", f"<sip:ha@{own.bracketed}:{own.port}{suffix}>"),
                ("Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS"),
                ("Require", "replaces"),
                # Tags and Call-ID of 96 random bits: no dialog of anybody can be meant.
                (
                    "Replaces",
                    f"{secrets.token_hex(12)};to-tag={secrets.token_hex(6)}"
                    f";from-tag={secrets.token_hex(6)}",
                ),
                ("Content-Type", "application/sdp"),
            ]
        elif method == "OPTIONS":
            headers.append(("Accept", "application/sdp"))
        body = self._offer() if method == "INVITE" else b""
        return build_request(method, uri, [*headers, *extra], body)

    def _offer(self) -> bytes:
        """An offer that is complete and asks for no audio."""
        kind = "IP6" if ":" in self._local else "IP4"
        return (
            f"v=0\r\no=ha 1 1 IN {kind} {self._local}\r\ns=-\r\nc=IN {kind} {self._local}\r\n"
            "t=0 0\r\nm=audio 9 RTP/AVP 8 0\r\na=inactive\r\n"
        ).encode()

    # --- what comes ------------------------------------------------------------------------------

    def _came(self, message: Request | Response, source: Hop) -> None:
        if isinstance(message, Request) or message.get("Call-ID") != self._token:
            return
        self._handle(self._layer.receive(message, source, self._loop.time()))

    def _failed(self, hop: Hop, detail: str) -> None:
        self._handle(self._layer.transport_failed(hop, detail))

    def _wake(self) -> None:
        self._timer = None
        self._handle(self._layer.advance(self._loop.time()))

    def _flush(self) -> None:
        while self._layer.outbox:
            item = self._layer.outbox.popleft()
            self._transport.send(item.data, item.hop)
        if self._timer is not None:
            self._timer.cancel()
        due = self._layer.next_due()
        self._timer = None if due is None else self._loop.call_at(due, self._wake)

    def _handle(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Answered) and event.client.request.method == self._method:
                self._answered(event.client, event.response)
            elif isinstance(event, Failed) and isinstance(event.transaction, Client):
                if event.reason is Reason.TRANSPORT:
                    self._end(self.outcome(GatewayAnswer.UNREACHABLE, event.detail))
                else:
                    self._end(self.silence())
        self._flush()

    def _end(self, result: GatewayResult) -> None:
        if not self.result.done():
            self.result.set_result(result)

    def _answered(self, client: Client, response: Response) -> None:
        detail = f"{response.status} {response.reason}".strip()
        if not response.is_final:
            if self._method == "INVITE" and response.status >= 180 and not self._rang:
                self._rang = detail
                self._layer.cancel(client, self._loop.time())
            return
        challenge = challenge_of(response) if response.status in (401, 407) else None
        if challenge is not None and self._question.username and self._cseq == 1:
            name, parameters = challenge
            value = credentials(
                parameters,
                method=self._method,
                uri=client.request.uri,
                username=self._question.username,
                password=self._question.password,
                cnonce=secrets.token_hex(8),
            )
            self._send(((name, value),))
            return
        if self._method == "INVITE" and response.status < 300:
            self._hang_up(client, response)
        answer = judge(self._method, response.status, has_rung=bool(self._rang))
        self._end(self.outcome(answer, detail, response.status))

    def _hang_up(self, client: Client, response: Response) -> None:
        """End the call that should not have come about."""
        contact = parse_address(response.get("Contact"))
        target = contact.uri if contact is not None else client.request.uri
        for method in ("ACK", "BYE"):
            request = self._compose((), method)
            request.uri = target
            request.headers = [
                (name, response.get("To") if name == "To" else value)
                for name, value in request.headers
            ]
            if method == "ACK":
                self._layer.acknowledge(client, request)
            else:
                self._layer.request(request, self._hop, self._loop.time())


def judge(method: str, status: int, *, has_rung: bool = False) -> GatewayAnswer:
    """Return what a final status says. To OPTIONS any answer is a sign of life; 503 is none."""
    if status in (401, 403, 407):
        return GatewayAnswer.FORBIDDEN
    if status == 503:
        return GatewayAnswer.BUSY
    if method == "OPTIONS" or status == 481:
        return GatewayAnswer.READY
    if has_rung or status < 300:
        return GatewayAnswer.NEW_CALL
    return GatewayAnswer.NO_REPLACES
