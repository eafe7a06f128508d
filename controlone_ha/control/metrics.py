"""OpenMetrics text from the status of a node. Pure; names begin with ``controlone_ha``.

Written by hand after the OpenMetrics 1.0 specification: families in one piece, counters ending in
``_total``, units as suffixes, state sets labelled with the family's name, ``# EOF`` at the end.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    Labels = Mapping[str, Any]

PREFIX = "controlone_ha"
STATES = ("starting", "active", "degraded", "disabled", "standby", "passive")
VERDICTS = (
    "unknown",
    "alive",
    "suspect",
    "silent",
    "failed",
    "service_failed",
    "no_daemon",
    "refused",
)
SERVICE_STATES = ("serving", "disabled", "stopped", "frozen", "failed", "unknown")
LINK_STATES = ("up", "connecting", "refused", "down", "unpaired")
SYNC_STATES = ("in sync", "pending", "held", "never")


class Exposition:
    """Collects families and their samples in order."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(
        self, name: str, kind: str, text: str, samples: Iterable[tuple[Labels, float | None]]
    ) -> None:
        """Add a family; samples whose value is None are left out, and so is an empty family."""
        full = f"{PREFIX}_{name}" if name else PREFIX
        lines = []
        suffix = {"counter": "_total", "info": "_info"}.get(kind, "")
        for labels, value in samples:
            if value is not None:
                lines.append(f"{full}{suffix}{_labels(labels)} {_number(value)}")
        if lines:
            self._lines += [f"# TYPE {full} {kind}"]
            for unit in ("seconds",):
                if full.endswith(f"_{unit}"):
                    self._lines.append(f"# UNIT {full} {unit}")
            self._lines += [f"# HELP {full} {_escape(text)}", *lines]

    def states(
        self, name: str, text: str, values: Iterable[tuple[Labels, Any, tuple[str, ...]]]
    ) -> None:
        """Add a state set: for each (labels, present value, known values) one sample a value."""
        samples: list[tuple[Labels, float | None]] = []
        for labels, present, known in values:
            every = known if present is None or present in known else (*known, str(present))
            for value in every:
                samples.append(({**labels, f"{PREFIX}_{name}": value}, float(value == present)))
        self.family(name, "stateset", text, samples)

    def text(self) -> str:
        """Return the exposition."""
        return "\n".join([*self._lines, "# EOF", ""])


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items()) + "}"


def _escape(value: Any) -> str:
    return str(value).replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def render_down() -> str:
    """Return what can be said when the daemon does not answer."""
    page = Exposition()
    page.family("up", "gauge", "Whether the HA daemon answers.", [({}, 0)])
    return page.text()


def render_metrics(status: Mapping[str, Any]) -> str:
    """Return the metrics of a status (shape in ``control.api``)."""
    page = Exposition()
    page.family("up", "gauge", "Whether the HA daemon answers.", [({}, 1)])
    page.family(
        "",
        "info",
        "Name, role, site and version of this node.",
        [({key: status.get(key) or "" for key in ("node", "role", "site", "version")}, 1)],
    )
    _node(page, status)
    _services(page, status.get("services") or ())
    _peers(page, status.get("peers") or ())
    return page.text()


def _node(page: Exposition, status: Mapping[str, Any]) -> None:
    page.states("state", "Current state of this node.", [({}, status.get("state"), STATES)])
    page.family(
        "state_since_timestamp_seconds",
        "gauge",
        "When this node entered its state.",
        [({}, status.get("since"))],
    )
    page.family(
        "start_timestamp_seconds",
        "gauge",
        "When the HA daemon started.",
        [({}, status.get("started"))],
    )
    page.family(
        "priority", "gauge", "Published priority of this node.", [({}, status.get("priority"))]
    )
    page.states(
        "forced",
        "State a person forced.",
        [({}, status.get("forced") or "none", ("none", "active", "passive"))],
    )
    page.family(
        "paused",
        "gauge",
        "Whether automatic changes are paused.",
        [({}, float(bool(status.get("paused"))))],
    )
    for name in ("abnormalities", "warnings"):
        page.family(
            name, "gauge", f"Number of {name} shown.", [({}, float(len(status.get(name) or ())))]
        )


def _services(page: Exposition, services: Iterable[Mapping[str, Any]]) -> None:
    rows = [({"service": service.get("name") or ""}, service) for service in services]
    page.family(
        "service_running",
        "gauge",
        "Whether the service's process runs.",
        [(labels, float(bool(row.get("running")))) for labels, row in rows],
    )
    page.states(
        "service_state",
        "State of the service.",
        [(labels, row.get("state") or "unknown", SERVICE_STATES) for labels, row in rows],
    )
    page.family(
        "service_restarts",
        "counter",
        "How often the service came back by itself.",
        [(labels, row.get("restarts") or 0) for labels, row in rows],
    )


def _peers(page: Exposition, peers: Iterable[Mapping[str, Any]]) -> None:
    rows = [({"peer": peer.get("name") or ""}, peer) for peer in peers]
    page.states(
        "peer_verdict",
        "What this node thinks of the peer.",
        [(labels, row.get("verdict") or "unknown", VERDICTS) for labels, row in rows],
    )
    page.states(
        "peer_state",
        "State the peer published last.",
        [(labels, row["state"], STATES) for labels, row in rows if row.get("state")],
    )
    page.states(
        "link_state",
        "State of the link to the peer.",
        [
            (labels, (row.get("link") or {}).get("state") or "down", LINK_STATES)
            for labels, row in rows
        ],
    )
    for name, key, text in (
        ("link_round_trip_seconds", "rtt_ms", "Round trip on the link to the peer."),
        ("clock_skew_seconds", "skew_ms", "Clock of the peer minus the clock of this node."),
    ):
        page.family(name, "gauge", text, [(labels, _seconds(row.get(key))) for labels, row in rows])
    syncs = [
        ({**labels, "kind": kind}, sync)
        for labels, row in rows
        for kind, sync in (row.get("sync") or {}).items()
        if sync
    ]
    page.states(
        "sync_state",
        "Synchronisation with the peer.",
        [(labels, sync.get("state") or "never", SYNC_STATES) for labels, sync in syncs],
    )
    page.family(
        "sync_state_since_timestamp_seconds",
        "gauge",
        "When the synchronisation with the peer entered its state.",
        [(labels, sync.get("since")) for labels, sync in syncs],
    )
    probes = [
        ({**labels, "service": service}, probe)
        for labels, row in rows
        for service, probe in (row.get("probes") or {}).items()
        if probe
    ]
    page.family(
        "probe_answered",
        "gauge",
        "Whether the last probe of the peer's service was answered.",
        [(labels, float(probe.get("outcome") == "answered")) for labels, probe in probes],
    )
    page.family(
        "probe_round_trip_seconds",
        "gauge",
        "Round trip of the last probe.",
        [(labels, _seconds(probe.get("rtt_ms"))) for labels, probe in probes],
    )


def _seconds(value_ms: Any) -> float | None:
    return value_ms / 1000 if isinstance(value_ms, int | float) else None
