"""Callers that were waiting at a server when it failed, and call again here.

A caller whom nobody has answered is taken over where its side accepts that (``takeover``). Where it
does not, its gateway notices that the server is gone and offers the call to the next one, as a new
INVITE. What that one knows from the failed server's document is how long the caller has waited
already, and that is kept: the new call counts from when the first one began.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from controlone_ha.core.calls import Call, CallState
from controlone_ha.core.takeover import is_waiting

if TYPE_CHECKING:
    from controlone_ha.conference.controller import Controller
    from controlone_ha.conference.live_call import LiveCall

EXPECTED_FOR = 60.0
"""Seconds in which a gateway's next attempt counts as the same caller's."""


class ReturningCallers:
    """Who is expected to call one controller again, by caller and number."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._expected: dict[tuple[str, str], tuple[float, float]] = {}

    def expect(self, call: Call) -> None:
        """The caller waited at a server that failed, and will be offered here."""
        now = time.time()
        self._expected = {
            key: (created, until) for key, (created, until) in self._expected.items() if until > now
        }
        self._expected[call.caller, call.number] = (call.created, now + EXPECTED_FOR)

    def waiting_since(self, caller: str, number: str) -> float | None:
        """Return since when a caller who is here now has been waiting; None: it is a first call."""
        created, until = self._expected.pop((caller, number), (0.0, 0.0))
        return created if until > time.time() else None

    def has_come(self, call: Call) -> bool:
        """Tell whether the caller has called again already; if so, the wait of before counts."""
        again = self._again(call)
        if again is not None:
            again.change(created=min(call.created, again.document.created))
        return again is not None

    def _again(self, call: Call) -> LiveCall | None:
        who = call.caller, call.number
        for live in self._controller.calls.values():
            document = live.document
            if is_waiting(document) and (document.caller, document.number) == who:
                return live
        return None

    def over(self, call: Call) -> None:
        """Say that the call of before is over: it is another one by now, or will be."""
        claimed = call.claimed_by(self._controller.node, time.time())
        self._controller.publish(
            replace(claimed, legs=(), state=CallState.ENDED, reason="calls_again")
        )
