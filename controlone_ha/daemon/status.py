"""The status of the node as one JSON object: own state, services, peers. Built, never decided,
here.

The shape is the contract of the local API (``control.api``); times are wall-clock seconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from controlone_ha import __version__
from controlone_ha.core.model import Peer, Snapshot, State, Verdict
from controlone_ha.core.reasons import Reason

if TYPE_CHECKING:
    from controlone_ha.config.settings import HaSettings
    from controlone_ha.daemon.database import DatabaseItem
    from controlone_ha.daemon.reconciler import Reconciler
    from controlone_ha.daemon.shell import Shell
    from controlone_ha.peers.links import PeerLinks
    from controlone_ha.sync.engine import Engine

Json = dict[str, Any]

_NEVER = {"state": "never", "since": None, "text": ""}


def status_of(
    *,
    shell: Shell,
    settings: HaSettings,
    links: PeerLinks,
    reconciler: Reconciler,
    started: float,
    fingerprint: str,
    warnings: Iterable[Json],
    paused: Json | None,
    database: Json,
    sync: Engine,
    database_item: DatabaseItem,
) -> Json:
    """Return the status of this node."""
    node = shell.node
    snapshot = node.snapshot(shell.now)
    decision = node.decision
    return {
        "node": settings.name,
        "role": settings.role,
        "state": decision.state.value,
        "since": shell.state_since,
        "reason": decision.reason.to_json(),
        "forced": node.remembered.forced or None,
        "paused": paused,
        "version": __version__,
        "started": started,
        "priority": settings.priority,
        "site": settings.site,
        "address": settings.address,
        "fingerprint": fingerprint,
        "warnings": list(warnings),
        "services": [
            _server(shell, reconciler),
            _conference(shell, reconciler),
            database,
        ],
        "abnormalities": [_abnormality(item) for item in snapshot.own.abnormalities],
        "peers": [
            _peer(shell, settings, links, sync, database_item, peer) for peer in snapshot.peers
        ],
        "sync": [*sync.overview(), database_item.overview()],
    }


def _server(shell: Shell, reconciler: Reconciler) -> Json:
    status = reconciler.statuses.get("server")
    said = reconciler.console_status
    entry = _service("server", status)
    if status is None or not status.running:
        entry["state"] = "stopped" if shell.node.decision.state is State.PASSIVE else "failed"
    elif any(item.code == "console_mute" for item in _own_abnormalities(shell)):
        entry["state"] = "frozen"
    elif said is None:
        entry["state"] = "unknown"
    else:
        entry["state"] = "serving" if said.serving else "disabled"
        entry["detail"] = f"{said.consoles} consoles"
        if not said.serving:
            entry["detail"] = said.reason_text
        entry["since"] = said.since
    return entry


def _conference(shell: Shell, reconciler: Reconciler) -> Json:
    status = reconciler.statuses.get("conference")
    entry = _service("conference", status)
    wanted = shell.node.decision.conference_running
    probe = shell.last_probes.get(("", "conference"))
    if status is None or not status.running:
        entry["state"] = "failed" if wanted else "stopped"
    elif any(item.code == "conference_mute" for item in _own_abnormalities(shell)):
        entry["state"] = "frozen"
    elif probe is not None and probe[1].is_answered:
        entry["state"] = "serving"
        entry["detail"] = f"SIP answered in {probe[1].rtt_ms:.1f} ms" if probe[1].rtt_ms else ""
    else:
        entry["state"] = "unknown"
    return entry


def _own_abnormalities(shell: Shell) -> tuple[Reason, ...]:
    return shell.node.watch.abnormalities(shell.now)


def _service(name: str, status: Any) -> Json:
    return {
        "name": name,
        "running": bool(status and status.running),
        "pid": status.pid if status else None,
        "state": "unknown",
        "since": status.since if status else None,
        "restarts": status.restarts if status else 0,
        "detail": (status.detail or "") if status else "",
    }


def _abnormality(item: Reason) -> Json:
    ages = [evidence.age for evidence in item.evidence if evidence.age is not None]
    return {
        "kind": item.code,
        "code": item.code,
        "params": dict(item.params),
        "text": item.text(),
        "since": time.time() - max(ages) if ages else None,
    }


def _peer(
    shell: Shell,
    settings: HaSettings,
    links: PeerLinks,
    sync: Engine,
    database_item: DatabaseItem,
    peer: Peer,
) -> Json:
    report, view = peer.report, peer.view
    link = links.status(peer.name)
    verdict = view.verdict.value
    text = Reason(code="never_answered" if verdict == "unknown" else verdict).text()
    if view.evidence:
        text += ": " + "; ".join(item.text for item in view.evidence)
    if link.state == "refused" and view.verdict is not Verdict.ALIVE:
        verdict, text = "refused", link.sentence
    return {
        "name": peer.name,
        "address": address_of(settings, peer.name),
        "monitored": peer.is_monitored,
        "role": report.role.value if report else None,
        "state": report.state.value if report else None,
        "since": report.since if report and report.since else None,
        "site": report.site if report else "",
        "reason": report.reason.to_json() if report else None,
        "verdict": verdict,
        "verdict_text": text,
        "verdict_since": shell.verdict_since.get(peer.name),
        "link": {
            "state": link.state,
            "code": link.code,
            "text": link.sentence,
            "since": _wall(shell, link.since),
            "direction": link.direction,
        },
        "rtt_ms": link.rtt_ms,
        "skew_ms": link.skew_ms,
        "sync": {
            "config": sync.status_of(peer.name, "config"),
            "data": database_item.standing(peer.name),
        },
        "probes": _probes(shell, peer.name),
    }


def _wall(shell: Shell, at: float) -> float | None:
    return time.time() - (shell.now - at) if at else None


def _probes(shell: Shell, peer: str) -> Mapping[str, Json]:
    found = {}
    for (name, service), (at, result) in shell.last_probes.items():
        if name == peer:
            found[service] = {
                "outcome": result.outcome.value,
                "detail": result.detail,
                "rtt_ms": result.rtt_ms,
                "at": at,
            }
    return found


def address_of(settings: HaSettings, name: str) -> str:
    """Return the configured address of a peer, or its name."""
    return next((peer.address for peer in settings.peers if peer.name == name), name)


def links_of(
    shell: Shell, settings: HaSettings, links: PeerLinks, names: Iterable[str]
) -> list[Json]:
    """Return the links as the local API shows them."""
    rows = []
    for name in names:
        link = links.status(name)
        rows.append(
            {
                "peer": name,
                "address": address_of(settings, name),
                "state": link.state,
                "code": link.code,
                "text": link.sentence,
                "since": _wall(shell, link.since),
                "direction": link.direction,
                "rtt_ms": link.rtt_ms,
                "skew_ms": link.skew_ms,
            }
        )
    return rows


def servers_for_consoles(settings: HaSettings, snapshot: Snapshot) -> list[Json]:
    """Return what a console may be told about the other servers: where to go, and their states."""
    rows = []
    for peer in snapshot.peers:
        report = peer.report
        if report is None or report.role.value == "passive":
            continue
        rows.append(
            {
                "name": peer.name,
                "address": address_of(settings, peer.name),
                "role": report.role.value,
                "state": report.state.value if peer.view.is_reachable else "unreachable",
                "serving": peer.is_serving,
            }
        )
    return rows
