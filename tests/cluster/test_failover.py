"""A master dies, loudly or in silence, and its slave takes over; nobody else does."""

from __future__ import annotations

import time
from functools import partial

from controlone_ha.lab.cluster import Lab
from tests.cluster.support import (
    accepts_login,
    answers_sip,
    ask,
    evidence_text,
    ha,
    history,
    peer,
    status,
    transitions,
    wait_for_state,
    wait_until,
    wait_until_serving,
)

SLOTS = 3.0
"""Seconds in which a standby node would have activated: several slots of rank."""


def test_F3_F4_when_every_process_of_a_master_is_killed_its_slave_takes_over(lab: Lab) -> None:
    began = time.time()
    lab.node("m1").kill()
    said = wait_for_state(lab, "s1", "active")
    assert said["reason"]["code"] == "peer_failed"
    assert said["reason"]["params"]["peer"] == "m1"
    # What it says is what happened: the link broke, and the machine refuses both services.
    evidence = evidence_text(said["reason"])
    assert "link" in evidence and "server refused" in evidence and "conference" in evidence
    wait_until_serving(lab, "s1")

    for name in ("m2", "s2", "p1"):
        wait_until(lab, partial(_knows, lab, name), f"{name} knows of m1 and s1")
        told = [
            entry
            for entry in history(lab.node(name), "peer", since=began)
            if entry["peer"] == "m1" and entry["to"] in ("failed", "silent")
        ]
        assert told, f"the history of {name} tells the failure of m1"
        assert told[0]["reason"]["evidence"]
    assert transitions(lab.node("s1"), since=began) == [("standby", "active", "peer_failed")]
    # What a person reads says the same.
    assert "m1 failed" in ha(lab.node("s1"), "status").stdout
    assert "m1 failed" in ha(lab.node("s1"), "history").stdout


def _knows(lab: Lab, name: str) -> bool:
    node = lab.node(name)
    return peer(node, "m1")["verdict"] == "failed" and peer(node, "s1")["state"] == "active"


def test_C2_a_slave_that_does_not_monitor_the_master_leaves_it_alone_even_as_the_last_one(
    lab: Lab,
) -> None:
    began = time.time()
    lab.node("s1").kill()
    wait_until(lab, lambda: peer(lab.node("s2"), "s1")["verdict"] == "failed", "s2 misses s1")
    lab.node("m1").kill()

    def judged_long_ago() -> bool:
        seen = peer(lab.node("s2"), "m1")
        return seen["verdict"] == "failed" and time.time() - seen["verdict_since"] > SLOTS

    wait_until(lab, judged_long_ago, "s2 has known for some time that m1 failed")
    assert peer(lab.node("s2"), "m1")["monitored"] is False
    obstacles = ask(lab.node("s2"), "why_not", peer="m1")["obstacles"]
    assert "not_monitored" in {item["code"] for item in obstacles}
    assert transitions(lab.node("s2"), since=began) == []
    assert not accepts_login(lab, "s2")
    assert not answers_sip(lab, "s2")


def test_F4_the_slave_that_took_over_dies_too_and_the_next_one_that_monitors_it_takes_over(
    lab: Lab,
) -> None:
    lab.node("m1").kill()
    wait_for_state(lab, "s1", "active")
    wait_until(lab, partial(_knows, lab, "s2"), "s2 knows of m1 and s1")
    lab.node("s1").kill()
    said = wait_for_state(lab, "s2", "active")
    assert said["reason"]["code"] == "peer_failed"
    assert said["reason"]["params"]["peer"] == "s1"
    wait_until_serving(lab, "s2")


def test_F3_a_dead_service_of_a_master_whose_ha_is_away_makes_its_slave_take_over(
    lab: Lab,
) -> None:
    master = lab.node("m1")
    master.hold("ha")
    wait_until(
        lab,
        lambda: peer(lab.node("s1"), "m1")["verdict"] == "no_daemon",
        "s1 sees that only the `ha` of m1 is away",
    )
    assert status(lab.node("s1"))["state"] == "standby"
    master.hold("conference")
    said = wait_for_state(lab, "s1", "active")
    assert said["reason"]["code"] == "peer_service_failed"
    assert said["reason"]["params"] == {"peer": "m1", "service": "conference"}
    assert "conference" in evidence_text(said["reason"])


def test_F3_F4_when_a_master_falls_silent_its_slave_asks_the_others_and_takes_over(
    lab: Lab,
) -> None:
    began = time.time()
    lab.node("m1").cut()
    said = wait_for_state(lab, "s1", "active")
    assert said["reason"]["code"] == "peer_silent"
    witnesses = set(said["reason"]["params"]["witnesses"].split(", "))
    assert witnesses and witnesses <= {"m2", "s2", "p1"}
    evidence = evidence_text(said["reason"])
    assert "does not see it either" in evidence
    assert peer(lab.node("s1"), "m1")["verdict"] == "silent"
    wait_until_serving(lab, "s1")
    assert transitions(lab.node("s2"), since=began) == []
    # The master itself is alone: it judges nobody, serves on, and says so when asked on the spot.
    alone = status(lab.node("m1"))
    assert alone["state"] == "active"
    assert transitions(lab.node("m1"), since=began) == []
