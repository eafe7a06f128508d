"""Bad input: torture messages, a flood, wrong credentials, a control interface that is cut."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from controlone_ha.lab.parts import Asterisk
from tests.contract.conference_support import Server, phones, serving
from tests.phone import Phone
from tests.waiting import freeze, thaw, until

pytestmark = pytest.mark.contract

TORTURE = Path(__file__).resolve().parents[1] / "data" / "rfc4475"
FLOOD = 300


@pytest.fixture
def server(asterisk: Asterisk, short_directory: Path, free_port: Callable[[], int]) -> Server:
    return Server(short_directory, asterisk, free_port)


def test_torture_messages_harm_nothing_and_leave_nothing(server: Server) -> None:
    async def story() -> None:
        async with serving(server), phones(Phone("desk"), Phone("caller")) as (desk, caller):
            await server.present(desk)
            messages = sorted(TORTURE.glob("*.dat"))
            assert len(messages) == 49
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.bind(("127.0.0.1", 0))
                for message in messages:
                    stranger.sendto(message.read_bytes(), ("127.0.0.1", server.port))
                    await asyncio.sleep(0.01)
            for message in messages:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                    writer.write(message.read_bytes())
                    await writer.drain()
                    writer.close()
            await asyncio.sleep(0.5)
            assert server.asterisk is not None and server.asterisk.poll() is None
            assert server.controller is not None and server.controller.poll() is None
            call = caller.dial("100", server.port)
            await asyncio.wait_for(call.answered.wait(), 5)
            caller.hang_up(call)
            for dialog in desk.calls:
                desk.hang_up(dialog)
            await server.until_over()

    asyncio.run(story())


def test_L2_a_flood_to_queues_without_consoles_is_declined_to_the_last(server: Server) -> None:
    async def story() -> None:
        async with serving(server), phones(Phone("desk"), Phone("caller")) as (desk, caller):
            await server.present(desk, queues=("900",))
            for number in range(FLOOD):
                caller.dial(str(100 + number % 50), server.port)
                if number % 20 == 19:
                    await asyncio.sleep(0.05)
            calls = list(caller.calls)
            await until(lambda: all(call.ended.is_set() for call in calls), 20)
            assert {call.statuses[-1] for call in calls} == {603}
            assert not server.documents
            assert (await server.call("status"))["refused"] == {"no_console": FLOOD}
            good = caller.dial("900", server.port)
            await asyncio.wait_for(good.answered.wait(), 5)
            caller.hang_up(good)
            await server.until_over()

    asyncio.run(story())


def test_wrong_credentials_are_one_line_in_the_log_and_calls_are_answered_503(
    server: Server,
) -> None:
    async def story() -> None:
        async with phones(Phone("caller")) as (caller,):
            server.start_asterisk()
            file = server.paths.asterisk_dir / "control.json"
            right = file.read_text()
            file.write_text(right.replace('"password": "', '"password": "wrong'))
            server.start_controller()
            try:
                await until(lambda: "401" in server.log, 10)
                call = caller.dial("100", server.port)
                await asyncio.wait_for(call.ended.wait(), 5)
                assert call.statuses[-1] == 503
                await asyncio.sleep(0.5)
                assert server.log.count("no connection to Asterisk") == 1
                file.write_text(right)
                await server.connect()
            finally:
                await server.stop()

    asyncio.run(story())
    assert "Traceback" not in server.log


def test_a_control_interface_that_is_cut_during_set_up_leaves_no_orphan(server: Server) -> None:
    async def story() -> None:
        desk, caller = Phone("desk", answer=None), Phone("caller")
        async with serving(server), phones(desk, caller):
            await server.present(desk)
            calls = [caller.dial("100", server.port) for _ in range(3)]
            await until(lambda: len(desk.calls) == len(server.live) == 3, 5)
            server.kill("controller")
            for dialog in desk.calls:
                desk.pick_up(dialog)  # answered, and nobody there who would join them
            caller.hang_up(calls[0])
            await asyncio.sleep(0.3)
            server.start_controller()
            server.documents.clear()
            await server.connect()
            await server.present()
            await until(lambda: all(call.ended.is_set() for call in calls), 10)
            await server.until_over()
            assert [call.statuses[-1] for call in calls] == [487, 603, 603]
            await until(lambda: all(dialog.ended.is_set() for dialog in desk.calls), 5)

    asyncio.run(story())


def test_F3_a_frozen_asterisk_that_wakes_goes_on_with_its_calls(server: Server) -> None:
    async def story() -> None:
        desk, caller = Phone("desk", tone=440), Phone("caller")
        async with serving(server), phones(desk, caller):
            await server.present(desk)
            call = caller.dial("100", server.port)
            await asyncio.wait_for(call.answered.wait(), 5)
            assert server.asterisk is not None
            freeze(server.asterisk.pid)
            await asyncio.sleep(1.0)
            thaw(server.asterisk.pid)
            await server.engine_up()
            again = caller.dial("100", server.port)
            await asyncio.wait_for(again.answered.wait(), 8)
            assert {item["state"] for item in server.live} == {"up"}
            caller.hang_up(call)
            caller.hang_up(again)
            await server.until_over()

    asyncio.run(story())
