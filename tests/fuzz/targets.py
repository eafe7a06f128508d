"""What is fuzzed: seeds, the function, and which errors it may raise. Anything else is a crash."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from controlone_ha import jsonrpc
from controlone_ha.core.audit import verify as verify_chain
from controlone_ha.core.calls import call_from_json
from controlone_ha.core.licences import read_envelope, read_licence
from controlone_ha.core.reasons import reason
from controlone_ha.core.wire import report_from_json, report_to_json
from controlone_ha.errors import ControlOneError, UciError
from controlone_ha.lab import licences
from controlone_ha.peers import frames
from controlone_ha.peers.accept import parse_preamble
from controlone_ha.peers.frames import FrameDecoder
from controlone_ha.peers.pins import pin_from_json
from controlone_ha.peers.revocations import read_revocations
from controlone_ha.peers.roster import read_roster
from controlone_ha.server.core import ConsoleServer
from controlone_ha.server.order import Order
from controlone_ha.sip import message as sip
from controlone_ha.sip.fields import parse_address
from controlone_ha.uci import dumps, loads
from tests.unit.core_builders import make_report

DATA = Path(__file__).resolve().parents[1] / "data"
KEY = "SHA256:" + "A" * 43


@dataclass(frozen=True, kw_only=True)
class FuzzTarget:
    """One parser. ``run`` takes an input; ``allowed`` are the errors that say what is wrong."""

    name: str
    run: Callable[[bytes], object]
    seeds: Sequence[bytes]
    allowed: tuple[type[Exception], ...] = (ControlOneError,)
    words: Sequence[bytes] = field(default=())


# -- frames of the link ----------------------------------------------------------------------------


def _frames(data: bytes) -> None:
    """A first byte chooses the phase; the rest comes in pieces, as a network brings it."""
    decoder = FrameDecoder()
    if data[:1] > b"\x7f":
        decoder.authenticated()
    for start in range(1, len(data), 97):
        decoder.receive(data[start : start + 97])
        while (frame := decoder.next_frame()) is not None:
            if frame.kind in (frames.Kind.REQUEST, frames.Kind.RESPONSE, frames.Kind.ERROR):
                frames.json_object(frame.kind, frame.numbered()[1])
            elif frame.kind not in (frames.Kind.PROOF, frames.Kind.HEARTBEAT, frames.Kind.DATA):
                frame.fields()
    assert decoder.buffered <= frames.MAX_CHUNK + (1 << 20)


def _frame_seeds() -> list[bytes]:
    hello = {"versions": [1, 1], "from": "a", "to": "b", "nonce": "0" * 64, "host_keys": [KEY]}
    kinds = frames.Kind
    before = frames.encode_json(kinds.HELLO, hello) + frames.encode(kinds.PROOF, bytes(32))
    call = {"method": "sync.offer", "params": {"versions": []}, "body": True}
    after = (
        frames.encode_json(kinds.REQUEST, call, 7)
        + frames.encode(kinds.HEARTBEAT, bytes(32))
        + frames.encode(kinds.DATA, frames.NUMBER.pack(7) + b"bytes")
        + frames.encode_json(kinds.NOTIFY, {"method": "report", "params": {}})
    )
    return [b"\x00" + before, b"\xff" + after, b"\xff" + frames.encode_goodbye("closed", "bye")]


# -- messages of peers -----------------------------------------------------------------------------

_READERS: Sequence[Callable[[dict[str, object]], object]] = (
    lambda raw: report_from_json(raw, str(raw.get("node"))),
    read_roster,
    read_revocations,
    pin_from_json,
    call_from_json,
)


def _messages(data: bytes) -> None:
    """A message of a peer, as each of those that may take it reads it."""
    parse_preamble_of = data[:1] == b"\x00"
    if parse_preamble_of:
        parse_preamble(data[1:])
        return
    message = jsonrpc.decode(data)
    raw = message.params
    if not isinstance(raw, dict):
        return
    for read in _READERS:
        try:
            read(raw)
        except (ControlOneError, ValueError):
            continue
    verify_chain([data, data])


def _message_seeds() -> list[bytes]:
    report = report_to_json(make_report("m1", reason=reason("starting")))
    pin = {
        "name": "m1",
        "public_key": "ssh-rsa " + base64.b64encode(b"\0\0\0\7ssh-rsa\0\0\0\3\1\0\1").decode(),
        "certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "host_keys": [],
        "addresses": ["10.0.0.1"],
        "ssh_port": 22,
    }
    record = {"key": KEY, "name": "s2", "at": "2026-11-23T00:00:00Z", "node": "p1", "addresses": []}
    leg = {"call_id": "x", "role": "gateway", "local_tag": "a", "remote_tag": "b"}
    call = {"id": "c1", "owner": "m1", "generation": 1, "sequence": 2, "legs": [leg]}
    bodies = [report, {"nodes": [pin]}, {"revoked": [record]}, pin, call]
    return [jsonrpc.encode_request("x", body, 1) for body in bodies] + [
        b'\x00{"peer":"m1","ssh_connection":"10.0.0.1 22 10.0.0.2 22"}'
    ]


# -- UCI, SIP --------------------------------------------------------------------------------------


def _uci(data: bytes) -> None:
    """What is read can be written, and reads the same again."""
    package = loads(data, "fuzz")
    if any(letter in section.type for section in package for letter in "#\\'\""):
        return  # uci writes a type as it is, and reads it back cut short; so do we
    again = loads(dumps(package), "fuzz")
    assert dumps(again) == dumps(package), "written and read again it is another"


def _uci_seeds() -> list[bytes]:
    seeds = [
        b"config ha 'default'\n\toption role 'slave'\n\tlist peers 'a'\n\tlist peers \"b c\"\n",
        b"package ha\nconfig item\n\toption paths '/etc/x'\\''y' # comment\n",
        b"config a b\noption c 'multi\nline'\n",
    ]
    inputs = sorted((DATA / "uci" / "inputs").glob("*"))[:40]
    return seeds + [file.read_bytes()[:4096] for file in inputs if file.is_file()]


def _sip(data: bytes) -> None:
    message = sip.parse(data)
    sip.fault(message)
    _ = message.top_via, message.start_line
    for name in ("From", "To", "Contact"):
        for value in message.items(name):
            parse_address(value)
    sip.parse(message.to_bytes())


# -- console protocol ------------------------------------------------------------------------------


def _console(data: bytes) -> None:
    """A stranger's bytes on a fresh server, cut as a first byte says."""
    order = Order(serving=True, node="s1") if data[:1] > b"\x40" else Order(node="s1")
    server = ConsoleServer(order)
    number, _ = server.connected("10.0.0.9", 0.0)
    step = 1 + (data[0] if data else 0)
    for count, start in enumerate(range(1, len(data), max(step, 16))):
        server.received(number, data[start : start + max(step, 16)], count * 0.1)
    server.expire(1000.0)
    server.disconnected(number, "done")
    assert server.connections == 0 and server.consoles == 0


def _console_seeds() -> list[bytes]:
    login = {"console": "desk-1", "queues": ["100"], "sip": "sip:desk@10.0.0.1", "token": "a" * 40}
    lost = {**login, "lost": {"server": "m1", "calls": ["c-1"]}, "pins": "0" * 16}
    lines = [
        jsonrpc.encode_request("ping", {}, 1),
        jsonrpc.encode_request("login", login, 2) + jsonrpc.encode_request("servers", {}, 3),
        jsonrpc.encode_request("login", lost, 4)
        + jsonrpc.encode_request("monitor", {"queues": ["1"], "on": "only"}, 5)
        + jsonrpc.encode_request("dial", {"number": "190"}, 6),
        jsonrpc.encode_request("enrol", {"console": "d", "verifier": "0" * 64}, 7),
    ]
    return [b"\xff" + line for line in lines] + [b"\x20" + line for line in lines]


# -- licences --------------------------------------------------------------------------------------


def _licence(data: bytes) -> None:
    """The envelope, and what a vendor that has gone mad might have signed."""
    if data[:1] == b"\xff":
        read_licence(data[1:])
        return
    signed, _ = read_envelope(data)
    read_licence(signed)


def _licence_seeds() -> list[bytes]:
    whole = licences.make("LAB-1", nodes=[KEY], expires="2030-01-31")
    return [whole, b"\xff" + json.loads(whole)["licence"].encode()]


def targets() -> list[FuzzTarget]:
    """Return all targets."""
    rfc = sorted((DATA / "rfc4475").glob("*.dat"))
    return [
        FuzzTarget(name="frames", run=_frames, seeds=_frame_seeds()),
        FuzzTarget(
            name="messages",
            run=_messages,
            seeds=_message_seeds(),
            allowed=(ControlOneError, ValueError),
        ),
        FuzzTarget(
            name="uci",
            run=_uci,
            seeds=_uci_seeds(),
            allowed=(UciError,),
            words=(b"config ", b"option ", b"list ", b"package ", b"'", b'"', b"\\", b"#", b"\n"),
        ),
        FuzzTarget(
            name="sip",
            run=_sip,
            seeds=[file.read_bytes() for file in rfc],
            words=(
                b"Via: SIP/2.0/UDP ",
                b";branch=z9hG4bK",
                b"<sip:",
                b"\r\n",
                b"Content-Length: ",
            ),
        ),
        FuzzTarget(name="console", run=_console, seeds=_console_seeds()),
        FuzzTarget(name="licence", run=_licence, seeds=_licence_seeds()),
    ]
