"""Pure decisions about links: which of two with the same peer stays, when to dial, how to wait."""

from __future__ import annotations

from collections.abc import Callable

from controlone_ha.peers.facts import Established

BACKOFF_START = 0.2
BACKOFF_MAX = 10.0
STABLE = 5.0
"""A link that lived this long, in seconds, is dialed anew at once; a shorter one after a wait."""
KEY_REJECTED_WAIT = 5.0
"""Least wait after the peer's SSH server has rejected our key: OpenSSH 9.8 and later shut out an
address that keeps on failing (PerSourcePenalties, 5 s a failure)."""
DELAY_START = 0.25
DELAY_MAX = 5.0


def newer_stays(current: Established, new: Established) -> bool:
    """Tell whether ``new`` replaces ``current``, both links with the same peer.

    Both ends see the same facts and so keep the same link, whatever the order in which two
    simultaneous dials complete: the link dialed by the lower name. A newer link of the same dialer
    replaces its older one, and a link is given up at once when the peer has started anew since, or
    says that it has seen it end.
    """
    if current.instance != new.instance or new.ended == current.link_id:
        return True
    if current.dialer == new.dialer:
        return True
    return new.dialer < current.dialer


def first_wait(own_name: str, peer: str) -> float:
    """Return how long to wait for the peer's dial before dialing: the lower name does not wait."""
    return 0.0 if own_name < peer else 1.5 * BACKOFF_START


class Backoff:
    """Growing, jittered waits between dials: 0.2 s, doubling to 10 s, each times 0.75 to 1.25."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._tries = 0

    def next(self) -> float:
        """Return the seconds to wait now."""
        base = min(BACKOFF_START * 2.0 ** min(self._tries, 16), BACKOFF_MAX)
        self._tries += 1
        return base * (0.75 + 0.5 * self._random())

    def reset(self) -> None:
        """Begin anew after a success."""
        self._tries = 0


class Slowdown:
    """Slows whoever proves wrong secrets: one try a slot, the slots growing with each failure."""

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}
        self._next: dict[str, float] = {}

    def wait(self, peer: str, now: float) -> float:
        """Return the seconds that a try of ``peer`` has to wait; claims the slot."""
        failures = self._failures.get(peer, 0)
        if not failures:
            return 0.0
        delay = min(DELAY_START * 2.0 ** min(failures - 1, 16), DELAY_MAX)
        at = max(now, self._next.get(peer, 0.0)) + delay
        self._next[peer] = at
        return at - now

    def failed(self, peer: str) -> int:
        """Note a wrong secret of ``peer``; return how many it has shown in a row."""
        self._failures[peer] = self._failures.get(peer, 0) + 1
        return self._failures[peer]

    def succeeded(self, peer: str) -> None:
        """Forget the failures of ``peer``."""
        self._failures.pop(peer, None)
        self._next.pop(peer, None)
