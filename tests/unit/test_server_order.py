"""The kept order of the Console Server: what survives, what a starting server obeys."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlone_ha.jsonrpc import RpcError
from controlone_ha.server.login import Login, parse_login
from controlone_ha.server.order import STANDALONE, WAITING, Order, Why, first_order, load, save
from controlone_ha.server.settings import MOST_ANONYMOUS, divide, load_settings

ORDER = Order(
    serving=True,
    reason=Why(code="serving", text="sim, atende"),
    since=12.5,
    node="a",
    role="slave",
    state="active",
    servers=({"name": "b", "address": "10.0.0.2", "port": 7551, "serving": False},),
)


def test_an_order_is_read_back_as_it_was_kept(tmp_path: Path) -> None:
    path = tmp_path / "server.state"
    save(ORDER, path)
    assert load(path) == ORDER
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["server.state"]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"serving": 1, "since": 1, "reason": {"code": "x", "text": "x"}}',
     '{"serving": true, "since": 1, "reason": {}, "servers": []}',
     '{"serving": true, "since": 1, "reason": {"code": "x", "text": "x"}, "servers": [5]}'],
)  # fmt: skip
def test_a_damaged_file_is_no_order(tmp_path: Path, text: str) -> None:
    path = tmp_path / "server.state"
    path.write_text(text)
    assert load(path) is None


def test_no_file_is_no_order(tmp_path: Path) -> None:
    assert load(tmp_path / "server.state") is None


def test_a_first_start_waits_for_ha() -> None:
    order = first_order(None, ha_enabled=True, node="a", now=3.0)
    assert not order.serving
    assert order.reason == WAITING
    assert order.reason.text == "waiting for ha"
    assert order.node == "a"


def test_a_respawned_server_goes_on_as_ordered() -> None:
    assert first_order(ORDER, ha_enabled=True, node="x", now=99.0) == ORDER


def test_without_ha_the_server_serves_and_an_old_order_is_void() -> None:
    order = first_order(ORDER.disabled(5.0, WAITING), ha_enabled=False, node="a", now=9.0)
    assert order.serving
    assert order.reason == STANDALONE
    assert order.state is None


def test_a_login_is_parsed_with_all_its_fields() -> None:
    login = parse_login(
        {
            "console": "desk-1",
            "protocol": 1,
            "queues": ["100", "200", "100"],
            "sip": "sip:desk1@10.0.0.5:5060",
            "lost": {"server": "b", "calls": ["1-2@b"]},
            "software": "console 1.0",
            "of_a_later_version": {"ignored": True},
        }
    )
    assert login == Login(
        console="desk-1",
        queues=("100", "200"),
        sip="sip:desk1@10.0.0.5:5060",
        lost_server="b",
        lost_calls=("1-2@b",),
        software="console 1.0",
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("console", None), ("console", ""), ("console", 5), ("console", "a b"),
        ("console", "x" * 65), ("console", "-x"), ("console", "a\nb"), ("console", "desk\n"),
        ("queues", "100"), ("queues", [100]), ("queues", [""]), ("queues", ["1"] * 257),
        ("queues", ["1 2"]), ("sip", "desk1"), ("sip", "sip:"), ("sip", "sip:a b"),
        ("sip", "sip:a\r\nX: y"), ("sip", "sip:" + "x" * 300), ("lost", []), ("lost", "b"),
        ("lost", {"server": 5}), ("lost", {"calls": ["a b"]}), ("lost", {"calls": [""]}),
        ("protocol", "1"), ("protocol", 0), ("protocol", True), ("software", "\x00"),
        ("software", 5),
    ],
)  # fmt: skip
def test_a_wrong_field_of_a_login_is_named(field: str, value: object) -> None:
    with pytest.raises(RpcError, match=field) as caught:
        parse_login({"console": "desk-1", field: value})
    assert caught.value.number == -32602


@pytest.mark.parametrize("maximum", [1, 2, 7, 100, 4000, 100000])
def test_the_settings_of_connections_leave_room_for_pings(maximum: int) -> None:
    limits = divide(maximum)
    assert limits.max_anonymous >= 1
    assert limits.max_consoles >= 1
    assert limits.max_connections == max(2, maximum)
    assert limits.max_anonymous <= MOST_ANONYMOUS


def test_ha_is_off_without_its_file_and_on_with_a_bad_one(tmp_path: Path) -> None:
    assert load_settings(tmp_path).ha_enabled is False
    file = tmp_path / "ha"
    file.write_text("config ha 'default'\n\toption enabled '0'\n\toption secret 'a long secret'\n")
    assert load_settings(tmp_path).ha_enabled is False
    file.write_text("config ha 'default'\n\toption role 'mestre'\n")
    assert load_settings(tmp_path).ha_enabled is True
    file.write_text("this is no UCI")
    assert load_settings(tmp_path).ha_enabled is True


def test_the_servers_file_says_where_to_listen(tmp_path: Path) -> None:
    (tmp_path / "server").write_text(
        "config server 'default'\n\toption bind '127.0.0.1'\n\toption port '7000'\n"
        "\toption max_connections '80'\n"
    )
    settings = load_settings(tmp_path)
    assert (settings.bind, settings.port) == ("127.0.0.1", 7000)
    assert settings.limits.max_connections == 80
