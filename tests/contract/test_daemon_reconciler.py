"""The reconciler between a decision and a supervisor: what it orders, what it leaves alone.

The supervisor here is a double that keeps real processes' rules (start, stop, status, exit); the
same orders reach the real ones in tests/cluster.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from controlone_ha.core.model import Decision, State
from controlone_ha.core.observations import Service
from controlone_ha.core.reasons import reason
from controlone_ha.daemon.reconciler import Reconciler
from controlone_ha.errors import ServiceError
from controlone_ha.services.console_server import ConsoleServerStatus
from controlone_ha.services.manager import ServiceManager, ServiceStatus


class Supervisor(ServiceManager):
    def __init__(self) -> None:
        super().__init__()
        self.running: dict[str, bool] = {"server": False, "conference": False}
        self.orders: list[tuple[str, str]] = []
        self.refuses = ""

    async def _order(self, name: str, verb: str) -> None:
        self.orders.append((name, verb))
        if self.refuses == name:
            raise ServiceError(f"service {name}: no such file")
        self.running[name] = verb in ("start", "restart")

    async def status(self, name: str) -> ServiceStatus:
        return ServiceStatus(running=self.running[name], pid=None, since=time.time())


class Console:
    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.orders: list[str] = []
        self.serving = False
        self.is_frozen = False
        self.listens = True

    async def status(self) -> ConsoleServerStatus | None:
        if self.is_frozen:
            await asyncio.sleep(60.0)
        return self._status() if self.supervisor.running["server"] and self.listens else None

    async def enable(self) -> ConsoleServerStatus:
        self.orders.append("enable")
        self.serving = True
        return self._status()

    async def disable(self, why: dict[str, Any]) -> ConsoleServerStatus:
        self.orders.append(f"disable {why['code']}")
        self.serving = False
        return self._status()

    async def publish(self, **said: Any) -> ConsoleServerStatus:
        self.orders.append(f"publish {said['state']}")
        return self._status()

    def _status(self) -> ConsoleServerStatus:
        return ConsoleServerStatus(
            serving=self.serving,
            reason_code="",
            reason_text="",
            since=0.0,
            consoles=3,
            connections=3,
            pid=7,
        )


class Story:
    def __init__(self) -> None:
        self.supervisor = Supervisor()
        self.console = Console(self.supervisor)
        self.exits: list[tuple[Service, str]] = []
        self.loads: list[int] = []
        self.forgotten = 0
        self.state = State.STARTING
        self.reconciler = Reconciler(
            self.supervisor,
            self.console,  # type: ignore[arg-type]
            on_exit=lambda service, detail: self.exits.append((service, detail)),
            on_load=self.loads.append,
            publication=lambda: {"node": "n", "role": "slave", "state": self.state.value},
            forget_order=self._forget,
        )

    def _forget(self) -> None:
        self.forgotten += 1

    def aim(self, state: State, code: str = "role_slave") -> None:
        self.state = state
        self.reconciler.aim(Decision(state=state, reason=reason(code)))

    async def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 5
        while not condition():
            assert time.monotonic() < end, (self.supervisor.orders, self.console.orders)
            await asyncio.sleep(0.005)


def play(act: Callable[[Story], Awaitable[None]]) -> Story:
    async def run() -> Story:
        story = Story()
        story.reconciler.start()
        try:
            await act(story)
        finally:
            await story.reconciler.stop()
            await story.supervisor.close()
        return story

    return asyncio.run(run())


def test_C1_a_standby_keeps_its_console_server_warm_and_its_conference_off() -> None:
    async def act(story: Story) -> None:
        story.aim(State.STANDBY)
        await story.until(lambda: "disable role_slave" in story.console.orders)

    story = play(act)
    assert story.supervisor.orders == [("server", "start")]
    assert story.console.serving is False
    assert story.loads[-1] == 3


def test_F4_activation_enables_and_starts_and_going_back_undoes_both() -> None:
    async def act(story: Story) -> None:
        story.aim(State.STANDBY)
        await story.until(lambda: bool(story.console.orders))
        story.aim(State.ACTIVE, "peer_failed")
        await story.until(lambda: story.console.serving)
        await story.until(lambda: story.supervisor.running["conference"])
        story.aim(State.STANDBY, "failed_back")
        await story.until(lambda: not story.supervisor.running["conference"])
        await story.until(lambda: not story.console.serving)

    story = play(act)
    assert ("server", "stop") not in story.supervisor.orders
    assert story.console.orders[-1] == "disable failed_back"


def test_C1_a_passive_node_sends_its_consoles_away_before_the_process_ends() -> None:
    async def act(story: Story) -> None:
        story.aim(State.ACTIVE)
        await story.until(lambda: story.console.serving)
        story.aim(State.PASSIVE, "forced_passive")
        await story.until(lambda: not any(story.supervisor.running.values()))

    story = play(act)
    assert "disable forced_passive" in story.console.orders
    assert {order for order in story.supervisor.orders if order[1] == "stop"} == {
        ("server", "stop"),
        ("conference", "stop"),
    }


def test_nothing_is_touched_before_the_first_decision() -> None:
    async def act(story: Story) -> None:
        story.aim(State.STARTING)
        story.reconciler.look_again()
        await asyncio.sleep(0.05)

    story = play(act)
    assert story.supervisor.orders == []
    assert story.console.orders == []


def test_the_same_decision_again_orders_nothing() -> None:
    async def act(story: Story) -> None:
        story.aim(State.ACTIVE)
        await story.until(lambda: story.console.serving)
        await story.until(lambda: story.supervisor.running["conference"])
        before = (list(story.supervisor.orders), list(story.console.orders))
        for _ in range(5):
            story.aim(State.ACTIVE)
            await asyncio.sleep(0.02)
        assert (story.supervisor.orders, story.console.orders) == before

    play(act)


def test_F2_a_service_that_cannot_be_started_is_told_and_tried_again() -> None:
    async def act(story: Story) -> None:
        story.supervisor.refuses = "conference"
        story.aim(State.ACTIVE)
        await story.until(lambda: bool(story.exits))
        await story.until(lambda: story.console.serving)
        story.supervisor.refuses = ""
        await story.until(lambda: story.supervisor.running["conference"])

    story = play(act)
    assert story.exits[0] == (Service.CONFERENCE, "service conference: no such file")


def test_a_frozen_console_server_does_not_hold_up_the_conference_server() -> None:
    async def act(story: Story) -> None:
        story.aim(State.STANDBY)
        await story.until(lambda: bool(story.console.orders))
        story.console.is_frozen = True
        story.aim(State.STANDBY, "all_fine")
        await asyncio.sleep(0.05)
        story.aim(State.ACTIVE, "peer_failed")
        await story.until(lambda: story.supervisor.running["conference"])

    assert play(act).console.serving is False


def test_F2_a_server_that_could_not_be_told_to_stop_serving_forgets_that_it_served() -> None:
    async def act(story: Story) -> None:
        story.aim(State.ACTIVE)
        await story.until(lambda: story.console.serving)
        story.console.listens = False
        assert story.forgotten == 0
        story.aim(State.DISABLED, "abnormal_yielded")
        await story.until(lambda: story.forgotten > 0)
        story.console.listens = True
        await story.until(lambda: not story.console.serving)

    play(act)
