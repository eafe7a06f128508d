"""TLS of one connection as a sans-I/O channel: encrypted bytes in, plain bytes out, and back.

Why not asyncio's own TLS transport: it keeps a buffer of 256 KiB for each connection, which for
thousands of consoles is hundreds of megabytes; here the only buffers are OpenSSL's, and what is
unsent is visible to the limits of the server.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path

_READ = 16 * 1024  # one TLS record


class TlsError(Exception):
    """The other side broke TLS, or speaks something else."""


def server_context(certificate: Path, key: Path, pinned: Sequence[str] = ()) -> ssl.SSLContext:
    """Return the context of the server: TLS 1.2 or later, the node's certificate. ``pinned``: PEM
    of the nodes that may show theirs.

    Raises ``OSError`` (files missing, or not a pair). No session tickets: a console that moves
    brings a ticket of another server, and each ticket costs bytes and time in every handshake.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    context.load_cert_chain(certificate, key)
    if pinned:
        # Asked for, not required: consoles have none.
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata="\n".join(pinned))
    return context


class TlsChannel:
    """Server side of one TLS connection over two memory buffers."""

    __slots__ = ("_incoming", "_outgoing", "_tls", "ready")

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.ready = False

    def peer_certificate(self) -> bytes:
        """Return the certificate that the other side has shown and proven, in DER; or nothing."""
        return (self._tls.getpeercert(binary_form=True) or b"") if self.ready else b""

    def feed(self, data: bytes | memoryview) -> None:
        """Take encrypted bytes without working on them; ``receive`` does that later."""
        self._incoming.write(data)

    def receive(self, data: bytes | memoryview) -> tuple[bytes, bool]:
        """Take encrypted bytes; return the plain ones and whether the other side has closed.

        Raises ``TlsError``; ``outgoing`` then still holds the alert to send.
        """
        self._incoming.write(data)
        plain: list[bytes] = []
        try:
            if not self.ready:
                self._tls.do_handshake()
                self.ready = True
            while True:
                chunk = self._tls.read(_READ)
                if not chunk:
                    return b"".join(plain), True
                plain.append(chunk)
        except ssl.SSLWantReadError:
            return b"".join(plain), False
        except ssl.SSLZeroReturnError:
            return b"".join(plain), True
        except ssl.SSLError as error:
            raise TlsError(error.reason or str(error)) from error

    def send(self, plain: bytes) -> None:
        """Encrypt; the result waits in ``outgoing``. Only once ``ready``."""
        try:
            self._tls.write(plain)
        except ssl.SSLError as error:
            raise TlsError(error.reason or str(error)) from error

    def close(self) -> None:
        """Add the closing alert to ``outgoing``, without waiting for the other side's."""
        if self.ready:
            try:
                self._tls.unwrap()
            except ssl.SSLError:
                pass  # SSLWantRead: the other side has not closed yet, which is no matter

    def outgoing(self) -> bytes:
        """Take the encrypted bytes that wait to be sent."""
        return self._outgoing.read()
