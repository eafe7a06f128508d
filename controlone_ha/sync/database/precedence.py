"""Urgent writes go first: bulk work of the same process stops for them, and goes in small steps.

Theory of operation. All lanes share one interpreter and two databases. A thread of the urgent lane
says when it has something to do; threads of the bulk lane ask before each step, and wait until it
is done, but not for long, so that a flood of urgent writes does not stop them. A step that has
begun is not interrupted: while urgent writes come, steps are therefore small.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

LONGEST_WAIT = 0.05
"""Seconds for which a step of bulk work is put off."""
RECENT = 3.0
"""Seconds for which steps stay small after an urgent write."""
STEP = 100
STEP_ALONE = 500
"""Documents of a step while urgent writes come, and while none do."""


class Precedence:
    """Shared by all threads of one run."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0
        self._last = -RECENT

    @contextlib.contextmanager
    def urgent(self) -> Iterator[None]:
        """For the time of an urgent piece of work."""
        with self._changed:
            self._count += 1
            self._last = time.monotonic()
        try:
            yield
        finally:
            with self._changed:
                self._count -= 1
                self._last = time.monotonic()
                self._changed.notify_all()

    def give_way(self) -> None:
        """Wait until no urgent work is under way, ``LONGEST_WAIT`` at most."""
        if self._count:
            with self._changed:
                self._changed.wait_for(lambda: self._count == 0, LONGEST_WAIT)

    @property
    def step(self) -> int:
        """How many documents the next step of bulk work may have."""
        return STEP if time.monotonic() - self._last < RECENT else STEP_ALONE
