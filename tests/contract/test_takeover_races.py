"""Who owns a call when two take it, when its taker dies half-way, when its old server comes back.

Three real Conference Servers. Whatever happens, in the end every party is in one dialog with one
server that knows of it, or was hung up on; no server keeps a leg that nobody speaks on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from controlone_ha.core.calls import CallState
from controlone_ha.lab.parts import Asterisk
from tests.contract.conference_support import Server
from tests.contract.takeover_support import (
    TAKEN,
    Servers,
    both_kinds,
    hear_each_other,
    order,
    started,
    told,
)
from tests.phone import Dialog, Phone, header
from tests.waiting import freeze, thaw, until

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module")
def three(asterisk: Asterisk, free_port: Callable[[], int]) -> Iterator[Servers]:
    with started(asterisk, free_port, 3) as made:
        yield made


def pair_of(*, knows_replaces: bool) -> tuple[Phone, Phone]:
    """A gateway's phone with a tone, and a console's with another one."""
    return (
        Phone("trunk", tone=440, knows_replaces=knows_replaces),
        Phone("desk", tone=620, knows_replaces=knows_replaces),
    )


def up_dialogs(phone: Phone) -> list[Dialog]:
    """The dialogs in which a phone is."""
    return [dialog for dialog in phone.calls if dialog.state == "up"]


async def legs_at(server: Server) -> int:
    """How many channels a server's Asterisk has."""
    return len(await server.channels())


async def settled(servers: Servers, *parties: Phone, alive: tuple[Server, ...]) -> Server | None:
    """Wait until each party is in one dialog, all at one server that has just these legs, or in
    none and no server has any; return that server.
    """
    limit = asyncio.get_running_loop().time() + 15
    while True:
        counts = {len(up_dialogs(phone)) for phone in parties}
        legs = {server: await legs_at(server) for server in alive}
        owners = [server for server in alive if server.live]
        if counts == {0} and not any(legs.values()) and not owners:
            return None
        if counts == {1} and len(owners) == 1 and sum(legs.values()) == len(parties):
            (owner,) = owners
            if legs[owner] == len(parties):
                return owner
        assert asyncio.get_running_loop().time() < limit, (counts, legs, owners)
        await asyncio.sleep(0.05)


@both_kinds
def test_A1_of_two_candidates_at_once_one_gets_the_whole_call(
    three: Servers, knows_replaces: bool
) -> None:
    trunk, desk = pair_of(knows_replaces=knows_replaces)

    async def story() -> None:
        async with three.talking(trunk, desk) as known:
            three.freeze()
            second, third = three.servers[1:]
            await asyncio.gather(order(second, known), order(third, known))
            await until(lambda: told(second) and told(third), 20)
            outcomes = [
                {leg["role"]: leg["outcome"] for leg in told(server)[0]["legs"]}
                for server in (second, third)
            ]
            whole = dict.fromkeys(("gateway", "console"), TAKEN[knows_replaces])
            assert outcomes.count(whole) == 1, outcomes
            (loser,) = [found for found in outcomes if found != whole]
            # Who came second has been told so by the gateway and has asked nobody else.
            assert set(loser) == {"gateway"} and loser["gateway"] in ("gone", "already_taken")
            assert await settled(three, trunk, desk, alive=(second, third)) is not None
            await hear_each_other((trunk, 620), (desk, 440))

    three.run(story())


@both_kinds
def test_A1_a_taker_that_dies_half_way_is_followed_by_another_one(
    three: Servers, knows_replaces: bool
) -> None:
    trunk, desk = pair_of(knows_replaces=knows_replaces)

    async def story() -> None:
        async with three.talking(trunk, desk) as known:
            three.freeze()
            second, third = three.servers[1:]
            desk.silent = True
            await order(second, known)
            # The lock is taken and handed out; the console has not answered yet.
            await until(lambda: second.documents.get(known["id"], {}).get("generation") == 2, 10)
            half = second.documents[known["id"]]
            three.kill(second)
            desk.silent = False
            assert await three.take(half, by=third) == dict.fromkeys(
                ("gateway", "console"), TAKEN[knows_replaces]
            )
            assert await settled(three, trunk, desk, alive=(third,)) is third
            assert third.live[0]["generation"] == 3
            await hear_each_other((trunk, 620), (desk, 440))

    three.run(story())


@both_kinds
def test_A1_a_controller_that_dies_half_way_is_followed_by_the_next_one(
    three: Servers, knows_replaces: bool
) -> None:
    trunk, desk = pair_of(knows_replaces=knows_replaces)

    async def story() -> None:
        async with three.talking(trunk, desk) as known:
            three.freeze()
            second = three.second
            desk.silent = True
            await order(second, known)
            await until(lambda: second.documents.get(known["id"], {}).get("generation") == 2, 10)
            second.kill("controller")
            assert second.connection is not None
            await second.connection.close()
            second.start_controller()
            await second.connect()
            await until(lambda: "its takeover goes on" in second.log, 10)
            await asyncio.sleep(0.3)
            desk.silent = False
            await until(lambda: told(second), 15)
            outcomes = {leg["role"]: leg["outcome"] for leg in told(second)[-1]["legs"]}
            assert outcomes == {"gateway": "taken", "console": TAKEN[knows_replaces]}
            if knows_replaces:  # of two INVITEs it would take one and refuse the other
                asked = [text for text in desk.messages if header(text, "Replaces")]
                assert len({header(text, "Call-ID") for text in asked}) == 1
            assert await settled(three, trunk, desk, alive=(second,)) is second
            (document,) = second.live
            assert (document["generation"], document["reason"]) == (2, "")
            await hear_each_other((trunk, 620), (desk, 440))

    three.run(story())


@both_kinds
def test_A2_a_frozen_server_that_wakes_ends_nothing_of_what_was_taken(
    three: Servers, knows_replaces: bool
) -> None:
    trunk, desk = pair_of(knows_replaces=knows_replaces)

    async def story() -> None:
        async with three.talking(trunk, desk) as known:
            first, second, third = three.servers
            assert first.controller is not None
            freeze(first.controller.pid)
            try:
                assert set((await three.take(known)).values()) == {TAKEN[knows_replaces]}
                document = await three.state_there(CallState.UP)
            finally:
                three.wake()
                thaw(first.controller.pid)
            await first.call("release", calls=[[known["id"], document["generation"], "2"]])
            await first.until_over()
            assert await settled(three, trunk, desk, alive=(second, third)) is second
            assert second.live == [document]
            await hear_each_other((trunk, 620), (desk, 440))

    three.run(story())


def test_A2_an_old_server_that_wakes_half_way_leaves_a_whole_call_or_none(
    three: Servers,
) -> None:
    trunk, desk = pair_of(knows_replaces=True)

    async def story() -> None:
        async with three.talking(trunk, desk) as known:
            first, second, third = three.servers
            three.freeze()
            desk.silent = True
            await order(second, known)
            await until(lambda: second.documents.get(known["id"], {}).get("generation") == 2, 10)
            three.wake()
            await first.call("release", calls=[[known["id"], 2, "2"]])
            desk.silent = False
            await until(lambda: told(second), 20)
            owner = await settled(three, trunk, desk, alive=(first, second, third))
            assert owner in (second, None)

    three.run(story())
