"""The external recorder: gets a copy of a call's audio by RTP, and is told of its sessions by HTTP.

A session is the stretch of a call that one sender copies. Where that is the server, one that takes
a call over starts a new session; where the consoles send their streams by themselves
(``is_by_consoles``), they go on sending, so the session does, and nobody tells the recorder
anything (requirement A4). Nothing of this may hold up a call: a recorder that does not answer is a
line in the log.

Each notification is a POST of one JSON object to ``recorder_url``: ``{"event": "start" | "stop",
"session", "call", "segment", "generation", "node", "queue", "number", "caller", "parties", "rtp",
"time"}``; ``time`` is wall-clock seconds, ``rtp`` the address to which the server sends the audio
(PCMA, mixed), empty where the consoles send it.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from controlone_ha.conference.engine import Engine, EngineError

if TYPE_CHECKING:
    from controlone_ha.core.calls import Call

log = logging.getLogger("recorder")

TIMEOUT = 5.0


class ExternalRecorder:
    """Copies audio to ``address`` (host:port) unless that ``is_by_consoles``, and tells ``url``;
    empty ones switch that off.
    """

    def __init__(self, engine: Engine, node: str) -> None:
        self._engine = engine
        self._node = node
        self.address = ""
        self.url = ""
        self.is_by_consoles = False

    @property
    def _copies(self) -> bool:
        return bool(self.address) and not self.is_by_consoles

    async def start(self, call: Call, session: str, segment: int) -> bool:
        """Begin the copy of a call that is up; return whether there is one."""
        if self._copies:
            try:
                await self._engine.copy_audio(call.room, copy_of(call.id), self.address)
            except EngineError as error:
                log.error("%s: no copy for the recorder: %s", call.id, error)
                return False
        await self._tell("start", call, session, segment)
        return self._copies

    async def stop(self, call: Call, session: str, segment: int) -> None:
        """End the copy."""
        if self._copies:
            try:
                await self._engine.hang_up(copy_of(call.id))
            except EngineError as error:
                log.warning("%s: %s", call.id, error)
        await self._tell("stop", call, session, segment)

    async def _tell(self, event: str, call: Call, session: str, segment: int) -> None:
        if not self.url:
            return
        import aiohttp

        document: dict[str, Any] = {
            "event": event,
            "session": session,
            "call": call.id,
            "segment": segment,
            "generation": call.generation,
            "node": self._node,
            "queue": call.queue,
            "number": call.number,
            "caller": call.caller,
            "parties": sorted({leg.party for leg in call.legs}),
            "rtp": self.address if self._copies else "",
            "time": time.time(),
        }
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session_:
                async with session_.post(self.url, json=document) as answer:
                    if answer.status >= 300:
                        log.error("%s: the recorder answers %d", call.id, answer.status)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            log.error("%s: the recorder cannot be told: %s", call.id, type(error).__name__)


def copy_of(call_id: str) -> str:
    """Return the name of the leg that carries the copy."""
    return f"{call_id}-copy"
