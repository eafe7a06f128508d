"""The course of a call that comes in: admission, ringing consoles, the first to answer.

Order of the steps that another node depends on: the document with both dialogs is handed out, and a
peer has acknowledged it or cannot in time, before the 200 OK leaves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from controlone_ha.conference.engine import Answered, Ended, EngineError, Target
from controlone_ha.conference.live_call import (
    CONSOLE,
    CallOver,
    LiveCall,
    PresenceChanged,
    answered,
    with_dialog,
)
from controlone_ha.core.admission import (
    BUSY,
    NO_ANSWER,
    NO_CONSOLE,
    QueueRule,
    Refusal,
    Verdict,
    admit,
    overflow,
)
from controlone_ha.core.calls import CallState, Leg, LegState
from controlone_ha.core.ringing import rounds
from controlone_ha.errors import RefusedError

if TYPE_CHECKING:
    from controlone_ha.conference.controller import Controller

ANSWER_TIMEOUT = 20.0
SHORTEST_ROUND = 1.0
"""Seconds: when every console of a queue has refused sooner, ringing again would be a storm."""


async def serve(controller: Controller, call: LiveCall, caller: Leg) -> None:
    """Lead an incoming call to a console; return when it is up. Raises ``CallOver``."""
    number = call.document.number
    await _admission(controller, call, caller)
    queue: QueueRule | None = controller.rules.queue(number)
    visited: set[str] = set()
    refusal: Refusal = NO_ANSWER
    while queue is not None:
        visited.add(queue.number)
        call.change(
            publish=False,  # with the consoles that ring
            queue=queue.number,
            state=CallState.RINGING,
            priority=queue.priority,
        )
        winner, refusal = await _distribute(controller, call, caller, queue)
        if winner is not None:
            await _connect(controller, call, caller, winner)
            if queue.record:
                await _record(controller, call)
            return
        queue = overflow(queue, frozenset(visited), controller.rules)
    await refuse(controller, call, caller, refusal)


async def _record(controller: Controller, call: LiveCall) -> None:
    """Record a call; one that cannot be recorded goes on."""
    try:
        await controller.recordings.begin(call)
    except EngineError as error:
        controller.log.error("%s is not recorded: %s", call.document.id, error)
        controller.tell_event("not_recorded", call, reason=str(error))


async def refuse(controller: Controller, call: LiveCall, caller: Leg, refusal: Refusal) -> None:
    """Give the caller a final answer; raises ``CallOver``."""
    call.close_leg(caller.id)
    await controller.engine.hang_up(caller.id, refusal)
    controller.refused[refusal.code] = controller.refused.get(refusal.code, 0) + 1
    raise CallOver(refusal.code)


async def _admission(controller: Controller, call: LiveCall, caller: Leg) -> None:
    while True:
        admission = admit(
            call.document.number, controller.rules, controller.situation(call.document.number)
        )
        if admission.verdict is Verdict.ACCEPT:
            return
        if admission.refusal is not None:
            await refuse(controller, call, caller, admission.refusal)
        message = await call.next_message(controller.settling_left())
        if isinstance(message, Ended) and message.leg == caller.id:
            call.close_leg(caller.id)
            raise CallOver("caller_gone")
        if callable(message):
            await message()


async def _distribute(
    controller: Controller, call: LiveCall, caller: Leg, queue: QueueRule
) -> tuple[Leg | None, Refusal]:
    """Ring the consoles of a queue; return who answered, or with what the call may be refused."""
    deadline = time.monotonic() + queue.ring_timeout
    is_ringing = False
    refusal = NO_ANSWER
    while True:
        began = time.monotonic()
        consoles = controller.presence.of_queue(queue.number)
        if not consoles:
            return None, NO_CONSOLE
        groups = rounds(
            queue.strategy,
            consoles,
            busy=controller.busy_consoles(),
            last_first=controller.last_first.get(queue.number, ""),
            last_call=controller.last_call,
        )
        controller.last_first[queue.number] = groups[0][0]
        busy = 0
        for group in groups:
            step = (
                deadline if len(groups) == 1 else min(deadline, time.monotonic() + queue.ring_step)
            )
            if not is_ringing:
                is_ringing = True
                controller.spawn(_ring(controller, caller))
            winner, refused = await _ring_group(controller, call, caller, queue, group, step)
            if winner is not None:
                return winner, refusal
            busy += refused
        if not controller.presence.of_queue(queue.number):
            return None, NO_CONSOLE
        left = time.monotonic() < deadline - SHORTEST_ROUND
        if busy == sum(len(group) for group in groups):
            refusal = BUSY
        if len(groups) == 1 or not left or time.monotonic() - began < SHORTEST_ROUND:
            return None, refusal


async def _ring(controller: Controller, caller: Leg) -> None:
    """Send 180; a caller who is gone by now needs none."""
    try:
        await controller.engine.ring(caller.id)
    except EngineError:
        return


async def _ring_group(
    controller: Controller,
    call: LiveCall,
    caller: Leg,
    queue: QueueRule,
    group: Sequence[str],
    deadline: float,
) -> tuple[Leg | None, int]:
    """Ring some consoles until ``deadline``; return who answered and how many were busy."""
    ringing = call.ringing = {}
    busy = 0
    try:
        await asyncio.gather(
            *(_ring_console(controller, call, queue, name, ringing, deadline) for name in group)
        )
        call.publish()
        while ringing:
            message = await call.next_message(deadline - time.monotonic())
            if message is None:
                return None, busy
            if isinstance(message, Answered) and message.leg in ringing:
                return ringing.pop(message.leg), busy
            if isinstance(message, Ended):
                if message.leg == caller.id:
                    call.close_leg(caller.id)
                    raise CallOver("caller_gone")
                if ringing.pop(message.leg, None) is not None:
                    call.close_leg(message.leg)
                    call.change()
                    busy += message.status in (486, 600)
            elif isinstance(message, PresenceChanged):
                await _follow_presence(controller, call, queue, group, ringing, deadline)
            elif callable(message):
                await message()
        return None, busy
    finally:
        for leg_id in ringing:
            call.close_leg(leg_id)
            controller.spawn(controller.hang_up(leg_id))


async def answer(controller: Controller, call: LiveCall, name: str) -> None:
    """A console answers by its own controls: its phone is called anew, to answer by itself."""
    found = next((leg for leg in call.ringing.values() if leg.party == name), None)
    console = controller.presence.get(name)
    if found is None or console is None:
        raise RefusedError(f"this call does not ring at {name}")
    del call.ringing[found.id]
    call.close_leg(found.id)
    await controller.hang_up(found.id)
    leg = call.new_leg(CONSOLE, name)
    call.put(replace(leg, remote_target=console.sip))
    call.ringing[leg.id] = leg
    try:
        await controller.engine.call(
            leg.id,
            Target(uri=console.sip, answer_at_once=True),
            caller=call.document.caller or call.document.number,
            timeout=ANSWER_TIMEOUT,
        )
    except EngineError as error:
        call.ringing.pop(leg.id, None)
        call.close_leg(leg.id)
        raise RefusedError(f"{name} cannot be called: {error}") from error


async def _follow_presence(
    controller: Controller,
    call: LiveCall,
    queue: QueueRule,
    group: Sequence[str],
    ringing: dict[str, Leg],
    deadline: float,
) -> None:
    """Cancel consoles that went; where all are rung, ring those that came."""
    present = controller.presence.of_queue(queue.number)
    before = set(ringing)
    for leg_id, leg in list(ringing.items()):
        if leg.party not in present:
            del ringing[leg_id]
            call.close_leg(leg_id)
            controller.spawn(controller.hang_up(leg_id))
    if queue.strategy.value == "all":
        rung = {leg.party for leg in call.document.legs if leg.role == CONSOLE}
        for name in present:
            if name not in rung and name not in group:
                await _ring_console(controller, call, queue, name, ringing, deadline)
    if set(ringing) != before:
        call.change()


async def _ring_console(
    controller: Controller,
    call: LiveCall,
    queue: QueueRule,
    name: str,
    ringing: dict[str, Leg],
    deadline: float,
) -> None:
    console = controller.presence.of_queue(queue.number).get(name)
    if console is None:
        return
    leg = call.new_leg(CONSOLE, name)
    call.put(replace(leg, remote_target=console.sip))
    ringing[leg.id] = leg
    try:
        await controller.engine.call(
            leg.id,
            Target(uri=console.sip),
            caller=call.document.caller or call.document.number,
            timeout=deadline - time.monotonic() + 5.0,
        )
    except EngineError as error:
        controller.log.warning("%s cannot be called: %s", name, error)
        del ringing[leg.id]
        call.close_leg(leg.id)


async def _connect(controller: Controller, call: LiveCall, caller: Leg, winner: Leg) -> None:
    """Bridge both, hand the call out, answer the caller."""
    room = call.document.id
    dialog, _ = await asyncio.gather(
        controller.engine.dialog(winner.id),
        controller.engine.open_room(room, [caller.id, winner.id]),
    )
    now = time.time()
    known = call.document.leg(caller.id) or caller
    call.put(answered(known))
    call.put(
        with_dialog(winner, dialog, LegState.CONFIRMED),
        state=CallState.UP,
        answered=now,
        room=room,
    )
    call.publish()
    await controller.wait_protected(call.document)
    if known.state is LegState.CONFIRMED:  # taken over while it waited
        await controller.engine.stop_ringing(caller.id)
    else:
        await controller.engine.answer(caller.id)
