"""``ha check``: everything wrong with this node at once, each finding with its remedy.

The status shows the warnings of the shallow check; the deep one reads the files again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from controlone_ha.config.console import load_console
from controlone_ha.config.settings import load_conference, load_ha, load_server
from controlone_ha.control.texts_en import TEXTS
from controlone_ha.core.model import Verdict
from controlone_ha.daemon.check_parts import check_parts
from controlone_ha.daemon.findings import Finding, finding
from controlone_ha.errors import ControlOneError
from controlone_ha.peers.secret import weak_secret_reason

if TYPE_CHECKING:
    from controlone_ha.daemon.view import DaemonView

SKEW_LIMIT_MS = 1000.0
_GONE = (Verdict.SILENT, Verdict.FAILED, Verdict.SERVICE_FAILED, Verdict.NO_DAEMON)


def shallow_check(daemon: DaemonView) -> list[Finding]:
    """Return what is seen without looking anything up: the warnings of the status."""
    others = daemon.licensing.findings() + daemon.auditing.findings()
    return _worst_first(_secret(daemon) + _configuration(daemon) + _peers(daemon) + others)


async def full_check(daemon: DaemonView) -> list[Finding]:
    """Return everything that is wrong with this node, errors first."""
    files = await asyncio.to_thread(_files, daemon)
    return _worst_first(shallow_check(daemon) + files + await check_parts(daemon))


def _worst_first(found: list[Finding]) -> list[Finding]:
    return sorted(found, key=lambda item: str(item["severity"]))


def _secret(daemon: DaemonView) -> list[Finding]:
    weakness = weak_secret_reason(daemon.settings.secret)
    if weakness is None:
        return []
    return [finding("warning", "secret", "weak_secret", text=weakness)]


def _configuration(daemon: DaemonView) -> list[Finding]:
    settings = daemon.settings
    found = [
        finding("warning", "configuration", "unknown_option", line=text)
        for text in (
            *settings.warnings,
            *daemon.server_settings.warnings,
            *daemon.conference_settings.warnings,
        )
    ]
    if not settings.peers:
        found.append(finding("warning", "configuration", "no_peers"))
    return found


def _peers(daemon: DaemonView) -> list[Finding]:
    found = []
    for peer in daemon.settings.peers:
        name = daemon.node_name_of(peer)
        link = daemon.links.status(name)
        verdict = daemon.shell.node.verdict(name)
        if link.code == "expelled":
            found.append(finding("warning", "keys", "expelled", text=link.sentence, peer=peer.name))
        elif link.state == "unpaired":
            found.append(finding("error", "keys", "unpaired", peer=name, address=peer.address))
        elif link.state == "refused":
            code = link.code if f"finding.{link.code}" in TEXTS else "refused"
            found.append(finding("error", "link", code, text=link.sentence, peer=name))
        elif verdict is Verdict.UNKNOWN:
            found.append(finding("error", "link", "never_answered", peer=name))
        elif verdict in _GONE:
            found.append(finding("warning", "link", "peer_down", peer=name, verdict=verdict.value))
        skew = link.skew_ms
        if skew is not None and abs(skew) > SKEW_LIMIT_MS:
            seconds = f"{skew / 1000:+.1f}"
            found.append(finding("warning", "clock", "skew", peer=name, seconds=seconds))
    return found


def _files(daemon: DaemonView) -> list[Finding]:
    """Read every file again: what is on disk may be worse than what is in force."""
    found = []
    loaders = [load_ha, load_server, load_conference]
    if (daemon.paths.config_dir / "console").exists():
        loaders.append(load_console)
    for load in loaders:
        try:
            load(daemon.paths.config_dir)
        except ControlOneError as error:
            for line in str(error).splitlines():
                found.append(finding("error", "configuration", "bad_value", line=line))
    return found
