"""What Asterisk tells of a dialog: the dialplan expressions that ask for it, and their answers.

All fields of one question come as one text, joined by ``|``, which no SIP token or URI holds. The
addresses of both ends come last, as a display name may hold it. Each ``CHANNEL(pjsip,…)`` and each
header costs Asterisk a change of threads, so no more is asked than is needed: of a party that was
called, From and To of its 200 hold both URIs and both tags.

Source: RFC 3261 section 12 (dialogs), RFC 4028 (session timers).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from controlone_ha.conference.engine import Dialog

MAX_ROUTES = 6
"""Record-Route entries that are asked for: proxies between us and a party that was called."""

_TWO_ADDRESSES = re.compile(r'((?:"(?:[^"\\]|\\.)*"|[^"|])*)\|(.*)', re.DOTALL)


def _expression(fields: Sequence[str]) -> str:
    return "|".join(f"${{{name}}}" for name in fields)


CALL_ID_EXPRESSION = "${CHANNEL(pjsip,call-id)}"

_CALLER_FIELDS = (
    "CHANNEL(pjsip,call-id)",
    "CHANNEL(pjsip,local_tag)",
    "CHANNEL(pjsip,remote_tag)",
    "CHANNEL(pjsip,target_uri)",
    "CHANNEL(audionativeformat)",
    "PJSIP_HEADER(read,Record-Route,1)",
    "PJSIP_HEADER(read,Record-Route,2)",
    "PJSIP_HEADER(read,Session-Expires)",
    "PJSIP_HEADER(read,Via)",
    "CHANNEL(pjsip,request_uri)",
    "CHANNEL(pjsip,local_addr)",
    "CHANNEL(pjsip,remote_addr)",
    "PJSIP_HEADER(read,Via,2)",
    "PJSIP_HEADER(read,CSeq)",
    "CHANNEL(pjsip,local_uri)",
    "CHANNEL(pjsip,remote_uri)",
)
CALLER_EXPRESSION = _expression(_CALLER_FIELDS)
"""Asked by the dialplan when a party calls in."""

_CALLEE_FIELDS = (
    "CHANNEL(pjsip,target_uri)",
    "CHANNEL(audionativeformat)",
    "PJSIP_RESPONSE_HEADER(read,Record-Route,1)",
    "PJSIP_RESPONSE_HEADER(read,Session-Expires)",
    "PJSIP_RESPONSE_HEADER(read,Via)",
    "PJSIP_RESPONSE_HEADER(read,From)",
    "PJSIP_RESPONSE_HEADER(read,To)",
)
CALLEE_EXPRESSION = _expression(_CALLEE_FIELDS)
"""Asked of the channel of a party that was called and has answered."""


def route_expression(number: int) -> str:
    """Return the expression for one more Record-Route entry of the answer, counted from 1."""
    return f"${{PJSIP_RESPONSE_HEADER(read,Record-Route,{number})}}"


def caller_dialog(text: str) -> Dialog:
    """Return the dialog in the answer to ``CALLER_EXPRESSION``; raise ``ValueError``."""
    (
        call_id, local_tag, remote_tag, target, codec, first_route, second_route, expires, via,
        request_uri, local, remote, second_via, cseq, local_uri, remote_uri,
    ) = _split(text, len(_CALLER_FIELDS))  # fmt: skip
    seconds, refresher = parse_session_expires(expires)
    return Dialog(
        call_id=call_id,
        local_tag=local_tag,
        remote_tag=remote_tag,
        local_uri=uri_in(local_uri),
        remote_uri=uri_in(remote_uri),
        remote_target=target,
        local_address=local,
        remote_address=remote,
        transport=transport_of(via, target),
        route_set=(*split_routes(first_route), *split_routes(second_route)),
        codec=codec.strip("()"),
        session_expires=seconds,
        refresher=refresher,
        request_uri=request_uri,
        invite_via="" if second_via or "," in via or not cseq else via,
        invite_cseq=cseq,
    )


def callee_dialog(text: str, call_id: str) -> Dialog:
    """Return the dialog in the answer to ``CALLEE_EXPRESSION``; raise ``ValueError``."""
    target, codec, route, expires, via, local, remote = _split(text, len(_CALLEE_FIELDS))
    seconds, refresher = parse_session_expires(expires)
    return Dialog(
        call_id=call_id,
        local_tag=tag_in(local),
        remote_tag=tag_in(remote),
        local_uri=uri_in(local),
        remote_uri=uri_in(remote),
        remote_target=target,
        transport=transport_of(via, target),
        route_set=split_routes(route),
        codec=codec.strip("()"),
        session_expires=seconds,
        refresher=refresher,
    )


def _split(text: str, count: int) -> list[str]:
    *parts, addresses = text.split("|", count - 2)
    found = _TWO_ADDRESSES.fullmatch(addresses)
    if len(parts) != count - 2 or found is None:
        raise ValueError(f"no dialog of {count} fields: {text[:500]!r}")
    return [*parts, found[1], found[2]]


def uri_in(text: str) -> str:
    """Return the URI of a name-addr, or the text when it is one alone."""
    found = re.search(r"<([^<>]*)>", text)
    return found[1] if found else text.partition(";")[0]


def tag_in(text: str) -> str:
    """Return the tag of a From or To header, empty without one."""
    found = re.search(r";\s*tag\s*=\s*([^\s;,]+)", text.rpartition(">")[2], re.IGNORECASE)
    return found[1] if found else ""


def parse_session_expires(value: str) -> tuple[int, str]:
    """Return seconds and refresher of a Session-Expires header (RFC 4028); (0, "") without one."""
    found = re.match(r"\s*(\d{1,7})\s*(?:;.*?refresher\s*=\s*(uac|uas))?", value, re.IGNORECASE)
    return (int(found[1]), (found[2] or "").lower()) if found else (0, "")


def split_routes(value: str) -> tuple[str, ...]:
    """Return the entries of a Record-Route header (RFC 3261 section 20.30)."""
    return tuple(re.findall(r"<[^<>]*>(?:;[^,<>]*)?", value))


def transport_of(via: str, target: str) -> str:
    """Return udp, tcp, tls, ws or wss: what the Via says, else the target, else udp."""
    found = re.match(r"\s*SIP\s*/\s*2\.0\s*/\s*(\w+)", via, re.IGNORECASE) or re.search(
        r";transport=(\w+)", target, re.IGNORECASE
    )
    return found[1].lower() if found else "udp"
