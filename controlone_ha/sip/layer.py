"""All four transactions of SIP over any transport (RFC 3261, 17; RFC 6026). Sans-I/O.

Theory of operation. A user gives requests and responses; messages from the wire go in by
``receive`` and time by ``advance``; both return what the user has to know, in order. What has to go
on the wire lies in ``outbox``, which the owner empties after each call.

    INVITE client      CALLING ──1xx──▶ PROCEEDING ──3xx–6xx──▶ COMPLETED (ACK, Timer D) ─▶ over
                          └──────────────┴────────2xx──▶ ACCEPTED (user's ACK, Timer M) ─▶ over
    INVITE server      PROCEEDING ──3xx–6xx──▶ COMPLETED (G, H) ──ACK──▶ CONFIRMED (I) ─▶ over
                          └──2xx──▶ ACCEPTED (repeated until its ACK, at most 64 T1; then L) ─▶ over
    other server       TRYING ──2xx–6xx──▶ COMPLETED (Timer J) ─▶ over
    other client       ``transaction.ClientTransactions``: Timers E, F, K

Timer A doubles from T1, Timer G up to T2; B, F, H, J, L and M are 64 T1. On a reliable transport
nothing is repeated but a 2xx to INVITE (13.3.1.4), and D, I, J and K are zero. A CANCEL waits for
the first provisional response (9.1). A 100 goes out at once with every INVITE that comes in.

A 2xx ends no business of the layer: it hands it to its user, who answers with ``acknowledge``, and
repeats that ACK as often as the 2xx is repeated. An ACK of a 2xx is a transaction of its own on the
wire, so it is recognised by Call-ID, CSeq and the caller's tag.

Not here: dialogs, authentication, forking (a second 2xx with another tag comes out as ``Stray``),
and the choice of where to send to.
"""

from __future__ import annotations

import heapq
import re
from collections import deque

from controlone_ha.sip.events import (
    Acknowledged,
    Answered,
    Arrived,
    Cancelled,
    Client,
    Failed,
    Reason,
    Send,
    Server,
    State,
    Stray,
)
from controlone_ha.sip.fields import parse_address, parse_via
from controlone_ha.sip.message import Request, Response, build_response
from controlone_ha.sip.transaction import ClientTransactions, Ended, Ending, SipTimers
from controlone_ha.sip.uri import Hop

MAX_TRANSACTIONS = 20_000
"""Server transactions kept at once; a request beyond is answered 503 and forgotten."""

_RPORT = re.compile(r";\s*rport(?=\s*(?:;|,|\Z))", re.IGNORECASE)


Event = Answered | Failed | Arrived | Cancelled | Acknowledged | Stray


class TransactionLayer:
    """The transactions of one user agent."""

    def __init__(self, timers: SipTimers | None = None) -> None:
        self.timers = timers or SipTimers()
        self.outbox: deque[Send] = deque()
        self._simple: ClientTransactions[Hop] = ClientTransactions()
        self._clients: dict[tuple[str, str], Client] = {}
        self._servers: dict[tuple[str, ...], Server] = {}
        self._accepted: dict[tuple[str, int, str], Server] = {}
        self._heap: list[tuple[float, int, Client | Server]] = []
        self._order = 0

    def __len__(self) -> int:
        """Return how many transactions are kept."""
        return len(self._clients) + len(self._servers)

    # --- what the user does ----------------------------------------------------------------------

    def request(
        self, request: Request, hop: Hop, now: float, owner: object = None, *, life: float = 0.0
    ) -> Client:
        """Send a request; its top Via has a branch nobody has used. ``life``: Timer B or F in
        seconds where it is not 64 T1.
        """
        via = request.top_via
        if via is None or not via.has_unique_branch:
            raise ValueError("a request has a Via with a branch of its own")
        key = (via.branch, request.method)
        if key in self._clients:
            raise ValueError(f"branch {via.branch!r} is in use")
        client = Client(request, hop, owner)
        client.life = life or self.timers.life
        self._clients[key] = client
        self.outbox.append(Send(client.packet, hop))
        if request.method == "INVITE":
            client.interval = self.timers.t1
            client.until = now + client.life
            first = client.until if hop.is_reliable else min(now + client.interval, client.until)
            self._arm(client, first)
        else:
            client.simple = self._simple.start(
                via.branch, request.method, client.packet, hop, now, self._simple_timers(client)
            )
        return client

    def _simple_timers(self, client: Client) -> SipTimers:
        timers = self.timers
        if client.hop.is_reliable:
            # Timer E later than Timer F: nothing is sent again.
            late = 2 * client.life
            return SipTimers(t1=late, t2=late, timer_f=client.life, timer_k=0.0)
        t1 = min(timers.t1, client.life)
        return SipTimers(t1=t1, t2=max(timers.t2, t1), timer_f=client.life, timer_k=timers.timer_k)

    def cancel(self, client: Client, now: float) -> None:
        """Give an INVITE up. Its end still comes as an answer (487, or a 2xx that crossed)."""
        if client.state is State.CALLING:
            client.cancel_wanted = True
        elif client.state is State.PROCEEDING:
            self._send_cancel(client, now)

    def acknowledge(self, client: Client, ack: Request) -> None:
        """Send the ACK of a 2xx, now and whenever the 2xx comes again."""
        client.ack = ack.to_bytes()
        self.outbox.append(Send(client.ack, client.hop))

    def send_ack(self, ack: Request, hop: Hop) -> None:
        """Send an ACK that belongs to no transaction here, once."""
        self.outbox.append(Send(ack.to_bytes(), hop))

    def respond(self, server: Server, response: Response, now: float) -> None:
        """Answer a request. A second final response is ignored, as is one after the end."""
        if not server.is_pending:
            return
        server.response = response.to_bytes()
        self.outbox.append(Send(server.response, server.hop))
        if not response.is_final:
            return
        if server.request.method != "INVITE":
            server.state = State.COMPLETED
            self._arm(server, now + (0.0 if server.hop.is_reliable else self.timers.life))
            return
        server.interval = self.timers.t1
        server.until = now + self.timers.life
        if response.status < 300:
            server.state = State.ACCEPTED
            self._accepted[_accepted_key(server.request)] = server
        else:
            server.state = State.COMPLETED
            if server.hop.is_reliable:
                self._arm(server, server.until)
                return
        self._arm(server, now + server.interval)

    # --- what comes in ---------------------------------------------------------------------------

    def receive(self, message: Request | Response, source: Hop, now: float) -> list[Event]:
        """Take a message that ``message.fault`` has nothing against."""
        if isinstance(message, Response):
            return self._response(message, source, now)
        if message.method == "ACK":
            return self._ack(message, now)
        key = _server_key(message)
        if message.method == "CANCEL":
            return self._cancel(message, key, source, now)
        known = self._servers.get(key)
        if known is not None:
            if known.response and not known.is_acknowledged:
                self.outbox.append(Send(known.response, known.hop))
            return []
        _stamp(message, source)
        server = Server(key, message, reply_hop(message, source))
        if len(self._servers) >= MAX_TRANSACTIONS:
            busy = build_response(message, 503, "Service Unavailable", to_tag="busy")
            self.outbox.append(Send(busy.to_bytes(), server.hop))
            return []
        self._servers[key] = server
        if message.method == "INVITE":
            self.respond(server, build_response(message, 100, "Trying"), now)
        return [Arrived(server, message)]

    def _response(self, response: Response, source: Hop, now: float) -> list[Event]:
        via = response.top_via
        if via is None:
            return []
        number, method = response.cseq
        client = self._clients.get((via.branch, method))
        if client is None or client.request.cseq[0] != number:
            is_lost = method == "INVITE" and 200 <= response.status < 300
            return [Stray(response, source)] if is_lost else []
        if client.simple is not None:
            ended = self._simple.receive(response, now)
            if ended is not None:
                client.state = State.OVER
                self._clients.pop((via.branch, method), None)
                return [Answered(client, response)]
            return []
        return self._invite_response(client, response, now)

    def _invite_response(self, client: Client, response: Response, now: float) -> list[Event]:
        if client.state is State.ACCEPTED:
            if client.ack and 200 <= response.status < 300:
                self.outbox.append(Send(client.ack, client.hop))
            return []
        if client.state is State.COMPLETED:
            if response.status >= 300:
                self.outbox.append(Send(client.ack, client.hop))
            return []
        if not response.is_final:
            if client.state is State.CALLING:
                client.state = State.PROCEEDING
                self._arm(client, None)
                if client.cancel_wanted:
                    self._send_cancel(client, now)
            return [Answered(client, response)] if response.status > 100 else []
        if response.status < 300:
            client.state = State.ACCEPTED
            self._arm(client, now + self.timers.life)
        else:
            client.state = State.COMPLETED
            client.ack = _ack_of_refusal(client.request, response).to_bytes()
            self.outbox.append(Send(client.ack, client.hop))
            # Timer D is at least 32 s, whatever T1 is (17.1.1.2); a test may have less patience.
            self._arm(client, now + (0.0 if client.hop.is_reliable else self.timers.life))
        return [Answered(client, response)]

    def _ack(self, request: Request, now: float) -> list[Event]:
        server = self._servers.get(_server_key(request))
        if server is not None and server.state is State.COMPLETED:
            server.state = State.CONFIRMED
            self._arm(server, now + (0.0 if server.hop.is_reliable else self.timers.timer_k))
            return []
        server = self._accepted.get(_accepted_key(request))
        if server is None or server.is_acknowledged:
            return []
        server.is_acknowledged = True
        self._arm(server, server.until)
        return [Acknowledged(server, request)]

    def _cancel(
        self, request: Request, key: tuple[str, ...], source: Hop, now: float
    ) -> list[Event]:
        _stamp(request, source)
        server = self._servers.get(key)
        status, text = (481, "Call/Transaction Does Not Exist") if server is None else (200, "OK")
        # Answered statelessly: a CANCEL that comes again gets the same.
        answer = build_response(request, status, text, to_tag="cancel")
        self.outbox.append(Send(answer.to_bytes(), reply_hop(request, source)))
        if server is None or server.state is not State.PROCEEDING:
            return []
        return [Cancelled(server)]

    def transport_failed(self, hop: Hop, detail: str) -> list[Event]:
        """Fail what waits for answers from a place that cannot be reached (17.1.4)."""
        events: list[Event] = []
        for key, client in list(self._clients.items()):
            if client.hop == hop and client.is_pending:
                self._forget_client(key, client)
                events.append(Failed(client, Reason.TRANSPORT, detail))
        return events

    # --- time ------------------------------------------------------------------------------------

    def next_due(self) -> float | None:
        """Return when ``advance`` is next wanted, or None."""
        simple = self._simple.next_due()
        while self._heap and self._heap[0][2].due != self._heap[0][0]:
            heapq.heappop(self._heap)
        own = self._heap[0][0] if self._heap else None
        return min((due for due in (simple, own) if due is not None), default=None)

    def advance(self, now: float) -> list[Event]:
        """Fire what is due; return what the user has to know."""
        events: list[Event] = []
        for item in self._simple.advance(now):
            if isinstance(item, Ended):
                key = (item.transaction.branch, item.transaction.method)
                client = self._clients.pop(key, None)
                if client is not None and item.ending is Ending.TIMEOUT:
                    client.state = State.OVER
                    events.append(Failed(client, Reason.TIMEOUT))
            else:
                self.outbox.append(Send(item.transaction.packet, item.transaction.destination))
        while self._heap and self._heap[0][0] <= now:
            due, _, transaction = heapq.heappop(self._heap)
            if transaction.due != due:
                continue
            if isinstance(transaction, Client):
                events += self._client_due(transaction, now)
            else:
                events += self._server_due(transaction, now)
        return events

    def _client_due(self, client: Client, now: float) -> list[Event]:
        if client.state is State.CALLING and now < client.until:
            client.sent += 1
            client.interval *= 2
            self.outbox.append(Send(client.packet, client.hop))
            # Counted from now, not from the due time: after a gap in the loop no burst follows.
            self._arm(client, min(now + client.interval, client.until))
            return []
        was_pending = client.is_pending
        via = client.request.top_via
        assert via is not None
        self._forget_client((via.branch, client.request.method), client)
        return [Failed(client, Reason.TIMEOUT)] if was_pending else []

    def _server_due(self, server: Server, now: float) -> list[Event]:
        is_repeated = server.state in (State.COMPLETED, State.ACCEPTED)
        if (
            is_repeated
            and server.request.method == "INVITE"
            and not server.is_acknowledged
            and now < server.until
        ):
            self.outbox.append(Send(server.response, server.hop))
            server.interval = min(2 * server.interval, self.timers.t2)
            self._arm(server, min(now + server.interval, server.until))
            return []
        is_unacknowledged = server.state is State.ACCEPTED and not server.is_acknowledged
        server.state = State.OVER
        server.due = None
        self._servers.pop(server.key, None)
        if self._accepted.get(_accepted_key(server.request)) is server:
            del self._accepted[_accepted_key(server.request)]
        return [Failed(server, Reason.NO_ACK)] if is_unacknowledged else []

    # --- inside ----------------------------------------------------------------------------------

    def _forget_client(self, key: tuple[str, str], client: Client) -> None:
        client.state = State.OVER
        client.due = None
        self._clients.pop(key, None)
        if client.simple is not None:
            self._simple.cancel(client.simple)

    def _send_cancel(self, client: Client, now: float) -> None:
        """Cancel an INVITE that rings; if no final answer follows, it ends by 64 T1 (9.1)."""
        client.cancel_wanted = False
        source = client.request
        headers = [
            ("Via", source.get("Via")),
            ("Max-Forwards", "70"),
            *(("Route", value) for value in source.all("Route")),
            ("From", source.get("From")),
            ("To", source.get("To")),
            ("Call-ID", source.get("Call-ID")),
            ("CSeq", f"{source.cseq[0]} CANCEL"),
        ]
        via = source.top_via
        assert via is not None
        if (via.branch, "CANCEL") in self._clients:
            return
        self.request(Request(headers, b"", "CANCEL", source.uri), client.hop, now)
        self._arm(client, now + self.timers.life)

    def _arm(self, transaction: Client | Server, due: float | None) -> None:
        transaction.due = due
        if due is not None:
            self._order += 1
            heapq.heappush(self._heap, (due, self._order, transaction))


def reply_hop(request: Request, source: Hop) -> Hop:
    """Return where a response goes (RFC 3261, 18.2.2; RFC 3581)."""
    via = request.top_via
    if source.is_reliable or via is None or "rport" in via.parameters:
        return source
    return Hop(source.transport, source.host, via.port or 5060)


def _stamp(request: Request, source: Hop) -> None:
    """Note in the top Via where the request came from (RFC 3261, 18.2.1; RFC 3581)."""
    for index, (name, value) in enumerate(request.headers):
        if name != "Via":
            continue
        via = parse_via(value)
        if via is None:
            return
        first, comma, rest = value.partition(",")
        stamped = _RPORT.sub(f";rport={source.port}", first, count=1)
        if stamped != first or via.host.strip("[]") != source.host:
            stamped += f";received={source.host}"
        request.headers[index] = (name, stamped + comma + rest)
        return


def _server_key(request: Request) -> tuple[str, ...]:
    """Return what tells transactions apart (17.2.3); an ACK and a CANCEL have their INVITE's."""
    via = request.top_via
    method = "INVITE" if request.method in ("ACK", "CANCEL") else request.method
    if via is not None and via.has_unique_branch:
        return (via.branch, via.host.lower(), str(via.port or 5060), method)
    sender = parse_address(request.get("From"))
    tag = sender.tag if sender is not None else ""
    return ("2543", request.get("Call-ID"), str(request.cseq[0]), tag, method)


def _accepted_key(request: Request) -> tuple[str, int, str]:
    sender = parse_address(request.get("From"))
    return request.get("Call-ID"), request.cseq[0], sender.tag if sender is not None else ""


def _ack_of_refusal(request: Request, response: Response) -> Request:
    """Return the ACK that belongs to the transaction itself (17.1.1.3)."""
    headers = [
        ("Via", request.get("Via")),
        ("Max-Forwards", "70"),
        *(("Route", value) for value in request.all("Route")),
        ("From", request.get("From")),
        ("To", response.get("To")),
        ("Call-ID", request.get("Call-ID")),
        ("CSeq", f"{request.cseq[0]} ACK"),
    ]
    return Request(headers, b"", "ACK", request.uri)
