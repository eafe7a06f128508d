"""Frames of the link between nodes: bytes in, frames out. Sans-I/O.

Theory of operation: a frame is a header of five bytes (length of the payload, 32 bits big endian;
kind, 8 bits) and the payload. ``LIMITS`` gives the largest payload of each kind; a header that
exceeds it, or whose kind has no business in the present phase, is an error before a single byte of
payload is waited for, so a peer can make this process hold no more than one frame. Two phases:
before authentication only the small handshake kinds exist, afterwards only the others;
GOODBYE exists in both. An error is final: the decoder answers nothing more.

Requests, answers and bodies carry the number of their request in the first four bytes. Everything
structured is one JSON object in UTF-8. Not here: what the handshake says (``handshake``), who
matches answers to requests (``link``). docs/link.md is the contract.
"""

from __future__ import annotations

import enum
import json
import struct
from dataclasses import dataclass
from typing import Any

from controlone_ha.errors import PeerError

HEADER = struct.Struct("!IB")
NUMBER = struct.Struct("!I")
CREDIT = struct.Struct("!II")
HEARTBEAT = struct.Struct("!QQQQ")

MAX_CHUNK = 65536
MAX_NUMBER = (1 << 32) - 1


class Kind(enum.IntEnum):
    """What a frame is."""

    HELLO = 1
    CHALLENGE = 2
    PROOF = 3
    REFUSED = 4
    HEARTBEAT = 5
    REQUEST = 6
    RESPONSE = 7
    ERROR = 8
    NOTIFY = 9
    GOODBYE = 10
    DATA = 11
    CREDIT = 12
    CANCEL = 13


LIMITS: dict[Kind, int] = {
    Kind.HELLO: 2048,
    Kind.CHALLENGE: 2048,
    Kind.PROOF: 32,
    Kind.REFUSED: 2048,
    Kind.HEARTBEAT: HEARTBEAT.size,
    Kind.REQUEST: 1 << 20,
    Kind.RESPONSE: 1 << 20,
    Kind.ERROR: 1 << 14,
    Kind.NOTIFY: 1 << 20,
    Kind.GOODBYE: 2048,
    Kind.DATA: NUMBER.size + MAX_CHUNK,
    Kind.CREDIT: CREDIT.size,
    Kind.CANCEL: NUMBER.size,
}
BEFORE_AUTHENTICATION = frozenset(
    {Kind.HELLO, Kind.CHALLENGE, Kind.PROOF, Kind.REFUSED, Kind.GOODBYE}
)
AFTER_AUTHENTICATION = frozenset(set(Kind) - {Kind.HELLO, Kind.CHALLENGE, Kind.PROOF, Kind.REFUSED})


class ProtocolError(PeerError):
    """The peer sent what the protocol does not allow; the link ends."""

    code = "protocol"


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One whole frame."""

    kind: Kind
    payload: bytes

    def fields(self) -> dict[str, Any]:
        """Return the JSON object of the payload; raise ``ProtocolError``."""
        return json_object(self.kind, self.payload)

    def numbered(self) -> tuple[int, bytes]:
        """Return the request's number and the rest of the payload; raise ``ProtocolError``."""
        if len(self.payload) < NUMBER.size:
            raise ProtocolError(
                f"{self.kind.name}: expected a request number, got {self.payload!r}"
            )
        return NUMBER.unpack_from(self.payload)[0], self.payload[NUMBER.size :]


def json_object(kind: Kind, payload: bytes) -> dict[str, Any]:
    """Return the JSON object in ``payload``; raise ``ProtocolError``."""
    try:
        fields = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"{kind.name}: expected JSON, got {payload[:40]!r}") from error
    if not isinstance(fields, dict):
        raise ProtocolError(f"{kind.name}: expected a JSON object, got {type(fields).__name__}")
    return fields


def encode(kind: Kind, payload: bytes) -> bytes:
    """Return the bytes of a frame; raise ``ValueError`` when ``payload`` exceeds its limit."""
    if len(payload) > LIMITS[kind]:
        raise ValueError(
            f"{kind.name}: {len(payload)} bytes do not fit in a frame of at most {LIMITS[kind]}"
        )
    return HEADER.pack(len(payload), kind) + payload


def encode_json(kind: Kind, fields: dict[str, Any], number: int | None = None) -> bytes:
    """Return the bytes of a frame that carries a JSON object, with its request's number if any."""
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    return encode(kind, text if number is None else NUMBER.pack(number) + text)


def encode_goodbye(code: str, sentence: str) -> bytes:
    """Return the bytes of a GOODBYE."""
    return encode_json(Kind.GOODBYE, {"code": code, "sentence": sentence[:500]})


def printable(text: object, limit: int = 500) -> str:
    """Return what a peer said, fit for a log line and a table: one line, bounded, no controls."""
    cleaned = "".join(c if c.isprintable() else "?" for c in str(text)[:limit])
    return cleaned or "(nothing)"


class FrameDecoder:
    """Bytes in by ``receive``, frames out by ``next_frame``. Starts before authentication."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._allowed = BEFORE_AUTHENTICATION
        self._failed: ProtocolError | None = None

    def authenticated(self) -> None:
        """Switch to the second phase."""
        self._allowed = AFTER_AUTHENTICATION

    def receive(self, data: bytes) -> None:
        """Take bytes from the peer."""
        if self._failed is None:
            self._buffer += data

    @property
    def buffered(self) -> int:
        """Bytes held that are not yet a frame."""
        return len(self._buffer)

    def next_frame(self) -> Frame | None:
        """Return the next whole frame, None if bytes are missing; raise ``ProtocolError``."""
        if self._failed is not None:
            raise self._failed
        if len(self._buffer) < HEADER.size:
            return None
        length, number = HEADER.unpack_from(self._buffer)
        try:
            kind = Kind(number)
        except ValueError:
            raise self._fail("expected a frame") from None
        if kind not in self._allowed:
            early = self._allowed is BEFORE_AUTHENTICATION
            phase = "before authentication" if early else "after authentication"
            raise self._fail(f"{kind.name} is not allowed {phase}; expected a frame")
        if length > LIMITS[kind]:
            raise self._fail(
                f"{kind.name} of {length} bytes exceeds the limit of {LIMITS[kind]}; expected less"
            )
        end = HEADER.size + length
        if len(self._buffer) < end:
            return None
        payload = bytes(memoryview(self._buffer)[HEADER.size : end])
        del self._buffer[:end]
        return Frame(kind=kind, payload=payload)

    def _fail(self, what: str) -> ProtocolError:
        start = bytes(self._buffer[:40])
        self._buffer.clear()
        self._failed = ProtocolError(f"{what}, got {start!r}")
        return self._failed
