"""Certificate and secret must both be right to read a database, and what is wrong is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pymongo.errors import PyMongoError

from controlone_ha.paths import node_paths
from controlone_ha.peers.keys import ensure_identity
from controlone_ha.sync.database.clients import open_client
from controlone_ha.sync.database.files import own_target, peer_target, write_files
from controlone_ha.sync.database.settings import Settings
from tests.bench.database_figures import PASSWORD, Mongod, mongods
from tests.contract.database_support import Syncer
from tests.waiting import wait_for

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module")
def nodes(mongod_path: Path) -> Iterator[list[Mongod]]:
    with mongods(2, shared_key=False) as made:
        yield made


def settings(made: list[Mongod], index: int, *, secret: str = PASSWORD) -> Settings:
    item, other = made[index], made[1 - index]
    peer = peer_target(item.paths, other.name, "127.0.0.1", other.port, secret)
    assert peer is not None
    return Settings(
        node=item.name,
        own=own_target(item.paths, "127.0.0.1", item.port),
        peers={other.name: peer},
        reader_password=secret,
    )


def test_X2_a_wrong_secret_and_wrong_certificates_are_refused_and_told(
    nodes: list[Mongod], tmp_path: Path
) -> None:
    a = Syncer(settings(nodes, 0), tmp_path / "a.log")
    b = Syncer(settings(nodes, 1), tmp_path / "b.log")
    stranger = node_paths({"CONTROLONE_STATE_DIR": str(tmp_path / "stranger")})
    identity = ensure_identity(stranger, "a")
    other_pem = tmp_path / "stranger.pem"
    other_pem.write_text(stranger.key_file.read_text() + identity.certificate)
    right = b.settings

    def told(text: str, fault: str) -> bool:
        row = b.status()["peers"].get("a", {})
        return row.get("state") == "down" and row["fault"] == fault and text in row["text"]

    try:
        a.start()
        b.start()
        wait_for(lambda: b.status()["peers"].get("a", {}).get("state") == "in sync", 40)
        peer = right.peers["a"]
        for changed, text, fault in (
            (replace(peer, password="other"), "refuses the login", "auth"),
            (replace(peer, certificate_key_file=str(other_pem)), "our certificate", "closed"),
            (replace(peer, ca_file=str(other_pem)), "no TLS with it", "tls"),
        ):
            b.configure(replace(right, peers={"a": changed}))
            wait_for(lambda text=text, fault=fault: told(text, fault), 20)  # type: ignore[misc]
        b.configure(right)
        wait_for(lambda: b.status()["peers"].get("a", {}).get("state") == "in sync", 20)
        log = b.log() + a.log()
        assert PASSWORD not in log and right.own.password not in log
    finally:
        a.kill()
        b.kill()


def test_X1_a_connection_that_an_expelled_node_has_open_reads_nothing_more(
    nodes: list[Mongod], tmp_path: Path
) -> None:
    """Its certificate leaves the file, mongod reads it, and what was let in before is shut out."""
    stolen = node_paths({"CONTROLONE_STATE_DIR": str(tmp_path / "stolen")})
    identity = ensure_identity(stolen, "zulu")
    key = tmp_path / "stolen.pem"
    key.write_text(stolen.key_file.read_text() + identity.certificate)
    item = nodes[0]
    others = {nodes[1].name: nodes[1].certificate}
    a = Syncer(settings(nodes, 0), tmp_path / "a.log")
    b = Syncer(settings(nodes, 1), tmp_path / "b.log")
    right = settings(nodes, 1).peers[item.name]
    open_one = replace(right, certificate_key_file=str(key))

    def state(syncer: Syncer, name: str) -> str:
        return str(syncer.status()["peers"].get(name, {}).get("state"))

    try:
        a.start()
        b.start()
        wait_for(lambda: state(b, "a") == "in sync", 40)
        write_files(item.paths, {**others, "zulu": identity.certificate})
        a.ask("rotate", out=False)
        with open_client(open_one, own=False) as client:
            rows = client["controlone_ha"]["versions"]
            assert rows.estimated_document_count() >= 0
            assert write_files(item.paths, others)
            a.ask("rotate", out=True)
            with pytest.raises(PyMongoError, match="not authorized|requires authentication"):
                rows.find_one()
        with open_client(open_one, own=False) as client, pytest.raises(PyMongoError):
            client["controlone_ha"]["versions"].find_one()
        wait_for(lambda: state(b, "a") == "in sync", 20)
    finally:
        a.kill()
        b.kill()
        write_files(item.paths, others)
