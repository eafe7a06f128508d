"""Attempts to take one leg: INVITE with Replaces, or adoption of its dialog, and what came of them.

The ways and their order are ``core.takeover``'s; which leg is tried when is ``takeover``'s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from controlone_ha.conference.engine import (
    AdoptionError,
    Answered,
    Ended,
    EngineError,
    Ringing,
    Target,
)
from controlone_ha.conference.live_call import LiveCall, Message, with_dialog
from controlone_ha.core.calls import Leg, LegState
from controlone_ha.core.takeover import (
    ADOPT_TIMEOUT,
    PATIENCE,
    REPLACE_TIMEOUT,
    RING_TIMEOUT,
    Outcome,
    Plan,
    Way,
    is_final,
    outcome_of,
    replaces_of,
    ways,
)
from controlone_ha.probes.gateway import GatewayAnswer, GatewayQuestion, ask_options
from controlone_ha.sip.uri import parse_uri

if TYPE_CHECKING:
    from controlone_ha.conference.controller import Controller

ASK_TIMEOUT = 2.0
"""Seconds in which every party must answer before a call is taken on silence."""


@dataclass(kw_only=True)
class LegResult:
    """What became of one leg; ``leg`` is the new one, ``is_new_dialog``: not an adopted one."""

    old: Leg
    leg: Leg
    outcome: Outcome = Outcome.UNREACHABLE
    status: int = 0
    seconds: float = 0.0
    is_new_dialog: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return it as it is told."""
        return {
            "leg": self.old.id,
            "party": self.old.party,
            "role": self.old.role,
            "outcome": self.outcome.value,
            "status": self.status,
            "seconds": round(self.seconds, 3),
        }


@dataclass(kw_only=True)
class Taken:
    """A call on its way here."""

    plan: Plan
    live: LiveCall
    ground: str
    results: list[LegResult] = field(default_factory=list)
    waiting: dict[str, asyncio.Queue[Message]] = field(default_factory=dict)
    others: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)
    """What came meanwhile and is for the call when it is up: orders of consoles."""
    outside: list[str] = field(default_factory=list)
    """The lock's leg until the first of the others takes it along into the room."""
    comfort: asyncio.Task[None] | None = None
    is_comforted: bool = False


class Attempts:
    """Tries to take legs, for one controller."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    async def take(
        self,
        taken: Taken,
        old: Leg,
        number: int,
        *,
        names: str = "ab",
        patience: float = REPLACE_TIMEOUT,
    ) -> LegResult:
        """Try a leg's ways in order; what is taken is to be noted in the document then.
        ``patience``: seconds for an answer to Replaces.
        """
        began = time.monotonic()
        document = taken.live.document
        result = LegResult(old=old, leg=old)
        taken.results.append(result)
        tried = self._ways(old)
        if not tried:
            result.outcome = Outcome.REFUSED
        for attempt, way in enumerate(tried):
            name = f"{document.id}.{document.generation}-{number}{names[attempt]}"
            leg = Leg(
                id=name, role=old.role, party=old.party, gateway=old.gateway, since=time.time()
            )
            self.expect(taken, name)
            if way is Way.REPLACE:
                status, rang = await self._replace(taken, old, name, patience)
                result.outcome, result.status = outcome_of(way, status, rang=rang), status
            else:
                leg = await self._adopt(taken, old, leg, result)
            if result.outcome.is_taken:
                if attempt:
                    result.outcome = Outcome.FALLBACK
                result.leg, result.is_new_dialog = leg, way is Way.REPLACE
                break
            self._controller.log.info(
                "%s: %s by %s: %s (%d)",
                document.id, old.party, way.value, result.outcome.value, result.status,
            )  # fmt: skip
            self._drop(taken, name)
            if is_final(result.outcome):
                break
        result.seconds = time.monotonic() - began
        return result

    def is_replacing(self, old: Leg, name: str) -> bool:
        """Return whether ``name`` is a leg's attempt by Replaces, of whatever controller."""
        tried = self._ways(old)
        place = (ord(name[-1]) - ord("a")) % 2
        return place < len(tried) and tried[place] is Way.REPLACE

    def expect(self, taken: Taken, name: str) -> None:
        """Have what the engine tells of a new leg kept for its attempt."""
        taken.waiting[name] = asyncio.Queue()
        self._controller.legs[name] = taken.live

    async def finish(self, taken: Taken, old: Leg, name: str, is_answered: bool) -> LegResult:
        """Wait for an INVITE with Replaces that the controller before this one has sent. A second
        one beside it would be refused by a party that takes the first, and whose call we then end.
        ``expect`` has been called for it.
        """
        began = time.monotonic()
        leg = Leg(id=name, role=old.role, party=old.party, gateway=old.gateway, since=time.time())
        result = LegResult(old=old, leg=leg, is_new_dialog=True)
        taken.results.append(result)
        status, rang = (200, False) if is_answered else await self._answer(taken, name, PATIENCE)
        result.outcome, result.status = outcome_of(Way.REPLACE, status, rang=rang), status
        if not result.outcome.is_taken:
            self._drop(taken, name)
        result.seconds = time.monotonic() - began
        return result

    def _ways(self, old: Leg) -> tuple[Way, ...]:
        gateway = self._controller.settings.gateways.get(old.gateway)
        return ways(old, knows_replaces=gateway is None or gateway.replaces)

    def _drop(self, taken: Taken, name: str) -> None:
        self._controller.legs.pop(name, None)
        del taken.waiting[name]

    async def note(self, taken: Taken, result: LegResult) -> None:
        """Put a leg that was taken into the document, in the place of the old one. Asterisk takes a
        while to say what a dialog is called: it is asked once the party is in the room.
        """
        leg = result.leg
        if result.is_new_dialog:
            dialog = await self._controller.engine.dialog(leg.id)
            leg = with_dialog(leg, dialog, LegState.CONFIRMED)
        result.leg = replace(leg, hold="local") if result.old.hold == "local" else leg
        kept = tuple(item for item in taken.live.document.legs if item.id != result.old.id)
        taken.live.document = replace(taken.live.document, legs=kept)
        taken.live.put(result.leg)

    async def _replace(
        self, taken: Taken, old: Leg, name: str, patience: float
    ) -> tuple[int, bool]:
        """Send INVITE with Replaces; return the final status (0: none) and whether it rang."""
        controller = self._controller
        gateway = old.gateway if old.gateway in controller.settings.gateways else ""
        target = Target(uri=old.remote_target, gateway=gateway, replaces=replaces_of(old))
        document = taken.live.document
        try:
            await controller.engine.call(name, target, caller=document.caller, timeout=patience + 1)
        except EngineError as error:
            if not controller.engine.is_up:
                raise
            controller.log.warning("%s: %s: %s", document.id, old.party, error)
            return 400, False
        return await self._answer(taken, name, patience)

    async def _answer(self, taken: Taken, name: str, patience: float) -> tuple[int, bool]:
        controller = self._controller
        deadline, rang = time.monotonic() + patience, False
        while True:
            message = await _next(taken.waiting[name], deadline - time.monotonic())
            if isinstance(message, Answered):
                return 200, False
            if isinstance(message, Ended):
                return message.status, False
            if message is None:
                await controller.hang_up(name)
                return 0, rang
            if isinstance(message, Ringing) and not rang:
                rang, deadline = True, min(deadline, time.monotonic() + RING_TIMEOUT)

    async def _adopt(self, taken: Taken, old: Leg, leg: Leg, result: LegResult) -> Leg:
        controller = self._controller
        if controller.adopter is None:
            result.outcome = Outcome.REFUSED
            return leg
        document = taken.live.document
        try:
            adopted = await controller.adopter.adopt(
                old, document.generation, name=leg.id, caller=document.caller, timeout=ADOPT_TIMEOUT
            )
        except AdoptionError as error:
            if not error.status:  # else the status says it
                controller.log.warning("%s: %s is not adopted: %s", document.id, old.party, error)
            known = error.outcome in set(Outcome)
            result.outcome = Outcome(error.outcome) if known else Outcome.REFUSED
            result.status = error.status
            if error.status == 481 and old.incoming:  # it may wait for an answer that was not sent
                controller.spawn(controller.adopter.turn_away(old))
            return leg
        result.outcome, result.status = Outcome.TAKEN, 200
        if not any(isinstance(item, Answered) for item in all_of(taken.waiting[leg.id])):
            await _next(taken.waiting[leg.id], ADOPT_TIMEOUT)
        return replace(adopted.leg, id=leg.id, state=LegState.CONFIRMED)

    async def all_answer(self, legs: Sequence[Leg]) -> bool:
        """Ask every party whether it is there, from here: any answer will do."""
        found = await asyncio.gather(*(self._answers(leg) for leg in legs))
        return all(found)

    async def _answers(self, leg: Leg) -> bool:
        uri = parse_uri(leg.remote_target)
        if uri is None:
            return False
        hop = uri.hop(leg.transport.lower() or "udp")
        question = GatewayQuestion(
            host=hop.host,
            port=hop.port,
            transport=hop.transport,
            bind=self._controller.settings.bind,
            timeout=ASK_TIMEOUT,
        )
        answer = (await ask_options(question)).answer
        return answer not in (GatewayAnswer.SILENT, GatewayAnswer.UNREACHABLE)


async def _next(messages: asyncio.Queue[Message], timeout: float) -> Message | None:
    if timeout <= 0:
        return None
    try:
        return await asyncio.wait_for(messages.get(), timeout)
    except TimeoutError:
        return None


def all_of(messages: asyncio.Queue[Message]) -> list[Message]:
    found = []
    while not messages.empty():
        found.append(messages.get_nowait())
    return found
