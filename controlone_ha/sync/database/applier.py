"""Brings versions of a peer into this node's database, one transaction a batch.

Theory of operation. Under the lane's lock: own rows and, where there is one, the hash of the own
document; the verdicts (``judge``); then documents, rows, head and progress in one transaction,
whose session the stamper knows and leaves out. A document without a row is not looked for: if there
is one, the insert says so, and the batch is done again *carefully*. A clash on a unique index, too,
aborts the batch; it is then applied row by row, and the newer of the two documents stays. What
loses goes to ``controlone_ha.conflicts``, in the same transaction.

An application's write that is not stamped yet makes the batch wait for its stamp.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bson.raw_bson import RawBSONDocument
from pymongo import DeleteOne, InsertOne, ReplaceOne
from pymongo.errors import BulkWriteError, OperationFailure
from pymongo.read_concern import ReadConcern

from controlone_ha.sync.database import writes
from controlone_ha.sync.database.conflicts import conflict_documents
from controlone_ha.sync.database.documents import RAW, identity_of, key_of
from controlone_ha.sync.database.judge import Verdict, judge
from controlone_ha.sync.database.lane import Lane
from controlone_ha.sync.database.namespaces import CONFLICTS
from controlone_ha.sync.database.store import JOURNALED, Store
from controlone_ha.sync.database.versions import Row, content_hash, local_write, removed

if TYPE_CHECKING:
    from pymongo.client_session import ClientSession

log = logging.getLogger("database.applier")

DUPLICATE_KEY = 11000
UNSTAMPED_WAIT = 0.25
_SEQUENCE = (DeleteOne, ReplaceOne, InsertOne)
PATIENCE = 10.0
"""Seconds after which a document that differs from its row is stamped as it is."""


@dataclass(kw_only=True)
class Counts:
    """What became of rows."""

    applied: int = 0
    conflicts: int = 0
    refused: int = 0
    unfit: int = 0


@dataclass(kw_only=True)
class _Plan:
    """What one transaction writes."""

    rows: list[Row] = field(default_factory=list)
    known: list[bytes] = field(default_factory=list)
    documents: list[RawBSONDocument | None] = field(default_factory=list)
    requests: dict[str, list[Any]] = field(default_factory=dict)
    lost: list[tuple[Row, Row, RawBSONDocument]] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    future: list[Row] = field(default_factory=list)

    def add(self, namespace: str, *requests: Any) -> None:
        self.requests.setdefault(namespace, []).extend(requests)

    def replace_by_deletes(self) -> None:
        """Make a delete and an insert of each replace: all deletes are done before."""
        for namespace, requests in self.requests.items():
            self.requests[namespace] = [
                made
                for request in requests
                for made in (
                    (DeleteOne(request._filter), InsertOne(request._doc))
                    if isinstance(request, ReplaceOne)
                    else (request,)
                )
            ]


class _Unstamped(Exception):
    """Some documents here have no stamp yet."""

    def __init__(self, rows: list[Row]) -> None:
        super().__init__(f"{len(rows)} documents are not stamped yet")
        self.rows = rows


class _Again(Exception):
    """The batch has to be done again, carefully."""


class Applier:
    """Applies rows of any peer in one lane."""

    def __init__(self, store: Store, lane: Lane, *, allowed_skew_ms: int) -> None:
        self._store = store
        self._lane = lane
        self.allowed_skew_ms = allowed_skew_ms
        self.waited_for_stamps = 0

    def apply(
        self,
        rows: Sequence[Row],
        documents: Mapping[bytes, RawBSONDocument],
        progress: Mapping[str, Any] | None,
        new: Collection[bytes] = (),
    ) -> Counts:
        """Apply rows whose documents (by key) have been fetched; note the progress with them.

        ``new``: keys of documents that are hardly known here, so that no row is looked for.
        Rows whose document is not there or has another content are left out: a newer row of them
        is on its way. Raises ``PyMongoError`` for what the own database does.
        """
        usable = [row for row in rows if _fits(row, documents.get(row.key))]
        careful = False
        deletes_first = False
        one_by_one = False
        waiting_since: float | None = None
        while True:
            before = self._lane.sequence
            try:
                if one_by_one:
                    return self._one_by_one(usable, documents, progress)
                return self._once(usable, documents, progress, careful, deletes_first, new)
            except _Unstamped as error:
                careful = True
                self.waited_for_stamps += 1
                now = time.monotonic()
                waiting_since = waiting_since or now
                if now - waiting_since > PATIENCE:
                    self._stamp_as_they_are(error.rows)
                    waiting_since = None
                self._lane.wait(before, UNSTAMPED_WAIT)
            except _Again:
                careful = True
            except BulkWriteError as error:
                clash = _clash(error)
                if clash is None:
                    raise
                if clash == {"_id": 1} and not careful:
                    careful = True
                elif one_by_one:
                    raise
                elif not deletes_first:
                    # A value may pass from one document of the batch to another.
                    careful = deletes_first = True
                else:
                    one_by_one = True
            except OperationFailure as error:
                if not error.has_error_label("TransientTransactionError"):
                    raise
                self._lane.wait(before, 0.01)

    def _once(
        self,
        rows: Sequence[Row],
        documents: Mapping[bytes, RawBSONDocument],
        progress: Mapping[str, Any] | None,
        careful: bool,
        deletes_first: bool = False,
        new: Collection[bytes] = (),
    ) -> Counts:
        store, lane = self._store, self._lane
        with lane.lock:
            keys = [row.key for row in rows]
            own = store.rows(keys) if careful else store.rows_in(lane, keys, new=new)
            with store.session() as session:
                session.start_transaction(
                    read_concern=ReadConcern("snapshot"), write_concern=JOURNALED
                )
                try:
                    plan = self._plan(rows, documents, own, session, careful)
                    if deletes_first:
                        plan.replace_by_deletes()
                    sequence = self._execute(plan, progress, session)
                    session.commit_transaction()
                except BaseException:
                    if session.in_transaction:
                        session.abort_transaction()
                    raise
            lane.wrote(plan.rows, sequence, are_own=False)
        return plan.counts

    def _plan(
        self,
        rows: Sequence[Row],
        documents: Mapping[bytes, RawBSONDocument],
        own: Mapping[bytes, Row],
        session: ClientSession,
        careful: bool,
    ) -> _Plan:
        store = self._store
        plan = _Plan()
        looked = [row for row in rows if careful or row.key in own or row.is_deleted]
        present = self._own_documents(looked, own, session)
        unstamped = []
        for row in rows:
            before = own.get(row.key)
            there = present.get(row.key)
            verdict = judge(
                row,
                before,
                content_hash(there.raw) if there is not None else None,
                now_ms=store.now_ms(),
                allowed_skew_ms=self.allowed_skew_ms,
            )
            if verdict is Verdict.UNSTAMPED:
                unstamped.append(row)
            elif verdict is Verdict.FUTURE:
                plan.future.append(row)
                plan.counts.refused += 1
            elif verdict in (Verdict.APPLY, Verdict.CONFLICT):
                document = documents.get(row.key)
                _replace(plan, row, there, document)
                plan.rows.append(row.merged(before) if before is not None else row)
                plan.documents.append(document)
                if before is not None:
                    plan.known.append(row.key)
                plan.counts.applied += 1
                is_loss = verdict is Verdict.CONFLICT and row.namespace != CONFLICTS
                if is_loss and before is not None and there is not None:
                    plan.lost.append((before, row, there))
        if unstamped:
            raise _Unstamped(unstamped)
        return plan

    def _own_documents(
        self, rows: Sequence[Row], own: Mapping[bytes, Row], session: ClientSession
    ) -> dict[bytes, RawBSONDocument]:
        wanted: dict[str, list[Any]] = {}
        for row in rows:
            before = own.get(row.key)
            identity = before.identity if before is not None else row.identity
            wanted.setdefault(row.namespace, []).append(identity["_id"])
        found: dict[bytes, RawBSONDocument] = {}
        for namespace, ids in wanted.items():
            database, _, name = namespace.partition(".")
            collection = self._store.client.get_database(database, codec_options=RAW)[name]
            for document in collection.find({"_id": {"$in": ids}}, session=session):
                found[key_of(namespace, identity_of(document))] = document
        return found

    def _execute(
        self, plan: _Plan, progress: Mapping[str, Any] | None, session: ClientSession
    ) -> int:
        store = self._store
        self._keep_lost(plan, session)
        for namespace, requests in plan.requests.items():
            database, _, name = namespace.partition(".")
            if all(type(request) is InsertOne for request in requests):
                target = store.client.get_database(database, codec_options=RAW)
                writes.insert(target, name, [item._doc for item in requests], session=session)
                continue
            collection = store.client.get_database(database, codec_options=RAW)[name]
            # Deletes first: they may free a unique value for what comes.
            requests.sort(key=lambda request: _SEQUENCE.index(type(request)))
            collection.bulk_write(
                requests, ordered=True, bypass_document_validation=True, session=session
            )
        notes = [] if progress is None else [progress]
        notes += [_refusal(row) for row in plan.future]
        small = all(
            document is not None or row.is_deleted
            for row, document in zip(plan.rows, plan.documents, strict=True)
        )
        return store.write(
            self._lane,
            plan.rows,
            plan.known,
            documents=plan.documents if small else (),
            notes=notes,
            session=session,
        )

    def _keep_lost(self, plan: _Plan, session: ClientSession) -> None:
        """Add the losers to the plan, as documents of the synchronised collection of conflicts."""
        store = self._store
        for loser, winner, document in plan.lost:
            made = conflict_documents(loser, winner, document, node=store.node)
            known = store.rows([row.key for row, _ in made], session)
            for row, kept in made:
                if row.key in known:
                    continue
                plan.add(row.namespace, InsertOne(kept))
                plan.rows.append(row)
                plan.documents.append(kept)
            plan.counts.conflicts += 1

    # -- clashes ------------------------------------------------------------------------------

    def _one_by_one(
        self,
        rows: Sequence[Row],
        documents: Mapping[bytes, RawBSONDocument],
        progress: Mapping[str, Any] | None,
    ) -> Counts:
        """Apply each row in its own transaction; the last one notes the progress."""
        total = Counts()
        waiting = list(rows)
        # A value may pass from one document of the batch to another: deletes and those that free
        # something first, the rest as often as it takes.
        waiting.sort(key=lambda row: not row.is_deleted)
        while waiting:
            left: list[tuple[Row, BulkWriteError]] = []
            for row in waiting:
                try:
                    _sum(total, self._once([row], documents, None, True))
                except BulkWriteError as clash:
                    if _clash(clash) is None:
                        raise
                    left.append((row, clash))
            if len(left) == len(waiting):
                row, error = left[0]
                _sum(total, self._settle(row, documents.get(row.key), error))
                left = left[1:]
            waiting = [row for row, _ in left]
        if progress is not None:
            self._once([], {}, progress, True)
        return total

    def _settle(self, row: Row, document: RawBSONDocument | None, error: BulkWriteError) -> Counts:
        """Two documents want one value of a unique index: the newer version stays."""
        store, lane = self._store, self._lane
        details = error.details["writeErrors"][0]
        if document is None or details.get("keyPattern") == {"_id": 1}:
            raise _Again
        with lane.lock, store.session() as session:
            session.start_transaction(read_concern=ReadConcern("snapshot"), write_concern=JOURNALED)
            try:
                plan = _Plan()
                own = store.rows([row.key], session)
                before = own.get(row.key)
                there = self._own_documents([row], own, session).get(row.key)
                rival = self._rival(row.namespace, details, session)
                if rival is None:
                    raise _Again
                rival_row, rival_document = rival
                if content_hash(rival_document.raw) != rival_row.content:
                    raise _Unstamped([rival_row])
                final = row.merged(before) if before is not None else row
                if row.order > rival_row.order:
                    gone = removed(rival_row)
                    _replace(plan, gone, rival_document, None)
                    _replace(plan, row, there, document)
                    plan.rows += [gone, final]
                    plan.documents += [None, document]
                    plan.known.append(gone.key)
                    plan.lost.append((rival_row, row, rival_document))
                else:
                    final = removed(final)
                    _replace(plan, final, there, None)
                    plan.rows.append(final)
                    plan.documents.append(None)
                    plan.lost.append((row, rival_row, document))
                if before is not None:
                    plan.known.append(row.key)
                plan.counts.applied += 1
                sequence = self._execute(plan, None, session)
                session.commit_transaction()
            except BaseException:
                if session.in_transaction:
                    session.abort_transaction()
                raise
            lane.wrote(plan.rows, sequence)
        return plan.counts

    def _rival(
        self, namespace: str, details: Mapping[str, Any], session: ClientSession
    ) -> tuple[Row, RawBSONDocument] | None:
        """Return the document here that holds the value, with its row; None when it has gone."""
        database, _, name = namespace.partition(".")
        collection = self._store.client.get_database(database, codec_options=RAW)[name]
        value = details.get("keyValue") or {}
        query = {path: {"$eq": item} for path, item in value.items()}
        found = collection.find_one(query, session=session)
        if found is None:
            return None
        key = key_of(namespace, identity_of(found))
        row = self._store.rows([key], session).get(key)
        if row is None:
            raise _Unstamped([])
        return row, found

    def _stamp_as_they_are(self, rows: Sequence[Row]) -> None:
        """No event has come for these documents: give them a row of this moment.

        Happens when something has changed documents without the oplog telling, and keeps a peer's
        rows from being waited for for ever.
        """
        store, lane = self._store, self._lane
        with lane.lock, store.session() as session:
            own = store.rows([row.key for row in rows])
            present = self._own_documents(rows, own, session)
            made = []
            for row in rows:
                there = present.get(row.key)
                before = own.get(row.key)
                content = content_hash(there.raw) if there is not None else None
                if content == (before.content if before is not None else None):
                    continue
                made.append(
                    local_write(
                        key=row.key,
                        namespace=row.namespace,
                        identity=row.identity,
                        node=store.node,
                        wall_milliseconds=0,
                        content=content,
                        size=len(there.raw) if there is not None else 0,
                        before=before,
                    )
                )
            if made:
                log.warning("%d documents differed from their rows; stamped anew", len(made))
                lane.wrote(made, store.write(lane, made, own))


def _replace(
    plan: _Plan, row: Row, there: RawBSONDocument | None, document: RawBSONDocument | None
) -> None:
    """Plan what turns ``there`` into ``document``."""
    if there is None:
        if document is not None and not row.is_deleted:
            plan.add(row.namespace, InsertOne(document))
        return
    identity = {"_id": there["_id"]}
    if row.is_deleted or document is None:
        plan.add(row.namespace, DeleteOne(identity))
    elif _needs_insert(there, document):
        plan.add(row.namespace, DeleteOne(identity), InsertOne(document))
    else:
        plan.add(row.namespace, ReplaceOne(identity, document))


def _needs_insert(there: RawBSONDocument, document: RawBSONDocument) -> bool:
    """Tell whether an update cannot make this document: dollar names, or an id of another type."""
    if any(name.startswith("$") for name in document):
        return True
    return identity_of(there).raw != identity_of(document).raw


def _fits(row: Row, document: RawBSONDocument | None) -> bool:
    if row.is_deleted:
        return True
    return document is not None and content_hash(document.raw) == row.content


def _clash(error: BulkWriteError) -> Mapping[str, Any] | None:
    """Return the key pattern of the unique index that a batch met, None for another error."""
    errors = error.details.get("writeErrors") or []
    if not errors or errors[0].get("code") != DUPLICATE_KEY:
        return None
    return dict(errors[0].get("keyPattern") or {})


def _refusal(row: Row) -> dict[str, Any]:
    return {
        "_id": f"refused/{row.key.hex()}",
        "namespace": row.namespace,
        "node": row.node,
        "time": row.time,
        "key": row.identity,
    }


def _sum(total: Counts, part: Counts) -> None:
    total.applied += part.applied
    total.conflicts += part.conflicts
    total.refused += part.refused
    total.unfit += part.unfit
