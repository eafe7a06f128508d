"""A bad cable: carries the frames of one lab node late, or not at all.

    python -m controlone_ha.lab.wire ROUTER_NAMESPACE NODE_NAMESPACE PORT TAP DELAY_MS JITTER_MS
    LOSS

Theory of operation. The kernel's own netem is missing on many machines, so the lab brings the
cable. The node's port is taken out of its bridge and a tap interface put in; this process, in the
router's namespace, carries every frame from one to the other, both ways: each is lost with the
given probability, else delivered after the delay plus a random part of the jitter (so that jitter
also reorders). Checksums and segments that the node would leave to the hardware are made by its
kernel: offloading is switched off on its interface. It ends when the lab kills it, or at the end of
file of its standard input, if that is a pipe (the lab's owner died). Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import os
import random
import selectors
import socket
import stat
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from controlone_ha.lab import namespaces
from controlone_ha.lab.topology import NODE_INTERFACE

QUEUE = 20_000
"""Frames on their way at most, both ways together; more are lost, as in a full buffer."""

_FRAME = 65_536
_TUNSETIFF = 0x400454CA
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_SIOCETHTOOL = 0x8946
_ETHTOOL_OFF = (0x17, 0x1F, 0x25)  # ETHTOOL_STXCSUM, _STSO, _SGSO with value 0
_ETH_P_ALL = 3

Send = Callable[[bytes], object]


@dataclass
class Cable:
    """What is lost and what arrives when: pure, with time in seconds given from outside."""

    delay: float
    jitter: float
    loss: float
    random: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self._frames: list[tuple[float, int, bytes, Send]] = []
        self._count = 0

    def put(self, now: float, frame: bytes, send: Send) -> None:
        """Take a frame; it is lost, or due later."""
        if self.random.random() < self.loss or len(self._frames) >= QUEUE:
            return
        due = now + self.delay + self.random.random() * self.jitter
        self._count += 1
        heapq.heappush(self._frames, (due, self._count, frame, send))

    def deliver(self, now: float) -> float | None:
        """Send what is due; return seconds until the next frame is, None if there is none."""
        while self._frames and self._frames[0][0] <= now:
            _due, _count, frame, send = heapq.heappop(self._frames)
            with contextlib.suppress(OSError):  # the other end is down: lost
                send(frame)
        return self._frames[0][0] - now if self._frames else None


def _switch_offloading_off(interface: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        for command in _ETHTOOL_OFF:
            value = ctypes.create_string_buffer(struct.pack("II", command, 0))
            request = struct.pack("16sP", interface.encode(), ctypes.addressof(value))
            with contextlib.suppress(OSError):  # what an interface does not have is off
                fcntl.ioctl(handle, _SIOCETHTOOL, request)


def _open_tap(name: str) -> int:
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    request = struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI)
    fcntl.ioctl(tap, _TUNSETIFF, request)
    return tap


def carry(cable: Cable, port: socket.socket, tap: int) -> None:
    """Carry frames until standard input ends, or for ever."""
    selector = selectors.DefaultSelector()
    selector.register(port, selectors.EVENT_READ)
    selector.register(tap, selectors.EVENT_READ)
    if stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
        selector.register(sys.stdin, selectors.EVENT_READ)

    def to_port(frame: bytes) -> None:
        port.send(frame)

    def to_tap(frame: bytes) -> None:
        os.write(tap, frame)

    wait: float | None = None
    while True:
        for key, _events in selector.select(wait):
            if key.fileobj is sys.stdin:
                return
            with contextlib.suppress(OSError):  # the interface is down, or no more to read
                while True:
                    now = time.monotonic()
                    if key.fileobj is port:
                        frame, source = port.recvfrom(_FRAME)
                        if source[2] != socket.PACKET_OUTGOING:
                            cable.put(now, frame, to_tap)
                    else:
                        cable.put(now, os.read(tap, _FRAME), to_port)
        wait = cable.deliver(time.monotonic())


def main(arguments: list[str]) -> int:
    """Set the cable up, print `ready`, carry."""
    router, node, port_name, tap_name, delay, jitter, loss = arguments
    namespaces.set_namespace(Path(node), namespaces.CLONE_NEWNET)
    _switch_offloading_off(NODE_INTERFACE)
    namespaces.set_namespace(Path(router), namespaces.CLONE_NEWNET)
    tap = _open_tap(tap_name)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)) as port:
        port.bind((port_name, 0))
        port.setblocking(False)
        print("ready", flush=True)
        cable = Cable(float(delay) / 1000, float(jitter) / 1000, float(loss) / 100)
        carry(cable, port, tap)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
