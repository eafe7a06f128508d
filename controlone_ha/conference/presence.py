"""Which consoles are connected here, told by the Console Server over ``conference.sock``. Pure.

A source (one connection of a Console Server) owns what it told; when it goes, its consoles go.
Until a source has told its complete list, nothing is known: that counts as unsettled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Console:
    """A connected console: its queues and the SIP address of its phone ("" : it has none)."""

    name: str
    queues: frozenset[str] = frozenset()
    sip: str = ""


class Presence:
    """The consoles of all sources."""

    def __init__(self) -> None:
        self._by_source: dict[int, dict[str, Console]] = {}

    def replace(self, source: int, consoles: Iterable[Console]) -> None:
        """Take the complete list of a source."""
        self._by_source[source] = {console.name: console for console in consoles}

    def update(self, source: int, console: Console) -> None:
        """Add a console, or change it."""
        self._by_source.setdefault(source, {})[console.name] = console

    def remove(self, source: int, name: str) -> None:
        """A console has gone."""
        self._by_source.get(source, {}).pop(name, None)

    def forget(self, source: int) -> bool:
        """A source has gone; return whether it was one."""
        return self._by_source.pop(source, None) is not None

    @property
    def is_told(self) -> bool:
        """True while at least one source has told its consoles."""
        return bool(self._by_source)

    def get(self, name: str) -> Console | None:
        """Return a connected console."""
        for consoles in self._by_source.values():
            if name in consoles:
                return consoles[name]
        return None

    def of_queue(self, number: str) -> Mapping[str, Console]:
        """Return the consoles that monitor a queue and can be called, by name."""
        return {
            console.name: console
            for consoles in self._by_source.values()
            for console in consoles.values()
            if number in console.queues and console.sip
        }

    def __len__(self) -> int:
        return sum(len(consoles) for consoles in self._by_source.values())
