"""How the live calls of a failed node are taken over: which leg first, which way, what it means.

Pure. ``taking`` says which node may begin; this module turns a call's document into ordered
attempts, and what came of each attempt into the next one or an outcome; ``conference.takeover``
carries them out.

Theory of operation. The leg of the gateway is the lock: who holds its 200 takes the others, and
whoever is told there that the dialog is unknown (481) stops. Without a gateway the first leg is the
lock. A leg is taken by INVITE with Replaces (RFC 3891), or, where the party does not know that, by
adopting its dialog (``conference.adoption``). Behind proxies that record the route adoption comes
first: they may refuse a route that they did not hand out. A party that rings instead of answering
takes the INVITE for a new call (ghost ringing): it is cancelled and adopted. Silence is left alone
until its time is over. Half a call is never taken on silence: every party answers first.

A caller whom nobody has answered yet waits in an early dialog. RFC 3891 lets that be replaced where
the caller's side began it, which it did: who accepts that is answered, hears that it rings, and
keeps its place. There is no other way to take an early dialog; who does not accept it calls again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from controlone_ha.core.calls import Call, CallState, Leg, LegState

REPLACE_TIMEOUT = 4.0
"""Seconds that the lock has to answer an INVITE with Replaces: three retransmissions."""
PATIENCE = 8.5
"""The same for the others, whom the lock's party waits for: four. To give up and ask once more is
not faster than the retransmissions, and would lose a party that answers what was given up."""
RING_TIMEOUT = 1.5
"""Seconds that a party may ring: some say 180 before the 200 of a replacement."""
ADOPT_TIMEOUT = 6.0
GRACE = 5.0
"""Seconds that a leg waits for the others of its call, which have failed."""
ALONE = 9.5
"""Seconds that a leg waits at most for others that say nothing, with what came before ``GRACE``."""
GRACE_GONE = 1.0
"""The same where all the others have hung up by themselves."""
IN_FLIGHT = 28
"""Calls that are being taken at the same time: more do not go faster through Asterisk."""


TRIES = 3
"""How often a call is tried whose lock nobody answered for; between two, ``AGAIN`` seconds."""
AGAIN = 2.0
GIVEN = "given"
"""Reason of a call's document by which its owner gives it away while it goes on."""
TAKING = "taking"
"""Reason of a claimed call's document while some of its legs still bear their old dialogs."""


class Way(StrEnum):
    """How a leg is taken."""

    REPLACE = "replace"
    ADOPT = "adopt"


class Outcome(StrEnum):
    """What became of a leg. FALLBACK: taken, but not by the first way that was tried."""

    TAKEN = "taken"
    FALLBACK = "fallback"
    REFUSED = "refused"
    GONE = "gone"
    UNREACHABLE = "unreachable"
    GHOST = "ghost"
    ALREADY_TAKEN = "already_taken"

    @property
    def is_taken(self) -> bool:
        """True when the leg is ours now."""
        return self in (Outcome.TAKEN, Outcome.FALLBACK)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One call to take. ``lock``: the leg that decides; ``others``: those that follow it."""

    call: Call
    lock: Leg
    others: tuple[Leg, ...] = ()

    @property
    def legs(self) -> tuple[Leg, ...]:
        """All legs, the lock first."""
        return (self.lock, *self.others)


def is_takeable(call: Call) -> bool:
    """Tell whether a call is answered and its document names every dialog. One that has a single
    party left, and none on its way, is, too: that one has to be told that the call is over.
    """
    answered = call.state in (CallState.UP, CallState.HELD) or (
        call.state is CallState.LOST and call.answered is not None
    )
    legs = _confirmed(call)
    is_alone = len(legs) == len(call.live_legs()) == 1
    return answered and (len(legs) >= 2 or is_alone) and all(leg.is_complete for leg in legs)


def is_waiting(call: Call) -> bool:
    """Tell whether a call comes from outside and nobody has answered it."""
    waits = call.state in (CallState.QUEUED, CallState.RINGING, CallState.LOST)
    return call.direction == "in" and waits and call.answered is None


def is_given(call: Call) -> bool:
    """Tell whether a call's owner gives it away: it says so, or its engine is gone."""
    return call.state is CallState.LOST or call.reason == GIVEN


def deserves_another_try(outcomes: Iterable[Outcome]) -> bool:
    """Tell whether a call that did not come may come yet: nobody answered, or the party has seen a
    newer claim, whose owner may have died before anybody heard of it; and nobody refused.
    """
    found = list(outcomes)
    hopeful = (Outcome.UNREACHABLE, Outcome.ALREADY_TAKEN)
    return bool(found) and all(outcome in hopeful for outcome in found)


def in_order(calls: Iterable[Call]) -> list[Call]:
    """Return calls in the order of taking: highest priority first, then those that were answered,
    the one up for longest before the others, then who has been waiting for longest.
    """

    def order(call: Call) -> tuple[int, bool, float, str]:
        since = call.created if call.answered is None else call.answered
        return -call.priority, call.answered is None, since, call.id

    return sorted(calls, key=order)


def plans(calls: Iterable[Call]) -> tuple[Plan, ...]:
    """Return what is to be taken, in order."""
    found = []
    for call in in_order(calls):
        if is_waiting(call):
            callers = [leg for leg in call.live_legs("gateway") if leg.is_complete]
            if len(callers) == 1:
                found.append(Plan(call=call, lock=callers[0]))
            continue
        if not is_takeable(call):
            continue
        legs = sorted(_confirmed(call), key=lambda leg: leg.role != "gateway")
        found.append(Plan(call=call, lock=legs[0], others=tuple(legs[1:])))
    return tuple(found)


def ways(leg: Leg, *, knows_replaces: bool = True) -> tuple[Way, ...]:
    """Return how a leg is tried, in order; ``knows_replaces`` is UCI ``gateway.replaces``."""
    if leg.state is LegState.EARLY:
        return (Way.REPLACE,) if knows_replaces else ()
    if not knows_replaces:
        return (Way.ADOPT,)
    if leg.route_set:
        return (Way.ADOPT, Way.REPLACE)
    return (Way.REPLACE, Way.ADOPT)


def outcome_of(way: Way, status: int, *, rang: bool = False) -> Outcome:
    """Return what a final answer to an attempt means; ``status`` 0: there was none."""
    if 200 <= status < 300:
        return Outcome.TAKEN
    if rang:
        return Outcome.GHOST
    if status == 481:
        return Outcome.GONE
    if status == 500 and way is Way.ADOPT:
        return Outcome.ALREADY_TAKEN  # the party has seen the CSeq of a newer generation
    if status in (0, 408):
        return Outcome.UNREACHABLE
    return Outcome.REFUSED


def is_final(outcome: Outcome) -> bool:
    """Tell whether another way would make no difference: the dialog is over, or somebody's, or
    nobody is there.
    """
    return outcome in (
        Outcome.TAKEN,
        Outcome.FALLBACK,
        Outcome.GONE,
        Outcome.ALREADY_TAKEN,
        Outcome.UNREACHABLE,
    )


def replaces_of(leg: Leg) -> str:
    """Return the Replaces header by which the party knows its dialog (RFC 3891, section 3): the
    to-tag is the party's own, the from-tag that of the server it talked with. An early dialog is
    meant only as long as it is one (``early-only``, section 4): once answered it is another's call.
    """
    early = ";early-only" if leg.state is LegState.EARLY else ""
    return f"{leg.call_id};to-tag={leg.remote_tag};from-tag={leg.local_tag}{early}"


def _confirmed(call: Call) -> list[Leg]:
    return [leg for leg in call.live_legs() if leg.state is LegState.CONFIRMED]
