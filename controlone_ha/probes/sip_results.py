"""What a call probe's answer, ICMP error or failure to send says of a Conference Server."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any

from controlone_ha.core.observations import Outcome, ProbeResult, Service
from controlone_ha.probes.addresses import error_text
from controlone_ha.sip.message import Response
from controlone_ha.sip.transaction import ClientTransaction

ORIGIN_LOCAL = 1
"""SO_EE_ORIGIN_LOCAL: this host's own kernel says so."""


def result_of(outcome: Outcome, detail: str) -> ProbeResult:
    """Return a result without answer."""
    return ProbeResult(service=Service.CONFERENCE, outcome=outcome, detail=detail)


def answered(transaction: ClientTransaction[Any], response: Response, now: float) -> ProbeResult:
    """Return what a final response says; ``now``: when it came, in the transaction's time."""
    # From the first transmission, so never too small when a copy was lost.
    rtt = (now - transaction.started) * 1000
    detail = f"{response.status} {response.reason}".strip()
    if transaction.sent > 1:
        detail += f" to transmission {transaction.sent}"
    return ProbeResult(
        service=Service.CONFERENCE,
        outcome=Outcome.REJECTED if response.status == 503 else Outcome.ANSWERED,
        detail=detail,
        rtt_ms=rtt,
        answer={
            "status": response.status,
            "server": response.get("Server") or response.get("User-Agent"),
        },
    )


def icmp_result(number: int, origin: int, reporter: str, host: str) -> ProbeResult:
    """Return what an error of the socket says; ``reporter``: who sent the ICMP message, if one."""
    if number == errno.ECONNREFUSED:
        if not reporter or reporter == host:
            return result_of(Outcome.REFUSED, "port unreachable: no SIP server on it")
        return result_of(Outcome.UNREACHABLE, f"port unreachable, reported by {reporter}")
    text = error_text(number)
    if reporter and origin != ORIGIN_LOCAL:
        text += f", reported by {reporter}"
    return result_of(Outcome.UNREACHABLE, text)


def local_failure(error: OSError) -> ProbeResult:
    """Return what this host's own kernel said when asked to send."""
    return result_of(Outcome.UNREACHABLE, error_text(error.errno))


def offender(sockaddr: bytes) -> str:
    """Return the address that reported an ICMP error (SO_EE_OFFENDER), empty when unknown."""
    if len(sockaddr) < 8:
        return ""
    (family,) = struct.unpack_from("=H", sockaddr)
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, sockaddr[4:8])
    if family == socket.AF_INET6 and len(sockaddr) >= 24:
        return socket.inet_ntop(socket.AF_INET6, sockaddr[8:24])
    return ""
