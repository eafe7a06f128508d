"""What the synchroniser is told, as JSON over its standard input. No driver is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from controlone_ha.probes.database import DatabaseTarget, target_from_json

USER = "controlone-ha"
"""The user as which nodes read each other's databases; its password comes from the secret."""

OWN_USER = "controlone-ha-local"
"""The user as which a node's synchroniser works on its own database."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Who we are, whom to read, what, and within which limits. Times in seconds."""

    node: str
    own: DatabaseTarget
    peers: Mapping[str, DatabaseTarget] = field(default_factory=dict)
    listed: tuple[str, ...] | None = None
    """Whom this node's list of peers names, as the others may read it; None: everybody."""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    urgent: tuple[str, ...] = ()
    allowed_skew: float = 5.0
    horizon: float = 30 * 86400.0
    full_sync: float = 3600.0
    drop_database: bool = False
    reader_password: str = field(default="", repr=False)
    """Password of ``USER`` on this node: what peers log in with."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name; carries passwords."""
        return {
            **{name: getattr(self, name) for name in self.__dataclass_fields__},
            "own": self.own.to_json(),
            "peers": {name: target.to_json() for name, target in self.peers.items()},
            "listed": None if self.listed is None else list(self.listed),
            "include": list(self.include),
            "exclude": list(self.exclude),
            "urgent": list(self.urgent),
        }


def settings_from_json(raw: Mapping[str, Any]) -> Settings:
    """Return the settings that ``to_json`` made; raises ``TypeError`` for other fields."""
    return Settings(
        **{
            **raw,
            "own": target_from_json(raw["own"]),
            "peers": {name: target_from_json(item) for name, item in raw["peers"].items()},
            "listed": None if raw["listed"] is None else tuple(raw["listed"]),
            "include": tuple(raw["include"]),
            "exclude": tuple(raw["exclude"]),
            "urgent": tuple(raw["urgent"]),
        }
    )
