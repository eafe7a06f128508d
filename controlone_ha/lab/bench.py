"""``make bench [AREA=…]``: figures beside their anchors, as a table and as build/bench/<area>.json.

    python -m controlone_ha.lab.bench [--list] [AREA …]

An area is a list of modules in tests/bench; each has ``figures() -> list[Figure]`` and measures
when that is called. Run it in a checkout. Benchmarks are not tests: a goal that is missed is shown
and fails nothing; the exit code is 1 only when something could not be run at all.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from controlone_ha.errors import ControlOneError
from controlone_ha.lab.figures import Figure, figures_table, write_figures

AREAS: Mapping[str, Sequence[str]] = {
    "foundation": ("idle_figures", "parsing_figures", "core_figures"),
    "conference": ("conference_figures",),
    "console": ("console_figures",),
    "files": ("files_figures",),
    "database": ("database_figures",),
    "trust": ("trust_figures",),
    "takeover": ("takeover_figures", "takeover_gap_figures"),
    "packages": ("packages_figures",),
}
"""Area -> modules of tests/bench, in the order in which they are run."""

OUTPUT = Path("build/bench")


def run(area: str) -> bool:
    """Measure one area, print and write its figures; return whether every module could be run."""
    found: list[Figure] = []
    is_complete = True
    for name in AREAS[area]:
        module = importlib.import_module(f"tests.bench.{name}")
        print(f"== {area}: {(module.__doc__ or name).splitlines()[0]}", flush=True)
        started = time.monotonic()
        try:
            found += module.figures()
        except ControlOneError as error:
            print(f"   could not be measured: {error}", file=sys.stderr, flush=True)
            is_complete = False
        print(f"   {time.monotonic() - started:.0f} s", flush=True)
    file = OUTPUT / f"{area}.json"
    write_figures(file, found)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"\n{figures_table(found)}\n\n{os.cpu_count()} processors, load {load}")
    print(f"written to {file}\n", flush=True)
    return is_complete


def main() -> int:
    """Run the areas asked for, all without arguments."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("areas", nargs="*", metavar="AREA", help=", ".join(AREAS))
    parser.add_argument("--list", action="store_true", help="list the areas and end")
    chosen = parser.parse_args()
    if chosen.list:
        print("\n".join(f"{area}: {', '.join(names)}" for area, names in AREAS.items()))
        return 0
    unknown = [area for area in chosen.areas if area not in AREAS]
    if unknown:
        print(f"bench: no area {unknown[0]!r}; there are: {', '.join(AREAS)}", file=sys.stderr)
        return 2
    results = [run(area) for area in chosen.areas or AREAS]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
