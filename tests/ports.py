"""Ports of loopback for tests and benches, each handed out once on this machine.

A port that "was free a moment ago" belongs to nobody: another test takes it before its server is
there, or while that server restarts. So processes reserve blocks of ports for as long as they
live, by a lock that the kernel lets go with them.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

#: Above the ports that Asterisk takes for RTP and below those that the kernel takes for outgoing
#: connections, so that neither comes between the look at a port and the server's bind.
FIRST, LAST = 20_001, 32_700
BLOCK = 100


class PortAllocator:
    """Hands out ports of 127.0.0.1 that are free for TCP and UDP, each one once in this process."""

    def __init__(self, locks: Path | None = None) -> None:
        self._locks = locks or Path(tempfile.gettempdir()) / f"controlone-ha-ports-{os.getuid()}"
        self._held: list[int] = []
        self._ports = self._reserve()

    def __call__(self) -> int:
        """Return one more free port; ``RuntimeError`` when every block is somebody's."""
        for port in self._ports:
            if _is_free(port):
                return port
        raise RuntimeError(f"no free port on 127.0.0.1 from {FIRST} to {LAST}")

    def close(self) -> None:
        """Let others have the ports."""
        for lock in self._held:
            os.close(lock)
        self._held.clear()

    def _reserve(self) -> Iterator[int]:
        self._locks.mkdir(mode=0o700, exist_ok=True)
        for start in range(FIRST, LAST - BLOCK + 1, BLOCK):
            # Not inherited: a server that a test left behind must not hold the block.
            lock = os.open(self._locks / str(start), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            self._held.append(lock)
            yield from range(start, start + BLOCK)


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


#: The ports of this process.
free_port = PortAllocator()
