"""Checks one UCI file against the schema, for init scripts and people.

    python -m controlone_ha.config.check PACKAGE

Says on stdout, a line each, what the daemon of that package would refuse; exit code 0 when it would
refuse nothing, 1 when it would, 2 for a package that the product does not have.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from controlone_ha.config.console import load_console
from controlone_ha.config.settings import load_conference, load_ha, load_server
from controlone_ha.errors import ControlOneError
from controlone_ha.paths import node_paths

LOADERS: dict[str, Callable[[Path], object]] = {
    "ha": load_ha,
    "console": load_console,
    "server": load_server,
    "conference": load_conference,
}


def problems(package: str, config_dir: Path) -> list[str]:
    """Return what is wrong with a package, one sentence each; empty when its daemon would start."""
    try:
        LOADERS[package](config_dir)
    except ControlOneError as error:
        return str(error).splitlines()
    except OSError as error:
        return [f"{config_dir / package}: {error.strerror}"]
    return []


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the package that the command line names."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if len(words) != 1 or words[0] not in LOADERS:
        print(f"usage: check PACKAGE, one of {', '.join(LOADERS)}", file=sys.stderr)
        return 2
    found = problems(words[0], node_paths().config_dir)
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
