"""The final answer to an INVITE whose server is gone before it could give one. Pure.

A response is matched by the branch of the Via and by CSeq (RFC 3261, section 17.1.3), not by where
it comes from. So who knows the INVITE can answer it in the place of the server that is gone, and
the caller's side, which would hear nothing until its own patience is over, tries elsewhere at once
(503, section 21.5.4). Its ACK goes to where the INVITE went: nobody waits for it.
"""

from __future__ import annotations

import re

from controlone_ha.core.calls import Leg
from controlone_ha.sip.fields import parse_via
from controlone_ha.sip.message import Response
from controlone_ha.sip.uri import Hop


def refusal_of(leg: Leg) -> tuple[Response, Hop]:
    """Return 503 to the INVITE of an early leg, and where it goes. Raises ``ValueError`` where the
    INVITE is not known, or came by a connection, which is gone as well.
    """
    value = leg.invite.get("via", "")
    via = parse_via(value)
    number = re.match(r"\d{1,10}", leg.invite.get("cseq", ""))
    if via is None or number is None or not via.has_unique_branch or not leg.is_complete:
        raise ValueError("its INVITE is not known")
    if via.transport != "UDP":
        raise ValueError(f"its INVITE came by {via.transport}")
    port = via.parameters.get("rport") or str(via.port or 5060)
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"its INVITE came from port {port[:20]!r}")
    host = (via.parameters.get("received") or via.host).strip("[]")
    headers = [
        ("Via", value),
        ("From", f"<{leg.remote_uri}>;tag={leg.remote_tag}"),
        ("To", f"<{leg.local_uri}>;tag={leg.local_tag}"),
        ("Call-ID", leg.call_id),
        ("CSeq", f"{number[0]} INVITE"),
    ]
    return Response(headers, b"", 503, "Service Unavailable"), Hop("udp", host, int(port))
