"""SIP messages (RFC 3261, section 7): bytes to ``Request`` or ``Response`` and back. Sans-I/O.

It is a reader and a writer of one message, not a stack: transactions are in ``transaction``
and ``layer``, sockets in ``transport``.

Theory of operation. ``parse`` frames: it splits start line, header fields and body, unfolds
continuation lines, expands compact names, and refuses only what cannot be framed safely (no start
line, another version, a header line without a colon, contradictory or too large Content-Length).
``fault`` judges: what a well-formed message violates beyond that, as a sentence, or None. The split
lets a caller that only wants to know "did it answer" be liberal, and an element that acts on a
message be strict. Both were checked against the messages of RFC 4475.

Text is UTF-8 with ``surrogateescape``, so any byte a peer sends survives a round trip and no peer
can make the parser raise anything but ``SipSyntaxError``. On write, known header names get their
canonical spelling (some parties compare them case-sensitively), Content-Length is always computed,
and a value with a line break is a programming error (``ValueError``), never a second header.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from controlone_ha.errors import PeerError
from controlone_ha.sip.fields import (
    NAMES,
    SCHEME,
    TOKEN,
    Via,
    canonical_name,
    commas,
    parse_address,
    parse_via,
    split_list,
)

VERSION = "SIP/2.0"
MAX_HEADERS = 512

# fmt: on


# Header fields that may stand only once (RFC 3261, 7.3.1) and that this package relies on.
_SINGLE = ("Call-ID", "CSeq", "From", "To", "Max-Forwards", "Content-Type", "Expires")
_MANDATORY = ("Via", "From", "To", "Call-ID", "CSeq")

_FOLD = re.compile(r"[ \t]*\r\n[ \t]+")
_CSEQ = re.compile(r"([0-9]+)[ \t]+(\S+)")


class SipSyntaxError(PeerError):
    """Bytes that are not a SIP message; ``status`` is what a server would answer (400, 505)."""

    code = "sip_syntax"

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


@dataclass
class Message:
    """What requests and responses share: ordered header fields (canonical names) and a body."""

    headers: list[tuple[str, str]]
    body: bytes = b""

    def get(self, name: str, default: str = "") -> str:
        """Return the first value of header ``name`` (canonical spelling), unsplit."""
        for known, value in self.headers:
            if known == name:
                return value
        return default

    def all(self, name: str) -> list[str]:
        """Return the values of all lines of ``name``, unsplit."""
        return [value for known, value in self.headers if known == name]

    def items(self, name: str) -> list[str]:
        """Return the elements of a comma-separated header over all its lines."""
        return [item for value in self.all(name) for item in split_list(value)]

    @property
    def start_line(self) -> str:
        """The first line, without its line end."""
        raise AssertionError("Message is abstract: use Request or Response")

    @property
    def top_via(self) -> Via | None:
        """The topmost Via, or None when there is none that can be read."""
        value = self.get("Via")
        return parse_via(value) if value else None

    @property
    def cseq(self) -> tuple[int, str]:
        """Number and method of CSeq; ``(-1, "")`` when it cannot be read."""
        match = _CSEQ.fullmatch(self.get("CSeq"))
        if match is None or len(match[1]) > 10:
            return -1, ""
        return int(match[1]), match[2]

    def to_bytes(self) -> bytes:
        """Return the message as it goes on the wire; Content-Length is computed and stands last."""
        lines = [self.start_line]
        for name, value in self.headers:
            name = NAMES.get(name) or canonical_name(name)
            if name == "Content-Length":
                continue
            lines.append(f"{name}: {value}")
        text = "\r\n".join(lines)
        if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1:
            raise ValueError("a SIP header may not contain a line break")
        return (
            text.encode("utf-8", "surrogateescape")
            + b"\r\nContent-Length: %d\r\n\r\n" % len(self.body)
            + self.body
        )


@dataclass
class Request(Message):
    """A request."""

    method: str = ""
    uri: str = ""

    @property
    def start_line(self) -> str:
        """Request-Line, RFC 3261, 7.1."""
        return f"{self.method} {self.uri} {VERSION}"


@dataclass
class Response(Message):
    """A response; ``status`` is 100 to 699."""

    status: int = 0
    reason: str = field(default="")

    @property
    def start_line(self) -> str:
        """Status-Line, RFC 3261, 7.2."""
        return f"{VERSION} {self.status} {self.reason}"

    @property
    def is_final(self) -> bool:
        """True for 200 and above."""
        return self.status >= 200


def parse(data: bytes) -> Request | Response:
    """Return the message in one datagram; raise ``SipSyntaxError``.

    Bytes after Content-Length are dropped (RFC 3261, 18.3); a body shorter than Content-Length is
    an error. Empty lines before the start line are skipped; lines ended by a bare LF are read.
    """
    head, body = _split(data)
    text = head.decode("utf-8", "surrogateescape")
    if "\r\n " in text or "\r\n\t" in text:
        text = _FOLD.sub(" ", text)
    lines = text.split("\r\n")
    if text.count("\r") != len(lines) - 1:
        raise SipSyntaxError("a carriage return inside a header line")
    if len(lines) > MAX_HEADERS + 1:
        raise SipSyntaxError(f"{len(lines) - 1} header lines, more than {MAX_HEADERS}", 513)
    headers: list[tuple[str, str]] = []
    length: str | None = None
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        name = name.rstrip(" \t")
        known = NAMES.get(name)
        if known is None:
            if not colon or not TOKEN.fullmatch(name):
                raise SipSyntaxError(f"not a header line: {line[:60]!r}")
            known = NAMES.get(name.lower(), name)
        elif not colon:
            raise SipSyntaxError(f"not a header line: {line[:60]!r}")
        value = value.strip(" \t")
        if known == "Content-Length":
            if length is not None and length != value:
                raise SipSyntaxError("two different Content-Length values")
            length = value
            continue
        headers.append((known, value))
    return _with_start_line(lines[0], headers, _cut(body, length))


def _split(data: bytes) -> tuple[bytes, bytes]:
    data = data.lstrip(b"\r\n")
    if not data:
        raise SipSyntaxError("empty (a keep-alive)")
    head, separator, body = data.partition(b"\r\n\r\n")
    if not separator or b"\n" in head.replace(b"\r\n", b""):
        # Senders that end lines with a bare LF exist; the header ends at the first empty line.
        match = re.search(rb"\r?\n\r?\n", data)
        if match is None:
            raise SipSyntaxError("no empty line after the header")
        head, body = data[: match.start()], data[match.end() :]
        head = head.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    return head, body


def _cut(body: bytes, length: str | None) -> bytes:
    if length is None:
        return body
    if not length.isascii() or not length.isdigit() or len(length) > 9:
        raise SipSyntaxError(f"Content-Length is not a length: {length[:20]!r}")
    number = int(length)
    if number > len(body):
        raise SipSyntaxError(f"Content-Length is {number}, but only {len(body)} bytes follow")
    return body[:number]


def _with_start_line(line: str, headers: list[tuple[str, str]], body: bytes) -> Request | Response:
    if line.startswith("SIP/"):
        version, _, rest = line.partition(" ")
        status, _, reason = rest.partition(" ")
        if version != VERSION:
            raise SipSyntaxError(f"version {version[:20]!r}, expected {VERSION}", 505)
        if len(status) != 3 or not status.isascii() or not status.isdigit():
            raise SipSyntaxError(f"status is not a three-digit code: {status[:20]!r}")
        number = int(status)
        if not 100 <= number <= 699:
            raise SipSyntaxError(f"status {number} is outside 100 to 699")
        return Response(headers, body, number, reason)
    parts = line.split(" ")
    if len(parts) != 3:
        raise SipSyntaxError(f"not a start line: {line[:60]!r}")
    method, uri, version = parts
    if not TOKEN.fullmatch(method):
        raise SipSyntaxError(f"method is not a token: {method[:20]!r}")
    if version.upper() != VERSION:
        if version.upper().startswith("SIP/"):
            raise SipSyntaxError(f"version {version[:20]!r}, expected {VERSION}", 505)
        raise SipSyntaxError(f"not a start line: {line[:60]!r}")
    if not SCHEME.match(uri) or any(character in uri for character in '<>"\t'):
        raise SipSyntaxError(f"Request-URI is not a URI: {uri[:60]!r}")
    return Request(headers, body, method, uri)


def fault(message: Request | Response) -> str | None:
    """Return what is wrong with a framed message, as a sentence, or None.

    Covers what RFC 3261 (8.1.1, 8.2, 20, 25.1) makes an element refuse with 400: missing, repeated,
    unreadable and overflowing fields, and a CSeq that belongs to another method.
    """
    counts: dict[str, int] = {}
    for name, _ in message.headers:
        counts[name] = counts.get(name, 0) + 1
    for name in _MANDATORY:
        if name not in counts:
            return f"{name} is missing"
    for name in _SINGLE:
        if counts.get(name, 0) > 1:
            return f"{name} stands {counts[name]} times"
    number, method = message.cseq
    if not 0 <= number < 1 << 31:
        return f"CSeq cannot be used: {message.get('CSeq')[:40]!r}"
    if isinstance(message, Request) and method != message.method:
        return f"CSeq is for {method[:20]!r}, the request is {message.method[:20]!r}"
    return _address_fault(message) or _number_fault(message) or _uri_fault(message)


def _address_fault(message: Request | Response) -> str | None:
    vias = [parse_via(item) for value in message.all("Via") for item in commas(value)]
    if None in vias:
        return "Via cannot be read"
    for name in ("From", "To"):
        if parse_address(message.get(name)) is None:
            return f"{name} cannot be read: {message.get(name)[:60]!r}"
    for name in ("Contact", "Record-Route", "Route"):
        for item in message.items(name):
            if item != "*" and parse_address(item) is None:
                return f"{name} cannot be read: {item[:60]!r}"
    return None


def _number_fault(message: Request | Response) -> str | None:
    for name, limit in (("Max-Forwards", 255), ("Expires", (1 << 32) - 1)):
        value = message.get(name)
        if value and not _is_number(value, limit):
            return f"{name} is not a number up to {limit}: {value[:40]!r}"
    for item in message.items("Contact"):
        address = parse_address(item) if item != "*" else None
        expires = address.parameters.get("expires") if address is not None else None
        if expires is not None and not _is_number(expires, (1 << 32) - 1):
            return f"expires of a Contact is not a number up to {(1 << 32) - 1}"
    for item in message.items("Warning"):
        if not re.match(r"[0-9]{3}[ \t]", item):
            return f"Warning has no three-digit code: {item[:40]!r}"
    return None


def _is_number(text: str, limit: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= limit


def _uri_fault(message: Request | Response) -> str | None:
    if isinstance(message, Request):
        scheme, _, rest = message.uri.partition(":")
        if scheme.lower() in ("sip", "sips") and "?" in rest.rpartition("@")[2]:
            return "Request-URI carries header fields"
    return None


def build_request(
    method: str, uri: str, headers: Sequence[tuple[str, str]], body: bytes = b""
) -> Request:
    """Return a request; raise ``ValueError`` if method or URI would break the start line."""
    if not TOKEN.fullmatch(method) or not SCHEME.match(uri) or re.search(r"[\s<>\"]", uri):
        raise ValueError(f"not a request line: {method!r} {uri!r}")
    return Request(list(headers), body, method, uri)


def build_response(
    request: Request,
    status: int,
    reason: str,
    *,
    to_tag: str = "",
    headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
) -> Response:
    """Return the response to ``request``, with what RFC 3261, 8.2.6.2 says to copy from it."""
    copied: list[tuple[str, str]] = []
    for name, value in request.headers:
        if name == "To" and to_tag:
            address = parse_address(value)
            if address is not None and not address.tag:
                value = f"{value};tag={to_tag}"
        if name in _MANDATORY:
            copied.append((name, value))
    return Response([*copied, *headers], body, status, reason)
