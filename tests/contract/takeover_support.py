"""Conference Servers for takeovers, started once for a whole module, at addresses of their own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from controlone_ha.core.calls import CallState
from controlone_ha.lab.parts import Asterisk
from controlone_ha.peers.keys import ensure_identity
from tests.contract.conference_support import Server, phones
from tests.phone import Phone, header, strength
from tests.waiting import freeze, thaw, until

Json = dict[str, Any]

TAKEN = {True: "taken", False: "fallback"}
"""Outcome of a leg whose party knows Replaces, or does not."""

both_kinds = pytest.mark.parametrize("knows_replaces", [True, False], ids=["replaces", "420"])


class Servers:
    """Servers at 127.0.0.1, 127.0.0.2, …; ``run`` runs a test's story on their loop."""

    def __init__(
        self,
        directory: Path,
        parts: Asterisk,
        free_port: Callable[[], int],
        count: int,
        *,
        queues: str = "config queue '100'\n",
        settle: str = "0",
    ) -> None:
        self.runner = asyncio.Runner()
        self.servers: list[Server] = []
        self.addresses: dict[Server, str] = {}
        for number in range(1, count + 1):
            name = f"n{number}"
            folder = directory / name
            folder.mkdir()
            server = Server(folder, parts, free_port)
            self.addresses[server] = address = f"127.0.0.{number}"
            (folder / "config" / "conference").write_text(
                f"config conference 'default'\n\toption bind '{address}'\n"
                f"\toption settle '{settle}'\n"
                f"\toption port '{server.port}'\n\toption tls_port '{free_port()}'\n"
                f"\toption adoption_port '{_two_ports(free_port)}'\n{queues}"
            )
            (folder / "config" / "ha").write_text(
                f"config ha 'default'\n\toption name '{name}'\n\toption role 'master'\n"
                "\toption secret 'laboratory-secret'\n"
            )
            ensure_identity(server.paths, name)
            self.servers.append(server)
        self.first, self.second = self.servers[:2]

    async def start(self) -> None:
        """Start all of them."""
        await asyncio.gather(*(server.start() for server in self.servers))

    def run(self, story: Coroutine[Any, Any, None]) -> None:
        """Run a story; then nothing may be left anywhere."""
        self.runner.run(self._tidily(story))

    async def _tidily(self, story: Coroutine[Any, Any, None]) -> None:
        try:
            await story
        finally:
            self.wake()
            for server in self.servers:
                await self.revive(server)
                for call in server.live:
                    await server.call("release", calls=[[call["id"], 1000, "nobody"]])
                await server.call("consoles", consoles=[])
                await server.until_over()
                server.events.clear()
                server.documents.clear()
        assert not any("Traceback" in server.log for server in self.servers)

    @staticmethod
    def kill(server: Server) -> None:
        """Kill Asterisk and controller."""
        server.kill("asterisk")
        server.kill("controller")

    @staticmethod
    async def revive(server: Server) -> None:
        """Start a server again that was killed, without what it kept: a new machine."""
        assert server.controller is not None and server.connection is not None
        if server.controller.poll() is None:
            return
        await server.connection.close()
        for path in server.paths.run_dir.glob("*.jsonl"):
            path.unlink()
        server.documents.clear()
        await server.start()

    def freeze(self) -> None:
        """Freeze the first server's Asterisk: what it is sent waits for it."""
        assert self.first.asterisk is not None
        freeze(self.first.asterisk.pid)

    def wake(self) -> None:
        """Let it go on; one that was killed stays so."""
        assert self.first.asterisk is not None
        if self.first.asterisk.poll() is None:
            thaw(self.first.asterisk.pid)

    @asynccontextmanager
    async def configured(self, more: str) -> AsyncIterator[None]:
        """With ``more`` in the settings of all of them; without it afterwards."""
        files = {server: server.directory / "config" / "conference" for server in self.servers}
        before = {server: file.read_text() for server, file in files.items()}
        try:
            for server, file in files.items():
                file.write_text(before[server] + more)
                await server.call("reload")
            yield
        finally:
            self.wake()
            for server, file in files.items():
                file.write_text(before[server])
                await server.call("reload")

    @asynccontextmanager
    async def talking(self, trunk: Phone, desk: Phone) -> AsyncIterator[Json]:
        """A call of ``trunk`` with the console ``desk`` at the first server: its document."""
        async with phones(trunk, desk):
            await self.first.present(desk)
            trunk.dial("100", self.first.port)
            await until(lambda: [call["state"] for call in self.first.live] == [CallState.UP], 10)
            await asyncio.wait_for(trunk.call.answered.wait(), 5)
            for server in self.servers[1:]:
                await server.present(desk)
            yield self.first.live[0]

    async def take(
        self, document: Json, *, is_frozen: bool = True, by: Server | None = None
    ) -> dict[str, str]:
        """Have the second server, or ``by``, take a call; return what became of each role's leg."""
        taker = by or self.second
        if is_frozen:
            self.freeze()
        await order(taker, document)
        await until(lambda: told(taker), 15)
        (event,) = told(taker)
        return {leg["role"]: leg["outcome"] for leg in event["legs"]}

    async def state_there(self, state: CallState) -> Json:
        """Wait until the second server's only call is in a state; return the document."""
        await until(lambda: [call["state"] for call in self.second.live] == [state], 10)
        return self.second.live[0]


async def order(taker: Server, document: Json) -> None:
    """Have a server begin to take a call."""
    answer = await taker.call("take", calls=[document], ground="refused", asks_parties=False)
    assert answer["accepted"] == [document["id"]]


def told(server: Server) -> list[Json]:
    """The takeovers that a server has told of."""
    return [event for event in server.events if event["kind"] == "taken_over"]


def _two_ports(free_port: Callable[[], int]) -> int:
    """A port whose next one is free as well: that is the one for TLS."""
    port = free_port()
    while (following := free_port()) != port + 1:
        port = following
    return port


@contextlib.contextmanager
def started(
    parts: Asterisk, free_port: Callable[[], int], count: int, **options: str
) -> Iterator[Servers]:
    """Servers that run."""
    directory = Path(tempfile.mkdtemp(prefix="c1-", dir="/tmp"))
    directory.chmod(0o711)
    made = Servers(directory, parts, free_port, count, **options)
    try:
        made.runner.run(made.start())
        yield made
    finally:
        for server in made.servers:
            made.runner.run(server.stop())
        made.runner.close()
        shutil.rmtree(directory, ignore_errors=True)


def invites(phone: Phone, server: str) -> list[str]:
    """The INVITEs that a phone got from a server."""
    return [
        text
        for text in phone.messages
        if text.startswith("INVITE ") and server in header(text, "Contact")
    ]


async def hear_each_other(*pairs: tuple[Phone, int]) -> None:
    """Wait until each phone hears its tone."""

    def hears(phone: Phone, tone: int) -> bool:
        last = phone.media.tail(1600)
        return len(last) == 1600 and strength(last, tone) > 0.5

    for phone, tone in pairs:
        phone.media.sound.clear()
        await until(functools.partial(hears, phone, tone), 30)
