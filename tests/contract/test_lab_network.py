"""The network of a lab, on real namespaces: who reaches whom, and what a fault looks like."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controlone_ha.errors import LabError
from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.figure import make_lab
from controlone_ha.lab.node import LabNode
from controlone_ha.lab.topology import NodeSpec

pytestmark = pytest.mark.contract

NODES = [
    NodeSpec(name="a", site=1, host=11),
    NodeSpec(name="b", site=1, host=12, ssh="dropbear"),
    NodeSpec(name="c", site=2, host=11),
]

CONNECT = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], 22), timeout=float(sys.argv[2])) as stream:
        print("connected", stream.recv(64).split(b"\\r")[0].decode())
except TimeoutError:
    print("silence")
except OSError as error:
    print(type(error).__name__, error.errno)
"""

# Sends one byte every 0.1 s to a listener that only counts, over UDP, and prints how many arrived.
COUNT = """
import select, socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.bind(("0.0.0.0", 5000)); n = 0
    print("ready", flush=True)
    sys.stdin.readline()
    while n < 3 and select.select([s], [], [], 0.5)[0]:
        s.recvfrom(64); n += 1
    print(n)
"""
SEND = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    for _ in range(3):
        s.sendto(b"x", (sys.argv[1], 5000))
"""


@pytest.fixture(scope="module")
def lab(root: None, sshd_path: Path, dropbear_path: Path) -> Iterator[Lab]:
    with make_lab(NODES) as lab:
        for node in lab.nodes.values():
            node.wait_until_listening(22)
        yield lab


@pytest.fixture(autouse=True)
def whole_network(lab: Lab) -> Iterator[None]:
    yield
    lab.heal()
    for node in lab.nodes.values():
        node.heal()
        node.impair()


def connect(source: LabNode, target: LabNode, timeout: float = 1.0) -> str:
    """Connect to TCP/22 from node to node; return what the connecting program saw."""
    done = source.exec([sys.executable, "-c", CONNECT, target.address, str(timeout)], check=True)
    return done.stdout.strip()


def wait_until_connected(source: LabNode, target: LabNode) -> str:
    limit = time.monotonic() + 10
    while not (seen := connect(source, target)).startswith("connected"):
        assert time.monotonic() < limit, f"{source.name} to {target.name}: {seen}"
    return seen


def udp_arrivals(source: LabNode, target: LabNode) -> int:
    """Send three datagrams from node to node; return how many arrive."""
    counter: subprocess.Popen[Any] = target.spawn(
        [sys.executable, "-c", COUNT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert counter.stdin is not None and counter.stdout is not None
    with counter:
        assert counter.stdout.readline() == "ready\n"
        source.exec([sys.executable, "-c", SEND, target.address], check=True)
        counter.stdin.write("sent\n")
        counter.stdin.flush()
        return int(counter.stdout.readline())


def test_C4_C5_every_node_reaches_port_22_of_every_other_across_subnets(lab):
    for source in lab.nodes.values():
        for target in lab.nodes.values():
            banner = "dropbear" if target.name == "b" else "OpenSSH"
            assert banner in connect(source, target), f"{source.name} to {target.name}"


def test_C5_a_port_where_nobody_listens_refuses_at_once(lab):
    lab.node("a").stop_service("sshd")
    limit = time.monotonic() + 10
    while lab.node("a").listens(22):
        assert time.monotonic() < limit
    assert connect(lab.node("c"), lab.node("a")) == "ConnectionRefusedError 111"
    lab.node("a").start_service("sshd")
    lab.node("a").wait_until_listening(22)


@pytest.mark.parametrize("other", ["b", "c"])
def test_C4_a_cut_node_is_silent_to_others_and_back_after_healing(lab, other):
    wait_until_connected(lab.node(other), lab.node("a"))
    lab.node("a").cut()
    assert lab.node("a").is_cut
    assert connect(lab.node(other), lab.node("a")) == "silence"
    assert connect(lab.node("a"), lab.node(other)) == "silence"
    lab.node("a").heal()
    assert not lab.node("a").is_cut
    wait_until_connected(lab.node(other), lab.node("a"))
    wait_until_connected(lab.node("a"), lab.node(other))


def test_C4_an_open_connection_across_a_cut_is_neither_reset_nor_closed(lab):
    script = (
        "import socket, sys\n"
        "s = socket.create_connection((sys.argv[1], 22), timeout=5)\n"
        "s.recv(4096); print('open', flush=True)\n"
        "sys.stdin.readline(); s.settimeout(1.0)\n"
        "try:\n"
        "    s.sendall(b'SSH-2.0-test\\r\\n'); print('read', len(s.recv(4096)))\n"
        "except TimeoutError: print('silence')\n"
        "except OSError as error: print(type(error).__name__)\n"
    )
    process = lab.node("c").spawn(
        [sys.executable, "-c", script, lab.node("a").address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "open\n"
        lab.node("a").cut()
        output, _ = process.communicate("\n", timeout=10)
    assert output == "silence\n"


def test_a_cut_node_sees_its_carrier_go(lab):
    def carrier() -> str:
        return lab.node("a").exec(["cat", "/sys/class/net/eth0/carrier"], check=True).stdout.strip()

    assert carrier() == "1"
    lab.node("a").cut()
    assert carrier() == "0"


def test_C4_a_partition_is_silent_between_the_sites_and_leaves_each_site_whole(lab):
    lab.partition()
    assert connect(lab.node("a"), lab.node("c")) == "silence"
    assert connect(lab.node("c"), lab.node("b")) == "silence"
    assert connect(lab.node("a"), lab.node("b")).startswith("connected")
    lab.heal()
    wait_until_connected(lab.node("c"), lab.node("b"))


@pytest.mark.parametrize(("sender", "receiver"), [("a", "b"), ("a", "c"), ("c", "a")])
def test_a_one_way_cut_loses_one_direction_only(lab, sender, receiver):
    there, back = lab.node(sender), lab.node(receiver)
    assert udp_arrivals(there, back) == 3
    lab.cut_one_way(sender, receiver)
    assert udp_arrivals(there, back) == 0
    assert udp_arrivals(back, there) == 3
    assert connect(back, there) == "silence", "the answer is lost"
    lab.heal_one_way(sender, receiver)
    assert udp_arrivals(there, back) == 3


ECHO = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.bind(("0.0.0.0", 5001)); print("ready", flush=True)
    while True:
        s.sendto(*s.recvfrom(64))
"""
# Sends datagrams, 1 ms apart; prints how many came back and the median round trip in ms.
ASK = """
import select, socket, statistics, sys, time
address, number = (sys.argv[1], 5001), int(sys.argv[2])
sent, trips = {}, []
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    end = None
    while end is None or time.monotonic() < end:
        if len(sent) < number:
            sent[len(sent)] = time.monotonic()
            s.sendto(str(len(sent) - 1).encode(), address)
        elif end is None:
            end = time.monotonic() + 0.6
        while select.select([s], [], [], 0.001)[0]:
            trips.append((time.monotonic() - sent[int(s.recv(64))]) * 1000)
print(len(trips), statistics.median(trips))
"""


def ask_echo(source: LabNode, target: LabNode, number: int) -> tuple[int, float]:
    echo: subprocess.Popen[Any] = target.spawn(
        [sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True
    )
    assert echo.stdout is not None
    with echo:
        try:
            assert echo.stdout.readline() == "ready\n"
            ask = [sys.executable, "-c", ASK, target.address, str(number)]
            count, median = source.exec(ask, check=True).stdout.split()
        finally:
            os.killpg(echo.pid, signal.SIGKILL)
    return int(count), float(median)


def keep_gateway(node: LabNode) -> None:
    """Make the node's ARP entry of its gateway permanent, so that no lost ARP loses more."""
    script = "set -- $(ip neigh show 10.71.1.1); ip neigh replace $1 dev $3 lladdr $5 nud permanent"
    node.exec(["sh", "-c", script], check=True)


@pytest.mark.parametrize("other", ["b", "c"])
def test_a_bad_cable_is_late_each_way(lab, other):
    wait_until_connected(lab.node(other), lab.node("a"))
    count, good = ask_echo(lab.node(other), lab.node("a"), 50)
    assert count == 50
    lab.node("a").impair(delay_ms=40)
    count, late = ask_echo(lab.node(other), lab.node("a"), 50)
    assert count == 50
    assert good + 79 < late < good + 140
    lab.node("a").impair()
    count, healed = ask_echo(lab.node(other), lab.node("a"), 50)
    assert count == 50
    assert healed < 40


def test_a_bad_cable_loses_frames_each_way(lab):
    wait_until_connected(lab.node("c"), lab.node("a"))
    keep_gateway(lab.node("a"))
    lab.node("a").impair(loss_percent=30)
    count, _ = ask_echo(lab.node("c"), lab.node("a"), 400)
    lab.node("a").exec(["ip", "neigh", "del", "10.71.1.1", "dev", "eth0"], check=True)
    assert 130 < count < 262, "0.7 * 0.7 of 400 is 196, give or take 6 deviations"


def test_the_router_keeps_its_ethernet_address_when_a_port_changes(lab):
    def address() -> str:
        show = ["ip", "-o", "link", "show", "site1"]
        inside = f"--net={lab.network.namespace_path('router')}"
        done = subprocess.run(
            ["nsenter", inside, *show], capture_output=True, text=True, check=True
        )
        return done.stdout.split("link/ether ")[1].split()[0]

    before = address()
    lab.node("a").impair(delay_ms=1)
    assert address() == before
    lab.node("a").impair()
    assert address() == before


def test_what_a_bad_cable_delivers_is_intact(lab):
    receive = (
        "import hashlib, socket\n"
        "with socket.create_server(('0.0.0.0', 5002)) as server:\n"
        "    print('ready', flush=True)\n"
        "    stream, _ = server.accept()\n"
        "    stream.settimeout(20)\n"
        "    print(hashlib.file_digest(stream.makefile('rb'), 'sha256').hexdigest())\n"
    )
    send = (
        "import hashlib, os, socket, sys\n"
        "data = os.urandom(1 << 20)\n"
        "with socket.create_connection((sys.argv[1], 5002), timeout=20) as stream:\n"
        "    stream.sendall(data)\n"
        "print(hashlib.sha256(data).hexdigest())\n"
    )
    lab.node("a").impair(delay_ms=1, loss_percent=0.5)
    for source, target in (("a", "c"), ("c", "a")):
        receiver: subprocess.Popen[Any] = lab.node(target).spawn(
            [sys.executable, "-c", receive], stdout=subprocess.PIPE, text=True
        )
        assert receiver.stdout is not None
        with receiver:
            assert receiver.stdout.readline() == "ready\n"
            ask = [sys.executable, "-c", send, lab.node(target).address]
            sent = lab.node(source).exec(ask, check=True).stdout
            assert receiver.stdout.readline() == sent
    lab.node("a").impair()


def test_a_bad_cable_can_be_cut_and_healed(lab):
    lab.node("a").impair(delay_ms=1)
    wait_until_connected(lab.node("c"), lab.node("a"))
    lab.node("a").cut()
    assert connect(lab.node("c"), lab.node("a")) == "silence"
    lab.node("a").heal()
    wait_until_connected(lab.node("c"), lab.node("a"))
    lab.node("a").impair()


def test_every_fault_may_be_repeated_and_healed_twice(lab):
    for _ in range(2):
        lab.partition()
        lab.node("a").cut()
        lab.cut_one_way("a", "b")
        lab.cut_one_way("a", "c")
    for _ in range(2):
        lab.heal()
        lab.node("a").heal()
        lab.heal_one_way("a", "b")
        lab.heal_one_way("a", "c")
    wait_until_connected(lab.node("a"), lab.node("b"))
    wait_until_connected(lab.node("a"), lab.node("c"))


def test_faults_can_be_made_from_a_running_event_loop(lab):
    async def cut_and_heal() -> bool:
        lab.node("a").cut()
        was_cut = lab.node("a").is_cut
        lab.node("a").heal()
        return was_cut

    assert asyncio.run(cut_and_heal())


def test_two_labs_with_the_same_addresses_do_not_meet(lab):
    with make_lab(
        [NodeSpec(name="a", site=1, host=11), NodeSpec(name="x", site=1, host=99)]
    ) as other:
        assert other.id != lab.id
        other.node("a").wait_until_listening(22)
        assert connect(other.node("x"), other.node("a")).startswith("connected")
        assert not connect(lab.node("b"), other.node("x")).startswith("connected")
        other.node("a").cut()
        assert connect(lab.node("b"), lab.node("a")).startswith("connected")


def test_a_node_reaches_nothing_outside_the_lab(lab):
    route = lab.node("a").exec(["ip", "route", "get", "10.71.2.11"], check=True).stdout
    assert "via 10.71.1.1" in route
    outside = lab.network.namespace_path("router")
    routes = subprocess.run(
        ["nsenter", f"--net={outside}", "ip", "route"], capture_output=True, text=True, check=True
    ).stdout
    assert "default" not in routes


def test_an_unknown_node_is_an_error_that_names_those_there_are(lab):
    with pytest.raises(LabError, match="it has a, b, c"):
        lab.network.cut("z")


def test_the_network_of_a_lab_that_is_down_is_an_error():
    lab = make_lab(NODES, lab_id="neverup")
    with pytest.raises(LabError, match="the lab is not up"):
        lab.partition()
