"""The store on real files: atomic commits, locks, owners and modes, several processes at once."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controlone_ha.uci import (
    Change,
    ChangeKind,
    Package,
    Store,
    UciInvalidError,
    UciIoError,
    UciNotFoundError,
    UciSyntaxError,
    files,
    load,
    save,
)

pytestmark = pytest.mark.contract

NET = "config a 'b'\n\toption x '1'\n\tlist l 'p'\n\nconfig a\n\toption y '2'\n"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store of one package, ``net``."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "net").write_text(NET)
    return Store(tmp_path / "config", tmp_path / "staged", override_dir=None)


@pytest.fixture
def file(store: Store) -> Path:
    """The file of ``net``."""
    return Path(store.path("net"))


def in_child(action: Callable[[], object]) -> int:
    """Run ``action`` in a child process and return its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        action()
        code = 0
    finally:
        os._exit(code)


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class TestChanging:
    def test_what_is_staged_is_seen_and_the_file_stays(self, store: Store, file: Path) -> None:
        store.set("net", "b", "x", "9")
        assert store.get("net", "b", "x") == "9"
        assert file.read_text() == NET
        assert (Path(store.save_dir) / "net").read_text() == "net.b.x='9'\n"

    def test_a_commit_leaves_the_canonical_form_and_nothing_staged(
        self, store: Store, file: Path
    ) -> None:
        store.set("net", "b", "x", "it's")
        store.set("net", "b", "l", ["q", "r"])
        store.set("net", "@a[1]", "z", "3")
        committed = store.commit("net")
        assert file.read_text() == (
            "\nconfig a 'b'\n\toption x 'it'\\''s'\n\tlist l 'q'\n\tlist l 'r'\n\n"
            "config a\n\toption y '2'\n\toption z '3'\n\n"
        )
        assert store.changes("net") == []
        assert load(file) == committed == store.package("net")

    def test_every_kind_of_change_can_be_staged(self, store: Store) -> None:
        name = store.add("net", "typ")
        store.set_section("net", "new", "t")
        store.add_list("net", "b", "l", "q")
        store.del_list("net", "b", "l", "p")
        store.rename("net", "b", "x", "w")
        store.rename("net", "b", None, "c")
        store.reorder("net", "c", 1)
        store.delete("net", "cfg02b606")
        assert name == "cfg03b062"
        assert store.changes("net") == [
            Change(ChangeKind.ADD, name, None, "typ"),
            Change(ChangeKind.CHANGE, "new", None, "t"),
            Change(ChangeKind.LIST_ADD, "b", "l", "q"),
            Change(ChangeKind.LIST_DEL, "b", "l", "p"),
            Change(ChangeKind.RENAME, "b", "x", "w"),
            Change(ChangeKind.RENAME, "b", None, "c"),
            Change(ChangeKind.REORDER, "c", None, "1"),
            Change(ChangeKind.REMOVE, "cfg02b606"),
        ]
        package = store.commit("net")
        assert [one.name for one in package] == ["c", name, "new"]
        assert package.get("c", "w") == "1" and package.get("c", "l") == "q"

    def test_a_revert_drops_what_it_names(self, store: Store) -> None:
        store.set("net", "b", "x", "9")
        store.set("net", "b", "y", "9")
        store.revert("net", "b", "x")
        assert [one.option for one in store.changes("net")] == ["y"]
        store.revert("net")
        assert store.changes("net") == []

    def test_a_list_set_to_itself_stages_nothing(self, store: Store) -> None:
        store.set("net", "b", "l", ["p"])
        assert store.changes("net") == []

    def test_a_list_set_to_nothing_is_removed(self, store: Store) -> None:
        store.set("net", "b", "l", [])
        assert store.get("net", "b", "l") is None

    def test_impossible_requests_are_refused_and_stage_nothing(self, store: Store) -> None:
        for wrong in (
            lambda: store.set("net", "nope", "x", "1"),
            lambda: store.set("net", "b", "x-y", "1"),
            lambda: store.set("net", "b", "x", "a\x01"),
            lambda: store.set("net", "b", "x", ["a", "\0"]),
            lambda: store.set("net", "b", "x", "\ud800"),
            lambda: store.set_section("net", "new", "a b"),
            lambda: store.set_section("net", "@a[9]", "a"),
            lambda: store.add("net", "a#b"),
            lambda: store.rename("net", "b", None, "a-b"),
            lambda: store.add_list("net", "nope", "l", "1"),
            lambda: store.package("n t"),
        ):
            with pytest.raises(UciInvalidError):
                wrong()
        for missing in (
            lambda: store.delete("net", "nope"),
            lambda: store.delete("net", "b", "nope"),
            lambda: store.reorder("net", "nope", 0),
            lambda: store.package("nope"),
            lambda: store.package(".nope"),
        ):
            with pytest.raises(UciNotFoundError):
                missing()
        assert store.changes("net") == []

    def test_names_lists_files_that_can_be_packages(self, store: Store, tmp_path: Path) -> None:
        for name in ("b", "A", "a.b", ".c", "d e"):
            (tmp_path / "config" / name).write_text("")
        (tmp_path / "config" / "dir").mkdir()
        assert store.names() == ["A", "b", "net"]
        with pytest.raises(UciNotFoundError):
            Store(tmp_path / "nowhere").names()

    def test_the_override_directory_wins(self, store: Store, tmp_path: Path, file: Path) -> None:
        (tmp_path / "over").mkdir()
        (tmp_path / "over" / "net").write_text("config a 'o'\n")
        store.override_dir = str(tmp_path / "over")
        store.set("net", "o", "x", "1")
        store.commit("net")
        assert (tmp_path / "over" / "net").read_text() == "\nconfig a 'o'\n\toption x '1'\n\n"
        assert file.read_text() == NET


class TestFiles:
    def test_mode_and_owner_survive_a_commit(self, store: Store, file: Path) -> None:
        file.chmod(0o640)
        owner = (12345, 23456) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
        os.chown(file, *owner)
        store.set("net", "b", "x", "9")
        store.commit("net")
        left = file.stat()
        assert (left.st_uid, left.st_gid, left.st_mode & 0o7777) == (*owner, 0o640)
        assert "'9'" in file.read_text()

    def test_a_new_file_and_the_save_directory_are_private(
        self, store: Store, tmp_path: Path
    ) -> None:
        package = Package("fresh")
        package.add("a", "b")
        store.write(package)
        assert (tmp_path / "config" / "fresh").stat().st_mode & 0o777 == 0o600
        (tmp_path / "config").chmod(0o700)
        store.set("fresh", "b", "x", "1")
        assert Path(store.save_dir).stat().st_mode & 0o777 == 0o700
        assert (Path(store.save_dir) / "fresh").stat().st_mode & 0o777 == 0o600

    def test_a_symbolic_link_stays_one(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "real").write_text(NET)
        link = tmp_path / "config" / "linked"
        link.symlink_to("../data/real")
        store.set("linked", "b", "x", "9")
        store.commit("linked")
        assert link.is_symlink()
        assert "'9'" in (tmp_path / "data" / "real").read_text()

    @pytest.mark.parametrize(
        "broken", ["bad\n", "config a b\n\toption x 'open\n", "config a b\n\toption x 'a\0b'\n"]
    )
    def test_a_parse_error_changes_no_file(self, store: Store, file: Path, broken: str) -> None:
        store.set("net", "b", "x", "9")
        file.write_text(broken)
        before = file.stat()
        for request in (
            lambda: store.commit("net"),
            lambda: store.set("net", "b", "x", "8"),
            lambda: store.package("net"),
        ):
            with pytest.raises(UciSyntaxError, match=f"^{file}:"):
                request()
        after = file.stat()
        assert file.read_text() == broken
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        assert (Path(store.save_dir) / "net").read_text() == "net.b.x='9'\n"

    def test_a_commit_without_changes_does_not_touch_the_file(
        self, store: Store, file: Path
    ) -> None:
        before = file.stat()
        store.commit("net")
        after = file.stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        assert file.read_text() == NET

    def test_a_full_disk_leaves_file_and_staged_changes(
        self, store: Store, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.set("net", "b", "x", "9")

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(UciIoError, match="No space left"):
                store.commit("net")
        assert file.read_text() == NET
        assert [one.value for one in store.changes("net")] == ["9"]
        assert sorted(one.name for one in file.parent.iterdir()) == ["net"]
        store.commit("net")
        assert "'9'" in file.read_text()

    def test_what_is_no_regular_file_is_not_read(self, store: Store, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "config" / "pipe")
        for name in ("pipe", str(tmp_path / "config"), str(tmp_path / "nothing")):
            with pytest.raises(UciNotFoundError):
                store.package(name)

    def test_a_save_directory_that_is_a_file_is_an_error(
        self, store: Store, tmp_path: Path
    ) -> None:
        (tmp_path / "staged").write_text("")
        with pytest.raises(UciIoError, match="not a directory"):
            store.set("net", "b", "x", "9")

    def test_leftovers_of_a_killed_commit_go_away_when_old(self, store: Store, file: Path) -> None:
        old, young = file.parent / ".net.uci-old", file.parent / ".net.uci-young"
        for one in (old, young):
            one.write_text("half")
        os.utime(old, (1, 1))
        store.set("net", "b", "x", "9")
        store.commit("net")
        assert not old.exists() and young.exists()

    def test_load_and_save_work_on_any_path(self, tmp_path: Path) -> None:
        path = tmp_path / "some.file"
        package = Package("some.file")
        package.add("a", "b").set("x", "\udcff")
        save(path, package)
        assert path.read_bytes() == b"\nconfig a 'b'\n\toption x '\xff'\n\n"
        assert load(path) == package
        with pytest.raises(UciNotFoundError):
            load(tmp_path / "nothing")


class TestSeveralProcesses:
    def test_concurrent_commits_lose_nothing(self, store: Store) -> None:
        def work(name: str) -> Callable[[], None]:
            def run() -> None:
                for number in range(25):
                    store.add_list("net", "b", "items", f"{name}{number}")
                    store.commit("net")

            return run

        pids = [in_child(work(name)) for name in "fgh"]
        assert [exit_code(pid) for pid in pids] == [0, 0, 0]
        section = store.commit("net").section("b")
        assert section is not None
        items = section.get_list("items")
        assert sorted(items) == sorted(f"{name}{number}" for name in "fgh" for number in range(25))
        for name in "fgh":
            mine = [one for one in items if one.startswith(name)]
            assert mine == [f"{name}{number}" for number in range(25)]

    def test_a_commit_waits_for_the_lock_of_the_file(self, store: Store, file: Path) -> None:
        store.set("net", "b", "x", "9")
        with file.open("r+") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            pid = in_child(lambda: store.commit("net"))
            time.sleep(0.2)
            assert os.waitpid(pid, os.WNOHANG) == (0, 0)
            assert file.read_text() == NET
            fcntl.flock(held, fcntl.LOCK_UN)
        assert exit_code(pid) == 0
        assert "'9'" in file.read_text()

    def test_who_waited_for_a_replaced_file_takes_the_new_one(
        self, store: Store, file: Path
    ) -> None:
        store.set("net", "b", "x", "9")
        with file.open("r+") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            pid = in_child(lambda: store.commit("net"))
            time.sleep(0.2)
            replacement = file.with_name(".new")
            replacement.write_text(NET + "\toption late '1'\n")
            replacement.rename(file)
            fcntl.flock(held, fcntl.LOCK_UN)
        assert exit_code(pid) == 0
        assert "late '1'" in file.read_text() and "x '9'" in file.read_text()

    def test_a_change_staged_during_a_commit_is_kept(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.set("net", "b", "x", "9")
        pids: list[int] = []
        rename = os.rename

        def stage_meanwhile(source: str, target: str) -> None:
            pids.append(in_child(lambda: store.set("net", "b", "late", "1")))
            time.sleep(0.2)
            rename(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", stage_meanwhile)
            store.commit("net")
        assert [exit_code(pid) for pid in pids] == [0]
        assert [one.option for one in store.changes("net")] == ["late"]
        assert store.commit("net").get("b", "late") == "1"

    @pytest.mark.parametrize(
        "step", ["os.write", "os.fsync", "os.rename", "os.ftruncate", "files.overwrite"]
    )
    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_kill_9_at_each_step_leaves_old_or_new(
        self, store: Store, file: Path, step: str, moment: str
    ) -> None:
        store.set("net", "b", "x", "9")
        place, name = step.split(".")
        module = {"os": os, "files": files}[place]
        real = getattr(module, name)

        def die(*arguments: object) -> object:
            if moment == "after":
                real(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)
            return None

        def commit() -> None:
            setattr(module, name, die)
            store.commit("net")

        assert exit_code(in_child(commit)) == -signal.SIGKILL
        text = file.read_text()
        assert text == NET or text == (
            "\nconfig a 'b'\n\toption x '9'\n\tlist l 'p'\n\nconfig a\n\toption y '2'\n\n"
        )
        # Nothing is lost: the next commit ends where this one would have.
        assert store.commit("net").get("b", "x") == "9"
        assert load(file).get("b", "x") == "9"

    def test_kill_9_at_any_moment_leaves_old_or_new(self, store: Store, file: Path) -> None:
        marks = ["a" * 200_000, "b" * 200_000]

        def alternate() -> None:
            while True:
                for mark in marks:
                    store.set("net", "b", "x", mark)
                    store.commit("net")

        chance = random.Random(7)
        seen: set[str] = set()
        for tried in range(60):
            if tried >= 12 and len(seen) > 1:
                break
            pid = in_child(alternate)
            time.sleep(chance.uniform(0.02, 0.08))
            os.kill(pid, signal.SIGKILL)
            assert exit_code(pid) == -signal.SIGKILL
            value = load(file).get("b", "x")
            assert value in ("1", *marks)
            seen.add(value)
        assert len(seen) > 1

    def test_readers_never_see_half_a_file(self, store: Store, file: Path) -> None:
        def write() -> None:
            for number in range(60):
                store.set("net", "b", "x", str(number % 10) * 100_000)
                store.commit("net")

        pid = in_child(write)
        values = set()
        for value in self._until_ended(pid, lambda: load(file).get("b", "x")):
            assert value == "1" or (value is not None and len(set(value)) == 1)
            values.add(value)
        assert len(values) > 1

    @staticmethod
    def _until_ended(pid: int, read: Callable[[], str | None]) -> Iterator[str | None]:
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            yield read()
        yield read()
