"""What a node keeps in its own database about the others' and its own writes.

Database ``controlone_ha`` (never synchronised but for ``conflicts``):

    versions   one row a document (``versions.Row``), indexed by lane and for the digests
    heads      for each lane: its last sequence number and the last few rows, which peers watch. Not
               written by transactions: whoever watches it is spared looking into them
    state      ``node``: name and incarnation; ``token/LANE``: where the stamper is in the stream;
               ``progress/PEER/LANE``: how far this node has read a peer; ``sessions``: whose
               transactions are copies of peers' writes, not writes of applications
    conflicts  versions that lost without having been known to the winner

Theory of operation. A lane is a sequence of row writes. Only this process writes rows, under the
lane's lock, and a number is never visible before a smaller one; so "greater than what I have" is
all a peer has to ask, after however long a time. Peers read what is journaled only. Two lanes are
two sequences that never wait for each other.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bson.binary import UUID_SUBTYPE, Binary
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from pymongo import ReplaceOne
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from controlone_ha.sync.database import writes
from controlone_ha.sync.database.documents import PLAIN, RAW, row_document, row_from
from controlone_ha.sync.database.lane import INLINE_BYTES, INLINE_ROWS, Lane
from controlone_ha.sync.database.namespaces import LANES, OWN, URGENT, Namespaces
from controlone_ha.sync.database.precedence import STEP_ALONE, Precedence
from controlone_ha.sync.database.versions import Row

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.client_session import ClientSession

SESSIONS = 24
_REMEMBERED_SESSIONS = 400
_OPEN_SESSIONS = 5 * SESSIONS
"""Of so many of the last ones, transactions may be open still: those of a minute's runs."""
JOURNALED = WriteConcern(w=1, j=True)
UNJOURNALED = WriteConcern(w=1)
"""For what comes before a head, which is journaled with all before it."""

NAMESPACE_EXISTS = 48


class RunEnded(Exception):
    """Rows may not be written any more: another run is numbering them."""


class Store:
    """Rows and state of this node. ``open`` first."""

    def __init__(self, client: MongoClient[Any], node: str, namespaces: Namespaces) -> None:
        self.client = client
        self.node = node
        self.namespaces = namespaces
        self.lanes = {name: Lane(name) for name in LANES}
        self.precedence = Precedence()
        self._has_ended = threading.Event()
        self.incarnation = ""
        self.unfit: dict[str, str] = {}
        self._fit: set[str] = set()
        # Without saying so, each write waits for the journal.
        raw = client.get_database(OWN, codec_options=RAW, write_concern=UNJOURNALED)
        self._database = raw
        self.versions = raw["versions"]
        self.state = raw.with_options(codec_options=PLAIN)["state"]
        self._durable_state = self.state.with_options(write_concern=JOURNALED)
        self._heads = raw["heads"]
        self._durable_heads = self._heads.with_options(write_concern=JOURNALED)
        for lane in self.lanes.values():
            lane.publish = self._publish_head
        self._sessions: list[ClientSession] = []
        self.own_sessions: list[bytes] = []
        self._session_lock = threading.Lock()
        self._clock_offset = 0.0

    # -- opening ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def turn(self, lane: Lane) -> Iterator[None]:
        """Work in a lane has its turn: that of the urgent one at once, the other after it."""
        if lane.name == URGENT:
            with self.precedence.urgent():
                yield
        else:
            self.precedence.give_way()
            yield

    def step(self, lane: Lane) -> int:
        """Return how many documents may be written at once in a lane."""
        return STEP_ALONE if lane.name == URGENT else self.precedence.step

    def open(self) -> None:
        """Make collections and indexes, and read where this node stands."""
        self._end_earlier_transactions()
        for name in ("versions", "heads", "state", "conflicts"):
            self.make_collection(OWN, name, {})
        for lane in self.lanes.values():
            self.versions.create_index([(lane.field, 1)], name=lane.field, sparse=True)
        self.versions.create_index([("s", 1), ("b", 1), ("x", 1)], name="digest")
        found = self.state.find_one({"_id": "node"})
        if found is None:
            self.begin_incarnation()
        else:
            self.incarnation = found["incarnation"]
        for lane in self.lanes.values():
            last = self.versions.find_one(
                {lane.field: {"$exists": True}}, {lane.field: 1}, sort=[(lane.field, -1)]
            )
            head = self._heads.find_one({"_id": lane.name}, {"q": 1})
            # Rows and head are written one after the other: the greater of both is in use.
            numbers = [int(last[lane.field]) if last is not None else 0]
            numbers.append(int(head["q"]) if head is not None else 0)
            lane.sequence = max(numbers)
            lane.announce(self._head(lane, lane.sequence, ()))
        self._open_sessions()
        self.read_clock()

    def publish(self, listed: Sequence[str] | None) -> None:
        """Tell the peers to whom this node's changes go."""
        fields = {"node": self.node, "peers": None if listed is None else list(listed)}
        self._durable_state.update_one({"_id": "node"}, {"$set": fields})

    def begin_incarnation(self) -> None:
        """Take a new incarnation: peers will read this node's rows from the start."""
        self.incarnation = secrets.token_hex(8)
        node = {"_id": "node", "node": self.node, "incarnation": self.incarnation}
        self._durable_state.update_one({"_id": "node"}, {"$set": node}, upsert=True)
        for lane in self.lanes.values():
            with lane.lock:
                lane.announce(self._head(lane, lane.sequence, ()))

    def end(self) -> None:
        """Refuse to write rows and heads from now on: another run may be numbering them."""
        self._has_ended.set()

    def _publish_head(self, head: dict[str, Any], is_durable: bool = True) -> None:
        self._check_end()
        heads = self._durable_heads if is_durable else self._heads
        heads.replace_one({"_id": head["_id"]}, head, upsert=True)

    def _end_earlier_transactions(self) -> None:
        """End the transactions that an earlier run, killed in the middle, has left open.

        The server would let them stand in the way of every write to their documents for
        ``transactionLifetimeLimitSeconds``, a minute.
        """
        known = self._known_sessions()[-_OPEN_SESSIONS:]
        if known:
            self.client.admin.command(
                {"killSessions": [{"id": Binary(item, UUID_SUBTYPE)} for item in known]}
            )

    def _known_sessions(self) -> list[bytes]:
        """Return the ids of the sessions of this and of earlier runs, the last ones last."""
        found = self.state.find_one({"_id": "sessions"}) or {"ids": []}
        return [bytes(item) for item in found["ids"]]

    def _open_sessions(self) -> None:
        """Make the sessions of the appliers and note their ids before any of them is used."""
        fresh = [self.client.start_session() for _ in range(SESSIONS)]
        ids = [bytes(session.session_id["id"]) for session in fresh]
        self.own_sessions = [*self._known_sessions(), *ids][-_REMEMBERED_SESSIONS:]
        self._durable_state.replace_one(
            {"_id": "sessions"},
            {
                "_id": "sessions",
                "ids": [Binary(item, UUID_SUBTYPE) for item in self.own_sessions],
            },
            upsert=True,
        )
        self._sessions = fresh

    @contextlib.contextmanager
    def session(self) -> Iterator[ClientSession]:
        """Lend a session whose writes the stamper takes for copies."""
        with self._session_lock:
            session = self._sessions.pop()
        try:
            yield session
        finally:
            with self._session_lock:
                self._sessions.append(session)

    def _check_end(self) -> None:
        if self._has_ended.is_set():
            raise RunEnded("rows are written by another run by now")

    # -- clock --------------------------------------------------------------------------------

    def read_clock(self) -> float:
        """Ask the database for its time; return it in milliseconds since 1970.

        Raises ``PyMongoError`` when it takes no writes.
        """
        before = time.time()
        hello = self.client.admin.command("hello")
        if not hello["isWritablePrimary"]:
            raise PyMongoError("takes no writes (not primary)")
        middle = (before + time.time()) / 2
        local = hello["localTime"].timestamp() if hello["localTime"].tzinfo else None
        if local is None:
            local = (hello["localTime"] - _EPOCH).total_seconds()
        self._clock_offset = local - middle
        return float(local * 1000)

    def now_ms(self) -> int:
        """Return the database's time now, from the last time it was asked."""
        return int((time.time() + self._clock_offset) * 1000)

    # -- collections --------------------------------------------------------------------------

    def make_collection(self, database: str, name: str, options: Mapping[str, Any]) -> None:
        """Create a collection unless it is there."""
        try:
            self.client[database].command({"create": name, **options})
        except OperationFailure as error:
            if error.code != NAMESPACE_EXISTS:
                raise

    def is_fit(self, namespace: str) -> bool:
        """Tell whether the collection here can be synchronised; what cannot goes to ``unfit``."""
        if namespace in self._fit:
            return True
        if namespace in self.unfit:
            return False
        database, _, name = namespace.partition(".")
        found = next(self.client[database].list_collections(filter={"name": name}), None)
        reason = unfitness(found) if found is not None else None
        if reason is not None:
            self.unfit[namespace] = reason
            return False
        if found is not None:
            self._fit.add(namespace)
        return True

    def is_known(self, namespace: str) -> bool:
        """Tell whether the collection is known to exist here and to be fit."""
        return namespace in self._fit

    def forget_kind(self, namespace: str) -> None:
        """A collection was made, dropped or changed: look again."""
        self._fit.discard(namespace)
        self.unfit.pop(namespace, None)

    def chosen_collections(self) -> list[str]:
        """Return the namespaces that exist here, are chosen and fit."""
        found = []
        for database in self.client.list_database_names():
            for item in self.client[database].list_collections():
                namespace = f"{database}.{item['name']}"
                if self.namespaces.is_chosen(namespace) and self.is_fit(namespace):
                    found.append(namespace)
        return found

    # -- rows ---------------------------------------------------------------------------------

    def rows(self, keys: Sequence[bytes], session: ClientSession | None = None) -> dict[bytes, Row]:
        """Return the rows of these keys, by key."""
        if not keys:
            return {}
        query = {"_id": {"$in": [Binary(key) for key in keys]}}
        found = (row_from(item) for item in self.versions.find(query, session=session))
        return {row.key: row for row in found}

    def rows_in(
        self, lane: Lane, keys: Sequence[bytes], *, new: Collection[bytes] = ()
    ) -> dict[bytes, Row]:
        """Return the rows of keys that belong to a lane, whose lock is held.

        ``new``: keys that hardly have a row, which are not looked for: if one of them has, its
        insert says so (``BulkWriteError``).
        """
        found = lane.at_hand(keys)
        wanted = [
            key for key in keys if key not in found and (key not in new or lane.is_recent(key))
        ]
        return found | self.rows(wanted)

    def write(
        self,
        lane: Lane,
        rows: Sequence[Row],
        known: Iterable[bytes],
        *,
        documents: Sequence[RawBSONDocument | None] = (),
        notes: Iterable[Mapping[str, Any]] = (),
        session: ClientSession | None = None,
    ) -> int:
        """Write rows with the next numbers, and ``notes`` (documents of the state).

        ``known``: keys that have a row already. ``documents``: for each row its document, if at
        hand, so that the head can carry it. Hold the lane's lock; call ``lane.wrote`` once it is
        committed: that publishes the head. Returns the last number.
        """
        self._check_end()
        had = set(known)
        sequence = lane.sequence
        found = []
        inserts: list[RawBSONDocument] = []
        replaces: list[tuple[Any, RawBSONDocument]] = []
        for row in rows:
            sequence += 1
            item = row_document(row, lane.field, sequence)
            found.append(item)
            if row.key in had:
                replaces.append((Binary(row.key), item))
            else:
                inserts.append(item)
        is_ordered = session is not None
        if inserts:
            writes.insert(
                self._database, "versions", inserts, session=session, is_ordered=is_ordered
            )
        if replaces:
            writes.replace(self._database, "versions", replaces, session=session)
        noted: list[Any] = [ReplaceOne({"_id": item["_id"]}, item, upsert=True) for item in notes]
        if noted:
            # Without a transaction the head, which comes after, is what makes it durable.
            self.state.bulk_write(noted, session=session)
        lane.pending_head = self._head(lane, sequence, found, documents, had) if rows else None
        return sequence

    def reserve(self, lane: Lane, sequence: int) -> None:
        """Rows up to this number may be there, from an attempt that was refused in part."""
        lane.pending_head = self._head(lane, sequence, ())

    def _head(
        self,
        lane: Lane,
        sequence: int,
        rows: Sequence[Mapping[str, Any]],
        documents: Sequence[RawBSONDocument | None] = (),
        known: Collection[bytes] = (),
    ) -> dict[str, Any]:
        head: dict[str, Any] = {
            "_id": lane.name,
            "q": Int64(sequence),
            "incarnation": self.incarnation,
        }
        if rows and len(rows) <= INLINE_ROWS:
            head["rows"] = list(rows)
            head["new"] = not known
            size = sum(len(item.raw) for item in documents if item is not None)
            if len(documents) == len(rows) and size < INLINE_BYTES:
                head["documents"] = list(documents)
        return head

    def token(self, lane: str) -> Mapping[str, Any] | None:
        """Return ``{"token", "at"}`` of a lane's stamper, None before its first start."""
        return self.state.find_one({"_id": f"token/{lane}"})

    def note_token(self, lane: str, token: Mapping[str, Any]) -> dict[str, Any]:
        """Return the note that remembers where the stamper of a lane is."""
        return {"_id": f"token/{lane}", "token": token, "at": Int64(self.now_ms())}

    def progress(self, peer: str, lane: str) -> Mapping[str, Any] | None:
        """Return ``{"q", "incarnation", "at"}`` of what was read from a peer."""
        return self.state.find_one({"_id": f"progress/{peer}/{lane}"})

    def note_progress(
        self, peer: str, lane: str, sequence: int, incarnation: str
    ) -> dict[str, Any]:
        """Return the note of how far a peer was read."""
        return {
            "_id": f"progress/{peer}/{lane}",
            "peer": peer,
            "lane": lane,
            "q": Int64(sequence),
            "incarnation": incarnation,
            "at": Int64(self.now_ms()),
        }

    def note(self, item: Mapping[str, Any]) -> None:
        """Write one note durably."""
        self._durable_state.replace_one({"_id": item["_id"]}, item, upsert=True)

    def journaled_rows(self) -> Any:
        """Return the collection of rows, read as peers read it."""
        return self.versions.with_options(read_concern=ReadConcern("majority"))


def unfitness(found: Mapping[str, Any]) -> str | None:
    """Return why a collection, as listCollections shows it, cannot be synchronised, or None."""
    if found.get("type") == "view":
        return "view"
    if found.get("type") == "timeseries":
        return "time series"
    if (found.get("options") or {}).get("capped"):
        return "capped"
    return None


def _epoch() -> Any:
    import datetime

    return datetime.datetime(1970, 1, 1)


_EPOCH = _epoch()
