"""Who may log in, who waits, who is rung: the parts of the Console Server behind the login."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from controlone_ha.core.credentials import pins_digest, verification_code, verifier_of
from controlone_ha.errors import RefusedError
from controlone_ha.server.book import ConsoleBook
from controlone_ha.server.core import ConsoleServer
from controlone_ha.server.limits import Limits
from controlone_ha.server.model import Close, Effect, Record, Send, Tell
from controlone_ha.server.order import Order, Why
from controlone_ha.server.pending import MAX_OF_ADDRESS, MAX_PENDING, PATIENCE, PendingTable
from controlone_ha.server.sessions import SessionRecord

TOKEN = "ab" * 32
PINS = [("a", "1" * 64), ("b", "2" * 64)]


class Access:
    """A book in memory."""

    def __init__(self) -> None:
        self.verifiers = {"desk-1": verifier_of(TOKEN)}
        self.expelled: set[str] = set()

    def refusal_of(self, name: str, token: str | None) -> tuple[str, str] | None:
        known = self.verifiers.get(name)
        if known is None:
            return "unknown_console", f"{name} is not enrolled"
        if token is None or verifier_of(token) != known:
            return "wrong_token", "wrong"
        return None

    def verifier(self, name: str) -> str | None:
        return self.verifiers.get(name)

    def is_expelled(self, address: str) -> bool:
        return address in self.expelled

    def pins(self) -> list[tuple[str, str]]:
        return PINS


def machine(*, serving: bool = True, **limits: Any) -> ConsoleServer:
    order = Order(node="a", role="slave", state="active" if serving else "standby")
    order = order.enabled(1.0) if serving else order.disabled(1.0, Why(code="standby", text="no"))
    return ConsoleServer(order, Limits(**limits), Access())


def ask(server: ConsoleServer, number: int, method: str, **params: Any) -> list[Effect]:
    line = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return server.received(number, json.dumps(line).encode() + b"\n", 0.0)


def answer(effects: list[Effect], number: int) -> dict[str, Any]:
    (line,) = [item.line for item in effects if isinstance(item, Send) and item.session == number]
    found: dict[str, Any] = json.loads(line)
    return found


def log_in(server: ConsoleServer, **more: Any) -> tuple[int, list[Effect]]:
    number, _ = server.connected("10.0.0.9", 0.0)
    return number, ask(server, number, "login", console="desk-1", token=TOKEN, **more)


def told(effects: list[Effect], method: str) -> list[dict[str, Any]]:
    return [item.params for item in effects if isinstance(item, Tell) and item.method == method]


class TestLogin:
    @pytest.mark.parametrize(
        ("params", "code"),
        [
            ({"console": "desk-2", "token": TOKEN}, "unknown_console"),
            ({"console": "desk-1"}, "wrong_token"),
            ({"console": "desk-1", "token": "cd" * 32}, "wrong_token"),
        ],
    )
    def test_a_console_that_does_not_prove_who_it_is_is_refused_and_recorded(
        self, params: dict[str, Any], code: str
    ) -> None:
        server = machine()
        number, _ = server.connected("10.0.0.9", 0.0)
        effects = ask(server, number, "login", lost={"server": "b"}, **params)
        error = answer(effects, number)["error"]
        assert (error["code"], error["data"]) == (-32006, {"code": code})
        assert [item.entry["cause"] for item in effects if isinstance(item, Record)] == [code]
        assert told(effects, "lost") == [], "what a stranger says is no evidence"
        assert server.consoles == 0

    def test_x1_the_token_is_in_no_effect(self) -> None:
        _, effects = log_in(machine(), queues=["100"])
        assert TOKEN not in repr(effects)

    def test_pins_are_told_to_a_console_that_knows_others(self) -> None:
        number, effects = log_in(machine(), pins="0" * 16)
        assert [pin["name"] for pin in answer(effects, number)["result"]["pins"]] == ["a", "b"]
        number, effects = log_in(machine(), pins=pins_digest(PINS))
        assert "pins" not in answer(effects, number)["result"]

    def test_a_revoked_console_is_sent_away_when_the_book_is_read_again(self) -> None:
        server = machine()
        number, _ = log_in(server)
        assert server.check_credentials() == []
        server.access = Access()
        server.access.verifiers.clear()
        effects = server.check_credentials()
        goodbye = answer(effects, number)
        assert goodbye["params"]["reason"]["code"] == "revoked"
        assert any(isinstance(item, Close) for item in effects)
        assert server.consoles == 0


class TestExpelledNode:
    def test_x1_its_address_is_told_nothing_unless_a_console_logs_in_from_there(self) -> None:
        server, access = machine(), Access()
        server.access = access
        number, _ = server.connected("10.0.0.9", 0.0)
        assert "result" in answer(ask(server, number, "ping"), number)
        access.expelled.add("10.0.0.9")
        effects = ask(server, number, "ping")
        assert answer(effects, number)["error"]["data"] == {"code": "expelled"}
        assert [item.entry["cause"] for item in effects if isinstance(item, Record)] == ["expelled"]
        again = ask(server, number, "ping")
        assert [item for item in again if isinstance(item, Record)] == [], "told once"
        verifier = verifier_of("token")
        effects = ask(server, number, "enrol", console="desk-2", verifier=verifier)
        assert answer(effects, number)["error"]["code"] == -32006
        assert server.pending.of("desk-2") == []
        logged = ask(server, number, "login", console="desk-1", token=TOKEN)
        assert "result" in answer(logged, number)
        assert "result" in answer(ask(server, number, "ping"), number)


class TestStandby:
    def test_f3_what_a_console_lost_is_told_once_though_its_login_has_to_wait(self) -> None:
        server = machine(serving=False)
        number, effects = log_in(server, lost={"server": "b", "calls": ["c-1"]})
        assert answer(effects, number)["error"]["data"]["state"] == "standby"
        (lost,) = told(effects, "lost")
        assert lost == {"console": "desk-1", "server": "b", "calls": ["c-1"]}
        again = ask(server, number, "login", console="desk-1", token=TOKEN, lost={"server": "b"})
        assert told(again, "lost") == []

    def test_k4_a_waiting_console_is_told_when_the_server_serves_and_a_ping_is_not(self) -> None:
        server = machine(serving=False)
        number, _ = log_in(server)
        other, _ = server.connected("10.0.0.8", 0.0)
        effects = server.obey(server.order.enabled(2.0))
        assert answer(effects, number)["method"] == "serving"
        assert not [item for item in effects if isinstance(item, Send) and item.session == other]
        done = ask(server, number, "login", console="desk-1", token=TOKEN)
        assert "result" in answer(done, number)

    def test_waiting_consoles_do_not_take_the_place_of_watchdogs(self) -> None:
        server = machine(serving=False, max_anonymous=2)
        for _ in range(5):
            _, effects = log_in(server)
            assert not [item for item in effects if isinstance(item, Close)]
        assert server.connections == 5
        assert len(server.expire(11.0)) == 5, "who says nothing for ten seconds is closed"


class TestQueues:
    def test_l2_presence_follows_login_monitor_and_the_end(self) -> None:
        server = machine()
        number, effects = log_in(server, queues=["100"], sip="sip:desk-1@10.0.0.9")
        (here,) = told(effects, "presence")
        assert (here["online"], here["queues"]) == (True, ["100"])
        member = {"console": "desk-1", "sip": "sip:desk-1@10.0.0.9"}
        assert server.presence() == {"queues": {"100": [member]}}
        effects = ask(server, number, "monitor", queues=["200"], on=True)
        assert answer(effects, number)["result"] == {"queues": ["100", "200"]}
        ask(server, number, "monitor", queues=["100"], on=False)
        assert server.presence() == {"queues": {"200": [member]}}
        effects = ask(server, number, "monitor", queues=["300"], on="only")
        assert [item["queues"] for item in told(effects, "presence")] == [["300"]]
        effects = server.disconnected(number, "gone")
        assert told(effects, "presence")[0]["online"] is False
        assert server.presence() == {"queues": {}}

    def test_a_console_that_comes_again_leaves_no_ghost_in_a_queue(self) -> None:
        server = machine()
        log_in(server, queues=["100", "200"])
        log_in(server, queues=["200"])
        assert server.monitoring("100") == ()
        assert server.monitoring("200") == ("desk-1",)

    @pytest.mark.parametrize("method", ["dial", "answer", "hold", "transfer", "hangup", "calls"])
    def test_call_methods_without_a_conference_server_have_their_documented_error(
        self, method: str
    ) -> None:
        server = machine()
        stranger, _ = server.connected("10.0.0.8", 0.0)
        assert answer(ask(server, stranger, method), stranger)["error"]["code"] == -32002
        number, _ = log_in(server)
        error = answer(ask(server, number, method, id="x"), number)["error"]
        assert (error["code"], error["data"]) == (-32020, {"code": "no_conference"})


class TestEnrolment:
    def test_a_request_is_pending_until_the_book_has_it_and_then_brings_the_pins(self) -> None:
        server = machine()
        number, _ = server.connected("10.0.0.8", 0.0)
        verifier = verifier_of("token")
        params = {"console": "desk-2", "verifier": verifier}
        assert answer(ask(server, number, "enrol", **params), number)["result"]["state"] == (
            "pending"
        )
        assert [item.verifier for item in server.pending.of("desk-2")] == [verifier]
        access = Access()
        access.verifiers["desk-2"] = verifier
        server.access = access
        result = answer(ask(server, number, "enrol", **params), number)["result"]
        assert (result["state"], len(result["pins"])) == ("approved", 2)
        wrong = answer(ask(server, number, "enrol", console="x", verifier="z"), number)
        assert wrong["error"]["data"] == {"field": "verifier"}

    def test_the_table_of_requests_is_bounded_and_forgets_who_ceased_to_ask(self) -> None:
        table = PendingTable()
        for index in range(MAX_PENDING + MAX_OF_ADDRESS):
            table.ask(f"desk-{index}", "0" * 64, f"10.0.0.{index % 16}", "", 0.0)
        assert len(table.all()) == MAX_PENDING
        assert table.ask("one-more", "0" * 64, "10.9.9.9", "", 1.0) is None
        assert table.ask("one-more", "0" * 64, "10.9.9.9", "", PATIENCE + 2.0) is not None
        for index in range(MAX_OF_ADDRESS):
            table.ask(f"flood-{index}", "0" * 64, "10.8.8.8", "", PATIENCE + 2.0)
        assert table.ask("flood", "0" * 64, "10.8.8.8", "", PATIENCE + 2.0) is None

    def test_the_code_is_another_for_another_certificate_console_or_token(self) -> None:
        codes = {
            verification_code(console, certificate, verifier)
            for console in ("a", "b")
            for certificate in ("1" * 64, "2" * 64)
            for verifier in ("3" * 64, "4" * 64)
        }
        assert len(codes) == 8
        assert all(len(code) == 19 for code in codes)


class TestBook:
    def test_x1_the_book_keeps_the_verifier_and_no_token(self, tmp_path: Path) -> None:
        book = ConsoleBook(tmp_path / "consoles", is_required=True)
        refusal = book.refusal_of("desk-4", TOKEN)
        assert refusal is not None and refusal[0] == "unknown_console"
        book.approve("desk-4", verifier_of(TOKEN), by="root", now=5.0)
        assert TOKEN not in book.path.read_text()
        assert book.path.stat().st_mode & 0o077 == 0
        assert book.refusal_of("desk-4", TOKEN) is None
        for token, code in ((None, "token_missing"), ("c" * 64, "wrong_token")):
            refusal = book.refusal_of("desk-4", token)
            assert refusal is not None and refusal[0] == code
        book.revoke("desk-4", by="root")
        refusal = book.refusal_of("desk-4", TOKEN)
        assert refusal is not None and refusal[0] == "revoked"
        assert book.verifier("desk-4") is None
        with pytest.raises(RefusedError):
            book.revoke("desk-5", by="root")

    def test_s1_two_nodes_write_the_same_section_and_a_change_by_others_is_seen(
        self, tmp_path: Path
    ) -> None:
        one, two = (ConsoleBook(tmp_path / name, is_required=False) for name in ("1", "2"))
        for book in (one, two):
            book.approve("desk-4", verifier_of(TOKEN), by="root", now=5.0)
        assert one.path.read_text() == two.path.read_text()
        assert one.refusal_of("stranger", None) is None, "authentication is optional there"
        one.consoles()
        assert not one.changed()
        two.revoke("desk-4", by="root")
        two.path.replace(one.path)
        assert one.changed()
        assert one.verifier("desk-4") is None

    def test_a_spoiled_book_leaves_what_was_known(self, tmp_path: Path) -> None:
        book = ConsoleBook(tmp_path / "consoles", is_required=True)
        book.approve("desk-4", verifier_of(TOKEN), by="root", now=5.0)
        assert book.refusal_of("desk-4", TOKEN) is None
        book.path.write_text("config console 'x\n\toption")
        assert book.refusal_of("desk-4", TOKEN) is None
        assert "consoles" in book.problem


def test_the_record_of_sessions_is_bounded(tmp_path: Path) -> None:
    import asyncio

    async def work() -> None:
        record = SessionRecord(tmp_path / "deep" / "sessions.jsonl", max_bytes=2000)
        for index in range(100):
            record.add({"event": "login", "console": f"desk-{index}"})
            record.flush()

    asyncio.run(work())
    newest = (tmp_path / "deep" / "sessions.jsonl.1").read_text().splitlines()
    assert json.loads(newest[-1])["event"] == "login"
    sizes = [file.stat().st_size for file in (tmp_path / "deep").iterdir()]
    assert sum(sizes) < 5000
