"""SIP URIs (RFC 3261, 19.1) as far as it takes to know where a request goes. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

RELIABLE = frozenset({"tcp", "tls"})
TRANSPORTS = frozenset({"udp", "tcp", "tls"})

_SIP_URI = re.compile(
    r"(sips?):(?:([^@\s<>]*)@)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._\-]+)(?::([0-9]{1,5}))?"
    r"((?:;[^?\s<>]*)?)(?:\?\S*)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Hop:
    """Where a message goes to, or came from: ``transport`` is udp, tcp or tls."""

    transport: str
    host: str
    port: int

    @property
    def is_reliable(self) -> bool:
        """True where the transport itself repeats what was lost."""
        return self.transport in RELIABLE

    @property
    def bracketed(self) -> str:
        """The host as it stands in a URI or a Via."""
        return f"[{self.host}]" if ":" in self.host else self.host


@dataclass(frozen=True)
class SipUri:
    """A sip or sips URI. ``host`` has no brackets; ``parameters`` have lower-case names."""

    scheme: str
    user: str
    host: str
    port: int | None
    parameters: dict[str, str] = field(default_factory=dict)

    def hop(self, default: str = "udp") -> Hop:
        """Return where a request to this URI goes, names unresolved; no SRV or NAPTR records.

        ``default``: transport where the URI names none. Of sips, and after ``;transport=tls``,
        which RFC 3261 deprecates and everybody sends, it is tls.
        """
        transport = self.parameters.get("transport", "").lower()
        if self.scheme == "sips":
            transport = "tls"
        elif transport not in TRANSPORTS:
            transport = default if default in TRANSPORTS else "udp"
        port = self.port or (5061 if transport == "tls" else 5060)
        return Hop(transport, self.parameters.get("maddr") or self.host, port)


def parse_uri(text: str) -> SipUri | None:
    """Return the sip or sips URI in ``text``, None for anything else."""
    match = _SIP_URI.fullmatch(text.strip())
    if match is None:
        return None
    port = int(match[4]) if match[4] else None
    if port is not None and not 0 < port < 65536:
        return None
    parameters = {}
    for item in match[5].split(";"):
        name, _, value = item.partition("=")
        if name:
            parameters[name.lower()] = value
    return SipUri(match[1].lower(), match[2] or "", match[3].strip("[]"), port, parameters)
