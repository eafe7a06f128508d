"""The real Asterisk starts as nobody with our modules and the reduced documentation."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controlone_ha.conference import asterisk_modules
from controlone_ha.lab.parts import Asterisk

pytestmark = pytest.mark.contract

PATIENCE = 15.0


class Started:
    """A running Asterisk of this test."""

    def __init__(self, process: subprocess.Popen[bytes], sip_port: int, ari_port: int) -> None:
        self.process = process
        self.sip_port = sip_port
        self.ari_port = ari_port
        self.answered_after = 0.0

    def options(self) -> bytes:
        """Send OPTIONS until a final answer comes; return its first line."""
        started = time.monotonic()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind(("127.0.0.1", 0))
            client.settimeout(0.02)
            port = client.getsockname()[1]
            for number in range(10_000):
                assert time.monotonic() - started < PATIENCE, "no answer to OPTIONS"
                assert self.process.poll() is None, "Asterisk ended"
                request = (
                    f"OPTIONS sip:s@127.0.0.1:{self.sip_port} SIP/2.0\r\n"
                    f"Via: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{number};rport\r\n"
                    "Max-Forwards: 70\r\nFrom: <sip:probe@127.0.0.1>;tag=1\r\n"
                    f"To: <sip:s@127.0.0.1>\r\nCall-ID: {number}@test\r\nCSeq: 1 OPTIONS\r\n"
                    f"Contact: <sip:probe@127.0.0.1:{port}>\r\nContent-Length: 0\r\n\r\n"
                )
                try:
                    client.sendto(request.encode(), ("127.0.0.1", self.sip_port))
                    return client.recv(4096).split(b"\r\n")[0]
                except TimeoutError:
                    continue
                except ConnectionRefusedError:
                    time.sleep(0.005)  # nobody there yet: ask again soon, without spinning
        raise AssertionError("unreachable")

    def ari(self, method: str, path: str) -> object:
        """Call ARI; a failure raises urllib's error."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ari_port}/ari/{path}",
            method=method,
            headers={"Authorization": "Basic dTpw"},
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def resident_megabytes(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024


@contextmanager
def running(
    asterisk: Asterisk, base: Path, data_directory: Path, sip_port: int, ari_port: int
) -> Iterator[Started]:
    """Run Asterisk as an unprivileged user with a minimal configuration below `base`."""
    shutil.rmtree(base, ignore_errors=True)
    places = {name: base / name for name in ("etc", "lib", "spool", "run", "log", "cache")}
    for place in places.values():
        place.mkdir(parents=True)
    for name in asterisk_modules.SPOOL_DIRECTORIES:
        (places["spool"] / name).mkdir()
    (places["lib"] / "keys").mkdir()
    files = {
        **asterisk_modules.SUPPORT_FILES,
        "asterisk.conf": (
            f"[directories]\nastetcdir => {places['etc']}\nastcachedir => {places['cache']}\n"
            f"astmoddir => {asterisk.module_directory}\nastdatadir => {data_directory}\n"
            f"astvarlibdir => {places['lib']}\nastdbdir => {places['lib']}\n"
            f"astkeydir => {places['lib']}\nastagidir => {places['lib']}\n"
            f"astspooldir => {places['spool']}\nastrundir => {places['run']}\n"
            f"astlogdir => {places['log']}\n[options]\nnocolor=yes\n"
        ),
        "modules.conf": asterisk_modules.modules_file(asterisk.module_directory),
        "logger.conf": "[general]\n[logfiles]\nconsole => warning,error\n",
        "http.conf": f"[general]\nenabled=yes\nbindaddr=127.0.0.1\nbindport={ari_port}\n",
        "ari.conf": "[general]\nenabled=yes\n[u]\ntype=user\npassword=p\n",
        "pjsip.conf": (
            f"[transport]\ntype=transport\nprotocol=udp\nbind=127.0.0.1:{sip_port}\n"
            "[anyone]\ntype=endpoint\ncontext=in\ndisallow=all\nallow=ulaw\naors=anyone\n"
            "[anyone]\ntype=aor\nmax_contacts=1\n"
            "[anyone]\ntype=identify\nendpoint=anyone\nmatch=127.0.0.1\n"
        ),
        "extensions.conf": "[in]\nexten => s,1,Hangup()\n",
    }
    for name, text in files.items():
        (places["etc"] / name).write_text(text)
    for path in [base, *base.rglob("*")]:
        if os.geteuid() == 0:
            shutil.chown(path, "nobody", "nogroup")
    with open(base / "out", "wb") as output:
        process = subprocess.Popen(
            [*asterisk.command, "-f", "-C", str(places["etc"] / "asterisk.conf")],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=base,
            user="nobody" if os.geteuid() == 0 else None,
            group="nogroup" if os.geteuid() == 0 else None,
            extra_groups=[] if os.geteuid() == 0 else None,
        )
    started = time.monotonic()
    instance = Started(process, sip_port, ari_port)
    try:
        instance.options()
        instance.answered_after = time.monotonic() - started
        yield instance
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.fixture
def reduced(asterisk: Asterisk, short_directory: Path) -> Path:
    return asterisk_modules.reduced_data_directory(
        asterisk.data_directory, short_directory / "data"
    )


def test_asterisk_with_our_modules_answers_options_and_ari_as_an_unprivileged_user(
    asterisk: Asterisk, reduced: Path, short_directory: Path, free_port: object
) -> None:
    assert callable(free_port)
    with running(asterisk, short_directory / "a", reduced, free_port(), free_port()) as instance:
        assert instance.options() == b"SIP/2.0 200 OK"
        loaded = instance.ari("GET", "asterisk/modules")
        assert isinstance(loaded, list)
        idle = [module["name"] for module in loaded if module["status"] != "Running"]
        assert idle == []
        wanted = asterisk_modules.modules_file(asterisk.module_directory).count("load=")
        assert len(loaded) >= wanted
        bridge = instance.ari("POST", "bridges?type=mixing")
        assert isinstance(bridge, dict)
        recording = instance.ari("POST", f"bridges/{bridge['id']}/record?name=r&format=wav")
        assert isinstance(recording, dict)
        output = (short_directory / "a" / "out").read_text()
    assert "ERROR" not in output
    assert "documentation!" not in output


def test_modules_for_encrypted_media_can_be_loaded_after_the_start(
    asterisk: Asterisk, reduced: Path, short_directory: Path, free_port: object
) -> None:
    assert callable(free_port)
    with running(asterisk, short_directory / "a", reduced, free_port(), free_port()) as instance:
        for name in asterisk_modules.LATE_MODULES:
            instance.ari("POST", f"asterisk/modules/{name}.so")
            module = instance.ari("GET", f"asterisk/modules/{name}.so")
            assert isinstance(module, dict)
            assert module["status"] == "Running"


def test_the_reduced_documentation_makes_the_start_shorter_and_smaller(
    asterisk: Asterisk, reduced: Path, short_directory: Path, free_port: object
) -> None:
    assert callable(free_port)
    seconds: dict[Path, list[float]] = {asterisk.data_directory: [], reduced: []}
    megabytes: dict[Path, float] = {}
    for _ in range(3):
        for data_directory, measured in seconds.items():
            base = short_directory / "a"
            with running(asterisk, base, data_directory, free_port(), free_port()) as instance:
                measured.append(instance.answered_after)
                megabytes[data_directory] = instance.resident_megabytes()
    medians = {place: statistics.median(measured) for place, measured in seconds.items()}
    print({str(p): (round(s, 3), round(megabytes[p], 1)) for p, s in medians.items()})
    assert medians[reduced] < medians[asterisk.data_directory]
    assert megabytes[reduced] < megabytes[asterisk.data_directory]
