"""The shipped failover client against real Console Server processes: K1 to K5 as they happen."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from controlone_ha.console.enrol import enrol
from controlone_ha.console.rules import Policy, Rules
from controlone_ha.console.session import INTERRUPTED, UNAVAILABLE, Session
from controlone_ha.console.settings import ConsoleConfig
from controlone_ha.console.trust import Credentials
from controlone_ha.jsonrpc import RpcError, call
from tests.console_servers import CHECKOUT, ServerProcess
from tests.ports import free_port

pytestmark = pytest.mark.contract

ADDRESSES = ("127.0.0.1", "127.0.0.2", "127.0.0.3")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ServerProcess]]:
    """Three servers: a, b and c; each test brings them to what it needs."""
    port = free_port()
    # Unix sockets want short paths.
    directory = Path(f"/tmp/c1-{os.getpid()}")
    directory.mkdir(mode=0o700)
    servers = [
        ServerProcess(directory, name, address, port)
        for name, address in zip("abc", ADDRESSES, strict=True)
    ]
    yield servers
    for server in servers:
        server.end()
    shutil.rmtree(directory)


@pytest.fixture
def servers(cluster: list[ServerProcess]) -> list[ServerProcess]:
    """The three, all serving, nobody logged in."""
    for server in cluster:
        server.end()
        server.paths.server_state.unlink(missing_ok=True)
        (server.directory / "config" / "consoles").unlink(missing_ok=True)
        (server.directory / "log").unlink(missing_ok=True)
        server.paths.sessions_file.unlink(missing_ok=True)
        server.configure()
        server.start()
    return cluster


def config_for(servers: list[ServerProcess], **more: Any) -> ConsoleConfig:
    rules: dict[str, Any] = {
        "timeout": 1.0,
        "check_interval": 0.5,
        "return_delay": 0.5,
        "standby_wait": 1.0,
        "jitter": 0.02,
        **more,
    }
    addresses = tuple(server.address for server in servers)
    return ConsoleConfig(
        name="desk-4",
        rules=Rules(servers=addresses, **rules),
        port=servers[0].port,
        queues=("190",),
    )


def pins_of(servers: list[ServerProcess]) -> Credentials:
    return Credentials(pins=tuple(sorted(server.pin for server in servers)))


async def until(condition: Callable[[], bool], what: str, limit: float = 15.0) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit, what
        await asyncio.sleep(0.01)
    return time.monotonic() - began


@asynccontextmanager
async def console(config: ConsoleConfig, trusted: Credentials) -> AsyncIterator[Session]:
    session = Session(config, trusted, chance=random.Random(1))
    session.start()
    try:
        yield session
    finally:
        await session.stop()


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


async def count(server: ServerProcess) -> int:
    return await asyncio.get_running_loop().run_in_executor(None, lambda: server.consoles)


def test_K1_K2_a_killed_server_is_left_at_once_and_the_console_comes_back_to_it(
    servers: list[ServerProcess],
) -> None:
    a, b, _ = servers

    async def work() -> None:
        async with console(config_for(servers), pins_of(servers)) as session:
            await until(lambda: session.active_name == "a", "logged in at a")
            assert await count(a) == 1
            a.end()
            took = await until(lambda: session.active_name == "b", "logged in at b")
            assert took < 5.0
            status = session.status()
            assert status["reason"]["params"]["server"] == "a"
            assert status["abnormal"][0]["code"] == "not_first"
            assert "after losing a" in b.log
            a.start()
            await until(lambda: session.active_name == "a", "back at a")
            assert session.status()["reason"]["code"] == "returned"
            assert [await count(server) for server in servers] == [1, 0, 0]

    run(work)


def test_K2_a_frozen_server_is_left_after_the_timeout(servers: list[ServerProcess]) -> None:
    a, _, _ = servers

    async def work() -> None:
        async with console(config_for(servers), pins_of(servers)) as session:
            await until(lambda: session.active_name == "a", "logged in at a")
            began = time.monotonic()
            a.freeze()
            try:
                await until(lambda: session.active_name == "b", "logged in at b")
                took = time.monotonic() - began
                assert 0.5 < took < 6.0
                code = session.status()["reason"]["code"]
                assert code in ("silent", "lost_packets")
            finally:
                a.thaw()

    run(work)


def test_K2_K4_a_standby_is_waited_for_and_says_itself_when_it_serves(
    servers: list[ServerProcess],
) -> None:
    a, b, c = servers
    b.order("publish", state="standby")
    b.order("disable", reason={"code": "standby", "text": "waits for its turn"})
    c.end()

    async def work() -> None:
        async with console(config_for(servers), pins_of(servers)) as session:
            await until(lambda: session.active_name == "a", "logged in at a")
            listener = asyncio.get_running_loop().run_in_executor(None, _lost_event, b)
            await asyncio.sleep(0.1)
            a.end()
            told = await listener
            # A standby passes the word on before it accepts the login.
            assert told == {"console": "desk-4", "server": "a", "calls": []}
            attempt = session.core.attempt
            assert attempt is not None and attempt.server == b.address
            b.order("publish", state="active")
            b.order("enable")
            took = await until(lambda: session.active_name == "b", "logged in at b")
            assert took < 2.0

    run(work)


def _lost_event(server: ServerProcess) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(15.0)
        stream.connect(str(server.paths.server_socket))
        line = {"jsonrpc": "2.0", "id": 1, "method": "events", "params": {"kinds": ["lost"]}}
        stream.sendall(json.dumps(line).encode() + b"\n")
        with stream.makefile() as lines:
            for text in lines:
                message = json.loads(text)
                if message.get("method") == "lost":
                    params: dict[str, Any] = message["params"]
                    return params
    raise AssertionError("no event")


def test_K4_an_orderly_goodbye_moves_the_console_without_a_loss(
    servers: list[ServerProcess],
) -> None:
    a, b, _ = servers

    async def work() -> None:
        config = config_for(servers, policy=Policy.NEVER)
        async with console(config, pins_of(servers)) as session:
            await until(lambda: session.active_name == "a", "logged in at a")
            a.order("disable", reason={"code": "disk_full", "text": "the disk is full"})
            took = await until(lambda: session.active_name == "b", "logged in at b")
            assert took < 3.0
            reason = session.status()["reason"]
            assert (reason["code"], reason["params"]["text"]) == ("goodbye", "the disk is full")
            assert "losing" not in b.log

    run(work)


def test_K4_requests_wait_during_a_switch_or_fail_clearly(servers: list[ServerProcess]) -> None:
    a, b, _ = servers

    async def work() -> None:
        async with console(config_for(servers), pins_of(servers)) as session:
            await until(lambda: session.active_name == "a", "logged in at a")
            a.freeze()
            waiting = asyncio.ensure_future(session.call("servers", {}, timeout=12.0))
            unsafe = asyncio.ensure_future(session.call("dial", {}, timeout=12.0))
            try:
                assert await waiting == {"servers": []}
                assert session.active_name == "b"
                with pytest.raises(RpcError) as error:
                    await unsafe
                assert error.value.number == INTERRUPTED
            finally:
                a.thaw()
            for server in servers:
                server.end()
            await until(lambda: session.core.state.value == "unavailable", "unavailable")
            with pytest.raises(RpcError) as error:
                await session.call("servers", {}, timeout=0.3)
            assert error.value.number == UNAVAILABLE
            b.start()
            await until(lambda: session.active_name == "b", "served again")

    run(work)


def test_K5_a_changed_list_is_taken_over_without_dropping_a_good_connection(
    servers: list[ServerProcess],
) -> None:
    a, b, c = servers

    async def work() -> None:
        config = config_for([a, b], policy=Policy.NEVER)
        async with console(config, pins_of(servers)) as session:
            await until(lambda: session.active_name == "a", "logged in at a")
            began = session.core.since
            session.reload(config_for([c, a], policy=Policy.NEVER), pins_of(servers))
            await asyncio.sleep(1.0)
            assert (session.active_name, session.core.since) == ("a", began)
            session.reload(config_for([c], policy=Policy.NEVER), pins_of(servers))
            await until(lambda: session.active_name == "c", "moved to c")
            async with asyncio.timeout(5):  # the new connection is up before the old one goes
                while await count(a):
                    await asyncio.sleep(0.02)
            assert session.core.state.value == "connected"

    run(work)


def test_a_server_with_another_certificate_gets_no_login(servers: list[ServerProcess]) -> None:
    a, b, _ = servers

    async def work() -> None:
        async with console(config_for([a, b]), pins_of([b])) as session:
            await until(lambda: session.active_name == "b", "logged in at b")
            assert session.core.servers[a.address].health.value == "refusing"
            cause = session.core.servers[a.address].cause
            assert cause is not None and cause.code == "certificate"
            assert await count(a) == 0

    run(work)


def test_enrolment_gives_token_and_pins_and_revocation_takes_the_console_off(
    servers: list[ServerProcess],
) -> None:
    a, _, _ = servers
    a.end()
    a.configure(authentication="required")
    a.start()
    codes: list[str] = []

    async def ask(method: str, **params: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, lambda: a.order(method, **params))

    async def work() -> None:
        pending = asyncio.ensure_future(
            enrol("desk-4", a.address, a.port, show=codes.append, again=0.1)
        )
        await until(lambda: bool(codes), "the code is shown")
        listed = (await ask("consoles"))["pending"]
        assert [item["console"] for item in listed] == ["desk-4"]
        with pytest.raises(RpcError, match="code"):
            await ask("approve", console="desk-4", code="AAAA-BBBB-CCCC-DDDD", by="root")
        await ask("approve", console="desk-4", code=codes[0].lower(), by="root")
        credentials = await pending
        assert credentials.pins == (a.pin,)
        async with console(config_for([a]), credentials) as session:
            await until(lambda: session.active_name == "a", "logged in with the token")
            wrong = Credentials(token="f" * 64, pins=credentials.pins)
            async with console(config_for([a]), wrong) as impostor:
                await until(
                    lambda: impostor.core.servers[a.address].health.value == "refusing", "refused"
                )
                cause = impostor.core.servers[a.address].cause
                assert cause is not None and cause.code == "token"
            assert session.active_name == "a", "a wrong token replaces nobody"
            await ask("revoke", console="desk-4", by="root")
            await until(lambda: session.active_name is None, "sent away")
        assert (await ask("consoles"))["enrolled"][0]["revoked"] is True

    run(work)
    a.end(signal.SIGTERM)
    record = [json.loads(line) for line in a.paths.sessions_file.read_text().splitlines()]
    assert [item["event"] for item in record if item["event"] != "refused"] == ["login", "logout"]
    assert {item["cause"] for item in record if item["event"] == "refused"} >= {"wrong_token"}
    assert "f" * 64 not in a.log


def test_ha_console_approves_lists_and_revokes_with_and_without_the_server(
    servers: list[ServerProcess],
) -> None:
    a, _, _ = servers

    def ha(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "controlone_ha.control.command", "console", *words],
            env={**os.environ, **a.environment, "PYTHONPATH": str(CHECKOUT), "LANG": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=20,
        )

    codes: list[str] = []

    async def work() -> None:
        loop = asyncio.get_running_loop()
        pending = asyncio.ensure_future(
            enrol("desk-9", a.address, a.port, show=codes.append, again=0.1)
        )
        await until(lambda: bool(codes), "the code is shown")
        listed = await loop.run_in_executor(None, ha)
        assert "asks to be enrolled" in listed.stdout and "desk-9" in listed.stdout
        wrong = await loop.run_in_executor(None, ha, "approve", "desk-9", "AAAA-AAAA-AAAA-AAAA")
        assert wrong.returncode == 1 and "code" in wrong.stderr
        done = await loop.run_in_executor(None, ha, "approve", "desk-9", codes[0])
        assert (done.returncode, done.stdout) == (0, "desk-9 is enrolled\n")
        credentials = await pending
        async with console(config_for([a]), credentials) as session:
            await until(lambda: session.active_name == "a", "logged in")

    run(work)
    a.end()
    assert "desk-9" in ha("list", "--lang", "pt_BR").stdout
    assert ha("revoke", "desk-9").stdout == "the credential of desk-9 is revoked\n"
    assert json.loads(ha("--json").stdout)["enrolled"][0]["revoked"] is True
    assert ha("revoke", "desk-8").returncode == 1
    assert ha("throw", "desk-9").returncode == 2
    approved = ha("approve", "desk-9", codes[0])
    assert (approved.returncode, approved.stdout) == (3, "")


class Client:
    """The client as a process, as a console device runs it."""

    def __init__(self, directory: Path, text: str) -> None:
        self.environment = {
            **os.environ,
            "UCI_CONFIG_DIR": str(directory),
            "CONTROLONE_STATE_DIR": str(directory / "state"),
            "CONTROLONE_RUN_DIR": str(directory),
            "PYTHONPATH": str(CHECKOUT),
            "LANG": "C.UTF-8",
        }
        self.directory = directory
        (directory / "console").write_text(text)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "controlone_ha.console", "run"],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "controlone_ha.console", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=20,
        )

    def wait_for(self, text: str) -> str:
        end = time.monotonic() + 15
        while True:
            shown = self.command("status").stdout
            if text in shown:
                return shown
            log = (self.directory / "log").read_text()
            assert time.monotonic() < end, f"{text!r} not in {shown!r}; {log}"
            time.sleep(0.1)


def test_K3_K4_the_command_tells_the_operator_where_why_and_since_when_in_two_languages(
    servers: list[ServerProcess], short_directory: Path
) -> None:
    a, _, c = servers
    c.end()
    client = Client(
        short_directory,
        "config console 'default'\n\toption server '127.0.0.1, no/host 127.0.0.2,127.0.0.3'\n"
        "\toption name 'desk-4'\n\toption timeout '1'\n\toption check_interval '1'\n"
        f"\toption port '{a.port}'\n\toption queues '190'\n",
    )
    down = client.command("status")
    assert down.returncode == 3
    assert "does not run" in down.stderr
    client.start()
    try:
        shown = client.wait_for("connected on a")
        shown = client.wait_for("down")
        assert "ATTENTION: a setting was skipped" in shown and "'no/host'" in shown
        assert "*1" in shown and "127.0.0.3" in shown
        line = client.command("status", "--line", "--lang", "pt_BR").stdout
        assert line.startswith("ATENÇÃO: ")
        a.end()
        shown = client.wait_for("connected on b")
        assert "because: a " in shown
        status = json.loads(client.command("status", "--json").stdout)
        assert (status["state"], status["node"], status["is_first"]) == ("connected", "b", False)
        config = short_directory / "console"
        config.write_text(config.read_text().replace("127.0.0.1, no/host ", ""))
        done = client.command("reload")
        assert (done.returncode, done.stdout) == (0, "settings read again: 2 servers\n")
        config.write_text(config.read_text().replace("timeout '1'", "timeout 'soon'"))
        refused = client.command("restart")
        assert refused.returncode == 1
        assert "console.default.timeout: got 'soon'" in refused.stderr
        again = json.loads(client.command("status", "--json").stdout)
        assert again["since"] == pytest.approx(status["since"], abs=0.5)
        assert again["is_first"] is True
        answer = call(short_directory / "console.sock", "servers", {}, timeout=10.0)
        assert answer == {"servers": []}
    finally:
        assert client.process is not None
        client.process.terminate()
        assert client.process.wait(10) == 0
    assert not (short_directory / "console.sock").exists()


def test_what_runs_on_a_console_device_imports_little(short_directory: Path) -> None:
    program = (
        "import sys\n"
        "import controlone_ha.console.command, controlone_ha.console.daemon\n"
        "import controlone_ha.console.enrol\n"
        "print(' '.join(sorted(m for m in sys.modules if m.startswith('controlone_ha.'))))\n"
        "print(' '.join(sorted(m for m in sys.modules if m.split('.')[0] in"
        " ('cryptography', 'paramiko', 'psutil', 'pymongo', 'pyroute2', 'pysipp'))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    own, foreign = done.stdout.split("\n")[:2]
    rooms = {name.split(".")[1] for name in own.split()}
    assert rooms == {"config", "console", "core", "errors", "jsonrpc", "logs", "paths", "uci"}
    assert {name for name in own.split() if name.startswith("controlone_ha.core.")} == {
        "controlone_ha.core.credentials"
    }
    assert foreign == ""
