"""What is known of each peer's link while it is not up, logged once until it changes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from controlone_ha.peers.facts import Refusal
from controlone_ha.peers.model import LinkDown, LinkStatus

REFUSALS = frozenset(
    {
        "wrong_secret",
        "unknown_key",
        "unknown_host_key",
        "unknown_node",
        "version",
        "protocol",
        "trust",
        "refused",
    }
)
# A refusal is the better explanation when tries in the other direction merely fail.
REFUSAL_HOLDS = 30.0
MAX_PEERS = 256
MAX_SAID = 32
MAX_CONFLICTS = 64

log = logging.getLogger(__name__)


class Notes:
    """Per peer: the last state, and the sentences already logged since its link was last up."""

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        *,
        on_refused: Callable[[str, str, str], None] = lambda _peer, _code, _sentence: None,
    ) -> None:
        self._now = now
        self._on_refused = on_refused
        self._status: dict[str, LinkStatus] = {}
        self._noted_at: dict[str, float] = {}
        self._said: dict[str, set[tuple[str, str]]] = {}
        self._conflicts: dict[str, str] = {}

    def status(self, peer: str) -> LinkStatus:
        """Return the note of ``peer``."""
        return self._status.get(peer, LinkStatus(state="connecting"))

    def connecting(self, peer: str) -> None:
        """Note that dialing begins; a known cause is kept, because it is not refuted yet."""
        if peer not in self._status or self._status[peer].state == "unpaired":
            self._set(peer, LinkStatus(state="connecting"))

    def unpaired(self, peer: str, expelled: str = "") -> None:
        """Note that no key is pinned for ``peer``; ``expelled``: when and why it was expelled."""
        code = "expelled" if expelled else "unpaired"
        sentence = expelled or f"{peer} is not paired with this node; run `ha pair {peer}`"
        self._set(peer, LinkStatus(state="unpaired", code=code, sentence=sentence))
        self._say(peer, code, sentence, logging.WARNING)

    def refused(self, peer: str, refusal: Refusal) -> None:
        """Note why a try failed."""
        sentence = str(refusal)
        is_refusal = refusal.code in REFUSALS
        present = self._status.get(peer)
        hidden = (
            not is_refusal
            and present is not None
            and present.state == "refused"
            and self._now() - self._noted_at.get(peer, 0.0) < REFUSAL_HOLDS
        )
        if not hidden:
            state = "refused" if is_refusal else "down"
            self._set(peer, LinkStatus(state=state, code=refusal.code, sentence=sentence))
        self._say(peer, refusal.code, sentence, logging.WARNING if is_refusal else logging.INFO)

    def guessed(self, peer: str, sentence: str) -> None:
        """Tell the audit of a peer that keeps showing wrong secrets."""
        self._on_refused(peer, "wrong_secret", sentence)

    def lost(self, peer: str, cause: LinkDown) -> None:
        """Note that an established link ended."""
        state = "refused" if cause.code == "refused" else "down"
        self._set(peer, LinkStatus(state=state, code=cause.code, sentence=cause.sentence))
        log.warning("link with %s is down: %s", peer, cause.sentence)

    def up(self, peer: str, direction: str) -> None:
        """Forget what was noted: the link is up."""
        self._status.pop(peer, None)
        self._said.pop(peer, None)
        log.info("link with %s is up (%s)", peer, direction)

    def conflict(self, name: str, sentence: str) -> None:
        """Note a contradiction about the keys of node ``name``, once."""
        if sentence not in self._conflicts and len(self._conflicts) < MAX_CONFLICTS:
            self._conflicts[sentence] = name
            log.warning("%s", sentence)

    def settled(self, name: str) -> None:
        """Forget the contradictions about ``name``: what is pinned of it has changed."""
        self._conflicts = {text: about for text, about in self._conflicts.items() if about != name}

    def conflicts(self) -> Sequence[str]:
        """Return the contradictions noted."""
        return tuple(self._conflicts)

    def _set(self, peer: str, status: LinkStatus) -> None:
        if peer not in self._status and len(self._status) >= MAX_PEERS:
            return
        present = self._status.get(peer)
        same = present is not None and (present.state, present.code) == (status.state, status.code)
        since = present.since if same and present is not None else self._now()
        self._status[peer] = replace(status, since=since)
        self._noted_at[peer] = self._now()

    def _say(self, peer: str, code: str, sentence: str, level: int) -> None:
        said = self._said.setdefault(peer, set()) if len(self._said) < MAX_PEERS else set()
        # Both ends dial, and each tells the other: the same reason comes from here and from there.
        reason = (code, sentence.removeprefix(f"{peer} refuses: "))
        if reason in said or len(said) >= MAX_SAID:
            return
        said.add(reason)
        log.log(level, "no link with %s: %s", peer, sentence)
        if code in REFUSALS:
            self._on_refused(peer, code, sentence)
