"""Outgoing calls, conferences, hold and transfer, and calls that outlive a process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controlone_ha.jsonrpc import RpcError
from controlone_ha.lab.parts import Asterisk
from tests.contract.conference_support import Server, phones, serving
from tests.contract.takeover_support import hear_each_other
from tests.phone import Phone
from tests.waiting import until

pytestmark = pytest.mark.contract


@pytest.fixture
def server(asterisk: Asterisk, short_directory: Path, free_port: Callable[[], int]) -> Server:
    return Server(short_directory, asterisk, free_port)


def dialplan(*gateways: Phone, more: str = "") -> str:
    names = [f"g{number}" for number in range(len(gateways))]
    sections = [
        f"config gateway '{name}'\n\toption host '127.0.0.1'\n\toption port '{phone.port}'\n{more}"
        for name, phone in zip(names, gateways, strict=True)
    ]
    route = (
        f"config route\n\toption prefix '0'\n\toption strip '1'\n\toption add '55'\n"
        f"\toption gateways '{','.join(names)}'\n"
    )
    return "".join(sections) + route


SILENCE = "\toption settle '0'\n\toption silence '0.7'\n"


def test_L3_gateways_are_tried_in_order_until_one_answers(server: Server) -> None:
    async def story() -> None:
        silent, sick = Phone("silent", silent=True), Phone("sick", refuse=503)
        good, desk = Phone("good", answer=0.1), Phone("desk", tone=440)
        async with phones(silent, sick, good, desk):
            server.configure(dialplan(silent, sick, good), SILENCE)
            async with serving(server):
                await server.present(desk)
                call = await server.call("dial", console="desk", number="0119")
                await asyncio.wait_for(until_up(server, call["id"]), 10)
                assert [len(phone.calls) or phone.messages != [] for phone in (silent, sick, good)]
                assert good.call.request.startswith(f"INVITE sip:55119@127.0.0.1:{good.port}")
                failed = [(event["gateway"], event["status"]) for event in server.events]
                assert failed == [("g0", 0), ("g1", 503)]
                assert "answer-after=0" in desk.call.request
                await until(lambda: good.media.received > 20, 5)
                await server.call("hangup", call=call["id"])
                await asyncio.wait_for(good.call.ended.wait(), 5)
                await asyncio.wait_for(desk.call.ended.wait(), 5)
                await server.until_over()

    asyncio.run(story())


async def until_up(server: Server, call_id: str) -> dict[str, Any]:
    try:
        await until(lambda: server.documents.get(call_id, {}).get("state") == "up", 8)
    except AssertionError as error:
        document = server.documents.get(call_id)
        raise AssertionError(f"not up: {document}\n{server.events}\n{server.log}") from error
    return server.documents[call_id]


@pytest.mark.parametrize("status", [486, 404])
def test_L3_busy_and_a_wrong_number_end_the_list(server: Server, status: int) -> None:
    async def story() -> None:
        first, second, desk = Phone("first", refuse=status), Phone("second"), Phone("desk")
        async with phones(first, second, desk):
            server.configure(dialplan(first, second))
            async with serving(server):
                await server.present(desk)
                call = await server.call("dial", console="desk", number="0119")
                await asyncio.wait_for(desk_over(desk), 8)
                await until(lambda: server.documents[call["id"]]["state"] == "ended")
                assert server.documents[call["id"]]["reason"] == f"failed_{status}"
                assert not second.messages
                await server.until_over()

    asyncio.run(story())


async def desk_over(desk: Phone) -> None:
    await until(lambda: bool(desk.calls), 5)
    await desk.call.ended.wait()


@pytest.mark.parametrize("status", [403, 603, 500])
def test_L3_a_gateway_that_declines_is_followed_by_the_next(server: Server, status: int) -> None:
    async def story() -> None:
        first, second, desk = Phone("first", refuse=status), Phone("second"), Phone("desk")
        async with phones(first, second, desk):
            server.configure(dialplan(first, second))
            async with serving(server):
                await server.present(desk)
                call = await server.call("dial", console="desk", number="0119")
                await until_up(server, call["id"])
                assert [event["status"] for event in server.events] == [status]
                await server.call("hangup", call=call["id"])
                await server.until_over()

    asyncio.run(story())


def test_L3_a_gateway_s_demand_for_credentials_is_met(server: Server) -> None:
    async def story() -> None:
        gateway, desk = Phone("gateway", password="a;b#c"), Phone("desk")
        async with phones(gateway, desk):
            more = "\toption username 'site1'\n\toption password 'a;b#c'\n"
            server.configure(dialplan(gateway, more=more))
            async with serving(server):
                await server.present(desk)
                call = await server.call("dial", console="desk", number="0119")
                await until_up(server, call["id"])
                await server.call("hangup", call=call["id"])
                await server.until_over()
        assert "a;b#c" not in server.log
        secret = server.paths.asterisk_dir / "etc" / "pjsip_passwords.conf"
        assert secret.stat().st_mode & 0o777 == 0o600

    asyncio.run(story())


def test_three_parties_hold_resume_and_transfer(server: Server) -> None:
    async def story() -> None:
        gateway, desk = Phone("gateway", tone=1000), Phone("desk", tone=440)
        second, third = Phone("second"), Phone("third", answer=0.3)
        async with phones(gateway, desk, second, third):
            server.configure(dialplan(gateway))
            async with serving(server):
                await server.present(desk, second, third)
                call = (await server.call("dial", console="desk", number="0119"))["id"]
                await until_up(server, call)
                await server.call("add", call=call, to={"console": "second"})
                await until(lambda: len(up_parties(server, call)) == 3)
                await until(lambda: second.media.received > 20, 5)
                await server.call("hold", call=call, console="desk")
                with pytest.raises(RpcError, match="desk holds this call already"):
                    await server.call("hold", call=call, console="desk")
                assert server.documents[call]["state"] == "up"  # second is still there
                await server.call("hold", call=call, console="second")
                assert server.documents[call]["state"] == "held"
                await server.call("resume", call=call, console="desk")
                assert server.documents[call]["state"] == "up"
                second.hang_up(second.call)
                await until(lambda: up_parties(server, call) == {"desk", "55119"})
                await server.call("transfer", call=call, console="desk", to={"console": "third"})
                await asyncio.wait_for(desk.call.ended.wait(), 5)
                await until(lambda: up_parties(server, call) == {"third", "55119"})
                await until(lambda: third.media.received > 20, 5)
                for bad in ({"console": "nobody"}, {"number": "999"}):
                    with pytest.raises(RpcError):
                        await server.call("add", call=call, to=bad)
                gateway.hang_up(gateway.call)
                await asyncio.wait_for(third.call.ended.wait(), 5)
                await server.until_over()

    asyncio.run(story())


def test_L3_parties_with_different_codecs_hear_each_other_after_hold_and_transfer(
    server: Server,
) -> None:
    async def story() -> None:
        gateway, desk = Phone("gateway", tone=1000, codec="PCMA"), Phone("desk", tone=440)
        third = Phone("third", tone=620)
        async with phones(gateway, desk, third):
            server.configure(dialplan(gateway))
            async with serving(server):
                await server.present(desk, third)
                call = (await server.call("dial", console="desk", number="0119"))["id"]
                await until_up(server, call)
                await hear_each_other((gateway, 440), (desk, 1000))
                await server.call("hold", call=call, console="desk")
                await server.call("resume", call=call, console="desk")
                await hear_each_other((gateway, 440), (desk, 1000))
                await server.call("transfer", call=call, console="desk", to={"console": "third"})
                await asyncio.wait_for(desk.call.ended.wait(), 5)
                await hear_each_other((gateway, 620), (third, 1000))
                await server.call("hangup", call=call)
                await server.until_over()

    asyncio.run(story())


def up_parties(server: Server, call: str) -> set[str]:
    legs = server.documents[call]["legs"]
    return {leg["party"] for leg in legs if leg["state"] == "confirmed"}


def test_calls_go_on_when_the_controller_is_killed_and_the_next_one_leads_them(
    server: Server,
) -> None:
    async def story() -> None:
        desk, caller = Phone("desk", tone=440), Phone("caller", tone=1000)
        lazy, other = Phone("lazy", answer=None), Phone("other")
        server.configure("config queue '100'\n\toption record '1'\nconfig queue '200'\n", "")
        async with phones(desk, caller, lazy, other), serving(server):
            consoles = [
                {"name": "desk", "queues": ["100"], "sip": desk.uri},
                {"name": "lazy", "queues": ["200"], "sip": lazy.uri},
            ]
            await server.call("consoles", consoles=consoles)
            call = caller.dial("100", server.port)
            await asyncio.wait_for(call.answered.wait(), 5)
            ringing = other.dial("200", server.port)
            await until(lambda: bool(lazy.calls), 5)
            await until(lambda: sorted(x["state"] for x in server.live) == ["ringing", "up"], 5)
            before = {item["id"]: item["state"] for item in server.live}
            server.kill("controller")
            heard = desk.media.received
            server.start_controller()
            server.documents.clear()
            await server.connect()
            await server.call("consoles", consoles=consoles)
            await until(lambda: lazy.cancelled == 1 and len(lazy.calls) == 2, 10)
            assert {item["id"] for item in server.live} == set(before)
            await until(lambda: desk.media.received > heard + 50, 5)
            assert call.state == "up"
            (up,) = [item["id"] for item in server.live if item["state"] == "up"]
            await server.call("hold", call=up, console="desk")
            await server.call("resume", call=up, console="desk")
            lazy.pick_up(lazy.call)
            await asyncio.wait_for(ringing.answered.wait(), 5)
            caller.hang_up(call)
            other.hang_up(ringing)
            await server.until_over()
            folder = server.paths.asterisk_dir / "spool" / "recording"
            await until(lambda: len(list(folder.glob("*/*.json"))) == 1, 5)

    asyncio.run(story())


def test_calls_of_a_killed_asterisk_are_lost_and_their_recording_is_repaired(
    server: Server,
) -> None:
    async def story() -> None:
        desk, caller = Phone("desk", tone=440), Phone("caller", tone=1000)
        # No port for adoption, and these phones know no Replaces: nothing can be taken up again.
        server.configure(
            "config queue '100'\n\toption record '1'\n",
            "\toption settle '0'\n\toption adoption_port '0'\n",
        )
        async with phones(desk, caller), serving(server):
            await server.present(desk)
            call = caller.dial("100", server.port)
            await asyncio.wait_for(call.answered.wait(), 5)
            await until(lambda: desk.media.received > 150, 10)
            (document,) = server.live
            server.kill("asterisk")
            await until(lambda: server.documents[document["id"]]["state"] == "lost", 5)
            lost = server.documents[document["id"]]
            assert lost["reason"] == "engine_died"
            assert [leg["call_id"] for leg in lost["legs"]] == [
                leg["call_id"] for leg in document["legs"]
            ]
            assert all(leg["state"] == "confirmed" for leg in lost["legs"])
            server.start_asterisk()
            await server.engine_up()
            again = caller.dial("100", server.port)
            await asyncio.wait_for(again.answered.wait(), 5)
            assert server.documents[document["id"]]["state"] == "lost"
            caller.hang_up(again)
            folder = server.paths.asterisk_dir / "spool" / "recording"
            await until(lambda: await_sizes(folder), 5)

    def await_sizes(folder: Path) -> bool:
        return any(path.stat().st_size > 44 for path in folder.glob("*/*.wav"))

    asyncio.run(story())
    check_repair(server)


def check_repair(server: Server) -> None:
    """A file whose header says nothing is whole again after the sweep."""
    import wave

    from controlone_ha.conference.recordings import Recordings, repair

    folder = server.paths.asterisk_dir / "spool" / "recording"
    path = max(folder.glob("*/*.wav"), key=lambda item: item.stat().st_size)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = bytes(4)
    path.write_bytes(content)
    path.with_suffix(".json").unlink(missing_ok=True)
    recordings = Recordings(None, folder, "n")  # type: ignore[arg-type]
    assert len(recordings.sweep()) >= 1
    assert path.with_suffix(".json").exists()
    with wave.open(str(path)) as sound:
        assert sound.getnframes() == (len(content) - 44) // 2
    assert repair(path) is False
