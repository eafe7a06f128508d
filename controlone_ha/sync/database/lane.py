"""One lane of the stamped history: its last writes, how far it is announced, who waits for it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bson.raw_bson import RawBSONDocument

from controlone_ha.sync.database.namespaces import BULK, CONFLICTS, URGENT
from controlone_ha.sync.database.versions import Order, Row

_RECENT = 50_000
_AT_HAND = 2_000
"""Rows of the last writes kept whole: a document that changes often is not looked up each time."""
LANE_FIELDS = {BULK: "q", URGENT: "u"}
COPIES_WAIT = 0.03
"""Seconds until peers are told of rows that came from others: they have them from those."""
INLINE_ROWS = 16
INLINE_BYTES = 256 * 1024


class Lane:
    """One sequence of row writes. Hold ``lock`` to write rows."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.field = LANE_FIELDS[name]
        self.lock = threading.Lock()
        self.sequence = 0
        self._changed = threading.Condition()
        self._recent: OrderedDict[bytes, Order] = OrderedDict()
        self._at_hand: OrderedDict[bytes, Row] = OrderedDict()
        self._heads = threading.Lock()
        self._waiting_head: dict[str, Any] | None = None
        self._has_head = threading.Event()
        self.pending_head: dict[str, Any] | None = None
        """The head that belongs to a transaction, published once that is committed."""
        self.publish: Callable[[dict[str, Any], bool], object] = lambda *_: None

    def wrote(self, rows: Iterable[Row], sequence: int, *, are_own: bool = True) -> None:
        """Note that these rows are in the database, up to this number.

        Peers have the copies of other nodes' rows (not ``are_own``) from those: their head is
        published by and by, by ``publish_waiting``, or with the next of this node's own.
        """
        for row in rows:
            self._recent[row.key] = row.order
            self._recent.move_to_end(row.key)
            self._at_hand.pop(row.key, None)
            # Those of conflicts are written in both lanes, so neither may vouch for them.
            if row.namespace != CONFLICTS:
                self._at_hand[row.key] = row
        while len(self._recent) > _RECENT:
            self._recent.popitem(last=False)
        while len(self._at_hand) > _AT_HAND:
            self._at_hand.popitem(last=False)
        with self._changed:
            self.sequence = sequence
            self._changed.notify_all()
        head, self.pending_head = self.pending_head, None
        if head is None:
            return
        with self._heads:
            if self._waiting_head is not None:
                head = joined_heads(self._waiting_head, head)
            self._waiting_head = None if are_own else head
            if are_own:
                self.publish(head, True)
            else:
                self._has_head.set()

    def announce(self, head: dict[str, Any]) -> None:
        """Publish a head in place of any that waits."""
        with self._heads:
            self._waiting_head = None
            self.publish(head, True)

    def publish_waiting(self, seconds: float) -> None:
        """Wait for a head of copies, and a little longer for more of them, and publish it."""
        if not self._has_head.wait(seconds):
            return
        time.sleep(COPIES_WAIT)
        with self._heads:
            self._has_head.clear()
            head, self._waiting_head = self._waiting_head, None
            if head is not None:
                self.publish(head, False)

    def has_recently(self, row: Row) -> bool:
        """Tell whether this very version was written here a while ago and is still the last."""
        return self._recent.get(row.key) == row.order

    def is_recent(self, key: bytes) -> bool:
        """Tell whether the row of this key was written here a while ago."""
        return key in self._recent

    def at_hand(self, keys: Iterable[bytes]) -> dict[bytes, Row]:
        """Return those rows, by key, that need not be looked up. Hold ``lock``."""
        return {key: self._at_hand[key] for key in keys if key in self._at_hand}

    def forget_recent(self) -> None:
        """Forget what was written: rows go. Hold ``lock`` from before they do."""
        self._recent.clear()
        self._at_hand.clear()

    def wait(self, sequence: int, seconds: float) -> None:
        """Wait until something was written after ``sequence``."""
        with self._changed:
            if self.sequence == sequence:
                self._changed.wait(seconds)


def joined_heads(first: Mapping[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Return ``second`` with the rows of ``first``, which comes right before it, if they fit."""
    rows = [*first.get("rows", ()), *second.get("rows", ())]
    if not (first.get("rows") and second.get("rows")) or len(rows) > INLINE_ROWS:
        return second
    documents: list[RawBSONDocument | None] = []
    for head in (first, second):
        documents += head.get("documents") or [None] * len(head["rows"])
    if sum(len(item.raw) for item in documents if item is not None) >= INLINE_BYTES:
        return second
    is_new = bool(first.get("new") and second.get("new"))
    return {**second, "rows": rows, "documents": documents, "new": is_new}
