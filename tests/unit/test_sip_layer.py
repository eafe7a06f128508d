"""The transactions of RFC 3261, 17 and RFC 6026, one message and one timer at a time."""

from __future__ import annotations

import pytest

from controlone_ha.sip.events import (
    Acknowledged,
    Answered,
    Arrived,
    Cancelled,
    Client,
    Failed,
    Reason,
    Server,
    Stray,
)
from controlone_ha.sip.layer import Event, TransactionLayer, reply_hop
from controlone_ha.sip.message import Request, Response, build_request, build_response, parse
from controlone_ha.sip.uri import Hop, parse_uri

UDP = Hop("udp", "192.0.2.1", 5060)
TCP = Hop("tcp", "192.0.2.1", 5060)


def request(
    method: str = "INVITE",
    *,
    branch: str = "z9hG4bKone",
    cseq: int = 1,
    via: str = "192.0.2.9:5062",
) -> Request:
    return build_request(
        method,
        "sip:b@192.0.2.1",
        [
            ("Via", f"SIP/2.0/UDP {via};rport;branch={branch}"),
            ("Max-Forwards", "70"),
            ("From", "<sip:a@192.0.2.9>;tag=a"),
            ("To", "<sip:b@192.0.2.1>"),
            ("Call-ID", "c1"),
            ("CSeq", f"{cseq} {method}"),
        ],
    )


def copy(message: Request) -> Request:
    """What the wire gives: another object each time."""
    found = parse(message.to_bytes())
    assert isinstance(found, Request)
    return found


def sent(layer: TransactionLayer) -> list[str]:
    """Return the start lines of what was sent, and forget them."""
    found = [item.data.split(b"\r\n", 1)[0].decode() for item in layer.outbox]
    layer.outbox.clear()
    return [line.removeprefix("SIP/2.0 ").removesuffix(" SIP/2.0") for line in found]


def times_of_sending(layer: TransactionLayer, until: float) -> tuple[list[float], list[Event]]:
    """Let time run; return when something was sent, and what was told."""
    times, events = [], []
    while (due := layer.next_due()) is not None and due <= until:
        events += layer.advance(due)
        times += [due] * len(sent(layer))
    return times, events


def answer(client: Client, status: int) -> Response:
    return build_response(client.request, status, "Word", to_tag="b")


class TestInviteClient:
    def start(self, hop: Hop = UDP) -> tuple[TransactionLayer, Client]:
        layer = TransactionLayer()
        client = layer.request(request(), hop, 0.0)
        assert sent(layer) == ["INVITE sip:b@192.0.2.1"]
        return layer, client

    def test_timer_a_doubles_and_timer_b_gives_up_after_64_t1(self) -> None:
        layer, client = self.start()
        times, events = times_of_sending(layer, 100.0)
        assert times == [0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
        assert [(type(event), event.reason) for event in events if isinstance(event, Failed)] == [
            (Failed, Reason.TIMEOUT)
        ]
        assert len(layer) == 0 and not client.is_pending

    def test_nothing_is_repeated_over_tcp(self) -> None:
        layer, _ = self.start(TCP)
        times, events = times_of_sending(layer, 100.0)
        assert times == [] and len(events) == 1

    def test_a_provisional_answer_ends_repetition_and_timer_b(self) -> None:
        layer, client = self.start()
        assert layer.receive(answer(client, 100), UDP, 0.1) == []
        (ringing,) = layer.receive(answer(client, 180), UDP, 0.2)
        assert isinstance(ringing, Answered) and ringing.response.status == 180
        assert times_of_sending(layer, 1000.0) == ([], [])

    def test_a_refusal_is_acknowledged_each_time_and_told_once(self) -> None:
        layer, client = self.start()
        (told,) = layer.receive(answer(client, 486), UDP, 0.1)
        assert isinstance(told, Answered)
        assert layer.receive(answer(client, 486), UDP, 0.6) == []
        acks = [item.data for item in layer.outbox]
        assert sent(layer) == ["ACK sip:b@192.0.2.1"] * 2
        assert acks[0] == acks[1]
        ack = parse(acks[0])
        assert ack.get("To").endswith(";tag=b") and ack.cseq == (1, "ACK")
        assert ack.get("Via") == client.request.get("Via")
        assert times_of_sending(layer, 100.0) == ([], []) and len(layer) == 0

    def test_a_2xx_is_acknowledged_by_the_user_and_again_when_it_comes_again(self) -> None:
        layer, client = self.start()
        assert len(layer.receive(answer(client, 200), UDP, 0.1)) == 1
        assert sent(layer) == []
        assert layer.receive(answer(client, 200), UDP, 0.6) == []
        assert sent(layer) == []  # the user has not made up its mind yet
        layer.acknowledge(client, request("ACK", branch="z9hG4bKack"))
        assert layer.receive(answer(client, 200), UDP, 1.6) == []
        assert sent(layer) == ["ACK sip:b@192.0.2.1"] * 2
        times_of_sending(layer, 100.0)
        assert len(layer) == 0
        (stray,) = layer.receive(answer(client, 200), UDP, 101.0)
        assert isinstance(stray, Stray)

    def test_a_cancel_waits_for_the_first_provisional_answer(self) -> None:
        layer, client = self.start()
        layer.cancel(client, 0.1)
        assert sent(layer) == []
        layer.receive(answer(client, 100), UDP, 0.2)
        cancel = parse(layer.outbox[0].data)
        assert sent(layer) == ["CANCEL sip:b@192.0.2.1"]
        assert cancel.get("Via") == client.request.get("Via") and cancel.cseq == (1, "CANCEL")
        layer.cancel(client, 0.3)
        assert sent(layer) == []
        (told,) = layer.receive(answer(client, 487), UDP, 0.4)
        assert isinstance(told, Answered) and told.response.status == 487

    def test_a_2xx_that_crosses_a_cancel_is_told_as_any_other(self) -> None:
        layer, client = self.start()
        layer.receive(answer(client, 180), UDP, 0.2)
        layer.cancel(client, 0.3)
        (told,) = layer.receive(answer(client, 200), UDP, 20.0)
        assert isinstance(told, Answered) and told.response.status == 200

    def test_a_cancelled_invite_without_an_end_is_given_up(self) -> None:
        layer, client = self.start()
        layer.receive(answer(client, 180), UDP, 0.2)
        layer.cancel(client, 0.3)
        _, events = times_of_sending(layer, 100.0)
        assert [e.transaction for e in events if isinstance(e, Failed)][-1] is client

    def test_a_place_that_cannot_be_reached_fails_what_waits_for_it(self) -> None:
        layer, client = self.start(TCP)
        (failed,) = layer.transport_failed(TCP, "refused")
        assert isinstance(failed, Failed) and failed.reason is Reason.TRANSPORT
        assert failed.transaction is client and len(layer) == 0
        assert layer.transport_failed(TCP, "refused") == []


class TestInviteServer:
    def start(self, hop: Hop = UDP) -> tuple[TransactionLayer, Server]:
        layer = TransactionLayer()
        (arrived,) = layer.receive(copy(request()), hop, 0.0)
        assert isinstance(arrived, Arrived)
        assert sent(layer) == ["100 Trying"]
        return layer, arrived.server

    def respond(self, layer: TransactionLayer, server: Server, status: int, now: float) -> None:
        layer.respond(server, build_response(server.request, status, "Word", to_tag="b"), now)

    def test_a_repeated_invite_gets_the_last_answer_again(self) -> None:
        layer, server = self.start()
        assert layer.receive(copy(request()), UDP, 0.5) == []
        self.respond(layer, server, 180, 0.6)
        assert layer.receive(copy(request()), UDP, 1.5) == []
        assert sent(layer) == ["100 Trying", "180 Word", "180 Word"]

    def test_timer_g_repeats_a_refusal_until_timer_h(self) -> None:
        layer, server = self.start()
        self.respond(layer, server, 486, 0.0)
        sent(layer)
        times, events = times_of_sending(layer, 100.0)
        assert times == [0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
        assert events == [] and len(layer) == 0

    def test_an_ack_ends_the_repetition_of_a_refusal_and_is_told_to_nobody(self) -> None:
        layer, server = self.start()
        self.respond(layer, server, 486, 0.0)
        assert layer.receive(copy(request("ACK")), UDP, 0.1) == []
        sent(layer)
        assert times_of_sending(layer, 100.0) == ([], []) and len(layer) == 0

    def test_a_2xx_is_repeated_until_its_ack_also_over_tcp(self) -> None:
        for hop in (UDP, TCP):
            layer, server = self.start(hop)
            self.respond(layer, server, 200, 0.0)
            sent(layer)
            assert times_of_sending(layer, 4.0)[0] == [0.5, 1.5, 3.5]
            ack = copy(request("ACK", branch="z9hG4bKother"))
            (told,) = layer.receive(ack, hop, 4.0)
            assert isinstance(told, Acknowledged) and told.server is server
            assert layer.receive(copy(ack), hop, 4.1) == []
            assert times_of_sending(layer, 100.0) == ([], []) and len(layer) == 0

    def test_a_2xx_without_an_ack_is_told_after_64_t1(self) -> None:
        layer, server = self.start()
        self.respond(layer, server, 200, 0.0)
        _, events = times_of_sending(layer, 31.9)
        assert events == []
        _, events = times_of_sending(layer, 100.0)
        assert [e.reason for e in events if isinstance(e, Failed)] == [Reason.NO_ACK]

    def test_a_cancel_is_answered_and_told_before_the_final_answer_only(self) -> None:
        layer, server = self.start()
        (told,) = layer.receive(copy(request("CANCEL")), UDP, 0.1)
        assert isinstance(told, Cancelled) and told.server is server
        self.respond(layer, server, 487, 0.2)
        assert layer.receive(copy(request("CANCEL")), UDP, 0.3) == []
        assert layer.receive(copy(request("CANCEL", branch="z9hG4bKno")), UDP, 0.3) == []
        assert sent(layer) == [
            "200 OK",
            "487 Word",
            "200 OK",
            "481 Call/Transaction Does Not Exist",
        ]

    def test_a_second_final_answer_is_ignored(self) -> None:
        layer, server = self.start()
        self.respond(layer, server, 486, 0.1)
        self.respond(layer, server, 200, 0.2)
        assert sent(layer) == ["486 Word"]

    def test_a_new_branch_is_a_new_transaction(self) -> None:
        layer, _ = self.start()
        (arrived,) = layer.receive(copy(request(branch="z9hG4bKtwo")), UDP, 0.1)
        assert isinstance(arrived, Arrived)

    def test_a_sender_of_rfc_2543_is_told_apart_by_call_cseq_and_tag(self) -> None:
        layer = TransactionLayer()
        old = request(branch="1")
        assert len(layer.receive(copy(old), UDP, 0.0)) == 1
        assert layer.receive(copy(old), UDP, 0.5) == []
        assert len(layer.receive(copy(request(branch="1", cseq=2)), UDP, 1.0)) == 1


class TestOthers:
    def test_a_request_is_repeated_by_timer_e_and_ends_by_timer_f(self) -> None:
        layer = TransactionLayer()
        layer.request(request("BYE"), UDP, 0.0)
        sent(layer)
        times, events = times_of_sending(layer, 100.0)
        assert times == [0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
        assert [e.reason for e in events if isinstance(e, Failed)] == [Reason.TIMEOUT]

    def test_over_tcp_it_only_waits(self) -> None:
        layer = TransactionLayer()
        layer.request(request("BYE"), TCP, 0.0)
        sent(layer)
        times, events = times_of_sending(layer, 100.0)
        assert times == [] and len(events) == 1

    def test_its_answer_is_told_once(self) -> None:
        layer = TransactionLayer()
        client = layer.request(request("BYE"), UDP, 0.0, "owner")
        (told,) = layer.receive(answer(client, 200), UDP, 0.1)
        assert isinstance(told, Answered) and told.client.owner == "owner"
        assert layer.receive(answer(client, 200), UDP, 0.2) == []
        assert client.is_pending is False

    def test_an_answered_request_gets_its_answer_again_for_64_t1(self) -> None:
        layer = TransactionLayer()
        (arrived,) = layer.receive(copy(request("BYE")), UDP, 0.0)
        assert isinstance(arrived, Arrived)
        assert layer.receive(copy(request("BYE")), UDP, 0.1) == []
        assert sent(layer) == []
        layer.respond(arrived.server, build_response(arrived.request, 200, "OK"), 0.2)
        assert layer.receive(copy(request("BYE")), UDP, 20.0) == []
        assert sent(layer) == ["200 OK", "200 OK"]
        layer.advance(40.0)
        assert len(layer) == 0

    def test_an_answer_with_another_cseq_or_branch_is_nobodys(self) -> None:
        layer = TransactionLayer()
        layer.request(request("BYE"), UDP, 0.0)
        for other in (request("BYE", cseq=2), request("BYE", branch="z9hG4bKtwo")):
            assert layer.receive(build_response(other, 200, "OK"), UDP, 0.1) == []

    def test_a_branch_is_used_once(self) -> None:
        layer = TransactionLayer()
        layer.request(request("BYE"), UDP, 0.0)
        with pytest.raises(ValueError, match="in use"):
            layer.request(request("BYE"), UDP, 0.0)
        with pytest.raises(ValueError, match="branch"):
            layer.request(request("BYE", branch="1"), UDP, 0.0)


class TestReplies:
    @pytest.mark.parametrize(
        ("via", "source", "expected"),
        [
            ("192.0.2.9:5062;rport", Hop("udp", "198.51.100.1", 40000), ("198.51.100.1", 40000)),
            ("192.0.2.9:5062", Hop("udp", "198.51.100.1", 40000), ("198.51.100.1", 5062)),
            ("192.0.2.9", Hop("udp", "198.51.100.1", 40000), ("198.51.100.1", 5060)),
            ("192.0.2.9", Hop("tcp", "198.51.100.1", 40000), ("198.51.100.1", 40000)),
        ],
    )
    def test_where_a_response_goes(self, via: str, source: Hop, expected: tuple[str, int]) -> None:
        asked = request("BYE")
        asked.headers[0] = ("Via", f"SIP/2.0/UDP {via};branch=z9hG4bKone")
        hop = reply_hop(asked, source)
        assert (hop.host, hop.port, hop.transport) == (*expected, source.transport)

    def test_the_top_via_says_where_the_request_came_from(self) -> None:
        layer = TransactionLayer()
        (arrived,) = layer.receive(copy(request("BYE")), Hop("udp", "198.51.100.1", 40000), 0.0)
        assert isinstance(arrived, Arrived)
        via = arrived.request.top_via
        assert via is not None
        assert via.parameters["rport"] == "40000"
        assert via.parameters["received"] == "198.51.100.1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sip:a@h", Hop("udp", "h", 5060)),
        ("sip:a@h:5080;transport=TCP", Hop("tcp", "h", 5080)),
        ("sips:a@h", Hop("tls", "h", 5061)),
        ("sip:h;transport=tls", Hop("tls", "h", 5061)),
        ("sip:a@[2001:db8::1]:5062;lr", Hop("udp", "2001:db8::1", 5062)),
        ("sip:a@h;transport=sctp", Hop("udp", "h", 5060)),
        ("sip:a%40b@h?Replaces=1", Hop("udp", "h", 5060)),
        ("sip:a@h;maddr=192.0.2.5", Hop("udp", "192.0.2.5", 5060)),
        ("tel:+551199", None),
        ("sip:a@h:99999", None),
        ("sip:a b@h", None),
        ("", None),
    ],
)
def test_where_a_uri_leads(text: str, expected: Hop | None) -> None:
    uri = parse_uri(text)
    assert (uri.hop() if uri is not None else None) == expected
