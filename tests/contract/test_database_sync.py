"""Two databases that agree: real mongods, real synchronisers, killed and cut."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bson.binary import UUID_SUBTYPE, Binary
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from tests.contract.database_support import Base, Cluster, Syncer, bases
from tests.waiting import wait_for

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module")
def two(mongod_path: Path, free_port: Callable[[], int]) -> Iterator[dict[str, Base]]:
    with bases(mongod_path, free_port, 2) as made:
        yield made


@pytest.fixture
def cluster(two: dict[str, Base], tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(two, tmp_path, urgent=("app.urgent",))
    yield made
    made.clean()


class TestChanges:
    def test_S1_inserts_updates_replaces_and_deletes_reach_the_other_node(
        self, cluster: Cluster
    ) -> None:
        cluster.start()
        cluster.wait_in_sync()
        here, there = cluster.collection("a"), cluster.collection("b")
        here.insert_many([{"_id": n, "text": "new"} for n in range(20)])
        here.update_one({"_id": 1}, {"$set": {"text": "updated"}})
        here.replace_one({"_id": 2}, {"text": "replaced"})
        here.delete_one({"_id": 3})
        assert len(cluster.wait_equal()) == 19
        assert there.find_one({"_id": 1}) == {"_id": 1, "text": "updated"}
        there.update_many({}, {"$set": {"text": "from b"}})
        found = cluster.wait_equal()
        assert {item["text"] for item in found} == {"from b"} and len(found) == 19

    def test_S1_what_was_received_is_not_sent_back_as_a_new_write(self, cluster: Cluster) -> None:
        cluster.start()
        cluster.wait_in_sync()
        cluster.collection("a").insert_many([{"_id": n} for n in range(50)])
        cluster.settle()
        a, b = (cluster.syncers[name].status() for name in "ab")
        assert (a["stamped"], b["stamped"]) == (50, 0)
        assert (a["peers"]["b"]["applied"], b["peers"]["a"]["applied"]) == (0, 50)

    def test_S4_isolated_nodes_take_writes_and_agree_when_they_meet(self, cluster: Cluster) -> None:
        cluster.collection("a").insert_one({"_id": "old"})
        cluster.start()
        cluster.settle()
        for name in "ab":
            cluster.syncers[name].configure(cluster.settings(name, peers={}))
        wait_for(lambda: all(not s.status()["peers"] for s in cluster.syncers.values()))
        cluster.collection("a").insert_one({"_id": "from a"})
        cluster.collection("b").insert_one({"_id": "from b"})
        cluster.collection("b").delete_one({"_id": "old"})
        for name in "ab":
            cluster.syncers[name].configure(cluster.settings(name))
        assert [item["_id"] for item in cluster.settle()] == ["from a", "from b"]
        assert cluster.syncers["a"].status()["conflicts"] == 0

    def test_S3_the_last_write_wins_a_conflict_and_the_loser_is_kept_on_both_nodes(
        self, cluster: Cluster
    ) -> None:
        cluster.start()
        cluster.collection("a").insert_one({"_id": 1, "text": "first"})
        cluster.settle()
        for name in "ab":
            cluster.syncers[name].kill()
        cluster.collection("b").update_one({"_id": 1}, {"$set": {"text": "earlier"}})
        cluster.collection("a").update_one({"_id": 1}, {"$set": {"text": "later"}})
        cluster.start()
        assert cluster.settle() == [{"_id": 1, "text": "later"}]
        (kept,) = cluster.settle("controlone_ha.conflicts")
        assert kept["document"] == {"_id": 1, "text": "earlier"}
        assert (kept["lost"]["node"], kept["won"]["node"]) == ("b", "a")
        (told,) = cluster.syncers["a"].ask("conflicts", limit=5)
        assert told["namespace"] == "app.things" and told["lost"]["node"] == "b"

    def test_S2_equal_databases_exchange_no_documents(self, cluster: Cluster) -> None:
        for name in "ab":
            cluster.collection(name).insert_many([{"_id": n, "text": "same"} for n in range(500)])
        cluster.start()
        cluster.settle()
        for name, other in ("ab", "ba"):
            said = cluster.syncers[name].status()
            assert said["conflicts"] == 0
            assert cluster.syncers[name].ask("diff", peer=other)["collections"] == {}


class TestKills:
    def test_S3_a_killed_synchroniser_loses_nothing_and_undoes_no_delete(
        self, cluster: Cluster
    ) -> None:
        cluster.start()
        here, there = cluster.collection("a"), cluster.collection("b")
        here.insert_many([{"_id": n, "n": 0} for n in range(200)])
        cluster.settle()
        for turn in range(1, 4):
            here.update_many({"_id": {"$lt": 100}}, {"$set": {"n": turn}})
            there.delete_many({"_id": {"$gte": 200 - turn * 10}})
            cluster.syncers["ab"[turn % 2]].kill()
            there.update_many({"_id": {"$gte": 100, "$lt": 150}}, {"$set": {"n": turn}})
            cluster.start("ab"[turn % 2])
        found = cluster.settle()
        assert len(found) == 170
        assert {item["n"] for item in found if item["_id"] < 150} == {3}

    def test_S3_a_transaction_left_open_by_a_kill_holds_nothing_up(self, cluster: Cluster) -> None:
        cluster.start()
        here = cluster.collection("a")
        here.insert_one({"_id": 1, "n": 0})
        cluster.settle()
        cluster.syncers["a"].kill()
        client: MongoClient[Any] = MongoClient(
            "127.0.0.1", cluster.bases["a"].port, directConnection=True
        )
        own = client["controlone_ha"]
        with client, client.start_session() as left:
            note = {"$push": {"ids": Binary(left.session_id["id"], UUID_SUBTYPE)}}
            assert own["state"].update_one({"_id": "sessions"}, note).modified_count == 1
            left.start_transaction()
            own["versions"].update_many({}, {"$set": {"held": True}}, session=left)
            client["app"]["things"].update_one({"_id": 1}, {"$set": {"n": -1}}, session=left)
            cluster.start("a")
            cluster.collection("b").update_one({"_id": 1}, {"$set": {"n": 1}})
            cluster.settle(seconds=10.0)
            with pytest.raises(OperationFailure, match="NoSuchTransaction|aborted|in progress"):
                left.commit_transaction()
        assert here.find_one({"_id": 1}) == {"_id": 1, "n": 1}

    def test_S4_a_killed_database_comes_back_and_catches_up(self, cluster: Cluster) -> None:
        cluster.start()
        cluster.wait_in_sync()
        cluster.collection("a").insert_many([{"_id": n} for n in range(100)])
        cluster.bases["b"].kill()
        cluster.collection("a").insert_many([{"_id": n} for n in range(100, 200)])
        wait_for(lambda: cluster.syncers["b"].status()["fault"] == "refused", 20)
        assert cluster.syncers["b"].status()["state"] == "down"
        assert cluster.syncers["a"].status()["state"] == "running"
        cluster.bases["b"].start()
        cluster.bases["b"].wait_writable()
        assert len(cluster.settle(seconds=40)) == 200


class TestTime:
    @pytest.mark.slow
    def test_a_node_that_comes_back_as_an_old_image_keeps_what_nobody_knows_as_conflicts(
        self, cluster: Cluster, tmp_path: Path
    ) -> None:
        cluster.collection("a").insert_many([{"_id": n} for n in range(10)])
        cluster.start()
        cluster.settle()
        old = cluster.bases["b"]
        cluster.syncers["b"].kill()
        image = copy_of(old, tmp_path)
        cluster.start("b")
        cluster.collection("b").delete_many({"_id": {"$lt": 5}})
        cluster.collection("b").insert_one({"_id": "after"})
        cluster.settle()
        cluster.syncers["b"].kill()
        restore(old, image)
        cluster.collection("b").insert_one({"_id": "unknown"})
        cluster.start("b")
        assert [item["_id"] for item in cluster.settle()] == ["after", 5, 6, 7, 8, 9]
        (kept,) = cluster.settle("controlone_ha.conflicts")
        assert kept["document"] == {"_id": "unknown"}
        assert cluster.syncers["b"].status()["returned"]["moved"] == 1
        cluster.collection("b").insert_one({"_id": "new"})
        assert len(cluster.wait_equal()) == 7

    def test_a_peer_whose_clock_differs_is_held_on_both_sides_until_it_is_right(
        self, cluster: Cluster
    ) -> None:
        cluster.start()
        cluster.wait_in_sync()
        for name in "ab":
            # No two measurements agree to the nanosecond: this limit makes any clocks differ.
            cluster.syncers[name].configure(cluster.settings(name, allowed_skew=1e-9))
        for name, other in ("ab", "ba"):
            syncer = cluster.syncers[name]
            wait_for(functools.partial(is_held, syncer, other))
            assert "its clock differs by" in peer_of(syncer, other)["text"]
        cluster.collection("a").insert_one({"_id": 1})
        for name in "ab":
            cluster.syncers[name].configure(cluster.settings(name))
        assert [item["_id"] for item in cluster.settle()] == [1]

    def test_tombstones_go_after_the_horizon_once_every_peer_has_them(
        self, cluster: Cluster
    ) -> None:
        cluster.options["horizon"] = 2.0
        cluster.syncers = {
            name: type(syncer)(cluster.settings(name), syncer._log)
            for name, syncer in cluster.syncers.items()
        }
        cluster.collection("a").insert_many([{"_id": n} for n in range(10)])
        cluster.start()
        cluster.settle()
        cluster.collection("a").delete_many({"_id": {"$lt": 4}})
        cluster.settle()

        def rows(name: str) -> int:
            return int(cluster.collection(name, "controlone_ha.versions").count_documents({}))

        wait_for(lambda: (rows("a"), rows("b")) == (6, 6), 15)
        assert len(cluster.settle()) == 6


def is_held(syncer: Syncer, name: str) -> bool:
    """Tell whether a peer is held."""
    return bool(peer_of(syncer, name).get("state") == "held")


def peer_of(syncer: Syncer, name: str) -> dict[str, Any]:
    """Return what a synchroniser says of one peer."""
    found: dict[str, Any] = syncer.status()["peers"].get(name, {})
    return found


def copy_of(base: Base, directory: Path) -> Path:
    """Stop a database as a power cut does and return a copy of its files; it runs again."""
    base.kill()
    image = directory / "image"
    shutil.copytree(base.directory / "data", image)
    base.start()
    base.wait_writable()
    return image


def restore(base: Base, image: Path) -> None:
    """Put an image back in the place of a database."""
    base.kill()
    shutil.rmtree(base.directory / "data")
    shutil.copytree(image, base.directory / "data")
    base.start()
    base.wait_writable()
