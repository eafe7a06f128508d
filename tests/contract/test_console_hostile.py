"""Hostile partners: what a Console Server and a console do with nonsense, floods and lies.

The documented answer (docs/console-protocol.md) or a closed connection; never a crash, never memory
that grows, and the others notice nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from controlone_ha.console.connection import client_context
from controlone_ha.console.rules import Rules
from controlone_ha.console.session import Session
from controlone_ha.console.settings import ConsoleConfig
from controlone_ha.console.trust import Credentials
from tests.console_servers import ServerProcess
from tests.ports import free_port

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    directory = Path(f"/tmp/c1h-{os.getpid()}")
    directory.mkdir(mode=0o700)
    made = ServerProcess(directory, "a", "127.0.0.1", free_port())
    made.configure(authentication="required")
    made.start()
    yield made
    made.end()
    shutil.rmtree(directory)


def connect(server: ServerProcess) -> ssl.SSLSocket:
    stream = socket.create_connection((server.address, server.port), 10.0)
    return client_context().wrap_socket(stream)


def ask(stream: ssl.SSLSocket, line: bytes) -> dict[str, object] | None:
    """Send bytes and return the next line as an object; None when the connection has ended."""
    received = b""
    try:
        stream.sendall(line)
        while b"\n" not in received:
            data = stream.recv(65536)
            if not data:
                return None
            received += data
    except OSError:
        return None
    answer = json.loads(received.partition(b"\n")[0])
    assert isinstance(answer, dict)
    return answer


def request(method: str, **params: object) -> bytes:
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return json.dumps(message).encode() + b"\n"


def resident(server: ServerProcess) -> int:
    assert server.process is not None
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1])


def mutated(chance: random.Random) -> bytes:
    """Return a message that was right once."""
    line = bytearray(
        request(
            chance.choice(("ping", "login", "enrol", "monitor", "servers", "dial")),
            console="desk-1",
            queues=["100"],
            token="a" * 64,
            lost={"server": "b", "calls": ["x"]},
            verifier="0" * 64,
        )
    )
    for _ in range(chance.randrange(1, 8)):
        index = chance.randrange(len(line))
        kind = chance.randrange(4)
        if kind == 0:
            line[index] = chance.randrange(256)
        elif kind == 1:
            del line[index : index + chance.randrange(1, 20)]
        elif kind == 2:
            line[index:index] = chance.choice(
                (b"[" * 500, b'"', b"\\ud800", b"\x00", b"1e999", b"{")
            )
        else:
            line[index:index] = bytes(line[: chance.randrange(len(line))])
        if not line:
            line = bytearray(b"\n")
    return bytes(line) + b"\n"


@pytest.mark.slow
def test_two_thousand_spoiled_messages_get_documented_answers_and_no_memory(
    server: ServerProcess,
) -> None:
    chance = random.Random(11)
    codes = set()
    stream = connect(server)

    def spoil(count: int) -> None:
        nonlocal stream
        for _ in range(count):
            answer = ask(stream, mutated(chance))
            if answer is None:
                stream.close()
                stream = connect(server)
                continue
            error = answer.get("error")
            if isinstance(error, dict):
                codes.add(error["code"])

    spoil(500)
    before = resident(server)
    spoil(1500)
    stream.close()
    assert codes <= {
        -32700, -32600, -32601, -32602, -32001, -32002, -32003, -32004, -32005, -32006, -32007
    }  # fmt: skip
    assert {-32700, -32602} <= codes
    assert resident(server) - before < 1024, "KiB"
    assert server.order("status")["serving"] is True


def test_a_wrong_token_and_an_unknown_name_are_told_apart_and_guessing_ends(
    server: ServerProcess,
) -> None:
    with connect(server) as stream:
        answers = [ask(stream, request("login", console="desk-7", token="b" * 64))]
        for _ in range(12):
            answers.append(ask(stream, request("login", console="desk-7", token="b" * 64)))
        first = answers[0]
        assert first is not None
        error = first["error"]
        assert isinstance(error, dict)
        assert (error["code"], error["data"]) == (-32006, {"code": "unknown_console"})
        assert answers[-1] is None, "ten refusals end the connection"


def test_an_endless_line_and_half_a_handshake_cost_their_own_connection_only(
    server: ServerProcess,
) -> None:
    before = resident(server)
    with connect(server) as stream:
        answer = ask(stream, b"x" * (70 * 1024))
        assert answer is not None
        error = answer["error"]
        assert isinstance(error, dict) and error["code"] == -32004
        assert ask(stream, request("ping")) is None
    halves = []
    for _ in range(100):
        half = socket.create_connection((server.address, server.port), 10.0)
        half.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(32))
        halves.append(half)
    wrong = socket.create_connection((server.address, server.port), 10.0)
    wrong.sendall(b"GET / HTTP/1.1\r\n\r\n")
    wrong.settimeout(5.0)
    with suppress(ConnectionError):
        assert not wrong.recv(4096).startswith(b"{")
    began = time.monotonic()
    with connect(server) as stream:
        assert ask(stream, request("ping")) is not None
    assert time.monotonic() - began < 5.0
    for half in [*halves, wrong]:
        # A reset instead of an end.
        half.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        half.close()
    assert resident(server) - before < 6 * 1024, "KiB"
    assert server.order("status")["serving"] is True


# -- a server that lies ----------------------------------------------------------------------------


@asynccontextmanager
async def liar(
    server: ServerProcess, port: int, talk: Callable[[asyncio.StreamWriter], None]
) -> AsyncIterator[None]:
    """Serve at 127.0.0.9 with the certificate of ``server``, and say what ``talk`` writes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.paths.certificate_file, server.paths.key_file)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ssl.SSLError):
            await reader.readline()
            talk(writer)
            await reader.read()
        writer.transport.abort()

    listener = await asyncio.start_server(serve, "127.0.0.9", port, ssl=context)
    try:
        yield
    finally:
        listener.close()


TALKS: dict[str, Callable[[asyncio.StreamWriter], None]] = {
    "garbage": lambda writer: writer.write(b"\x00\xff{[[[\n" * 10),
    "an endless line": lambda writer: writer.write(b"a" * (3 << 20)),
    "a login answered by a list": lambda writer: writer.write(
        b'{"jsonrpc":"2.0","id":1,"result":[1,2]}\n'
    ),
    "an error without sense": lambda writer: writer.write(
        b'{"jsonrpc":"2.0","id":1,"error":{"code":"x","message":7,"data":[]}}\n'
    ),
    "goodbyes without a login": lambda writer: writer.write(
        b'{"jsonrpc":"2.0","method":"goodbye","params":{"reason":3,"servers":"x"}}\n' * 20
    ),
    "answers to nothing": lambda writer: writer.write(
        b'{"jsonrpc":"2.0","id":99,"result":{}}\n{"jsonrpc":"2.0","id":"q","result":{}}\n' * 20
        + b'{"jsonrpc":"2.0","id":1,"error":{"code":-32001,"message":"no"}}\n'
    ),
}


@pytest.mark.parametrize("kind", TALKS)
def test_K4_a_server_that_talks_nonsense_is_left_for_the_next(
    kind: str, server: ServerProcess
) -> None:
    server.end()
    server.configure(authentication="optional")
    server.start()

    async def work() -> None:
        rules = Rules(servers=("127.0.0.9", "127.0.0.1"), timeout=1.0, standby_wait=0.2)
        config = ConsoleConfig(name="desk-4", rules=rules, port=server.port)
        session = Session(config, Credentials(pins=(server.pin,)), chance=random.Random(1))
        async with liar(server, server.port, TALKS[kind]):
            session.start()
            end = time.monotonic() + 15.0
            while session.active_name != "a" or session.core.active is None:
                assert time.monotonic() < end, session.status()
                await asyncio.sleep(0.02)
            assert session.core.active.server == "127.0.0.1"
            assert session.status()["servers"][0]["health"] != "serving"
            await session.stop()

    asyncio.run(work())
