"""One adopted call leg: the old dialog with the party, and a call of the node's own engine.

Theory of operation. Two sides: ``party``, the dialog that another node had with it, and ``engine``,
a call that the engine makes to us. Signalling alone passes through here; the descriptions of media
pass unchanged (but for their origin, see ``sdp``), so media runs between the engine and the party.

    WAITING ──the engine calls──▶ INVITING ──2xx──▶ UP ──BYE of either──▶ ENDING ──▶ OVER
       └─────never────▶ OVER          └──refused, gone, silent──▶ OVER (the party is left alone)

What one side asks is asked of the other, and its answer handed back: INVITE (the first one, hold,
resume, another codec, with an offer or without one), UPDATE with a description, INFO, MESSAGE.
Answered here: UPDATE without a description (a refresh), OPTIONS, BYE; all else is 405.

One INVITE at a time: where one of ours is on its way to a side, its own gets 491; where one of its
own is being answered, a second one gets 500 with Retry-After (RFC 3261, 14.2). The first INVITE,
which adopts, is sent again after a 491; others' 491 is handed back to whom it concerns.

481, 408 or silence in answer to an INVITE mean that the dialog is no more (RFC 3261, 12.2.1.2): the
other side is ended. Each side has a session timer of its own (RFC 4028), refreshed from here where
it is ours, by UPDATE where the side knows it, else by an INVITE with the same description.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from controlone_ha.conference.adoption.sdp import continued
from controlone_ha.conference.adoption.side import Errand, Side, side_from_json
from controlone_ha.sip.digest import challenge_of, credentials
from controlone_ha.sip.events import Client, Server
from controlone_ha.sip.message import Request, Response, build_response
from controlone_ha.sip.session_timer import SMALLEST

if TYPE_CHECKING:
    from controlone_ha.conference.adoption.agent import AdoptionAgent

WAIT_FOR_ENGINE = 30.0
"""Seconds within which the engine has to call."""

MOST_TRIES = 6
"""How often the adopting INVITE is sent when it meets one of the party's own (491)."""

ORPHAN_KEPT = 120.0
"""Seconds that a party waits for its next adoption when the engine has lost its side: as long as
the controller keeps lost calls."""

BUSY_REFRESH = 5.0
"""Seconds after which a refresh is tried again that met an INVITE."""

CSEQ_STEP = 64
"""What CSeq jumps by after a restart: more requests than can have gone out unwritten."""

METHODS = ("INVITE", "ACK", "BYE", "CANCEL", "UPDATE", "INFO", "MESSAGE", "OPTIONS")
ALLOW = ("Allow", ", ".join(METHODS))
KNOWN_OPTIONS = frozenset({"timer"})
GONE = (408, 481)


class PairState(StrEnum):
    """See the figure above."""

    WAITING = "waiting"
    INVITING = "inviting"
    UP = "up"
    ENDING = "ending"
    OVER = "over"


class Pair:
    """One adopted leg. Made and driven by ``AdoptionAgent``; time is an argument everywhere."""

    def __init__(
        self,
        agent: AdoptionAgent,
        name: str,
        party: Side,
        *,
        generation: int,
        gateway: str = "",
        until: float = 0.0,
    ) -> None:
        self.agent = agent
        self.name = name
        self.party = party
        self.engine: Side | None = None
        self.generation = generation
        self.gateway = gateway
        self.state = PairState.WAITING
        self.until = until
        self.token = ""
        self.retry: tuple[float, Errand] | None = None
        self.code = 0
        self.byes = 0
        self.is_orphan = False
        self.due: float | None = None

    @property
    def sides(self) -> tuple[Side, ...]:
        """The sides there are."""
        return (self.party,) if self.engine is None else (self.party, self.engine)

    def other(self, side: Side) -> Side | None:
        """Return the side that is not ``side``."""
        return self.engine if side is self.party else self.party

    def to_json(self) -> dict[str, Any]:
        """Return the pair as it is kept."""
        return {
            "name": self.name,
            "generation": self.generation,
            "gateway": self.gateway,
            "state": self.state.value,
            "party": self.party.to_json(),
            "engine": None if self.engine is None else self.engine.to_json(),
        }

    def check_engine(self, now: float) -> None:
        """After a restart: does the engine still have its side?"""
        if self.state is PairState.UP and self.engine is not None:
            self._send(Errand(self, self.engine, "OPTIONS"), now)

    # --- what comes from a side ------------------------------------------------------------------

    def begin(self, server: Server, request: Request, engine: Side, now: float) -> None:
        """The engine calls: adopt."""
        self.engine = engine
        self.state = PairState.INVITING
        self._relay_invite(engine, server, request, now, is_first=True)

    def arrived(self, side: Side, server: Server, request: Request, now: float) -> None:
        """Take a request inside a dialog, ACK and CANCEL apart."""
        number = request.cseq[0]
        if side.dialog.remote_cseq is not None and number < side.dialog.remote_cseq:
            self._respond(side, server, 500, "Out Of Order", now)
            return
        side.dialog.remote_cseq = number
        unknown = [item for item in request.items("Require") if item not in KNOWN_OPTIONS]
        if unknown and request.method != "BYE":
            extra = (("Unsupported", ", ".join(unknown)),)
            self._respond(side, server, 420, "Bad Extension", now, extra)
        elif request.method == "BYE":
            self._respond(side, server, 200, "OK", now)
            self.end(now, besides=side)
        elif self.state is not PairState.UP:
            # The party may change its mind while it is being adopted: let it ask again.
            code = 491 if request.method == "INVITE" else 481
            text = "Request Pending" if code == 491 else "Call Does Not Exist"
            if self.state is PairState.ENDING:
                code, text = 481, "Call Does Not Exist"
            self._respond(side, server, code, text, now)
        elif request.method == "INVITE":
            self._invited(side, server, request, now)
        elif request.method == "UPDATE" and not request.body:
            self._refreshed(side, server, request, now)
        elif request.method in ("UPDATE", "INFO", "MESSAGE"):
            self._relay(side, server, request, now)
        elif request.method == "OPTIONS":
            self._respond(side, server, 200, "OK", now, (("Accept", "application/sdp"),))
        else:
            self._respond(side, server, 405, "Method Not Allowed", now)

    def _invited(self, side: Side, server: Server, request: Request, now: float) -> None:
        other = self.other(side)
        if side.server is not None:
            seconds = str(round(self.agent.spread(1.0, 10.0)))
            self._respond(side, server, 500, "Busy", now, (("Retry-After", seconds),))
        elif other is None or any(
            one is not None
            for one in (side.client, side.unacknowledged, other.client, other.server)
        ):
            self._respond(side, server, 491, "Request Pending", now)
        elif side.timer.is_refused(request):
            extra = (("Min-SE", str(SMALLEST)),)
            self._respond(side, server, 422, "Session Interval Too Small", now, extra)
        else:
            side.dialog.refresh_target(request)
            self._relay_invite(side, server, request, now)

    def _relay_invite(
        self, side: Side, server: Server, request: Request, now: float, *, is_first: bool = False
    ) -> None:
        asked = self.other(side)
        assert asked is not None
        side.server = server
        if request.body:
            side.sdp_received = request.body
        errand = Errand(
            self,
            asked,
            "INVITE",
            side,
            server,
            request.body,
            request.get("Content-Type"),
            is_first=is_first,
        )
        server.owner = errand
        self._send(errand, now)

    def _relay(self, side: Side, server: Server, request: Request, now: float) -> None:
        asked = self.other(side)
        assert asked is not None
        if request.method == "UPDATE" and (asked.client is not None or asked.server is not None):
            self._respond(side, server, 491, "Request Pending", now)
            return
        if request.method == "UPDATE":
            side.dialog.refresh_target(request)
            side.sdp_received = request.body
        kind = request.get("Content-Type")
        errand = Errand(self, asked, request.method, side, server, request.body, kind)
        self._send(errand, now)

    def _refreshed(self, side: Side, server: Server, request: Request, now: float) -> None:
        if side.timer.is_refused(request):
            extra = [("Min-SE", str(SMALLEST))]
            self._respond(side, server, 422, "Session Interval Too Small", now, tuple(extra))
            return
        side.dialog.refresh_target(request)
        headers = side.timer.answer(request, now)
        self._respond(side, server, 200, "OK", now, tuple(headers))
        self._keep()

    def cancelled(self, server: Server, now: float) -> None:
        """A side gives its INVITE up. Its end comes from the other side, as an answer."""
        errand = server.owner
        if not isinstance(errand, Errand) or not server.is_pending:
            return
        if self.retry is not None and self.retry[1] is errand:
            self.retry = None
            self._refuse(errand, 487, "Request Terminated", now)
        elif errand.client is not None:
            self.agent.layer.cancel(errand.client, now)

    def acknowledged(self, server: Server, request: Request, now: float) -> None:
        """The ACK of an INVITE that a side sent; after an INVITE without an offer it has the
        answer to the other's.
        """
        errand = server.owner
        if not isinstance(errand, Errand) or errand.asker is None:
            return
        waiting = errand.asked.unacknowledged
        if waiting is not None and waiting is errand.client:
            errand.asked.unacknowledged = None
            errand.asker.sdp_received = request.body
            self._acknowledge(errand.asked, waiting, request.body, request.get("Content-Type"))
            self._keep()

    # --- what we ask -----------------------------------------------------------------------------

    def _send(self, errand: Errand, now: float, extra: tuple[tuple[str, str], ...] = ()) -> None:
        side = errand.asked
        headers = [*extra]
        body = errand.body
        if errand.method in ("INVITE", "UPDATE"):
            headers += [ALLOW, *side.timer.offer()]
        if body:
            body = self._described(side, body, errand.kind)
            headers.append(("Content-Type", errand.kind or "application/sdp"))
        request = side.dialog.request(errand.method, self.agent.token(), headers=headers, body=body)
        errand.client = self.agent.send(request, side.dialog, errand, now)
        if errand.client is None:  # the dialog names no place
            if errand.method == "BYE":
                self._bye_done()
            else:
                self._gone(errand, 0, now)
        elif errand.method == "INVITE":
            side.client = errand.client

    def _described(self, side: Side, body: bytes, kind: str) -> bytes:
        """Return a body as it goes to a side, and note it where it is a description."""
        if kind and not kind.lower().startswith("application/sdp"):
            return body
        if side is self.party:
            body = continued(side.sdp_sent, body)
        side.sdp_sent = body
        return body

    def _acknowledge(self, side: Side, client: Client, body: bytes = b"", kind: str = "") -> None:
        headers = []
        if body:
            body = self._described(side, body, kind)
            headers.append(("Content-Type", kind or "application/sdp"))
        number = client.request.cseq[0]
        ack = side.dialog.request(
            "ACK", self.agent.token(), headers=headers, body=body, cseq=number
        )
        self.agent.layer.acknowledge(client, ack)

    def _respond(
        self,
        side: Side,
        server: Server,
        status: int,
        reason: str,
        now: float,
        extra: tuple[tuple[str, str], ...] = (),
        *,
        body: bytes = b"",
        kind: str = "",
    ) -> None:
        headers = [*extra]
        method = server.request.method
        if method in ("INVITE", "UPDATE") and status < 300:
            headers.append(("Contact", f"<{side.dialog.contact}>"))
        if method == "INVITE" and status < 300:
            headers += [("Record-Route", item) for item in server.request.all("Record-Route")]
        if status in (200, 405):
            headers.append(ALLOW)
        if status == 200 and method in ("INVITE", "UPDATE", "OPTIONS"):
            headers.append(("Supported", "timer"))
        if body:
            body = self._described(side, body, kind)
            headers.append(("Content-Type", kind or "application/sdp"))
        response = build_response(
            server.request,
            status,
            reason,
            to_tag=side.dialog.local_tag,
            headers=headers,
            body=body,
        )
        if status >= 200 and side.server is server:
            side.server = None
        self.agent.layer.respond(server, response, now)

    # --- what is answered ------------------------------------------------------------------------

    def answered(self, errand: Errand, client: Client, response: Response, now: float) -> None:
        """Take a response to what we asked."""
        if not response.is_final:
            if errand.asker is not None and errand.server is not None and errand.is_first:
                self._respond(errand.asker, errand.server, response.status, response.reason, now)
            return
        if errand.asked.client is client:
            errand.asked.client = None
        if response.status in (401, 407) and self._authenticate(errand, client, response, now):
            return
        if response.status == 422 and errand.asked.timer.too_small(response):
            self._send(errand, now)
        elif errand.method == "BYE":
            self._bye_done()
        elif response.status < 300:
            self._agreed(errand, client, response, now)
        elif response.status == 491 and errand.is_first and errand.tries < MOST_TRIES:
            errand.tries += 1
            # The party's own INVITE gets 491 until it is adopted, so nothing is gained by the
            # longer wait of the side that owns the Call-ID (14.1).
            self.retry = (now + self.agent.spread(0.1, 2.0), errand)
        elif response.status in GONE:
            self._gone(errand, response.status, now)
        else:
            self._refuse(errand, response.status, response.reason, now, response)

    def failed(self, errand: Errand, client: Client, now: float, *, is_way: bool = True) -> None:
        """Nothing came back, or (not ``is_way``) there was no way."""
        if errand.asked.client is client:
            errand.asked.client = None
        if errand.method == "BYE":
            self._bye_done()
        elif is_way:
            self._gone(errand, 408, now)
        else:
            self._refuse(errand, 503, "Service Unavailable", now)

    def unacknowledged(self, server: Server, now: float) -> None:
        """A side never acknowledged our 2xx: the call ends (RFC 3261, 13.3.1.4)."""
        if isinstance(server.owner, Errand):
            self.end(now)

    def _authenticate(self, errand: Errand, client: Client, response: Response, now: float) -> bool:
        challenge = challenge_of(response)
        if challenge is None or errand.is_authenticated or errand.asked is not self.party:
            return False
        username, password = self.agent.credentials(self.gateway)
        if not username:
            return False
        errand.is_authenticated = True
        value = credentials(
            challenge[1],
            method=errand.method,
            uri=client.request.uri,
            username=username,
            password=password,
            cnonce=self.agent.token()[:16],
        )
        self._send(errand, now, ((challenge[0], value),))
        return True

    def _agreed(self, errand: Errand, client: Client, response: Response, now: float) -> None:
        asked, asker = errand.asked, errand.asker
        if errand.method in ("INVITE", "UPDATE"):
            asked.dialog.refresh_target(response)
            asked.timer.answered(response, now)
        if errand.method == "INVITE":
            if response.body:
                asked.sdp_received = response.body
            is_over = self.state in (PairState.ENDING, PairState.OVER)
            if asker is None or errand.body or is_over:
                self._acknowledge(asked, client)
            else:
                asked.unacknowledged = client
        if asker is not None and errand.server is not None:
            extra: list[tuple[str, str]] = []
            if errand.method in ("INVITE", "UPDATE"):
                extra = asker.timer.answer(errand.server.request, now)
            self._respond(
                asker,
                errand.server,
                response.status,
                response.reason,
                now,
                tuple(extra),
                body=response.body,
                kind=response.get("Content-Type"),
            )
        if errand.is_first and self.state is PairState.INVITING:
            self.state = PairState.UP
            self.agent.tell(self)
        elif errand.is_first and self.state is PairState.OVER:
            # Given up before it came: nobody would ever end this call. A party that has been taken
            # by a newer generation meanwhile refuses this, its CSeq being lower.
            self._send(Errand(self, asked, "BYE"), now)
            return
        if errand.method in ("INVITE", "UPDATE"):
            self._keep()

    def _refuse(
        self,
        errand: Errand,
        status: int,
        reason: str,
        now: float,
        response: Response | None = None,
    ) -> None:
        """Hand a refusal back; the dialog goes on as it was (14.1), unless it was never ours."""
        if errand.asker is not None and errand.server is not None:
            extra = []
            retry = response.get("Retry-After") if response is not None else ""
            if retry:
                extra.append(("Retry-After", retry))
            # A challenge that we could not meet is nothing the other side could answer.
            code = 403 if status in (401, 407) and not errand.is_first else status
            self._respond(errand.asker, errand.server, code, reason, now, tuple(extra))
        if errand.is_first:
            self._over(status)
        elif errand.asker is None and errand.method == "UPDATE" and status in (405, 501):
            errand.asked.dialog.allow -= {"UPDATE"}
            errand.asked.refresh_after = now

    def _gone(self, errand: Errand, status: int, now: float) -> None:
        """The dialog that was asked is no more, or nobody answers in it."""
        asker, server = errand.asker, errand.server
        if asker is not None and server is not None:
            if errand.is_first or errand.method == "INVITE":
                code = status or 503
            else:
                code = 481 if status == 481 else 500
            reason = {408: "Request Timeout", 481: "Call Does Not Exist"}.get(code, "No Way")
            self._respond(asker, server, code, reason, now)
        if errand.is_first:
            self._over(status or 503)
        elif errand.method == "OPTIONS":
            # The engine died while we were away. Its calls may be taken again at any moment.
            self.until = now + ORPHAN_KEPT
            self.is_orphan = True
        elif errand.method == "INVITE" or status == 481 or asker is None:
            self.end(now, besides=errand.asked if status == 481 else None)

    # --- the end ---------------------------------------------------------------------------------

    def end(self, now: float, *, besides: Side | None = None) -> None:
        """End every side but ``besides``, which has ended by itself."""
        if self.state in (PairState.ENDING, PairState.OVER):
            return
        was_inviting = self.state in (PairState.WAITING, PairState.INVITING)
        if was_inviting and besides is self.party:
            self.code = 481
        self.state = PairState.ENDING
        self.is_orphan = False
        self.until = now
        self.retry = None
        for side in self.sides:
            if side.client is not None:
                self.agent.layer.cancel(side.client, now)
            if side.server is not None and self.code == 481:
                self._respond(side, side.server, 481, "Call Does Not Exist", now)
            elif side.server is not None:
                self._respond(side, side.server, 487, "Request Terminated", now)
            if side.unacknowledged is not None:
                self._acknowledge(side, side.unacknowledged)
                side.unacknowledged = None
            if side is besides or (was_inviting and side is self.engine):
                continue
            self.until = max(self.until, now + self.agent.layer.timers.life + 1.0)
            self.byes += 1
            self._send(Errand(self, side, "BYE"), now)
        if not self.byes:
            self._over(self.code)
        elif self.state is PairState.ENDING:
            self._keep()

    def forget_party(self, now: float) -> None:
        """Another node owns the dialog with the party now: end the engine's side alone."""
        self.end(now, besides=self.party)

    def _bye_done(self) -> None:
        self.byes -= 1
        if self.byes <= 0:
            self._over(self.code)

    def _keep(self) -> None:
        if self.state in (PairState.UP, PairState.ENDING):
            self.agent.keep(self)

    def _over(self, code: int) -> None:
        if self.state is not PairState.OVER:
            self.code = code
            self.state = PairState.OVER
            self.agent.over(self)

    # --- time ------------------------------------------------------------------------------------

    def next_due(self) -> float | None:
        """Return when ``advance`` is next wanted."""
        dues: list[float] = []
        if self.state in (PairState.WAITING, PairState.ENDING):
            dues.append(self.until)
        if self.is_orphan:
            dues.append(self.until)
        if self.retry is not None:
            dues.append(self.retry[0])
        if self.state is PairState.UP:
            for side in self.sides:
                refresh, end = side.timer.refresh_due(), side.timer.end_due()
                if refresh is not None:
                    dues.append(max(refresh, side.refresh_after))
                if end is not None:
                    dues.append(end)
        return min(dues, default=None)

    def advance(self, now: float) -> None:
        """Do what is due."""
        if self.state in (PairState.WAITING, PairState.ENDING) and now >= self.until:
            self._over(408 if self.state is PairState.WAITING else self.code)
            return
        if self.is_orphan and now >= self.until:
            self.end(now, besides=self.engine)
        if self.retry is not None and now >= self.retry[0]:
            _, errand = self.retry
            self.retry = None
            self._send(errand, now)
        for side in self.sides:
            if self.state is not PairState.UP:
                return
            refresh, end = side.timer.refresh_due(), side.timer.end_due()
            if end is not None and now >= end:
                self.end(now)
            elif refresh is not None and now >= max(refresh, side.refresh_after):
                side.refresh_after = now + BUSY_REFRESH
                self._refresh(side, now)

    def _refresh(self, side: Side, now: float) -> None:
        if side.client is not None or side.server is not None or side.unacknowledged is not None:
            return
        if "UPDATE" in side.dialog.allow:
            side.refresh_after = now + self.agent.layer.timers.life
            self._send(Errand(self, side, "UPDATE"), now)
        elif side.sdp_sent:
            side.refresh_after = now + self.agent.layer.timers.life
            self._send(Errand(self, side, "INVITE", body=side.sdp_sent), now)


def pair_from_json(agent: AdoptionAgent, raw: Mapping[str, Any], now: float) -> Pair:
    """Return a kept pair; raise ``ValueError``, ``KeyError`` or ``TypeError`` otherwise.

    What was on its way when we ended is unknown: CSeq goes on well above it.
    """
    pair = Pair(
        agent,
        str(raw["name"]),
        side_from_json("party", raw["party"], now),
        generation=int(raw["generation"]),
        gateway=str(raw["gateway"]),
    )
    if raw["engine"] is not None:
        pair.engine = side_from_json("engine", raw["engine"], now)
    pair.state = PairState(raw["state"])
    for side in pair.sides:
        side.dialog.local_cseq += CSEQ_STEP
    return pair
