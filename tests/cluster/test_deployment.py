"""From five fresh nodes to a cluster with the commands of docs/deployment.md, and nothing else.

One node runs dropbear, the others OpenSSH. The secret is the specification's own example.
"""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import pytest

from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.figure import make_lab
from controlone_ha.lab.node import LabNode
from controlone_ha.lab.node_services import DEFAULT_SERVICES
from controlone_ha.lab.service_state import ServiceDefinition
from controlone_ha.lab.topology import NodeSpec, Section
from tests.cluster.support import HEALTHY, Json, ha, refusal_of_login, state, status, wait_until

PASSWORD = "the administrator's own"
SECRET = "123456"
PLACES = {"m1": (1, 11), "s1": (1, 12), "m2": (2, 11), "s2": (2, 12), "p1": (2, 13)}
ROLES = {"m1": "master", "s1": "slave", "m2": "master", "s2": "slave", "p1": "passive"}
EMPTY = {
    "ha": (Section(kind="ha", name="default"),),
    "server": (Section(kind="server", name="default"),),
    "conference": (Section(kind="conference", name="default"),),
}


@pytest.fixture(scope="module")
def fresh(real_parts: None, dropbear_path: object) -> Iterator[Lab]:
    """Five nodes as installed: no role, no peers, no secret, no key of anybody."""
    nodes = [
        NodeSpec(
            name=name,
            site=site,
            host=host,
            ssh="dropbear" if name == "s2" else "openssh",
            packages=EMPTY,
            services=DEFAULT_SERVICES,
        )
        for name, (site, host) in PLACES.items()
    ]
    with make_lab(nodes, root_password=PASSWORD) as lab:
        yield lab


def shell(node: LabNode, line: str) -> str:
    """Type one line at a node's shell; return what it printed."""
    return node.exec(["sh", "-c", line], check=True).stdout


def at_terminal(
    node: LabNode, words: Sequence[str], dialogue: Sequence[tuple[str, str]], limit: float = 60.0
) -> tuple[int, str]:
    """Run a command at a terminal and answer its questions; return exit code and what was shown."""
    ours, theirs = pty.openpty()
    process = node.spawn(
        ["setsid", "--ctty", "--wait", *words], stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown, answered = "", 0
    end = time.monotonic() + limit
    try:
        while time.monotonic() < end:
            if not select.select([ours], [], [], 0.2)[0]:
                continue
            try:
                data = os.read(ours, 4096)
            except OSError:  # the last one that held the terminal has gone
                break
            if not data:
                break
            shown += data.decode()
            if answered < len(dialogue) and dialogue[answered][0] in shown:
                os.write(ours, dialogue[answered][1].encode() + b"\n")
                answered += 1
        return process.wait(timeout=max(1.0, end - time.monotonic())), shown
    finally:
        os.close(ours)
        process.kill()
        process.wait()


def host_key_of(node: LabNode) -> str:
    """Return the fingerprint of the node's SSH server as its administrator reads it there."""
    keys: Json = json.loads(ha(node, "keys", "--json").stdout)
    fingerprints: list[str] = keys["own"]["host_keys"]
    return fingerprints[0]


def linked_peers(node: LabNode) -> set[str]:
    """Return the peers that the node shows as linked and alive."""
    return {
        seen["name"]
        for seen in status(node)["peers"]
        if seen["link"]["state"] == "up" and seen["verdict"] == "alive"
    }


def test_G1_X1_the_documented_commands_make_a_cluster_of_five_fresh_nodes(fresh: Lab) -> None:
    # A fresh node says what it needs.
    first = fresh.node("m1")
    assert ha(first, "status").returncode != 0
    wait_until(
        fresh, lambda: "ha.default.role" in first.read_log("ha"), "`ha` says what it needs to start"
    )

    # On every node the specification's own lines, the list quoted, as `uci` takes one argument;
    # peers by address, and on s1 by name.
    for name, node in fresh.nodes.items():
        others = [other for other in PLACES if other != name]
        peers = [other if name == "s1" else fresh.node(other).address for other in others]
        separators = (",", ", ", " ") if name == "m1" else (", ", ",", ", ")
        listed = "".join(map("".join, zip(peers, (*separators, ""), strict=True)))
        shell(node, f"uci set 'ha.default.peers={listed}'")
        assert shell(node, "uci get ha.default.peers").strip() == listed
        shell(node, f"uci set ha.default.role={ROLES[name]}")
        shell(node, f"uci set ha.default.secret={SECRET}")
        shell(node, "uci commit")
        shell(node, "service ha restart")
    for name, node in fresh.nodes.items():
        wait_until(fresh, lambda node=node: status(node)["peers"], f"`ha` of {name} runs")  # type: ignore[misc]
        assert linked_peers(node) == set()
    # Nothing is linked yet, and the status says what to do.
    assert {seen["link"]["state"] for seen in status(first)["peers"]} == {"unpaired"}
    assert f"ha pair {fresh.node('s1').address}" in ha(first, "status").stdout

    # A host key that the administrator does not confirm is not believed.
    words = ["ha", "pair", fresh.node("s1").address]
    code, shown = at_terminal(first, words, [("(yes/no)", "no")])
    assert code != 0 and "was not confirmed" in shown and "password:" not in shown

    # On one node the others are paired: by password, the host key compared with what it says there.
    for name in ("s1", "m2", "p1"):
        fingerprint = host_key_of(fresh.node(name))
        words = ["ha", "pair", fresh.node(name).address]
        dialogue = [("(yes/no)", "yes"), ("password:", PASSWORD)]
        code, shown = at_terminal(first, words, dialogue)
        assert code == 0, shown
        assert fingerprint in shown and f"Paired with {name}" in shown
        assert PASSWORD not in shown
    # And by the administrator's key, without a terminal, to the node with dropbear.
    shell(first, "ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519")
    public = shell(first, "cat /root/.ssh/id_ed25519.pub").strip()
    other = fresh.node("s2")
    shell(other, f"umask 077; echo {shlex.quote(public)} >>/root/.ssh/authorized_keys")
    done = ha(first, "pair", "--fingerprint", host_key_of(other), other.address)
    assert done.returncode == 0, done.stderr
    # Pairing left the administrator's own line alone.
    assert public in shell(other, "cat /root/.ssh/authorized_keys")

    for name, node in fresh.nodes.items():
        expected = set(PLACES) - {name}
        wait_until(
            fresh,
            lambda node=node, expected=expected: linked_peers(node) == expected,  # type: ignore[misc]
            f"{name} is linked with the four others",
        )
        wait_until(fresh, lambda node=node: state(node) == HEALTHY[node.name], f"{name} is settled")  # type: ignore[misc]
        shown = ha(node, "status").stdout
        for other_name in expected:
            row = next(line for line in shown.splitlines() if line.startswith(f"{other_name} "))
            assert f" {ROLES[other_name]} " in row and " up " in row
        keys: Json = json.loads(ha(node, "keys", "--json").stdout)
        assert {pin["name"] for pin in keys["pinned"]} == expected


def test_K1_X2_a_console_is_served_once_it_was_enrolled_with_two_commands(fresh: Lab) -> None:
    device, server = fresh.node("p1"), fresh.node("m1")
    wait_until(
        fresh,
        lambda: (refusal_of_login(fresh, "m1") or {}).get("code") == "unknown_console",
        "a console that nobody has enrolled is refused",
    )
    device.path("/etc/config/console").write_text("config console 'default'\n")  # as installed
    shell(device, "uci set console.default.name=desk-9")
    shell(device, f"uci set console.default.server={server.address}; uci commit console")
    with device.spawn(["console", "enrol", server.address], stdout=subprocess.PIPE) as enrolling:
        assert enrolling.stdout is not None
        try:
            line = next(line for line in enrolling.stdout if b"ha console approve" in line)
            assert ha(server, *line.decode().split()[1:]).returncode == 0
            assert b"desk-9" in enrolling.stdout.read()
            assert enrolling.wait(timeout=30) == 0
        finally:
            enrolling.kill()
    argv = (sys.executable, "-P", "-m", "controlone_ha.console", "run")
    device.define_service(ServiceDefinition(name="console", argv=argv))
    wait_until(
        fresh,
        lambda: json.loads(device.exec(["console", "status", "--json"]).stdout)["node"] == "m1",
        "the console is on m1",
    )
    assert ha(server, "console", "revoke", "desk-9").returncode == 0
    wait_until(
        fresh,
        lambda: json.loads(device.exec(["console", "status", "--json"]).stdout)["node"] is None,
        "the console is sent away",
    )
    said = device.exec(["console", "status"]).stdout
    assert "the credential of this console is not valid any more" in said
    device.stop_service("console")


def test_X2_a_secret_that_is_easy_to_guess_works_and_is_warned_about(fresh: Lab) -> None:
    for node in fresh.nodes.values():
        warnings = [item for item in status(node)["warnings"] if item["code"] == "weak_secret"]
        assert len(warnings) == 1 and "ha.default.secret" in warnings[0]["remedy"]
        shown = ha(node, "status").stdout
        assert "secret" in shown and SECRET not in shown
        assert SECRET not in node.read_log("ha")


def test_G1_every_check_of_the_deployed_cluster_is_free_of_errors(fresh: Lab) -> None:
    for node in fresh.nodes.values():
        found: list[Json] = json.loads(ha(node, "check", "--json").stdout)
        assert [item for item in found if item["severity"] == "error"] == []


def test_G1_check_finds_everything_that_is_wrong_at_once_each_with_its_remedy(fresh: Lab) -> None:
    node = fresh.node("p1")
    break_it = (
        "chmod 644 /etc/controlone/node.key; cp /root/.ssh/authorized_keys /tmp/kept;"
        " grep -v 'controlone-ha:m1$' /tmp/kept >/root/.ssh/authorized_keys;"
        " uci set server.default.port=70000; uci commit server"
    )
    mend_it = (
        "chmod 600 /etc/controlone/node.key; cp /tmp/kept /root/.ssh/authorized_keys;"
        " uci delete server.default.port; uci commit server"
    )
    node.exec(["sh", "-c", break_it], check=True)
    try:
        shown = {item["code"]: item for item in json.loads(ha(node, "check", "--json").stdout)}
        assert {"exposed_key", "not_let_in", "bad_value"} <= set(shown)
        assert shown["exposed_key"]["params"]["mode"] == "0644"
        assert shown["exposed_key"]["remedy"].startswith("chmod go= /etc/controlone/node.key")
        assert shown["not_let_in"]["params"]["peer"] == "m1"
        assert "server.default.port" in shown["bad_value"]["text"]
        portuguese = " ".join(ha(node, "check", "--lang", "pt").stdout.split())
        assert "pode ser lido por outros" in portuguese and "não tem a linha de m1" in portuguese
    finally:
        node.exec(["sh", "-c", mend_it], check=True)
    codes = {item["code"] for item in json.loads(ha(node, "check", "--json").stdout)}
    assert not codes & {"exposed_key", "not_let_in", "bad_value"}


def test_C5_check_names_the_port_of_a_peer_that_is_closed(fresh: Lab) -> None:
    """SSH passes and TCP/7551 does not: the firewall's most common mistake."""
    node, other = fresh.node("m1"), fresh.node("m2")
    other.hold("server")
    try:
        found = json.loads(ha(node, "check", "--json").stdout)
        closed = [item["params"] for item in found if item["code"] == "port_closed"]
        assert [(item["peer"], item["port"]) for item in closed] == [("m2", 7551)]
        assert closed[0]["why"] == "Connection refused"
    finally:
        other.release("server")


def test_A1_check_asks_the_gateways_from_the_nodes_own_address(fresh: Lab) -> None:
    node, other = fresh.node("s1"), fresh.node("m2")
    commands = [
        f"uci set conference.{name}=gateway; uci set conference.{name}.host={other.address};"
        f" uci set conference.{name}.port={port}; uci set conference.{name}.check_replaces=1"
        for name, port in (("good", 5060), ("closed", 5999))
    ]
    shell(node, "; ".join([*commands, "uci commit conference", "service ha reload"]))

    def found() -> list[Json]:
        items = json.loads(ha(node, "check", "--json").stdout)
        return [item for item in items if item["area"] == "gateways"]

    try:
        wait_until(fresh, lambda: bool(found()), "the new gateways are checked")
        (item,) = found()
        assert (item["code"], item["params"]["gateway"]) == ("gateway_silent", "closed")
        assert item["params"]["local"] == node.address
        portuguese = " ".join(ha(node, "check", "--lang", "pt").stdout.split())
        assert f"não responde a {node.address}" in portuguese
    finally:
        drop = "uci delete conference.good; uci delete conference.closed; uci commit conference"
        shell(node, f"{drop}; service ha reload")


def test_G1_the_blank_in_the_specifications_list_of_peers_needs_quotes_as_with_any_uci(
    fresh: Lab,
) -> None:
    node = fresh.node("p1")
    before = node.exec(["uci", "get", "ha.default.peers"], check=True).stdout
    # A shell makes two words of it, and real `uci set` takes one: it prints its usage.
    done = node.exec(["sh", "-c", "uci set ha.default.peers=PEER1,PEER2, PEER3"])
    assert done.returncode == 255
    assert "Usage: uci" in done.stdout + done.stderr
    assert node.exec(["uci", "changes", "ha"], check=True).stdout == ""
    assert node.exec(["uci", "get", "ha.default.peers"], check=True).stdout == before

    addresses = [fresh.node(name).address for name in ("m1", "s1", "m2", "s2")]
    value = f"{addresses[0]},{addresses[1]}, {addresses[2]} ,  {addresses[3]}"
    shell(node, f"uci set ha.default.peers='{value}'")
    shell(node, "uci commit")
    shell(node, "service ha restart")
    expected = {"m1", "s1", "m2", "s2"}
    wait_until(fresh, lambda: linked_peers(node) == expected, "p1 is linked with all four again")


def test_X1_a_host_key_that_is_not_the_one_expected_ends_the_pairing(fresh: Lab) -> None:
    node, other = fresh.node("m2"), fresh.node("p1")
    pins = shell(node, "cat /etc/controlone/pins.json")
    wrong = "SHA256:" + "A" * 43
    done = ha(node, "pair", "--fingerprint", wrong, other.address)
    assert done.returncode != 0
    assert wrong in done.stderr and host_key_of(other) in done.stderr
    assert shell(node, "cat /etc/controlone/pins.json") == pins
