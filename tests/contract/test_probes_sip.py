"""SIP probes against real UDP: a scripted responder, SIPp, Asterisk and the kernel's ICMP."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from controlone_ha.conference import asterisk as engine
from controlone_ha.core.observations import Outcome, ProbeResult, Service
from controlone_ha.lab.parts import Asterisk
from controlone_ha.paths import node_paths
from controlone_ha.probes.sip import SipProber
from controlone_ha.probes.sip_stream import SipStreams
from controlone_ha.sip.message import Request, build_response, fault, parse
from tests.ports import free_port
from tests.sip_server import stateless_server
from tests.waiting import freeze, thaw

pytestmark = pytest.mark.contract

Answer = Callable[[Request, int], list[bytes]]


@asynccontextmanager
async def prober(bind: str = "127.0.0.1") -> AsyncIterator[SipProber]:
    sip = SipProber()
    await sip.start(bind)
    try:
        yield sip
    finally:
        sip.close()


class Responder(asyncio.DatagramProtocol):
    """A SIP server of one line: ``answer(request, how many came so far)`` gives the datagrams."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        request = parse(data)
        assert isinstance(request, Request)
        self.requests.append(request)
        for datagram in self.answer(request, len(self.requests)):
            self.transport.sendto(datagram, addr)


@asynccontextmanager
async def responder(
    answer: Answer, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[tuple[Responder, int]]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: Responder(answer), local_addr=(host, port)
    )
    try:
        yield protocol, transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


def status(code: int, reason: str = "", **headers: str) -> Answer:
    return lambda request, _: [
        build_response(request, code, reason, to_tag="x", headers=headers.items()).to_bytes()
    ]


class TestScripted:
    def test_F1_an_answer_gives_status_server_and_round_trip(self) -> None:
        async def story() -> None:
            async with (
                responder(status(200, "OK", Server="Fake 1.0")) as (server, port),
                prober() as sip,
            ):
                result = await sip.probe("127.0.0.1", port)
                assert result.outcome is Outcome.ANSWERED
                assert result.service is Service.CONFERENCE
                assert result.answer == {"status": 200, "server": "Fake 1.0"}
                assert result.rtt_ms is not None and 0 < result.rtt_ms < 1000
                assert [fault(request) for request in server.requests] == [None]
                assert server.requests[0].uri == f"sip:127.0.0.1:{port}"
                assert sip.in_flight == 0

        asyncio.run(story())

    @pytest.mark.parametrize(
        ("code", "outcome"),
        [
            (401, Outcome.ANSWERED),
            (404, Outcome.ANSWERED),
            (486, Outcome.ANSWERED),
            (501, Outcome.ANSWERED),
            (603, Outcome.ANSWERED),
            (503, Outcome.REJECTED),
        ],
    )
    def test_F1_any_final_answer_counts_but_503(self, code: int, outcome: Outcome) -> None:
        async def story() -> ProbeResult:
            async with responder(status(code, "Said")) as (_, port), prober() as sip:
                return await sip.probe("127.0.0.1", port)

        result = asyncio.run(story())
        assert (result.outcome, result.detail) == (outcome, f"{code} Said")
        assert result.answer["status"] == code

    def test_F3_lost_requests_are_sent_again_within_the_time(self) -> None:
        def third(request: Request, count: int) -> list[bytes]:
            return status(200, "OK")(request, count) if count == 3 else []

        async def story() -> None:
            async with responder(third) as (server, port), prober() as sip:
                result = await sip.probe("127.0.0.1", port, timeout=0.7)
                assert result.outcome is Outcome.ANSWERED
                assert result.detail == "200 OK to transmission 3"
                assert len({request.to_bytes() for request in server.requests}) == 1

        asyncio.run(story())

    def test_F3_silence_is_a_timeout_after_the_stated_time(self) -> None:
        async def story() -> None:
            async with responder(lambda *_: []) as (server, port), prober() as sip:
                started = time.monotonic()
                result = await sip.probe("127.0.0.1", port, timeout=0.35)
                assert 0.3 < time.monotonic() - started < 2.0
                assert result.outcome is Outcome.TIMEOUT
                assert result.detail.startswith("no answer to 3 OPTIONS within 0.35 s")
                assert result.rtt_ms is None
                assert len(server.requests) == 3

        asyncio.run(story())

    def test_a_provisional_answer_alone_is_told(self) -> None:
        async def story() -> ProbeResult:
            async with responder(status(100, "Trying")) as (_, port), prober() as sip:
                return await sip.probe("127.0.0.1", port, timeout=0.2)

        result = asyncio.run(story())
        assert result.outcome is Outcome.TIMEOUT
        assert result.detail == "only 100 within 0.2 s, no final answer"

    def test_answers_that_are_not_sip_or_not_ours_end_nothing_by_themselves(self) -> None:
        def noisy(request: Request, count: int) -> list[bytes]:
            foreign = build_response(request, 200, "OK")
            foreign.headers[0] = ("Via", "SIP/2.0/UDP x;branch=z9hG4bKforeign")
            answer = status(200, "OK")(request, count) if count == 2 else []
            return [b"\xff\x00garbage", b"", foreign.to_bytes(), request.to_bytes(), *answer]

        async def story() -> None:
            async with responder(noisy) as (_, port), prober() as sip:
                result = await sip.probe("127.0.0.1", port, timeout=0.7)
                assert result.outcome is Outcome.ANSWERED
                assert sip.discarded >= 6

        asyncio.run(story())

    def test_a_server_that_speaks_something_else_is_rejected_at_the_end(self) -> None:
        async def story() -> ProbeResult:
            async with responder(lambda *_: [b"\x80\x00RTP\r\n\r\n"]) as (_, port), prober() as sip:
                return await sip.probe("127.0.0.1", port, timeout=0.2)

        result = asyncio.run(story())
        assert result.outcome is Outcome.REJECTED
        assert result.detail.startswith("answers, but not in SIP: ")

    def test_a_cancelled_probe_leaves_nothing_behind(self) -> None:
        async def story() -> None:
            async with responder(lambda *_: []) as (server, port), prober() as sip:
                task = asyncio.ensure_future(sip.probe("127.0.0.1", port, timeout=0.2))
                await asyncio.sleep(0.01)
                assert sip.in_flight == 1
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                assert sip.in_flight == 0
                seen = len(server.requests)
                await asyncio.sleep(0.15)
                assert len(server.requests) == seen

        asyncio.run(story())

    def test_closing_ends_what_is_in_flight(self) -> None:
        async def story() -> ProbeResult:
            async with responder(lambda *_: []) as (_, port), prober() as sip:
                task = asyncio.ensure_future(sip.probe("127.0.0.1", port, timeout=30))
                await asyncio.sleep(0.01)
                sip.close()
                return await asyncio.wait_for(task, 1)

        assert asyncio.run(story()).detail == "the prober was closed"

    def test_one_socket_serves_ipv6_targets_too(self) -> None:
        async def story() -> ProbeResult:
            async with responder(status(200, "OK"), "::1") as (server, port), prober() as sip:
                result = await sip.probe("::1", port)
                assert server.requests[0].uri == f"sip:[::1]:{port}"
                return result

        assert asyncio.run(story()).outcome is Outcome.ANSWERED

    def test_a_name_is_resolved_and_a_wrong_one_is_unreachable(self) -> None:
        async def story() -> None:
            async with responder(status(200, "OK")) as (_, port), prober("") as sip:
                good = await sip.probe("localhost", port, timeout=1.0)
                assert good.outcome in (Outcome.ANSWERED, Outcome.REFUSED)  # ::1 may come first
                bad = await sip.probe("x" * 64 + ".invalid", port)
                assert bad.outcome is Outcome.UNREACHABLE
                assert "not resolved" in bad.detail

        asyncio.run(story())

    def test_A1_a_hundred_peers_each_second_cost_under_5_percent_of_a_core(self) -> None:
        # The responder runs in another process, so that only the prober's time is counted.
        with stateless_server() as port:

            async def story() -> float:
                async with prober() as sip:
                    await asyncio.gather(*(sip.probe("127.0.0.1", port) for _ in range(50)))
                    before = time.process_time()
                    for _ in range(5):
                        results = await asyncio.gather(
                            *(sip.probe("127.0.0.1", port) for _ in range(100))
                        )
                        assert all(result.is_answered for result in results)
                    return (time.process_time() - before) / 5

            assert asyncio.run(story()) < 0.05


class TestBesideTcp:
    """A dead server whose ICMP does not come, as when the RTP of its calls uses it up."""

    @pytest.mark.parametrize(
        ("takes_tcp", "hangs", "outcome"),
        [
            (True, False, Outcome.REFUSED),
            (True, True, Outcome.TIMEOUT),
            (False, False, Outcome.TIMEOUT),
        ],
        ids=["its port refuses", "it hangs", "it never took TCP"],
    )
    def test_F1_F3_silent_on_udp_it_is_gone_when_tcp_refuses_now_and_did_not_before(
        self, takes_tcp: bool, hangs: bool, outcome: Outcome
    ) -> None:
        answers = True

        def answer(request: Request, number: int) -> list[bytes]:
            return status(200)(request, number) if answers else []

        async def story() -> ProbeResult:
            nonlocal answers
            async with responder(answer, port=free_port()) as (_, port), prober() as sip:
                with socket.socket() as tcp:
                    tcp.bind(("127.0.0.1", port))
                    if takes_tcp:
                        tcp.listen()
                    assert (await sip.probe("127.0.0.1", port)).outcome is Outcome.ANSWERED
                    await asyncio.sleep(0.1)
                    answers = False
                    if hangs:
                        return await sip.probe("127.0.0.1", port, timeout=0.3)
                return await sip.probe("127.0.0.1", port, timeout=0.3)

        result = asyncio.run(story())
        assert result.outcome is outcome, result.detail
        assert ("TCP refused" in result.detail) is (outcome is Outcome.REFUSED)

    @pytest.mark.parametrize("is_closed_first", [True, False], ids=["before", "after"])
    def test_F3_a_way_that_was_reported_closed_before_the_server_answered_is_open(
        self, is_closed_first: bool
    ) -> None:
        async def story() -> bool:
            streams, now = SipStreams(), asyncio.get_running_loop().time()
            with socket.socket() as tcp:
                tcp.bind(("127.0.0.1", 0))
                tcp.listen()
                target = tcp.getsockname()
                if is_closed_first:  # as by its router while it was booting
                    streams.closed(target, now)
                streams.answered(target, now + 1.0)
                await asyncio.sleep(0.1)
            if not is_closed_first:
                streams.closed(target, now + 2.0)
            return await streams.refuses(target, now + 3.0)

        assert asyncio.run(story()) is is_closed_first


class TestKernel:
    def test_F3_a_dead_port_refuses_within_milliseconds(self) -> None:
        async def story() -> tuple[ProbeResult, float]:
            async with prober() as sip:
                started = time.monotonic()
                result = await sip.probe("127.0.0.1", free_port(), timeout=5.0)
                return result, time.monotonic() - started

        result, took = asyncio.run(story())
        assert result.outcome is Outcome.REFUSED
        assert result.detail == "port unreachable: no SIP server on it"
        assert took < 2.0

    def test_F3_a_refusal_of_one_target_does_not_touch_the_others(self) -> None:
        async def story() -> list[Outcome]:
            async with responder(status(200, "OK")) as (_, port), prober() as sip:
                dead = free_port()
                targets = [port, dead] * 20
                results = await asyncio.gather(*(sip.probe("127.0.0.1", one) for one in targets))
                return [result.outcome for result in results]

        assert asyncio.run(story()) == [Outcome.ANSWERED, Outcome.REFUSED] * 20

    def test_F3_no_route_is_unreachable_at_once(self) -> None:
        async def story() -> tuple[ProbeResult, float]:
            async with prober() as sip:  # bound to loopback: nothing leaves the machine
                started = time.monotonic()
                result = await sip.probe("192.0.2.1", timeout=5.0)
                return result, time.monotonic() - started

        result, took = asyncio.run(story())
        assert result.outcome is Outcome.UNREACHABLE
        assert result.detail
        assert took < 2.0


async def _until_answered(sip: SipProber, port: int, seconds: float = 10.0) -> ProbeResult:
    deadline = time.monotonic() + seconds
    while True:
        result = await sip.probe("127.0.0.1", port, timeout=0.5)
        if result.is_answered or time.monotonic() > deadline:
            return result
        await asyncio.sleep(0.05)


_UAS_OPTIONS = """<?xml version="1.0" encoding="ISO-8859-1" ?>
<!DOCTYPE scenario SYSTEM "sipp.dtd">
<scenario name="uas options">
  <recv request="OPTIONS"/>
  <send>
    <![CDATA[
      SIP/2.0 200 OK
      [last_Via:]
      [last_From:]
      [last_To:];tag=[call_number]
      [last_Call-ID:]
      [last_CSeq:]
      Server: SIPp
      Content-Length: 0

    ]]>
  </send>
</scenario>
"""


@contextmanager
def sipp_server(sipp: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        scenario = Path(folder, "uas.xml")
        scenario.write_text(_UAS_OPTIONS)
        process = subprocess.Popen(
            [
                "sipp", "-sf", str(scenario), "-i", "127.0.0.1", "-p", str(port),
                "-ci", "127.0.0.1", "-nostdin",
            ],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TERM": "dumb"},
        )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@contextmanager
def asterisk_server(
    program: Asterisk, directory: Path, port: int, control_port: int
) -> Iterator[subprocess.Popen[bytes]]:
    """The node's Conference Server, prepared and started as a node does it."""
    environment = {
        "UCI_CONFIG_DIR": str(directory / "config"),
        "CONTROLONE_STATE_DIR": str(directory / "state"),
        "CONTROLONE_RUN_DIR": str(directory / "run"),
    }
    (directory / "config").mkdir()
    (directory / "config" / "conference").write_text(
        f"config conference 'default'\n\toption bind '127.0.0.1'\n\toption port '{port}'\n"
    )
    found = engine.AsteriskProgram(
        command=program.command,
        module_directory=program.module_directory,
        data_directory=program.data_directory,
    )
    engine.prepare(node_paths(environment), found, ari_port=control_port)
    process = subprocess.Popen(
        engine.command(node_paths(environment), found),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(params=["sipp", "asterisk"])
def server(
    request: pytest.FixtureRequest,
    sipp_path: Path,
    asterisk: Asterisk,
    short_directory: Path,
    free_port: Callable[[], int],
) -> Iterator[tuple[int, subprocess.Popen[bytes], str]]:
    """A SIP server: its port, its process, and how its name begins."""
    port = free_port()
    if request.param == "sipp":
        with sipp_server(sipp_path, port) as process:
            yield port, process, "SIPp"
    else:
        with asterisk_server(asterisk, short_directory, port, free_port()) as process:
            yield port, process, "ControlONE"


class TestAnyServer:
    """The same on SIPp and on the node's Asterisk."""

    def test_F1_F3_A1_a_server_is_asked_frozen_thawed_and_killed(
        self, server: tuple[int, subprocess.Popen[bytes], str]
    ) -> None:
        port, process, name = server

        async def story() -> None:
            async with prober() as sip:
                first = await _until_answered(sip, port)
                assert first.outcome is Outcome.ANSWERED, first
                assert first.answer["status"] == 200
                assert first.answer["server"].startswith(name)
                freeze(process.pid)
                frozen = await sip.probe("127.0.0.1", port, timeout=0.3)
                assert frozen.outcome is Outcome.TIMEOUT
                thaw(process.pid)
                assert (await _until_answered(sip, port)).outcome is Outcome.ANSWERED
                process.kill()
                process.wait()
                assert (await sip.probe("127.0.0.1", port)).outcome is Outcome.REFUSED

        asyncio.run(story())


_ROUTED = """
import asyncio, json, sys
from controlone_ha.probes.sip import SipProber
from tests.ports import free_port
async def main():
    sip = SipProber()
    await sip.start()
    probes = [sip.probe(host, 5060, timeout=8.0) for host in sys.argv[1:]]
    results = await asyncio.gather(*probes)
    print(json.dumps([[result.outcome, result.detail] for result in results]))
asyncio.run(main())
"""


@pytest.mark.usefixtures("root")
class TestNetwork:
    def test_F3_who_says_that_there_is_no_way_is_told(self) -> None:
        """A node, and a router beside it: what refuses, and who reports it, with real ICMP."""
        setup = """
            set -e
            unshare --net sleep 60 & router=$!
            while [ "$(readlink /proc/$router/ns/net)" = "$(readlink /proc/$$/ns/net)" ]; do :; done
            trap 'kill $router' EXIT
            inside="nsenter --target=$router --net"
            ip link set lo up
            ip link add eth0 type veth peer name eth0 netns $router
            ip addr add 10.77.0.1/24 dev eth0
            ip link set eth0 up
            $inside ip addr add 10.77.0.254/24 dev eth0
            $inside ip link set eth0 up
            $inside sysctl -q -w net.ipv4.ip_forward=1
            $inside ip route add prohibit 10.88.0.0/16
            $inside ip route add unreachable 10.89.0.0/16
            ip route add 10.88.0.0/16 via 10.77.0.254
            ip route add 10.89.0.0/16 via 10.77.0.254
            "$@"
        """
        targets = ["10.77.0.254", "10.88.0.1", "10.89.0.1", "10.77.0.9", "10.99.0.1"]
        done = subprocess.run(
            ["unshare", "--net", "sh", "-c", setup, "sh", sys.executable, "-c", _ROUTED, *targets],
            cwd=Path(__file__).resolve().parents[2],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == [
            ["refused", "port unreachable: no SIP server on it"],
            ["unreachable", "no route to host, reported by 10.77.0.254"],
            ["unreachable", "no route to host, reported by 10.77.0.254"],
            ["unreachable", "no route to host, reported by 10.77.0.1"],  # nobody answers ARP
            ["unreachable", "network unreachable"],
        ]
