"""An abnormal node hands its consoles over: one node at a time, and only when another can serve.

Theory of operation. The abnormal node publishes ASKING and serves on. Every peer answers in its own
report: a *consent* ("as far as I am concerned, you may") to one asker at a time, and an *offer* if
it covers the asker and can serve itself. The asker yields when every linked peer that could be
abnormal too has consented and at least one has offered. Two askers exclude each other: of the two,
the one with the lower name never consents to the other, and a node that has yielded consents to
nobody. Reports travel in order on a link, so a consent is withdrawn before its sender asks for
itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from controlone_ha.core.model import Peer, Report, Role, Snapshot, Verdict, Yielding
from controlone_ha.core.ranking import ineligibility
from controlone_ha.core.reasons import reason


@dataclass(frozen=True, kw_only=True)
class Grants:
    """What this node answers to abnormal peers: sets of node names, ``offers`` within
    ``consents``.
    """

    consents: frozenset[str] = frozenset()
    offers: frozenset[str] = frozenset()


NOTHING = Grants()


def grants(snapshot: Snapshot, yielding: Yielding) -> Grants:
    """Return what this node, itself ``yielding`` from now on, answers to the abnormal peers it can
    reach.
    """
    own = snapshot.own
    if yielding is Yielding.YIELDED:
        return NOTHING
    out = _peers_that_are(snapshot, Yielding.YIELDED)
    asking = _peers_that_are(snapshot, Yielding.ASKING)
    if out:
        # One node at a time. A second one that is out already (it yielded while a link was down)
        # keeps the consent it has: taking it back would not bring its consoles back sooner.
        chosen = frozenset(out)
    else:
        if yielding is Yielding.ASKING:
            asking = [name for name in asking if name < own.name]
        kept = [name for name in asking if name in own.consents]
        chosen = frozenset((kept or asking)[:1])
    if not chosen:
        return NOTHING
    if ineligibility(own) is not None:
        return Grants(consents=chosen)
    return Grants(
        consents=chosen,
        offers=frozenset(
            name
            for name in chosen - own.unlicensed
            if (peer := snapshot.peer(name)) and peer.is_monitored
        ),
    )


def _peers_that_are(snapshot: Snapshot, yielding: Yielding) -> list[str]:
    return sorted(
        peer.name
        for peer in snapshot.peers
        if peer.report is not None and peer.report.yielding is yielding and peer.view.is_reachable
    )


def substitutes(snapshot: Snapshot) -> list[str]:
    """Return the reachable peers that have answered that they serve, or can, instead of this
    node.
    """
    return sorted(peer.name for peer in _answering(snapshot) if _offers(peer, snapshot.own.name))


def has_all_consents(snapshot: Snapshot) -> bool:
    """True when every linked peer that could be abnormal too has consented to this node's
    asking.
    """
    name = snapshot.own.name
    return all(
        peer.report is not None
        and (peer.report.role is Role.PASSIVE or name in peer.report.consents)
        for peer in _answering(snapshot)
    )


def is_replaced(snapshot: Snapshot) -> bool:
    """True while a node that has yielded may rely on another one: a peer has offered over its open
    link, or serves and has offered or says that it is active for this node.

    A suspected peer still counts: what it is will be known soon, and coming back for every closed
    link would throw the consoles to and fro.
    """
    return any(
        _is_substitute(peer, peer.report, snapshot.own.name)
        for peer in snapshot.peers
        if peer.report is not None
    )


def _is_substitute(peer: Peer, report: Report, name: str) -> bool:
    is_suspect = peer.view.verdict is Verdict.SUSPECT
    if report.state.is_serving and name in report.covering | report.offers:
        return is_suspect or (
            peer.view.is_reachable and peer.view.verdict is not Verdict.SERVICE_FAILED
        )
    return name in report.offers and (is_suspect or peer.view.verdict is Verdict.ALIVE)


def node_out_before(snapshot: Snapshot) -> str:
    """Return the reachable node that is out of service already, or asks and goes first; or
    ``""``.
    """
    out = _peers_that_are(snapshot, Yielding.YIELDED)
    first = [
        name for name in _peers_that_are(snapshot, Yielding.ASKING) if name < snapshot.own.name
    ]
    return next(iter(out + first), "")


def why_nobody(snapshot: Snapshot) -> str:
    """Return, for the person, why no peer has taken over from this abnormal node."""
    name = snapshot.own.name
    parts = []
    for peer in _answering(snapshot):
        report = peer.report
        assert report is not None
        if name not in report.covers or report.role is Role.PASSIVE:
            continue
        if report.ineligible is not None:
            parts.append(f"{peer.name}: {report.ineligible.text()}")
        else:
            parts.append(f"{peer.name}: asked")
    return "; ".join(parts) or reason("no_cover").text()


def _answering(snapshot: Snapshot) -> list[Peer]:
    return [
        peer
        for peer in snapshot.peers
        if peer.report is not None and peer.view.verdict is Verdict.ALIVE
    ]


def _offers(peer: Peer, name: str) -> bool:
    return peer.report is not None and name in peer.report.offers
