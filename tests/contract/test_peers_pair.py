"""Pairing over real SSH logins and by carried offers, and the spread of trust over links."""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controlone_ha.errors import RefusedError, TrustError
from controlone_ha.peers import hostkeys, keys
from controlone_ha.peers.links import PeerLinks
from controlone_ha.peers.pair import (
    HostKeyQuestion,
    Login,
    OwnSide,
    Paired,
    describe_offer,
    export_offer,
    import_offer,
    pair_with,
    parse_target,
)
from controlone_ha.peers.trust import TrustStore
from tests.contract.peers_support import SERVERS, Node, all_up, has_link, nodes
from tests.waiting import until

pytestmark = pytest.mark.contract
ROOT = Path(__file__).parents[2]


def own_side(node: Node) -> OwnSide:
    return OwnSide(
        name=node.name,
        paths=node.paths,
        authorized_keys=str(node.server.authorized_keys),
        addresses=("127.0.0.1",),
        ssh_port=node.server.port,
        own_host_keys=lambda: node.server.host_keys,
    )


def accept_command(node: Node) -> str:
    arguments = {
        "name": node.name,
        "state": str(node.paths.state_dir),
        "run": str(node.paths.run_dir),
        "authorized_keys": str(node.server.authorized_keys),
        "port": node.server.port,
        "host_keys": node.server.host_keys,
    }
    words = [sys.executable, "-m", "tests.contract.peers_accept", json.dumps(arguments)]
    return f"cd {shlex.quote(str(ROOT))} && {shlex.join(words)}"


class Administrator:
    """A person with a key that the node's root accepts."""

    def __init__(self, directory: Path) -> None:
        self.home = directory / "admin"
        (self.home / ".ssh").mkdir(parents=True)
        self.key = self.home / ".ssh" / "id_ed25519"
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)]
        subprocess.run(make, check=True)
        self.asked: list[HostKeyQuestion] = []

    def may_enter(self, node: Node) -> None:
        with node.server.authorized_keys.open("a") as file:
            file.write(Path(f"{self.key}.pub").read_text())

    def login(self, *, yes: bool = True, **options: object) -> Login:
        def confirm(question: HostKeyQuestion) -> bool:
            self.asked.append(question)
            return yes

        return replace(
            Login(confirm=confirm, use_agent=False, home=self.home),
            **options,  # type: ignore[arg-type]
        )


@pytest.fixture(params=SERVERS)
def unpaired(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[Node, Node, Administrator]]:
    """Two nodes that do not know each other, and who may log in to both."""
    with nodes("alfa", "beta", kind=request.param, paired=False) as (alfa, beta):
        administrator = Administrator(tmp_path)
        administrator.may_enter(alfa)
        administrator.may_enter(beta)
        yield alfa, beta, administrator


def pair(one: Node, other: Node, login: Login) -> Paired:
    target = f"root@127.0.0.1:{other.server.port}"
    return pair_with(target, own_side(one), login, command=accept_command(other))


class TestPairing:
    def test_X1_one_command_makes_two_running_nodes_link(
        self, unpaired: tuple[Node, Node, Administrator]
    ) -> None:
        alfa, beta, administrator = unpaired

        async def story() -> None:
            for node, other in ((alfa, beta), (beta, alfa)):
                node.watch(other)
                await node.links.start()
            try:
                await until(lambda: alfa.status(beta).state == "unpaired")
                paired = await asyncio.to_thread(pair, alfa, beta, administrator.login())
                assert paired.peer.name == "beta"
                assert paired.peer.key_fingerprint == beta.identity.key_fingerprint
                assert paired.replaced is None
                await all_up([alfa, beta])
            finally:
                await alfa.links.stop()
                await beta.links.stop()

        asyncio.run(story())
        (question,) = administrator.asked
        assert question.fingerprint in [keys.ssh_fingerprint(k) for k in beta.server.host_keys]
        for node, other in ((alfa, beta), (beta, alfa)):
            pin = TrustStore(node.paths.pins_file).pins()[other.name]
            assert pin.certificate_sha256 == other.identity.certificate_sha256
            assert set(pin.host_keys) == set(other.server.host_keys)
            assert pin.addresses[0] == "127.0.0.1"
            lines = node.server.authorized_keys.read_text()
            assert f"controlone-ha:{other.name}" in lines
            assert Path(f"{administrator.key}.pub").read_text() in lines, "the login is kept"

    def test_X1_an_unconfirmed_host_key_ends_it_and_nothing_is_pinned(
        self, unpaired: tuple[Node, Node, Administrator]
    ) -> None:
        alfa, beta, administrator = unpaired
        with pytest.raises(TrustError, match="was not confirmed"):
            pair(alfa, beta, administrator.login(yes=False))
        with pytest.raises(TrustError, match=r"expected SHA256:none"):
            pair(alfa, beta, administrator.login(fingerprint="SHA256:none"))
        for node in (alfa, beta):
            assert TrustStore(node.paths.pins_file).pins() == {}
        shown = administrator.asked[0].fingerprint
        assert pair(alfa, beta, administrator.login(yes=False, fingerprint=shown)).peer
        assert len(administrator.asked) == 1

    def test_a_known_host_is_not_asked_about_and_a_changed_one_is_refused(
        self, unpaired: tuple[Node, Node, Administrator]
    ) -> None:
        alfa, beta, administrator = unpaired
        known = administrator.home / ".ssh" / "known_hosts"
        known.write_text(f"[127.0.0.1]:{beta.server.port} {beta.server.host_keys[0]}\n")
        assert pair(alfa, beta, administrator.login(yes=False)).peer.name == "beta"
        TrustStore(alfa.paths.pins_file).unpin("beta")
        other = beta.server.host_keys[0].split()[0]
        mine = next(k for k in alfa.server.host_keys if k.split()[0] == other)
        known.write_text(f"[127.0.0.1]:{beta.server.port} {mine}\n")
        with pytest.raises(TrustError, match="if it was set up anew"):
            pair(alfa, beta, administrator.login(yes=True))
        assert administrator.asked == []

    def test_a_login_that_is_not_accepted_is_told(
        self, unpaired: tuple[Node, Node, Administrator], tmp_path: Path
    ) -> None:
        alfa, beta, _ = unpaired
        stranger = Administrator(tmp_path / "stranger")
        with pytest.raises(TrustError, match="does not let root in"):
            pair(alfa, beta, stranger.login())

    def test_a_peer_without_the_command_is_told(
        self, unpaired: tuple[Node, Node, Administrator]
    ) -> None:
        alfa, beta, administrator = unpaired
        with pytest.raises(TrustError, match="is controlone-ha installed there"):
            pair_with(
                f"127.0.0.1:{beta.server.port}",
                own_side(alfa),
                administrator.login(),
                command="/nonexistent/ha pair-accept",
            )

    def test_two_nodes_of_the_same_name_are_refused(
        self, unpaired: tuple[Node, Node, Administrator]
    ) -> None:
        alfa, beta, administrator = unpaired
        alfa.name = "beta"
        with pytest.raises(TrustError, match="give each node its own name"):
            pair(alfa, beta, administrator.login())

    def test_pairing_anew_replaces_and_says_so(
        self, unpaired: tuple[Node, Node, Administrator]
    ) -> None:
        alfa, beta, administrator = unpaired
        pair(alfa, beta, administrator.login())
        before = alfa.identity.key_fingerprint
        for file in (alfa.paths.key_file, alfa.paths.certificate_file):
            file.unlink()
        paired = pair(alfa, beta, administrator.login())
        assert paired.replaced is None
        assert "replaced the key of alfa" in paired.said
        now = TrustStore(beta.paths.pins_file).pins()["alfa"].key_fingerprint
        assert now != before
        assert beta.server.authorized_keys.read_text().count("controlone-ha:alfa") == 1


class TestOffers:
    def test_X1_offers_carried_by_hand_pair_when_the_fingerprints_match(
        self, unpaired: tuple[Node, Node, Administrator]
    ) -> None:
        alfa, beta, _ = unpaired
        for one, other in ((alfa, beta), (beta, alfa)):
            text, fingerprint = export_offer(own_side(one))
            shown, computed = describe_offer(text)
            assert (shown.name, computed) == (one.name, fingerprint)
            assert import_offer(text, own_side(other), fingerprint=fingerprint).peer.name

        async def story() -> None:
            alfa.watch(beta)
            await alfa.links.start()
            await beta.links.start()
            try:
                await all_up([alfa, beta])
            finally:
                await alfa.links.stop()
                await beta.links.stop()

        asyncio.run(story())

    def test_X1_a_changed_offer_is_refused(
        self, unpaired: tuple[Node, Node, Administrator]
    ) -> None:
        alfa, beta, _ = unpaired
        text, fingerprint = export_offer(own_side(alfa))
        fields = json.loads(text)
        fields["node"]["host_keys"] = list(beta.server.host_keys)
        with pytest.raises(TrustError, match="changed on its way"):
            import_offer(json.dumps(fields), own_side(beta), fingerprint=fingerprint)
        for broken in ("", "{}", "[]", '{"controlone_pair": 2}', "x" * 70000):
            with pytest.raises(TrustError):
                import_offer(broken, own_side(beta), fingerprint=fingerprint)
        with pytest.raises(RefusedError, match="same key"):
            import_offer(text, own_side(alfa), fingerprint=fingerprint)
        assert TrustStore(beta.paths.pins_file).pins() == {}


class TestIntroduction:
    def test_X1_pairing_with_one_node_introduces_the_others(self) -> None:
        with nodes("alfa", "beta", "gama", "delta", kind="openssh", paired=False) as made:
            alfa, beta, gama, delta = made
            for one, other in ((alfa, beta), (beta, gama), (gama, delta)):
                one.trust(other)
                other.trust(one)

            async def story() -> None:
                for node in made:
                    # By name alone: the addresses come with the introduction.
                    node.links.configure(
                        [replace(o.address(), host=None, port=None) for o in made if o is not node],
                        heartbeat=0.2,
                        timeout=2.0,
                    )
                    await node.links.start()
                try:
                    await all_up(made)
                    for node in made:
                        assert len(node.links.trust.pins()) == 3
                        assert node.links.conflicts() == ()
                finally:
                    for node in made:
                        await node.links.stop()

            asyncio.run(story())

    def test_X1_an_introduction_never_replaces_a_key(self) -> None:
        with nodes("alfa", "beta", "gama", kind="openssh", paired=False) as made:
            alfa, beta, gama = made
            alfa.trust(beta)
            beta.trust(alfa)
            beta.trust(gama)
            # alfa has pinned another key under the name of gama.
            stranger = replace(beta.pin(), name="gama")
            other = keys.ensure_identity(
                replace(alfa.paths, state_dir=alfa.directory / "other"), "gama"
            )
            stranger = replace(stranger, public_key=other.public_key, certificate=other.certificate)
            TrustStore(alfa.paths.pins_file).pin(stranger)
            changes: list[PeerLinks] = []

            async def story() -> None:
                alfa.make(on_trust_changed=lambda: changes.append(alfa.links))
                alfa.watch(beta)
                await alfa.links.start()
                await beta.links.start()
                try:
                    await all_up([alfa, beta])
                    await until(alfa.links.conflicts)
                    (conflict,) = alfa.links.conflicts()
                    assert gama.identity.key_fingerprint in conflict
                    pinned = alfa.links.trust.pins()["gama"]
                    assert pinned.key_fingerprint == other.key_fingerprint
                    TrustStore(alfa.paths.pins_file).unpin("gama")
                    await until(lambda: changes)
                    assert alfa.links.conflicts() == (), "settled by a person"
                finally:
                    await alfa.links.stop()
                    await beta.links.stop()

            asyncio.run(story())

    def test_an_unpinned_node_loses_its_link_and_its_line(self) -> None:
        with nodes("alfa", "beta", kind="openssh") as (alfa, beta):

            async def story() -> None:
                beta.watch(alfa)
                await alfa.links.start()
                await beta.links.start()
                try:
                    await all_up([alfa, beta])
                    TrustStore(alfa.paths.pins_file).unpin("beta")
                    alfa.links.check_trust()
                    await until(lambda: not has_link(alfa, beta))
                    await until(lambda: beta.status(alfa).code == "unknown_key")
                    assert "controlone-ha:beta" not in alfa.server.authorized_keys.read_text()
                finally:
                    await alfa.links.stop()
                    await beta.links.stop()

            asyncio.run(story())


class TestOwnHostKeys:
    @pytest.mark.parametrize("kind", SERVERS)
    def test_a_server_is_asked_for_each_of_its_keys(self, kind: str) -> None:
        with nodes("alfa", kind=kind, paired=False) as (alfa,):
            found = hostkeys.own_host_keys(alfa.server.port)
            assert set(found) == set(alfa.server.host_keys)

    def test_a_silent_server_gives_no_keys(self) -> None:
        with nodes("alfa", kind="openssh", paired=False) as (alfa,):
            alfa.server.stop()
            assert hostkeys.ask_all("127.0.0.1", alfa.server.port, timeout=1) == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("beta", ("root", "beta", 22)),
        ("admin@192.0.2.1:2222", ("admin", "192.0.2.1", 2222)),
        ("admin@[2001:db8::1]:2222", ("admin", "2001:db8::1", 2222)),
        ("2001:db8::1", ("root", "2001:db8::1", 22)),
        ("admin@2001:db8::1", ("admin", "2001:db8::1", 22)),
    ],
)
def test_targets_are_read_as_ssh_reads_them(text: str, expected: tuple[str, str, int]) -> None:
    target = parse_target(text)
    assert (target.user, target.host, target.port) == expected


@pytest.mark.parametrize("text", ["", "a b", "a@b@c", "a:0", "a:99999", "@host", "host:"])
def test_what_is_no_target_is_told(text: str) -> None:
    with pytest.raises(TrustError, match="expected"):
        parse_target(text)
