"""The asyncio end of the probe worker: starts it on demand, and again when it dies.

Theory of operation. The first request starts the child. When the child ends unasked, pending
requests fail at once; the next request, or the wish to watch links, starts another after a pause
that doubles from 0.5 s to 30 s and is forgotten once a child has lived for a minute. A new child's
first link snapshot is compared with the last known one, so nothing that happened in between is
missed.

A worker that cannot be had is no finding about a peer: such pings raise ``ProbeWorkerError``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from controlone_ha.core.observations import Outcome, ProbeResult, Service
from controlone_ha.errors import ControlOneError
from controlone_ha.jsonrpc import MAX_LINE, Connection, JsonObject, RpcError
from controlone_ha.probes.child import child_environment
from controlone_ha.probes.database import DatabaseTarget
from controlone_ha.probes.links import LinkEvent, LinkSnapshot, changes, snapshot_from_json

_log = logging.getLogger(__name__)

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
PROVEN_AFTER = 60.0
_MARGIN = 2.0  # the worker keeps its own time; this is for a worker that does not

LinkCallback = Callable[[LinkSnapshot, Sequence[LinkEvent]], None]


class ProbeWorkerError(ControlOneError):
    """The worker could not be started, died, or refused the request."""

    code = "probe_worker"


def pause_after(failures: int, first: float = FIRST_PAUSE) -> float:
    """Return how long to wait, in seconds, after the n-th failure in a row."""
    return min(LONGEST_PAUSE, first * 2.0 ** min(failures - 1, 16))


class _Child:
    """One running worker."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        connection: Connection,
        reader: asyncio.Task[None],
        started: float,
    ) -> None:
        self.process = process
        self.connection = connection
        self.reader = reader
        self.started = started
        self.is_watching = False
        self.sequence = -1


class ProbeWorker:
    """Database pings and link events through a child process. All methods run in one loop."""

    def __init__(self, *, command: Sequence[str] = (), first_pause: float = FIRST_PAUSE) -> None:
        """``command``: how to start the worker; empty: this Python."""
        self._command = tuple(command) or (sys.executable, "-m", "controlone_ha.probes.worker")
        self._first_pause = first_pause
        self._child: _Child | None = None
        self._starting = asyncio.Lock()
        self._failures = 0
        self._retry_at = 0.0
        self._is_closed = False
        self._interfaces: list[str] | None = None
        self._on_links: LinkCallback | None = None
        self._links: LinkSnapshot | None = None
        self._keeper: asyncio.Task[None] | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """Process id of the running worker, or None."""
        return self._child.process.pid if self._child is not None else None

    @property
    def links(self) -> LinkSnapshot | None:
        """The last known snapshot of the links, None before the first."""
        return self._links

    async def ping_database(self, target: DatabaseTarget, *, timeout: float = 5.0) -> ProbeResult:
        """Ping a database. Raises ``ProbeWorkerError`` when there is no worker to do it, or when
        this node's own certificate or settings cannot be used.
        """
        raw = await self._call(
            "ping_database", {"target": target.to_json(), "timeout": timeout}, timeout + _MARGIN
        )
        return ProbeResult(
            service=Service.DATABASE,
            outcome=Outcome(raw["outcome"]),
            detail=raw["detail"],
            rtt_ms=raw["rtt_ms"],
            answer=raw["answer"],
        )

    async def watch_links(
        self, on_links: LinkCallback, interfaces: Sequence[str] | None = None
    ) -> LinkSnapshot:
        """Have ``on_links(snapshot, events)`` called after each change; return the first snapshot.

        ``interfaces``: the names that matter; None: every one that has an address. The watch
        outlives the child. Raises ``ProbeWorkerError`` when the first child cannot be had.
        """
        self._on_links = on_links
        self._interfaces = None if interfaces is None else list(interfaces)
        self._links = None
        if self._child is not None:
            self._child.sequence = -1
        await self._watch()
        if self._keeper is None:
            self._keeper = asyncio.get_running_loop().create_task(self._keep_watching())
        assert self._links is not None
        return self._links

    async def status(self) -> JsonObject:
        """Return ``{"pid", "rss_kib", "databases", "restarts"}`` of the worker."""
        raw = await self._call("status", {}, 5.0)
        return {**raw, "restarts": self.restarts}

    async def close(self) -> None:
        """End the child and wait for it. Idempotent."""
        self._is_closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        child, self._child = self._child, None
        if child is not None:
            await child.connection.close()  # the end of its input is its order to exit
            try:
                await asyncio.wait_for(child.process.wait(), 2.0)
            except TimeoutError:
                _kill(child.process)
                await child.process.wait()
            await child.reader

    async def _call(self, method: str, params: JsonObject, timeout: float) -> Any:
        return await self._ask(await self._running(), method, params, timeout)

    async def _ask(self, child: _Child, method: str, params: JsonObject, timeout: float) -> Any:
        try:
            return await child.connection.call(method, params, timeout=timeout)
        except TimeoutError as error:
            # It keeps its own, shorter time; one that does not is stuck and is replaced.
            _kill(child.process)
            raise ProbeWorkerError(f"the probe worker did not answer {method}") from error
        except RpcError as error:
            raise ProbeWorkerError(f"{method}: {error}") from error
        except ControlOneError as error:
            raise ProbeWorkerError(f"the probe worker ended during {method}") from error

    async def _running(self) -> _Child:
        async with self._starting:
            if self._is_closed:
                raise ProbeWorkerError("the probe worker is closed")
            if self._child is not None and self._child.connection.closed:
                self._ended(self._child)
            if self._child is None:
                loop = asyncio.get_running_loop()
                wait = self._retry_at - loop.time()
                if wait > 0:
                    raise ProbeWorkerError(
                        f"the probe worker has ended {self._failures} times; "
                        f"the next is started in {wait:.1f} s"
                    )
                self._child = await self._start()
            return self._child

    async def _start(self) -> _Child:
        loop = asyncio.get_running_loop()
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                str(os.getpid()),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=MAX_LINE,
                env=child_environment(),
            )
        except OSError as error:
            self._count_failure(loop.time())
            raise ProbeWorkerError(f"the probe worker cannot be started: {error}") from error
        assert process.stdin is not None and process.stdout is not None
        connection = Connection(process.stdout, process.stdin, self._receive)
        child = _Child(process, connection, loop.create_task(connection.run()), loop.time())
        child.reader.add_done_callback(lambda _: self._ended(child))
        return child

    async def _receive(self, connection: Connection, method: str, params: JsonObject) -> None:
        child = self._child
        if method == "links" and child is not None and connection is child.connection:
            self._take_links(child, params)

    def _ended(self, child: _Child) -> None:
        """The child's output has ended: it has died, or was told to."""
        if self._child is not child:
            return
        self._child = None
        now = asyncio.get_running_loop().time()
        if now - child.started > PROVEN_AFTER:
            self._failures = 0
        self._count_failure(now)
        self.restarts += 1
        _kill(child.process)
        _log.warning("probe worker %s has ended", child.process.pid)

    def _count_failure(self, now: float) -> None:
        self._failures += 1
        self._retry_at = now + pause_after(self._failures, self._first_pause)

    async def _watch(self) -> None:
        child = await self._running()
        raw = await self._ask(child, "watch_links", {"interfaces": self._interfaces}, 15.0)
        child.is_watching = True
        self._take_links(child, raw)

    def _take_links(self, child: _Child, params: JsonObject) -> None:
        # An answer may reach its waiter after a notification that was sent later.
        if params["sequence"] <= child.sequence:
            return
        child.sequence = params["sequence"]
        snapshot = snapshot_from_json(params["snapshot"])
        old, self._links = self._links, snapshot
        if old is None or self._on_links is None:
            return
        events = changes(old, snapshot)
        if events:
            self._on_links(snapshot, events)

    async def _keep_watching(self) -> None:
        """Start another child whenever the one that watches has gone."""
        loop = asyncio.get_running_loop()
        while True:
            child = self._child
            if child is not None and child.is_watching:
                await asyncio.wait([child.reader])
            await asyncio.sleep(max(0.05, self._retry_at - loop.time()))
            try:
                if self._child is None or not self._child.is_watching:
                    await self._watch()
            except ProbeWorkerError as error:
                _log.debug("links are not watched: %s", error)
                await asyncio.sleep(1.0)


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
