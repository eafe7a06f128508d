"""The real linphone as a phone: headless, plays a tone, writes down what it hears."""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import struct
import subprocess
import wave
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.waiting import until

RATE = 8000


class Linphone:
    """A phone at 127.0.0.1 that answers by itself; after ``play`` it sends ``tone`` (Hz)."""

    def __init__(
        self, directory: Path, name: str, free_port: Callable[[], int], *, tone: int = 620
    ) -> None:
        self.name = name
        self.port, *rtp = (free_port() for _ in range(5))
        self.tone = tone
        self._rtp = min(rtp)
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """Its SIP address."""
        return f"sip:{self.name}@127.0.0.1:{self.port}"

    async def start(self) -> Linphone:
        """Start it; wait until its SIP port is there."""
        if shutil.which("linphonec") is None:
            pytest.fail("no linphonec: run scripts/setup.sh", pytrace=False)
        for name in (".local/share/linphone", ".config/linphone"):
            (self._directory / name).mkdir(parents=True)
        (self._directory / "rc").write_text(
            f"[sip]\nsip_port={self.port}\nsip_tcp_port=0\nsip_tls_port=0\nguess_hostname=0\n"
            f'bind_address=127.0.0.1\ncontact="{self.name}" <sip:{self.name}@127.0.0.1>\n'
            f"use_ipv6=0\n[rtp]\naudio_rtp_port={self._rtp}\n[video]\nenabled=0\n"
        )
        self._write_tone()
        self._spawn()
        self.command("soundcard use files")
        await until(self._is_listening, 15)
        return self

    def _write_tone(self) -> None:
        with wave.open(str(self._directory / "tone.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            samples = (
                round(8000 * math.sin(2 * math.pi * self.tone * index / RATE))
                for index in range(RATE * 30)
            )
            file.writeframes(b"".join(struct.pack("<h", sample) for sample in samples))

    def _spawn(self) -> None:
        with open(self._directory / "log", "wb") as log:
            self._process = subprocess.Popen(
                ["linphonec", "-c", str(self._directory / "rc"), "-a"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "HOME": str(self._directory)},
                cwd=self._directory,
            )

    def _is_listening(self) -> bool:
        wanted = f"{self.port:04X}"
        lines = Path("/proc/net/udp").read_text().splitlines()[1:]
        return any(line.split()[1].endswith(f":{wanted}") for line in lines)

    def command(self, text: str) -> None:
        """Give it a command of its console."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(text.encode() + b"\n")
        self._process.stdin.flush()

    def play(self) -> None:
        """Send the tone; only while a call is up."""
        self.command(f"play {self._directory / 'tone.wav'}")

    def record(self, name: str) -> Path:
        """Write what is heard from now on into a file of the phone's directory."""
        path = self._directory / name
        self.command(f"record {path}")
        return path

    @property
    def has_media(self) -> bool:
        """Whether a call is up for it too: it can play and record from then on."""
        return "Media streams established" in self.log

    @property
    def log(self) -> str:
        """What it said."""
        return (self._directory / "log").read_text(errors="replace")

    async def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            await asyncio.get_running_loop().run_in_executor(None, self._process.wait)
            if self._process.stdin is not None:
                self._process.stdin.close()
