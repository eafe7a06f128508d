"""Taking calls over from a server that has failed, or from an engine of our own that has died.

Theory of operation. Calls are taken by plans (``core.takeover``), some at a time. Of a call the
lock is taken first; when it is ours the document is claimed (next generation), handed out, and the
other legs follow together. The first of them takes the lock along into the room, every other one
goes there as it comes. What was held stays out of the room. When nobody else came within
``GRACE`` seconds, what is left is hung up: a call of one is none. A new segment of the recording
begins when the call is up. Each leg's outcome is told (event ``taken_over``).

The party's old dialog is ended by the party itself (RFC 3891) or goes on as ours (adoption): the
server that has lost it is asked for nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from controlone_ha.conference import incoming
from controlone_ha.conference.attempts import Attempts, LegResult, Taken, all_of
from controlone_ha.conference.engine import (
    Ended,
    EngineError,
)
from controlone_ha.conference.live_call import LiveCall
from controlone_ha.conference.slots import Slots
from controlone_ha.core.calls import Call, CallState, Leg
from controlone_ha.core.takeover import (
    AGAIN,
    ALONE,
    GRACE,
    GRACE_GONE,
    IN_FLIGHT,
    PATIENCE,
    TAKING,
    Outcome,
    Plan,
    deserves_another_try,
    is_final,
    is_waiting,
    plans,
)

if TYPE_CHECKING:
    from controlone_ha.conference.controller import Controller

COMFORT_AFTER = 0.5
"""Seconds after which the first party hears that the others are on their way (a ringing tone)."""

LEFT_ALONE = 2.0
"""Seconds after which the parties of a call that is over are told so, if nobody has taken them: who
was quicker has them by then."""


Begun = tuple[str, bool]
"""The leg of an unfinished attempt by Replaces, and whether it has been answered."""


class Takeovers:
    """Takes calls over for one controller."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._running: set[str] = set()
        self._slots = Slots(IN_FLIGHT)
        self._attempts = Attempts(controller)

    def take(self, calls: Iterable[Call], ground: str, *, asks_parties: bool) -> list[str]:
        """Begin to take calls; return the ids of those that are. Their outcomes are told later."""
        controller = self._controller
        known = [
            call
            for call in calls
            if call.id not in self._running and call.id not in controller.calls
        ]
        waiting = [call for call in known if is_waiting(call)]
        again = {call.id for call in waiting if controller.returning.has_come(call)}
        found = plans(call for call in known if call.id not in again)
        accepted = [plan.call.id for plan in found]
        for call in waiting:
            if call.id not in again:
                controller.returning.expect(call)
            if call.id not in accepted:
                controller.returning.over(call)
        if waiting:
            controller.settle()  # the consoles that would answer are on their way as well
        for plan in found:
            self._running.add(plan.call.id)
            controller.spawn(self._take(plan, ground, asks_parties))
        return accepted

    def recover(self) -> None:
        """Take the own calls again that the engine has lost: it has come back."""
        own = [
            call for call in self._controller.lost.values() if call.owner == self._controller.node
        ]
        taken = self.take(own, "own", asks_parties=False)
        if taken:
            self._controller.log.warning("%d own calls are taken up again", len(taken))

    async def _take(self, plan: Plan, ground: str, asks_parties: bool) -> None:
        try:
            async with self._slots.one():
                await self._take_call(plan, ground, asks_parties)
        finally:
            self._running.discard(plan.call.id)

    async def _take_call(self, plan: Plan, ground: str, asks_parties: bool) -> None:
        controller, old = self._controller, plan.call
        if asks_parties and not await self._attempts.all_answer(plan.legs):
            failed = [LegResult(old=leg, leg=leg) for leg in plan.legs]
            self._tell(plan, ground, failed, is_up=False)
            return
        # Its legs stay named until each is replaced: if this node dies now, another one finishes.
        claimed = replace(
            old.claimed_by(controller.node, time.time()),
            legs=plan.legs,
            room="",
            # Not running, but known: the next segment is counted from it (A3).
            recording=old.recording and {**old.recording, "running": False},
        )
        live = LiveCall(controller, replace(claimed, reason=TAKING))
        live.task = asyncio.current_task()
        taken = Taken(plan=plan, live=live, ground=ground)
        if is_waiting(old):
            await self._take_waiting(taken)
            return
        if not plan.others:  # left alone, and its server died before it could say so
            taken.results.append(LegResult(old=plan.lock, leg=plan.lock, outcome=Outcome.GONE))
            controller.spawn(self._end(taken, claimed, plan.legs))
            return
        pump = asyncio.get_running_loop().create_task(self._pump(taken))
        try:
            lock = await self._attempts.take(taken, plan.lock, 1)
            if not lock.outcome.is_taken:
                self._forget(live)
                if lock.outcome is Outcome.GONE:
                    controller.spawn(self._end(taken, claimed, plan.others))
                else:
                    self._tell(plan, ground, taken.results, is_up=False)
                return
            self._slots.note(lock.seconds)
            controller.lost.pop(old.id, None)
            controller.calls[old.id] = live
            if plan.lock.hold != "local":
                taken.outside.append(lock.leg.id)
            await controller.engine.open_room(old.id, [])
            await self._attempts.note(taken, lock)
            live.change(room=old.id, state=CallState.UP, answered=old.answered or time.time())
            if taken.outside and controller.settings.takeover_sound == "ring":
                taken.comfort = asyncio.create_task(self._comfort(taken, lock.leg.id))
            await self._take_others(taken)
        except EngineError as error:
            controller.log.warning("%s: not taken: %s", old.id, error)
            if controller.engine.is_up:
                await self._give_up(live, "engine_refused")
                controller.spawn(self._tell_over(plan.others, claimed.generation))
            elif old.id in controller.calls:
                # Ours already, and lost with the engine: to be taken up again when that is back.
                live.task, live.is_published = None, True
            else:
                self._forget(live)  # it is as it was, and may be ordered again
            self._tell(plan, ground, taken.results, is_up=False)
            return
        finally:
            pump.cancel()
            if taken.comfort is not None:
                taken.comfort.cancel()
        await self._hand_over(taken)

    async def _take_waiting(self, taken: Taken) -> None:
        """A caller whom nobody has answered: who comes waits on here, as it did. Who does not come
        calls again.
        """
        controller, live, old = self._controller, taken.live, taken.plan.call
        pump = asyncio.get_running_loop().create_task(self._pump(taken))
        try:
            caller = await self._attempts.take(taken, taken.plan.lock, 1)
            if caller.outcome.is_taken:
                await self._attempts.note(taken, caller)
        except EngineError as error:
            controller.log.warning("%s: not taken: %s", old.id, error)
            self._forget(live)
            self._tell(taken.plan, taken.ground, taken.results, is_up=False)
            return
        finally:
            pump.cancel()
        if not caller.outcome.is_taken:
            self._forget(live)
            if not deserves_another_try([caller.outcome]):
                controller.lost.pop(old.id, None)
                controller.returning.over(old)
                # 486 to a Replaces that is meant for an early dialog: it is answered by now.
                is_over = caller.outcome is Outcome.GONE or caller.status == 486
                if controller.adopter is not None and not is_over:
                    controller.spawn(controller.adopter.turn_away(taken.plan.lock))
            self._tell(taken.plan, taken.ground, taken.results, is_up=False)
            return
        controller.lost.pop(old.id, None)
        controller.calls[old.id] = live
        controller.returning.waiting_since(old.caller, old.number)  # nobody is expected any more
        live.change(state=CallState.QUEUED, reason="")
        self._tell(taken.plan, taken.ground, taken.results, is_up=True)
        for messages in (*taken.waiting.values(), taken.others):
            for message in all_of(messages):
                live.tell(message)
        controller.lead(live, incoming.serve(controller, live, caller.leg))

    async def _hand_over(self, taken: Taken) -> None:
        """What came is a call like any other from now on; of what did not come nothing is kept."""
        controller, live = self._controller, taken.live
        came = {result.leg.id for result in taken.results if result.outcome.is_taken}
        left = tuple(leg for leg in live.document.legs if leg.id in came)
        is_up = len(left) >= 2
        consoles = [leg for leg in left if leg.role == "console"]
        is_held = bool(consoles) and all(leg.hold for leg in consoles)
        live.change(legs=left, state=CallState.HELD if is_held else CallState.UP, reason="")
        self._tell(taken.plan, taken.ground, taken.results, is_up=is_up)
        if not is_up:
            live.task = None
            controller.spawn(self._end_later(taken))
            return
        for messages in (*taken.waiting.values(), taken.others):
            for message in all_of(messages):
                live.tell(message)
        controller.lead(live)
        if (taken.plan.call.recording or {}).get("running"):
            try:
                await controller.recordings.begin(live)
            except EngineError as error:
                controller.log.error("%s is not recorded: %s", live.document.id, error)

    async def _end_later(self, taken: Taken) -> None:
        """One is left: it is told soon, but not at once, as its partner may yet call back."""
        others = [result.outcome for result in taken.results if not result.outcome.is_taken]
        are_gone = all(outcome is Outcome.GONE for outcome in others)
        waited = max(result.seconds for result in taken.results)
        grace = GRACE_GONE if are_gone else max(GRACE_GONE, min(GRACE, ALONE - waited))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                while not isinstance(await taken.live.inbox.get(), Ended):
                    pass
        if self._controller.calls.get(taken.live.document.id) is taken.live:
            await self._give_up(taken.live, "party_lost")

    async def _end(self, taken: Taken, claimed: Call, left: Sequence[Leg]) -> None:
        """The gateway has hung up, or another node was quicker. The call is over when its parties
        that are left have been told, and not before: if this process or node dies, the next one
        finds it as it was, and who ordered it orders it again.
        """
        await asyncio.sleep(LEFT_ALONE)
        await self._tell_over(left, claimed.generation)
        self._controller.lost.pop(claimed.id, None)
        self._controller.publish(
            replace(claimed, legs=(), state=CallState.ENDED, reason=Outcome.GONE.value)
        )
        self._tell(taken.plan, taken.ground, taken.results, is_up=False)

    async def _tell_over(self, legs: Sequence[Leg], generation: int) -> None:
        """Who is still in the old dialog talks to nobody and is told so. A dialog that was taken
        meanwhile is none any more, or has a CSeq above ours, and refuses it.
        """
        if self._controller.adopter is not None:
            for leg in legs:
                await self._controller.adopter.end(leg, generation)

    def go_on(self, live: LiveCall, came: Sequence[Leg], legs: Mapping[str, bool]) -> None:
        """Finish what the controller before this one has begun: it died within a takeover. Of the
        engine's ``legs`` (leg -> is it answered) those of its unfinished attempts are ended first,
        but for one that can only be of the one party that is missing.
        """
        missing = [leg for leg in live.document.live_legs() if leg not in came]
        known = {leg.id for leg in came}
        attempts = f"{live.document.id}.{live.document.generation}-"
        stale = [leg for leg in legs if leg.startswith(attempts) and leg not in known]
        plan = Plan(call=live.document, lock=came[0], others=tuple(missing))
        results = [LegResult(old=leg, leg=leg, outcome=Outcome.TAKEN) for leg in came]
        taken = Taken(plan=plan, live=live, ground="own", results=results)
        taken.outside += [came[0].id] if came[0].hold != "local" else []
        self._controller.log.warning("%s: its takeover goes on", live.document.id)
        begun: Begun | None = None
        if len(missing) == len(stale) == 1 and self._attempts.is_replacing(missing[0], stale[0]):
            name = stale.pop()
            begun = (name, legs[name])
            self._attempts.expect(taken, name)
        self._controller.spawn(self._go_on(taken, stale, begun))

    async def _go_on(self, taken: Taken, stale: Sequence[str], begun: Begun | None) -> None:
        taken.live.task = asyncio.current_task()
        pump = asyncio.create_task(self._pump(taken))
        try:
            await asyncio.gather(*(self._controller.hang_up(leg) for leg in stale))
            await self._take_others(taken, names="ef", begun=begun)
        except EngineError as error:
            self._controller.log.warning("%s: not taken: %s", taken.plan.call.id, error)
            taken.live.task = None  # the next survey tells what became of it
            return
        finally:
            pump.cancel()
        await self._hand_over(taken)

    async def _take_others(
        self, taken: Taken, *, names: str = "ab", begun: Begun | None = None
    ) -> None:
        """Take who follows the lock, together."""
        numbered = enumerate(taken.plan.others, 2)
        await asyncio.gather(
            *(self._take_other(taken, leg, number, names, begun) for number, leg in numbered)
        )
        await self._end_comfort(taken, taken.results[0].leg.id)
        if taken.outside:  # who came is held, or nobody did
            try:
                await self._join(taken, taken.outside[0])
            except EngineError as error:  # it has hung up: the call is told so by itself
                self._log_unless_lost(taken, error)

    async def _take_other(
        self, taken: Taken, leg: Leg, number: int, names: str, begun: Begun | None
    ) -> None:
        controller, live = self._controller, taken.live
        if begun is not None:
            result = await self._attempts.finish(taken, leg, *begun)
        else:
            result = await self._attempts.take(taken, leg, number, names=names, patience=PATIENCE)
            names = "cd"
        is_lost = result.outcome is Outcome.UNREACHABLE and result.seconds < PATIENCE
        if is_lost or (begun is not None and not is_final(result.outcome)):
            # The first party is there and waits: what was lost on the way gets a second chance.
            await asyncio.sleep(AGAIN if is_lost else 0)
            taken.results.remove(result)
            result = await self._attempts.take(taken, leg, number, names=names)
        if not result.outcome.is_taken:
            return
        try:
            if leg.hold != "local":
                await self._end_comfort(taken, taken.results[0].leg.id)
                await self._join(taken, result.leg.id)
            await self._attempts.note(taken, result)
        except EngineError as error:
            if not controller.engine.is_up:
                raise
            # It went as it came: the others' call is not harmed by it.
            controller.log.warning("%s: %s did not get in: %s", live.document.id, leg.party, error)
            result.outcome = Outcome.REFUSED
            await controller.hang_up(result.leg.id)
            return
        if len(taken.plan.others) > 1:  # else the whole call is told in a moment
            live.publish()

    async def _join(self, taken: Taken, leg_id: str) -> None:
        """Put a leg into the room, with the one that waits for it, if any: in one request."""
        waiting = [leg for leg in taken.outside if leg != leg_id]
        taken.outside.clear()
        try:
            await self._controller.engine.join(taken.live.document.room, [*waiting, leg_id])
        except EngineError:
            taken.outside += waiting
            raise

    async def _comfort(self, taken: Taken, leg_id: str) -> None:
        await asyncio.sleep(COMFORT_AFTER)
        taken.is_comforted = True
        await self._controller.engine.ring(leg_id)

    async def _end_comfort(self, taken: Taken, leg_id: str) -> None:
        comfort, taken.comfort = taken.comfort, None
        if comfort is None:
            return
        if not taken.is_comforted:
            comfort.cancel()
            return
        try:
            await comfort
            await self._controller.engine.stop_ringing(leg_id)
        except EngineError as error:  # it has hung up: the call is told so by itself
            self._log_unless_lost(taken, error)

    def _log_unless_lost(self, taken: Taken, error: EngineError) -> None:
        if not self._controller.engine.is_up:
            raise error
        self._controller.log.info("%s: %s", taken.plan.call.id, error)

    # --- around ----------------------------------------------------------------------------------

    async def _pump(self, taken: Taken) -> None:
        """Take what the engine tells to the leg it is about; the call has no task yet."""
        while True:
            message = await taken.live.inbox.get()
            leg = getattr(message, "leg", "")
            taken.waiting.get(leg, taken.others).put_nowait(message)

    def _forget(self, live: LiveCall) -> None:
        for name in [name for name, call in self._controller.legs.items() if call is live]:
            del self._controller.legs[name]

    async def _give_up(self, live: LiveCall, reason: str) -> None:
        self._controller.calls.setdefault(live.document.id, live)
        live.is_published = True
        await self._controller.finish(live, reason)

    def _tell(self, plan: Plan, ground: str, results: Sequence[LegResult], *, is_up: bool) -> None:
        self._controller.tell(
            {
                "kind": "taken_over",
                "call": plan.call.id,
                "from": plan.call.owner,
                "ground": ground,
                "legs": [result.to_json() for result in results],
                "up": is_up,
            }
        )
