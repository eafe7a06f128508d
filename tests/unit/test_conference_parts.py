"""What the controller reads from Asterisk and keeps on disk. No process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from controlone_ha.conference.ari import takes_requests
from controlone_ha.conference.asterisk_files import Gateway
from controlone_ha.conference.dialog_fields import (
    callee_dialog,
    caller_dialog,
    parse_session_expires,
    split_routes,
    transport_of,
)
from controlone_ha.conference.engine import Dialog
from controlone_ha.conference.keeper import MANY_LINES, Keeper
from controlone_ha.conference.presence import Console, Presence
from controlone_ha.core.calls import Call, CallState

INCOMING = (
    "1-2@h|lt|rt|sip:a@g:5070;transport=TCP|(alaw)|"
    "<sip:p1;lr>, <sip:p2;lr>|<sip:p3;lr>|1800;refresher=uac|SIP/2.0/TCP g:5070;branch=z|"
    "sip:100@s:5060|10.0.0.1:5060|10.0.0.2:5070||7 INVITE|"
    r"\"x \\\" | <y>\" <sip:100@s>|\"| | z\" <sip:a@g>"
)
"""As Asterisk writes it: with a backslash before quotes and backslashes of the addresses."""


def test_A2_all_identifiers_of_a_dialog_are_read_at_once() -> None:
    dialog = caller_dialog(INCOMING)
    assert (dialog.call_id, dialog.local_tag, dialog.remote_tag) == ("1-2@h", "lt", "rt")
    assert (dialog.local_uri, dialog.remote_uri) == ("sip:100@s", "sip:a@g")
    assert dialog.remote_target == "sip:a@g:5070;transport=TCP"
    assert dialog.route_set == ("<sip:p1;lr>", "<sip:p2;lr>", "<sip:p3;lr>")
    assert (dialog.session_expires, dialog.refresher) == (1800, "uac")
    assert (dialog.transport, dialog.codec) == ("tcp", "alaw")
    assert (dialog.local_address, dialog.remote_address) == ("10.0.0.1:5060", "10.0.0.2:5070")
    assert dialog.request_uri == "sip:100@s:5060"
    assert (dialog.invite_via, dialog.invite_cseq) == ("SIP/2.0/TCP g:5070;branch=z", "7 INVITE")
    by_a_proxy = caller_dialog(INCOMING.replace("||7", "|SIP/2.0/UDP p;branch=y|7"))
    assert by_a_proxy.invite_via == ""


def test_A2_of_who_was_called_the_answer_tells_both_ends() -> None:
    target = "sip:a@g:5070;transport=TCP|(alaw)|<sip:p1;lr>|1800;refresher=uas|SIP/2.0/TCP s"
    dialog = callee_dialog(f'{target}|<sip:100@s>;tag=lt|"x | <y" <sip:a@g>;x=1;Tag=rt', "1@h")
    assert (dialog.call_id, dialog.local_tag, dialog.remote_tag) == ("1@h", "lt", "rt")
    assert (dialog.local_uri, dialog.remote_uri) == ("sip:100@s", "sip:a@g")
    assert dialog.remote_target == "sip:a@g:5070;transport=TCP"
    assert dialog.route_set == ("<sip:p1;lr>",)
    assert (dialog.session_expires, dialog.refresher) == (1800, "uas")
    assert (dialog.transport, dialog.codec, dialog.request_uri) == ("tcp", "alaw", "")
    bare = callee_dialog(f"{target}|sip:100@s;tag=lt|sip:a@g;tag=rt", "")
    assert (bare.local_uri, bare.local_tag, bare.remote_tag) == ("sip:100@s", "lt", "rt")


@pytest.mark.parametrize("parse", [caller_dialog, lambda text: callee_dialog(text, "")])
def test_an_answer_with_too_few_fields_is_refused(parse: Callable[[str], Dialog]) -> None:
    with pytest.raises(ValueError, match="no dialog of"):
        parse("a|b|c")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", (0, "")),
        ("90", (90, "")),
        (" 1800 ; x=y; refresher = UAS", (1800, "uas")),
        ("soon", (0, "")),
    ],
)
def test_a_session_timer_is_read_as_rfc_4028_writes_it(text: str, found: tuple[int, str]) -> None:
    assert parse_session_expires(text) == found


def test_routes_and_transports_are_read_from_headers() -> None:
    assert split_routes("<sip:a;lr>;x=1,<sip:b>") == ("<sip:a;lr>;x=1", "<sip:b>")
    assert split_routes("") == ()
    assert transport_of("SIP / 2.0 / TLS h", "sip:a@b;transport=tcp") == "tls"
    assert transport_of("", "sip:a@b;transport=TCP") == "tcp"
    assert transport_of("", "sip:a@b") == "udp"


@pytest.mark.parametrize(
    ("version", "can"),
    [
        ("22.10.1+dfsg", True),
        ("22.4.0", False),
        ("21.10.0", True),
        ("20.15.0", True),
        ("18.26.4", False),
        ("16.28.0~dfsg-0", False),
        ("23.0.0", True),
        ("", False),
    ],
)
def test_requests_go_over_the_websocket_where_asterisk_takes_them(version: str, can: bool) -> None:
    assert takes_requests(version) is can


def test_a_gateway_is_called_at_its_address() -> None:
    assert Gateway(name="g", host="10.0.0.5").uri_of("55") == "sip:55@10.0.0.5:5060"
    over_tls = Gateway(name="g", host="fd00::1", port=5061, transport="tls")
    assert over_tls.uri_of("55") == "sip:55@[fd00::1]:5061;transport=tls"
    assert "secret" not in repr(Gateway(name="g", host="h", password="secret"))


def test_the_next_controller_finds_the_live_calls_and_their_engine(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    keeper = Keeper(path)
    assert keeper.load() == ()
    keeper.set_engine("started then")
    call = Call(id="n-1", owner="n")
    keeper.save(call)
    keeper.save(Call(id="n-2", owner="n"))
    newer = call.changed_to(2.0, state=CallState.UP)
    keeper.save(newer)
    keeper.save(Call(id="n-2", owner="n", sequence=2, state=CallState.ENDED))
    keeper.close()
    with open(path, "a") as file:
        file.write('{"torn": ')
    after = Keeper(path)
    assert after.load() == (newer,)
    assert after.engine == "started then"
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_file_of_live_calls_does_not_grow_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    keeper = Keeper(path)
    call = Call(id="n-1", owner="n")
    for second in range(MANY_LINES + 200):
        call = call.changed_to(float(second))
        keeper.save(call)
    keeper.close()
    assert len(path.read_bytes().splitlines()) < MANY_LINES
    assert Keeper(path).load() == (call,)


def test_L2_a_console_is_present_for_as_long_as_who_told_of_it() -> None:
    presence = Presence()
    assert not presence.is_told
    desk = Console(name="desk", queues=frozenset({"100"}), sip="sip:d@h")
    mute = Console(name="mute", queues=frozenset({"100"}))
    presence.replace(1, [desk, mute])
    assert list(presence.of_queue("100")) == ["desk"], "without a phone it cannot be rung"
    presence.update(2, Console(name="other", queues=frozenset({"100"}), sip="sip:o@h"))
    assert sorted(presence.of_queue("100")) == ["desk", "other"]
    presence.remove(1, "desk")
    assert presence.get("desk") is None
    assert presence.forget(2)
    assert not presence.forget(2)
    assert not presence.of_queue("100")
    assert presence.is_told
