"""Reads one peer's rows in one lane, fetches the documents that win, and has them applied.

Theory of operation. The peer's head tells the last number of its lane; what this node has read so
far is its progress, kept in the transaction of the last batch. So the next thing to read is "rows
with a greater number", whether the link was away for a second or a month. The head is watched by a
change stream; small writes travel in it, with their documents, so that they need no question. In a
long catch-up the next batch is fetched while the present one is applied.

A row that this node has already, or that loses, costs no document. A row whose collection is not
chosen here is passed over.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bson.binary import Binary
from bson.raw_bson import RawBSONDocument
from pymongo.read_concern import ReadConcern

from controlone_ha.sync.database.applier import Applier, Counts
from controlone_ha.sync.database.documents import RAW, identity_of, key_of, row_from
from controlone_ha.sync.database.feed import Feed
from controlone_ha.sync.database.lane import Lane
from controlone_ha.sync.database.namespaces import CONFLICTS, OWN
from controlone_ha.sync.database.store import Store, unfitness
from controlone_ha.sync.database.versions import Row, milliseconds_of

if TYPE_CHECKING:
    from pymongo import MongoClient

log = logging.getLogger("database.puller")

BATCH_BYTES = 8 << 20
NOTE_EVERY = 1.0


@dataclass(kw_only=True)
class Batch:
    """Rows with the documents that were fetched for them; ``last``: the number reached."""

    rows: list[Row]
    documents: dict[bytes, RawBSONDocument]
    last: int
    rest: list[Row]
    """Rows that are to be fetched after these, since the documents are large."""
    new: set[bytes]
    """Keys without a row here."""


class Puller:
    """Pulls one lane of one peer; ``open``, then ``step`` in a loop. One thread."""

    def __init__(
        self,
        store: Store,
        lane: Lane,
        peer: str,
        client: MongoClient[Any],
        applier: Applier,
    ) -> None:
        self._store = store
        self._lane = lane
        self.peer = peer
        self._client = client
        self._applier = applier
        database = client.get_database(OWN, codec_options=RAW)
        self._heads = database["heads"].with_options(read_concern=ReadConcern("majority"))
        self._versions = database["versions"].with_options(read_concern=ReadConcern("majority"))
        self._feed: Feed | None = None
        self._incarnation = ""
        self._noted_at = 0.0
        self._noted = -1
        self._fetching = ThreadPoolExecutor(1, thread_name_prefix=f"fetch {peer}")
        self._unfit: set[str] = set()
        self._made: set[str] = set()
        self.position = 0
        self.head = 0
        self.totals = Counts()
        self.lag_ms = 0
        self.is_following = False
        """It has all that there was when it began."""
        self.is_current = threading.Event()

    def open(self, *, from_start: bool = False) -> bool:
        """Find where to go on; False when the peer's `ha` has not begun to keep rows."""
        self.close_feed()
        self.is_current.clear()
        self.is_following = False
        self._feed = Feed(
            self._client,
            database=OWN,
            collection="heads",
            pipeline=[
                {"$match": {"documentKey._id": self._lane.name}},
                {"$project": {"fullDocument": 1}},
            ],
        )
        head = self._heads.find_one({"_id": self._lane.name})
        if head is None:
            return False
        self._incarnation = head["incarnation"]
        progress = self._store.progress(self.peer, self._lane.name)
        known = progress is not None and progress["incarnation"] == self._incarnation
        self.position = int(progress["q"]) if known and progress is not None else 0
        if from_start:
            self.position = 0
        self.head = int(head["q"])
        self._noted = self.position
        return True

    @property
    def incarnation(self) -> str:
        """The peer's incarnation, as its head says."""
        return self._incarnation

    def skip_to(self, position: int) -> None:
        """Go on from there: what is before has been compared by digests."""
        self.position = position
        self._note(force=True)

    def close_feed(self) -> None:
        """Stop watching the head."""
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    def close(self) -> None:
        """Stop. Idempotent."""
        self.close_feed()
        self._fetching.shutdown(wait=False)

    def step(self, *, wait_ms: int = 1000) -> int:
        """Read until the head, then wait for a new one; return the number of rows applied."""
        assert self._feed is not None
        before = self.totals.applied
        if self.position < self.head:
            self.is_current.clear()
            self.catch_up()
        if self.position >= self.head:
            self.is_current.set()
            self._note()
        events = self._feed.read(wait_ms=wait_ms, most=100)
        heads: list[Any] = [event.get("fullDocument") for event in events]
        if any(head is None or head["incarnation"] != self._incarnation for head in heads):
            raise PeerChanged(f"{self.peer} has begun anew")
        if heads:
            with self._store.turn(self._lane):
                self._take_heads(heads)
        return self.totals.applied - before

    def _take_heads(self, heads: Sequence[RawBSONDocument]) -> None:
        """Apply what these carry with them; what they do not is read in the next step."""
        self.head = max(self.head, *(int(head["q"]) for head in heads))
        position = self.position
        rows: dict[bytes, Row] = {}
        documents: dict[bytes, RawBSONDocument] = {}
        new: set[bytes] = set()
        for head in heads:
            carried = head.get("rows")
            if int(head["q"]) <= position:
                continue
            if not carried or int(carried[0][self._lane.field]) != position + 1:
                break
            position = int(head["q"])
            found = [row_from(row) for row in carried]
            if head.get("new"):
                new.update(row.key for row in found if row.key not in rows)
            rows.update((row.key, row) for row in found)  # the last of each document
            for row, document in zip(found, head.get("documents") or (), strict=False):
                if document is not None:
                    documents[row.key] = document
        if position == self.position:
            return
        wanted = [
            row
            for row in rows.values()
            if not self._lane.has_recently(row) and self._is_wanted(row)
        ]
        missing = [row for row in wanted if not row.is_deleted and row.key not in documents]
        documents.update(self.fetch_documents(missing))
        if wanted:
            # The progress is noted seldom: after a kill some rows are only looked at again.
            self._count(self._applier.apply(wanted, documents, None, new), wanted)
        self.position = position
        self._note()

    def catch_up(self) -> None:
        """Read rows until the head that was seen last, fetching ahead of applying."""
        pending: Future[Batch | None] | None = self._fetching.submit(self._fetch, self.position, [])
        while pending is not None:
            batch = pending.result()
            if batch is None:
                self.position = max(self.position, self.head)
                return
            is_more = batch.last < self.head or batch.rest
            pending = None
            if is_more:
                pending = self._fetching.submit(self._fetch, batch.last, batch.rest)
            try:
                self._apply(batch)
            except BaseException:
                if pending is not None:
                    pending.exception()
                raise

    def _fetch(self, position: int, rest: Sequence[Row]) -> Batch | None:
        if rest:
            return self._sift(list(rest), position)
        field, head, most = self._lane.field, self.head, self._store.step(self._lane)
        query = self._beyond(position, head)
        with self._store.turn(self._lane):
            found = list(self._versions.find(query, sort=[(field, 1)], limit=most))
        if not found:
            return None
        last = int(found[-1][field]) if len(found) == most else head
        return self._sift([row_from(row) for row in found], last)

    def _beyond(self, position: int, head: int) -> dict[str, Any]:
        """Return the query for the rows after a number, up to that of a head.

        Beyond the head may be written that have smaller ones to come. Once this
        node follows, it is spared its own rows, but for those that others make in its name.
        """
        query: dict[str, Any] = {self._lane.field: {"$gt": position, "$lte": head}}
        if self.is_following:
            query["$or"] = [
                {"n": {"$ne": self._store.node}},
                {"h": {"$exists": False}},
                {"s": CONFLICTS},
            ]
        return query

    def _sift(self, rows: list[Row], last: int) -> Batch:
        """Leave out what need not be fetched, and fetch the rest as far as it fits."""
        rows = [row for row in rows if not self._lane.has_recently(row) and self._is_wanted(row)]
        own = self._store.rows([row.key for row in rows])
        rows = [row for row in rows if row.key not in own or own[row.key].order < row.order]
        chosen: list[Row] = []
        size = 0
        while rows and (not chosen or size + rows[0].size <= BATCH_BYTES):
            size += rows[0].size
            chosen.append(rows.pop(0))
        documents = self.fetch_documents([row for row in chosen if not row.is_deleted])
        new = {row.key for row in chosen if row.key not in own}
        return Batch(rows=chosen, documents=documents, last=last, rest=rows, new=new)

    def _is_wanted(self, row: Row) -> bool:
        namespace = row.namespace
        if not self._store.namespaces.is_chosen(namespace) or namespace in self._unfit:
            return False
        if namespace not in self._made and namespace != CONFLICTS:
            self.make_collection(namespace)
        return namespace not in self._unfit

    def make_collection(self, namespace: str) -> None:
        """Make sure that the collection exists here as it does there, before any transaction."""
        store = self._store
        database, _, name = namespace.partition(".")
        found = next(self._client[database].list_collections(filter={"name": name}), None)
        if found is not None and unfitness(found) is not None:
            self._unfit.add(namespace)
            return
        if not store.is_known(namespace):
            if not store.is_fit(namespace):
                self._unfit.add(namespace)
                return
            options = dict(found.get("options") or {}) if found is not None else {}
            options.pop("uuid", None)
            store.make_collection(database, name, options)
            store.is_fit(namespace)
        self._made.add(namespace)

    def fetch_documents(self, rows: Sequence[Row]) -> dict[bytes, RawBSONDocument]:
        """Return the peer's documents of these rows, by key."""
        wanted: dict[str, list[Any]] = {}
        for row in rows:
            wanted.setdefault(row.namespace, []).append(row.identity["_id"])
        found = {}
        for namespace, ids in wanted.items():
            database, _, name = namespace.partition(".")
            collection = self._client.get_database(database, codec_options=RAW)[name]
            for document in collection.find({"_id": {"$in": ids}}, batch_size=max(101, len(ids))):
                found[key_of(namespace, identity_of(document))] = document
        return found

    def fetch_rows(self, keys: Sequence[bytes]) -> list[Row]:
        """Return the peer's rows with these keys."""
        query = {"_id": {"$in": [Binary(key) for key in keys]}}
        return [row_from(item) for item in self._versions.find(query)]

    def _apply(self, batch: Batch) -> None:
        last = batch.last if not batch.rest else None
        rows = batch.rows
        while rows:
            # Read in one go; if urgent writes have come since, applied in smaller steps.
            step = self._store.step(self._lane)
            part, rows = rows[:step], rows[step:]
            note = self._progress(last) if last is not None and not rows else None
            with self._store.turn(self._lane):
                counts = self._applier.apply(part, batch.documents, note, batch.new)
            self._count(counts, part)
        if batch.rows and last is not None:
            self._noted, self._noted_at = last, time.monotonic()
        if last is not None:
            self.position = max(self.position, last)
            self.head = max(self.head, last)
            self._note()

    def _count(self, counts: Counts, rows: Sequence[Row]) -> None:
        self.totals.applied += counts.applied
        self.totals.conflicts += counts.conflicts
        self.totals.refused += counts.refused
        self.lag_ms = self._store.now_ms() - milliseconds_of(rows[-1].time)

    def apply_rows(self, rows: Sequence[Row]) -> None:
        """Apply rows that were found by other means than their number (reconciliation)."""
        batch = self._sift(list(rows), self.position)
        while batch.rows:
            with self._store.turn(self._lane):
                counts = self._applier.apply(batch.rows, batch.documents, None, batch.new)
            self.totals.applied += counts.applied
            self.totals.conflicts += counts.conflicts
            batch = self._sift(batch.rest, self.position)

    def _progress(self, position: int) -> dict[str, Any]:
        return self._store.note_progress(self.peer, self._lane.name, position, self._incarnation)

    def _note(self, *, force: bool = False) -> None:
        """Remember the progress over rows that changed nothing here, once a second at most."""
        now = time.monotonic()
        if self.position == self._noted or (not force and now - self._noted_at < NOTE_EVERY):
            return
        self._store.note(self._progress(self.position))
        self._noted, self._noted_at = self.position, now


class PeerChanged(Exception):
    """The peer has a new incarnation: find anew where to go on."""
