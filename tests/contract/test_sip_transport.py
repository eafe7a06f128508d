"""The sockets of SIP on loopback: UDP, TCP and TLS, split and joined streams, and rubbish."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from controlone_ha.paths import node_paths
from controlone_ha.peers import keys
from controlone_ha.sip.message import Request, Response, build_request, build_response
from controlone_ha.sip.transport import SipTransport, client_context
from controlone_ha.sip.uri import Hop
from tests.waiting import until

pytestmark = pytest.mark.contract


@dataclass
class End:
    """A user agent without a mind: it notes what comes and answers 200 to requests."""

    messages: list[tuple[Request | Response, Hop]] = field(default_factory=list)
    failures: list[tuple[Hop, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.transport = SipTransport(
            self.came, lambda hop, detail: self.failures.append((hop, detail))
        )

    def came(self, message: Request | Response, source: Hop) -> None:
        self.messages.append((message, source))
        if isinstance(message, Request):
            answer = build_response(message, 200, "OK", to_tag="x")
            self.transport.send(answer.to_bytes(), source)


def options(number: int = 1, size: int = 0) -> bytes:
    return build_request(
        "OPTIONS",
        "sip:127.0.0.1",
        [
            ("Via", f"SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bK{number}"),
            ("From", "<sip:a@127.0.0.1>;tag=a"),
            ("To", "<sip:b@127.0.0.1>"),
            ("Call-ID", "c"),
            ("CSeq", f"{number} OPTIONS"),
        ],
        b"x" * size,
    ).to_bytes()


@contextlib.asynccontextmanager
async def ends(
    free_port: Callable[[], int], certificate: tuple[str, str] | None = None
) -> AsyncIterator[tuple[End, End]]:
    """Run one that calls and one that listens."""
    caller, server = End(), End()
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
    try:
        await caller.transport.start("127.0.0.1", 0, listens=False, client_tls=client_context())
        await server.transport.start(
            "127.0.0.1",
            free_port(),
            server_tls=context,
            tls_port=free_port() if context else 0,
        )
        yield caller, server
    finally:
        caller.transport.close()
        server.transport.close()


@pytest.fixture
def certificate(short_directory: Path) -> tuple[str, str]:
    environment = {
        "UCI_CONFIG_DIR": str(short_directory / "config"),
        "CONTROLONE_STATE_DIR": str(short_directory / "state"),
        "CONTROLONE_RUN_DIR": str(short_directory / "run"),
    }
    paths = node_paths(environment)
    keys.ensure_identity(paths, "m1")
    return str(paths.certificate_file), str(paths.key_file)


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_a_request_and_its_answer_cross_by_one_connection(
    transport: str, free_port: Callable[[], int], certificate: tuple[str, str]
) -> None:
    async def story() -> None:
        async with ends(free_port, certificate) as (caller, server):
            hop = Hop(transport, "127.0.0.1", server.transport.ports[transport])
            for number in range(5):
                caller.transport.send(options(number + 1), hop)
            await until(lambda: len(caller.messages) == 5, 5)
            assert {source for _, source in caller.messages} == {hop}
            assert [message.cseq[0] for message, _ in caller.messages] == [1, 2, 3, 4, 5]
            assert len({source for _, source in server.messages}) == 1
            assert caller.failures == []

    asyncio.run(story())


def test_a_name_is_looked_up_and_one_that_does_not_exist_is_a_failure(
    free_port: Callable[[], int],
) -> None:
    async def story() -> None:
        async with ends(free_port) as (caller, server):
            caller.transport.send(options(), Hop("tcp", "localhost", server.transport.ports["tcp"]))
            await until(lambda: len(caller.messages) == 1, 5)
            nowhere = Hop("udp", "nowhere.invalid", 5060)
            caller.transport.send(options(), nowhere)
            await until(lambda: [hop for hop, _ in caller.failures] == [nowhere], 10)

    asyncio.run(story())


def test_a_closed_port_is_a_failure_and_the_next_try_connects_anew(
    free_port: Callable[[], int],
) -> None:
    async def story() -> None:
        async with ends(free_port) as (caller, server):
            hop = Hop("tcp", "127.0.0.1", free_port())
            caller.transport.send(options(), hop)
            await until(lambda: len(caller.failures) == 1, 5)
            late = End()
            await late.transport.start("127.0.0.1", hop.port)
            try:
                caller.transport.send(options(), hop)
                await until(lambda: len(caller.messages) == 1, 5)
            finally:
                late.transport.close()
            assert server.messages == []

    asyncio.run(story())


def test_a_stream_is_read_by_content_length_however_it_is_cut(
    free_port: Callable[[], int],
) -> None:
    async def story() -> None:
        async with ends(free_port) as (_, server):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", server.transport.ports["tcp"]
            )
            stream = b"\r\n\r\n" + options(1, 700) + options(2) + b"\r\n\r\n" + options(3, 1)
            for start in range(0, len(stream), 97):
                writer.write(stream[start : start + 97])
                await writer.drain()
                await asyncio.sleep(0.001)
            await until(lambda: len(server.messages) == 3, 5)
            assert [len(message.body) for message, _ in server.messages] == [700, 0, 1]
            assert (await reader.readexactly(2)) == b"\r\n"  # the keep-alive is answered
            writer.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\x00" * 70_000,
        b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 999999\r\n\r\n",
        b"OPTIONS sip:a SIP/2.0\r\n\r\n",
        b"hello\r\n\r\n",
        b"\r\n\r\n" * 5000,
    ],
)
def test_rubbish_ends_a_connection_at_most_and_hurts_no_other(
    rubbish: bytes, free_port: Callable[[], int]
) -> None:
    async def story() -> None:
        async with ends(free_port) as (caller, server):
            _, writer = await asyncio.open_connection("127.0.0.1", server.transport.ports["tcp"])
            writer.write(rubbish)
            caller.transport.send(
                rubbish[:1000], Hop("udp", "127.0.0.1", server.transport.ports["udp"])
            )
            with contextlib.suppress(OSError):
                await writer.drain()
            for transport in ("udp", "tcp"):
                hop = Hop(transport, "127.0.0.1", server.transport.ports[transport])
                caller.transport.send(options(), hop)
            await until(lambda: len(caller.messages) == 2, 5)
            assert all(message.cseq == (1, "OPTIONS") for message, _ in server.messages)
            writer.close()

    asyncio.run(story())


def _has(end: End, count: int) -> bool:
    return len(end.messages) == count


def test_strangers_who_hold_connections_keep_nobody_out(free_port: Callable[[], int]) -> None:
    async def story() -> None:
        async with ends(free_port) as (caller, server):
            server.transport.most_connections = 3
            port = server.transport.ports["tcp"]
            caller.transport.send(options(), Hop("tcp", "127.0.0.1", port))
            await until(lambda: len(caller.messages) == 1, 5)
            strangers = []
            for number in range(6):
                strangers.append(await asyncio.open_connection("127.0.0.1", port))
                await asyncio.sleep(0.02)
                caller.transport.send(options(number + 2), Hop("tcp", "127.0.0.1", port))
                await until(functools.partial(_has, caller, number + 2), 5)
            assert len({source for _, source in server.messages}) == 1
            assert await strangers[0][0].read() == b""  # the first one is closed
            for _, writer in strangers:
                writer.close()

    asyncio.run(story())


def test_a_taken_port_is_an_error_that_leaves_nothing_open(free_port: Callable[[], int]) -> None:
    async def story() -> None:
        async with ends(free_port) as (_, server):
            port = server.transport.ports["tcp"]
            other = End()
            with pytest.raises(OSError, match="in use"):
                await other.transport.start("127.0.0.1", port)
            assert other.transport.ports == {} or "tcp" not in other.transport.ports

    asyncio.run(story())
