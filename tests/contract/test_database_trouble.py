"""A database that stands still, is read-only, is full, or refuses an index: state and reason."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.database_support import Base, Cluster, bases
from tests.waiting import freeze, thaw, wait_for

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module")
def two(mongod_path: Path, free_port: Callable[[], int]) -> Iterator[dict[str, Base]]:
    with bases(mongod_path, free_port, 2) as made:
        yield made


@pytest.fixture
def cluster(two: dict[str, Base], tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(two, tmp_path)
    made.start()
    made.wait_in_sync()
    yield made
    made.clean()


def says(cluster: Cluster, name: str, fault: str, text: str) -> bool:
    said = cluster.syncers[name].status()
    return said["state"] == "down" and said["fault"] == fault and text in said["text"]


@pytest.mark.slow
def test_F2_a_database_that_stands_still_is_told_and_catches_up(cluster: Cluster) -> None:
    process = cluster.bases["b"].process
    assert process is not None
    freeze(process.pid)
    try:
        cluster.collection("a").insert_one({"_id": "meanwhile"})
        wait_for(lambda: says(cluster, "b", "timeout", "does not answer in time"), 40)
        assert cluster.syncers["a"].status()["state"] == "running"
    finally:
        thaw(process.pid)
    assert cluster.settle(seconds=60) == [{"_id": "meanwhile"}]


def test_F2_a_database_that_becomes_read_only_is_told_and_catches_up(cluster: Cluster) -> None:
    cluster.client("b").admin.command("replSetStepDown", 4, force=True)
    cluster.collection("a").insert_one({"_id": "meanwhile"})
    wait_for(lambda: says(cluster, "b", "other", "takes no writes"), 30)
    cluster.bases["b"].wait_writable(60)
    assert cluster.settle(seconds=60) == [{"_id": "meanwhile"}]


def test_an_index_that_is_refused_is_told_and_one_that_documents_refuse_is_made_after_the_clash(
    cluster: Cluster,
) -> None:
    here, there = cluster.collection("a"), cluster.collection("b")
    cluster.syncers["b"].kill()
    there.insert_many([{"_id": n, "code": 7} for n in range(2)])
    there.create_index("size", name="by_size_too")
    here.insert_one({"_id": "own", "code": 1})
    here.create_index("code", name="by_code", unique=True)
    here.create_index("size", name="by_size")
    cluster.start("b")

    def is_told() -> bool:
        notes = cluster.syncers["b"].status().get("notes", [])
        return any("app.things: index by_size cannot be made here" in note for note in notes)

    wait_for(is_told, 30)
    wait_for(lambda: "by_code" in there.index_information(), 40)
    assert len(cluster.settle()) == 2
    (kept,) = cluster.settle("controlone_ha.conflicts")
    assert kept["document"]["code"] == 7


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    size = "size=420m"  # mongod prepares three journals of 100 MB
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.slow
def test_F2_a_full_disk_is_told_and_the_node_catches_up_when_there_is_room(
    mongod_path: Path,
    free_port: Callable[[], int],
    small_disk: Path,
    two: dict[str, Base],
    tmp_path: Path,
) -> None:
    full = Base(mongod_path, small_disk / "b", free_port())
    filler = small_disk / "filler"
    cluster = Cluster({"a": two["a"], "b": full}, tmp_path)
    try:
        full.start()
        full.initiate()
        full.wait_writable()
        cluster.start()
        cluster.wait_in_sync()
        _fill(filler)
        things = [{"_id": n, "text": "x" * 100_000} for n in range(200)]
        cluster.collection("a").insert_many(things)
        wait_for(functools.partial(_says_full, cluster, small_disk), 60)
        filler.unlink()
        full.kill()
        full.start()
        full.wait_writable(60)
        assert len(cluster.settle(seconds=60)) == 200
    finally:
        cluster.clean()
        full.client.close()
        full.kill()


def _says_full(cluster: Cluster, disk: Path) -> bool:
    said = cluster.syncers["b"].status()
    told = f"the disk of {disk}/b/data is full" in said["text"] and said["fault"] == "disk"
    return said["state"] == "down" and told


def _fill(file: Path) -> None:
    with file.open("wb") as out:
        try:
            while True:
                out.write(bytes(1 << 20))
                out.flush()
        except OSError:
            return
