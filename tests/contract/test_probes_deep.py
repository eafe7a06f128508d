"""Deep probes: pysipp beside today's pluggy, real SIPp calls to SIPp and to Asterisk."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pluggy
import pytest

from controlone_ha.core.observations import Outcome, ProbeResult, Service
from controlone_ha.probes import deep, pysipp_compat
from controlone_ha.probes.deep import DeepProbeError, deep_probe

pytestmark = pytest.mark.contract


class TestCompatibility:
    def test_pysipp_is_imported_beside_the_pluggy_that_pytest_uses(self) -> None:
        manager = pluggy.PluginManager
        modules = {name: sys.modules.get(name) for name in ("imp", "distutils", "distutils.spawn")}
        pysipp = pysipp_compat.load()
        assert pysipp is pysipp_compat.load()
        assert pluggy.PluginManager is manager
        assert {name: sys.modules.get(name) for name in modules} == modules

    def test_its_hooks_are_found_and_a_command_is_rendered(self) -> None:
        pysipp = pysipp_compat.load()
        names = {plugin for plugin, _ in pysipp.plugin.mng.list_name_plugin()}
        assert "pysipp" in names
        agent = pysipp.client(bin_path="sipp", remote_host="10.0.0.1", remote_port=5060)
        assert agent.cmd.split() == ["'sipp'", "-sn", "'uac'", "'10.0.0.1':'5060'"]

    def test_folders_with_python_files_are_refused(self) -> None:
        pysipp = pysipp_compat.load()
        with pytest.raises(ImportError, match="not supported"):
            pysipp.utils.load_mod("/tmp/pysipp_conf.py")


def answering(status: str) -> str:
    """Return a SIPp scenario that answers an INVITE with one final status."""
    return f"""<?xml version="1.0" encoding="ISO-8859-1" ?>
<!DOCTYPE scenario SYSTEM "sipp.dtd">
<scenario name="uas">
  <recv request="INVITE"/>
  <send retrans="500">
    <![CDATA[
      SIP/2.0 {status}
      [last_Via:]
      [last_From:]
      [last_To:];tag=[call_number]
      [last_Call-ID:]
      [last_CSeq:]
      Content-Length: 0

    ]]>
  </send>
  <recv request="ACK" optional="true"/>
</scenario>
"""


@contextmanager
def sipp_server(sipp: Path, folder: Path, port: int, scenario: str = "") -> Iterator[None]:
    """Run SIPp as server: its built-in one, which takes calls, or a scenario."""
    chosen = ["-sn", "uas"]
    if scenario:
        (folder / "uas.xml").write_text(scenario)
        chosen = ["-sf", str(folder / "uas.xml")]
    process = subprocess.Popen(
        [str(sipp), *chosen, "-i", "127.0.0.1", "-p", str(port), "-ci", "127.0.0.1", "-nostdin"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TERM": "dumb"},
    )
    try:
        deadline = time.monotonic() + 10
        needle = f":{port:04X} "
        while needle not in Path("/proc/net/udp").read_text():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        yield
    finally:
        process.kill()
        process.wait()


def probe(port: int, number: str = "100", timeout: float = 10.0, sipp: str = "") -> ProbeResult:
    return asyncio.run(deep_probe("127.0.0.1", port, number, timeout=timeout, sipp=sipp))


class TestCalls:
    def test_A1_a_call_that_is_taken_and_ended_is_answered(
        self, sipp_path: Path, tmp_path: Path, free_port: Callable[[], int]
    ) -> None:
        port = free_port()
        with sipp_server(sipp_path, tmp_path, port):
            result = probe(port)
        assert result.service is Service.CONFERENCE
        assert result.outcome is Outcome.ANSWERED, result.detail
        assert result.detail == "call answered and ended"
        assert result.answer == {"status": 200, "connected": True}
        assert result.rtt_ms is not None and 0 <= result.rtt_ms < 5000

    @pytest.mark.parametrize(
        ("status", "outcome"),
        [
            ("603 Decline", Outcome.ANSWERED),
            ("486 Busy Here", Outcome.ANSWERED),
            ("404 Not Found", Outcome.ANSWERED),
            ("500 Server Internal Error", Outcome.REJECTED),
            ("503 Service Unavailable", Outcome.REJECTED),
        ],
    )
    def test_L2_a_call_that_is_declined_shows_a_server_that_decides(
        self,
        sipp_path: Path,
        tmp_path: Path,
        free_port: Callable[[], int],
        status: str,
        outcome: Outcome,
    ) -> None:
        port = free_port()
        with sipp_server(sipp_path, tmp_path, port, answering(status)):
            result = probe(port)
        assert (result.outcome, result.detail) == (outcome, status)
        assert result.answer == {"status": int(status[:3]), "connected": False}

    def test_F3_silence_is_a_timeout_in_time(self, sipp_path: Path, tmp_path: Path) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
            mute.bind(("127.0.0.1", 0))
            started = time.monotonic()
            result = probe(mute.getsockname()[1], timeout=1.0, sipp=str(sipp_path))
        assert result.outcome is Outcome.TIMEOUT, result.detail
        assert result.detail == "no answer to INVITE within 1 s"
        assert time.monotonic() - started < 6.0

    def test_F3_several_probes_at_once_do_not_disturb_each_other(
        self, sipp_path: Path, tmp_path: Path, free_port: Callable[[], int]
    ) -> None:
        async def story(port: int) -> list[ProbeResult]:
            return await asyncio.gather(
                *(deep_probe("127.0.0.1", port, "100", timeout=20.0) for _ in range(4))
            )

        port = free_port()
        with sipp_server(sipp_path, tmp_path, port):
            results = asyncio.run(story(port))
        assert [result.outcome for result in results] == [Outcome.ANSWERED] * 4


class TestRefusals:
    @pytest.mark.parametrize(
        "number",
        ["", "-sf", "100 -sf /etc/passwd", "1'0", '1"0', "1;0", "1\n0", "$(id)", "é", "1" * 65],
    )
    def test_no_value_that_could_become_an_option_reaches_the_command_line(
        self, number: str
    ) -> None:
        with pytest.raises(DeepProbeError, match="number to call"):
            probe(5060, number)

    @pytest.mark.parametrize(
        ("port", "timeout", "text"),
        [(0, 1.0, "port"), (70_000, 1.0, "port"), (5060, 0.0, "timeout"), (5060, 1e9, "timeout")],
    )
    def test_numbers_out_of_range_are_refused(self, port: int, timeout: float, text: str) -> None:
        with pytest.raises(DeepProbeError, match=text):
            probe(port, timeout=timeout)

    def test_a_node_without_sipp_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nonexistent")
        with pytest.raises(DeepProbeError, match="sipp is not installed"):
            probe(5060)

    def test_a_sipp_that_does_not_start_is_no_finding_about_the_peer(self, tmp_path: Path) -> None:
        broken = tmp_path / "sipp"
        broken.write_text("#!/bin/sh\necho 'cannot load library' >&2\nexit 127\n")
        broken.chmod(0o755)
        with pytest.raises(DeepProbeError, match="sipp ended with 127: cannot load library"):
            probe(5060, sipp=str(broken))

    def test_a_name_without_address_is_unreachable(self, sipp_path: Path) -> None:
        result = asyncio.run(deep_probe("x" * 64 + ".invalid", 5060, "100", sipp=str(sipp_path)))
        assert result.outcome is Outcome.UNREACHABLE

    def test_a_sipp_that_hangs_is_killed_with_all_its_children(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mark = tmp_path / "pid"
        hanging = tmp_path / "sipp"
        hanging.write_text(f"#!/bin/sh\ntrap '' USR1 TERM\necho $$ >{mark}\nsleep 60\n")
        hanging.chmod(0o755)
        monkeypatch.setattr(deep, "_START", 1.5)  # less than pysipp's own patience
        with pytest.raises(DeepProbeError, match="did not come back within 2 s"):
            probe(5060, timeout=0.5, sipp=str(hanging))
        pid = int(mark.read_text())
        deadline = time.monotonic() + 5
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not Path(f"/proc/{pid}").exists()
