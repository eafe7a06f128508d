"""The console protocol as a pure machine: what each line and each order leads to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlone_ha.jsonrpc import NOT_SERVING, RpcError
from controlone_ha.server import core
from controlone_ha.server.core import ConsoleServer
from controlone_ha.server.limits import Limits
from controlone_ha.server.model import Close, Effect, Note, Record, Send, Tell
from controlone_ha.server.order import STOPPING, Order, Why

DISK = Why(code="disk_full", text="the disk is full")
SERVERS = ({"name": "b", "address": "10.0.0.2"}, {"name": "c"})


def serving(**limits: Any) -> ConsoleServer:
    """A machine that serves, as node a."""
    order = Order(node="a", role="master", state="active", servers=SERVERS)
    return ConsoleServer(order.enabled(100.0), Limits(**limits))


def request(method: str, params: dict[str, Any] | None = None, number: int | None = 1) -> bytes:
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params or {}}
    if number is not None:
        message["id"] = number
    return json.dumps(message).encode() + b"\n"


def sent(effects: list[Effect], session: int | None = None) -> list[dict[str, Any]]:
    """The messages among the effects."""
    return [
        json.loads(effect.line)
        for effect in effects
        if isinstance(effect, Send) and session in (None, effect.session)
    ]


def closed(effects: list[Effect]) -> list[int]:
    return [effect.session for effect in effects if isinstance(effect, Close)]


def log_in(machine: ConsoleServer, console: str, now: float = 0.0, **more: Any) -> int:
    number, _ = machine.connected("10.1.1.1", now)
    effects = machine.received(number, request("login", {"console": console, **more}), now)
    (answer,) = sent(effects, number)
    assert "result" in answer, answer
    return number


class TestPing:
    def test_f1_a_ping_needs_no_login_and_tells_node_role_state_and_reason(self) -> None:
        machine = serving()
        number, _ = machine.connected("10.1.1.1", 0.0)
        (answer,) = sent(machine.received(number, request("ping"), 0.0))
        assert answer["result"] == {
            "node": "a",
            "role": "master",
            "state": "active",
            "serving": True,
            "reason": {"code": "serving", "text": "this server serves consoles"},
            "protocol": 1,
            "consoles": 0,
        }

    def test_k3_a_disabled_server_answers_pings_with_its_reason(self) -> None:
        machine = serving()
        machine.obey(machine.order.disabled(5.0, DISK))
        number, _ = machine.connected("10.1.1.1", 0.0)
        (answer,) = sent(machine.received(number, request("ping"), 0.0))
        assert answer["result"]["serving"] is False
        assert answer["result"]["reason"] == DISK.as_json()

    def test_bytes_may_come_in_any_pieces(self) -> None:
        machine = serving()
        number, _ = machine.connected("10.1.1.1", 0.0)
        effects: list[Effect] = []
        for byte in request("ping", number=7) + b"\r\n" + request("ping", number=8):
            effects += machine.received(number, bytes([byte]), 0.0)
        assert [answer["id"] for answer in sent(effects)] == [7, 8]

    def test_a_notification_gets_no_answer(self) -> None:
        machine = serving()
        number, _ = machine.connected("10.1.1.1", 0.0)
        assert machine.received(number, request("ping", number=None), 0.0) == []


class TestLogin:
    def test_a_login_is_answered_with_the_servers_to_know(self) -> None:
        machine = serving()
        number, _ = machine.connected("10.1.1.1", 0.0)
        effects = machine.received(number, request("login", {"console": "desk-1"}), 0.0)
        (answer,) = sent(effects)
        assert answer["result"] == {
            "protocol": 1,
            "node": "a",
            "role": "master",
            "state": "active",
            "servers": list(SERVERS),
        }
        assert Note("console desk-1 logged in from 10.1.1.1") in effects
        assert machine.consoles == 1

    def test_f2_a_disabled_server_refuses_logins_with_reason_and_servers(self) -> None:
        machine = serving()
        machine.obey(machine.order.disabled(5.0, DISK))
        number, _ = machine.connected("10.1.1.1", 0.0)
        effects = machine.received(number, request("login", {"console": "desk-1"}), 0.0)
        (answer,) = sent(effects)
        assert answer["error"]["code"] == NOT_SERVING == -32001
        assert answer["error"]["data"] == {
            **DISK.as_json(),
            "role": "master",
            "state": "active",
            "servers": list(SERVERS),
        }
        assert machine.consoles == 0
        assert closed(effects) == []  # it may ping on

    def test_bad_parameters_are_refused_before_the_state_is_looked_at(self) -> None:
        machine = serving()
        number, _ = machine.connected("10.1.1.1", 0.0)
        (answer,) = sent(machine.received(number, request("login", {}), 0.0))
        assert answer["error"]["code"] == -32602
        assert "console" in answer["error"]["message"]

    def test_a_second_login_of_one_connection_is_refused(self) -> None:
        machine = serving()
        number = log_in(machine, "desk-1")
        (answer,) = sent(machine.received(number, request("login", {"console": "desk-2"}), 0.0))
        assert answer["error"]["code"] == core.ALREADY_LOGGED_IN
        assert machine.consoles == 1

    def test_k1_a_console_that_comes_again_replaces_its_own_old_connection(self) -> None:
        machine = serving()
        old = log_in(machine, "desk-1")
        number, _ = machine.connected("10.1.1.9", 0.0)
        effects = machine.received(number, request("login", {"console": "desk-1"}), 0.0)
        (goodbye,) = sent(effects, old)
        assert goodbye["method"] == "goodbye"
        assert goodbye["params"]["reason"]["code"] == "replaced"
        assert closed(effects) == [old]
        assert machine.consoles == 1
        assert machine.disconnected(old, "closed by the console") == []
        assert machine.consoles == 1

    def test_a_newer_protocol_is_refused_with_the_versions_spoken(self) -> None:
        machine = serving()
        number, _ = machine.connected("10.1.1.1", 0.0)
        login = {"console": "desk-1", "protocol": 2}
        (answer,) = sent(machine.received(number, request("login", login), 0.0))
        assert answer["error"]["code"] == core.PROTOCOL_UNSUPPORTED
        assert answer["error"]["data"]["supported"] == [1]

    def test_one_console_too_many_is_sent_elsewhere_and_a_known_one_is_not(self) -> None:
        machine = serving(max_consoles=2)
        log_in(machine, "desk-1")
        log_in(machine, "desk-2")
        number, _ = machine.connected("10.1.1.1", 0.0)
        (answer,) = sent(machine.received(number, request("login", {"console": "desk-3"}), 0.0))
        assert answer["error"]["code"] == NOT_SERVING
        assert answer["error"]["data"]["code"] == "full"
        assert log_in(machine, "desk-2") > number

    def test_consoles_of_a_queue_are_known_until_they_leave(self) -> None:
        machine = serving()
        first = log_in(machine, "desk-1", queues=["100", "200"])
        log_in(machine, "desk-2", queues=["200"])
        assert machine.monitoring("200") == ("desk-1", "desk-2")
        note, record, tell = machine.disconnected(first, "connection lost")
        assert note == Note("console desk-1 left: connection lost")
        assert isinstance(record, Record)
        assert record.entry["event"] == "logout"
        assert isinstance(tell, Tell)
        assert tell.params == {"console": "desk-1", "online": False, "queues": [], "sip": None}
        assert machine.monitoring("200") == ("desk-2",)

    def test_the_list_of_servers_is_for_consoles_only(self) -> None:
        machine = serving()
        number, _ = machine.connected("10.1.1.1", 0.0)
        (answer,) = sent(machine.received(number, request("servers"), 0.0))
        assert answer["error"]["code"] == core.NOT_LOGGED_IN
        console = log_in(machine, "desk-1")
        (answer,) = sent(machine.received(console, request("servers"), 0.0))
        assert answer["result"] == {"servers": list(SERVERS)}


class TestOrders:
    def test_k4_disabling_says_goodbye_with_reason_and_servers_before_closing(self) -> None:
        machine = serving()
        numbers = [log_in(machine, f"desk-{index}") for index in range(3)]
        anonymous, _ = machine.connected("10.1.1.1", 0.0)
        effects = machine.obey(machine.ordered("disable", {"reason": DISK.as_json()}, 50.0))
        assert closed(effects) == numbers
        for number in numbers:
            (goodbye,) = sent(effects, number)
            assert goodbye == {
                "jsonrpc": "2.0",
                "method": "goodbye",
                "params": {"reason": DISK.as_json(), "servers": list(SERVERS)},
            }
        assert machine.order.since == 50.0
        assert sent(machine.received(anonymous, request("ping"), 0.0))[0]["result"]["serving"] is (
            False
        )

    def test_disabling_again_with_another_reason_keeps_since_and_closes_nobody(self) -> None:
        machine = serving()
        machine.obey(machine.ordered("disable", {"reason": DISK.as_json()}, 50.0))
        other = {"code": "standby", "text": "standing by"}
        effects = machine.obey(machine.ordered("disable", {"reason": other}, 60.0))
        assert effects == []
        assert machine.order.since == 50.0
        assert machine.order.reason.code == "standby"

    def test_enabling_makes_logins_possible(self) -> None:
        machine = ConsoleServer(Order(since=1.0))
        effects = machine.obey(machine.ordered("enable", {}, 70.0))
        assert effects == [Note("enabled: this server serves consoles")]
        assert log_in(machine, "desk-1")
        assert machine.order.since == 70.0

    def test_a_changed_list_of_servers_is_told_to_consoles_once(self) -> None:
        machine = serving()
        number = log_in(machine, "desk-1")
        machine.connected("10.1.1.1", 0.0)
        news = {"node": "a", "servers": [{"name": "z", "port": 7551, "serving": False}]}
        effects = machine.obey(machine.ordered("publish", news, 0.0))
        assert [message["params"] for message in sent(effects, number)] == [
            {"servers": news["servers"]}
        ]
        assert len(effects) == 1
        assert machine.obey(machine.ordered("publish", news, 0.0)) == []

    @pytest.mark.parametrize(
        ("method", "params"),
        [
            ("disable", {}),
            ("disable", {"reason": "because"}),
            ("disable", {"reason": {"code": "", "text": "x"}}),
            ("disable", {"reason": {"code": "x", "text": ""}}),
            ("publish", {"node": 5}),
            ("publish", {"role": ""}),
            ("publish", {"servers": {}}),
            ("publish", {"servers": [{"address": "10.0.0.1"}]}),
            ("publish", {"servers": [{"name": "b", "port": 0}]}),
            ("publish", {"servers": [{"name": "b", "serving": 1}]}),
            ("publish", {"servers": [{"name": "b"}] * 300}),
            ("explode", {}),
        ],
    )
    def test_a_bad_order_is_refused_and_changes_nothing(
        self, method: str, params: dict[str, Any]
    ) -> None:
        machine = serving()
        before = machine.order
        with pytest.raises(RpcError):
            machine.ordered(method, params, 0.0)
        assert machine.order == before

    def test_an_overlong_sentence_is_cut_and_the_order_obeyed(self) -> None:
        machine = serving()
        order = machine.ordered("disable", {"reason": {"code": "x", "text": "é" * 5000}}, 0.0)
        assert not order.serving
        assert len(order.reason.text) == 1000

    def test_stopping_closes_consoles_with_a_goodbye_and_the_others_without(self) -> None:
        machine = serving()
        console = log_in(machine, "desk-1")
        anonymous, _ = machine.connected("10.1.1.1", 0.0)
        effects = machine.stop(STOPPING)
        assert [message["method"] for message in sent(effects, console)] == ["goodbye"]
        assert sent(effects, anonymous) == []
        assert sorted(closed(effects)) == [console, anonymous]
        assert machine.connections == 0


class TestLimits:
    def test_a_silent_connection_is_closed_ten_seconds_after_its_last_message(self) -> None:
        machine = serving()
        number, _ = machine.connected("10.1.1.1", 0.0)
        assert machine.next_deadline == 10.0
        machine.received(number, request("ping"), 6.0)
        machine.received(number, b'{"half', 9.0)
        assert machine.next_deadline == 16.0
        assert machine.expire(15.9) == []
        assert closed(machine.expire(16.0)) == [number]
        assert machine.next_deadline is None

    def test_a_console_may_be_silent(self) -> None:
        machine = serving()
        log_in(machine, "desk-1")
        assert machine.next_deadline is None
        assert machine.expire(1e9) == []

    def test_a_flood_of_empty_connections_pushes_out_the_most_silent_and_no_console(self) -> None:
        machine = serving(max_anonymous=3)
        log_in(machine, "desk-1")
        numbers = [machine.connected("10.6.6.6", float(index))[0] for index in range(3)]
        machine.received(numbers[0], request("ping"), 3.0)
        newcomer, effects = machine.connected("10.6.6.6", 4.0)
        assert closed(effects) == [numbers[1]]
        assert sent(machine.received(newcomer, request("ping"), 4.0))
        assert machine.consoles == 1
        assert machine.connections == 4

    @pytest.mark.parametrize("piece", [b"x", b"x" * 200 + b"\n"])
    def test_a_line_longer_than_allowed_ends_the_connection(self, piece: bytes) -> None:
        machine = serving(max_line=100)
        number, _ = machine.connected("10.1.1.1", 0.0)
        effects: list[Effect] = []
        for _ in range(101):
            effects += machine.received(number, piece, 0.0)
        assert closed(effects) == [number]
        (answer,) = sent(effects)
        assert answer["error"]["code"] == core.LIMIT_EXCEEDED
        assert machine.connections == 0

    def test_a_line_of_just_the_limit_is_read(self) -> None:
        machine = serving(max_line=100)
        number, _ = machine.connected("10.1.1.1", 0.0)
        line = request("ping").rstrip().ljust(99) + b"\n"
        assert sent(machine.received(number, line, 0.0))[0]["id"] == 1

    def test_ten_messages_that_are_no_request_end_the_connection(self) -> None:
        machine = serving()
        number, _ = machine.connected("10.1.1.1", 0.0)
        effects = machine.received(number, b"garbage\n" * 20, 0.0)
        codes = [answer["error"]["code"] for answer in sent(effects)]
        assert codes == [-32700] * 10 + [core.LIMIT_EXCEEDED]
        assert closed(effects) == [number]

    def test_more_messages_than_allowed_end_the_connection_and_a_steady_rate_does_not(self) -> None:
        machine = serving(messages_per_second=10.0, message_burst=20.0)
        steady, _ = machine.connected("10.1.1.1", 0.0)
        for tick in range(200):
            assert not closed(machine.received(steady, request("ping"), tick / 10.0))
        hasty, _ = machine.connected("10.1.1.2", 20.0)
        effects = machine.received(hasty, request("ping") * 30, 20.0)
        assert closed(effects) == [hasty]
        assert len(sent(effects)) == 21

    @pytest.mark.parametrize(
        ("line", "code"),
        [
            (b"[]", -32600),
            (b"5", -32600),
            (b"{}", -32600),
            (b'{"id": 1, "result": {}}', -32600),
            (b'{"id": true, "method": "ping"}', -32600),
            (b'{"id": 1, "method": 5}', -32600),
            (b'{"id": 1, "method": "ping", "params": []}', -32602),
            (b'{"id": 1, "method": "nosuch"}', -32601),
            (b"\xff\xfe", -32700),
            (b"[" * 5000, -32700),
            (b'{"id": ' + b"9" * 5000 + b', "method": "ping"}', -32700),
        ],
    )
    def test_each_kind_of_bad_line_has_its_code(self, line: bytes, code: int) -> None:
        machine = serving()
        number, _ = machine.connected("10.1.1.1", 0.0)
        (answer,) = sent(machine.received(number, line + b"\n", 0.0))
        assert answer["error"]["code"] == code

    def test_an_id_with_a_lone_surrogate_comes_back_as_it_was(self) -> None:
        machine = serving()
        number, _ = machine.connected("10.1.1.1", 0.0)
        effects = machine.received(number, b'{"id": "\\ud800", "method": "ping"}\n', 0.0)
        (answer,) = sent(effects)
        assert answer["id"] == "\ud800"

    @given(st.lists(st.binary(max_size=300), max_size=20))
    def test_no_bytes_whatever_raise_and_memory_stays_bounded(self, pieces: list[bytes]) -> None:
        machine = serving(max_line=256)
        number, _ = machine.connected("10.1.1.1", 0.0)
        for piece in pieces:
            effects = machine.received(number, piece + b"\n", 0.0)
            assert all(isinstance(effect, Send | Close | Note) for effect in effects)
        assert machine.connections in (0, 1)

    def test_bytes_of_a_session_that_is_gone_are_ignored(self) -> None:
        machine = serving()
        number = log_in(machine, "desk-1")
        machine.disconnected(number, "gone")
        assert machine.received(number, request("ping"), 0.0) == []
        assert machine.disconnected(number, "gone") == []
