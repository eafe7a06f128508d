"""The course of a call that a console makes: its own phone, then one route after the other."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from controlone_ha.conference.engine import Answered, Ended, EngineError, Ringing, Target
from controlone_ha.conference.live_call import CONSOLE, GATEWAY, CallOver, LiveCall, with_dialog
from controlone_ha.core.calls import CallState, Leg, LegState
from controlone_ha.core.routing import SILENCE, Attempt, attempts, is_next_tried

if TYPE_CHECKING:
    from controlone_ha.conference.controller import Controller

CONSOLE_TIMEOUT = 30.0
RING_TIMEOUT = 120.0
NO_ROUTE = 404


async def dial(controller: Controller, call: LiveCall, sip: str) -> None:
    """Lead a call to the number its document names; return when it is up. Raises ``CallOver``."""
    console = await _call_console(controller, call, sip)
    ways = attempts(call.document.number, controller.settings.routes, controller.settings.gateways)
    status = NO_ROUTE
    for way in ways:
        status = await _try(controller, call, console, way)
        if status == 200:
            return
        controller.log.info(
            "%s: gateway %s: %s", call.document.id, way.gateway, status or "no sign of life"
        )
        controller.tell_event("route_failed", call, gateway=way.gateway, status=status)
        if not is_next_tried(status):
            break
    raise CallOver("no_route" if not ways else f"failed_{status or 408}")


async def _call_console(controller: Controller, call: LiveCall, sip: str) -> Leg:
    leg = call.new_leg(CONSOLE, call.document.caller)
    call.put(replace(leg, remote_target=sip), publish=True)
    try:
        await controller.engine.call(
            leg.id,
            Target(uri=sip, answer_at_once=True),
            caller=call.document.number,
            timeout=CONSOLE_TIMEOUT,
        )
    except EngineError as error:
        call.close_leg(leg.id)
        raise CallOver("console_unreachable") from error
    while True:
        message = await call.next_message(CONSOLE_TIMEOUT)
        if message is None or (isinstance(message, Ended) and message.leg == leg.id):
            raise CallOver("console_unreachable")
        if isinstance(message, Answered) and message.leg == leg.id:
            break
        if callable(message):
            await message()
    dialog = await controller.engine.dialog(leg.id)
    confirmed = with_dialog(leg, dialog, LegState.CONFIRMED)
    call.put(confirmed, publish=True)
    return confirmed


async def _try(controller: Controller, call: LiveCall, console: Leg, way: Attempt) -> int:
    """Ask one gateway; return 200, or its refusal (``SILENCE``: none)."""
    leg = call.new_leg(GATEWAY, way.number, way.gateway)
    target = controller.gateway_target(way)
    call.put(replace(leg, remote_target=target.uri), state=CallState.RINGING, publish=True)
    deadline = time.monotonic() + controller.settings.silence
    try:
        await controller.engine.call(
            leg.id, target, caller=call.document.caller, timeout=RING_TIMEOUT
        )
    except EngineError as error:
        controller.log.warning("gateway %s cannot be asked: %s", way.gateway, error)
        call.close_leg(leg.id)
        return SILENCE
    try:
        while True:
            message = await call.next_message(deadline - time.monotonic())
            if message is None:
                return SILENCE
            if isinstance(message, Ringing) and message.leg == leg.id:
                deadline = time.monotonic() + RING_TIMEOUT
            elif isinstance(message, Answered) and message.leg == leg.id:
                await _connect(controller, call, console, leg)
                return 200
            elif isinstance(message, Ended):
                if message.leg == console.id:
                    raise CallOver("console_hung_up")
                if message.leg == leg.id:
                    return message.status
            elif callable(message):
                await message()
    finally:
        found = call.document.leg(leg.id)
        if found is not None and found.state is not LegState.CONFIRMED:
            call.close_leg(leg.id)
            controller.spawn(controller.hang_up(leg.id))


async def _connect(controller: Controller, call: LiveCall, console: Leg, leg: Leg) -> None:
    room = call.document.id
    dialog, _ = await asyncio.gather(
        controller.engine.dialog(leg.id),
        controller.engine.open_room(room, [console.id, leg.id]),
    )
    call.put(
        with_dialog(leg, dialog, LegState.CONFIRMED),
        state=CallState.UP,
        answered=time.time(),
        room=room,
        publish=True,
    )
