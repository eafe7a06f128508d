"""The real baresip as a phone: headless, audio looped back, led over its control port."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import until

MODULES = ("g711", "aubridge", "account", "menu", "ctrl_tcp")


def baresip_path() -> str:
    """Return the program; fail the test with the remedy where there is none."""
    found = shutil.which("baresip")
    if found is None:
        pytest.fail("no baresip: run scripts/setup.sh", pytrace=False)
    return found


def modules_directory() -> Path:
    """Return where its modules are."""
    for name in ("/usr/lib/baresip/modules", "/usr/lib/x86_64-linux-gnu/baresip/modules"):
        if Path(name).is_dir():
            return Path(name)
    pytest.fail("no modules of baresip: run scripts/setup.sh", pytrace=False)


class Baresip:
    """A phone at 127.0.0.1:port that answers by itself and sends back what it hears."""

    def __init__(
        self,
        directory: Path,
        name: str,
        free_port: Callable[[], int],
        *,
        transport: str = "udp",
    ) -> None:
        self.name = name
        # It takes the next port for TLS by itself, and RTP wants a few in a row.
        self.port, _, self._control, *rtp = (free_port() for _ in range(11))
        self.transport = transport
        self._directory = directory
        self._rtp = min(rtp)
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self.events: list[dict[str, Any]] = []

    @property
    def uri(self) -> str:
        """Its SIP address."""
        suffix = "" if self.transport == "udp" else f";transport={self.transport}"
        return f"sip:{self.name}@127.0.0.1:{self.port}{suffix}"

    async def start(self) -> Baresip:
        """Start it and connect to its control port."""
        self._directory.mkdir(parents=True, exist_ok=True)
        modules = "\n".join(
            f"{'module_app' if name in ('account', 'menu', 'ctrl_tcp') else 'module'}\t{name}.so"
            for name in MODULES
        )
        (self._directory / "config").write_text(
            f"poll_method\tepoll\nsip_listen\t127.0.0.1:{self.port}\nnet_interface\t127.0.0.1\n"
            f"rtp_ports\t{self._rtp}-{self._rtp + 7}\naudio_player\taubridge,loop\n"
            "audio_source\taubridge,loop\naudio_alert\taubridge,alert\nring_aufile\tnone\n"
            f"ctrl_tcp_listen\t127.0.0.1:{self._control}\n"
            f"module_path\t{modules_directory()}\n{modules}\n"
        )
        (self._directory / "accounts").write_text(
            f"<sip:{self.name}@127.0.0.1;transport={self.transport}>;regint=0;answermode=auto;"
            "audio_codecs=PCMU\n"
        )
        self._spawn()
        # To try a port before somebody listens on it can connect a socket with itself.
        await until(lambda: "baresip is ready" in self.log, 10)
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._control)
        self._task = asyncio.get_running_loop().create_task(self._read())
        return self

    def _spawn(self) -> None:
        with open(self._directory / "log", "wb") as log:
            self._process = subprocess.Popen(
                [baresip_path(), "-f", str(self._directory), "-s"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
            )

    async def _read(self) -> None:
        assert self._reader is not None
        try:
            while True:
                length = await self._reader.readuntil(b":")
                text = await self._reader.readexactly(int(length[:-1]) + 1)
                self.events.append(json.loads(text[:-1]))
        except (OSError, asyncio.IncompleteReadError):
            return

    def command(self, command: str, params: str = "") -> None:
        """Give it a command of its menu."""
        assert self._writer is not None
        text = json.dumps({"command": command, "params": params}).encode()
        self._writer.write(b"%d:%s," % (len(text), text))

    @property
    def log(self) -> str:
        """What it said, SIP messages included."""
        return (self._directory / "log").read_text(errors="replace")

    @property
    def happened(self) -> list[str]:
        """The kinds of its events so far."""
        return [str(event.get("type")) for event in self.events if event.get("event")]

    async def stop(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()
        if self._writer is not None:
            self._writer.close()
        if self._process is not None:
            self._process.kill()
            await asyncio.get_running_loop().run_in_executor(None, self._process.wait)
