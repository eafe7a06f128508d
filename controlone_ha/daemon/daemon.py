"""Composition root of `ha`: makes the parts, joins them, and takes them down in order.

SIGTERM means "restarting": the daemon says so to its peers and ends; services go on (fail static).
SIGHUP reads the configuration again; a bad one is refused and the old one kept. A bad one at the
first load refuses to start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from dataclasses import replace
from typing import Any

from controlone_ha import __version__
from controlone_ha.config.settings import (
    ConferenceSettings,
    HaSettings,
    PeerSettings,
    ServerSettings,
    load_conference,
    load_ha,
    load_server,
)
from controlone_ha.control.api import LocalApi
from controlone_ha.control.history import History
from controlone_ha.control.status_file import write_status
from controlone_ha.core.model import Ground, Role, Rules, State
from controlone_ha.core.node import Node
from controlone_ha.core.node_settings import NodeSettings
from controlone_ha.core.observations import CALL_PROBE_NUMBER, ProbeResult, Service
from controlone_ha.core.reasons import reason, reason_from_json
from controlone_ha.core.taking import TAKERS, console_ground
from controlone_ha.core.timing import Timing
from controlone_ha.daemon import status as status_room
from controlone_ha.daemon.auditing import Auditing
from controlone_ha.daemon.calls import LiveCalls
from controlone_ha.daemon.changes import Changes
from controlone_ha.daemon.check import full_check, shallow_check
from controlone_ha.daemon.database import DatabaseItem
from controlone_ha.daemon.handover import Handover
from controlone_ha.daemon.licensing import Licensing
from controlone_ha.daemon.memory import Memory
from controlone_ha.daemon.operator import LEAVE, Operator
from controlone_ha.daemon.probing import Prober, Target
from controlone_ha.daemon.reconciler import Reconciler
from controlone_ha.daemon.sensors import Sensors
from controlone_ha.daemon.shell import Shell
from controlone_ha.daemon.syncing import make_engine, sync_settings
from controlone_ha.daemon.takeovers import Takeovers
from controlone_ha.daemon.targets import Targets
from controlone_ha.errors import ControlOneError
from controlone_ha.logs import hide
from controlone_ha.paths import NodePaths
from controlone_ha.peers.links import PeerLinks
from controlone_ha.peers.model import PeerAddress
from controlone_ha.peers.revocations import Revocation
from controlone_ha.peers.trust import TrustStore
from controlone_ha.probes.deep import deep_probe
from controlone_ha.probes.sip import SipProber
from controlone_ha.services.choice import open_manager
from controlone_ha.services.console_server import ConsoleServerClient, ConsoleServerEvents
from controlone_ha.services.hotplug import Hotplug
from controlone_ha.services.prepare import prepare_conference

log = logging.getLogger("ha")

Json = dict[str, Any]


class Daemon:
    """`ha` on one node. ``run`` returns when it has been told to end."""

    def __init__(self, paths: NodePaths) -> None:
        self.paths = paths
        self.settings: HaSettings = load_ha(paths.config_dir)
        self.server_settings: ServerSettings = load_server(paths.config_dir)
        self.conference_settings: ConferenceSettings = load_conference(paths.config_dir)
        hide(self.settings.secret)
        self.started = time.time()
        self.paused: Json | None = None
        self.trust = TrustStore(paths.pins_file)
        self._stopping = asyncio.Event()
        self._key = ""
        self._written: object = None
        self._consoles = 0
        self._sip = SipProber()
        self._history = History(paths.history_file)
        self._hotplug = Hotplug(paths.hotplug_dir)
        self._tasks: set[asyncio.Task[None]] = set()

    # --- life -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Start everything, work until told to end, take everything down."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        memory = Memory(self.paths.state_file)
        memory.load()
        self.manager = open_manager(self.paths)
        self.reconciler = Reconciler(
            self.manager,
            ConsoleServerClient(self.paths.server_socket),
            on_exit=self._on_service_exit,
            on_load=self._on_load,
            publication=self._publication,
            forget_order=lambda: self.paths.server_state.unlink(missing_ok=True),
        )
        services_run = await self.reconciler.find_running()
        self.licensing = Licensing(self, on_change=self._licences_changed, now=time.time)
        node = Node(
            self._node_settings(),
            now=loop.time(),
            incarnation=memory.incarnation,
            remembered=memory.remembered,
            services_run=services_run,
        )
        if memory.remembered.paused_by:
            self.paused = {"since": None, "by": memory.remembered.paused_by, "reason": ""}
        self.shell = Shell(node, memory, record=self.record, on_step=self._on_step)
        self.links = PeerLinks(
            name=self.settings.name,
            paths=self.paths,
            secret=self.settings.secret,
            handler=self.shell,
            authorized_keys=self.settings.authorized_keys or None,
            addresses=[self.settings.address] if self.settings.address else [],
            ssh_port=self.settings.ssh_port,
            on_trust_changed=self._trust_changed,
            on_expelled=self._on_expelled,
            on_refused=self._on_refused,
        )
        self.trust = self.links.trust
        self.prober = Prober()
        self.targets = Targets(self.shell, self._sip, pin_of=self._pin_of, own_pin=self._own_pin)
        self.shell.on_report = self.licensing.reported
        self.shell.links, self.shell.prober = self.links, self.prober
        self.shell.reconciler = self.reconciler
        self.sensors = Sensors(
            self.shell,
            self.settings,
            paths=self.paths,
            on_network=lambda _events: self.links.redial(),
        )
        self.sync = self.shell.sync = make_engine(self)
        self.database = DatabaseItem(self)
        self.auditing = self.shell.auditing = Auditing(self, self._history)
        self.changes = Changes(
            config_dir=self.paths.config_dir,
            state_dir=self.paths.state_dir,
            sessions=self.paths.sessions_file,
            record=self.record,
        )
        self.calls = self.shell.calls = LiveCalls(
            name=self.settings.name,
            socket=self.paths.conference_socket,
            copies=self.paths.run_dir / "calls-copies.jsonl",
            links=self.links.links,
            on_load=lambda: self._on_load(self._consoles),
        )
        self.shell.takeovers = Takeovers(
            self.calls, holds=self._may_take, record=self.record, spawn=self._spawn
        )
        self.handover = Handover(
            self.calls,
            release=self._release_calls,
            takers=self._has_taker,
            own_recovery=lambda: self.settings.own_recovery,
            record=self.record,
            spawn=self._spawn,
            look_again=self.reconciler.look_again,
        )
        self.reconciler.handover = self.handover
        operator = Operator(self, self.record)
        self.shell.own_plan = operator.own_plan
        self.api = LocalApi(path=self.paths.api_socket, node=operator)
        await self._start()
        try:
            await self._stopping.wait()
        finally:
            await self._stop()

    def _may_take(self, peer: str, ground: Ground) -> bool:
        """Whether this node may take calls of ``peer`` on that ground, as things are now."""
        node, now = self.shell.node, self.shell.now
        if ground is Ground.CONSOLE:
            return console_ground(node.snapshot(now), peer)[0] is ground
        return peer in node.decision.takes

    def _has_taker(self, states: frozenset[State]) -> bool:
        """Whether a peer in one of ``states`` is linked and can take this node's calls."""
        reports = (peer.report for peer in self.shell.node.snapshot(self.shell.now).peers)
        linked = {link.peer for link in self.links.links()}
        return any(
            report.node in linked
            and report.state in states
            and report.ineligible is None
            and self.settings.name in report.covers
            for report in reports
            if report is not None
        )

    def has_taker(self) -> bool:
        """Tell whether a linked peer could take over from this node now."""
        return self._has_taker(TAKERS)

    def _come_back(self) -> None:
        """End what `ha leave` began before `ha` was stopped."""
        node = self.shell.node
        if node.remembered.forced_by == LEAVE:
            node.remembered = replace(node.remembered, forced="", forced_by="")  # a pause stays
            why = reason("resumed", by="start")
            self.record({"kind": "force", "from": "passive", "to": "", "reason": why.to_json()})

    def _release_calls(self, is_released: bool) -> None:
        self.shell.node.release_calls(is_released)
        self.shell.touch()

    async def _start(self) -> None:
        await self.api.start()  # first: a second daemon on this node is refused here
        self._come_back()
        for warning in self.settings.warnings:
            log.warning("%s", warning)
        await self._sip.start()
        self._configure_links()
        await self.auditing.start()
        await self.sync.start()
        await self.links.start()
        self._key = self.own_key()
        self._hotplug.start()
        self.reconciler.start()
        self.prober.set_targets(self._make_targets())
        self.shell.start()
        await self.licensing.look()
        self._spawn(self.licensing.run())
        self._spawn(self.changes.run())
        self._spawn(prepare_conference())
        self._spawn(self.calls.run())
        told = self.shell.console_told
        self._spawn(ConsoleServerEvents(self.paths.server_socket, ("lost",), told).run())
        self.sensors.start()
        self.database.start()
        log.info(
            "%s started: %s, role %s, %d peers, key %s",
            __version__,
            self.settings.name,
            self.settings.role,
            len(self.settings.peers),
            self.own_key(),
        )

    async def _stop(self) -> None:
        log.info("stopping; services go on as they are")
        # Before the links close: what was the case, not what the end makes of it.
        self._write_status()
        self.shell.stop()
        self.auditing.stop()
        for task in self._tasks:
            task.cancel()
        await self.prober.stop()
        await self.reconciler.stop()
        await self.manager.close()
        await self.sensors.stop()
        await self.database.stop()
        await self._hotplug.stop()
        await self.links.stop()
        await self.sync.stop()
        await self.api.stop()
        self._sip.close()
        self._history.close()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task of `ha` ended", exc_info=task.exception())

    # --- configuration ----------------------------------------------------------------------

    def node_name_of(self, peer: PeerSettings) -> str:
        """Return the node's name behind an entry of the peers list (a name or an address)."""
        pin = self.trust.find(peer.name) or self.trust.find(peer.address)
        return pin.name if pin is not None else peer.name

    def _node_settings(self) -> NodeSettings:
        settings = self.settings
        timing = Timing.of(
            interval=settings.interval,
            failures=settings.failures,
            heartbeat=settings.heartbeat or None,
        )
        self.slot = settings.slot or max(0.25, timing.heartbeat)
        return NodeSettings(
            name=settings.name,
            role=Role(settings.role),
            monitored={self.node_name_of(peer): peer.monitor for peer in settings.peers},
            priority=settings.priority,
            site=settings.site,
            timing=timing,
            rules=Rules(
                failback=settings.failback,
                failback_delay=settings.failback_delay,
                failback_damping=settings.failback_damping,
                takes_on_silence=settings.takeover_on_silence == "take",
                stable=settings.stable,
                slot=self.slot,
                confirm=max(0.1, timing.fast_interval * 2),
            ),
            licences=self.licensing.count,
            other_masters=self.licensing.other_masters,
            version=__version__,
        )

    def _licences_changed(self) -> None:
        """Decide anew with what there is now, and tell what has changed."""
        licensing = self.licensing
        missing = licensing.overview()["unlicensed"]
        log.info("licences that count: %d", licensing.count)
        self.record(
            {
                "kind": "licence",
                "to": str(licensing.count),
                "detail": ", ".join(
                    f"{item.found.file}: {item.state}" for item in licensing.standing.files
                )
                or "none",
                **({"missing": missing} if missing else {}),
            }
        )
        self.shell.node.reconfigure(self.shell.now, self._node_settings())
        self.shell.touch()

    def _configure_links(self) -> None:
        peers = [
            PeerAddress(
                name=peer.name,
                host=peer.address if peer.address != peer.name else None,
                port=peer.ssh_port,
                user=peer.ssh_user,
            )
            for peer in self.settings.peers
        ]
        timing = self.shell.node.settings.timing
        self.links.configure(
            peers,
            heartbeat=timing.heartbeat,
            timeout=max(self.settings.timeout, 3 * timing.heartbeat),
        )

    def addresses(self) -> dict[str, str]:
        """Return where each peer is, by node name: as configured, else as pinned."""
        addresses = {}
        for peer in self.settings.peers:
            pin = self.trust.find(peer.name)
            if pin is None and self.trust.expelled(peer.name) is not None:
                continue  # nothing is asked of an expelled node, and nothing it says counts
            address = peer.address
            if pin is not None and address == pin.name and pin.addresses:
                address = pin.addresses[0]
            addresses[self.node_name_of(peer)] = address
        return addresses

    def _make_targets(self) -> list[Target]:
        return self.targets.make(
            self.settings, self.server_settings, self.conference_settings, self.addresses()
        )

    async def reload(self) -> Json:
        """Read the configuration again; raise ``ConfigError`` and keep the old one when it is
        bad.
        """
        fresh = load_ha(self.paths.config_dir)
        server, conference = (
            load_server(self.paths.config_dir),
            load_conference(self.paths.config_dir),
        )
        needs_restart = fresh.name != self.settings.name
        if fresh.secret != self.settings.secret:
            hide(fresh.secret)
            await self.links.set_secret(fresh.secret)
        self.settings, self.server_settings = fresh, server
        self.conference_settings = conference
        self.sensors.configure(fresh)
        self._apply()
        self._spawn(prepare_conference())
        log.info("configuration read again")
        return {"reloaded": True, "needs_restart": needs_restart}

    def _apply(self) -> None:
        self.shell.node.reconfigure(self.shell.now, self._node_settings())
        self._configure_links()
        self.sync.configure(sync_settings(self))
        self.prober.set_targets(self._make_targets())
        self.database.configure()
        self.shell.touch()

    def _on_hangup(self) -> None:
        async def again() -> None:
            try:
                await self.reload()
            except ControlOneError as error:
                log.error("configuration refused, going on with the old one: %s", error)

        self._spawn(again())

    # --- trust ------------------------------------------------------------------------------

    async def trust_changed(self) -> Json:
        """Take new pins over at once: names, links, probes."""
        self.links.redial()
        self._apply()
        return {"pins": sorted(self.trust.pins())}

    def _trust_changed(self) -> None:
        """Pins have changed, or this node's own key."""
        key, last = self.own_key(), self._key
        self._key = key
        if last and key != last:
            why = reason("key_changed", key=key, last=last)
            self.record({"kind": "trust", "to": "key", "reason": why.to_json()})
        self._apply()

    def _on_expelled(self, record: Revocation) -> None:
        self.record(
            {
                "kind": "trust",
                "peer": record.name,
                "to": "expelled",
                "by": f"{record.by} at {record.node}",
                "reason": reason(
                    "expelled", peer=record.name, key=record.key, why=record.why or "-"
                ).to_json(),
            }
        )

    def _on_refused(self, peer: str, code: str, sentence: str) -> None:
        """A link was refused, here or there; told once until it changes."""
        self.record({"kind": "refused", "peer": peer, "to": code, "detail": sentence})

    def _pin_of(self, name: str) -> str | None:
        return self.trust.certificate_sha256(name)

    def _own_pin(self) -> str | None:
        found = (self.links.identity, self.links.other_identity)
        return " ".join(item.certificate_sha256 for item in found if item is not None) or None

    def own_key(self) -> str:
        """Return the fingerprint of the node's key, empty while the daemon is starting."""
        identity = self.links.identity if hasattr(self, "links") else None
        return identity.key_fingerprint if identity is not None else ""

    # --- events of the parts ------------------------------------------------------------------

    def _on_service_exit(self, service: Service, detail: str) -> None:
        self.shell.service_ended(service, detail)

    def _on_load(self, consoles: int) -> None:
        self._consoles = consoles
        if self.shell.node.load(consoles, self.calls.count):
            self.shell.touch()

    def _on_step(self) -> None:
        """Keep the file that `ha status` shows when the daemon is down, at every change."""
        node = self.shell.node
        self.handover.decided(node.decision)
        key = (
            node.decision.state,
            node.decision.reason.code,
            node.remembered,
            tuple(
                sorted((name, status.running) for name, status in self.reconciler.statuses.items())
            ),
            tuple(node.verdict(name) for name in sorted(node.trackers)),
        )
        if key != self._written:
            self._written = key
            self._write_status()

    def _write_status(self) -> None:
        with contextlib.suppress(OSError):
            write_status(self.paths.status_file, self.status(), now=time.time())

    def _publication(self) -> Json:
        decision = self.shell.node.decision
        return {
            "node": self.settings.name,
            "role": self.settings.role,
            "state": decision.state.value,
            "servers": status_room.servers_for_consoles(
                self.settings, self.shell.node.snapshot(self.shell.now)
            ),
        }

    async def probe_now(self, peer: str) -> list[ProbeResult]:
        """Probe both services of ``peer`` once."""
        chosen = [target for target in self._make_targets() if target.name.startswith(f"{peer}/")]
        timeout = min(5.0, self.settings.timeout)
        return list(await asyncio.gather(*(target.probe(timeout) for target in chosen)))

    async def call_now(self, peer: str) -> ProbeResult:
        """Call a peer's Conference Server by SIPp; raise ``DeepProbeError``."""
        host, port = self.addresses()[peer], self.conference_settings.port
        return await deep_probe(host, port, CALL_PROBE_NUMBER, timeout=5.0)

    # --- what is told -------------------------------------------------------------------------

    def record(self, entry: Json) -> None:
        """Add to the history and tell the subscribers."""
        full = {"time": time.time(), "node": self.settings.name, **entry}
        self._history.record(full)
        if full["kind"] == "sync" and full.get("state") == "received":
            self.changes.came(full["paths"], full["peer"])
        self.api.publish(full)
        if full["kind"] in ("state", "peer") and full["from"] != full["to"]:
            self._call_scripts(full)

    def _call_scripts(self, entry: Json) -> None:
        why = reason_from_json(entry["reason"])
        self._hotplug.call(
            {
                "ACTION": entry["kind"],
                "FROM": entry["from"],
                "STATE": entry["to"],
                "REASON_CODE": why.code,
                "REASON": why.text(),
                "PEER": str(entry.get("peer") or why.params.get("peer") or ""),
                "NODE": self.settings.name,
                "ROLE": self.settings.role,
                "TIME": str(int(entry["time"])),
            }
        )

    async def read_history(
        self,
        limit: int,
        kind: str | None = None,
        peer: str | None = None,
        since: float | None = None,
        who: str | None = None,
        node: str | None = None,
    ) -> list[Json]:
        """Return the newest entries; reading a file does not stop the loop."""
        read = self._history.read
        return await asyncio.to_thread(read, limit, kind, peer, since, who, node)

    def status(self) -> Json:
        """Return the status of the node (contract in ``control.api``)."""
        return status_room.status_of(
            shell=self.shell,
            settings=self.settings,
            links=self.links,
            reconciler=self.reconciler,
            started=self.started,
            fingerprint=self.own_key(),
            warnings=shallow_check(self),
            paused=self.paused,
            database=self.database_row(),
            sync=self.sync,
            database_item=self.database,
        )

    def database_row(self) -> Json:
        """Return the database's row of the status."""
        return self.sensors.database()

    def link_rows(self) -> list[Json]:
        """Return every link."""
        names = [self.node_name_of(peer) for peer in self.settings.peers]
        return status_room.links_of(self.shell, self.settings, self.links, names)

    async def check(self) -> list[Json]:
        """Return everything that is wrong with this node, with remedies."""
        return await full_check(self)
