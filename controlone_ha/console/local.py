"""The local socket of the failover client: what the operator's software and the command ask.

JSON-RPC 2.0, one line a message, on ``console.sock`` in the run directory (mode 0600). It stays up
across a switch. Methods of its own: ``status``, ``events`` (then notifications ``state`` with the
status at every change, and what the server tells: ``call``, …), ``monitor``, ``busy``, ``reload``.
Every other method goes to the server; ``wait`` in its parameters bounds in seconds how long the
request may wait for a server during a switch (default: the settings' timeout).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from controlone_ha.console.session import Session
from controlone_ha.jsonrpc import INVALID_PARAMS, METHOD_NOT_FOUND, Connection, RpcError, serve_unix

MAX_WAIT = 600.0
FORWARDED = frozenset(
    ("ping", "servers", "calls", "dial", "answer", "hold", "resume", "transfer", "hangup")
)

Json = dict[str, Any]


class LocalSocket:
    """Serves ``session`` locally."""

    def __init__(self, session: Session, path: Path, reload: Callable[[], Json]) -> None:
        self._session = session
        self._path = path
        self._reload = reload
        self._server: asyncio.AbstractServer | None = None
        self._connections: set[Connection] = set()
        self._is_due = False

    async def start(self) -> None:
        """Serve; raise ``RefusedError`` when another client serves this console already."""
        self._server, self._connections = await serve_unix(self._path, self._handle)

    async def stop(self) -> None:
        """Stop serving and remove the socket."""
        if self._server is not None:
            self._server.close()
            for connection in list(self._connections):
                await connection.close()
            self._path.unlink(missing_ok=True)

    def changed(self) -> None:
        """Tell subscribers the new status, once for everything that changes in one turn."""
        if not self._is_due and any("events" in item.context for item in self._connections):
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._is_due = False
        self.notify("state", self._session.status())

    def notify(self, method: str, params: Json) -> None:
        """Pass a notification on to every subscriber; never blocks."""
        for connection in list(self._connections):
            if "events" in connection.context:
                connection.notify(method, params)

    async def _handle(self, connection: Connection, method: str, params: Json) -> Any:
        session = self._session
        if method == "status":
            return session.status()
        if method == "events":
            connection.context["events"] = True
            return session.status()
        if method == "busy":
            is_busy = params.get("busy")
            if not isinstance(is_busy, bool):
                raise RpcError(INVALID_PARAMS, "busy: expected true or false")
            session.set_busy(is_busy)
            return {"busy": session.core.is_busy}
        if method == "monitor":
            queues, on = params.get("queues"), params.get("on", True)
            if not isinstance(queues, list) or not all(isinstance(item, str) for item in queues):
                raise RpcError(INVALID_PARAMS, "queues: expected a list of queues")
            if not isinstance(on, bool):
                raise RpcError(INVALID_PARAMS, "on: expected true or false")
            return {"queues": await session.monitor(queues, on)}
        if method == "reload":
            return self._reload()
        if method not in FORWARDED:
            raise RpcError(METHOD_NOT_FOUND, f"no method {method[:64]!r} here")
        wait = params.pop("wait", session.config.rules.timeout)
        if not isinstance(wait, int | float) or isinstance(wait, bool) or not 0 <= wait <= MAX_WAIT:
            raise RpcError(INVALID_PARAMS, f"wait: expected seconds from 0 to {MAX_WAIT:g}")
        return await session.call(method, params, timeout=float(wait))
