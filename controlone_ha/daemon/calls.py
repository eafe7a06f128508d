"""Live calls in `ha`: this node's go to the peers, the peers' are kept here.

Theory of operation. `ha` follows the controller of the Conference Server (``conference.sock``): a
snapshot, then every change. Each is sent to all peers that are linked; a peer merges it by
(generation, sequence), writes it down and acknowledges; the acknowledgement goes back to the
controller, which waits for it before it answers a caller. A link that comes up gets everything,
with the list of what there is, so that the peer drops what ended meanwhile. Between the two:

    calls.docs {"calls": [document, …], "all"?: [id, …]}      owner → peer
    calls.kept {"calls": [[id, generation, sequence], …]}     peer → owner

A peer speaks for the calls it owns and for no others; a claim makes it the owner first. Copies lie
in the run directory (memory on OpenWrt): they have to outlive `ha`, not the machine, whose calls
would be over by then; and the owner sends them again with every new link.

When the controller is away nothing changes: its calls go on in Asterisk, and the copies stay. When
`ha` is away, calls go on unprotected, and catch up with the next snapshot.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controlone_ha.conference.keeper import Keeper
from controlone_ha.core.calls import Call, CallTable, call_from_json
from controlone_ha.errors import ControlOneError, ServiceError
from controlone_ha.jsonrpc import Connection, connect_unix

if TYPE_CHECKING:
    from controlone_ha.peers.link import Link

log = logging.getLogger("calls")

Json = dict[str, Any]

AGAIN = 0.5
"""Seconds between two looks for the controller."""

BATCH = 50
"""Documents in one message: 2 kB each, so that no message comes near the limit of a frame."""

TOMBSTONE = 3600.0
SWEEP = 2000
"""Merges between two sweeps of tombstones."""


class LiveCalls:
    """The calls of this node and copies of its peers'; ``on_load``: how many are here changed."""

    def __init__(
        self,
        *,
        name: str,
        socket: Path,
        copies: Path,
        links: Callable[[], Sequence[Link]],
        on_load: Callable[[], None],
    ) -> None:
        self.name = name
        self.own = CallTable()
        self.copies = CallTable()
        self._socket = socket
        self._keeper = Keeper(copies)
        self._links = links
        self._on_load = on_load
        self._connection: Connection | None = None
        self._kept: dict[str, dict[str, tuple[int, int]]] = {}
        self._due: dict[str, Call] = {}
        self._acknowledged: list[list[Any]] = []
        self._merges = 0
        self.on_event: Callable[[Json], None] = lambda _event: None
        self.on_moved: Callable[[Call], None] = lambda _call: None
        self.on_own: Callable[[], None] = lambda: None
        self.on_controller_gone: Callable[[], None] = lambda: None
        for call in self._keeper.load():
            self.copies.merge(call)

    @property
    def count(self) -> int:
        """How many calls are anchored here."""
        return len(self.own)

    @property
    def has_controller(self) -> bool:
        """True while the controller is followed."""
        return self._connection is not None

    # --- the controller --------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow the controller whenever it is there; until cancelled."""
        try:
            while True:
                with contextlib.suppress(OSError, TimeoutError, ControlOneError):
                    await self._follow()
                await asyncio.sleep(AGAIN)
        finally:
            self._keeper.close()

    async def _follow(self) -> None:
        connection = await connect_unix(self._socket, self._told)
        known = {call.id for call in self.own}
        try:
            snapshot = await connection.call("follow", {})
            self._connection = connection
            log.info("following the Conference Server: %d calls", len(snapshot["all"]))
            calls = [call for call in map(self._read, snapshot["calls"]) if call is not None]
            # What came in between is younger than the list.
            younger = {call.id for call in self.own} - known
            self.own.end_missing(self.name, younger.union(snapshot["all"]), time.time())
            for call in calls:
                self.own.merge(call)
            self._tell_peers_count()
            for link in self._links():
                self._send_all(link)
            self._on_load()
            self.on_own()
            await connection.context["task"]
        finally:
            self._connection = None
            self.on_controller_gone()
            await connection.close()

    async def _told(self, _connection: Connection, method: str, params: Json) -> None:
        if method == "event":
            self.on_event(params)
        if method != "call":
            return
        call = self._read(params)
        if call is None or not self.own.merge(call):
            return
        if self.copies.get(call.id) is not None and self.copies.merge(call):
            self._keeper.save(call)  # taken over: it is no longer a call of the failed node
        if not self._due:
            asyncio.get_running_loop().call_soon(self._flush)
        self._due[call.id] = call
        if not call.is_live:
            self._kept.pop(call.id, None)
        self._on_load()
        self.on_own()

    def _read(self, raw: Any) -> Call | None:
        try:
            return call_from_json(raw)
        except ValueError as error:
            log.warning("a call that cannot be used: %s", error)
            return None

    async def ask(self, method: str, params: Json) -> Json:
        """Ask the controller; raise ``ControlOneError`` when it refuses or is not there."""
        if self._connection is None:
            raise ServiceError("the Conference Server of this node is not there")
        answer: Json = await self._connection.call(method, params)
        return answer

    # --- to peers --------------------------------------------------------------------------------

    def _flush(self) -> None:
        calls, self._due = list(self._due.values()), {}
        documents = [call.to_json() for call in calls]
        for link in self._links():
            _send(link, documents)

    def link_up(self, link: Link) -> None:
        """Send everything to a new link."""
        self._send_all(link)
        self._tell_peers_count()

    def link_down(self, peer: str) -> None:
        """What a peer holds while it cannot be reached protects nothing."""
        for kept in self._kept.values():
            kept.pop(peer, None)
        self._tell_peers_count()

    def _send_all(self, link: Link) -> None:
        calls = list(self.own)
        _send(link, [call.to_json() for call in calls])
        if self._connection is not None:
            link.notify("calls.docs", {"calls": [], "all": [call.id for call in calls]})

    def _tell_peers_count(self) -> None:
        if self._connection is not None:
            self._connection.notify("peers", {"count": len(self._links())})

    # --- from peers ------------------------------------------------------------------------------

    def notify(self, peer: str, method: str, params: Json) -> None:
        """Take what a peer says about calls; what makes no sense is logged and dropped."""
        if method == "calls.docs":
            self._take(peer, params)
        elif method == "calls.kept":
            self._acknowledge(peer, params)

    def _take(self, peer: str, params: Json) -> None:
        documents, present = params.get("calls"), params.get("all")
        if not isinstance(documents, list):
            return
        kept = []
        for raw in documents:
            call = self._read(raw)
            if call is None or call.owner != peer:
                continue
            if self.copies.merge(call):
                self._keeper.save(call)
            known = self.own.get(call.id)
            is_newer = known is not None and known.is_live and self.own.merge(call)
            if known is not None and is_newer and known.owner == self.name:
                self.on_moved(call)
            kept.append([call.id, *call.version])
        if isinstance(present, list):
            for gone in self.copies.end_missing(peer, map(str, present), time.time()):
                ended = self.copies.get(gone.id)
                if ended is not None:
                    self._keeper.save(ended)
        link = next((link for link in self._links() if link.peer == peer), None)
        if link is not None and kept:
            link.notify("calls.kept", {"calls": kept})
        self._merges += len(documents)
        if self._merges > SWEEP:
            self._merges = 0
            self.copies.forget(time.time() - TOMBSTONE)
            self.own.forget(time.time() - TOMBSTONE)

    def _acknowledge(self, peer: str, params: Json) -> None:
        entries = params.get("calls")
        if not isinstance(entries, list):
            return
        for entry in entries:
            try:
                call_id, version = str(entry[0]), (int(entry[1]), int(entry[2]))
            except (IndexError, KeyError, TypeError, ValueError):
                continue
            known = self.own.get(call_id)
            if known is None or version > known.version:
                continue
            if known.is_live:
                kept = self._kept.setdefault(call_id, {})
                kept[peer] = max(version, kept.get(peer, (0, 0)))
            self._acknowledged.append([call_id, *version])
        if self._acknowledged and self._connection is not None:
            self._connection.notify("protected", {"calls": self._acknowledged})
        self._acknowledged = []

    # --- for people ------------------------------------------------------------------------------

    def protectors(self, call: Call) -> list[str]:
        """Return the peers that hold the newest version of an own call."""
        kept = self._kept.get(call.id, {})
        return sorted(peer for peer, version in kept.items() if version >= call.version)

    def rows(self) -> list[Json]:
        """Return every live call known here: own ones first, each with who protects it."""
        own = [call for call in _in_order(self.own) if call.owner == self.name]
        copies = [call for call in _in_order(self.copies) if call.owner != self.name]
        return [_row(call, self.protectors(call), True) for call in own] + [
            _row(call, [self.name], False) for call in copies
        ]


def _row(call: Call, protectors: list[str], is_here: bool) -> Json:
    return {**call.to_json(), "here": is_here, "protected_by": protectors}


def _in_order(calls: Iterable[Call]) -> list[Call]:
    return sorted(calls, key=lambda call: (call.created, call.id))


def _send(link: Link, documents: list[Json]) -> None:
    for start in range(0, len(documents), BATCH):
        link.notify("calls.docs", {"calls": documents[start : start + BATCH]})
