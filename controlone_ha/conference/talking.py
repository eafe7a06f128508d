"""A call that is up: parties come and go, consoles hold, resume, add, remove, transfer, record.

A console's order is carried out by the call's own task, between two messages, so it never meets a
half-changed call. It is refused with ``RefusedError`` when it makes no sense now.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from controlone_ha.conference.engine import Answered, Ended, EngineError, HoldChanged, Target
from controlone_ha.conference.live_call import (
    CONSOLE,
    GATEWAY,
    CallOver,
    LiveCall,
    PresenceChanged,
    with_dialog,
)
from controlone_ha.core.calls import CallState, Leg, LegState
from controlone_ha.core.routing import attempts, is_dialled_number
from controlone_ha.errors import RefusedError

if TYPE_CHECKING:
    from controlone_ha.conference.controller import Controller

ADD_TIMEOUT = 45.0
"""Seconds that a party which is added or transferred to may take to answer."""


async def talk(controller: Controller, call: LiveCall) -> None:
    """Keep a call until fewer than two parties are left. Raises ``CallOver``."""
    while True:
        if len(call.document.live_legs()) < 2:
            raise CallOver("hung_up")
        message = await call.next_message()
        if isinstance(message, Ended):
            await _party_left(controller, call, message)
        elif isinstance(message, Answered):
            await _party_came(controller, call, message.leg)
        elif isinstance(message, HoldChanged):
            leg = call.document.leg(message.leg)
            if leg is not None:
                call.put(replace(leg, hold="remote" if message.is_held else ""), publish=True)
        elif callable(message) and not isinstance(message, PresenceChanged):
            await message()


async def _party_left(controller: Controller, call: LiveCall, ended: Ended) -> None:
    leg = call.close_leg(ended.leg)
    if leg is None:
        return
    was_pending = call.pending.pop(leg.id, None) is not None
    if was_pending:
        controller.tell_event(
            "party_failed", call, party=leg.party, status=ended.status, leg=leg.id
        )
    else:
        controller.note_end(leg)
    if len(call.document.live_legs()) >= 2:
        call.change()


async def _party_came(controller: Controller, call: LiveCall, leg_id: str) -> None:
    leg = call.document.leg(leg_id)
    if leg is None or leg_id not in call.pending:
        return
    leaver = call.pending.pop(leg_id)
    try:
        dialog = await controller.engine.dialog(leg_id)
        await controller.engine.join(call.document.room, [leg_id])
    except EngineError as error:
        if not controller.engine.is_up:
            raise
        # Gone again, or never quite there: the others' call is not harmed by it.
        controller.log.warning("%s: %s did not get in: %s", call.document.id, leg.party, error)
        call.close_leg(leg_id)
        await controller.hang_up(leg_id)
        call.change()
        return
    call.put(with_dialog(leg, dialog, LegState.CONFIRMED))
    if call.document.state is CallState.HELD:
        await _release(controller, call)
    if leaver and call.close_leg(leaver) is not None:
        await controller.hang_up(leaver)
    call.publish()


async def hold(controller: Controller, call: LiveCall, party: str) -> None:
    """Take a console out of the room: it hears nothing, the others wait."""
    leg = _confirmed(call, party)
    if leg.hold:
        raise RefusedError(f"{party} holds this call already")
    await controller.engine.leave(call.document.room, [leg.id])
    call.put(replace(leg, hold="local"))
    rest = [item for item in call.document.live_legs(CONSOLE) if not item.hold]
    call.change(state=CallState.UP if rest else CallState.HELD)


async def resume(controller: Controller, call: LiveCall, party: str) -> None:
    """Put a console back into the room."""
    leg = _confirmed(call, party)
    if leg.hold != "local":
        raise RefusedError(f"{party} does not hold this call")
    await controller.engine.join(call.document.room, [leg.id])
    call.put(replace(leg, hold=""), state=CallState.UP, publish=True)


async def _release(controller: Controller, call: LiveCall) -> None:
    """Somebody came to a call on hold: it is no more, whoever held it stays out until resume."""
    call.change(publish=False, state=CallState.UP)


async def add(
    controller: Controller, call: LiveCall, *, console: str, number: str, leaver: str = ""
) -> str:
    """Call one more party into the room; return its leg. ``leaver``: leg that goes for it."""
    if console:
        found = controller.presence.get(console)
        if found is None or not found.sip:
            raise RefusedError(f"console {console!r} is not connected here")
        leg, target = call.new_leg(CONSOLE, console), Target(uri=found.sip)
    else:
        if not is_dialled_number(number):
            raise RefusedError(f"got {number!r}, expected a number")
        ways = attempts(number, controller.settings.routes, controller.settings.gateways)
        if not ways:
            raise RefusedError(f"no route serves {number}")
        leg = call.new_leg(GATEWAY, number, ways[0].gateway)
        target = controller.gateway_target(ways[0])
    call.put(replace(leg, remote_target=target.uri))
    call.pending[leg.id] = leaver
    try:
        await controller.engine.call(
            leg.id, target, caller=call.document.caller, timeout=ADD_TIMEOUT
        )
    except EngineError as error:
        call.pending.pop(leg.id, None)
        call.close_leg(leg.id)
        raise RefusedError(f"cannot be called: {error}") from error
    call.publish()
    return leg.id


async def remove(controller: Controller, call: LiveCall, leg_id: str) -> None:
    """Hang up one party."""
    leg = call.document.leg(leg_id)
    if leg is None or not leg.is_live:
        raise RefusedError("this party is not in the call")
    await controller.hang_up(leg_id)


async def transfer(
    controller: Controller, call: LiveCall, party: str, *, console: str, number: str
) -> str:
    """Put another party in a console's place as soon as it answers."""
    leg = _confirmed(call, party)
    return await add(controller, call, console=console, number=number, leaver=leg.id)


def _confirmed(call: LiveCall, party: str) -> Leg:
    leg = call.leg_of(party)
    if leg is None or leg.state is not LegState.CONFIRMED:
        raise RefusedError(f"{party} is not in this call")
    return leg


async def end(controller: Controller, call: LiveCall) -> None:
    """Hang up everybody. Raises ``CallOver``."""
    raise CallOver("hung_up")
