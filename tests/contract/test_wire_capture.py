"""What a capture on the loopback interface shows of a call: statuses, routes in order, RTP."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controlone_ha.lab.parts import Asterisk
from tests.contract.conference_support import Server, phones, serving
from tests.contract.test_conference_calls import SILENCE, dialplan, until_up
from tests.phone import Phone
from tests.waiting import until

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("root")]

ETH_P_IP = 0x0800
OUTGOING = 4


class Capture:
    """UDP datagrams on the loopback interface, each once: (from port, to port, content)."""

    def __init__(self) -> None:
        self.datagrams: list[tuple[int, int, bytes]] = []
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
        self._socket.bind(("lo", ETH_P_IP))
        self._socket.settimeout(0.2)
        self._thread = threading.Thread(target=self._read)
        self._is_over = False

    def _read(self) -> None:
        while not self._is_over:
            try:
                packet, address = self._socket.recvfrom(65536)
            except TimeoutError:
                continue
            if address[2] == OUTGOING or len(packet) < 28 or packet[9] != socket.IPPROTO_UDP:
                continue
            header = (packet[0] & 15) * 4
            source, target = struct.unpack_from("!HH", packet, header)
            self.datagrams.append((source, target, packet[header + 8 :]))

    def __enter__(self) -> Capture:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join()
        self._socket.close()

    def first_lines(self, source: int, target: int) -> list[str]:
        """Return the first lines of the SIP messages from one port to another, repeats left out."""
        found: list[str] = []
        for sent_from, sent_to, content in self.datagrams:
            if (sent_from, sent_to) == (source, target):
                line = content.split(b"\r\n", 1)[0].decode("utf-8", "replace")
                if line not in found[-1:]:
                    found.append(line)
        return found

    def rtp(self, port: int) -> Counter[str]:
        """Return how many RTP packets went to and from a port."""
        count: Counter[str] = Counter()
        for source, target, content in self.datagrams:
            if len(content) == 172 and content[0] >> 6 == 2:  # 12 bytes of header, 20 ms of G.711
                count["in" if target == port else "out" if source == port else "other"] += 1
        return count


@pytest.fixture
def server(asterisk: Asterisk, short_directory: Path, free_port: Callable[[], int]) -> Server:
    return Server(short_directory, asterisk, free_port)


@pytest.fixture
def capture() -> Iterator[Capture]:
    with contextlib.ExitStack() as stack:
        yield stack.enter_context(Capture())


def test_L2_the_wire_shows_603_without_a_console_and_200_with_rtp_both_ways_with_one(
    server: Server, capture: Capture
) -> None:
    async def story() -> None:
        desk, caller = Phone("desk", tone=440), Phone("caller", tone=1000)
        async with serving(server), phones(desk, caller):
            await server.present()
            declined = caller.dial("100", server.port)
            await asyncio.wait_for(declined.ended.wait(), 5)
            final = "SIP/2.0 603 Decline"
            await until(lambda: final in capture.first_lines(server.port, caller.port), 2)
            seen = capture.first_lines(server.port, caller.port)
            assert seen[-1] == final
            assert not any("200" in line or "18" in line.split()[1][:2] for line in seen)
            await server.present(desk)
            taken = caller.dial("100", server.port)
            await asyncio.wait_for(taken.answered.wait(), 5)
            await until(lambda: min(desk.media.received, caller.media.received) > 50, 8)
            caller.hang_up(taken)
            await server.until_over()
            await asyncio.sleep(0.3)
            later = capture.first_lines(server.port, caller.port)[len(seen) :]
            wanted = ["SIP/2.0 100 Trying", "SIP/2.0 180 Ringing", "SIP/2.0 200 OK"]
            assert [line for line in later if line in wanted][:3] == wanted
            for phone in (desk, caller):
                count = capture.rtp(phone.media.port)
                assert count["in"] > 50 and count["out"] > 50, count

    asyncio.run(story())


def test_L3_the_wire_shows_three_gateways_asked_one_after_the_other(
    server: Server, capture: Capture
) -> None:
    async def story() -> None:
        silent, sick = Phone("silent", silent=True), Phone("sick", refuse=503)
        good, desk = Phone("good", answer=0.1), Phone("desk")
        async with phones(silent, sick, good, desk):
            server.configure(dialplan(silent, sick, good), SILENCE)
            async with serving(server):
                await server.present(desk)
                call = await server.call("dial", console="desk", number="0119")
                await until_up(server, call["id"])
                await server.call("hangup", call=call["id"])
                await server.until_over()
        ports = [silent.port, sick.port, good.port]
        order = [
            ports.index(target)
            for source, target, content in capture.datagrams
            if source == server.port and target in ports and content.startswith(b"INVITE ")
        ]
        # The silent one may be sent the INVITE once more while the next is being asked.
        assert list(dict.fromkeys(order)) == [0, 1, 2]
        assert "SIP/2.0 503 Service Unavailable" in capture.first_lines(sick.port, server.port)
        assert "SIP/2.0 200 OK" in capture.first_lines(good.port, server.port)

    asyncio.run(story())
