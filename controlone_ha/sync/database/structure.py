"""Drops, renames, indexes and collection options: what is not a write to a document.

Theory of operation. A dropped collection spreads as deletes of its documents. A dropped database
does so only where the user has set it: else its rows are forgotten here, and the next full
synchronisation brings the documents back. A dropDatabase shows in the stream as drops of its
collections first, so a drop waits for a moment to see which it is. A renamed collection is a drop
of the old name and a scan of the new one.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from typing import Any

from controlone_ha.sync.database.indexes import EVENTS, Indexes
from controlone_ha.sync.database.scan import Bracket, bury_collection, scan
from controlone_ha.sync.database.store import Store

log = logging.getLogger("database.structure")

DROP_WAIT = 1.0


class Structure:
    """Acts on the events of one stamper, in its thread."""

    def __init__(self, store: Store, indexes: Indexes, *, may_drop_databases: bool) -> None:
        self._store = store
        self._indexes = indexes
        self._may_drop_databases = may_drop_databases
        self._drops: dict[str, tuple[float, int]] = {}
        self._notes: dict[str, str] = {}

    def notes(self) -> list[str]:
        """Return what a person should know."""
        return [*self._notes.values(), *self._indexes.troubles.values()]

    def take(self, event: Mapping[str, Any]) -> None:
        """Take one event that is no write."""
        kind = event["operationType"]
        names = event["ns"]
        database = names["db"]
        wall = int(event["wallTime"])
        if kind == "drop":
            self._drops[f"{database}.{names['coll']}"] = (time.monotonic(), wall)
        elif kind == "dropDatabase":
            self._drop_database(database)
        elif kind in EVENTS:
            self._indexes.changed(f"{database}.{names['coll']}", wall)
        elif kind == "rename":
            self._rename(f"{database}.{names['coll']}", event["to"], wall)

    def settle(self) -> None:
        """Spread the drops that turned out to be no drop of a database."""
        now = time.monotonic()
        for namespace, (at, wall) in list(self._drops.items()):
            if now - at >= DROP_WAIT:
                del self._drops[namespace]
                self._bury(namespace, wall)

    def _bury(self, namespace: str, wall: int) -> None:
        store = self._store
        if store.namespaces.is_chosen(namespace):
            lane = store.lanes[store.namespaces.lane(namespace)]
            found = bury_collection(store, lane, namespace, wall)
            log.info("%s was dropped: %d documents", namespace, found)

    def _drop_database(self, database: str) -> None:
        dropped = [name for name in self._drops if name.partition(".")[0] == database]
        store = self._store
        for namespace in dropped:
            _, wall = self._drops.pop(namespace)
            if self._may_drop_databases:
                self._bury(namespace, wall)
        if self._may_drop_databases or not dropped:
            return
        with contextlib.ExitStack() as locks:
            for lane in store.lanes.values():
                locks.enter_context(lane.lock)
                lane.forget_recent()
            store.versions.delete_many({"s": {"$in": dropped}})
        self._notes[database] = (
            f"database {database} was dropped here; drop_database is 0: it comes back from the "
            "peers with the next full synchronisation"
        )
        log.warning("%s", self._notes[database])

    def _rename(self, old: str, target: Mapping[str, Any], wall: int) -> None:
        new = f"{target['db']}.{target['coll']}"
        self._bury(old, wall)
        store = self._store
        if store.namespaces.is_chosen(new) and store.is_fit(new):
            lane = store.lanes[store.namespaces.lane(new)]
            scan(store, lane, Bracket(after_ms=wall, before_ms=wall), [new])
