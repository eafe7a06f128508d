"""Drives a handshake over a stream pair: the thin I/O around ``handshake``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from controlone_ha.peers.facts import Established, Refusal
from controlone_ha.peers.frames import FrameDecoder, Kind, ProtocolError
from controlone_ha.peers.handshake import AcceptorHandshake, DialerHandshake


async def authenticate(
    handshake: DialerHandshake | AcceptorHandshake,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    decoder: FrameDecoder,
    *,
    before_challenge: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> Established:
    """Run a handshake; raise ``Refusal``, ``ProtocolError`` or ``EOFError`` (the stream ended).

    The peer has then been told why, unless it was the one that said so. ``before_challenge`` is
    awaited by an acceptor before it lets a dialer try a secret. The caller bounds the time.
    """
    try:
        if isinstance(handshake, DialerHandshake):
            writer.write(handshake.start())
        while True:
            frame = decoder.next_frame()
            if frame is None:
                data = await reader.read(4096)
                if not data:
                    raise EOFError
                decoder.receive(data)
                continue
            if frame.kind is Kind.HELLO and before_challenge is not None:
                await before_challenge()
            step = handshake.receive(frame)
            if step.send:
                writer.write(step.send)
            if step.established is not None:
                decoder.authenticated()
                return step.established
    except Refusal as refusal:
        if not refusal.by_peer:
            await _tell(writer, refusal)
        raise
    except ProtocolError as error:
        await _tell(writer, Refusal("protocol", str(error)))
        raise


async def _tell(writer: asyncio.StreamWriter, refusal: Refusal) -> None:
    with contextlib.suppress(OSError, TimeoutError):
        writer.write(refusal.frame())
        await asyncio.wait_for(writer.drain(), 1.0)
