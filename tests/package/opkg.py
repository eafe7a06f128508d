"""Installing .ipk files into the scratch root.

OpenWrt's own opkg does it where the root has one; else what opkg does is done here: files and
conffiles, its records, and the scripts in its order.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Collection
from pathlib import Path

from scripts.packages import ipk
from tests.package.scratch import ScratchRoot

INFO = "usr/lib/opkg/info"
SETTINGS = "dest root /\nlists_dir ext /var/opkg-lists\narch all 1\n"


class Installer:
    """Installs, upgrades and removes packages in a root. Dependencies are the caller's matter."""

    def __init__(self, root: ScratchRoot) -> None:
        self.root = root
        self.is_real = (root.path / "usr/bin/opkg").exists()
        self._shipped: dict[str, bytes] = {}
        (root.path / INFO).mkdir(parents=True, exist_ok=True)
        if self.is_real:
            root.put("etc/opkg.conf", SETTINGS.encode())
            (root.path / "var/lock").mkdir(exist_ok=True)

    def install(self, *files: Path) -> None:
        """Install packages in this order, or upgrade those that are there."""
        for file in files:
            if self.is_real:
                self.root.put(f"tmp/{file.name}", file.read_bytes())
                done = self.opkg("install", f"/tmp/{file.name}")
                assert done.returncode == 0, done.stdout + done.stderr
            else:
                self._install(file)

    def remove(self, *names: str) -> None:
        """Remove packages in this order."""
        for name in names:
            if self.is_real:
                done = self.opkg("remove", name)
                assert done.returncode == 0, done.stdout + done.stderr
            else:
                self._remove(name)

    def opkg(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the real opkg."""
        return self.root.run("opkg", "-f", "/etc/opkg.conf", *words)

    def assume(self, files: Collection[Path]) -> None:
        """Have opkg believe that what packages need of OpenWrt's own feeds is installed."""
        needed: set[str] = set()
        for file in files:
            found = re.search(rb"^Depends: (.*)$", ipk.read_ipk(file)[1]["control"], re.M)
            needed |= set(found[1].decode().split(", ")) if found else set()
        own = {file.name.partition("_")[0] for file in files}
        entry = "Package: {}\nVersion: 1\nStatus: install user installed\nArchitecture: all\n\n"
        text = "".join(entry.format(name) for name in sorted(needed - own))
        self.root.put("usr/lib/opkg/status", text.encode())

    def _install(self, file: Path) -> None:
        name = file.name.partition("_")[0]
        data, control = ipk.read_ipk(file)
        is_upgrade = (self.root.path / INFO / f"{name}.control").exists()
        upgrade = {"PKG_UPGRADE": "1"} if is_upgrade else {}
        if is_upgrade:
            self._script(name, "prerm", upgrade)
        conffiles = control.get("conffiles", b"").decode().split()
        for place, (content, mode) in data.items():
            kept = place in conffiles and (self.root.path / place[1:]).exists()
            if kept and (self.root.path / place[1:]).read_bytes() != content:
                self.root.put(f"{place}-opkg", content, mode)
            elif not kept:
                self.root.put(place, content, mode)
            if place in conffiles:
                self._shipped[place] = content
        self.root.put(f"{INFO}/{name}.list", "".join(f"{place}\n" for place in data).encode())
        for part, content in control.items():
            self.root.put(f"{INFO}/{name}.{part}", content, 0o755)
        self._script(name, "postinst", upgrade)

    def _remove(self, name: str) -> None:
        self._script(name, "prerm", {})
        info = self.root.path / INFO
        conffiles = info / f"{name}.conffiles"
        kept = conffiles.read_text().split() if conffiles.exists() else []
        shipped = (info / f"{name}.list").read_text().split()
        for place in shipped:
            file = self.root.path / place[1:]
            if place not in kept or not self._is_edited(place):
                file.unlink(missing_ok=True)
        self._script(name, "postrm", {})
        for record in info.glob(f"{name}.*"):
            if re.fullmatch(re.escape(name) + r"\.[a-z-]+", record.name):
                record.unlink()

    def _is_edited(self, place: str) -> bool:
        file = self.root.path / place[1:]
        return file.exists() and file.read_bytes() != self._shipped[place]

    def _script(self, name: str, script: str, env: dict[str, str]) -> None:
        if (self.root.path / INFO / f"{name}.{script}").exists():
            done = self.root.run(f"/{INFO}/{name}.{script}", env=env)
            assert done.returncode == 0, f"{name}.{script}: {done.stdout}{done.stderr}"
