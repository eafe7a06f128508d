"""Finds the rows in which two nodes differ, by sums of digests, in a few hundred bytes if none do.

Theory of operation. The databases themselves sum the rows' digests over an index: first one sum a
collection; where they differ, 256 sums of it; where those differ, 256 more of each; then the rows
of the leaves that differ (one row a leaf in a collection of 65,536 documents) are compared.
Both nodes are asked at the same time. Writes that are on their way show up as differences, and are
compared like all others: nothing here decides who wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from controlone_ha.sync.database.documents import row_from
from controlone_ha.sync.database.versions import Row

BRANCHES = 256
LEAVES_A_QUERY = 400

Sums = dict[Any, tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One document whose rows differ; None: no row on that side."""

    own: Row | None
    remote: Row | None

    @property
    def kind(self) -> str:
        """``missing here``, ``missing there``, ``newer here``, ``newer there`` or ``same``.

        A tombstone on one side and nothing on the other are the same: tombstones go in their time.
        """
        own, remote = self.own, self.remote
        if own is None or remote is None:
            only = own or remote
            if only is None or only.is_deleted:
                return "same"
            return "missing there" if remote is None else "missing here"
        if own.order == remote.order:
            return "same"
        return "newer here" if own.order > remote.order else "newer there"

    @property
    def is_newer_there(self) -> bool:
        """Tell whether this node should take the remote version."""
        return self.kind in ("missing here", "newer there")


class Digests:
    """The sums of one node's rows. ``versions``: its collection of rows."""

    def __init__(self, versions: Any) -> None:
        self._versions = versions

    def by_namespace(self) -> Sums:
        """Return (count, sum) of each namespace."""
        return self._sums([], "$s")

    def branches(self, namespace: str) -> Sums:
        """Return (count, sum) of each of 256 branches of a namespace."""
        branch = {"$trunc": {"$divide": ["$b", BRANCHES]}}
        return self._sums([{"$match": {"s": namespace}}], branch)

    def leaves(self, namespace: str, branch: int) -> Sums:
        """Return (count, sum) of each leaf of a branch."""
        low = branch * BRANCHES
        match = {"s": namespace, "b": {"$gte": low, "$lt": low + BRANCHES}}
        return self._sums([{"$match": match}], "$b")

    def rows(self, namespace: str, leaves: Sequence[int]) -> dict[bytes, Row]:
        """Return the rows of some leaves, by key."""
        query = {"s": namespace, "b": {"$in": list(leaves)}}
        found = (row_from(item) for item in self._versions.find(query))
        return {row.key: row for row in found}

    def _sums(self, match: Sequence[Mapping[str, Any]], group: Any) -> Sums:
        pipeline = [
            *match,
            {"$group": {"_id": group, "n": {"$sum": 1}, "x": {"$sum": "$x"}}},
        ]
        found = self._versions.aggregate(pipeline, hint="digest", batchSize=100_000)
        return {_plain(item["_id"]): (int(item["n"]), int(item["x"])) for item in found}


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) else value


def differences(
    own: Digests, remote: Digests, is_wanted: Callable[[str], bool]
) -> Iterator[list[Difference]]:
    """Yield the differences of the namespaces that are wanted, in groups."""
    with ThreadPoolExecutor(2, thread_name_prefix="digest") as threads:

        def both(name: str, *args: Any) -> tuple[Any, Any]:
            asked = [threads.submit(getattr(node, name), *args) for node in (own, remote)]
            return asked[0].result(), asked[1].result()

        for namespace in _unequal(*both("by_namespace")):
            if not is_wanted(namespace):
                continue
            leaves: list[int] = []
            for branch in _unequal(*both("branches", namespace)):
                leaves += _unequal(*both("leaves", namespace, branch))
                while len(leaves) >= LEAVES_A_QUERY:
                    yield _compare(*both("rows", namespace, leaves[:LEAVES_A_QUERY]))
                    leaves = leaves[LEAVES_A_QUERY:]
            if leaves:
                yield _compare(*both("rows", namespace, leaves))


def _unequal(one: Sums, other: Sums) -> list[Any]:
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))


def _compare(own: Mapping[bytes, Row], remote: Mapping[bytes, Row]) -> list[Difference]:
    found = [
        Difference(own=own.get(key), remote=remote.get(key)) for key in own.keys() | remote.keys()
    ]
    return [item for item in found if item.kind != "same"]
