"""A node that takes calls over by adoption: a real Asterisk, led from inside the test."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from controlone_ha.conference import asterisk as engine
from controlone_ha.conference.adoption.service import Adoptions
from controlone_ha.conference.ari_engine import AriEngine
from controlone_ha.conference.engine import AdoptedLeg, Answered, Event, Target, Up
from controlone_ha.core.calls import Call, Leg, call_from_json
from controlone_ha.lab.parts import Asterisk
from tests.contract.conference_support import Server
from tests.waiting import until


class Taker:
    """The second node. ``take`` adopts every leg of a call and lets the parties hear each other."""

    def __init__(
        self,
        directory: Path,
        parts: Asterisk,
        free_port: Callable[[], int],
        *,
        bind: str = "127.0.0.1",
    ) -> None:
        directory.mkdir()
        self.node = Server(directory, parts, free_port)
        self.bind = bind
        if not bind:
            (directory / "config" / "conference").write_text(
                f"config conference 'default'\n\toption port '{self.node.port}'\n"
            )
        self.port = free_port()
        self.engine = AriEngine(lambda: engine.control_access(self.node.paths))
        self.events: list[Event] = []
        self.room = ""
        self.adoptions = self._new()

    def _new(self) -> Adoptions:
        return Adoptions(self._call, self.node.directory / "run")

    async def _call(self, name: str, uri: str, caller: str, timeout: float) -> None:
        await self.engine.call(name, Target(uri=uri), caller=caller, timeout=timeout)

    def on_engine(self, event: Event) -> None:
        """Note what the engine tells."""
        self.events.append(event)

    def told(self, kind: type[Event], leg: str = "") -> list[Any]:
        """Return the events of a kind."""
        return [
            event
            for event in self.events
            if isinstance(event, kind) and (not leg or getattr(event, "leg", "") == leg)
        ]

    async def start(self) -> None:
        """Start Asterisk, the sockets, and lead."""
        self.node.start_asterisk()
        await self.engine.start(self)
        await until(lambda: bool(self.told(Up)), 10)
        await self.adoptions.start(self.bind, self.port)

    async def restart_adoptions(self, pause: float = 0.0) -> None:
        """What a restart of the controller is to the adopted legs."""
        self.adoptions.stop()
        await asyncio.sleep(pause)
        self.adoptions = self._new()
        await self.adoptions.start(self.bind, self.port)

    async def take(self, call: Call, generation: int = 2) -> dict[str, AdoptedLeg]:
        """Adopt the legs of a call, join them; party -> leg."""
        taken = {}
        for leg in call.live_legs():
            taken[leg.party] = await self.adopt(leg, generation)
        self.room = secrets.token_hex(4)
        await self.engine.open_room(self.room, [leg.name for leg in taken.values()])
        return taken

    async def adopt(self, leg: Leg, generation: int = 2, timeout: float = 5.0) -> AdoptedLeg:
        """Adopt one leg, under a name of its own."""
        name = f"taken-{leg.id}-{generation}-{secrets.token_hex(2)}"
        taken = await self.adoptions.adopt(leg, generation, name=name, timeout=timeout)
        await until(lambda: bool(self.told(Answered, name)), 5)
        return taken

    async def stop(self) -> None:
        """End everything."""
        self.adoptions.stop()
        await self.engine.stop()
        await self.node.stop()


@contextlib.asynccontextmanager
async def taking(taker: Taker) -> AsyncIterator[Taker]:
    """Run the second node."""
    try:
        await taker.start()
        yield taker
    finally:
        await taker.stop()


def the_call(server: Server) -> Call:
    """Return the only live call of a node, as its peers have it."""
    (document,) = server.live
    return call_from_json(document)
