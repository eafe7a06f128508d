"""The vocabulary of the protocol core: sessions, effects, and who may log in.

Effects come out of the core in the order in which they must be done; see ``core``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from controlone_ha.server.login import Login

JsonObject = dict[str, Any]


class Access(Protocol):
    """Who may log in, and what the cluster's servers are known by."""

    def refusal_of(self, name: str, token: str | None) -> tuple[str, str] | None: ...

    def verifier(self, name: str) -> str | None: ...

    def pins(self) -> list[tuple[str, str]]: ...

    def is_expelled(self, address: str) -> bool: ...


class OpenAccess:
    """Lets everybody in and knows nobody: for a machine without a book."""

    def refusal_of(self, name: str, token: str | None) -> tuple[str, str] | None:
        """Refuse nobody."""
        return None

    def verifier(self, name: str) -> str | None:
        """Nobody is enrolled."""
        return None

    def pins(self) -> list[tuple[str, str]]:
        """No server is introduced."""
        return []

    def is_expelled(self, address: str) -> bool:
        """Nobody is expelled."""
        return False


@dataclass(frozen=True, slots=True)
class Send:
    """Send ``line`` to a session."""

    session: int
    line: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """Close a session after what has been sent to it is out."""

    session: int
    cause: str


@dataclass(frozen=True, slots=True)
class Note:
    """Say ``text`` in the log: a transition, not a heartbeat."""

    text: str


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell who listens on the control socket: ``presence`` and ``lost``."""

    method: str
    params: JsonObject


@dataclass(frozen=True, slots=True)
class Record:
    """Add an entry to the record of sessions."""

    entry: JsonObject


@dataclass(frozen=True, slots=True)
class Ask:
    """Have a request answered that is not the core's: about calls, or of a node."""

    session: int
    id: int | str | None
    method: str
    params: JsonObject
    login: Login | None


Effect = Send | Close | Note | Tell | Record | Ask


@dataclass(slots=True)
class Session:
    """One connection; owned by ``ConsoleServer``."""

    number: int
    address: str
    updated: float
    allowance: float
    buffer: bytearray = field(default_factory=bytearray)
    faults: int = 0
    login: Login | None = None
    closed: bool = False
    since: float = 0.0
    verifier: str | None = None
    told_lost: bool = False
