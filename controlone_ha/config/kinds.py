"""What a row of the schema is made of. No option is listed here: those are in ``schema``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a value may be; ``validate`` holds one parser for each."""

    TEXT = "text"
    SECRET = "secret"
    NAME = "name"
    BOOLEAN = "boolean"
    INTEGER = "integer"
    SECONDS = "seconds"
    PERCENT = "percent"
    NUMBER = "number"
    PORT = "port"
    HOST = "host"
    HOSTS = "hosts"
    NAMES = "names"
    CHOICE = "choice"
    PATH = "path"
    PATHS = "paths"
    PATTERNS = "patterns"


class Scope(StrEnum):
    """Whether peers share the value (cluster) or every node has its own (node)."""

    CLUSTER = "cluster"
    NODE = "node"


@dataclass(frozen=True, kw_only=True)
class OptionRow:
    """One option. ``default`` is UCI text; None means that the option must be given."""

    package: str
    section: str
    name: str
    kind: Kind
    default: str | None
    text: str
    scope: Scope = Scope.CLUSTER
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    unit: str = ""

    @property
    def is_required(self) -> bool:
        """True when there is no default."""
        return self.default is None
