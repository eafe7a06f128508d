"""Adoption as the controller uses it: sockets, the file, ``adopt``.

It runs inside the controller. A controller that is restarted ends no adopted call: media does not
pass through here, both dialogs are in ``adoption.jsonl`` in the run directory, and the next
controller takes the port and the dialogs up. What a side asks meanwhile it repeats for 32 s (and
TCP or TLS is connected anew). CSeq goes on well above what can have been used. An adoption that was
still on its way is lost: the engine's call fails, and the controller decides anew.

The engine (the node's own Asterisk) calls us, at the address by which the party reaches us, with a
token as the user. So its offer names the address that is reachable by the party, also where it is
bound to all addresses, it needs no endpoint that listens to us, and the controller sees an ordinary
called channel, with the name it chose, that rings, is answered, or ends with the party's status.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from controlone_ha.conference.adoption.agent import AdoptionAgent, Place
from controlone_ha.conference.adoption.keeper import AdoptionKeeper
from controlone_ha.conference.adoption.pair import Pair, PairState
from controlone_ha.conference.adoption.unanswered import refusal_of
from controlone_ha.conference.engine import AdoptedLeg, AdoptionError, EngineError
from controlone_ha.core.calls import Leg
from controlone_ha.sip.fields import parse_address
from controlone_ha.sip.message import Request, Response
from controlone_ha.sip.transaction import SipTimers
from controlone_ha.sip.transport import SipTransport, client_context
from controlone_ha.sip.uri import TRANSPORTS, Hop, parse_uri

log = logging.getLogger("adoption")

FILE_NAME = "adoption.jsonl"
LOST_AFTER = 0.5
"""Seconds until what nobody acknowledges is said once more."""

_OUTCOMES = {
    408: "unreachable",
    481: "gone",
    487: "cancelled",
    500: "already_taken",
    503: "unreachable",
}


CallEngine = Callable[[str, str, str, float], Awaitable[None]]
"""Have the engine call: name of the leg, SIP URI, caller, seconds to be answered in."""


class Adoptions:
    """The adopted legs of this node, with their sockets. Implements ``engine.Adopter``.

    ``credentials``: user and password at a gateway, for one that asks for them inside of a dialog;
    ``on_changed``: name of an adopted leg whose dialog has become another (see ``leg_of``).
    """

    def __init__(
        self,
        call_engine: CallEngine,
        run_dir: Path,
        *,
        credentials: Callable[[str], tuple[str, str]] = lambda _: ("", ""),
        on_changed: Callable[[str], None] = lambda _: None,
        timers: SipTimers | None = None,
    ) -> None:
        self._call_engine = call_engine
        self._on_changed = on_changed
        self._keeper = AdoptionKeeper(run_dir / FILE_NAME)
        self._transport = SipTransport(self._came, self._failed)
        self._agent = AdoptionAgent(
            token=lambda: secrets.token_hex(16),
            spread=random.uniform,
            credentials=credentials,
            on_keep=self._keep,
            on_told=self._told,
            on_over=self._over,
            timers=timers,
        )
        self._waiting: dict[str, asyncio.Future[int]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(
        self, bind: str, port: int, *, tls_port: int = 0, certificate: str = "", key: str = ""
    ) -> None:
        """Open the sockets and take up what was kept. Raises ``OSError``; adopting is then
        ``unavailable``. ``certificate`` and ``key``: files for SIP over TLS, empty: none.
        """
        loop = asyncio.get_running_loop()
        server_tls = None
        if certificate and tls_port:
            server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server_tls.minimum_version = ssl.TLSVersion.TLSv1_2
            server_tls.load_cert_chain(certificate, key)
        await self._transport.start(
            bind,
            port,
            server_tls=server_tls,
            tls_port=tls_port,
            client_tls=client_context(certificate, key),
        )
        self._loop = loop
        count = self._agent.restore(self._keeper.load(), loop.time())
        if count:
            log.info("%d adopted legs go on", count)
        self._flush()

    def stop(self) -> None:
        """Close the sockets; adopted calls go on without us for a while."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport.close()
        self._keeper.close()
        self._loop = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the legs that are adopted or being so."""
        return tuple(self._agent.pairs)

    def leg_of(self, name: str, leg: Leg) -> Leg:
        """Return ``leg`` with what the adopted dialog has become, unchanged when it is not here."""
        pair = self._agent.pairs.get(name)
        if pair is None:
            return leg
        dialog, timer = pair.party.dialog, pair.party.timer
        # A peer reads the refresher's role as that of the INVITE that began the dialog.
        ours, theirs = ("uas", "uac") if leg.incoming else ("uac", "uas")
        return replace(
            leg,
            remote_target=dialog.remote_target,
            local_cseq=dialog.local_cseq,
            remote_cseq=dialog.remote_cseq,
            local_sdp=pair.party.sdp_sent.decode("utf-8", "replace") or None,
            remote_sdp=pair.party.sdp_received.decode("utf-8", "replace") or None,
            session_expires=timer.interval,
            refresher=(ours if timer.is_ours else theirs) if timer.interval else "",
        )

    async def adopt(
        self, leg: Leg, generation: int, *, name: str, caller: str = "", timeout: float = 10.0
    ) -> AdoptedLeg:
        """Take the dialog of ``leg`` as the owner of ``generation``; ``name``: the engine's leg.

        Returns when the party has accepted: then the engine's leg is answered too. Raises
        ``AdoptionError``. ``timeout``: seconds the party has; past it, it is cancelled.
        """
        loop = self._loop
        if loop is None:
            raise AdoptionError("unavailable", "no port for adoption is open")
        try:
            place = await self._place(leg)
        except (OSError, ValueError) as error:
            raise AdoptionError("unreachable", f"no way to {leg.party}: {error}") from error
        try:
            token = self._agent.prepare(name, leg, generation, place, place, loop.time())
        except ValueError as error:
            raise AdoptionError("unusable", str(error)) from error
        waiting: asyncio.Future[int] = loop.create_future()
        self._waiting[name] = waiting
        self._flush()
        try:
            uri = f"sip:{token}@{place.via('udp')}"
            await self._call_engine(name, uri, caller, timeout)
            async with asyncio.timeout(timeout + 3.0):
                status = await waiting
        except TimeoutError:
            status = 408
        except EngineError as error:
            raise AdoptionError("unavailable", f"the engine did not call: {error}") from error
        finally:
            self._waiting.pop(name, None)
            pair = self._agent.pairs.get(name)
            if pair is not None and pair.state is not PairState.UP:
                self._agent.forget(name, loop.time())
                self._flush()
        if status != 200:
            outcome = _OUTCOMES.get(status, "refused")
            raise AdoptionError(outcome, f"{leg.party} was not adopted: {status}", status)
        return AdoptedLeg(name=name, leg=self.leg_of(name, leg))

    async def end(self, leg: Leg, generation: int) -> None:
        """Say BYE in the dialog of ``leg``, which is not taken, as the owner of ``generation``."""
        if self._loop is None:
            return
        try:
            self._agent.end(leg, generation, await self._place(leg), self._loop.time())
        except (OSError, ValueError) as error:
            log.info("%s is not told that its call is over: %s", leg.party, error)
        self._flush()

    async def turn_away(self, leg: Leg) -> None:
        """Answer the unanswered INVITE of ``leg`` with 503, twice, as one may be lost."""
        try:
            response, hop = refusal_of(leg)
            data = response.to_bytes()
        except ValueError as error:
            log.info("%s is not told to try elsewhere: %s", leg.party, error)
            return
        for wait in (0.0, LOST_AFTER):
            await asyncio.sleep(wait)
            if self._loop is not None:
                self._transport.send(data, hop)

    async def _place(self, leg: Leg) -> Place:
        """Return where the party of ``leg`` reaches us. Raises ``OSError`` or ``ValueError``."""
        host = self._transport.local_address(await self._transport.resolve(_first_hop(leg)))
        ports = self._transport.ports
        return Place(host=host, port=ports["udp"], tls_port=ports.get("tls", 0))

    def forget(self, name: str) -> None:
        """Another node owns the call: end the engine's leg without a word to the party."""
        if self._loop is not None:
            self._agent.forget(name, self._loop.time())
            self._flush()

    # --- what the agent tells --------------------------------------------------------------------

    def _keep(self, pair: Pair) -> None:
        self._keeper.save(pair.to_json())
        self._on_changed(pair.name)

    def _told(self, pair: Pair) -> None:
        self._settle(pair.name, 200)

    def _over(self, pair: Pair) -> None:
        self._keeper.remove(pair.name)
        self._settle(pair.name, pair.code or 480)

    def _settle(self, name: str, status: int) -> None:
        waiting = self._waiting.get(name)
        if waiting is not None and not waiting.done():
            waiting.set_result(status)

    # --- the wire and the clock ------------------------------------------------------------------

    def _came(self, message: Request | Response, source: Hop) -> None:
        if self._loop is not None:
            self._agent.receive(message, source, self._loop.time())
            self._flush()

    def _failed(self, hop: Hop, detail: str) -> None:
        if self._loop is not None:
            self._agent.transport_failed(hop, detail, self._loop.time())
            self._flush()

    def _wake(self) -> None:
        self._timer = None
        if self._loop is not None:
            self._agent.advance(self._loop.time())
            self._flush()

    def _flush(self) -> None:
        """Send what is to be sent, and set the alarm."""
        if self._loop is None:
            return
        outbox = self._agent.layer.outbox
        while outbox:
            item = outbox.popleft()
            self._transport.send(item.data, item.hop)
        due = self._agent.next_due()
        if self._timer is not None:
            if due is not None and self._timer.when() <= due:
                return  # it wakes early enough and sets itself again
            self._timer.cancel()
        self._timer = None if due is None else self._loop.call_at(due, self._wake)


def _first_hop(leg: Leg) -> Hop:
    """Return where requests of the leg's dialog go; raise ``ValueError`` when it names no place."""
    first = parse_address(leg.route_set[0]) if leg.route_set else None
    uri = parse_uri(first.uri if first is not None else leg.remote_target)
    if uri is None:
        raise ValueError("the leg's remote target or first route is no SIP URI")
    return uri.hop(leg.transport.lower() if leg.transport.lower() in TRANSPORTS else "udp")
