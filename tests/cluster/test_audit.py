"""The audit of the cluster: who changed what, read anywhere; a line that was removed shows."""

from __future__ import annotations

import json

from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.node import LabNode
from tests.cluster.support import Console, ask, calm, ha, wait_until


def _told(node: LabNode, *words: str) -> str:
    return ha(node, "history", "--json", "-n", "200", *words).stdout


def test_C3_what_is_done_on_any_node_is_read_on_every_other(lab: Lab) -> None:
    m1, s1, p1 = (lab.node(name) for name in ("m1", "s1", "p1"))
    for words in (
        ["uci", "set", "server.default.max_connections=3999"],
        ["uci", "commit", "server"],
    ):
        m1.exec(words, check=True)
    assert ha(s1, "force-passive").returncode == 0
    assert ha(s1, "resume").returncode == 0
    with Console(lab, "m1") as console:
        console.login("desk-4")

    def arrived() -> bool:
        edits = _told(p1, "--node", "m1", "--kind", "config")
        came = _told(p1, "--kind", "config", "--who", "from m1")
        return (
            "max_connections" in edits
            and "edited on this node" in edits
            and "max_connections" in came
            and "forced" in _told(p1, "--node", "s1", "--kind", "force", "--who", "root")
            and "desk-4" in _told(p1, "--node", "m1", "--kind", "login")
        )

    wait_until(lab, arrived, "p1 can tell what was done on m1 and s1")
    done = ha(p1, "audit", "--json")
    assert done.returncode == 0, done.stdout
    rows = {row["node"]: row for row in json.loads(done.stdout)["chains"]}
    assert {"m1", "s1", "m2", "s2", "p1"} <= set(rows)
    secret = m1.exec(["uci", "get", "ha.default.secret"], check=True).stdout.strip()
    assert secret not in _told(p1, "--node", "all")


def test_C3_a_line_that_is_removed_and_an_end_that_is_cut_off_show(lab: Lab) -> None:
    s2, p1 = lab.node("s2"), lab.node("p1")
    file = s2.path("/etc/controlone/history.jsonl")
    ha(s2, "pause", "first")
    ha(s2, "resume")

    def held() -> list[bytes] | None:
        """Return the lines of s2 once p1 has every one of them."""
        lines = file.read_bytes().splitlines(keepends=True)
        rows = ask(p1, "audit")["chains"]
        last = next((row["last"] for row in rows if row["node"] == "s2"), 0)
        return lines if last == json.loads(lines[-1])["n"] else None

    lines = wait_until(lab, held, "p1 holds the history of s2")
    try:
        s2.stop_service("ha")
        gone = json.loads(lines[-2])["n"]
        file.write_bytes(b"".join([*lines[:-2], lines[-1]]))
        told = ha(s2, "audit").stdout
        assert f"line {gone} is missing, between line {gone - 1} and line {gone + 1}" in told
        # Whoever cuts off the end leaves a chain that is whole: the others know better.
        file.write_bytes(b"".join(lines[:-2]))
        s2.start_service("ha")
        wait_until(lab, lambda: ask(s2, "audit")["problems"], "s2 is told of it")
        wait_until(lab, lambda: ask(p1, "audit")["problems"], "and p1 notices")
        assert ha(s2, "audit").returncode == 4
        codes = [item["code"] for item in json.loads(ha(s2, "check", "--json").stdout)]
        assert "audit" in codes
    finally:
        s2.stop_service("ha")
        file.write_bytes(b"".join(lines))
        s2.start_service("ha")
        p1.restart_service("ha")  # it would tell of what it has seen for ever
    calm(lab)
