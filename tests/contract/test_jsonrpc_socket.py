"""Local sockets: private, replaced when their owner is dead, never at the expense of the umask."""

from __future__ import annotations

import asyncio
import grp
import json
import os
import stat
from pathlib import Path

import pytest

from controlone_ha.errors import RefusedError
from controlone_ha.jsonrpc import Connection, JsonObject, bind_unix, call, serve_unix


async def echo(_connection: Connection, _method: str, params: JsonObject) -> JsonObject:
    return params


def test_servers_that_start_side_by_side_leave_the_umask_as_it_was(short_directory: Path) -> None:
    async def start() -> None:
        made = await asyncio.gather(
            *(serve_unix(short_directory / f"{number}.sock", echo) for number in range(10))
        )
        for server, _connections in made:
            server.close()

    before = os.umask(0o022)
    try:
        asyncio.run(start())
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_members_of_the_group_may_use_a_socket_where_the_system_has_it(
    short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = short_directory / "a.sock"
    entry = grp.struct_group(("controlone", "x", 7551, []))
    monkeypatch.setattr(grp, "getgrnam", lambda name: {"controlone": entry}[name])

    async def story() -> None:
        server, _connections = await serve_unix(path, echo)
        found = path.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o660, 0, 7551)
        server.close()

    asyncio.run(story())


def test_a_socket_is_private_and_answers(short_directory: Path) -> None:
    path = short_directory / "a.sock"

    async def story() -> object:
        server, _connections = await serve_unix(path, echo)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        try:
            return await asyncio.to_thread(call, path, "echo", {"x": 1})
        finally:
            server.close()

    assert asyncio.run(story()) == {"x": 1}


def test_a_dead_owner_is_replaced_and_a_living_one_is_not(short_directory: Path) -> None:
    path = short_directory / "a.sock"
    bind_unix(path).close()
    listener = bind_unix(path)
    listener.listen()
    with pytest.raises(RefusedError, match="serves this socket already"):
        bind_unix(path)
    listener.close()


@pytest.mark.parametrize(
    ("line", "number", "request_id"),
    [
        (b'{"jsonrpc": "2.0", "id": 7, "method": "echo", "params": [1]}', -32602, 7),
        (b'{"jsonrpc": "2.0", "id": "a", "method": 5}', -32600, "a"),
        (b'{"jsonrpc": "2.0", "id": [], "method": "echo"}', -32600, None),
        (b"echo", -32700, None),
    ],
)
def test_who_asks_wrongly_gets_the_answer_under_the_number_of_the_question(
    short_directory: Path, line: bytes, number: int, request_id: object
) -> None:
    path = short_directory / "a.sock"

    async def story() -> JsonObject:
        server, _connections = await serve_unix(path, echo)
        reader, writer = await asyncio.open_unix_connection(str(path))
        try:
            writer.write(line + b"\n")
            async with asyncio.timeout(10):
                answer: JsonObject = json.loads(await reader.readline())
            return answer
        finally:
            writer.close()
            server.close()

    answer = asyncio.run(story())
    assert (answer["error"]["code"], answer["id"]) == (number, request_id)
