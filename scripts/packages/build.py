#!/usr/bin/env python3
"""`make ipk`: builds every package of package/ without OpenWrt's SDK, and the index of the feed.

    build.py OUTPUT [--python 3.11] [--sources] [--pypi DIRECTORY] [--only NAME …]

The Makefiles of package/ say what is in each package; here they are read by GNU make with the small
part of the SDK's files that they use (scripts/packages/sdk). What make leaves, fields, scripts and
a tree of files, is packed by ``ipk``. Modules are compiled when this interpreter has the version
of the target's Python, as the feed's own are; ``--sources`` leaves them as they are. Packages made
of PyPI's sources are left out where these are not in the cache (scripts/get-python-sources.sh).
"""

from __future__ import annotations

import argparse
import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.packages import ipk

CHECKOUT = Path(__file__).resolve().parents[2]
SDK = CHECKOUT / "scripts" / "packages" / "sdk"

# What the SDK puts around a package's own scripts: opkg runs these, and they the others.
_WRAPPERS = {
    "postinst": '. "${IPKG_INSTROOT}/lib/functions.sh"\ndefault_postinst "$0" "$@"\n',
    "prerm": '. "${IPKG_INSTROOT}/lib/functions.sh"\ndefault_prerm "$0" "$@"\n',
}
_WRAPPER_HEAD = (
    "#!/bin/sh\n"
    '[ "${IPKG_NO_SCRIPT}" = 1 ] && exit 0\n'
    '[ -s "${IPKG_INSTROOT}/lib/functions.sh" ] || exit 0\n'
)


def epoch() -> int:
    """Return the time stamp of every file: SOURCE_DATE_EPOCH, or of the last commit."""
    named = os.environ.get("SOURCE_DATE_EPOCH")
    if named:
        return int(named)
    done = subprocess.run(
        ["git", "-C", str(CHECKOUT), "log", "-1", "--format=%ct"], capture_output=True, text=True
    )
    return int(done.stdout) if done.returncode == 0 and done.stdout.strip() else 1_750_000_000


def evaluate(
    makefile: Path, work: Path, *, python: str, bytecode: bool, pypi: Path
) -> list[tuple[str, Path]]:
    """Run one Makefile of package/; return (package, directory with ``meta`` and ``root``)."""
    target = work / makefile.parent.name
    variables = {
        "TOPDIR": SDK,
        "OUT": target,
        "PYTHON3_VERSION": python,
        "HOST_PYTHON3_BIN": sys.executable,
        "BYTECODE": "--bytecode" if bytecode else "",
        "PYPI_SOURCES": pypi,
    }
    environment = {**os.environ, "LC_ALL": "C", "MAKEFLAGS": "", "MAKELEVEL": ""}
    subprocess.run(
        ["make", "-s", "-C", str(makefile.parent), *(f"{k}={v}" for k, v in variables.items())],
        check=True,
        env=environment,
    )
    return [(path.name, path) for path in sorted(target.iterdir())]


def control_part(name: str, directory: Path, source: str, stamp: int) -> dict[str, bytes]:
    """Return the control part of a package: its fields, conffiles and scripts."""
    meta = directory / "meta"

    def field(key: str) -> str:
        file = meta / key
        return " ".join(file.read_text().split()) if file.exists() else ""

    size = sum(path.stat().st_size for path in (directory / "root").rglob("*") if path.is_file())
    depends = ["libc", *(word.lstrip("+") for word in field("DEPENDS").split())]
    description = (
        (meta / "description").read_text().strip("\n") if (meta / "description").exists() else ""
    )
    lines = {
        "Package": name,
        "Version": f"{field('PKG_VERSION')}-r{field('PKG_RELEASE')}",
        "Depends": ", ".join(depends),
        "Provides": ", ".join(field("PROVIDES").split()),
        "Conflicts": ", ".join(field("CONFLICTS").split()),
        "Source": f"feeds/controlone/{source}",
        "SourceName": field("PKG_NAME"),
        "License": field("PKG_LICENSE"),
        "LicenseFiles": field("PKG_LICENSE_FILES"),
        "Section": field("SECTION"),
        "SourceDateEpoch": str(stamp),
        "URL": field("URL"),
        "Maintainer": field("MAINTAINER"),
        "Architecture": field("PKGARCH") or "all",
        "Installed-Size": str(size),
    }
    text = "".join(f"{key}: {value}\n" for key, value in lines.items() if value)
    shown = re.sub(r"^\s*", " ", description or f" {field('TITLE')}", flags=re.M)
    part = {"control": f"{text}Description: {shown}\n".replace(":  ", ": ").encode()}
    if (meta / "conffiles").exists():
        part["conffiles"] = (meta / "conffiles").read_bytes().strip() + b"\n"
    for script, call in _WRAPPERS.items():
        part[script] = (_WRAPPER_HEAD + call).encode()
        if (meta / script).exists():
            part[f"{script}-pkg"] = (meta / script).read_bytes()
    for script in ("preinst", "postrm"):
        if (meta / script).exists():
            part[script] = (meta / script).read_bytes()
    return part


def build(
    output: Path, *, python: str, bytecode: bool, pypi: Path, only: frozenset[str] = frozenset()
) -> list[Path]:
    """Build the packages into ``output`` with the index of the feed; return the .ipk files."""
    stamp = epoch()
    output.mkdir(parents=True, exist_ok=True)
    for old in output.glob("*.ipk"):
        old.unlink()
    files, index = [], []
    with tempfile.TemporaryDirectory(prefix="controlone-ipk-") as name:
        for makefile in sorted((CHECKOUT / "package").glob("*/Makefile")):
            if only and makefile.parent.name not in only:
                continue
            if not sources_are_there(makefile, pypi):
                print(
                    f"{makefile.parent.name}: left out, no sources; run `make setup`",
                    file=sys.stderr,
                )
                continue
            built = evaluate(makefile, Path(name), python=python, bytecode=bytecode, pypi=pypi)
            for package, directory in built:
                part = control_part(package, directory, makefile.parent.name, stamp)
                version = re.search(rb"^Version: (\S+)", part["control"], re.M)
                assert version is not None
                file = output / f"{package}_{version[1].decode()}_all.ipk"
                ipk.write_ipk(file, directory / "root", part, stamp)
                files.append(file)
                index.append((package, ipk.index_entry(file, part["control"])))
            shutil.rmtree(Path(name) / makefile.parent.name)
    text = "\n".join(entry for _package, entry in sorted(index)).encode()
    (output / "Packages").write_bytes(text)
    (output / "Packages.gz").write_bytes(gzip.compress(text, mtime=0))
    return sorted(files)


def sources_are_there(makefile: Path, pypi: Path) -> bool:
    """Whether a Makefile needs no sources of PyPI, or has them."""
    text = makefile.read_text()
    name, version = (
        re.search(rf"^{key}:=(\S+)", text, re.M) for key in ("PYPI_NAME", "PKG_VERSION")
    )
    if name is None or version is None:
        return True
    return (pypi / f"{name[1]}-{version[1]}" / ".complete").exists()


def cache_directory() -> Path:
    """Return the cache that `make setup` fills; scripts/paths.sh says the same."""
    named = os.environ.get("CONTROLONE_CACHE")
    if named:
        return Path(named)
    if os.geteuid() == 0:
        return Path("/var/cache/controlone-ha")
    return Path.home() / ".cache" / "controlone-ha"


def main() -> int:
    """Build what the command line asks for and say what was built."""
    parser = argparse.ArgumentParser(prog="make ipk", description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--python", default="3.11", help="version of the target's Python")
    parser.add_argument("--sources", action="store_true", help="modules as sources")
    parser.add_argument("--pypi", type=Path, default=cache_directory() / "python-sources")
    parser.add_argument("--only", nargs="*", default=[], metavar="DIRECTORY")
    chosen = parser.parse_args()
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    bytecode = not chosen.sources and chosen.python == own
    files = build(
        chosen.output, python=chosen.python, bytecode=bytecode, pypi=chosen.pypi,
        only=frozenset(chosen.only),
    )  # fmt: skip
    kind = "compiled" if bytecode else "as sources"
    print(f"for Python {chosen.python}, modules {kind}:")
    for file in files:
        print(f"  {file.stat().st_size / 1024:7.0f} KB  {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
