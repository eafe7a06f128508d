"""Replicas of real files and journals without links: convergence, crashes, clocks, damage."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from controlone_ha.sync import files
from controlone_ha.sync.conflicts import Conflicts
from controlone_ha.sync.items import Item
from controlone_ha.sync.journal import Journal
from controlone_ha.sync.replica import TROUBLE, Replica
from controlone_ha.sync.stamps import FutureStamp
from controlone_ha.sync.versions import Verdict, Version

SKEW = 5.0


class Node:
    """A replica of a node whose files lie below ``base``, as others see them under one path."""

    def __init__(self, name: str, base: Path, shared: Path, *, is_uci: bool = False) -> None:
        self.name = name
        self.base = base
        self.shared = shared
        self.offset = 0.0
        self.is_uci = is_uci
        (base / "files").mkdir(parents=True, exist_ok=True)
        self.open()

    def open(self) -> None:
        self.replica = Replica(
            self.name,
            Journal(self.base / "sync.db"),
            Conflicts(self.base / "lost"),
            allowed_skew=SKEW,
            wall=lambda: time.time() + self.offset,
        )
        item = Item(name="set", paths=(str(self.shared),), is_uci=self.is_uci)
        self.replica.configure({"set": item}, SKEW)

    def restart(self) -> None:
        self.replica.journal.close()
        self.open()
        self.enter()
        self.replica.open()

    def enter(self) -> None:
        """Make the shared path lead to this node's files."""
        if self.shared.is_symlink():
            self.shared.unlink()
        self.shared.symlink_to(self.base / "files")

    def write(self, name: str, content: bytes) -> None:
        self.enter()
        target = self.shared / name
        temporary = target.with_name(".new")
        temporary.write_bytes(content)
        os.replace(temporary, target)

    def scan(self) -> list[Version]:
        self.enter()
        return self.replica.scan("set")

    def read(self, name: str) -> bytes | None:
        file = self.base / "files" / name
        return file.read_bytes() if file.exists() else None

    def lost(self) -> list[bytes]:
        return [file.read_bytes() for file in (self.base / "lost").glob("*") if not file.suffix]


def pull(taker: Node, giver: Node) -> int:
    """Let one node take everything it wants of the other; return how much changed."""
    moved = 0
    giver.enter()
    for version in list(giver.replica.journal.all_of("set")):
        taker.enter()
        before = taker.replica.journal.get(version.path)
        if taker.replica.judge(version) is Verdict.WANT:
            giver.enter()
            content = giver.replica.content(version)
            taker.enter()
            taker.replica.accept(version, content)
        after = taker.replica.journal.get(version.path)
        moved += (before and before.identity) != (after and after.identity)
    return moved


def level(nodes: list[Node]) -> None:
    """Exchange until nobody learns anything new."""
    for node in nodes:
        node.scan()
    for _round in range(20):
        if not sum(pull(a, b) for a in nodes for b in nodes if a is not b):
            return
    raise AssertionError("the nodes never agree")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Node, Node]:
    shared = tmp_path / "shared"
    return Node("m1", tmp_path / "m1", shared), Node("m2", tmp_path / "m2", shared)


def test_S2_equal_files_of_two_fresh_nodes_are_not_copied_and_get_one_stamp(
    pair: tuple[Node, Node],
) -> None:
    for node in pair:
        node.write("a", b"the same")
        node.scan()
    inode = (pair[0].base / "files" / "a").stat().st_ino
    level(list(pair))
    versions = [node.replica.journal.get(str(node.shared / "a")) for node in pair]
    assert versions[0] is not None and versions[1] is not None
    assert versions[0].identity == versions[1].identity
    assert (pair[0].base / "files" / "a").stat().st_ino == inode
    assert pair[0].replica.journal.buckets("set") == pair[1].replica.journal.buckets("set")


def test_S3_what_follows_the_winner_of_a_conflict_is_no_second_conflict(
    pair: tuple[Node, Node],
) -> None:
    loser, winner = pair
    loser.write("a", b"the earlier one")
    loser.scan()
    winner.write("a", b"the later one")
    winner.scan()
    pull(loser, winner)  # the winner never hears of what has lost
    winner.write("a", b"the next one")
    winner.scan()
    pull(loser, winner)
    assert loser.read("a") == b"the next one"
    # It follows what has won, and is no second conflict.
    assert sorted(copy.why for copy in loser.replica.losers.list()) == ["conflict", "replaced"]


def test_S1_mode_and_mtime_are_kept_and_a_new_mtime_alone_is_no_change(
    pair: tuple[Node, Node],
) -> None:
    first, second = pair
    first.write("a", b"content")
    file = first.base / "files" / "a"
    file.chmod(0o640)
    os.utime(file, ns=(10**18, 10**18))
    level([first, second])
    other = second.base / "files" / "a"
    assert (other.stat().st_mode & 0o777, other.stat().st_mtime_ns) == (0o640, 10**18)
    os.utime(file)
    assert first.scan() == []
    file.chmod(0o600)
    level([first, second])
    assert other.stat().st_mode & 0o777 == 0o600


def test_a_stamp_from_the_future_is_refused_and_made_anew_once_the_clock_is_right(
    pair: tuple[Node, Node],
) -> None:
    first, second = pair
    first.offset = 3600.0
    first.write("a", b"from the future")
    os.utime(first.base / "files" / "a", (time.time() + 3600.0,) * 2)
    (version,) = first.scan()
    second.enter()
    with pytest.raises(FutureStamp):
        second.replica.judge(version)
    assert second.read("a") is None
    first.offset = 0.0
    first.enter()
    (again,) = first.replica.restamp()
    assert again.stamp.wall_us < time.time() * 1e6 + 1e6
    level([first, second])
    assert second.read("a") == b"from the future"


def test_a_node_restored_from_an_old_image_loses_to_what_peers_know_and_stamps_anew(
    pair: tuple[Node, Node], tmp_path: Path
) -> None:
    first, second = pair
    first.write("a", b"old")
    level([first, second])
    first.replica.journal.close()
    image = tmp_path / "image"
    shutil.copytree(first.base, image)
    first.open()
    first.write("a", b"newer, made before the failure")
    level([first, second])
    first.replica.journal.close()
    shutil.rmtree(first.base)
    shutil.copytree(image, first.base)
    first.restart()
    level([first, second])
    assert first.read("a") == second.read("a") == b"newer, made before the failure"
    assert first.replica.stamp_name == "m1#2"
    first.write("a", b"after")
    level([first, second])
    assert second.read("a") == b"after"


def test_damage_without_a_trace_is_found_by_reading_and_mended_from_a_peer(
    pair: tuple[Node, Node],
) -> None:
    first, second = pair
    first.write("a", b"good content")
    level([first, second])
    file = first.base / "files" / "a"
    first.enter()
    with file.open("r+b") as stream:
        stream.write(b"BAD!")
    version = first.replica.journal.get(str(first.shared / "a"))
    found = file.stat()
    # What no program does but a failing disk: other bytes under the same size and times.
    from controlone_ha.sync.journal import Signature

    assert version is not None
    signature = Signature(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
    first.replica.journal.see(version.path, signature)
    assert first.replica.scan("set", everything=True) == []
    assert version.path in first.replica.damaged
    assert first.replica.problems
    pull(first, second)
    assert first.read("a") == b"good content"
    assert not first.replica.damaged and not first.replica.problems


def test_S1_what_a_scan_refused_is_no_problem_any_more_once_it_is_gone(
    pair: tuple[Node, Node],
) -> None:
    first = pair[0]
    first.write("a", b"a file")
    link = first.base / "files" / "out"
    link.symlink_to("/tmp")
    path = str(first.shared / "out")
    first.replica.scan("set")
    assert "only regular files" in first.replica.problems[path][1]
    link.unlink()
    first.replica.examine([path])  # as the kernel tells it, without another scan
    assert first.replica.problems == {}

    link.symlink_to("/tmp")
    first.replica.scan("set")
    link.unlink()
    link.mkdir()  # before anybody has looked again
    first.replica.examine([path])
    assert first.replica.problems == {}


def test_a_full_disk_leaves_everything_as_it_was(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    first.write("a", b"old")
    level([first, second])
    first.write("a", b"new")
    (version,) = first.scan()

    def full(*_arguments: object) -> int:
        raise OSError(28, os.strerror(28))

    second.enter()
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        second.replica.accept(version, b"new")
    monkeypatch.undo()
    assert second.read("a") == b"old"
    assert os.listdir(second.base / "files") == ["a"]
    second.replica.accept(version, b"new")
    assert second.read("a") == b"new"


def test_S2_a_large_file_goes_on_after_a_cut_where_it_had_stopped(
    pair: tuple[Node, Node],
) -> None:
    first, second = pair
    content = os.urandom(3 << 20)
    first.write("large", content)
    (version,) = first.scan()
    assert first.replica.is_streamed(version)
    second.enter()
    part = second.replica.begin(version)
    part.append(content[: 1 << 20])
    part.close()  # the link was cut, or `ha` was killed
    second.restart()
    assert second.scan() == [] and second.read("large") is None
    part = second.replica.begin(version)
    assert part.size == 1 << 20
    part.append(content[1 << 20 :])
    assert second.replica.accept(version, part).changed
    assert second.read("large") == content
    assert os.listdir(second.base / "files") == ["large"]


def test_S2_a_large_file_with_other_bytes_than_announced_is_thrown_away(
    pair: tuple[Node, Node],
) -> None:
    first, second = pair
    first.write("large", os.urandom(1 << 20))
    (version,) = first.scan()
    second.enter()
    part = second.replica.begin(version)
    part.append(bytes(1 << 20))
    with pytest.raises(OSError, match="checksum"):
        second.replica.accept(version, part)
    assert os.listdir(second.base / "files") == []


def test_a_large_file_read_by_another_thread_is_not_read_again(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _second = pair
    first.write("large", b"content")
    path = str(first.shared / "large")
    found = files.look(path)
    assert found is not None
    checksum, size = files.checksum_of(path)
    monkeypatch.setattr(files, "checksum_of", lambda _path: pytest.fail("read again"))
    (version,) = first.replica.examine_hashed(path, found[0], checksum, size)
    assert (version.checksum, version.size) == (checksum, size)


def test_F4_a_receiver_killed_anywhere_has_the_old_or_the_new_file_and_never_an_edit_of_its_own(
    tmp_path: Path,
) -> None:
    chance = random.Random(7)
    shared = tmp_path / "shared"
    giver, taker = Node("m1", tmp_path / "m1", shared), Node("m2", tmp_path / "m2", shared)
    giver.write("a", b"0" * 5000)
    giver.scan()
    pull(taker, giver)
    for number in range(1, 26):
        content = str(number).encode() * 5000
        giver.write("a", content)
        (version,) = giver.scan()
        taker.enter()
        taker.replica.journal.close()
        child = os.fork()
        if child == 0:
            taker.open()
            taker.replica.accept(version, content)
            os._exit(0)
        time.sleep(chance.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        taker.restart()
        found = taker.read("a")
        assert found in (content, str(number - 1).encode() * 5000)
        assert taker.scan() == []  # nothing received is taken for an edit of this node
        pull(taker, giver)
        assert taker.read("a") == content


def test_S3_both_sides_of_a_uci_file_are_merged_and_what_loses_is_kept(tmp_path: Path) -> None:
    shared = tmp_path / "config"
    nodes = [Node(name, tmp_path / name, shared, is_uci=True) for name in ("m1", "m2", "m3")]
    nodes[0].write("queues", b"config q 'a'\n\toption x '1'\n\toption y '1'\n")
    level(nodes)
    nodes[0].write("queues", b"config q 'a'\n\toption x '2'\n\toption y '2'\n")
    nodes[0].scan()
    nodes[1].write("queues", b"config q 'a'\n\toption x '1'\n\toption y '3'\n\toption z '4'\n")
    level(nodes)
    text = nodes[2].read("queues")
    assert text is not None
    assert {node.read("queues") for node in nodes} == {text}
    assert b"x '2'" in text and b"y '3'" in text and b"z '4'" in text
    assert any(b"y '2'" in kept for node in nodes for kept in node.lost())


class Cluster(RuleBasedStateMachine):
    """Three nodes, edited, cut off, restarted and with clocks apart, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="sync-"))
        shared = self.directory / "shared"
        self.nodes = [Node(name, self.directory / name, shared) for name in ("a", "b", "c")]
        self.written: dict[bytes, bool] = {}
        self.number = 0

    def teardown(self) -> None:
        level(self.nodes)
        held = [{name: node.read(name) for name in "xy"} for node in self.nodes]
        for name in "xy":
            assert len({item[name] for item in held} - {None}) <= 1, held
        kept = {content for node in self.nodes for content in node.lost()}
        kept |= {content for item in held for content in item.values() if content is not None}
        missing = [
            text for text, is_gone in self.written.items() if text not in kept and not is_gone
        ]
        assert missing == []
        for node in self.nodes:
            node.replica.journal.close()
        shutil.rmtree(self.directory)

    @rule(index=st.integers(0, 2), name=st.sampled_from("xy"))
    def edit(self, index: int, name: str) -> None:
        node = self.nodes[index]
        self.number += 1
        content = f"{node.name} {self.number}".encode()
        self._forget(node, name)
        node.write(name, content)
        node.scan()
        self.written[content] = False

    @rule(index=st.integers(0, 2), name=st.sampled_from("xy"))
    def delete(self, index: int, name: str) -> None:
        node = self.nodes[index]
        self._forget(node, name)
        (node.base / "files" / name).unlink(missing_ok=True)
        node.scan()

    def _forget(self, node: Node, name: str) -> None:
        """What a person overwrites or deletes by hand is gone on purpose."""
        before = node.read(name)
        if before is not None:
            self.written[before] = True

    @rule(first=st.integers(0, 2), second=st.integers(0, 2))
    def meet(self, first: int, second: int) -> None:
        if first != second:
            try:
                pull(self.nodes[first], self.nodes[second])
                pull(self.nodes[second], self.nodes[first])
            except TROUBLE as error:
                assert isinstance(error, FutureStamp), error

    @rule(index=st.integers(0, 2))
    def restart(self, index: int) -> None:
        self.nodes[index].restart()

    @rule(index=st.integers(0, 2), offset=st.floats(-2.0, 2.0))
    def skew(self, index: int, offset: float) -> None:
        self.nodes[index].offset = offset

    @invariant()
    def digests_are_those_of_the_versions(self) -> None:
        from controlone_ha.sync.versions import bucket_of, combined, digest_of

        for node in self.nodes:
            expected: dict[int, bytes] = {}
            for version in node.replica.journal.all_of("set"):
                number = bucket_of(version.path)
                expected[number] = combined(expected.get(number, bytes(8)), digest_of(version))
            stored = node.replica.journal.buckets("set")
            for number in range(256):
                assert stored[number * 8 : number * 8 + 8] == expected.get(number, bytes(8))


TestCluster = Cluster.TestCase
TestCluster.settings = settings(
    max_examples=20,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
