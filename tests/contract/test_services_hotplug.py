"""The user's scripts at a transition, run by the real shell."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from controlone_ha.services.hotplug import MOST_WAITING, Hotplug
from tests.waiting import until


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    found = tmp_path / "hotplug.d"
    found.mkdir()
    return found


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_scripts_run_in_order_of_their_names_for_every_transition(
    directory: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for name in ("20-second", "10-first"):
        (directory / name).write_text(f'echo "{name} $STATE $PEER $REASON" >> {out}\n')
    (directory / ".hidden").write_text(f"echo hidden >> {out}\n")

    async def story() -> None:
        hotplug = Hotplug(directory)
        hotplug.start()
        hotplug.call({"STATE": "active", "PEER": "m1", "REASON": 'it\'s "dead"; $(id)'})
        hotplug.call({"STATE": "standby", "PEER": "m1", "REASON": "back"})
        await until(lambda: len(lines(out)) == 4)
        await hotplug.stop()

    asyncio.run(story())
    assert lines(out) == [
        '10-first active m1 it\'s "dead"; $(id)',
        '20-second active m1 it\'s "dead"; $(id)',
        "10-first standby m1 back",
        "20-second standby m1 back",
    ]


def test_a_hanging_script_blocks_nobody_and_is_killed_with_its_children(
    directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, child = tmp_path / "out", tmp_path / "child"
    (directory / "10-hangs").write_text(f"sleep 600 & echo $! > {child}\nwait\n")
    (directory / "20-next").write_text(f"echo $STATE >> {out}\n")

    async def story() -> float:
        hotplug = Hotplug(directory, timeout=0.5)
        hotplug.start()
        started = time.monotonic()
        hotplug.call({"STATE": "active"})
        called = time.monotonic() - started
        await until(lambda: lines(out) == ["active"])
        await hotplug.stop()
        return called

    assert asyncio.run(story()) < 0.1
    assert "10-hangs: did not end within 0.5 s, killed" in caplog.text
    pid = int(child.read_text())
    with pytest.raises(ProcessLookupError):
        for _ in range(200):
            os.kill(pid, 0)
            time.sleep(0.01)


def test_a_failing_script_is_told_with_what_it_printed(
    directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    (directory / "10-fails").write_text("echo cannot reach the lamp; exit 7\n")
    (directory / "20-next").write_text(f"echo ran >> {out}\n")

    async def story() -> None:
        hotplug = Hotplug(directory)
        hotplug.start()
        hotplug.call({"STATE": "active"})
        await until(lambda: lines(out) == ["ran"])
        await hotplug.stop()

    asyncio.run(story())
    assert "10-fails: exit code 7: cannot reach the lamp" in caplog.text


def test_when_too_much_waits_the_oldest_is_dropped_and_said_so(
    directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    (directory / "10-notes").write_text(f"echo $STATE >> {out}\n")

    async def story() -> None:
        hotplug = Hotplug(directory)
        for number in range(MOST_WAITING + 1):
            hotplug.call({"STATE": str(number)})
        hotplug.start()
        await until(lambda: str(MOST_WAITING) in lines(out), 60.0)
        await hotplug.stop()

    asyncio.run(story())
    assert "0" not in lines(out)
    assert len(lines(out)) == MOST_WAITING
    assert "too slow: dropped 0" in caplog.text


def test_a_missing_directory_is_nothing_to_say(tmp_path: Path) -> None:
    async def story() -> None:
        hotplug = Hotplug(tmp_path / "none")
        hotplug.start()
        hotplug.call({"STATE": "active"})
        await until(lambda: not hotplug._waiting)
        await hotplug.stop()

    asyncio.run(story())
    assert not (tmp_path / "none").exists()
