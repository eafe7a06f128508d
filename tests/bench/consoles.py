"""Many consoles in one process, each the shipped client's session, told what to do on stdin.

    python -m tests.bench.consoles '{"first": 0, "count": 125, "servers": […], "port": 7551, …}'

Commands, one a line, each answered by one line of JSON: ``where`` (for each console the node it is
logged in to and since when, ``time.monotonic()``), ``rules {…}`` (changed settings), ``bare HOST``
(as many bare TLS connections at once: the anchor), ``quit``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
import ssl
import sys
import time
from typing import Any

from controlone_ha.console.connection import client_context
from controlone_ha.console.rules import Policy, Rules
from controlone_ha.console.session import Session
from controlone_ha.console.settings import ConsoleConfig
from controlone_ha.console.trust import Credentials

Json = dict[str, Any]


def console_name(number: int) -> str:
    """Return the name of a console of the run."""
    return f"desk-{number}"


def token_of(number: int) -> str:
    """Return its token."""
    return hashlib.sha256(f"token of {console_name(number)}".encode()).hexdigest()


class Consoles:
    """The sessions of this process."""

    def __init__(self, order: Json) -> None:
        self.order = order
        self.sessions: list[Session] = []
        self.since: list[tuple[str | None, float]] = []

    def config(self, number: int) -> ConsoleConfig:
        rules = dict(self.order["rules"])
        rules["policy"] = Policy(rules.get("policy", "idle"))
        return ConsoleConfig(
            name=console_name(number),
            rules=Rules(servers=tuple(self.order["servers"]), **rules),
            port=self.order["port"],
            queues=("190",),
        )

    def start(self) -> None:
        pins = tuple((name, pin) for name, pin in self.order["pins"])
        for index in range(self.order["count"]):
            number = self.order["first"] + index
            trusted = Credentials(token=token_of(number) if pins else "", pins=pins)
            session = Session(self.config(number), trusted)
            self.since.append((None, time.monotonic()))
            self.sessions.append(session)

            def changed(index: int = index, session: Session = session) -> None:
                where = session.active_name
                if self.since[index][0] != where:
                    self.since[index] = (where, time.monotonic())

            session.on_change = changed
        for index, session in enumerate(self.sessions):
            loop = asyncio.get_running_loop()
            loop.call_later(index * self.order.get("spread", 0.0), session.start)

    async def answer(self, line: str) -> Any:
        command, _, rest = line.strip().partition(" ")
        if command == "where":
            return self.since
        if command == "rules":
            self.order["rules"] = {**self.order["rules"], **json.loads(rest)}
            for index, session in enumerate(self.sessions):
                number = self.order["first"] + index
                session.reload(self.config(number), session.credentials)
            return True
        if command == "bare":
            return await self.bare(rest)
        raise ValueError(command)

    async def bare(self, host: str) -> list[float]:
        """Return the seconds that each of as many TLS connections took, all begun at once."""
        began = time.monotonic()

        async def one() -> tuple[float, asyncio.StreamWriter]:
            _, writer = await asyncio.open_connection(
                host, self.order["port"], ssl=client_context(), server_hostname=""
            )
            return time.monotonic() - began, writer

        made = await asyncio.gather(*(one() for _ in self.sessions), return_exceptions=True)
        good = [item for item in made if isinstance(item, tuple)]
        for _, writer in good:
            writer.close()
        return [seconds for seconds, _ in good]


async def main() -> None:
    """Run until told to quit."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
    consoles = Consoles(json.loads(sys.argv[1]))
    consoles.start()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_quiet)
    while True:
        line = await loop.run_in_executor(None, sys.stdin.readline)
        if not line or line.strip() == "quit":
            return
        print(json.dumps(await consoles.answer(line)), flush=True)


def _quiet(loop: asyncio.AbstractEventLoop, context: Json) -> None:
    """TLS farewells that nobody answers are no news here; everything else is."""
    if not isinstance(context.get("exception"), ssl.SSLError | ConnectionError | TimeoutError):
        loop.default_exception_handler(context)


if __name__ == "__main__":
    asyncio.run(main())
