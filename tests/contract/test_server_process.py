"""The real Console Server process, asked by real TLS clients and ordered over its real socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from controlone_ha import jsonrpc
from controlone_ha.core.observations import Outcome
from controlone_ha.errors import ServiceError
from controlone_ha.jsonrpc import encode_request
from controlone_ha.paths import NodePaths, node_paths
from controlone_ha.peers.keys import certificate_sha256, ensure_identity
from controlone_ha.probes.console import probe_console
from controlone_ha.services.console_server import (
    ConsoleServerClient,
    ConsoleServerDownError,
    ConsoleServerTimeoutError,
)
from tests.waiting import freeze

pytestmark = pytest.mark.contract

CHECKOUT = Path(__file__).resolve().parents[2]
PATIENCE = 15.0
DISK = {"code": "disk_full", "text": "the disk is full"}
SERVERS = [{"name": "b", "address": "10.0.0.2"}]


class Client:
    """A console as a blocking TLS client: enough to see exactly what the server sends."""

    def __init__(self, port: int, *, timeout: float = PATIENCE, receive: int = 0) -> None:
        stream = socket.socket()
        if receive:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        stream.settimeout(timeout)
        stream.connect(("127.0.0.1", port))
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = _CONTEXT.wrap_socket(
            stream, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
        self._buffer = b""
        self._number = 0

    def handshake(self) -> Client:
        self.stream.do_handshake()
        return self

    def send(self, line: bytes) -> None:
        self.stream.sendall(line)

    def read(self) -> dict[str, Any] | None:
        """Return the next message; None at the closing alert. A reset raises ``OSError``."""
        while b"\n" not in self._buffer:
            data = self.stream.recv(65536)
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        message = json.loads(line)
        assert isinstance(message, dict)
        return message

    def ask(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        self._number += 1
        self.send(encode_request(method, params, self._number))
        answer = self.read()
        assert answer is not None
        assert answer["id"] == self._number
        return answer

    def log_in(self, console: str) -> Client:
        answer = self.ask("login", {"console": console})
        assert "result" in answer, answer
        return self

    def close(self) -> None:
        self.stream.close()


def _client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


_CONTEXT = _client_context()


class Server:
    """A Console Server process of this test."""

    def __init__(self, directory: Path, port: int) -> None:
        self.port = port
        self.directory = directory
        self.environment = {
            "UCI_CONFIG_DIR": str(directory / "config"),
            "CONTROLONE_STATE_DIR": str(directory / "state"),
            "CONTROLONE_RUN_DIR": str(directory / "run"),
        }
        self.paths: NodePaths = node_paths(self.environment)
        self.process: subprocess.Popen[bytes] | None = None
        self.clients: list[Client] = []

    def configure(
        self, *, ha: bool, max_connections: int = 4000, authentication: str = "optional"
    ) -> None:
        (self.directory / "config" / "server").write_text(
            f"config server 'default'\n\toption bind '127.0.0.1'\n\toption port '{self.port}'\n"
            f"\toption max_connections '{max_connections}'\n"
            f"\toption authentication '{authentication}'\n"
        )
        if ha:
            (self.directory / "config" / "ha").write_text(
                "config ha 'default'\n\toption name 'a'\n\toption role 'slave'\n"
            )

    def start(self) -> float:
        """Start and wait until it listens; return the seconds that took."""
        with open(self.directory / "log", "ab") as log:
            started = time.monotonic()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "controlone_ha.server"],
                env={**os.environ, **self.environment, "PYTHONPATH": str(CHECKOUT)},
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
            )
        while time.monotonic() - started < PATIENCE:
            assert self.process.poll() is None, self.log
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                elapsed = time.monotonic() - started
                self.wait_until(self._takes_orders)
                return elapsed
            time.sleep(0.005)
        raise AssertionError(self.log)

    def _takes_orders(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self.order("status"))
        return False

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def client(self, **more: Any) -> Client:
        client = Client(self.port, **more).handshake()
        self.clients.append(client)
        return client

    def order(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        result = jsonrpc.call(self.paths.server_socket, method, params, timeout=PATIENCE)
        assert isinstance(result, dict)
        return result

    def kill(self, number: int = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def status_field(self, name: str) -> int:
        """Return a value in KiB of /proc/PID/status."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(next(line for line in text.splitlines() if line.startswith(name)).split()[1])

    def processor_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @staticmethod
    def wait_until(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.01)


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with a node's key and certificate."""
    state = tmp_path_factory.mktemp("identity") / "state"
    ensure_identity(node_paths({"CONTROLONE_STATE_DIR": str(state)}), "a")
    return state


@pytest.fixture
def server(identity: Path, short_directory: Path, free_port: Callable[[], int]) -> Iterator[Server]:
    """A configured server, not started; it waits for `ha` unless a test says otherwise."""
    for name in ("config", "run"):
        (short_directory / name).mkdir()
    shutil.copytree(identity, short_directory / "state")
    server = Server(short_directory, free_port())
    server.configure(ha=True)
    yield server
    for client in server.clients:
        client.close()
    if server.process is not None and server.process.poll() is None:
        server.process.send_signal(signal.SIGCONT)
        server.kill()


class TestServing:
    def test_f1_the_first_start_waits_for_ha_and_answers_pings(self, server: Server) -> None:
        server.start()
        answer = server.client().ask("ping")
        assert answer["result"] == {
            "node": "a",
            "role": None,
            "state": None,
            "serving": False,
            "reason": {"code": "waiting_for_ha", "text": "waiting for ha"},
            "protocol": 1,
            "consoles": 0,
        }
        refusal = server.client().ask("login", {"console": "desk-1"})
        assert refusal["error"]["code"] == -32001
        assert refusal["error"]["data"]["code"] == "waiting_for_ha"

    def test_f3_the_watchdogs_console_request_knows_the_node_by_its_certificate(
        self, server: Server
    ) -> None:
        server.start()
        pin = certificate_sha256(server.paths.certificate_file.read_text())
        result = asyncio.run(
            probe_console("127.0.0.1", server.port, timeout=PATIENCE, pinned_sha256=pin)
        )
        assert result.outcome is Outcome.ANSWERED
        assert result.answer is not None
        assert result.answer["serving"] is False
        stranger = asyncio.run(
            probe_console("127.0.0.1", server.port, timeout=PATIENCE, pinned_sha256="0" * 64)
        )
        assert stranger.outcome is Outcome.REJECTED

    def test_without_ha_it_serves_by_itself(self, server: Server) -> None:
        (server.directory / "config" / "ha").unlink()
        server.start()
        server.client().log_in("desk-1")
        assert server.order("status")["reason"]["code"] == "standalone"

    def test_openssl_gets_an_answer_over_tls_1_2_and_1_3_and_not_over_1_1(
        self, server: Server
    ) -> None:
        server.start()

        def ask(version: str) -> subprocess.CompletedProcess[bytes]:
            process = subprocess.Popen(
                ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", version,
                 "-quiet", "-cipher", "DEFAULT:@SECLEVEL=0"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            assert process.stdin is not None and process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(encode_request("ping", None, 1))
                process.stdin.flush()
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line.startswith(b'{"jsonrpc"'):
                    break
            process.kill()
            process.wait()
            return subprocess.CompletedProcess([], 0, b"".join(lines))

        for version in ("-tls1_2", "-tls1_3"):
            assert b'"serving":false' in ask(version).stdout
        refused = ask("-tls1_1").stdout
        assert b"jsonrpc" not in refused
        assert b"protocol version" in refused

    def test_k4_disabling_tells_consoles_why_and_where_to_go_then_closes(
        self, server: Server
    ) -> None:
        server.start()
        server.order("publish", {"node": "a", "role": "master", "state": "active"})
        server.order("publish", {"servers": SERVERS})
        server.order("enable")
        console = server.client().log_in("desk-1")
        watcher = server.client()
        assert server.order("status")["consoles"] == 1
        status = server.order("disable", {"reason": DISK})
        assert (status["serving"], status["reason"], status["consoles"]) == (False, DISK, 0)
        goodbye = console.read()
        assert goodbye is not None
        assert goodbye["method"] == "goodbye"
        assert goodbye["params"] == {"reason": DISK, "servers": SERVERS}
        assert console.read() is None  # the closing alert, no reset
        answer = watcher.ask("ping")["result"]
        assert (answer["state"], answer["serving"], answer["reason"]) == ("active", False, DISK)

    def test_k4_sigterm_says_goodbye_and_ends_within_two_seconds(self, server: Server) -> None:
        server.start()
        server.order("enable")
        console = server.client().log_in("desk-1")
        server.client()  # one that never says anything
        started = time.monotonic()
        assert server.kill(signal.SIGTERM) == 0
        assert time.monotonic() - started < 2.0
        goodbye = console.read()
        assert goodbye is not None
        assert goodbye["params"]["reason"]["code"] == "stopping"
        assert console.read() is None
        assert not server.paths.server_socket.exists()

    def test_k2_a_killed_server_is_seen_at_once_and_its_respawn_goes_on_as_ordered(
        self, server: Server
    ) -> None:
        server.start()
        server.order("publish", {"node": "a", "role": "slave", "state": "active"})
        since = server.order("enable")["since"]
        console = server.client().log_in("desk-1")
        server.kill(signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(OSError):  # ended without a closing alert: a crash, not a goodbye
            console.read()
        assert time.monotonic() - started < 0.5
        server.start()
        server.client().log_in("desk-1")
        status = server.order("status")
        assert (status["serving"], status["since"], status["role"]) == (True, since, "slave")
        server.order("disable", {"reason": DISK})
        server.kill(signal.SIGKILL)
        server.start()
        assert server.order("status")["reason"] == DISK

    def test_a_damaged_kept_order_means_waiting_for_ha(self, server: Server) -> None:
        server.paths.server_state.write_text('{"serving": tr')
        server.start()
        assert server.order("status")["reason"]["code"] == "waiting_for_ha"

    def test_a_second_server_of_the_node_says_why_it_ends(self, server: Server) -> None:
        server.start()
        second = subprocess.run(
            [sys.executable, "-m", "controlone_ha.server"],
            env={**os.environ, **server.environment, "PYTHONPATH": str(CHECKOUT)},
            capture_output=True,
            timeout=PATIENCE,
        )
        assert second.returncode == 1
        assert f"cannot listen on 127.0.0.1, port {server.port}".encode() in second.stdout
        assert b"Traceback" not in second.stdout + second.stderr
        assert server.order("status")["pid"] == server.pid

    def test_x1_a_first_start_makes_the_nodes_key_and_does_not_carry_its_library(
        self, server: Server
    ) -> None:
        shutil.rmtree(server.paths.state_dir)
        server.start()
        assert server.paths.key_file.stat().st_mode & 0o777 == 0o600
        assert server.client().ask("ping")["result"]["node"] == "a"
        assert "cryptography" not in Path(f"/proc/{server.pid}/maps").read_text()


class TestManyAndBad:
    def test_a_thousand_consoles_are_served_in_bounded_memory(self, server: Server) -> None:
        server.configure(ha=True, max_connections=1600)
        server.start()
        server.order("enable")
        before = server.status_field("VmRSS")
        for index in range(1000):
            server.client().log_in(f"desk-{index}")
        status = server.order("status")
        assert status["consoles"] == 1000
        each = (server.status_field("VmRSS") - before) / 1000
        busy = server.processor_seconds()
        time.sleep(1.0)
        assert server.processor_seconds() - busy < 0.05  # a thousand idle consoles cost nothing
        started = time.monotonic()
        server.order("disable", {"reason": DISK})
        for client in server.clients:
            message = client.read()
            assert message is not None
            assert message["method"] == "goodbye"
        elapsed = time.monotonic() - started
        print(f"KiB a console: {each:.1f}; all 1000 sent away in {elapsed:.2f} s")
        assert each < 100
        server.wait_until(lambda: server.order("status")["connections"] == 0)

    def test_the_console_too_many_is_told_so_and_pings_still_work(self, server: Server) -> None:
        server.configure(ha=True, max_connections=40)  # 30 consoles and 10 others
        server.start()
        server.order("enable")
        for index in range(30):
            server.client().log_in(f"desk-{index}")
        refusal = server.client().ask("login", {"console": "desk-x"})
        assert refusal["error"]["data"]["code"] == "full"
        idle = [server.client() for _ in range(13)]
        assert server.client().ask("ping")["result"]["serving"] is True
        assert server.order("status")["connections"] == 40
        assert idle[0].read() is None  # the longest silent ones were pushed out
        assert idle[-1].ask("ping")["result"]["serving"] is True

    def test_k4_a_storm_of_500_logins_is_survived(self, server: Server) -> None:
        server.start()
        server.order("enable")
        clients = [Client(server.port) for _ in range(500)]
        server.clients += clients
        started = time.monotonic()

        def arrive(index: int) -> float:
            clients[index].handshake().log_in(f"desk-{index}")
            return time.monotonic() - started

        with ThreadPoolExecutor(max_workers=32) as pool:
            times = sorted(pool.map(arrive, range(500)))
        print(f"500 logins: p50 {statistics.median(times):.2f} s, last {times[-1]:.2f} s")
        assert server.order("status")["consoles"] == 500
        assert times[-1] < PATIENCE

    def test_a_console_that_does_not_read_is_dropped_and_delays_no_other(
        self, server: Server
    ) -> None:
        server.start()
        server.order("enable")
        good = server.client().log_in("desk-good")
        deaf = server.client(receive=4096).log_in("desk-deaf")
        news = [{"name": f"n{index}", "text": "x" * 900} for index in range(60)]
        delays = []
        deadline = time.monotonic() + PATIENCE
        turn = 0
        while server.order("status")["consoles"] == 2:
            assert time.monotonic() < deadline
            turn += 1
            server.order("publish", {"servers": [{"name": f"turn-{turn}"}, *news]})
            told = good.read()
            assert told is not None
            assert told["method"] == "servers"
            started = time.monotonic()
            good.ask("ping")
            delays.append(time.monotonic() - started)
        assert max(delays) < 1.0
        assert "console desk-deaf left: does not read" in server.log
        assert server.status_field("VmRSS") < 60_000
        with contextlib.suppress(OSError):  # it may still read what the kernel had; then the end
            while deaf.read() is not None:
                pass

    def test_a_console_that_asks_without_end_and_never_reads_is_ended(self, server: Server) -> None:
        server.start()
        server.order("enable")
        deaf = server.client(receive=4096).log_in("desk-deaf")
        with contextlib.suppress(OSError):  # sending may fail once the server has had enough
            for _ in range(200):
                deaf.send(encode_request("ping", None, 1) * 100)
        server.wait_until(lambda: server.order("status")["consoles"] == 0)
        assert "closed the connection of desk-deaf: more than 100 messages a second" in server.log
        assert server.client().ask("ping")["result"]["serving"] is True
        assert server.status_field("VmRSS") < 40_000

    def test_garbage_is_answered_and_ended_and_the_server_stays_as_small_as_it_was(
        self, server: Server
    ) -> None:
        server.start()
        server.order("enable")
        before = server.status_field("VmRSS")
        for _ in range(30):
            bad = server.client()
            bad.send(b"\x00garbage\n" * 3 + b'{"id":1,"method":5}\n')
            codes = [(bad.read() or {})["error"]["code"] for _ in range(4)]
            assert codes == [-32700, -32700, -32700, -32600]
            bad.send(b"x" * 70_000)
            last = bad.read()
            assert last is not None
            assert last["error"]["code"] == -32004
            assert bad.read() is None
        with socket.create_connection(("127.0.0.1", server.port)) as plain:
            plain.settimeout(PATIENCE)
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                while plain.recv(100):
                    pass
        assert server.client().ask("ping")["result"]["serving"] is True
        assert server.status_field("VmRSS") - before < 4000
        assert "Traceback" not in server.log

    @pytest.mark.slow
    def test_a_half_open_tls_connection_is_closed_after_ten_seconds(self, server: Server) -> None:
        server.start()
        with socket.create_connection(("127.0.0.1", server.port)) as silent:
            silent.settimeout(PATIENCE)
            started = time.monotonic()
            with contextlib.suppress(ConnectionResetError):
                assert silent.recv(100) == b""
            assert 9.0 < time.monotonic() - started < 12.0

    def test_it_starts_fast_is_small_and_idle_costs_nothing(self, server: Server) -> None:
        times = []
        for _ in range(5):
            times.append(server.start())
            server.kill()
        server.start()
        before = server.processor_seconds()
        resident = server.status_field("VmRSS")
        time.sleep(2.0)
        print(f"start: {sorted(times)[2]:.3f} s; RSS: {resident} KiB")
        assert server.processor_seconds() - before <= 0.011
        assert resident < 40_000
        assert sorted(times)[2] < 2.0


class TestControlSocket:
    """``services.console_server`` on the real server."""

    def test_orders_return_the_status_that_follows(self, server: Server) -> None:
        server.start()
        client = ConsoleServerClient(server.paths.server_socket)

        async def order() -> None:
            published = await client.publish(
                node="a", role="slave", state="standby", servers=SERVERS
            )
            assert not published.serving
            enabled = await client.enable()
            assert enabled.serving
            assert enabled.pid == server.pid
            assert enabled.reason_code == "serving"
            disabled = await client.disable({**DISK, "params": {"path": "/"}, "evidence": []})
            assert (disabled.reason_code, disabled.reason_text) == ("disk_full", DISK["text"])
            assert await client.status() == disabled

        asyncio.run(order())
        assert server.client().ask("ping")["result"]["state"] == "standby"

    def test_a_server_that_does_not_run_has_no_status_and_takes_no_orders(
        self, server: Server
    ) -> None:
        client = ConsoleServerClient(server.paths.server_socket)
        assert asyncio.run(client.status()) is None
        with pytest.raises(ConsoleServerDownError):
            asyncio.run(client.enable())
        server.start()
        server.kill(signal.SIGKILL)  # leaves its socket file
        assert server.paths.server_socket.exists()
        assert asyncio.run(client.status()) is None

    def test_a_frozen_server_is_a_timeout_however_often_it_is_asked(self, server: Server) -> None:
        server.start()
        assert server.process is not None
        client = ConsoleServerClient(server.paths.server_socket, timeout=0.01)
        freeze(server.process.pid)

        async def ask_often() -> None:
            for _ in range(250):  # more than the kernel queues for a socket nobody accepts from
                started = time.monotonic()
                with pytest.raises(ConsoleServerTimeoutError, match="did not answer 'status'"):
                    await client.status()
                assert time.monotonic() - started < 1.0

        asyncio.run(ask_often())
        server.process.send_signal(signal.SIGCONT)
        patient = ConsoleServerClient(server.paths.server_socket, timeout=PATIENCE)
        status = asyncio.run(patient.status())
        assert status is not None
        assert status.pid == server.pid

    def test_a_refused_order_is_one_sentence(self, server: Server) -> None:
        server.start()
        client = ConsoleServerClient(server.paths.server_socket)
        with pytest.raises(ServiceError, match=r"refused 'disable': reason\.code"):
            asyncio.run(client.disable({}))

    def test_an_order_that_cannot_be_kept_is_not_obeyed(self, server: Server) -> None:
        server.start()
        server.paths.server_state.mkdir()  # nothing can be renamed onto a directory
        client = ConsoleServerClient(server.paths.server_socket)
        with pytest.raises(ServiceError, match="cannot keep the order"):
            asyncio.run(client.enable())
        status = asyncio.run(client.status())
        assert status is not None
        assert not status.serving
