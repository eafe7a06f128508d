"""The version journal: what is known of every file, in SQLite, one writer, safe against kill -9.

Theory of operation. One row a path: its version, whether the file is present here, and the
signature (size, mtime, ctime, inode) under which the file was seen to have that content, so that a
look at the directory tells what has changed. The digest of each bucket is kept in the same
transaction. Before a received file is renamed into place its version is written as an *intent*;
after a crash in between, the file's checksum tells which of the two versions lies there, and
nothing received is ever taken for an edit of this node.

The write-ahead log with ``synchronous=NORMAL`` survives a killed process at any point. A power cut
may forget the last transactions, never the files, which are synced on their own; such a file is
then found as changed, gets a stamp of its mtime, and the peers' later stamp of the same content
wins: no bytes move and nothing is lost.

Blocking; used by the one worker thread alone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from controlone_ha.sync.stamps import Stamp
from controlone_ha.sync.versions import (
    BUCKETS,
    DIGEST_BYTES,
    EMPTY,
    Version,
    bucket_of,
    combined,
    digest_of,
    vector_text,
)

log = logging.getLogger("sync")

FORMAT: Final = 1
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS versions (
    path TEXT PRIMARY KEY, item TEXT NOT NULL, parent TEXT NOT NULL, bucket INTEGER NOT NULL,
    stamp TEXT NOT NULL, checksum TEXT NOT NULL, size INTEGER NOT NULL, mode INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, vector TEXT NOT NULL, present INTEGER NOT NULL, detail TEXT NOT NULL,
    seen_size INTEGER, seen_mtime INTEGER, seen_ctime INTEGER, seen_inode INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_bucket ON versions (item, bucket);
CREATE INDEX IF NOT EXISTS by_parent ON versions (item, parent);
CREATE TABLE IF NOT EXISTS buckets (
    item TEXT, bucket INTEGER, digest BLOB NOT NULL, PRIMARY KEY (item, bucket)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS intents (path TEXT PRIMARY KEY, item TEXT, version TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS peers (
    peer TEXT, item TEXT, state TEXT, since REAL, text TEXT, PRIMARY KEY (peer, item)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""
_COLUMNS: Final = "path, item, stamp, checksum, size, mode, mtime_ns, vector, present, detail"


class Signature(NamedTuple):
    """How a file looked when its content was read; times in nanoseconds."""

    size: int
    mtime: int
    ctime: int
    inode: int


class Journal:
    """The journal of one node in ``path``. Raises ``sqlite3.Error``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._base = self._open()
        self._digests: dict[str, list[bytes]] = {}

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            aside = self.path.with_suffix(".unreadable")
            log.error("%s: %s; kept as %s, the files are looked at anew", self.path, error, aside)
            for suffix in ("-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
            self.path.replace(aside)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        base = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        self.path.chmod(0o600)
        for pragma in (
            "journal_mode=WAL", "synchronous=NORMAL", "cache_size=-256", "temp_store=MEMORY",
            "journal_size_limit=262144",
        ):  # fmt: skip
            base.execute(f"PRAGMA {pragma}").fetchall()
        base.executescript(_SCHEMA)
        return base

    def close(self) -> None:
        """Close; idempotent."""
        self._base.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything in the block or nothing of it; joins a transaction that is open already."""
        if self._base.in_transaction:
            yield
            return
        self._base.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._base.execute("ROLLBACK")
            self._digests.clear()
            raise
        self._base.execute("COMMIT")

    # -- versions -----------------------------------------------------------------------------

    def get(self, path: str) -> Version | None:
        """Return what is known of ``path``."""
        row = self._base.execute(
            f"SELECT {_COLUMNS} FROM versions WHERE path = ?", (path,)
        ).fetchone()
        return _version(row) if row else None

    def signature(self, path: str) -> Signature | None:
        """Return how the file looked when it was read; None when it is unknown or absent."""
        row = self._base.execute(
            "SELECT seen_size, seen_mtime, seen_ctime, seen_inode FROM versions"
            " WHERE path = ? AND present",
            (path,),
        ).fetchone()
        return Signature(*row) if row and row[0] is not None else None

    def seen_in(self, item: str, parent: str) -> dict[str, Signature | None]:
        """Return the present files directly in one directory, by path."""
        rows = self._base.execute(
            "SELECT path, seen_size, seen_mtime, seen_ctime, seen_inode FROM versions"
            " WHERE item = ? AND parent = ? AND present",
            (item, parent),
        )
        return {row[0]: Signature(*row[1:]) if row[1] is not None else None for row in rows}

    def parents(self, item: str) -> set[str]:
        """Return the directories that hold a present file of the item."""
        rows = self._base.execute(
            "SELECT DISTINCT parent FROM versions WHERE item = ? AND present", (item,)
        )
        return {row[0] for row in rows}

    def put(self, version: Version, signature: Signature | None) -> None:
        """Make ``version`` what is known of its path, and keep the digest of its bucket."""
        with self.transaction():
            before = self.get(version.path)
            if before is not None and before.item != version.item:
                self._toggle(before)
                before = None
            if before is None or before.identity != version.identity:
                if before is not None:
                    self._toggle(before)
                self._toggle(version)
            self._base.execute(
                "INSERT OR REPLACE INTO versions VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (
                    version.path,
                    version.item,
                    version.path.rpartition("/")[0] or "/",
                    bucket_of(version.path),
                    version.stamp.text(),
                    version.checksum,
                    version.size,
                    version.mode,
                    version.mtime_ns,
                    vector_text(version.vector),
                    int(version.present),
                    version.detail,
                    *(signature or (None, None, None, None)),
                ),
            )

    def see(self, path: str, signature: Signature) -> None:
        """Note that the file is present and looks like this now, its content being unchanged."""
        self._base.execute(
            "UPDATE versions SET present = 1, seen_size = ?, seen_mtime = ?, seen_ctime = ?,"
            " seen_inode = ? WHERE path = ?",
            (*signature, path),
        )

    def lose(self, path: str) -> None:
        """Note that the file was deleted here; its version stays known: it does not come back."""
        self._base.execute(
            "UPDATE versions SET present = 0, seen_size = NULL WHERE path = ?", (path,)
        )

    def in_buckets(self, item: str, buckets: list[int], after: str, limit: int) -> list[Version]:
        """Return up to ``limit`` versions of some buckets, by path, the first after ``after``."""
        marks = ",".join("?" * len(buckets))
        rows = self._base.execute(
            f"SELECT {_COLUMNS} FROM versions WHERE item = ? AND bucket IN ({marks}) AND path > ?"
            " ORDER BY path LIMIT ?",
            (item, *buckets, after, limit),
        ).fetchall()
        return [_version(row) for row in rows]

    def all_of(self, item: str) -> Iterator[Version]:
        """Return every version of an item, a few at a time."""
        after = ""
        while rows := self.in_buckets(item, list(range(BUCKETS)), after, 200):
            yield from rows
            after = rows[-1].path

    def latest_wall(self, limit: int) -> int:
        """Return the latest wall clock (microseconds, up to ``limit``) of any stamp; 0: none."""
        row = self._base.execute(
            "SELECT MAX(CAST(stamp AS INTEGER)) FROM versions WHERE CAST(stamp AS INTEGER) <= ?",
            (limit,),
        ).fetchone()
        return int(row[0] or 0)

    def counts(self, item: str) -> dict[str, int]:
        """Return how many files are ``present`` and ``absent`` here, and their ``bytes``."""
        row = self._base.execute(
            "SELECT COALESCE(SUM(present), 0), COALESCE(SUM(NOT present), 0),"
            " COALESCE(SUM(present * size), 0) FROM versions WHERE item = ?",
            (item,),
        ).fetchone()
        return {"present": row[0], "absent": row[1], "bytes": row[2]}

    def present_files(self, item: str) -> list[tuple[str, int, float]]:
        """Return (path, size, mtime in seconds) of the files here, the oldest first."""
        rows = self._base.execute(
            "SELECT path, size, mtime_ns FROM versions WHERE item = ? AND present"
            " ORDER BY mtime_ns, path",
            (item,),
        )
        return [(row[0], row[1], row[2] / 1e9) for row in rows]

    def absent(self, item: str, limit: int = 100) -> list[str]:
        """Return files that are known and not here: they exist on peers only, if at all."""
        rows = self._base.execute(
            "SELECT path FROM versions WHERE item = ? AND NOT present ORDER BY path LIMIT ?",
            (item, limit),
        )
        return [row[0] for row in rows]

    # -- digests ------------------------------------------------------------------------------

    def buckets(self, item: str) -> bytes:
        """Return the digests of all buckets, in order."""
        return b"".join(self._of_item(item))

    def _of_item(self, item: str) -> list[bytes]:
        known = self._digests.get(item)
        if known is None:
            known = self._digests[item] = [EMPTY] * BUCKETS
            for number, digest in self._base.execute(
                "SELECT bucket, digest FROM buckets WHERE item = ?", (item,)
            ):
                if 0 <= number < BUCKETS and len(digest) == DIGEST_BYTES:
                    known[number] = digest
        return known

    def _toggle(self, version: Version) -> None:
        digests, number = self._of_item(version.item), bucket_of(version.path)
        digests[number] = combined(digests[number], digest_of(version))
        self._base.execute(
            "INSERT OR REPLACE INTO buckets VALUES (?,?,?)",
            (version.item, number, digests[number]),
        )

    # -- intents, peers, meta -------------------------------------------------------------------

    def intend(self, version: Version) -> None:
        """Note the version that is about to be renamed into place."""
        self._base.execute(
            "INSERT OR REPLACE INTO intents VALUES (?,?,?)",
            (version.path, version.item, json.dumps(version.to_json())),
        )

    def intent(self, path: str) -> tuple[str, str] | None:
        """Return (item, version as JSON text) of what was about to be put at ``path``."""
        row = self._base.execute(
            "SELECT item, version FROM intents WHERE path = ?", (path,)
        ).fetchone()
        return (row[0], row[1]) if row else None

    def intended(self) -> list[str]:
        """Return the paths with an intent: what a crash has interrupted."""
        return [row[0] for row in self._base.execute("SELECT path FROM intents")]

    def settle(self, path: str) -> None:
        """Forget the intent of ``path``."""
        self._base.execute("DELETE FROM intents WHERE path = ?", (path,))

    def note_peer(self, peer: str, item: str, state: str, since: float | None, text: str) -> None:
        """Remember how this node stands with a peer, for the status after a restart."""
        self._base.execute(
            "INSERT OR REPLACE INTO peers VALUES (?,?,?,?,?)", (peer, item, state, since, text)
        )

    def peer_notes(self) -> list[tuple[str, str, str, float | None, str]]:
        """Return (peer, item, state, since, text) of everything remembered."""
        return list(self._base.execute("SELECT peer, item, state, since, text FROM peers"))

    def recall(self, key: str, default: str = "") -> str:
        """Return a remembered text."""
        row = self._base.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else default

    def remember(self, key: str, value: str) -> None:
        """Remember a text."""
        self._base.execute("INSERT OR REPLACE INTO meta VALUES (?,?)", (key, value))


def _version(row: tuple[Any, ...]) -> Version:
    return Version(
        path=row[0],
        item=row[1],
        stamp=Stamp.parse(row[2]),
        checksum=row[3],
        size=row[4],
        mode=row[5],
        mtime_ns=row[6],
        vector=json.loads(row[7]),
        present=bool(row[8]),
        detail=row[9],
    )
