"""Session timers (RFC 4028) of one dialog: who refreshes, when, and when the session is given up.

Pure. Times are seconds; ``now`` is whatever clock the user has, the same one always.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from controlone_ha.sip.message import Message, Request, Response

SMALLEST = 90
"""Min-SE: the shortest interval there is (RFC 4028, 5)."""

_EXPIRES = re.compile(r"\s*([0-9]{1,9})\s*((?:;[^,]*)?)\s*", re.DOTALL)
_REFRESHER = re.compile(r";\s*refresher\s*=\s*\"?(uac|uas)", re.IGNORECASE)


def read_expires(message: Message) -> tuple[int, str] | None:
    """Return interval and refresher ("uac", "uas" or "") of Session-Expires, None without one."""
    match = _EXPIRES.fullmatch(message.get("Session-Expires"))
    if match is None:
        return None
    refresher = _REFRESHER.search(match[2])
    return int(match[1]), refresher[1].lower() if refresher else ""


def _smallest_of(message: Message) -> int:
    match = re.match(r"\s*([0-9]{1,9})", message.get("Min-SE"))
    return int(match[1]) if match else 0


def _supports(message: Message) -> bool:
    return "timer" in {item.lower() for item in message.items("Supported")}


@dataclass
class SessionTimer:
    """The timer of one dialog. ``interval`` 0: none. ``smallest``: the largest Min-SE met."""

    interval: int = 0
    is_ours: bool = False
    """True when we refresh."""
    refreshed: float = 0.0
    smallest: int = SMALLEST

    def offer(self) -> list[tuple[str, str]]:
        """Return the headers of our own INVITE or UPDATE. The roles are those of this request: its
        sender is the uac.
        """
        headers = [("Supported", "timer")]
        if self.interval:
            who = "uac" if self.is_ours else "uas"
            headers.append(("Session-Expires", f"{self.interval};refresher={who}"))
            headers.append(("Min-SE", str(self.smallest)))
        return headers

    def answered(self, response: Response, now: float) -> None:
        """Take the 2xx to our own request."""
        found = read_expires(response)
        if found is None:
            self.interval = 0  # the other side keeps no timer (7.2)
            return
        interval, refresher = found
        self.interval = max(interval, SMALLEST)
        self.is_ours = refresher != "uas"
        self.refreshed = now

    def too_small(self, response: Response) -> bool:
        """Take a 422; return whether to ask again."""
        smallest = _smallest_of(response)
        if not self.interval or smallest <= self.smallest:
            return False
        self.smallest = smallest
        self.interval = max(self.interval, smallest)
        return True

    @staticmethod
    def is_refused(request: Request) -> bool:
        """Return whether a request is to be answered 422 (with ``Min-SE``)."""
        found = read_expires(request)
        return found is not None and found[0] < SMALLEST and _supports(request)

    def answer(self, request: Request, now: float) -> list[tuple[str, str]]:
        """Take the other side's INVITE or UPDATE that is being answered 2xx; return the headers of
        the answer (9).
        """
        found = read_expires(request)
        if found is None:
            if not self.interval or not _supports(request):
                self.interval = 0
                return []
            found = (self.interval, "uas" if self.is_ours else "uac")
        interval, refresher = found
        refresher = refresher or ("uac" if _supports(request) else "uas")
        self.interval = max(interval, SMALLEST)
        self.is_ours = refresher == "uas"
        self.refreshed = now
        headers = [("Session-Expires", f"{self.interval};refresher={refresher}")]
        if refresher == "uac":
            headers.append(("Require", "timer"))
        return headers

    def refresh_due(self) -> float | None:
        """Return when we refresh: half the interval after the last time (7.2)."""
        return self.refreshed + self.interval / 2 if self.interval and self.is_ours else None

    def end_due(self) -> float | None:
        """Return when the session is given up with a BYE (10)."""
        if not self.interval:
            return None
        return self.refreshed + self.interval - min(32.0, self.interval / 3)

    def to_json(self) -> dict[str, Any]:
        """Return the timer as it is kept. Its clock has to go on while its user is away."""
        return asdict(self)


def session_timer_from_json(raw: Mapping[str, Any], now: float) -> SessionTimer:
    """Return a kept timer; raise ``ValueError``, ``KeyError`` or ``TypeError`` otherwise."""
    return SessionTimer(
        interval=int(raw["interval"]),
        is_ours=bool(raw["is_ours"]),
        refreshed=min(now, float(raw["refreshed"])),
        smallest=int(raw["smallest"]),
    )
