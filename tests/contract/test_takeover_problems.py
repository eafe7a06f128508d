"""What went wrong when others took calls over (SIP servers' bug lists), each as a test.

One pair of real Conference Servers for all of them. The first one is frozen when its call is taken
and wakes afterwards, so that it may still say something in the old dialogs; in some tests it serves
on. The phones do as the RFCs say, in both kinds: those that know Replaces, and those that answer
420 and are adopted.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator

import pytest

from controlone_ha.core.calls import CallState
from controlone_ha.core.takeover import IN_FLIGHT, REPLACE_TIMEOUT
from controlone_ha.lab.parts import Asterisk
from tests.contract.conference_support import phones
from tests.contract.takeover_support import (
    TAKEN,
    Servers,
    both_kinds,
    hear_each_other,
    invites,
    order,
    started,
    told,
)
from tests.phone import Phone, header, strength
from tests.stream_phone import StreamPhone
from tests.waiting import until

pytestmark = pytest.mark.contract

HERE, THERE = "127.0.0.1", "127.0.0.2"


@pytest.fixture(scope="module")
def pair(asterisk: Asterisk, free_port: Callable[[], int]) -> Iterator[Servers]:
    with started(asterisk, free_port, 2) as made:
        yield made


def test_A1_the_cseq_is_above_all_that_a_long_call_has_used(pair: Servers) -> None:
    trunk, desk = Phone("trunk"), Phone("desk")

    async def story() -> None:
        async with pair.talking(trunk, desk) as known:
            # A day of session refreshes and holds; whoever begins anew with 1 is refused with 500.
            trunk.call.remote_cseq, desk.call.remote_cseq = 40_000, 900_000
            assert set((await pair.take(known)).values()) == {"fallback"}
            await pair.second.call("hangup", call=known["id"])
            for phone in (trunk, desk):
                await asyncio.wait_for(phone.call.ended.wait(), 5)
            assert (trunk.call.remote_cseq, desk.call.remote_cseq) == (2**21 + 1, 2**21 + 1)

    pair.run(story())


@both_kinds
def test_A1_a_held_call_comes_back_held_and_is_resumed(pair: Servers, knows_replaces: bool) -> None:
    trunk = Phone("trunk", tone=440, knows_replaces=knows_replaces)
    desk = Phone("desk", tone=620, knows_replaces=knows_replaces)

    async def story() -> None:
        async with pair.talking(trunk, desk) as known:
            await pair.first.call("hold", call=known["id"], console="desk")
            await until(lambda: pair.first.live[0]["state"] == CallState.HELD, 5)
            outcomes = await pair.take(pair.first.live[0])
            assert set(outcomes.values()) == {TAKEN[knows_replaces]}
            document = await pair.state_there(CallState.HELD)
            assert {leg["role"]: leg["hold"] for leg in document["legs"]} == {
                "gateway": "",
                "console": "local",
            }
            await pair.second.call("resume", call=known["id"], console="desk")
            await pair.state_there(CallState.UP)
            await hear_each_other((trunk, 620), (desk, 440))

    pair.run(story())


def test_A1_the_first_party_hears_that_the_other_one_is_on_its_way(pair: Servers) -> None:
    trunk = Phone("trunk", tone=440, knows_replaces=True)
    desk = Phone("desk", tone=620, knows_replaces=True)

    async def story() -> None:
        async with pair.talking(trunk, desk) as document:
            pair.freeze()
            desk.silent = True
            await order(pair.second, document)
            await hear_each_other((trunk, 425))
            desk.silent = False
            await until(lambda: told(pair.second), 10)
            await hear_each_other((trunk, 620), (desk, 440))
            assert strength(trunk.media.tail(1600), 425) < 0.1

    pair.run(story())


def test_A1_parties_that_say_nothing_hold_up_nobody(pair: Servers) -> None:
    trunk = Phone("trunk", knows_replaces=True)
    lost, near = Phone("lost", knows_replaces=True), Phone("near", knows_replaces=True)

    async def talk_with(desk: Phone, calls: int) -> None:
        await pair.first.present(desk)
        for _ in range(calls):
            trunk.dial("100", pair.first.port)
        await until(
            lambda: len(desk.calls) == calls and all(call.answered.is_set() for call in desk.calls),
            20,
        )

    async def story() -> None:
        async with phones(trunk, lost, near):
            await talk_with(lost, IN_FLIGHT)
            await talk_with(near, 1)
            await until(lambda: {call["state"] for call in pair.first.live} == {CallState.UP}, 10)
            documents = sorted(pair.first.live, key=lambda call: call["answered"])
            pair.freeze()
            lost.silent = True
            words = {"calls": documents, "ground": "refused", "asks_parties": False}
            answer = await pair.second.call("take", **words)
            assert len(answer["accepted"]) == IN_FLIGHT + 1
            await until(lambda: told(pair.second), 15)
            assert [event["call"] for event in told(pair.second)] == [documents[-1]["id"]]
            lost.silent = False
            await until(lambda: len(told(pair.second)) == len(documents), 20)

    pair.run(story())


def test_A1_a_party_may_answer_late(pair: Servers) -> None:
    trunk, desk = Phone("trunk", knows_replaces=True), Phone("desk", knows_replaces=True)

    async def story() -> None:
        async with pair.talking(trunk, desk) as document:
            pair.freeze()
            desk.silent = True
            await order(pair.second, document)
            await asyncio.sleep(REPLACE_TIMEOUT + 0.5)
            desk.silent = False
            await until(lambda: told(pair.second), 15)
            assert {leg["outcome"] for leg in told(pair.second)[0]["legs"]} == {"taken"}

    pair.run(story())


def test_A1_a_ringing_call_is_taken_where_the_caller_accepts_that(pair: Servers) -> None:
    trunk = Phone("trunk", tone=440, knows_replaces=True)
    desk = Phone("desk", answer=None)
    other = Phone("other", tone=620, answer=None)

    async def story() -> None:
        async with phones(trunk, desk, other):
            await pair.first.present(desk)
            trunk.dial("100", pair.first.port)
            await until(lambda: [c["state"] for c in pair.first.live] == [CallState.RINGING], 5)
            known = pair.first.live[0]
            await pair.second.present(other)
            assert await pair.take(known) == {"gateway": "taken"}
            document = await pair.state_there(CallState.RINGING)
            assert (document["id"], document["generation"]) == (known["id"], 2)
            assert (document["created"], document["answered"]) == (known["created"], None)
            await hear_each_other((trunk, 425))  # that it still rings
            assert trunk.call.state == "up" and trunk.calls[0].state == "cancelled"
            await until(lambda: other.calls, 5)
            other.pick_up(other.call)
            await pair.state_there(CallState.UP)
            await hear_each_other((trunk, 620), (other, 440))
            assert strength(trunk.media.tail(1600), 425) < 0.1
            assert invites(desk, THERE) == []
            trunk.hang_up(trunk.call)
            await asyncio.wait_for(other.call.ended.wait(), 5)

    pair.run(story())


def test_A1_a_caller_that_was_taken_while_waiting_is_taken_again(
    asterisk: Asterisk, free_port: Callable[[], int]
) -> None:
    trunk = Phone("trunk", tone=440, knows_replaces=True)
    desk = Phone("desk", answer=None)

    async def story(servers: Servers) -> None:
        async with phones(trunk, desk):
            await servers.first.present(desk)
            await servers.second.present(desk)
            trunk.dial("100", servers.first.port)
            await until(lambda: [c["state"] for c in servers.first.live] == [CallState.RINGING], 5)
            known = servers.first.live[0]
            assert await servers.take(known) == {"gateway": "taken"}
            document = await servers.state_there(CallState.RINGING)
            # Its controller dies, and the next one goes on with it.
            servers.second.kill("controller")
            assert servers.second.connection is not None
            await servers.second.connection.close()
            servers.second.start_controller()
            await servers.second.connect()
            await servers.second.present(desk)
            await servers.state_there(CallState.RINGING)
            # Then the whole server does, and the first one, which is back, takes it.
            servers.wake()
            servers.kill(servers.first)
            await servers.revive(servers.first)
            await servers.first.present(desk)
            servers.kill(servers.second)
            rung = len(desk.calls)
            outcomes = await servers.take(document, is_frozen=False, by=servers.first)
            assert outcomes == {"gateway": "taken"}
            await until(lambda: len(desk.calls) > rung, 5)
            desk.pick_up(desk.call)
            await until(lambda: [c["state"] for c in servers.first.live] == [CallState.UP], 5)

    with started(asterisk, free_port, 2, settle="5") as servers:
        servers.run(story(servers))


@pytest.mark.parametrize("answered", [False, True], ids=["420", "answered"])
def test_A1_a_ringing_call_that_is_not_taken_is_answered_at_the_other_server_when_it_comes_again(
    pair: Servers, answered: bool
) -> None:
    trunk = Phone("trunk", tone=440, knows_replaces=answered)
    desk = Phone("desk", answer=None, knows_replaces=True)
    other = Phone("other", tone=620)

    async def story() -> None:
        async with phones(trunk, desk, other):
            await pair.first.present(desk)
            trunk.dial("100", pair.first.port)
            await until(lambda: [c["state"] for c in pair.first.live] == [CallState.RINGING], 5)
            await until(lambda: desk.calls, 5)
            known = pair.first.live[0]
            if answered:  # and nobody here has heard of that: an answered call is another's
                desk.pick_up(desk.call)
                await asyncio.wait_for(trunk.call.answered.wait(), 5)
                outcomes = await pair.take(known, is_frozen=False)
                assert outcomes == {"gateway": "refused"}
                assert trunk.call.state == "up"
                trunk.hang_up(trunk.call)
            else:
                assert await pair.take(known) == {"gateway": "refused"}
                await asyncio.wait_for(trunk.call.ended.wait(), 2)
                assert trunk.call.statuses[-1] == 503  # it is told to try elsewhere
            await pair.second.present(other)
            trunk.dial("100", pair.second.port, host=THERE)
            document = await pair.state_there(CallState.UP)
            assert document["created"] == known["created"]  # it has been waiting since then
            await hear_each_other((trunk, 620), (other, 440))
            # Nobody's phone rings for a call that is over.
            assert invites(desk, THERE) == []

    pair.run(story())


def test_A1_a_caller_whom_the_answer_did_not_reach_is_told_to_try_elsewhere(pair: Servers) -> None:
    class Unlucky(Phone):
        """Its server dies between the hand-out of the call and the answer on the wire."""

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            if not data.startswith(b"SIP/2.0 200"):
                super().datagram_received(data, addr)

    trunk = Unlucky("trunk", tone=440)
    desk = Phone("desk", tone=620)

    async def story() -> None:
        async with phones(trunk, desk):
            await pair.first.present(desk)
            trunk.dial("100", pair.first.port)
            await until(lambda: [c["state"] for c in pair.first.live] == [CallState.UP], 5)
            await asyncio.wait_for(desk.call.answered.wait(), 5)
            await pair.take(pair.first.live[0])
            await asyncio.wait_for(trunk.call.ended.wait(), 2)
            assert trunk.call.statuses[-1] == 503
            await asyncio.wait_for(desk.call.ended.wait(), 5)  # it talks to nobody

    pair.run(story())


@both_kinds
def test_A1_tls_stays_tls(pair: Servers, knows_replaces: bool) -> None:
    paths = pair.first.paths
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(paths.certificate_file, paths.key_file)
    trunk = Phone("trunk", knows_replaces=knows_replaces)
    desk = StreamPhone("desk", context=context, knows_replaces=knows_replaces)

    async def story() -> None:
        async with pair.talking(trunk, desk) as known:
            assert {leg["role"]: leg["transport"] for leg in known["legs"]}["console"] == "tls"
            before = desk.accepted
            outcomes = await pair.take(known)
            assert set(outcomes.values()) == {TAKEN[knows_replaces]}, pair.second.log
            assert desk.accepted > before
            assert "SIP/2.0/TLS" in header(invites(desk, THERE)[-1], "Via")
            assert "transport=tls" in header(invites(desk, THERE)[-1], "Contact").lower()

    pair.run(story())


class TwoAddresses(Phone):
    """A phone that calls from one address and wants to be called at another one."""

    second = "127.0.0.33"
    second_port = 0
    asked_there = 0

    @property
    def contact(self) -> str:
        """The other address."""
        return f"sip:{self.name}@{self.second}:{self.second_port}"

    async def start(self) -> Phone:
        """Bind both."""
        phone = self

        class There(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                phone.asked_there += data.startswith(b"INVITE ")
                phone.datagram_received(data, addr)

        await super().start()
        loop = asyncio.get_running_loop()
        self.door, _ = await loop.create_datagram_endpoint(There, local_addr=(self.second, 0))
        self.second_port = self.door.get_extra_info("sockname")[1]
        return self

    def stop(self) -> None:
        """Close both."""
        super().stop()
        self.door.close()


@both_kinds
def test_A1_parties_and_servers_with_several_addresses_find_each_other(
    pair: Servers, knows_replaces: bool
) -> None:
    trunk = TwoAddresses("trunk", tone=440, knows_replaces=knows_replaces, address="127.0.0.30")
    desk = Phone("desk", tone=620, knows_replaces=knows_replaces, address="127.0.0.31")

    async def story() -> None:
        async with pair.talking(trunk, desk) as known:
            assert set((await pair.take(known)).values()) == {TAKEN[knows_replaces]}
            assert trunk.asked_there  # at its Contact, not where its packets came from
            for phone in (trunk, desk):
                # The address of the server that took the call, in Contact and media alike.
                sent = invites(phone, THERE)[-1]
                assert f"c=IN IP4 {THERE}" in sent and f"c=IN IP4 {HERE}" not in sent
            await hear_each_other((trunk, 620), (desk, 440))

    pair.run(story())


@both_kinds
def test_A1_from_and_to_are_not_swapped_whoever_called(pair: Servers, knows_replaces: bool) -> None:
    # Both phones compare tags strictly; one has called, the other was called.
    trunk = Phone("trunk", knows_replaces=knows_replaces)
    desk = Phone("desk", knows_replaces=knows_replaces)

    async def story() -> None:
        async with pair.talking(trunk, desk) as known:
            assert await pair.take(known) == dict.fromkeys(
                ("gateway", "console"), TAKEN[knows_replaces]
            )
            document = await pair.state_there(CallState.UP)
            assert {leg["role"] for leg in document["legs"]} == {"gateway", "console"}
            # A request of the party inside what is now its dialog is understood, too.
            trunk.hang_up(trunk.call)
            await asyncio.wait_for(desk.call.ended.wait(), 5)
            await until(lambda: not pair.second.live, 5)

    pair.run(story())


@both_kinds
def test_A1_a_stale_tcp_connection_is_replaced_by_a_new_one(
    pair: Servers, knows_replaces: bool
) -> None:
    trunk = Phone("trunk", knows_replaces=knows_replaces)
    desk = StreamPhone("desk", knows_replaces=knows_replaces)

    async def story() -> None:
        async with pair.talking(trunk, desk) as known:
            desk.drop_connections()
            await until(lambda: not desk.connections, 5)
            assert set((await pair.take(known)).values()) == {TAKEN[knows_replaces]}
            # And again, while the second server thinks that it has a connection.
            before = desk.accepted
            desk.drop_connections()
            await until(lambda: not desk.connections, 5)
            await pair.second.call("hangup", call=known["id"])
            await asyncio.wait_for(desk.call.ended.wait(), 5)
            assert desk.accepted == before + 1

    pair.run(story())


def test_A1_half_dialogs_are_left_alone(pair: Servers) -> None:
    trunk, desk = Phone("trunk", knows_replaces=True), Phone("desk", knows_replaces=True)

    async def story() -> None:
        async with pair.talking(trunk, desk) as known:
            legs = known["legs"]
            trials = [
                [legs[0], {**legs[1], "remote_tag": ""}],
                [{**legs[0], "call_id": ""}, legs[1]],
                [legs[0], {**legs[1], "state": "early"}],
            ]
            for trial in trials:
                answer = await pair.second.call(
                    "take", calls=[{**known, "legs": trial}], ground="refused", asks_parties=False
                )
                assert answer == {"accepted": []}
            await asyncio.sleep(0.2)
            assert invites(trunk, THERE) == [] and invites(desk, THERE) == []
            assert pair.second.live == [] and len(pair.first.live) == 1

    pair.run(story())


def test_A1_a_takeover_that_is_refused_leaves_the_old_call_as_it_is(pair: Servers) -> None:
    trunk = Phone("trunk", tone=440, knows_replaces=True)
    desk = Phone("desk", tone=620, knows_replaces=True)

    async def story() -> None:
        async with pair.talking(trunk, desk) as known:
            trunk.refuse = 488
            assert await pair.take(known, is_frozen=False) == {"gateway": "refused"}
            await until(lambda: not pair.second.live, 5)
            assert [call["state"] for call in pair.first.live] == [CallState.UP]
            assert trunk.call.state == desk.call.state == "up"
            assert invites(desk, THERE) == []
            await hear_each_other((trunk, 620), (desk, 440))

    pair.run(story())


def test_A1_the_old_leg_is_not_closed_before_the_new_one_is_confirmed(pair: Servers) -> None:
    trunk = Phone("trunk", tone=440, knows_replaces=True)
    desk = Phone("desk", tone=620, knows_replaces=True)

    async def story() -> None:
        async with pair.talking(trunk, desk) as known:
            given = await pair.first.call("give", all=True)
            assert given["given"] == [known["id"]]
            try:
                outcomes = await pair.take(known, is_frozen=False)
                assert set(outcomes.values()) == {"taken"}
                await pair.first.call("release", calls=[[known["id"], 2, "two"]])
                await until(lambda: not pair.first.live, 5)
                await hear_each_other((trunk, 620), (desk, 440))
                # The parties have left by themselves: the old server has said BYE to nobody.
                for phone in (trunk, desk):
                    assert not any(text.startswith("BYE ") for text in phone.messages)
            finally:
                await pair.first.call("keep", active=True)

    pair.run(story())


def test_A1_481_of_the_gateway_ends_the_call_and_nobody_else_is_called(pair: Servers) -> None:
    trunk, desk = Phone("trunk", knows_replaces=True), Phone("desk", knows_replaces=True)

    async def story() -> None:
        async with pair.talking(trunk, desk) as known:
            trunk.calls.clear()  # it was restarted, say: every dialog is unknown to it
            assert await pair.take(known) == {"gateway": "gone"}
            assert len(invites(trunk, THERE)) == 1  # one 481 is enough: no second way is tried
            assert invites(desk, THERE) == []
            # It would sit in a call with nobody: it is told, in the dialog that it knows.
            await asyncio.wait_for(desk.call.ended.wait(), 10)
            await until(lambda: known["id"] in pair.second.documents, 5)
            document = pair.second.documents[known["id"]]
            assert (document["state"], document["reason"]) == ("ended", "gone")
            assert len(desk.calls) == 1

    pair.run(story())


def test_A1_who_is_left_alone_is_told_though_the_taker_dies_before_it_could(pair: Servers) -> None:
    trunk, desk = Phone("trunk", knows_replaces=True), Phone("desk", knows_replaces=True)

    async def story() -> None:
        async with pair.talking(trunk, desk) as known:
            trunk.calls.clear()
            pair.freeze()
            await order(pair.second, known)
            await until(lambda: len(invites(trunk, THERE)) == 1, 10)
            await asyncio.sleep(0.5)
            pair.second.kill("controller")
            # Nothing was said of it: it is still to be done, and the next one does it.
            assert told(pair.second) == [] and not desk.call.ended.is_set()
            pair.second.start_controller()
            await pair.second.connect()
            assert await pair.take(known) == {"gateway": "gone"}
            await asyncio.wait_for(desk.call.ended.wait(), 10)

    pair.run(story())


def test_A1_the_last_party_of_a_call_is_told_though_its_server_died_before_it_could(
    pair: Servers,
) -> None:
    trunk, desk = Phone("trunk", knows_replaces=True), Phone("desk")

    async def story() -> None:
        async with pair.talking(trunk, desk) as known:
            left = [leg for leg in known["legs"] if leg["role"] == "gateway"]
            assert await pair.take({**known, "legs": left}) == {"gateway": "gone"}
            await asyncio.wait_for(trunk.call.ended.wait(), 10)
            assert len(invites(trunk, THERE)) == 0  # nobody calls it for silence
            assert pair.second.documents[known["id"]]["state"] == "ended"

    pair.run(story())


def test_A1_481_of_a_console_is_told_and_does_not_take_the_gateway_down_at_once(
    pair: Servers,
) -> None:
    trunk, desk = Phone("trunk", knows_replaces=True), Phone("desk", knows_replaces=True)

    async def story() -> None:
        async with pair.talking(trunk, desk) as known:
            desk.calls.clear()
            assert await pair.take(known) == {"gateway": "taken", "console": "gone"}
            assert [event["up"] for event in told(pair.second)] == [False]
            assert trunk.call.state == "up"  # it has some seconds: its partner may yet call back
            trunk.hang_up(trunk.call)
            await until(lambda: not pair.second.live, 5)

    pair.run(story())
