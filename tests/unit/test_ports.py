"""Two that need ports at the same time get different ones."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.ports import BLOCK, PortAllocator


def test_each_port_is_handed_out_once_also_by_two_at_the_same_time(tmp_path: Path) -> None:
    one, other = PortAllocator(tmp_path), PortAllocator(tmp_path)
    ports = [allocate() for _ in range(BLOCK + 5) for allocate in (one, other)]
    assert len(set(ports)) == len(ports)
    one.close()
    other.close()


def test_what_somebody_has_bound_is_not_handed_out(tmp_path: Path) -> None:
    first = PortAllocator(tmp_path)
    port = first()
    first.close()
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as taken:
            taken.bind(("127.0.0.1", port))
            second = PortAllocator(tmp_path)
            assert second() > port
            second.close()
