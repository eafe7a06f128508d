"""Concurrent writes on three nodes with kills: the last writers win, nothing is lost."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import PyMongoError
from pymongo.write_concern import WriteConcern

from tests.contract.database_support import Base, Cluster, bases

pytestmark = pytest.mark.contract

KEYS = 40
WRITES = int(os.environ.get("CONTROLONE_HISTORY_WRITES", "600")) // 3
"""Of each of the three writers."""

KILLS = max(3, WRITES // 250)
"""Every third one is of a database, the others of synchronisers."""

FASTEST = 0.003
"""Seconds in which no write gets to another node."""


@pytest.fixture(scope="module")
def three(mongod_path: Path, free_port: Callable[[], int]) -> Iterator[dict[str, Base]]:
    with bases(mongod_path, free_port, 3) as made:
        yield made


@dataclass(frozen=True, kw_only=True)
class Write:
    """An acknowledged write: it took effect between these moments, on a clock all nodes share."""

    node: str
    key: int
    value: str
    begun: float
    ended: float


class Writer(threading.Thread):
    """An application of one node; what is not acknowledged may or may not have happened."""

    def __init__(self, cluster: Cluster, node: str, count: int, seed: int) -> None:
        super().__init__(daemon=True)
        options = WriteConcern(w=1, j=True)
        self._things = cluster.collection(node).with_options(write_concern=options)
        self._node, self._count = node, count
        self._chance = random.Random(seed)
        self.written: list[Write] = []
        self.doubtful: set[str] = set()

    def run(self) -> None:
        for number in range(self._count):
            key, value = self._chance.randrange(KEYS), f"{self._node}{number}"
            begun = time.time()
            try:
                self._things.replace_one({"_id": key}, {"value": value}, upsert=True)
            except PyMongoError:
                self.doubtful.add(value)
                time.sleep(0.1)
                continue
            self.written.append(
                Write(node=self._node, key=key, value=value, begun=begun, ended=time.time())
            )
            time.sleep(self._chance.random() * 0.02)


def check(
    final: list[dict[str, Any]], lost: list[dict[str, Any]], writers: list[Writer]
) -> list[str]:
    """Return what is wrong with the end of a history, one sentence each."""
    problems = []
    doubtful = set().union(*(writer.doubtful for writer in writers))
    values = {item["_id"]: item["value"] for item in final}
    kept = {item["document"]["value"] for item in lost}
    by_key: dict[int, list[Write]] = {}
    for writer in writers:
        for write in writer.written:
            by_key.setdefault(write.key, []).append(write)
    for key, writes in by_key.items():
        value = values.get(key)
        winner = next((write for write in writes if write.value == value), None)
        if winner is None:
            if value not in doubtful:
                problems.append(f"{key}: {value!r} was never written, or all writes were lost")
            continue
        # The databases stamp in milliseconds: writes that touch each other may go either way.
        later = [write for write in writes if write.begun > winner.ended + 0.002]
        problems += [f"{key}: {value} won over the later {write.value}" for write in later]
        # The last write of each node lost: if the winner cannot have seen it, it is kept.
        for node in {write.node for write in writes} - {winner.node}:
            last = max((write for write in writes if write.node == node), key=lambda w: w.begun)
            if winner.ended < last.begun + FASTEST and last.value not in kept:
                problems.append(f"{key}: {last.value} lost at the same time as {value}, not kept")
    return problems


@pytest.mark.timeout(600)
def test_S3_concurrent_writes_with_kills_leave_the_last_writers_on_every_node(
    three: dict[str, Base], tmp_path: Path
) -> None:
    cluster = Cluster(three, tmp_path)
    try:
        cluster.start()
        cluster.wait_in_sync()
        writers = [Writer(cluster, node, WRITES, seed) for seed, node in enumerate("abc")]
        for writer in writers:
            writer.start()
        chance = random.Random(7)
        for turn in range(KILLS):
            time.sleep(0.5 if KILLS == 3 else chance.uniform(0.5, 3.0))
            name = chance.choice("abc")
            if turn % 3 == 1:
                cluster.bases[name].kill()
                cluster.bases[name].start()
                cluster.bases[name].wait_writable()
            else:
                cluster.syncers[name].kill()
                time.sleep(0.2)
                cluster.start(name)
        for writer in writers:
            writer.join(300)
            assert not writer.is_alive()
        written = sum(len(writer.written) for writer in writers)
        assert written > 2 * WRITES
        final = cluster.settle(seconds=60)
        lost = cluster.settle("controlone_ha.conflicts", seconds=60)
        assert check(final, lost, writers) == []
        print(f"{written} writes acknowledged, {KILLS} kills, {len(lost)} losers kept")
    finally:
        cluster.clean()


def test_the_checker_finds_a_wrong_winner_a_lost_write_and_a_loser_that_is_not_kept() -> None:
    def writer(*writes: Write) -> Writer:
        made = Writer.__new__(Writer)
        made.written, made.doubtful = list(writes), set()
        return made

    one = writer(Write(node="a", key=1, value="a0", begun=1.0, ended=1.1))
    two = writer(Write(node="b", key=1, value="b0", begun=2.0, ended=2.1))
    near = writer(Write(node="b", key=1, value="b1", begun=0.999, ended=1.002))
    assert check([{"_id": 1, "value": "b0"}], [], [one, two]) == []
    assert len(check([{"_id": 1, "value": "a0"}], [], [one, two])) >= 1
    assert len(check([], [], [one, two])) == 1
    assert len(check([{"_id": 1, "value": "b1"}], [], [one, near])) == 1
    assert check([{"_id": 1, "value": "b1"}], [{"document": {"value": "a0"}}], [one, near]) == []
