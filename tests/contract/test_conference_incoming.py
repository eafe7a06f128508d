"""Calls that come in, on the wire, with the real Asterisk and the real controller."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from controlone_ha.jsonrpc import RpcError
from controlone_ha.lab.parts import Asterisk
from controlone_ha.peers.keys import ensure_identity
from tests.contract.conference_support import Server, phones, serving
from tests.phone import Phone
from tests.recorder import Recorder
from tests.waiting import until

pytestmark = pytest.mark.contract


@pytest.fixture
def server(asterisk: Asterisk, short_directory: Path, free_port: Callable[[], int]) -> Server:
    return Server(short_directory, asterisk, free_port)


def test_L2_603_without_a_console_and_200_with_one(server: Server, sipp_path: Path) -> None:
    async def story() -> None:
        async with serving(server), phones(Phone("desk"), Phone("caller")) as (desk, caller):
            await server.present()
            declined = caller.dial("100", server.port)
            await asyncio.wait_for(declined.ended.wait(), 5)
            assert declined.statuses[-1] == 603
            assert not server.documents  # a refused call is nobody's business
            assert await sipp(sipp_path, server, "603") == 0
            await server.present(desk)
            taken = caller.dial("100", server.port)
            await asyncio.wait_for(taken.answered.wait(), 5)
            assert taken.statuses[-2:] == [180, 200]
            await until(lambda: desk.calls and desk.call.answered.is_set(), 5)
            (document,) = server.live
            assert (document["state"], document["queue"]) == ("up", "100")
            caller.hang_up(taken)
            await asyncio.wait_for(desk.call.ended.wait(), 5)
            await server.until_over()
            assert await sipp(sipp_path, server, "200") == 0
            await server.present()
            again = caller.dial("100", server.port)
            await asyncio.wait_for(again.ended.wait(), 5)
            assert again.statuses[-1] == 603
            assert (await server.call("status"))["refused"] == {"no_console": 3}

    asyncio.run(story())


async def sipp(program: Path, server: Server, status: str) -> int:
    """Make one call by SIPp that expects ``status``; return its exit code."""
    ending = (
        '<recv response="200" rrs="true"/>' + SIPP_END
        if status == "200"
        else f'<recv response="{status}"/>' + SIPP_ACK
    )
    file = server.directory / f"uac_{status}.xml"
    file.write_text(SIPP_BEGIN + ending + "</scenario>\n")
    process = await asyncio.create_subprocess_exec(
        str(program), f"127.0.0.1:{server.port}", "-sf", str(file), "-s", "100", "-m", "1",
        "-i", "127.0.0.1", "-ci", "127.0.0.1", "-nostdin", "-timeout", "5",
        cwd=server.directory,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return await asyncio.wait_for(process.wait(), 10)


SIPP_HEAD = """
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
Max-Forwards: 70
From: <sip:sipp@[local_ip]:[local_port]>;tag=[call_number]
To: <sip:[service]@[remote_ip]:[remote_port]>[peer_tag_param]
Call-ID: [call_id]
Contact: <sip:sipp@[local_ip]:[local_port]>
"""
SIPP_BEGIN = f"""<?xml version="1.0" encoding="ISO-8859-1" ?>
<scenario name="uac">
<send retrans="500"><![CDATA[
INVITE sip:[service]@[remote_ip]:[remote_port] SIP/2.0{SIPP_HEAD}CSeq: 1 INVITE
Content-Type: application/sdp
Content-Length: [len]

v=0
o=user1 1 1 IN IP4 [local_ip]
s=-
c=IN IP4 [local_ip]
t=0 0
m=audio [media_port] RTP/AVP 0
a=rtpmap:0 PCMU/8000
]]></send>
<recv response="100" optional="true"/>
<recv response="180" optional="true"/>
"""
SIPP_ACK = f"""<send><![CDATA[
ACK sip:[service]@[remote_ip]:[remote_port] SIP/2.0{SIPP_HEAD}CSeq: 1 ACK
Content-Length: 0

]]></send>"""
SIPP_END = (
    SIPP_ACK
    + f"""<pause milliseconds="200"/><send retrans="500"><![CDATA[
BYE [next_url] SIP/2.0{SIPP_HEAD}CSeq: 2 BYE
Content-Length: 0

]]></send><recv response="200"/>"""
)


def test_L1_a_call_is_anchored_here_and_heard_both_ways(server: Server) -> None:
    async def story() -> None:
        server.configure("config queue '100'\n\toption record '1'\n")
        async with (
            serving(server),
            phones(Phone("desk", tone=440), Phone("caller", tone=1000)) as (desk, caller),
        ):
            await server.present(desk)
            call = caller.dial("100", server.port)
            await asyncio.wait_for(call.answered.wait(), 5)
            await until(lambda: desk.media.received > 50 and caller.media.received > 50, 10)
            (document,) = server.live
            gateway, console = document["legs"]
            for leg, phone in ((gateway, caller), (console, desk)):
                assert leg["state"] == "confirmed"
                assert leg["call_id"] == phone.call.call_id
                assert leg["remote_target"].startswith(phone.uri)
                assert leg["transport"] == "udp"
                assert leg["codec"] == "ulaw"
            # From and To hold no port (RFC 3261, table 1): Asterisk leaves it out.
            assert gateway["remote_uri"] == "sip:caller@127.0.0.1"
            assert gateway["local_uri"] == "sip:100@127.0.0.1"
            assert console["remote_uri"].startswith("sip:desk@127.0.0.1")
            assert gateway["remote_tag"] == f"c1{caller.port}"
            assert console["remote_tag"] == f"p0{desk.port}"
            assert f"tag={gateway['local_tag']}" in call.remote
            assert f"tag={console['local_tag']}" in desk.call.remote
            assert document["recording"]["running"]
            caller.hang_up(call)
            await server.until_over()

    asyncio.run(story())
    check_recording(server)


def check_recording(server: Server) -> None:
    """The recording holds both tones, and its document says what it is."""
    import hashlib

    from tests.phone import strength

    folder = server.paths.asterisk_dir / "spool" / "recording"
    (wav,) = folder.glob("*/*.wav")
    document = json.loads(wav.with_suffix(".json").read_text())
    content = wav.read_bytes()
    samples = [
        int.from_bytes(content[index : index + 2], "little", signed=True)
        for index in range(44, len(content) - 1, 2)
    ]
    middle = samples[len(samples) // 2 :][:4000]
    assert strength(middle, 440) > 0.2
    assert strength(middle, 1000) > 0.2
    assert strength(middle, 700) < 0.05
    assert document["sha256"] == hashlib.sha256(content).hexdigest()
    assert document["parties"] == ["caller", "desk"]
    assert 0.5 < document["seconds"] < 10


def test_A4_an_external_recorder_gets_the_audio_and_is_told_of_the_session(
    server: Server,
) -> None:
    async def story() -> None:
        recorder, desk, caller = Recorder(), Phone("desk", tone=440), Phone("caller")
        told = recorder.told
        async with recorder.running(), phones(desk, caller):
            options = f"\toption settle '0'\n{recorder.options}"
            server.configure("config queue '100'\n\toption record '1'\n", options)
            async with serving(server):
                await server.present(desk)
                call = caller.dial("100", server.port)
                await asyncio.wait_for(call.answered.wait(), 5)
                await until(lambda: recorder.received > 50, 10)
                caller.hang_up(call)
                await server.until_over()
                await until(lambda: len(told) == 2, 5)
        assert [item["event"] for item in told] == ["start", "stop"]
        assert {item["session"] for item in told} == {told[0]["session"]}
        assert told[0]["parties"] == ["caller", "desk"]

    asyncio.run(story())


def test_a_call_that_cannot_be_recorded_goes_on_and_says_so(server: Server) -> None:
    async def story() -> None:
        server.configure("config queue '100'\n\toption record '1'\n")
        desk, caller = Phone("desk"), Phone("caller")
        async with serving(server), phones(desk, caller):
            (server.paths.asterisk_dir / "spool" / "recording").rmdir()
            (server.paths.asterisk_dir / "spool" / "recording").write_text("in the way")
            await server.present(desk)
            call = caller.dial("100", server.port)
            await asyncio.wait_for(call.answered.wait(), 5)
            await until(lambda: [event["kind"] for event in server.events] == ["not_recorded"], 5)
            assert call.state == "up"
            caller.hang_up(call)
            await server.until_over()

    asyncio.run(story())


def test_L2_a_call_that_is_ended_while_it_rings_is_not_declined_with_603(server: Server) -> None:
    async def story() -> None:
        desk, caller = Phone("desk", answer=None), Phone("caller")
        async with serving(server), phones(desk, caller):
            await server.present(desk)
            call = caller.dial("100", server.port)
            await until(lambda: bool(server.live and desk.calls), 5)
            await server.call("hangup", call=server.live[0]["id"])
            await asyncio.wait_for(call.ended.wait(), 5)
            assert call.statuses[-1] == 480
            await server.until_over()

    asyncio.run(story())


def test_a_console_answers_by_its_own_controls(server: Server) -> None:
    async def story() -> None:
        desk, caller = Phone("desk", answer=None), Phone("caller")
        async with serving(server), phones(desk, caller):
            await server.present(desk)
            call = caller.dial("100", server.port)
            await until(lambda: bool(server.live and desk.calls), 5)
            (document,) = server.live
            with pytest.raises(RpcError, match="does not ring at nobody"):
                await server.call("answer", call=document["id"], console="nobody")
            desk.answer_after = 0.0
            await server.call("answer", call=document["id"], console="desk")
            await asyncio.wait_for(call.answered.wait(), 5)
            assert "answer-after=0" in desk.call.request
            assert desk.cancelled == 1
            caller.hang_up(call)
            await server.until_over()

    asyncio.run(story())


def test_the_first_answer_wins_and_the_others_are_cancelled(server: Server) -> None:
    async def story() -> None:
        slow, quick = Phone("slow", answer=None), Phone("quick", answer=0.2)
        busy = Phone("busy", refuse=486)
        async with serving(server), phones(slow, quick, busy, Phone("caller")) as made:
            caller = made[-1]
            await server.present(slow, quick, busy)
            call = caller.dial("100", server.port)
            await asyncio.wait_for(call.answered.wait(), 5)
            await until(lambda: slow.cancelled == 1, 5)
            (document,) = server.live
            live = [leg["party"] for leg in document["legs"] if leg["state"] == "confirmed"]
            assert sorted(live) == ["caller", "quick"]
            quick.hang_up(quick.call)
            await asyncio.wait_for(call.ended.wait(), 5)
            await server.until_over()

    asyncio.run(story())


def test_a_caller_who_hangs_up_while_it_rings_stops_the_ringing(server: Server) -> None:
    async def story() -> None:
        desk = Phone("desk", answer=None)
        async with serving(server), phones(desk, Phone("caller")) as (_, caller):
            await server.present(desk)
            call = caller.dial("100", server.port)
            await until(lambda: call.state == "ringing" and desk.calls, 5)
            caller.hang_up(call)
            await until(lambda: desk.cancelled == 1 and call.statuses[-1] == 487, 5)
            await server.until_over()
            (document,) = server.documents.values()
            assert (document["state"], document["reason"]) == ("ended", "caller_gone")

    asyncio.run(story())


QUEUES = """
config queue 'first'
	option number '100'
	option ring_timeout '1'
	option overflow '200'
	option strategy 'round_robin'
	option ring_step '1'
config queue 'second'
	option number '200'
	option ring_timeout '1'
"""


def test_nobody_answers_the_next_queue_is_rung_and_then_the_call_is_refused(
    server: Server,
) -> None:
    async def story() -> None:
        server.configure(QUEUES, "\toption settle '0'\n\toption max_calls '1'\n")
        first, second = Phone("first", answer=None), Phone("second", answer=None)
        other = Phone("other")
        async with serving(server), phones(first, second, other, Phone("caller")) as made:
            caller = made[-1]
            consoles = [
                {"name": "first", "queues": ["100"], "sip": first.uri},
                {"name": "second", "queues": ["200"], "sip": second.uri},
            ]
            await server.call("consoles", consoles=consoles)
            call = caller.dial("100", server.port)
            await until(lambda: first.calls, 5)
            full = other.dial("200", server.port)
            unknown = other.dial("999", server.port)
            await asyncio.wait_for(full.ended.wait(), 5)
            assert (full.statuses[-1], "cause=42" in full.reason) == (503, True)
            await asyncio.wait_for(unknown.ended.wait(), 5)
            await asyncio.wait_for(call.ended.wait(), 8)
            assert call.statuses[-1] == 480
            await until(lambda: (first.cancelled, second.cancelled) == (1, 1), 5)
            await server.until_over()
            missing = other.dial("999", server.port)
            await asyncio.wait_for(missing.ended.wait(), 5)
            assert (missing.statuses[-1], "cause=1" in missing.reason) == (404, True)

    asyncio.run(story())


def test_a_call_waits_while_consoles_are_arriving_and_is_declined_when_none_came(
    server: Server,
) -> None:
    async def story() -> None:
        server.configure("", "\toption settle '1.5'\n")
        async with serving(server), phones(Phone("desk"), Phone("caller")) as (desk, caller):
            lucky = caller.dial("100", server.port)
            unlucky = caller.dial("200", server.port)
            await asyncio.sleep(0.3)
            assert lucky.state == unlucky.state == "new"
            await server.present(desk)
            await asyncio.wait_for(lucky.answered.wait(), 5)
            await asyncio.wait_for(unlucky.ended.wait(), 5)
            assert unlucky.statuses[-1] == 603
            caller.hang_up(lucky)
            await server.until_over()

    asyncio.run(story())


def test_F1_an_inactive_server_answers_503_and_probes_are_answered_all_the_same(
    server: Server,
) -> None:
    async def story() -> None:
        async with serving(server), phones(Phone("desk"), Phone("caller")) as (desk, caller):
            await server.present(desk)
            await server.call("order", active=False, reason="handing over")
            call = caller.dial("100", server.port)
            await asyncio.wait_for(call.ended.wait(), 5)
            assert (call.statuses[-1], "cause=34" in call.reason) == (503, True)
            probe = caller.dial("ha-probe", server.port)
            await asyncio.wait_for(probe.answered.wait(), 5)
            caller.hang_up(probe)
            server.kill("controller")
            orphan = caller.dial("100", server.port)
            await asyncio.wait_for(orphan.ended.wait(), 5)
            assert orphan.statuses[-1] == 503
            probe = caller.dial("ha-probe", server.port)
            await asyncio.wait_for(probe.answered.wait(), 5)
            caller.hang_up(probe)

    asyncio.run(story())


def test_X1_sip_over_tls_is_served_with_the_node_s_certificate(
    server: Server, free_port: Callable[[], int]
) -> None:
    port = free_port()
    server.configure("", f"\toption tls_port '{port}'\n")
    ensure_identity(server.paths, "n")

    def ask() -> tuple[str, bytes]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            with context.wrap_socket(plain) as stream:
                certificate = stream.getpeercert(binary_form=True) or b""
                stream.sendall(
                    b"OPTIONS sip:127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TLS 127.0.0.1:9;branch=z9hG4bKt"
                    b"\r\nMax-Forwards: 70\r\nFrom: <sip:t@127.0.0.1>;tag=1\r\nTo: <sip:127.0.0.1>"
                    b"\r\nCall-ID: t@t\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
                )
                return stream.recv(4096).decode(), certificate

    async def story() -> None:
        async with serving(server):
            answer, certificate = await asyncio.get_running_loop().run_in_executor(None, ask)
        assert answer.startswith("SIP/2.0 200 ")
        own = ssl.PEM_cert_to_DER_cert(server.paths.certificate_file.read_text())
        assert certificate == own

    asyncio.run(story())
