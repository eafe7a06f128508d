"""The fake services of a machine, their supervisor, and what the daemon's reconciler does to them.

Theory of operation. A service is a process (runs or not), which answers some time after its start
unless it stands still. The supervisor starts again what ended by itself. The reconciler compares
what runs with the core's decision after every change and every few seconds, as
``daemon.reconciler`` does, and belongs to `ha`: while `ha` is away nobody reconciles, and services
go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlone_ha.core.model import State
from controlone_ha.core.observations import Outcome, Service

if TYPE_CHECKING:
    from tests.simulation.shell import SimNode

RESPAWN = 1.0
AGAIN = 5.0
RETRY = 0.5
PROMPT = 0.01
START_SECONDS = {Service.CONSOLE: 0.15, Service.CONFERENCE: 0.35}


class SimService:
    """One service of one machine."""

    def __init__(self, node: SimNode, service: Service) -> None:
        self.node = node
        self.service = service
        self.is_running = False
        self.is_frozen = False
        self.is_broken = 0
        self.is_wanted_by_supervisor = False
        self._answers_at = 0.0
        self._process = 0
        self._chance = node.world.chance(f"{node.name} {service.value}")

    @property
    def is_answering(self) -> bool:
        """True when a request would be answered now."""
        return (
            self.is_running
            and not self.is_frozen
            and not self.node.is_machine_still
            and self.node.world.now >= self._answers_at
        )

    @property
    def process(self) -> int:
        """Which process it is: another one knows nothing of the calls of this one."""
        return self._process

    def answer(self) -> Outcome:
        """Return what a request that arrives now meets."""
        if self.node.is_dark or self.node.is_machine_still:
            return Outcome.TIMEOUT
        if not self.is_running or self.node.world.now < self._answers_at:
            return Outcome.REFUSED
        return Outcome.TIMEOUT if self.is_frozen else Outcome.ANSWERED

    def start(self) -> None:
        """Start the process; a broken one ends at once."""
        self.is_wanted_by_supervisor = True
        if self.is_running:
            return
        self.is_running, self.is_frozen = True, False
        self._process += 1
        self._answers_at = self.node.world.now + START_SECONDS[self.service] * (
            0.5 + self._chance.random()
        )
        if self.is_broken:
            self.node.world.after(0.05, self._end_by_itself, self._process, "exit 1")

    def stop(self) -> None:
        """Stop the process, as ordered."""
        self.is_wanted_by_supervisor = False
        self.is_running = self.is_frozen = False

    def kill(self, detail: str = "signal 9") -> None:
        """The process ends by violence."""
        if self.is_running:
            self._end_by_itself(self._process, detail)

    def _end_by_itself(self, process: int, detail: str) -> None:
        if process != self._process or not self.is_running:
            return
        self.is_running = self.is_frozen = False
        self.node.world.after(RESPAWN, self._respawn, self._process)
        self.node.service_exited(self.service, detail)

    def _respawn(self, process: int) -> None:
        if process == self._process and self.is_wanted_by_supervisor and self.node.is_up:
            self.start()

    def vanish(self) -> None:
        """The machine died."""
        self.is_running = self.is_frozen = self.is_wanted_by_supervisor = False
        self._process += 1


class SimReconciler:
    """Brings the services to what the decision says. One per life of `ha`."""

    def __init__(self, node: SimNode, life: int) -> None:
        self._node = node
        self._life = life
        self._generation = 0
        self._aimed: tuple[State, str] | None = None
        self._restarts: set[Service] = set()

    def aim(self) -> None:
        """The decision may have changed."""
        core = self._node.core
        assert core is not None
        target = (core.decision.state, core.decision.reason.code)
        if target != self._aimed:
            self._aimed = target
            self.look_soon()

    def restart(self, service: Service) -> None:
        """Kill and start a service."""
        self._restarts.add(service)
        self.look_soon()

    def look_soon(self) -> None:
        """Compare now rather than at the next round."""
        self._schedule(PROMPT)

    def _schedule(self, wait: float) -> None:
        self._generation += 1
        self._node.world.after(wait, self._look, self._generation)

    def _look(self, generation: int) -> None:
        node = self._node
        if generation != self._generation or node.life != self._life or node.core is None:
            return
        if node.is_still:
            node.hold(self._look, generation)
            return
        decision = node.core.decision
        is_done = True
        if decision.state is not State.STARTING:
            is_done = self._bring(Service.CONFERENCE, decision.conference_running)
            is_done &= self._bring_console(decision.state, decision.console_enabled)
        self._schedule(AGAIN if is_done else RETRY)

    def _bring_console(self, state: State, is_enabled: bool) -> bool:
        if state is State.PASSIVE:
            self._order(False)
            return self._bring(Service.CONSOLE, False)
        is_as_wanted = self._bring(Service.CONSOLE, True)
        return self._order(is_enabled) and is_as_wanted

    def _bring(self, service: Service, is_wanted: bool) -> bool:
        process = self._node.services[service]
        if is_wanted and service in self._restarts and process.is_running:
            self._restarts.discard(service)
            process.kill()
            return False
        if is_wanted and not process.is_running:
            process.start()
            return False
        if not is_wanted and process.is_running:
            process.stop()
        return True

    def _order(self, is_enabled: bool) -> bool:
        """Enable or disable the Console Server, when it takes orders."""
        if not self._node.services[Service.CONSOLE].is_answering:
            return False
        self._node.is_enabled = is_enabled
        return True
