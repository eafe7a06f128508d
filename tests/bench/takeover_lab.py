"""Labs for the takeover figures: some nodes of figure 1, and phones that every site reaches."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from controlone_ha.errors import LabError
from controlone_ha.jsonrpc import call, encode_request
from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.figure import figure_one
from controlone_ha.lab.node import LabNode
from controlone_ha.lab.node_services import DEFAULT_SERVICES
from controlone_ha.lab.topology import NodeSpec
from tests.cluster.support import PairedLab, ask, wait_until
from tests.package.scratch import CHECKOUT

CALLS = 10
HOSTS = {"m1": 11, "s1": 12, "p1": 13, "m2": 21, "s2": 22}
PHONES = NodeSpec(name="phones", site=3, host=50)
"""A place with a network and nothing else, that every site reaches."""


@contextlib.contextmanager
def lab_of(sites: Mapping[str, int], ha: Mapping[str, str]) -> Iterator[Lab]:
    """The nodes named, each at a site, every one monitoring all, and ``PHONES``; m1 serves."""
    chosen = [PHONES]
    for node in figure_one(ha=ha, services=(*DEFAULT_SERVICES, "controller")):
        if node.name not in sites:
            continue
        main, *peers = node.packages["ha"]
        others = [name for name in sites if name != node.name]
        options = {**main.options, "peers": others, "site": f"site{sites[node.name]}"}
        kept = [
            replace(item, options={"address": f"10.71.{sites[item.name]}.{HOSTS[item.name]}"})
            for item in peers
            if item.name in others
        ]
        chosen.append(
            replace(
                node,
                site=sites[node.name],
                host=HOSTS[node.name],
                packages={**node.packages, "ha": (replace(main, options=options), *kept)},
                services=DEFAULT_SERVICES if node.name == "p1" else node.services,
            )
        )
    with PairedLab(chosen) as lab:

        def is_joined() -> bool:
            path = lab.node("m1").path("/var/run/controlone/conference.sock")
            links = [
                peer["link"]["state"] == "up"
                for name in sites
                for peer in ask(lab.node(name), "status")["peers"]
            ]
            is_led = call(path, "status", {})["engine"] == "up"
            return bool(ask(lab.node("m1"), "live_calls")["followed"]) and is_led and all(links)

        wait_until(lab, is_joined, "the nodes are joined and m1 leads its engine")
        time.sleep(2.0)  # so that every probe has been answered once
        yield lab


@contextlib.contextmanager
def talking(lab: Lab) -> Iterator[Parties]:
    """Calls at m1, known to s1; the phones are at ``PHONES``."""
    m1, s1 = lab.node("m1"), lab.node("s1")
    with Parties(lab.node(PHONES.name), m1.address) as parties, consoles_at(m1, parties.uris):
        parties.tell("dial")
        if parties.read(20.0) != "up":
            raise LabError("the calls did not come up")
        wait_until(lab, lambda: len(owners(s1)) == CALLS, "s1 has every call")
        yield parties


def owners(node: LabNode) -> list[str]:
    """The owners of the calls that are up, as a node knows."""
    known = ask(node, "live_calls")["calls"]
    return [item["owner"] for item in known if item["state"] == "up"]


@contextlib.contextmanager
def consoles_at(node: LabNode, uris: list[str]) -> Iterator[None]:
    """Consoles, each of a queue of its own, are connected at ``node`` for as long as this lasts."""
    consoles = [
        {"name": f"desk{number}", "queues": [str(101 + number)], "sip": uri}
        for number, uri in enumerate(uris)
    ]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.connect(str(node.path("/var/run/controlone/conference.sock")))
        stream.sendall(encode_request("consoles", {"consoles": consoles}, 1))
        stream.recv(1000)
        yield


class Parties:
    """The phones (``parties``) in a node's network."""

    def __init__(self, node: LabNode, server: str) -> None:
        self._process = node.spawn(
            [sys.executable, "-P", "-m", "tests.bench.parties", node.address, server, str(CALLS)],
            env={"PYTHONPATH": str(CHECKOUT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.uris: list[str] = []

    def __enter__(self) -> Parties:
        self.uris = self.read(10.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def tell(self, text: str) -> None:
        """Give an order."""
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode() + b"\n")
        self._process.stdin.flush()

    def gaps(self, since: float) -> list[dict[str, Any]]:
        """What each phone has missed since then (``time.monotonic()``)."""
        self.tell(f"gaps {since}")
        found: list[dict[str, Any]] = self.read(5.0)
        return found

    def read(self, timeout: float) -> Any:
        """Return its next word; raise ``LabError`` when none comes."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            raise LabError("the parties say nothing")
        return json.loads(line)
