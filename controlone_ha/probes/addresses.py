"""What the network probes share: names to addresses, and the kernel's errors in words."""

from __future__ import annotations

import asyncio
import errno
import functools
import ipaddress
import os
import socket

from controlone_ha.errors import ControlOneError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

UNREACHABLE = {
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network unreachable",
    errno.EHOSTDOWN: "host down",
    errno.ENETDOWN: "network down",
    errno.EACCES: "forbidden by a local rule",
    errno.EPERM: "forbidden by a local firewall",
    errno.EADDRNOTAVAIL: "no local address to send from",
    errno.ENOPROTOOPT: "protocol unreachable",
    errno.EPROTO: "parameter problem",
}


class UnresolvedError(ControlOneError):
    """A host name gave no address."""

    code = "name"


@functools.lru_cache(maxsize=1024)
def literal_address(host: str) -> Address | None:
    """Return the address that ``host`` spells, None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def error_text(number: int | None) -> str:
    """Return a short phrase for an errno."""
    return UNREACHABLE.get(number or 0) or os.strerror(number or 0)


async def resolve(host: str, port: int, *, timeout: float) -> Address:
    """Return the address of ``host``; a literal costs nothing, a name one look-up in a thread.

    Raises ``UnresolvedError`` when there is none within ``timeout`` seconds.
    """
    literal = literal_address(host)
    if literal is not None:
        return literal
    loop = asyncio.get_running_loop()
    try:
        found = await asyncio.wait_for(
            loop.getaddrinfo(host, port, type=socket.SOCK_STREAM), timeout
        )
    except TimeoutError as error:
        raise UnresolvedError(f"name {host!r} not resolved within {timeout:g} s") from error
    except (OSError, UnicodeError) as error:
        raise UnresolvedError(f"name {host!r} not resolved: {error}") from error
    return ipaddress.ip_address(found[0][4][0])
