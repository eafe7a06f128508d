"""A root to install into: this machine's, below a layer in memory, with OpenWrt's shell on top.

A process of its own holds a mount namespace with the layer; nothing reaches the machine, and all
is gone when that process ends. `/bin/sh` in it is BusyBox's ash. OpenWrt's shell files are those
below ``CONTROLONE_OPENWRT_ROOT`` where that is set (an unpacked root file system whose programs run
on this machine), and otherwise the stand-ins of ``openwrt/``.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controlone_ha.lab import parts

CHECKOUT = Path(__file__).parents[2]
STAND_IN = Path(__file__).parent / "openwrt"
PROGRAMS = Path(__file__).parent / "openwrt_programs.py"
TOP = "/tmp/controlone-scratch"

SEEN = sorted({str(CHECKOUT), sys.prefix, sys.base_prefix} - {"/usr"})
"""What programs in the root need of this machine, wherever it lies: it is seen as it is there."""

SETUP = f"""
mount --make-rprivate /
mkdir -p {TOP}
mount -t tmpfs tmpfs {TOP}
mkdir {TOP}/upper {TOP}/work {TOP}/root
mount -t overlay overlay -o lowerdir=/,upperdir={TOP}/upper,workdir={TOP}/work {TOP}/root
for place in /proc /dev /sys; do mount --rbind $place {TOP}/root$place; done
mount -t tmpfs tmpfs {TOP}/root/tmp
for place in {shlex.join(SEEN)}; do
    mkdir -p "{TOP}/root$place"
    mount --bind "$place" "{TOP}/root$place"
    mount -o remount,bind,ro "{TOP}/root$place"
done
echo ready
exec sleep 900
"""


def real_root() -> Path | None:
    """Return the OpenWrt root that the environment names, None without one."""
    named = os.environ.get("CONTROLONE_OPENWRT_ROOT")
    return Path(named) if named else None


class ScratchRoot:
    """One root; ``close`` removes it. Needs root, as the lab does."""

    def __init__(self, openwrt: Path | None) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "/bin/sh", "-ec", SETUP], stdout=subprocess.PIPE, text=True
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n", "no scratch root could be made"
        self.is_real = openwrt is not None
        self.path = Path(f"/proc/{self._holder.pid}/root{TOP}/root")
        self._lay(openwrt or STAND_IN)

    def close(self) -> None:
        """End the namespace and with it everything in it."""
        self._holder.kill()
        self._holder.wait()
        if self._holder.stdout is not None:
            self._holder.stdout.close()

    def _lay(self, openwrt: Path) -> None:
        for name in ("config", "init.d", "rc.d", "uci-defaults", "controlone"):
            place = self.path / "etc" / name
            if place.exists():
                shutil.rmtree(place)
            place.mkdir()
        shell = self.path / "usr/bin/sh"
        shell.unlink()
        shell.symlink_to(parts.busybox_path())
        (self.path / "var/lock/procd").mkdir(parents=True, exist_ok=True)
        for source in sorted(openwrt.rglob("*")):
            if source.is_file():
                self.put(source.relative_to(openwrt), source.read_bytes(), source.stat().st_mode)
        for name in ("ubus", "logger"):
            place = Path("usr/bin") / name
            line = f'exec {sys.executable} -S -P {PROGRAMS} {name} "$@"'
            self.put(place, f"#!/bin/sh\n{line}\n".encode(), 0o755)

    def put(self, place: Path | str, content: bytes, mode: int = 0o644) -> None:
        """Write a file of the root; top directories that are links on this machine are followed."""
        head, *rest = Path(str(place).lstrip("/")).parts
        if head in ("bin", "sbin", "lib") and (self.path / head).is_symlink():
            head = f"usr/{head}"
        target = self.path / head / Path(*rest)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() or target.is_symlink():
            target.unlink()
        target.write_bytes(content)
        target.chmod(mode & 0o7777)

    def put_overlay(self, *names: str) -> None:
        """Install files of the overlay, by their paths; all of it without arguments."""
        overlay = CHECKOUT / "files"
        for source in sorted(overlay.rglob("*")):
            name = str(source.relative_to(overlay))
            if source.is_file() and (not names or name in names):
                self.put(name, source.read_bytes(), source.stat().st_mode)

    def run(
        self, *words: str, env: Mapping[str, str] | None = None, script: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a program, or a line of shell, in the root."""
        command = list(words) or ["/bin/sh", "-c", script]
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(CHECKOUT),
            "CONTROLONE_PYTHON": sys.executable,
            "HOME": "/root",
            **(env or {}),
        }
        settings = [f"{name}={value}" for name, value in environment.items()]
        inside = shlex.join(["chroot", f"{TOP}/root", "env", "-i", *settings, *command])
        return subprocess.run(
            ["nsenter", "-t", str(self._holder.pid), "--mount", "/bin/sh", "-c", f"exec {inside}"],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    # -- what the stand-ins were told --------------------------------------------------------

    def recorded(self, program: str) -> list[list[str]]:
        """Return the arguments of every call of ``ubus`` or ``logger`` so far."""
        file = self.path / "tmp/recorded.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        calls = [json.loads(line) for line in lines]
        return [call["arguments"] for call in calls if call["program"] == program]

    def registered(self) -> list[dict[str, Any]]:
        """Return what procd was told with ``service set``, in order."""
        return [json.loads(words[1]) for words in self.recorded("ubus") if words[0] == "set"]

    def deleted(self) -> list[str]:
        """Return the services that procd was told to end, in order."""
        found = [words for words in self.recorded("ubus") if words[0] == "delete"]
        return [str(json.loads(words[1])["name"]) for words in found]

    def forget(self) -> None:
        """Forget the calls so far; what runs goes on running."""
        (self.path / "tmp/recorded.jsonl").unlink(missing_ok=True)

    def forget_all(self) -> None:
        """Forget the calls, and that anything runs."""
        self.forget()
        (self.path / "tmp/running.json").unlink(missing_ok=True)
