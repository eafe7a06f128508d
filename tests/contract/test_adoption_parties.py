"""Adoption with other parties and transports: linphone, SIPp, Asterisk, TCP, Record-Route."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from controlone_ha.core.calls import CallState, Leg, LegState
from controlone_ha.lab.parts import Asterisk
from tests.baresip import Baresip
from tests.contract.adoption_support import Taker, taking, the_call
from tests.contract.conference_support import CHECKOUT, Server, serving
from tests.contract.test_adoption import World, talking
from tests.linphone import Linphone
from tests.phone import Phone, strength
from tests.waiting import until

pytestmark = pytest.mark.contract

TONE = 440


@pytest.fixture
def world(asterisk: Asterisk, short_directory: Path, free_port: Callable[[], int]) -> World:
    return World(short_directory, asterisk, free_port)


@contextlib.asynccontextmanager
async def started(*parties: Any) -> AsyncIterator[None]:
    try:
        for party in parties:
            await party.start()
        yield
    finally:
        for party in parties:
            if (work := party.stop()) is not None:
                await work


def test_A1_a_tcp_leg_is_adopted_over_tcp(
    world: World, short_directory: Path, free_port: Callable[[], int]
) -> None:
    world.desk = Baresip(short_directory / "tcp", "desk", free_port, transport="tcp")

    async def story() -> None:
        async with talking(world):
            call = await world.lose_the_first_node()
            console = next(leg for leg in call.legs if leg.role == "console")
            assert console.transport == "tcp"
            taken = await world.second.take(call)
            await world.hears_itself()
            assert taken[console.party].leg.remote_sdp is not None
            # The phone's own request comes back over TCP, to the Contact that it was given.
            world.desk.command("hangup")
            await until(lambda: taken[console.party].name not in world.second.adoptions.names, 5)

    asyncio.run(story())


def test_A1_linphone_talks_on_after_adoption_in_both_directions(
    asterisk: Asterisk, short_directory: Path, free_port: Callable[[], int]
) -> None:
    async def story() -> None:
        (short_directory / "one").mkdir()
        first = Server(short_directory / "one", asterisk, free_port)
        second = Taker(short_directory / "two", asterisk, free_port)
        desk = Linphone(short_directory / "linphone", "desk", free_port)
        trunk = Phone("trunk", tone=TONE)
        async with started(desk, trunk), taking(second), serving(first):
            consoles = [{"name": "desk", "queues": ["100"], "sip": desk.uri}]
            await first.call("consoles", consoles=consoles)
            trunk.dial("100", first.port)
            await until(lambda: [call["state"] for call in first.live] == [CallState.UP], 10)
            await asyncio.wait_for(trunk.call.answered.wait(), 5)
            call = the_call(first)
            first.kill("asterisk")
            first.kill("controller")
            await second.take(call)
            desk.play()
            heard = desk.record("heard.wav")

            def is_heard() -> bool:
                last = trunk.media.tail(2400)
                return len(last) == 2400 and strength(last, desk.tone) > 0.5

            await until(is_heard, 8)
            await until(lambda: _tone_in(heard) > 0.5, 8)
            trunk.hang_up(trunk.call)
            await until(lambda: len(second.adoptions.names) == 1, 5)

    asyncio.run(story())


def _tone_in(path: Path) -> float:
    """Return how much of the last 0.3 s of a recording, whose header is unfinished, is TONE."""
    data = path.read_bytes()[44:] if path.exists() else b""
    samples = [sample for (sample,) in struct.iter_unpack("<h", data[: len(data) // 2 * 2])]
    return strength(samples[-2400:], TONE) if len(samples) >= 2400 else 0.0


def test_A1_behind_record_route_the_old_route_is_taken(
    asterisk: Asterisk, short_directory: Path, free_port: Callable[[], int]
) -> None:
    async def story() -> None:
        (short_directory / "one").mkdir()
        first = Server(short_directory / "one", asterisk, free_port)
        second = Taker(short_directory / "two", asterisk, free_port)
        desk, trunk = Phone("desk", tone=620), Phone("trunk", tone=TONE)
        async with started(desk, trunk), taking(second), serving(first):
            await first.present(desk)
            route = f"<sip:127.0.0.1:{trunk.port};lr>"
            trunk.dial("100", first.port, {"Record-Route": route})
            await until(lambda: [call["state"] for call in first.live] == [CallState.UP], 10)
            await asyncio.wait_for(trunk.call.answered.wait(), 5)
            call = the_call(first)
            gateway = next(leg for leg in call.legs if leg.role == "gateway")
            assert gateway.route_set == (route,)
            first.kill("asterisk")
            first.kill("controller")
            await second.take(call)
            before = trunk.media.received
            await until(lambda: trunk.media.received > before + 20, 5)
            invite = trunk.call.request
            assert invite.startswith(f"INVITE {gateway.remote_target} SIP/2.0")
            assert f"Route: {route}" in invite

    asyncio.run(story())


def test_A1_forty_calls_of_a_sipp_gateway_are_adopted_together_and_ended(
    asterisk: Asterisk, sipp_path: Path, short_directory: Path, free_port: Callable[[], int]
) -> None:
    port, count = free_port(), 40
    words = [str(sipp_path), "-sn", "uas", "-i", "127.0.0.1", "-p", str(port), "-nostdin"]
    sipp = subprocess.Popen(
        [*words, "-ci", "127.0.0.1"],
        cwd=short_directory,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    legs = [
        Leg(
            id=f"leg-{number}",
            role="gateway",
            party=f"caller-{number}",
            state=LegState.CONFIRMED,
            incoming=True,
            call_id=f"{number}@old",
            local_tag=f"us-{number}",
            remote_tag=f"them-{number}",
            local_uri="sip:100@127.0.0.1",
            remote_uri=f"sip:{number}@127.0.0.1",
            remote_target=f"sip:{number}@127.0.0.1:{port}",
            transport="udp",
        )
        for number in range(count)
    ]

    async def story() -> None:
        second = Taker(short_directory / "two", asterisk, free_port)
        async with taking(second):
            taken = await asyncio.gather(*(second.adopt(leg) for leg in legs))
            names = {leg.name for leg in taken}
            assert names == set(second.adoptions.names) and len(names) == count
            await second.restart_adoptions(pause=0.1)
            assert set(second.adoptions.names) == names
            for name in names:
                await second.engine.hang_up(name)
            # A BYE that the kernel drops on a busy machine is sent again for up to 32 s (Timer F).
            await until(lambda: not second.adoptions.names, 40)

    try:
        asyncio.run(story())
    finally:
        sipp.kill()
        sipp.wait()


def test_A1_an_asterisk_as_gateway_is_adopted_and_holds_nothing_against_it(
    asterisk: Asterisk, short_directory: Path, free_port: Callable[[], int]
) -> None:
    async def story() -> None:
        for name in ("one", "far"):
            (short_directory / name).mkdir()
        first = Server(short_directory / "one", asterisk, free_port)
        gateway = Server(short_directory / "far", asterisk, free_port)
        second = Taker(short_directory / "two", asterisk, free_port)
        desk, callee = Phone("desk", tone=TONE), Phone("callee", tone=620)
        first.configure(
            f"config gateway 'g'\n\toption host '127.0.0.1'\n\toption port '{gateway.port}'\n"
            # Debian's Asterisk may lose what it has to translate (docs/takeover.md).
            "\toption codecs 'ulaw'\n"
            "config route\n\toption prefix '0'\n\toption strip '1'\n\toption gateways 'g'\n"
        )
        async with started(desk, callee), taking(second), serving(first), serving(gateway):
            await first.present(desk)
            await gateway.present(callee)
            await first.call("dial", console="desk", number="0100")
            await until(lambda: [call["state"] for call in first.live] == [CallState.UP], 10)
            await asyncio.wait_for(callee.call.answered.wait(), 5)
            call = the_call(first)
            first.kill("asterisk")
            first.kill("controller")
            taken = await second.take(call)
            for phone, tone in ((desk, 620), (callee, TONE)):
                phone.media.sound.clear()
                await until(functools.partial(_hears, phone, tone), 5)
            for leg in taken.values():
                await second.engine.hang_up(leg.name)
            await asyncio.wait_for(callee.call.ended.wait(), 5)
            await gateway.until_over()

    asyncio.run(story())


def _hears(phone: Phone, tone: int) -> bool:
    last = phone.media.tail(2400)
    return len(last) == 2400 and strength(last, tone) > 0.5


def test_A1_bound_to_all_addresses_the_party_is_offered_the_one_it_can_reach(
    asterisk: Asterisk, root: None, short_directory: Path
) -> None:
    prepare = "ip link set lo up && ip addr add 10.99.0.2/32 dev lo"
    run = [sys.executable, "-m", "tests.contract.adoption_anywhere", str(short_directory / "two")]
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", f'{prepare} && exec "$@"', "sh", *run],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=CHECKOUT,
    )
    assert done.returncode == 0, done.stderr
    line, contact = done.stdout.strip().splitlines()[-1].split("10.99.0.2", 1)
    assert line == "c=IN IP4 "
    assert contact.strip().startswith("<sip:ha@10.99.0.2:")
