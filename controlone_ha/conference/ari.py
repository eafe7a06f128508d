"""The wire to Asterisk's control interface (ARI): one WebSocket for events, requests beside it.

Theory of operation. ``AriClient.run`` keeps a WebSocket open: it tries the port of the control
interface, cheaply, until something listens, asks who is there (``/asterisk/info``: version and time
of start), opens the WebSocket, and hands every event to ``on_event`` until it ends. Requests go
over the same WebSocket where Asterisk can do that (22.5, 21.10, 20.15 and later): they cost half of
what an HTTP request costs, and events and answers then come in one order. Otherwise they go over
kept-alive HTTP connections on loopback. Nothing here knows what a call is.

aiohttp is the one client library: WebSocket and HTTP in one, well kept, in OpenWrt's feed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import aiohttp

from controlone_ha.conference.asterisk import ControlAccess
from controlone_ha.conference.asterisk_files import ARI_APPLICATION
from controlone_ha.conference.engine import EngineError

log = logging.getLogger("ari")

JsonObject = dict[str, Any]

LOOK = 0.1
"""Seconds between two looks whether Asterisk listens."""

REQUEST_TIMEOUT = 5.0
HEARTBEAT = 5.0
"""Seconds between WebSocket pings: a frozen Asterisk is noticed so, beside the SIP watchdog."""

KEEP_ALIVE = 15.0
"""Seconds an idle HTTP connection is kept; Asterisk closes it after 30."""

_FIRST_WITH_REQUESTS = {20: 15, 21: 10, 22: 5}


def takes_requests(version: str) -> bool:
    """Tell whether this Asterisk takes requests over the WebSocket."""
    found = re.match(r"(?:GIT-)?(\d+)\.(\d+)", version)
    if not found:
        return False
    major, minor = int(found[1]), int(found[2])
    return major > 22 or minor >= _FIRST_WITH_REQUESTS.get(major, 1 << 30)


class AriClient:
    """One Asterisk. ``access`` is asked anew before every connection: a restart may change it."""

    def __init__(
        self,
        access: Callable[[], ControlAccess],
        *,
        on_up: Callable[[JsonObject], None],
        on_down: Callable[[bool], None],
        on_event: Callable[[JsonObject], None],
        event_types: Sequence[str] = (),
        use_websocket: bool = True,
    ) -> None:
        self._find_access = access
        self._on_up = on_up
        self._on_down = on_down
        self._on_event = on_event
        self._event_types = event_types
        self._was_seen = False
        self._use_websocket = use_websocket
        self._session: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._base = ""
        self._sends_requests = False
        self._waiting: dict[str, asyncio.Future[JsonObject]] = {}
        self._number = 0
        self._complaint = ""

    @property
    def is_up(self) -> bool:
        """True while the WebSocket is open."""
        return self._socket is not None and not self._socket.closed

    async def run(self) -> None:
        """Connect, hand on events, connect again; until cancelled."""
        while True:
            await self._wait_for_listener()
            try:
                await self._converse()
            except (aiohttp.ClientError, EngineError, OSError, TimeoutError, ValueError) as error:
                self._complain(f"{type(error).__name__}: {error}")
            await asyncio.sleep(LOOK / 10 if self._was_seen else LOOK)

    async def _wait_for_listener(self) -> None:
        """Wait until something listens on the port; a look costs no more than one system call."""
        while True:
            try:
                port = self._find_access().port
                if _is_listening(port):
                    return
                if self._was_seen:
                    self._was_seen = False
                    self._on_down(True)
            except EngineError as error:
                self._complain(str(error))
            await asyncio.sleep(LOOK)

    async def _converse(self) -> None:
        access = self._find_access()
        self._base = f"http://127.0.0.1:{access.port}/ari/"
        words = base64.b64encode(f"{access.user}:{access.password}".encode()).decode()
        headers = {"Authorization": f"Basic {words}"}
        connector = aiohttp.TCPConnector(limit=16, keepalive_timeout=KEEP_ALIVE)
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT)
        was_up = False
        async with aiohttp.ClientSession(
            headers=headers, connector=connector, timeout=timeout
        ) as session:
            self._session = session
            try:
                info = await self.request("GET", "asterisk/info")
                version = str(info.get("system", {}).get("version", ""))
                query = {"app": ARI_APPLICATION, "subscribeAll": "false"}
                async with session.ws_connect(
                    self._base + "events",
                    params=query,
                    heartbeat=HEARTBEAT,
                    max_msg_size=1 << 22,
                    compress=0,
                ) as stream:
                    self._socket = stream
                    self._sends_requests = self._use_websocket and takes_requests(version)
                    self._complaint = ""
                    was_up = self._was_seen = True
                    reader = asyncio.create_task(self._read(stream))
                    try:
                        await self._choose_events()
                        self._on_up(info)
                        await reader
                    finally:
                        reader.cancel()
            finally:
                self._session, self._socket, self._sends_requests = None, None, False
                for future in self._waiting.values():
                    if not future.done():
                        future.set_exception(EngineError("connection to Asterisk lost"))
                self._waiting.clear()
                if was_up:
                    self._on_down(False)

    async def _choose_events(self) -> None:
        """Have Asterisk send what is used alone: most of its events are changed variables."""
        if self._event_types:
            allowed = [{"type": name} for name in (*self._event_types, "RESTResponse")]
            path = f"applications/{ARI_APPLICATION}/eventFilter"
            await self.request("PUT", path, None, {"allowed": allowed})

    async def _read(self, stream: aiohttp.ClientWebSocketResponse) -> None:
        async for message in stream:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            try:
                event = json.loads(message.data)
            except ValueError:
                log.warning("Asterisk sent what is no JSON: %.100r", message.data)
                continue
            if event.get("type") == "RESTResponse":
                future = self._waiting.pop(str(event.get("request_id")), None)
                if future is not None and not future.done():
                    future.set_result(event)
                continue
            self._on_event(event)

    def _complain(self, text: str) -> None:
        """Say what is wrong once, not at every attempt."""
        if text != self._complaint:
            self._complaint = text
            log.warning("no connection to Asterisk: %s", text)

    async def request(
        self, method: str, path: str, query: Mapping[str, Any] | None = None, body: Any = None
    ) -> Any:
        """Ask Asterisk; return its answer (None: it has no content). Raises ``EngineError``."""
        if self._session is None:
            raise EngineError("no connection to Asterisk")
        try:
            if self._sends_requests and self._socket is not None:
                status, reason, text = await self._over_websocket(method, path, query, body)
            else:
                status, reason, text = await self._over_http(method, path, query, body)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            what = f"{type(error).__name__} {error}".strip()
            raise EngineError(f"Asterisk did not answer {method} {path}: {what}") from error
        try:
            answer = json.loads(text) if text else None
        except ValueError:
            answer = None
        if status >= 400:
            said = answer.get("message", reason) if isinstance(answer, dict) else reason
            raise EngineError(f"Asterisk: {method} {path}: {status} {said}", status)
        return answer

    async def _over_websocket(
        self, method: str, path: str, query: Mapping[str, Any] | None, body: Any
    ) -> tuple[int, str, str]:
        assert self._socket is not None
        self._number += 1
        number = str(self._number)
        message: JsonObject = {
            "type": "RESTRequest",
            "request_id": number,
            "method": method,
            "uri": path,
        }
        if query:
            message["query_strings"] = [
                {"name": name, "value": str(value)} for name, value in query.items()
            ]
        if body is not None:
            message["content_type"] = "application/json"
            message["message_body"] = json.dumps(body)
        future: asyncio.Future[JsonObject] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            await self._socket.send_str(json.dumps(message))
            async with asyncio.timeout(REQUEST_TIMEOUT):
                answer = await future
        finally:
            self._waiting.pop(number, None)
        return (
            int(answer.get("status_code", 500)),
            str(answer.get("reason_phrase", "")),
            str(answer.get("message_body") or ""),
        )

    async def _over_http(
        self, method: str, path: str, query: Mapping[str, Any] | None, body: Any
    ) -> tuple[int, str, str]:
        assert self._session is not None
        async with self._session.request(
            method, self._base + path, params=query, json=body
        ) as answer:
            return answer.status, answer.reason or "", await answer.text()


def in_path(name: str) -> str:
    """Return a name as one segment of a path."""
    return quote(name, safe="")


def _is_listening(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.2)  # on loopback the kernel answers at once, for a frozen process too
        return probe.connect_ex(("127.0.0.1", port)) == 0
