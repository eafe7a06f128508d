"""What is remembered of a peer's service, probe by probe, and of what another node says of it."""

from __future__ import annotations

from dataclasses import dataclass

from controlone_ha.core.observations import Outcome, ProbeResult


@dataclass(kw_only=True)
class ServiceTrack:
    """Consecutive failures of one service; ``first_failure_at`` of the present run.

    ``is_shown``: the machine showed itself in this run (refused, or accepted the connection);
    ``silences``: results in a row since then that showed nothing.
    """

    outcome: Outcome | None = None
    detail: str = ""
    failures: int = 0
    silences: int = 0
    is_shown: bool = False
    first_failure_at: float = 0.0
    answered_at: float | None = None

    def add(self, now: float, result: ProbeResult) -> None:
        """Note a probe's result."""
        self.outcome, self.detail = result.outcome, result.detail
        if result.is_answered:
            self.forget()
            self.answered_at = now
            return
        if not self.failures:
            self.first_failure_at = now
        self.failures += 1
        if result.outcome is Outcome.REFUSED or result.answer.get("connected"):
            self.is_shown, self.silences = True, 0
        else:
            self.silences += 1

    def forget(self) -> None:
        """What failed so far is another story."""
        self.failures = self.silences = 0
        self.is_shown = False

    def shows_machine(self, silences: int) -> bool:
        """True when the machine was there not ``silences`` results ago."""
        return self.is_shown and self.silences < silences


@dataclass(kw_only=True)
class Sighting:
    """What another node answered when asked about the peer."""

    seen_at: float
    heard_at: float | None
    answered_at: float
