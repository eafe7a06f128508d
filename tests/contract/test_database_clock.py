"""One node whose clock is wrong, its database included: libfaketime moves both while they run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.contract.database_support import Base, Cluster, bases
from tests.waiting import wait_for

pytestmark = pytest.mark.contract

AHEAD = 9.0
"""Seconds; 5 are allowed."""


class WrongClock:
    """The clock of what is started with its environment; ``set`` moves it at once."""

    def __init__(self, file: Path) -> None:
        places = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        assert places, "libfaketime is missing: apt-get install faketime, as scripts/setup.sh does"
        self._file = file
        self.environment = {
            "LD_PRELOAD": str(places[0]),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
        self.set(0.0)

    def set(self, seconds: float) -> None:
        """Let the clock be that far ahead of the right time."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+.1f}s\n")
        os.replace(fresh, self._file)


@pytest.fixture
def clock(tmp_path: Path) -> WrongClock:
    return WrongClock(tmp_path / "clock")


@pytest.fixture
def cluster(
    mongod_path: Path, free_port: Callable[[], int], tmp_path: Path, clock: WrongClock
) -> Iterator[Cluster]:
    def prepare(base: Base) -> None:
        if base.directory.name == "b":
            base.environment = clock.environment

    with bases(mongod_path, free_port, 2, prepare=prepare) as two:
        made = Cluster(two, tmp_path)
        made.syncers["b"].environment = clock.environment
        yield made
        made.clean()


@pytest.mark.slow
def test_S3_a_clock_that_is_moved_holds_both_sides_and_what_it_stamped_is_refused_until_it_is_past(
    cluster: Cluster, clock: WrongClock
) -> None:
    cluster.start()
    cluster.wait_in_sync()
    clock.set(2.0)  # within what is allowed: the last writer wins by the clocks as they are
    cluster.collection("b").insert_one({"_id": 1, "by": "b"})
    cluster.wait_equal()
    cluster.collection("a").update_one({"_id": 1}, {"$set": {"by": "a"}})
    assert [item["by"] for item in cluster.settle()] == ["a"]  # it had seen b's, so it is later

    clock.set(AHEAD)
    for name, other in ("ab", "ba"):
        wait_for(partial(is_held, cluster, name, other), 20)
        assert "its clock differs by" in standing(cluster, name, other)["text"]
    cluster.collection("a").insert_one({"_id": 2})
    cluster.collection("b").insert_one({"_id": 3, "by": "b"})
    stamped = time.monotonic()
    time.sleep(1.0)
    assert cluster.collection("a").find_one({"_id": 3}) is None
    assert cluster.collection("b").find_one({"_id": 2}) is None

    clock.set(0.0)
    wait_for(lambda: cluster.collection("b").find_one({"_id": 2}) is not None, 20)
    if time.monotonic() - stamped < AHEAD - 5.0 - 0.5:
        assert cluster.collection("a").find_one({"_id": 3}) is None
    wait_for(lambda: time.monotonic() - stamped > AHEAD - 5.0 + 0.5, 20)
    cluster.syncers["a"].ask("sync")
    assert [item["_id"] for item in cluster.wait_equal()] == [1, 2, 3]
    cluster.collection("a").update_one({"_id": 3}, {"$set": {"by": "a"}})
    assert [item.get("by") for item in cluster.settle()] == ["a", None, "a"]


def standing(cluster: Cluster, name: str, other: str) -> dict[str, str]:
    """Return how a node says that it stands with another."""
    found: dict[str, str] = cluster.syncers[name].status()["peers"].get(other) or {"state": "none"}
    return found


def is_held(cluster: Cluster, name: str, other: str) -> bool:
    return standing(cluster, name, other)["state"] == "held"
