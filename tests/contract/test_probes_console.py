"""Console requests against real TLS servers, sound and broken, and the kernel's refusals."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from controlone_ha.core.observations import Outcome, ProbeResult, Service
from controlone_ha.paths import node_paths
from controlone_ha.peers.keys import ensure_identity
from controlone_ha.probes.console import probe_console
from tests.waiting import freeze

pytestmark = pytest.mark.contract

Stream = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

PING = {
    "node": "alpha",
    "role": "master",
    "state": "active",
    "serving": True,
    "reason": {"code": "ok", "text": "serves"},
    "protocol": 1,
}


@dataclass(frozen=True)
class Certificate:
    path: Path
    sha256: str

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path)
        return context


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "alpha")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(1970, 1, 1))
        .not_valid_after(datetime.datetime(9999, 12, 31))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("console") / "node.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    der = made.public_bytes(serialization.Encoding.DER)
    return Certificate(path, hashlib.sha256(der).hexdigest())


@asynccontextmanager
async def serving(serve: Stream, context: ssl.SSLContext | None) -> AsyncIterator[int]:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ssl.SSLError):
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    # Not `async with server`: from Python 3.12 on that waits for the silent connections too.
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def answering(result: object) -> Stream:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = json.loads(await reader.readline())
        assert request["method"] == "ping"
        answer = {"jsonrpc": "2.0", "id": request["id"], "result": result}
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
        await reader.read()

    return serve


def saying(data: bytes) -> Stream:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(data)
        await writer.drain()

    return serve


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def resetting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # SO_LINGER of 0 s: closing sends RST.
    stream = writer.get_extra_info("socket")
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def probe(serve: Stream, certificate: Certificate | None, **options: object) -> ProbeResult:
    async def story() -> ProbeResult:
        context = certificate.context() if certificate is not None else None
        async with serving(serve, context) as port:
            return await probe_console("127.0.0.1", port, **{"timeout": 5.0, **options})  # type: ignore[arg-type]

    return asyncio.run(story())


class TestServing:
    def test_F1_the_ping_of_a_console_server_is_the_answer(self, certificate: Certificate) -> None:
        result = probe(answering(PING), certificate, pinned_sha256=certificate.sha256)
        assert result.outcome is Outcome.ANSWERED
        assert result.service is Service.CONSOLE
        assert result.answer == PING
        assert result.detail == "serving"
        assert result.rtt_ms is not None and 0 < result.rtt_ms < 5000

    def test_F2_a_disabled_console_server_answers_and_says_why(
        self, certificate: Certificate
    ) -> None:
        told = {**PING, "serving": False, "reason": {"code": "cpu", "text": "CPU at 99 %"}}
        result = probe(answering(told), certificate)
        assert result.outcome is Outcome.ANSWERED
        assert result.detail == "answers, but does not serve consoles: CPU at 99 %"

    @pytest.mark.parametrize(
        "style", [str.upper, lambda pin: ":".join(pin[i : i + 2] for i in range(0, 64, 2))]
    )
    def test_pins_are_accepted_as_people_write_them(
        self, certificate: Certificate, style: Callable[[str], str]
    ) -> None:
        result = probe(answering(PING), certificate, pinned_sha256=style(certificate.sha256))
        assert result.outcome is Outcome.ANSWERED

    def test_a_name_is_resolved(self, certificate: Certificate) -> None:
        async def story() -> ProbeResult:
            async with serving(answering(PING), certificate.context()) as port:
                return await probe_console("localhost", port, timeout=5.0)

        # ::1 may come first in the host's table; then the port refuses there.
        assert asyncio.run(story()).outcome in (Outcome.ANSWERED, Outcome.REFUSED)


class TestRejected:
    def test_X1_another_certificate_than_the_pinned_one_is_rejected_before_anything_is_sent(
        self, certificate: Certificate
    ) -> None:
        received: list[bytes] = []

        async def watching(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            received.append(await reader.read())

        result = probe(watching, certificate, pinned_sha256="ab" * 32)
        assert result.outcome is Outcome.REJECTED
        assert f"presents certificate {certificate.sha256[:16]}" in result.detail
        assert "pinned is abababababababab" in result.detail
        assert b"".join(received) == b""

    @pytest.mark.parametrize(
        ("said", "detail"),
        [
            (b"hello\n", "answers the ping with nonsense"),
            (b"\xff\xfe\x00\n", "answers the ping with nonsense"),
            (b"[" * 5000 + b"\n", "answers the ping with nonsense"),
            (b'{"jsonrpc":"2.0","id":7,"result":{}}\n', "something else"),
            (b'{"jsonrpc":"2.0","id":1,"result":[]}\n', "something else"),
            (b'{"jsonrpc":"2.0","method":"ping","id":1}\n', "something else"),
            (
                b'{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no\\nmethod"}}\n',
                'answers the ping with error -32601: "no\\nmethod"',
            ),
            (b"x" * 70_000, "answers with a line longer than 65536 bytes"),
            (b"", "closes the connection without an answer"),
            (b"half a line", "closes the connection without an answer"),
        ],
    )
    def test_F3_an_answer_that_breaks_the_protocol_is_rejected(
        self, certificate: Certificate, said: bytes, detail: str
    ) -> None:
        result = probe(saying(said), certificate)
        assert result.outcome is Outcome.REJECTED
        assert detail in result.detail
        assert "\n" not in result.detail
        assert len(result.detail) < 300

    def test_a_server_without_tls_is_rejected(self) -> None:
        async def banner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
            await reader.read()

        result = probe(banner, None)
        assert result.outcome is Outcome.REJECTED
        assert result.detail.startswith("no TLS with it: ")

    def test_a_server_that_closes_at_once_is_rejected(self) -> None:
        async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)

        result = probe(close, None)
        assert result.outcome in (Outcome.REJECTED, Outcome.REFUSED)  # FIN, or RST for unread data
        assert result.detail in (
            "closes the connection during the TLS handshake",
            "connection reset",
        )

    @pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
    def test_tls_1_1_is_not_spoken(self, certificate: Certificate) -> None:
        context = certificate.context()
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = ssl.TLSVersion.TLSv1_1

        async def story() -> ProbeResult:
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)
            async with serving(answering(PING), context) as port:
                return await probe_console("127.0.0.1", port, timeout=5.0)

        assert asyncio.run(story()).outcome is Outcome.REJECTED


class TestKernel:
    def test_F3_a_port_without_server_refuses_at_once(self) -> None:
        with socket.socket() as stream:
            stream.bind(("127.0.0.1", 0))  # bound, not listening
            port = stream.getsockname()[1]
            started = time.monotonic()
            result = asyncio.run(probe_console("127.0.0.1", port, timeout=5.0))
        assert result.outcome is Outcome.REFUSED
        assert result.detail == "connection refused: no Console Server on it"
        assert time.monotonic() - started < 1.0

    @pytest.mark.parametrize("with_tls", [True, False])
    def test_F3_a_reset_is_refused_with_its_own_words(
        self, certificate: Certificate, with_tls: bool
    ) -> None:
        result = probe(resetting, certificate if with_tls else None)
        assert (result.outcome, result.detail) == (Outcome.REFUSED, "connection reset")

    @pytest.mark.parametrize("with_tls", [True, False])
    def test_F3_a_frozen_server_accepts_but_does_not_answer(
        self, certificate: Certificate, with_tls: bool
    ) -> None:
        result = probe(silent, certificate if with_tls else None, timeout=0.5)
        assert result.outcome is Outcome.TIMEOUT
        assert result.detail == "accepts connections but does not answer within 0.5 s"

    def test_F3_a_stopped_process_is_told_from_a_dead_network(self) -> None:
        # Its kernel completes the connection; nobody ever calls accept.
        with socket.socket() as stream:
            stream.bind(("127.0.0.1", 0))
            stream.listen()
            result = asyncio.run(probe_console("127.0.0.1", stream.getsockname()[1], timeout=0.2))
        assert result.detail == "accepts connections but does not answer within 0.2 s"

    def test_F3_a_full_backlog_is_a_connection_without_answer(self) -> None:
        with socket.socket() as stream:
            stream.bind(("127.0.0.1", 0))
            stream.listen(0)
            address = stream.getsockname()
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(address)
            result = asyncio.run(probe_console("127.0.0.1", address[1], timeout=0.2))
            for filler in fillers:
                filler.close()
        assert result.outcome is Outcome.TIMEOUT
        assert result.detail == "no answer to the connection attempt within 0.2 s"

    def test_a_name_without_address_is_unreachable(self) -> None:
        result = asyncio.run(probe_console("x" * 64 + ".invalid", timeout=5.0))
        assert result.outcome is Outcome.UNREACHABLE
        assert "not resolved" in result.detail

    def test_a_cancelled_probe_closes_its_connection(self) -> None:
        async def story() -> None:
            gone = asyncio.Event()

            async def waiting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                with suppress(OSError):
                    await reader.read()
                gone.set()

            async with serving(waiting, None) as port:
                task = asyncio.ensure_future(probe_console("127.0.0.1", port, timeout=30.0))
                await asyncio.sleep(0.05)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await asyncio.wait_for(gone.wait(), 5.0)

        asyncio.run(story())


_FAKE = """
import asyncio, json, ssl, sys
answer = json.loads(sys.argv[3])
async def serve(reader, writer):
    request = json.loads(await reader.readline())
    writer.write(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": answer}).encode())
    writer.write(b"\\n")
    await reader.read()
    writer.close()
async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2])
    await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), ssl=context)
    await asyncio.Event().wait()
asyncio.run(main())
"""


class ServerProcess:
    """A Console Server as a process, ours or a stand-in; ``serving`` as the process is told."""

    def __init__(
        self, command: Sequence[str], port: int, sha256: str, environment: Mapping[str, str]
    ) -> None:
        self.port, self.sha256 = port, sha256
        self.process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL
        )

    def ask(self, timeout: float = 5.0, pin: str = "") -> ProbeResult:
        return asyncio.run(
            probe_console("127.0.0.1", self.port, timeout=timeout, pinned_sha256=pin or self.sha256)
        )

    def wait(self) -> ProbeResult:
        deadline = time.monotonic() + 20
        while (result := self.ask()).outcome is Outcome.REFUSED:
            assert self.process.poll() is None and time.monotonic() < deadline, result
            time.sleep(0.02)
        return result

    def end(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


@pytest.fixture(params=["stand-in", "real"])
def server(
    request: pytest.FixtureRequest,
    certificate: Certificate,
    short_directory: Path,
    free_port: Callable[[], int],
) -> Iterator[ServerProcess]:
    """A Console Server that answers but does not serve, since nobody has enabled it."""
    port = free_port()
    if request.param == "stand-in":
        why = {"code": "waiting_for_ha", "text": "waiting for ha"}
        ping = json.dumps({**PING, "serving": False, "reason": why})
        words = [sys.executable, "-c", _FAKE, str(port), str(certificate.path), ping]
        made = ServerProcess(words, port, certificate.sha256, {})
    else:
        environment = {
            "UCI_CONFIG_DIR": str(short_directory / "config"),
            "CONTROLONE_STATE_DIR": str(short_directory / "state"),
            "CONTROLONE_RUN_DIR": str(short_directory / "run"),
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        }
        (short_directory / "config").mkdir()
        (short_directory / "config" / "server").write_text(
            f"config server 'default'\n\toption bind '127.0.0.1'\n\toption port '{port}'\n"
        )
        (short_directory / "config" / "ha").write_text(
            "config ha 'default'\n\toption name 'alpha'\n\toption role 'slave'\n"
        )
        identity = ensure_identity(node_paths(environment), "alpha")
        words = [sys.executable, "-m", "controlone_ha.server"]
        made = ServerProcess(words, port, identity.certificate_sha256, environment)
    try:
        yield made
    finally:
        made.end()


class TestAnyServer:
    """The same on the stand-in and on the product's Console Server."""

    def test_F1_F3_a_server_is_asked_frozen_thawed_and_killed(self, server: ServerProcess) -> None:
        result = server.wait()
        assert result.outcome is Outcome.ANSWERED, result
        assert {"node", "role", "state", "serving", "reason", "protocol"} <= set(result.answer)
        assert result.answer["serving"] is False
        assert result.detail == "answers, but does not serve consoles: waiting for ha"

        stranger = server.ask(pin="ab" * 32)
        assert stranger.outcome is Outcome.REJECTED
        assert f"presents certificate {server.sha256[:16]}" in stranger.detail

        freeze(server.process.pid)
        frozen = server.ask(timeout=0.5)
        assert frozen.outcome is Outcome.TIMEOUT
        assert frozen.detail == "accepts connections but does not answer within 0.5 s"
        server.process.send_signal(signal.SIGCONT)
        assert server.ask().outcome is Outcome.ANSWERED

        server.process.kill()
        server.process.wait()
        assert server.ask().outcome is Outcome.REFUSED
