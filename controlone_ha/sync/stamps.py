"""Stamps of a hybrid logical clock: which of two edits anywhere in the cluster was the later one.

A stamp is wall clock (microseconds), a count for edits within one microsecond or while the clock
stands behind what was seen, and the node, which breaks ties. Pure; the wall clock is an argument.

A node issues stamps in growing order only, restarts included: its clock is started with the
highest stamp it ever issued or took note of. A node that was restored from an old image, and may
have forgotten some, stamps under a new name (``node#2``): what it does then is never taken for
something that followed what it has forgotten.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from controlone_ha.errors import RefusedError

_TEXT: Final = re.compile(r"([0-9]{1,18})\.([0-9]{1,9})@([!-~]{1,80})", re.ASCII)


class FutureStamp(RefusedError):
    """A stamp lies further in the future than clocks may differ.

    ``stamp`` is the stamp, ``ahead_us`` how far it lies ahead, both for the sentence and for the
    person who looks for the clock that is wrong.
    """

    code = "future_stamp"

    def __init__(self, stamp: Stamp, ahead_us: int) -> None:
        super().__init__(
            f"stamped {ahead_us / 1e6:.1f} s in the future by {stamp.node}"
            f" ({stamp.text()}): a clock is wrong"
        )
        self.stamp = stamp
        self.ahead_us = ahead_us


@dataclass(frozen=True, order=True, slots=True)
class Stamp:
    """Ordered by wall clock, count and node."""

    wall_us: int
    count: int
    node: str

    def text(self) -> str:
        """Return the stamp as it is kept and sent."""
        return f"{self.wall_us}.{self.count}@{self.node}"

    @classmethod
    def parse(cls, text: str) -> Stamp:
        """Return the stamp of a text; raise ``ValueError``."""
        found = _TEXT.fullmatch(text)
        if found is None:
            raise ValueError(f"{text[:80]!a} is no stamp")
        return cls(int(found[1]), int(found[2]), found[3])


class Clock:
    """The hybrid logical clock of one node; ``highest`` is the latest stamp of an earlier run."""

    def __init__(self, node: str, highest: Stamp | None = None) -> None:
        self.node = node
        self._last = Stamp(0, 0, node)
        if highest is not None:
            self._last = Stamp(highest.wall_us, highest.count, node)

    def next(self, now_us: int) -> Stamp:
        """Return a stamp later than everything issued and seen."""
        if now_us > self._last.wall_us:
            self._last = Stamp(now_us, 0, self.node)
        else:
            self._last = Stamp(self._last.wall_us, self._last.count + 1, self.node)
        return self._last

    def observe(self, stamp: Stamp, now_us: int, allowed_skew_us: int) -> None:
        """Take note of a peer's stamp; raise ``FutureStamp`` when it cannot be right."""
        ahead = stamp.wall_us - now_us
        if ahead > allowed_skew_us:
            raise FutureStamp(stamp, ahead)
        if (stamp.wall_us, stamp.count) > (self._last.wall_us, self._last.count):
            self._last = Stamp(stamp.wall_us, stamp.count, self.node)
