"""Gives every write of an application its version row, following the node's own change stream.

Theory of operation. A batch of events ends at a cluster time. Inserts and replaces (if small)
bring their content, deletes have none; what updates have made is read as it was at the end of the
batch (a snapshot read), never as it is now: so a row's time and content belong together, and a
write that comes later gets its own row. The time is the event's wall clock, which is the
database's, or one step after the version before. Rows, head and resume token are written under the
lane's lock; after a kill the events since the token come again: until the stream has passed the
moment of the start (draining) only their times are used, contents are read at its end, and what is
in its row already is left out. Peers are not read before that.

Catching up after a long time, updates are gathered until the stream is near the present, because
the server keeps snapshots for five minutes only. When the oplog no longer reaches back to the
token, all documents are compared with their rows (``Scan``); their times are then only bracketed.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from bson.binary import Binary
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo.errors import BulkWriteError, OperationFailure

from controlone_ha.sync.database.documents import (
    RAW,
    WriteEvent,
    identity_of,
    key_of,
    token_time,
    write_event,
)
from controlone_ha.sync.database.feed import Feed
from controlone_ha.sync.database.lane import INLINE_ROWS, Lane
from controlone_ha.sync.database.namespaces import BULK, CONFLICTS
from controlone_ha.sync.database.store import UNJOURNALED, Store
from controlone_ha.sync.database.structure import Structure
from controlone_ha.sync.database.versions import Row, content_hash, is_stamped_already, local_write

log = logging.getLogger("database.stamper")

SMALL = 32 * 1024
MANY = 100
"""Events in a batch after which there are more."""
NOTE_EVERY = 0.5
"""Seconds between two notes of the resume token while there are writes."""
SNAPSHOT_AGE = 200
"""Seconds that a cluster time may be old and still be read at (the server keeps 300)."""
SNAPSHOT_TOO_OLD = (239, 246)
_UNKNOWN = b"?"


@dataclass(slots=True)
class _Seen:
    """The last event of a document. content: hash, None (deleted) or ``_UNKNOWN`` (to be read)."""

    namespace: str
    identity: RawBSONDocument
    wall: int
    content: bytes | None
    size: int
    document: RawBSONDocument | None
    is_new: bool
    """It was inserted: hardly has it a row, unless of its deletion."""


class Stamper:
    """Stamps one lane. ``step`` in a loop; one thread."""

    def __init__(
        self,
        store: Store,
        lane: Lane,
        *,
        structure: Structure | None = None,
    ) -> None:
        self._store = store
        self._lane = lane
        self._feed: Feed | None = None
        self._token: Mapping[str, Any] = {}
        self._reading = ThreadPoolExecutor(1, thread_name_prefix=f"read {lane.name}")
        self._ahead: Future[tuple[Sequence[RawBSONDocument], Mapping[str, Any]]] | None = None
        self._pending: dict[bytes, _Seen] = {}
        self._structure = structure
        self._ours: dict[str, bool] = {}
        self._drain_until: Timestamp | None = None
        self._idle_steps = 0
        self._noted_at = 0.0
        self.stamped = 0
        self.is_current = threading.Event()

    def open(self, token: Mapping[str, Any] | None, start: Timestamp | None = None) -> None:
        """Follow the stream after ``token``, at ``start``, or from now; may raise HistoryLost."""
        self.close()
        self._pending.clear()
        self._drain_until = self._store.client.admin.command("hello")["operationTime"]
        self._feed = Feed(
            self._store.client,
            database="admin",
            collection=None,
            pipeline=self._pipeline(),
            token=token,
            start=start,
            expanded=self._lane.name == BULK,
        )

    def remember(self) -> None:
        """Note where the stream was opened: everything before that has its rows."""
        assert self._feed is not None
        self._store.note(self._store.note_token(self._lane.name, self._feed.token))

    def close(self) -> None:
        """Stop following."""
        if self._ahead is not None:
            wait([self._ahead])
            self._ahead = None
        if self._feed is not None:
            self._feed.close()
            self._feed = None
        self.is_current.clear()

    @property
    def backlog(self) -> int:
        """Documents whose last event has not been stamped yet."""
        return len(self._pending)

    def _pipeline(self) -> list[dict[str, Any]]:
        ids = [Binary(item, 4) for item in self._store.own_sessions]
        size = {"$bsonSize": {"$ifNull": ["$fullDocument", {}]}}
        small = {"$cond": [{"$lt": [size, SMALL]}, "$fullDocument", "$$REMOVE"]}
        return [
            {"$match": self._store.namespaces.match(self._lane.name)},
            {"$match": {"lsid.id": {"$nin": ids}}},
            {
                "$project": {
                    "operationType": 1,
                    "ns": 1,
                    "to": 1,
                    "documentKey": 1,
                    "wallTime": 1,
                    "clusterTime": 1,
                    "operationDescription": 1,
                    "fullDocument": small,
                }
            },
        ]

    def step(self, *, wait_ms: int = 1000) -> int:
        """Read a batch and stamp it; return how many documents got a row."""
        ahead, self._ahead = self._ahead, None
        events, self._token = ahead.result() if ahead is not None else self._read(wait_ms)
        if len(events) >= MANY:
            # More will be there: the server looks for it while this is stamped.
            self._ahead = self._reading.submit(self._read, wait_ms)
        with self._store.turn(self._lane) if events else contextlib.nullcontext():
            return self._work(events)

    def _read(self, wait_ms: int) -> tuple[Sequence[RawBSONDocument], Mapping[str, Any]]:
        assert self._feed is not None
        events = self._feed.read(wait_ms=wait_ms, most=self._store.step(self._lane))
        return events, self._feed.token

    def _work(self, events: Sequence[RawBSONDocument]) -> int:
        structure = []
        for event in events:
            write = write_event(event)
            if write is None:
                structure.append(event)
            else:
                self._take(write)
        until = token_time(self._token)
        is_near = until.time > self._store.now_ms() / 1000 - SNAPSHOT_AGE
        if self._drain_until is not None and until >= self._drain_until:
            self._drain_until = None
        if self._pending and is_near and self._drain_until is None:
            self._read_contents(until)
        ready = [key for key, seen in self._pending.items() if seen.content is not _UNKNOWN]
        written = self._stamp({key: self._pending.pop(key) for key in ready})
        for event in structure:
            self._restructure(event)
        if self._structure is not None:
            self._structure.settle()
        if not events and not self._pending and self._drain_until is None:
            self.is_current.set()
        return written

    def _take(self, event: WriteEvent) -> None:
        namespace = event.namespace
        store = self._store
        is_ours = self._ours.get(namespace)
        if is_ours is None:
            is_ours = self._ours[namespace] = self._is_ours(namespace)
        if not is_ours or not store.is_fit(namespace):
            return
        identity, document = event.identity, event.document
        content: bytes | None = _UNKNOWN
        size = 0
        if self._drain_until is not None:
            document = None
        elif event.kind == "delete":
            content = None
        elif document is not None:
            content, size = content_hash(document.raw), len(document.raw)
        key = key_of(namespace, identity)
        before = self._pending.get(key)
        is_new = before.is_new if before is not None else event.kind == "insert"
        self._pending[key] = _Seen(
            namespace,
            identity,
            event.wall,
            content,
            size,
            document,
            is_new and self._drain_until is None,
        )

    def _is_ours(self, namespace: str) -> bool:
        """Tell whether writes to a collection are stamped in this lane."""
        names = self._store.namespaces
        is_chosen = names.is_chosen(namespace) and namespace != CONFLICTS
        return is_chosen and names.lane(namespace) == self._lane.name

    def _read_contents(self, until: Timestamp) -> None:
        wanted: dict[str, list[_Seen]] = {}
        for seen in self._pending.values():
            if seen.content is _UNKNOWN:
                wanted.setdefault(seen.namespace, []).append(seen)
        for namespace, items in wanted.items():
            try:
                self._read_collection(namespace, items, until)
            except OperationFailure as error:
                if error.code not in SNAPSHOT_TOO_OLD:
                    raise
                log.info("snapshot of %s is too old; catching up first", until)
                return

    def _read_collection(self, namespace: str, items: Sequence[_Seen], until: Timestamp) -> None:
        found: dict[bytes, tuple[bytes, int, RawBSONDocument | None]] = {}
        for document in read_at(
            self._store, namespace, [item.identity["_id"] for item in items], until
        ):
            raw = document.raw
            kept = document if len(raw) < SMALL else None
            key = key_of(namespace, identity_of(document))
            found[key] = (content_hash(raw), len(raw), kept)
        for item in items:
            read = found.get(key_of(namespace, item.identity))
            if read is None:
                # Gone by the end of the batch: its delete comes with the same cluster time, or the
                # applier deleted it, having seen it stamped.
                item.content, item.size, item.document = None, 0, None
            else:
                item.content, item.size, item.document = read

    def _stamp(self, ready: Mapping[bytes, _Seen]) -> int:
        with self._lane.lock:
            new = {key for key, seen in ready.items() if seen.is_new}
            own = self._store.rows_in(self._lane, list(ready), new=new)
            try:
                return self._write(ready, own)
            except BulkWriteError:
                # Some had a row. Those that had none have theirs by now, with numbers that stay.
                taken = self._lane.sequence + len(ready)
                own = self._store.rows(list(ready))
                written = [row for key, row in own.items() if self._is_written(row, ready[key])]
                self._store.reserve(self._lane, taken)
                self._lane.wrote(written, taken)
                return self._write(ready, own) + len(written)

    def _is_written(self, row: Row, seen: _Seen) -> bool:
        """Tell whether a row is that of this very event, by this node."""
        is_ours = row.node == self._store.node
        return is_ours and is_stamped_already(row, seen.content, seen.wall)

    def _write(self, ready: Mapping[bytes, _Seen], own: Mapping[bytes, Row]) -> int:
        store, lane = self._store, self._lane
        rows: list[Row] = []
        documents: list[RawBSONDocument | None] = []
        for key, seen in ready.items():
            before = own.get(key)
            if is_stamped_already(before, seen.content, seen.wall):
                continue
            rows.append(
                local_write(
                    key=key,
                    namespace=seen.namespace,
                    identity=seen.identity,
                    node=store.node,
                    wall_milliseconds=seen.wall,
                    content=seen.content,
                    size=seen.size,
                    before=before,
                )
            )
            documents.append(seen.document)
        notes = []
        now = time.monotonic()
        if not self._pending and (now - self._noted_at > NOTE_EVERY or not rows):
            # Not with every write: after a kill some events come once more, and have their row.
            self._noted_at = now
            notes.append(store.note_token(lane.name, self._token))
        if not rows:
            self._note_idle(notes)
            return 0
        small = [item for item in documents if item is not None]
        known = [row.key for row in rows if row.key in own]
        if len(rows) > INLINE_ROWS:
            # One entry of the oplog: each is looked at by every stream that somebody has open.
            with store.session() as session, session.start_transaction(write_concern=UNJOURNALED):
                sequence = store.write(lane, rows, known, notes=notes, session=session)
        else:
            carried = documents if len(small) == len(rows) - _deleted(rows) else ()
            sequence = store.write(lane, rows, known, documents=carried, notes=notes)
        lane.wrote(rows, sequence)
        self.stamped += len(rows)
        return len(rows)

    def _note_idle(self, notes: Sequence[Mapping[str, Any]]) -> None:
        """Keep the token young where little happens: the oplog moves on all the same."""
        self._idle_steps += 1
        if notes and self._idle_steps >= 60:
            self._idle_steps = 0
            self._store.note(notes[0])

    def _restructure(self, event: RawBSONDocument) -> None:
        names = event["ns"]
        namespace = f"{names['db']}.{names.get('coll', '')}"
        self._store.forget_kind(namespace)
        if event["operationType"] == "rename":
            target = event["to"]
            self._store.forget_kind(f"{target['db']}.{target['coll']}")
        if self._structure is not None:
            self._structure.take(event)


def _deleted(rows: Sequence[Row]) -> int:
    return sum(row.is_deleted for row in rows)


def read_at(
    store: Store, namespace: str, ids: Sequence[Any], at: Timestamp
) -> Sequence[RawBSONDocument]:
    """Return the documents with these ids as they were at a cluster time."""
    database, _, name = namespace.partition(".")
    target = store.client.get_database(database, codec_options=RAW)
    found: list[RawBSONDocument] = []
    with store.client.start_session(causal_consistency=False) as session:
        command: dict[str, Any] = {
            "find": name,
            "filter": {"_id": {"$in": list(ids)}},
            "batchSize": max(101, len(ids)),
            "readConcern": {"level": "snapshot", "atClusterTime": at},
        }
        cursor = target.command(command, codec_options=RAW, session=session)["cursor"]
        found += cursor["firstBatch"]
        while int(cursor["id"]):
            command = {"getMore": Int64(int(cursor["id"])), "collection": name}
            cursor = target.command(command, codec_options=RAW, session=session)["cursor"]
            found += cursor["nextBatch"]
    return found
