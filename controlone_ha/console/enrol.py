"""Enrolment from the console's side: one request, repeated until a person has approved it.

The console makes its token, sends only what verifies it, and shows a code. Who approves on a node
types that code, so that both certainly speak of the same token and the same certificate: then the
certificate seen here is the node's own, and what the node says of the other servers can be trusted.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from controlone_ha.console.connection import OpenError, open_connection
from controlone_ha.console.trust import Credentials
from controlone_ha.core.credentials import parse_pins, verification_code, verifier_of
from controlone_ha.errors import RefusedError
from controlone_ha.jsonrpc import RpcError

AGAIN = 2.0
ANSWER = 10.0


async def enrol(
    console: str,
    server: str,
    port: int,
    *,
    show: Callable[[str], None],
    software: str = "",
    again: float = AGAIN,
) -> Credentials:
    """Return the credentials of ``console`` once they are approved; ``show`` gets the code.

    Raises ``OpenError`` (no connection, or it ended) and ``RefusedError``.
    """
    token = secrets.token_hex(32)
    verifier = verifier_of(token)
    line = await asyncio.wait_for(open_connection(server, port, Credentials()), ANSWER)
    try:
        shown = False
        while True:
            params = {"console": console, "verifier": verifier, "software": software}
            try:
                answer = await asyncio.wait_for(line.call("enrol", params), ANSWER)
            except RpcError as error:
                raise RefusedError(str(error)) from error
            if answer.get("state") == "approved":
                pins = parse_pins(answer.get("pins"))
                if line.certificate not in {pin for _, pin in pins}:
                    raise RefusedError(f"{server} does not name the certificate that it presents")
                return Credentials(token=token, pins=tuple(sorted(pins)))
            if not shown:
                shown = True
                show(verification_code(console, line.certificate, verifier))
            await asyncio.sleep(again)
    finally:
        line.leave()


__all__ = ["OpenError", "enrol"]
