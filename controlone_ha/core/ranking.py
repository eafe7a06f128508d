"""Who takes over: eligibility and rank, from what candidates publish about themselves (C2).

Rank gives speed, claims give safety: rank k waits k slots, counted from when the need began, and
stands down as soon as a node says that it is active for the failed one.
"""

from __future__ import annotations

from controlone_ha.core.model import Own, Peer, Role, Snapshot, State, Verdict
from controlone_ha.core.reasons import Reason, reason


def ineligibility(own: Own) -> Reason | None:
    """Return why this node may not take over from anybody, or None. Published in its report."""
    if own.role is Role.PASSIVE or own.forced == "passive":
        return reason("own_passive")
    if own.paused_by:
        return reason("own_paused")
    if not own.has_network:
        return reason("own_links")
    if own.is_late:
        return reason("own_late")
    if not own.is_licensed:
        return reason("not_licensed")
    if own.abnormalities:
        return reason("own_abnormal", what=own.abnormalities[0].text())
    return None


def own_rank_key(own: Own) -> tuple[int, int, str]:
    """Return the key this node is ranked by, the same others compute from its report."""
    return (-own.priority, 0 if own.role is Role.MASTER else 1, own.name)


def better_candidates(snapshot: Snapshot, failed: str) -> list[str]:
    """Return the standby nodes that rank before this one for ``failed``, best first."""
    own_key = own_rank_key(snapshot.own)
    candidates = [
        peer.report
        for peer in snapshot.peers
        if peer.report is not None and is_candidate(peer, failed) and peer.report.rank_key < own_key
    ]
    return [report.node for report in sorted(candidates, key=lambda report: report.rank_key)]


def is_candidate(peer: Peer, failed: str) -> bool:
    """True when ``peer`` is an eligible standby node that covers ``failed`` and is heard.

    One that only its services show to be there, without its `ha`, will not take over.
    """
    report = peer.report
    return (
        report is not None
        and peer.view.verdict is Verdict.ALIVE
        and peer.name != failed
        and report.state is State.STANDBY
        and report.ineligible is None
        and failed in report.covers
    )


def covering_node(snapshot: Snapshot, failed: str) -> str | None:
    """Return the node that says it is active for ``failed``, suspected nodes included: a claim is
    good until its node is known to be gone.
    """
    for peer in snapshot.peers:
        if (
            peer.name != failed
            and peer.report is not None
            and (peer.view.is_reachable or peer.view.verdict is Verdict.SUSPECT)
            and peer.report.state.is_serving
            and failed in peer.report.covering
        ):
            return peer.name
    return None
