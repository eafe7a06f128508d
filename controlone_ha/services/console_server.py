"""Client of the Console Server's control socket, for `ha`: enable, disable, publish, status.

One request is one connection: nothing to keep alive, and a server that was killed and respawned is
found again without any care. Every request ends within its timeout, also with a frozen server: the
kernel accepts for it, no answer comes, and the caller gets ``ConsoleServerTimeoutError``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlone_ha.errors import ControlOneError, ServiceError
from controlone_ha.jsonrpc import (
    MAX_LINE,
    Connection,
    RpcError,
    connect_unix,
    decode,
    encode_request,
    error_of,
)

TIMEOUT = 2.0
_AGAIN = 0.02
_QUEUE_FULL = object()


class ConsoleServerTimeoutError(ServiceError):
    """The Console Server accepts but does not answer in time: frozen, or badly overloaded."""

    code = "console_server_silent"


class ConsoleServerDownError(ServiceError):
    """Nobody serves the control socket: the Console Server does not run."""

    code = "console_server_down"


@dataclass(frozen=True, kw_only=True)
class ConsoleServerStatus:
    """What the server says of itself; ``since``: Unix time in seconds of the last change."""

    serving: bool
    reason_code: str
    reason_text: str
    since: float
    consoles: int
    connections: int
    pid: int


class ConsoleServerClient:
    """The orders of `ha` to the Console Server of this node. Every accepted order returns status.

    All methods raise ``ConsoleServerDownError``, ``ConsoleServerTimeoutError``, or
    ``ServiceError`` when the server refuses the order or answers nonsense.
    """

    def __init__(self, socket: Path, *, timeout: float = TIMEOUT) -> None:
        self._socket = socket
        self._timeout = timeout

    async def enable(self) -> ConsoleServerStatus:
        """Let it accept consoles."""
        return await self._ask("enable", {})

    async def disable(self, reason: Mapping[str, Any]) -> ConsoleServerStatus:
        """Let it send its consoles away and refuse logins; ``reason`` has ``code`` and ``text``."""
        return await self._ask("disable", {"reason": dict(reason)})

    async def publish(
        self,
        *,
        node: str,
        role: str,
        state: str,
        servers: Sequence[Mapping[str, Any]] | None = None,
    ) -> ConsoleServerStatus:
        """Tell it what pings answer, and the servers consoles may go to (None: as before).

        Each of ``servers`` has ``name`` and, as far as known, ``address``, ``port``, ``role``,
        ``state``, ``text`` and ``serving``.
        """
        params: dict[str, Any] = {"node": node, "role": role, "state": state}
        if servers is not None:
            params["servers"] = [dict(server) for server in servers]
        return await self._ask("publish", params)

    async def status(self) -> ConsoleServerStatus | None:
        """Return what it says of itself; None: it does not run."""
        try:
            return await self._ask("status", {})
        except ConsoleServerDownError:
            return None

    async def _ask(self, method: str, params: dict[str, Any]) -> ConsoleServerStatus:
        try:
            async with asyncio.timeout(self._timeout):
                while True:
                    result = await self._exchange(encode_request(method, params, 1))
                    if result is not _QUEUE_FULL:
                        return _parse(result)
                    await asyncio.sleep(_AGAIN)
        except TimeoutError as error:
            raise ConsoleServerTimeoutError(
                f"the Console Server did not answer {method!r} within {self._timeout:g} s"
            ) from error
        except RpcError as error:
            raise ServiceError(f"the Console Server refused {method!r}: {error}") from error

    async def _exchange(self, request: bytes) -> Any:
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._socket), limit=MAX_LINE)
        except OSError as error:  # no such file, refused: nobody serves it
            raise ConsoleServerDownError(f"the Console Server does not run: {error}") from error
        try:
            writer.write(request)
            line = await reader.readline()
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOTCONN:
                # The server is frozen or behind and its queue of connections full: the kernel
                # says "try again", which the loop takes for connected.
                return _QUEUE_FULL
            raise ConsoleServerDownError(f"the Console Server went away: {error}") from error
        finally:
            writer.transport.abort()
        if not line.endswith(b"\n"):
            raise ConsoleServerDownError("the Console Server went away before it answered")
        message = decode(line)
        if message.error is not None:
            raise error_of(message)
        return message.result


class ConsoleServerEvents:
    """Listens to what the Console Server tells, for as long as ``run`` runs.

    ``on_event(kind, params)`` gets ``lost`` (``{"console", "server", "calls"}``: a console has come
    and says that it lost that server) and ``presence``. ``on_start(presence)`` gets the snapshot
    at each new connection, ``on_end`` when it is over. A server that does not run is looked for
    every ``AGAIN`` seconds.
    """

    AGAIN = 1.0

    def __init__(
        self,
        socket: Path,
        kinds: Sequence[str],
        on_event: Callable[[str, dict[str, Any]], None],
        on_start: Callable[[dict[str, Any]], None] = lambda presence: None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._socket = socket
        self._kinds = list(kinds)
        self._on_event = on_event
        self._on_start = on_start
        self._on_end = on_end

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            with contextlib.suppress(OSError, TimeoutError, ControlOneError):
                await self._listen()
            await asyncio.sleep(self.AGAIN)

    async def _listen(self) -> None:
        connection = await connect_unix(self._socket, self._told)
        try:
            presence = await connection.call("events", {"kinds": self._kinds}, timeout=TIMEOUT)
            self._on_start(presence)
            await connection.context["task"]
        finally:
            self._on_end()
            await connection.close()

    async def _told(self, connection: Connection, method: str, params: dict[str, Any]) -> None:
        if method in self._kinds:
            self._on_event(method, params)


def _parse(result: Any) -> ConsoleServerStatus:
    try:
        return ConsoleServerStatus(
            serving=bool(result["serving"]),
            reason_code=str(result["reason"]["code"]),
            reason_text=str(result["reason"]["text"]),
            since=float(result["since"]),
            consoles=int(result["consoles"]),
            connections=int(result["connections"]),
            pid=int(result["pid"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ServiceError(f"the Console Server answered nonsense: {error!r}") from error
