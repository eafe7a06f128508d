"""Header field values of SIP: names, lists, Via and addresses (RFC 3261, sections 7.3, 20, 25.1).

Sans-I/O and without exceptions: what is not well-formed is None.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

BRANCH_COOKIE = "z9hG4bK"

# fmt: off
_CANONICAL_NAMES = (
    "Accept", "Accept-Contact", "Accept-Encoding", "Accept-Language", "Alert-Info", "Allow",
    "Allow-Events", "Authentication-Info", "Authorization", "Call-ID", "Call-Info", "Contact",
    "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Length",
    "Content-Type", "CSeq", "Date", "Diversion", "Error-Info", "Event", "Expires", "From",
    "History-Info", "Identity", "In-Reply-To", "Join", "Max-Forwards", "MIME-Version",
    "Min-Expires", "Min-SE", "Organization", "P-Asserted-Identity", "P-Preferred-Identity",
    "Path", "Priority", "Privacy", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Require",
    "RAck", "Reason", "Record-Route", "Refer-To", "Referred-By", "Reject-Contact", "Replaces",
    "Reply-To", "Request-Disposition", "Require", "Retry-After", "Route", "RSeq", "Server",
    "Service-Route", "Session-Expires", "SIP-ETag", "SIP-If-Match", "Subject",
    "Subscription-State", "Supported", "Timestamp", "To", "Unsupported", "User-Agent", "Via",
    "Warning", "WWW-Authenticate",
)

# Compact forms: RFC 3261, 20, and the registrations that followed (RFC 3515, 3841, 3892, 4028,
# 4474, 6665).
_COMPACT_NAMES = {
    "a": "Accept-Contact",
    "b": "Referred-By",
    "c": "Content-Type",
    "d": "Request-Disposition",
    "e": "Content-Encoding",
    "f": "From",
    "i": "Call-ID",
    "j": "Reject-Contact",
    "k": "Supported",
    "l": "Content-Length",
    "m": "Contact",
    "o": "Event",
    "r": "Refer-To",
    "s": "Subject",
    "t": "To",
    "u": "Allow-Events",
    "v": "Via",
    "x": "Session-Expires",
    "y": "Identity",
}
NAMES: dict[str, str] = {
    **{name.lower(): name for name in _CANONICAL_NAMES},
    **_COMPACT_NAMES,
    # Spelled as most senders do, so that the usual case needs one look-up and no lower().
    **{name: name for name in _CANONICAL_NAMES},
}

TOKEN = re.compile(r"[A-Za-z0-9\-.!%*_+`'~]+")

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")
_PARAMETER = re.compile(
    r"[ \t]*;[ \t]*([A-Za-z0-9\-.!%*_+`\'~]+)"
    r'(?:[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^;,\s"]+))?',
    re.DOTALL,
)
_VIA = re.compile(
    r"SIP[ \t]*/[ \t]*2\.0[ \t]*/[ \t]*([A-Za-z0-9\-.!%*_+`'~]+)[ \t]+"
    r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._]+)[ \t]*(?::[ \t]*([0-9]{1,5}))?",
    re.IGNORECASE,
)
_DISPLAY_NAME = re.compile(
    r'[ \t]*("(?:[^"\\]|\\.)*"|[A-Za-z0-9\-.!%*_+`\'~ \t]*)[ \t]*\Z', re.DOTALL
)


def canonical_name(name: str) -> str:
    """Return the canonical spelling of a header name; an unknown one is returned as it is."""
    return NAMES.get(name) or NAMES.get(name.lower(), name)


@dataclass(frozen=True)
class Via:
    """One Via value (RFC 3261, 20.42)."""

    transport: str
    host: str
    port: int | None
    parameters: dict[str, str | None]

    @property
    def branch(self) -> str:
        """The branch, or an empty text for an RFC 2543 sender."""
        return self.parameters.get("branch") or ""

    @property
    def has_unique_branch(self) -> bool:
        """True when the branch identifies a transaction by itself (RFC 3261, 17.2.3)."""
        return self.branch.startswith(BRANCH_COOKIE) and len(self.branch) > len(BRANCH_COOKIE)


@dataclass(frozen=True)
class Address:
    """A name-addr or addr-spec with its parameters (From, To, Contact, Route, …)."""

    display_name: str
    uri: str
    parameters: dict[str, str | None]

    @property
    def tag(self) -> str:
        """The tag parameter, or an empty text."""
        return self.parameters.get("tag") or ""


def split_list(value: str) -> list[str]:
    """Split at commas that stand outside quotes and angle brackets; drop empty elements."""
    if "," not in value:
        stripped = value.strip()
        return [stripped] if stripped else []
    return [item for item in (part.strip() for part in commas(value)) if item]


def commas(value: str) -> Iterator[str]:
    start, quoted, depth, escaped = 0, False, 0, False
    for index, character in enumerate(value):
        if escaped:
            escaped = False
        elif quoted:
            if character == "\\":
                escaped = True
            elif character == '"':
                quoted = False
        elif character == '"':
            quoted = True
        elif character == "<":
            depth += 1
        elif character == ">":
            depth = max(0, depth - 1)
        elif character == "," and depth == 0:
            yield value[start:index]
            start = index + 1
    yield value[start:]


def parse_parameters(text: str) -> dict[str, str | None] | None:
    """Return ``;name=value`` parameters (names in lower case), or None for any other text."""
    parameters: dict[str, str | None] = {}
    position = 0
    while position < len(text):
        match = _PARAMETER.match(text, position)
        if match is None:
            return parameters if not text[position:].strip() else None
        parameters[match[1].lower()] = match[2]
        position = match.end()
    return parameters


def parse_via(value: str) -> Via | None:
    """Return the first element of a Via value, or None when it cannot be read."""
    if "," in value:
        value = next(commas(value))
    value = value.strip()
    match = _VIA.match(value)
    if match is None:
        return None
    parameters = parse_parameters(value[match.end() :])
    if parameters is None:
        return None
    port = int(match[3]) if match[3] else None
    if port is not None and port > 65535:
        return None
    return Via(match[1].upper(), match[2], port, parameters)


def parse_address(value: str) -> Address | None:
    """Return a name-addr or addr-spec (RFC 3261, 25.1), or None when it is neither."""
    start = _angle(value)
    if start < 0:
        # addr-spec: parameters belong to the header (RFC 3261, 20), and it may carry no headers.
        uri, _, rest = value.partition(";")
        uri = uri.strip()
        if not SCHEME.match(uri) or any(character in uri for character in '<> \t?,"'):
            return None
        display = ""
        tail = ";" + rest if rest else ""
    else:
        end = value.find(">", start)
        name = _DISPLAY_NAME.match(value[:start])
        if end < 0 or name is None:
            return None
        uri, tail, display = value[start + 1 : end], value[end + 1 :], name[1].strip()
        if not SCHEME.match(uri) or any(character in uri for character in "< \t"):
            return None
    parameters = parse_parameters(tail)
    if parameters is None:
        return None
    if display.startswith('"'):
        display = re.sub(r"\\(.)", r"\1", display[1:-1], flags=re.DOTALL)
    return Address(display, uri, parameters)


def _angle(value: str) -> int:
    """Return where the ``<`` outside quotes stands, -1 without one."""
    quoted = escaped = False
    for index, character in enumerate(value):
        if escaped:
            escaped = False
        elif quoted:
            escaped = character == "\\"
            quoted = character != '"'
        elif character == '"':
            quoted = True
        elif character == "<":
            return index
    return -1
