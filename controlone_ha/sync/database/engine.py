"""The synchroniser of one node: its stampers and pullers, and what becomes of them in trouble.

Theory of operation. A *run* lasts as long as the own database answers: it opens the store, then a
thread stamps each lane and two threads pull each peer. Trouble with the own database ends the run,
and another begins after a pause; trouble with a peer ends that peer's connection only. Pullers
start when the stampers have caught up, because a peer's version may only be judged against writes
of ours that have their stamps. Nothing of this is in `ha`'s process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import pymongo
from pymongo.errors import PyMongoError

from controlone_ha.core.observations import Outcome
from controlone_ha.probes.database import Finding, classify
from controlone_ha.sync.database import disk
from controlone_ha.sync.database.clients import find_trouble, open_client
from controlone_ha.sync.database.feed import HistoryLost
from controlone_ha.sync.database.indexes import Indexes
from controlone_ha.sync.database.lane import Lane
from controlone_ha.sync.database.namespaces import BULK, CONFLICTS, LANES, Namespaces
from controlone_ha.sync.database.peer import PeerReader
from controlone_ha.sync.database.scan import Bracket, scan
from controlone_ha.sync.database.settings import Settings
from controlone_ha.sync.database.setup import SetupError, make_right
from controlone_ha.sync.database.stamper import Stamper
from controlone_ha.sync.database.store import RunEnded, Store
from controlone_ha.sync.database.structure import Structure
from controlone_ha.sync.database.upkeep import expire_tombstones, lapse_readers

log = logging.getLogger("database")

FIRST_PAUSE = 0.3
LONGEST_PAUSE = 5.0
LOOK_EVERY = 3.0
PATIENCE = 5.0
"""Seconds between looks at the own database, and how long it may take for an answer."""
CLOSE_WITHIN = 5.0
STATUS_WITHIN = 1.0
"""Seconds that a database may take for what the status shows of it."""


INDEXES_EVERY = 2.0
INDEXES_LOOK = 60.0
"""Seconds between looks at the notes of the peers, and at all indexes here."""


class Run:
    """One time of work on the own database. Threads end when ``ended`` is set."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ended = threading.Event()
        self.trouble: BaseException | None = None
        self.client = open_client(settings.own, own=True)
        self.namespaces = Namespaces(
            include=settings.include, exclude=settings.exclude, urgent=settings.urgent
        )
        self.store = Store(self.client, settings.node, self.namespaces)
        self.indexes = Indexes(self.store)
        self.structure = Structure(
            self.store, self.indexes, may_drop_databases=settings.drop_database
        )
        self.stampers: dict[str, Stamper] = {}
        self.readers: dict[str, PeerReader] = {}
        self.bracket: Bracket | None = None
        self.phase = "starting"
        self.returned: dict[str, Any] | None = None
        self.return_lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def open(self) -> None:
        """Open the store and start everything."""
        self.store.open()
        self.store.publish(self.settings.listed)
        self.phase = "catching up"
        for lane in self.store.lanes.values():
            if lane.name not in self.namespaces.lanes():
                continue
            self.stampers[lane.name] = Stamper(
                self.store,
                lane,
                structure=self.structure if lane.name == BULK else None,
            )
            self._start(f"stamp {lane.name}", self._stamp, lane)
        for name, target in self.settings.peers.items():
            reader = PeerReader(self, name, target)
            self.readers[name] = reader
            for lane_name in LANES:
                self._start(f"pull {name} {lane_name}", reader.pull, lane_name)

        for lane in self.store.lanes.values():
            self._start(f"tell {lane.name}", self._tell, lane)
        self._start("upkeep", self._keep_up)
        self._start("indexes", self._keep_indexes)

    def _tell(self, lane: Lane) -> None:
        """Tell the peers of what has come from others."""
        while not self.ended.is_set():
            lane.publish_waiting(1.0)

    def _keep_indexes(self) -> None:
        """Note the own indexes, and take over those of the peers."""
        looked = -INDEXES_LOOK
        while not self.ended.wait(INDEXES_EVERY):
            if not self.is_current:
                continue
            if time.monotonic() - looked > INDEXES_LOOK:
                looked = time.monotonic()
                self.indexes.look()
            for reader in self.readers.values():
                reader.pull_indexes()

    def _keep_up(self) -> None:
        """Remember the readers, and let tombstones go."""
        horizon_ms = int(self.settings.horizon * 1000)
        every = min(60.0, max(1.0, self.settings.horizon / 4))
        while not self.ended.wait(every):
            for reader in self.readers.values():
                reader.note_standing()
            lapse_readers(self.store, horizon_ms)
            expired = expire_tombstones(self.store, horizon_ms)
            if expired:
                log.info("%d tombstones are no longer needed", expired)

    def _start(self, name: str, work: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=self._guard, args=(work, *args), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _guard(self, work: Callable[..., None], *args: Any) -> None:
        try:
            work(*args)
        except RunEnded:
            pass
        except PyMongoError as error:
            self.fail(error)
        except Exception as error:  # the reaper of these threads
            log.exception("a thread of the synchroniser ended")
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """End this run because of the own database."""
        if not self.ended.is_set():
            self.trouble = error
            self.ended.set()

    def own_answers(self) -> bool:
        """Tell whether the own database is well: whose trouble was it?"""
        try:
            return bool(self.client.admin.command("hello")["isWritablePrimary"])
        except PyMongoError:
            return False

    def close(self) -> None:
        """End all threads; they notice within a second or two."""
        self.ended.set()
        self.store.end()
        limit = time.monotonic() + CLOSE_WITHIN
        for thread in self._threads:
            thread.join(max(0.0, limit - time.monotonic()))
        for reader in self.readers.values():
            reader.close()
        self.client.close()

    # -- stamping -----------------------------------------------------------------------------

    def _stamp(self, lane: Lane) -> None:
        stamper = self.stampers[lane.name]
        token = self.store.token(lane.name)
        try:
            stamper.open(token["token"] if token is not None else None)
            if token is None:
                self.phase = "first scan"
                found = scan(self.store, lane, None)
                stamper.remember()
                log.info("first scan: %d documents got their rows", found)
        except HistoryLost:
            self._bridge_gap(lane, stamper, int(token["at"]) if token is not None else 0)
        try:
            while not self.ended.is_set():
                stamper.step(wait_ms=1000 if stamper.is_current.is_set() else 20)
                if self.phase != "running" and self.is_current:
                    self.phase = "running"
        except HistoryLost:
            # Only a later open can tell how much is lost.
            raise PyMongoError("the oplog rolled over while it was being read") from None
        finally:
            if not self.ended.is_set() or self.trouble is None:
                stamper.close()

    def _bridge_gap(self, lane: Lane, stamper: Stamper, after_ms: int) -> None:
        """The oplog has rolled over: compare documents with rows, and go on where it begins."""
        self.phase = "scan after the oplog rolled over"
        while True:
            oldest = self.client["local"]["oplog.rs"].find_one(sort=[("$natural", 1)])
            assert oldest is not None
            before_ms = _wall_ms(oldest)
            try:
                stamper.open(None, oldest["ts"])
                break
            except HistoryLost:
                if self.ended.wait(0.1):  # that has gone, too: it rolls as we look
                    return
        self.bracket = Bracket(after_ms=after_ms, before_ms=before_ms)
        found = scan(self.store, lane, self.bracket)
        stamper.remember()
        log.warning("the oplog has rolled over: %d documents have a bracketed time", found)

    @property
    def is_current(self) -> bool:
        """True once every stamper has passed the events of before its start."""
        return all(stamper.is_current.is_set() for stamper in self.stampers.values())


def _wall_ms(entry: Mapping[str, Any]) -> int:
    import datetime

    moment = entry["wall"].replace(tzinfo=datetime.UTC)
    return int(moment.timestamp() * 1000)


class Engine:
    """Keeps runs going under changing settings. Thread-safe."""

    def __init__(self) -> None:
        self._settings: Settings | None = None
        self._run: Run | None = None
        self._wake = threading.Event()
        self._stopping = False
        self._trouble = ""
        self._fault = ""
        self._directory = ""
        self._since = time.time()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to work, once there are settings."""
        self._thread.start()

    def configure(self, settings: Settings) -> None:
        """Take settings over; a change begins a new run."""
        if settings == self._settings:
            return
        self._settings = settings
        run = self._run
        if run is not None:
            run.ended.set()
        self._wake.set()

    def stop(self) -> None:
        """End everything."""
        self._stopping = True
        if self._run is not None:
            self._run.ended.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(10.0)

    @property
    def run(self) -> Run | None:
        """The present run, None while the own database is away."""
        return self._run

    def _work(self) -> None:
        pause = FIRST_PAUSE
        while not self._stopping:
            self._wake.clear()
            settings = self._settings
            if settings is None:
                self._wake.wait(1.0)
                continue
            started = time.monotonic()
            finding = self._once(settings)
            if finding is None:
                continue
            self._told(finding)
            pause = (
                FIRST_PAUSE if time.monotonic() - started > 30 else min(pause * 2, LONGEST_PAUSE)
            )
            self._wake.wait(pause)

    def _once(self, settings: Settings) -> Finding | None:
        """Do one run; return what ended it, None if it was wanted."""
        try:
            run = Run(settings)
        except (OSError, ValueError, PyMongoError) as error:
            return classify(error, [])

        def trouble_of(error: BaseException) -> Finding:
            return find_trouble(settings.own, run.client, error)

        try:
            if settings.own.user:
                for step in make_right(settings.own, settings.reader_password).steps:
                    log.info("own database: %s", step)
            if not run.client.admin.command("hello")["isWritablePrimary"]:
                return classify(PyMongoError("takes no writes (not primary)"), [])
            self._directory = disk.data_directory(settings.own, run.client)
            run.open()
            self._run = run
            if self._trouble:
                log.info("own database: well again")
                self._trouble = self._fault = ""
            while not run.ended.wait(LOOK_EVERY):
                with pymongo.timeout(PATIENCE):
                    run.store.read_clock()
            return self._told(trouble_of(run.trouble)) if run.trouble is not None else None
        except PyMongoError as error:
            return self._told(trouble_of(error))
        except SetupError as error:
            return Finding(outcome=Outcome.REJECTED, detail=str(error), answer={"fault": "setup"})
        finally:
            self._run = None
            run.close()

    def _told(self, finding: Finding) -> Finding:
        """Show at once what is wrong: the threads of a run may take a while to end."""
        cause = disk.why_down(self._directory)
        text = f"{finding.detail}; {cause}" if cause else finding.detail
        self._fault = (
            "disk" if cause else str((finding.answer or {}).get("fault") or finding.outcome.value)
        )
        if text != self._trouble:
            self._trouble, self._since = text, time.time()
            log.warning("own database: %s", text)
        self._run = None
        return finding

    # -- what is told ---------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return the state of the item and of each peer (shape: ``client``)."""
        run = self._run
        if run is None:
            return {
                "state": "down" if self._trouble else "starting",
                "text": self._trouble,
                "fault": self._fault,
                "since": self._since,
                "peers": {},
            }
        bracket = run.bracket
        return {
            "state": run.phase if run.is_current else "starting",
            "text": "" if run.is_current else run.phase,
            "fault": "",
            "since": None,
            "incarnation": run.store.incarnation,
            "stamped": sum(stamper.stamped for stamper in run.stampers.values()),
            "unstamped": sum(stamper.backlog for stamper in run.stampers.values()),
            "unfit": dict(run.store.unfit),
            "conflicts": self._count(run, {"s": CONFLICTS, "h": {"$exists": True}}),
            "bracketed": None
            if bracket is None
            else {
                "documents": bracket.documents,
                "after": bracket.after_ms / 1000,
                "before": bracket.before_ms / 1000,
            },
            "notes": [*disk.warnings(self._directory), *run.structure.notes()],
            "returned": run.returned,
            "refused": self._refused(run),
            "peers": {name: reader.status() for name, reader in run.readers.items()},
        }

    @staticmethod
    def _count(run: Run, query: Mapping[str, Any]) -> int | None:
        try:
            with pymongo.timeout(STATUS_WITHIN):
                return int(run.store.versions.count_documents(query))
        except PyMongoError:
            return None

    @staticmethod
    def _refused(run: Run) -> list[dict[str, Any]]:
        try:
            with pymongo.timeout(STATUS_WITHIN):
                found = list(run.store.state.find({"_id": {"$regex": "^refused/"}}).limit(20))
            return [
                {"namespace": item["namespace"], "node": item["node"], "time": item["time"] >> 16}
                for item in found
            ]
        except PyMongoError:
            return []
