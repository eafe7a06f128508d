"""Live calls between two `ha`: over a real socket from the controller, over links to the peer."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controlone_ha.conference.followers import SocketFollowers
from controlone_ha.core.calls import Call, CallState, Leg
from controlone_ha.daemon.calls import LiveCalls
from controlone_ha.jsonrpc import Connection, serve_unix
from tests.waiting import until

pytestmark = pytest.mark.contract


class Wire:
    """Both ends of a link between two `ha`, in one process; ``cut`` loses what is sent."""

    def __init__(self) -> None:
        self.is_cut = False
        self.ends: dict[str, LiveCalls] = {}

    def link(self, peer: str, sender: str) -> FakeLink:
        return FakeLink(self, peer, sender)


class FakeLink:
    def __init__(self, wire: Wire, peer: str, sender: str) -> None:
        self.wire, self.peer, self.sender = wire, peer, sender

    def notify(self, method: str, params: dict[str, Any]) -> None:
        if not self.wire.is_cut:
            loop = asyncio.get_running_loop()
            loop.call_soon(self.wire.ends[self.peer].notify, self.sender, method, params)


class Controller:
    """The controller's side of conference.sock, with calls made up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.followers = SocketFollowers()
        self.calls: dict[str, Call] = {}
        self.server: Any = None
        self.connections: set[Connection] = set()

    async def start(self) -> None:
        self.server, self.connections = await serve_unix(self.path, self.handle)

    async def stop(self) -> None:
        self.server.close()
        for connection in list(self.connections):
            await connection.close()
            self.followers.forget(connection)

    async def handle(self, connection: Connection, method: str, params: dict[str, Any]) -> Any:
        if method == "follow":
            return {"node": "n", **self.followers.follow(connection, list(self.calls.values()))}
        if method == "peers":
            self.followers.protect(connection, params["count"])
        elif method == "protected":
            self.followers.acknowledged(params["calls"])
        return None

    def change(self, call: Call) -> Call:
        self.calls[call.id] = call
        self.followers.call_changed(call)
        return call


LEG = Leg(id="l", role="gateway", party="55", call_id="c", local_tag="a", remote_tag="b")


def new_call(number: int) -> Call:
    return Call(id=f"n-{number}", owner="n", queue="100", created=float(number), legs=(LEG,))


class Pair:
    """Node n with its controller, and its peer m."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.wire = Wire()
        self.controller = Controller(directory / "conference.sock")
        self.own = self.make("n", "m")
        self.peer = self.make("m", "n")
        self.loads: list[int] = []
        self.task: asyncio.Task[None] | None = None

    def make(self, name: str, other: str) -> LiveCalls:
        made = LiveCalls(
            name=name,
            socket=self.directory / ("conference.sock" if name == "n" else "none.sock"),
            copies=self.directory / f"{name}-copies.jsonl",
            links=lambda: [] if self.wire.is_cut else [self.wire.link(other, name)],  # type: ignore[list-item]
            on_load=lambda: self.loads.append(made.count) if name == "n" else None,
        )
        self.wire.ends[name] = made
        return made

    async def __aenter__(self) -> Pair:
        await self.controller.start()
        self.task = asyncio.create_task(self.own.run())
        await until(lambda: self.own.has_controller and self.controller.followers.can_protect)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.controller.stop()


def test_A2_a_call_is_protected_when_its_peer_has_it_and_on_disk(tmp_path: Path) -> None:
    async def story() -> None:
        async with Pair(tmp_path) as pair:
            call = pair.controller.change(new_call(1))
            started = time.monotonic()
            await pair.controller.followers.wait_protected(call, 5.0)
            assert time.monotonic() - started < 1.0
            assert pair.controller.followers.is_protected(call)
            (row,) = pair.own.rows()
            assert (row["here"], row["protected_by"]) == (True, ["m"])
            (row,) = pair.peer.rows()
            assert (row["here"], row["id"], row["owner"]) == (False, "n-1", "n")
            newer = call.changed_to(5.0, state=CallState.UP)
            assert not pair.controller.followers.is_protected(newer)
            pair.controller.change(newer)
            await until(lambda: pair.controller.followers.is_protected(newer))
            assert pair.loads[-1] == 1
            restarted = pair.make("m", "n")
            assert restarted.copies.get("n-1") == newer
            pair.controller.change(newer.changed_to(6.0, state=CallState.ENDED))
            await until(lambda: pair.own.count == len(restarted.copies) == 0)
            assert len(pair.make("m", "n").copies) == 0

    asyncio.run(story())


def test_a_cut_peer_holds_up_no_call_and_catches_up(tmp_path: Path) -> None:
    async def story() -> None:
        async with Pair(tmp_path) as pair:
            first = pair.controller.change(new_call(1))
            await pair.controller.followers.wait_protected(first, 5.0)
            pair.wire.is_cut = True
            pair.own.link_down("m")
            await until(lambda: not pair.controller.followers.can_protect)
            second = pair.controller.change(new_call(2))
            started = time.monotonic()
            await pair.controller.followers.wait_protected(second, 5.0)
            assert time.monotonic() - started < 0.5
            await until(lambda: [row["protected_by"] for row in pair.own.rows()] == [[], []])
            pair.controller.change(first.changed_to(3.0, state=CallState.ENDED))
            await until(lambda: pair.own.count == 1)
            assert [call.id for call in pair.peer.copies] == ["n-1"]
            pair.wire.is_cut = False
            pair.own.link_up(pair.wire.link("m", "n"))  # type: ignore[arg-type]
            await until(lambda: [call.id for call in pair.peer.copies] == ["n-2"])
            await until(lambda: pair.controller.followers.is_protected(second))

    asyncio.run(story())


def test_calls_survive_a_controller_s_absence_and_are_compared_when_it_is_back(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with Pair(tmp_path) as pair:
            for number in (1, 2):
                pair.controller.change(new_call(number))
            await until(lambda: len(pair.peer.copies) == 2)
            await pair.controller.stop()
            await until(lambda: not pair.own.has_controller)
            assert (pair.own.count, len(pair.peer.copies)) == (2, 2)
            del pair.controller.calls["n-1"]
            await pair.controller.start()
            await until(lambda: pair.own.has_controller)
            await until(lambda: [call.id for call in pair.peer.copies] == ["n-2"])

    asyncio.run(story())


def test_X1_a_peer_speaks_for_its_own_calls_only(tmp_path: Path) -> None:
    async def story() -> None:
        async with Pair(tmp_path) as pair:
            call = pair.controller.change(new_call(1))
            await until(lambda: len(pair.peer.copies) == 1)
            stolen = call.changed_to(9.0, state=CallState.ENDED)
            pair.peer.notify("x", "calls.docs", {"calls": [stolen.to_json()], "all": []})
            bad: list[Any] = [None, 5, "x", [5], [None, {}, {"id": "n-1"}], [["n-1", 9, 9]]]
            for calls in bad:
                pair.peer.notify("n", "calls.docs", {"calls": calls})
                pair.own.notify("m", "calls.kept", {"calls": calls})
            pair.peer.notify("n", "calls.docs", {"calls": [], "all": 7})
            assert [item.id for item in pair.peer.copies] == ["n-1"]
            assert pair.own.protectors(call) == ["m"]

    asyncio.run(story())


def test_A2_a_controller_with_more_calls_than_fit_into_a_line_is_followed(tmp_path: Path) -> None:
    async def story() -> None:
        async with Pair(tmp_path) as pair:
            await pair.controller.stop()
            await until(lambda: not pair.own.has_controller)
            legs = tuple(replace(LEG, id=f"l{n}", remote_uri="sip:" + 300 * "x") for n in range(2))
            for number in range(1500):
                call = replace(new_call(number), legs=legs)
                pair.controller.calls[call.id] = call
            await pair.controller.start()
            await until(lambda: pair.own.count == 1500)
            await until(lambda: len(pair.peer.copies) == 1500)
            for gone in range(0, 1500, 2):
                del pair.controller.calls[f"n-{gone}"]
            await pair.controller.stop()
            await until(lambda: not pair.own.has_controller)
            await pair.controller.start()
            await until(lambda: pair.own.count == len(pair.peer.copies) == 750)

    asyncio.run(story())
