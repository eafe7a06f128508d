"""G1: wrong values, by `uci` and in a file edited by hand: refused in the words of the schema, and
the running daemon keeps what it has. By the web page: tests/package/test_luci.py.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.node import LabNode
from tests.cluster.support import ask, peer, status, wait_until

NODE = "s2"


@pytest.fixture
def node(lab: Lab) -> Iterator[LabNode]:
    """A node whose settings are as before afterwards."""
    node = lab.node(NODE)
    file = node.path("/etc/config") / "ha"
    before = file.read_bytes()
    try:
        yield node
    finally:
        file.write_bytes(before)
        ask(node, "reload")


def sh(node: LabNode, line: str) -> subprocess.CompletedProcess[str]:
    return node.exec(["sh", "-c", line])


def untouched(node: LabNode) -> tuple[object, ...]:
    """What would change if the daemon took the settings or were restarted."""
    said = status(node)
    return node.service_status("ha")["pid"], said["priority"], said["role"], len(said["peers"])


def test_G1_a_wrong_value_set_by_uci_is_refused_and_the_daemon_keeps_its_settings(
    lab: Lab, node: LabNode
) -> None:
    before = untouched(node)
    done = sh(node, "uci set ha.default.priority=many; uci set ha.default.role=chief; uci commit")
    assert done.returncode == 0, done.stderr  # `uci` knows no types, on OpenWrt either
    done = sh(node, "service ha restart")
    assert done.returncode == 1
    for words in (
        "ha.default.priority: got 'many', expected a whole number from 0 to 1000",
        "ha.default.role: got 'chief', expected master, slave or passive",
    ):
        assert words in done.stderr
    assert "/etc/config/ha:" in done.stderr  # with its line
    sh(node, "service ha reload")
    wait_until(
        lab,
        lambda: "configuration refused, going on with the old one" in node.read_log("ha"),
        "the log has the refusal",
    )
    assert "got 'many', expected a whole number from 0 to 1000" in node.read_log("ha")
    assert untouched(node) == before
    assert peer(lab.node("m2"), NODE)["link"]["state"] == "up"


def test_G1_a_wrong_value_edited_by_hand_is_refused_and_the_daemon_keeps_its_settings(
    lab: Lab, node: LabNode
) -> None:
    before = untouched(node)
    assert sh(node, "reload_config").returncode == 0  # the first one records what is there
    edit = "sed -i \"s/^\\toption priority .*/\\toption priority '-5'/\" /etc/config/ha"
    assert sh(node, edit).returncode == 0
    assert sh(node, "grep -c -- \"'-5'\" /etc/config/ha").stdout.strip() == "1"
    assert sh(node, "reload_config").returncode == 0
    refusal = "ha.default.priority: got '-5', expected a whole number from 0 to 1000"
    wait_until(lab, lambda: refusal in node.read_log("ha"), "the log has the refusal")
    assert refusal in sh(node, "ha check --json").stdout
    # Not even UCI any more: refused with the line.
    assert sh(node, "echo 'no UCI' >>/etc/config/ha").returncode == 0
    done = sh(node, "service ha restart")
    assert done.returncode == 1 and "/etc/config/ha" in done.stderr, done.stderr
    assert untouched(node) == before
