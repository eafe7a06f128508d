"""The fake prober: the rhythms of ``daemon.probing`` and ``daemon.targets``, the truth as answer.

A probe that leaves while a path is cut, or whose packets are all lost, ends in silence; SIP repeats
after 0.5 s, TCP after 1 s, within the probe's timeout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from controlone_ha.core.model import Role, Verdict
from controlone_ha.core.observations import Outcome, ProbeResult, Service

if TYPE_CHECKING:
    from tests.simulation.shell import SimNode

MAX_IN_FLIGHT = 8
NEVER = 1e9
OWN_TIMEOUT = 2.0
TIMEOUT = 10.0
BOTH = (Service.CONSOLE, Service.CONFERENCE)
REPEAT = {Service.CONSOLE: 1.0, Service.CONFERENCE: 0.5}
PACKETS = {Service.CONSOLE: 4, Service.CONFERENCE: 1}
"""Packets each way that must all arrive: a TLS handshake has several."""


class _Target:
    __slots__ = ("answered_from", "generation", "in_flight", "started_at")

    def __init__(self, started_at: float) -> None:
        self.started_at = started_at
        self.answered_from = 0.0
        self.in_flight = 0
        self.generation = 0


@dataclass(slots=True)
class _Probe:
    """One probe under way."""

    target: _Target
    service: Service
    peer: str
    host: SimNode
    started_at: float
    timeout: float


class SimProber:
    """Probes the peers of one node, and its own services, for one life of `ha`."""

    def __init__(self, node: SimNode, life: int) -> None:
        self._node = node
        self._life = life
        core = node.core
        assert core is not None
        now = node.now
        self._targets: dict[tuple[str, Service], _Target] = {}
        self._signs: dict[str, tuple[object, ...]] = {}
        chance = node.world.chance(f"probes of {node.name}")
        for peer in ("", *core.trackers):
            for service in BOTH:
                # The first round is spread, so that nodes started together do not probe together.
                target = _Target(0.0)
                rhythm = self._rhythm(peer, service, now)
                target.started_at = now - min(rhythm, 60.0) * (0.9 + 0.1 * chance.random())
                self._targets[peer, service] = target

    def adjust(self, now: float) -> None:
        """Give every target the rhythm that it has now."""
        core = self._node.core
        assert core is not None
        for peer, tracker in core.trackers.items():
            sign: tuple[object, ...] = (
                core.verdict(peer),
                tracker.report,
                tracker.is_linked,
                tracker.is_probed_fast(now),
            )
            if self._signs.get(peer) != sign:
                self._signs[peer] = sign
                for service in BOTH:
                    self._schedule(peer, service, now)
        own = (core.decision.conference_running, core.watch.is_doubtful(now))
        if self._signs.get("") != own:
            self._signs[""] = own
            for service in BOTH:
                self._schedule("", service, now)

    def kick(self, peer: str, service: Service) -> None:
        """Probe now, whatever the rhythm says."""
        core = self._node.core
        if core is not None and peer in core.trackers and (peer, service) in self._targets:
            self._start(peer, service)

    def _schedule(self, peer: str, service: Service, now: float) -> None:
        target = self._targets.get((peer, service))
        if target is None:  # a peer that a reload has added
            target = self._targets[peer, service] = _Target(now)
        due = max(now, target.started_at + self._rhythm(peer, service, now))
        target.generation += 1
        if due < NEVER / 2:
            node = self._node
            node.world.at(
                max(node.world.now, node.true_time(due)) + node.lag,
                self._due,
                peer,
                service,
                target.generation,
            )

    def _due(self, peer: str, service: Service, generation: int) -> None:
        node = self._node
        if node.life != self._life or self._targets[peer, service].generation != generation:
            return
        if peer and (node.core is None or peer not in node.core.trackers):
            return  # a reload has taken the peer away
        if node.is_still:
            node.hold(self._due, peer, service, generation)
            return
        self._start(peer, service)

    def _rhythm(self, peer: str, service: Service, now: float) -> float:
        core = self._node.core
        assert core is not None
        timing = core.settings.timing
        if not peer:
            if service is Service.CONFERENCE and not core.decision.conference_running:
                return NEVER
            return timing.fast_interval if core.watch.is_doubtful(now) else timing.interval
        tracker = core.trackers[peer]
        report = tracker.report
        if report is not None and tracker.is_linked and not core.is_in_doubt(peer):
            if report.role is Role.PASSIVE:
                return NEVER
            if service is Service.CONFERENCE and not report.state.runs_conference:
                return NEVER
        return core.probe_interval(now, peer)

    def _timeout(self, peer: str, now: float) -> float:
        core = self._node.core
        assert core is not None
        if not peer:
            return OWN_TIMEOUT
        if core.trackers[peer].is_probed_fast(now):
            return core.settings.timing.fast_timeout
        if core.verdict(peer) in (Verdict.SILENT, Verdict.FAILED):
            return 1.0
        return TIMEOUT

    def _start(self, peer: str, service: Service) -> None:
        node, now = self._node, self._node.now
        target = self._targets[peer, service]
        target.started_at = now
        self._schedule(peer, service, now)
        if target.in_flight >= MAX_IN_FLIGHT:
            return
        target.in_flight += 1
        timeout = self._timeout(peer, now)
        world, network = node.world, node.world.network
        if not peer:
            self._send(_Probe(target, service, peer, node, world.now, timeout), 0.001)
            return
        probe = _Probe(target, service, peer, node.cluster[peer], world.now, timeout)
        chance = world.chance(f"probe {node.name}>{peer}")
        wait = 0.0
        if network.is_told(node.name, peer) and not network.is_lost(chance):
            world.after(2 * network.delay(chance), self._deliver, probe, Outcome.UNREACHABLE, False)
            return
        if network.is_open_both_ways(node.name, peer):
            for _ in range(2):
                packets = 2 * PACKETS[service]
                if not any(network.is_lost(chance) for _ in range(packets)):
                    delay = network.delay(chance)
                    if wait + 2 * delay * PACKETS[service] < timeout:
                        self._send(probe, wait + delay)
                        return
                wait += REPEAT[service]
        world.after(timeout, self._deliver, probe, Outcome.TIMEOUT, False)

    def _send(self, probe: _Probe, delay: float) -> None:
        self._node.world.after(delay, self._arrive, probe, delay)

    def _arrive(self, probe: _Probe, delay: float) -> None:
        host, world = probe.host, self._node.world
        process = host.services[probe.service]
        outcome = process.answer()
        if probe.peer and not world.network.is_open(probe.peer, self._node.name):
            outcome = Outcome.TIMEOUT
        is_silent = outcome is Outcome.TIMEOUT
        is_connected = (
            is_silent
            and probe.service is Service.CONSOLE
            and process.is_running
            and not host.is_dark
            and not host.is_machine_still
        )
        wait = max(probe.timeout - delay, 0.0) if is_silent else delay
        world.after(wait, self._deliver, probe, outcome, is_connected)

    def _deliver(self, probe: _Probe, outcome: Outcome, is_connected: bool) -> None:
        if self._node.life != self._life:
            return
        target = probe.target
        target.in_flight -= 1
        if outcome is Outcome.ANSWERED:
            target.answered_from = max(target.answered_from, probe.started_at)
        elif probe.started_at < target.answered_from:
            return  # old news, as in ``daemon.probing``
        answer = {"connected": True} if is_connected else {}
        result = ProbeResult(
            service=probe.service,
            outcome=outcome,
            detail=outcome.value,
            took=self._node.world.now - probe.started_at,
            answer=answer,
        )
        self._node.probed(self._life, probe.peer, result)
