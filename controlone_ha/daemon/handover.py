"""Gives this node's own live calls away: the counterpart of ``takeovers``.

Two occasions. *Planned*: the node is told to stop serving while calls are up (`ha force_passive`).
The Conference Server runs on, without accepting calls, until its successor has claimed every call,
or for ``PLANNED`` seconds. *Own recovery is over*: the engine died, its calls are lost, and have
not been taken up again here within UCI ``own_recovery`` seconds. Then whoever may takes them; what
nobody takes within ``LOST`` seconds is tried here once more.

A release is only worth saying when somebody can take. A node in standby takes what is handed over
to it, and becomes active by that very step; lost calls it leaves to their own node until it is
active for another reason.

Giving is said twice: per call by the controller (``core.takeover.is_given``), and by the node's
report (``releases``), which is the ground on which others take (``core.taking``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from controlone_ha.core.calls import Call, CallState
from controlone_ha.core.model import Decision, State
from controlone_ha.core.reasons import reason
from controlone_ha.core.taking import TAKERS
from controlone_ha.daemon.calls import LiveCalls
from controlone_ha.errors import ControlOneError

log = logging.getLogger("takeover")

Json = dict[str, Any]

PLANNED = 20.0
LOST = 30.0
LOST_KEPT = 120.0
LOOK = 0.1
ACTIVE = frozenset({State.ACTIVE})
GONE_BY_THEMSELVES = 1.0
"""Seconds in which the legs of calls that were taken may still end before the engine is killed."""


class Handover:
    """The calls that this node gives away. ``release(bool)`` says so in the node's report;
    ``takers``: whether a peer in one of these states can take calls of this node.
    """

    def __init__(
        self,
        calls: LiveCalls,
        *,
        release: Callable[[bool], None],
        takers: Callable[[frozenset[State]], bool],
        own_recovery: Callable[[], float],
        record: Callable[[Json], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        look_again: Callable[[], None],
    ) -> None:
        self._calls = calls
        self._release = release
        self._takers = takers
        self._own_recovery = own_recovery
        self._record = record
        self._spawn = spawn
        self._look_again = look_again
        self._serves: bool | None = None
        self._watches_lost = False
        self.is_running = False
        """True while the Conference Server has to run on although the node serves no more."""
        self.ends_hard = False
        """True when stopping it must not end dialogs that others have adopted: it is killed."""
        calls.on_own = self._own_changed

    def decided(self, decision: Decision) -> None:
        """The node has decided; called before the services are brought to it."""
        served, self._serves = self._serves, decision.conference_running
        if served and not self._serves and self._own_calls() and self._takers(TAKERS):
            self.is_running = True
            self._spawn(self._hand_over())
        elif self._serves and not served:
            self.ends_hard = False
            self._spawn(self._keep())

    async def _hand_over(self) -> None:
        number = len(self._own_calls())
        log.info("handing %d calls over", number)
        why = reason("calls_given", calls=number)
        self._record({"kind": "takeover", "peer": self._calls.name, "reason": why.to_json()})
        try:
            await self._calls.ask("give", {"all": True, "reason": "this node hands over"})
            self._release(True)
            await self._until(lambda: bool(self._serves) or not self._own_calls(), PLANNED)
        except (ControlOneError, OSError, TimeoutError) as error:
            log.warning("the calls cannot be handed over: %s", error)
        finally:
            self._release(False)
        left = len(self._own_calls())
        if not self._serves:
            await asyncio.sleep(GONE_BY_THEMSELVES)
            self.ends_hard = not left
            why = reason("calls_handed_over", moved=number - left, calls=number)
            log.info("%s", why.text())
            self._record({"kind": "takeover", "peer": self._calls.name, "reason": why.to_json()})
        self.is_running = False
        self._look_again()

    def _own_changed(self) -> None:
        if not self._watches_lost and self._lost_calls():
            self._watches_lost = True
            self._spawn(self._watch_lost())

    async def _watch_lost(self) -> None:
        """Give lost calls away that are not taken up again here in time."""
        try:
            await self._until(lambda: not self._lost_calls(), self._own_recovery())
            await self._until(lambda: not self._lost_calls() or self._takers(ACTIVE), LOST_KEPT)
            if not self._lost_calls():
                return
            given = await self._calls.ask("give", {})
            why = reason("lost_calls_given", calls=len(given["given"]))
            log.warning("%s", why.text())
            self._record({"kind": "takeover", "peer": self._calls.name, "reason": why.to_json()})
            self._release(True)
            await self._until(lambda: not self._lost_calls(), LOST)
        except (ControlOneError, OSError, TimeoutError) as error:
            log.warning("lost calls cannot be given away: %s", error)
        finally:
            self._watches_lost = False
            if not self.is_running:
                self._release(False)
                await self._keep()

    async def _keep(self) -> None:
        """Accept calls again and lead those that nobody took."""
        try:
            await self._calls.ask("keep", {"active": bool(self._serves)})
        except (ControlOneError, OSError, TimeoutError) as error:
            log.debug("the controller is not told to keep its calls: %s", error)

    async def _until(self, is_done: Callable[[], bool], seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not is_done() and loop.time() < end:
            await asyncio.sleep(LOOK)

    def _own_calls(self) -> Sequence[Call]:
        return self._calls.own.live_of(self._calls.name)

    def _lost_calls(self) -> list[Call]:
        return [call for call in self._own_calls() if call.state is CallState.LOST]
