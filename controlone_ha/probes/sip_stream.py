"""What TCP says about a SIP server that is silent on UDP: only a refusal, and only where it counts.

A server that has died while calls were up still gets their RTP. The kernel answers that with ICMP
port unreachable, of which it sends about one a second, and so the one that an OPTIONS deserves
rarely comes: the refusal drowns exactly when there are calls to save. TCP refuses without limit.

A refusal counts when all of this is so:

* the server took TCP connections while it answered: many listen on UDP alone;
* since then no router has reported the way as closed: a firewall refuses TCP in the name of the
  target. What was reported before, as while the machine was booting, is over.

A server that hangs does not refuse: its kernel goes on to accept.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from enum import Enum

LOOK_TIMEOUT = 0.5
"""Seconds for a connection: a refusal takes one round trip."""
LOOK_EVERY = 60.0
LOOK_AGAIN = 5.0
"""The same after one that got no answer."""
CLOSED_FOR = 30.0
_MOST = 1024

Target = tuple[str, int]


class Stream(Enum):
    """How a TCP connection to a port ended."""

    OPEN = "open"
    REFUSED = "refused"
    SILENT = "silent"


@dataclass(slots=True)
class _Known:
    """``refusals``: looks in a row that were refused by a server that answers on UDP."""

    look_at: float
    is_open: bool = False
    refusals: int = 0


class SipStreams:
    """What is known of the TCP side of the servers that are probed. Times are the loop's."""

    def __init__(self) -> None:
        self._known: dict[Target, _Known] = {}
        self._closed_at: dict[Target, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def answered(self, target: Target, now: float) -> None:
        """The server answered, so the way is open: see now and then whether it takes TCP, too."""
        self._closed_at.pop(target, None)
        if len(self._known) > _MOST:
            self._known.clear()
        known = self._known.setdefault(target, _Known(look_at=now))
        if now < known.look_at:
            return
        known.look_at = now + LOOK_EVERY
        task = asyncio.get_running_loop().create_task(_look(target, known))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def closed(self, target: Target, now: float) -> None:
        """Somebody on the way reported that it is closed."""
        if len(self._closed_at) > _MOST:
            self._closed_at.clear()
        self._closed_at[target] = now

    async def refuses(self, target: Target, now: float) -> bool:
        """Tell whether a server that has just been silent is proven to be gone."""
        known = self._known.get(target)
        if known is None or not known.is_open:
            return False
        if now - self._closed_at.get(target, -CLOSED_FOR) < CLOSED_FOR:
            return False
        return await connect(target) is Stream.REFUSED

    def close(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()


async def _look(target: Target, known: _Known) -> None:
    found = await connect(target)
    if found is Stream.SILENT:
        known.look_at = asyncio.get_running_loop().time() + LOOK_AGAIN
    elif found is Stream.OPEN:
        known.is_open, known.refusals = True, 0
    else:
        # One may have died since it answered; that of the next answer tells.
        known.refusals += 1
        known.look_at = 0.0
        if known.refusals > 1:
            known.is_open, known.look_at = False, asyncio.get_running_loop().time() + LOOK_EVERY


async def connect(target: Target) -> Stream:
    """Open a TCP connection to ``target`` and close it at once."""
    host, _ = target
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    loop = asyncio.get_running_loop()
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as stream:
        stream.setblocking(False)
        try:
            async with asyncio.timeout(LOOK_TIMEOUT):
                await loop.sock_connect(stream, target)
        except ConnectionRefusedError:
            return Stream.REFUSED
        except OSError:  # TimeoutError is one
            return Stream.SILENT
    return Stream.OPEN
