"""``decide(snapshot) -> Decision``: what this node shall be, and because of what.

Guard clauses from the strongest word to the weakest: role passive, forced, paused, standing still,
then the rules of the present state. Every branch returns one reason. Pure and deterministic: the
same snapshot gives the same decision on every machine.
"""

from __future__ import annotations

from dataclasses import replace

from controlone_ha.core.judging import Judgement, Need, judge
from controlone_ha.core.model import (
    Decision,
    Own,
    Peer,
    Role,
    Snapshot,
    State,
    Verdict,
    Yielding,
)
from controlone_ha.core.ranking import (
    better_candidates,
    covering_node,
    ineligibility,
    is_candidate,
)
from controlone_ha.core.reasons import Reason, reason
from controlone_ha.core.taking import takings
from controlone_ha.core.yielding import (
    grants,
    has_all_consents,
    is_replaced,
    node_out_before,
    substitutes,
    why_nobody,
)


def decide(snapshot: Snapshot) -> Decision:
    """Return what the owner of ``snapshot`` shall be now, and what it answers to abnormal peers.

    The answers follow from what it is from now on: who begins to ask withdraws in the same report
    what it had consented to.
    """
    decision = _decide_state(snapshot)
    answers = grants(snapshot, decision.yielding)
    calls = takings(snapshot, decision.state)
    return replace(
        decision,
        takes=calls.takes,
        grounds=calls.since,
        wake_at=_sooner(decision.wake_at, calls.wake_at),
        consents=answers.consents,
        offers=answers.offers,
        ineligible=ineligibility(snapshot.own),
    )


def _sooner(one: float | None, other: float | None) -> float | None:
    return min((at for at in (one, other) if at is not None), default=None)


def _decide_state(snapshot: Snapshot) -> Decision:
    own = snapshot.own
    if own.role is Role.PASSIVE:
        return _passive(reason("role_passive"))
    if own.forced == "passive":
        return _passive(reason("forced_passive", by=own.forced_by))
    if own.rereading_gap:
        return _unchanged(own, reason("rereading", gap=round(own.rereading_gap, 1)))
    if own.forced == "active":
        return _forced_active(own)
    if own.paused_by and own.state is not State.STARTING:
        return _paused(own)
    if own.state.runs_conference:
        return _serving(snapshot)
    if own.state in (State.STARTING, State.PASSIVE) or own.role is Role.MASTER:
        return _start(own)
    return _standby(snapshot)


def _passive(why: Reason) -> Decision:
    return Decision(state=State.PASSIVE, reason=why)


def _unchanged(own: Own, why: Reason) -> Decision:
    return Decision(state=own.state, reason=why, covering=own.covering, yielding=own.yielding)


def _paused(own: Own) -> Decision:
    """It will not give way, so it does not ask to: others may need the turn."""
    yielding = Yielding.NO if own.yielding is Yielding.ASKING else own.yielding
    return replace(_unchanged(own, reason("paused", by=own.paused_by)), yielding=yielding)


def _forced_active(own: Own) -> Decision:
    if not own.abnormalities:
        why = reason("forced_active", by=own.forced_by)
        return Decision(state=State.ACTIVE, reason=why, covering=own.covering)
    what = own.abnormalities[0]
    why = reason("abnormal_forced", what=what.text(), by=own.forced_by, evidence=what.evidence)
    return Decision(state=State.DEGRADED, reason=why, covering=own.covering)


def _start(own: Own) -> Decision:
    if own.role is Role.MASTER:
        return Decision(state=State.ACTIVE, reason=reason("role_master"))
    return Decision(state=State.STANDBY, reason=reason("role_slave"))


# --- a serving node -------------------------------------------------------------------------


def _serving(snapshot: Snapshot) -> Decision:
    own = snapshot.own
    if own.abnormalities:
        return _abnormal(snapshot)
    if own.state is State.DISABLED:
        return _stabilising(snapshot)
    if own.role is Role.MASTER:
        why = own.reason if own.state is State.ACTIVE else reason("recovered", stable=0)
        return _active(snapshot, why)
    return _failback(snapshot)


def _active(snapshot: Snapshot, why: Reason, wake_at: float | None = None) -> Decision:
    own = snapshot.own
    return Decision(
        state=State.ACTIVE,
        reason=why,
        covering=own.covering if own.role is Role.SLAVE else frozenset(),
        wake_at=wake_at,
    )


def _abnormal(snapshot: Snapshot) -> Decision:
    own = snapshot.own
    what = own.abnormalities[0]
    text, evidence = what.text(), what.evidence
    able = substitutes(snapshot)
    if own.state is State.DISABLED:
        if is_replaced(snapshot):
            return _disabled(own, own.reason)
        return _degraded(own, reason("cover_lost", what=text, evidence=evidence))
    other = node_out_before(snapshot)
    if other:
        return _degraded(own, reason("abnormal_second", what=text, other=other, evidence=evidence))
    if able and own.yielding is Yielding.ASKING and has_all_consents(snapshot):
        why = reason("abnormal_yielded", what=text, node=", ".join(able), evidence=evidence)
        return _disabled(own, why)
    why_not_yet = why_nobody(snapshot)
    return _degraded(own, reason("abnormal_asking", what=text, why=why_not_yet, evidence=evidence))


def _disabled(own: Own, why: Reason, wake_at: float | None = None) -> Decision:
    return Decision(
        state=State.DISABLED,
        reason=why,
        covering=own.covering,
        yielding=Yielding.YIELDED,
        wake_at=wake_at,
    )


def _degraded(own: Own, why: Reason) -> Decision:
    return Decision(
        state=State.DEGRADED, reason=why, covering=own.covering, yielding=Yielding.ASKING
    )


def _stabilising(snapshot: Snapshot) -> Decision:
    own, rules = snapshot.own, snapshot.rules
    healthy_at = own.healthy_at if own.healthy_at is not None else snapshot.now
    back_at = healthy_at + rules.stable
    if snapshot.now >= back_at or not is_replaced(snapshot):
        stable = min(rules.stable, snapshot.now - healthy_at)
        return _active(snapshot, reason("recovered", stable=round(stable)))
    return _disabled(own, reason("stabilising", wait=round(rules.stable)), wake_at=back_at)


def _failback(snapshot: Snapshot) -> Decision:
    """An active slave: stays while what it covers is away, then follows UCI ``failback``.

    Without a known cause (released from force, adopted after a restart) the rule counts from the
    moment every node that serves has been seen serving.
    """
    own, rules, now = snapshot.own, snapshot.rules, snapshot.now
    cause = own.cause or own.reason
    covered = [peer for peer in snapshot.peers if peer.name in own.covering]
    if not covered:
        covered = [peer for peer in snapshot.peers if peer.serving_at is not None]
    backs = [_back_at(peer) for peer in covered]
    if not covered or None in backs or _is_needed(snapshot):
        return _active(snapshot, cause)
    names = ", ".join(sorted(peer.name for peer in covered))
    if not rules.failback:
        return _active(snapshot, reason("failback_off", peers=names))
    back_at = max(back for back in backs if back is not None)
    returns = max(peer.returns for peer in covered)
    times = damping(returns, rules.failback_damping)
    delay = rules.failback_delay * times
    due_at = back_at + delay
    if now < due_at:
        if times > 1:
            why = reason("failback_flapping", peers=names, returns=returns, wait=round(delay))
        else:
            why = reason("failback_wait", peers=names, wait=round(delay))
        return _active(snapshot, why, wake_at=due_at)
    if own.consoles or own.calls:
        why = reason("failback_busy", peers=names, consoles=own.consoles, calls=own.calls)
        return _active(snapshot, why)
    return Decision(state=State.STANDBY, reason=reason("failed_back", peers=names))


def damping(returns: int, limit: int) -> int:
    """Return how many times longer a peer must be stable that has come back ``returns`` times
    lately: the first time 1, then doubling up to ``limit``.
    """
    return min(limit, 1 << min(max(returns - 1, 0), 16))


def _back_at(peer: Peer) -> float | None:
    """Return since when a covered peer is what it should be again, None while it is not.

    A slave that was active when it failed comes back as standby, and nobody misses its service.
    """
    if peer.view.verdict is not Verdict.ALIVE:
        return None
    is_slave = peer.report is not None and peer.report.role is not Role.MASTER
    if is_slave and peer.is_linked and peer.standby_at is not None:
        return peer.standby_at
    return peer.serving_at


def _is_needed(snapshot: Snapshot) -> bool:
    """True while a monitored peer needs a replacement and nobody else has claimed it."""
    return any(
        judge(snapshot, peer).need is Need.YES and covering_node(snapshot, peer.name) is None
        for peer in snapshot.peers
        if peer.is_monitored
    )


# --- a standby node -------------------------------------------------------------------------


def _standby(snapshot: Snapshot) -> Decision:
    own = snapshot.own
    judgements = [judge(snapshot, peer) for peer in snapshot.peers if peer.is_monitored]
    needs = {
        item.peer: own.needs.get(item.peer, snapshot.now)
        for item in judgements
        if item.need is Need.YES
    }
    needy = sorted(
        (item for item in judgements if item.peer in needs),
        key=lambda item: (needs[item.peer], item.peer),
    )
    barred = ineligibility(own)
    wakes = [item.wake_at for item in judgements if item.wake_at is not None]
    waiting: list[Reason] = []
    due: list[Judgement] = []
    for item in needy:
        covered_by = covering_node(snapshot, item.peer)
        if covered_by is not None:
            waiting.append(reason("covered_by", peer=item.peer, node=covered_by))
            continue
        if barred is not None:
            waiting.append(reason("not_eligible", peer=item.peer, why=barred.text()))
            continue
        if item.peer in own.unlicensed:
            waiting.append(reason("peer_not_licensed", peer=item.peer))
            continue
        better = better_candidates(snapshot, item.peer)
        due_at = needs[item.peer] + len(better) * snapshot.rules.slot
        if better and snapshot.now < due_at:
            wakes.append(due_at)
            waiting.append(_waiting(snapshot, item, better))
            continue
        due.append(item)
    if due:
        covering = frozenset().union(*(_covering(snapshot, item.peer) for item in due))
        return Decision(state=State.ACTIVE, reason=due[0].reason, covering=covering)
    held = [item.reason for item in judgements if item.need is Need.HELD]
    why = next(iter(waiting + held), None) or _quiet(own)
    return Decision(
        state=State.STANDBY,
        reason=why,
        needs=needs,
        wake_at=min(wakes, default=None),
    )


def _covering(snapshot: Snapshot, name: str) -> frozenset[str]:
    """Return whom this node is active for when it replaces ``name``: a replaced slave had been
    active for others, who may still be away. Those that are not on this node's own list are left to
    nodes that cover them (C2).
    """
    peer = snapshot.peer(name)
    inherited = peer.report.covering if peer is not None and peer.report is not None else ()
    covered = {other.name for other in snapshot.peers if other.is_monitored}
    return frozenset(covered.intersection(inherited) | {name})


def _waiting(snapshot: Snapshot, item: Judgement, better: list[str]) -> Reason:
    return reason(
        "waiting_rank",
        peer=item.peer,
        better=", ".join(better),
        wait=round(len(better) * snapshot.rules.slot, 1),
        evidence=item.reason.evidence,
    )


def _quiet(own: Own) -> Reason:
    """Keep a reason that still tells the story (failed back, role); drop one that is over."""
    if own.reason.code in ("role_slave", "failed_back", "all_fine"):
        return own.reason
    return reason("all_fine", role=own.role.value)


def why_not(snapshot: Snapshot, failed: str) -> list[Reason]:
    """Return everything that keeps this node from taking over from ``failed``; empty: it would."""
    own, found = snapshot.own, []
    barred = ineligibility(own)
    if barred is not None:
        found.append(barred)
    peer = snapshot.peer(failed)
    if peer is None or not peer.is_monitored:
        found.append(reason("not_monitored", peer=failed))
        return found
    if failed in own.unlicensed:
        found.append(reason("peer_not_licensed", peer=failed))
    if own.state.is_serving:
        found.append(reason("already_active", state=own.state.value))
    judgement = judge(snapshot, peer)
    if judgement.need is not Need.YES:
        found.append(judgement.reason)
    covered_by = covering_node(snapshot, failed)
    if covered_by is not None:
        found.append(reason("covered_by", peer=failed, node=covered_by))
    better = better_candidates(snapshot, failed)
    if better:
        found.append(reason("better_rank", peer=failed, better=", ".join(better)))
    return found


def candidates_for(snapshot: Snapshot, failed: str) -> list[Peer]:
    """Return the peers that could take over from ``failed``, best first, this node left out."""
    found = [peer for peer in snapshot.peers if is_candidate(peer, failed)]
    return sorted(found, key=lambda peer: peer.report.rank_key if peer.report else (0, 0, ""))
