"""What `ha` asks of whoever supervises the node's services: start, stop, restart, status, watch.

The supervisor itself (procd, the lab's) starts, respawns and stops; a ``ServiceManager`` only
drives it, so that `ha` may die or be restarted without a service noticing.

Theory of operation of ``watch``: the supervisor tells the PID; a pidfd of that process becomes
readable the moment it ends, and the event loop calls back. No polling, and no race with a PID used
again: after the pidfd is open the supervisor is asked once more, and must still name the same PID.
"""

from __future__ import annotations

import abc
import asyncio
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from controlone_ha.errors import ServiceError

log = logging.getLogger(__name__)

START_TIMEOUT = 10.0
STOP_TIMEOUT = 20.0
"""Longer than the longest ``term_timeout``, after which the supervisor sends SIGKILL."""

_POLL = 0.05
_REAP = 0.01


@dataclass(frozen=True, kw_only=True)
class ServiceStatus:
    """One service as its supervisor sees it.

    ``running``: its process lives (a frozen one does). ``pid``: of its main process. ``since``:
    Unix time in seconds of the last start or end, None if it never ran. ``restarts``: respawns so
    far, as far as known. ``detail``: how its process ended last (`exit code 1`, `killed by
    SIGKILL`), empty if it never did.
    """

    running: bool
    pid: int | None = None
    since: float | None = None
    restarts: int = 0
    detail: str = ""


Callback = Callable[[ServiceStatus], None]


class Watch:
    """One process being watched; ``cancel`` ends it without a call."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def cancel(self) -> None:
        """Watch no more; may be repeated."""
        self._task.cancel()

    @property
    def done(self) -> bool:
        """Whether the callback was called, or the watch cancelled."""
        return self._task.done()


class ServiceManager(abc.ABC):
    """Drives a supervisor. Every method raises ``ServiceError``, one sentence, and ends in time."""

    def __init__(self) -> None:
        self._watches: set[asyncio.Task[None]] = set()

    # -- what a supervisor must offer --------------------------------------------------------

    @abc.abstractmethod
    async def _order(self, name: str, verb: str) -> None:
        """Have the supervisor start, stop or restart; it may return before that is done."""

    @abc.abstractmethod
    async def status(self, name: str) -> ServiceStatus:
        """Return the state of a service; raise ``ServiceError`` if there is no such service."""

    # -- what `ha` uses ----------------------------------------------------------------------

    async def start(self, name: str) -> None:
        """Start a service; return when its process runs. Nothing to do when it does."""
        await self._order(name, "start")
        await self._until(name, lambda status: status.running, "start", START_TIMEOUT)

    async def stop(self, name: str) -> None:
        """Stop a service; return when its process is gone. Nothing to do when it is."""
        before = await self.status(name)
        await self._order(name, "stop")
        await self._until(
            name,
            lambda status: status.pid is None or status.pid != before.pid,
            "stop",
            STOP_TIMEOUT,
        )

    async def restart(self, name: str) -> None:
        """Stop a service if it runs, start it; return when the new process runs."""
        before = await self.status(name)
        await self._order(name, "restart")
        await self._until(
            name,
            lambda status: status.running and status.pid != before.pid,
            "restart",
            STOP_TIMEOUT,
        )

    def watch(self, name: str, callback: Callback) -> Watch:
        """Call ``callback`` once, at the moment the process that runs now has ended.

        If none runs, it is called at once. Its argument says ``running=False`` and how the process
        ended, even if the supervisor has started a new one already. Errors of the supervisor are
        logged and the watch goes on until it answers. Call it within the event loop.
        """
        task = asyncio.get_running_loop().create_task(self._watch(name, callback))
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)
        return Watch(task)

    async def close(self) -> None:
        """Cancel all watches; services stay as they are."""
        for task in list(self._watches):
            task.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)

    # -- helpers -----------------------------------------------------------------------------

    async def _until(
        self, name: str, is_done: Callable[[ServiceStatus], bool], verb: str, timeout: float
    ) -> None:
        limit = time.monotonic() + timeout
        while True:
            status = await self.status(name)
            if is_done(status):
                return
            if time.monotonic() >= limit:
                how = f"; its process ended: {status.detail}" if status.detail else ""
                raise ServiceError(f"service {name} did not {verb} within {timeout:g} s{how}")
            await asyncio.sleep(_POLL)

    async def _watch(self, name: str, callback: Callback) -> None:
        while True:
            try:
                status = await self.status(name)
                if status.pid is None:
                    break
                descriptor = os.pidfd_open(status.pid)
            except ProcessLookupError:
                await asyncio.sleep(_REAP)  # ended, and the supervisor does not know it yet
                continue
            except (ServiceError, OSError) as error:
                log.warning("watching %s: %s", name, error)
                await asyncio.sleep(1.0)
                continue
            try:
                if (await self._quick_status(name, status)).pid != status.pid:
                    continue
                await _readable(descriptor)
            finally:
                os.close(descriptor)
            status = await self._ended(name, status)
            break
        callback(replace(status, running=False, pid=None))

    async def _ended(self, name: str, before: ServiceStatus) -> ServiceStatus:
        """Return how the process of ``before`` ended, if the supervisor can tell that soon."""
        seen = replace(before, since=time.time(), detail="")
        for _ in range(5):
            now = await self._quick_status(name, before)
            if now.pid != before.pid:
                return replace(seen, restarts=now.restarts, detail=now.detail)
            await asyncio.sleep(_REAP)
        return seen

    async def _quick_status(self, name: str, otherwise: ServiceStatus) -> ServiceStatus:
        try:
            return await asyncio.wait_for(self.status(name), 1.0)
        except (ServiceError, TimeoutError):
            return otherwise


async def _readable(descriptor: int) -> None:
    """Return when the descriptor is readable."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def ready() -> None:
        loop.remove_reader(descriptor)
        if not done.done():
            done.set_result(None)

    loop.add_reader(descriptor, ready)
    try:
        await done
    finally:
        loop.remove_reader(descriptor)
