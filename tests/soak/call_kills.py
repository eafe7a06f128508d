"""Live calls while servers are killed: ``python -m tests.soak.call_kills [ROUNDS] [SEED]``.

Three real Conference Servers; pairs of phones, a gateway's and a console's, call each other through
them, talk and hang up, again and again. In each round, at a random moment, something is killed with
SIGKILL: a whole server, its Asterisk alone (which is started again and takes its calls up), its
controller alone, or a server and then, half-way, the one that takes its calls. What `ha` does on
real nodes is done here at once: the calls of who died are given to another server as its peers know
them, and who returns learns what others own. So what is seen is the Conference Servers' part.

A round is right when no phone is left in limbo: in a call, as it thinks, and for ``LIMBO`` seconds
nothing is heard. Every phone sends a tone all the time, so a phone hears something unless its
partner or the server in between is gone. Only legs count whose dialog a peer had been told of:
where a server is killed between a party's 200 and its word to the peers, nobody can know of that
dialog (*unprotected*). Half of the phones know Replaces, the others answer 420.

Not collected by pytest but for some rounds (``tests/contract/test_takeover_kills.py``). Exit code 1
when a phone was in limbo.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections import Counter
from dataclasses import replace

from controlone_ha.core.calls import Call, CallTable, call_from_json
from controlone_ha.core.takeover import AGAIN, TRIES, Outcome, deserves_another_try
from controlone_ha.lab import parts
from tests.contract.conference_support import Server
from tests.contract.takeover_support import Servers, started
from tests.phone import Dialog, Media, Phone
from tests.ports import free_port
from tests.waiting import until

PAIRS = 6
LIMBO = 10.0
"""Seconds without sound after which a phone in a call is in limbo."""
TALK = (0.3, 4.0)
PAUSE = (0.2, 2.5)
"""Seconds between two kills, at random between these, after what was killed is back."""
KINDS = ("server", "asterisk", "controller", "taker")


class Ear(Media):
    """Knows when it heard something last."""

    last = 0.0

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Note a packet."""
        self.received += 1
        self.last = time.monotonic()


class Pair:
    """Two phones that call each other, talk, hang up, again and again."""

    def __init__(self, number: int, run: Run) -> None:
        self.number = f"10{number}"
        self._run = run
        kind = {"knows_replaces": number % 2 == 0, "tone": 400}
        self.trunk = Phone(f"trunk{number}", **kind)  # type: ignore[arg-type]
        self.desk = Phone(f"desk{number}", **kind)  # type: ignore[arg-type]
        self._since: dict[int, float] = {}

    @property
    def phones(self) -> tuple[Phone, Phone]:
        """Both."""
        return self.trunk, self.desk

    async def start(self) -> None:
        """Have both phones reachable: from here on their addresses are known."""
        for phone in self.phones:
            phone.media = Ear(phone.tone)
            await phone.start()

    async def live(self) -> None:
        """Call and hang up until cancelled."""
        while True:
            server = self._run.chance.choice(self._run.serving())
            self.trunk.dial(self.number, server.port, host=self._run.servers.addresses[server])
            if await self._is_up(2.0):
                self._run.counts["calls"] += 1
                await asyncio.sleep(self._run.chance.uniform(*TALK))
                self._hang_up()
            else:
                self._give_up()
            await self._until_quiet()
            await asyncio.sleep(self._run.chance.uniform(0.05, 0.3))

    async def _is_up(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.trunk.call.answered.wait(), seconds)
        return self.trunk.call.state == "up"

    def _hang_up(self) -> None:
        """One of both hangs up, whichever dialog the call is in by now."""
        phone = self._run.chance.choice(self.phones)
        for dialog in up_dialogs(phone):
            phone.hang_up(dialog)

    def _give_up(self) -> None:
        """No answer: the gateway cancels, and forgets the call at a server that is silent."""
        dialog = self.trunk.call
        self.trunk.hang_up(dialog)
        if dialog.state != "up":
            dialog.state = "cancelled"

    async def _until_quiet(self) -> None:
        """Wait until both know that the call is over; the watch ends what is in limbo."""
        while any(up_dialogs(phone) for phone in self.phones):
            await asyncio.sleep(0.05)
        for phone in self.phones:
            del phone.calls[:-4], phone.messages[:]
            phone.media.sound.clear()

    def watch(self, now: float) -> list[tuple[str, list[str]]]:
        """Return what is in limbo, with the SIP Call-IDs, and end it, so that it is told once."""
        found = []
        for phone in self.phones:
            assert isinstance(phone.media, Ear)
            ups = up_dialogs(phone)
            if not ups:
                self._since.pop(id(phone), None)
                continue
            heard = max(phone.media.last, self._since.setdefault(id(phone), now))
            if now - heard > LIMBO:
                self._since.pop(id(phone), None)
                kind = "Replaces" if phone.knows_replaces else "420"
                ids = [dialog.call_id for dialog in ups]
                found.append((f"{phone.name} ({kind}) is in limbo", ids))
                for dialog in ups:
                    dialog.state = "ended"
                    dialog.ended.set()
        return found


def up_dialogs(phone: Phone) -> list[Dialog]:
    """The dialogs in which a phone is."""
    return [dialog for dialog in phone.calls if dialog.state == "up"]


class Run:
    """The servers, the phones, what peers know, and what went wrong (``problems``)."""

    def __init__(self, servers: Servers, chance: random.Random) -> None:
        self.servers = servers
        self.chance = chance
        self.pairs = [Pair(number, self) for number in range(PAIRS)]
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()
        self._down: set[Server] = set()
        self._restarts: Counter[Server] = Counter()
        self._before = ""
        self._calls: dict[str, str] = {}
        self._table = CallTable()
        self._versions: dict[str, dict[str, str]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def serving(self) -> list[Server]:
        """The servers that nobody has killed."""
        return [server for server in self.servers.servers if server not in self._down]

    async def rounds(self, count: int) -> None:
        """Kill so many times, then see that nothing is left in limbo."""
        for pair in self.pairs:
            await pair.start()
        for server in self.servers.servers:
            await self._present(server)
        tasks = [asyncio.create_task(pair.live()) for pair in self.pairs]
        tasks.append(asyncio.create_task(self._watch()))
        try:
            await until(lambda: self.counts["calls"] > 0, 30)
            for number in range(1, count + 1):
                await asyncio.sleep(self.chance.uniform(*PAUSE))
                await self._round(number)
                for task in tasks:
                    if task.done():
                        task.result()
                if number % 10 == 0:
                    print(f"{number} rounds, {dict(self.counts)}", flush=True)
            end = time.monotonic() + LIMBO + 1
            while time.monotonic() < end and not self._is_calm():
                await asyncio.sleep(0.1)
        finally:
            tasks += self._tasks
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for pair in self.pairs:
                for phone in pair.phones:
                    phone.stop()

    def _is_calm(self) -> bool:
        """Whether every phone that is in a call hears something."""
        now = time.monotonic()
        return all(
            now - phone.media.last < 0.5  # type: ignore[attr-defined]
            for pair in self.pairs
            for phone in pair.phones
            if up_dialogs(phone)
        )

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            self._note()
            for pair in self.pairs:
                for sentence, ids in pair.watch(time.monotonic()):
                    if not any(sip_id in self._calls for sip_id in ids):
                        self.counts["unprotected"] += 1
                        continue
                    self.problems.append(f"{sentence}; {self._before}")
                    print(self.problems[-1], flush=True)
                    for call_id in {self._calls.get(sip_id, "") for sip_id in ids}:
                        print("\n".join(self._story(call_id)), flush=True)

    def _note(self) -> None:
        """Note what peers are told, and keep, of calls: their documents and their SIP dialogs."""
        for server in self.servers.servers:
            for document in server.documents.values():
                for leg in document["legs"]:
                    self._calls[leg["call_id"]] = document["id"]
                if self._table.merge(call := call_from_json(document)):
                    text = f"{call.owner} {call.version} {call.state.value} {call.reason}"
                    seen = self._versions.setdefault(call.id, {})
                    seen.setdefault(text, f"{self._before}, {time.monotonic():.2f} s")

    def _story(self, call_id: str) -> list[str]:
        """What the servers know and have said of a call."""
        lines = [f"   of call {call_id or 'that nobody knows'}:"]
        seen = self._versions.get(call_id, {})
        lines += [f"   {text}, seen in {when}" for text, when in seen.items()]
        for server in self.servers.servers if call_id else ():
            name = self.servers.addresses[server]
            document = server.documents.get(call_id)
            if document is not None:
                legs = [(leg["role"], leg["state"], leg["call_id"]) for leg in document["legs"]]
                what = {key: document[key] for key in ("owner", "generation", "state", "reason")}
                lines.append(f"   {name}: {what} {legs}")
            lines += [f"   {name}: {event}" for event in server.events if event["call"] == call_id]
            lines += [f"   {name}: {line}" for line in server.log.splitlines() if call_id in line]
        return lines

    async def _present(self, server: Server) -> None:
        """The consoles are connected everywhere: whichever server has the call can ring them."""
        consoles = [
            {"name": pair.desk.name, "queues": [pair.number], "sip": pair.desk.uri}
            for pair in self.pairs
        ]
        await server.call("consoles", consoles=consoles)

    async def _round(self, number: int) -> None:
        kind, victim = self.chance.choice(KINDS), self.chance.choice(self.servers.servers)
        others = [server for server in self.servers.servers if server is not victim]
        self.chance.shuffle(others)
        self.counts[kind] += 1
        self._before = f"round {number}: {kind}"
        if kind == "controller":
            self._restarts[victim] += 1
            victim.kill("controller")
            assert victim.connection is not None
            await victim.connection.close()
            victim.start_controller()
            await victim.connect()
            await self._present(victim)
            return
        if kind == "asterisk":
            victim.kill("asterisk")
            victim.start_asterisk()
            await self._engine_up(victim)
            return
        table = await self._killed(victim)
        taker, last = others
        await self._take(taker, table, victim)
        if kind == "taker":
            await asyncio.sleep(self.chance.uniform(0.0, 0.05))
            table = await self._killed(taker)
            await self._take(last, table, victim)
            await self._take(last, table, taker)
            await self._return(taker)
        await self._return(victim)

    async def _engine_up(self, server: Server) -> None:
        """Wait until the controller has seen the new engine: `ha` sees that by its probes."""
        await asyncio.sleep(0.3)
        await server.engine_up()

    async def _killed(self, victim: Server) -> CallTable:
        """Kill a server; return what peers have of all calls: the newest version of each document
        that was handed out, the last ones included, which are still on their way.
        """
        self._down.add(victim)
        self._restarts[victim] += 1
        self.servers.kill(victim)
        await asyncio.sleep(0.05)
        return self._known()

    def _known(self) -> CallTable:
        self._note()
        return self._table

    async def _take(self, taker: Server, table: CallTable, victim: Server) -> None:
        """Give the calls of who died to another server, and again what may come yet, as `ha` does
        (``daemon.takeovers``): nobody answered, a claim that nobody has heard of, or a taker that
        died before it told.
        """
        name = f"n{self.servers.servers.index(victim) + 1}"
        calls = [call for call in table if call.owner == name]
        taken = await self._order(taker, calls)
        self.counts["taken"] += len(taken)
        if taken:
            self._tasks.append(asyncio.create_task(self._again(taker, taken)))

    async def _order(self, taker: Server, calls: list[Call]) -> list[Call]:
        mine = {call["id"] for call in taker.live}
        documents = [call.to_json() for call in calls if call.id not in mine]
        answer = await taker.call("take", calls=documents, ground="refused", asks_parties=False)
        return [call for call in calls if call.id in answer["accepted"]]

    async def _again(self, taker: Server, calls: list[Call]) -> None:
        for _ in range(2 * TRIES):
            since, restarts = len(taker.events), self._restarts[taker]
            await asyncio.sleep(AGAIN)
            hopeful, untold = [], []
            for call in calls:
                told = [
                    event
                    for event in taker.events[max(0, since - 50) :]
                    if event["kind"] == "taken_over" and event["call"] == call.id
                ]
                outcomes = [Outcome(leg["outcome"]) for leg in told[-1]["legs"]] if told else []
                is_mine = self._known().get(call.id) in (None, call)
                if not told and is_mine:
                    untold.append(call)
                elif told and not told[-1]["up"] and is_mine and deserves_another_try(outcomes):
                    more = Outcome.ALREADY_TAKEN in outcomes
                    hopeful.append(replace(call, generation=call.generation + more))
            if self._restarts[taker] != restarts:
                hopeful, untold = [*hopeful, *untold], []
            if not hopeful and not untold:
                return
            if taker in self._down:
                taker = self.chance.choice(self.serving())
            calls = [*untold, *(await self._order(taker, hopeful))]

    async def _return(self, server: Server) -> None:
        """Who was killed comes back, without anything of before."""
        await self.servers.revive(server)
        await self._present(server)
        self._down.discard(server)


async def soak(servers: Servers, rounds: int, seed: int) -> Run:
    """Run so many rounds on servers that are up."""
    run = Run(servers, random.Random(seed))
    await run.rounds(rounds)
    return run


def main(arguments: list[str]) -> int:
    """Run the rounds and print what was found."""
    rounds = int(arguments[0]) if arguments else 100
    seed = int(arguments[1]) if len(arguments) > 1 else 1
    print(f"{rounds} kills while {PAIRS} pairs of phones call each other, seed {seed}", flush=True)
    with started(parts.asterisk(), free_port, 3, queues="") as servers:
        run = servers.runner.run(soak(servers, rounds, seed))
    print(dict(run.counts))
    if not run.problems:
        print(f"no phone was in limbo for {LIMBO:g} s")
    return 1 if run.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
