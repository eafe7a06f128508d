"""What the core of a node needs of the configuration. Data only."""

from __future__ import annotations

from dataclasses import dataclass, field

from controlone_ha.core.model import Role, Rules
from controlone_ha.core.timing import Timing


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """What the core needs of the configuration. ``monitored``: peer name -> this node covers it.

    ``licences``: how many count (None: none is needed); ``other_masters``: masters of the cluster
    that are not among ``monitored``, as far as known.
    """

    name: str
    role: Role
    monitored: dict[str, bool]
    priority: int = 100
    site: str = ""
    timing: Timing = field(default_factory=Timing)
    rules: Rules = field(default_factory=Rules)
    is_licensed: bool = True
    licences: int | None = None
    other_masters: frozenset[str] = frozenset()
    version: str = ""
