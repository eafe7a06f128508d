"""Giving this server's calls away: to the node that takes its place, or because the engine is gone.

Theory of operation. A call that is given goes on in its room, but nobody leads it any more: its
parties are on their way to another server, and one of them that leaves is no reason to hang up on
the other. The next owner claims the call with its first leg; then this side waits until the other
legs have left, too, and drops what is left. A call that nobody takes is led again when the giving
ends (``keep``).

Lost calls (their engine died) are given by not being recovered here any more.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from controlone_ha.conference.engine import Ended
from controlone_ha.conference.live_call import LiveCall, is_up
from controlone_ha.core.takeover import GIVEN, GRACE

if TYPE_CHECKING:
    from controlone_ha.conference.controller import Controller


class Handover:
    """What one controller is giving away. ``gives_lost``: lost calls are not recovered here."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.given: dict[str, LiveCall] = {}
        self.gives_lost = False

    def give_lost(self) -> list[str]:
        """Give away the own calls that the engine lost; return their ids."""
        controller = self._controller
        self.gives_lost = True
        return [call.id for call in controller.lost.values() if call.owner == controller.node]

    def give_all(self, reason: str) -> list[str]:
        """Give away every call that is up and accept no more; return their ids."""
        controller = self._controller
        controller.is_ordered_active, controller.order_reason = False, reason
        controller.presence_changed()
        for call in controller.calls.values():
            if is_up(call.document) and call.task is not None and not call.task.done():
                call.task.cancel()
                call.task = None
                self.given[call.document.id] = call
                call.change(reason=GIVEN)
        return [*self.given, *self.give_lost()]

    def keep(self, *, is_active: bool) -> list[str]:
        """Lead the calls again that nobody took; return their ids."""
        controller = self._controller
        self.gives_lost = False
        kept, self.given = self.given, {}
        for call in kept.values():
            call.change(reason="")
            controller.lead(call)
        if is_active:
            controller.is_ordered_active, controller.order_reason = True, ""
            controller.presence_changed()
            if controller.engine.is_up:
                controller.takeovers.recover()
        return list(kept)

    def taken(self, call_id: str) -> LiveCall | None:
        """Return a given call that has been claimed: it is given no more, but gone."""
        return self.given.pop(call_id, None)

    async def let_go(self, call: LiveCall) -> None:
        """Wait until the parties have left by themselves, then drop the rest."""
        end = time.monotonic() + GRACE
        while call.document.live_legs():
            message = await call.next_message(end - time.monotonic())
            if message is None:
                break
            if isinstance(message, Ended):
                call.close_leg(message.leg)
        await asyncio.shield(self._controller.finish(call, "taken"))
