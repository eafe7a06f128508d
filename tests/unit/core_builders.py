"""Short builders of snapshots and reports for the tests of the pure core. No tests here."""

from __future__ import annotations

from typing import Any

from controlone_ha.core.model import (
    Own,
    Peer,
    PeerView,
    Report,
    Role,
    Rules,
    Snapshot,
    State,
    Verdict,
)
from controlone_ha.core.observations import Outcome, ProbeResult, Service
from controlone_ha.core.reasons import reason

NOW = 1000.0

FIGURE = {
    "m1": (Role.MASTER, "site1"),
    "s1": (Role.SLAVE, "site1"),
    "m2": (Role.MASTER, "site2"),
    "s2": (Role.SLAVE, "site2"),
    "p1": (Role.PASSIVE, "site2"),
}
"""Figure 1 of the specification: two sites, each a master and a slave, and one passive node."""

START_STATE = {
    Role.MASTER: State.ACTIVE,
    Role.SLAVE: State.STANDBY,
    Role.PASSIVE: State.PASSIVE,
}

ABNORMAL = reason("conference_down", detail="signal 9")


def make_report(node: str, role: Role = Role.MASTER, **changes: Any) -> Report:
    """Return what ``node`` publishes in its start state, with ``changes``."""
    state = changes.pop("state", START_STATE[role])
    return Report(
        node=node,
        role=role,
        state=state,
        reason=changes.pop("reason", reason("all_fine", role=role.value)),
        **changes,
    )


def make_peer(
    name: str,
    role: Role | None = Role.MASTER,
    verdict: Verdict = Verdict.ALIVE,
    *,
    since_at: float = NOW - 100,
    is_monitored: bool = True,
    is_linked: bool | None = None,
    serving_at: float | None = None,
    returns: int = 0,
    sees: tuple[str, ...] = (),
    denies: tuple[str, ...] = (),
    hears: tuple[str, ...] = (),
    is_refused: bool = False,
    failed_service: str = "",
    **report_changes: Any,
) -> Peer:
    """Return a peer as a snapshot shows it; ``role`` None: it was never heard on a link."""
    report = None if role is None else make_report(name, role, **report_changes)
    standby_at = None
    if verdict is Verdict.ALIVE and report is not None:
        if serving_at is None and report.state.is_serving:
            serving_at = since_at
        if report.state in (State.STANDBY, State.PASSIVE):
            standby_at = since_at
    return Peer(
        name=name,
        view=PeerView(
            peer=name,
            verdict=verdict,
            since_at=since_at,
            failed_service=failed_service,
            sees=frozenset(sees),
            denies=frozenset(denies),
            denies_now=frozenset(denies),
            hears=frozenset(hears),
            is_refused=is_refused,
        ),
        report=report,
        is_linked=verdict is Verdict.ALIVE if is_linked is None else is_linked,
        is_monitored=is_monitored,
        serving_at=serving_at,
        standby_at=standby_at,
        returns=returns,
    )


def make_own(name: str = "s1", role: Role = Role.SLAVE, **changes: Any) -> Own:
    """Return the owner of a snapshot in its start state, with ``changes``."""
    state = changes.pop("state", START_STATE[role])
    return Own(
        name=name,
        role=role,
        state=state,
        reason=changes.pop("reason", reason("all_fine", role=role.value)),
        healthy_at=changes.pop("healthy_at", 0.0),
        **changes,
    )


def make_snapshot(own: Own, *peers: Peer, now: float = NOW, rules: Rules | None = None) -> Snapshot:
    """Return the snapshot of ``own`` with these peers."""
    return Snapshot(now=now, own=own, peers=peers, rules=rules or Rules())


def figure(
    owner: str,
    *,
    silent: tuple[str, ...] = (),
    denied_by: tuple[str, ...] = (),
    since_at: float = NOW - 2,
    now: float = NOW,
    **own_changes: Any,
) -> Snapshot:
    """Return what ``owner`` of figure 1 sees when ``silent`` went silent at ``since_at``."""
    role, site = FIGURE[owner]
    peers = []
    for name, (peer_role, peer_site) in FIGURE.items():
        if name == owner:
            continue
        covers = frozenset(FIGURE) - {name}
        if name in silent:
            peer = make_peer(
                name,
                peer_role,
                Verdict.SILENT,
                since_at=since_at,
                denies=denied_by,
                site=peer_site,
                covers=covers,
            )
        else:
            peer = make_peer(name, peer_role, site=peer_site, covers=covers)
        peers.append(peer)
    own = make_own(owner, role, site=site, **own_changes)
    return make_snapshot(own, *peers, now=now)


def probe(
    service: Service = Service.CONSOLE, outcome: Outcome = Outcome.ANSWERED, **answer: Any
) -> ProbeResult:
    """Return a probe's result."""
    return ProbeResult(service=service, outcome=outcome, detail=outcome.value, answer=answer)
