"""The synchronisation engine of `ha`: watches the items, keeps a session with each linked peer,
runs reload commands, and says how everything stands.

Theory of operation. What blocks (stat, checksums, fsync, SQLite) runs in one worker thread, in
order; the event loop decides and moves bytes and never waits for a disk. The kernel's word about a
path is acted on at once; while the worker is busy further ones gather and go together. A scan of
everything is made at the start, before every full synchronisation and when the kernel's queue has
run over. A full synchronisation with every peer is made when a link opens, every ``full_sync``
seconds and when a person asks; a slow one reads every byte.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from controlone_ha.errors import ControlOneError, RefusedError
from controlone_ha.sync.conflicts import Conflicts
from controlone_ha.sync.difference import differences
from controlone_ha.sync.fetches import Fetches
from controlone_ha.sync.files import checksum_of, is_large, look
from controlone_ha.sync.heap import trim
from controlone_ha.sync.items import Item, item_of
from controlone_ha.sync.journal import Journal, Signature
from controlone_ha.sync.reload import Reloads
from controlone_ha.sync.replica import Replica, describe
from controlone_ha.sync.restoring import put_back
from controlone_ha.sync.runs import Runs
from controlone_ha.sync.session import NoItemError, Session
from controlone_ha.sync.standing import Notes, Standing
from controlone_ha.sync.versions import Version
from controlone_ha.sync.watch import Watch

if TYPE_CHECKING:
    from pathlib import Path

    from controlone_ha.peers.link import Link

Json = dict[str, Any]
Value = TypeVar("Value")

log = logging.getLogger("sync")

RETRY: Final = 20.0
"""Seconds between looks at the clocks and at what could not be taken."""
GATHER: Final = 0.02
"""Seconds for which changes of a burst are gathered, once two came within that time."""
SETTLED: Final = 15.0
"""Seconds after which the start is over."""
CLOCK_STEP: Final = 1.0
COUNT_EVERY: Final = 0.5
AUDITED: Final = frozenset(("config", "jobs", "licences"))
"""Items of which every file that arrives is worth an entry in the history."""


@dataclass(frozen=True, kw_only=True)
class SyncSettings:
    """What UCI says; seconds, days and MB as named in the schema. ``peers``: node names whose
    `sync` option is 1; others are neither told nor heard.
    """

    items: dict[str, Item] = field(default_factory=dict)
    full_sync: float = 3600.0
    scrub: float = 604800.0
    allowed_skew: float = 5.0
    peers: frozenset[str] = frozenset()


class Engine:
    """See the module's text. ``start`` before links come; ``stop`` after they have gone."""

    def __init__(
        self,
        *,
        node: str,
        state_dir: Path,
        settings: SyncSettings,
        environment: Callable[[], dict[str, str]],
        on_applied: Callable[[str, list[str]], None],
        record: Callable[[Json], None],
    ) -> None:
        self.node = node
        self.settings = settings
        self.sessions: dict[str, Session] = {}
        self.replica: Replica
        self.standings: dict[tuple[str, str], Standing] = {}
        self.counts: dict[str, dict[str, int]] = {}
        self.runs = Runs(self)
        self.fetches = Fetches()
        self._state_dir = state_dir
        self._on_applied = on_applied
        self._record = record
        self._reloads = Reloads(environment, self._reloaded)
        self._worker = ThreadPoolExecutor(1, "sync")
        self._tasks: set[asyncio.Task[Any]] = set()
        self._changed: set[str] = set()
        self._last_batch = 0.0
        self._has_changes = asyncio.Event()
        self._rescan = False
        self._watch: Watch | None = None
        self._is_ready = asyncio.Event()
        self._waiting_links: dict[str, Link] = {}
        self._counting: asyncio.Task[None] | None = None
        self._notes = Notes(self)

    # -- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the journal and begin; the first scan goes on in the background."""
        self._watch = Watch(self._on_changed, self._on_lost)
        await self.work(self._open)
        self._apply_settings()
        self.spawn(self._begin())

    def _open(self) -> None:
        self._state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        journal = Journal(self._state_dir / "sync.db")
        self.replica = Replica(
            self.node,
            journal,
            Conflicts(self._state_dir / "conflicts"),
            allowed_skew=self.settings.allowed_skew,
        )
        self.replica.configure(self.settings.items, self.settings.allowed_skew)
        self.replica.open()
        for peer, item, state, since, text in journal.peer_notes():
            self.standings[(peer, item)] = Standing(state=state, since=since, text=text)

    async def _begin(self) -> None:
        for name in list(self.items):
            await self.scan(name)
            if await self.work(self.replica.journal.recall, f"reload/{name}", ""):
                # `ha` was killed after files had arrived and before their command had run.
                self._reloads.need(self.items[name], [])
        self._is_ready.set()
        for link in list(self._waiting_links.values()):
            self.link_up(link)
        self._waiting_links.clear()
        for work in (
            self._change_loop(), self._full_loop(), self._retry_loop(), self._clock_loop(),
            self._scrub_loop(), self._trim(),
        ):  # fmt: skip
            self.spawn(work)

    async def _trim(self) -> None:
        """Give back what the start has left, once the links are there."""
        await asyncio.sleep(SETTLED)
        await self.work(trim)

    async def stop(self) -> None:
        """End everything; the journal is closed when the worker has done what it had begun."""
        for session in self.sessions.values():
            session.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._reloads.stop()
        if self._watch is not None:
            self._watch.close()
        if hasattr(self, "replica"):
            await self.work(self._notes.write)
            await self.work(self.replica.journal.close)
        self._worker.shutdown(wait=False)

    def configure(self, settings: SyncSettings) -> None:
        """Use other settings from now on."""
        before, self.settings = self.settings, settings
        if hasattr(self, "replica"):
            self._apply_settings()
            self.replica.configure(settings.items, settings.allowed_skew)
            for session in self.sessions.values():
                session.judge_clock()
            if before.items != settings.items and self._is_ready.is_set():
                self.spawn(self.sync_all())

    def _reloaded(self, name: str) -> None:
        self.work(self.replica.journal.remember, f"reload/{name}", "")

    def _apply_settings(self) -> None:
        roots: dict[tuple[str, bool], None] = {}
        for item in self.items.values():
            roots.update(dict.fromkeys(item.roots()))
        assert self._watch is not None
        self._watch.configure(roots)

    @property
    def items(self) -> dict[str, Item]:
        """The items of this node by name."""
        return self.settings.items

    @property
    def allowed_skew(self) -> float:
        """Seconds that clocks may differ."""
        return self.settings.allowed_skew

    def work(self, function: Callable[..., Value], *arguments: Any) -> asyncio.Future[Value]:
        """Run what blocks in the worker, after everything asked before."""
        return asyncio.get_running_loop().run_in_executor(self._worker, function, *arguments)

    async def finish(self, work: Coroutine[Any, Any, Value]) -> Value:
        """Wait for ``work``, which goes on to its end even when the waiting does not: what was put
        in its place has to be told and reloaded, also if the link has ended meanwhile.
        """
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a task of the engine; what it raises is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is None:
            return
        problem = task.exception()
        if isinstance(problem, ControlOneError | TimeoutError):
            log.info("synchronisation interrupted: %s", problem)
        else:
            log.error("a task of the synchronisation ended", exc_info=problem)

    # -- links --------------------------------------------------------------------------------

    def link_up(self, link: Link) -> None:
        """A link with a peer is usable."""
        if link.peer not in self.settings.peers:
            return
        if not self._is_ready.is_set():
            self._waiting_links[link.peer] = link
            return
        old = self.sessions.pop(link.peer, None)
        if old is not None:
            old.stop()
        session = self.sessions[link.peer] = Session(self, link)
        session.start()

    def link_down(self, peer: str) -> None:
        """The link has ended; what was under way is compared again on the next."""
        self._waiting_links.pop(peer, None)
        session = self.sessions.pop(peer, None)
        if session is not None:
            session.stop()
            self._note(peer, session)

    def linked(self) -> tuple[str, ...]:
        """Return the peers that can be told now."""
        return tuple(name for name, session in self.sessions.items() if not session.hold)

    def wake_fetching(self) -> None:
        """A peer has given something, or failed to: others that wanted the same look again."""
        for session in self.sessions.values():
            session.wake_fetching()

    async def request(self, peer: str, method: str, params: Json) -> object:
        """Serve a request of a peer."""
        await asyncio.wait_for(self._is_ready.wait(), 10.0)
        session = self.sessions.get(peer)
        if session is None:
            raise RefusedError(f"{self.node} does not synchronise with {peer}")
        match method:
            case "sync.offer":
                return await session.offered(params)
            case "sync.compare":
                return await session.comparison.compared(params)
            case "sync.list":
                return await session.comparison.listed(params)
            case "sync.fetch":
                return await session.fetched(params)
            case _:
                raise RefusedError(f"{method} is not known here")

    def notify(self, peer: str, method: str, params: Json) -> None:
        """Take a notification of a peer."""
        session = self.sessions.get(peer)
        if session is not None and method == "sync.done":
            session.done(params)
        elif session is not None and method == "sync.level":
            session.level(params)

    # -- changes --------------------------------------------------------------------------------

    def _on_changed(self, paths: set[str]) -> None:
        self._changed.update(
            path for path in paths if item_of(self.items.values(), path) is not None
        )
        if self._changed:
            self._has_changes.set()

    def _on_lost(self) -> None:
        self._rescan = True
        self._has_changes.set()

    async def _change_loop(self) -> None:
        while True:
            await self._has_changes.wait()
            since = time.monotonic() - self._last_batch
            if since < GATHER:
                await asyncio.sleep(GATHER - since)
            self._has_changes.clear()
            paths, self._changed = self._changed, set()
            if self._rescan:
                self._rescan = False
                for name in list(self.items):
                    await self.scan(name)
            if paths:
                small = []
                for path in sorted(paths):
                    if is_large(path):
                        self.spawn(self._examine_large(path))
                    else:
                        small.append(path)
                self._spread(await self.work(self.replica.examine, small))
                self._judge_problems()
                self._count_soon()
            self._last_batch = time.monotonic()

    async def _examine_large(self, path: str) -> None:
        """Read a large file in a thread of its own: nothing else is to wait for its checksum."""

        def read(known: Signature | None) -> tuple[Signature, str, int] | None:
            found = look(path)
            if found is None or found[0] == known:
                return None
            return found[0], *checksum_of(path)

        known = await self.work(self.replica.journal.signature, path)
        try:
            seen = await asyncio.to_thread(read, known)
        except OSError:
            seen = None
        if seen is None:
            self._spread(await self.work(self.replica.examine, [path]))
        else:
            self._spread(await self.work(self.replica.examine_hashed, path, *seen))
        self._judge_problems()
        self._count_soon()

    def _count_soon(self) -> None:
        """Have the files counted again, once for many changes: the status shows it."""
        if self._counting is None or self._counting.done():
            self._counting = self.spawn(self._count())

    async def _count(self) -> None:
        await asyncio.sleep(COUNT_EVERY)
        await self.work(self.replica.losers.tidy)
        for name in list(self.items):
            self.counts[name] = await self.work(self.replica.journal.counts, name)

    async def scan(self, name: str, *, everything: bool = False) -> None:
        """Look at every file of an item and spread what has changed."""

        def scan() -> list[Version]:
            found = self.replica.scan(name, everything=everything)
            self.counts[name] = self.replica.journal.counts(name)
            return found

        if name in self.items:
            self._spread(await self.work(scan))
            removed = await self.work(self.replica.expire, name)
            if removed:
                self._count_soon()
            self._judge_problems()

    def _spread(self, versions: Iterable[Version]) -> None:
        """Tell every peer about edits of this node."""
        by_item: dict[str, list[str]] = {}
        for version in versions:
            by_item.setdefault(version.item, []).append(version.path)
        for name, paths in by_item.items():
            if self.items[name].sends:
                for session in self.sessions.values():
                    session.offer(paths, name, direct=True)

    def arrived(self, item: str, paths: list[str], sender: str, told: Iterable[str]) -> None:
        """Files came from a peer: pass them on, and have the item reloaded."""
        self.pass_on(item, paths, sender, told)
        log.info("%s: %d files from %s", item, len(paths), sender)
        if item in AUDITED:
            self._record(
                {"kind": "sync", "peer": sender, "item": item, "state": "received",
                 "paths": paths[:20], "by": sender, "detail": ", ".join(paths[:5])}
            )  # fmt: skip
        definition = self.items.get(item)
        if definition is not None:
            self._reloads.need(definition, paths)
            self._on_applied(item, paths)
        self._count_soon()
        self._judge_problems()

    def pass_on(self, item: str, paths: list[str], sender: str, told: Iterable[str]) -> None:
        """Tell the other peers about versions that came from ``sender``."""
        if self.items[item].sends:
            for name, session in self.sessions.items():
                if name != sender:
                    session.offer(paths, item, direct=False, told=told)

    def state_changed(self) -> None:
        """The node's state has changed: items that depend on it are reloaded."""
        for item in self.items.values():
            if item.follows_state:
                self._reloads.need(item, [])

    # -- rhythms ----------------------------------------------------------------------------------

    async def sync_all(self, names: Iterable[str] | None = None) -> None:
        """Scan and compare with every peer that is linked."""
        for name in list(names or self.items):
            await self.scan(name)
            await asyncio.gather(
                *(self.compare(session, name) for session in list(self.sessions.values()))
            )

    async def compare(self, session: Session, name: str) -> str:
        """Compare an item with a peer; return what is wrong, empty when both sides are equal."""
        try:
            await session.comparison.compare(name)
        except (ControlOneError, TimeoutError) as error:
            if getattr(error, "code", "") == NoItemError.code:
                session.foreign.add(name)
                self._note(session.peer, session)
                return ""
            sentence = str(error) or "no answer in time"
            log.warning("%s: %s not compared: %s", session.peer, name, sentence)
            return sentence
        return "; ".join(session.refusals(name)[:3])

    async def _full_loop(self) -> None:
        while True:
            await asyncio.sleep(self.settings.full_sync)
            await self.sync_all()
            await self.work(trim)

    async def _retry_loop(self) -> None:
        while True:
            await asyncio.sleep(RETRY)
            for session in list(self.sessions.values()):
                was_held = session.hold
                session.judge_clock()
                stale = {name for name, _why in list(session.refused.values())}
                if was_held and not session.hold:
                    stale = set(self.items)
                stale |= {
                    name
                    for name in self.items
                    if name not in session.equal | session.foreign and not session.waiting(name)
                }
                if session.hold:
                    continue
                for name in stale & set(self.items):
                    await self.compare(session, name)

    async def _clock_loop(self) -> None:
        """Notice that the clock was set, and mend what had been stamped in the future."""
        offset = time.time() - time.monotonic()
        while True:
            await asyncio.sleep(1.0)
            now = time.time() - time.monotonic()
            if abs(now - offset) > CLOCK_STEP:
                log.warning("the clock of this node was set by %+.1f s", now - offset)
                if now < offset:
                    self._spread(await self.work(self.replica.restamp))
            offset = now

    async def _scrub_loop(self) -> None:
        """Read everything, slowly and seldom: damage without a trace in times is found so."""
        while self.settings.scrub:
            last = float(await self.work(self.replica.journal.recall, "scrubbed", "0"))
            now = time.time()
            if not last or last > now:
                await self.work(self.replica.journal.remember, "scrubbed", str(now))
            elif now - last >= self.settings.scrub:
                for name in list(self.items):
                    await self.scan(name, everything=True)
                await self.work(self.replica.journal.remember, "scrubbed", str(now))
                await self._mend()
            await asyncio.sleep(min(3600.0, self.settings.scrub))

    async def _mend(self) -> None:
        for path in list(self.replica.damaged):
            version = await self.work(self.replica.journal.get, path)
            session = next(iter(self.sessions.values()), None)
            if version is not None and session is not None:
                session.want(version)

    async def diff(self, peer: str, item: str | None) -> list[Json]:
        """Return what is not the same on ``peer``; raise ``RefusedError``."""
        session = self.sessions.get(peer)
        if session is None:
            known = ", ".join(sorted(self.sessions)) or "none"
            raise RefusedError(f"no link with {peer!r} to compare over; linked: {known}")
        if item is not None and item not in self.items:
            raise RefusedError(f"{item!r} is not synchronised; there are: {', '.join(self.items)}")
        rows: list[Json] = []
        for name in [item] if item else list(self.items):
            await self.scan(name)
            rows += await differences(session, name)
        return rows

    async def restore(self, name: str) -> Json:
        """Put a conflict copy back as an edit of this node; raise a ``ControlOneError``."""
        try:
            copy, made = await self.work(put_back, self.replica, name)
        except (OSError, ValueError) as error:
            raise RefusedError(describe(name, error)) from error
        self._spread(made)
        self._reloads.need(self.items[copy.item], [copy.path])
        self._on_applied(copy.item, [copy.path])
        self._count_soon()
        return copy.to_json()

    # -- how it stands ----------------------------------------------------------------------------

    def stands_changed(self, peer: str, confirmed: str = "") -> None:
        """Something about a peer has changed; ``confirmed``: that item was found equal."""
        session = self.sessions.get(peer)
        if session is not None:
            self._note(peer, session, confirmed)

    def _judge_problems(self) -> None:
        for peer, session in self.sessions.items():
            self._note(peer, session)

    def _note(self, peer: str, session: Session, confirmed: str = "") -> None:
        for name in self.items:
            fresh = self._standing(session, name)
            before = self.standings.get((peer, name))
            if before is not None and (before.state, before.text) == (fresh.state, fresh.text):
                if confirmed == name:
                    before.confirmed = time.time()
                continue
            fresh.since = fresh.confirmed = time.time()
            self.standings[(peer, name)] = fresh
            self._notes.need(peer, name)
            if fresh.state == "held" or (before is not None and before.state == "held"):
                self._record(
                    {"kind": "sync", "peer": peer, "item": name, "state": fresh.state,
                     "detail": f"{name}: {fresh.text or fresh.state}"}
                )  # fmt: skip

    def _standing(self, session: Session, name: str) -> Standing:
        problems = [why for item, why in list(self.replica.problems.values()) if item == name]
        refusals = session.refusals(name)
        waiting = session.waiting(name)
        if session.hold and session.link.skew_ms is not None:
            return Standing(state="held", text=session.hold)
        if name in session.foreign:
            return Standing(state="never", text=f"not synchronised on {session.peer}")
        if problems or refusals:
            more = len(problems) + len(refusals) - 1
            text = (problems + refusals)[0] + (f" (and {more} more)" if more else "")
            return Standing(state="held", text=text)
        if waiting or name not in session.equal:
            text = f"{waiting} files" if waiting else ""
            return Standing(state="pending", text=text)
        return Standing(state="in sync", text="")

    def status_of(self, peer: str, item: str) -> Json:
        """Return how ``item`` stands with ``peer``, as the status shows it."""
        found = self.standings.get((peer, item))
        if found is None:
            return {"state": "never", "since": None, "text": ""}
        return {"state": found.state, "since": found.since, "text": found.text}

    def overview(self) -> list[Json]:
        """Return every item: its files here, what is wrong with it, how it stands with peers."""
        rows = []
        for name, item in self.items.items():
            counts = self.counts.get(name) or {"present": 0, "absent": 0, "bytes": 0}
            problems = [why for found, why in list(self.replica.problems.values()) if found == name]
            if name in self._reloads.problems:
                problems.append(self._reloads.problems[name])
            rows.append(
                {
                    "item": name,
                    "direction": item.direction,
                    **counts,
                    "problems": problems[:20],
                    "peers": {
                        peer: self.status_of(peer, name) for peer in sorted(self.settings.peers)
                    },
                }
            )
        return rows
