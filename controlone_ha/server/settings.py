"""What the Console Server reads at its start: its settings, and whether `ha` runs here at all."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from controlone_ha.config.schema import rows_of
from controlone_ha.config.settings import load_server
from controlone_ha.config.validate import BadValueError, parse
from controlone_ha.errors import UciError
from controlone_ha.records.settings import database_address
from controlone_ha.server.limits import Limits
from controlone_ha.uci import load

MOST_ANONYMOUS = 1024


@dataclass(frozen=True, kw_only=True)
class StartSettings:
    """Where to listen, what to hold, and what is known of the node before `ha` publishes it."""

    bind: str
    """Local address; empty: all, IPv4 and IPv6."""
    port: int
    limits: Limits
    ha_enabled: bool
    """False: no `ha` runs on this node, so the server serves without being told."""
    node: str
    needs_token: bool = True
    """False: consoles that are not enrolled may log in, too."""
    conference: tuple[str, ...] = ("local",)
    """Conference Servers for new calls."""
    spread: str = "least_calls"
    database: tuple[str, int] | None = None
    """Host and port of this node's database; None: it has none."""
    warnings: tuple[str, ...] = ()


def load_settings(config_dir: Path) -> StartSettings:
    """Return the settings; raise ``ConfigError`` or ``UciError`` for a bad ``server`` file.

    Of the ``ha`` file only the switch and the name are read: a bad one is the business of `ha`,
    which will not start with it, and here means that HA is wanted, so the server waits for orders
    (or goes on with the last one).
    """
    settings = load_server(config_dir)
    enabled, node = _ha_switch(config_dir / "ha")
    return StartSettings(
        bind=settings.bind,
        port=settings.port,
        limits=divide(settings.max_connections),
        ha_enabled=enabled,
        node=node,
        needs_token=settings.authentication == "required",
        conference=tuple(settings.conference),
        spread=settings.spread,
        database=database_address(config_dir),
        warnings=settings.warnings,
    )


def _ha_switch(file: Path) -> tuple[bool, str]:
    """Return whether HA is wanted on this node, and the node's name."""
    host = socket.gethostname().split(".")[0]
    if not file.exists():
        return False, host
    try:
        package = load(file)
    except UciError:
        return True, host
    section = package.section("default") or next(package.sections("ha"), None)
    if section is None:
        return True, host
    option = section.option("enabled")
    try:
        enabled = option is None or parse(rows_of("ha", "ha")["enabled"], option)
    except BadValueError:
        enabled = True
    return bool(enabled), section.get("name") or host


def divide(max_connections: int) -> Limits:
    """Return the limits for so many connections: a quarter, at most 1024, is for those without
    login: watchdogs, tests of consoles, and consoles on their way in after a failure.
    """
    anonymous = max(1, min(MOST_ANONYMOUS, max_connections // 4))
    return Limits(max_consoles=max(1, max_connections - anonymous), max_anonymous=anonymous)
