"""Run in a network namespace of its own: adopt a leg with everything bound to all addresses.

Prints the connection line of the description and the Contact that the party was sent.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from controlone_ha.core.calls import Leg, LegState
from controlone_ha.lab import parts
from controlone_ha.sip.message import Request, build_response
from tests.contract.adoption_support import Taker
from tests.contract.test_probes_sip import responder
from tests.ports import free_port

ANSWER = (
    b"v=0\r\no=p 1 1 IN IP4 10.99.0.2\r\ns=-\r\nc=IN IP4 10.99.0.2\r\nt=0 0\r\n"
    b"m=audio 9000 RTP/AVP 0\r\n"
)


def answer(request: Request, _: int) -> list[bytes]:
    """Agree to everything."""
    if request.method == "ACK":
        return []
    headers = [("Contact", "<sip:p@10.99.0.2>"), ("Content-Type", "application/sdp")]
    return [build_response(request, 200, "OK", headers=headers, body=ANSWER).to_bytes()]


async def main(directory: Path) -> None:
    """Adopt, print."""
    taker = Taker(directory, parts.asterisk(), free_port, bind="")
    async with responder(answer, "10.99.0.2") as (party, port):
        try:
            await taker.start()
            leg = Leg(
                id="leg",
                role="gateway",
                party="p",
                state=LegState.CONFIRMED,
                call_id="c@old",
                local_tag="us",
                remote_tag="them",
                local_uri="sip:100@10.99.0.9",
                remote_uri="sip:p@10.99.0.2",
                remote_target=f"sip:p@10.99.0.2:{port}",
            )
            await taker.adopt(leg)
        finally:
            await taker.stop()
        invite = party.requests[0]
        lines = invite.body.decode().split("\r\n")
        print(next(line for line in lines if line.startswith("c=")), invite.get("Contact"))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
