"""Which peers need a replacement, and on what grounds.

Theory of operation. A peer that *says* it does not serve (yielded, forced passive) is believed. A
peer whose machine *refuses* (its kernel answers with a reset) is dead as far as its services go:
there is a path to it, so no partition can look like this. A peer that is merely *silent* may be
dead or cut off, so silence is weighed. A service that fails beside another that answers needs a
replacement unless somebody hears the peer's `ha`: then that is there to recover it or to say that
it cannot, and what fails is the way. Silence:

- somebody sees it: the path between us is cut, the node lives;
- nobody else can be reached: this node is isolated (two-node cluster apart) and judges nobody;
- it is silent alone, while this side reaches its site or a majority of the configured nodes: it is
  taken as failed;
- it went silent together with every other node of its site: a site or the path to it is down; then
  it is replaced only by a majority that has no active node left;
- other nodes are just returning from silence: a partition is healing, and the rest may follow.

Activation is harmless when wrong (consoles and gateways choose for themselves), so these grounds
are enough for it. Taking calls needs better ones and is decided elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from controlone_ha.core.model import Peer, Report, Role, Snapshot, State, Verdict, Yielding
from controlone_ha.core.reasons import Reason, reason

TOGETHER = 5.0
"""Seconds within which nodes that fall silent, or return, are taken to do so together."""


class Need(StrEnum):
    """Whether a peer needs a replacement. HELD: it may, but this node must not judge (yet)."""

    NO = "no"
    HELD = "held"
    YES = "yes"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The judgement on one peer."""

    peer: str
    need: Need
    reason: Reason
    wake_at: float | None = None


def judge(snapshot: Snapshot, peer: Peer) -> Judgement:
    """Return whether ``peer`` needs a replacement, from ``snapshot``'s owner's point of view."""
    view, report = peer.view, peer.report
    if report is not None and report.role is Role.PASSIVE:
        return _judgement(peer, Need.NO, reason("role_passive"))
    if view.verdict is Verdict.UNKNOWN:
        return _judgement(peer, Need.NO, reason("never_answered", peer=peer.name))
    if view.verdict in (Verdict.ALIVE, Verdict.NO_DAEMON):
        return _judge_by_its_word(peer)
    if view.verdict is Verdict.SUSPECT:
        why = reason("confirming", peer=peer.name, evidence=view.evidence)
        return _judgement(peer, Need.NO, why)
    if report is None:
        why = reason("never_heard", peer=peer.name, evidence=view.evidence)
        return _judgement(peer, Need.NO, why)
    if not _should_serve(report):
        return _judgement(peer, Need.NO, reason("not_missed", peer=peer.name))
    if view.verdict is Verdict.FAILED:
        return _judgement(
            peer, Need.YES, reason("peer_failed", peer=peer.name, evidence=view.evidence)
        )
    if view.verdict is Verdict.SERVICE_FAILED:
        return _judge_failed_service(snapshot, peer)
    return _judge_silence(snapshot, peer)


def _judgement(peer: Peer, need: Need, why: Reason, wake_at: float | None = None) -> Judgement:
    return Judgement(peer=peer.name, need=need, reason=why, wake_at=wake_at)


def _should_serve(report: Report) -> bool:
    """A slave that was in standby when it failed is missed, but nobody has to replace it."""
    return report.state.runs_conference or report.role is Role.MASTER


def _judge_by_its_word(peer: Peer) -> Judgement:
    report = peer.report
    if report is None or peer.view.verdict is Verdict.NO_DAEMON:
        return _judgement(peer, Need.NO, reason("alive", peer=peer.name))
    if report.yielding is Yielding.YIELDED:
        why = reason("peer_yielded", peer=peer.name, why=report.reason.text())
        return _judgement(peer, Need.YES, why)
    if report.role is Role.MASTER and report.state is State.PASSIVE:
        return _judgement(peer, Need.YES, reason("peer_forced_passive", peer=peer.name))
    return _judgement(peer, Need.NO, reason("alive", peer=peer.name))


def _judge_failed_service(snapshot: Snapshot, peer: Peer) -> Judgement:
    view = peer.view
    if view.hears:
        why = reason(
            "service_failed_here",
            peer=peer.name,
            service=view.failed_service,
            witness=", ".join(sorted(view.hears)),
            evidence=view.evidence,
        )
        return _judgement(peer, Need.HELD, why)
    # A service that is merely silent may be out of this node's way only: others are asked, and one
    # answer is waited for, though not for ever.
    is_asking = any(
        other.is_linked and other.view.is_reachable
        for other in snapshot.peers
        if other.name != peer.name
    )
    is_open = not view.is_refused and is_asking and not (view.sees or view.denies)
    deadline = view.since_at + TOGETHER
    if is_open and snapshot.now < deadline:
        why = reason("confirming", peer=peer.name, evidence=view.evidence)
        return _judgement(peer, Need.HELD, why, wake_at=deadline)
    why = reason(
        "peer_service_failed", peer=peer.name, service=view.failed_service, evidence=view.evidence
    )
    return _judgement(peer, Need.YES, why)


def _judge_silence(snapshot: Snapshot, peer: Peer) -> Judgement:
    view = peer.view
    if view.sees:
        witness = ", ".join(sorted(view.sees))
        return _judgement(
            peer,
            Need.HELD,
            reason("path_cut", peer=peer.name, witness=witness, evidence=view.evidence),
        )
    reached = [other for other in snapshot.peers if other.view.is_reachable]
    if len(snapshot.peers) == 1:
        why = reason("peer_silent_two_nodes", peer=peer.name, evidence=view.evidence)
        return _judgement(peer, Need.YES, why)
    if not reached:
        return _judgement(peer, Need.HELD, reason("isolated", count=len(snapshot.peers)))
    returned_at = _others_returned_at(snapshot, peer)
    if returned_at is not None and snapshot.now < returned_at + TOGETHER:
        return _judgement(
            peer,
            Need.HELD,
            reason("confirming", peer=peer.name, evidence=view.evidence),
            wake_at=returned_at + TOGETHER,
        )
    unasked = [other.name for other in reached if other.name not in view.denies and other.is_linked]
    deadline = view.since_at + snapshot.rules.confirm
    if unasked and snapshot.now < deadline:
        return _judgement(
            peer,
            Need.HELD,
            reason("confirming", peer=peer.name, evidence=view.evidence),
            wake_at=deadline,
        )
    if not view.denies:
        return _judgement(peer, Need.HELD, reason("isolated", count=len(snapshot.peers)))
    falling = _neighbours_in_doubt(snapshot, peer)
    if falling:
        return _judgement(
            peer,
            Need.HELD,
            reason("confirming", peer=peer.name, evidence=view.evidence),
            wake_at=view.since_at + TOGETHER,
        )
    return _judge_confirmed_silence(snapshot, peer, reached)


def _others_returned_at(snapshot: Snapshot, peer: Peer) -> float | None:
    """Return when the last of the other nodes returned from silence.

    One path heals for one node a little before the next: a site that is coming back must not look
    like a majority that misses one node.
    """
    return max(
        (
            other.view.returned_at
            for other in snapshot.peers
            if other.name != peer.name and other.view.returned_at is not None
        ),
        default=None,
    )


def _neighbours_in_doubt(snapshot: Snapshot, peer: Peer) -> list[str]:
    """Return the nodes of the silent peer's site that are suspected at the same time.

    One cut is noticed for one node a little before the next. A site that is falling silent must not
    look like one node that did; what is suspected is settled soon, so nobody waits for long.
    """
    if snapshot.now - peer.view.since_at >= TOGETHER:
        return []
    site = peer.report.site if peer.report is not None else ""
    return [
        other.name
        for other in snapshot.peers
        if other.view.verdict is Verdict.SUSPECT
        and (not site or other.report is None or other.report.site == site)
    ]


def _judge_confirmed_silence(snapshot: Snapshot, peer: Peer, reached: list[Peer]) -> Judgement:
    own, evidence = snapshot.own, peer.view.evidence
    site = peer.report.site if peer.report is not None else ""
    silent = [other for other in snapshot.peers if other.view.verdict is Verdict.SILENT]
    together = [
        other.name
        for other in silent
        if abs(other.view.since_at - peer.view.since_at) <= TOGETHER
        and (not site or other.report is None or other.report.site == site)
    ]
    reaches_site = bool(site) and (
        own.site == site
        or any(other.report is not None and other.report.site == site for other in reached)
    )
    members = len(snapshot.peers) + 1
    has_majority = 2 * (len(reached) + 1) > members
    witnesses = ", ".join(sorted(peer.view.denies))
    confirmed = reason("peer_silent", peer=peer.name, witnesses=witnesses, evidence=evidence)
    if reaches_site and (has_majority or len(together) == 1):
        return _judgement(peer, Need.YES, confirmed)
    names = ", ".join(sorted(together))
    if not has_majority:
        why = reason(
            "minority", peers=names, reached=len(reached) + 1, members=members, evidence=evidence
        )
        return _judgement(peer, Need.HELD, why)
    if len(together) == 1:
        return _judgement(peer, Need.YES, confirmed)
    active = [other.name for other in reached if other.is_serving]
    if own.state.is_serving:
        active.append(own.name)
    if active:
        why = reason(
            "site_silent", peers=names, active=", ".join(sorted(active)), evidence=evidence
        )
        return _judgement(peer, Need.HELD, why)
    return _judgement(
        peer, Need.YES, reason("site_silent_no_active", peer=peer.name, evidence=evidence)
    )
