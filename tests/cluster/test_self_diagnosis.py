"""A node that is not well hands its consoles over, says why, and comes back when it is well again.

Each fault is made on m1; s1 covers it. A fault ends when its block ends.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest

from controlone_ha.jsonrpc import NOT_SERVING
from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.node import LabNode
from tests.cluster.support import (
    FAST,
    Console,
    Json,
    accepts_login,
    answers_sip,
    full_disk,
    ha,
    history,
    ping,
    processes,
    program,
    refusal_of_login,
    set_option,
    status,
    transitions,
    wait_for_state,
    wait_until,
    wait_until_serving,
)

STABLE = float(FAST["stable"])
DELAY = float(FAST["failback_delay"])
ROUNDING = 0.1
BUSY = "while True: pass"


@contextlib.contextmanager
def dead_for_good(node: LabNode, name: str) -> Iterator[None]:
    """Kill a service; nobody can start it until the end of the block."""
    node.hold(name)
    try:
        yield
    finally:
        node.release(name, start=False)


@contextlib.contextmanager
def busy_processor(node: LabNode) -> Iterator[None]:
    """Keep all processors of the node busy, and more than busy on a machine that others use."""
    with contextlib.ExitStack() as stack:
        for _ in range(6 * (os.cpu_count() or 1)):
            stack.enter_context(program(node, [sys.executable, "-c", BUSY]))
        yield


@contextlib.contextmanager
def unmonitored(node: LabNode, name: str) -> Iterator[None]:
    """Let ``node`` not cover a peer until the end of the block: its own list, UCI ``monitor``."""
    try:
        set_option(node, f"ha.{name}.monitor", "0")
        yield
    finally:
        set_option(node, f"ha.{name}.monitor", "1")


def trouble(node: LabNode, fault: str) -> AbstractContextManager[None]:
    """Return the fault as a block."""
    return {
        "asterisk": lambda: dead_for_good(node, "conference"),
        "server": lambda: dead_for_good(node, "server"),
        "disk": lambda: full_disk(node),
        "processor": lambda: busy_processor(node),
    }[fault]()


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("asterisk", "conference_down", "Conference Server does not run"),
        ("disk", "host_disk", "/var/lib/controlone"),
        ("processor", "host_cpu", "processor"),
    ],
)
def test_F1_F2_F4_a_node_that_is_abnormal_for_long_refuses_consoles_and_its_slave_serves(
    lab: Lab, fault: str, code: str, words: str
) -> None:
    began = time.time()
    master = lab.node("m1")
    with Console(lab, "m1") as console, trouble(master, fault):
        console.login()
        said = wait_for_state(lab, "m1", "disabled")
        assert said["reason"]["code"] == "abnormal_yielded"
        # m2 serves already and covers m1, too; it may be the one that answered first.
        assert set(said["reason"]["params"]["node"].split(", ")) <= {"m2", "s1"}
        assert words in said["reason"]["text"]
        assert said["abnormalities"][0]["code"] == code
        assert said["reason"]["evidence"]
        # The console is sent away with the reason, and so is whoever comes now.
        goodbye = console.wait_for("goodbye")
        assert goodbye["reason"]["code"] == "abnormal_yielded"
        assert words in goodbye["reason"]["text"]
        refusal = wait_until(lab, lambda: refusal_of_login(lab, "m1"), "m1 refuses consoles")
        assert refusal["number"] == NOT_SERVING
        assert refusal["code"] == "abnormal_yielded"
        assert words in refusal["text"]
        assert "s1" in {server["name"] for server in refusal["servers"]}

        slave = wait_for_state(lab, "s1", "active")
        assert slave["reason"]["code"] == "peer_yielded"
        assert slave["reason"]["params"]["peer"] == "m1"
        assert words in slave["reason"]["text"]
        wait_until_serving(lab, "s1")
        assert status(lab.node("s2"))["state"] == "standby"
        # A person reads the same on both nodes, now and in the history.
        for name in ("m1", "s1"):
            assert words in _one_line(ha(lab.node(name), "status").stdout)
            assert words in _one_line(ha(lab.node(name), "history").stdout)
    _assert_comes_back(lab, began)


def test_F1_F2_F4_a_console_server_dead_for_good_is_replaced_and_comes_back(lab: Lab) -> None:
    began = time.time()
    master = lab.node("m1")
    with dead_for_good(master, "server"):
        said = wait_for_state(lab, "m1", "disabled")
        assert said["abnormalities"][0]["code"] == "console_down"
        assert "Console Server does not run" in said["reason"]["text"]
        with pytest.raises(ConnectionRefusedError):
            ping(lab, "m1")
        slave = wait_for_state(lab, "s1", "active")
        assert "Console Server does not run" in slave["reason"]["text"]
        wait_until_serving(lab, "s1")
        assert processes(master).keys() == {"sshd", "conference"}, "calls go on"
        assert answers_sip(lab, "m1")
    _assert_comes_back(lab, began)


def test_F1_F2_F4_a_killed_console_server_that_is_respawned_waits_until_it_is_stable(
    lab: Lab,
) -> None:
    began = time.time()
    master = lab.node("m1")
    before = processes(master)
    master.kill_service("server")
    wait_for_state(lab, "s1", "active")
    refusal = wait_until(
        lab, lambda: refusal_of_login(lab, "m1"), "the new server refuses consoles"
    )
    assert refusal["number"] == NOT_SERVING
    assert refusal["code"] in ("abnormal_yielded", "stabilising")
    _assert_comes_back(lab, began)
    after = processes(master)
    assert after["server"] != before["server"]
    assert after["conference"] == before["conference"], "the Conference Server was not touched"
    assert "SIGKILL" in history(master, "service", since=began)[0]["detail"]


@pytest.mark.parametrize(
    ("service", "code", "words"),
    [
        ("server", "console_mute", "Console Server does not answer"),
        ("conference", "conference_mute", "Conference Server does not answer SIP"),
    ],
)
def test_F1_F2_F4_a_stopped_service_is_replaced_by_the_slave_and_killed_and_started_anew(
    lab: Lab, service: str, code: str, words: str
) -> None:
    began = time.time()
    master = lab.node("m1")
    before = processes(master)
    master.freeze(service)
    slave = wait_for_state(lab, "s1", "active")
    assert slave["reason"]["code"] == "peer_yielded"
    assert words in slave["reason"]["text"]
    refusal = wait_until(lab, lambda: refusal_of_login(lab, "m1"), "m1 refuses consoles")
    assert refusal["number"] == NOT_SERVING
    assert refusal["code"] in ("abnormal_yielded", "stabilising")
    told = [entry["reason"] for entry in history(master, "state", since=began)]
    assert words in next(item["text"] for item in told if item["code"] == "abnormal_yielded")
    wait_until_serving(lab, "s1")
    wait_until(
        lab,
        lambda: processes(master).get(service, before[service]) != before[service],
        f"the stopped {service} has been killed and started anew",
    )
    _assert_comes_back(lab, began)
    other = {"server": "conference", "conference": "server"}[service]
    assert processes(master)[other] == before[other], "the other service was not touched"
    told = history(master, "service", since=began)
    assert [(entry["service"], entry["detail"]) for entry in told] == [
        (service, "does not answer: killed and started anew")
    ]


def test_F2_a_second_sick_node_serves_on_as_degraded_until_the_first_one_is_back(lab: Lab) -> None:
    began = time.time()
    with trouble(lab.node("m2"), "disk"):
        wait_for_state(lab, "m2", "disabled")
        wait_for_state(lab, "s2", "active")
        with trouble(lab.node("m1"), "asterisk"):
            said = wait_until(
                lab, lambda: _with_reason(lab.node("m1"), "abnormal_second"), "m1 serves on"
            )
            assert said["state"] == "degraded"
            assert said["reason"]["params"]["other"] == "m2"
            assert "Conference Server does not run" in said["reason"]["text"]
            text = _one_line(ha(lab.node("m1"), "status").stdout)
            assert "m2 is out of service already" in text
            assert accepts_login(lab, "m1")
            assert transitions(lab.node("s1"), since=began) == []
    wait_for_state(lab, "m2", "active")


def test_F2_a_sick_node_that_nobody_can_cover_serves_on_and_yields_as_soon_as_somebody_can(
    lab: Lab,
) -> None:
    began = time.time()
    lab.node("s1").kill()
    with (
        unmonitored(lab.node("m2"), "m1"),
        unmonitored(lab.node("s2"), "s1"),  # nor shall it follow s1 in what s1 was active for
        trouble(lab.node("m1"), "disk"),
    ):
        said = wait_until(
            lab, lambda: _with_reason(lab.node("m1"), "abnormal_asking"), "m1 serves on"
        )
        assert said["state"] == "degraded"
        assert "/var/lib/controlone" in said["reason"]["text"]
        assert "no reachable peer covers this node" in said["reason"]["text"]
        assert accepts_login(lab, "m1") and answers_sip(lab, "m1")
        assert "disabled" not in {
            to for _from, to, _code in transitions(lab.node("m1"), since=began)
        }
        lab.boot("s1")
        wait_for_state(lab, "m1", "disabled")
        wait_until_serving(lab, "s1")
        # The one that covers it dies: better a sick server than none.
        lab.node("s1").kill()
        wait_for_state(lab, "m1", "degraded")
        assert transitions(lab.node("m1"), since=began)[-1] == (
            "disabled",
            "degraded",
            "cover_lost",
        )
        wait_until(lab, lambda: accepts_login(lab, "m1"), "m1 accepts consoles again")
    assert wait_for_state(lab, "m1", "active")["abnormalities"] == []


def _assert_comes_back(lab: Lab, began: float) -> None:
    """m1 serves again after a stable time, then s1 stands by after its delay; nobody hurries."""
    wait_until_serving(lab, "m1")
    assert status(lab.node("m1"))["state"] == "active"
    wait_for_state(lab, "s1", "standby")
    master = history(lab.node("m1"), "state", since=began)
    stabilising = [entry for entry in master if entry["reason"]["code"] == "stabilising"]
    recovered = [entry for entry in master if entry["to"] == "active"]
    assert [entry["reason"]["code"] for entry in recovered] == ["recovered"]
    assert recovered[0]["time"] - stabilising[-1]["time"] >= STABLE - ROUNDING
    entries = history(lab.node("s1"), since=began)
    slave = {entry["reason"]["code"]: entry for entry in entries if "reason" in entry}
    waited = slave["failed_back"]["time"] - slave["failback_wait"]["time"]
    assert waited >= DELAY - ROUNDING
    assert slave["failback_wait"]["time"] >= recovered[0]["time"] - ROUNDING


def _with_reason(node: LabNode, code: str) -> Json | None:
    said = status(node)
    return said if said["reason"]["code"] == code else None


def _one_line(text: str) -> str:
    """Return a table without its line breaks."""
    return " ".join(text.split())
