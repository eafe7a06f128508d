"""The words of the link's contract: who to reach, what is known of a link, and how it ends."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from controlone_ha.errors import PeerError

if TYPE_CHECKING:
    from controlone_ha.peers.link import Link

SSH_PORT = 22


@dataclass(frozen=True, kw_only=True)
class PeerAddress:
    """One configured peer. ``name`` may be a node's name or an address, as in ``ha.default.peers``.

    ``host`` None: the addresses pinned of that node, then ``name`` itself. ``port`` None: the port
    pinned, else 22.
    """

    name: str
    host: str | None = None
    port: int | None = None
    user: str = "root"


@dataclass(frozen=True, kw_only=True)
class LinkDown:
    """Why a link ended.

    ``code``: ``closed`` (the peer said goodbye, or its daemon ended while its SSH server lives),
    ``reset`` (the connection broke without a goodbye: process killed, machine gone, RST),
    ``silent`` (no frame within the timeout, or the peer does not read), ``refused`` (the peer broke
    the protocol), ``replaced`` (another link with the same peer took over: no failure).
    """

    code: str
    sentence: str
    goodbye: str = ""
    """The peer's own code when it said goodbye, e.g. ``stopping``; else empty."""


@dataclass(frozen=True, kw_only=True)
class LinkStatus:
    """What an operator is shown of the link with a peer.

    ``state``: ``up``, ``connecting`` (first tries), ``down`` (cannot be reached, no daemon),
    ``refused`` (one end refuses the other), ``unpaired`` (no key pinned under that name). ``code``
    is the last refusal or cause and ``sentence`` says it; both are empty while up. ``since`` is
    in seconds of the monotonic clock.
    """

    state: str
    code: str = ""
    sentence: str = ""
    since: float = 0.0
    direction: str = ""
    rtt_ms: float | None = None
    skew_ms: float | None = None
    release: str = ""


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """An answer with a body, returned by ``LinkHandler.on_request`` for the peer's ``Link.fetch``.

    ``chunks`` are sent as the peer takes them; large ones are cut. An iterator is closed when the
    peer gives up.
    """

    result: Any
    chunks: Iterable[bytes] | AsyncIterable[bytes] = field(default=())


class RemoteError(PeerError):
    """The peer answered a request with an error: ``code`` is its code, ``data`` its data."""

    def __init__(self, code: str, sentence: str, data: Any = None) -> None:
        super().__init__(sentence)
        self.code = code
        self.data = data


class LinkHandler(Protocol):
    """What the owner of the links is told. All but ``on_request`` must return at once."""

    def on_link_up(self, link: Link) -> None:
        """A link is authenticated and usable."""

    def on_link_down(self, peer: str, cause: LinkDown) -> None:
        """The link of ``peer`` ended; after ``replaced``, ``on_link_up`` follows at once."""

    def on_heartbeat(self, peer: str) -> None:
        """Bytes of the peer arrived: it is alive."""

    def on_notify(self, peer: str, method: str, params: dict[str, Any]) -> None:
        """The peer notifies."""

    async def on_request(self, peer: str, method: str, params: dict[str, Any]) -> object:
        """Answer with what JSON can carry, or an ``Outgoing``; a ``ControlOneError`` is told."""
