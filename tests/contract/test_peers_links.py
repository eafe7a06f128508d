"""Links between nodes through real SSH servers: how they come up, carry, fail and end."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controlone_ha.errors import PeerError, RefusedError
from controlone_ha.paths import node_paths
from controlone_ha.peers import keys
from controlone_ha.peers.bodies import WINDOW_START
from controlone_ha.peers.facts import key_id
from controlone_ha.peers.model import Outgoing, RemoteError
from controlone_ha.peers.secret import PreviousKeys, cluster_keys, save_previous
from controlone_ha.peers.trust import TrustStore
from tests.contract.peers_support import (
    SECRET,
    SERVERS,
    DaemonProcess,
    Node,
    Proxy,
    all_up,
    has_link,
    nodes,
    slack,
)
from tests.waiting import freeze, until

pytestmark = pytest.mark.contract


@pytest.fixture(params=SERVERS)
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Node, Node]]:
    """Two paired nodes; their SSH servers run."""
    with nodes("alfa", "beta", kind=request.param) as (alfa, beta):
        yield alfa, beta


async def start(*made: Node, heartbeat: float = 0.2, timeout: float = 2.0) -> None:
    for node in made:
        node.watch(*(o for o in made if o is not node), heartbeat=heartbeat, timeout=timeout)
        await node.links.start()


def _proven_by(node: Node, other: Node, secret: str) -> bool:
    link = node.links.link(other.name)
    return link is not None and link.established.secret_id == key_id(cluster_keys(secret).link)


async def stop(*made: Node) -> None:
    for node in made:
        await node.links.stop()


def running(*made: Node, **options: Any) -> Any:
    """Return an asynchronous context in which ``made`` run with links up between all."""

    class Running:
        async def __aenter__(self) -> None:
            # One dialer a pair: no link is replaced under a test's hands.
            for number, node in enumerate(made):
                node.watch(*made[number + 1 :], **options)
                await node.links.start()
            try:
                await all_up(made)
            except BaseException:
                await stop(*made)
                raise

        async def __aexit__(self, *exception: object) -> None:
            await stop(*made)

    return Running()


class TestLinkUp:
    def test_X1_paired_nodes_link_and_ask_each_other(self, pair: tuple[Node, Node]) -> None:
        alfa, beta = pair

        async def story() -> None:
            async with running(alfa, beta):
                there = alfa.links.link("beta")
                back = beta.links.link("alfa")
                assert there is not None and back is not None
                assert await there.request("see", {"peer": "gama"}, timeout=5) == {
                    "method": "see",
                    "params": {"peer": "gama"},
                }
                assert (await back.request("ok", {}, timeout=5))["method"] == "ok"
                there.notify("state", {"role": "master"})
                await until(lambda: beta.handler.notices)
                assert beta.handler.notices == [("alfa", "state", {"role": "master"})]
                assert {there.direction, back.direction} == {"dialed", "accepted"}
                assert alfa.status(beta).state == beta.status(alfa).state == "up"

        asyncio.run(story())

    def test_heartbeats_measure_round_trip_and_skew(self, pair: tuple[Node, Node]) -> None:
        alfa, beta = pair

        async def story() -> None:
            async with running(alfa, beta):
                await until(lambda: alfa.handler.heartbeats > 8 and beta.handler.heartbeats > 8)
                for status in (alfa.status(beta), beta.status(alfa)):
                    assert status.rtt_ms is not None and 0 < status.rtt_ms < 200 * slack()
                    assert status.skew_ms is not None and abs(status.skew_ms) < 200 * slack()

        asyncio.run(story())

    def test_simultaneous_starts_leave_one_link_per_pair(self, pair: tuple[Node, Node]) -> None:
        alfa, beta = pair

        async def story() -> None:
            for node, other in ((alfa, beta), (beta, alfa)):
                node.watch(other)
            await asyncio.gather(alfa.links.start(), beta.links.start())
            try:
                await all_up([alfa, beta])
                await until(lambda: len(beta.server.sessions() + alfa.server.sessions()) <= 2)
                one, two = alfa.links.link("beta"), beta.links.link("alfa")
                assert one is not None and two is not None
                assert one.established.link_id == two.established.link_id
                await asyncio.sleep(1.0)
                assert alfa.links.link("beta") is one, "it stays"
                assert beta.links.link("alfa") is two
            finally:
                await stop(alfa, beta)

        asyncio.run(story())

    def test_C2_a_paired_peer_that_our_list_does_not_name_is_served(
        self, pair: tuple[Node, Node]
    ) -> None:
        alfa, beta = pair

        async def story() -> None:
            alfa.watch()
            beta.watch(alfa)
            await alfa.links.start()
            await beta.links.start()
            try:
                await all_up([alfa, beta])
                assert alfa.status(beta).direction == "accepted"
                assert [link.peer for link in alfa.links.links()] == ["beta"]
            finally:
                await stop(alfa, beta)

        asyncio.run(story())

    def test_a_peer_configured_by_address_is_known_by_its_name(
        self, pair: tuple[Node, Node]
    ) -> None:
        alfa, beta = pair

        async def story() -> None:
            # Two nodes share 127.0.0.1 here, so beta gets an address of its own in the pins.
            pin = replace(beta.pin(), addresses=("127.0.0.2", "127.0.0.1"))
            TrustStore(alfa.paths.pins_file).pin(pin)
            alfa.links.configure(
                [replace(beta.address(), name="127.0.0.2")], heartbeat=0.2, timeout=2.0
            )
            await alfa.links.start()
            await beta.links.start()
            try:
                await until(lambda: alfa.links.link("127.0.0.2") is not None)
                assert alfa.links.name_of("127.0.0.2") == "beta"
                assert alfa.links.link("beta") is alfa.links.link("127.0.0.2")
                assert alfa.links.status("127.0.0.2").state == "up"
            finally:
                await stop(alfa, beta)

        asyncio.run(story())

    def test_nothing_is_left_behind_after_stop(self, pair: tuple[Node, Node]) -> None:
        alfa, beta = pair

        def open_files() -> int:
            gc.collect()
            return len(os.listdir("/proc/self/fd"))

        async def story() -> tuple[int, set[str]]:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, int)
            before = open_files()
            for _ in range(3):
                async with running(alfa, beta):
                    pass
                alfa.make()
                beta.make()
            await asyncio.sleep(0.1)
            left = {t.name for t in threading.enumerate() if not t.name.startswith("asyncio")}
            return open_files() - before, left

        more, left = asyncio.run(story())
        assert left == {"MainThread"}
        assert more <= 0
        assert not alfa.paths.peer_socket.exists()

    def test_a_second_daemon_of_the_same_node_is_refused(self, pair: tuple[Node, Node]) -> None:
        alfa, _ = pair

        async def story() -> None:
            await alfa.links.start()
            first = alfa.links
            try:
                with pytest.raises(RefusedError, match="another process"):
                    await alfa.make().start()
            finally:
                await alfa.links.stop()
                await first.stop()

        asyncio.run(story())


class TestRefusals:
    """A wrong key, secret, host key and version: four clear errors, on both sides, logged once."""

    def refused(
        self,
        made: tuple[Node, Node],
        code: str,
        caplog: pytest.LogCaptureFixture,
        *,
        seconds: float = 1.6,
        first_says: str = "",
    ) -> list[str]:
        """Let both nodes try for a while; return what each shows, once the first shows so much."""
        caplog.set_level(logging.INFO)

        async def story() -> list[str]:
            await start(*made)
            try:
                for node, other in (made, made[::-1]):
                    await until(lambda n=node, o=other: n.status(o).code == code)  # type: ignore[misc]
                await until(lambda: first_says in made[0].status(made[1]).sentence)
                await asyncio.sleep(seconds)
                for node, other in (made, made[::-1]):
                    assert node.status(other).state == "refused"
                    assert node.status(other).code == code
                    assert not has_link(node, other)
                    assert node.handler.ups == []
                return [made[0].status(made[1]).sentence, made[1].status(made[0]).sentence]
            finally:
                await stop(*made)

        sentences = asyncio.run(story())
        said = [record.getMessage() for record in caplog.records if "no link with" in record.msg]
        assert len(said) == len(set(said)), "a refusal is logged once"
        return sentences

    def test_X2_a_wrong_secret_is_refused(
        self, pair: tuple[Node, Node], caplog: pytest.LogCaptureFixture
    ) -> None:
        pair[1].secret = "123456"
        pair[1].make()
        for sentence in self.refused(pair, "wrong_secret", caplog):
            assert "alfa and beta have different secrets" in sentence
        assert "123456" not in caplog.text

    def test_X1_a_wrong_key_is_refused(
        self, pair: tuple[Node, Node], caplog: pytest.LogCaptureFixture
    ) -> None:
        beta = pair[1]
        for file in (beta.paths.key_file, beta.paths.certificate_file):
            file.unlink()
        new = keys.ensure_identity(beta.paths, "beta").key_fingerprint
        # alfa may dial before beta knows whom it lets in: then it hears of the new key next time.
        sentences = self.refused(pair, "unknown_key", caplog, first_says=new)
        assert all("ha pair" in sentence for sentence in sentences)
        assert "does not know this node's key" in caplog.text, "beta, dialing alfa"

    def test_X1_an_unknown_host_key_is_refused(
        self, pair: tuple[Node, Node], caplog: pytest.LogCaptureFixture
    ) -> None:
        alfa, beta = pair
        wrong = replace(beta.pin(), host_keys=alfa.server.host_keys)
        TrustStore(alfa.paths.pins_file).pin(wrong)
        for sentence in self.refused(pair, "unknown_host_key", caplog):
            assert "run `ha pair beta` on alfa" in sentence or "run `ha pair beta`" in sentence
            assert keys.ssh_fingerprint(alfa.server.host_keys[0]) in sentence

    def test_an_unspeakable_version_is_refused(
        self, pair: tuple[Node, Node], caplog: pytest.LogCaptureFixture
    ) -> None:
        pair[1].make(versions=(2, 3))
        for sentence in self.refused(pair, "version", caplog):
            assert "alfa speaks version 1 of the link" in sentence or (
                "beta speaks version 2 to 3 of the link, alfa version 1" in sentence
            )

    def test_overlapping_versions_link_with_the_highest_common(
        self, pair: tuple[Node, Node]
    ) -> None:
        pair[0].make(versions=(1, 2))
        pair[1].make(versions=(1, 4))

        async def story() -> None:
            async with running(*pair):
                link = pair[1].links.link("alfa")
                assert link is not None
                assert link.established.version == 2

        asyncio.run(story())

    def test_X1_a_node_that_is_not_paired_is_refused(
        self, pair: tuple[Node, Node], caplog: pytest.LogCaptureFixture
    ) -> None:
        alfa, beta = pair
        TrustStore(beta.paths.pins_file).unpin("alfa")

        async def story() -> None:
            await start(alfa, beta)
            try:
                await until(lambda: alfa.status(beta).code == "unknown_key")
                assert alfa.status(beta).state == "refused"
                assert beta.status(alfa).state == "unpaired"
                assert "ha pair alfa" in beta.status(alfa).sentence
                # Pairing is noticed without a restart.
                beta.trust(alfa)
                await all_up([alfa, beta])
            finally:
                await stop(alfa, beta)

        asyncio.run(story())

    def test_X1_a_link_ends_when_another_key_is_pinned_of_its_peer(
        self, pair: tuple[Node, Node], tmp_path: Path
    ) -> None:
        """What the old key has proven counts no more once an administrator has replaced it."""
        alfa, beta = pair
        store = TrustStore(alfa.paths.pins_file)
        right = store.pins()["beta"]
        other = keys.ensure_identity(node_paths({"CONTROLONE_STATE_DIR": str(tmp_path)}), "beta")
        wrong = replace(right, public_key=other.public_key, certificate=other.certificate)

        async def story() -> None:
            await start(alfa, beta)
            try:
                await all_up([alfa, beta])
                store.pin(wrong)
                await until(lambda: not has_link(alfa, beta))
                await until(lambda: alfa.status(beta).code == "unknown_key")
                await until(lambda: beta.status(alfa).code == "unknown_key")
                store.pin(right)
                await all_up([alfa, beta])
            finally:
                await stop(alfa, beta)

        asyncio.run(story())

    def test_a_right_secret_after_a_wrong_one_links(self, pair: tuple[Node, Node]) -> None:
        alfa, beta = pair
        right, beta.secret = beta.secret, "wrong"
        beta.make()

        async def story() -> None:
            await start(alfa, beta)
            try:
                await until(lambda: alfa.status(beta).code == "wrong_secret")
                await beta.links.set_secret(right)
                await all_up([alfa, beta])
                await beta.links.set_secret("wrong again")
                await until(lambda: not has_link(alfa, beta))
                await until(lambda: alfa.status(beta).code == "wrong_secret")
            finally:
                await stop(alfa, beta)

        asyncio.run(story())

    def test_X2_the_secret_changes_on_one_node_after_the_other_without_losing_a_link(
        self, pair: tuple[Node, Node]
    ) -> None:
        alfa, beta = pair
        fresh = "quite-Another-11-secret"

        async def story() -> None:
            async with running(alfa, beta):
                save_previous(alfa.paths.state_dir, SECRET, time.time() + 60)
                await alfa.links.set_secret(fresh)
                # A link that is made now is proven by the old one, whoever dials.
                for node in (alfa, beta):
                    link = node.links.link(alfa.name if node is beta else beta.name)
                    assert link is not None, "the link outlives the change"
                    await link.close("made anew")
                    await all_up([alfa, beta])
                save_previous(beta.paths.state_dir, SECRET, time.time() + 60)
                await beta.links.set_secret(fresh)
                assert has_link(alfa, beta) and has_link(beta, alfa)
                # Its time is over: what only the old one has proven is made anew by the new one.
                for node in (alfa, beta):
                    node.links._previous = PreviousKeys(link=bytes(32), until=0.0)
                await until(lambda: _proven_by(alfa, beta, fresh), 20)
                await until(lambda: _proven_by(beta, alfa, fresh), 20)

        asyncio.run(story())

    def test_a_node_without_daemon_is_told_so(self, pair: tuple[Node, Node]) -> None:
        alfa, beta = pair

        async def story() -> None:
            await beta.links.start()  # once, for authorized_keys
            await beta.links.stop()
            alfa.watch(beta)
            await alfa.links.start()
            try:
                await until(lambda: alfa.status(beta).code == "no_daemon")
                assert alfa.status(beta).sentence.startswith("ha is not running on beta")
                assert alfa.status(beta).state == "down"
                beta.make()
                await beta.links.start()
                await all_up([alfa, beta])
            finally:
                await stop(alfa, beta)

        asyncio.run(story())

    def test_a_node_without_ssh_server_is_unreachable(self, pair: tuple[Node, Node]) -> None:
        alfa, beta = pair
        beta.server.stop()

        async def story() -> None:
            alfa.watch(beta)
            await alfa.links.start()
            try:
                await until(lambda: alfa.status(beta).code == "unreachable")
                assert "Connection refused" in alfa.status(beta).sentence
            finally:
                await stop(alfa)

        asyncio.run(story())


class TestLinkDown:
    def test_F3_a_killed_daemon_is_noticed_at_once(self, pair: tuple[Node, Node]) -> None:
        """Whoever dialed: killed as acceptor (beta) and as dialer (alfa)."""
        for here, there in (pair, pair[::-1]):

            async def story(here: Node = here, there: Node = there) -> float:
                here.make()
                here.watch(there, timeout=10.0)
                await here.links.start()
                daemon = await asyncio.to_thread(DaemonProcess, there, here, timeout=10.0)
                try:
                    await until(lambda: has_link(here, there))
                    await asyncio.sleep(0.7)
                    here.handler.downs.clear()  # two dials at once may have replaced one another
                    killed = time.monotonic()
                    daemon.process.kill()
                    await until(lambda: here.handler.downs)
                    at, _, cause = here.handler.downs[-1]
                    assert cause.code in ("closed", "reset")
                    return at - killed
                finally:
                    daemon.stop()
                    await here.links.stop()

            assert asyncio.run(story()) < 0.1 * slack()

    def test_F3_a_killed_ssh_session_is_noticed_at_once_and_made_anew(
        self, pair: tuple[Node, Node]
    ) -> None:
        alfa, beta = pair

        async def story() -> None:
            async with running(alfa, beta, timeout=10.0):
                await asyncio.sleep(0.7)
                alfa.handler.downs.clear()
                beta.handler.downs.clear()
                killed = time.monotonic()
                for pid in beta.server.sessions():
                    os.kill(pid, signal.SIGKILL)
                await until(lambda: alfa.handler.downs and beta.handler.downs)
                (at, _, cause), (at_beta, _, cause_beta) = (
                    alfa.handler.downs[0],
                    beta.handler.downs[0],
                )
                assert cause.code == "reset"
                assert cause_beta.code == "closed"
                assert max(at, at_beta) - killed < 0.1 * slack()
                await all_up([alfa, beta])

        asyncio.run(story())

    def test_F3_a_frozen_peer_is_silent_after_the_timeout(self, pair: tuple[Node, Node]) -> None:
        alfa, beta = pair

        async def story() -> None:
            alfa.watch(beta, heartbeat=0.1, timeout=0.8)
            await alfa.links.start()
            daemon = await asyncio.to_thread(DaemonProcess, beta, alfa, heartbeat=0.1, timeout=0.8)
            try:
                await until(lambda: has_link(alfa, beta))
                await asyncio.sleep(0.5)
                frozen = time.monotonic()
                freeze(daemon.process.pid)
                alfa.handler.downs.clear()
                await until(lambda: alfa.handler.downs)
                at, _, cause = alfa.handler.downs[0]
                assert cause.code == "silent"
                assert 0.6 < at - frozen < 1.2 * slack()
                daemon.process.send_signal(signal.SIGCONT)
                await until(lambda: has_link(alfa, beta))
            finally:
                daemon.stop()
                await alfa.links.stop()

        asyncio.run(story())

    def test_a_restarted_peer_links_again_within_a_second(self, pair: tuple[Node, Node]) -> None:
        alfa, beta = pair

        async def story() -> float:
            async with running(alfa, beta):
                await beta.links.stop("restarting")
                await until(lambda: not has_link(alfa, beta))
                assert alfa.handler.downs[-1][2].goodbye == "stopping"
                assert "restarting" in alfa.status(beta).sentence or alfa.status(beta).code
                beta.make()
                beta.watch(alfa)
                began = time.monotonic()
                await beta.links.start()
                await all_up([alfa, beta])
                return time.monotonic() - began

        assert asyncio.run(story()) < 2.0 * slack()

    def test_a_frozen_peer_does_not_delay_the_others(self) -> None:
        with nodes("alfa", "beta", "gama", kind="openssh") as (alfa, beta, gama):

            async def story() -> list[float]:
                alfa.watch(beta, gama, timeout=30.0)
                gama.watch(timeout=30.0)
                await alfa.links.start()
                await gama.links.start()
                daemon = await asyncio.to_thread(DaemonProcess, beta, alfa, timeout=30.0)
                try:
                    await until(lambda: has_link(alfa, beta) and has_link(alfa, gama))
                    freeze(daemon.process.pid)
                    frozen, other = alfa.links.link("beta"), alfa.links.link("gama")
                    assert frozen is not None and other is not None
                    took = []
                    for _ in range(200):
                        frozen.notify("flood", {"x": "y" * 100_000})
                        began = time.monotonic()
                        await other.request("echo", {}, timeout=5)
                        took.append(time.monotonic() - began)
                    # 20 MB do not fit: only the frozen peer's own link pays.
                    assert [(d[1], d[2].code) for d in alfa.handler.downs] == [("beta", "silent")]
                    return sorted(took)
                finally:
                    daemon.stop()
                    await stop(alfa, gama)

            took = asyncio.run(story())
            assert took[len(took) // 2] < 0.05 * slack()


class TestLines:
    """What the line between the nodes does to a link: nothing depends on the server's kind."""

    @pytest.fixture
    def pair(self) -> Iterator[tuple[Node, Node]]:
        with nodes("alfa", "beta", kind="openssh") as (alfa, beta):
            yield alfa, beta

    @asynccontextmanager
    async def through_proxy(
        self, alfa: Node, beta: Node, *, rate: float = 0.0, timeout: float = 10.0
    ) -> AsyncIterator[Proxy]:
        """Link alfa to beta through a proxy; beta itself does not dial."""
        async with Proxy(beta.server.port, bytes_per_second=rate) as proxy:
            beta.watch(timeout=timeout)
            alfa.links.configure(
                [replace(beta.address(), port=proxy.port)], heartbeat=0.2, timeout=timeout
            )
            await alfa.links.start()
            await beta.links.start()
            try:
                await all_up([alfa, beta])
                yield proxy
            finally:
                await stop(alfa, beta)

    def test_F3_a_reset_connection_is_noticed_at_once(self, pair: tuple[Node, Node]) -> None:
        alfa, beta = pair

        async def story() -> None:
            async with self.through_proxy(alfa, beta) as proxy:
                await asyncio.sleep(0.3)
                began = time.monotonic()
                proxy.reset()
                await until(lambda: alfa.handler.downs and beta.handler.downs)
                at, _, cause = alfa.handler.downs[0]
                assert cause.code == "reset"
                assert "ECONNRESET" in cause.sentence
                assert at - began < 0.1 * slack()
                assert beta.handler.downs[0][0] - began < 0.1 * slack()
                await all_up([alfa, beta])

        asyncio.run(story())

    def test_F3_a_cut_line_is_silent_on_both_sides_after_the_timeout(
        self, pair: tuple[Node, Node]
    ) -> None:
        alfa, beta = pair

        async def story() -> None:
            async with self.through_proxy(alfa, beta, timeout=0.8) as proxy:
                await asyncio.sleep(0.3)
                began = time.monotonic()
                proxy.cut()
                await until(lambda: alfa.handler.downs and beta.handler.downs)
                for node in (alfa, beta):
                    at, _, cause = node.handler.downs[0]
                    assert cause.code == "silent"
                    assert 0.5 < at - began < 1.2 * slack()

        asyncio.run(story())

    def test_a_process_that_was_itself_frozen_does_not_accuse_its_peer(
        self, pair: tuple[Node, Node]
    ) -> None:
        alfa, beta = pair

        async def story() -> None:
            alfa.watch(beta, heartbeat=0.1, timeout=0.6)
            await alfa.links.start()
            daemon = await asyncio.to_thread(DaemonProcess, beta, heartbeat=0.1, timeout=30.0)
            try:
                await until(lambda: has_link(alfa, beta))
                link = alfa.links.link("beta")
                await asyncio.sleep(0.3)
                time.sleep(2.0)  # noqa: ASYNC251 - the freeze
                await asyncio.sleep(0.5)
                assert alfa.links.link("beta") is link
                assert alfa.handler.downs == []
            finally:
                daemon.stop()
                await alfa.links.stop()

        asyncio.run(story())

    def test_a_bulk_transfer_over_a_thin_line_does_not_delay_requests_for_long(
        self, pair: tuple[Node, Node]
    ) -> None:
        alfa, beta = pair

        async def story() -> list[float]:
            async with self.through_proxy(alfa, beta, rate=1_000_000) as _:
                link = alfa.links.link("beta")
                assert link is not None
                beta.handler.answer = lambda _p, method, _q: (
                    Outgoing(result=None, chunks=(bytes(65536) for _ in range(1000)))
                    if method == "bulk"
                    else None
                )
                body = await link.fetch("bulk", {}, timeout=10)

                async def read() -> None:
                    async for _ in body:
                        pass

                reading = asyncio.create_task(read())
                await asyncio.sleep(1.0)
                took = []
                for _ in range(8):
                    began = time.monotonic()
                    await link.request("small", {}, timeout=10)
                    took.append(time.monotonic() - began)
                    await asyncio.sleep(0.1)
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
                return sorted(took)

        took = asyncio.run(story())
        assert took[len(took) // 2] < 1.0 * slack(), took

    def test_a_peer_that_keeps_breaking_the_protocol_is_dialed_with_waits(
        self, pair: tuple[Node, Node]
    ) -> None:
        alfa, beta = pair

        async def story() -> None:
            async with self.through_proxy(alfa, beta):
                ended = time.monotonic() + 3.0
                while time.monotonic() < ended:
                    link = beta.links.link("alfa")
                    if link is not None:
                        link._writer.write(b"\xff" * 16)
                    await asyncio.sleep(0.01)
                assert 1 <= len(alfa.handler.ups) <= 6

        asyncio.run(story())


class TestRequests:
    def test_errors_and_timeouts_of_requests_are_told(self, pair: tuple[Node, Node]) -> None:
        alfa, beta = pair

        async def story() -> None:
            async with running(alfa, beta):
                link = alfa.links.link("beta")
                assert link is not None
                cancelled = asyncio.Event()

                async def hang() -> None:
                    try:
                        await asyncio.sleep(60)
                    finally:
                        cancelled.set()

                def answer(peer: str, method: str, params: dict[str, Any]) -> Any:
                    if method == "refuse":
                        raise RefusedError("not now")
                    if method == "break":
                        raise KeyError("surprise")
                    return hang()

                beta.handler.answer = answer
                with pytest.raises(RemoteError, match="not now") as refused:
                    await link.request("refuse", {}, timeout=5)
                assert refused.value.code == "refused"
                with pytest.raises(RemoteError, match="KeyError in break"):
                    await link.request("break", {}, timeout=5)
                with pytest.raises(TimeoutError):
                    await link.request("hang", {}, timeout=0.1)
                await asyncio.wait_for(cancelled.wait(), 2)
                with pytest.raises(PeerError, match="do not fit"):
                    await link.request("large", {"x": "y" * (1 << 20)}, timeout=5)
                pending = asyncio.create_task(link.request("hang", {}, timeout=30))
                await asyncio.sleep(0.05)
                await beta.links.stop()
                with pytest.raises(PeerError, match="ended"):
                    await pending
                with pytest.raises(PeerError, match="ended"):
                    await link.request("late", {}, timeout=5)

        asyncio.run(story())

    def test_bodies_arrive_whole_and_in_order_beside_requests(
        self, pair: tuple[Node, Node]
    ) -> None:
        alfa, beta = pair
        content = os.urandom(3_000_001)

        async def story() -> None:
            async with running(alfa, beta):
                link = alfa.links.link("beta")
                assert link is not None
                beta.handler.answer = lambda _p, method, _q: (
                    Outgoing(result={"size": len(content)}, chunks=iter([content]))
                    if method == "get"
                    else "ok"
                )
                one = await link.fetch("get", {}, timeout=5)
                two = await link.fetch("get", {}, timeout=5)
                assert one.result == {"size": len(content)}
                got = b"".join([chunk async for chunk in one])
                assert await link.request("other", {}, timeout=5) == "ok"
                assert got == content
                assert b"".join([chunk async for chunk in two]) == content
                plain = await link.fetch("other", {}, timeout=5)
                assert plain.result == "ok"
                assert [chunk async for chunk in plain] == []

        asyncio.run(story())

    def test_a_body_that_is_given_up_stops_and_one_that_fails_is_told(
        self, pair: tuple[Node, Node]
    ) -> None:
        alfa, beta = pair

        async def story() -> None:
            async with running(alfa, beta):
                link = alfa.links.link("beta")
                assert link is not None
                closed = asyncio.Event()

                def endless() -> Iterator[bytes]:
                    try:
                        while True:
                            yield bytes(65536)
                    finally:
                        closed.set()

                def failing() -> Iterator[bytes]:
                    yield b"first"
                    raise RefusedError("the file changed meanwhile")

                beta.handler.answer = lambda _p, method, _q: Outgoing(
                    result=None, chunks=endless() if method == "endless" else failing()
                )
                body = await link.fetch("endless", {}, timeout=5)
                async for _ in body:
                    break
                body.close()
                await asyncio.wait_for(closed.wait(), 5)
                got = []
                with pytest.raises(RemoteError, match="changed meanwhile"):
                    async for chunk in await link.fetch("failing", {}, timeout=5):
                        got.append(chunk)
                assert got == [b"first"]
                with pytest.raises(RemoteError, match="has to be fetched"):
                    await link.request("endless", {}, timeout=5)
                # One who fetches and never reads is sent no more than the first window.
                unread = await link.fetch("endless", {}, timeout=5)
                await asyncio.sleep(0.3)
                assert await link.fetch("failing", {}, timeout=5)
                assert sum(map(len, unread._chunks)) <= WINDOW_START

        asyncio.run(story())


def test_the_bridge_is_small(tmp_path: Path) -> None:
    """One process per accepted link: what it costs is stated in docs/link.md."""
    with nodes("alfa", "beta", kind="openssh") as (alfa, beta):

        async def story() -> int:
            async with running(alfa, beta):
                bridges = []
                for pid in Path("/proc").glob("[0-9]*"):
                    try:
                        command = (pid / "cmdline").read_bytes()
                        if b"bridge.py" in command and str(beta.paths.run_dir).encode() in command:
                            bridges.append((pid / "status").read_text())
                    except OSError:
                        continue
                sizes = [
                    int(line.split()[1])
                    for status in bridges
                    for line in status.splitlines()
                    if line.startswith("VmRSS")
                ]
                return max(sizes)

        assert asyncio.run(story()) < 12_000
