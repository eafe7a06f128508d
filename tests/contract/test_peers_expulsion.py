"""A key that is expelled at one node is out at every node, at once and for ever, over real SSH."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from functools import partial

import pytest

from controlone_ha.peers import keys
from controlone_ha.peers.trust import TrustStore
from tests.contract.peers_support import SERVERS, Node, all_up, has_link, nodes, slack
from tests.waiting import until

pytestmark = pytest.mark.contract


@pytest.fixture(params=SERVERS)
def four(request: pytest.FixtureRequest) -> Iterator[list[Node]]:
    """Four paired nodes; their SSH servers run."""
    with nodes("alfa", "beta", "gama", "zulu", kind=request.param) as made:
        yield made


def expel(at: Node, name: str) -> None:
    """What `ha unpair` does: another process writes, the daemon notices by itself."""
    assert TrustStore(at.paths.pins_file).expel(name, node=at.name, by="root", why="stolen")


def knows(node: Node, name: str) -> bool:
    """Tell whether the node's pins or its SSH server know a node of that name."""
    lines = node.server.authorized_keys.read_text()
    return name in TrustStore(node.paths.pins_file).pins() or f"controlone-ha:{name}" in lines


def test_X1_an_expelled_node_is_dropped_by_all_within_seconds_and_cannot_come_back(
    four: list[Node],
) -> None:
    alfa, beta, gama, stolen = four
    told: list[str] = []

    async def story() -> None:
        beta.make(on_expelled=lambda record: told.append(f"{record.name} {record.why}"))
        awake = [alfa, beta, stolen]  # gama is switched off while it happens
        for node in four:
            node.watch(*(other for other in four if other is not node))
        try:
            for node in awake:
                await node.links.start()
            await all_up(awake)
            began = time.monotonic()
            expel(alfa, "zulu")
            for node in (alfa, beta):
                await until(lambda node=node: not knows(node, "zulu"), 10)  # type: ignore[misc]
                await until(lambda node=node: not has_link(node, stolen), 10)  # type: ignore[misc]
            assert time.monotonic() - began < 3.0 * slack()
            assert told == ["zulu stolen"]
            await until(lambda: beta.status(stolen).code == "expelled")
            # It has every key and the secret, and knocks again and again.
            await until(lambda: stolen.status(alfa).code == "unknown_key", 15)
            # A node that was away still trusts it, hears of it, and then does not.
            await gama.links.start()
            await until(lambda: not knows(gama, "zulu"), 30)
            await all_up([alfa, beta, gama])
            await until(lambda: not has_link(gama, stolen), 10)
            for node in (alfa, beta, gama):
                assert not knows(node, "zulu") and not has_link(node, stolen)
        finally:
            await asyncio.gather(*(node.links.stop() for node in four))

    asyncio.run(story())


def test_X1_a_dead_node_is_replaced_under_the_same_name_with_new_keys(four: list[Node]) -> None:
    alfa, beta, _, old = four

    async def story() -> None:
        for node in (alfa, beta):
            node.watch(*(other for other in (alfa, beta, old) if other is not node))
            await node.links.start()
        old.watch(alfa, beta)
        try:
            await all_up([alfa, beta])
            expel(alfa, "zulu")
            await until(lambda: not knows(beta, "zulu"), 10)
            dead = old.identity
            old.identity = keys.renew_identity(old.paths, "zulu")
            assert old.identity.key_fingerprint != dead.key_fingerprint
            old.make()
            old.watch(alfa, beta)
            alfa.trust(old)  # one administrator pairs it with one node
            await old.links.start()
            for node in (alfa, beta):
                await until(partial(has_link, node, old), 30)
            pinned = TrustStore(beta.paths.pins_file).pins()["zulu"]
            assert pinned.key_fingerprint == old.identity.key_fingerprint
            revoked = TrustStore(old.paths.pins_file).revoked
            await until(lambda: dead.key_fingerprint in revoked(), 10)
        finally:
            await asyncio.gather(*(node.links.stop() for node in (alfa, beta, old)))

    asyncio.run(story())
