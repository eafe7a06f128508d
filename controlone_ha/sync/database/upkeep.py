"""What is done now and then: tombstones that may go, readers that are remembered, old images.

Theory of operation. A tombstone keeps a deleted document from coming back through a node that has
not heard of the delete. It goes when it is older than the horizon and every known reader has it. A
reader that has not been seen for longer than the horizon is *lapsed*: nothing is kept for it any
more, and it will find that noted when it returns. ``ha forget`` drops a reader at once.

A node that finds itself lapsed, or finds that a peer has read rows which it does not have (its data
are an old image), does not know which of its documents have been deleted meanwhile. It *returns*:
documents that the peer does not know go to the conflicts, and are deleted here; then it takes a new
incarnation, so that its peers read it from the start. Until then its rows have numbers that the
peers have read already, and nobody takes them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from pymongo import DeleteOne, InsertOne
from pymongo.read_concern import ReadConcern

from controlone_ha.sync.database.conflicts import conflict_documents
from controlone_ha.sync.database.documents import RAW, identity_of, key_of
from controlone_ha.sync.database.judge import Reader, Standing, has_gone_back, may_expire
from controlone_ha.sync.database.namespaces import LANES, OWN
from controlone_ha.sync.database.store import JOURNALED, Store
from controlone_ha.sync.database.versions import Row, content_hash, removed, time_of

if TYPE_CHECKING:
    from pymongo import MongoClient

log = logging.getLogger("database.upkeep")

BATCH = 500


def remembered_standing(client: MongoClient[Any], node: str) -> tuple[Standing | None, bool]:
    """Return what a peer has read of ``node``, and whether it has stopped waiting for it."""
    state = client[OWN]["state"]
    position: dict[str, int] = {}
    incarnation = ""
    for lane in LANES:
        found = state.find_one({"_id": f"progress/{node}/{lane}"})
        if found is not None:
            position[lane] = int(found["q"])
            incarnation = found["incarnation"]
    reader = state.find_one({"_id": f"reader/{node}"}) or {}
    standing = Standing(incarnation=incarnation, position=position) if position else None
    return standing, bool(reader.get("lapsed"))


def is_to_return(store: Store, standing: Standing | None, is_lapsed: bool, lapsed_as: str) -> bool:
    """Tell whether this node has to return; ``lapsed_as``: its incarnation when it lapsed."""
    own = Standing(
        incarnation=store.incarnation,
        position={name: lane.sequence for name, lane in store.lanes.items()},
    )
    return has_gone_back(own, standing) or (is_lapsed and lapsed_as == store.incarnation)


def lapsed_incarnation(client: MongoClient[Any], node: str) -> str:
    """Return the incarnation of ``node`` that a peer has given up waiting for."""
    found = client[OWN]["state"].find_one({"_id": f"reader/{node}"}) or {}
    return str(found.get("incarnation") or "")


def note_reader(store: Store, peer: str, standing: Standing | None) -> None:
    """Remember how far a peer has read this node."""
    position = standing.position if standing is not None else {}
    if standing is not None and standing.incarnation != store.incarnation:
        position = {}
    store.note(
        {
            "_id": f"reader/{peer}",
            "peer": peer,
            "position": {lane: Int64(number) for lane, number in position.items()},
            "at": Int64(store.now_ms()),
        }
    )


def lapse_readers(store: Store, horizon_ms: int) -> None:
    """Stop waiting for readers that have been away for longer than the horizon."""
    limit = Int64(store.now_ms() - horizon_ms)
    query = {"_id": {"$regex": "^reader/"}, "at": {"$lt": limit}, "lapsed": {"$ne": True}}
    for found in list(store.state.find(query)):
        peer = found["peer"]
        progress = store.progress(peer, LANES[0]) or {}
        fields = {"lapsed": True, "incarnation": progress.get("incarnation", "")}
        store.state.update_one({"_id": found["_id"]}, {"$set": fields})
        log.warning("%s has been away for too long; deletes are no longer kept for it", peer)


def expire_tombstones(store: Store, horizon_ms: int) -> int:
    """Remove tombstones that may go; return how many."""
    now = store.now_ms()
    found = store.state.find({"_id": {"$regex": "^reader/"}, "lapsed": {"$ne": True}})
    readers = [
        Reader(
            peer=item["peer"],
            position={lane: int(number) for lane, number in item["position"].items()},
            seen_ms=int(item["at"]),
        )
        for item in found
    ]
    total = 0
    query = {"h": {"$exists": False}, "t": {"$lt": Int64(time_of(now - horizon_ms))}}
    for name, lane in store.lanes.items():
        expired = [
            item["_id"]
            for item in store.versions.find({**query, lane.field: {"$exists": True}})
            if may_expire(
                time=int(item["t"]),
                lane=name,
                sequence=int(item[lane.field]),
                now_ms=now,
                horizon_ms=horizon_ms,
                readers=readers,
            )
        ]
        for start in range(0, len(expired), BATCH):
            with lane.lock:
                part = {"_id": {"$in": expired[start : start + BATCH]}, **query}
                lane.forget_recent()
                total += int(store.versions.delete_many(part).deleted_count)
    store.state.delete_many({"_id": {"$regex": "^refused/"}, "time": {"$lt": Int64(time_of(now))}})
    return total


def move_unknown(store: Store, rows: Iterable[Row], peer: str) -> int:
    """Move documents that a peer does not know to the conflicts; return how many."""
    total = 0
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) >= BATCH:
            total += _move(store, batch, peer)
            batch = []
    return total + _move(store, batch, peer)


def _move(store: Store, rows: Sequence[Row], peer: str) -> int:
    """Archive and delete in one transaction; a document that has changed meanwhile stays."""
    if not rows:
        return 0
    lane = store.lanes[store.namespaces.lane(rows[0].namespace)]
    with lane.lock, store.session() as session:
        session.start_transaction(read_concern=ReadConcern("snapshot"), write_concern=JOURNALED)
        try:
            own = store.rows([row.key for row in rows], session)
            written: list[Row] = []
            known: list[bytes] = []
            moved = 0
            for row in rows:
                document = _document(store, row, session)
                is_same = row.key in own and own[row.key].order == row.order
                if document is None or not is_same or content_hash(document.raw) != row.content:
                    continue
                gone = removed(row)
                database, _, name = row.namespace.partition(".")
                collection = store.client.get_database(database, codec_options=RAW)[name]
                collection.bulk_write([DeleteOne({"_id": document["_id"]})], session=session)
                written.append(gone)
                known.append(row.key)
                moved += 1
                for kept_row, kept in conflict_documents(row, gone, document, node=peer):
                    if kept_row.key not in store.rows([kept_row.key], session):
                        target = store.client.get_database(OWN, codec_options=RAW)["conflicts"]
                        target.bulk_write([InsertOne(kept)], session=session)
                        written.append(kept_row)
            sequence = store.write(lane, written, known, session=session)
            session.commit_transaction()
        except BaseException:
            if session.in_transaction:
                session.abort_transaction()
            raise
        lane.wrote(written, sequence)
    return moved


def _document(store: Store, row: Row, session: Any) -> RawBSONDocument | None:
    database, _, name = row.namespace.partition(".")
    collection = store.client.get_database(database, codec_options=RAW)[name]
    found = collection.find_one({"_id": {"$eq": row.identity["_id"]}}, session=session)
    if found is None or key_of(row.namespace, identity_of(found)) != row.key:
        return None
    return found
