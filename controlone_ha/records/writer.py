"""The process that carries queued records into the node's own database.

Each file of the queue is taken, written and only then removed: after a crash it is written again,
which changes nothing, because every record is put in the place of the one with its ``_id``. A
database that fails is tried again a few times; then the process ends, and a service that finds it
back starts the next. A line that is no record goes to ``spoiled.jsonl`` and holds up nobody.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bson import json_util
from bson.errors import BSONError
from pymongo import MongoClient, ReplaceOne
from pymongo.errors import BulkWriteError, PyMongoError
from pymongo.write_concern import WriteConcern

from controlone_ha.records.spool import LOCK, open_locked

log = logging.getLogger("records")

LINGER = 15.0
"""Seconds without a record after which the process ends: its driver costs memory."""

STEP = 0.5
PAUSE = 2.0
ATTEMPTS = 3
BATCH = 500
MOST_SPOILED = 1 << 20

Item = tuple[str, dict[str, Any]]


class Writer:
    """Empties ``directory``; ``open_client`` is asked again after every failure."""

    def __init__(self, directory: Path, open_client: Callable[[], MongoClient[Any]]) -> None:
        self._directory = directory
        self._open_client = open_client
        self._client: MongoClient[Any] | None = None
        self.written = 0

    def run(self, *, linger: float = LINGER) -> None:
        """Write until nothing has come for ``linger`` seconds; at once when another one runs."""
        lock = os.open(self._directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return
        try:
            self._work(linger)
        finally:
            self._close()
            os.close(lock)

    def _close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _work(self, linger: float) -> None:
        failures, idle_since = 0, time.monotonic()
        while time.monotonic() - idle_since < linger:
            try:
                found = self.empty()
            except (PyMongoError, OSError) as error:
                failures += 1
                if failures == 1:
                    text = f"{type(error).__name__}: {str(error)[:200]}"
                    log.warning("records wait for the database: %s", text)
                if failures == ATTEMPTS:
                    return
                self._close()
                time.sleep(PAUSE)
                continue
            failures = 0
            if found:
                idle_since = time.monotonic()
            time.sleep(STEP)

    def empty(self) -> int:
        """Write everything that is queued now; return how many records that were."""
        count = 0
        for path in sorted(self._directory.glob("*.jsonl")):
            if path.stem != "spoiled":
                self._take(path)
        for path in sorted(self._directory.glob("*.taken")):
            items = self._read(path)
            for start in range(0, len(items), BATCH):
                self._write(items[start : start + BATCH])
            path.unlink()
            count += len(items)
        self.written += count
        return count

    def _take(self, path: Path) -> None:
        """Put a file aside, unless one is aside already: that is written first."""
        taken = path.with_suffix(".taken")
        if taken.exists() or not path.stat().st_size:
            return
        with open_locked(path):
            os.rename(path, taken)

    def _read(self, path: Path) -> list[Item]:
        items: list[Item] = []
        spoiled: list[bytes] = []
        for line in path.read_bytes().splitlines():
            try:
                entry = json_util.loads(line.decode())
                database, _, collection = entry["in"].partition(".")
                if not (database and collection and "_id" in entry["document"]):
                    raise ValueError("no record")
                items.append((entry["in"], entry["document"]))
            except (ValueError, KeyError, TypeError, AttributeError, BSONError):
                spoiled.append(line)
        if spoiled:
            log.error("%s: %d lines are no records", path.name, len(spoiled))
            self._put_aside(spoiled)
        return items

    def _put_aside(self, lines: list[bytes]) -> None:
        path = self._directory / "spoiled.jsonl"
        with open(path, "ab") as file:
            if file.tell() < MOST_SPOILED:
                file.write(b"".join(line + b"\n" for line in lines))

    def _write(self, items: list[Item]) -> None:
        if self._client is None:
            self._client = self._open_client()
        by_collection: dict[str, list[ReplaceOne[Any]]] = {}
        for name, document in items:
            wanted = ReplaceOne({"_id": document["_id"]}, document, upsert=True)
            by_collection.setdefault(name, []).append(wanted)
        for name, operations in by_collection.items():
            database, _, collection = name.partition(".")
            target = self._client[database].get_collection(
                collection, write_concern=WriteConcern(w=1, j=True)
            )
            try:
                target.bulk_write(operations, ordered=False)
            except BulkWriteError as error:
                # One that the database will never take must not hold up all others for ever.
                problems = error.details.get("writeErrors", [])
                if not problems or error.details.get("writeConcernErrors"):
                    raise
                log.error("%s: %d records refused: %.200s", name, len(problems), problems[0])
