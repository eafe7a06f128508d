"""Orders the node's Conference Server to take calls over, and tells what came of it.

``core.taking`` decides that this node may begin; here the copies of the failed node's calls go to
the controller (``take`` on ``conference.sock``), as soon as it leads an active engine and as long
as the ground holds. Each call's outcome comes back as an event; when all are there, or after
``PATIENCE``, one entry of the history sums up. What a controller has not told when it dies is
ordered from the next one. Calls that others own by now are given up (``release``).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from controlone_ha.core import takeover as core_takeover
from controlone_ha.core.calls import Call
from controlone_ha.core.model import Ground
from controlone_ha.core.reasons import reason
from controlone_ha.core.takeover import TRIES, Outcome, deserves_another_try, in_order, is_given
from controlone_ha.daemon.calls import LiveCalls
from controlone_ha.errors import ControlOneError

log = logging.getLogger("takeover")

Json = dict[str, Any]

AGAIN = 0.2
PATIENCE = 40.0
"""Seconds in which the outcomes of a takeover must have come: a call takes 20 s at the most."""
CONSOLE_PATIENCE = 30.0
"""Seconds in which a console's word about its calls waits for the verdict on their server."""
A_CALL = 0.1
"""Seconds more for each call: they are taken some at a time."""
BATCH = 200
"""Documents in one order: a line of the socket is bounded."""
SHOWN_LEGS = 50
"""Legs in a history entry, those that were not taken first: a line of it is bounded."""


class Takeovers:
    """The takeovers of this node. ``holds(peer, ground)``: the ground for taking is still there."""

    def __init__(
        self,
        calls: LiveCalls,
        *,
        holds: Callable[[str, Ground], bool],
        record: Callable[[Json], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._calls = calls
        self._holds = holds
        self._record = record
        self._spawn = spawn
        self._waiting: dict[str, asyncio.Future[Json | None]] = {}
        calls.on_event = self.event
        calls.on_controller_gone = self.controller_gone
        calls.on_moved = self.moved

    def take(self, peer: str, ground: Ground) -> None:
        """Take all live calls of a peer; of one that releases them, those that it gives."""
        self._spawn(self._take(peer, ground, lambda: self._live_of(peer, ground)))

    def console_lost(self, peer: str, call_ids: Sequence[object]) -> None:
        """A console came and named the calls that it lost with ``peer``. That may be no ground yet:
        consoles are often quicker than a verdict.
        """
        wanted = {str(item) for item in call_ids}

        def named() -> Sequence[Call]:
            return [call for call in self._calls.copies.live_of(peer) if call.id in wanted]

        if named():
            self._spawn(self._take(peer, Ground.CONSOLE, named, patience=CONSOLE_PATIENCE))

    def _live_of(self, peer: str, ground: Ground) -> Sequence[Call]:
        calls = self._calls.copies.live_of(peer)
        return [call for call in calls if ground is not Ground.RELEASED or is_given(call)]

    def event(self, event: Json) -> None:
        """An event of the controller."""
        if event.get("kind") != "taken_over":
            return
        waiting = self._waiting.get(str(event.get("call")))
        if waiting is not None and not waiting.done():
            waiting.set_result(event)
        elif event.get("ground") == "own":
            self._sum_up(self._calls.name, "own", 1, [event])

    def controller_gone(self) -> None:
        """What the controller was about will not be told: the next one is ordered to do it."""
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(None)

    def moved(self, call: Call) -> None:
        """Another node owns a call of ours since a later generation."""
        log.warning("%s is of %s now", call.id, call.owner)
        why = reason("call_moved", call=call.id, peer=call.owner)
        self._record({"kind": "takeover", "peer": call.owner, "reason": why.to_json()})
        self._spawn(self._release(call))

    async def _release(self, call: Call) -> None:
        calls = [[call.id, call.generation, call.owner]]
        try:
            await self._calls.ask("release", {"calls": calls})
        except (ControlOneError, OSError, TimeoutError) as error:
            log.warning("%s is not released: %s", call.id, error)

    async def _take(
        self,
        peer: str,
        ground: Ground,
        calls: Callable[[], Sequence[Call]],
        *,
        patience: float = 0.0,
    ) -> None:
        """Order what is to be taken, again and again, for as long as there is the ground for it;
        wait up to ``patience`` s until there is. On a release more may be given from time to time.
        """
        loop = asyncio.get_running_loop()
        patient_until = loop.time() + patience
        tries: Counter[str] = Counter()
        raised: Counter[str] = Counter()
        said = ""
        while True:
            if not self._holds(peer, ground):
                if loop.time() >= patient_until:
                    return
                await asyncio.sleep(AGAIN)
                continue
            # What another one took with the next generation, and died, takes the one after that.
            found = in_order(
                replace(call, generation=call.generation + raised[call.id])
                for call in calls()
                if tries[call.id] < TRIES
            )
            if not found and ground is not Ground.RELEASED:
                return
            accepted: list[str] = []
            for first in range(0, len(found), BATCH):
                batch = found[first : first + BATCH]
                try:
                    taken = await self._order(batch, ground)
                except (ControlOneError, OSError, TimeoutError) as error:
                    if str(error) != said:
                        said = str(error)
                        log.info("the calls of %s wait: %s", peer, said or "no answer in time")
                    break
                tries.update({call.id: TRIES for call in batch if call.id not in taken})
                accepted += taken
            events = await self._collect(peer, ground, accepted) if accepted else []
            tries.update(set(accepted).difference(event["call"] for event in events))
            for event in events:
                again = not event["up"] and deserves_another_try(_outcomes(event))
                tries[event["call"]] += 1 if again else TRIES
                raised[event["call"]] += Outcome.ALREADY_TAKEN in _outcomes(event)
            await asyncio.sleep(core_takeover.AGAIN if events else AGAIN)

    async def _order(self, calls: Sequence[Call], ground: Ground) -> list[str]:
        loop = asyncio.get_running_loop()
        for call in calls:
            self._waiting.setdefault(call.id, loop.create_future())
        asks = ground.asks_parties
        documents = [call.to_json() for call in calls]
        params = {"calls": documents, "ground": ground.value, "asks_parties": asks}
        try:
            answer = await self._calls.ask("take", params)
        except BaseException:
            self._forget(call.id for call in calls)
            raise
        accepted = [str(item) for item in answer.get("accepted", [])]
        self._forget({call.id for call in calls}.difference(accepted))
        return accepted

    async def _collect(self, peer: str, ground: Ground, accepted: Sequence[str]) -> list[Json]:
        futures = [self._waiting[call_id] for call_id in accepted]
        patience = PATIENCE + len(futures) * A_CALL
        done, _ = await asyncio.wait(futures, timeout=patience)
        self._forget(accepted)
        events = [event for event in (future.result() for future in done) if event is not None]
        self._sum_up(peer, ground.value, len(accepted), events)
        return events

    def _forget(self, call_ids: Any) -> None:
        for call_id in list(call_ids):
            self._waiting.pop(call_id, None)

    def _sum_up(self, peer: str, ground: str, count: int, events: Sequence[Json]) -> None:
        legs = [{**leg, "call": event["call"]} for event in events for leg in event["legs"]]
        outcomes = Counter(str(leg["outcome"]) for leg in legs)
        up = sum(bool(event["up"]) for event in events)
        text = ", ".join(f"{number} {name}" for name, number in sorted(outcomes.items()))
        why = reason("calls_taken", peer=peer, up=up, calls=count, ground=ground, legs=text or "0")
        log.info("%s", why.text())
        legs.sort(key=lambda leg: leg["outcome"] in ("taken", "fallback"))
        self._record(
            {
                "kind": "takeover",
                "peer": peer,
                "reason": why.to_json(),
                "ground": ground,
                "calls": count,
                "up": up,
                "outcomes": dict(outcomes),
                "legs": legs[:SHOWN_LEGS],
                "seconds": max((leg["seconds"] for leg in legs), default=0.0),
            }
        )


def _outcomes(event: Json) -> list[Outcome]:
    return [Outcome(leg["outcome"]) for leg in event["legs"]]
