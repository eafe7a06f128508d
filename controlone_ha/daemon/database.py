"""Joins the synchronisation of the database to the daemon: its files, settings and word.

The work is done in a child process (``sync.database``); a node whose UCI says that it has no
database has none. Peers are read over TLS with the node's certificate and the password from the
secret, or not at all: before the files for that are there, only the own database is followed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from controlone_ha.errors import ControlOneError, RefusedError
from controlone_ha.peers.secret import cluster_keys
from controlone_ha.sync.database.client import DatabaseSync
from controlone_ha.sync.database.files import own_target, peer_target, write_files
from controlone_ha.sync.database.settings import Settings

if TYPE_CHECKING:
    from controlone_ha.daemon.view import DaemonView

log = logging.getLogger("database")

Json = dict[str, Any]

NEVER: Json = {"state": "never", "since": None, "text": ""}
STATES = {"in sync": "in sync", "pending": "pending", "held": "held"}
BOOT_RUSH = 4.0
"""Seconds that the child waits at the start: services and links go before it."""


class DatabaseItem:
    """The item `database` of one daemon."""

    def __init__(self, daemon: DaemonView) -> None:
        self._daemon = daemon
        self.sync = DatabaseSync()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_started = False
        self._trusted: frozenset[str] = frozenset()
        self._is_somebody_out = False

    def start(self) -> None:
        """Begin, after the rush of the start."""
        self._spawn(self._begin())

    async def stop(self) -> None:
        """End the child."""
        for task in self._tasks:
            task.cancel()
        await self.sync.close()

    async def _begin(self) -> None:
        """Wait for a database to be there: a node without one is spared the process."""
        await asyncio.sleep(BOOT_RUSH)
        while not await self._is_there():
            await asyncio.sleep(max(1.0, self._daemon.settings.interval))
        self._is_started = True
        await self._apply()

    async def _is_there(self) -> bool:
        settings = self._daemon.settings
        if not settings.has_database:
            return False
        try:
            async with asyncio.timeout(2.0):
                _, writer = await asyncio.open_connection(settings.database, settings.database_port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    def configure(self) -> None:
        """Settings, addresses or pins have changed."""
        if self._is_started:
            self._spawn(self._apply())

    async def _apply(self) -> None:
        daemon = self._daemon
        if not daemon.settings.has_database or self._direction == "none":
            self.sync.configure(None)
            return
        loop = asyncio.get_running_loop()
        try:
            settings, is_changed = await loop.run_in_executor(None, self._prepare)
        except (ControlOneError, OSError) as error:
            log.error("the database is not synchronised: %s", error)
            return
        self.sync.configure(settings)
        if is_changed:
            await self._rotate()

    async def _rotate(self) -> None:
        """New pins reach a running mongod at once; one that is down reads them when it starts."""
        try:
            await self.sync.ask("rotate", timeout=10.0, out=self._is_somebody_out)
            self._is_somebody_out = False
        except ControlOneError as error:
            log.info("certificates of the database are not read again: %s", error)

    @property
    def _options(self) -> Json:
        return self._daemon.settings.items.get("database", {})

    @property
    def _direction(self) -> str:
        return str(self._options.get("direction") or "both")

    def _prepare(self) -> tuple[Settings, bool]:
        """Write the files and make the settings; blocks for the derivation of the password."""
        daemon = self._daemon
        settings, options = daemon.settings, self._options
        pins = daemon.trust.pins()
        certificates = {name: "\n".join(pin.certificates) for name, pin in pins.items()}
        is_changed = write_files(daemon.paths, certificates)
        trusted = frozenset(text for pin in pins.values() for text in pin.certificates)
        self._is_somebody_out |= not self._trusted <= trusted
        self._trusted = trusted
        password = cluster_keys(settings.secret).database_password
        peers = {}
        if self._direction != "send":
            listed = {daemon.node_name_of(peer): peer for peer in settings.peers}
            addresses = daemon.addresses()
            for name, pin in pins.items():
                peer = listed.get(name)
                if peer is not None and not peer.sync:
                    continue
                host = addresses.get(name) or (pin.addresses[0] if pin.addresses else name)
                target = peer_target(daemon.paths, name, host, settings.database_port, password)
                if target is not None:
                    peers[name] = target
        made = Settings(
            node=settings.name,
            own=own_target(daemon.paths, settings.database, settings.database_port),
            peers=peers,
            listed=tuple(daemon.node_name_of(peer) for peer in settings.peers if peer.sync)
            if self._direction != "receive"
            else (),
            include=tuple(options.get("include") or ()),
            exclude=tuple(options.get("exclude") or ()),
            urgent=tuple(options.get("urgent") or ()),
            allowed_skew=settings.max_skew,
            horizon=float(options.get("horizon") or 30) * 86400.0,
            full_sync=settings.full_sync,
            drop_database=bool(options.get("drop_database")),
            reader_password=password,
        )
        return made, is_changed

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task of the database item ended", exc_info=task.exception())

    # -- what is told -------------------------------------------------------------------------

    def standing(self, peer: str) -> Json:
        """Return how the database stands with a peer, as the status shows it."""
        last = self.sync.last
        found = last["peers"].get(peer)
        if found is None:
            if last["state"] in ("off", "starting") or not last["text"]:
                return dict(NEVER)
            return {"state": "held", "since": None, "text": f"own database: {last['text']}"}
        state = STATES.get(found["state"], "pending")
        if found["in_sync_at"] is None and state == "pending" and found["state"] != "pending":
            state = "never"
        text = found["text"]
        if found["backlog"]:
            text = "; ".join(filter(None, (text, f"{found['backlog']} rows to read")))
        return {
            "state": state,
            "since": found["in_sync_at"],
            "text": text,
            "lag_ms": found["lag_ms"],
            "backlog": found["backlog"],
            "conflicts": found["conflicts"],
            "skew_ms": found["skew_ms"],
        }

    def overview(self) -> Json:
        """Return the item as one row of the status beside the items of files."""
        last = dict(self.sync.last)
        problems = [last["text"]] if last["state"] == "down" and last["text"] else []
        unfit = last.get("unfit") or {}
        problems += [f"{name} is not synchronised: {why}" for name, why in unfit.items()]
        problems += last.get("notes", [])
        bracket = last.get("bracketed")
        if bracket:
            problems.append(
                f"the oplog rolled over: times of {bracket['documents']} documents are only known "
                f"to lie between {_moment(bracket['after'])} and {_moment(bracket['before'])}"
            )
        problems += [
            f"{item['namespace']}: a version of {item['node']} from the future is refused"
            for item in last.get("refused", [])
        ]
        return {
            "item": "database",
            "direction": self._direction,
            "state": last["state"],
            "conflicts": last.get("conflicts") or 0,
            "stamped": last.get("stamped") or 0,
            "unstamped": last.get("unstamped") or 0,
            "problems": problems,
            "pid": self.sync.pid,
            "peers": {name: self.standing(name) for name in sorted(last["peers"])},
        }

    async def told(self) -> Json:
        """Return the child's own status, fresh if it answers."""
        try:
            found: Json = await self.sync.ask("status", timeout=20.0)
        except ControlOneError:
            return self.sync.last
        return found

    # -- orders -------------------------------------------------------------------------------

    async def ask(self, method: str, **params: Any) -> Any:
        """Ask the child for a person; raise ``RefusedError``."""
        try:
            return await self.sync.ask(method, timeout=600.0, **params)
        except ControlOneError as error:
            raise RefusedError(str(error)) from error


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
