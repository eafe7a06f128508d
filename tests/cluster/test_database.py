"""Databases of real nodes agree over TLS, and nothing else of a node depends on them."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.figure import figure_one
from controlone_ha.lab.node import LabNode
from controlone_ha.lab.service_state import ServiceDefinition
from controlone_ha.logs import LEVEL
from controlone_ha.peers.secret import cluster_keys
from tests.cluster.support import FAST, Json, PairedLab, ha, status, wait_until
from tests.cluster.test_secrets import bundle_of, files_of, processes_of

NAMES = ("m1", "s1", "p1")

INSERT = """
import sys
from controlone_ha.paths import node_paths
from controlone_ha.sync.database.clients import open_client
from controlone_ha.sync.database.files import own_target
client = open_client(own_target(node_paths(), "127.0.0.1", 27017), own=True)
things = client.app.things
for word in sys.argv[1:]:
    kind, _, name = word.partition(":")
    if kind == "insert":
        things.insert_one({"_id": name, "from": "m1"})
    elif kind == "delete":
        things.delete_one({"_id": name})
print(",".join(sorted(item["_id"] for item in things.find())))
"""


DUMP = """
from controlone_ha.paths import node_paths
from controlone_ha.sync.database.clients import open_client
from controlone_ha.sync.database.files import own_target
from pymongo.errors import PyMongoError
client = open_client(own_target(node_paths(), "127.0.0.1", 27017), own=True)
for name in client.list_database_names():
    for collection in client[name].list_collection_names():
        try:
            print(name, collection, list(client[name][collection].find()))
        except PyMongoError as error:
            print(name, collection, error)
"""


@pytest.fixture(scope="module")
def lab(real_parts: None) -> Iterator[Lab]:
    nodes = [
        node
        for node in figure_one(ha={**FAST, "full_sync": "5"}, database=True, services=("ha",))
        if node.name in NAMES
    ]
    with PairedLab(nodes) as made:
        wait_until(made, lambda: not unequal(made), "the databases are in sync")
        yield made


def data(node: LabNode) -> dict[str, Json]:
    """Return how the database of a node stands with each peer that is up."""
    found = {peer["name"]: peer["sync"]["data"] for peer in status(node)["peers"]}
    return {name: found[name] for name in NAMES if name != node.name}


def unequal(lab: Lab) -> str:
    for node in lab.nodes.values():
        for peer, standing in data(node).items():
            if standing["state"] != "in sync":
                return f"{node.name} with {peer}: {standing}"
    return ""


def things(node: LabNode, *words: str) -> str:
    """Write to the node's database, and return the ids of what is in it."""
    done = node.exec([sys.executable, "-P", "-c", INSERT, *words], check=True, timeout=30.0)
    return done.stdout.strip()


def everywhere(lab: Lab, wanted: str) -> None:
    """Wait until every node holds these documents."""

    def is_everywhere() -> bool:
        return all(things(node) == wanted for node in lab.nodes.values())

    wait_until(lab, is_everywhere, f"every node holds {wanted}")


class TestNodes:
    def test_S1_a_write_on_any_node_reaches_all_others_over_tls_and_login(self, lab: Lab) -> None:
        assert things(lab.node("m1"), "insert:one", "insert:two").endswith("one,two")
        everywhere(lab, "one,two")
        things(lab.node("p1"), "delete:one")
        everywhere(lab, "two")
        row = next(item for item in status(lab.node("s1"))["sync"] if item["item"] == "database")
        assert row["state"] == "running" and row["problems"] == [], row

    @pytest.mark.slow
    def test_F2_a_dead_database_stops_its_own_item_only(self, lab: Lab) -> None:
        node = lab.node("s1")
        before = status(node)["state"]
        node.hold("mongod")
        wait_until(
            lab,
            lambda: all(item["state"] == "held" for item in data(node).values()),
            "s1 says that its database is away",
        )
        assert status(node)["state"] == before
        text = next(iter(data(node).values()))["text"]
        assert "own database" in text and "refused" in text, text
        things(lab.node("m1"), "insert:meanwhile")
        said = ha(lab.node("m1"), "diff", "s1", "database")
        assert said.returncode == 1 and "s1: connection refused" in said.stderr, said.stderr
        node.release("mongod")
        wait_until(lab, lambda: not unequal(lab), "s1 has caught up")
        assert "meanwhile" in things(node)

    def test_S4_acknowledged_documents_outlive_a_sudden_death_of_the_node(self, lab: Lab) -> None:
        node = lab.node("s1")
        things(node, "insert:acknowledged")
        node.kill()
        lab.boot("s1")
        wait_until(lab, lambda: "acknowledged" in things(node), "s1 has what it had acknowledged")
        wait_until(lab, lambda: not unequal(lab), "s1 is in sync")
        assert "acknowledged" in things(lab.node("m1"))


class TestCommands:
    def test_S7_a_person_forces_compares_and_looks_at_the_database(self, lab: Lab) -> None:
        node = lab.node("m1")
        things(node, "insert:four")
        done = ha(node, "sync", "database")
        assert done.returncode == 0, done.stderr
        assert "p1: in sync" in done.stdout and "s1: in sync" in done.stdout, done.stdout
        said = ha(node, "diff", "p1", "database")
        assert said.stdout.strip() == "nothing differs from p1", said.stdout + said.stderr
        told = ha(node, "database")
        assert told.stdout.startswith("database: running"), told.stdout
        assert ha(node, "database", "conflicts").stdout.strip() == "no conflicts"
        refused = ha(node, "forget", "p1")
        assert refused.returncode == 1 and "still in the list of peers" in refused.stderr

    def test_setup_finds_a_database_that_is_right(self, lab: Lab) -> None:
        done = ha(lab.node("m1"), "database", "setup")
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.strip().endswith("the database is as it has to be"), done.stdout


@pytest.mark.slow
class TestSecrets:
    """The last one of this file: it gives the cluster another secret."""

    NEW = "Another-Secret-of-77-letters"

    def test_X2_neither_secret_is_anywhere_while_a_new_one_goes_round_with_databases(
        self, lab: Lab
    ) -> None:
        old = lab.node("m1").exec(["uci", "get", "ha.default.secret"], check=True).stdout.strip()
        for node in lab.nodes.values():  # from here on with logs that tell everything
            node.define_service(
                ServiceDefinition(
                    name="ha",
                    argv=(sys.executable, "-P", "-m", "controlone_ha.daemon"),
                    environment={LEVEL: "debug"},
                    reload_signal="SIGHUP",
                )
            )
            node.restart_service("ha")
            wait_until(lab, lambda node=node: "[DEBUG]" in node.read_log("ha"), "it tells all")  # type: ignore[misc]
        wait_until(lab, lambda: not unequal(lab), "the databases are in sync")
        for number, node in enumerate(lab.nodes.values()):
            done = node.exec(["ha", "secret", "rotate"], input=f"{self.NEW}\n")
            assert done.returncode == 0, done.stderr
            assert self.NEW not in done.stdout + done.stderr
            wait_until(
                lab,
                lambda node=node: all(  # type: ignore[misc]
                    item["link"]["state"] == "up"
                    for item in status(node)["peers"]
                    if item["name"] in NAMES
                ),
                f"every link of {node.name} is up",
            )
            if number == 0:
                self.search(lab, old)  # half-way: the databases wait for each other
        wait_until(lab, lambda: not unequal(lab), "the databases are in sync again")
        things(lab.node("p1"), "insert:afterwards")
        wait_until(lab, lambda: "afterwards" in things(lab.node("m1")), "data goes on")
        self.search(lab, old)

    def search(self, lab: Lab, old: str) -> None:
        hidden = [
            value.encode()
            for keys in (cluster_keys(old), cluster_keys(self.NEW))
            for value in (keys.database_password, keys.link.hex(), keys.node_door.hex())
        ]
        hidden += [old.encode(), self.NEW.encode()]
        for node in lab.nodes.values():
            logs = {f"log: {name}": node.read_log(name).encode() for name in ("ha", "sshd")}
            assert b"[DEBUG]" in logs["log: ha"]
            dump = node.exec([sys.executable, "-P", "-c", DUMP], check=True, timeout=60.0).stdout
            assert "app things" in dump and "oplog.rs" in dump
            places = {**logs, **processes_of(node), **files_of(node), **bundle_of(node)}
            for place, content in {**places, "database": dump.encode()}.items():
                for number, value in enumerate(hidden):
                    assert value not in content, f"{node.name}: {place} has secret {number}"
