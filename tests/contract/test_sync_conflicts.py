"""Conflict copies on a real file system: kept before the winner comes, listed, compared, restored,
and forgotten in the end.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from controlone_ha.errors import RefusedError, UciError
from controlone_ha.sync import conflicts as module
from controlone_ha.sync.conflicts import Conflicts
from controlone_ha.sync.items import Item
from controlone_ha.sync.journal import Journal
from controlone_ha.sync.replica import Replica
from controlone_ha.sync.restoring import put_back
from controlone_ha.sync.stamps import Stamp
from controlone_ha.sync.versions import Version


class Wall:
    """A wall clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_750_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def store(tmp_path: Path, wall: Wall) -> Conflicts:
    return Conflicts(tmp_path / "conflicts", wall=wall)


def version(path: Path, wall_us: int, node: str, size: int = 1) -> Version:
    return Version(
        path=str(path), item="config", stamp=Stamp(wall_us, 0, node), checksum="0" * 64,
        size=size, mode=0o640, mtime_ns=1,
    )  # fmt: skip


def lose(store: Conflicts, path: Path, number: int, why: str = "conflict") -> None:
    store.keep(version(path, number, "a"), version(path, number + 1, "b"), why)


def test_S4_what_lost_is_kept_with_who_made_it_and_who_won(
    store: Conflicts, tmp_path: Path
) -> None:
    file = tmp_path / "f"
    file.write_text("old\n")
    lose(store, file, 5_000_000)
    os.replace(_written(tmp_path / "g", "new\n"), file)
    (copy,) = store.list()
    assert (copy.path, copy.why, copy.mode) == (str(file), "conflict", 0o640)
    assert (copy.loser.node, copy.winner.node) == ("a", "b")
    assert store.restore(copy.id[:8]) == b"old\n"
    assert store.diff(copy.id)["lines"] == ["@@ -1 +1 @@", "-old", "+new"]
    assert copy.to_json()["edited"] == 5.0


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_copy_is_readable_for_nobody_else(store: Conflicts, tmp_path: Path) -> None:
    store.keep_content(version(tmp_path / "f", 1, "a"), version(tmp_path / "f", 2, "b"), "x", b"y")
    assert store.directory.stat().st_mode & 0o777 == 0o700
    assert store.list()[0].file.stat().st_mode & 0o777 == 0o600


def test_a_copy_is_on_stable_storage_before_its_note_and_the_note_before_keep_returns(
    store: Conflicts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _written(tmp_path / "f", "old")
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    lose(store, file, 1)
    assert synced[0] in (file.name, store.list()[0].file.name)
    assert synced[1].endswith(".new")
    assert synced[2] == "conflicts"


def test_a_file_system_without_links_gets_a_real_copy(
    store: Conflicts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_source: str, _target: Path) -> None:
        raise OSError(18, "cross-device")

    monkeypatch.setattr(os, "link", refuse)
    file = _written(tmp_path / "f", "old")
    lose(store, file, 1)
    file.write_text("written over in place")
    assert store.list()[0].file.read_text() == "old"


def test_copies_that_were_merely_replaced_never_push_out_conflicts(
    store: Conflicts, tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_REPLACED", 3)
    file = _written(tmp_path / "f", "x")
    lose(store, file, 1)
    for number in range(2, 12):
        wall.now += 1
        lose(store, file, number, "replaced")
    store.prune()
    assert [copy.why for copy in store.list()] == ["replaced"] * 3 + ["conflict"]
    assert [copy.why for copy in store.list(everything=False)] == ["conflict"]
    assert len(list(store.directory.iterdir())) == 8


def test_conflicts_are_forgotten_by_count_and_by_age(
    store: Conflicts, tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_CONFLICTS", 2)
    file = _written(tmp_path / "f", "x")
    for number in range(3):
        wall.now += 1
        lose(store, file, number)
    assert len(store.list()) == 3  # nobody waits for that who brings a file
    store.tidy()
    assert [copy.loser.wall_us for copy in store.list()] == [2, 1]
    wall.now += module.KEPT_SECONDS + 1
    store.prune()
    assert store.list() == []


def test_a_conflict_that_is_restored_and_replaced_again_stays_one(
    store: Conflicts, tmp_path: Path
) -> None:
    file = _written(tmp_path / "f", "x")
    lose(store, file, 1)
    lose(store, file, 1, "replaced")
    assert [copy.why for copy in store.list()] == ["conflict"]


def test_notes_that_cannot_be_read_are_left_out(store: Conflicts, tmp_path: Path) -> None:
    file = _written(tmp_path / "f", "x")
    lose(store, file, 1)
    (store.directory / "1-a.json").write_bytes(b"\xff{")
    (store.directory / "2-b.json").write_text(json.dumps({"why": "conflict"}))
    assert len(store.list()) == 1


@pytest.mark.parametrize("name", ["", "zz", "../x"])
def test_a_copy_that_is_not_there_is_refused_in_words(store: Conflicts, name: str) -> None:
    with pytest.raises(RefusedError, match="there is no conflict copy"):
        store.find(name)


def test_bytes_that_are_no_text_are_compared_by_size(store: Conflicts, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"\0\1")
    lose(store, file, 1)
    os.unlink(file)
    assert store.diff(store.list()[0].id)["lines"] == ["- 2 bytes, no text", "+ 0 lines of text"]


# -- restoring -----------------------------------------------------------------------------------


@pytest.fixture
def replica(tmp_path: Path, store: Conflicts) -> Replica:
    (tmp_path / "config").mkdir()
    journal = Journal(tmp_path / "journal.db")
    made = Replica("a", journal, store, allowed_skew=5.0)
    made.configure(
        {"config": Item(name="config", paths=(str(tmp_path / "config" / "*"),), is_uci=True)}, 5.0
    )
    return made


SERVER = "config server 'default'\n\toption bind '10.0.0.%d'\n\toption port '%d'\n"


def test_S4_a_restored_copy_is_a_new_edit_and_what_it_replaces_is_kept(
    replica: Replica, store: Conflicts, tmp_path: Path
) -> None:
    file = tmp_path / "config" / "server"
    file.write_text(SERVER % (1, 7001))
    (first,) = replica.examine([str(file)])
    theirs = version(file, first.stamp.wall_us - 5, "b")
    store.keep_content(theirs, first, "conflict", (SERVER % (9, 7002)).encode())
    copy, made = put_back(replica, store.list()[0].id[:8])
    assert copy.path == str(file)
    assert "option port '7002'" in file.read_text()
    assert "option bind '10.0.0.1'" in file.read_text(), "node-scope options stay"
    assert made[-1].stamp > first.stamp
    assert {entry.why for entry in store.list()} >= {"replaced"}
    assert not [name for name in os.listdir(file.parent) if name.startswith(".")]


def test_a_copy_that_cannot_be_parsed_leaves_the_file_as_it_was(
    replica: Replica, store: Conflicts, tmp_path: Path
) -> None:
    file = _written(tmp_path / "config" / "server", SERVER % (1, 7001))
    (first,) = replica.examine([str(file)])
    store.keep_content(first, first, "conflict", b"option without section")
    with pytest.raises(UciError):
        put_back(replica, store.list()[0].id)
    assert file.read_text() == SERVER % (1, 7001)


def test_a_copy_of_a_file_that_is_synchronised_no_more_is_refused(
    replica: Replica, store: Conflicts, tmp_path: Path
) -> None:
    other = _written(tmp_path / "elsewhere", "x")
    lose(store, other, 1)
    with pytest.raises(RefusedError, match="is not synchronised on this node any more"):
        put_back(replica, store.list()[0].id)
