"""A Conference Server for tests: the real Asterisk, the real controller, on loopback."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from controlone_ha import jsonrpc
from controlone_ha.conference import asterisk as engine
from controlone_ha.lab.parts import Asterisk
from controlone_ha.paths import node_paths
from tests.phone import Phone
from tests.waiting import until

CHECKOUT = Path(__file__).resolve().parents[2]


class Server:
    """One node's Conference Server. ``call`` asks over the socket; ``console`` is presence."""

    def __init__(self, directory: Path, parts: Asterisk, free_port: Callable[[], int]) -> None:
        self.directory = directory
        self.program = engine.AsteriskProgram(
            command=parts.command,
            module_directory=parts.module_directory,
            data_directory=parts.data_directory,
        )
        self.port, self.ari_port = free_port(), free_port()
        self.environment = {
            "UCI_CONFIG_DIR": str(directory / "config"),
            "CONTROLONE_STATE_DIR": str(directory / "state"),
            "CONTROLONE_RUN_DIR": str(directory / "run"),
        }
        self.paths = node_paths(self.environment)
        self.asterisk: subprocess.Popen[bytes] | None = None
        self.controller: subprocess.Popen[bytes] | None = None
        self.connection: jsonrpc.Connection | None = None
        self.documents: dict[str, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        (directory / "config").mkdir()
        self.configure("")

    def configure(self, more: str, options: str = "\toption settle '0'\n") -> None:
        """Write the settings: the defaults, ``options`` of the section, more sections."""
        (self.directory / "config" / "conference").write_text(
            f"config conference 'default'\n\toption bind '127.0.0.1'\n"
            f"\toption port '{self.port}'\n{options}{more}"
        )

    def _spawn(self, words: list[str], log: str) -> subprocess.Popen[bytes]:
        with open(self.directory / log, "ab") as file:
            return subprocess.Popen(
                words,
                env={
                    **os.environ,
                    **self.environment,
                    **self.program.environment(),
                    "PYTHONPATH": str(CHECKOUT),
                },
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def start_asterisk(self) -> None:
        engine.prepare(self.paths, self.program, ari_port=self.ari_port)
        self.asterisk = self._spawn(engine.command(self.paths, self.program), "asterisk.log")

    def start_controller(self) -> None:
        words = [sys.executable, "-P", "-m", "controlone_ha.conference"]
        self.controller = self._spawn(words, "controller.log")

    async def start(self) -> None:
        self.start_asterisk()
        self.start_controller()
        await self.connect()

    async def connect(self) -> None:
        """Follow the controller; wait until it leads the engine."""
        path = self.paths.run_dir / "conference.sock"
        younger: set[str] = set()  # than the list of those that follow

        async def told(_connection: object, method: str, params: dict[str, Any]) -> None:
            if method == "call":
                younger.add(params["id"])
                self.documents[params["id"]] = params
            else:
                self.events.append(params)

        for _ in range(500):
            with contextlib.suppress(OSError):
                self.connection = await jsonrpc.connect_unix(path, told)
                break
            await asyncio.sleep(0.02)
        assert self.connection is not None, self.log
        for call in (await self.call("follow"))["calls"]:
            if call["id"] not in younger:
                self.documents[call["id"]] = call
        await self.engine_up()

    async def engine_up(self) -> None:
        """Wait until the controller leads the engine."""
        for _ in range(500):
            if (await self.call("status"))["engine"] == "up":
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"the engine did not come up: {self.log}")

    async def call(self, method: str, **params: Any) -> Any:
        assert self.connection is not None
        return await self.connection.call(method, params)

    async def present(self, *phones: Phone, queues: tuple[str, ...] = ("100",)) -> None:
        """Connect consoles, and no others."""
        consoles = [
            {"name": phone.name, "queues": list(queues), "sip": phone.uri} for phone in phones
        ]
        await self.call("consoles", consoles=consoles)

    @property
    def live(self) -> list[dict[str, Any]]:
        """The calls that are not over, as followed."""
        return [call for call in self.documents.values() if call["state"] != "ended"]

    async def until_over(self) -> None:
        """Wait until no call is left here, nor a leg in the engine."""
        await until(lambda: not self.live, 10.0)
        for _ in range(200):
            if not await self.channels():
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"legs are left: {await self.channels()}")

    async def channels(self) -> list[Any]:
        """Return what the engine has, asked beside the controller."""
        access = engine.control_access(self.paths)
        words = base64.b64encode(f"{access.user}:{access.password}".encode()).decode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{access.port}/ari/channels",
            headers={"Authorization": f"Basic {words}"},
        )

        def ask() -> Any:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)

        found: list[Any] = await asyncio.get_running_loop().run_in_executor(None, ask)
        return found

    def kill(self, which: str, number: int = signal.SIGKILL) -> None:
        process: subprocess.Popen[bytes] | None = getattr(self, which)
        if process is not None and process.poll() is None:
            process.send_signal(number)
            process.wait(15)

    async def stop(self) -> None:
        if self.connection is not None:
            await self.connection.close()
        self.kill("controller", signal.SIGTERM)
        self.kill("asterisk")

    @property
    def log(self) -> str:
        files = [self.directory / name for name in ("controller.log", "asterisk.log")]
        return "\n".join(file.read_text() for file in files if file.exists())


@contextlib.asynccontextmanager
async def serving(server: Server) -> AsyncIterator[Server]:
    """Run the server; at the end its log must be free of our own faults."""
    try:
        await server.start()
        yield server
    finally:
        await server.stop()
    assert "Traceback" not in server.log, server.log


@contextlib.asynccontextmanager
async def phones(*made: Phone) -> AsyncIterator[tuple[Phone, ...]]:
    """Run phones."""
    try:
        for phone in made:
            await phone.start()
        yield made
    finally:
        for phone in made:
            phone.stop()
