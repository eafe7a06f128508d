"""A telephone over TCP or TLS: ``Phone`` with connections in place of datagrams.

A request goes over the connection that its dialog was last spoken on, or over a new one to the
other's Contact where that is gone.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from typing import Any, cast

from tests.phone import Phone

_LENGTH = re.compile(rb"\r\nContent-Length[ \t]*:[ \t]*(\d+)", re.IGNORECASE)


class StreamPhone(Phone):
    """``context``: makes it TLS. ``connections``: those that are open; ``accepted``: how many were
    opened by the other side so far.
    """

    def __init__(self, name: str, *, context: ssl.SSLContext | None = None, **options: Any) -> None:
        super().__init__(name, **options)
        self.transport = "tcp" if context is None else "tls"
        self.connections: dict[tuple[str, int], asyncio.StreamWriter] = {}
        self.accepted = 0
        self._context = context
        self._server: asyncio.Server | None = None

    async def start(self) -> StreamPhone:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await asyncio.start_server(self._serve, self.address, 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        await loop.create_datagram_endpoint(lambda: self.media, local_addr=(self.address, 0))
        self._transport = cast(asyncio.DatagramTransport, self)
        return self

    @property
    def uri(self) -> str:
        """Its SIP address."""
        return f"sip:{self.name}@{self.address}:{self.port};transport={self.transport}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")[:2]
        self.connections[peer] = writer
        self.accepted += 1
        buffer = b""
        try:
            while data := await reader.read(65536):
                buffer += data
                while (end := buffer.find(b"\r\n\r\n")) >= 0:
                    found = _LENGTH.search(buffer[: end + 2])
                    size = end + 4 + (int(found[1]) if found else 0)
                    if len(buffer) < size:
                        break
                    message, buffer = buffer[:size], buffer[size:]
                    if message.strip():
                        self.datagram_received(message, peer)
        except OSError:
            pass
        finally:
            if self.connections.get(peer) is writer:
                del self.connections[peer]
            writer.close()

    def drop_connections(self) -> None:
        """Close every connection without a word of SIP, as a firewall or a restart does."""
        for writer in list(self.connections.values()):
            writer.transport.abort()

    # --- what Phone takes for its socket ---------------------------------------------------------

    def sendto(self, data: bytes, addr: tuple[str, int]) -> None:
        """Send over the connection to ``addr``; without one it is lost."""
        writer = self.connections.get(addr)
        if writer is not None:
            writer.write(data.replace(b"SIP/2.0/UDP", f"SIP/2.0/{self.transport.upper()}".encode()))

    def is_closing(self) -> bool:
        """Tell whether it has ended."""
        return self._server is None

    def close(self) -> None:
        """End."""
        self.drop_connections()
        if self._server is not None:
            self._server.close()
            self._server = None
