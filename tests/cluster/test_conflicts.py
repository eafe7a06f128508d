"""`ha conflicts` on real nodes: one option was edited on both sides of a cut; getting it back."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.figure import figure_one
from controlone_ha.lab.node import LabNode
from tests.cluster.support import FAST, Json, ha, paired_lab, status, wait_until

OPTION = "server.default.max_connections"


@pytest.fixture
def lab(real_parts: None) -> Iterator[Lab]:
    nodes = [node for node in figure_one(ha={**FAST, "timeout": "3"}) if node.name in ("m1", "m2")]
    for node in nodes:
        for section in node.packages["ha"]:
            if section.kind == "ha":
                section.options["peers"] = [  # type: ignore[index]
                    other.address for other in nodes if other.name != node.name
                ]
    with paired_lab(nodes) as running:
        yield running


def commit(node: LabNode, value: str) -> None:
    node.exec(["uci", "set", f"{OPTION}={value}"], check=True)
    node.exec(["uci", "commit", "server"], check=True)


def option(node: LabNode) -> str:
    return node.exec(["uci", "-q", "get", OPTION]).stdout.strip()


def is_linked(node: LabNode) -> bool:
    return all(peer["link"]["state"] == "up" for peer in status(node)["peers"])


def conflicts(node: LabNode) -> list[Json]:
    found: list[Json] = json.loads(ha(node, "conflicts", "--json").stdout)
    return found


def test_S3_the_loser_of_a_conflict_is_listed_compared_and_restored(lab: Lab) -> None:
    m1, m2 = lab.node("m1"), lab.node("m2")
    commit(m1, "600")
    wait_until(lab, lambda: option(m2) == "600", "the first change is on both")
    lab.partition(1, 2)
    wait_until(lab, lambda: not is_linked(m1) and not is_linked(m2), "the link is down")
    commit(m1, "601")
    commit(m2, "602")
    lab.heal(1, 2)
    wait_until(lab, lambda: option(m1) == option(m2) == "602", "the later change won")
    where = next(node for node in (m1, m2) if conflicts(node))
    (row,) = conflicts(where)
    assert (row["path"], row["why"], row["node"]) == ("/etc/config/server", "conflict", "m1")
    assert row["winner_node"] == "m2"
    shown = ha(where, "conflicts", "diff", row["id"]).stdout
    assert "-    option max_connections '601'\n+    option max_connections '602'\n" in shown
    assert "/etc/config/server is again" in ha(where, "conflicts", "restore", row["id"]).stdout
    wait_until(lab, lambda: option(m1) == option(m2) == "601", "what was restored is on both")
    assert [entry["id"] for entry in conflicts(m1) + conflicts(m2)] == [row["id"]]
