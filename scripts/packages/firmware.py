#!/usr/bin/env python3
"""`make firmware-overlay DIR=…`: what an image builder needs to put ControlONE into an image.

    firmware.py DIRECTORY [--python 3.11] [--role server|console]

writes ``DIRECTORY/files`` (for FILES: every file of our packages, as they install them) and
``DIRECTORY/PACKAGES`` (for PACKAGES: what they need of OpenWrt's own feeds), to be used so:

    make image PROFILE=… FILES=DIRECTORY/files PACKAGES="$(cat DIRECTORY/PACKAGES)"
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.packages import build, ipk

CONSOLE = ("controlone-common", "controlone-console")
SERVER_ONLY = ("controlone-console",)


def chosen_packages(files: list[Path], role: str) -> list[Path]:
    """Return the packages of a role."""
    names = {file: file.name.partition("_")[0] for file in files}
    if role == "console":
        return [file for file in files if names[file] in CONSOLE]
    return [file for file in files if names[file] not in SERVER_ONLY]


def write_overlay(files: list[Path], directory: Path) -> list[str]:
    """Unpack packages into ``directory/files``; return what they need of other feeds."""
    shutil.rmtree(directory / "files", ignore_errors=True)
    needed: set[str] = set()
    own: set[str] = set()
    for file in files:
        data, control = ipk.read_ipk(file)
        own.add(file.name.partition("_")[0])
        depends = re.search(rb"^Depends: (.*)$", control["control"], re.M)
        needed |= set(depends[1].decode().split(", ")) if depends else set()
        for name, (content, mode) in data.items():
            place = directory / "files" / name.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            place.chmod(mode)
    return sorted(needed - own - {"libc"})


def main() -> int:
    """Build the packages and lay out the directory."""
    parser = argparse.ArgumentParser(prog="make firmware-overlay", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--python", default="3.11")
    parser.add_argument("--role", default="server", choices=("server", "console"))
    chosen = parser.parse_args()
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    with tempfile.TemporaryDirectory(prefix="controlone-feed-") as name:
        files = build.build(
            Path(name), python=chosen.python, bytecode=chosen.python == own,
            pypi=build.cache_directory() / "python-sources",
        )  # fmt: skip
        needed = write_overlay(chosen_packages(files, chosen.role), chosen.directory)
    (chosen.directory / "PACKAGES").write_text(" ".join(needed) + "\n")
    print(f"{chosen.directory}/files and {chosen.directory}/PACKAGES ({len(needed)} packages)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
