"""What probes measured, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

CALL_PROBE_NUMBER = "ha-probe"
"""What a call probe dials: every Conference Server answers it, says nothing and hangs up."""


class Service(StrEnum):
    """A service of a node that can be probed."""

    CONSOLE = "server"
    CONFERENCE = "conference"
    DATABASE = "database"


class Outcome(StrEnum):
    """How a probe ended.

    REFUSED is an answer of the other host's kernel (TCP reset, ICMP port unreachable): the machine
    lives and nobody serves the port. TIMEOUT is silence. UNREACHABLE is this host's own or a
    router's word that there is no way. REJECTED is an answer that breaks the protocol or the pin.
    """

    ANSWERED = "answered"
    TIMEOUT = "timeout"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    REJECTED = "rejected"


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """One probe: ``detail`` is a short English phrase for a person, ``rtt_ms`` None without
    answer; ``took``: seconds from its start to its end, so that its start is known.
    """

    service: Service
    outcome: Outcome
    detail: str = ""
    rtt_ms: float | None = None
    took: float = 0.0
    answer: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_answered(self) -> bool:
        """True when the service itself answered."""
        return self.outcome is Outcome.ANSWERED
