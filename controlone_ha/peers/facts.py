"""What both ends of a link know before the handshake and after it, and how one is refused."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from controlone_ha.errors import PeerError
from controlone_ha.peers.frames import Kind, encode_json

REFUSAL_CODES = frozenset(
    {
        "wrong_secret",
        "unknown_key",
        "unknown_host_key",
        "unknown_node",
        "version",
        "busy",
        "protocol",
        "stopping",
    }
)
VERSIONS = (1, 1)
"""Lowest and highest version of the link protocol that this release speaks."""


class Refusal(PeerError):
    """One end refuses the other. ``by_peer``: the peer said so, and knows."""

    def __init__(self, code: str, sentence: str, *, by_peer: bool = False) -> None:
        super().__init__(sentence)
        self.code = code
        self.by_peer = by_peer

    def frame(self) -> bytes:
        """Return the REFUSED frame that tells the other end."""
        return encode_json(Kind.REFUSED, {"code": self.code, "sentence": str(self)[:1000]})


@dataclass(frozen=True, kw_only=True)
class OwnFacts:
    """What this node says of itself."""

    name: str
    key_fingerprint: str
    host_keys: tuple[str, ...]
    """Fingerprints of the host keys of its SSH server; empty if it could not learn them."""
    instance: str
    """Random, new at every start of the daemon: tells a restarted peer from its earlier life."""
    release: str = ""
    versions: tuple[int, int] = VERSIONS


@dataclass(frozen=True, kw_only=True)
class PinnedFacts:
    """What is pinned of the peer."""

    name: str
    key_fingerprint: str
    host_keys: tuple[str, ...]
    other_key: str = ""
    """Fingerprint of the second key that counts while the peer changes its key."""


@dataclass(frozen=True, kw_only=True)
class Established:
    """The outcome both ends share: see ``link_id``."""

    peer: str
    dialer: str
    version: int
    link_id: str
    """The same on both sides, different for every link."""
    key: str
    """Fingerprint of the key that is pinned of the peer, and that it has proven."""
    instance: str
    """The peer's ``OwnFacts.instance``."""
    ended: str
    """``link_id`` of the last link with the acceptor that the dialer has seen end, or empty."""
    release: str
    secret_id: str = ""
    """Which link key has proven it (``key_id``): during a change of the secret there are two."""


def key_id(link_key: bytes) -> str:
    """Return a name for a link key, for comparing only: it never leaves the process."""
    return hashlib.sha256(b"link key id\0" + link_key).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Step:
    """What to send now, and the outcome once there is one."""

    send: bytes = b""
    established: Established | None = None
