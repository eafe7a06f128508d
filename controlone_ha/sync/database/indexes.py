"""Indexes of the synchronised collections: made, changed and dropped on every node as on one.

Theory of operation. Each node keeps a note of each index, ``controlone_ha.indexes``: what it is, or
that it was dropped, and when. The stamper's stream tells of changes here; every few seconds the
notes of the peers are read, and the later one of two wins. A note is written before what it says is
done, so that the stream's word about it is no news; so it reaches nodes that its author cannot
reach, too. What cannot be made here (documents that a unique index refuses) is told in the status
and tried again after the next start.

Indexes that were there before have the time 0: nodes then have all of both. The index of ``_id`` is
as the collection was made.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import bson
from bson.binary import Binary
from bson.int64 import Int64
from pymongo.errors import OperationFailure

from controlone_ha.sync.database.documents import PLAIN
from controlone_ha.sync.database.namespaces import OWN

if TYPE_CHECKING:
    from pymongo import MongoClient

    from controlone_ha.sync.database.store import Store

log = logging.getLogger("database.indexes")

EVENTS = ("createIndexes", "dropIndexes", "modify")
_NO_COLLECTION = 26
_NO_INDEX = 27
_BUSY = (46, 112, 117, 276, 12586, 12587)
"""Codes of a lock or an index build that is in the way for a moment. 276: somebody dropped the
index while it was being built here. That leaves no trace in the stream, so it is no drop.
"""
_NOT_PART = ("v", "ns", "background")


class Indexes:
    """The indexes of this node. Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._notes = store.client.get_database(OWN, codec_options=PLAIN)["indexes"]
        self._lock = threading.Lock()
        self._read: dict[str, int] = {}
        self._busy: dict[str, Mapping[str, Any]] = {}
        self._has_looked = False
        self.troubles: dict[str, str] = {}

    def look(self) -> None:
        """Note what is there and has no note: indexes from before, or of urgent collections."""
        for namespace in self._store.chosen_collections():
            self.changed(namespace, None)
        if not self._has_looked:
            self._has_looked = True
            for item in self._notes.find({"spec": {"$ne": None}}):
                if self._store.is_known(str(item["namespace"])):
                    with self._lock:
                        self._try(item)

    def changed(self, namespace: str, wall_ms: int | None) -> None:
        """Compare a collection's indexes with their notes; ``wall_ms`` None: only add notes."""
        if not self._store.namespaces.is_chosen(namespace) or not self._store.is_fit(namespace):
            return
        with self._lock:
            there = self._there(namespace)
            known = {item["name"]: item for item in self._notes.find({"namespace": namespace})}
            for name, spec in there.items():
                before = known.get(name)
                is_same = before is not None and bytes(before["spec"] or b"") == spec
                if not is_same and (before is None or wall_ms is not None):
                    self._note(namespace, name, spec, wall_ms or 0)
            if wall_ms is not None:
                for name, item in known.items():
                    if item["spec"] is not None and name not in there:
                        self._note(namespace, name, None, wall_ms)

    def pull(self, peer: str, client: MongoClient[Any], make: Callable[[str], object]) -> None:
        """Take over what a peer has noted later; ``make``: has a collection made as it is there."""
        with self._lock:
            for item in list(self._busy.values()):
                self._try(item)
        notes = client.get_database(OWN, codec_options=PLAIN)["indexes"]
        last = self._read.get(peer, -1)
        for item in notes.find({"at": {"$gte": last}}, sort=[("at", 1)]):
            namespace = str(item["namespace"])
            if self._store.namespaces.is_chosen(namespace):
                make(namespace)
                if self._store.is_known(namespace):
                    self._take(item)
            last = max(last, int(item["at"]))
        self._read[peer] = last

    def _take(self, item: Mapping[str, Any]) -> None:
        with self._lock:
            mine = self._notes.find_one({"_id": item["_id"]})
            if mine is not None and not _is_later(item, mine):
                return
            self._notes.replace_one({"_id": item["_id"]}, item, upsert=True)
            self._try(item)

    def _try(self, item: Mapping[str, Any]) -> None:
        """Do what a note says; hold the lock. While the collection is busy, later again."""
        key, namespace, name = str(item["_id"]), str(item["namespace"]), str(item["name"])
        self._busy.pop(key, None)
        try:
            self._do(namespace, name, bytes(item["spec"]) if item["spec"] is not None else None)
            self.troubles.pop(key, None)
        except OperationFailure as error:
            if error.code in _BUSY:
                self._busy[key] = item
                return
            said = str((error.details or {}).get("errmsg") or error)[:200]
            self.troubles[key] = f"{namespace}: index {name} cannot be made here: {said}"
            log.warning("%s", self.troubles[key])

    def _do(self, namespace: str, name: str, spec: bytes | None) -> None:
        database, _, collection = namespace.partition(".")
        target = self._store.client.get_database(database, codec_options=PLAIN)
        there = self._there(namespace).get(name)
        if there == spec:
            return
        if there is not None and spec is not None and _lives_only_differ(there, spec):
            lives = bson.decode(spec, PLAIN)["expireAfterSeconds"]
            index = {"name": name, "expireAfterSeconds": lives}
            target.command({"collMod": collection, "index": index})
            return
        if there is not None:
            try:
                target.command({"dropIndexes": collection, "index": name})
            except OperationFailure as error:
                if error.code != _NO_INDEX:
                    raise
        if spec is not None:
            target.command({"createIndexes": collection, "indexes": [bson.decode(spec, PLAIN)]})
        log.info("%s: index %s %s", namespace, name, "dropped" if spec is None else "made")

    def _there(self, namespace: str) -> dict[str, bytes]:
        database, _, collection = namespace.partition(".")
        target = self._store.client.get_database(database, codec_options=PLAIN)
        try:
            found = list(target[collection].list_indexes())
        except OperationFailure as error:
            if error.code != _NO_COLLECTION:
                raise
            return {}
        return {
            str(item["name"]): bson.encode(
                {key: value for key, value in item.items() if key not in _NOT_PART},
                codec_options=PLAIN,
            )
            for item in found
            if item["name"] != "_id_"
        }

    def _note(self, namespace: str, name: str, spec: bytes | None, at: int) -> None:
        key = f"{namespace}/{name}"
        self._notes.replace_one(
            {"_id": key},
            {
                "_id": key,
                "namespace": namespace,
                "name": name,
                "spec": None if spec is None else Binary(spec),
                "at": Int64(at),
            },
            upsert=True,
        )


def _lives_only_differ(one: bytes, other: bytes) -> bool:
    """Tell whether nothing but the time after which documents go is another one."""
    both = [bson.decode(spec, PLAIN) for spec in (one, other)]
    return all(item.pop("expireAfterSeconds", None) is not None for item in both) and (
        both[0] == both[1]
    )


def _is_later(item: Mapping[str, Any], mine: Mapping[str, Any]) -> bool:
    """Tell which note wins; at the same moment the one that sorts later, on every node alike."""

    def order(note: Mapping[str, Any]) -> tuple[int, bytes]:
        return int(note["at"]), bytes(note["spec"] or b"")

    return order(item) > order(mine)
