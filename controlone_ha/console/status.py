"""The status of a console as one JSON object, and what in it is not as it should be. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controlone_ha import __version__
from controlone_ha.console.rules import Cause, Health, State
from controlone_ha.console.texts import sentence

if TYPE_CHECKING:
    from controlone_ha.console.session import Session

Json = dict[str, Any]


def status_of(session: Session, *, now: float, wall: float) -> Json:
    """Return the status; ``now``: the session's clock, ``wall``: Unix time of that moment."""
    core = session.core
    active = core.active
    rows = []
    for key in core.rules.servers:
        server = core.servers[key]
        is_active = active is not None and active.server == key
        rows.append(
            {
                "server": key,
                "node": server.node,
                "active": is_active,
                "health": Health.SERVING.value if is_active else server.health.value,
                "state": server.state,
                "cause": None if is_active else cause_json(server.cause),
                "checked": None
                if server.checked is None and not is_active
                else wall - (now - (active.heard if is_active and active else server.checked or 0)),
                "rtt_ms": None if server.rtt is None else round(server.rtt * 1000, 1),
            }
        )
    status: Json = {
        "console": session.config.name,
        "state": core.state.value,
        "server": active.server if active is not None else None,
        "node": session.active_name,
        "is_first": active is not None and active.server == core.first,
        "reason": cause_json(core.reason),
        "since": wall - (now - core.since),
        "network": core.has_network,
        "busy": core.is_busy,
        "switches": core.switches,
        "servers": rows,
        "queues": list(session.queues),
        "calls": list(session.calls),
        "enrolled": bool(session.credentials.token),
        "pins": len(session.credentials.pins),
        "known_servers": session.known_servers,
        "problems": list(session.config.problems),
        "version": __version__,
    }
    status["abnormal"] = [cause_json(item) for item in abnormalities(status)]
    return status


def cause_json(cause: Cause | None) -> Json | None:
    """Return ``{"code", "params", "text"}``, the text in English."""
    if cause is None:
        return None
    return {
        "code": cause.code,
        "params": cause.params,
        "text": sentence(cause.code, cause.params, "en"),
    }


def abnormalities(status: Json) -> list[Cause]:
    """Return what an operator should know, the worst first; empty when all is well."""
    found = []
    reason = status["reason"] or {"code": "started", "params": {}}
    if not status["network"]:
        found.append(Cause("no_network"))
    if status["state"] == State.UNAVAILABLE.value:
        found.append(Cause("unavailable", {"why": reason}))
    elif status["state"] == State.SWITCHING.value:
        found.append(Cause("switching", {"why": reason}))
    elif not status["is_first"]:
        params = {"node": status["node"], "why": reason}
        found.append(Cause("not_first", params))
    others = [row for row in status["servers"] if not row["active"]]
    if status["state"] == State.CONNECTED.value and others:
        if all(row["health"] in ("down", "refusing") for row in others):
            found.append(Cause("no_other", {"count": len(others)}))
        elif any(row["health"] in ("down", "refusing") for row in others):
            names = [row["node"] or row["server"] for row in others if row["health"] == "down"]
            names += [row["node"] or row["server"] for row in others if row["health"] == "refusing"]
            found.append(Cause("others_down", {"servers": ", ".join(names)}))
    if not status["pins"]:
        found.append(Cause("not_enrolled"))
    found += [Cause("setting", {"text": text}) for text in status["problems"]]
    return found
