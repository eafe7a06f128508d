"""Live calls on two real nodes: from Asterisk over the controller and `ha` to the peer."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from controlone_ha.jsonrpc import call, encode_request
from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.figure import figure_one
from controlone_ha.lab.node import LabNode
from controlone_ha.lab.node_services import DEFAULT_SERVICES
from tests.cluster.support import FAST, PairedLab, ask, ha, wait_until

Json = dict[str, Any]


def _is_joined(m1: LabNode, s1: LabNode) -> bool:
    found = {
        "m1 follows": ask(m1, "live_calls")["followed"],
        "engine of m1": conference(m1, "status")["engine"],
        "link at s1": ask(s1, "status")["peers"][0]["link"]["state"],
    }
    if list(found.values()) != [True, "up", "up"]:
        raise ValueError(str(found))
    return True


@contextlib.contextmanager
def two_nodes(**options: str) -> Iterator[Lab]:
    """m1, active, with its controller, and its slave s1; ``options`` of ``ha.default``."""
    nodes = figure_one(
        ha={**FAST, "peers": "m1,s1", **options}, services=(*DEFAULT_SERVICES, "controller")
    )
    chosen = []
    for node in nodes:
        if node.name in ("m1", "s1"):
            other = "s1" if node.name == "m1" else "m1"
            (main, *peers) = node.packages["ha"]
            main.options["peers"] = other  # type: ignore[index]
            kept = (main, *(item for item in peers if item.name == other))
            chosen.append(_with(node, {**node.packages, "ha": kept}))
    with PairedLab(chosen) as lab:
        m1, s1 = lab.node("m1"), lab.node("s1")
        wait_until(
            lab, partial(_is_joined, m1, s1), "both nodes are joined and m1 leads its engine"
        )
        yield lab


def _with(node: Any, packages: Any) -> Any:
    from dataclasses import replace

    return replace(node, packages=packages)


def conference(node: LabNode, method: str, **params: Any) -> Any:
    """Ask the controller of a node."""
    return call(node.path("/var/run/controlone/conference.sock"), method, params)


@contextlib.contextmanager
def console_at(node: LabNode, uri: str) -> Iterator[None]:
    """A console of queue 100 is connected at ``node`` for as long as this lasts."""
    import socket

    consoles = [{"name": "desk", "queues": ["100"], "sip": uri}]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.connect(str(node.path("/var/run/controlone/conference.sock")))
        stream.sendall(encode_request("consoles", {"consoles": consoles}, 1))
        stream.recv(1000)
        yield


def sipp(node: LabNode, words: Sequence[str]) -> subprocess.Popen[Any]:
    """Run SIPp in a node's namespace."""
    return node.spawn(
        ["sipp", *words, "-i", node.address, "-ci", "127.0.0.1", "-nostdin"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_A2_a_live_call_is_known_to_the_peer_and_shown_there(sipp_path: Path) -> None:
    with two_nodes() as lab:
        m1, s1 = lab.node("m1"), lab.node("s1")
        desk = sipp(s1, ["-sn", "uas", "-p", "5090"])
        try:
            with console_at(m1, f"sip:desk@{s1.address}:5090"):
                time.sleep(0.3)
                caller = sipp(
                    s1,
                    [f"{m1.address}:5060", "-sn", "uac", "-s", "100", "-m", "1", "-p", "5091",
                     "-d", "12000"],
                )  # fmt: skip
                wait_until(
                    lab,
                    lambda: bool(copies(s1)) and copies(s1)[0]["state"] == "up",
                    "s1 has the call",
                )
                (copy,) = copies(s1)
                assert copy["owner"] == "m1"
                assert [leg["state"] for leg in copy["legs"]] == ["confirmed", "confirmed"]
                known = [(leg["call_id"], leg["remote_tag"]) for leg in copy["legs"]]
                assert all(map(all, known)), known
                wait_until(
                    lab, lambda: copies(m1)[0]["protected_by"] == ["s1"], "the call is protected"
                )
                assert ask(m1, "status")["node"] == "m1"
                shown = ha(s1, "calls")
                assert copy["id"] in shown.stdout
                assert "m1" in shown.stdout
                print(ha(m1, "calls").stdout, conference(m1, "status"))
                m1.kill_service("ha")
                wait_until(
                    lab,
                    lambda: [item["id"] for item in copies(m1)] == [copy["id"]],
                    "the new ha of m1 follows the controller",
                )
                s1.kill_service("ha")
                wait_until(
                    lab,
                    lambda: [item["id"] for item in copies(s1)] == [copy["id"]],
                    "the new ha of s1 has its copies",
                )
                assert caller.wait(30) == 0, "no restart of `ha` harms a call"
                wait_until(
                    lab, lambda: copies(m1) == copies(s1) == [], "the call is over everywhere"
                )
        finally:
            desk.kill()
            desk.wait()


def copies(node: LabNode) -> list[Json]:
    """Return the live calls a node knows; nothing while its `ha` is starting."""
    try:
        found: list[Json] = ask(node, "live_calls")["calls"]
    except OSError:
        return []
    return found
