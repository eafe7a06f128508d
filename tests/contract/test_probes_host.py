"""The host probe on the real host: files, small file systems of its own, control groups."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from controlone_ha.core.health import DiskUse, StorageFault
from controlone_ha.probes import host
from controlone_ha.probes.host import HostProbe

pytestmark = pytest.mark.contract

CHECKOUT = Path(__file__).resolve().parents[2]


class TestSample:
    def test_F1_every_value_is_measured_and_plausible(self, tmp_path: Path) -> None:
        probe = HostProbe([tmp_path, tmp_path / "missing"], write_path=tmp_path)
        first = probe.sample()
        assert first.cpu_percent is None  # nothing to compare with yet
        deadline = time.monotonic() + 0.2
        while time.monotonic() < deadline:
            pass
        sample = probe.sample(lateness=0.25)
        assert sample.cpu_percent is not None and 5.0 < sample.cpu_percent <= 100.0
        assert sample.memory_percent is not None and 0.0 < sample.memory_percent < 100.0
        assert [use.path for use in sample.disks] == [str(tmp_path)]
        assert 0.0 <= sample.disks[0].percent <= 100.0
        assert sample.load_per_core is not None and sample.load_per_core >= 0.0
        assert sample.temperature is None or sample.sensor
        assert sample.lateness == 0.25
        assert sample.storage_error is None
        assert list(tmp_path.iterdir()) == []

    def test_measuring_in_the_loop_gives_the_same(self, tmp_path: Path) -> None:
        probe = HostProbe([tmp_path], write_path=tmp_path)
        sample = asyncio.run(probe.measure())
        assert [use.path for use in sample.disks] == [str(tmp_path)]
        assert sample.storage_error is None

    def test_the_write_check_spares_the_flash(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checks: list[float] = []
        now = 0.0
        monkeypatch.setattr(host, "write_check", lambda _: checks.append(now))
        probe = HostProbe([], write_path=tmp_path, write_every=600.0, clock=lambda: now)
        for step in range(0, 1300, 10):
            now = float(step)
            probe.sample()
        assert checks == [0.0, 600.0, 1200.0]

    def test_a_directory_that_is_gone_is_told(self, tmp_path: Path) -> None:
        sample = HostProbe([], write_path=tmp_path / "gone").sample()
        assert sample.storage_error is not None
        assert sample.storage_error.fault is StorageFault.OTHER
        assert sample.storage_error.detail == "No such file or directory"

    def test_F1_a_disk_that_hangs_delays_nothing_and_is_the_finding(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        free = threading.Event()
        started: list[Path] = []

        def hanging(path: Path) -> DiskUse:
            started.append(path)
            free.wait(30)
            return DiskUse(path=str(path), percent=1.0)

        monkeypatch.setattr(host, "disk_use", hanging)
        probe = HostProbe([tmp_path], write_path=tmp_path)

        async def story() -> None:
            for _ in range(3):
                sample = await probe.measure(patience=0.05)
                assert sample.storage_error is not None
                assert sample.storage_error.fault is StorageFault.HANGING
                assert sample.memory_percent is not None
            free.set()
            sample = await probe.measure(patience=5.0)
            assert sample.storage_error is None
            assert sample.disks[0].percent == 1.0

        asyncio.run(story())
        assert len(started) == 1  # one hanging check, not one a sample


def in_own_mount_namespace(script: str, directory: Path) -> Any:
    """Run Python as root with a tmpfs of 1 MiB on ``directory``; return the JSON it prints."""
    prelude = """
        import json, os, subprocess, sys
        from pathlib import Path
        from controlone_ha.probes.host import HostProbe
        directory = Path(sys.argv[1])
        def mount(*options):
            subprocess.run(["mount", *options, str(directory)], check=True)
        mount("-t", "tmpfs", "-o", "size=1m", "tmpfs")
    """
    source = textwrap.dedent(prelude) + textwrap.dedent(script)
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", source, directory],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.usefixtures("root")
class TestStorage:
    def test_F2_a_disk_that_fills_up_and_is_cleared_is_seen_at_once(self, tmp_path: Path) -> None:
        seen = in_own_mount_namespace(
            """
            probe, seen = HostProbe([directory], write_path=directory), []
            def look():
                sample = probe.sample()
                error = sample.storage_error
                seen.append([round(sample.disks[0].percent), error and error.fault])
            look()
            with open(directory / "filler", "wb") as filler:
                try:
                    while True:
                        os.write(filler.fileno(), bytes(4096))
                except OSError:
                    pass
            look()
            look()
            os.unlink(directory / "filler")
            look()
            print(json.dumps(seen))
            """,
            tmp_path,
        )
        assert seen == [[0, None], [100, "full"], [100, "full"], [0, None]]

    def test_F2_a_disk_that_turns_read_only_is_seen_at_once(self, tmp_path: Path) -> None:
        seen = in_own_mount_namespace(
            """
            probe, seen = HostProbe([directory], write_path=directory), []
            for options in ("remount,rw", "remount,ro", "remount,rw"):
                mount("-o", options)
                error = probe.sample().storage_error
                seen.append(error and error.fault)
            print(json.dumps(seen))
            """,
            tmp_path,
        )
        assert seen == [None, "read_only", None]


class TestControlGroup:
    @pytest.mark.parametrize(
        ("files", "cores", "expected"),
        [
            ({"cpu.stat": "usage_usec 5000000\nuser_usec 1\n", "cpu.max": "max 100000"}, 2.0, 25.0),
            ({"cpu.stat": "usage_usec 5000000\n", "cpu.max": "50000 100000\n"}, 0.0, 100.0),
            ({"cpu.stat": "usage_usec 5000000\n", "cpu.max": "400000 100000\n"}, 0.0, 12.5),
            ({"cpuacct.usage": "5000000000\n"}, 1.0, 50.0),
            ({"cpuacct.usage": "garbage\n"}, 1.0, None),
            ({}, 1.0, None),
        ],
    )
    def test_F1_a_container_is_measured_by_its_control_group(
        self, tmp_path: Path, files: dict[str, str], cores: float, expected: float | None
    ) -> None:
        now = 0.0
        probe = HostProbe([], cpu_source=tmp_path, cpu_cores=cores, clock=lambda: now)
        for name, text in files.items():
            (tmp_path / name).write_text(text.replace("5000000", "0"))
        probe.sample()
        now = 10.0
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        assert probe.sample().cpu_percent == (None if expected is None else pytest.approx(expected))


def test_a_sample_is_cheap(tmp_path: Path) -> None:
    probe = HostProbe([tmp_path], write_path=tmp_path)
    probe.sample()
    before = time.process_time()
    for _ in range(20):
        probe.sample()
    assert (time.process_time() - before) / 20 < 0.05
