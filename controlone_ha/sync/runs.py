"""Full synchronisations that a person asked for (`ha sync`), and how far each one is."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from controlone_ha.errors import RefusedError

if TYPE_CHECKING:
    from controlone_ha.sync.engine import Engine
    from controlone_ha.sync.session import Session

Json = dict[str, Any]

KEPT: Final = 8


class Run:
    """One full synchronisation with every peer of the node."""

    def __init__(self, engine: Engine, items: list[str]) -> None:
        self.items = items
        self.is_done = False
        self.scanning = True
        self._engine = engine
        self._begun = time.monotonic()
        self._seconds: float | None = None
        self._errors: dict[str, str] = {}
        self._finished: set[str] = set()
        self._before: dict[str, tuple[Session, tuple[int, int, int, int]]] = {}

    async def work(self) -> None:
        """Scan, then compare every item with every peer; one that fails does not stop others."""
        engine = self._engine
        try:
            for name in self.items:
                await engine.scan(name)
            self.scanning = False
            await asyncio.gather(*(self._with(peer) for peer in sorted(engine.settings.peers)))
        finally:
            self.is_done = True
            self._seconds = time.monotonic() - self._begun

    async def _with(self, peer: str) -> None:
        session = self._engine.sessions.get(peer)
        if session is None:
            self._errors[peer] = "no link"
        else:
            self._before[peer] = (session, _counters(session))
            problems = [await self._engine.compare(session, name) for name in self.items]
            self._errors[peer] = "; ".join(problem for problem in problems if problem)
        self._finished.add(peer)

    def to_json(self) -> Json:
        """Return how far it is; bytes count both directions."""
        seconds = self._seconds
        return {
            "done": self.is_done,
            "scanning": self.scanning,
            "items": self.items,
            "seconds": time.monotonic() - self._begun if seconds is None else seconds,
            "peers": [self._row(peer) for peer in sorted(self._engine.settings.peers)],
        }

    def _row(self, peer: str) -> Json:
        counts = [0, 0, 0, 0]
        if peer in self._before:
            session, before = self._before[peer]
            counts = [now - then for now, then in zip(_counters(session), before, strict=True)]
        return {
            "peer": peer,
            "done": peer in self._finished,
            "error": self._errors.get(peer, ""),
            "files": counts[0],
            "files_total": max(counts[0], counts[1]),
            "bytes": counts[2],
            "bytes_total": max(counts[2], counts[3]),
        }


def _counters(session: Session) -> tuple[int, int, int, int]:
    return (session.files_done, session.files_wanted, session.bytes_done, session.bytes_wanted)


class Runs:
    """The runs of this daemon, the last few kept for whoever asks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._runs: dict[int, Run] = {}
        self._last = 0

    def begin(self, item: str | None) -> Json:
        """Begin a run for one item or all; raise ``RefusedError`` for an unknown one."""
        known = list(self._engine.items)
        if item is not None and item not in known:
            raise RefusedError(
                f"{item!r} is no item that this node synchronises; there are: {', '.join(known)}"
            )
        self._last += 1
        run = self._runs[self._last] = Run(self._engine, [item] if item else known)
        self._engine.spawn(run.work())
        for number in list(self._runs)[:-KEPT]:
            del self._runs[number]
        return {"run": self._last, **run.to_json()}

    def progress(self, number: int) -> Json:
        """Return how far a run is; raise ``RefusedError`` when it is forgotten."""
        run = self._runs.get(number)
        if run is None:
            raise RefusedError(f"there is no synchronisation {number}; `ha` may have restarted")
        return {"run": number, **run.to_json()}
