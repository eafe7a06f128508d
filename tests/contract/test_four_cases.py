"""X2: key right or wrong, secret right or wrong: of the four, exactly one gets in."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pymongo.errors import PyMongoError

from controlone_ha.paths import node_paths
from controlone_ha.peers import keys
from controlone_ha.peers.keys import ensure_identity
from controlone_ha.sync.database.clients import open_client
from controlone_ha.sync.database.files import own_target, peer_target, write_files
from controlone_ha.sync.database.setup import make_right, rotate_certificates
from tests.bench.database_figures import PASSWORD, Mongod, mongods
from tests.contract.peers_support import SECRET, SERVERS, Node, has_link, nodes
from tests.waiting import until

pytestmark = pytest.mark.contract

CASES = ((True, True), (True, False), (False, True), (False, False))


@pytest.fixture(params=SERVERS)
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Node, Node]]:
    with nodes("alfa", "beta", kind=request.param) as (alfa, beta):
        yield alfa, beta


def test_X2_of_four_cases_on_ssh_exactly_one_gets_in(
    pair: tuple[Node, Node], tmp_path: Path
) -> None:
    alfa, beta = pair
    right = (alfa.paths.key_file.read_bytes(), alfa.paths.certificate_file.read_bytes())
    stranger = node_paths({"CONTROLONE_STATE_DIR": str(tmp_path / "stranger")})
    ensure_identity(stranger, "alfa")
    wrong = (stranger.key_file.read_bytes(), stranger.certificate_file.read_bytes())
    got_in: dict[tuple[bool, bool], str] = {}

    async def attempt(is_key: bool, is_secret: bool) -> str:
        key, certificate = right if is_key else wrong
        alfa.paths.key_file.write_bytes(key)
        alfa.paths.certificate_file.write_bytes(certificate)
        alfa.secret = SECRET if is_secret else "another-secret-entirely"
        alfa.make()
        alfa.watch(beta)
        await alfa.links.start()
        try:
            await until(lambda: alfa.status(beta).state in ("up", "refused"), 20)
            status = alfa.status(beta)
            assert has_link(beta, alfa) is (status.state == "up")
            return status.code or status.state
        finally:
            await alfa.links.stop()

    async def story() -> None:
        beta.watch()
        await beta.links.start()
        try:
            for case in CASES:
                got_in[case] = await attempt(*case)
        finally:
            await beta.links.stop()

    asyncio.run(story())
    assert got_in == {
        (True, True): "up",
        (True, False): "wrong_secret",
        (False, True): "unknown_key",
        (False, False): "unknown_key",
    }


@pytest.fixture(scope="module")
def database(mongod_path: Path) -> Iterator[list[Mongod]]:
    with mongods(2, shared_key=False) as made:
        make_right(own_target(made[0].paths, "127.0.0.1", made[0].port), PASSWORD)
        yield made


def test_X2_of_four_cases_on_mongodb_exactly_one_gets_in(
    database: list[Mongod], tmp_path: Path
) -> None:
    server, client = database
    stranger = node_paths({"CONTROLONE_STATE_DIR": str(tmp_path / "stranger")})
    identity = ensure_identity(stranger, client.name)
    pem = tmp_path / "stranger.pem"
    pem.write_text(stranger.key_file.read_text() + identity.certificate)
    right = peer_target(client.paths, server.name, "127.0.0.1", server.port, PASSWORD)
    assert right is not None
    got_in = {}
    for is_key, is_secret in CASES:
        target = right if is_key else replace(right, certificate_key_file=str(pem))
        target = target if is_secret else replace(target, password="another")
        with open_client(target, own=False) as connection:
            try:
                connection["controlone_ha"]["versions"].find_one()
                got_in[is_key, is_secret] = True
            except PyMongoError:
                got_in[is_key, is_secret] = False
    assert got_in == {case: case == (True, True) for case in CASES}
    for target in (replace(right, ca_file=str(pem)), replace(right, certificate_key_file="")):
        # The server's certificate is not the pinned one; a client without a certificate.
        with (
            open_client(target, own=False) as connection,
            pytest.raises(PyMongoError),
        ):
            connection["controlone_ha"]["versions"].find_one()


def test_X2_a_pinned_certificate_whose_time_is_over_does_not_open_the_database(
    database: list[Mongod], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client = database
    late = node_paths({"CONTROLONE_STATE_DIR": str(tmp_path / "late")})
    monkeypatch.setattr(keys, "_NOT_AFTER", datetime.datetime(1999, 12, 31))
    identity = ensure_identity(late, "late")
    pem = tmp_path / "late.pem"
    pem.write_text(late.key_file.read_text() + identity.certificate)
    right = peer_target(client.paths, server.name, "127.0.0.1", server.port, PASSWORD)
    assert right is not None
    write_files(server.paths, {client.name: client.certificate, "late": identity.certificate})
    own = own_target(server.paths, "127.0.0.1", server.port)
    try:
        with open_client(own, own=True) as connection:
            rotate_certificates(connection)
        with open_client(right, own=False) as connection:
            connection["controlone_ha"]["versions"].find_one()
        expired = replace(right, certificate_key_file=str(pem))
        with open_client(expired, own=False) as connection, pytest.raises(PyMongoError):
            connection["controlone_ha"]["versions"].find_one()
    finally:
        write_files(server.paths, {client.name: client.certificate})
        with open_client(own, own=True) as connection:
            rotate_certificates(connection)


def test_X2_the_secret_is_not_in_the_database(database: list[Mongod]) -> None:
    server = database[0]
    own = own_target(server.paths, "127.0.0.1", server.port)
    with open_client(own, own=True) as client:
        names = client.list_database_names()
        assert {"admin", "local"} <= set(names)
        for name in names:
            for collection in client[name].list_collection_names():
                if name == "local" and collection != "oplog.rs":
                    continue
                try:
                    content = repr(list(client[name][collection].find().limit(5000)))
                except PyMongoError:
                    continue  # system collections that nobody may read
                assert PASSWORD not in content and own.password not in content
