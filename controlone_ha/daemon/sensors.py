"""What the node feels of itself besides its services: host, network links, database.

Host figures are measured here; links and database through the probe worker, a child process, so
that their libraries stay out of `ha` and nothing of theirs can hold it up. A worker that cannot be
had is shown and tried again; the watchdog does not notice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controlone_ha.core.health import Health, limits_from_options
from controlone_ha.core.observations import Outcome, ProbeResult
from controlone_ha.errors import ControlOneError
from controlone_ha.probes.host import HostProbe
from controlone_ha.probes.worker_client import ProbeWorker
from controlone_ha.sync.database.files import own_target

if TYPE_CHECKING:
    from controlone_ha.config.settings import HaSettings
    from controlone_ha.daemon.shell import Shell
    from controlone_ha.paths import NodePaths
    from controlone_ha.probes.links import LinkEvent, LinkSnapshot

log = logging.getLogger("sensors")

Json = dict[str, Any]

BOOT_RUSH = 3.0
"""Seconds that the child process waits at the start: the services' own start goes before it."""

SOON = 5.0
"""Seconds between host samples while something is abnormal: it must be noticed when it ends."""


class Sensors:
    """Feeds the shell; ``database`` is the row of the status."""

    def __init__(
        self,
        shell: Shell,
        settings: HaSettings,
        *,
        paths: NodePaths,
        on_network: Callable[[Sequence[LinkEvent]], None],
    ) -> None:
        self._shell = shell
        self._paths = paths
        self._on_network = on_network
        self._worker = ProbeWorker()
        self._health = Health()
        self._tasks: list[asyncio.Task[None]] = []
        self._database: ProbeResult | None = None
        self._database_since: float | None = None
        self._database_trouble = "not asked yet"
        self.configure(settings)

    def configure(self, settings: HaSettings) -> None:
        """Take new limits, paths and rhythms over."""
        self._settings = settings
        self._health.limits = limits_from_options(settings.limits)
        paths = [Path(path) for path in settings.limits["disk_paths"]]
        self._host = HostProbe(paths, write_path=self._paths.state_dir)

    def start(self) -> None:
        """Begin to measure."""
        loop = asyncio.get_running_loop()
        for work in (self._watch_host(), self._watch_links(), self._watch_database()):
            task = loop.create_task(work)
            task.add_done_callback(_reap)
            self._tasks.append(task)

    async def stop(self) -> None:
        """Stop measuring and end the child."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._worker.close()

    async def _watch_host(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sample = await self._host.measure()
            found = self._health.update(loop.time(), sample)
            self._shell.node.host_abnormal(tuple(item.reason(loop.time()) for item in found))
            self._shell.touch()
            interval = self._settings.interval
            await asyncio.sleep(min(interval, SOON) if found else interval)

    async def _watch_links(self) -> None:
        """Start the watch; the worker's client keeps it going from then on."""
        await asyncio.sleep(BOOT_RUSH)
        while True:
            try:
                self._take_links(await self._worker.watch_links(self._links_changed))
                return
            except ControlOneError as error:
                log.warning("network links are not watched: %s", error)
            await asyncio.sleep(30.0)

    def _links_changed(self, snapshot: LinkSnapshot, events: Sequence[LinkEvent]) -> None:
        for event in events:
            log.info("%s", event.text)
        self._take_links(snapshot)
        self._on_network(events)

    def _take_links(self, snapshot: LinkSnapshot) -> None:
        self._shell.node.network(snapshot.has_any_up)
        self._shell.touch()

    async def _watch_database(self) -> None:
        await asyncio.sleep(BOOT_RUSH)
        while True:
            settings = self._settings
            if settings.has_database:
                target = own_target(self._paths, settings.database, settings.database_port)
                try:
                    result = await self._worker.ping_database(target, timeout=5.0)
                    self._take_database(result)
                except ControlOneError as error:
                    self._database, self._database_trouble = None, str(error)
            await asyncio.sleep(self._settings.interval)

    def _take_database(self, result: ProbeResult) -> None:
        before, self._database = self._database, result
        if before is None or before.outcome is not result.outcome:
            self._database_since = time.time()
            log.info("database: %s %s", result.outcome.value, result.detail)

    def database(self) -> Json:
        """Return the database's row of the status."""
        row: Json = {"name": "database", "running": False, "pid": None, "restarts": 0}
        result = self._database
        if not self._settings.has_database:
            return {**row, "state": "stopped", "since": None, "detail": "this node has none"}
        if result is None:
            return {**row, "state": "unknown", "since": None, "detail": self._database_trouble}
        detail = result.detail
        if result.is_answered and result.rtt_ms is not None:
            detail = f"answered in {result.rtt_ms:.1f} ms"
        state = "serving" if result.is_answered else "failed"
        if result.outcome is Outcome.REFUSED:
            state = "stopped"
        return {
            **row,
            "running": result.is_answered,
            "state": state,
            "since": self._database_since,
            "detail": detail,
        }


def _reap(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("a sensor ended", exc_info=task.exception())
