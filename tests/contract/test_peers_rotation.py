"""X1: a node changes its key while its links stay up, on real SSH servers."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from controlone_ha.errors import RefusedError, TrustError
from controlone_ha.paths import NodePaths
from controlone_ha.peers import changing, rotation
from controlone_ha.peers.keys import ensure_identity
from controlone_ha.peers.trust import TrustStore
from controlone_ha.server.book import ConsoleBook
from controlone_ha.server.control import NodeAccess
from controlone_ha.sync.database.files import database_files, write_files
from tests.contract.peers_support import Node, all_up, nodes
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("sshd_path", "dropbear_path")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changing, "SETTLE", 0.5)


def begin(node: Node) -> rotation.Rotation:
    """What `ha keys rotate` does."""
    now = time.time()
    return rotation.begin(node.paths, node.name, now=now, until=now + 600.0)


def let_time_pass(node: Node) -> None:
    """End the time for which the old key counts."""
    file = node.paths.state_dir / rotation.STATE
    state = {**json.loads(file.read_text()), "until": time.time()}
    file.with_suffix(".new").write_text(json.dumps(state))
    file.with_suffix(".new").replace(file)


def accepted(at: Node, of: Node) -> tuple[str, ...]:
    """The keys of one node that count at another one."""
    pin = TrustStore(at.paths.pins_file).pins().get(of.name)
    return pin.key_fingerprints if pin is not None else ()


def lines_of(at: Node, of: Node) -> list[str]:
    text = at.server.authorized_keys.read_text()
    return [line for line in text.splitlines() if line.endswith(f"controlone-ha:{of.name}")]


async def started(*made: Node, others: Callable[[Node], list[Node]]) -> None:
    for node in made:
        node.watch(*others(node))
        await node.links.start()


async def stopped(*made: Node) -> None:
    for node in made:
        await node.links.stop()


@pytest.mark.parametrize("kind", ["openssh", pytest.param("dropbear", marks=pytest.mark.slow)])
def test_X1_a_node_changes_its_key_and_no_link_is_lost(kind: str) -> None:
    async def run(alfa: Node, beta: Node) -> None:
        old = alfa.identity.key_fingerprint
        await started(alfa, beta, others=lambda node: [beta if node is alfa else alfa])
        try:
            await all_up([alfa, beta])
            new = begin(alfa).other.key_fingerprint
            with pytest.raises(RefusedError):
                begin(alfa)
            # The peer hears of it while the old key is in use, and accepts both.
            await until(lambda: set(accepted(beta, alfa)) == {old, new})
            await until(lambda: len(lines_of(beta, alfa)) == 2)
            await until(lambda: alfa.links.own_pin().key_fingerprint == new)
            await until(lambda: accepted(beta, alfa) == (new, old))
            assert not alfa.handler.downs and not beta.handler.downs
            # A link that is made now is made with the new key, by whichever end.
            for end, other in ((alfa, beta), (beta, alfa)):
                before = len(other.handler.ups)
                link = end.links.link(other.name)
                assert link is not None
                await link.close("a test", "closed")
                ups = other.handler.ups
                await until(lambda ups=ups, before=before: len(ups) > before)  # type: ignore[misc]
                await all_up([alfa, beta])
            established = beta.links.link("alfa")
            assert established is not None and established.established.key == new
            lost = len(alfa.handler.downs) + len(beta.handler.downs)
            # The time of the old key ends: it counts nowhere, and nothing else happens.
            let_time_pass(alfa)
            await until(lambda: accepted(beta, alfa) == (new,))
            await until(lambda: len(lines_of(beta, alfa)) == 1)
            await until(lambda: alfa.links.other_identity is None)
            assert not (alfa.paths.state_dir / "previous.key").exists()
            assert len(alfa.handler.downs) + len(beta.handler.downs) == lost
            assert not beta.links.conflicts() and not alfa.links.conflicts()
        finally:
            await stopped(alfa, beta)

    with nodes("alfa", "beta", kind=kind) as (alfa, beta):
        asyncio.run(run(alfa, beta))


def test_X1_a_peer_that_was_away_is_reached_with_the_old_key_and_learns_the_new_one() -> None:
    async def run(alfa: Node, beta: Node) -> None:
        begin(alfa)
        rotation.use(alfa.paths)  # half of the time has passed without the peer
        new = ensure_identity(alfa.paths, "alfa").key_fingerprint
        await started(alfa, beta, others=lambda node: [beta if node is alfa else alfa])
        try:
            await all_up([alfa, beta])
            await until(lambda: accepted(beta, alfa)[:1] == (new,))
        finally:
            await stopped(alfa, beta)

    with nodes("alfa", "beta", kind="openssh") as (alfa, beta):
        asyncio.run(run(alfa, beta))


def test_X1_expelling_a_node_amid_a_change_of_its_key_expels_both_and_what_follows() -> None:
    async def run(alfa: Node, beta: Node) -> None:
        old = alfa.identity.key_fingerprint
        await started(alfa, beta, others=lambda node: [beta if node is alfa else alfa])
        try:
            await all_up([alfa, beta])
            new = begin(alfa).other.key_fingerprint
            await until(lambda: set(accepted(beta, alfa)) == {old, new})
            store = TrustStore(beta.paths.pins_file)
            pin = store.pins()["alfa"]
            assert store.expel("alfa", node="beta", by="tests", why="stolen") is not None
            assert {old, new} == set(store.revoked())
            beta.links.check_trust()
            await until(lambda: beta.links.link("alfa") is None)
            await until(lambda: lines_of(beta, alfa) == [])
            with pytest.raises(TrustError, match="expelled"):
                store.pin(pin)
        finally:
            await stopped(alfa, beta)

    with nodes("alfa", "beta", kind="openssh") as (alfa, beta):
        asyncio.run(run(alfa, beta))


# -- everybody else who pins a node ----------------------------------------------------------------


@pytest.fixture
def paths(tmp_path: Path) -> NodePaths:
    made = NodePaths(
        config_dir=tmp_path, save_dir=tmp_path, state_dir=tmp_path / "state", run_dir=tmp_path
    )
    ensure_identity(made, "alfa")
    return made


def test_the_database_takes_both_certificates_while_the_key_changes(paths: NodePaths) -> None:
    files = database_files(paths)
    old = ensure_identity(paths, "alfa").certificate
    write_files(paths, {})
    new = rotation.begin(paths, "alfa", now=1.0, until=9.0).other.certificate
    assert write_files(paths, {"beta": old})
    assert new in files.pins.read_text() and old in files.pins.read_text()
    assert files.node.read_text().endswith(old)
    rotation.use(paths)
    assert write_files(paths, {"beta": old})
    assert files.node.read_text().endswith(new) and old in files.pins.read_text()
    rotation.end(paths)
    assert write_files(paths, {})
    assert old not in files.pins.read_text()


def test_consoles_are_told_the_next_certificate_under_a_name_they_do_not_know(
    paths: NodePaths,
) -> None:
    own = ensure_identity(paths, "alfa")
    book = ConsoleBook(paths.state_dir / "consoles.json", is_required=True)
    access = NodeAccess(book, paths.pins_file, paths.certificate_file, "alfa", paths)
    assert access.pins() == [("alfa", own.certificate_sha256)]
    following = rotation.begin(paths, "alfa", now=1.0, until=9.0).other.certificate_sha256
    assert len(access.known()) == 2
    name = f"alfa.{following[:8]}"
    assert access.pins() == [("alfa", own.certificate_sha256), (name, following)]
    rotation.use(paths)
    access.known()
    assert access.own_pin == following
    rotation.end(paths)
    access.known()
    assert access.pins() == [("alfa", following)]


@pytest.mark.parametrize("renamed", [1, 2])
def test_a_change_that_a_crash_interrupts_is_completed(
    paths: NodePaths, renamed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power fails after the key, or after the certificate, has been put in place."""
    following = rotation.begin(paths, "alfa", now=1.0, until=9.0).other.key_fingerprint
    last = ensure_identity(paths, "alfa").key_fingerprint
    real, done = os.replace, []

    def failing(source: object, target: object) -> None:
        if str(target) in (str(paths.key_file), str(paths.certificate_file)):
            done.append(target)
            if len(done) > renamed:
                raise KeyboardInterrupt
        real(source, target)  # type: ignore[arg-type]
        if len(done) == renamed:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", failing)
        rotation.use(paths)
    assert ensure_identity(paths, "alfa").key_fingerprint == following
    found = rotation.load(paths)
    assert found is not None and found.phase == rotation.USED
    assert found.other.key_fingerprint == last
    assert rotation.former_keys(paths) == (last,)
    state = json.loads((paths.state_dir / rotation.STATE).read_text())
    assert state == {"phase": "used", "since": 1.0, "until": 9.0}
