"""A confirmed or early dialog (RFC 3261, 12): what its requests look like. Sans-I/O.

It keeps the state of one dialog from our side and makes requests, ACKs and responses of it. Who may
send what and when is its user's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from controlone_ha.sip.fields import BRANCH_COOKIE, parse_address
from controlone_ha.sip.message import Message, Request, build_request
from controlone_ha.sip.uri import Hop, parse_uri

CSEQ_LIMIT = 1 << 31

_TEXTS = ("call_id", "local_tag", "remote_tag", "local_uri", "remote_uri", "remote_target")


@dataclass
class Dialog:
    """One dialog. ``local_cseq``: the last one we used; ``remote_cseq``: the last one of the other
    side, None while unknown; ``contact``: our Contact URI; ``via``: host and port of our Via.
    """

    call_id: str
    local_tag: str
    remote_tag: str
    local_uri: str
    remote_uri: str
    remote_target: str
    transport: str = "udp"
    route_set: tuple[str, ...] = ()
    local_cseq: int = 0
    remote_cseq: int | None = None
    contact: str = ""
    via: str = ""
    allow: frozenset[str] = field(default_factory=frozenset)
    """Methods the other side has said to know; empty: it has not said."""

    @property
    def key(self) -> tuple[str, str]:
        """What requests from the other side name it by: Call-ID and their To tag."""
        return self.call_id, self.local_tag

    def hop(self) -> Hop | None:
        """Return where its requests go: the first route, else the remote target."""
        first = parse_address(self.route_set[0]) if self.route_set else None
        uri = parse_uri(first.uri if first is not None else self.remote_target)
        return None if uri is None else uri.hop(self.transport)

    def next_cseq(self) -> int:
        """Return the number of a new request; raise ``OverflowError`` past 2^31."""
        if self.local_cseq + 1 >= CSEQ_LIMIT:
            raise OverflowError("CSeq is used up")
        self.local_cseq += 1
        return self.local_cseq

    def request(
        self,
        method: str,
        branch: str,
        *,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        cseq: int | None = None,
    ) -> Request:
        """Return a request inside the dialog (12.2.1.1). ``cseq``: None takes the next number; an
        ACK has that of its INVITE.
        """
        number = self.next_cseq() if cseq is None else cseq
        target, routes = self._target_and_routes()
        hop = self.hop()
        transport = (hop.transport if hop is not None else self.transport).upper()
        lines = [
            ("Via", f"SIP/2.0/{transport} {self.via};rport;branch={BRANCH_COOKIE}{branch}"),
            ("Max-Forwards", "70"),
            *(("Route", route) for route in routes),
            ("From", f"<{self.local_uri}>;tag={self.local_tag}"),
            ("To", f"<{self.remote_uri}>" + (f";tag={self.remote_tag}" if self.remote_tag else "")),
            ("Call-ID", self.call_id),
            ("CSeq", f"{number} {method}"),
        ]
        if method in ("INVITE", "UPDATE"):
            lines.append(("Contact", f"<{self.contact}>"))
        return build_request(method, target, [*lines, *headers], body)

    def _target_and_routes(self) -> tuple[str, tuple[str, ...]]:
        """Return Request-URI and Route values; a first route without ``lr`` is a strict router."""
        if self.route_set:
            first = parse_address(self.route_set[0])
            uri = parse_uri(first.uri) if first is not None else None
            if first is not None and uri is not None and "lr" not in uri.parameters:
                return first.uri, (*self.route_set[1:], f"<{self.remote_target}>")
        return self.remote_target, self.route_set

    def refresh_target(self, message: Message) -> None:
        """Take the Contact of an INVITE, an UPDATE or their 2xx (12.2.1.2), and what it allows."""
        contacts = message.items("Contact")
        address = parse_address(contacts[0]) if contacts else None
        if address is not None and parse_uri(address.uri) is not None:
            self.remote_target = address.uri
        allowed = message.items("Allow")
        if allowed:
            self.allow = frozenset(item.upper() for item in allowed)

    def to_json(self) -> dict[str, Any]:
        """Return the dialog as it is kept."""
        document = {item.name: getattr(self, item.name) for item in fields(self)}
        document["route_set"] = list(self.route_set)
        document["allow"] = sorted(self.allow)
        return document


def dialog_from_json(raw: Mapping[str, Any]) -> Dialog:
    """Return a kept dialog; raise ``ValueError`` or ``KeyError`` for anything else."""
    values: dict[str, Any] = {name: raw[name] for name in (*_TEXTS, "transport", "contact", "via")}
    if not all(isinstance(value, str) for value in values.values()):
        raise ValueError("a dialog is made of texts")
    remote_cseq = raw["remote_cseq"]
    return Dialog(
        **values,
        route_set=tuple(str(route) for route in raw["route_set"]),
        local_cseq=int(raw["local_cseq"]),
        remote_cseq=None if remote_cseq is None else int(remote_cseq),
        allow=frozenset(str(item) for item in raw["allow"]),
    )
