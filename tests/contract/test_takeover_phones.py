"""Real phones and a plain Asterisk as gateway: their calls go on, and they hear it."""

from __future__ import annotations

import asyncio
import functools
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from controlone_ha.conference import asterisk as engine
from controlone_ha.core.calls import CallState
from controlone_ha.lab.parts import Asterisk
from tests.contract.conference_support import Server, phones
from tests.contract.takeover_support import Servers, hear_each_other, order, started, told
from tests.linphone import Linphone
from tests.phone import Phone, strength
from tests.waiting import until

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module")
def pair(asterisk: Asterisk, free_port: Callable[[], int]) -> Iterator[Servers]:
    with started(asterisk, free_port, 2) as made:
        yield made


def tone_in(path: Path, tone: int, since: int) -> float:
    """How much of the last 0.2 s of a recording, all after ``since`` bytes, is the tone."""
    data = path.read_bytes()[44:] if path.exists() else b""
    last = data[max(since, len(data) // 2 * 2 - 3200) : len(data) // 2 * 2]
    samples = [sample for (sample,) in struct.iter_unpack("<h", last)]
    return strength(samples, tone) if len(samples) >= 1600 else 0.0


async def hear(*pairs: tuple[Path, int]) -> None:
    """Wait until what comes from now on in each recording is the tone."""
    for path, tone in pairs:
        since = path.stat().st_size if path.exists() else 0
        await until(lambda: tone_in(path, tone, since) > 0.5, 10)  # noqa: B023


def outcomes(server: Server) -> dict[str, str]:
    """What became of the legs of the only takeover, by role."""
    (event,) = told(server)
    return {leg["role"]: leg["outcome"] for leg in event["legs"]}


class PlainGateway(Server):
    """An Asterisk with a plain dialplan: it sends every call to the first of ``callees``, and to
    the next where that does not take it.
    """

    callees: Sequence[str] = ()

    def start_asterisk(self) -> None:
        engine.prepare(self.paths, self.program, ari_port=self.ari_port)
        folder = self.paths.asterisk_dir / "etc"
        plain = "\n[incoming](+)\n" + "".join(
            f"exten => 7,{number},Dial(PJSIP/console/{callee})\n"
            for number, callee in enumerate(self.callees, 1)
        )
        extensions, modules = folder / "extensions.conf", folder / "modules.conf"
        extensions.write_text(extensions.read_text() + plain)
        modules.write_text(modules.read_text() + "load=app_dial.so\n")
        words = engine.command(self.paths, self.program)
        self.asterisk = self._spawn(words, "asterisk.log")

    @property
    def is_ready(self) -> bool:
        """Whether it takes calls."""
        return "Asterisk Ready" in (self.directory / "asterisk.log").read_text()


def test_A1_an_asterisk_as_gateway_takes_replaces_and_both_ends_hear_each_other(
    pair: Servers, asterisk: Asterisk, short_directory: Path, free_port: Callable[[], int]
) -> None:
    desk = Phone("desk", tone=620, knows_replaces=True, address="127.0.0.31")
    callee = Phone("callee", tone=440)
    first, second = pair.servers
    gateway = PlainGateway(short_directory, asterisk, free_port)
    more = (
        f"config gateway 'g'\n\toption host '127.0.0.1'\n\toption port '{gateway.port}'\n"
        # Debian's Asterisk, if it has to translate, may lose what it is sent (docs/takeover.md).
        "\toption codecs 'ulaw'\n"
        "config route\n\toption prefix '0'\n\toption strip '1'\n\toption gateways 'g'\n"
    )

    async def story() -> None:
        async with phones(desk, callee), pair.configured(more):
            gateway.callees = [callee.uri]
            gateway.start_asterisk()
            try:
                for server in pair.servers:
                    await server.present(desk)
                await first.call("dial", console="desk", number="07")
                await until(lambda: [c["state"] for c in first.live] == [CallState.UP], 15)
                await hear_each_other((desk, 440), (callee, 620))
                assert await pair.take(first.live[0]) == {"gateway": "taken", "console": "taken"}
                await hear_each_other((desk, 440), (callee, 620))
                await second.call("hangup", call=second.live[0]["id"])
                await asyncio.wait_for(callee.call.ended.wait(), 5)
            finally:
                gateway.kill("asterisk")

    pair.run(story())


def test_A1_a_caller_behind_an_asterisk_waits_on_at_the_other_server(
    pair: Servers, asterisk: Asterisk, short_directory: Path, free_port: Callable[[], int]
) -> None:
    # Of the codec that is offered first: Debian's Asterisk, if it has to translate, may lose what
    # it is sent (docs/takeover.md).
    caller = Phone("caller", tone=440, codec="PCMA")
    desk, other = Phone("desk", answer=None), Phone("other", tone=620, answer=None)
    gateway = PlainGateway(short_directory, asterisk, free_port)

    async def story() -> None:
        async with phones(caller, desk, other):
            gateway.callees = [f"sip:100@127.0.0.1:{pair.first.port}"]
            gateway.start_asterisk()
            try:
                await pair.first.present(desk)
                await pair.second.present(other)
                await until(lambda: gateway.is_ready, 15)
                caller.dial("7", gateway.port)
                await until(lambda: [c["state"] for c in pair.first.live] == [CallState.RINGING], 5)
                assert await pair.take(pair.first.live[0]) == {"gateway": "taken"}
                await hear_each_other((caller, 425))
                await until(lambda: other.calls, 5)
                other.pick_up(other.call)
                await hear_each_other((caller, 620), (other, 440))
                caller.hang_up(caller.call)
                await asyncio.wait_for(other.call.ended.wait(), 5)
            finally:
                gateway.kill("asterisk")

    pair.run(story())


def test_A1_a_gateway_that_does_not_take_replaces_tries_the_other_server_at_once(
    pair: Servers, asterisk: Asterisk, short_directory: Path, free_port: Callable[[], int]
) -> None:
    caller = Phone("caller", tone=440, codec="PCMA")
    desk, other = Phone("desk", answer=None), Phone("other", tone=620)
    gateway = PlainGateway(short_directory, asterisk, free_port)
    more = (
        f"config gateway 'g'\n\toption host '127.0.0.1'\n\toption port '{gateway.port}'\n"
        "\toption replaces '0'\n\toption codecs 'alaw'\n"
    )

    async def story() -> None:
        async with phones(caller, desk, other), pair.configured(more):
            gateway.callees = [
                f"sip:100@{pair.addresses[server]}:{server.port}" for server in pair.servers
            ]
            gateway.start_asterisk()
            try:
                await pair.first.present(desk)
                await pair.second.present(other)
                await until(lambda: gateway.is_ready, 15)
                caller.dial("7", gateway.port)
                await until(lambda: [c["state"] for c in pair.first.live] == [CallState.RINGING], 5)
                known = pair.first.live[0]
                assert await pair.take(known) == {"gateway": "refused"}
                document = await pair.state_there(CallState.UP)
                assert document["created"] == known["created"]
                await hear_each_other((caller, 620), (other, 440))
            finally:
                gateway.kill("asterisk")

    pair.run(story())


def test_A1_two_linphones_talk_on_when_asterisk_dies_and_when_the_server_dies(
    pair: Servers, short_directory: Path, free_port: Callable[[], int]
) -> None:
    trunk = Linphone(short_directory / "trunk", "trunk", free_port, tone=440)
    desk = Linphone(short_directory / "desk", "desk", free_port, tone=620)
    first, second = pair.servers

    async def story() -> None:
        try:
            await asyncio.gather(trunk.start(), desk.start())
            await first.present(desk)  # type: ignore[arg-type]
            trunk.command(f"call sip:100@127.0.0.1:{first.port}")
            await until(lambda: [c["state"] for c in first.live] == [CallState.UP], 10)
            for phone in (trunk, desk):
                await until(functools.partial(getattr, phone, "has_media"), 10)
                phone.play()
            heard = [(trunk.record("heard.wav"), 620), (desk.record("heard.wav"), 440)]
            await hear(*heard)
            # Its Asterisk alone: the node takes its call up by itself.
            first.kill("asterisk")
            first.start_asterisk()
            await until(lambda: told(first), 15)
            assert set(outcomes(first).values()) <= {"taken", "fallback"}, first.log
            await hear(*heard)
            # The whole server: another one takes it.
            (known,) = first.live
            pair.kill(first)
            await order(second, known)
            await until(lambda: told(second), 15)
            assert outcomes(second) == {"gateway": "taken", "console": "taken"}, second.log
            await hear(*heard)
        finally:
            await asyncio.gather(trunk.stop(), desk.stop())

    pair.run(story())
