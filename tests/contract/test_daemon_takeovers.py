"""The daemon's side of takeover and handover, with a controller that answers as told."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controlone_ha.core import takeover as core_takeover
from controlone_ha.core.calls import Call, CallState, Leg, LegState
from controlone_ha.core.model import Decision, Ground, State
from controlone_ha.core.reasons import reason
from controlone_ha.core.takeover import GIVEN
from controlone_ha.daemon import handover, takeovers
from controlone_ha.daemon.calls import LiveCalls
from tests.waiting import until

pytestmark = pytest.mark.contract

Json = dict[str, Any]


def up(number: int, **changes: Any) -> Call:
    legs = tuple(
        Leg(
            id=f"{number}-{name}",
            role=name,
            party=name,
            state=LegState.CONFIRMED,
            call_id="c",
            local_tag="a",
            remote_tag="b",
        )
        for name in ("gateway", "console")
    )
    call = Call(id=f"m-{number}", owner="m", state=CallState.UP, answered=1.0, legs=legs)
    return replace(call, **changes)


class World:
    """Node s with copies of m's calls; ``outcomes`` of each order, the last one for ever; "" is
    never told.
    """

    def __init__(self, directory: Path, *outcomes: str) -> None:
        self.orders: list[tuple[str, list[str]]] = []
        self.generations: list[int] = []
        self.records: list[Json] = []
        self.outcomes = list(outcomes)
        self.holds = True
        self.tasks: list[asyncio.Task[None]] = []
        self.released: list[bool] = []
        self.calls = LiveCalls(
            name="s",
            socket=directory / "none.sock",
            copies=directory / "copies.jsonl",
            links=list,
            on_load=lambda: None,
        )
        self.calls.ask = self.ask  # type: ignore[method-assign]
        self.takeovers = takeovers.Takeovers(
            self.calls,
            holds=lambda _peer, _ground: self.holds,
            record=self.records.append,
            spawn=self.spawn,
        )
        self.handover = handover.Handover(
            self.calls,
            release=self.released.append,
            takers=lambda _states: True,
            own_recovery=lambda: 0.3,
            record=self.records.append,
            spawn=self.spawn,
            look_again=lambda: None,
        )

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    async def over(self) -> None:
        async with asyncio.timeout(5):
            await asyncio.gather(*self.tasks)

    async def ask(self, method: str, params: Json) -> Json:
        ids = [item["id"] for item in params.get("calls", [])] if method == "take" else []
        self.orders.append((method, ids))
        self.generations += [item["generation"] for item in params["calls"]] if ids else []
        if method != "take":
            return {"given": ["x"]}
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        for call_id in ids if outcome else []:
            event = {
                "kind": "taken_over",
                "call": call_id,
                "from": "m",
                "ground": params["ground"],
                "legs": [{"outcome": outcome, "seconds": 0.1}],
                "up": outcome == "taken",
            }
            asyncio.get_running_loop().call_later(0.01, self.takeovers.event, event)
        return {"accepted": ids}

    def own(self, call: Call) -> None:
        self.calls.own.merge(replace(call, owner="s"))
        self.calls.on_own()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(core_takeover, "AGAIN", 0.05)
    monkeypatch.setattr(takeovers, "AGAIN", 0.05)
    monkeypatch.setattr(handover, "GONE_BY_THEMSELVES", 0.05)
    yield


@pytest.mark.parametrize(
    ("outcomes", "orders"),
    [
        (["taken"], 1),
        (["unreachable", "taken"], 2),
        (["unreachable"], 3),
        (["refused"], 1),
        (["gone"], 1),
    ],
)
def test_A1_a_call_is_tried_again_when_nobody_answered_and_not_when_somebody_refused(
    tmp_path: Path, outcomes: list[str], orders: int
) -> None:
    async def story() -> World:
        world = World(tmp_path, *outcomes)
        world.calls.copies.merge(up(1))
        world.takeovers.take("m", Ground.REFUSED)
        await world.over()
        return world

    world = asyncio.run(story())
    assert world.orders == [("take", ["m-1"])] * orders
    assert [item["reason"]["code"] for item in world.records] == ["calls_taken"] * orders


def test_A1_what_a_controller_that_dies_has_not_told_is_ordered_from_the_next_one(
    tmp_path: Path,
) -> None:
    async def story() -> World:
        world = World(tmp_path, "", "taken")
        for number in (1, 2):
            world.calls.copies.merge(up(number))
        world.takeovers.take("m", Ground.REFUSED)
        await until(lambda: world.orders)
        world.calls.on_controller_gone()
        await world.over()
        return world

    world = asyncio.run(story())
    assert world.orders == [("take", ["m-1", "m-2"])] * 2
    assert [item["up"] for item in world.records] == [0, 2]


def test_A1_a_claim_whose_owner_died_before_it_told_anybody_is_followed_by_a_higher_one(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        world = World(tmp_path, "already_taken", "taken")
        world.calls.copies.merge(up(1))
        world.takeovers.take("m", Ground.REFUSED)
        await world.over()
        assert world.generations == [1, 2]  # each is claimed with one more

    asyncio.run(story())


def test_A1_a_thousand_calls_are_ordered_in_lines_that_fit(tmp_path: Path) -> None:
    async def story() -> World:
        world = World(tmp_path, "taken")
        for number in range(1000):
            world.calls.copies.merge(up(number, priority=200 if number == 999 else 100))
        world.takeovers.take("m", Ground.REFUSED)
        await world.over()
        return world

    world = asyncio.run(story())
    assert [len(ids) for _, ids in world.orders] == [200] * 5
    assert world.orders[0][1][0] == "m-999"
    assert world.records[0]["up"] == 1000


def test_A1_a_console_that_is_quicker_than_the_verdict_is_not_forgotten(tmp_path: Path) -> None:
    async def story() -> World:
        world = World(tmp_path, "taken")
        world.holds = False
        for number in (1, 2):
            world.calls.copies.merge(up(number))
        world.takeovers.console_lost("m", ["m-2", "m-7"])
        await asyncio.sleep(0.2)
        assert world.orders == []
        world.holds = True
        await world.over()
        return world

    assert asyncio.run(story()).orders == [("take", ["m-2"])]


def test_A2_of_a_node_that_releases_calls_only_those_are_taken_that_it_gives(
    tmp_path: Path,
) -> None:
    async def story() -> World:
        world = World(tmp_path, "taken")
        for call in (up(1), up(2, reason=GIVEN), up(3, state=CallState.LOST)):
            world.calls.copies.merge(call)
        world.takeovers.take("m", Ground.RELEASED)
        await until(lambda: bool(world.records))
        world.calls.copies.merge(up(1, reason=GIVEN, sequence=2))
        await until(lambda: len(world.records) == 2)
        world.holds = False
        await world.over()
        return world

    assert [ids for _, ids in asyncio.run(story()).orders] == [["m-2", "m-3"], ["m-1"]]


def decision(state: State) -> Decision:
    return Decision(state=state, reason=reason("role_master"))


def test_A1_G4_a_node_that_stops_serving_gives_its_calls_away_and_waits_until_they_are_gone(
    tmp_path: Path,
) -> None:
    async def story() -> World:
        world = World(tmp_path, "taken")
        world.own(up(1))
        world.handover.decided(decision(State.ACTIVE))
        await until(lambda: ("keep", []) in world.orders)
        world.handover.decided(decision(State.PASSIVE))
        assert world.handover.is_running
        await until(lambda: world.released == [True])
        assert world.orders[-1] == ("give", [])
        world.calls.own.merge(up(1, generation=2))
        await until(lambda: not world.handover.is_running)
        assert world.handover.ends_hard
        await world.over()
        return world

    world = asyncio.run(story())
    assert world.released == [True, False]
    assert [item["reason"]["code"] for item in world.records] == [
        "calls_given",
        "calls_handed_over",
    ]


def test_A1_calls_that_are_not_taken_up_again_in_time_are_given_away(tmp_path: Path) -> None:
    async def story() -> World:
        world = World(tmp_path, "taken")
        world.handover.decided(decision(State.ACTIVE))
        world.own(up(1, state=CallState.LOST))
        world.own(up(2))
        await until(lambda: world.released == [True])
        world.calls.own.merge(up(1, generation=2))
        await world.over()
        return world

    world = asyncio.run(story())
    assert world.released == [True, False]
    assert [name for name, _ in world.orders] == ["keep", "give", "keep"]
    assert [item["reason"]["code"] for item in world.records] == ["lost_calls_given"]


def test_A1_lost_calls_that_the_node_takes_up_again_itself_are_not_given(tmp_path: Path) -> None:
    async def story() -> World:
        world = World(tmp_path, "taken")
        world.handover.decided(decision(State.ACTIVE))
        world.own(up(1, state=CallState.LOST))
        await asyncio.sleep(0.1)
        world.own(up(1, state=CallState.UP, sequence=2))
        await world.over()
        return world

    world = asyncio.run(story())
    assert (world.released, world.records) == ([False], [])
