"""``python -m tests.soak.rolling_upgrade [CALLS]``: every node is replaced under live calls.

Two real nodes, a gateway and a console's phone with CALLS (100) calls between them. Each node in
turn is told to be passive, gives its calls to the other one, and has `ha`, controller and Asterisk
started anew, as an upgrade does; then it serves again. A call is lost when one of its parties is
told so, or has no dialog any more. Exit code 1 when one is.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import time
from typing import Any

from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.node import LabNode
from tests.cluster.support import ha, service, state, wait_until
from tests.cluster.test_live_calls import console_at, copies, two_nodes
from tests.package.scratch import CHECKOUT

SERVICES = ("ha", "controller", "conference")
LIMIT = 120.0

# Both phones do as RFC 3891 says. Each line on standard input is an order or a question.
PARTIES = """
import asyncio, json, sys
from tests.phone import Phone

async def story(address, server, calls):
    loop = asyncio.get_running_loop()
    names = "trunk", "desk"
    gateway, desk = (Phone(name, address=address, knows_replaces=True) for name in names)
    for phone in gateway, desk:
        await phone.start()
    print(json.dumps(desk.uri), flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        if line == "dial\\n":
            for _ in range(int(calls)):
                gateway.dial("100", 5060, host=server)
                await asyncio.sleep(0.05)
        phones = (gateway, desk)
        print(json.dumps([sum(item.state == "up" for item in x.calls) for x in phones]), flush=True)

asyncio.run(story(*sys.argv[1:]))
"""


class Parties:
    """The two phones, in the namespace of a node that both servers can reach."""

    def __init__(self, node: LabNode, server: str, calls: int) -> None:
        self._process = node.spawn(
            [sys.executable, "-P", "-c", PARTIES, node.address, server, str(calls)],
            env={"PYTHONPATH": str(CHECKOUT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.uri = str(self._read())

    def _read(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def dial(self) -> None:
        """Make the calls."""
        self._order("dial")

    def up(self) -> list[int]:
        """Return how many dialogs the gateway and the console's phone have."""
        return self._order("count")

    def _order(self, word: str) -> list[int]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        found: list[int] = self._read()
        return found

    def close(self) -> None:
        """End both."""
        self._process.kill()
        self._process.wait()


def can_take_calls(node: LabNode) -> bool:
    """Tell whether a node serves or would."""
    return state(node) in ("active", "standby")


def upgrade(lab: Lab, node: LabNode, other: LabNode, calls: int) -> float:
    """Replace what runs on a node; return the seconds in which its calls moved."""
    began = time.monotonic()
    done = ha(node, "force_passive")
    if done.returncode:
        raise AssertionError(done.stderr)
    wait_until(
        lab,
        lambda: sum(call["owner"] == other.name for call in copies(other)) == calls,
        f"{other.name} owns the calls of {node.name}",
        limit=LIMIT,
    )
    moved = time.monotonic() - began
    wait_until(lab, lambda: not service(node, "conference")["running"], f"{node.name} has ended")
    for name in SERVICES:
        if node.service_status(name)["running"]:
            node.restart_service(name)
    wait_until(lab, lambda: state(node) == "passive", f"{node.name} is back, and still passive")
    wait_until(lab, lambda: not ha(node, "resume").returncode, f"{node.name} resumes")
    return moved


def main(calls: int) -> int:
    """Upgrade both nodes; print what became of the calls."""
    with two_nodes() as lab:
        m1, s1 = lab.node("m1"), lab.node("s1")
        parties = Parties(s1, m1.address, calls)
        try:
            with console_at(m1, parties.uri):
                parties.dial()
                wait_until(
                    lab, lambda: parties.up() == [calls, calls], "all calls are up", limit=LIMIT
                )
                wait_until(lab, lambda: len(copies(s1)) == calls, "s1 protects them", limit=LIMIT)
                lost = 0
                for node, other in ((m1, s1), (s1, m1)):
                    can_take = functools.partial(can_take_calls, other)
                    wait_until(lab, can_take, f"{other.name} can take calls")
                    moved = upgrade(lab, node, other, calls)
                    time.sleep(3.0)
                    up = parties.up()
                    lost = max(lost, calls - min(up))
                    print(
                        f"{node.name}: {calls} calls moved in {moved:.2f} s; up: {up}", flush=True
                    )
        finally:
            parties.close()
    print(f"{lost} of {calls} calls lost", flush=True)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100))
