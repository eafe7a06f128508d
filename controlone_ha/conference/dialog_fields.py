"""What Asterisk tells of a dialog: the dialplan expressions that ask for it, and their answers.

All fields of one question come as one text, joined by ``|``, which no SIP token or URI holds. The
addresses of both ends come last, as a display name may hold it. Asterisk writes a backslash before
quotes and backslashes of the dialog's URIs and tags, but not of headers.

Each ``CHANNEL(pjsip,…)`` and each header costs Asterisk a change of threads, so no more is asked
than is needed: of a party that was called, From and To of its 200 hold both URIs and both tags.

Source: RFC 3261 section 12 (dialogs), RFC 4028 (session timers).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from controlone_ha.conference.engine import Dialog
from controlone_ha.sip.fields import Address, parse_address

MAX_ROUTES = 6
"""Record-Route entries that are asked for: proxies between us and a party that was called."""

_TWO_ADDRESSES = re.compile(r'((?:"(?:[^"\\]|\\.)*"|[^"|])*)\|(.*)', re.DOTALL)

_ESCAPED = frozenset(
    f"CHANNEL(pjsip,{name})"
    for name in ("local_tag", "remote_tag", "target_uri", "request_uri", "local_uri", "remote_uri")
)


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
    ) = _split(text, _CALLER_FIELDS)  # fmt: skip
    seconds, refresher = parse_session_expires(expires)
    return Dialog(
        call_id=call_id,
        local_tag=local_tag,
        remote_tag=remote_tag,
        local_uri=_address(local_uri).uri,
        remote_uri=_address(remote_uri).uri,
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
    target, codec, route, expires, via, local, remote = _split(text, _CALLEE_FIELDS)
    seconds, refresher = parse_session_expires(expires)
    return Dialog(
        call_id=call_id,
        local_tag=_address(local).tag,
        remote_tag=_address(remote).tag,
        local_uri=_address(local).uri,
        remote_uri=_address(remote).uri,
        remote_target=target,
        transport=transport_of(via, target),
        route_set=split_routes(route),
        codec=codec.strip("()"),
        session_expires=seconds,
        refresher=refresher,
    )


def _split(text: str, fields: Sequence[str]) -> list[str]:
    """Return the values of ``fields``, of which the last two are name-addr or URIs."""
    *values, addresses = text.split("|", len(fields) - 2)
    if fields[-1] in _ESCAPED:
        addresses = _unescaped(addresses)
    found = _TWO_ADDRESSES.fullmatch(addresses)
    if len(values) != len(fields) - 2 or found is None:
        raise ValueError(f"no dialog of {len(fields)} fields: {text[:500]!r}")
    return [
        *(
            _unescaped(value) if name in _ESCAPED else value
            for name, value in zip(fields, values, strict=False)
        ),
        found[1],
        found[2],
    ]


def _unescaped(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)


def _address(text: str) -> Address:
    return parse_address(text) or Address("", "", {})


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
