"""The Conference Server's controller: owner of its node's live calls.

Theory of operation. The engine tells what happens to legs; each call has a task that leads it
(``incoming`` or ``outgoing``, then ``talking``). Every change of a call is a new version of its
document, which is kept on disk for the next controller (``Keeper``) and handed to followers: `ha`,
which sends it to the peers, and the Console Server.

The engine outlives this process. When the controller comes back, it compares what it kept with what
the engine has: calls whose parties are there go on, a call that was still ringing is rung again,
and what belongs to no call is hung up. When the engine has died its calls are *lost*: they stay,
marked so, for as long as somebody may want to take them over, and end then.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, Protocol

from controlone_ha.conference import incoming, outgoing, talking
from controlone_ha.conference.asterisk_files import Gateway
from controlone_ha.conference.engine import (
    Adopter,
    Answered,
    Down,
    Ended,
    Engine,
    EngineError,
    Event,
    HoldChanged,
    Offered,
    Recorded,
    Ringing,
    Survey,
    Target,
    Up,
)
from controlone_ha.conference.handover import Handover
from controlone_ha.conference.keeper import Keeper
from controlone_ha.conference.live_call import (
    CONSOLE,
    GATEWAY,
    CallOver,
    LiveCall,
    PresenceChanged,
    with_dialog,
)
from controlone_ha.conference.presence import Presence
from controlone_ha.conference.recordings import Recordings
from controlone_ha.conference.returning import ReturningCallers
from controlone_ha.conference.takeover import Takeovers
from controlone_ha.config.settings import ConferenceSettings
from controlone_ha.core.admission import NO_ANSWER, NOT_ACTIVE, Refusal, Rules, Situation
from controlone_ha.core.calls import Call, CallState, Leg, LegState
from controlone_ha.core.routing import Attempt
from controlone_ha.core.takeover import TAKING
from controlone_ha.errors import ControlOneError

JsonObject = dict[str, Any]

LOST_KEPT = 120.0
"""Seconds that a lost call stays: takeovers are long over by then."""

PROTECTION_WAIT = 0.1
"""Seconds that a 200 OK waits for a peer's acknowledgement at most; calls go on without it."""

ORPHAN_WAIT = 1.0

YOUNG = 15.0
"""Age in seconds up to which an engine counts as just activated: consoles may be on their way."""


class Followers(Protocol):
    """Who is told of every change; ``wait_protected`` returns at once when nobody can protect."""

    def call_changed(self, call: Call) -> None: ...

    def event(self, event: JsonObject) -> None: ...

    async def wait_protected(self, call: Call, timeout: float) -> None: ...


class Controller:
    """Leads the calls of one engine. Implements ``EngineListener``."""

    def __init__(
        self,
        engine: Engine,
        settings: ConferenceSettings,
        *,
        node: str,
        keeper: Keeper,
        recordings: Recordings,
        followers: Followers,
    ) -> None:
        self.engine = engine
        self.node = node
        self.log = logging.getLogger("conference")
        self.presence = Presence()
        self.recordings = recordings
        self.adopter: Adopter | None = None
        self.calls: dict[str, LiveCall] = {}
        self.lost: dict[str, Call] = {}
        self.legs: dict[str, LiveCall] = {}
        self.last_first: dict[str, str] = {}
        self.last_call: dict[str, float] = {}
        self.refused: dict[str, int] = {}
        self.is_ordered_active = True
        self.order_reason = ""
        self._keeper = keeper
        self._followers = followers
        self._tasks: set[asyncio.Task[Any]] = set()
        self._settled_at = 0.0
        self._survey_done = asyncio.Event()
        self.takeovers = Takeovers(self)
        self.handover = Handover(self)
        self.returning = ReturningCallers(self)
        self.configure(settings)

    def configure(self, settings: ConferenceSettings) -> None:
        """Take settings; calls that are here go on under the old ones."""
        self.settings = settings
        self.rules = Rules(queues=settings.queues, max_calls=settings.max_calls)
        self.recordings.recorder.address = settings.recorder
        self.recordings.recorder.url = settings.recorder_url
        self.recordings.recorder.is_by_consoles = settings.recorder_source == "console"

    async def start(self) -> None:
        """Take up what the last controller kept, then connect to the engine."""
        for call in self._keeper.load():
            if call.state is CallState.LOST:
                self.lost[call.id] = call
                self.spawn(self._end_lost(call.id))
            else:
                self.calls[call.id] = LiveCall(self, call)
                self.calls[call.id].is_published = True
        await self.engine.start(self)

    async def stop(self) -> None:
        """Let go: calls stay as they are in the engine."""
        for call in self.calls.values():
            if call.task is not None:
                call.task.cancel()
        for task in list(self._tasks):
            task.cancel()
        await self.engine.stop()
        self._keeper.close()

    # --- tasks -----------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run something beside; what goes wrong is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is None:
            return
        error = task.exception()
        if isinstance(error, EngineError):
            self.log.warning("%s", error)
        else:
            self.log.error("a task of the controller ended", exc_info=error)

    # --- the engine tells ------------------------------------------------------------------------

    def on_engine(self, event: Event) -> None:
        """Take an event of the engine to the call it belongs to."""
        match event:
            case Offered():
                self._offered(event)
            case Ringing() | Answered() | Ended() | HoldChanged():
                call = self.legs.get(event.leg)
                if call is not None:
                    call.tell(event)
                elif isinstance(event, Answered):
                    # The answer crossed our CANCEL, or it was for a call that is over.
                    self.spawn(self.hang_up(event.leg))
            case Recorded():
                self.recordings.ended(event)
            case Up():
                self._came_up(event)
            case Down():
                self._went_down(event)

    def adopted_changed(self, name: str) -> None:
        """The party of an adopted leg has changed its dialog: peers need the new state."""
        call = self.legs.get(name)
        leg = call.document.leg(name) if call is not None else None
        if call is None or leg is None or not leg.call_id or self.adopter is None:
            return
        fresh = self.adopter.leg_of(name, leg)
        if fresh != leg:
            call.put(fresh, publish=call.is_published)

    def _offered(self, event: Offered) -> None:
        now = time.time()
        call = LiveCall(
            self,
            Call(
                id=f"{self.node}-{secrets.token_hex(6)}",
                owner=self.node,
                number=event.number,
                caller=event.caller,
                queue=event.number,
                created=self.returning.waiting_since(event.caller, event.number) or now,
                changed=now,
            ),
        )
        leg = Leg(
            id=event.leg,
            role=GATEWAY,
            party=event.caller,
            incoming=True,
            gateway=event.gateway,
            since=now,
        )
        if event.dialog is not None:
            leg = with_dialog(leg, event.dialog, leg.state)
        self.calls[call.document.id] = call
        call.put(leg)
        self.lead(call, incoming.serve(self, call, leg))

    def dial(self, console: str, sip: str, number: str, queue: str = "") -> Call:
        """Begin an outgoing call; return its document."""
        now = time.time()
        document = Call(
            id=f"{self.node}-{secrets.token_hex(6)}",
            owner=self.node,
            direction="out",
            state=CallState.RINGING,
            number=number,
            caller=console,
            queue=queue,
            created=now,
            changed=now,
        )
        call = LiveCall(self, document)
        self.calls[document.id] = call
        call.publish()
        self.lead(call, outgoing.dial(self, call, sip))
        return document

    # --- a call's task ---------------------------------------------------------------------------

    def lead(self, call: LiveCall, beginning: Coroutine[Any, Any, None] | None = None) -> None:
        """Give a call its task; without a beginning it is up already."""
        call.task = asyncio.get_running_loop().create_task(self._course(call, beginning))

    async def _course(self, call: LiveCall, beginning: Coroutine[Any, Any, None] | None) -> None:
        """Lead a call from its beginning to its end, whatever happens."""
        try:
            if beginning is not None:
                await beginning
            await talking.talk(self, call)
        except CallOver as over:
            await self.finish(call, over.reason)
        except EngineError as error:
            if self.engine.is_up:
                self.log.warning("%s: %s", call.document.id, error)
                await self.finish(call, "engine_refused")
            else:
                # Nobody knows what became of it: the next survey tells.
                self.log.warning("%s: engine lost in its course: %s", call.document.id, error)
                call.task = None
        except Exception:  # the loop's wrapper: one call's fault must not stay in the engine
            self.log.exception("%s: its course failed", call.document.id)
            await self.finish(call, "internal_error")

    async def finish(self, call: LiveCall, reason: str) -> None:
        """End everything a call has, then its document."""
        document = call.document
        # 603 is said by admission alone: whoever still waits gets an answer of another kind.
        refusal = NO_ANSWER if reason == "hung_up" else NOT_ACTIVE
        legs = {
            leg.id: refusal if leg.incoming and leg.state is LegState.EARLY else None
            for leg in document.live_legs()
        }
        for leg in document.live_legs():
            self.note_end(leg)
            call.close_leg(leg.id)
        await self.recordings.finish(call)
        work = [self.hang_up(leg, answer) for leg, answer in legs.items()]
        if document.room:
            work.append(self._close_room(document.room))
        await asyncio.gather(*work)
        self.calls.pop(document.id, None)
        if call.is_published:
            call.change(state=CallState.ENDED, reason=reason)

    async def hang_up(self, leg: str, refusal: Refusal | None = None) -> None:
        """End a leg; an engine that is gone has done it already."""
        try:
            await self.engine.hang_up(leg, refusal)
        except EngineError as error:
            if self.engine.is_up:
                self.log.warning("%s", error)

    async def _close_room(self, room: str) -> None:
        try:
            await self.engine.close_room(room)
        except EngineError as error:
            if self.engine.is_up:
                self.log.warning("%s", error)

    async def order(self, call: LiveCall, work: Callable[[], Awaitable[Any]]) -> Any:
        """Have the call's task carry out a console's order; return its result or raise."""
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def carry_out() -> None:
            try:
                result = await work()
            except CallOver:
                if not done.done():
                    done.set_result(None)
                raise
            except ControlOneError as error:  # it belongs to whoever asked
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(result)

        call.tell(carry_out)
        return await asyncio.wait_for(done, 10.0)

    # --- what decisions need ---------------------------------------------------------------------

    def situation(self, number: str) -> Situation:
        """Return what admission has to know."""
        return Situation(
            is_active=self.is_ordered_active,
            is_settled=self.settling_left() <= 0,
            calls=len(self.calls) - 1,
            monitored={number: len(self.presence.of_queue(number))},
        )

    def settling_left(self) -> float:
        """Return for how many seconds calls may still wait for consoles."""
        return max(0.0, self._settled_at - time.monotonic())

    def settle(self) -> None:
        """Begin to settle: consoles may be on their way."""
        self._settled_at = time.monotonic() + self.settings.settle

    def presence_changed(self) -> None:
        """Consoles came or went: calls that wait or ring look again."""
        for call in self.calls.values():
            if call.document.state in (CallState.QUEUED, CallState.RINGING):
                call.tell(PresenceChanged())

    def busy_consoles(self) -> set[str]:
        """Return the consoles that are in an answered call."""
        return {
            leg.party
            for call in self.calls.values()
            if call.document.state in (CallState.UP, CallState.HELD)
            for leg in call.document.live_legs(CONSOLE)
        }

    def gateway_target(self, way: Attempt) -> Target:
        """Return whom to call for an attempt."""
        gateway = self.settings.gateways[way.gateway]
        known = Gateway(
            name=gateway.name, host=gateway.host, port=gateway.port, transport=gateway.transport
        )
        return Target(uri=known.uri_of(way.number), gateway=way.gateway)

    def note_end(self, leg: Leg) -> None:
        """Remember when a console's last call ended (strategy ``least_recent``)."""
        if leg.role == CONSOLE:
            self.last_call[leg.party] = time.monotonic()

    # --- followers -------------------------------------------------------------------------------

    def publish(self, call: Call) -> None:
        """Hand a document out."""
        self._keeper.save(call)
        self._followers.call_changed(call)

    def tell(self, event: JsonObject) -> None:
        """Tell followers what no document shows."""
        self._followers.event(event)

    def tell_event(self, kind: str, call: LiveCall, **details: Any) -> None:
        """Tell what no document shows."""
        self._followers.event({"kind": kind, "call": call.document.id, **details})

    async def wait_protected(self, call: Call) -> None:
        """Wait until a peer has the document, or cannot in time."""
        await self._followers.wait_protected(call, PROTECTION_WAIT)

    def documents(self) -> list[Call]:
        """Return all published calls, lost ones included."""
        live = [call.document for call in self.calls.values() if call.is_published]
        return live + list(self.lost.values())

    # --- engine comes and goes -------------------------------------------------------------------

    def _came_up(self, event: Up) -> None:
        is_same = event.identity == self._keeper.engine
        self.log.info("engine is up%s", " (as before)" if is_same else "")
        if event.age < YOUNG or not self.presence.is_told:
            self.settle()
        if is_same:
            self.spawn(self._resynchronise())
            return
        self._keeper.set_engine(event.identity)
        self._lose("engine_restarted")
        self.spawn(self._resynchronise())
        if self.is_ordered_active and not self.handover.gives_lost:
            self.takeovers.recover()

    def _went_down(self, event: Down) -> None:
        self.log.warning("engine %s", "has died" if event.is_dead else "is not connected")
        if event.is_dead:
            self._lose("engine_died")

    def _lose(self, reason: str) -> None:
        """Mark every call as lost: its legs stay known, for whoever takes them."""
        before = len(self.lost)
        for call in list(self.calls.values()):
            if call.task is not None:
                call.task.cancel()
            for leg in call.document.legs:
                self.legs.pop(leg.id, None)
            del self.calls[call.document.id]
            self.handover.taken(call.document.id)
            self.recordings.forget(call.document.id)
            if call.is_published or (call.document.sequence > 1 and call.document.room):
                lost = call.document.changed_to(time.time(), state=CallState.LOST, reason=reason)
                self.lost[lost.id] = lost
                self.publish(lost)
                self.spawn(self._end_lost(lost.id))
        if len(self.lost) > before:
            self.log.warning("%d calls are lost: %s", len(self.lost) - before, reason)

    async def release(self, call_id: str, generation: int, owner: str) -> bool:
        """Another node owns a call since that generation: drop what is here of it, and say so."""
        lost = self.lost.get(call_id)
        if lost is not None and lost.generation < generation:
            del self.lost[call_id]
            self.publish(lost.changed_to(time.time(), state=CallState.ENDED, reason="taken"))
            return True
        call = self.calls.get(call_id)
        if call is None or call.document.generation >= generation:
            return False
        self.log.warning("%s is of %s now: its legs here are dropped", call_id, owner)
        if self.handover.taken(call_id) is not None:
            self.spawn(self.handover.let_go(call))
            return True
        if call.task is not None:
            call.task.cancel()
        if self.adopter is not None:
            for leg in call.document.live_legs():
                if leg.id in self.adopter.names:
                    self.adopter.forget(leg.id)
        await self.finish(call, "taken")
        return True

    async def _end_lost(self, call_id: str) -> None:
        await asyncio.sleep(LOST_KEPT)
        call = self.lost.pop(call_id, None)
        if call is not None:
            self.publish(call.changed_to(time.time(), state=CallState.ENDED))

    async def _resynchronise(self) -> None:
        """Compare what is known with what the engine has; make both agree."""
        # What comes up while the survey is on its way is not in it, and not missing either.
        before = dict(self.legs)
        survey = await self.engine.survey()
        for call in list(self.calls.values()):
            if call.task is None or call.task.done():
                self._resume(call, survey)
        for leg_id, call in before.items():
            if leg_id not in survey.legs and call.document.leg(leg_id) is not None:
                call.tell(Ended(leg=leg_id, status=0, cause=0))
        for room in survey.rooms:
            if room.startswith(f"{self.node}-") and room not in self.calls:
                await self._close_room(room)
        orphans = [leg for leg in survey.legs if leg not in self.legs]
        if orphans:
            await asyncio.sleep(ORPHAN_WAIT)  # one whose first event is still on its way is none
            survey = await self.engine.survey()
            for orphan in orphans:
                if orphan in survey.legs and orphan not in self.legs:
                    self.log.warning("leg %s belongs to no call: hung up", orphan)
                    await self.hang_up(orphan, NOT_ACTIVE)

    def _resume(self, call: LiveCall, survey: Survey) -> None:
        """Go on with a call of the last controller."""
        document = call.document
        legs = tuple(leg for leg in document.legs if leg.is_live and leg.id in survey.legs)
        if document.state not in (CallState.UP, CallState.HELD):
            # Who called is in an early dialog of its own, or was taken over while it waited.
            callers = [leg for leg in legs if leg.role == GATEWAY and document.direction == "in"]
            for leg in legs:
                if leg not in callers:
                    self.spawn(self.hang_up(leg.id))
            call.document = replace(document, legs=tuple(callers))
            for leg in callers:
                self.legs[leg.id] = call
            beginning = incoming.serve(self, call, callers[0]) if callers else None
            self.lead(call, beginning)
            return
        for leg in legs:
            self.legs[leg.id] = call
        if document.reason == TAKING and legs:
            self.takeovers.go_on(call, legs, survey.legs)
            return
        call.document = replace(document, legs=legs)
        self.log.info("%s goes on with %d parties", document.id, len(legs))
        self.recordings.resume(call)
        self.lead(call, None)
