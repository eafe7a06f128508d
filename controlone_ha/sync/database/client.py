"""The asyncio end of the synchroniser's process, in `ha`: starts it, configures it, asks it.

Like the probe worker's client: the child is started with the first settings, and again after a
pause that doubles when it dies; each new child gets the present settings. The last status it gave
is at hand at once; asking it never holds up the loop. Imports no driver.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from controlone_ha.errors import ControlOneError
from controlone_ha.jsonrpc import MAX_LINE, Connection, JsonObject, RpcError
from controlone_ha.probes.child import child_environment
from controlone_ha.sync.database.settings import Settings

log = logging.getLogger("database")

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
PROVEN_AFTER = 60.0
STATUS_EVERY = 1.0
LONG = 3600.0


class DatabaseSyncError(ControlOneError):
    """The synchroniser could not be asked, or refused; the text is for the person."""

    code = "database_sync"


class DatabaseSync:
    """Synchronisation of the database through a child process. One loop."""

    def __init__(
        self,
        *,
        command: Sequence[str] = (),
        on_status: Callable[[JsonObject], None] | None = None,
    ) -> None:
        self._command = tuple(command) or (sys.executable, "-m", "controlone_ha.sync.database")
        self._on_status = on_status
        self._settings: Settings | None = None
        self._connection: Connection | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._trouble = ""
        self.last: JsonObject = {"state": "off", "text": "", "peers": {}}
        self.last_at: float | None = None
        self.restarts = -1

    @property
    def pid(self) -> int | None:
        """Process id of the child, None while there is none."""
        return self._process.pid if self._process is not None else None

    def configure(self, settings: Settings | None) -> None:
        """Work with these settings from now on; None: no database here, no process."""
        if settings == self._settings:
            return
        self._settings = settings
        self._changed.set()
        if self._keeper is None:
            self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def ask(self, method: str, *, timeout: float = 60.0, **params: Any) -> Any:
        """Ask the child; raise ``DatabaseSyncError``."""
        connection = self._connection
        if connection is None:
            raise DatabaseSyncError(
                self._trouble or "synchronisation of the database is not running"
            )
        try:
            return await connection.call(method, params, timeout=timeout)
        except TimeoutError as error:
            raise DatabaseSyncError(f"{method}: no answer within {timeout:g} s") from error
        except (RpcError, ControlOneError) as error:
            raise DatabaseSyncError(str(error)) from error

    async def close(self) -> None:
        """End the child and wait for it. Idempotent."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        await self._end()

    async def _keep(self) -> None:
        """Keep a child while there are settings; the reaper of what goes wrong with it."""
        failures = 0
        while True:
            if self._settings is None:
                await self._end()
                self.last = {"state": "off", "text": "", "peers": {}}
                self._changed.clear()
                await self._changed.wait()
                continue
            started = time.monotonic()
            try:
                await self._live()
            except (OSError, ControlOneError, TimeoutError) as error:
                self._trouble = f"the synchroniser's process: {error}"
                log.warning("%s", self._trouble)
            await self._end()
            if self._settings is None:
                continue
            failures = 1 if time.monotonic() - started > PROVEN_AFTER else failures + 1
            self.last = {"state": "down", "text": self._trouble, "fault": "process", "peers": {}}
            await asyncio.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures - 1, 10)))

    async def _live(self) -> None:
        """Start a child, configure it, and take its status until it ends or is not wanted."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            str(os.getpid()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=child_environment(),
            limit=MAX_LINE,
        )
        assert process.stdin is not None and process.stdout is not None
        self._process = process
        self.restarts += 1
        connection = Connection(process.stdout, process.stdin)
        reader = asyncio.get_running_loop().create_task(connection.run())
        self._connection = connection
        try:
            self._changed.set()
            while self._settings is not None:
                if self._changed.is_set():
                    self._changed.clear()
                    settings = self._settings
                    if settings is not None:
                        await connection.call("configure", settings.to_json(), timeout=10.0)
                self.last = await connection.call("status", {}, timeout=20.0)
                self.last_at = time.time()
                self._trouble = ""
                if self._on_status is not None:
                    self._on_status(self.last)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STATUS_EVERY):
                        await self._changed.wait()
        finally:
            self._connection = None
            reader.cancel()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()
