"""`ha leave`: what `service ha stop` and a shutdown of the system do before anything stops."""

from __future__ import annotations

import json

import pytest

from controlone_ha.lab.cluster import Lab
from tests.cluster.support import (
    ha,
    history,
    state,
    status,
    wait_for_state,
    wait_until,
    wait_until_serving,
)


@pytest.mark.slow
def test_G1_a_master_that_leaves_hands_over_and_comes_back_when_ha_starts(lab: Lab) -> None:
    master, slave = lab.node("m1"), lab.node("s1")
    done = ha(master, "leave")
    assert done.returncode == 0 and "comes back when `ha` starts" in done.stdout, done.stderr
    services = {item["name"]: item["state"] for item in status(master)["services"]}
    assert services["conference"] == "stopped"
    wait_for_state(lab, "s1", "active")
    wait_until_serving(lab, "s1")
    codes = {entry["reason"]["code"] for entry in history(slave, "state")}
    assert "peer_forced_passive" in codes  # on the master's word, not because it was missed
    master.restart_service("ha")
    wait_for_state(lab, "m1", "active")
    assert status(master)["forced"] is None
    wait_until(lab, lambda: state(slave) == "standby", "s1 gives back")


@pytest.mark.slow
def test_G1_a_standby_may_leave_at_once_and_a_node_that_nobody_replaces_stays(lab: Lab) -> None:
    slave, master = lab.node("s2"), lab.node("m2")
    assert ha(slave, "leave").returncode == 0
    assert state(slave) == "standby"
    takers = [lab.node(name) for name in ("m1", "s1", "s2")]
    for node in takers:
        node.hold("ha")
    try:
        wait_until(
            lab,
            lambda: (
                {p["name"] for p in status(master)["peers"] if p["link"]["state"] == "up"} == {"p1"}
            ),
            "m2 sees that `ha` of all who could take over has ended",
        )
        done = ha(master, "leave", "--json")
        assert done.returncode == 1 and json.loads(done.stdout)["leaves"] is False
        assert state(master) == "active" and status(master)["forced"] is None
    finally:
        for node in takers:
            node.release("ha")
