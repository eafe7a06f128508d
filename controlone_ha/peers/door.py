"""The door for sessions that the peer bridge brings: who may come in, how many may wait, how fast.

Theory of operation. The bridge connects to ``peer.sock`` and first names the peer whose key the
SSH server has accepted. Attempts are bounded, in all and per peer, before anything is read; the
handshake has a time limit; guesses at the secret are slowed per peer. A session that has proven
itself is handed to the owner as an ``Entry``; every other one is told why, noted once, and closed.

Not here: which of two links of a pair stays (``links``).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlone_ha.errors import TrustError
from controlone_ha.jsonrpc import bind_unix
from controlone_ha.peers import choose, ssh
from controlone_ha.peers.accept import Preamble, read_preamble
from controlone_ha.peers.authenticate import authenticate
from controlone_ha.peers.dialing import HANDSHAKE_TIMEOUT
from controlone_ha.peers.facts import Established, Refusal
from controlone_ha.peers.frames import FrameDecoder, ProtocolError
from controlone_ha.peers.handshake import NONCE_BYTES, AcceptorHandshake
from controlone_ha.peers.notes import Notes
from controlone_ha.peers.own import OwnNode, pinned_facts
from controlone_ha.peers.trust import TrustStore

PREAMBLE_TIMEOUT = 5.0
MAX_PENDING = 64
MAX_PENDING_PER_PEER = 4
GUESSES = 4
"""Wrong secrets in a row from which on it is told."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An accepted session that has proven itself, with its streams and what is still to be read."""

    established: Established
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    decoder: FrameDecoder
    local_address: str
    remote_address: str


class Door:
    """Listens on ``path`` and hands each proven session to ``enter``. ``pending`` is for tests."""

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        own: OwnNode,
        trust: TrustStore,
        notes: Notes,
        link_key: Callable[[], bytes],
        previous_key: Callable[[], bytes | None] = lambda: None,
        enter: Callable[[Entry], None],
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
    ) -> None:
        self._path = path
        self._name = name
        self._own = own
        self._trust = trust
        self._notes = notes
        self._link_key = link_key
        self._previous_key = previous_key
        self._enter = enter
        self._spawn = spawn
        self._slow = choose.Slowdown()
        self._server: asyncio.AbstractServer | None = None
        self.pending: dict[str, int] = {}

    async def open(self) -> None:
        """Listen; raise ``RefusedError`` when another daemon serves the socket, or ``OSError``."""
        self._server = await asyncio.start_unix_server(
            self._accept, sock=bind_unix(self._path), limit=ssh.STREAM_LIMIT, backlog=128
        )

    def close(self) -> None:
        """Let nobody in any more. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            self._path.unlink(missing_ok=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._spawn(self._admit(reader, writer), "accept")

    async def _admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one connection of the peer bridge as far as it goes."""
        key = ""
        has_entered = False
        try:
            if self._server is None or self.pending.get("", 0) >= MAX_PENDING:
                return
            self._count(key, 1)
            try:
                preamble, rest = await asyncio.wait_for(read_preamble(reader), PREAMBLE_TIMEOUT)
            finally:
                self._count(key, -1)
            key = preamble.peer
            if self.pending.get(key, 0) >= MAX_PENDING_PER_PEER:
                refusal = Refusal("busy", f"{key} has {MAX_PENDING_PER_PEER} attempts pending here")
                writer.write(refusal.frame())
                return
            self._count(key, 1)
            try:
                entry = await self._prove(preamble, rest, reader, writer)
            finally:
                self._count(key, -1)
            has_entered = True
            self._enter(entry)
        except Refusal as refusal:
            self._notes.refused(key, refusal)
        except ProtocolError as error:
            if key:
                self._notes.refused(key, Refusal("protocol", f"{key} broke the protocol: {error}"))
            else:
                log.warning("peer bridge: %s", error)
        except TrustError as error:
            log.error("%s", error)
        except (EOFError, TimeoutError, OSError) as error:
            log.debug("attempt of %s ended: %r", key or "an unnamed peer", error)
        finally:
            if not has_entered:
                writer.close()

    def _guessed(self, preamble: Preamble, times: int) -> None:
        """Tell of wrong secrets that follow each other, ever more seldom the more there are."""
        if times >= GUESSES and times & (times - 1) == 0:
            text = (
                f"{preamble.peer} has shown {times} wrong secrets in a row, from "
                f"{preamble.remote_address or 'an unknown address'}; its tries are slowed down"
            )
            log.warning("%s", text)
            self._notes.guessed(preamble.peer, text)

    def _count(self, key: str, step: int) -> None:
        count = self.pending.get(key, 0) + step
        if count:
            self.pending[key] = count
        else:
            self.pending.pop(key, None)

    async def _prove(
        self,
        preamble: Preamble,
        rest: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> Entry:
        """Run the acceptor's handshake to its end."""
        peer = preamble.peer
        pin = self._trust.pins().get(peer)
        if pin is None:
            refusal = Refusal("unknown_node", f"{self._name} is not paired with {peer}")
            writer.write(refusal.frame())
            raise refusal
        if not self._own.host_keys:
            await self._own.learn_host_keys()
        decoder = FrameDecoder()
        decoder.receive(rest)
        handshake = AcceptorHandshake(
            own=self._own.facts(),
            pinned=pinned_facts(pin),
            link_key=self._link_key(),
            nonce=secrets.token_bytes(NONCE_BYTES),
            previous_key=self._previous_key(),
        )

        async def slow_down() -> None:
            await asyncio.sleep(self._slow.wait(peer, time.monotonic()))

        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                established = await authenticate(
                    handshake, reader, writer, decoder, before_challenge=slow_down
                )
        except Refusal as refusal:
            if refusal.code == "wrong_secret" and not refusal.by_peer:
                self._guessed(preamble, self._slow.failed(peer))
            if refusal.code == "unknown_host_key" and not refusal.by_peer:
                await self._own.learn_host_keys()  # ours may have changed: the next try will tell
            raise
        self._slow.succeeded(peer)
        return Entry(
            established=established,
            reader=reader,
            writer=writer,
            decoder=decoder,
            local_address=preamble.local_address,
            remote_address=preamble.remote_address,
        )
