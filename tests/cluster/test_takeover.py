"""A node dies with a call up, and its slave takes the call over: real nodes, `ha` to Asterisk."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.node import LabNode
from controlone_ha.lab.service_state import ServiceDefinition
from tests.cluster.support import ask, ha, history, service, state, wait_until
from tests.cluster.test_live_calls import conference, console_at, copies, two_nodes
from tests.package.scratch import CHECKOUT

TONE = 440

# A gateway with a tone and a console's phone, both at this node; prints what the phone hears.
PHONES = """
import asyncio, json, sys
from tests.phone import Phone, strength

async def story(address, server):
    gateway = Phone("trunk", tone=440, address=address)
    desk = Phone("desk", tone=620, address=address)
    for phone in gateway, desk:
        await phone.start()
    print(json.dumps({"uri": desk.uri}), flush=True)
    sys.stdin.readline()
    gateway.dial("100", 5060, host=server)
    while True:
        await asyncio.sleep(0.1)
        heard = {}
        for phone, tone in (desk, 440), (gateway, 620):
            last = phone.media.tail(1600)
            phone.media.sound.clear()
            heard[phone.name] = bool(last) and strength(last, tone) > 0.5
        print(json.dumps(heard), flush=True)

asyncio.run(story(*sys.argv[1:]))
"""


class Phones:
    """The two phones in a node's namespace."""

    def __init__(self, node: LabNode, server: str) -> None:
        self._process = node.spawn(
            [sys.executable, "-P", "-c", PHONES, node.address, server],
            env={"PYTHONPATH": str(CHECKOUT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.uri = str(self._read()["uri"])

    def dial(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def hear_each_other(self) -> bool:
        """Whether both have heard the other's tone in the last tenth of a second but one."""
        found = [self._read() for _ in range(4)]
        return all(item["desk"] and item["trunk"] for item in found[-2:])

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclass(frozen=True)
class Talk:
    """A call at m1 that s1 protects; ``known`` is what s1 has of it."""

    lab: Lab
    m1: LabNode
    s1: LabNode
    phones: Phones
    known: dict[str, Any]

    def goes_on_at_s1(self) -> None:
        """Return when s1 owns the call and its parties hear each other through it."""
        wait_until(self.lab, lambda: copies(self.s1)[0]["owner"] == "s1", "s1 owns the call")
        self.is_heard("the parties hear each other through s1")
        (taken,) = copies(self.s1)
        assert (taken["id"], taken["generation"], taken["state"]) == (self.known["id"], 2, "up")

    def is_heard(self, what: str) -> None:
        wait_until(self.lab, self.phones.hear_each_other, what)

    def stays_at_s1(self) -> None:
        """Return when m1, which is back, has learnt whose call it is; it goes on."""
        wait_until(
            self.lab,
            lambda: (
                ask(self.m1, "status")["peers"][0]["link"]["state"] == "up"
                and [(call["owner"], call["state"]) for call in copies(self.m1)] == [("s1", "up")]
            ),
            "m1 is back and knows of the call",
        )
        self.is_heard("the parties still hear each other")


@contextlib.contextmanager
def talking(**options: str) -> Iterator[Talk]:
    with two_nodes(**options) as lab:
        m1, s1 = lab.node("m1"), lab.node("s1")
        phones = Phones(s1, m1.address)
        try:
            with console_at(m1, phones.uri):
                phones.dial()
                wait_until(lab, phones.hear_each_other, "the parties hear each other through m1")
                wait_until(lab, lambda: copies(m1)[0]["protected_by"] == ["s1"], "it is protected")
                # What refused from the start is no sign that a server has died.
                wait_until(
                    lab,
                    lambda: (
                        ask(s1, "status")["peers"][0]["probes"]["conference"]["outcome"]
                        == "answered"
                    ),
                    "s1 has seen m1's Conference Server",
                )
                (known,) = copies(s1)
                yield Talk(lab, m1, s1, phones, known)
        finally:
            phones.close()


def test_A1_A2_C2_a_node_dies_and_its_slave_takes_the_live_call_over() -> None:
    with talking() as talk:
        s1 = talk.s1
        talk.m1.kill()
        wait_until(talk.lab, lambda: state(s1) == "active", "s1 is active")
        talk.goes_on_at_s1()
        shown = ask_takeovers(s1)
        assert [(row["from"], row["by"], row["up"], row["calls"]) for row in shown] == [
            ("m1", "s1", 1, 1)
        ]
        assert "1/1" in ha(s1, "calls", "--takeovers").stdout
        told = [item["reason"]["code"] for item in history(s1, "takeover")]
        assert {"takes_calls", "calls_taken"} <= set(told)
        talk.lab.boot("m1")
        talk.stays_at_s1()


def test_A1_a_node_that_stood_still_while_its_calls_were_taken_wakes_and_ends_nothing() -> None:
    with talking(takeover_on_silence="take") as talk:
        talk.m1.freeze()
        try:
            talk.goes_on_at_s1()
            assert [row["ground"] for row in ask_takeovers(talk.s1)] == ["chosen"]
        finally:
            talk.m1.thaw()
        talk.stays_at_s1()
        told = [item["reason"]["code"] for item in history(talk.m1, "takeover")]
        assert told == ["call_moved"]
        wait_until(
            talk.lab,
            lambda: conference(talk.m1, "status")["calls"] == 0,
            "m1 has dropped what it had of the call",
        )
        talk.is_heard("the parties hear each other after that, too")
        assert [(call["owner"], call["generation"]) for call in copies(talk.s1)] == [("s1", 2)]


def test_A1_G4_a_node_that_is_told_to_be_passive_hands_its_live_calls_over_first() -> None:
    with talking() as talk:
        m1 = talk.m1
        assert ha(m1, "force_passive").returncode == 0
        talk.goes_on_at_s1()
        wait_until(talk.lab, lambda: not service(m1, "conference")["running"], "m1 has ended")
        talk.is_heard("the parties still hear each other")
        assert [row["ground"] for row in ask_takeovers(talk.s1)] == ["released"]
        told = [item["reason"]["code"] for item in history(m1, "takeover")]
        assert told == ["calls_given", "call_moved", "calls_handed_over"]
        assert history(m1, "takeover")[-1]["reason"]["params"] == {"moved": 1, "calls": 1}


def test_A1_F3_what_a_node_cannot_take_up_again_itself_is_taken_by_its_slave() -> None:
    with talking() as talk:
        m1 = talk.m1
        m1.define_service(ServiceDefinition(name="conference", argv=("false",)))
        m1.exec(["kill", "-9", str(service(m1, "conference")["pid"])], check=True)
        talk.goes_on_at_s1()
        assert [row["ground"] for row in ask_takeovers(talk.s1)] == ["released"]
        told = [item["reason"]["code"] for item in history(m1, "takeover")]
        assert told == ["lost_calls_given", "call_moved"]
        talk.stays_at_s1()


def ask_takeovers(node: LabNode) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ha(node, "calls", "--takeovers", "--json").stdout)[
        "takeovers"
    ]
    return found
