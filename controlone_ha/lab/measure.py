"""Measures from inside the lab's network when a node begins to serve: what a console and a gateway
see.

    python -m controlone_ha.lab.measure ADDRESS

It polls the Console Server (a ping on an open connection) and the Conference Server (SIP OPTIONS)
until both serve, then proves it with a fresh connection and a login. It prints ``ready`` once it is
polling, then one JSON object of ``time.monotonic()`` seconds, which all processes of a machine
share: ``{"console": …, "sip": …}``. It ends by itself after ``LIMIT`` seconds.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from typing import Any

from controlone_ha.core.observations import Outcome
from controlone_ha.jsonrpc import Connection
from controlone_ha.probes.sip import SipProber

LIMIT = 60.0
POLL = 0.005


def _tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # a stopwatch: identity is tested elsewhere
    return context


async def _connect(address: str, context: ssl.SSLContext) -> Connection:
    reader, writer = await asyncio.open_connection(address, 7551, ssl=context)
    connection = Connection(reader, writer)
    connection.context["task"] = asyncio.ensure_future(connection.run())
    return connection


async def _console(address: str, ready: asyncio.Event) -> float:
    context = _tls()
    connection = await _connect(address, context)
    ready.set()
    while True:
        answer: dict[str, Any] = await connection.call("ping", timeout=5.0)
        if answer.get("serving"):
            break
        await asyncio.sleep(POLL)
    operator = await _connect(address, context)
    await operator.call("login", {"console": "stopwatch", "queues": ["190"]}, timeout=5.0)
    at = time.monotonic()
    await operator.close()
    await connection.close()
    return at


async def _sip(address: str) -> float:
    prober = SipProber()
    await prober.start()
    try:
        while True:
            result = await prober.probe(address, timeout=0.2)
            if result.outcome is Outcome.ANSWERED:
                return time.monotonic()
            await asyncio.sleep(POLL)
    finally:
        prober.close()


async def _measure(address: str) -> dict[str, float]:
    ready = asyncio.Event()

    async def tell() -> None:
        await ready.wait()
        print("ready", flush=True)

    async with asyncio.timeout(LIMIT):
        console, sip, _ = await asyncio.gather(_console(address, ready), _sip(address), tell())
    return {"console": console, "sip": sip}


def main() -> int:
    """Measure the node whose address is the first argument."""
    print(json.dumps(asyncio.run(_measure(sys.argv[1]))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
