"""The commands that a lab node has in /usr/sbin and that a bare Debian lacks or has otherwise.

`service` (as OpenWrt's), `uci`, `ha`, `console`, `reload_config`. Each is a two-line shell script
that runs a module of this package with the interpreter of the lab, from any environment: an SSH
session included.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import controlone_ha

PACKAGE_PARENT = Path(controlone_ha.__file__).resolve().parent.parent

_MODULES = {
    "ha": "controlone_ha.control.command",
    "console": "controlone_ha.console",
    "uci": "controlone_ha.uci",
    "service": "controlone_ha.lab.service_command",
    "reload_config": "controlone_ha.lab.reload_command",
}


def shim(module: str) -> str:
    """Return a shell script that runs ``module``."""
    return (
        "#!/bin/sh\n"
        f"export PYTHONPATH={shlex.quote(str(PACKAGE_PARENT))}${{PYTHONPATH:+:$PYTHONPATH}}\n"
        f'exec {shlex.quote(sys.executable)} -P -m {module} "$@"\n'
    )


def all_shims() -> dict[str, str]:
    """Return every command: name to script."""
    return {name: shim(module) for name, module in _MODULES.items()}
