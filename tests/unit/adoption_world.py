"""A made-up network for adopted legs: a party, an engine, and the agent between them; own time."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from controlone_ha.conference.adoption.agent import AdoptionAgent, Place
from controlone_ha.conference.adoption.pair import Pair
from controlone_ha.core.calls import Leg, LegState
from controlone_ha.sip.dialog import Dialog
from controlone_ha.sip.events import (
    Acknowledged,
    Answered,
    Arrived,
    Cancelled,
    Client,
    Failed,
    Server,
)
from controlone_ha.sip.fields import parse_address
from controlone_ha.sip.layer import Event, TransactionLayer
from controlone_ha.sip.message import Request, Response, build_response, parse
from controlone_ha.sip.uri import Hop

OFFER = b"v=0\r\no=- 7 7 IN IP4 10.0.0.2\r\ns=engine\r\nm=audio 10000 RTP/AVP 0\r\n"
ANSWER = b"v=0\r\no=party 5 5 IN IP4 10.0.0.9\r\ns=party\r\nm=audio 9000 RTP/AVP 0\r\n"
HOLD = ANSWER.replace(b"5 5", b"5 6") + b"a=sendonly\r\n"

AGENT = Hop("udp", "10.0.0.2", 5070)
PARTY = Hop("udp", "10.0.0.9", 5060)
ENGINE = Hop("udp", "10.0.0.2", 5060)

LEG = Leg(
    id="leg",
    role="gateway",
    party="trunk",
    state=LegState.CONFIRMED,
    incoming=True,
    call_id="old@call",
    local_tag="us",
    remote_tag="them",
    local_uri="sip:100@10.0.0.1",
    remote_uri="sip:trunk@10.0.0.9",
    remote_target="sip:trunk@10.0.0.9:5060",
    transport="udp",
    gateway="east",
)


class Ua:
    """A user agent with one dialog. ``replies``: method -> what it answers, the last one for ever;
    each a status or (status, headers). It answers INVITE with ``body``. ``mute``: it is not there.
    """

    def __init__(self, world: World, hop: Hop, dialog: Dialog, body: bytes) -> None:
        self.world = world
        self.hop = hop
        self.dialog = dialog
        self.body = body
        self.layer = TransactionLayer()
        self.requests: list[Request] = []
        self.answers: list[Response] = []
        self.acks: list[Request] = []
        self.failures: list[Failed] = []
        self.replies: dict[str, list[Any]] = {}
        self.headers: tuple[tuple[str, str], ...] = ()
        self.mute = False
        self.heeds_cancel = True
        self.pending: list[Server] = []

    def ask(
        self, method: str, body: bytes = b"", headers: tuple[tuple[str, str], ...] = ()
    ) -> Client:
        """Send a request in the dialog."""
        kind = (("Content-Type", "application/sdp"),) if body else ()
        request = self.dialog.request(
            method, self.world.token(), headers=(*headers, *kind), body=body
        )
        return self.layer.request(request, AGENT, self.world.now)

    def take(self, events: list[Event]) -> None:
        """React to what the layer tells."""
        for event in events:
            if isinstance(event, Answered):
                self._answered(event)
            elif isinstance(event, Arrived):
                self.requests.append(event.request)
                self._asked(event.server, event.request)
            elif isinstance(event, Cancelled) and self.heeds_cancel:
                self._say(event.server, 487, ())
            elif isinstance(event, Acknowledged):
                self.acks.append(event.request)
            elif isinstance(event, Failed):
                self.failures.append(event)

    def _answered(self, event: Answered) -> None:
        self.answers.append(event.response)
        if event.client.request.method != "INVITE" or not 200 <= event.response.status < 300:
            return
        contact = parse_address(event.response.get("Contact"))
        assert contact is not None
        self.dialog.remote_target = contact.uri
        recipient = parse_address(event.response.get("To"))
        assert recipient is not None
        self.dialog.remote_tag = recipient.tag
        kind = (("Content-Type", "application/sdp"),)
        is_offerless = not event.client.request.body
        ack = self.dialog.request(
            "ACK",
            self.world.token(),
            headers=kind if is_offerless else (),
            body=self.body if is_offerless else b"",
            cseq=event.client.request.cseq[0],
        )
        self.layer.acknowledge(event.client, ack)

    def _asked(self, server: Server, request: Request) -> None:
        number = request.cseq[0]
        recipient = parse_address(request.get("To"))
        tag = recipient.tag if recipient is not None else ""
        known = (self.dialog.call_id, self.dialog.local_tag)
        if (request.get("Call-ID"), tag) != known or not self.dialog.remote_tag:
            self._say(server, 481, ())
            return
        if self.dialog.remote_cseq is not None and number < self.dialog.remote_cseq:
            self._say(server, 500, ())
            return
        self.dialog.remote_cseq = number
        plan = self.replies.get(request.method, [200])
        chosen = plan.pop(0) if len(plan) > 1 else plan[0]
        if chosen is None:
            self.pending.append(server)
            return
        status, headers = chosen if isinstance(chosen, tuple) else (chosen, ())
        self._say(server, status, headers)

    def _say(self, server: Server, status: int, headers: tuple[tuple[str, str], ...]) -> None:
        body = b""
        extra = [*headers]
        if server.request.method == "INVITE" and 200 <= status < 300:
            extra += [("Contact", f"<sip:ua@{self.hop.host}:{self.hop.port}>"), *self.headers]
            body = self.body
            extra.append(("Content-Type", "application/sdp"))
        answer = build_response(
            server.request, status, "Word", to_tag=self.dialog.local_tag, headers=extra, body=body
        )
        self.layer.respond(server, answer, self.world.now)

    def say(self, status: int) -> None:
        """Answer what was left pending."""
        self._say(self.pending.pop(0), status, ())

    def got(self, method: str) -> list[Request]:
        """Return the requests of a method."""
        return [request for request in self.requests if request.method == method]

    @property
    def statuses(self) -> list[int]:
        """Statuses of the answers."""
        return [answer.status for answer in self.answers]


class World:
    """Time, the three of them, and the wire, which is instant."""

    def __init__(self, leg: Leg = LEG) -> None:
        self.now = 1000.0
        self.leg = leg
        self._count = itertools.count()
        self.kept: dict[str, Mapping[str, Any]] = {}
        self.told: list[str] = []
        self.ended: list[tuple[str, int]] = []
        self.credentials = ("", "")
        self.agent = self.new_agent()
        party = Dialog(
            call_id=leg.call_id,
            local_tag=leg.remote_tag,
            remote_tag=leg.local_tag,
            local_uri=leg.remote_uri,
            remote_uri=leg.local_uri,
            remote_target=f"sip:ha@{AGENT.host}:{AGENT.port}",
            contact="sip:trunk@10.0.0.9:5060",
            via="10.0.0.9:5060",
            local_cseq=7,
        )
        self.party = Ua(self, PARTY, party, ANSWER)
        self.engine = Ua(self, ENGINE, self._engine_dialog("engine-1"), OFFER)
        self.lost: set[str] = set()

    def _engine_dialog(self, call_id: str) -> Dialog:
        return Dialog(
            call_id=call_id,
            local_tag="e",
            remote_tag="",
            local_uri="sip:asterisk@10.0.0.2",
            remote_uri="sip:token@10.0.0.2:5070",
            remote_target="",
            contact="sip:asterisk@10.0.0.2:5060",
            via="10.0.0.2:5060",
        )

    def new_agent(self) -> AdoptionAgent:
        return AdoptionAgent(
            token=self.token,
            spread=lambda low, high: (low + high) / 2,
            credentials=lambda _: self.credentials,
            on_keep=self._keep,
            on_told=lambda pair: self.told.append(pair.name),
            on_over=self._over,
        )

    def token(self) -> str:
        return f"{next(self._count):032x}"

    def _keep(self, pair: Pair) -> None:
        self.kept[pair.name] = pair.to_json()

    def _over(self, pair: Pair) -> None:
        self.kept.pop(pair.name, None)
        self.ended.append((pair.name, pair.code))

    def restart(self) -> int:
        """The controller is restarted: all that is left is what was kept."""
        self.agent = self.new_agent()
        count = self.agent.restore(list(self.kept.values()), self.now)
        self.run()
        return count

    def begin(self, generation: int = 2, name: str = "taken", body: bytes = OFFER) -> Client:
        """Prepare an adoption and have the engine call."""
        place = Place(host=AGENT.host, port=AGENT.port)
        user = self.agent.prepare(name, self.leg, generation, place, place, self.now)
        self.engine.dialog = self._engine_dialog(f"engine-{name}")
        self.engine.dialog.remote_target = f"sip:{user}@{AGENT.host}:{AGENT.port}"
        return self.engine.ask("INVITE", body)

    def adopt(self, generation: int = 2, name: str = "taken") -> None:
        """Adopt, to the end."""
        self.begin(generation, name)
        self.run()
        assert self.engine.statuses[-1] == 200, self.engine.statuses

    @property
    def pair(self) -> Pair:
        """The only pair."""
        (pair,) = self.agent.pairs.values()
        return pair

    # --- time ------------------------------------------------------------------------------------

    def run(self, seconds: float = 0.0) -> None:
        """Let ``seconds`` pass, everything that is sent arriving at once."""
        end = self.now + seconds
        while True:
            while self._deliver():
                pass
            dues = [
                due
                for due in (
                    self.agent.next_due(),
                    self.party.layer.next_due(),
                    self.engine.layer.next_due(),
                )
                if due is not None
            ]
            due = min(dues, default=None)
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            self.agent.advance(self.now)
            for ua in (self.party, self.engine):
                ua.take(ua.layer.advance(self.now))
        self.now = end

    def _deliver(self) -> int:
        count = 0
        for source, layer in (
            (AGENT, self.agent.layer),
            (PARTY, self.party.layer),
            (ENGINE, self.engine.layer),
        ):
            while layer.outbox:
                item = layer.outbox.popleft()
                count += 1
                message = parse(item.data)
                if message.cseq[1] in self.lost:
                    continue
                if item.hop == AGENT:
                    self.agent.receive(message, source, self.now)
                for ua in (self.party, self.engine):
                    if item.hop == ua.hop and not ua.mute:
                        ua.take(ua.layer.receive(message, source, self.now))
        return count
