"""Typed settings of the four packages, made from UCI files on disk.

``load_*`` read a file, check it against the schema and return the settings with the warnings; every
error of a file is raised at once in one ``ConfigError``. Committed files only: what is staged in
the save directory is not in force.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controlone_ha.config.schema import rows_of
from controlone_ha.config.sections import main_section, open_package
from controlone_ha.config.validate import (
    Findings,
    check_types,
    default_of,
    read_section,
)
from controlone_ha.core.admission import QueueRule, Strategy
from controlone_ha.core.routing import Route, pattern_expression


@dataclass(frozen=True, kw_only=True)
class PeerSettings:
    """One entry of ``ha.default.peers``, refined by its ``peer`` section if there is one."""

    name: str
    address: str
    ssh_port: int
    ssh_user: str
    monitor: bool
    sync: bool = True


@dataclass(frozen=True, kw_only=True)
class HaSettings:
    """``/etc/config/ha``. Times in seconds; ``limits``: option name -> typed value."""

    enabled: bool
    name: str
    role: str
    peers: tuple[PeerSettings, ...]
    secret: str
    priority: int
    site: str
    address: str
    interval: float
    heartbeat: float
    timeout: float
    failures: int
    failback: bool
    failback_delay: float
    failback_damping: int
    takeover_on_silence: str
    own_recovery: float
    stable: float
    slot: float
    ssh_user: str
    ssh_port: int
    authorized_keys: str
    call_probe: int
    database: str
    database_port: int
    limits: dict[str, Any]
    full_sync: float = 3600.0
    max_skew: float = 5.0
    scrub: float = 604800.0
    items: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def has_database(self) -> bool:
        """False when UCI says `none`: such a node still fails over and takes calls."""
        return self.database != "none"


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """``/etc/config/server``."""

    bind: str
    port: int
    max_connections: int
    authentication: str
    conference: tuple[str, ...]
    spread: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """A `gateway` section of ``/etc/config/conference``."""

    name: str
    host: str
    port: int
    transport: str
    username: str
    password: str = field(repr=False)
    replaces: bool
    check_replaces: bool = False
    codecs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ConferenceSettings:
    """``/etc/config/conference``. Times in seconds; queues by number, gateways by name."""

    bind: str
    port: int
    tls_port: int
    adoption_port: int
    media_address: str
    codecs: tuple[str, ...]
    max_calls: int
    settle: float
    silence: float
    takeover_sound: str
    recordings: str
    recorder: str
    recorder_url: str
    recorder_source: str
    queues: dict[str, QueueRule] = field(default_factory=dict)
    gateways: dict[str, GatewaySettings] = field(default_factory=dict)
    routes: tuple[Route, ...] = ()
    warnings: tuple[str, ...] = ()


def load_ha(config_dir: Path) -> HaSettings:
    """Return the settings of `ha`; raise ``ConfigError`` or ``UciError`` (syntax, missing file)."""
    file = config_dir / "ha"
    package, findings = open_package(file), Findings()
    section = main_section(package, "ha", file)
    values = read_section(package, section, str(file), findings)
    refined = {
        item.name: read_section(package, item, str(file), findings)
        for item in package
        if item.type == "peer"
    }
    limits = {name: default_of(row) for name, row in rows_of("ha", "limits").items()}
    for item in package:
        if item.type == "limits":
            limits = read_section(package, item, str(file), findings)
    items = {
        item.name: read_section(package, item, str(file), findings)
        for item in package
        if item.type == "item"
    }
    names = values.pop("peers")
    for name in refined:
        if name not in names:
            findings.warnings.append(
                f"{file}: ha.{name}: section of a peer that ha.{section.name}.peers does not list"
            )
    name = values.pop("name") or socket.gethostname().split(".")[0]
    if name in names:
        findings.errors.append(
            f"{file}:{section.line}: ha.{section.name}.peers: got this node's own name {name!r},"
            " expected only the other nodes"
        )
    peers = tuple(_peer(item, refined.get(item, {}), values) for item in names)
    check_types(package, str(file), findings)
    findings.raise_errors()
    return HaSettings(
        name=name,
        peers=peers,
        limits=limits,
        items=items,
        warnings=tuple(findings.warnings),
        **values,
    )


def _peer(name: str, refined: dict[str, Any], values: dict[str, Any]) -> PeerSettings:
    return PeerSettings(
        name=name,
        address=refined.get("address") or name,
        ssh_port=refined.get("ssh_port") or values["ssh_port"],
        ssh_user=refined.get("ssh_user") or values["ssh_user"],
        monitor=refined.get("monitor", True),
        sync=refined.get("sync", True),
    )


def load_server(config_dir: Path) -> ServerSettings:
    """Return the settings of the Console Server; a missing file gives the defaults."""
    values, warnings = _load_simple(config_dir / "server", "server")
    return ServerSettings(warnings=warnings, **values)


def load_conference(config_dir: Path) -> ConferenceSettings:
    """Return the settings of the Conference Server; a missing file gives the defaults."""
    file = config_dir / "conference"
    if not file.exists():
        rows = rows_of("conference", "conference").values()
        return ConferenceSettings(**{row.name: default_of(row) for row in rows})
    package, findings = open_package(file), Findings()
    section = main_section(package, "conference", file)
    values = read_section(package, section, str(file), findings)
    found: dict[str, list[dict[str, Any]]] = {"queue": [], "gateway": [], "route": []}
    for item in package:
        if item.type in found:
            name = item.name or f"@{item.type}[{len(found[item.type])}]"
            refined = read_section(package, item, str(file), findings)
            found[item.type].append({"name": name, **refined})
    gateways = {item["name"]: GatewaySettings(**item) for item in found["gateway"]}
    check_types(package, str(file), findings)
    queues = _queues(found["queue"])
    routes = _routes(found["route"], gateways, str(file), findings)
    findings.raise_errors()
    return ConferenceSettings(
        queues=queues,
        gateways=gateways,
        routes=routes,
        warnings=tuple(findings.warnings),
        **values,
    )


def _queues(sections: list[dict[str, Any]]) -> dict[str, QueueRule]:
    queues = {}
    for item in sections:
        name, number = item.pop("name"), item.pop("number")
        strategy = Strategy(item.pop("strategy"))
        rule = QueueRule(number=number or name, strategy=strategy, **item)
        queues[rule.number] = rule
    return queues


def _routes(
    sections: list[dict[str, Any]],
    gateways: dict[str, GatewaySettings],
    file: str,
    findings: Findings,
) -> tuple[Route, ...]:
    routes = []
    for item in sections:
        where = f"{file}: conference.{item['name']}"
        for gateway in item["gateways"]:
            if gateway not in gateways:
                findings.errors.append(f"{where}.gateways: got {gateway!r}, which is no gateway")
        try:
            if item["pattern"]:
                pattern_expression(item["pattern"])
        except ValueError as error:
            findings.errors.append(f"{where}.pattern: {error}")
        routes.append(Route(**item))
    return tuple(routes)


def _load_simple(file: Path, section_type: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    if not file.exists():
        rows = rows_of(file.name, section_type).values()
        return {row.name: default_of(row) for row in rows}, ()
    package, findings = open_package(file), Findings()
    section = main_section(package, section_type, file)
    values = read_section(package, section, str(file), findings)
    check_types(package, str(file), findings)
    findings.raise_errors()
    return values, tuple(findings.warnings)
