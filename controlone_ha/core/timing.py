"""The detector's times, from the settings: how long a node may be silent, how often it is asked."""

from __future__ import annotations

from dataclasses import dataclass

from controlone_ha.core.model import Verdict

ASKED_OFTEN = 30.0
"""Seconds of silence of a peer in which the others are asked about it at the fast interval."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """All times of the detector, seconds, from UCI ``interval``, ``heartbeat`` and ``failures``.

    ``suspect_after`` = 1.6 heartbeats + 50 ms: one heartbeat may be lost to a retransmission
    without anybody being suspected long; suspicion costs a few probes and nothing else.
    """

    interval: float = 10.0
    heartbeat: float = 1.0
    suspect_after: float = 1.65
    fast_interval: float = 0.25
    fast_timeout: float = 0.6
    failures: int = 3
    refusals: int = 1

    @classmethod
    def of(cls, *, interval: float, failures: int, heartbeat: float | None = None) -> Timing:
        """Return the timing for a watchdog interval; an explicit heartbeat overrides
        interval/10.
        """
        beat = heartbeat or min(1.0, max(0.1, interval / 10))
        return cls(
            interval=interval,
            heartbeat=beat,
            suspect_after=1.6 * beat + 0.05,
            fast_interval=min(0.25, max(0.05, beat / 4)),
            fast_timeout=min(0.6, max(0.15, 0.6 * beat)),
            failures=failures,
        )

    def failures_needed(self, confirmations: int) -> int:
        """Return how many failed probes in a row make a service failed: ``failures``, and one less
        for every other node but the first that does not hear the peer either, but two at least.

        On a way that loses a third of its packets one other node is often wrong together with us.
        """
        return max(min(2, self.failures), self.failures - max(0, confirmations - 1))

    def asks_every(self, verdict: Verdict, lasting: float) -> float:
        """Return how often the others are asked about a peer that has had a verdict for so long.

        Whether its calls may be taken rests on answers of this moment, so for a while they are
        asked for often.
        """
        is_new = verdict is Verdict.SILENT and lasting < ASKED_OFTEN
        return self.fast_interval if verdict is Verdict.SUSPECT or is_new else self.heartbeat

    @property
    def fresh(self) -> float:
        """Age up to which somebody else's sign of life counts as fresh."""
        return 2 * self.suspect_after
