"""The history file on a real file system: order, bounds, torn lines, full disks, filters."""

from __future__ import annotations

import json
import resource
import signal
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controlone_ha.control import history as history_module
from controlone_ha.control.history import BURST, REFILL_S, History, read_history


def entry(number: int, **fields: Any) -> dict[str, Any]:
    return {"time": float(number), "node": "s1", "kind": "state", "to": "active"} | fields


def times(entries: list[dict[str, Any]]) -> list[int]:
    return [int(item["time"]) for item in entries]


def test_what_was_appended_is_read_newest_first_with_filters(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    for number in range(6):
        assert history.append(entry(number, peer=f"p{number % 2}"))
    history.append(entry(6, kind="link", reason={"code": "x", "params": {"peer": "p0"}}))
    assert times(history.read(3)) == [6, 5, 4]
    assert times(history.read(9, peer="p1")) == [5, 3, 1]
    assert times(history.read(9, peer="p0")) == [6, 4, 2, 0]
    assert times(history.read(9, kind="link")) == [6]
    assert times(history.read(9, since=4.0)) == [6, 5, 4]
    history.close()
    assert stat.S_IMODE((tmp_path / "history.jsonl").stat().st_mode) == 0o600


def test_an_entry_is_readable_at_once_and_survives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    history = History(path)
    for number in range(50):
        history.record(entry(number))
        assert times(history.read(1)) == [number]
    assert times(history.read(100)) == list(range(49, -1, -1))
    history.close()
    assert times(read_history(path, 100)) == list(range(49, -1, -1))


def test_a_line_torn_by_a_power_cut_spoils_neither_neighbour(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    history = History(path)
    history.append(entry(1))
    history.append(entry(2))
    history.close()
    path.write_bytes(path.read_bytes()[:-20])
    history = History(path)
    assert times(history.read(9)) == [1]
    history.append(entry(3))
    assert times(history.read(9)) == [3, 1]
    history.close()


def test_foreign_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    good = json.dumps(entry(4)).encode()
    path.write_bytes(b'[]\n{"time":"x"}\n\xff\xfe\n\n' + good + b"\n{}\nnull\n")
    assert times(read_history(path, 9)) == [4]
    assert read_history(tmp_path / "missing.jsonl", 9) == []


def test_size_and_number_of_files_are_bounded_and_reading_crosses_them(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    clock = [0.0]

    def wait(seconds: float) -> None:
        clock[0] += seconds

    history = History(path, max_bytes=2000, files=3, monotonic=lambda: clock[0], wait=wait)
    for number in range(200):
        history.append(entry(number, text="x" * 50))
    history.close()
    names = sorted(item.name for item in tmp_path.iterdir())
    assert names == ["history.jsonl", "history.jsonl.1", "history.jsonl.2"]
    assert all(item.stat().st_size <= 2000 for item in tmp_path.iterdir())
    kept = times(read_history(path, 1000))
    assert kept == list(range(199, 199 - len(kept), -1))
    assert len(kept) > 2000 // 240 * 2


def test_lines_longer_than_a_block_are_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "BLOCK", 7)
    history = History(tmp_path / "history.jsonl")
    for number in range(5):
        history.append(entry(number, text="é" * number))
    assert [item["text"] for item in history.read(9)] == ["éééé", "ééé", "éé", "é", ""]
    history.close()


def test_an_entry_without_measure_is_shortened_to_its_sentence(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    evidence = [{"text": "x" * 1000}] * 100
    history.append(entry(1, reason={"code": "c", "text": "because", "evidence": evidence}))
    history.close()
    assert (tmp_path / "history.jsonl").stat().st_size < 1000
    assert history.read(1)[0]["reason"] == {"code": "c", "text": "because"}


def test_a_flapping_fault_is_written_rarely_and_nothing_of_it_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    appends: list[float] = []
    real_append = history_module.append_lines

    def counted(path: str, data: bytes) -> None:
        appends.append(clock[0])
        real_append(path, data)

    monkeypatch.setattr(history_module, "append_lines", counted)
    arrived, proceed = threading.Event(), threading.Event()

    def wait(seconds: float) -> None:
        arrived.set()
        proceed.wait(10)
        clock[0] += seconds

    history = History(tmp_path / "history.jsonl", monotonic=lambda: clock[0], wait=wait)
    for number in range(BURST):
        assert history.append(entry(number))
    futures = [history.record(entry(number)) for number in range(BURST, BURST + 300)]
    assert arrived.wait(10)
    assert times(history.read(1)) == [BURST + 299]
    assert len(appends) == BURST
    proceed.set()
    assert all(future.result(10) for future in futures)
    assert appends[BURST:] == [pytest.approx(REFILL_S)]  # 300 entries, one append
    history.close()
    assert times(read_history(tmp_path / "history.jsonl", 1000)) == list(range(BURST + 299, -1, -1))


def test_more_waiting_entries_than_fit_lose_the_oldest_and_say_how_many(tmp_path: Path) -> None:
    directory = tmp_path / "not yet there"
    history = History(directory / "history.jsonl")
    for number in range(history_module.WAITING + 7):
        history.record(entry(number))
    assert history.append(entry(9000)) is False
    assert history.error is not None
    directory.mkdir()
    assert history.append(entry(9001)) is True
    history.close()
    kept = read_history(directory / "history.jsonl", 5000)
    assert len(kept) == history_module.WAITING
    assert kept[-1]["unwritten"] == 9


@pytest.fixture
def small_files() -> Callable[[int], None]:
    """Limit the size of files this process may write; undone by the caller with -1."""

    def limit(size: int) -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (size if size >= 0 else hard, hard))

    return limit


def test_a_full_disk_keeps_entries_readable_and_writes_them_when_there_is_room(
    tmp_path: Path, small_files: Callable[[int], None]
) -> None:
    path = tmp_path / "history.jsonl"
    history = History(path)
    history.append(entry(1))
    before = path.read_bytes()
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    small_files(len(before) + 10)
    try:
        assert history.append(entry(2)) is False
        assert history.append(entry(3)) is False
        assert path.read_bytes() == before  # no half line stays behind
        assert times(history.read(9)) == [3, 2, 1]
    finally:
        small_files(-1)
        signal.signal(signal.SIGXFSZ, handler)
    assert history.error is not None
    assert history.append(entry(4)) is True
    assert history.error is None
    history.close()
    assert times(read_history(path, 9)) == [4, 3, 2, 1]
