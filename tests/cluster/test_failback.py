"""What an active slave does when the master is back: UCI ``failback`` and ``failback_delay``."""

from __future__ import annotations

import time

from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.node import LabNode
from tests.cluster.support import (
    FAST,
    Console,
    Json,
    ask,
    ha,
    history,
    set_option,
    status,
    transitions,
    wait_for_state,
    wait_until,
    wait_until_serving,
)

DELAY = float(FAST["failback_delay"])


def test_F4_with_failback_1_the_slave_is_standby_again_once_the_master_is_back_and_stable(
    lab: Lab,
) -> None:
    began = time.time()
    lab.node("m1").kill()
    wait_for_state(lab, "s1", "active")
    wait_until_serving(lab, "s1")
    lab.boot("m1")
    wait_until_serving(lab, "m1")
    said = wait_for_state(lab, "s1", "standby")
    assert said["reason"]["code"] == "failed_back"
    assert said["reason"]["params"]["peers"] == "m1"
    told = {
        entry["reason"]["code"]: entry for entry in history(lab.node("s1"), "state", since=began)
    }
    assert list(told) == ["peer_failed", "failback_wait", "failed_back"]
    waited = told["failed_back"]["time"] - told["failback_wait"]["time"]
    assert waited >= DELAY - 0.1
    # What it runs follows: the Console Server is warm and refuses, the Conference Server is off.
    wait_until(
        lab,
        lambda: _services(lab.node("s1")) == {"server": "disabled", "conference": "stopped"},
        "s1 has stopped serving",
    )


def test_F4_a_console_that_is_still_there_keeps_the_slave_active_until_it_leaves(
    lab: Lab,
) -> None:
    began = time.time()
    _fail_over(lab)
    with Console(lab, "s1") as console:
        console.login("desk-late")
        ask(lab.node("m1"), "resume", by="tests")
        wait_until_serving(lab, "m1")
        said = wait_until(
            lab, lambda: _with_reason(lab.node("s1"), "failback_busy"), "s1 waits for its console"
        )
        assert said is not None
        assert said["state"] == "active"
        assert said["reason"]["params"] == {"peers": "m1", "consoles": 1, "calls": 0}
        assert "1 consoles" in ha(lab.node("s1"), "status").stdout
        assert console.ping()["serving"] is True
    assert wait_for_state(lab, "s1", "standby")["reason"]["code"] == "failed_back"
    assert [after for _before, after, _code in transitions(lab.node("s1"), since=began)] == [
        "active",
        "standby",
    ]


def test_F4_G1_with_failback_0_the_slave_stays_active_until_the_setting_is_changed(
    lab: Lab,
) -> None:
    slave = lab.node("s1")
    set_option(slave, "ha.default.failback", "0")
    try:
        _fail_over(lab)
        ask(lab.node("m1"), "resume", by="tests")
        wait_until_serving(lab, "m1")
        said = wait_until(
            lab, lambda: _with_reason(slave, "failback_off"), "s1 has seen that m1 is back"
        )
        assert said is not None and said["state"] == "active"
        seen = time.monotonic()
        wait_until(lab, lambda: time.monotonic() - seen > DELAY + 1.0, "the delay is over")
        assert status(slave)["state"] == "active"
        wait_until_serving(lab, "s1")
        assert "failback 0" in ha(slave, "status").stdout
    finally:
        set_option(slave, "ha.default.failback", "1")
    assert wait_for_state(lab, "s1", "standby")["reason"]["code"] == "failed_back"


def _fail_over(lab: Lab) -> None:
    """Make s1 active for m1 without a reboot."""
    ask(lab.node("m1"), "force", state="passive", by="tests")
    said = wait_for_state(lab, "s1", "active")
    assert said["reason"]["code"] == "peer_forced_passive"
    wait_until_serving(lab, "s1")


def _with_reason(node: LabNode, code: str) -> Json | None:
    said = status(node)
    return said if said["reason"]["code"] == code else None


def _services(node: LabNode) -> dict[str, str]:
    return {
        item["name"]: item["state"]
        for item in status(node)["services"]
        if item["name"] in ("server", "conference")
    }
