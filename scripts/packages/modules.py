#!/usr/bin/env python3
"""Which modules of the product belong to which package, and installing them.

    modules.py SUBPACKAGE DESTINATION [--bytecode]

DESTINATION is the root of a package; modules go below the site-packages that ``PYTHON3_PKG_DIR``
names. With ``--bytecode`` they are compiled, without their sources, as OpenWrt's own Python
packages are; the interpreter that runs this must be of the target's version then.
"""

from __future__ import annotations

import fnmatch
import os
import py_compile
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGE = "controlone_ha"

# The first pattern that fits decides. What the console device needs is in `common` and `console`.
TABLE: tuple[tuple[str, str], ...] = (
    ("lab/*", ""),
    ("console/*", "console"),
    ("server/*", "server"),
    # The daemon keeps the copies of live calls.
    ("conference/__init__.py", "ha"),
    ("conference/keeper.py", "ha"),
    ("conference/*", "conference"),
    ("uci/*", "common"),
    ("config/overlay.py", ""),
    ("config/document.py", ""),
    ("config/*", "common"),
    ("core/__init__.py", "common"),
    ("core/admission.py", "common"),
    ("core/credentials.py", "common"),
    ("core/routing.py", "common"),
    ("control/rpcd.py", "rpcd"),
    # What the daemon itself uses of it; all else is the command.
    ("control/__init__.py", "ha"),
    ("control/api.py", "ha"),
    ("control/audit.py", "ha"),
    ("control/client.py", "ha"),
    ("control/history.py", "ha"),
    ("control/language.py", "ha"),
    ("control/metrics.py", "ha"),
    ("control/status_file.py", "ha"),
    ("control/texts_en.py", "ha"),
    ("control/texts_trust_en.py", "ha"),
    ("control/*", "cli"),
    ("*/*", "ha"),
    ("*", "common"),
)


def owner_of(name: str) -> str:
    """Return the subpackage of a file, by its path below the package; empty: none has it."""
    for pattern, owner in TABLE:
        if ("/" in name or "/" not in pattern) and fnmatch.fnmatch(name, pattern):
            return owner
    return ""


def modules_of(subpackage: str) -> list[Path]:
    """Return the files of a subpackage, in order."""
    root = CHECKOUT / PACKAGE
    return [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file()
        and "__pycache__" not in path.parts
        and owner_of(path.relative_to(root).as_posix()) == subpackage
    ]


def install(paths: list[Path], base: Path, target: Path, *, bytecode: bool) -> None:
    """Copy files below ``target``, by their paths below ``base``; compile modules if asked."""
    for path in paths:
        place = target / path.relative_to(base)
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".py" and bytecode:
            shown = "/" + str(path.relative_to(base))
            py_compile.compile(
                str(path),
                cfile=str(place.with_suffix(".pyc")),
                dfile=shown,
                doraise=True,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
            place.with_suffix(".pyc").chmod(0o644)
        elif path.suffix in (".py", ".json", ".xml", ".typed", ".pem"):
            place.write_bytes(path.read_bytes())
            place.chmod(0o644)


def main() -> int:
    """Install a subpackage, or with ``--tree BASE NAME…`` directories of modules of others."""
    words = [word for word in sys.argv[1:] if word != "--bytecode"]
    bytecode = len(words) < len(sys.argv) - 1
    target = os.environ.get("PYTHON3_PKG_DIR", "/usr/lib/python3.11/site-packages").lstrip("/")
    if words[0] == "--tree":
        base = Path(words[1])
        root = Path(words[2]) / target
        paths = [
            path
            for name in words[3:]
            for path in sorted((base / name).rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        ]
        install(paths, base, root, bytecode=bytecode)
        return 0 if paths else 1
    paths = modules_of(words[0])
    install(paths, CHECKOUT, Path(words[1]) / target, bytecode=bytecode)
    return 0 if paths else 1


if __name__ == "__main__":
    sys.exit(main())
