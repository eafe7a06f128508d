"""What the operator's rooms (orders, checks) may see and ask of the daemon: a contract, no code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from controlone_ha.config.settings import (
        ConferenceSettings,
        HaSettings,
        PeerSettings,
        ServerSettings,
    )
    from controlone_ha.core.observations import ProbeResult
    from controlone_ha.daemon.auditing import Auditing
    from controlone_ha.daemon.calls import LiveCalls
    from controlone_ha.daemon.database import DatabaseItem
    from controlone_ha.daemon.licensing import Licensing
    from controlone_ha.daemon.shell import Shell
    from controlone_ha.paths import NodePaths
    from controlone_ha.peers.links import PeerLinks
    from controlone_ha.peers.trust import TrustStore
    from controlone_ha.sync.engine import Engine

Json = dict[str, Any]


class DaemonView(Protocol):
    """The daemon as its neighbours see it. ``slot``: seconds between two ranks."""

    paths: NodePaths
    settings: HaSettings
    server_settings: ServerSettings
    conference_settings: ConferenceSettings
    shell: Shell
    links: PeerLinks
    trust: TrustStore
    sync: Engine
    calls: LiveCalls
    database: DatabaseItem
    licensing: Licensing
    auditing: Auditing
    slot: float
    paused: Json | None

    def own_key(self) -> str:
        """Return the fingerprint of this node's key, empty while it starts."""

    def status(self) -> Json:
        """Return the status of the node."""

    def has_taker(self) -> bool:
        """Tell whether a linked peer could take over from this node now."""

    def record(self, entry: Json) -> None:
        """Add to the history and tell the subscribers."""

    def database_row(self) -> Json:
        """Return the database's row of the status."""

    def addresses(self) -> dict[str, str]:
        """Return where each peer is reached, by the node's name."""

    def link_rows(self) -> list[Json]:
        """Return every link."""

    def node_name_of(self, peer: PeerSettings) -> str:
        """Return the node's name behind an entry of the peers list."""

    async def read_history(
        self,
        limit: int,
        kind: str | None = None,
        peer: str | None = None,
        since: float | None = None,
        who: str | None = None,
        node: str | None = None,
    ) -> list[Json]:
        """Return the newest entries."""

    async def probe_now(self, peer: str) -> Sequence[ProbeResult]:
        """Probe both services of a peer once."""

    async def call_now(self, peer: str) -> ProbeResult:
        """Call a peer's Conference Server; raise ``DeepProbeError`` when that cannot be done."""

    async def check(self) -> list[Json]:
        """Return everything that is wrong, with remedies."""

    async def reload(self) -> Json:
        """Read the configuration again."""

    async def trust_changed(self) -> Json:
        """Take new pins over at once."""
