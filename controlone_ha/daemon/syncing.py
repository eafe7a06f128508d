"""Joins the synchronisation engine to the daemon: its settings, its word, what it changes."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from controlone_ha.errors import ControlOneError
from controlone_ha.sync.engine import Engine, SyncSettings
from controlone_ha.sync.items import make_items

if TYPE_CHECKING:
    from controlone_ha.daemon.view import DaemonView

log = logging.getLogger("sync")

OWN_PACKAGES = frozenset(("server", "conference"))
"""UCI files that are synchronised and that the daemon reads itself."""


def sync_settings(daemon: DaemonView) -> SyncSettings:
    """Return what UCI says about synchronisation, with node names for peers."""
    settings = daemon.settings
    return SyncSettings(
        items=make_items(
            settings.items,
            config_dir=str(daemon.paths.config_dir),
            recordings=daemon.conference_settings.recordings,
            licences=str(daemon.paths.licence_dir),
        ),
        full_sync=settings.full_sync,
        scrub=settings.scrub,
        allowed_skew=settings.max_skew,
        peers=frozenset(daemon.node_name_of(peer) for peer in settings.peers if peer.sync),
    )


def make_engine(daemon: DaemonView) -> Engine:
    """Return the engine of this daemon; it is not started."""
    reloading: set[asyncio.Task[None]] = set()

    def applied(item: str, paths: list[str]) -> None:
        if item == "config" and any(path.rpartition("/")[2] in OWN_PACKAGES for path in paths):
            task = asyncio.get_running_loop().create_task(_reload(daemon))
            reloading.add(task)
            task.add_done_callback(reloading.discard)

    def environment() -> dict[str, str]:
        return {
            "NODE": daemon.settings.name,
            "ROLE": daemon.settings.role,
            "STATE": daemon.shell.node.decision.state.value,
        }

    return Engine(
        node=daemon.settings.name,
        state_dir=daemon.paths.state_dir,
        settings=sync_settings(daemon),
        environment=environment,
        on_applied=applied,
        record=daemon.record,
    )


async def _reload(daemon: DaemonView) -> None:
    try:
        await daemon.reload()
    except ControlOneError as error:
        log.error("received configuration refused, going on with the old one: %s", error)
