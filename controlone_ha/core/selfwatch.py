"""A node's watch over its own services: what was observed in, abnormalities out. Pure.

A service that should run and has ended is abnormal at once (the kernel says so, no doubt is left);
one that runs and does not answer is abnormal after ``failures`` probes in a row; a service just
ordered to start has ``GRACE`` seconds. An abnormality lasts until the service has answered again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from controlone_ha.core.observations import ProbeResult, Service
from controlone_ha.core.reasons import Evidence, Reason, reason

GRACE = 8.0
"""Seconds that a service has from its order to start until it must answer."""

RESTART_EVERY = 10.0
"""Seconds between two restarts of a service that runs but does not answer."""

PATIENCE = {Service.CONSOLE: 0.0, Service.CONFERENCE: 10.0}
"""Seconds that a service may be mute before it is killed: with a Conference Server end its calls,
so it is first replaced for new ones and given time to come to itself.
"""

_DOWN = {Service.CONSOLE: "console_down", Service.CONFERENCE: "conference_down"}
_MUTE = {Service.CONSOLE: "console_mute", Service.CONFERENCE: "conference_mute"}


@dataclass(kw_only=True)
class _Watched:
    is_expected: bool = False
    expected_at: float = 0.0
    ended: str = ""
    ended_at: float = 0.0
    is_confirmed: bool = False
    failures: int = 0
    failed_at: float = 0.0
    detail: str = ""
    restarted_at: float | None = None
    is_being_restarted: bool = False


@dataclass(kw_only=True)
class SelfWatch:
    """The state of the watch; ``failures`` is UCI ``ha.default.failures``."""

    failures: int = 3
    _services: dict[Service, _Watched] = field(
        default_factory=lambda: {service: _Watched() for service in _DOWN}
    )

    def expect(self, now: float, service: Service, is_expected: bool) -> None:
        """State whether ``service`` should run from now on."""
        watched = self._services[service]
        if watched.is_expected == is_expected:
            return
        restarted_at = watched.restarted_at
        self._services[service] = _Watched(
            is_expected=is_expected, expected_at=now, restarted_at=restarted_at
        )

    def ended(self, now: float, service: Service, detail: str) -> bool:
        """The process of ``service`` ended; ``detail`` says how (signal 9, exit 1, not started).

        Return True when that is news: it should run, and has answered since it ended last. One that
        was killed because it did not answer is abnormal for that, not for its end.
        """
        watched = self._services[service]
        if not watched.is_expected or watched.ended:
            return False
        if watched.is_being_restarted:
            watched.is_being_restarted = False
            return False
        watched.ended, watched.ended_at = detail, now
        return True

    def probed(self, now: float, result: ProbeResult) -> None:
        """An own probe of a service ended."""
        watched = self._services.get(result.service)
        if watched is None or not watched.is_expected:
            return
        if result.is_answered:
            watched.ended, watched.failures, watched.is_confirmed = "", 0, True
            watched.is_being_restarted = False
            return
        if not watched.failures:
            watched.failed_at = now
        watched.failures += 1
        watched.detail = result.detail or result.outcome.value

    def forgive(self) -> None:
        """This node stood still: what did not answer meanwhile has not failed."""
        for watched in self._services.values():
            watched.failures = 0

    def abnormalities(self, now: float) -> tuple[Reason, ...]:
        """Return what is abnormal at ``now``, the Console Server first."""
        found = []
        for service, watched in self._services.items():
            if not watched.is_expected:
                continue
            if watched.ended and not self._is_in_grace(now, watched):
                found.append(
                    reason(
                        _DOWN[service],
                        detail=watched.ended,
                        evidence=(
                            Evidence(
                                kind="process",
                                text=f"{service.value}: {watched.ended}",
                                path="own",
                                age=now - watched.ended_at,
                            ),
                        ),
                    )
                )
            elif watched.failures >= self.failures and not self._is_in_grace(now, watched):
                age = now - watched.failed_at
                text = f"{watched.failures} own probes of {service.value}: {watched.detail}"
                evidence = (Evidence(kind="probe", text=text, path="own", age=age),)
                found.append(reason(_MUTE[service], detail=watched.detail, evidence=evidence))
        return tuple(found)

    def is_doubtful(self, now: float) -> bool:
        """True while a service is to be probed fast: failing, ended or not yet heard of."""
        return any(
            watched.is_expected and (watched.failures or watched.ended or not watched.is_confirmed)
            for watched in self._services.values()
        )

    def due_restart(self, now: float) -> Service | None:
        """Return a service that runs, does not answer and is to be restarted; count it as done."""
        for service, watched in self._services.items():
            is_mute = watched.is_expected and not watched.ended
            if not is_mute or watched.failures < self.failures or self._is_in_grace(now, watched):
                continue
            if now - watched.failed_at < PATIENCE[service]:
                continue
            if watched.restarted_at is None or now - watched.restarted_at >= RESTART_EVERY:
                watched.restarted_at = now
                watched.is_being_restarted = True
                return service
        return None

    @staticmethod
    def _is_in_grace(now: float, watched: _Watched) -> bool:
        return not watched.is_confirmed and now - watched.expected_at < GRACE
