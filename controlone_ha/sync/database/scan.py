"""Compares every document with its row: at the first start, and after the oplog rolled over.

Theory of operation. The change stream is opened before the scan and read after it, so what changes
meanwhile is stamped by its event. At the first start a document's time is that of its id, if it is
an ObjectId, else none: any write that was seen is later. After a rollover the time of a change is
only known to lie between the last event that was seen and the oldest one that is left; it gets the
later of both, and the status says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bson.raw_bson import RawBSONDocument

from controlone_ha.sync.database.documents import RAW, birth_of, identity_of, key_of, row_from
from controlone_ha.sync.database.lane import Lane
from controlone_ha.sync.database.store import Store
from controlone_ha.sync.database.versions import Row, content_hash, local_write

BATCH = 1000


@dataclass(kw_only=True)
class Bracket:
    """After a rollover: the changes lie between these moments (ms since 1970)."""

    after_ms: int
    before_ms: int
    documents: int = 0


def scan(store: Store, lane: Lane, bracket: Bracket | None, namespaces: Sequence[str] = ()) -> int:
    """Stamp what differs from its row; return how many. ``bracket`` None: the first start.

    ``namespaces``: these collections only, else all of the lane.
    """
    chosen = namespaces or [
        name for name in store.chosen_collections() if store.namespaces.lane(name) == lane.name
    ]
    found = sum(_scan_documents(store, lane, name, bracket) for name in chosen)
    if bracket is not None:
        found += _scan_rows(store, lane, bracket, namespaces)
        bracket.documents += found
    return found


def _scan_documents(store: Store, lane: Lane, namespace: str, bracket: Bracket | None) -> int:
    database, _, name = namespace.partition(".")
    collection = store.client.get_database(database, codec_options=RAW)[name]
    found = 0
    batch: list[tuple[RawBSONDocument, bytes, int]] = []
    for document in collection.find({}, batch_size=BATCH):
        identity = identity_of(document)
        batch.append((identity, content_hash(document.raw), len(document.raw)))
        if len(batch) >= BATCH:
            found += _stamp(store, lane, namespace, batch, bracket)
            batch = []
    return found + _stamp(store, lane, namespace, batch, bracket)


def _stamp(
    store: Store,
    lane: Lane,
    namespace: str,
    batch: Sequence[tuple[RawBSONDocument, bytes, int]],
    bracket: Bracket | None,
) -> int:
    keys = [key_of(namespace, identity) for identity, _, _ in batch]
    with lane.lock:
        own = store.rows(keys)
        rows: list[Row] = []
        for key, (identity, content, size) in zip(keys, batch, strict=True):
            before = own.get(key)
            if before is not None and before.content == content:
                continue
            wall = birth_of(identity) if bracket is None else bracket.before_ms
            rows.append(
                local_write(
                    key=key,
                    namespace=namespace,
                    identity=identity,
                    node=store.node,
                    wall_milliseconds=wall,
                    content=content,
                    size=size,
                    before=before,
                )
            )
        if rows:
            lane.wrote(rows, store.write(lane, rows, own))
    return len(rows)


def _scan_rows(store: Store, lane: Lane, bracket: Bracket, namespaces: Sequence[str]) -> int:
    """Give a tombstone to each row whose document has gone."""
    query: dict[str, object] = {lane.field: {"$exists": True}, "h": {"$exists": True}}
    if namespaces:
        query = {"s": {"$in": list(namespaces)}, "h": {"$exists": True}}
    found = 0
    batch: list[Row] = []
    for item in store.versions.find(query, batch_size=BATCH):
        row = row_from(item)
        if store.namespaces.is_chosen(row.namespace):
            batch.append(row)
        if len(batch) >= BATCH:
            found += _bury(store, lane, batch, bracket.before_ms)
            batch = []
    return found + _bury(store, lane, batch, bracket.before_ms)


def _bury(store: Store, lane: Lane, rows: Sequence[Row], wall: int) -> int:
    wanted: dict[str, list[Row]] = {}
    for row in rows:
        wanted.setdefault(row.namespace, []).append(row)
    gone: list[Row] = []
    for namespace, items in wanted.items():
        database, _, name = namespace.partition(".")
        collection = store.client.get_database(database, codec_options=RAW)[name]
        ids = [row.identity["_id"] for row in items]
        there = {
            key_of(namespace, identity_of(document))
            for document in collection.find({"_id": {"$in": ids}}, {"_id": 1})
        }
        gone += [row for row in items if row.key not in there]
    if not gone:
        return 0
    with lane.lock:
        own = store.rows([row.key for row in gone])
        made = [
            local_write(
                key=row.key,
                namespace=row.namespace,
                identity=row.identity,
                node=store.node,
                wall_milliseconds=wall,
                content=None,
                size=0,
                before=own[row.key],
            )
            for row in gone
            if row.key in own and own[row.key].order == row.order
        ]
        if made:
            lane.wrote(made, store.write(lane, made, own))
    return len(made)


def bury_collection(store: Store, lane: Lane, namespace: str, wall: int) -> int:
    """A collection was dropped: give each of its documents a tombstone of that moment."""
    found = 0
    batch: list[Row] = []
    for item in store.versions.find({"s": namespace, "h": {"$exists": True}}, batch_size=BATCH):
        batch.append(row_from(item))
        if len(batch) >= BATCH:
            found += _bury(store, lane, batch, wall)
            batch = []
    return found + _bury(store, lane, batch, wall)
