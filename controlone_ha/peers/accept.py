"""The line that the peer bridge sends first: who the SSH server let in, through which addresses."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from controlone_ha.peers.frames import ProtocolError

MAX_PREAMBLE = 512


@dataclass(frozen=True, kw_only=True)
class Preamble:
    """``peer`` is the name in the forced command: the SSH server has verified its key."""

    peer: str
    remote_address: str = ""
    local_address: str = ""


def parse_preamble(line: bytes) -> Preamble:
    """Return what ``line`` says; raise ``ProtocolError``."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"expected the bridge's line of JSON, got {line[:40]!r}") from error
    peer = fields.get("peer") if isinstance(fields, dict) else None
    if not isinstance(peer, str) or not peer:
        raise ProtocolError(f"expected a peer in the bridge's line, got {line[:40]!r}")
    # SSH_CONNECTION is "client-address client-port server-address server-port".
    words = str(fields.get("ssh_connection", "")).split()
    if len(words) != 4:
        return Preamble(peer=peer)
    return Preamble(peer=peer, remote_address=words[0], local_address=words[2])


async def read_preamble(reader: asyncio.StreamReader) -> tuple[Preamble, bytes]:
    """Return the line and the bytes that came with it; raise ``ProtocolError``, ``EOFError``."""
    data = b""
    while b"\n" not in data:
        if len(data) > MAX_PREAMBLE:
            raise ProtocolError(f"the bridge's line exceeds {MAX_PREAMBLE} bytes")
        more = await reader.read(MAX_PREAMBLE)
        if not more:
            raise EOFError
        data += more
    line, _, rest = data.partition(b"\n")
    return parse_preamble(line), rest
