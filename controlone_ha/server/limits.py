"""What one connection, and all of them together, may cost the Console Server.

Plain numbers, in one place, shown in docs/console-protocol.md. They bound memory (connections ×
unsent bytes), time (deadlines) and processor (messages a second); none is a matter of taste of a
site except the number of consoles, which comes from the settings.
"""

from __future__ import annotations

from dataclasses import dataclass

PROTOCOL = 1
"""Version of the console protocol spoken here."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of the protocol core and of the shell around it; seconds, bytes and counts."""

    max_consoles: int = 4096
    """Logged-in sessions; one more is refused with the code ``full``."""
    max_anonymous: int = 512
    """Connections not logged in; one more pushes out the one that has been silent longest."""
    login_timeout: float = 10.0
    """A connection not logged in that sends no complete message for so long is closed."""
    max_line: int = 64 * 1024
    """Longest message of a console, newline included."""
    max_faults: int = 10
    """Messages that are no valid request before the connection is closed."""
    messages_per_second: float = 100.0
    """Sustained rate of one connection."""
    message_burst: float = 1000.0
    """Messages a connection may send at once after a silence."""
    max_unsent: int = 256 * 1024
    """Bytes waiting for a console that does not read; past that only this console is dropped."""
    stall_timeout: float = 10.0
    """A console that reads nothing of what waits for it for so long is dropped."""
    close_timeout: float = 1.0
    """Time a connection closed in order gets to take its last bytes."""

    @property
    def max_connections(self) -> int:
        """Connections of both kinds."""
        return self.max_consoles + self.max_anonymous
