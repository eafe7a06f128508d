"""All adopted legs of a node as one user agent. Sans-I/O.

Messages and time go in; messages to send lie in ``layer.outbox``; what changed is told by three
callbacks: ``on_keep`` (write the pair down), ``on_told`` (it is up), ``on_over`` (it is gone).

Which pair a message belongs to is said by Call-ID and the tag that is ours. The engine's first
INVITE has none: it is recognised by its user part, a token that only the engine was told, valid
once. Everybody else who begins something here is refused: 404 to INVITE, 481 inside of dialogs that
are not here, 200 to OPTIONS.

**CSeq.** An adopter's first CSeq is generation × 2^20, above any that the owner before can have
used: a candidate of an older generation that sends to the party later is refused by it (500).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from controlone_ha.conference.adoption.pair import (
    ALLOW,
    WAIT_FOR_ENGINE,
    Pair,
    PairState,
    pair_from_json,
)
from controlone_ha.conference.adoption.side import Errand, Side, engine_side
from controlone_ha.core.calls import Leg
from controlone_ha.sip.dialog import CSEQ_LIMIT, Dialog
from controlone_ha.sip.events import (
    Acknowledged,
    Answered,
    Arrived,
    Cancelled,
    Client,
    Failed,
    Reason,
    Server,
    Stray,
)
from controlone_ha.sip.fields import parse_address
from controlone_ha.sip.layer import Event, TransactionLayer
from controlone_ha.sip.message import Request, Response, build_response
from controlone_ha.sip.session_timer import SessionTimer
from controlone_ha.sip.transaction import SipTimers
from controlone_ha.sip.uri import TRANSPORTS, Hop, parse_uri

GENERATION_STEP = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where this user agent is reached by one party: ``host`` may be an IPv6 address."""

    host: str
    port: int
    tls_port: int = 0

    def via(self, transport: str) -> str:
        """Return host and port for a Via or a URI."""
        port = self.tls_port if transport == "tls" and self.tls_port else self.port
        return f"{Hop(transport, self.host, port).bracketed}:{port}"

    def contact(self, transport: str, user: str = "ha", *, is_secure: bool = False) -> str:
        """Return our Contact URI."""
        if is_secure:
            return f"sips:{user}@{self.via('tls')}"
        suffix = "" if transport == "udp" else f";transport={transport}"
        return f"sip:{user}@{self.via(transport)}{suffix}"


def first_cseq(generation: int, known: int | None = None) -> int:
    """Return the first CSeq of an adopter; raise ``ValueError`` where generations are used up."""
    number = max(generation * GENERATION_STEP, 0 if known is None else known + 1)
    if generation < 1 or number + GENERATION_STEP >= CSEQ_LIMIT:
        raise ValueError(f"generation {generation} has no CSeq left")
    return number


def party_of(leg: Leg, generation: int, place: Place) -> Side:
    """Return the party's side of a leg; raise ``ValueError`` naming what is missing or unusable."""
    for name in ("call_id", "local_tag", "remote_tag", "local_uri", "remote_uri", "remote_target"):
        value = getattr(leg, name)
        if not value or any(character in value for character in "\r\n<>"):
            raise ValueError(f"the leg has no usable {name}")
    if any("\r" in route or "\n" in route for route in leg.route_set):
        raise ValueError("the leg has no usable route_set")
    transport = leg.transport.lower() if leg.transport.lower() in TRANSPORTS else "udp"
    dialog = Dialog(
        call_id=leg.call_id,
        local_tag=leg.local_tag,
        remote_tag=leg.remote_tag,
        local_uri=leg.local_uri,
        remote_uri=leg.remote_uri,
        remote_target=leg.remote_target,
        transport=transport,
        route_set=leg.route_set,
        local_cseq=first_cseq(generation, leg.local_cseq) - 1,
        remote_cseq=leg.remote_cseq,
    )
    hop = dialog.hop()
    if hop is None:
        raise ValueError("the leg's remote target or first route is no SIP URI")
    dialog.transport = hop.transport
    dialog.via = place.via(hop.transport)
    is_secure = leg.remote_target.lower().startswith("sips:")
    dialog.contact = place.contact(hop.transport, is_secure=is_secure)
    # Roles in the document are those of the INVITE that began the dialog.
    we_called = not leg.incoming
    is_ours = leg.refresher == ("uac" if we_called else "uas")
    timer = SessionTimer(interval=leg.session_expires, is_ours=is_ours)
    return Side("party", dialog, timer, sdp_sent=(leg.local_sdp or "").encode())


class AdoptionAgent:
    """See the module. ``token``: random hexadecimal text, 32 characters or more."""

    def __init__(
        self,
        *,
        token: Callable[[], str],
        spread: Callable[[float, float], float],
        credentials: Callable[[str], tuple[str, str]] = lambda _: ("", ""),
        on_keep: Callable[[Pair], None] = lambda _: None,
        on_told: Callable[[Pair], None] = lambda _: None,
        on_over: Callable[[Pair], None] = lambda _: None,
        timers: SipTimers | None = None,
    ) -> None:
        self.layer = TransactionLayer(timers)
        self.token = token
        self.spread = spread
        self.credentials = credentials
        self.keep = on_keep
        self.tell = on_told
        self._on_over = on_over
        self.pairs: dict[str, Pair] = {}
        self._tokens: dict[str, tuple[Pair, Place]] = {}
        self._dialogs: dict[tuple[str, str], tuple[Pair, Side]] = {}
        self._heap: list[tuple[float, int, Pair]] = []
        self._order = 0

    # --- what the controller asks ----------------------------------------------------------------

    def prepare(
        self, name: str, leg: Leg, generation: int, party: Place, engine: Place, now: float
    ) -> str:
        """Make ready to adopt ``leg``; return the user part that the engine has to call.

        ``party`` and ``engine``: where the one and the other reach us. The same dialog adopted
        before goes on from there, without a word to the party. Raises ``ValueError``.
        """
        if name in self.pairs:
            raise ValueError(f"{name} is being adopted already")
        side = party_of(leg, generation, party)
        known = self._dialogs.get(side.dialog.key)
        if known is not None:
            side = self._succeed(known[0], side, generation, now)
        pair = Pair(
            self,
            name,
            side,
            generation=generation,
            gateway=leg.gateway,
            until=now + WAIT_FOR_ENGINE,
        )
        pair.token = self.token()
        self.pairs[name] = pair
        self._tokens[pair.token] = (pair, engine)
        self._dialogs[side.dialog.key] = (pair, side)
        self._touch(pair)
        return pair.token

    def _succeed(self, old: Pair, side: Side, generation: int, now: float) -> Side:
        """End an older adoption of the same dialog and return its side in its newest state."""
        if old.generation > generation:
            raise ValueError(f"the dialog is adopted with generation {old.generation} already")
        former = old.party
        number = max(first_cseq(generation), former.dialog.local_cseq + 1, side.dialog.local_cseq)
        dialog = replace(
            former.dialog,
            local_cseq=number,
            contact=side.dialog.contact,
            via=side.dialog.via,
        )
        old.forget_party(now)
        self._touch(old)
        return Side(
            "party",
            dialog,
            replace(former.timer),
            sdp_sent=former.sdp_sent,
            sdp_received=former.sdp_received,
        )

    def forget(self, name: str, now: float) -> None:
        """Another node owns the dialog: end the engine's side, say nothing to the party."""
        pair = self.pairs.get(name)
        if pair is not None:
            pair.forget_party(now)
            self._touch(pair)

    def end(self, leg: Leg, generation: int, party: Place, now: float) -> None:
        """Say BYE in a dialog that is not taken, as the rest of its call is over; its party would
        talk to nobody. What it answers is of no interest. An adoption of that generation, or of a
        later one, is not touched; one of before ends. Raises ``ValueError``.
        """
        dialog = party_of(leg, generation, party).dialog
        known = self._dialogs.get(dialog.key)
        if known is None:
            if (hop := dialog.hop()) is not None:
                self.layer.request(dialog.request("BYE", self.token()), hop, now)
        elif known[0].generation < generation:
            known[0].end(now)
            self._touch(known[0])

    def restore(self, documents: Iterable[Mapping[str, Any]], now: float) -> int:
        """Take up what was kept; return how many legs go on. What cannot be read is left out."""
        count = 0
        for raw in documents:
            try:
                pair = pair_from_json(self, raw, now)
            except (ValueError, KeyError, TypeError):
                continue
            if pair.state not in (PairState.UP, PairState.ENDING):
                continue
            self.pairs[pair.name] = pair
            for side in pair.sides:
                self._dialogs[side.dialog.key] = (pair, side)
            if pair.state is PairState.ENDING:
                pair.state = PairState.UP
                pair.end(now)
            pair.check_engine(now)
            self._touch(pair)
            count += 1
        return count

    # --- what pairs ask --------------------------------------------------------------------------

    def send(self, request: Request, dialog: Dialog, owner: Errand, now: float) -> Client | None:
        """Send a request of a dialog; None when the dialog names no place to send it to."""
        hop = dialog.hop()
        return None if hop is None else self.layer.request(request, hop, now, owner)

    def over(self, pair: Pair) -> None:
        """Forget a pair that is over."""
        if self.pairs.get(pair.name) is pair:
            del self.pairs[pair.name]
        self._tokens.pop(pair.token, None)
        for side in pair.sides:
            if self._dialogs.get(side.dialog.key, (None,))[0] is pair:
                del self._dialogs[side.dialog.key]
        self._on_over(pair)

    # --- what comes ------------------------------------------------------------------------------

    def receive(self, message: Request | Response, source: Hop, now: float) -> None:
        """Take a message that ``message.fault`` has nothing against."""
        self._handle(self.layer.receive(message, source, now), source, now)

    def transport_failed(self, hop: Hop, detail: str, now: float) -> None:
        """Take the news that a place cannot be reached."""
        self._handle(self.layer.transport_failed(hop, detail), hop, now)

    def next_due(self) -> float | None:
        """Return when ``advance`` is next wanted."""
        while self._heap and self._heap[0][2].due != self._heap[0][0]:
            heapq.heappop(self._heap)
        own = self._heap[0][0] if self._heap else None
        return min((due for due in (own, self.layer.next_due()) if due is not None), default=None)

    def advance(self, now: float) -> None:
        """Do what is due."""
        self._handle(self.layer.advance(now), None, now)
        while self._heap and self._heap[0][0] <= now:
            due, _, pair = heapq.heappop(self._heap)
            if pair.due == due and pair.state is not PairState.OVER:
                pair.due = None
                pair.advance(now)
                self._touch(pair)

    def _touch(self, pair: Pair) -> None:
        """Note when a pair wants to be woken next."""
        due = pair.next_due() if pair.state is not PairState.OVER else None
        if due != pair.due:
            pair.due = due
            if due is not None:
                self._order += 1
                heapq.heappush(self._heap, (due, self._order, pair))

    def _handle(self, events: list[Event], source: Hop | None, now: float) -> None:
        for event in events:
            pair = self._dispatch(event, source, now)
            if pair is not None:
                self._touch(pair)

    def _dispatch(self, event: Event, source: Hop | None, now: float) -> Pair | None:
        if isinstance(event, Arrived):
            return self._arrived(event.server, event.request, source, now)
        if isinstance(event, Stray):
            return self._stray(event.response, now)
        if isinstance(event, Answered):
            errand = event.client.owner
            if isinstance(errand, Errand):
                errand.pair.answered(errand, event.client, event.response, now)
                return errand.pair
            return None
        transaction = event.transaction if isinstance(event, Failed) else event.server
        errand = transaction.owner
        if not isinstance(errand, Errand):
            return None
        if isinstance(event, Cancelled):
            errand.pair.cancelled(event.server, now)
        elif isinstance(event, Acknowledged):
            errand.pair.acknowledged(event.server, event.request, now)
        elif isinstance(transaction, Client):
            is_way = event.reason is not Reason.TRANSPORT
            errand.pair.failed(errand, transaction, now, is_way=is_way)
        else:
            errand.pair.unacknowledged(transaction, now)
        return errand.pair

    def _arrived(
        self, server: Server, request: Request, source: Hop | None, now: float
    ) -> Pair | None:
        recipient = parse_address(request.get("To"))
        tag = recipient.tag if recipient is not None else ""
        if tag:
            found = self._dialogs.get((request.get("Call-ID"), tag))
            sender = parse_address(request.get("From"))
            if found is None or sender is None or sender.tag != found[1].dialog.remote_tag:
                self._say(server, 481, "Call Does Not Exist", now)
                return None
            found[0].arrived(found[1], server, request, now)
            return found[0]
        if request.method == "INVITE":
            return self._called(server, request, source, now)
        if request.method == "OPTIONS":
            self._say(server, 200, "OK", now)
        elif request.method == "BYE":
            self._say(server, 481, "Call Does Not Exist", now)
        else:
            self._say(server, 405, "Method Not Allowed", now)
        return None

    def _called(
        self, server: Server, request: Request, source: Hop | None, now: float
    ) -> Pair | None:
        """The engine calls a token, or a stranger anything."""
        uri = parse_uri(request.uri)
        found = self._tokens.pop(uri.user, None) if uri is not None else None
        if found is None or source is None:
            self._say(server, 404, "Not Found", now)
            return None
        pair, place = found
        side = engine_side(
            request,
            tag=self.token()[:16],
            contact=place.contact(source.transport),
            via=place.via(source.transport),
            transport=source.transport,
        )
        if side is None or pair.state is not PairState.WAITING:
            self._say(server, 400, "Bad Request", now)
            return None
        self._dialogs[side.dialog.key] = (pair, side)
        pair.begin(server, request, side, now)
        return pair

    def _say(self, server: Server, status: int, reason: str, now: float) -> None:
        headers = [ALLOW] if status in (200, 405) else []
        answer = build_response(
            server.request, status, reason, to_tag=self.token()[:16], headers=headers
        )
        self.layer.respond(server, answer, now)

    def _stray(self, response: Response, now: float) -> Pair | None:
        """A 2xx whose INVITE we have forgotten, after a restart say: it wants its ACK."""
        sender = parse_address(response.get("From"))
        key = (response.get("Call-ID"), sender.tag if sender is not None else "")
        found = self._dialogs.get(key)
        if found is None:
            return None
        dialog = found[1].dialog
        hop = dialog.hop()
        if hop is not None:
            ack = dialog.request("ACK", self.token(), cseq=response.cseq[0])
            self.layer.send_ack(ack, hop)
        return found[0]
