"""The dialer's handshake on an open SSH session, with a code for all that may go wrong."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass

from controlone_ha.peers import ssh
from controlone_ha.peers.authenticate import authenticate
from controlone_ha.peers.facts import Established, OwnFacts, PinnedFacts, Refusal
from controlone_ha.peers.frames import FrameDecoder, ProtocolError
from controlone_ha.peers.handshake import NONCE_BYTES, DialerHandshake

HANDSHAKE_TIMEOUT = 15.0


@dataclass(frozen=True, kw_only=True)
class Dialed:
    """A session on which both ends have proven the secret."""

    connection: ssh.SshConnection
    decoder: FrameDecoder
    established: Established


async def prove(
    connection: ssh.SshConnection,
    *,
    own: OwnFacts,
    pinned: PinnedFacts,
    link_key: bytes,
    ended: str,
) -> Dialed:
    """Run the dialer's handshake on an open session; raise ``Refusal`` and drop the session."""
    decoder = FrameDecoder()
    handshake = DialerHandshake(
        own=own,
        pinned=pinned,
        link_key=link_key,
        nonce=secrets.token_bytes(NONCE_BYTES),
        host_key=connection.host_key,
        ended=ended,
    )
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT):
            established = await authenticate(
                handshake, connection.reader, connection.writer, decoder
            )
    except BaseException as error:
        connection.writer.close()
        asyncio.get_running_loop().call_later(1.0, connection.abort)  # the refusal leaves first
        refusal = _failure(error, pinned.name, connection)
        if refusal is None:
            raise
        raise refusal from None
    return Dialed(connection=connection, decoder=decoder, established=established)


def _failure(error: BaseException, peer: str, connection: ssh.SshConnection) -> Refusal | None:
    if isinstance(error, EOFError):
        code, sentence = connection.ending()
        return Refusal("no_daemon" if code == "closed" else code, sentence)
    if isinstance(error, TimeoutError):
        return Refusal("no_answer", f"ha on {peer} did not answer within {HANDSHAKE_TIMEOUT:g} s")
    if isinstance(error, ProtocolError):
        return Refusal("protocol", f"{peer} broke the protocol: {error}")
    if isinstance(error, OSError):
        return Refusal("reset", f"the connection to {peer} broke: {error}")
    return None
