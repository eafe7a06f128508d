"""A SIP server in a process of its own, so that only the asking side's time is measured."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SERVER = """
import socket, sys
sys.path.insert(0, sys.argv[1])
from controlone_ha.sip.message import build_response, parse
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
udp.bind(("127.0.0.1", 0))
print(udp.getsockname()[1], flush=True)
while True:
    data, source = udp.recvfrom(65535)
    udp.sendto(build_response(parse(data), 200, "OK", to_tag="x").to_bytes(), source)
"""


@contextmanager
def stateless_server() -> Iterator[int]:
    """Yield the UDP port of a process that answers every request with 200 OK."""
    root = str(Path(__file__).parent.parent)
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER, root], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()
