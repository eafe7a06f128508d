"""The failure detector: observations in, one verdict per peer out. Pure; time comes in.

Theory of operation. The open link is the main witness: as long as heartbeats arrive, the peer's
`ha` lives and the peer's own word counts. A closed or reset link or a late heartbeat makes the peer
*suspect*: it is then probed fast, on its Console Server and its Conference Server, and the other
nodes are asked whether they see it. What the probes bring decides:

    services answer                      -> NO_DAEMON       only its `ha` is away
    one service fails, another answers   -> SERVICE_FAILED
    all fail, the machine is there       -> FAILED          (refused, or accepted and never
    answered) all fail in silence                  -> SILENT          dead or cut off: weighed in
    ``judging``

A silent peer that gives a sign of life has *returned*: what failed during its silence says nothing
about it, so counting begins anew, without the probes that were on their way at that moment.

A peer that never answered is UNKNOWN, which is a configuration error and no failure. A node that
was itself standing still (``forgive``) or is late on its own timers (``stretch``) gives its peers
the time that it was not there itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from controlone_ha.core.model import PeerView, Report, Role, State, Verdict, Yielding
from controlone_ha.core.observations import Outcome, ProbeResult, Service
from controlone_ha.core.reasons import Evidence
from controlone_ha.core.timing import Timing
from controlone_ha.core.tracks import ServiceTrack, Sighting

OUT = (Verdict.SILENT, Verdict.FAILED, Verdict.SERVICE_FAILED)
SERVING = frozenset(state for state in State if state.is_serving)
WAITING = frozenset({State.STANDBY, State.PASSIVE})

CONSOLES_COUNT_FOR = 30.0
"""Seconds for which a console that said that it lost the peer counts as evidence."""

MAX_CONSOLES = 1000


FLAPPING = 600.0
"""Seconds in which outages of a peer are counted: one that keeps coming back is trusted less."""


@dataclass(kw_only=True)
class PeerTracker:
    """Everything observed about one peer. Mutable, but a pure function of its events and times."""

    peer: str
    timing: Timing
    is_known: bool = False
    report: Report | None = None
    stretch: float = 1.0
    serving_at: float | None = None
    standby_at: float | None = None
    is_linked: bool = False
    is_heard: bool = False
    last_sign_at: float | None = None
    returned_at: float | None = None
    _beat_at: float = 0.0
    _down_at: float = 0.0
    _down_detail: str = "no link yet"
    _was_fresh: bool = False
    _view: PeerView | None = None
    _services: dict[Service, ServiceTrack] = field(default_factory=dict)
    _sightings: dict[str, Sighting] = field(default_factory=dict)
    _lost: dict[str, float] = field(default_factory=dict)
    _has_served: bool = False
    _returns: list[float] = field(default_factory=list)

    # --- events ---------------------------------------------------------------------------

    def heartbeat(self, now: float) -> None:
        """The peer's `ha` was heard on the link."""
        self._beat_at = now
        self._sign(now)

    def link_up(self, now: float) -> None:
        """An authenticated link is open; the peer's report will be the first that comes over it."""
        self.is_linked = True
        self.is_heard = False
        self.heartbeat(now)

    def link_down(self, now: float, detail: str) -> None:
        """The link ended; ``detail`` says how (closed, reset, silent, …)."""
        if self.is_linked:
            # A link that is given up for its silence was in trouble before.
            self._down_at = min(now, self._beat_at + self._patience)
        self.is_linked = False
        self._down_detail = detail
        self._note_trouble(now)

    def probe(self, now: float, result: ProbeResult) -> None:
        """A probe of one of the peer's services ended."""
        self._note_trouble(now)
        if result.outcome in (Outcome.ANSWERED, Outcome.REFUSED):
            self._note_return(now)
        elif self._is_outdated(now, now - result.took):
            return
        self._services.setdefault(result.service, ServiceTrack()).add(now, result)
        if result.is_answered:
            self._sign(now)

    def _is_outdated(self, now: float, started_at: float) -> bool:
        """True for the silence of a probe that was sent before the trouble or the return began.

        It may have met the cut on its way: a connection accepted before it shows no machine now.
        """
        if self.returned_at is not None and started_at < self.returned_at:
            return True
        return not self.is_heartbeat_fresh(now) and started_at < self._trouble_at()

    def reported(self, now: float, report: Report) -> None:
        """The peer's own report arrived (over the link, so its `ha` lives)."""
        self.report = report
        self.is_heard = True
        self.heartbeat(now)

    @property
    def word(self) -> Report | None:
        """What counts of the last report. On a new link, until the peer has spoken: not that it
        needs somebody, nor what it granted; it may have been restarted since.
        """
        report = self.report
        if report is None or self.is_heard or not self.is_linked:
            return report
        state = State.STARTING if report.state is State.PASSIVE else report.state
        nothing: frozenset[str] = frozenset()
        return replace(report, state=state, yielding=Yielding.NO, consents=nothing, offers=nothing)

    def sighting(
        self, now: float, reporter: str, age: float | None, heard: float | None = None
    ) -> None:
        """Another node answered: its last sign of life of the peer is ``age`` s old, and that of
        the peer's `ha` ``heard`` s.

        Age None: it has never seen the peer (it may not watch it, C2), and so it bears no witness.
        """
        if age is not None:
            heard_at = None if heard is None else now - heard
            self._sightings[reporter] = Sighting(
                seen_at=now - age, heard_at=heard_at, answered_at=now
            )

    def lost_by(self, now: float, console: str) -> None:
        """A console has logged in here and says that it lost its connection to the peer."""
        for name in [name for name, at in self._lost.items() if now - at >= CONSOLES_COUNT_FOR]:
            del self._lost[name]
        if len(self._lost) < MAX_CONSOLES:
            self._lost[console] = now

    def forget_reporter(self, reporter: str) -> None:
        """The link to ``reporter`` is gone: what it saw ages with nobody to renew it."""
        self._sightings.pop(reporter, None)

    def forgive(self, gap: float) -> None:
        """This node stood still for ``gap`` s: shift what it could not hear meanwhile."""
        self._beat_at += gap
        for track in self._services.values():
            track.forget()

    def age(self, now: float) -> float | None:
        """Return the age of the last direct sign of life, None if there never was one."""
        return None if self.last_sign_at is None else now - self.last_sign_at

    def heard(self, now: float) -> float | None:
        """Return the age of the last word of the peer's `ha`, None without an open link."""
        return now - self._beat_at if self.is_linked else None

    def _sign(self, now: float) -> None:
        self._note_return(now)
        self.is_known = True
        self.last_sign_at = now

    def _note_return(self, now: float) -> None:
        """A sign of a peer that was silent: forget what failed meanwhile."""
        if self._view is None or self._view.verdict is not Verdict.SILENT:
            return
        if self.returned_at is None or self.returned_at < self._view.since_at:
            self.returned_at = now
            self._services.clear()

    # --- verdict --------------------------------------------------------------------------

    def view(self, now: float) -> PeerView:
        """Return the verdict at ``now``; ``since_at`` is when this verdict began."""
        previous = self._view
        if (
            previous is not None
            and previous.verdict is Verdict.ALIVE
            and self.is_heartbeat_fresh(now)
        ):
            self._was_fresh = True
            self._track_serving(now, previous)
            return previous
        self._note_trouble(now)
        verdict, failed_service = self._verdict(now)
        same = previous is not None and previous.verdict is verdict
        since_at = previous.since_at if same and previous is not None else now
        if verdict is Verdict.ALIVE:
            self._view = PeerView(
                peer=self.peer, verdict=verdict, since_at=since_at, returned_at=self.returned_at
            )
        else:
            sees, denies = self._witnesses(now)
            self._view = PeerView(
                peer=self.peer,
                verdict=verdict,
                since_at=since_at,
                evidence=self._evidence(now),
                failed_service=failed_service,
                is_refused=self._shows_machine(),
                is_conference_refused=self._is_conference_refused(),
                sees=sees,
                denies=denies,
                denies_now=frozenset(
                    name
                    for name in denies
                    if now - self._sightings[name].answered_at <= 2 * self.timing.fast_interval
                ),
                hears=self._hearing(now),
                returned_at=self.returned_at,
            )
        self._track_serving(now, self._view)
        return self._view

    def _note_trouble(self, now: float) -> None:
        """When the link falls silent, count from here: what failed before is another story."""
        is_fresh = self.is_heartbeat_fresh(now)
        if self._was_fresh and not is_fresh:
            for track in self._services.values():
                track.forget()
        self._was_fresh = is_fresh

    def next_check(self, now: float) -> float | None:
        """Return when the verdict may change by mere passing of time; None if it does not."""
        if self.is_heartbeat_fresh(now):
            return self._beat_at + self._patience  # may be now, by the rounding of a sum
        times = [item.seen_at + self.timing.fresh for item in self._sightings.values()]
        return min((time for time in times if time > now), default=None)

    def quiet_until(self, now: float) -> float | None:
        """Return until when nothing can change by mere passing of time while the peer was alive at
        the last look and is heard; None when it is to be looked at.
        """
        view = self._view
        if view is None or view.verdict is not Verdict.ALIVE or not self.is_heartbeat_fresh(now):
            return None
        return self._beat_at + self._patience

    @property
    def _patience(self) -> float:
        return self.timing.suspect_after * self.stretch

    def is_heartbeat_fresh(self, now: float) -> bool:
        """True while the peer's `ha` is heard on an open link."""
        return self.is_linked and now - self._beat_at < self._patience

    def is_probed_fast(self, now: float) -> bool:
        """True while the peer is to be probed at ``fast_interval`` rather than at ``interval``."""
        verdict = self._view.verdict if self._view is not None else Verdict.UNKNOWN
        if verdict is Verdict.SUSPECT:
            return True
        return verdict is Verdict.NO_DAEMON and now - self._trouble_at() < 2 * self.timing.fresh

    def _trouble_at(self) -> float:
        return self._beat_at + self._patience if self.is_linked else self._down_at

    def _expected(self) -> tuple[Service, ...]:
        """The services that the peer ran when it was last heard."""
        report = self.report
        if report is not None and not report.state.runs_conference:
            return (Service.CONSOLE,)
        return (Service.CONSOLE, Service.CONFERENCE)

    def _verdict(self, now: float) -> tuple[Verdict, str]:
        if not self.is_known:
            return Verdict.UNKNOWN, ""
        if self.is_heartbeat_fresh(now):
            return Verdict.ALIVE, ""
        trouble_at = self._trouble_at()
        tracks = {service: self._services.get(service) for service in self._expected()}
        needed = self.timing.failures_needed(self._confirmations(now))
        statuses = {
            service: self._status(track, trouble_at, needed) for service, track in tracks.items()
        }
        if None in statuses.values():
            return Verdict.SUSPECT, ""
        if self.report is not None and self.report.role is Role.PASSIVE:
            return (Verdict.NO_DAEMON if self._shows_machine() else Verdict.SILENT), ""
        failed = [service for service, is_up in statuses.items() if not is_up]
        if 0 < len(failed) < len(statuses) and not self._is_certain(now, failed):
            return Verdict.SUSPECT, ""
        if not failed or (self.report is None and len(failed) < len(statuses)):
            # Without a report nobody knows what this peer runs: something answering is enough.
            return Verdict.NO_DAEMON, ""
        if len(failed) < len(statuses):
            return Verdict.SERVICE_FAILED, failed[0].value
        return (Verdict.FAILED if self._shows_machine() else Verdict.SILENT), ""

    def _status(self, track: ServiceTrack | None, trouble_at: float, needed: int) -> bool | None:
        """True: answers since the trouble began. False: failed. None: not known yet."""
        if track is None or track.outcome is None:
            return None
        if track.outcome is Outcome.ANSWERED:
            return (
                True if track.answered_at is not None and track.answered_at >= trouble_at else None
            )
        if track.outcome is Outcome.REFUSED and not self.is_linked:
            # The link's end and a refusal are two independent kinds of evidence.
            needed = self.timing.refusals
        return False if track.failures >= needed else None

    def _confirmations(self, now: float) -> int:
        """Return how many others have found the same independently: nodes that do not hear the
        peer, and consoles that left it (all of them together are one).
        """
        _, denies = self._witnesses(now)
        return len(denies) + bool(self._lost_by(now))

    def _lost_by(self, now: float) -> list[str]:
        return sorted(
            console for console, at in self._lost.items() if now - at < CONSOLES_COUNT_FOR
        )

    def _shows_machine(self) -> bool:
        tracks = (self._services.get(service) for service in self._expected())
        return any(track and track.shows_machine(self.timing.failures) for track in tracks)

    def _is_conference_refused(self) -> bool:
        track = self._services.get(Service.CONFERENCE)
        return track is not None and track.failures > 0 and track.outcome is Outcome.REFUSED

    def _is_certain(self, now: float, failed: list[Service]) -> bool:
        """One service failing beside another that answers may be just starting: look longer. One
        that is merely silent may have lost its packets: look for as long as a sign stays fresh.
        """
        tracks = [self._services[item] for item in failed]
        return all(
            track.failures >= self.timing.failures
            and (track.is_shown or now - track.first_failure_at >= self.timing.fresh)
            for track in tracks
        )

    def _witnesses(self, now: float) -> tuple[frozenset[str], frozenset[str]]:
        """Who sees the peer and who does not, among those that answered since the trouble began.

        A sign of life after the trouble began is one. Lacking it, a witness denies only when it
        would suspect the peer itself; in between its answer says nothing yet.
        """
        lasting = max(3.0, 3 * self.timing.suspect_after)
        trouble_at = self._trouble_at()
        sees, denies = set(), set()
        for reporter, item in self._sightings.items():
            if item.answered_at < trouble_at or now - item.answered_at > lasting:
                continue
            if item.seen_at > trouble_at and now - item.seen_at < self.timing.fresh:
                sees.add(reporter)
            elif item.answered_at - item.seen_at > self.timing.suspect_after:
                denies.add(reporter)
        return frozenset(sees), frozenset(denies)

    def _hearing(self, now: float) -> frozenset[str]:
        """Return who hears the peer's `ha`: its word reaches them, late as it may come to us."""
        trouble_at, patience = self._trouble_at(), self.timing.suspect_after
        return frozenset(
            reporter
            for reporter, item in self._sightings.items()
            if item.heard_at is not None
            and item.answered_at >= trouble_at
            and now - item.heard_at < self.timing.fresh
            and item.answered_at - item.heard_at < patience
        )

    def _evidence(self, now: float) -> tuple[Evidence, ...]:
        found = []
        if self.is_linked:
            age = now - self._beat_at
            found.append(Evidence(kind="heartbeat", text=f"no heartbeat for {age:.2f} s", age=age))
        else:
            down = now - self._down_at if self._down_at else None
            found.append(Evidence(kind="link", text=f"link: {self._down_detail}", age=down))
        for service, track in sorted(self._services.items()):
            if track.failures and track.outcome is not None:
                text = f"{track.failures} × {service.value} {track.outcome.value}"
                text += f": {track.detail}" if track.detail else ""
                age = now - track.first_failure_at
                found.append(Evidence(kind=f"probe_{service.value}", text=text, age=age))
        consoles = self._lost_by(now)
        if consoles:
            shown = ", ".join(consoles[:3]) + (", …" if len(consoles) > 3 else "")
            text = f"{len(consoles)} consoles arrived that had lost it: {shown}"
            age = now - max(self._lost[console] for console in consoles)
            found.append(Evidence(kind="console", text=text, path="via consoles", age=age))
        sees, denies = self._witnesses(now)
        for name in sorted(sees | denies):
            text = f"{name} {'sees it' if name in sees else 'does not see it either'}"
            found.append(Evidence(kind="witness", text=text, path=f"via {name}"))
        return tuple(found)

    def _track_serving(self, now: float, view: PeerView) -> None:
        is_heard = view.verdict is Verdict.ALIVE
        if not is_heard and view.verdict not in OUT:
            return  # a suspicion that is not confirmed is no outage: on a lossy way there are many
        state = self.report.state if is_heard and self.report is not None else None
        was_serving = self.serving_at is not None
        self.serving_at = _since(now, self.serving_at, state in SERVING)
        self.standby_at = _since(now, self.standby_at, state in WAITING)
        if self.serving_at is not None and not was_serving:
            if self._has_served:
                self._returns = [at for at in self._returns if now - at < FLAPPING] + [now]
            self._has_served = True

    def returns(self, now: float) -> int:
        """Return how many times the peer has lately come back into service."""
        return sum(now - at < FLAPPING for at in self._returns)


def _since(now: float, at: float | None, is_so: bool) -> float | None:
    """Return since when something has been so: ``at`` when it already was."""
    if not is_so:
        return None
    return now if at is None else at
