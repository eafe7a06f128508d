"""Whose live calls this node takes over, and on what grounds. Pure; `ha` and the simulator use it.

Theory of operation. *Activating* is harmless when wrong and is decided by ``judging`` alone.
*Taking calls* ends dialogs of another server, so it needs more (DESIGN, decision rules):

    released    the failed node's own `ha` gives its calls away
    refused     its SIP port refuses and nobody hears its `ha`: its calls have ended already
    confirmed   it alone is silent, to this node and to another, one of whom stands at its site
    chosen      it is silent and UCI ``takeover_on_silence`` is ``take``
    console     for single calls: their console arrives and says that it lost that server

A fresh sighting by anybody vetoes, and while the node's `ha` is heard only that decides. A majority
that misses a whole site has no ground: from outside, a dead site and a cut path look alike, and on
the far side of a cut the calls go on. Nor has a node that does not know all whom the others watch,
nor one to which the peer was silent a moment ago and returned, nor one that hears somebody who has
yet to say that it misses the peer. Consoles that got away from a dead site bring the ground for
their calls with them.

Rank k waits k slots from when the ground began and stands down as soon as another node publishes
that it takes them. Per call, the gateway's dialog is the lock and on silence every party answers
first (``takeover``); this module says only which node may begin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controlone_ha.core.judging import TOGETHER, Need, judge
from controlone_ha.core.model import Ground, Peer, Report, Snapshot, State, Verdict
from controlone_ha.core.ranking import ineligibility, own_rank_key
from controlone_ha.core.reasons import Reason, reason

UNSTABLE = 30.0
"""Seconds after a peer's return from silence in which its silence is no ground."""

TAKERS = frozenset({State.ACTIVE, State.STANDBY})
"""States of nodes that may take calls. One in standby becomes active in the same decision."""


@dataclass(frozen=True, kw_only=True)
class Taking:
    """What ``takings`` found: ``takes`` peer -> ground for this node's own claims, ``since`` peer
    -> since when there has been a ground without a break, and when to look again.
    """

    takes: Mapping[str, Ground] = field(default_factory=dict)
    since: Mapping[str, float] = field(default_factory=dict)
    wake_at: float | None = None


def ground(snapshot: Snapshot, peer: Peer) -> tuple[Ground, Reason]:
    """Return the ground on which all calls of ``peer`` may be taken, or NONE and why not."""
    report, view = peer.report, peer.view
    if report is not None and report.releases and view.verdict is Verdict.ALIVE:
        return Ground.RELEASED, reason("calls_released", peer=peer.name)
    judgement = judge(snapshot, peer)
    # A site that fell silent needs no further node to become active when one is, but a taker.
    is_out = judgement.need is Need.YES or judgement.reason.code == "site_silent"
    if view.verdict in (Verdict.ALIVE, Verdict.NO_DAEMON) or not is_out:
        return Ground.NONE, judgement.reason
    if view.hears or view.sees:
        witness = ", ".join(sorted(view.hears | view.sees))
        return Ground.NONE, reason("calls_seen", peer=peer.name, witness=witness)
    if view.is_conference_refused:
        return Ground.REFUSED, reason("calls_refused", peer=peer.name, evidence=view.evidence)
    if view.verdict is Verdict.SILENT:
        return _on_silence(snapshot, peer)
    return Ground.NONE, reason("calls_unproven", peer=peer.name)


def _on_silence(snapshot: Snapshot, peer: Peer) -> tuple[Ground, Reason]:
    witnesses = _site_witnesses(snapshot, peer)
    returned_at = peer.view.returned_at
    is_unstable = returned_at is not None and snapshot.now - returned_at < UNSTABLE
    unknown = _watched_by_others(snapshot)
    if witnesses and is_unstable:
        # Behind a way that loses and returns, silence is no sign, and witnesses stand there too.
        return Ground.NONE, reason("calls_unstable", peer=peer.name, evidence=peer.view.evidence)
    if witnesses and unknown:
        return Ground.NONE, reason("calls_unseen", peer=peer.name, nodes=", ".join(unknown))
    unanswered = _unanswered(snapshot, peer)
    if witnesses and unanswered:
        return Ground.NONE, reason("calls_asking", peer=peer.name, nodes=", ".join(unanswered))
    if witnesses:
        names = ", ".join(sorted(witnesses))
        why = reason("calls_confirmed", peer=peer.name, witness=names, evidence=peer.view.evidence)
        return Ground.CONFIRMED, why
    if snapshot.rules.takes_on_silence:
        return Ground.CHOSEN, reason("calls_chosen", peer=peer.name, evidence=peer.view.evidence)
    return Ground.NONE, reason("calls_unconfirmed", peer=peer.name)


def _site_witnesses(snapshot: Snapshot, peer: Peer) -> set[str]:
    """Return who of the two that find ``peer`` silent stands at its site; empty without a second
    one, when neither does, or when another node fell silent together with it: behind a cut that
    runs through a site they go on together.
    """
    site = peer.report.site if peer.report is not None else ""
    denying = {name for name in peer.view.denies_now if name != peer.name}
    if not site or not denying or _fell_together(snapshot, peer):
        return set()
    if snapshot.own.site == site:
        return {snapshot.own.name}
    others = (snapshot.peer(name) for name in denying)
    return {
        other.name
        for other in others
        if other is not None
        and other.view.verdict is Verdict.ALIVE
        and other.report is not None
        and other.report.site == site
    }


def _unanswered(snapshot: Snapshot, peer: Peer) -> list[str]:
    """Return the nodes that watch ``peer``, are heard, and have not just said that they miss it."""
    return sorted(
        other.name
        for other in snapshot.peers
        if other.name not in (peer.name, *peer.view.denies_now)
        and other.view.verdict is Verdict.ALIVE
        and other.report is not None
        and peer.name in other.report.covers
    )


def _watched_by_others(snapshot: Snapshot) -> list[str]:
    """Return the nodes that others cover and this one does not know: whether they fell silent
    together with a peer cannot be told here.
    """
    known = {snapshot.own.name, *(peer.name for peer in snapshot.peers)}
    reports = (peer.report for peer in snapshot.peers if peer.report is not None)
    return sorted({name for report in reports for name in report.covers} - known)


def _fell_together(snapshot: Snapshot, peer: Peer) -> bool:
    return any(
        other.name != peer.name
        and other.view.verdict in (Verdict.SILENT, Verdict.SUSPECT)
        and abs(other.view.since_at - peer.view.since_at) <= TOGETHER
        for other in snapshot.peers
    )


def console_ground(snapshot: Snapshot, owner: str) -> tuple[Ground, Reason]:
    """Return the ground for a call whose console arrived here and says that it lost ``owner``."""
    peer = snapshot.peer(owner)
    if peer is None:
        return Ground.NONE, reason("calls_unproven", peer=owner)
    view = peer.view
    if view.verdict in (Verdict.ALIVE, Verdict.NO_DAEMON, Verdict.UNKNOWN, Verdict.SUSPECT):
        return Ground.NONE, reason("calls_unproven", peer=owner)
    if view.sees or view.hears:
        witness = ", ".join(sorted(view.sees | view.hears))
        return Ground.NONE, reason("calls_seen", peer=owner, witness=witness)
    return Ground.CONSOLE, reason("calls_console", peer=owner)


def takings(snapshot: Snapshot, state: State) -> Taking:
    """Return whose calls this node takes, when it is in ``state``."""
    own, now = snapshot.own, snapshot.now
    if own.rereading_gap:
        return Taking(takes=own.takes, since=own.grounds)
    if ineligibility(own) is not None or state not in TAKERS:
        return Taking()
    takes: dict[str, Ground] = {}
    since: dict[str, float] = {}
    wakes: list[float] = []
    for peer in snapshot.peers:
        if not peer.is_monitored or peer.name in own.unlicensed:
            continue
        found, _ = ground(snapshot, peer)
        if found is Ground.NONE:
            continue
        since[peer.name] = began = own.grounds.get(peer.name, now)
        if taker(snapshot, peer.name) is not None:
            continue
        due_at = began + len(better_takers(snapshot, peer.name)) * snapshot.rules.slot
        if now >= due_at and state is State.ACTIVE:
            takes[peer.name] = found
        elif now < due_at:
            wakes.append(due_at)
    return Taking(takes=takes, since=since, wake_at=min(wakes, default=None))


def taker(snapshot: Snapshot, failed: str) -> str | None:
    """Return the other node that says it takes the calls of ``failed`` and is not known to be gone.

    Of two that began at the same moment the one that ranks first goes on.
    """
    own = snapshot.own
    for peer in snapshot.peers:
        report = peer.report
        if peer.name == failed or report is None or failed not in report.takes:
            continue
        is_there = peer.view.is_reachable or peer.view.verdict is Verdict.SUSPECT
        if is_there and (failed not in own.takes or report.rank_key < own_rank_key(own)):
            return peer.name
    return None


def better_takers(snapshot: Snapshot, failed: str) -> list[str]:
    """Return the nodes that rank before this one for the calls of ``failed``, best first."""
    own_key = own_rank_key(snapshot.own)
    found = [
        peer.report
        for peer in snapshot.peers
        if peer.report is not None and _may_take(peer, failed) and peer.report.rank_key < own_key
    ]
    return [report.node for report in sorted(found, key=lambda report: report.rank_key)]


def _may_take(peer: Peer, failed: str) -> bool:
    report: Report | None = peer.report
    return (
        report is not None
        and peer.name != failed
        and peer.view.verdict is Verdict.ALIVE
        and report.state in TAKERS
        and report.ineligible is None
        and failed in report.covers
    )
