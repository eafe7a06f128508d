"""The anchor of the takeover figures: the same INVITEs with Replaces by a bare ARI script.

No plan, no documents, no events for anybody: POST a channel for each leg, a bridge as soon as both
are up, some calls at a time. It asks Asterisk over the same WebSocket as the product does, the
fastest way there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

from controlone_ha.conference import asterisk
from controlone_ha.conference.ari import AriClient
from controlone_ha.conference.asterisk_files import ARI_APPLICATION
from controlone_ha.core.calls import Call, Leg
from controlone_ha.core.takeover import replaces_of
from tests.bench.takeover_world import Node

IN_FLIGHT = 25
"""Calls at a time: of 10, 25 and 50 the fastest."""
LEG_TIMEOUT = 10.0


class BareScript:
    """Takes calls over at an Asterisk that nobody else leads."""

    def __init__(self, node: Node) -> None:
        self._up = asyncio.Event()
        self._legs: dict[str, asyncio.Future[bool]] = {}
        self._client = AriClient(
            lambda: asterisk.control_access(node.paths),
            on_up=lambda _info: self._up.set(),
            on_down=lambda _is_dead: None,
            on_event=self._on_event,
            event_types=("StasisStart", "ChannelDestroyed"),
        )
        self._slots = asyncio.Semaphore(IN_FLIGHT)

    def _on_event(self, event: dict[str, Any]) -> None:
        waiting = self._legs.pop(str(event["channel"]["id"]), None)
        if waiting is not None and not waiting.done():
            waiting.set_result(event["type"] == "StasisStart")

    async def take(self, calls: Sequence[Call]) -> tuple[int, float]:
        """Return how many calls were taken, and in how many seconds."""
        runner = asyncio.create_task(self._client.run())
        try:
            async with asyncio.timeout(15):
                await self._up.wait()
            began = time.monotonic()
            taken = await asyncio.gather(*(self._call(call) for call in calls))
            return sum(taken), time.monotonic() - began
        finally:
            runner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await runner

    async def _call(self, call: Call) -> bool:
        async with self._slots:
            legs = call.live_legs()
            found = await asyncio.gather(*(self._leg(leg) for leg in legs))
            if not all(found):
                return False
            room = f"bare-{call.id}"
            await self._client.request("POST", f"bridges/{room}", {"type": "mixing"})
            channels = ",".join(f"bare-{leg.id}" for leg in legs)
            await self._client.request("POST", f"bridges/{room}/addChannel", {"channel": channels})
            return True

    async def _leg(self, leg: Leg) -> bool:
        name = f"bare-{leg.id}"
        up = self._legs[name] = asyncio.get_running_loop().create_future()
        endpoint = f"gateway-{leg.gateway}" if leg.gateway else "console"
        variables = {
            "PJSIP_HEADER(add,Replaces)": replaces_of(leg),
            "PJSIP_HEADER(add,Require)": "replaces",
        }
        query = {"endpoint": f"PJSIP/{endpoint}/{leg.remote_target}", "app": ARI_APPLICATION}
        await self._client.request("POST", f"channels/{name}", query, {"variables": variables})
        try:
            return await asyncio.wait_for(up, LEG_TIMEOUT)
        except TimeoutError:
            return False
