"""What an operator orders (`ha force_active`, `ha force_passive`, `ha resume`), on every role, and
what a dead or restarted `ha` changes for the services it watches over: nothing.
"""

from __future__ import annotations

import json
import time
from functools import partial

import pytest

from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.node import LabNode
from tests.cluster.support import (
    Console,
    Json,
    accepts_login,
    answers_sip,
    full_disk,
    ha,
    history,
    peer,
    ping,
    processes,
    state,
    status,
    transitions,
    wait_for_state,
    wait_until,
    wait_until_serving,
)

SLOTS = 3.0
"""Seconds in which a standby node would have activated: several slots of rank."""


def test_G4_force_passive_on_a_master_stops_its_services_in_order_and_its_slave_takes_over(
    lab: Lab,
) -> None:
    master = lab.node("m1")
    with Console(lab, "m1") as console:
        console.login()
        done = ha(master, "force_passive")
        assert done.returncode == 0, done.stderr
        assert "passive" in done.stdout.lower()
        goodbye = console.wait_for("goodbye")
        assert goodbye["reason"]["code"] == "forced_passive"
        assert "ha resume" in goodbye["reason"]["text"]
        assert "s1" in {server["name"] for server in goodbye["servers"]}
        with pytest.raises(ConnectionResetError):
            console.wait_for("anything else")
    said = wait_for_state(lab, "s1", "active")
    assert said["reason"]["code"] == "peer_forced_passive"
    wait_until_serving(lab, "s1")
    wait_until(lab, lambda: _is_stopped(lab, master), "the services of m1 have ended")
    text = ha(master, "status").stdout
    assert "FORCED" in text.upper() and "ha resume" in text

    done = ha(master, "resume")
    assert done.returncode == 0, done.stderr
    wait_until_serving(lab, "m1")
    assert state(master) == "active"
    wait_for_state(lab, "s1", "standby")
    assert [entry["to"] for entry in history(master, "force")][-2:] == ["passive", ""]


def test_G4_a_forced_passive_master_stays_so_over_a_crash_of_ha_and_a_reboot(lab: Lab) -> None:
    master = lab.node("m1")
    assert ha(master, "force_passive").returncode == 0
    wait_for_state(lab, "s1", "active")
    wait_until(lab, lambda: _is_stopped(lab, master), "the services of m1 have ended")

    began = time.time()
    _restart_ha(lab, master)
    _assert_forced(master, "passive", "passive")
    master.kill()
    lab.boot("m1")
    said = wait_until(lab, lambda: status(master), "the `ha` of m1 answers again")
    assert said["forced"] == "passive"
    wait_for_state(lab, "m1", "passive")
    wait_until(lab, lambda: peer(lab.node("s1"), "m1")["verdict"] == "alive", "s1 hears m1 again")
    _assert_forced(master, "passive", "passive")
    assert "active" not in {after for _before, after, _code in transitions(master, since=began)}
    assert _is_stopped(lab, master)
    assert state(lab.node("s1")) == "active"


def test_G4_force_active_on_a_slave_holds_over_a_crash_of_ha_and_a_reboot_until_resume(
    lab: Lab,
) -> None:
    slave = lab.node("s1")
    done = ha(slave, "force_active")
    assert done.returncode == 0, done.stderr
    assert json.loads(ha(slave, "status", "--json").stdout)["forced"] == "active"
    wait_until_serving(lab, "s1")
    assert accepts_login(lab, "m1"), "both serve now"

    running = processes(slave)
    _restart_ha(lab, slave)
    _assert_forced(slave, "active", "active")
    assert processes(slave) == running, "`ha` was killed; the services went on"
    slave.kill()
    lab.boot("s1")
    wait_for_state(lab, "s1", "active")
    _assert_forced(slave, "active", "active")
    wait_until_serving(lab, "s1")

    done = ha(slave, "resume")
    assert done.returncode == 0, done.stderr
    assert wait_for_state(lab, "s1", "standby")["forced"] is None
    assert state(lab.node("m1")) == "active"


def test_G4_force_passive_on_a_slave_keeps_it_from_taking_over(lab: Lab) -> None:
    began = time.time()
    slave = lab.node("s1")
    assert ha(slave, "force_passive").returncode == 0
    wait_until(lab, lambda: _is_stopped(lab, slave), "the Console Server of s1 has ended")
    lab.node("m1").kill()

    def judged_long_ago() -> bool:
        seen = peer(slave, "m1")
        return seen["verdict"] == "failed" and time.time() - seen["verdict_since"] > SLOTS

    wait_until(lab, judged_long_ago, "s1 has known for some time that m1 failed")
    assert state(slave) == "passive"
    assert transitions(slave, since=began) == [("standby", "passive", "forced_passive")]
    # Released, it does what it was kept from.
    assert ha(slave, "resume").returncode == 0
    wait_for_state(lab, "s1", "active")
    wait_until_serving(lab, "s1")


def test_G4_force_active_on_a_master_keeps_it_serving_though_it_is_abnormal(lab: Lab) -> None:
    began = time.time()
    master = lab.node("m1")
    assert ha(master, "force_active").returncode == 0
    with full_disk(master):
        said = wait_for_state(lab, "m1", "degraded")
        assert said["reason"]["code"] == "abnormal_forced"
        assert "disk" in said["reason"]["text"]
        assert accepts_login(lab, "m1")
        assert answers_sip(lab, "m1")
    wait_for_state(lab, "m1", "active")
    assert transitions(lab.node("s1"), since=began) == []
    assert ha(master, "resume").returncode == 0
    assert status(master)["forced"] is None


def test_C1_G4_a_passive_node_refuses_to_be_forced_active_and_says_why(lab: Lab) -> None:
    node = lab.node("p1")
    done = ha(node, "force_active")
    assert done.returncode == 1
    assert "role passive" in done.stderr and "ha.default.role" in done.stderr
    said = status(node)
    assert (said["state"], said["forced"]) == ("passive", None)
    assert history(node, "force")[-1]["refused"]

    done = ha(node, "resume")
    assert done.returncode == 1
    assert "nothing to resume" in done.stderr

    assert ha(node, "force_passive").returncode == 0
    assert status(node)["forced"] == "passive"
    assert ha(node, "resume").returncode == 0
    assert (status(node)["state"], status(node)["forced"]) == ("passive", None)
    assert _is_stopped(lab, node)


def test_ha_dead_on_an_active_node_changes_nothing_for_its_services_and_its_consoles(
    lab: Lab,
) -> None:
    began = time.time()
    master = lab.node("m1")
    running = processes(master)
    before = status(master)
    assert set(running) == {"sshd", "server", "conference"}
    with Console(lab, "m1") as console:
        console.login()
        master.hold("ha")

        def only_ha_is_away() -> bool:
            seen = peer(lab.node("s1"), "m1")
            return seen["verdict"] == "no_daemon" and time.time() - seen["verdict_since"] > SLOTS

        wait_until(lab, only_ha_is_away, "s1 has known for some time that only `ha` is away")
        done = ha(master, "status")
        assert done.returncode == 3
        assert "not run" in done.stderr or "does not answer" in done.stderr
        assert "m1: role master, ACTIVE" in done.stdout
        last = json.loads(ha(master, "status", "--json").stdout)
        assert last["state"] == "active"
        assert last["daemon"]["running"] is False
        assert ha(master, "history").returncode == 3
        assert ha(master, "force_passive").returncode == 3

        assert console.ping()["serving"] is True
        assert accepts_login(lab, "m1") and answers_sip(lab, "m1")
        assert processes(master) == running
        master.release("ha")
        _wait_until_heard(lab, "m1")
        assert console.ping()["serving"] is True
        assert _goodbyes(console) == []
    assert processes(master) == running
    _assert_adopted(lab, master, before, began)
    for other in ("s1", "s2"):
        assert transitions(lab.node(other), since=began) == []


def test_G1_service_ha_restart_on_an_active_node_changes_nothing_for_its_services(
    lab: Lab,
) -> None:
    began = time.time()
    master = lab.node("m1")
    running = processes(master)
    before = status(master)
    with Console(lab, "m1") as console:
        console.login()
        master.exec(["service", "ha", "restart"], check=True)
        wait_until(lab, lambda: status(master)["started"] > before["started"], "a new `ha` answers")
        _wait_until_heard(lab, "m1")
        assert console.ping()["serving"] is True
        assert _goodbyes(console) == []
    assert processes(master) == running
    _assert_adopted(lab, master, before, began)
    for other in ("s1", "s2"):
        assert transitions(lab.node(other), since=began) == []


def _goodbyes(console: Console) -> list[Json]:
    return [item for item in console.notifications if item["method"] == "goodbye"]


def _restart_ha(lab: Lab, node: LabNode) -> None:
    """Kill `ha` (SIGKILL) and wait for the one that is started in its place."""
    before = status(node)["started"]
    node.kill_service("ha")
    wait_until(lab, lambda: status(node)["started"] > before, f"a new `ha` answers on {node.name}")
    _wait_until_heard(lab, node.name)


def _wait_until_heard(lab: Lab, name: str) -> None:
    for other in lab.nodes.values():
        if other.name != name:
            wait_until(lab, partial(_hears, other, name), f"{other.name} hears {name}")


def _hears(node: LabNode, name: str) -> bool:
    return bool(peer(node, name)["verdict"] == "alive")


def _assert_forced(node: LabNode, forced: str, wanted: str) -> None:
    said = status(node)
    assert (said["forced"], said["state"]) == (forced, wanted), said["reason"]
    assert said["reason"]["code"] == f"forced_{forced}"


def _assert_adopted(lab: Lab, node: LabNode, before: Json, began: float) -> None:
    """The state is what it was, and since when; no change of it is in the history."""
    said = wait_for_state(lab, node.name, before["state"])
    assert said["started"] > before["started"]
    assert said["since"] == pytest.approx(before["since"], abs=0.01)
    assert transitions(node, since=began) == []
    assert history(node, "service", since=began) == []


def _is_stopped(lab: Lab, node: LabNode) -> bool:
    services = node.services()
    is_up = any(services[name]["running"] for name in ("server", "conference"))
    if is_up or answers_sip(lab, node.name, timeout=0.3):
        return False
    try:
        ping(lab, node.name)
    except ConnectionRefusedError:
        return True
    return False
