"""Who follows this node's calls: `ha`, which protects them, and the Console Server. No call logic.

A follower is a connection on ``conference.sock`` that asked to be told. It gets a snapshot, then a
notification for each change. `ha` answers with what its peers have acknowledged: a call is
*protected* when a peer holds its newest version.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from controlone_ha.core.calls import SNAPSHOT, Call
from controlone_ha.jsonrpc import Connection

JsonObject = dict[str, Any]

REMEMBERED = 2000
"""Changes of which it is remembered how long their protection took."""


class SocketFollowers:
    """Implements ``Followers`` for the connections of the socket.

    ``on_ended`` is told of every call that is over.
    """

    def __init__(self, on_ended: Callable[[Call], None] = lambda call: None) -> None:
        self._on_ended = on_ended
        self._told: set[Connection] = set()
        self._protectors: dict[Connection, int] = {}
        self._kept: dict[str, tuple[int, int]] = {}
        self._waiting: dict[str, list[tuple[tuple[int, int], asyncio.Event]]] = {}
        self._sent: dict[str, tuple[tuple[int, int], float]] = {}
        self._delays: deque[float] = deque(maxlen=REMEMBERED)

    def follow(self, connection: Connection, calls: Sequence[Call]) -> JsonObject:
        """Tell a connection every change from now on; return what there is: ``all`` ids, and the
        first of the documents. The others follow like changes.
        """
        self._told.add(connection)
        for call in calls[SNAPSHOT:]:
            connection.notify("call", call.to_json())
        first = [call.to_json() for call in calls[:SNAPSHOT]]
        return {"calls": first, "all": [call.id for call in calls]}

    def protect(self, connection: Connection, peers: int) -> None:
        """Note that a connection hands calls to ``peers`` peers that are reachable now."""
        self._protectors[connection] = peers
        if not self.can_protect:
            for waiters in self._waiting.values():
                for _, event in waiters:
                    event.set()

    def forget(self, connection: Connection) -> None:
        """A connection has gone."""
        self._told.discard(connection)
        if self._protectors.pop(connection, None) is not None and not self.can_protect:
            self._kept.clear()
            self.protect_nothing()

    def protect_nothing(self) -> None:
        """Nobody can protect now: let everybody go on who waits."""
        for waiters in self._waiting.values():
            for _, event in waiters:
                event.set()

    @property
    def can_protect(self) -> bool:
        """True while at least one peer can be reached."""
        return any(peers > 0 for peers in self._protectors.values())

    def acknowledged(self, versions: list[list[Any]]) -> None:
        """Peers hold these: ``[[call, generation, sequence], …]``."""
        for entry in versions:
            call_id, version = str(entry[0]), (int(entry[1]), int(entry[2]))
            sent = self._sent.get(call_id)
            if sent is not None and version >= sent[0]:
                self._delays.append(time.monotonic() - sent[1])
                del self._sent[call_id]
            if version > self._kept.get(call_id, (0, 0)):
                self._kept[call_id] = version
            for wanted, event in self._waiting.get(call_id, ()):
                if version >= wanted:
                    event.set()

    def is_protected(self, call: Call) -> bool:
        """Tell whether a peer holds the newest version of a call."""
        return self._kept.get(call.id, (0, 0)) >= call.version

    def call_changed(self, call: Call) -> None:
        """Tell the followers."""
        document = call.to_json()
        for connection in list(self._told):
            connection.notify("call", document)
        if call.is_live and self.can_protect:
            self._sent[call.id] = (call.version, time.monotonic())
        elif not call.is_live:
            self._kept.pop(call.id, None)
            self._sent.pop(call.id, None)
            self._on_ended(call)

    def event(self, event: JsonObject) -> None:
        """Tell the followers what no document shows."""
        for connection in list(self._told):
            connection.notify("event", event)

    def protection(self) -> JsonObject:
        """Return how long a peer took to hold a change, of the last changes: milliseconds."""
        delays = sorted(self._delays)
        if not delays:
            return {"changes": 0, "p50_ms": None, "p99_ms": None}
        return {
            "changes": len(delays),
            "p50_ms": round(delays[len(delays) // 2] * 1000, 2),
            "p99_ms": round(delays[min(len(delays) - 1, len(delays) * 99 // 100)] * 1000, 2),
        }

    async def wait_protected(self, call: Call, timeout: float) -> None:
        """Wait until a peer holds this version; at once when no peer can be reached."""
        if not self.can_protect or self.is_protected(call):
            return
        event = asyncio.Event()
        waiter = (call.version, event)
        self._waiting.setdefault(call.id, []).append(waiter)
        try:
            await asyncio.wait_for(event.wait(), timeout)
        except TimeoutError:
            return
        finally:
            self._waiting[call.id].remove(waiter)
            if not self._waiting[call.id]:
                del self._waiting[call.id]
