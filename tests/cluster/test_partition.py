"""Networks break and processes freeze, and nobody draws the wrong conclusion.

Here every node monitors every other, the plain `peers` list of the specification, so that each
node has every chance to judge wrongly.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import pytest

from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.figure import figure_one
from controlone_ha.lab.topology import NodeSpec, Section
from tests.cluster.support import (
    FAST,
    HEALTHY,
    Json,
    accepts_login,
    answers_sip,
    ask,
    calm,
    evidence_text,
    ha,
    history,
    paired_lab,
    peer,
    processes,
    state,
    status,
    transitions,
    wait_for_state,
    wait_until,
)

SETTLED = 6.5
"""Seconds after which silence is no longer "just now" for any rule (``judging.TOGETHER`` is 5)."""


def _monitoring_everybody(nodes: list[NodeSpec]) -> list[NodeSpec]:
    """Return the nodes without the `monitor` options that keep a slave to its own site."""

    def plain(section: Section) -> Section:
        kept = {name: value for name, value in section.options.items() if name != "monitor"}
        return replace(section, options=kept)

    return [
        replace(
            node,
            packages={
                name: tuple(plain(section) for section in sections)
                for name, sections in node.packages.items()
            },
        )
        for node in nodes
    ]


@pytest.fixture(scope="module")
def _wide(real_parts: None) -> Iterator[Lab]:
    with paired_lab(_monitoring_everybody(figure_one(ha=FAST))) as made:
        yield made


@pytest.fixture
def lab(_wide: Lab) -> Lab:
    """Figure 1 in which every node monitors every other; calm."""
    calm(_wide)
    return _wide


def _silent_for(lab: Lab, observer: str, name: str) -> float:
    """Return for how many seconds ``observer`` has found ``name`` silent; 0 when it does not."""
    seen = peer(lab.node(observer), name)
    if seen["verdict"] != "silent":
        return 0.0
    return time.time() - float(seen["verdict_since"])


def _wait_until_settled(lab: Lab, pairs: Mapping[str, tuple[str, ...]]) -> None:
    """Wait until each node finds those peers silent, for so long that every rule had its say."""
    for observer, names in pairs.items():
        for name in names:
            wait_until(
                lab,
                lambda observer=observer, name=name: _silent_for(lab, observer, name) > SETTLED,  # type: ignore[misc]
                f"{observer} finds {name} silent for {SETTLED:g} s",
            )


def _nobody_changed(lab: Lab, began: float) -> None:
    for node in lab.nodes.values():
        assert transitions(node, since=began) == [], f"{node.name} changed its state"
        assert state(node) == HEALTHY[node.name]


def test_F3_a_partition_between_the_sites_changes_no_state_and_the_reasons_say_why(
    lab: Lab,
) -> None:
    began = time.time()
    before = {name: processes(node) for name, node in lab.nodes.items()}
    here, there = ("m1", "s1"), ("m2", "s2", "p1")
    lab.partition(1, 2)
    _wait_until_settled(lab, {**dict.fromkeys(here, there), **dict.fromkeys(there, here)})

    _nobody_changed(lab, began)
    # The smaller side knows that it is the smaller one, the other that a whole site is gone.
    small = status(lab.node("s1"))["reason"]
    assert small["code"] == "minority"
    assert small["params"]["reached"] == 2 and small["params"]["members"] == 5
    assert "m2" in small["params"]["peers"]
    large = status(lab.node("s2"))["reason"]
    assert large["code"] == "site_silent"
    assert large["params"]["active"] == "m2"
    assert large["params"]["peers"] == "m1, s1"
    # Nobody says of anybody that it has failed, and people read the same.
    for node in lab.nodes.values():
        assert "failed" not in [entry["to"] for entry in history(node, "peer", since=began)]
    assert "no majority" in ha(lab.node("s1"), "status").stdout
    assert "a site or the path to it is down" in ha(lab.node("s2"), "status").stdout
    # Each side serves its own consoles.
    assert accepts_login(lab, "m1", at="s1") and accepts_login(lab, "m2", at="p1")
    assert not accepts_login(lab, "s1", at="m1") and not accepts_login(lab, "s2", at="m2")

    lab.heal(1, 2)
    calm(lab)
    _nobody_changed(lab, began)
    assert {name: processes(node) for name, node in lab.nodes.items()} == before


def test_F3_an_isolated_slave_judges_nobody(lab: Lab) -> None:
    began = time.time()
    others = ("m1", "m2", "s2", "p1")
    lab.node("s1").cut()
    _wait_until_settled(lab, {"s1": others, "m1": ("s1",), "s2": ("s1",)})
    said = status(lab.node("s1"))
    assert said["reason"]["code"] == "isolated"
    assert said["reason"]["params"]["count"] == 4
    for name in ("m1", "m2"):
        judged = ask(lab.node("s1"), "why_not", peer=name)
        assert judged["would"] is False
        assert "isolated" in [item["code"] for item in judged["obstacles"]]
    _nobody_changed(lab, began)
    lab.node("s1").heal()
    calm(lab)
    _nobody_changed(lab, began)


def test_F3_an_isolated_master_serves_on_and_judges_nobody_while_its_slave_takes_over(
    lab: Lab,
) -> None:
    began = time.time()
    before = processes(lab.node("m1"))
    lab.node("m1").cut()
    wait_for_state(lab, "s1", "active")
    _wait_until_settled(lab, {"m1": ("s1", "m2", "s2", "p1")})
    assert transitions(lab.node("m1"), since=began) == []
    # Consoles on its own side of the cut are still served.
    assert accepts_login(lab, "m1", at="m1") and answers_sip(lab, "m1", at="m1")
    assert transitions(lab.node("s2"), since=began) == []
    assert transitions(lab.node("m2"), since=began) == []
    lab.node("m1").heal()
    calm(lab)
    assert transitions(lab.node("m1"), since=began) == []
    assert processes(lab.node("m1")) == before
    assert [step[:2] for step in transitions(lab.node("s1"), since=began)] == [
        ("standby", "active"),
        ("active", "standby"),
    ]


def test_C3_S4_the_isolated_passive_node_serves_management_and_audit(lab: Lab) -> None:
    began = time.time()
    node = lab.node("p1")
    node.cut()
    _wait_until_settled(lab, {"p1": ("m1", "s1", "m2", "s2")})

    shown = ha(node, "status")
    assert shown.returncode == 0 and "p1: role passive, PASSIVE" in shown.stdout
    assert "silent" in shown.stdout
    said: Json = json.loads(ha(node, "status", "--json").stdout)
    assert {item["verdict"] for item in said["peers"]} == {"silent"}
    # What the others were when they were last heard stays in sight, with the verdict beside it.
    assert {item["name"]: item["state"] for item in said["peers"]}["m1"] == "active"
    told = ha(node, "history")
    assert told.returncode == 0 and "m1" in told.stdout and "silent" in told.stdout

    configuration = node.exec(["uci", "show", "ha"], check=True).stdout
    assert "ha.default.role='passive'" in configuration
    for words in (
        ["uci", "set", "server.default.max_connections=2000"],
        ["uci", "set", "ha.default.interval=2"],
        ["uci", "commit"],
        ["service", "ha", "restart"],
    ):
        node.exec(words, check=True)
    wanted = "2000\n"
    assert node.exec(["uci", "get", "server.default.max_connections"]).stdout == wanted
    wait_until(
        lab,
        lambda: status(node)["started"] > began and state(node) == "passive",
        "`ha` of the isolated node runs with its new settings",
    )

    node.heal()
    calm(lab)
    assert node.exec(["uci", "get", "server.default.max_connections"]).stdout == wanted
    _nobody_changed_but_restarted(lab, began, "p1")
    node.exec(["uci", "set", "ha.default.interval=1"], check=True)
    node.exec(["uci", "commit", "ha"], check=True)


def _nobody_changed_but_restarted(lab: Lab, began: float, name: str) -> None:
    for node in lab.nodes.values():
        allowed = [("starting", HEALTHY[name])] if node.name == name else []
        assert [step[:2] for step in transitions(node, since=began)] == allowed


@pytest.mark.parametrize(("sender", "receiver"), [("m1", "s1"), ("s2", "m1")])
def test_F3_a_path_cut_in_one_direction_is_taken_for_no_failure(
    lab: Lab, sender: str, receiver: str
) -> None:
    began = time.time()
    slave, master = ("s1", "m1") if "s1" in (sender, receiver) else ("s2", "m1")
    lab.cut_one_way(sender, receiver)
    try:
        found = wait_until(
            lab,
            partial(_held_by_a_path_cut, lab, slave, master),
            f"{slave} knows that the path to {master} is cut",
        )
        assert found["params"]["peer"] == master
        assert set(found["params"]["witness"].split(", ")) <= {"m2", "s1", "s2", "p1"}
        assert "sees it" in evidence_text(found)
        wait_until(
            lab,
            lambda: _silent_for(lab, slave, master) > 3.0,
            f"{slave} finds {master} silent for 3 s",
        )
        _nobody_changed(lab, began)
    finally:
        lab.heal_one_way(sender, receiver)
    calm(lab)
    _nobody_changed(lab, began)


def _held_by_a_path_cut(lab: Lab, slave: str, master: str) -> Json | None:
    said = status(lab.node(slave))
    reason: Json = said["reason"]
    return reason if reason["code"] == "path_cut" and reason["params"]["peer"] == master else None


def test_F3_a_standby_that_stood_still_rereads_before_it_acts(lab: Lab) -> None:
    began = time.time()
    frozen = lab.node("s1")
    frozen.freeze("ha")
    wait_until(
        lab,
        lambda: peer(lab.node("s2"), "s1")["verdict"] == "no_daemon",
        "s2 misses the `ha` of s1",
    )
    lab.node("m1").kill()
    # The first in rank stands still: the next one takes over.
    wait_for_state(lab, "s2", "active")
    _wait_until_stood_still(lab, "s2", "s1")

    frozen.thaw("ha")
    said = wait_until(
        lab,
        lambda: _waits_for_cover(lab, "s1"),
        "s1 has read again who covers m1",
    )
    assert said["params"] == {"peer": "m1", "node": "s2"}
    assert "stood still for" in frozen.read_log("ha")
    reasons = [entry["reason"]["code"] for entry in history(frozen, "state", since=began)]
    assert "rereading" in reasons
    assert transitions(frozen, since=began) == []
    assert not accepts_login(lab, "s1") and not answers_sip(lab, "s1")

    lab.boot("m1")
    calm(lab)
    assert transitions(frozen, since=began) == []


def _wait_until_stood_still(lab: Lab, observer: str, name: str) -> None:
    """Wait until ``name`` has been away for longer than a busy machine may be (2 s)."""

    def is_long() -> bool:
        seen = peer(lab.node(observer), name)
        return seen["verdict"] != "alive" and time.time() - float(seen["verdict_since"]) > 3.0

    wait_until(lab, is_long, f"{observer} misses {name} for 3 s")


def _waits_for_cover(lab: Lab, name: str) -> Json | None:
    reason: Json = status(lab.node(name))["reason"]
    return reason if reason["code"] == "covered_by" else None


def test_F3_F4_a_frozen_machine_is_replaced_and_takes_its_place_again_when_it_thaws(
    lab: Lab,
) -> None:
    began = time.time()
    node = lab.node("m1")
    node.freeze()
    try:
        said = wait_for_state(lab, "s1", "active")
        assert said["reason"]["code"] in ("peer_failed", "peer_silent")
        assert said["reason"]["params"]["peer"] == "m1"
        assert transitions(lab.node("s2"), since=began) == []
        _wait_until_stood_still(lab, "s1", "m1")
    finally:
        node.thaw()
    calm(lab)
    assert "stood still for" in node.read_log("ha")
    assert transitions(node, since=began) == []
    assert accepts_login(lab, "m1") and not accepts_login(lab, "s1")
    for name in ("s2", "m2", "p1"):
        assert transitions(lab.node(name), since=began) == []
