"""Consoles that ask to be enrolled and wait for a person. Pure; times are monotonic seconds."""

from __future__ import annotations

from dataclasses import dataclass

MAX_PENDING = 64
MAX_OF_ADDRESS = 8
PATIENCE = 900.0


@dataclass(slots=True)
class Pending:
    """One request; ``asked``: when it was repeated last."""

    console: str
    verifier: str
    address: str
    software: str
    since: float
    asked: float


class PendingTable:
    """The requests, one a console name and verifier. Bounded, so that nobody fills the memory."""

    def __init__(self) -> None:
        self._items: dict[tuple[str, str], Pending] = {}

    def ask(
        self, console: str, verifier: str, address: str, software: str, now: float
    ) -> Pending | None:
        """Return the request, noted anew if it was not known; None when there is no room."""
        self.expire(now)
        item = self._items.get((console, verifier))
        if item is None:
            of_address = sum(other.address == address for other in self._items.values())
            if len(self._items) >= MAX_PENDING or of_address >= MAX_OF_ADDRESS:
                return None
            item = Pending(console, verifier, address, software, now, now)
            self._items[(console, verifier)] = item
        item.asked = now
        return item

    def of(self, console: str) -> list[Pending]:
        """Return the requests under one name: more than one means that somebody else asks, too."""
        return [item for item in self._items.values() if item.console == console]

    def all(self) -> list[Pending]:
        """Return every request, oldest first."""
        return list(self._items.values())

    def settle(self, console: str) -> None:
        """Forget what was asked under this name."""
        for key in [key for key in self._items if key[0] == console]:
            del self._items[key]

    def expire(self, now: float) -> None:
        """Forget who has ceased to ask."""
        for key in [key for key, item in self._items.items() if now - item.asked > PATIENCE]:
            del self._items[key]
