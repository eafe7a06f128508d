"""The local API over a real Unix socket: methods, parameters, errors, events, fairness."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from controlone_ha.control.api import METHODS, LocalApi
from controlone_ha.errors import RefusedError
from controlone_ha.jsonrpc import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    REFUSED,
    Connection,
    RpcError,
    connect_unix,
)
from tests.contract.control_daemon import SmallNode, entry, sample_status


@asynccontextmanager
async def serving(run_dir: Path) -> AsyncIterator[tuple[LocalApi, SmallNode]]:
    node = SmallNode()
    api = LocalApi(path=run_dir / "ha.sock", node=node)
    await api.start()
    try:
        yield api, node
    finally:
        await api.stop()


Story = Callable[[LocalApi, SmallNode, Connection], Awaitable[Any]]


def tell(run_dir: Path, story: Story) -> Any:
    async def run() -> Any:
        async with serving(run_dir) as (api, node):
            connection = await connect_unix(api.path)
            try:
                return await asyncio.wait_for(story(api, node, connection), 20)
            finally:
                await connection.close()

    return asyncio.run(run())


def test_G3_the_status_arrives_as_the_daemon_gave_it(tmp_path: Path) -> None:
    async def story(api: LocalApi, node: SmallNode, connection: Connection) -> Any:
        return await connection.call("status")

    assert tell(tmp_path, story) == sample_status()


def test_only_the_owner_may_use_the_socket(tmp_path: Path) -> None:
    async def story(api: LocalApi, node: SmallNode, connection: Connection) -> int:
        return stat.S_IMODE(api.path.stat().st_mode)

    assert tell(tmp_path, story) == 0o600


def test_every_method_of_the_table_is_served(tmp_path: Path) -> None:
    params: dict[str, dict[str, Any]] = {
        "why_not": {"peer": "m1"},
        "plan": {"peer": "m1"},
        "probe": {"peer": "m1"},
        "force": {"state": "passive", "by": "ana"},
        "leave": {"by": "ana"},
        "resume": {"by": "ana"},
        "pause": {"by": "ana"},
        "sync_progress": {"run": 1},
        "diff": {"peer": "m1"},
        "conflict_diff": {"id": "0a1b"},
        "database": {"order": "status"},
        "restore": {"id": "0a1b", "by": "ana"},
    }

    async def story(api: LocalApi, node: SmallNode, connection: Connection) -> dict[str, Any]:
        answers = {}
        for method in METHODS:
            try:
                answers[method] = await connection.call(method, params.get(method))
            except RpcError as error:
                answers[method] = error.number
        return answers

    answers = tell(tmp_path, story)
    assert answers.pop("reload") == REFUSED
    assert not [name for name, answer in answers.items() if isinstance(answer, int)]


@pytest.mark.parametrize(
    ("method", "params", "number", "text"),
    [
        ("no_such", {}, METHOD_NOT_FOUND, "no method 'no_such'"),
        ("history", {"limit": 0}, INVALID_PARAMS, "limit: got 0, expected an integer from 1"),
        ("history", {"limit": True}, INVALID_PARAMS, "limit: got True"),
        ("history", {"since": "now"}, INVALID_PARAMS, "since: got 'now', expected seconds"),
        ("history", {"limits": 3}, INVALID_PARAMS, "unknown parameter 'limits'; takes limit, kind"),
        ("status", {"peer": "m1"}, INVALID_PARAMS, "takes no parameters"),
        ("plan", {}, INVALID_PARAMS, "plan: parameter 'peer' is missing"),
        ("plan", {"peer": ""}, INVALID_PARAMS, "peer: got '', expected a text"),
        ("force", {"state": "standby", "by": "x"}, INVALID_PARAMS, "expected active or passive"),
        ("events", {"kinds": "state"}, INVALID_PARAMS, "expected a list of texts"),
        ("plan", {"peer": "nobody"}, REFUSED, "nobody is not a peer of this node; peers: m1"),
        ("reload", {}, REFUSED, "ha.default.role: got 'mestre', expected master"),
    ],
)
def test_a_wrong_request_is_answered_with_its_code_and_what_was_expected(
    tmp_path: Path, method: str, params: dict[str, Any], number: int, text: str
) -> None:
    async def story(api: LocalApi, node: SmallNode, connection: Connection) -> RpcError:
        with pytest.raises(RpcError) as caught:
            await connection.call(method, params)
        return caught.value

    error = tell(tmp_path, story)
    assert error.number == number
    assert text in str(error)


def test_hyphens_and_defaults_are_understood(tmp_path: Path) -> None:
    async def story(api: LocalApi, node: SmallNode, connection: Connection) -> Any:
        answer = await connection.call("why-not", {"peer": "m1"})
        entries = await connection.call("history", {"kind": None})
        return answer["would"], len(entries), node.calls

    would, count, calls = tell(tmp_path, story)
    assert would is False
    assert count == 20
    assert calls == [("history", {"limit": 20, "kind": None, "peer": None, "since": None})]


def test_a_slow_request_delays_neither_its_own_connection_nor_another(tmp_path: Path) -> None:
    async def story(api: LocalApi, node: SmallNode, connection: Connection) -> Any:
        slow = asyncio.ensure_future(connection.call("probe", {"peer": "m2"}, timeout=15))
        await asyncio.sleep(0)
        other = await connect_unix(api.path)
        try:
            names = [(await line.call("status", timeout=5))["node"] for line in (connection, other)]
        finally:
            await other.close()
        assert not slow.done()
        node.release.set()
        return names, (await slow)["peer"]

    assert tell(tmp_path, story) == (["s1", "s1"], "m2")


def test_subscribers_get_every_transition_of_the_kinds_they_asked_for(tmp_path: Path) -> None:
    async def story(api: LocalApi, node: SmallNode, connection: Connection) -> Any:
        received: dict[str, list[str]] = {"all": [], "peer": []}

        async def subscribe(name: str, params: dict[str, Any]) -> Connection:
            async def collect(_: Connection, method: str, item: dict[str, Any]) -> None:
                assert method == "event"
                received[name].append(item["kind"])

            subscriber = await connect_unix(api.path, collect)
            assert await subscriber.call("events", params) == {"subscribed": True}
            return subscriber

        lines = [await subscribe("all", {}), await subscribe("peer", {"kinds": ["peer"]})]
        assert api.subscribers == 2
        for kind in ("state", "peer", "link"):
            api.publish(entry(1.0, kind=kind))
        for line in lines:
            await line.call("status")  # answers come in order: what was published is there now
            await line.close()
        return received

    received = tell(tmp_path, story)
    assert received == {"all": ["state", "peer", "link"], "peer": ["peer"]}


def test_a_subscriber_that_never_reads_loses_only_its_own_connection(tmp_path: Path) -> None:
    async def story(api: LocalApi, node: SmallNode, connection: Connection) -> Any:
        reader, writer = await asyncio.open_unix_connection(str(api.path))
        writer.write(b'{"jsonrpc":"2.0","id":1,"method":"events"}\n')
        await reader.readline()
        assert api.subscribers == 1
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        big = entry(1.0, note="x" * 100_000)
        for _ in range(200):
            api.publish(big)
            await asyncio.sleep(0)
        answer = await connection.call("status")
        writer.close()
        return answer["node"], api.subscribers

    assert tell(tmp_path, story) == ("s1", 0)


def test_garbage_is_answered_with_a_parse_error_and_the_connection_lives_on(
    tmp_path: Path,
) -> None:
    async def story(api: LocalApi, node: SmallNode, connection: Connection) -> Any:
        reader, writer = await asyncio.open_unix_connection(str(api.path))
        writer.write(b'{nonsense\n[1]\n{"jsonrpc":"2.0","id":7,"method":"links"}\n')
        answers = [json.loads(await reader.readline()) for _ in range(3)]
        writer.close()
        return [answer.get("error", {}).get("code") for answer in answers], answers[2]["id"]

    assert tell(tmp_path, story) == ([-32700, -32600, None], 7)


def test_a_second_daemon_is_refused_and_a_dead_ones_socket_is_replaced(tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(tmp_path) as (api, node):
            with pytest.raises(RefusedError, match="another process serves this socket"):
                await LocalApi(path=api.path, node=node).start()
            assert await _node_name(api.path) == "s1"
        assert not api.path.exists()
        api.path.write_bytes(b"")  # what a killed process leaves: a name nobody serves
        async with serving(tmp_path):
            assert await _node_name(api.path) == "s1"

    asyncio.run(story())


async def _node_name(path: Path) -> str:
    connection = await connect_unix(path)
    try:
        return str((await connection.call("status"))["node"])
    finally:
        await connection.close()
