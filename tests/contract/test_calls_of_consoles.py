"""Consoles' calls: Console Server, node door, Conference Server, Asterisk and phones, all real."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from controlone_ha.console.connection import client_context
from controlone_ha.errors import PeerError
from controlone_ha.jsonrpc import MAX_LINE, Connection, RpcError
from controlone_ha.lab.parts import Asterisk
from controlone_ha.paths import node_paths
from controlone_ha.peers.keys import load_identity
from controlone_ha.peers.pins import Pin
from controlone_ha.peers.trust import TrustStore
from tests.console_servers import ServerProcess
from tests.contract.conference_support import Server, phones, serving
from tests.contract.test_conference_calls import dialplan
from tests.phone import Phone
from tests.waiting import until

pytestmark = pytest.mark.contract

SECRET = "correct horse battery staple"


@pytest.fixture
def conference(asterisk: Asterisk, short_directory: Path, free_port: Callable[[], int]) -> Server:
    return Server(short_directory, asterisk, free_port)


def console_server(
    directory: Path, name: str, port: int, *, beside: Server | None = None, more: str = ""
) -> ServerProcess:
    """Return a server that is not started; ``beside``: of the same node as that one."""
    server = ServerProcess(directory, f"node-{name}", "127.0.0.1", port)
    server.name = name
    if beside is not None:
        server.environment["CONTROLONE_RUN_DIR"] = str(beside.directory / "run")
        server.paths = node_paths(server.environment)
    config = server.directory / "config"
    (config / "server").write_text((config / "server").read_text() + more)
    write_secret(server, SECRET)
    return server


def write_secret(server: ServerProcess, secret: str) -> None:
    (server.directory / "config" / "ha").write_text(
        f"config ha 'default'\n\toption name '{server.name}'\n\toption role 'master'\n"
        f"\toption database 'none'\n\toption secret '{secret}'\n"
    )


def pin(at: ServerProcess, whom: ServerProcess) -> None:
    own = load_identity(whom.paths)
    made = Pin(name=whom.name, public_key=own.public_key, certificate=own.certificate)
    TrustStore(at.paths.pins_file).pin(made)


class Desk:
    """An operator's console: its connection and the calls it was told of."""

    def __init__(self, phone: Phone) -> None:
        self.phone = phone
        self.calls: dict[str, dict[str, Any]] = {}
        self.told: list[str] = []
        self.connection: Connection | None = None

    async def _told(self, _connection: Connection, method: str, params: dict[str, Any]) -> None:
        if method == "call":
            self.calls[params["id"]] = params
            self.told.append(params["state"])

    async def ask(self, method: str, **params: Any) -> Any:
        assert self.connection is not None
        return await self.connection.call(method, params)

    @contextlib.asynccontextmanager
    async def at(self, server: ServerProcess) -> AsyncIterator[Desk]:
        reader, writer = await asyncio.open_connection(
            server.address, server.port, ssl=client_context(), server_hostname="", limit=MAX_LINE
        )
        self.connection = Connection(reader, writer, self._told)
        task = asyncio.ensure_future(self.connection.run())
        try:
            login = {"console": self.phone.name, "queues": ["100"], "sip": self.phone.uri}
            await self.ask("login", **login)
            yield self
        finally:
            await self.connection.close()
            await task

    @property
    def call(self) -> dict[str, Any]:
        (found,) = (call for call in self.calls.values() if call["state"] != "ended")
        return found


async def until_joined(desk: Desk, number: str) -> Any:
    """Dial as soon as a Conference Server is joined; return the answer."""
    for _ in range(100):
        try:
            return await desk.ask("dial", number=number)
        except RpcError as error:
            last = error
            await asyncio.sleep(0.1)
    raise AssertionError(f"no dial: {last}")


def test_L1_L2_a_console_answers_holds_transfers_and_ends_calls_over_its_connection(
    conference: Server, short_directory: Path, free_port: Callable[[], int]
) -> None:
    server = console_server(short_directory, "n1", free_port(), beside=conference)

    async def story() -> None:
        phone, other = Phone("desk-1", answer=None), Phone("desk-2")
        caller = Phone("caller")
        desk, second = Desk(phone), Desk(other)
        async with phones(phone, other, caller), serving(conference):
            server.start()
            async with desk.at(server):
                dialog = await ringing(caller, conference, desk)
                assert (desk.call["queue"], desk.call["number"]) == ("100", "caller")
                phone.answer_after = 0.0
                await desk.ask("answer", id=desk.call["id"])
                await asyncio.wait_for(dialog.answered.wait(), 8)
                await until(lambda: desk.call["state"] == "up", 5)
                call_id = desk.call["id"]
                await desk.ask("hold", id=call_id)
                await until(lambda: desk.call["state"] == "held", 5)
                await desk.ask("resume", id=call_id)
                await until(lambda: desk.call["state"] == "up", 5)
                assert [call["id"] for call in (await desk.ask("calls"))["calls"]] == [call_id]
                async with second.at(server):
                    await asyncio.sleep(0.3)
                    with pytest.raises(RpcError, match="not in that call"):
                        await second.ask("hangup", id=call_id)
                    await desk.ask("transfer", id=call_id, to="desk-2")
                    await until(lambda: desk.calls[call_id]["state"] == "ended", 8)
                    await until(lambda: bool(second.calls) and second.call["state"] == "up", 8)
                # Its connection is lost and comes back: it is told what it still has.
                second.calls.clear()
                async with second.at(server):
                    await until(lambda: bool(second.calls), 5)
                    assert second.call["id"] == call_id
                    await second.ask("hangup", id=call_id)
                    await asyncio.wait_for(dialog.ended.wait(), 5)
                    await until(lambda: second.calls[call_id]["state"] == "ended", 5)
            await conference.until_over()

    try:
        asyncio.run(story())
        assert "Traceback" not in server.log
    finally:
        server.end()


async def ringing(caller: Phone, conference: Server, desk: Desk) -> Any:
    """Call the queue until the console rings: presence is on its way to the controller."""
    for _ in range(20):
        dialog = caller.dial("100", conference.port)
        for _ in range(20):
            await asyncio.sleep(0.1)
            if desk.calls or dialog.ended.is_set():
                break
        if desk.calls:
            assert desk.call["state"] == "ringing"
            return dialog
    raise AssertionError(f"the console was not told\n{conference.log}")


def test_L1_L3_a_console_dials_over_the_conference_server_behind_another_node_s_door(
    conference: Server, short_directory: Path, free_port: Callable[[], int]
) -> None:
    far = console_server(short_directory, "far", free_port(), beside=conference)
    more = "\toption conference 'gone,far'\n"
    near = console_server(short_directory, "near", free_port(), more=more)
    pin(far, near)
    pin(near, far)

    async def story() -> None:
        gateway, phone = Phone("gateway", answer=0.1), Phone("desk-1")
        desk = Desk(phone)
        async with phones(gateway, phone):
            conference.configure(dialplan(gateway))
            async with serving(conference):
                far.start(serving=False)  # a node whose Console Server is disabled
                near.start()
                known = [{"name": "far", "address": far.address, "port": far.port}]
                near.order("publish", servers=known)
                async with desk.at(near):
                    call_id = (await until_joined(desk, "0119"))["id"]
                    await until(lambda: desk.calls.get(call_id, {}).get("state") == "up", 8)
                    assert desk.told[0] == "dialing"
                    assert gateway.call.request.startswith("INVITE sip:55119@")
                    await desk.ask("hold", id=call_id)
                    await until(lambda: desk.call["state"] == "held", 5)
                    await desk.ask("hangup", id=call_id)
                    await asyncio.wait_for(gateway.call.ended.wait(), 5)
                    await until(lambda: desk.calls[call_id]["state"] == "ended", 5)
                # The pin is taken off: the door is shut within seconds, without a restart.
                TrustStore(far.paths.pins_file).unpin("near")
                await until(lambda: "far: PeerError" in near.log or "SSL" in near.log, 15)
                async with desk.at(near):
                    with pytest.raises(RpcError) as refused:
                        await desk.ask("dial", number="0119")
                    assert refused.value.number == -32020

    try:
        asyncio.run(story())
        assert "Traceback" not in near.log + far.log
        assert SECRET not in near.log + far.log
    finally:
        near.end()
        far.end()


def test_X1_a_pinned_node_with_another_secret_and_a_stranger_with_ours_stay_outside(
    short_directory: Path, free_port: Callable[[], int]
) -> None:
    far = console_server(short_directory, "far", free_port())
    pinned = console_server(
        short_directory, "pinned", free_port(), more="\toption conference 'far'\n"
    )
    stranger = console_server(
        short_directory, "stranger", free_port(), more="\toption conference 'far'\n"
    )
    write_secret(pinned, "another secret of the same length")
    pin(far, pinned)
    pin(pinned, far)
    pin(stranger, far)
    try:
        far.start()
        known = [{"name": "far", "address": far.address, "port": far.port}]
        for server in (pinned, stranger):
            server.start()
            server.order("publish", servers=known)

        async def story() -> None:
            await until(lambda: "far does not know the secret" in pinned.log, 10)
            await until(lambda: "Conference Server far: " in stranger.log, 10)

            with pytest.raises((RpcError, PeerError)) as refused:
                reader, writer = await asyncio.open_connection(
                    far.address, far.port, ssl=client_context(), server_hostname=""
                )
                connection = Connection(reader, writer)
                task = asyncio.ensure_future(connection.run())
                try:
                    await connection.call("node.hello", {"nonce": "0" * 64})
                finally:
                    await connection.close()
                    await task
            assert getattr(refused.value, "number", 0) == -32601

        asyncio.run(story())
        assert "has come through the door" not in far.log
    finally:
        for server in (far, pinned, stranger):
            server.end()
