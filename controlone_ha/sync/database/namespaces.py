"""Which collections are synchronised, and in which lane. Pure.

A pattern is a namespace ``database.collection`` in which ``*`` stands for any characters; a word
without a dot means every collection of that database. What belongs to MongoDB or to this product
is never synchronised, whatever the patterns say, except the collection of conflicts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

OWN = "controlone_ha"
CONFLICTS = f"{OWN}.conflicts"
BULK, URGENT = "bulk", "urgent"
LANES = (BULK, URGENT)

_NEVER = ("admin", "config", "local", OWN)


def pattern(text: str) -> str:
    """Return the regular expression (for Python and MongoDB) of one pattern."""
    if "." not in text:
        text += ".*"
    return "^" + ".*".join(re.escape(part) for part in text.split("*")) + "$"


def _any(patterns: Iterable[str]) -> str:
    return "|".join(pattern(item) for item in patterns)


@dataclass(frozen=True, kw_only=True)
class Namespaces:
    """The user's choice: patterns to include (empty: all), to exclude, and those that are urgent.

    ``unfit`` are namespaces that cannot be synchronised (capped, time series), found at run time.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    urgent: tuple[str, ...] = ()

    def is_chosen(self, namespace: str) -> bool:
        """Tell whether documents of this namespace are synchronised."""
        if namespace == CONFLICTS:
            return True
        database, _, collection = namespace.partition(".")
        if database in _NEVER or not collection or collection.startswith("system."):
            return False
        if self.include and not re.search(_any(self.include), namespace):
            return False
        return not (self.exclude and re.search(_any(self.exclude), namespace))

    def lane(self, namespace: str) -> str:
        """Return the lane in which writes to this namespace travel."""
        if namespace != CONFLICTS and self.urgent and re.search(_any(self.urgent), namespace):
            return URGENT
        return BULK

    def lanes(self) -> tuple[str, ...]:
        """Return the lanes that are in use on this node for its own writes."""
        return LANES if self.urgent else (BULK,)

    def match(self, lane: str) -> dict[str, object]:
        """Return the ``$match`` that a change stream needs to see this lane's writes.

        Coarser than ``is_chosen`` and ``lane``, which have the last word: it spares the server's
        processor. Names are compared as they are where possible, as each regular expression costs
        the server more than all the rest that it does for a write.
        """
        if lane == URGENT:
            if not any("*" in text or "." not in text for text in self.urgent):
                return {"ns": {"$in": [_names(text) for text in self.urgent]}}
            return {"$and": [{"ns.db": {"$nin": list(_NEVER)}}, self._named(self.urgent)]}
        databases = {text.partition(".")[0] for text in self.include}
        if databases and not any("*" in text for text in databases):
            return {"ns.db": {"$in": sorted(databases - set(_NEVER))}}
        return {"ns.db": {"$nin": list(_NEVER)}}

    @staticmethod
    def _named(patterns: Iterable[str]) -> dict[str, Any]:
        """Return a match by database and collection, which the server can do on the oplog entry."""
        choices = []
        for text in patterns:
            database, _, collection = text.partition(".")
            choice: dict[str, object] = {"ns.db": {"$regex": _part(database)}}
            if collection and collection != "*":
                choice["ns.coll"] = {"$regex": _part(collection)}
            choices.append(choice)
        return {"$or": choices}


def _names(text: str) -> dict[str, str]:
    database, _, collection = text.partition(".")
    return {"db": database, "coll": collection}


def _part(text: str) -> str:
    return "^" + ".*".join(re.escape(piece) for piece in text.split("*")) + "$"
