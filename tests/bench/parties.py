"""Gateways' and consoles' phones that talk and note how long they heard nothing.

    python -m tests.bench.parties ADDRESS SERVER CALLS

Run in the network of a lab's node. It prints the consoles' SIP addresses; told ``dial`` it makes
the calls at SERVER, one to each of the numbers 101, 102, …, and prints ``up`` when every phone
hears its partner; told ``gaps TIME`` (``time.monotonic()``, which all processes of a machine share)
it prints for every phone that hears something again how many seconds it heard nothing since then:
from the last packet before, or the first moment of silence, to the first one after. Phones of odd
numbers do not know Replaces and are adopted.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from tests.phone import Media, Phone

TONE = 400
SILENCE = 0.1
"""Seconds without a packet that are a gap: five packets."""


class Ear(Media):
    """Notes when packets came."""

    def __init__(self, tone: int) -> None:
        super().__init__(tone)
        self.last = 0.0
        self.gaps: list[tuple[float, float]] = []

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Note a packet, and the gap before it if there was one."""
        now = time.monotonic()
        if self.last and now - self.last > SILENCE:
            self.gaps.append((self.last, now))
        self.last = now
        self.received += 1


def party(name: str, address: str, number: int) -> tuple[Phone, Ear]:
    """One phone and what it hears with."""
    phone = Phone(name, address=address, tone=TONE, knows_replaces=number % 2 == 0)
    phone.media = ear = Ear(TONE)
    return phone, ear


async def main(address: str, server: str, count: int) -> None:
    """Run until the input ends."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    trunks = [party("trunk", address, number) for number in range(count)]
    desks = [party(f"desk{number}", address, number) for number in range(count)]
    everybody = trunks + desks
    for phone, _ear in everybody:
        await phone.start()
    _say([phone.uri for phone, _ear in desks])
    while line := (await reader.readline()).decode().split():
        if line[0] == "dial":
            for number, (phone, _ear) in enumerate(trunks):
                phone.dial(str(101 + number), 5060, host=server)
                await asyncio.sleep(0.05)
            while not all(ear.received > 25 for _phone, ear in everybody):
                await asyncio.sleep(0.05)
            _say("up")
        elif line[0] == "gaps":
            since = float(line[1])
            _say([_gap(phone, ear, since) for phone, ear in everybody])


def _gap(phone: Phone, ear: Ear, since: float) -> dict[str, Any]:
    """Return the longest gap that ended after ``since``; None while nothing is heard."""
    ended = [after - before for before, after in ear.gaps if after > since]
    is_heard = time.monotonic() - ear.last < SILENCE * 3
    kind = "replaces" if phone.knows_replaces else "420"
    gap = round(max(ended), 3) if ended and is_heard else None
    return {"party": phone.name, "kind": kind, "gap": gap, "is_heard": is_heard}


def _say(what: object) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
