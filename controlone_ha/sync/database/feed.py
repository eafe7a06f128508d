"""A change stream read batch by batch, with the position after each batch.

pymongo's own change stream gives one event at a time and hides where the server has got to when
there are none; the stamper needs both. Blocking; one thread uses one feed.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo.errors import OperationFailure, PyMongoError

from controlone_ha.sync.database.documents import RAW

if TYPE_CHECKING:
    from pymongo import MongoClient

CHANGE_STREAM_HISTORY_LOST = 286
CHANGE_STREAM_FATAL = 280
CURSOR_NOT_FOUND = 43


class HistoryLost(Exception):
    """The oplog no longer reaches back to where this feed had got to."""


class Feed:
    """One change stream on a database (``collection`` None: on everything)."""

    def __init__(
        self,
        client: MongoClient[Any],
        *,
        database: str,
        collection: str | None,
        pipeline: Sequence[Mapping[str, Any]],
        token: Mapping[str, Any] | None = None,
        start: Timestamp | None = None,
        expanded: bool = False,
    ) -> None:
        """Open it after ``token``, at cluster time ``start``, or now; may raise HistoryLost."""
        self._database = client.get_database(database, codec_options=RAW)
        self._session = client.start_session(causal_consistency=False)
        stage: dict[str, Any] = {}
        if collection is None:
            stage["allChangesForCluster"] = True
        if expanded:
            stage["showExpandedEvents"] = True
        if token is not None:
            stage["resumeAfter"] = token
        elif start is not None:
            stage["startAtOperationTime"] = start
        command = {
            "aggregate": 1 if collection is None else collection,
            "pipeline": [{"$changeStream": stage}, *pipeline],
            # Only one that has to look for its place notices now that the oplog has passed it.
            "cursor": {"batchSize": 0 if token is None and start is None else 1},
            "readConcern": {"level": "majority"},
        }
        cursor = self._run(command)["cursor"]
        self._cursor = int(cursor["id"])
        self._name = str(cursor["ns"]).partition(".")[2]
        self._first: list[RawBSONDocument] = cursor["firstBatch"]
        self.token: Mapping[str, Any] = cursor["postBatchResumeToken"]

    def read(self, *, wait_ms: int, most: int = 1000) -> list[RawBSONDocument]:
        """Return the next events, [] when there were none for ``wait_ms``; moves ``token``."""
        if self._first:
            first, self._first = self._first, []
            return first
        cursor = self._run(
            {
                "getMore": Int64(self._cursor),
                "collection": self._name,
                "batchSize": most,
                "maxTimeMS": max(1, wait_ms),
            }
        )["cursor"]
        self.token = cursor["postBatchResumeToken"]
        events: list[RawBSONDocument] = cursor["nextBatch"]
        return events

    def close(self) -> None:
        """End it on the server too, as far as the server can be reached."""
        try:
            self._database.command(
                {"killCursors": self._name, "cursors": [Int64(self._cursor)]},
                session=self._session,
            )
        except PyMongoError:
            pass
        self._session.end_session()

    def _run(self, command: MutableMapping[str, Any]) -> Mapping[str, Any]:
        try:
            return self._database.command(command, codec_options=RAW, session=self._session)
        except OperationFailure as error:
            if error.code in (CHANGE_STREAM_HISTORY_LOST, CHANGE_STREAM_FATAL):
                raise HistoryLost(str(error)) from error
            raise
