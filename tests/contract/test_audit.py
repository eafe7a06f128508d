"""The audit on disk: chains over restarts and rotations, copies, what others did on the node."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from controlone_ha.control.audit import (
    BrokenChainError,
    Copies,
    hash_at,
    lines_after,
    verify_all,
)
from controlone_ha.control.history import History, read_history
from controlone_ha.daemon.changes import Changes

pytestmark = pytest.mark.contract


def entry(number: int, **more: Any) -> dict[str, Any]:
    return {"time": float(number), "node": "s1", "kind": "force", "to": str(number)} | more


def write(path: Path, count: int, start: int = 1, node: str = "s1") -> None:
    history = History(path, wait=lambda _seconds: None)
    for number in range(start, start + count):
        history.append(entry(number, node=node))
    history.close()


def problems(path: Path, node: str = "s1") -> dict[str, list[str]]:
    return {row["node"]: row["problems"] for row in verify_all(path, node)}


def test_C3_the_chain_goes_on_over_a_restart_and_over_rotation(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    for start in (1, 11):
        history = History(path, max_bytes=1500, files=9, wait=lambda _seconds: None)
        for number in range(start, start + 10):
            history.append(entry(number))
        history.close()
    assert (tmp_path / "history.jsonl.1").exists()
    (row,) = verify_all(path, "s1")
    assert (row["first"], row["last"], row["problems"]) == (1, 20, [])
    assert [item["to"] for item in read_history(path, 3)] == ["20", "19", "18"]
    assert "prev" not in read_history(path, 1)[0]


def test_C3_a_line_that_somebody_removed_is_named_and_the_rest_still_read(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    write(path, 9)
    kept = [line for line in path.read_bytes().splitlines(True) if b'"n":7,' not in line]
    path.write_bytes(b"".join(kept))
    assert problems(path) == {"s1": ["line 7 is missing, between line 6 and line 8"]}
    write(path, 1, start=10)
    assert len(problems(path)["s1"]) == 1
    assert len(read_history(path, 100)) == 9


def test_C3_copies_take_what_follows_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "m1" / "history.jsonl"
    path.parent.mkdir()
    write(path, 12, node="m1")
    chain = json.loads(path.read_bytes().splitlines()[0])["chain"]
    copies = Copies(tmp_path / "p1")
    first = lines_after(str(path), chain, 0)
    assert copies.add("m1", chain, first[:5]).n == 5
    with pytest.raises(BrokenChainError, match="does not follow line 5"):
        copies.add("m1", chain, first[6:])
    with pytest.raises(BrokenChainError):
        copies.add("m1", "beef0000", first[5:])
    fresh = Copies(tmp_path / "p1")  # after a restart
    assert fresh.link("m1").n == 5
    assert fresh.add("m1", chain, lines_after(str(path), chain, 5)).n == 12
    assert hash_at(copies.path("m1"), chain, 12) == fresh.link("m1").hash
    own = tmp_path / "p1" / "history.jsonl"
    write(own, 2)
    assert problems(own, "p1") == {"p1": [], "m1": []}
    told = read_history(own, 50, node="m1")
    assert [item["to"] for item in told[:2]] == ["12", "11"] and len(told) == 12
    assert len(read_history(own, 50, node="all")) == 14


def test_C3_a_history_that_begins_anew_leaves_the_old_copy(tmp_path: Path) -> None:
    copies = Copies(tmp_path / "p1")
    for directory in ("one", "two"):
        path = tmp_path / directory / "history.jsonl"
        path.parent.mkdir()
        write(path, 3)
        chain = json.loads(path.read_bytes().splitlines()[0])["chain"]
        copies.add("m1", chain, lines_after(str(path), chain, 0))
    names = sorted(os.listdir(tmp_path / "p1" / "audit"))
    assert len(names) == 2 and names[0] == "m1.jsonl" and names[1].startswith("m1@")
    assert copies.nodes() == ["m1"]


class World:
    """A node's files as others change them."""

    def __init__(self, directory: Path) -> None:
        self.config = directory / "config"
        self.config.mkdir()
        self.sessions = directory / "sessions.jsonl"
        self.state = directory / "state"
        self.state.mkdir()
        self.write("ha", "config ha 'default'\n\toption role 'slave'\n\toption secret '123456'\n")

    def write(self, name: str, text: str) -> None:
        (self.config / name).write_text(text)

    def start(self) -> Changes:
        return Changes(
            config_dir=self.config,
            state_dir=self.state,
            sessions=self.sessions,
            record=lambda _entry: None,
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_C3_an_edit_is_told_with_what_was_and_what_is_and_never_a_secret(world: World) -> None:
    changes = world.start()
    assert changes.look() == [], "what is there at the first start is no change"
    world.write("ha", "config ha 'default'\n\toption role 'master'\n\toption secret 'topsecret'\n")
    (told,) = changes.look()
    assert (told["kind"], told["item"], told["by"]) == ("config", "ha", "edited on this node")
    assert told["detail"] == "ha.default.role: slave -> master; ha.default.secret changed"
    assert changes.look() == []
    world.write("server", "config server 'default'\n\toption port '7552'\n")
    changes.came([str(world.config / "server")], "m1")
    (told,) = changes.look()
    assert (told["by"], told["peer"]) == ("synchronised from m1", "m1")
    (world.config / "server").unlink()
    assert changes.look()[0]["detail"] == "the file was removed"
    kept = (world.state / "audit" / "seen.json").read_text()
    assert "topsecret" not in kept and "123456" not in kept


def test_C3_an_edit_made_while_ha_was_down_is_found_when_it_starts(world: World) -> None:
    world.start().look()
    world.write("ha", "config ha 'default'\n\toption role 'passive'\n\toption secret '123456'\n")
    (told,) = world.start().look()
    assert told["detail"] == "ha.default.role: slave -> passive"


def test_C3_logins_and_refused_logins_are_taken_from_the_record_of_sessions(world: World) -> None:
    def add(event: str, **more: Any) -> None:
        raw = {"time": 5.5, "event": event, "console": "desk-4", "address": "10.0.0.9", **more}
        with open(world.sessions, "a") as file:
            file.write(json.dumps(raw) + "\n")

    add("login")
    changes = world.start()
    assert changes.look() == [], "what was before the audit began is not its own"
    add("refused", cause="wrong_token")
    with open(world.sessions, "a") as file:
        file.write('{"half": "a li')
    (told,) = changes.look()
    assert (told["kind"], told["by"], told["time"]) == ("refused", "desk-4", 5.5)
    assert told["detail"] == "console desk-4 from 10.0.0.9: refused, wrong_token"
    with open(world.sessions, "a") as file:
        file.write('ne"}\n')
    assert len(changes.look()) == 1
    add("login")
    os.replace(world.sessions, f"{world.sessions}.1")
    add("logout")
    later = world.start()  # the daemon was restarted meanwhile
    assert [item["to"] for item in later.look()] == ["login", "logout"]
