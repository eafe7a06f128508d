"""Calls go on at another Conference Server, or at their own when its Asterisk died: real ones."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from controlone_ha.core.calls import CallState
from controlone_ha.lab.parts import Asterisk
from tests.baresip import Baresip
from tests.contract.conference_support import Server, phones, serving
from tests.linphone import Linphone
from tests.phone import Phone, strength
from tests.recorder import Recorder
from tests.waiting import until

pytestmark = pytest.mark.contract

TONE = 440


class World:
    """Two nodes, a gateway with a tone, and a real phone that gives it back."""

    def __init__(
        self, directory: Path, parts: Asterisk, free_port: Callable[[], int], phone: str
    ) -> None:
        for name in ("one", "two"):
            (directory / name).mkdir()
        self._free_port = free_port
        self.first = Server(directory / "one", parts, free_port)
        self.second = Server(directory / "two", parts, free_port)
        self.configure()
        self.gateway = Phone("trunk", tone=TONE)
        kind: Any = Baresip if phone == "baresip" else Linphone
        self.desk = kind(directory / "phone", "desk", free_port)

    def configure(self, queue: str = "", more: str = "") -> None:
        """Write the settings of both nodes; ``queue`` and ``more``: lines of options."""
        for server in (self.first, self.second):
            port = self._free_port()
            options = f"\toption settle '0'\n\toption adoption_port '{port}'\n{more}"
            server.configure(f"config queue '100'\n{queue}", options)

    async def is_up_at(self, server: Server) -> None:
        await until(lambda: [call["state"] for call in server.live] == [CallState.UP], 10)

    async def present(self, server: Server) -> None:
        consoles = [{"name": "desk", "queues": ["100"], "sip": self.desk.uri}]
        await server.call("consoles", consoles=consoles)

    async def hears_itself(self, seconds: float = 20.0) -> None:
        """Wait until the gateway hears the tone it sends, through Asterisk, the phone and back."""
        media = self.gateway.media

        media.sound.clear()
        await until(functools.partial(_hears, self.gateway, TONE), seconds)

    def outcomes(self, server: Server) -> dict[str, str]:
        """What became of the legs, by role."""
        (event,) = [item for item in server.events if item["kind"] == "taken_over"]
        return {leg["role"]: leg["outcome"] for leg in event["legs"]}


@pytest.fixture
def make_world(
    asterisk: Asterisk, short_directory: Path, free_port: Callable[[], int]
) -> Callable[[str], World]:
    return lambda phone: World(short_directory, asterisk, free_port, phone)


@contextlib.asynccontextmanager
async def talking(world: World) -> AsyncIterator[dict[str, Any]]:
    """A call at the first node; what its peers know of it."""
    await world.gateway.start()
    await world.desk.start()
    try:
        async with serving(world.first):
            await world.present(world.first)
            world.gateway.dial("100", world.first.port)
            await world.is_up_at(world.first)
            await asyncio.wait_for(world.gateway.call.answered.wait(), 5)
            (known,) = world.first.live
            yield known
    finally:
        world.gateway.stop()
        await world.desk.stop()


async def take(world: World, known: dict[str, Any], ground: str, *, asks: bool) -> None:
    """Kill the first node and have the second one take what the peers know."""
    world.first.kill("asterisk", signal.SIGKILL)
    world.first.kill("controller", signal.SIGKILL)
    taken = await world.second.call("take", calls=[known], ground=ground, asks_parties=asks)
    assert taken == {"accepted": [known["id"]]}
    await until(lambda: any(e["kind"] == "taken_over" for e in world.second.events), 15)


def test_A1_A2_a_call_of_parties_without_replaces_goes_on_at_another_node(
    make_world: Callable[[str], World],
) -> None:
    world = make_world("baresip")

    async def story() -> None:
        async with serving(world.second), talking(world) as known:
            await world.hears_itself()
            await world.present(world.second)
            await take(world, known, "confirmed", asks=True)
            assert set(world.outcomes(world.second).values()) == {"fallback"}, world.second.events
            await world.is_up_at(world.second)
            (document,) = world.second.live
            assert (document["id"], document["generation"]) == (known["id"], 2)
            assert document["owner"] != ""
            await world.hears_itself()
            # The console keeps its controls.
            await world.second.call("hold", call=known["id"], console="desk")
            await world.second.call("resume", call=known["id"], console="desk")
            await world.second.call("hangup", call=known["id"])
            await asyncio.wait_for(world.gateway.call.ended.wait(), 5)
            await world.second.until_over()

    asyncio.run(story())


def test_A1_a_caller_who_still_waited_calls_again_and_has_waited_since_the_first_time(
    make_world: Callable[[str], World],
) -> None:
    world = make_world("baresip")

    async def story() -> None:
        silent, early = Phone("silent", answer=None), Phone("early")
        async with serving(world.second), phones(silent, early):
            await world.gateway.start()
            try:
                async with serving(world.first):
                    consoles = [{"name": "desk", "queues": ["100"], "sip": silent.uri}]
                    for server in (world.first, world.second):
                        await server.call("consoles", consoles=consoles)
                    for phone in (world.gateway, early):
                        phone.dial("100", world.first.port)
                    await until(lambda: len(world.first.live) == 2, 5)
                    known = {call["caller"]: call for call in world.first.live}
                    world.first.kill("asterisk", signal.SIGKILL)
                    world.first.kill("controller", signal.SIGKILL)
                # One is offered again before its node is taken for failed, the other after that.
                early.dial("100", world.second.port)
                await until(lambda: len(world.second.live) == 1, 5)
                await world.second.call("take", calls=list(known.values()), ground="refused")
                world.gateway.dial("100", world.second.port)
                await until(lambda: len(world.second.live) == 2, 5)
                assert {call["caller"]: call["created"] for call in world.second.live} == {
                    caller: call["created"] for caller, call in known.items()
                }
                assert not {call["id"] for call in world.second.live} & {
                    call["id"] for call in known.values()
                }
            finally:
                world.gateway.stop()

    asyncio.run(story())


def test_A3_A4_a_recording_goes_on_as_the_next_segment_and_the_recorder_has_a_new_session(
    make_world: Callable[[str], World],
) -> None:
    world = make_world("baresip")

    async def story() -> None:
        recorder = Recorder()
        async with recorder.running():
            world.configure("\toption record '1'\n", recorder.options)
            async with serving(world.second), talking(world):
                await until(lambda: recorder.received > 50, 10)
                await until(lambda: bool(world.first.live[0]["recording"]), 5)
                (known,) = world.first.live
                await take(world, known, "refused", asks=False)
                heard = recorder.received
                await until(lambda: recorder.received > heard + 50, 10)
                (document,) = world.second.live
                assert document["recording"]["segment"] == 2
                await world.second.call("hangup", call=known["id"])
                await world.second.until_over()
                await until(lambda: len(recorder.told) == 3, 5)
        found = [(item["event"], item["segment"], item["generation"]) for item in recorder.told]
        assert found == [("start", 1, 1), ("start", 2, 2), ("stop", 2, 2)]
        assert {item["call"] for item in recorder.told} == {known["id"]}
        assert recorder.told[0]["session"] != recorder.told[1]["session"]
        # Both stretches of the call are on disk, each where it was recorded.
        for server, name in ((world.first, "1.1"), (world.second, "2.2")):
            folder = server.paths.asterisk_dir / "spool" / "recording"
            assert [path.name for path in folder.glob("*/*.wav")] == [f"{known['id']}-{name}.wav"]

    asyncio.run(story())


def test_A4_the_recorder_is_told_nothing_of_a_move_where_the_consoles_send_to_it(
    make_world: Callable[[str], World],
) -> None:
    world = make_world("baresip")

    async def story() -> None:
        recorder = Recorder()
        async with recorder.running():
            source = recorder.options + "\toption recorder_source 'console'\n"
            world.configure("\toption record '1'\n", source)
            async with serving(world.second), talking(world):
                await until(lambda: len(recorder.told) == 1, 5)
                (known,) = world.first.live
                await take(world, known, "refused", asks=False)
                await until(lambda: (world.second.live[0]["recording"] or {}).get("running"), 5)
                (document,) = world.second.live
                assert document["recording"]["segment"] == 2  # the server's own goes on (A3)
                await world.second.call("hangup", call=known["id"])
                await world.second.until_over()
                await until(lambda: len(recorder.told) == 2, 5)
        assert [item["event"] for item in recorder.told] == ["start", "stop"]
        assert recorder.told[0]["session"] == recorder.told[1]["session"]
        assert {item["rtp"] for item in recorder.told} == {""}
        assert recorder.received == 0

    asyncio.run(story())


def test_A1_A2_a_call_of_linphone_goes_on_at_another_node(
    make_world: Callable[[str], World],
) -> None:
    world = make_world("linphone")

    async def story() -> None:
        async with serving(world.second), talking(world) as known:
            # A dialog that it has not seen confirmed yet is unknown to its Replaces: 481.
            await until(lambda: world.desk.has_media, 10)
            await take(world, known, "refused", asks=False)
            assert set(world.outcomes(world.second).values()) <= {"taken", "fallback"}
            await world.is_up_at(world.second)
            world.desk.play()
            await until(functools.partial(_hears, world.gateway, world.desk.tone), 20)

    asyncio.run(story())


def test_A1_A3_an_outgoing_call_through_an_asterisk_goes_on_in_both_directions(
    make_world: Callable[[str], World],
    asterisk: Asterisk,
    short_directory: Path,
    free_port: Callable[[], int],
) -> None:
    world = make_world("baresip")
    (short_directory / "far").mkdir()
    far = Server(short_directory / "far", asterisk, free_port)
    desk, callee = Phone("desk", tone=TONE), Phone("callee", tone=620)
    for server in (world.first, world.second):
        server.configure(
            f"config gateway 'g'\n\toption host '127.0.0.1'\n\toption port '{far.port}'\n"
            # Debian's Asterisk may lose what it has to translate (docs/takeover.md).
            "\toption replaces '0'\n\toption codecs 'ulaw'\n"
            "config route\n\toption prefix '0'\n\toption strip '1'\n\toption gateways 'g'\n",
            f"\toption settle '0'\n\toption adoption_port '{free_port()}'\n",
        )

    async def story() -> None:
        async with phones(desk, callee), serving(world.second), serving(far), serving(world.first):
            await world.first.present(desk)
            await far.present(callee)
            await world.first.call("dial", console="desk", number="0100")
            await world.is_up_at(world.first)
            (known,) = world.first.live
            await take(world, known, "refused", asks=False)
            assert set(world.outcomes(world.second)) == {"gateway", "console"}, world.second.log
            assert set(world.outcomes(world.second).values()) <= {"taken", "fallback"}
            for phone, tone in ((desk, 620), (callee, TONE)):
                phone.media.sound.clear()
                await until(functools.partial(_hears, phone, tone), 20)
            await world.second.call("hangup", call=known["id"])
            await asyncio.wait_for(callee.call.ended.wait(), 5)
            await far.until_over()
            await world.second.until_over()

    asyncio.run(story())


def _hears(phone: Phone, tone: int) -> bool:
    last = phone.media.tail(2400)
    return len(last) == 2400 and strength(last, tone) > 0.5


def test_A2_on_silence_no_call_is_taken_while_a_party_does_not_answer(
    make_world: Callable[[str], World],
) -> None:
    world = make_world("baresip")

    async def story() -> None:
        async with serving(world.second), talking(world) as known:
            await world.desk.stop()
            await take(world, known, "confirmed", asks=True)
            assert set(world.outcomes(world.second).values()) == {"unreachable"}
            assert world.second.live == [] and await world.second.channels() == []

    asyncio.run(story())


def test_A1_a_node_takes_its_own_calls_up_again_when_its_asterisk_died(
    make_world: Callable[[str], World],
) -> None:
    world = make_world("baresip")

    async def story() -> None:
        async with talking(world) as known:
            await world.hears_itself()
            world.first.kill("asterisk", signal.SIGKILL)
            world.first.start_asterisk()
            await until(lambda: any(e["kind"] == "taken_over" for e in world.first.events), 15)
            await world.is_up_at(world.first)
            (document,) = world.first.live
            assert (document["id"], document["generation"]) == (known["id"], 2)
            await world.hears_itself()

    asyncio.run(story())


def test_A2_who_returns_drops_what_another_node_owns_by_now(
    make_world: Callable[[str], World],
) -> None:
    world = make_world("baresip")

    async def story() -> None:
        async with talking(world) as known:
            released = await world.first.call("release", calls=[[known["id"], 2, "other"]])
            assert released == {"released": [known["id"]]}
            await world.first.until_over()
            again = await world.first.call("release", calls=[[known["id"], 2, "other"]])
            assert again == {"released": []}

    asyncio.run(story())
