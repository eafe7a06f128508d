"""SIP OPTIONS probes: one UDP socket per address family for many targets.

It asks "does a SIP server answer there, and if not, who says so"; it is no user agent and answers
no requests. Messages and timers are in ``sip.message`` and ``sip.transaction``.

Theory of operation. ``probe`` starts a non-INVITE transaction and waits for its end. The socket is
not connected, so the kernel would drop ICMP errors; with IP_RECVERR it queues each of them with the
datagram that caused it, the address it was sent to and who reported it. They are read as they come,
matched by the branch in the quoted datagram (by address where a router quotes too little), and end
the probe within a millisecond:

* port unreachable, reported by the target itself: ``REFUSED``, the machine lives without a server;
* any other unreachable, or a report by somebody else (a firewall on the way): ``UNREACHABLE``.

A kernel limits the ICMP it sends (Linux: about one a second to one peer after a burst of six), so
of many quick probes of a dead port some end as ``TIMEOUT``, all of them when calls were up whose
RTP goes on. Then TCP is asked (``sip_stream``). REFUSED is proof, its absence is not.

A final answer other than 503 is ``ANSWERED``, whatever it says: 401, 404 and 501 come from a server
that works. 503 is ``REJECTED``: the server lives and says that it cannot serve. Datagrams that are
not SIP never end a probe (they may be forged) but turn its TIMEOUT into ``REJECTED``.

T1 is a seventh of the probe's time, 500 ms at most, so that a probe always sends three times (at
0, T1, 3 T1) before it gives up. That is below the RFC's default for probes under 3.5 s, which RFC
3261, 17.1.1.1 allows where round trips are known to be short, as between the nodes of a cluster.

A loop that was late first reads what lies in the socket and only then fires timers: a node that was
frozen does not accuse the others of its own silence, and a TIMEOUT says how late the loop was.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import re
import secrets
import socket
import struct
from dataclasses import dataclass, field

from controlone_ha import __version__
from controlone_ha.core.observations import Outcome, ProbeResult
from controlone_ha.probes.addresses import UnresolvedError, resolve
from controlone_ha.probes.sip_results import (
    answered,
    icmp_result,
    local_failure,
    offender,
    result_of,
)
from controlone_ha.probes.sip_stream import SipStreams
from controlone_ha.sip.fields import BRANCH_COOKIE
from controlone_ha.sip.message import Response, SipSyntaxError, build_request, parse
from controlone_ha.sip.transaction import (
    ClientTransaction,
    ClientTransactions,
    Ended,
    Ending,
    SipTimers,
)

_log = logging.getLogger(__name__)

Target = tuple[str, int]

MAX_DATAGRAM = 65535
_READ_BATCH = 64
_ROUTE_AGE = 30.0
_MAX_ROUTES = 1024
_TRANSMISSIONS_SPAN = 7  # T1 + 2 T1 + 4 T1: three transmissions within the probe's time

# linux/in.h, linux/in6.h, linux/errqueue.h; the socket module has no names for them.
_IP_RECVERR = 11
_IPV6_RECVERR = 25
_EXTENDED_ERROR = struct.Struct("=IBBBBII")  # struct sock_extended_err

_BRANCH = re.compile(rb"branch=(z9hG4bK[0-9A-Za-z.\-]+)")


@dataclass(slots=True)
class _Waiting:
    """What a probe in flight needs beside its transaction."""

    future: asyncio.Future[ProbeResult]
    noise: str = ""


@dataclass(slots=True)
class _Endpoint:
    """One socket. ``host`` is what our Via names (None: asked from the kernel for each target)."""

    socket: socket.socket
    family: int
    host: str | None
    port: int
    transactions: ClientTransactions[Target] = field(default_factory=ClientTransactions)
    own: dict[str, tuple[str, float]] = field(default_factory=dict)


class SipProber:
    """Probes SIP servers by OPTIONS. Everything runs in the loop that called ``start``."""

    def __init__(self) -> None:
        self._endpoints: dict[int, _Endpoint] = {}
        self._waiting: dict[ClientTransaction[Target], _Waiting] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._streams = SipStreams()
        self._prefix = secrets.token_hex(8)  # nobody off the path can guess a branch
        self._counter = 0
        self.discarded = 0

    async def start(self, bind_address: str = "") -> None:
        """Open the socket; empty or a wildcard means any address. Raises ``OSError``."""
        if self._loop is not None:
            raise RuntimeError("already started")
        self._loop = asyncio.get_running_loop()
        try:
            address = ipaddress.ip_address(bind_address or "0.0.0.0")
            self._open(socket.AF_INET6 if address.version == 6 else socket.AF_INET, str(address))
        except (OSError, ValueError):
            self._loop = None
            raise

    @property
    def in_flight(self) -> int:
        """Number of probes that wait for their end."""
        return len(self._waiting)

    def close(self) -> None:
        """Close the sockets; probes in flight end as UNREACHABLE. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._streams.close()
        for endpoint in self._endpoints.values():
            assert self._loop is not None
            self._loop.remove_reader(endpoint.socket.fileno())
            endpoint.socket.close()
        self._endpoints.clear()
        for waiting in list(self._waiting.values()):
            if not waiting.future.done():
                waiting.future.set_result(result_of(Outcome.UNREACHABLE, "the prober was closed"))
        self._waiting.clear()
        self._loop = None

    async def probe(self, host: str, port: int = 5060, *, timeout: float = 2.0) -> ProbeResult:
        """Send OPTIONS and return how it ended within ``timeout`` seconds.

        ``answer`` is ``{"status": 200, "server": "…"}`` when a final response came. Raises
        ``RuntimeError`` only when the prober is not started.
        """
        loop = self._loop
        if loop is None:
            raise RuntimeError("the prober is not started")
        started = loop.time()
        try:
            address = await resolve(host, port, timeout=timeout)
        except UnresolvedError as error:
            return result_of(Outcome.UNREACHABLE, str(error))
        if str(address) != host:  # the look-up of a name took part of the time
            timeout = max(0.001, timeout - (loop.time() - started))
        try:
            endpoint = self._endpoint(address.version)
            result = await self._options(endpoint, str(address), port, timeout, loop)
        except OSError as error:
            return local_failure(error)
        return await self._beside(result, (str(address), port), loop)

    async def _beside(
        self, result: ProbeResult, target: Target, loop: asyncio.AbstractEventLoop
    ) -> ProbeResult:
        """Return the result, or a better one when TCP knows more."""
        if result.outcome is Outcome.ANSWERED:
            self._streams.answered(target, loop.time())
        elif result.outcome is Outcome.UNREACHABLE:
            self._streams.closed(target, loop.time())
        elif result.outcome is Outcome.TIMEOUT and await self._streams.refuses(target, loop.time()):
            return result_of(Outcome.REFUSED, f"{result.detail}, TCP refused: no SIP server on it")
        return result

    async def _options(
        self,
        endpoint: _Endpoint,
        host: str,
        port: int,
        timeout: float,
        loop: asyncio.AbstractEventLoop,
    ) -> ProbeResult:
        branch, packet = self._compose(endpoint, host, port)
        timers = SipTimers(t1=min(0.5, timeout / _TRANSMISSIONS_SPAN), timer_f=timeout, timer_k=0.0)
        transaction = endpoint.transactions.start(
            branch, "OPTIONS", packet, (host, port), loop.time(), timers
        )
        waiting = _Waiting(loop.create_future())
        self._waiting[transaction] = waiting
        try:
            self._send(endpoint, transaction)
            self._arm_timer()
            return await waiting.future
        finally:
            self._waiting.pop(transaction, None)
            endpoint.transactions.cancel(transaction)

    def _endpoint(self, version: int) -> _Endpoint:
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        endpoint = self._endpoints.get(family)
        if endpoint is None:
            endpoint = self._open(family, "::" if version == 6 else "0.0.0.0")
        return endpoint

    def _open(self, family: int, address: str) -> _Endpoint:
        assert self._loop is not None
        udp = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            if family == socket.AF_INET6:
                udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                udp.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
            else:
                udp.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
            udp.bind((address, 0))
        except OSError:
            udp.close()
            raise
        wildcard = ipaddress.ip_address(address).is_unspecified
        endpoint = _Endpoint(udp, family, None if wildcard else address, udp.getsockname()[1])
        self._endpoints[family] = endpoint
        self._loop.add_reader(udp.fileno(), self._readable, endpoint)
        return endpoint

    def _compose(self, endpoint: _Endpoint, host: str, port: int) -> tuple[str, bytes]:
        self._counter += 1
        unique = f"{self._prefix}{self._counter:x}"
        branch = BRANCH_COOKIE + unique
        own = endpoint.host
        if own is None:
            own = self._own_address(endpoint, host, port)
        if endpoint.family == socket.AF_INET6:
            own, host = f"[{own}]", f"[{host}]"
        uri = f"sip:{host}:{port}"
        request = build_request(
            "OPTIONS",
            uri,
            (
                ("Via", f"SIP/2.0/UDP {own}:{endpoint.port};rport;branch={branch}"),
                ("Max-Forwards", "70"),
                ("From", f"<sip:ha@{own}>;tag={unique}"),
                ("To", f"<{uri}>"),
                ("Call-ID", unique),
                ("CSeq", "1 OPTIONS"),
                ("Accept", "application/sdp"),
                ("User-Agent", f"ControlONE-HA/{__version__}"),
            ),
        )
        return branch, request.to_bytes()

    def _own_address(self, endpoint: _Endpoint, host: str, port: int) -> str:
        """Return the address the kernel sends from, looked up anew after ``_ROUTE_AGE`` seconds.

        It only stands in our headers: answers come to where the request came from (rport).
        """
        assert self._loop is not None
        now = self._loop.time()
        known = endpoint.own.get(host)
        if known is None or now - known[1] > _ROUTE_AGE:
            if len(endpoint.own) > _MAX_ROUTES:
                endpoint.own.clear()
            known = (_local_address(endpoint.family, host, port), now)
            endpoint.own[host] = known
        return known[0]

    def _send(self, endpoint: _Endpoint, transaction: ClientTransaction[Target]) -> None:
        """Send once. A failure of this target ends the transaction."""
        for attempt in (1, 2):
            try:
                endpoint.socket.sendto(transaction.packet, transaction.destination)
                return
            except BlockingIOError:
                return  # a full send buffer loses this copy, as a network may; Timer E sends again
            except OSError as error:
                # The kernel reports a pending error of ANY target here: read the queue, try again.
                self._read_errors(endpoint)
                if attempt == 1 and transaction.is_pending:
                    continue
                if transaction.is_pending:
                    result = local_failure(error)
                    endpoint.transactions.fail(transaction, result.detail)
                    self._finish(transaction, result)
                return

    def _readable(self, endpoint: _Endpoint) -> None:
        self._read_errors(endpoint)
        self._read(endpoint, _READ_BATCH)

    def _read(self, endpoint: _Endpoint, limit: int) -> None:
        for _ in range(limit):
            try:
                data, source = endpoint.socket.recvfrom(MAX_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:
                self._read_errors(endpoint)  # the error of some target, told once; details queued
                continue
            self._datagram(endpoint, data, (source[0], source[1]))

    def _datagram(self, endpoint: _Endpoint, data: bytes, source: Target) -> None:
        assert self._loop is not None
        try:
            message = parse(data)
        except SipSyntaxError as error:
            self._noise(endpoint, source, f"answers, but not in SIP: {error}")
            return
        if not isinstance(message, Response):
            self.discarded += 1
            return
        now = self._loop.time()
        ended = endpoint.transactions.receive(message, now)
        if ended is not None:
            self._finish(ended.transaction, answered(ended.transaction, message, now))
        else:
            self.discarded += 1

    def _noise(self, endpoint: _Endpoint, source: Target, text: str) -> None:
        self.discarded += 1
        for transaction in endpoint.transactions:
            if transaction.destination == source and transaction in self._waiting:
                self._waiting[transaction].noise = text

    def _read_errors(self, endpoint: _Endpoint) -> None:
        for _ in range(_READ_BATCH):
            try:
                data, ancillary, _, address = endpoint.socket.recvmsg(512, 512, socket.MSG_ERRQUEUE)
            except OSError:
                return  # BlockingIOError: the queue is empty
            for level, kind, payload in ancillary:
                if (level, kind) in (
                    (socket.IPPROTO_IP, _IP_RECVERR),
                    (socket.IPPROTO_IPV6, _IPV6_RECVERR),
                ):
                    self._icmp(endpoint, data, (address[0], address[1]), payload)

    def _icmp(self, endpoint: _Endpoint, quoted: bytes, target: Target, payload: bytes) -> None:
        number, origin, *_ = _EXTENDED_ERROR.unpack_from(payload)
        if number == errno.EMSGSIZE:
            return  # path MTU news, not a failure: the kernel fragments from now on
        reporter = offender(payload[_EXTENDED_ERROR.size :])
        result = icmp_result(number, origin, reporter, target[0])
        match = _BRANCH.search(quoted)
        if match is not None:
            found = endpoint.transactions.find(match[1].decode(), "OPTIONS")
            affected = [found] if found is not None else []
        else:
            affected = [one for one in endpoint.transactions if one.destination == target]
        for transaction in affected:
            if endpoint.transactions.fail(transaction, result.detail) is not None:
                self._finish(transaction, result)

    def _arm_timer(self) -> None:
        dues = [
            due
            for endpoint in self._endpoints.values()
            if (due := endpoint.transactions.next_due()) is not None
        ]
        if not dues or self._loop is None:
            return
        due = min(dues)
        if self._timer is not None:
            if self._timer.when() <= due:
                return  # it wakes early enough and arms itself again
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._wake)

    def _wake(self) -> None:
        assert self._loop is not None
        assert self._timer is not None
        late = self._loop.time() - self._timer.when()
        self._timer = None
        for endpoint in list(self._endpoints.values()):
            # What already lies in the socket counts before any timer: a late loop accuses nobody.
            self._read_errors(endpoint)
            self._read(endpoint, 16 * _READ_BATCH)
            for event in endpoint.transactions.advance(self._loop.time()):
                if isinstance(event, Ended):
                    if event.ending is Ending.TIMEOUT:
                        self._finish(event.transaction, self._silence(event.transaction, late))
                else:
                    self._send(endpoint, event.transaction)
        self._arm_timer()

    def _silence(self, transaction: ClientTransaction[Target], late: float) -> ProbeResult:
        waiting = self._waiting.get(transaction)
        life = transaction.timers.life
        if waiting is not None and waiting.noise:
            return result_of(Outcome.REJECTED, waiting.noise)
        if transaction.provisional is not None:
            status = transaction.provisional.status
            return result_of(Outcome.TIMEOUT, f"only {status} within {life:g} s, no final answer")
        text = f"no answer to {transaction.sent} OPTIONS within {life:g} s"
        if late > transaction.timers.t1:
            text += f" (this node itself was late by {late:.1f} s)"
        return result_of(Outcome.TIMEOUT, text)

    def _finish(self, transaction: ClientTransaction[Target], result: ProbeResult) -> None:
        waiting = self._waiting.pop(transaction, None)
        if waiting is not None and not waiting.future.done():
            waiting.future.set_result(result)


def _local_address(family: int, host: str, port: int) -> str:
    """Return the address the kernel would send from; raises ``OSError`` without a route."""
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as scratch:
        scratch.connect((host, port))
        return str(scratch.getsockname()[0])
