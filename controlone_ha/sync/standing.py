"""How an item stands with a peer, and the notes of it in the journal."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from controlone_ha.sync.engine import Engine

WITHIN: Final = 0.25
"""Seconds until a standing that has changed is in the journal."""


@dataclass(kw_only=True)
class Standing:
    """``state``: ``in sync``, ``pending`` or ``held``; ``since`` and ``confirmed`` (last found so)
    in seconds of the wall clock; ``text`` says what is waited for, or why it is held.
    """

    state: str
    since: float | None = None
    confirmed: float | None = None
    text: str = ""


class Notes:
    """Brings standings to the journal by and by: a change that goes out does not wait for that."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._unwritten: set[tuple[str, str]] = set()
        self._task: asyncio.Task[None] | None = None

    def need(self, peer: str, item: str) -> None:
        """Have the standing of an item with a peer written soon."""
        self._unwritten.add((peer, item))
        if self._task is None or self._task.done():
            self._task = self._engine.spawn(self._write_soon())

    async def _write_soon(self) -> None:
        await asyncio.sleep(WITHIN)
        await self._engine.work(self.write)

    def write(self) -> None:
        """Write what is not written. In the worker."""
        while self._unwritten:
            key = self._unwritten.pop()
            found = self._engine.standings[key]
            self._engine.replica.journal.note_peer(*key, found.state, found.since, found.text)
