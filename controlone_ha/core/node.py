"""The core of a node: every event in, effects out. Pure, so that the daemon is a thin shell around
it and the simulator runs the very same code.

Theory of operation. Events (links, heartbeats, reports, probes, own services, orders of the
operator) update trackers; ``step(now)`` takes one immutable ``Snapshot``, calls ``decide`` and
returns effects: publish a report, ask others for sightings, restart a service, record a
transition, remember something over restarts. The target for the services is ``decision``; the
shell reconciles them to it again and again, so an effect that was lost in a crash is not lost.
``wake_at`` says when passing time alone may change something.
"""

from __future__ import annotations

from dataclasses import replace

from controlone_ha.core.decide import decide
from controlone_ha.core.detector import PeerTracker
from controlone_ha.core.effects import (
    AskReports,
    AskSightings,
    Effect,
    KnownPeer,
    PeerTransition,
    Publish,
    Remember,
    Remembered,
    RestartService,
    TakeCalls,
    Transition,
)
from controlone_ha.core.licences import unlicensed
from controlone_ha.core.model import (
    Decision,
    Own,
    Peer,
    PeerView,
    Report,
    Role,
    Snapshot,
    State,
    Verdict,
    Yielding,
)
from controlone_ha.core.node_settings import NodeSettings
from controlone_ha.core.observations import Outcome, ProbeResult, Service
from controlone_ha.core.reasons import Reason, reason
from controlone_ha.core.selfwatch import SelfWatch
from controlone_ha.core.wire import is_newer

OWN_LATENESS = 0.25
"""Seconds late on its own timers from which a node does not trust its probes of itself."""


class Node:
    """One node's decisions. All methods take ``now`` in monotonic seconds, ``wall`` for people."""

    def __init__(
        self,
        settings: NodeSettings,
        *,
        now: float,
        incarnation: int,
        remembered: Remembered | None = None,
        services_run: bool = False,
    ) -> None:
        self.settings = settings
        self.remembered = remembered or Remembered()
        self.watch = SelfWatch(failures=settings.timing.failures)
        self.trackers: dict[str, PeerTracker] = {}
        self.decision = Decision(state=State.STARTING, reason=reason("starting"))
        self.since_at = now
        self.wake_at: float | None = now
        self._started_at = now
        self._saved = self.remembered
        self._incarnation = incarnation
        self._revision = 0
        self._published: Report | None = None
        self._published_settings = settings
        self._verdicts: dict[str, Verdict] = {}
        self._peers: dict[str, Peer] = {}
        self._asked_at: dict[str, float] = {}
        self._host: tuple[Reason, ...] = ()
        self._healthy_at: float | None = now
        self._has_network = True
        self._lateness = 0.0
        self._was_late = False
        self._stepped_at = now
        self._load = (0, 0)
        self._releases = False
        self._gap = 0.0
        self._gap_until = 0.0
        self._fresh: set[str] = set()
        self._linked: dict[str, Report | None] = {}
        self._said: list[Report] = []
        self._reread: set[str] = set()
        self._is_reread_asked = False
        self._adopt(services_run)
        self.reconfigure(now, settings)

    def _adopt(self, services_run: bool) -> None:
        """Go on as before a restart of `ha` when the services have gone on, too (fail static)."""
        kept = self.remembered
        if services_run and kept.state.runs_conference and self.settings.role is not Role.PASSIVE:
            state = State.ACTIVE if kept.state is State.DEGRADED else kept.state
            yielding = Yielding.YIELDED if state is State.DISABLED else Yielding.NO
            self.decision = Decision(
                state=state, reason=kept.reason, covering=kept.covering, yielding=yielding
            )

    def reconfigure(self, now: float, settings: NodeSettings) -> None:
        """Take new settings over; peers that stay keep what was observed about them."""
        self.settings = settings
        self.watch.failures = settings.timing.failures
        for name in [name for name in self.trackers if name not in settings.monitored]:
            del self.trackers[name]
        for name in settings.monitored:
            tracker = self.trackers.get(name)
            if tracker is None:
                self.trackers[name] = self._new_tracker(now, name)
            else:
                tracker.timing = settings.timing
        self.wake_at = now

    def _new_tracker(self, now: float, name: str) -> PeerTracker:
        """Return a tracker that knows what was remembered, and what has been said on a link that
        was open before this node began to watch the peer.
        """
        is_known = name in self.remembered.known
        tracker = PeerTracker(peer=name, timing=self.settings.timing, is_known=is_known)
        tracker.report = self.remembered.stand_in(name)
        if name in self._linked:
            tracker.link_up(now)
            if (report := self._linked[name]) is not None:
                tracker.reported(now, report)
                self._fresh.discard(name)
        return tracker

    # --- events ---------------------------------------------------------------------------

    def link_up(self, now: float, peer: str) -> Report:
        """A link opened; return the report to send first."""
        self._linked[peer] = None
        if peer in self.trackers:
            self.trackers[peer].link_up(now)
        # What a node says first on a new link is its present word, whatever it counted before
        # (its state directory may have been replaced).
        self._fresh.add(peer)
        return self.report()

    def link_down(self, now: float, peer: str, detail: str) -> None:
        """A link ended."""
        self._linked.pop(peer, None)
        if peer in self.trackers:
            self.trackers[peer].link_down(now, detail)
        for tracker in self.trackers.values():
            tracker.forget_reporter(peer)

    def heartbeat(self, now: float, peer: str) -> None:
        """Any frame of the peer arrived."""
        if peer in self.trackers:
            self.trackers[peer].heartbeat(now)

    def reported(self, now: float, report: Report) -> None:
        """A peer's report arrived on its own link; an older one than known is dropped."""
        tracker = self.trackers.get(report.node)
        self._linked[report.node] = report
        if tracker is None:
            return
        if report.node in self._fresh or is_newer(report, tracker.report):
            self._fresh.discard(report.node)
            tracker.reported(now, report)
            self._said.append(report)
        self._reread.discard(report.node)

    def own_probed(self, now: float, result: ProbeResult) -> None:
        """A probe of an own service ended. A silence while this node is late itself proves nothing:
        the probe, not the service, may have had no processor time.
        """
        if result.outcome is Outcome.TIMEOUT and self._lateness > OWN_LATENESS:
            return
        self.watch.probed(now, result)

    def probed(self, now: float, peer: str, result: ProbeResult) -> None:
        """A probe of a peer's service ended."""
        if peer in self.trackers:
            self.trackers[peer].probe(now, result)

    def sign_age(self, now: float, peer: str) -> float | None:
        """Answer to "do you see it?": age in seconds of this node's last own sign of life.

        A peer that was known before this node's start and has been found silent since has shown no
        sign for longer than this node runs. None: this node can bear no witness.
        """
        tracker = self.trackers.get(peer)
        if tracker is None:
            return None
        age = tracker.age(now)
        if age is None and self.verdict(peer) is Verdict.SILENT:
            return now - self._started_at + self.settings.timing.fresh
        return age

    def console_lost(self, now: float, console: str, peer: str) -> bool:
        """A console has logged in here and says that it lost ``peer``. It is evidence, not yet a
        suspicion: return True when the peer is watched, so that it is worth probing at once.
        """
        tracker = self.trackers.get(peer)
        if tracker is None:
            return False
        tracker.lost_by(now, console)
        return True

    def heard_age(self, now: float, peer: str) -> float | None:
        """Answer to "do you hear its `ha`?": age in seconds of its last word; None: no link."""
        tracker = self.trackers.get(peer)
        return None if tracker is None else tracker.heard(now)

    def sighting(
        self, now: float, reporter: str, peer: str, age: float | None, heard: float | None = None
    ) -> None:
        """The answer of ``reporter`` to "do you see ``peer``, and do you hear its `ha`?"."""
        if peer in self.trackers and reporter in self.trackers:
            self.trackers[peer].sighting(now, reporter, age, heard)

    def verdict(self, peer: str) -> Verdict:
        """Return the verdict of the last step on ``peer``."""
        return self._verdicts.get(peer, Verdict.UNKNOWN)

    def is_in_doubt(self, peer: str) -> bool:
        """True when the last verdict on ``peer`` was any other than alive."""
        return self.verdict(peer) is not Verdict.ALIVE

    def host_abnormal(self, abnormalities: tuple[Reason, ...]) -> None:
        """What the host probe found (processor, memory, disk, temperature)."""
        self._host = abnormalities

    def network(self, has_network: bool) -> None:
        """Whether any of the node's own links is up."""
        self._has_network = has_network

    def lateness(self, seconds: float) -> None:
        """How late this node's own timers are at present: it stretches its patience with others."""
        self._lateness = seconds
        beat = self.settings.timing.heartbeat
        stretch = 1.0 + min(9.0, max(0.0, seconds - beat / 10) / beat)
        for tracker in self.trackers.values():
            tracker.stretch = stretch

    def load(self, consoles: int, calls: int) -> bool:
        """How many consoles and calls are here; return True when that has changed."""
        before, self._load = self._load, (consoles, calls)
        return before != self._load

    def release_calls(self, is_released: bool) -> None:
        """Give this node's live calls away, or no longer: the others may take them at once."""
        self._releases = is_released

    def stood_still(self, now: float, gap: float) -> None:
        """This process did not run for ``gap`` s (stopped, suspended, starved)."""
        self._gap = max(self._gap, gap)
        self._gap_until = now + self.settings.timing.fresh
        self._reread = set(self.trackers)
        self._is_reread_asked = False
        self.watch.forgive()
        for tracker in self.trackers.values():
            tracker.forgive(gap)

    # --- orders of the operator -------------------------------------------------------------

    def force(self, state: str, by: str) -> None:
        """``active`` or ``passive`` until ``resume``; the caller has checked
        ``refusal_of_force``.
        """
        self.remembered = replace(self.remembered, forced=state, forced_by=by)

    def refusal_of_force(self, state: str) -> str | None:
        """Return why a forced state is refused, None when it is allowed."""
        if state == "active" and self.settings.role is Role.PASSIVE:
            return (
                "this node has role passive: it never runs Console Server or Conference Server"
                " (set ha.default.role to slave or master first)"
            )
        return None

    def pause(self, by: str) -> None:
        """No automatic change of state until ``resume``."""
        self.remembered = replace(self.remembered, paused_by=by)

    def resume(self) -> bool:
        """End forced and paused states; return False when there was none."""
        kept = self.remembered
        if not (kept.forced or kept.paused_by):
            return False
        self.remembered = replace(kept, forced="", forced_by="", paused_by="")
        return True

    # --- the step ---------------------------------------------------------------------------

    def snapshot(self, now: float) -> Snapshot:
        """Return everything a decision sees."""
        peers = tuple(
            self._peer(now, name, tracker, tracker.view(now))
            for name, tracker in sorted(self.trackers.items())
        )
        return Snapshot(now=now, own=self._own(now), peers=peers, rules=self.settings.rules)

    def _peer(self, now: float, name: str, tracker: PeerTracker, view: PeerView) -> Peer:
        """Return the peer as a snapshot shows it; the same object while nothing has changed."""
        known, report, returns = self._peers.get(name), tracker.word, tracker.returns(now)
        is_monitored = self.settings.monitored.get(name, False)
        if (
            known is None
            or known.view is not view
            or known.report is not report
            or known.is_linked is not tracker.is_linked
            or known.is_monitored is not is_monitored
            or known.serving_at != tracker.serving_at
            or known.standby_at != tracker.standby_at
            or known.returns != returns
        ):
            known = self._peers[name] = Peer(
                name=name,
                view=view,
                report=report,
                is_linked=tracker.is_linked,
                is_monitored=is_monitored,
                serving_at=tracker.serving_at,
                standby_at=tracker.standby_at,
                returns=returns,
            )
        return known

    def _own(self, now: float) -> Own:
        settings, kept, decision = self.settings, self.remembered, self.decision
        abnormalities = self.watch.abnormalities(now) + self._host
        if abnormalities:
            self._healthy_at = None
        elif self._healthy_at is None:
            self._healthy_at = now
        if self._gap and (now >= self._gap_until or not self._awaited()):
            self._gap = 0.0
        return Own(
            name=settings.name,
            role=settings.role,
            state=decision.state,
            reason=decision.reason,
            priority=settings.priority,
            site=settings.site,
            forced=kept.forced,
            forced_by=kept.forced_by,
            paused_by=kept.paused_by,
            covering=decision.covering,
            yielding=decision.yielding,
            consents=decision.consents,
            needs=decision.needs,
            takes=decision.takes,
            grounds=decision.grounds,
            releases=self._releases,
            abnormalities=abnormalities,
            healthy_at=self._healthy_at,
            has_network=self._has_network,
            is_late=self._is_late(),
            is_licensed=settings.is_licensed,
            unlicensed=self._unlicensed(),
            rereading_gap=self._gap,
            consoles=self._load[0],
            calls=self._load[1],
            cause=kept.cause,
        )

    def masters(self) -> frozenset[str]:
        """Return the masters of the cluster as far as this node knows, the absent ones included."""
        known = {
            name
            for name, tracker in self.trackers.items()
            if tracker.report is not None and tracker.report.role is Role.MASTER
        }
        if self.settings.role is Role.MASTER:
            known.add(self.settings.name)
        return self.settings.other_masters.union(known)

    def _unlicensed(self) -> frozenset[str]:
        count = self.settings.licences
        return frozenset() if count is None else unlicensed(self.masters(), count)

    def _awaited(self) -> list[str]:
        """The peers whose word is to be heard after this node stood still: all but those that have
        been found gone since, or that never answered.
        """
        gone = (Verdict.UNKNOWN, Verdict.FAILED, Verdict.SILENT)
        return [name for name in self._reread if self.verdict(name) not in gone]

    def step(self, now: float) -> list[Effect]:
        """Decide once; return what the shell has to do. ``decision`` is the new target."""
        effects: list[Effect] = []
        self._stepped_at, self._was_late = now, self._is_late()
        if self._reread and not self._is_reread_asked:
            self._is_reread_asked = True
            effects.append(AskReports())
        snapshot = self.snapshot(now)
        effects += self._peer_transitions(snapshot)
        before = self.decision
        self.decision = decide(snapshot)
        self._expect_services(now)
        effects += self._own_transition(now, before)
        for peer, ground in self.decision.takes.items():
            if peer not in before.takes:
                effects.append(TakeCalls(peer=peer, ground=ground))
        effects += self._ask(now, snapshot)
        restart = self.watch.due_restart(now)
        if restart is not None:
            effects.append(RestartService(service=restart))
        report = self.report()
        if report is not self._published:
            self._published, self._published_settings = report, self.settings
            effects.append(Publish(report=report))
        self.wake_at = self._next_wake(now, snapshot)
        return effects

    def rest(self, now: float) -> bool:
        """At ``wake_at``: return True when every peer is heard as before and nothing is due, so
        that there is nothing to decide; ``wake_at`` is then the next time to look. A full step is
        made once in ``interval`` all the same.
        """
        due_at = self._stepped_at + self.settings.timing.interval
        if self.decision.wake_at is not None:
            due_at = min(due_at, self.decision.wake_at)
        if self._gap or self.watch.is_doubtful(now) or self._is_late() is not self._was_late:
            return False
        for tracker in self.trackers.values():
            quiet_until = tracker.quiet_until(now)
            if quiet_until is None:
                return False
            due_at = min(due_at, quiet_until)
        if due_at <= now:
            return False
        self.wake_at = max(now + 0.01, due_at)
        return True

    def _is_late(self) -> bool:
        return self._lateness > self.settings.timing.suspect_after

    def _expect_services(self, now: float) -> None:
        may_run = self.decision.state not in (State.PASSIVE, State.STARTING)
        self.watch.expect(now, Service.CONSOLE, may_run)
        self.watch.expect(now, Service.CONFERENCE, self.decision.conference_running)

    def _peer_transitions(self, snapshot: Snapshot) -> list[Effect]:
        effects: list[Effect] = []
        for peer in snapshot.peers:
            before = self._verdicts.get(peer.name, Verdict.UNKNOWN)
            if before is not peer.view.verdict:
                self._verdicts[peer.name] = peer.view.verdict
                effects.append(PeerTransition(before=before, view=peer.view))
        return effects

    def _own_transition(self, now: float, before: Decision) -> list[Effect]:
        after = self.decision
        effects: list[Effect] = []
        changed_state = after.state is not before.state
        cause = self.remembered.cause
        if changed_state:
            self.since_at = now
            if after.state is State.ACTIVE and before.state in (State.STANDBY, State.STARTING):
                cause = after.reason
        kept, known, peers = self.remembered, self._known(), self._known_peers()
        if (
            changed_state
            or known is not kept.known
            or peers is not kept.peers
            or after.covering != kept.covering
        ):
            self.remembered = replace(
                kept,
                known=known,
                peers=peers,
                state=after.state,
                reason=after.reason if changed_state else kept.reason,
                covering=after.covering,
                cause=cause,
            )
        if self.remembered is not self._saved and self.remembered != self._saved:
            self._saved = self.remembered
            effects.append(Remember(remembered=self.remembered))
        if changed_state or not after.reason.is_same_cause(before.reason):
            effects.append(Transition(before=before.state, after=after.state, reason=after.reason))
        return effects

    def _known(self) -> frozenset[str]:
        known = self.remembered.known
        fresh = [name for name, item in self.trackers.items() if item.is_known]
        return known if known.issuperset(fresh) else known.union(fresh)

    def _known_peers(self) -> frozenset[KnownPeer]:
        """Return what the peers are; the remembered set itself while nothing has changed."""
        known = self.remembered.peers
        if self._said:
            peers = {item.name: item for item in known}
            for report in self._said:
                peers[report.node] = KnownPeer(
                    name=report.node, role=report.role, state=report.state, site=report.site
                )
            self._said.clear()
            fresh = frozenset(peers.values())
            if fresh != known:
                return fresh
        return known

    def _ask(self, now: float, snapshot: Snapshot) -> list[Effect]:
        """Ask the others about every suspected or silent peer, again while it lasts."""
        effects: list[Effect] = []
        timing = self.settings.timing
        for peer in snapshot.peers:
            verdict = peer.view.verdict
            if verdict not in (Verdict.SUSPECT, Verdict.SILENT, Verdict.SERVICE_FAILED):
                self._asked_at.pop(peer.name, None)
                continue
            every = timing.asks_every(verdict, now - peer.view.since_at)
            asked_at = self._asked_at.get(peer.name)
            if asked_at is None or now - asked_at >= every:
                self._asked_at[peer.name] = now
                effects.append(AskSightings(peer=peer.name))
        return effects

    def report(self) -> Report:
        """Return what this node says of itself now; the same object while nothing has changed."""
        settings, decision, known = self.settings, self.decision, self._published
        if known is not None and self._is_said(known):
            return known
        self._revision += 1
        return Report(
            node=settings.name,
            role=settings.role,
            state=decision.state,
            reason=decision.reason,
            priority=settings.priority,
            site=settings.site,
            incarnation=self._incarnation,
            revision=self._revision,
            covers=frozenset(name for name, covered in settings.monitored.items() if covered),
            covering=decision.covering,
            ineligible=decision.ineligible,
            yielding=decision.yielding,
            consents=decision.consents,
            offers=decision.offers,
            forced=self.remembered.forced,
            version=settings.version,
            takes=frozenset(decision.takes),
            releases=self._releases,
        )

    def _is_said(self, known: Report) -> bool:
        """True when ``known`` says what there is to say; evidence ages without changing it."""
        decision, settings = self.decision, self.settings
        return (
            known.state is decision.state
            and known.yielding is decision.yielding
            and known.covering == decision.covering
            and known.consents == decision.consents
            and known.offers == decision.offers
            and known.takes == frozenset(decision.takes)
            and known.releases is self._releases
            and known.forced == self.remembered.forced
            and _is_same(known.reason, decision.reason)
            and _is_same(known.ineligible, decision.ineligible)
            and self._published_settings is settings
        )

    def _next_wake(self, now: float, snapshot: Snapshot) -> float:
        timing = self.settings.timing
        times = [self.decision.wake_at] if self.decision.wake_at is not None else []
        times += [
            check
            for tracker in self.trackers.values()
            if (check := tracker.next_check(now)) is not None
        ]
        asking = (Verdict.SILENT, Verdict.SERVICE_FAILED)
        if any(peer.view.verdict is Verdict.SUSPECT for peer in snapshot.peers):
            times.append(now + timing.fast_interval)
        elif any(peer.view.verdict in asking for peer in snapshot.peers):
            times.append(now + timing.heartbeat)
        if self._gap:
            times.append(self._gap_until)
        return max(now + 0.01, min(times, default=now + timing.interval))

    def probe_interval(self, now: float, peer: str) -> float:
        """Return how often the services of ``peer`` are to be probed at present, seconds."""
        timing, tracker = self.settings.timing, self.trackers[peer]
        if tracker.is_probed_fast(now):
            return timing.fast_interval
        verdict = self._verdicts.get(peer, Verdict.UNKNOWN)
        if verdict in (Verdict.ALIVE, Verdict.UNKNOWN):
            return timing.interval
        return timing.heartbeat


def _is_same(one: Reason | None, other: Reason | None) -> bool:
    if one is other:
        return True
    return one is not None and other is not None and one.is_same_cause(other)
