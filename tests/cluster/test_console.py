"""The shipped failover client in the lab: a console device beside a real cluster.

The console runs on the passive node, which has no Console Server of its own, with the list m1, s1,
m2: its second server is a standby.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.node import LabNode
from controlone_ha.lab.service_state import ServiceDefinition
from tests.cluster.support import (
    Json,
    evidence_text,
    history,
    ping,
    status,
    wait_for_state,
    wait_until,
)

LIST = ("m1", "s1", "m2")


@pytest.fixture
def device(lab: Lab) -> Iterator[LabNode]:
    """The node on which the console runs; connected to m1."""
    node = lab.node("p1")
    addresses = ",".join(lab.node(name).address for name in LIST)
    options = {
        "server": addresses,
        "name": "desk-4",
        "timeout": "5",
        "check_interval": "2",
        "return_delay": "1",
        "standby_wait": "10",
    }
    lines = [f"\toption {name} '{value}'\n" for name, value in options.items()]
    node.path("/etc/config/console").write_text("config console 'default'\n" + "".join(lines))
    argv = (sys.executable, "-P", "-m", "controlone_ha.console", "run")
    node.define_service(ServiceDefinition(name="console", argv=argv, reload_signal="SIGHUP"))
    wait_until(lab, lambda: console(node)["node"] == "m1", "the console is on m1")
    yield node
    node.stop_service("console")
    node.path("/etc/config/console").unlink()


def console(node: LabNode) -> Json:
    """Return the console's status."""
    said: Json = json.loads(node.exec(["console", "status", "--json"]).stdout)
    return said


def test_K1_K2_K4_a_master_dies_and_the_console_is_on_its_slave_then_comes_back(
    lab: Lab, device: LabNode
) -> None:
    lab.node("m1").kill()
    wait_until(lab, lambda: console(device)["node"] == "s1", "the console is on s1")
    said = console(device)
    assert said["state"] == "connected"
    assert said["reason"]["params"]["server"] == "m1"
    assert "not_first" in {item["code"] for item in said["abnormal"]}
    shown = device.exec(["console", "status", "--lang", "pt_BR"]).stdout
    assert "conectado em s1" in shown and "ATENÇÃO" in shown
    wait_for_state(lab, "s1", "active")

    lab.boot("m1")
    wait_until(lab, lambda: console(device)["node"] == "m1", "the console is back on m1")
    assert console(device)["reason"]["code"] == "returned"
    wait_until(lab, lambda: ping(lab, "s1")["consoles"] == 0, "s1 has no console")
    assert ping(lab, "m1")["consoles"] == 1


def test_F3_what_a_console_has_lost_is_evidence_for_the_node_it_comes_to(
    lab: Lab, device: LabNode
) -> None:
    node = lab.node("s1")
    lab.node("m1").kill()
    wait_until(lab, lambda: console(device)["node"] == "s1", "the console is on s1")
    wait_until(lab, lambda: "desk-4 has lost m1" in node.read_log("ha"), "s1 was told")
    assert status(node)["state"] == "active"
    told = [evidence_text(item["reason"]) for item in history(node, "state")]
    assert any("m1" in text for text in told)


def test_K4_a_pulled_cable_is_noticed_at_once_and_a_short_cut_costs_no_connection(
    lab: Lab, device: LabNode
) -> None:
    before = console(device)
    device.cut()
    wait_until(lab, lambda: not console(device)["network"], "the cable is missed", limit=2.0)
    said = console(device)
    assert said["abnormal"][0]["code"] == "no_network"
    assert said["node"] == "m1", "there is nowhere else to go: the connection may survive"
    device.heal()
    wait_until(lab, lambda: console(device)["network"], "the cable is back")
    wait_until(lab, lambda: ping(lab, "m1")["consoles"] == 1, "m1 has the console")
    after = console(device)
    assert (after["node"], after["since"]) == ("m1", pytest.approx(before["since"], abs=0.5))
