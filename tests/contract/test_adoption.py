"""Calls of parties without Replaces go on at another node: the real Asterisk, the real baresip."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controlone_ha.conference.adoption.service import Adoptions
from controlone_ha.conference.engine import AdoptionError, Ended, HoldChanged, Up
from controlone_ha.conference.keeper import Keeper
from controlone_ha.core.calls import Call, CallState
from controlone_ha.lab.parts import Asterisk
from tests.baresip import Baresip
from tests.contract.adoption_support import Taker, taking, the_call
from tests.contract.conference_support import Server, serving
from tests.phone import Phone, strength
from tests.waiting import until

pytestmark = pytest.mark.contract

TONE = 440


class World:
    """A call between a gateway and a real phone at the first node, and a second node."""

    def __init__(self, directory: Path, parts: Asterisk, free_port: Callable[[], int]) -> None:
        (directory / "one").mkdir()
        self.first = Server(directory / "one", parts, free_port)
        self.second = Taker(directory / "two", parts, free_port)
        self.gateway = Phone("trunk", tone=TONE)
        self.desk = Baresip(directory / "phone", "desk", free_port)

    async def hears_itself(self, seconds: float = 5.0) -> None:
        """Wait until the gateway hears the tone it sends, through Asterisk, baresip and back."""
        media = self.gateway.media

        def is_heard() -> bool:
            last = media.tail(2400)
            return len(last) == 2400 and strength(last, TONE) > 0.5

        media.sound.clear()
        await until(is_heard, seconds)

    async def lose_the_first_node(self) -> Call:
        """Kill Asterisk and controller; return what the peers know of the call."""
        call = the_call(self.first)
        self.first.kill("asterisk", signal.SIGKILL)
        self.first.kill("controller", signal.SIGKILL)
        return call


@contextlib.asynccontextmanager
async def talking(world: World) -> AsyncIterator[World]:
    await world.gateway.start()
    await world.desk.start()
    try:
        async with taking(world.second), serving(world.first):
            assert world.first.connection is not None
            consoles = [{"name": "desk", "queues": ["100"], "sip": world.desk.uri}]
            await world.first.call("consoles", consoles=consoles)
            world.gateway.dial("100", world.first.port)
            await until(lambda: [call["state"] for call in world.first.live] == [CallState.UP], 10)
            await world.hears_itself()
            yield world
    finally:
        world.gateway.stop()
        await world.desk.stop()


@pytest.fixture
def world(asterisk: Asterisk, short_directory: Path, free_port: Callable[[], int]) -> World:
    return World(short_directory, asterisk, free_port)


def test_A1_a_call_goes_on_at_another_node_without_replaces_and_the_gateway_ends_it(
    world: World,
) -> None:
    async def story() -> None:
        async with talking(world):
            call = await world.lose_the_first_node()
            taken = await world.second.take(call)
            assert len(taken) == 2
            await world.hears_itself()
            request = world.gateway.call.request
            assert f"CSeq: {2 << 20} INVITE" in request
            assert f"Call-ID: {world.gateway.call.call_id}" in request
            world.gateway.hang_up(world.gateway.call)
            leg = taken[next(leg.party for leg in call.legs if leg.role == "gateway")]
            await until(lambda: bool(world.second.told(Ended, leg.name)), 5)

    asyncio.run(story())


def of(role: str, call: Call) -> str:
    return next(leg.party for leg in call.legs if leg.role == role)


def test_A1_an_adopted_call_is_held_resumed_and_ended_by_the_party_across_a_restart(
    world: World,
) -> None:
    async def story() -> None:
        async with talking(world):
            second = world.second
            call = await world.lose_the_first_node()
            taken = await second.take(call)
            await world.hears_itself()
            desk = taken[of("console", call)].name
            await second.restart_adoptions(pause=0.3)
            assert set(second.adoptions.names) == {leg.name for leg in taken.values()}
            await world.hears_itself()
            world.desk.command("hold")
            await until(lambda: [e.is_held for e in second.told(HoldChanged, desk)] == [True], 5)
            world.desk.command("resume")
            await until(
                lambda: [e.is_held for e in second.told(HoldChanged, desk)] == [True, False], 5
            )
            # The loop of this phone stays silent after a hold, at its first server too.
            world.desk.command("hangup")
            await until(lambda: bool(second.told(Ended, desk)), 5)
            await until(lambda: desk not in second.adoptions.names, 5)

    asyncio.run(story())


def test_A1_the_real_controller_takes_an_adopted_call_up_and_ends_it(world: World) -> None:
    async def story() -> None:
        async with talking(world):
            second, node = world.second, world.second.node
            call = await world.lose_the_first_node()
            taken = await second.take(call)
            second.adoptions.stop()
            await second.engine.stop()
            keeper = Keeper(node.paths.run_dir / "conference-calls.jsonl")
            keeper.set_engine(second.told(Up)[0].identity)
            legs = tuple(replace(leg.leg, id=leg.name) for leg in taken.values())
            keeper.save(replace(call, generation=2, room=second.room, legs=legs))
            keeper.close()
            node.configure("", f"\toption settle '0'\n\toption adoption_port '{second.port}'\n")
            node.start_controller()
            await node.connect()
            assert [document["id"] for document in node.live] == [call.id]
            await world.hears_itself()
            world.desk.command("hold")
            await until(lambda: "remote" in [leg["hold"] for leg in node.live[0]["legs"]], 5)
            assert _leg(node, "desk")["call_id"] == next(
                leg.call_id for leg in legs if leg.party == "desk"
            )
            await until(lambda: "a=sendonly" in _leg(node, "desk")["remote_sdp"], 5)
            await node.call("hangup", call=call.id)
            await asyncio.wait_for(world.gateway.call.ended.wait(), 5)
            await until(lambda: "CALL_CLOSED" in world.desk.happened, 5)
            await node.until_over()

    asyncio.run(story())


def _leg(node: Server, party: str) -> dict[str, Any]:
    return next(leg for leg in node.live[0]["legs"] if leg["party"] == party)


def test_A1_the_engine_ends_adopted_legs_with_a_bye_in_the_old_dialog_also_after_a_restart(
    world: World,
) -> None:
    async def story() -> None:
        async with talking(world):
            second = world.second
            taken = await second.take(await world.lose_the_first_node())
            await second.restart_adoptions()
            for leg in taken.values():
                await second.engine.hang_up(leg.name)
            await asyncio.wait_for(world.gateway.call.ended.wait(), 5)
            await until(lambda: "CALL_CLOSED" in world.desk.happened, 5)
            await until(lambda: not second.adoptions.names, 5)

    asyncio.run(story())


def test_A1_an_older_candidate_is_refused_by_the_real_phone_and_a_newer_one_is_not(
    world: World, short_directory: Path, free_port: Callable[[], int]
) -> None:
    async def story() -> None:
        async with talking(world):
            second = world.second
            call = await world.lose_the_first_node()
            console = next(leg for leg in call.legs if leg.role == "console")
            await second.take(call, generation=3)
            await world.hears_itself()
            older = Adoptions(second._call, short_directory / "older")
            await older.start("127.0.0.1", free_port())
            try:
                with pytest.raises(AdoptionError) as refused:
                    await older.adopt(console, 2, name="older", timeout=5)
                assert (refused.value.outcome, refused.value.status) == ("already_taken", 500)
                await world.hears_itself()
                newer = await older.adopt(console, 4, name="newer", timeout=5)
                assert newer.leg.local_cseq == 4 << 20
            finally:
                older.stop()

    asyncio.run(story())


def test_A1_the_nodes_own_asterisk_dies_and_the_same_dialogs_are_adopted_again(
    world: World,
) -> None:
    async def story() -> None:
        async with talking(world):
            second = world.second
            call = await world.lose_the_first_node()
            first = await second.take(call)
            await world.hears_itself()
            second.node.kill("asterisk", signal.SIGKILL)
            second.node.start_asterisk()
            await until(lambda: len(second.told(Up)) == 2, 10)
            legs = {leg.leg.party: leg.leg for leg in first.values()}
            assert all(leg.local_sdp and leg.remote_sdp for leg in legs.values())
            again = await second.take(replace(call, legs=tuple(legs.values())), generation=3)
            await world.hears_itself()
            sent = again[of("gateway", call)].leg.local_sdp or ""
            before = legs[of("gateway", call)].local_sdp or ""
            origin, former = origin_of(sent), origin_of(before)
            assert origin[:2] == former[:2] and int(origin[2]) == int(former[2]) + 1

    asyncio.run(story())


def origin_of(sdp: str) -> list[str]:
    return next(line for line in sdp.splitlines() if line.startswith("o=")).split()


def test_A1_a_dialog_that_is_over_a_party_that_is_gone_and_a_half_document_are_told_apart(
    world: World,
) -> None:
    async def story() -> None:
        async with talking(world):
            call = await world.lose_the_first_node()
            console = next(leg for leg in call.legs if leg.role == "console")
            trials = {
                "gone": replace(console, remote_tag="another"),
                "unusable": replace(console, call_id=""),
            }
            for outcome, leg in trials.items():
                with pytest.raises(AdoptionError) as failed:
                    await world.second.adoptions.adopt(leg, 2, name=f"x-{outcome}", timeout=5)
                assert failed.value.outcome == outcome
            await world.desk.stop()
            with pytest.raises(AdoptionError) as failed:
                await world.second.adoptions.adopt(console, 2, name="x-silent", timeout=1)
            assert failed.value.outcome in ("unreachable", "cancelled")
            assert world.second.adoptions.names == ()

    asyncio.run(story())
