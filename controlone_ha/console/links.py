"""Changes of this machine's links and addresses, so that a pulled cable is noticed at once.

With pyroute2, where it is installed, its socket receives the kernel's events; without it a plain
netlink socket does. Either only wakes this module: what is the case is read from /sys, so that a
lost event costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

SYSTEM = Path("/sys/class/net")
SETTLE = 0.05
"""Seconds for the events that one change brings to be over."""

RTMGRP_LINK = 0x1
RTMGRP_IPV4_IFADDR = 0x10
RTMGRP_IPV6_IFADDR = 0x100
_GROUPS = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR


def has_network(system: Path = SYSTEM) -> bool:
    """True when a link other than loopback is up, or when that cannot be known."""
    try:
        names = [entry.name for entry in system.iterdir()]
    except OSError:
        return True
    for name in names:
        if name == "lo":
            continue
        try:
            state = (system / name / "operstate").read_text().strip()
        except OSError:
            continue
        if state in ("up", "unknown"):
            return True
    return False


class LinkWatch:
    """Calls ``on_change(has_network)`` after each change of links or addresses."""

    def __init__(self, on_change: Callable[[bool], None]) -> None:
        self._on_change = on_change
        self._socket: Any = None
        self._descriptor = -1
        self._timer: asyncio.TimerHandle | None = None
        self.source = "none"

    def start(self) -> None:
        """Begin to listen; without netlink (not Linux, not permitted) nothing ever changes."""
        try:
            self._socket, self._descriptor, self.source = _open()
        except OSError:
            return
        asyncio.get_running_loop().add_reader(self._descriptor, self._readable)

    def stop(self) -> None:
        """Cease to listen."""
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            self._socket.close()
            self._socket = None

    def _readable(self) -> None:
        with contextlib.suppress(OSError):  # ENOBUFS: events were lost, which is no matter
            while _read(self._descriptor):
                pass
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SETTLE, self._tell)

    def _tell(self) -> None:
        self._timer = None
        self._on_change(has_network())


def _read(descriptor: int) -> bytes:
    stream = socket.socket(fileno=descriptor)
    try:
        return stream.recv(65536, socket.MSG_DONTWAIT)
    finally:
        stream.detach()


def _open() -> tuple[Any, int, str]:
    try:
        from pyroute2.netlink.rtnl.iprsocket import IPRSocket

        route = IPRSocket()
        route.bind(groups=_GROUPS)
        return route, route.fileno(), "pyroute2"
    except (ImportError, AttributeError, TypeError, RuntimeError):
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        plain = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        plain.bind((0, _GROUPS))
        return plain, plain.fileno(), "netlink"
