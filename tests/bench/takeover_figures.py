"""Live calls of a killed Conference Server taken over: share, time and rate beside a bare script.

SIPp gateways call, SIPp phones answer, at one real Conference Server; its Asterisk and controller
are killed and what its peers know of the calls goes to another one (``take``). Its seconds run from
that order to the word of the last leg. Then the same is done by a bare ARI script
(``takeover_bare``), in turns. In loads called ``busy`` the new server answers new calls meanwhile.
With RTP every leg is sent sound all the time, and the two SIPps that make 20 ms packets for each of
them share the processors with Asterisk. Parties without Replaces answer 420 and are adopted.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from controlone_ha.core.calls import Call
from controlone_ha.errors import ControlOneError, LabError
from controlone_ha.lab.figures import Figure, median_figure
from tests.bench.takeover_bare import BareScript
from tests.bench.takeover_world import (
    BATCH,
    GATEWAY,
    SIP_PORT,
    Node,
    Sipp,
    World,
    check_replaces,
    world,
)

RUNS = 3
ANCHOR = "bare ARI script"
FIRST, SECOND = "127.0.0.2", "127.0.0.3"
NEW_CONSOLES = "127.0.0.12"
PATIENCE = 40.0
OFFERED_RATE = 20
"""New calls a second while others are taken."""
LIMBO = 10.0
"""Seconds after which a protected leg must have been taken, ended or told about."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """One way of measuring. ``suffix``: of the figures' names."""

    calls: int
    runs: int = RUNS
    has_media: bool = False
    knows_replaces: bool = True
    offers_new: bool = False
    """Whether new calls come meanwhile: then no rate is held against the bare script's, which
    answers none.
    """

    @property
    def has_anchor(self) -> bool:
        """Whether the bare script does the same."""
        return self.knows_replaces and not self.offers_new

    @property
    def suffix(self) -> str:
        """``200``, ``200_rtp``, ``200_adopted_busy``."""
        return (
            f"{self.calls}{'_rtp' * self.has_media}{'' if self.knows_replaces else '_adopted'}"
            f"{'_busy' * self.offers_new}"
        )


LOADS = (
    Load(calls=50),
    Load(calls=200),
    Load(calls=1000, runs=1),
    Load(calls=200, offers_new=True),
    Load(calls=1000, runs=1, offers_new=True),
    Load(calls=50, knows_replaces=False),
    Load(calls=200, knows_replaces=False),
    Load(calls=1000, runs=1, knows_replaces=False),
    Load(calls=1000, runs=1, knows_replaces=False, offers_new=True),
    Load(calls=50, has_media=True),
    Load(calls=200, has_media=True),
)


@dataclass(kw_only=True)
class Run:
    """What one takeover gave. ``lost``: new calls that were refused or not answered."""

    share: float
    seconds: float
    rate: float
    limbo: int = 0
    offered: int = 0
    lost: int = 0
    outcomes: str = ""


def figures() -> list[Figure]:
    """Measure everything; takes about eight minutes."""
    found: list[Figure] = []
    lost, offered, limbo = 0, 0, 0
    for load in LOADS:
        rows, runs = measure(load)
        found += rows
        lost += sum(run.lost for run in runs)
        offered += sum(run.offered for run in runs)
        limbo += sum(run.limbo for run in runs)
    found.append(Figure(name="new_calls_offered", value=offered, unit="calls"))
    found.append(Figure(name="new_calls_lost", value=lost, unit="calls", goal=0))
    found.append(Figure(name="limbo_legs", value=limbo, unit="legs", goal=0))
    return found


def measure(load: Load) -> tuple[list[Figure], list[Run]]:
    """Measure one load; return its figures and the runs they come from."""
    ours: list[Run] = []
    bare: list[Run] = []
    reason = ""
    for _ in range(load.runs):
        try:
            ours.append(asyncio.run(_ours(load)))
            if load.has_anchor:
                bare.append(asyncio.run(_bare(load)))
        except (ControlOneError, OSError, AssertionError, TimeoutError) as error:
            reason = f"{type(error).__name__}: {error}"[:200]
    rows = [
        median_figure(
            f"taken_share_{load.suffix}",
            [run.share for run in ours],
            "ratio",
            anchor=ANCHOR if bare else "",
            anchor_values=[run.share for run in bare],
            goal=1.0,
            is_lower_bound=True,
            reason=reason,
        ),
        median_figure(
            f"decision_to_last_leg_s_{load.suffix}",
            [run.seconds for run in ours],
            "s",
            anchor=ANCHOR if bare else "",
            anchor_values=[run.seconds for run in bare],
            reason=reason,
        ),
    ]
    if load.has_anchor:
        is_named = load.calls == 200 and not load.has_media
        both = bool(ours and bare)
        rows.append(
            Figure(
                name="rate_vs_bare_ari" if is_named else f"rate_vs_bare_ari_{load.suffix}",
                value=_ratio(ours, bare) if both else None,
                unit="ratio",
                runs=min(len(ours), len(bare)),
                goal=0.8,
                is_lower_bound=True,
                reason="" if both else reason,
            )
        )
    for run in ours:
        print(
            f"   {load.suffix}: {run.share:.3f} in {run.seconds:.2f} s, {run.rate:.0f} calls/s; "
            f"{run.lost} of {run.offered} new calls lost; {run.outcomes}",
            flush=True,
        )
    for run in bare:
        print(f"   {load.suffix}, bare: {run.share:.3f}, {run.rate:.0f} calls/s", flush=True)
    return rows, ours


def _ratio(ours: Sequence[Run], bare: Sequence[Run]) -> float:
    rate = statistics.median(run.rate for run in ours)
    return round(rate / statistics.median(run.rate for run in bare), 4)


async def _ours(load: Load) -> Run:
    async with world(has_media=load.has_media, knows_replaces=load.knows_replaces) as made:
        first, second = made.node("a", FIRST), made.node("b", SECOND)
        await asyncio.gather(first.start(), second.start())
        calls, trunk, desk = await made.talk(first, load.calls)
        if load.has_media:
            await _check_media(load.calls)
        fresh = await _new_calls(made, second) if load.offers_new else None
        _kill(first)
        began = time.monotonic()
        documents = [call.to_json() for call in calls]
        for start in range(0, len(documents), BATCH):
            await second.call(
                "take",
                calls=documents[start : start + BATCH],
                ground="refused",
                asks_parties=False,
            )
        last = await _until_told(second, load.calls)
        events = [event for event in second.events if event["kind"] == "taken_over"]
        if load.knows_replaces:
            check_replaces(calls, trunk, desk)
        up = sum(event["up"] for event in events)
        told = [leg for event in events for leg in event["legs"]]
        outcomes = {str(leg["outcome"]) for leg in told}
        summary = ", ".join(
            f"{sum(leg['outcome'] == name for leg in told)} {name}" for name in sorted(outcomes)
        )
        offered, lost = await _offered(fresh) if fresh is not None else (0, 0)
        limbo = await _limbo(second, calls, began)
        seconds = last - began
        return Run(
            share=up / load.calls,
            seconds=seconds,
            rate=up / seconds,
            limbo=limbo,
            offered=offered,
            lost=lost,
            outcomes=summary,
        )


async def _check_media(calls: int) -> None:
    """Raise unless Asterisk hears both legs of every call; SIPp does not read what it is sent."""
    before = _datagrams()
    await asyncio.sleep(0.5)
    wanted, found = calls * 2 * 50 * 0.5, _datagrams() - before
    if found < wanted * 0.9:
        raise LabError(f"{found} RTP packets in half a second, expected {wanted:.0f}")


def _datagrams() -> int:
    """UDP packets that were received on this machine."""
    rows = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines()]
    names, values = (row for row in rows if row[0] == "Udp:")
    return int(values[names.index("InDatagrams")])


async def _bare(load: Load) -> Run:
    async with world(has_media=load.has_media) as made:
        first, second = made.node("a", FIRST), made.node("b", SECOND)
        await first.start()
        second.start_asterisk()
        calls, trunk, desk = await made.talk(first, load.calls)
        _kill(first)
        taken, seconds = await BareScript(second).take(calls)
        check_replaces(calls, trunk, desk)
        return Run(share=taken / load.calls, seconds=seconds, rate=taken / seconds)


def _kill(node: Node) -> None:
    node.kill("asterisk")
    node.kill("controller")


async def _until_told(node: Node, calls: int) -> float:
    """Wait until every outcome was told or patience is over; return when the last one was."""
    limit, last, count = time.monotonic() + PATIENCE, time.monotonic(), 0
    while count < calls and time.monotonic() < limit:
        found = sum(event["kind"] == "taken_over" for event in node.events)
        if found > count:
            count, last = found, time.monotonic()
        await asyncio.sleep(0.002)
    return last


async def _limbo(node: Node, calls: Sequence[Call], began: float) -> int:
    """Legs that nobody told anything about within 10 s, and channels here that are of no call."""
    await asyncio.sleep(max(0.0, min(LIMBO - (time.monotonic() - began), 1.0)))
    told = {event["call"] for event in node.events if event["kind"] == "taken_over"}
    silent = sum(len(call.live_legs()) for call in calls if call.id not in told)
    known = {leg["id"] for call in node.live for leg in call["legs"]}
    strange = [channel for channel in await node.channels() if channel["id"] not in known]
    return silent + len(strange)


async def _new_calls(made: World, node: Node) -> Sipp:
    """Offer new calls to a node, each of half a second, until told to end."""
    made.sipp("callee", [], address=NEW_CONSOLES)
    await asyncio.sleep(0.2)
    uri = f"sip:new@{NEW_CONSOLES}:{SIP_PORT}"
    await node.call("consoles", consoles=[{"name": "n", "queues": ["100"], "sip": uri}])
    words = [f"{node.address}:{SIP_PORT}", "-s", "100", "-r", str(OFFERED_RATE)]
    return made.sipp("visitor", words, address=GATEWAY, port=SIP_PORT + 1)


async def _offered(fresh: Sipp) -> tuple[int, int]:
    """End the new calls; return how many were offered and how many of them failed."""
    fresh.ask_to_end()
    for _ in range(100):
        if fresh.process.poll() is not None:
            break
        await asyncio.sleep(0.05)
    made, lost = fresh.count("TotalCallCreated"), fresh.count("FailedCall(C)")
    if not made:
        raise LabError(f"no new call was offered: {fresh.errors[:200]}")
    return made, lost
