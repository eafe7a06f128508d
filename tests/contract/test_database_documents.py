"""Every kind of document and collection: what arrives exactly, what is left out and told."""

from __future__ import annotations

import datetime
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import Binary, Decimal128, Int64, ObjectId, Timestamp
from bson.raw_bson import RawBSONDocument
from gridfs import GridFS
from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from tests.contract.database_support import Base, Cluster, bases
from tests.waiting import wait_for

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module")
def two(mongod_path: Path, free_port: Callable[[], int]) -> Iterator[dict[str, Base]]:
    with bases(mongod_path, free_port, 2) as made:
        yield made


@pytest.fixture
def cluster(two: dict[str, Base], tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(two, tmp_path, urgent=("app.urgent",))
    made.start()
    made.wait_in_sync()
    yield made
    made.clean()


def raw_of(cluster: Cluster, name: str) -> list[bytes]:
    options = bson.CodecOptions(document_class=RawBSONDocument)
    things = cluster.client(name).get_database("app", codec_options=options).things
    found: Any = things.find()
    return sorted(bytes(item.raw) for item in found)


class TestDocuments:
    def test_every_type_of_id_and_field_arrives_byte_for_byte(self, cluster: Cluster) -> None:
        ids: list[Any] = [
            1, 2.5, Int64(1 << 40), Decimal128("7.00"), "text", "", True, None, ObjectId(),
            Binary(b"\x00\xff"), Binary(uuid.uuid4().bytes, 4), datetime.datetime(1969, 1, 1),
            Timestamp(5, 6), {"a": 1, "b": {"c": [1, 2.0]}}, {"b": 2, "a": 1}, "á€\x00ü",
        ]  # fmt: skip
        things = cluster.collection("a")
        things.insert_many(
            [{"_id": item, "value": [item, {"deep.er": {"$gt": 1}}]} for item in ids]
        )
        things.insert_one({"_id": "names", "with.dot": 1, "in.": {"$in": [1]}, "": "empty"})
        things.insert_one({"_id": "dollar", "$top": {"$set": 1}, "b": 2})
        wait_for(lambda: len(raw_of(cluster, "b")) == len(ids) + 2)
        assert raw_of(cluster, "a") == raw_of(cluster, "b")
        cluster.collection("b").update_many({}, {"$set": {"changed": True}})
        cluster.collection("b").delete_one({"_id": {"b": 2, "a": 1}})
        wait_for(lambda: raw_of(cluster, "a") == raw_of(cluster, "b"))
        assert len(raw_of(cluster, "a")) == len(ids) + 1

    def test_equal_numbers_are_one_id_whatever_their_type(self, cluster: Cluster) -> None:
        for syncer in cluster.syncers.values():
            syncer.kill()
        cluster.collection("a").insert_one({"_id": 1, "from": "a"})
        cluster.collection("b").insert_one({"_id": 1.0, "from": "b"})
        cluster.start()
        (found,) = cluster.settle()
        assert found["from"] == "b"
        (kept,) = cluster.settle("controlone_ha.conflicts")
        assert kept["document"]["from"] == "a"

    def test_documents_of_16_mb_and_files_of_gridfs_arrive(self, cluster: Cluster) -> None:
        large = {"_id": "large", "data": b"x" * (16 * 1024 * 1024 - 64)}
        cluster.collection("a").insert_one(large)
        content = bytes(range(256)) * 4096
        number = GridFS(cluster.client("a")["app"]).put(content, filename="one")
        wait_for(lambda: cluster.collection("b").count_documents({}) == 1, 20)
        files = GridFS(cluster.client("b")["app"])
        wait_for(lambda: files.exists(number) and files.get(number).read() == content, 20)
        for name in "ab":
            cluster.syncers[name].kill()
        cluster.collection("a").update_one({"_id": "large"}, {"$set": {"n": 1}})
        cluster.collection("b").update_one({"_id": "large"}, {"$set": {"n": 2}})
        cluster.start()
        (found,) = cluster.settle()
        assert found["n"] == 2
        parts = cluster.settle("controlone_ha.conflicts")
        lost = bson.decode(b"".join(part["bytes"] for part in parts))
        assert lost["n"] == 1 and len(lost["data"]) == len(large["data"])

    def test_a_clash_on_a_unique_index_leaves_the_newer_and_keeps_the_older(
        self, cluster: Cluster
    ) -> None:
        for name in "ab":
            cluster.collection(name).create_index("number", unique=True)
            cluster.syncers[name].kill()
        cluster.collection("a").insert_one({"_id": "from a", "number": 7})
        cluster.collection("b").insert_one({"_id": "from b", "number": 7})
        cluster.collection("a").insert_one({"_id": "other", "number": 8})
        cluster.start()
        assert [item["_id"] for item in cluster.settle()] == ["from b", "other"]
        (kept,) = cluster.settle("controlone_ha.conflicts")
        assert kept["document"] == {"_id": "from a", "number": 7}

    def test_values_of_a_unique_index_may_change_places(self, cluster: Cluster) -> None:
        things = cluster.collection("a")
        things.create_index("number", unique=True)
        cluster.collection("b").create_index("number", unique=True)
        things.insert_many([{"_id": n, "number": n} for n in range(4)])
        cluster.settle()
        cluster.syncers["b"].kill()
        things.update_one({"_id": 0}, {"$set": {"number": 99}})
        things.update_one({"_id": 1}, {"$set": {"number": 0}})
        things.update_one({"_id": 0}, {"$set": {"number": 1}})
        cluster.start("b")
        found = cluster.settle()
        assert {item["_id"]: item["number"] for item in found} == {0: 1, 1: 0, 2: 2, 3: 3}
        assert cluster.syncers["b"].status()["conflicts"] == 0


def changes(database: Any, command: dict[str, Any]) -> bool:
    """Run a command; False while an index is still being built."""
    try:
        database.command(command)
    except OperationFailure as error:
        if error.code != 12587:
            raise
        return False
    return True


def is_built(collection: Collection[Any], index: str) -> bool:
    """Whether an index can be used: to drop one that is being built leaves no trace."""
    try:
        list(collection.find().hint(index))
    except OperationFailure:
        return False
    return index in collection.index_information()


class TestCollections:
    def test_capped_and_time_series_collections_are_left_out_and_told(
        self, cluster: Cluster
    ) -> None:
        database = cluster.client("a")["app"]
        database.create_collection("log", capped=True, size=4096)
        database.create_collection("series", timeseries={"timeField": "t"})
        database["log"].insert_one({"_id": 1})
        database["series"].insert_one({"t": datetime.datetime(2026, 1, 1), "v": 1})
        cluster.collection("a").insert_one({"_id": 1})
        cluster.wait_equal()
        wait_for(lambda: "app.log" in cluster.syncers["a"].status()["unfit"])
        assert cluster.syncers["a"].status()["unfit"]["app.log"] == "capped"
        assert cluster.client("b")["app"].list_collection_names() == ["things"]

    def test_a_dropped_collection_spreads_and_a_dropped_database_comes_back(
        self, cluster: Cluster
    ) -> None:
        for name in ("things", "other"):
            cluster.collection("a", f"app.{name}").insert_many([{"_id": n} for n in range(5)])
        cluster.settle("app.other")
        cluster.client("a")["app"]["things"].drop()
        wait_for(lambda: cluster.collection("b").count_documents({}) == 0)
        assert cluster.collection("b", "app.other").count_documents({}) == 5
        cluster.client("a").drop_database("app")
        wait_for(lambda: cluster.syncers["a"].status()["notes"])
        assert "app was dropped here" in cluster.syncers["a"].status()["notes"][0]
        cluster.syncers["a"].ask("sync")
        wait_for(lambda: cluster.collection("a", "app.other").count_documents({}) == 5)
        assert cluster.collection("b", "app.other").count_documents({}) == 5

    def test_options_of_a_collection_arrive_with_its_first_document(self, cluster: Cluster) -> None:
        database = cluster.client("a")["app"]
        rule = {"name": {"$type": "string"}}
        database.create_collection(
            "people", collation={"locale": "pt", "strength": 2}, validator=rule
        )
        database["people"].insert_one({"_id": 1, "name": "Ana"})
        there = cluster.client("b")["app"]["people"]
        wait_for(lambda: there.count_documents({}) == 1)
        options = there.options()
        assert options["collation"]["locale"] == "pt" and options["validator"] == rule

    def test_indexes_are_made_changed_and_dropped_on_every_node(self, cluster: Cluster) -> None:
        here = cluster.client("a")["app"]["people"]
        there = cluster.client("b")["app"]["people"]
        here.create_index([("name", 1), ("age", -1)], name="by_name", unique=True)
        here.create_index("seen.at", name="by_time", expireAfterSeconds=100)
        here.insert_one({"_id": 1, "name": "Ana", "age": 3})
        wait_for(lambda: there.index_information().keys() == {"_id_", "by_name", "by_time"})
        found = there.index_information()
        assert found["by_name"]["unique"] and found["by_name"]["key"] == [("name", 1), ("age", -1)]
        lives = {"name": "by_time", "expireAfterSeconds": 50}
        wait_for(lambda: changes(cluster.client("b")["app"], {"collMod": "people", "index": lives}))
        wait_for(lambda: here.index_information()["by_time"]["expireAfterSeconds"] == 50)
        wait_for(lambda: is_built(there, "by_name"))
        there.drop_index("by_name")
        wait_for(lambda: "by_name" not in here.index_information())
        time.sleep(3.0)  # nothing comes back
        assert here.index_information().keys() == there.index_information().keys()
        assert here.index_information().keys() == {"_id_", "by_time"}

    def test_an_urgent_collection_is_dropped_on_every_node_and_so_are_its_indexes(
        self, cluster: Cluster
    ) -> None:
        here = cluster.client("a")["app"]["urgent"]
        there = cluster.client("b")["app"]["urgent"]
        here.create_index("name", name="by_name")
        here.insert_one({"_id": 1, "name": "Ana"})
        wait_for(lambda: is_built(there, "by_name"), 20)
        there.drop_index("by_name")
        wait_for(lambda: "by_name" not in here.index_information(), 20)
        here.drop()
        wait_for(lambda: not list(there.find()), 20)

    def test_excluded_collections_stay_where_they_are(self, cluster: Cluster) -> None:
        for name in "ab":
            cluster.syncers[name].configure(cluster.settings(name, exclude=("app.private*",)))
        cluster.wait_in_sync()
        cluster.collection("a", "app.private_notes").insert_one({"_id": 1})
        cluster.collection("a").insert_one({"_id": 1})
        cluster.settle()
        assert cluster.client("b")["app"].list_collection_names() == ["things"]
