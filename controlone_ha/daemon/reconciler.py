"""Makes the services what the decision says: the only place that starts, stops, enables, disables.

Theory of operation. The decision is a target, not a command: after every change, and every few
seconds, what runs is compared with it and the difference is made good. Console Server and
Conference Server are brought there by a loop each, so that a frozen one holds up nothing but
itself. What fails is tried again; `ha` may be killed between any two steps and its next start goes
on from what it finds. Stopping `ha` touches no service.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from controlone_ha.core.model import Decision, State
from controlone_ha.core.observations import Service
from controlone_ha.errors import ServiceError
from controlone_ha.jsonrpc import JsonObject
from controlone_ha.services.console_server import ConsoleServerClient, ConsoleServerStatus
from controlone_ha.services.manager import ServiceManager, ServiceStatus

if TYPE_CHECKING:
    from controlone_ha.daemon.handover import Handover

log = logging.getLogger("services")

AGAIN = 5.0
"""Seconds between two looks at services that nobody has reported a change of."""

RETRY = 0.5
"""Seconds until what failed is tried again."""

SOON = 0.05
"""Seconds until a Console Server that is just starting is told again what it is."""

STARTING_UP = 5.0
"""Seconds that a Console Server is taken to be just starting."""

_SERVICES = (Service.CONFERENCE, Service.CONSOLE)


class Reconciler:
    """Owns the services of this node on behalf of the daemon."""

    def __init__(
        self,
        manager: ServiceManager,
        console: ConsoleServerClient,
        *,
        on_exit: Callable[[Service, str], None],
        on_load: Callable[[int], None],
        publication: Callable[[], JsonObject],
        forget_order: Callable[[], None] = lambda: None,
    ) -> None:
        """``forget_order`` removes what the Console Server keeps of its last order."""
        self._manager = manager
        self._console = console
        self._on_exit = on_exit
        self._on_load = on_load
        self._publication = publication
        self._forget_order = forget_order
        self._decision: Decision | None = None
        self._changed = {service: asyncio.Event() for service in _SERVICES}
        self._restarts: set[Service] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._missing_since: float | None = None
        self._watched: dict[str, int] = {}
        self._ordered: JsonObject | None = None
        self._ordered_pid: int | None = None
        self.handover: Handover | None = None
        self.statuses: dict[str, ServiceStatus] = {}
        self.console_status: ConsoleServerStatus | None = None

    def aim(self, decision: Decision) -> None:
        """Set the target; returns at once."""
        self._decision = decision
        self.look_again()

    def restart(self, service: Service) -> None:
        """Kill and start a service that runs and does not answer; returns at once."""
        self._restarts.add(service)
        self._changed[service].set()

    def look_again(self) -> None:
        """Compare now rather than at the next round."""
        for changed in self._changed.values():
            changed.set()

    def start(self) -> None:
        """Begin to reconcile."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._run(service)) for service in _SERVICES]

    async def stop(self) -> None:
        """Stop reconciling; services stay as they are."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def find_running(self) -> bool:
        """Return True when the Conference Server runs already (`ha` was restarted: adopt it)."""
        status = await self._status(Service.CONFERENCE)
        return status is not None and status.running

    async def _run(self, service: Service) -> None:
        changed = self._changed[service]
        bring = self._bring_server if service is Service.CONSOLE else self._bring_conference
        while True:
            changed.clear()
            wait = AGAIN
            if self._decision is not None:
                try:
                    if not await bring(self._decision):
                        wait = self._pause(service)
                except Exception:  # the loop's wrapper: a fault must not end the care of a service
                    log.exception("%s was not brought to what it should be", service.value)
                    wait = AGAIN
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), wait)

    def _pause(self, service: Service) -> float:
        """Return when to try again: a server that is about to listen must be told at once what it
        is, for it may remember that it served.
        """
        status, missing = self.statuses.get(service.value), self._missing_since
        if service is not Service.CONSOLE or missing is None or not (status and status.running):
            return RETRY
        age = asyncio.get_running_loop().time() - missing
        return SOON if age < STARTING_UP else RETRY

    async def _bring_conference(self, decision: Decision) -> bool:
        wanted = decision.conference_running
        if decision.state is State.STARTING:
            return True
        if not wanted and self.handover is not None:
            if self.handover.is_running:
                return True  # its calls are on their way to other nodes
            if self.handover.ends_hard:
                await self._kill(Service.CONFERENCE)
        return await self._bring(Service.CONFERENCE, wanted)

    async def _bring_server(self, decision: Decision) -> bool:
        if decision.state is State.STARTING:
            return True
        may_run = decision.state is not State.PASSIVE
        if not may_run:
            # In order first: consoles are told where to go and why; then the process ends.
            await self._order(decision)
            return await self._bring(Service.CONSOLE, False)
        is_running = await self._bring(Service.CONSOLE, True)
        return await self._order(decision) and is_running

    async def _bring(self, service: Service, wanted: bool) -> bool:
        """Start, stop or restart one service; return whether it is as wanted."""
        status = await self._status(service)
        if status is None:
            return False
        try:
            if wanted and service in self._restarts and status.pid is not None:
                # A frozen process does not act on SIGTERM; the kernel's word is quick and certain.
                self._restarts.discard(service)
                log.warning("%s runs and does not answer: killing it", service.value)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(status.pid, signal.SIGKILL)
                return False
            if wanted and not status.running:
                await self._manager.start(service.value)
            elif not wanted and status.running:
                await self._manager.stop(service.value)
            else:
                self._watch(service, status)
                return True
        except ServiceError as error:
            log.warning("%s: %s", service.value, error)
            self._on_exit(service, str(error))
            return False
        status = await self._status(service)
        if status is not None:
            self._watch(service, status)
        return status is not None and status.running == wanted

    async def _kill(self, service: Service) -> None:
        """End a process without its farewells: a BYE of ours may end what is another's by now."""
        status = await self._status(service)
        if status is not None and status.running and status.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(status.pid, signal.SIGKILL)

    async def _status(self, service: Service) -> ServiceStatus | None:
        try:
            status = await self._manager.status(service.value)
        except ServiceError as error:
            log.warning("%s: %s", service.value, error)
            return None
        self.statuses[service.value] = status
        return status

    def _watch(self, service: Service, status: ServiceStatus) -> None:
        """Have the kernel tell when the process ends."""
        if (
            not status.running
            or status.pid is None
            or self._watched.get(service.value) == status.pid
        ):
            return
        self._watched[service.value] = status.pid
        self._manager.watch(service.value, lambda ended: self._ended(service, ended))

    def _ended(self, service: Service, status: ServiceStatus) -> None:
        self._watched.pop(service.value, None)
        self.statuses[service.value] = status
        if self._is_wanted(service):
            self._on_exit(service, status.detail or "process ended")
        self._changed[service].set()

    def _is_wanted(self, service: Service) -> bool:
        decision = self._decision
        if decision is None or decision.state is State.STARTING:
            return False
        if service is Service.CONSOLE:
            return decision.state is not State.PASSIVE
        return decision.conference_running

    async def _order(self, decision: Decision) -> bool:
        """Tell the Console Server what it is: enabled or not, why, and what consoles may know."""
        order = self._order_for(decision)
        try:
            status = await self._console.status()
            if status is None:
                self.console_status, self._ordered = None, None
                return self._nobody_to_order(decision)
            self._missing_since = None
            is_as_ordered = (
                self._ordered == order
                and self._ordered_pid == status.pid
                and status.serving == decision.console_enabled
            )
            if not is_as_ordered:
                status = await self._console.publish(**order["publish"])
                if decision.console_enabled and not status.serving:
                    status = await self._console.enable()
                elif not decision.console_enabled:
                    status = await self._console.disable(order["reason"])
        except ServiceError as error:
            log.warning("Console Server does not take orders: %s", error)
            self._ordered = None
            return False
        self.console_status = status
        self._ordered, self._ordered_pid = order, status.pid
        self._on_load(status.consoles)
        return True

    def _nobody_to_order(self, decision: Decision) -> bool:
        """The Console Server is down or just starting; return whether that is as it should be."""
        if not decision.console_enabled:
            # It could not be told; what it remembers from before must not open it again.
            self._forget_order()
        if decision.state is State.PASSIVE:
            self._missing_since = None
            return True
        if self._missing_since is None:
            self._missing_since = asyncio.get_running_loop().time()
        return False

    def _order_for(self, decision: Decision) -> JsonObject:
        return {
            "serving": decision.console_enabled,
            "reason": {"code": decision.reason.code, "text": decision.reason.text()},
            "publish": self._publication(),
        }
