"""The shell of the core: events in, effects out, on one asyncio loop.

Theory of operation. Everything that happens (links, frames, probes, services, orders) is told to
``core.Node`` and followed by one coalesced ``step``; its effects are carried out here and its
decision goes to the ``Reconciler``. A tick measures how late this process is on its own timers: a
little makes the core more patient, a lot (stopped, suspended, starved) makes it reread before it
acts. Nothing here decides anything.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from controlone_ha.core.effects import (
    AskReports,
    AskSightings,
    Effect,
    PeerTransition,
    Publish,
    Remember,
    RestartService,
    TakeCalls,
    Transition,
)
from controlone_ha.core.model import Report, State, Verdict
from controlone_ha.core.node import Node
from controlone_ha.core.observations import ProbeResult, Service
from controlone_ha.core.reasons import reason
from controlone_ha.core.wire import report_from_json, report_to_json
from controlone_ha.daemon.memory import Memory
from controlone_ha.errors import RefusedError

if TYPE_CHECKING:
    from controlone_ha.daemon.auditing import Auditing
    from controlone_ha.daemon.calls import LiveCalls
    from controlone_ha.daemon.probing import Prober
    from controlone_ha.daemon.reconciler import Reconciler
    from controlone_ha.daemon.takeovers import Takeovers
    from controlone_ha.peers.link import Link
    from controlone_ha.peers.links import PeerLinks
    from controlone_ha.peers.model import LinkDown
    from controlone_ha.sync.engine import Engine

log = logging.getLogger("ha")

TICK = 1.0
LATE_FOR = 5
"""Ticks for which one late tick counts: load comes in bursts, trust comes back slowly."""

STOOD_STILL = 2.0
"""Seconds late on the tick from which this process counts as having stood still."""

KICK_AGAIN = 0.5
"""Seconds in which consoles that come from one peer are one reason to look at it."""

Record = dict[str, Any]


class Shell:
    """Carries events to the core and effects to the world. Implements ``LinkHandler``."""

    def __init__(
        self,
        node: Node,
        memory: Memory,
        *,
        record: Callable[[Record], None],
        on_step: Callable[[], None],
    ) -> None:
        self.node = node
        self.links: PeerLinks | None = None
        self.reconciler: Reconciler | None = None
        self.prober: Prober | None = None
        self.own_plan: Callable[[str], Record] = lambda _peer: {}
        self.on_report: Callable[[Report], None] = lambda _report: None
        self.sync: Engine | None = None
        self.auditing: Auditing | None = None
        self.calls: LiveCalls | None = None
        self.takeovers: Takeovers | None = None
        # What was adopted after a restart of `ha` has gone on all the time.
        is_adopted = node.decision.state is memory.remembered.state is not State.STARTING
        self.state_since = (is_adopted and memory.since) or time.time()
        self.verdict_since: dict[str, float] = {}
        self._told: dict[str, Verdict] = {}
        self.last_probes: dict[tuple[str, str], tuple[float, ProbeResult]] = {}
        self._memory = memory
        self._record = record
        self._on_step = on_step
        self._loop = asyncio.get_running_loop()
        self._is_step_due = False
        self._wake: asyncio.TimerHandle | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._tick_at = 0.0
        self._awake_at = 0.0
        self._is_stopped = False
        self._lateness: deque[float] = deque(maxlen=LATE_FOR)
        self._kicked: dict[str, float] = {}

    def start(self) -> None:
        """Begin to decide."""
        self._schedule_tick()
        self.touch()

    def stop(self) -> None:
        """Stop deciding; nothing else is touched."""
        self._is_stopped = True
        for timer in (self._wake, self._tick):
            if timer is not None:
                timer.cancel()

    @property
    def now(self) -> float:
        """Monotonic seconds, the clock of the core."""
        return self._loop.time()

    def touch(self) -> None:
        """Something happened: decide once, after everything that has arrived by now."""
        if not self._is_step_due and not self._is_stopped:
            self._is_step_due = True
            self._loop.call_soon(self._step)

    def decide_now(self) -> None:
        """Decide at once: an order of the operator is answered with its outcome."""
        self._step()

    # --- the step ---------------------------------------------------------------------------

    def _step(self) -> None:
        self._is_step_due = False
        if self._is_stopped:
            return
        effects = self.node.step(self.now)
        if any(isinstance(item, Transition) and item.after is not item.before for item in effects):
            self.state_since = self._memory.since = time.time()
        for effect in effects:
            self._carry_out(effect)
        if self.reconciler is not None:
            self.reconciler.aim(self.node.decision)
        if self.prober is not None:
            self.prober.adjust()
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        if self.node.wake_at is not None:
            self._wake = self._loop.call_at(self.node.wake_at, self._on_wake)
        self._on_step()

    def _on_wake(self) -> None:
        """Time has passed: look whether that alone changes anything, which it seldom does."""
        if self.node.rest(self.now) and self.node.wake_at is not None:
            self._wake = self._loop.call_at(self.node.wake_at, self._on_wake)
        else:
            self.touch()

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Remember(remembered=remembered):
                self._remember(remembered)
            case Publish(report=report):
                if self.links is not None:
                    self.links.broadcast("report", self._report_json(report))
            case AskSightings(peer=peer):
                if self.links is not None:
                    self.links.broadcast("sight", {"peer": peer})
            case AskReports():
                if self.links is not None:
                    self.links.broadcast("report_again", {})
            case RestartService(service=service):
                detail = "does not answer: killed and started anew"
                self._record({"kind": "service", "service": service.value, "detail": detail})
                if self.reconciler is not None:
                    self.reconciler.restart(service)
            case TakeCalls(peer=peer, ground=why):
                log.info("taking the calls of %s: %s", peer, why.value)
                text = reason("takes_calls", peer=peer, why=why.value)
                self._record({"kind": "takeover", "peer": peer, "reason": text.to_json()})
                if self.takeovers is not None:
                    self.takeovers.take(peer, why)
            case Transition():
                self._tell_transition(effect)
                if self.sync is not None and effect.before is not effect.after:
                    self.sync.state_changed()
            case PeerTransition():
                self._tell_peer(effect)
            case _:
                raise AssertionError(f"unknown effect {effect!r}")

    def _report_json(self, report: Report) -> Record:
        """The core knows no wall clock; people want to read since when."""
        return report_to_json(replace(report, since=self.state_since))

    def _remember(self, remembered: Any) -> None:
        try:
            self._memory.save(remembered)
        except OSError as error:
            log.error("cannot write %s: %s; going on from memory", self._memory.path, error)

    def _tell_transition(self, effect: Transition) -> None:
        log.info("%s: %s", effect.after.value, effect.reason.text())
        for item in effect.reason.evidence:
            log.info("  because: %s (%s)", item.text, item.path)
        self._record(
            {
                "kind": "state",
                "from": effect.before.value,
                "to": effect.after.value,
                "reason": effect.reason.to_json(),
            }
        )

    def _tell_peer(self, effect: PeerTransition) -> None:
        view = effect.view
        self.verdict_since[view.peer] = time.time()
        evidence = "; ".join(item.text for item in view.evidence)
        log.info("%s: %s%s", view.peer, view.verdict.value, f" ({evidence})" if evidence else "")
        before = self._told.get(view.peer, Verdict.UNKNOWN)
        if view.verdict in (Verdict.SUSPECT, before):
            return  # a suspicion is told by what it ends in, if that is anything new
        self._told[view.peer] = view.verdict
        self._record(
            {
                "kind": "peer",
                "peer": view.peer,
                "from": before.value,
                "to": view.verdict.value,
                "reason": {
                    "code": view.verdict.value,
                    "params": {"peer": view.peer},
                    "evidence": [item.to_json() for item in view.evidence],
                },
            }
        )

    # --- own timers --------------------------------------------------------------------------

    def _schedule_tick(self) -> None:
        self._tick_at = self._loop.time() + TICK
        self._awake_at = _boot_time() + TICK
        self._tick = self._loop.call_at(self._tick_at, self._on_tick)

    def _on_tick(self) -> None:
        # The boot clock counts time in which the machine was suspended, the loop's does not.
        late = max(self._loop.time() - self._tick_at, _boot_time() - self._awake_at)
        if late > STOOD_STILL:
            log.warning("this process stood still for %.1f s", late)
            self.node.stood_still(self.now, late)
            self.node.lateness(0.0)
            self.touch()
        else:
            self._lateness.append(late)
            self.node.lateness(max(self._lateness))
        self._schedule_tick()

    # --- probes and services -------------------------------------------------------------------

    def peer_probed(self, peer: str, result: ProbeResult) -> None:
        """A probe of a peer ended. While its `ha` is heard, its own word counts and not our probes:
        then there is nothing to decide.
        """
        self.last_probes[(peer, result.service.value)] = (time.time(), result)
        self.node.probed(self.now, peer, result)
        if self.node.is_in_doubt(peer):
            self.touch()

    def own_probed(self, result: ProbeResult) -> None:
        """A probe of an own service ended."""
        self.last_probes[("", result.service.value)] = (time.time(), result)
        was_doubtful = self.node.watch.is_doubtful(self.now)
        self.node.own_probed(self.now, result)
        if was_doubtful or not result.is_answered:
            self.touch()

    def service_ended(self, service: Service, detail: str) -> None:
        """A process that should run has ended, or cannot be started."""
        if self.node.watch.ended(self.now, service, detail):
            log.warning("%s ended: %s", service.value, detail)
            self._record({"kind": "service", "service": service.value, "detail": detail})
        self.touch()

    def console_told(self, kind: str, params: dict[str, Any]) -> None:
        """A console has come to this node's Console Server and says that it lost another one."""
        console, peer = params.get("console"), params.get("server")
        if kind != "lost" or not isinstance(console, str) or not isinstance(peer, str):
            return
        calls = params.get("calls")
        if self.takeovers is not None and isinstance(calls, list):
            self.takeovers.console_lost(peer, calls)
        if not self.node.console_lost(self.now, console, peer):
            return
        # The first of many that come together has the peer probed; the others are evidence.
        if self.now - self._kicked.get(peer, -KICK_AGAIN) >= KICK_AGAIN:
            self._kicked[peer] = self.now
            log.info("console %s has lost %s: looking at it", console, peer)
            if self.prober is not None:
                self.prober.kick(f"{peer}/{Service.CONSOLE.value}")
                self.prober.kick(f"{peer}/{Service.CONFERENCE.value}")
        self.touch()

    # --- LinkHandler ---------------------------------------------------------------------------

    def on_link_up(self, link: Link) -> None:
        """Send our report first; the peer does the same."""
        link.notify("report", self._report_json(self.node.link_up(self.now, link.peer)))
        if self.sync is not None:
            self.sync.link_up(link)
        if self.calls is not None:
            self.calls.link_up(link)
        if self.auditing is not None:
            self.auditing.link_up(link)
        self.touch()

    def on_link_down(self, peer: str, cause: LinkDown) -> None:
        """The end of a link is evidence, unless another link with the peer took over."""
        if self.sync is not None:
            self.sync.link_down(peer)
        if self.calls is not None:
            self.calls.link_down(peer)
        if cause.code == "replaced":
            return
        self.node.link_down(self.now, peer, cause.sentence or cause.code)
        if self.prober is not None:
            self.prober.kick(f"{peer}/{Service.CONSOLE.value}")
            self.prober.kick(f"{peer}/{Service.CONFERENCE.value}")
        self.touch()

    def on_heartbeat(self, peer: str) -> None:
        """Only a peer that was in doubt is worth a decision."""
        self.node.heartbeat(self.now, peer)
        if self.node.is_in_doubt(peer):
            self.touch()

    def on_notify(self, peer: str, method: str, params: dict[str, Any]) -> None:
        """Reports and sightings; what cannot be understood is logged and dropped."""
        if method == "report":
            try:
                report = report_from_json(params, peer)
            except ValueError as error:
                log.warning("%s sent a report that cannot be used: %s", peer, error)
                return
            self.on_report(report)
            self.node.reported(self.now, report)
            self.touch()
        elif method == "report_again":
            link = self.links.link(peer) if self.links is not None else None
            if link is not None:
                link.notify("report", self._report_json(self.node.report()))
        elif method == "sight":
            self._answer_sight(peer, params)
        elif method == "sighted":
            about, age, heard = params.get("peer"), params.get("age"), params.get("heard")
            if isinstance(about, str) and _is_age(age) and _is_age(heard):
                self.node.sighting(self.now, peer, about, age, heard)
                self.touch()
        elif method.startswith("sync.") and self.sync is not None:
            self.sync.notify(peer, method, params)
        elif method.startswith("audit.") and self.auditing is not None:
            self.auditing.notify(peer, method, params)
        elif method.startswith("calls.") and self.calls is not None:
            self.calls.notify(peer, method, params)

    def _answer_sight(self, asker: str, params: dict[str, Any]) -> None:
        about = params.get("peer")
        link = self.links.link(asker) if self.links is not None else None
        if not isinstance(about, str) or link is None:
            return
        if about not in self.node.trackers:
            return  # a peer that this node does not watch: it has nothing to say about it
        answer = {
            "peer": about,
            "age": self.node.sign_age(self.now, about),
            "heard": self.node.heard_age(self.now, about),
        }
        link.notify("sighted", answer)
        if self.prober is not None and self.node.is_in_doubt(about):
            self.prober.kick(f"{about}/{Service.CONSOLE.value}")

    async def on_request(self, peer: str, method: str, params: dict[str, Any]) -> object:
        """Serve what peers may ask: `plan`, what this node would do if another died now, and
        synchronisation.
        """
        if method.startswith("sync.") and self.sync is not None:
            return await self.sync.request(peer, method, params)
        if method.startswith("audit.") and self.auditing is not None:
            return await self.auditing.request(method, params)
        about = params.get("peer")
        if method == "plan" and isinstance(about, str) and about in self.node.trackers:
            return self.own_plan(about)
        raise RefusedError(f"{peer} asks for {method!r}: not known here, or with wrong parameters")


def _is_age(value: Any) -> bool:
    """True for what an honest peer sends: a number of seconds, or nothing."""
    if value is None:
        return True
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value < 1e9


def _boot_time() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
