"""One call while it is here: its document, what it is told, and the steps every call is made of.

Theory of operation. Each call has one task, which is the only one that changes the call's course;
what happens to its legs comes to it through ``inbox``, in order. Orders of consoles (hold,
transfer, …) arrive there too, as functions. So nothing is locked and nothing is raced: a caller who
hangs up while the winner is being bridged is simply the next message.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from controlone_ha.conference.engine import Answered, Dialog, Ended, Event
from controlone_ha.core.calls import Call, CallState, Leg, LegState

if TYPE_CHECKING:
    from controlone_ha.conference.controller import Controller

GATEWAY = "gateway"
CONSOLE = "console"


class PresenceChanged:
    """Consoles have come or gone."""


Order = Callable[[], Awaitable[None]]
Message = Event | PresenceChanged | Order


class CallOver(Exception):
    """The call cannot go on: its task cleans up with this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LiveCall:
    """A call of this node. ``document`` is replaced with every change, never changed."""

    def __init__(self, controller: Controller, document: Call) -> None:
        self.controller = controller
        self.document = document
        self.inbox: asyncio.Queue[Message] = asyncio.Queue()
        self.task: asyncio.Task[None] | None = None
        self.is_published = False
        self._leg_number = len(document.legs)
        self.ringing: dict[str, Leg] = {}
        """Consoles that are being rung now, by leg."""
        self.pending: dict[str, str] = {}
        """Legs that are being called while the call is up: leg -> leg that leaves for it, or ""."""

    # --- the document ----------------------------------------------------------------------------

    def change(self, *, publish: bool = True, **changes: Any) -> None:
        """Take a new version of the document and, unless told otherwise, hand it out."""
        self.document = self.document.changed_to(time.time(), **changes)
        if publish:
            self.publish()

    def put(self, leg: Leg, *, publish: bool = False, **changes: Any) -> None:
        """Add or replace a leg."""
        self.document = self.document.with_leg(time.time(), leg, **changes)
        self.controller.legs[leg.id] = self
        if publish:
            self.publish()

    def publish(self) -> None:
        """Hand the document to whoever follows this node's calls."""
        self.is_published = True
        self.controller.publish(self.document)

    def new_leg(self, role: str, party: str, gateway: str = "") -> Leg:
        """Return a leg with a name of its own, not yet part of the document."""
        self._leg_number += 1
        leg_id = f"{self.document.id}-{self._leg_number}"
        return Leg(id=leg_id, role=role, party=party, gateway=gateway, since=time.time())

    def close_leg(self, leg_id: str) -> Leg | None:
        """Note the end of a leg; return it if it was live."""
        leg = self.document.leg(leg_id)
        self.controller.legs.pop(leg_id, None)
        if leg is None or not leg.is_live:
            return None
        legs = tuple(item for item in self.document.legs if item.id != leg_id)
        self.document = replace(
            self.document, legs=(*legs, replace(leg, state=LegState.ENDED, since=time.time()))
        )
        self._trim()
        return leg

    def _trim(self) -> None:
        """Keep the document small: legs that are over are news once, then ballast."""
        over = [leg for leg in self.document.legs if not leg.is_live]
        if len(over) > 8:
            kept = tuple(leg for leg in self.document.legs if leg.is_live) + tuple(over[-8:])
            self.document = replace(self.document, legs=kept)

    def leg_of(self, party: str, role: str = CONSOLE) -> Leg | None:
        """Return the live leg of a party."""
        return next((leg for leg in self.document.live_legs(role) if leg.party == party), None)

    # --- messages --------------------------------------------------------------------------------

    def tell(self, message: Message) -> None:
        """Put a message into the inbox."""
        self.inbox.put_nowait(message)

    async def next_message(self, timeout: float | None = None) -> Message | None:
        """Return the next message, None when ``timeout`` seconds have passed."""
        if not self.inbox.empty():
            return self.inbox.get_nowait()
        if timeout is None:
            return await self.inbox.get()
        if timeout <= 0:
            return None
        try:
            return await asyncio.wait_for(self.inbox.get(), timeout)
        except TimeoutError:
            return None


def with_dialog(leg: Leg, dialog: Dialog, state: LegState) -> Leg:
    """Return the leg with what the engine knows of its dialog."""
    invite = {"request_uri": dialog.request_uri} if dialog.request_uri else dict(leg.invite)
    if state is LegState.EARLY and dialog.invite_via:
        invite |= {"via": dialog.invite_via, "cseq": dialog.invite_cseq}
    return replace(
        leg,
        state=state,
        call_id=dialog.call_id,
        local_tag=dialog.local_tag,
        remote_tag=dialog.remote_tag,
        local_uri=dialog.local_uri,
        remote_uri=dialog.remote_uri,
        remote_target=dialog.remote_target,
        route_set=dialog.route_set,
        transport=dialog.transport,
        local_address=dialog.local_address or leg.local_address,
        remote_address=dialog.remote_address or leg.remote_address,
        codec=dialog.codec,
        session_expires=dialog.session_expires,
        refresher=dialog.refresher,
        invite=invite,
    )


def answered(leg: Leg) -> Leg:
    """Return the leg of a party that called us, confirmed. Its INVITE stays known: the answer is
    sent after this is handed out, and whoever takes the call may find that it never came.
    """
    return replace(leg, state=LegState.CONFIRMED)


def is_about(message: Message | None, leg_id: str) -> bool:
    """Tell whether a message is about a leg."""
    return isinstance(message, Answered | Ended) and message.leg == leg_id


def is_up(document: Call) -> bool:
    """Tell whether a call is answered."""
    return document.state in (CallState.UP, CallState.HELD)
