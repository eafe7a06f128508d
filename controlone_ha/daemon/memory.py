"""What `ha` remembers over restarts and reboots, as one small JSON file, replaced whole.

A file that cannot be read is set aside under ``…unreadable`` and said so: starting with empty
memory is better than not starting, but nothing is silently thrown away.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from controlone_ha.core.effects import KnownPeer, Remembered
from controlone_ha.core.model import Role, State
from controlone_ha.core.reasons import reason, reason_from_json
from controlone_ha.peers.files import private_directory, write_atomically

log = logging.getLogger("memory")


class Memory:
    """``state.json`` of this node. ``incarnation`` counts the starts of `ha` on this node;
    ``since`` (wall clock, 0: unknown) is when the remembered state began.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.incarnation = 0
        self.since = 0.0
        self.remembered = Remembered()

    def load(self) -> Remembered:
        """Read what was remembered and count this start."""
        raw: dict[str, Any] = {}
        try:
            raw = json.loads(self.path.read_bytes())
            self.remembered = _from_json(raw)
        except FileNotFoundError:
            pass
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            aside = self.path.with_suffix(".unreadable")
            self.path.replace(aside)
            log.error("%s: %s; kept as %s, starting without memory", self.path, error, aside)
            raw = {}
        count = raw.get("incarnation") if isinstance(raw, dict) else 0
        self.incarnation = (count if isinstance(count, int) else 0) + 1
        since = raw.get("since") if isinstance(raw, dict) else 0.0
        self.since = float(since) if isinstance(since, int | float) else 0.0
        try:
            self.save(self.remembered)
        except OSError as error:
            # A full disk is the host check's story; it must not keep the watchdog from starting.
            log.error("cannot write %s: %s; going on from memory", self.path, error)
        return self.remembered

    def save(self, remembered: Remembered) -> None:
        """Write to stable storage; raise ``OSError`` when that is impossible."""
        self.remembered = remembered
        raw = {
            "incarnation": self.incarnation,
            "forced": remembered.forced,
            "forced_by": remembered.forced_by,
            "paused_by": remembered.paused_by,
            "known": sorted(remembered.known),
            "peers": {
                peer.name: {"role": peer.role.value, "state": peer.state.value, "site": peer.site}
                for peer in sorted(remembered.peers, key=lambda peer: peer.name)
            },
            "state": remembered.state.value,
            "since": self.since,
            "reason": remembered.reason.to_json(),
            "covering": sorted(remembered.covering),
            "cause": remembered.cause.to_json() if remembered.cause else None,
        }
        private_directory(self.path.parent)
        write_atomically(self.path, json.dumps(raw, indent=1).encode() + b"\n", mode=0o600)


def _from_json(raw: dict[str, Any]) -> Remembered:
    cause = raw.get("cause")
    return Remembered(
        forced=str(raw.get("forced", "")),
        forced_by=str(raw.get("forced_by", "")),
        paused_by=str(raw.get("paused_by", "")),
        known=frozenset(str(name) for name in raw.get("known", ())),
        peers=frozenset(
            KnownPeer(
                name=str(name),
                role=Role(peer["role"]),
                state=State(peer["state"]),
                site=str(peer.get("site", "")),
            )
            for name, peer in raw.get("peers", {}).items()
        ),
        state=State(raw.get("state", State.STARTING.value)),
        reason=reason_from_json(raw["reason"]) if raw.get("reason") else reason("starting"),
        covering=frozenset(str(name) for name in raw.get("covering", ())),
        cause=reason_from_json(cause) if cause else None,
    )
