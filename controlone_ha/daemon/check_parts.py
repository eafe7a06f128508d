"""What ``ha check`` looks at beyond settings and links: keys, ports, clock, database, releases;
gateways are in ``check_gateways``.

Everything is only looked at: nothing is mended here, and nothing waits longer than ``PATIENCE``.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

from controlone_ha.core.model import Role, Verdict
from controlone_ha.daemon.check_gateways import check_gateways
from controlone_ha.daemon.findings import Finding, finding
from controlone_ha.errors import ControlOneError
from controlone_ha.peers import authorized, keys

if TYPE_CHECKING:
    from controlone_ha.daemon.view import DaemonView

PATIENCE = 2.0
"""Seconds given to a port to accept a connection."""

OLDEST_CLOCK = 1_735_689_600
"""Seconds since 1970 of 2025-01-01: a clock before this release was made has never been set."""

FLAPPING_RETURNS = 3


async def check_parts(daemon: DaemonView) -> list[Finding]:
    """Return what is wrong with this node's parts and with the way to its peers' parts."""
    local = await asyncio.to_thread(_keys, daemon)
    ports, gateways = await asyncio.gather(_ports(daemon), check_gateways(daemon))
    return local + _clock() + _database(daemon) + _peers(daemon) + ports + gateways


def _keys(daemon: DaemonView) -> list[Finding]:
    paths = daemon.paths
    try:
        identity = keys.load_identity(paths)
        found = _exposed(paths.key_file, paths.state_dir)
        pins = daemon.trust.pins()
        file = authorized.authorized_keys_file(daemon.settings.authorized_keys or None)
    except (ControlOneError, OSError) as error:
        return [finding("error", "keys", "no_key", why=str(error))]
    others = {name: pin for name, pin in pins.items() if pin.public_key != identity.public_key}
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        lines = []
        if others:
            why = os.strerror(error.errno or 0)
            found.append(finding("error", "keys", "no_authorized_keys", file=str(file), why=why))
            return found
    known = {line.rpartition(" ")[2] for line in lines if authorized.is_managed(line)}
    for name in sorted(others):
        if f"{authorized.MARK}{name}" not in known:
            found.append(finding("error", "keys", "not_let_in", file=str(file), peer=name))
    return found


def _exposed(*paths: os.PathLike[str]) -> list[Finding]:
    return [
        finding("error", "keys", "exposed_key", file=os.fspath(path), mode=f"{mode:04o}")
        for path in paths
        if (mode := os.stat(path).st_mode & 0o777) & 0o077
    ]


def _clock() -> list[Finding]:
    if time.time() >= OLDEST_CLOCK:
        return []
    shown = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    return [finding("error", "clock", "clock_unset", time=shown)]


def _database(daemon: DaemonView) -> list[Finding]:
    row = daemon.database_row()
    if not daemon.settings.has_database or row["running"]:
        return []
    port = daemon.settings.database_port
    return [finding("warning", "database", "database_down", port=port, why=row["detail"])]


def _peers(daemon: DaemonView) -> list[Finding]:
    found = []
    node = daemon.shell.node
    now = asyncio.get_running_loop().time()
    own = node.settings.version
    for name, tracker in sorted(node.trackers.items()):
        report = tracker.report
        if report is not None and report.version and report.version != own:
            found.append(
                finding("warning", "release", "releases", peer=name, theirs=report.version, own=own)
            )
        if (returns := tracker.returns(now)) >= FLAPPING_RETURNS:
            found.append(finding("warning", "cluster", "flapping", peer=name, returns=returns))
    return found


async def _ports(daemon: DaemonView) -> list[Finding]:
    """Try the ports of every peer that is there: a firewall may let SSH through and nothing else.

    What was never there, or is away as a whole, is told by the links.
    """
    node = daemon.shell.node
    tried = []
    for name, host in daemon.addresses().items():
        tracker = node.trackers.get(name)
        report = tracker.report if tracker is not None else None
        if report is None or node.verdict(name) is not Verdict.ALIVE:
            continue
        if report.role is not Role.PASSIVE:
            tried.append((name, host, daemon.server_settings.port, "Console Server"))
        if daemon.database_row()["running"]:  # where this node has one, so have the others
            tried.append((name, host, daemon.settings.database_port, "database"))
    reasons = await asyncio.gather(*(_refusal(host, port) for _, host, port, _ in tried))
    found = []
    for (name, host, port, what), why in zip(tried, reasons, strict=True):
        if why:
            found.append(
                finding(
                    "warning",
                    "ports",
                    "port_closed",
                    peer=name,
                    host=host,
                    port=port,
                    what=what,
                    why=why,
                )
            )
    return found


async def _refusal(host: str, port: int) -> str:
    """Return why ``host`` does not accept a connection to ``port``; empty when it does."""
    try:
        async with asyncio.timeout(PATIENCE):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return f"no answer within {PATIENCE:g} s"
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)
    writer.transport.abort()
    return ""
