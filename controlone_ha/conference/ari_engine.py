"""Asterisk as the engine: the calls of ``Engine`` as ARI requests, ARI's events as ours.

Legs are channels, rooms are mixing bridges, and their names are the identifiers there. A party that
calls in comes through the dialplan, which hands over all identifiers of its dialog at once, so that
no request is needed for them; of a party that was called they are asked with one ``EVAL``.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from controlone_ha.conference.ari import AriClient, in_path
from controlone_ha.conference.asterisk import ControlAccess
from controlone_ha.conference.asterisk_files import (
    ARI_APPLICATION,
    CONSOLE_ENDPOINT,
)
from controlone_ha.conference.dialog_fields import (
    CALL_ID_EXPRESSION,
    CALLEE_EXPRESSION,
    MAX_ROUTES,
    callee_dialog,
    caller_dialog,
    route_expression,
    split_routes,
)
from controlone_ha.conference.engine import (
    Answered,
    Dialog,
    Down,
    Ended,
    EngineError,
    EngineListener,
    Event,
    HoldChanged,
    Offered,
    Recorded,
    Ringing,
    Survey,
    Target,
    Up,
)
from controlone_ha.core.admission import Refusal

log = logging.getLogger("engine")

JsonObject = dict[str, Any]

ENTERING = 2.0
"""Seconds that a channel which we make may take to become ours."""

_URI = re.compile(r"sips?:[A-Za-z0-9\[\]:.@_+*#%!~$&=?;\-]{1,200}")
_STATUS_OF_CAUSE: Mapping[int, int] = {
    1: 404, 3: 404, 16: 603, 17: 486, 18: 408, 19: 480, 20: 480, 21: 403, 22: 410, 26: 404,
    27: 502, 28: 484, 29: 501, 31: 480, 34: 503, 38: 503, 41: 503, 42: 503, 44: 503, 50: 503,
    58: 503, 66: 503, 88: 488, 102: 504, 111: 500, 127: 500,
}  # fmt: skip
"""SIP status that a Q.850 cause came from, where the engine does not tell the status itself."""


class AriEngine:
    """The node's Asterisk. Implements ``Engine``."""

    def __init__(self, access: Callable[[], ControlAccess], *, use_websocket: bool = True) -> None:
        self._client = AriClient(
            access,
            on_up=self._came_up,
            on_down=self._went_down,
            on_event=self._on_event,
            event_types=tuple(_TRANSLATIONS),
            use_websocket=use_websocket,
        )
        self._listener: EngineListener | None = None
        self._is_known_up = False
        self._entering: dict[str, asyncio.Event] = {}
        self._call_ids: dict[str, str] = {}
        """Of legs that have answered and whose dialog was not asked for yet."""
        self._task: asyncio.Task[None] | None = None

    @property
    def is_up(self) -> bool:
        """True while connected, from when the listener was told.

        What was asked for earlier would be taken for something of the engine before.
        """
        return self._is_known_up and self._client.is_up

    async def start(self, listener: EngineListener) -> None:
        """Connect as soon as Asterisk runs, and again whenever it comes back."""
        self._listener = listener
        self._task = asyncio.get_running_loop().create_task(self._client.run())

    async def stop(self) -> None:
        """Disconnect; calls go on in Asterisk."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    # --- what is asked ---------------------------------------------------------------------------

    async def call(self, leg: str, target: Target, *, caller: str, timeout: float) -> None:
        """Call a party; ``timeout``: seconds until it must have answered."""
        if not _URI.fullmatch(target.uri):
            raise EngineError(f"got {target.uri!r}, expected a SIP URI")
        endpoint = f"gateway-{target.gateway}" if target.gateway else CONSOLE_ENDPOINT
        variables: dict[str, str] = {}
        if target.answer_at_once:
            # The two headers by which phones know a call that their operator has asked for.
            variables["PJSIP_HEADER(add,Call-Info)"] = "<sip:console>;answer-after=0"
            variables["PJSIP_HEADER(add,Alert-Info)"] = "<http://console>;info=alert-autoanswer"
        if target.replaces:
            variables["PJSIP_HEADER(add,Replaces)"] = target.replaces
            variables["PJSIP_HEADER(add,Require)"] = "replaces"
        await self._client.request(
            "POST",
            f"channels/{in_path(leg)}",
            {
                "endpoint": f"PJSIP/{endpoint}/{target.uri}",
                "app": ARI_APPLICATION,
                "appArgs": "out",
                "callerId": caller,
                "timeout": max(1, round(timeout)),
            },
            {"variables": variables} if variables else None,
        )

    async def ring(self, leg: str) -> None:
        """Tell a party that calls in that somebody is being rung (180); one that has been answered
        hears a ringing tone.
        """
        await self._client.request("POST", f"channels/{in_path(leg)}/ring")

    async def stop_ringing(self, leg: str) -> None:
        """End the ringing tone of a party that has been answered."""
        await self._client.request("DELETE", f"channels/{in_path(leg)}/ring")

    async def answer(self, leg: str) -> None:
        """Answer a party that calls in (200)."""
        await self._client.request("POST", f"channels/{in_path(leg)}/answer")

    async def hang_up(self, leg: str, refusal: Refusal | None = None) -> None:
        """End a leg: BYE, CANCEL or a final answer; one that is gone is as wanted."""
        query = {"reason_code": str(refusal.cause)} if refusal and refusal.cause else None
        try:
            await self._client.request("DELETE", f"channels/{in_path(leg)}", query)
        except EngineError as error:
            if not error.is_gone:
                raise

    async def dialog(self, leg: str) -> Dialog:
        """Return the identifiers of the dialog of a party that was called and has answered."""
        call_id = self._call_ids.pop(leg, "") or await self._evaluate(leg, CALL_ID_EXPRESSION)
        try:
            dialog = callee_dialog(await self._evaluate(leg, CALLEE_EXPRESSION), call_id)
        except ValueError as error:
            log.warning("the dialog of %s is not understood: %s", leg, error)
            return Dialog(call_id=call_id)
        # Proxies are rare: the second is asked for when there is a first.
        for number in range(2, MAX_ROUTES + 1):
            if len(dialog.route_set) < number - 1:
                break
            more = split_routes(await self._evaluate(leg, route_expression(number)))
            dialog = replace(dialog, route_set=(*dialog.route_set, *more))
        return dialog

    async def _evaluate(self, leg: str, expression: str) -> str:
        answer = await self._client.request(
            "GET", f"channels/{in_path(leg)}/variable", {"variable": f"EVAL({expression})"}
        )
        return str((answer or {}).get("value", ""))

    async def open_room(self, room: str, legs: Sequence[str]) -> None:
        """Make a room with ``legs`` in it."""
        await self._client.request("POST", f"bridges/{in_path(room)}", {"type": "mixing"})
        if legs:
            await self.join(room, legs)

    async def join(self, room: str, legs: Sequence[str]) -> None:
        """Let legs hear each other."""
        await self._client.request(
            "POST", f"bridges/{in_path(room)}/addChannel", {"channel": ",".join(legs)}
        )

    async def leave(self, room: str, legs: Sequence[str]) -> None:
        """Take legs out of a room; they stay up and hear nothing."""
        await self._client.request(
            "POST", f"bridges/{in_path(room)}/removeChannel", {"channel": ",".join(legs)}
        )

    async def close_room(self, room: str) -> None:
        """Remove a room; one that is gone is as wanted."""
        try:
            await self._client.request("DELETE", f"bridges/{in_path(room)}")
        except EngineError as error:
            if not error.is_gone:
                raise

    async def record(self, room: str, name: str) -> None:
        """Record a room into ``name``.wav below the directory of recordings."""
        await self._client.request(
            "POST",
            f"bridges/{in_path(room)}/record",
            {"name": name, "format": "wav", "ifExists": "overwrite", "beep": "false"},
        )

    async def stop_recording(self, name: str) -> None:
        """End a recording and keep it; one that is over is as wanted."""
        try:
            await self._client.request("POST", f"recordings/live/{in_path(name)}/stop")
        except EngineError as error:
            if not error.is_gone:
                raise

    async def copy_audio(self, room: str, leg: str, address: str) -> None:
        """Send what is heard in a room to ``address`` (host:port) by RTP, as leg ``leg``."""
        # The channel is made before it is ours: until then no room takes it.
        entered = self._entering[leg] = asyncio.Event()
        try:
            await self._client.request(
                "POST",
                "channels/externalMedia",
                {
                    "channelId": leg,
                    "app": ARI_APPLICATION,
                    "external_host": address,
                    "format": "alaw",
                    "direction": "both",
                },
            )
            await asyncio.wait_for(entered.wait(), ENTERING)
        except TimeoutError:
            await self.hang_up(leg)
            raise EngineError(f"{leg}: not taken over by the application") from None
        finally:
            del self._entering[leg]
        await self.join(room, [leg])

    async def survey(self) -> Survey:
        """Return what exists, for a controller that was restarted."""
        channels = await self._client.request("GET", "channels") or []
        bridges = await self._client.request("GET", "bridges") or []
        return Survey(
            legs={
                str(channel["id"]): channel.get("state") == "Up"
                for channel in channels
                if _is_ours(channel)
            },
            rooms={
                str(bridge["id"]): [str(name) for name in bridge.get("channels", [])]
                for bridge in bridges
            },
        )

    async def reload(self) -> None:
        """Have Asterisk read gateways and dialplan again; calls go on."""
        for module in ("res_pjsip", "res_pjsip_endpoint_identifier_ip", "pbx_config"):
            await self._client.request("PUT", f"asterisk/modules/{module}.so")

    # --- what is told ----------------------------------------------------------------------------

    def _tell(self, event: Event) -> None:
        if self._listener is not None:
            self._listener.on_engine(event)

    def _came_up(self, info: JsonObject) -> None:
        started_at = str(info.get("status", {}).get("startup_time", ""))
        self._is_known_up = True
        self._tell(Up(identity=started_at, age=_age(started_at)))

    def _went_down(self, is_dead: bool) -> None:
        self._is_known_up = False
        self._call_ids.clear()
        self._tell(Down(is_dead=is_dead))

    def _on_event(self, raw: JsonObject) -> None:
        kind = str(raw.get("type"))
        if kind == "StasisStart" and (entered := self._entering.get(str(raw["channel"]["id"]))):
            entered.set()
            return
        translate = _TRANSLATIONS.get(kind)
        if translate is None:
            return
        try:
            event = translate(raw)
        except (KeyError, TypeError, ValueError) as error:
            log.warning("an event of Asterisk is not understood: %r in %.200r", error, raw)
            return
        if isinstance(event, Answered):
            self._call_ids[event.leg] = str(raw["channel"].get("protocol_id") or "")
        elif isinstance(event, Ended):
            self._call_ids.pop(event.leg, None)
        if event is not None:
            self._tell(event)


def _is_ours(channel: Mapping[str, Any]) -> bool:
    """Tell parties' legs from the channels inside Asterisk and the probes' calls."""
    name = str(channel.get("name", ""))
    dialplan = channel.get("dialplan") or {}
    return name.startswith("PJSIP/") and dialplan.get("app_name") in (
        "Stasis",
        "",
        None,
        "AppDial2",
    )


def _started(raw: JsonObject) -> Event | None:
    channel = raw["channel"]
    arguments = raw.get("args") or []
    if arguments[:1] != ["in"]:
        if str(channel.get("name", "")).startswith("PJSIP/"):
            return Answered(leg=str(channel["id"]))
        return None
    if str(channel["dialplan"]["exten"]) == "h":
        return None
    endpoint = str(channel["name"]).removeprefix("PJSIP/").rpartition("-")[0]
    dialog = None
    if len(arguments) > 1:
        try:
            dialog = caller_dialog(base64.b64decode(arguments[1], validate=True).decode())
        except (binascii.Error, ValueError) as error:
            log.warning("the dialog of %s is not understood: %s", channel["id"], error)
    return Offered(
        leg=str(channel["id"]),
        number=str(channel["dialplan"]["exten"]),
        caller=str(channel.get("caller", {}).get("number") or ""),
        gateway=endpoint.removeprefix("gateway-") if endpoint.startswith("gateway-") else "",
        dialog=dialog,
    )


def _dialled(raw: JsonObject) -> Event | None:
    # A channel's change of state says the same of 180 and nothing of 183: it is not subscribed to.
    if raw.get("dialstatus") in ("RINGING", "PROGRESS"):
        return Ringing(leg=str(raw["peer"]["id"]))
    return None


def _destroyed(raw: JsonObject) -> Event:
    cause = int(raw.get("cause") or 0)
    status = int(raw.get("tech_cause") or 0)
    if not 300 <= status < 700:
        status = _STATUS_OF_CAUSE.get(cause, 0)
    return Ended(leg=str(raw["channel"]["id"]), status=status, cause=cause)


def _left(raw: JsonObject) -> Event:
    return Ended(leg=str(raw["channel"]["id"]), status=0, cause=16)


def _held(raw: JsonObject) -> Event:
    return HoldChanged(leg=str(raw["channel"]["id"]), is_held=raw["type"] == "ChannelHold")


def _recorded(raw: JsonObject) -> Event:
    recording = raw["recording"]
    return Recorded(
        name=str(recording["name"]),
        seconds=float(recording.get("duration") or 0),
        is_failed=raw["type"] == "RecordingFailed",
    )


_TRANSLATIONS: Mapping[str, Callable[[JsonObject], Event | None]] = {
    "StasisStart": _started,
    "Dial": _dialled,
    "ChannelDestroyed": _destroyed,
    "StasisEnd": _left,
    "ChannelHold": _held,
    "ChannelUnhold": _held,
    "RecordingFinished": _recorded,
    "RecordingFailed": _recorded,
}


def _age(startup_time: str) -> float:
    """Return how many seconds ago that was (ISO 8601 with milliseconds and zone)."""
    for form in ("%Y-%m-%dT%H:%M:%S.%f%z", "%Y-%m-%dT%H:%M:%S%z"):
        try:
            from datetime import datetime

            return max(0.0, time.time() - datetime.strptime(startup_time, form).timestamp())
        except ValueError:
            continue
    return 0.0
