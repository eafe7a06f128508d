"""Files on five real nodes: a change spreads, nothing is lost, nothing is sent twice."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.figure import figure_one
from controlone_ha.lab.node import LabNode
from controlone_ha.lab.topology import Section
from tests.cluster.support import FAST, Json, ha, paired_lab, status, wait_until

NAMES = ("m1", "s1", "m2", "s2", "p1")
SOUNDS = "/var/lib/controlone/sounds"
JOBS = "/var/lib/controlone/jobs"


@pytest.fixture(scope="module")
def shared(real_parts: None) -> Iterator[Lab]:
    nodes = figure_one(ha={**FAST, "timeout": "3"}, data_disk_mb=24)
    for node in nodes:
        items = (
            Section(kind="item", name="sounds", options={"paths": SOUNDS}),
            Section(
                kind="item",
                name="jobs",
                options={"paths": JOBS, "reload": 'echo "$STATE" > /var/run/jobs.state'},
            ),
        )
        node.packages["ha"] = (*node.packages["ha"], *items)  # type: ignore[index]
    with paired_lab(nodes) as lab:
        wait_until(lab, partial(in_sync, lab), "everything is in sync")
        yield lab


@pytest.fixture
def lab(shared: Lab) -> Lab:
    """The cluster of this module, in sync."""
    shared.heal(1, 2)
    wait_until(shared, partial(in_sync, shared), "everything is in sync")
    return shared


def unequal(lab: Lab) -> str:
    """Return the first item of a node that is not in sync with a peer."""
    for node in lab.nodes.values():
        for item in status(node)["sync"]:
            for peer, standing in item["peers"].items():
                if standing["state"] != "in sync":
                    return f"{node.name}: {item['item']} with {peer}: {standing}"
    return ""


def in_sync(lab: Lab) -> bool:
    """Whether nothing differs anywhere; what does is the error that a failed wait shows."""
    if found := unequal(lab):
        raise ValueError(found)
    return True


def item_of(node: LabNode, name: str) -> Json:
    found: Json = next(item for item in status(node)["sync"] if item["item"] == name)
    return found


def option(node: LabNode, name: str) -> str:
    done = node.exec(["uci", "-q", "get", name])
    return done.stdout.strip()


def has_connections(node: LabNode, value: str) -> bool:
    return option(node, "server.default.max_connections") == value


def holds_word(file: Path, word: str) -> bool:
    return file.exists() and file.read_text().strip() == word


def commit(node: LabNode, name: str, value: str) -> None:
    node.exec(["uci", "set", f"{name}={value}"], check=True)
    node.exec(["uci", "commit", name.partition(".")[0]], check=True)


def everywhere(lab: Lab, path: str, content: bytes, *, limit: float = 20.0) -> None:
    """Wait until the file has that content on every node."""

    def lacking() -> str:
        for node in lab.nodes.values():
            file = node.path(path)
            if not file.is_file() or file.read_bytes() != content:
                return node.name
        return ""

    wait_until(lab, lambda: not lacking(), f"{path} is everywhere", limit=limit)


def write(node: LabNode, path: str, content: bytes, *, name: str = "") -> Path:
    file = node.path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.parent / f".{name or file.name}.new"
    temporary.write_bytes(content)
    os.replace(temporary, file)
    return file


def test_S1_a_commit_on_any_node_is_on_all_the_others_at_once(lab: Lab) -> None:
    for number, name in enumerate(NAMES):
        commit(lab.node(name), "server.default.max_connections", str(500 + number))
        for other in NAMES:
            wait_until(
                lab,
                partial(has_connections, lab.node(other), str(500 + number)),
                f"the change of {name} is on {other}",
            )
    wait_until(lab, partial(in_sync, lab), "everything is in sync")
    shown = ha(lab.node("p1"), "status").stdout
    assert shown.count("in sync") >= 4


def test_S1_options_of_a_node_are_never_overwritten_by_a_peer(lab: Lab) -> None:
    m1, s1 = lab.node("m1"), lab.node("s1")
    commit(s1, "server.default.bind", "0.0.0.0")
    commit(m1, "server.default.max_connections", "777")
    wait_until(
        lab, lambda: option(s1, "server.default.max_connections") == "777", "the change is there"
    )
    assert option(s1, "server.default.bind") == "0.0.0.0"
    assert option(m1, "server.default.bind") == ""
    assert not unequal(lab)


def test_S2_a_change_made_while_ha_was_down_is_found_and_only_what_differs_is_copied(
    lab: Lab,
) -> None:
    m2 = lab.node("m2")
    write(m2, f"{SOUNDS}/same.wav", b"same" * 1000)
    everywhere(lab, f"{SOUNDS}/same.wav", b"same" * 1000)
    before = lab.node("s1").path(f"{SOUNDS}/same.wav").stat()
    m2.exec(["service", "ha", "stop"], check=True)
    wait_until(lab, lambda: m2.services()["ha"]["pid"] is None, "`ha` of m2 has ended")
    write(m2, f"{SOUNDS}/new.wav", b"new" * 1000)
    os.utime(m2.path(f"{SOUNDS}/same.wav"))
    m2.exec(["service", "ha", "start"], check=True)
    everywhere(lab, f"{SOUNDS}/new.wav", b"new" * 1000)
    wait_until(lab, partial(in_sync, lab), "everything is in sync")
    after = lab.node("s1").path(f"{SOUNDS}/same.wav").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_S3_S4_after_a_partition_the_last_change_wins_everywhere_and_the_other_is_kept(
    lab: Lab,
) -> None:
    write(lab.node("m1"), f"{SOUNDS}/both.wav", b"before")
    everywhere(lab, f"{SOUNDS}/both.wav", b"before")
    lab.partition(1, 2)
    wait_until(
        lab,
        lambda: all(
            peer["link"]["state"] != "up"
            for peer in status(lab.node("m1"))["peers"]
            if peer["name"] not in ("m1", "s1")
        ),
        "m1 has lost site 2",
    )
    write(lab.node("m1"), f"{SOUNDS}/both.wav", b"site 1, earlier")
    write(lab.node("s1"), f"{SOUNDS}/one.wav", b"of site 1")
    time.sleep(0.05)
    write(lab.node("s2"), f"{SOUNDS}/both.wav", b"site 2, later")
    write(lab.node("p1"), f"{SOUNDS}/two.wav", b"of site 2")
    commit(lab.node("m2"), "conference.default.max_calls", "77")
    commit(lab.node("m1"), "server.default.max_connections", "601")
    commit(lab.node("m1"), "server.default.port", "7551")
    time.sleep(0.05)
    commit(lab.node("s2"), "server.default.max_connections", "602")
    lab.node("s2").exec(["uci", "set", "server.extra=note"], check=True)
    commit(lab.node("s2"), "server.extra.text", "of s2")
    wait_until(
        lab,
        lambda: (
            lab.node("s1").path(f"{SOUNDS}/both.wav").read_bytes() == b"site 1, earlier"
            and lab.node("m2").path(f"{SOUNDS}/both.wav").read_bytes() == b"site 2, later"
        ),
        "each site agrees with itself",
    )
    lab.heal(1, 2)
    everywhere(lab, f"{SOUNDS}/both.wav", b"site 2, later", limit=40)
    everywhere(lab, f"{SOUNDS}/one.wav", b"of site 1")
    everywhere(lab, f"{SOUNDS}/two.wav", b"of site 2")
    assert option(lab.node("m1"), "conference.default.max_calls") == "77"
    wait_until(lab, partial(in_sync, lab), "everything is in sync")
    for node in lab.nodes.values():
        assert option(node, "server.default.max_connections") == "602"  # the later one
        assert option(node, "server.default.port") == "7551"  # edited on one side only
        assert option(node, "server.extra.text") == "of s2"
    lost = [kept_contents(node) for node in lab.nodes.values()]
    assert any(b"site 1, earlier" in kept for kept in lost)
    assert any(b"'601'" in content for kept in lost for content in kept)


def kept_contents(node: LabNode) -> list[bytes]:
    """Return every lost version that a node keeps."""
    place = node.path("/etc/controlone/conflicts")
    return [file.read_bytes() for file in place.rglob("*") if file.is_file()]


def test_S5_a_full_synchronisation_finds_what_no_event_told(lab: Lab) -> None:
    m1 = lab.node("m1")
    done = ha(m1, "sync", "sounds", "--json")
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["done"] and {row["peer"] for row in last["peers"]} == set(NAMES) - {"m1"}
    assert all(not row["error"] for row in last["peers"])


def test_S6_a_deleted_file_stays_where_it_is_and_does_not_come_back_until_it_changes(
    lab: Lab,
) -> None:
    s2, m1 = lab.node("s2"), lab.node("m1")
    path = f"{SOUNDS}/gone.wav"
    write(m1, path, b"first")
    everywhere(lab, path, b"first")
    s2.path(path).unlink()
    wait_until(lab, lambda: item_of(s2, "sounds")["absent"] == 1, "s2 knows that it is gone")
    assert ha(s2, "sync", "sounds").returncode == 0
    assert not s2.path(path).exists()
    assert m1.path(path).read_bytes() == b"first"
    write(m1, path, b"changed elsewhere")
    everywhere(lab, path, b"changed elsewhere")


def test_S7_jobs_learn_the_state_of_the_node_with_every_batch(lab: Lab) -> None:
    write(lab.node("m1"), f"{JOBS}/nightly", b"#!/bin/sh\n")
    everywhere(lab, f"{JOBS}/nightly", b"#!/bin/sh\n")
    for name, wanted in (("s1", "standby"), ("m2", "active"), ("p1", "passive")):
        file = lab.node(name).path("/var/run/jobs.state")
        wait_until(
            lab,
            partial(holds_word, file, wanted),
            f"the jobs of {name} know that it is {wanted}",
        )


def test_S1_a_broken_file_never_leaves_its_node_and_is_shown_as_held(lab: Lab) -> None:
    m1, s1 = lab.node("m1"), lab.node("s1")
    file = m1.path("/etc/config/conference")
    good = file.read_bytes()
    try:
        write(m1, "/etc/config/conference", b"config conference 'default\n\toption max")
        wait_until(lab, lambda: item_of(m1, "config")["problems"], "m1 shows what is wrong")
        assert "held" in ha(m1, "status").stdout
        commit(m1, "server.default.max_connections", "888")
        wait_until(
            lab, lambda: option(s1, "server.default.max_connections") == "888", "others go on"
        )
        assert s1.path("/etc/config/conference").read_bytes().count(b"'") % 2 == 0
    finally:
        write(m1, "/etc/config/conference", good)
    wait_until(lab, partial(in_sync, lab), "everything is in sync again")


def test_S1_what_cannot_be_put_in_place_is_told_and_does_not_stop_the_others(lab: Lab) -> None:
    m1, s1 = lab.node("m1"), lab.node("s1")
    s1.path(SOUNDS).mkdir(parents=True, exist_ok=True)
    s1.path(f"{SOUNDS}/taken.wav").mkdir()
    (s1.path(SOUNDS) / "out").symlink_to("/tmp")
    try:
        write(m1, f"{SOUNDS}/taken.wav", b"a file here, a directory there")
        write(m1, f"{SOUNDS}/out/escaped.wav", b"through a link")
        write(m1, f"{SOUNDS}/after.wav", b"goes on")
        m1.path(f"{SOUNDS}/line\nbreak.wav").write_bytes(b"bad name")
        wait_until(
            lab,
            lambda: (
                s1.path(f"{SOUNDS}/after.wav").exists()
                and item_of(m1, "sounds")["peers"]["s1"]["state"] == "held"
            ),
            "the good file is there, the bad ones are told",
        )
        assert not s1.path("/tmp/escaped.wav").exists()
        assert "line" in " ".join(item_of(m1, "sounds")["problems"])
        done = ha(m1, "sync", "sounds")
        assert done.returncode == 1 and "taken.wav" in done.stdout
    finally:
        s1.path(f"{SOUNDS}/taken.wav").rmdir()
        (s1.path(SOUNDS) / "out").unlink()
        m1.path(f"{SOUNDS}/line\nbreak.wav").unlink()
    ha(m1, "sync", "sounds")
    wait_until(lab, partial(in_sync, lab), "everything is in sync again")
    assert s1.path(f"{SOUNDS}/out/escaped.wav").read_bytes() == b"through a link"
