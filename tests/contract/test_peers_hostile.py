"""Hostile and broken peers: what they get, and that nobody else notices."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from controlone_ha.peers import door, frames, ssh
from controlone_ha.peers.facts import Refusal
from controlone_ha.peers.frames import Kind
from controlone_ha.peers.link import Link
from tests.contract.peers_support import SERVERS, Node, all_up, has_link, nodes, slack
from tests.waiting import until

pytestmark = pytest.mark.contract


@pytest.fixture(params=SERVERS)
def trio(request: pytest.FixtureRequest) -> Iterator[list[Node]]:
    """Three paired nodes: alfa is attacked in the name of beta, gama must not notice."""
    with nodes("alfa", "beta", "gama", kind=request.param) as made:
        yield made


@pytest.fixture
def plain() -> Iterator[list[Node]]:
    """The same where the SSH server makes no difference."""
    with nodes("alfa", "beta", "gama", kind="openssh") as made:
        yield made


@asynccontextmanager
async def linked(*made: Node, timeout: float = 3.0) -> AsyncIterator[None]:
    """Run ``made`` with links between the first and each of the others."""
    first, *others = made
    first.watch(*others, timeout=timeout)
    await first.links.start()
    for other in others:
        other.watch(timeout=timeout)  # one dialer: no link is replaced under a test's hands
        await other.links.start()
    try:
        for other in others:
            await all_up([first, other])
        yield
    finally:
        for node in made:
            await node.links.stop()


def link_of(node: Node, other: Node) -> Link:
    link = node.links.link(other.name)
    assert link is not None
    return link


async def knock(node: Node, data: bytes) -> bytes:
    """Say ``data`` on the socket of the peer bridge; return all that comes back."""
    reader, writer = await asyncio.open_unix_connection(str(node.paths.peer_socket))
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


def resident_kilobytes() -> int:
    gc.collect()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


class TestBeforeAuthentication:
    def test_X2_garbage_through_the_ssh_server_is_refused(self, trio: list[Node]) -> None:
        alfa, beta, gama = trio

        def ssh_as_beta(data: bytes) -> subprocess.CompletedProcess[bytes]:
            """Use beta's real key with the distribution's own client."""
            command = ["ssh", "-T", "-p", str(alfa.server.port), "-i", str(beta.paths.key_file)]
            command += ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]
            command += ["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
            command += ["root@127.0.0.1", "cat /etc/shadow"]
            return subprocess.run(command, input=data, capture_output=True, timeout=20)

        async def story() -> None:
            async with linked(alfa, gama):
                for data in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(100_000), b"\xff" * 4096):
                    ran = await asyncio.to_thread(ssh_as_beta, data)
                    (answer,) = _frames(ran.stdout)
                    assert answer.kind is Kind.REFUSED
                    assert answer.fields()["code"] == "protocol"
                    assert ran.stderr == b""
                assert alfa.status(beta).code == "protocol"
                assert alfa.status(beta).state == "refused"
                assert await link_of(alfa, gama).request("echo", {}, timeout=20)
                assert alfa.handler.downs == []

        asyncio.run(story())

    def test_X1_the_key_of_a_peer_gets_no_shell_and_no_forwarding(self, trio: list[Node]) -> None:
        alfa, beta, _ = trio

        async def story() -> None:
            async with linked(alfa):
                command = ["ssh", "-p", str(alfa.server.port), "-i", str(beta.paths.key_file)]
                command += ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]
                command += ["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
                for words in (
                    ["-W", f"127.0.0.1:{alfa.server.port}", "root@127.0.0.1"],
                    ["-tt", "root@127.0.0.1", "echo shell-$((40+2))"],
                    ["-s", "root@127.0.0.1", "sftp"],
                ):
                    ran = await asyncio.to_thread(
                        subprocess.run,
                        [*command, *words],
                        stdin=subprocess.DEVNULL,
                        capture_output=True,
                        timeout=20,
                    )
                    assert b"shell-42" not in ran.stdout
                    assert b"SSH-2.0" not in ran.stdout, "no forwarding"

        asyncio.run(story())

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (b'{"peer":"nobody"}\n', "unknown_node"),
            (b'{"peer":"beta"}\n' + frames.HEADER.pack(1 << 31, Kind.HELLO), "protocol"),
            (b'{"peer":"beta"}\n' + frames.encode(Kind.REQUEST, b"{}"), "protocol"),
            (b'{"peer":"beta"}\n' + frames.encode(Kind.PROOF, bytes(32)), "protocol"),
            (b'{"peer":"beta"}\n' + frames.encode(Kind.HELLO, b"{}"), "protocol"),
        ],
    )
    def test_X2_what_is_no_handshake_is_refused_with_a_code(
        self, plain: list[Node], data: bytes, code: str
    ) -> None:
        alfa = plain[0]

        async def story() -> None:
            async with linked(alfa):
                (answer,) = _frames(await knock(alfa, data))
                assert answer.kind is Kind.REFUSED
                assert answer.fields()["code"] == code

        asyncio.run(story())

    def test_what_is_no_bridge_is_closed(self, plain: list[Node]) -> None:
        alfa = plain[0]

        async def story() -> None:
            async with linked(alfa):
                for data in (b"\n", b"hello\n", b"x" * 100_000):
                    try:
                        assert await knock(alfa, data) == b""
                    except ConnectionError:
                        continue

        asyncio.run(story())

    def test_X2_a_flood_of_unauthenticated_connections_costs_nobody_else(
        self, plain: list[Node], caplog: pytest.LogCaptureFixture
    ) -> None:
        alfa, _, gama = plain
        caplog.set_level(logging.INFO)

        async def flood(count: int) -> list[asyncio.StreamWriter]:
            writers = []
            for _ in range(count):
                _, writer = await asyncio.open_unix_connection(str(alfa.paths.peer_socket))
                writer.write(b'{"peer":"beta"}\n' + frames.HEADER.pack(2000, Kind.HELLO))
                writers.append(writer)
            return writers

        async def story() -> None:
            async with linked(alfa, gama):
                link = link_of(alfa, gama)
                for writer in await flood(200):
                    writer.close()
                await asyncio.sleep(0.2)
                before = resident_kilobytes()
                lines = len(caplog.records)
                for _ in range(5):
                    writers = await flood(200)
                    began = time.monotonic()
                    await link.request("echo", {}, timeout=20)
                    assert time.monotonic() - began < 0.5 * slack()
                    pending = alfa.links._door.pending
                    assert pending.get("beta", 0) <= door.MAX_PENDING_PER_PEER
                    for writer in writers:
                        writer.close()
                await asyncio.sleep(0.3)
                assert resident_kilobytes() - before < 4096
                assert len(caplog.records) - lines <= 2
                assert alfa.links._door.pending == {}
                assert alfa.handler.downs == gama.handler.downs == []

        asyncio.run(story())

    def test_X2_a_thousand_connections_at_once_are_survived(self, plain: list[Node]) -> None:
        alfa, _, gama = plain

        async def story() -> None:
            async with linked(alfa, gama):
                open_ones: list[socket.socket] = []
                try:
                    for _ in range(1000):
                        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                        stream.setblocking(False)
                        open_ones.append(stream)
                        try:
                            stream.connect(str(alfa.paths.peer_socket))
                        except BlockingIOError:
                            await asyncio.sleep(0.001)  # the backlog is full
                    assert await link_of(alfa, gama).request("echo", {}, timeout=20)
                    assert sum(alfa.links._door.pending.values()) <= door.MAX_PENDING + 4
                finally:
                    for stream in open_ones:
                        stream.close()
                await until(lambda: not alfa.links._door.pending)
                assert alfa.handler.downs == []

        asyncio.run(story())

    def test_X2_many_ssh_sessions_of_one_key_are_held_to_a_few_attempts(
        self, trio: list[Node]
    ) -> None:
        alfa, beta, gama = trio

        async def story() -> None:
            async with linked(alfa, gama):
                target = ssh.Target(
                    peer="alfa",
                    host="127.0.0.1",
                    port=alfa.server.port,
                    user="root",
                    host_keys=alfa.server.host_keys,
                    key_file=beta.paths.key_file,
                )
                few = asyncio.Semaphore(3)  # dropbear takes five at a time of one address

                async def dial() -> ssh.SshConnection:
                    async with few:
                        return await ssh.dial(target, timeout=20)

                sessions = await asyncio.gather(*(dial() for _ in range(12)))
                await until(lambda: alfa.links._door.pending.get("beta", 0) == 4)
                busy = 0
                for session in sessions:
                    try:
                        data = await asyncio.wait_for(session.reader.read(2000), 1.0)
                        busy += b"busy" in data
                    except TimeoutError:
                        continue
                assert busy == 8
                assert await link_of(alfa, gama).request("echo", {}, timeout=20)
                for session in sessions:
                    session.abort()
                    session.writer.close()
                await until(lambda: all(session.finished for session in sessions))
                await until(lambda: not alfa.links._door.pending)

        asyncio.run(story())

    def test_a_silent_or_dripping_attempt_ends_in_time(
        self, plain: list[Node], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        alfa = plain[0]
        monkeypatch.setattr(door, "PREAMBLE_TIMEOUT", 0.3)
        monkeypatch.setattr(door, "HANDSHAKE_TIMEOUT", 0.5)

        async def drip(writer: asyncio.StreamWriter) -> None:
            for byte in frames.HEADER.pack(2000, Kind.HELLO) + bytes(2000):
                writer.write(bytes([byte]))
                await asyncio.sleep(0.02)

        async def story() -> None:
            async with linked(alfa):
                for first, drips, limit in (
                    (b"", False, 0.3),
                    (b'{"peer":"beta"}\n', False, 0.5),
                    (b'{"peer":"beta"}\n', True, 0.5),
                ):
                    reader, writer = await asyncio.open_unix_connection(str(alfa.paths.peer_socket))
                    writer.write(first)
                    task = asyncio.create_task(drip(writer)) if drips else None
                    began = time.monotonic()
                    with suppress(ConnectionError):
                        await asyncio.wait_for(reader.read(), 5)
                    assert limit - 0.05 <= time.monotonic() - began < limit + 0.5 * slack()
                    if task is not None:
                        task.cancel()
                    writer.close()

        asyncio.run(story())

    def test_X2_wrong_secrets_get_slower_and_slower(self, plain: list[Node]) -> None:
        alfa, beta, gama = plain
        beta.secret = "guess"

        async def story() -> None:
            beta.make()
            async with linked(alfa, gama):
                beta.watch(alfa)
                await beta.links.start()
                try:
                    await until(lambda: alfa.links._door._slow._failures.get("beta", 0) >= 2)
                    for _ in range(10):
                        beta.links.redial()
                        await asyncio.sleep(0.15)
                    tries = alfa.links._door._slow._failures["beta"]
                    assert tries <= 5, "not one per dial"
                    assert await link_of(alfa, gama).request("echo", {}, timeout=20)
                finally:
                    await beta.links.stop()

        asyncio.run(story())


class TestOnAnEstablishedLink:
    @pytest.mark.parametrize(
        "data",
        [
            b"\xff" * 64,
            frames.HEADER.pack(1 << 30, Kind.NOTIFY),
            frames.encode(Kind.NOTIFY, b"no json"),
            frames.encode(Kind.NOTIFY, b"[]"),
            frames.encode(Kind.NOTIFY, b'{"method": 3}'),
            frames.encode(Kind.REQUEST, b"\0"),
            frames.encode(Kind.HEARTBEAT, b"short"),
            frames.encode(Kind.CREDIT, b"odd"),
            frames.encode(Kind.HELLO, b"{}"),
            frames.encode_json(Kind.REQUEST, {"method": "echo", "params": [1]}, 1),
        ],
    )
    def test_a_broken_frame_ends_this_link_only_and_both_sides_say_why(
        self, plain: list[Node], data: bytes
    ) -> None:
        alfa, beta, gama = plain

        async def story() -> None:
            async with linked(alfa, beta, gama):
                other = link_of(alfa, gama)
                link_of(beta, alfa)._writer.write(data)
                await until(lambda: alfa.handler.downs and beta.handler.downs)
                for node in (alfa, beta):
                    peer, cause = node.handler.downs[0][1:]
                    assert peer != "gama"
                    assert cause.code == "refused"
                assert "broke the protocol" in alfa.handler.downs[0][2].sentence
                assert link_of(alfa, gama) is other
                assert await other.request("echo", {}, timeout=20)
                await all_up([alfa, beta])

        asyncio.run(story())

    def test_late_and_unknown_numbers_are_ignored(self, plain: list[Node]) -> None:
        alfa, beta, _ = plain

        async def story() -> None:
            async with linked(alfa, beta):
                here, there = link_of(alfa, beta), link_of(beta, alfa)
                for kind in (Kind.RESPONSE, Kind.ERROR):
                    there._writer.write(frames.encode_json(kind, {"result": 1}, 77))
                for kind in (Kind.DATA, Kind.CANCEL):
                    there._writer.write(frames.encode(kind, frames.NUMBER.pack(77)))
                there._writer.write(frames.encode(Kind.CREDIT, frames.CREDIT.pack(77, 5)))
                assert await here.request("echo", {}, timeout=20)
                assert link_of(alfa, beta) is here

        asyncio.run(story())

    def test_more_of_a_body_than_granted_ends_the_link(self, plain: list[Node]) -> None:
        alfa, beta, _ = plain

        async def story() -> None:
            async with linked(alfa, beta):
                beta.handler.answer = lambda *_: asyncio.sleep(60)
                body = asyncio.create_task(link_of(alfa, beta).fetch("x", {}, timeout=20))
                there = link_of(beta, alfa)
                await until(lambda: there._last_received > there.since)
                chunk = frames.encode(Kind.DATA, frames.NUMBER.pack(1) + bytes(65536))
                for _ in range(8):
                    there._writer.write(chunk)
                await until(lambda: alfa.handler.downs)
                assert alfa.handler.downs[0][2].code == "refused"
                assert "more of a body than it was granted" in alfa.handler.downs[0][2].sentence
                await asyncio.gather(body, return_exceptions=True)

        asyncio.run(story())

    def test_a_flood_of_requests_is_answered_busy(self, plain: list[Node]) -> None:
        alfa, beta, _ = plain

        async def story() -> None:
            async with linked(alfa, beta):
                release = asyncio.Event()
                beta.handler.answer = lambda *_: release.wait()
                link = link_of(alfa, beta)
                asked = [
                    asyncio.create_task(link.request("wait", {}, timeout=10)) for _ in range(200)
                ]
                await until(lambda: sum(task.done() for task in asked) >= 136)
                release.set()
                answers = await asyncio.gather(*asked, return_exceptions=True)
                busy = [a for a in answers if getattr(a, "code", "") == "busy"]
                assert len(busy) == 136
                assert answers.count(True) == 64

        asyncio.run(story())


class TestStrangeServers:
    """What a node gets when something else answers on the peer's SSH port."""

    @pytest.mark.parametrize(
        ("greeting", "then_close"),
        [
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", True),
            (b"SSH-2.0-odd\r\n" + bytes(1000), False),
            (b"SSH-2.0-odd\r\n", True),
            (b"", True),
        ],
    )
    def test_it_is_unreachable_and_nothing_is_left(self, greeting: bytes, then_close: bool) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(greeting)
            if not then_close:
                await asyncio.sleep(30)
            writer.close()

        self.expect(serve, 5.0)

    def test_a_server_that_says_nothing_is_given_up_in_time(self) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(30)

        sentence = self.expect(serve, 0.5)
        assert "did not answer within 0.5 s" in sentence

    def expect(self, serve: Any, timeout: float) -> str:
        async def story() -> str:
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            target = ssh.Target(
                peer="beta",
                host="127.0.0.1",
                port=server.sockets[0].getsockname()[1],
                user="root",
                host_keys=(),
                key_file=Path("/nonexistent"),
            )
            try:
                with pytest.raises(Refusal) as caught:
                    await ssh.dial(target, timeout=timeout)
                assert caught.value.code in ("unreachable", "ssh")
                await until(no_session_threads)
                return str(caught.value)
            finally:
                server.close()

        logging.getLogger("paramiko").setLevel(logging.CRITICAL)
        return asyncio.run(story())

    def test_a_cancelled_dial_leaves_nothing(self, plain: list[Node]) -> None:
        alfa, beta, _ = plain

        async def story() -> None:
            await alfa.links.start()
            target = ssh.Target(
                peer="alfa",
                host="127.0.0.1",
                port=alfa.server.port,
                user="root",
                host_keys=alfa.server.host_keys,
                key_file=beta.paths.key_file,
            )
            files = len(os.listdir("/proc/self/fd"))
            for delay in (0.0, 0.001, 0.01, 0.03, 0.06, 0.1, 0.2):
                task = asyncio.create_task(ssh.dial(target, timeout=10))
                await asyncio.sleep(delay)
                task.cancel()
                outcome = (await asyncio.gather(task, return_exceptions=True))[0]
                if isinstance(outcome, ssh.SshConnection):
                    outcome.writer.close()
                    outcome.abort()
            await until(no_session_threads)
            gc.collect()
            # The far end's own socket to the bridge goes once the bridge has ended.
            await until(lambda: len(os.listdir("/proc/self/fd")) <= files)
            await alfa.links.stop()
            assert not has_link(alfa, beta)

        asyncio.run(story())


def no_session_threads() -> bool:
    return {t.name for t in threading.enumerate() if "asyncio" not in t.name} == {"MainThread"}


def _frames(data: bytes) -> list[frames.Frame]:
    decoder = frames.FrameDecoder()
    decoder.receive(data)
    found = []
    while (frame := decoder.next_frame()) is not None:
        found.append(frame)
    return found
