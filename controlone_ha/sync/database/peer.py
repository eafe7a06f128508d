"""One peer, as this node reads it: connection, clock, standing, both lanes, and what is told of it.

Theory of operation. Each lane has a thread that connects, reads on from its progress, then compares
digests, then follows. Before anything is applied the clocks of the two databases are compared, and
again every few seconds: beyond the allowed skew the peer is held, and since both nodes measure the
same, both hold. The bulk lane's thread does the full comparison every hour as well, and on demand.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from pymongo.errors import OperationFailure, PyMongoError

from controlone_ha.probes.database import DatabaseTarget, Finding
from controlone_ha.sync.database.applier import Applier
from controlone_ha.sync.database.clients import find_trouble, open_client
from controlone_ha.sync.database.feed import HistoryLost
from controlone_ha.sync.database.judge import hold_for_skew
from controlone_ha.sync.database.namespaces import BULK, CONFLICTS, LANES, OWN
from controlone_ha.sync.database.puller import PeerChanged, Puller
from controlone_ha.sync.database.reconcile import Difference, Digests, differences
from controlone_ha.sync.database.upkeep import (
    is_to_return,
    lapsed_incarnation,
    move_unknown,
    note_reader,
    remembered_standing,
)

if TYPE_CHECKING:
    from pymongo import MongoClient

    from controlone_ha.sync.database.engine import Run

log = logging.getLogger("database.peer")

FIRST_PAUSE = 0.3
LONGEST_PAUSE = 5.0
CLOCK_EVERY = 5.0
_RIGHTS_LOST = (11, 13, 18, 391)
"""UserNotFound, Unauthorized, AuthenticationFailed, ReauthenticationRequired."""


class PeerReader:
    """See the module's text. ``pull`` runs once for each lane."""

    def __init__(self, run: Run, name: str, target: DatabaseTarget) -> None:
        self._run = run
        self.name = name
        self._target = target
        self._client: MongoClient[Any] = open_client(target, own=False, name=run.settings.node)
        self._pullers: dict[str, Puller] = {}
        self._sync_asked = threading.Event()
        self._lock = threading.Lock()
        self._clock_at = -CLOCK_EVERY
        self._full_at = 0.0
        self.skew_ms: float | None = None
        self.is_held = False
        self.state, self.text, self.fault = "never", "", ""
        self.in_sync_at: float | None = None
        self.full_sync_at: float | None = None
        self.full: dict[str, Any] = {}

    def close(self) -> None:
        """End the connections."""
        for puller in self._pullers.values():
            puller.close()
        self._client.close()

    # -- pulling ------------------------------------------------------------------------------

    def pull(self, lane_name: str) -> None:
        """Read one lane until the run ends."""
        run = self._run
        while not run.is_current:
            if run.ended.wait(0.05):
                return
        pause = FIRST_PAUSE
        while not run.ended.is_set():
            started = time.monotonic()
            try:
                self._follow(lane_name)
            except PeerChanged:
                continue
            except (PyMongoError, HistoryLost) as error:
                if not run.own_answers():
                    raise
                self._trouble(error)
                if isinstance(error, OperationFailure) and error.code in _RIGHTS_LOST:
                    self._log_in_anew()
            if time.monotonic() - started > 30:
                pause = FIRST_PAUSE
            run.ended.wait(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _log_in_anew(self) -> None:
        """The peer has made the user anew, to shut somebody out: our connections are worthless."""
        old = self._client
        self._client = open_client(self._target, own=False, name=self._run.settings.node)
        old.close()

    def _follow(self, lane_name: str) -> None:
        run = self._run
        self._check_clock()
        if self.is_held:
            return
        lane = run.store.lanes[lane_name]
        applier = Applier(run.store, lane, allowed_skew_ms=int(run.settings.allowed_skew * 1000))
        puller = Puller(run.store, lane, self.name, self._client, applier)
        old = self._pullers.get(lane_name)
        if old is not None:
            puller.totals = old.totals
            old.close()
        self._pullers[lane_name] = puller
        try:
            if not puller.open():
                self._set("waiting", "its synchroniser has not begun yet")
                return
            if not self._names_us():
                self._set("waiting", "its list of peers does not name this node")
                return
            self._return_if_needed()
            self._set("pending", "catching up")
            self._catch_up(puller, lane_name)
            puller.is_following = True
            while not run.ended.is_set():
                self._check_clock()
                if self.is_held:
                    return
                puller.step(wait_ms=1000 if self.state == "in sync" else 20)
                if self._is_current():
                    self._set("in sync", "")
                    self.in_sync_at = time.time()
                if lane_name == BULK and self._is_full_due():
                    self.compare(apply=True)
        finally:
            puller.close()

    def pull_indexes(self) -> None:
        """Take over indexes of the peer; what goes wrong with it is told by the pullers."""
        puller = self._pullers.get(BULK)
        if puller is None or self.state not in ("in sync", "pending"):
            return
        try:
            self._run.indexes.pull(self.name, self._client, puller.make_collection)
        except PyMongoError as error:
            if not self._run.own_answers():
                raise
            log.info("%s: indexes: %s", self.name, error)

    def _return_if_needed(self) -> None:
        """Find out whether this node has been away too long, or is an old image of itself."""
        run = self._run
        node = run.settings.node
        with run.return_lock:
            standing, is_lapsed = remembered_standing(self._client, node)
            lapsed_as = lapsed_incarnation(self._client, node) if is_lapsed else ""
            if not is_to_return(run.store, standing, is_lapsed, lapsed_as):
                note_reader(run.store, self.name, standing)
                return
            self._set("pending", "this node returns: comparing what it has with this peer")
            log.warning(
                "this node is an old image, or was away too long: returning by %s", self.name
            )
            moved = 0
            for lane_name in LANES:
                for group in self._differences(lane_name):
                    unknown = [
                        item.own
                        for item in group
                        if item.own is not None
                        and item.kind == "missing there"
                        and item.own.namespace != CONFLICTS
                    ]
                    moved += move_unknown(run.store, unknown, self.name)
            run.store.begin_incarnation()
            run.returned = {"moved": moved, "at": time.time(), "by": self.name}
            log.warning(
                "returned: %d documents unknown to %s are in the conflicts", moved, self.name
            )

    def _names_us(self) -> bool:
        """Tell whether the peer's changes go to this node: its own list says so."""
        node = self._client[OWN]["state"].find_one({"_id": "node"})
        listed = None if node is None else node.get("peers")
        return listed is None or self._run.settings.node in listed

    def _catch_up(self, puller: Puller, lane_name: str) -> None:
        """Compare digests where much may be equal, read by number where all is new."""
        known = self._run.store.progress(self.name, lane_name)
        has_rows = self._run.store.lanes[lane_name].sequence > 0
        if puller.position == 0 and known is None and not has_rows:
            puller.catch_up()
        elif puller.position == 0 and puller.head > 0:
            head = puller.head
            self._reconcile(puller, lane_name)
            puller.skip_to(head)
        else:
            puller.catch_up()
            self._reconcile(puller, lane_name)

    def _is_current(self) -> bool:
        pullers = list(self._pullers.values())
        return len(pullers) == len(LANES) and all(item.is_current.is_set() for item in pullers)

    def _is_full_due(self) -> bool:
        due = time.monotonic() - self._full_at > self._run.settings.full_sync
        if self._sync_asked.is_set():
            self._sync_asked.clear()
            return True
        return due

    def note_standing(self) -> None:
        """Remember how far the peer has read us, if it can be asked now."""
        if self.state not in ("in sync", "pending"):
            return
        try:
            standing, _ = remembered_standing(self._client, self._run.settings.node)
        except PyMongoError:
            return
        note_reader(self._run.store, self.name, standing)

    # -- comparing ----------------------------------------------------------------------------

    def ask_full(self) -> None:
        """Have the whole of both databases compared soon."""
        self._sync_asked.set()

    def compare(self, *, apply: bool) -> dict[str, dict[str, int]]:
        """Compare all rows; return counts by namespace and kind; apply what is newer there."""
        found: dict[str, dict[str, int]] = {}
        started = time.monotonic()
        full = {"found": 0, "applied": 0, "seconds": 0.0}
        if apply:
            self.full = full
        for lane_name in LANES:
            for group in self._differences(lane_name):
                for item in group:
                    row = item.own or item.remote
                    assert row is not None
                    kinds = found.setdefault(row.namespace, {})
                    kinds[item.kind] = kinds.get(item.kind, 0) + 1
                if apply:
                    full["found"] += sum(item.is_newer_there for item in group)
                    full["applied"] += self._apply(self._pullers[lane_name], group)
                    full["seconds"] = time.monotonic() - started
        if apply:
            self._full_at = time.monotonic()
            full["seconds"] = time.monotonic() - started
            self.full_sync_at = time.time()
        return found

    def _reconcile(self, puller: Puller, lane_name: str) -> None:
        for group in self._differences(lane_name):
            self._apply(puller, group)
        if lane_name == BULK:
            self._full_at = time.monotonic()
            self.full_sync_at = time.time()

    def _differences(self, lane_name: str) -> Any:
        run = self._run
        names = run.store.namespaces
        own = Digests(run.store.versions)
        remote = Digests(self._client[OWN].get_collection("versions", codec_options=_raw()))

        def is_wanted(namespace: str) -> bool:
            return names.is_chosen(namespace) and names.lane(namespace) == lane_name

        return differences(own, remote, is_wanted)

    def _apply(self, puller: Puller, group: list[Difference]) -> int:
        rows = [item.remote for item in group if item.remote is not None and item.is_newer_there]
        before = puller.totals.applied
        while rows:
            step = self._run.store.precedence.step
            puller.apply_rows(rows[:step])
            rows = rows[step:]
        return puller.totals.applied - before

    # -- clock --------------------------------------------------------------------------------

    def _check_clock(self) -> None:
        with self._lock:
            now = time.monotonic()
            if now - self._clock_at < CLOCK_EVERY:
                return
            self._clock_at = now
            store = self._run.store
            before = time.time()
            theirs = self._client.admin.command("hello")["localTime"]
            middle = (before + time.time()) / 2
            ours_ms = store.now_ms() - (time.time() - middle) * 1000
            self.skew_ms = _milliseconds(theirs) - ours_ms
            allowed = self._run.settings.allowed_skew * 1000
            was_held = self.is_held
            self.is_held = hold_for_skew(self.skew_ms, allowed, was_held)
            if self.is_held:
                self._set(
                    "held",
                    f"its clock differs by {self.skew_ms / 1000:.1f} s, allowed are "
                    f"{allowed / 1000:g} s",
                )
                self.fault = "skew"
            if self.is_held != was_held:
                log.warning("%s: %s", self.name, self.text if self.is_held else "clock is right")

    # -- what is told -------------------------------------------------------------------------

    def _set(self, state: str, text: str) -> None:
        if (state, text) != (self.state, self.text):
            self.state, self.text, self.fault = state, text, ""

    def find_trouble(self, error: BaseException) -> Finding:
        """Return the word and the sentence for what the peer's database has done."""
        return find_trouble(self._target, self._client, error)

    def _trouble(self, error: BaseException) -> None:
        finding = self.find_trouble(error)
        if isinstance(error, OperationFailure) and error.code == 13:
            detail = "the user of the synchronisation may not read there"
        else:
            detail = finding.detail
        if detail != self.text:
            log.warning("%s: %s (%s)", self.name, detail, error)
        self._set("down", detail)
        self.fault = str((finding.answer or {}).get("fault") or finding.outcome.value)

    def status(self) -> dict[str, Any]:
        """Return what `ha status` shows of this peer."""
        pullers = list(self._pullers.values())
        backlog = sum(max(0, puller.head - puller.position) for puller in pullers)
        return {
            "state": self.state,
            "text": self.text,
            "fault": self.fault,
            "in_sync_at": self.in_sync_at,
            "full_sync_at": self.full_sync_at,
            "full": dict(self.full),
            "backlog": backlog,
            "lag_ms": max((puller.lag_ms for puller in pullers), default=None),
            "skew_ms": self.skew_ms,
            "applied": sum(puller.totals.applied for puller in pullers),
            "conflicts": sum(puller.totals.conflicts for puller in pullers),
            "refused": sum(puller.totals.refused for puller in pullers),
        }


def _raw() -> Any:
    from controlone_ha.sync.database.documents import RAW

    return RAW


def _milliseconds(moment: Any) -> float:
    import datetime

    return float(moment.replace(tzinfo=datetime.UTC).timestamp() * 1000)
