"""``python -m tests.simulation``: random schedules for as long as told; what fails is made small.

    --schedules N   how many (default 1000)
    --seconds T     stop after T seconds, however many were run
    --seed S        the first seed (default 0)
    --nodes K       clusters of exactly K nodes (default: mixed, mostly five)
    --jobs J        processes (default: one per processor)
    --keep          write shrunk failures to tests/simulation/regressions/
    --show SEED     tell the story of one seed
    --replay FILE   tell the story of a schedule in a file
    --mutant NAME   break the decisions on purpose

Exit code 1 when a rule was broken.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections import Counter
from pathlib import Path

from tests.simulation.batch import run_seeds
from tests.simulation.generate import random_schedule
from tests.simulation.ledger import Tally
from tests.simulation.mutants import MUTANTS, mutant
from tests.simulation.run import Result, run
from tests.simulation.schedule import Schedule, from_json
from tests.simulation.shrink import shrink

REGRESSIONS = Path(__file__).parent / "regressions"
PROGRESS_EVERY = 10.0


def main(arguments: list[str] | None = None) -> int:
    """Run as told by the arguments; return the exit code."""
    options = _parser().parse_args(arguments)
    with mutant(options.mutant) if options.mutant else contextlib.nullcontext():
        if options.show is not None:
            return _tell(random_schedule(options.show, size=options.nodes))
        if options.replay is not None:
            return _tell(from_json(options.replay.read_text()))
        return _run_many(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--schedules", type=int, default=1000)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nodes", type=int)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--show", type=int)
    parser.add_argument("--replay", type=Path)
    parser.add_argument("--mutant", choices=sorted(MUTANTS))
    return parser


def _run_many(options: argparse.Namespace) -> int:
    started = told = time.monotonic()
    failures: dict[int, Result] = {}
    total, virtual, done = Tally(), 0.0, 0
    seeds = range(options.seed, options.seed + options.schedules)
    for seed, result in run_seeds(seeds, size=options.nodes, jobs=options.jobs):
        done += 1
        virtual += result.ended_at
        total.add(result.tally)
        if result.broken is not None:
            failures[seed] = result
            print(f"seed {seed}: {result.broken}", flush=True)
        now = time.monotonic()
        if now - told >= PROGRESS_EVERY:
            told = now
            print(f"{done} schedules, {done / (now - started):.1f}/s", flush=True)
        if options.seconds is not None and now - started > options.seconds:
            break
    seconds = time.monotonic() - started
    print(
        f"{done} schedules in {seconds:.1f} s: {done / seconds:.1f}/s on {options.jobs} processes;"
        f" {virtual / 3600:.1f} virtual hours, {total.steps} steps, {total.activations} activations"
        f" of which {total.needless} for a node that served, {total.suspicions} suspicions"
    )
    rules = Counter(result.broken.rule for result in failures.values() if result.broken)
    for rule, number in rules.most_common():
        print(f"{rule}: broken by {number} schedules")
    for rule in rules:
        seed = min(
            seed for seed, item in failures.items() if item.broken and item.broken.rule == rule
        )
        _report(seed, random_schedule(seed, size=options.nodes), keep=options.keep)
    return 1 if failures else 0


def _report(seed: int, schedule: Schedule, *, keep: bool) -> None:
    small = shrink(schedule)
    print(f"\nseed {seed}, {len(schedule.faults)} faults, shrunk to {len(small.faults)}:")
    print(small.to_json())
    if keep:
        broken = run(small).broken
        assert broken is not None
        path = REGRESSIONS / f"{broken.rule}_{seed}.json"
        path.write_text(small.to_json() + "\n")
        print(f"kept as {path.name}")


def _tell(schedule: Schedule) -> int:
    for spec in schedule.nodes:
        peers = " ".join(name if on else f"({name})" for name, on in spec.peers.items())
        print(
            f"{spec.name}: {spec.role.value}, site {spec.site or '-'}, priority {spec.priority},"
            f" failback {int(spec.failback)}, peers {peers}"
        )
    result = run(schedule, trace=True)
    print("\n".join(result.trace))
    print(result.broken or "every rule held")
    return 1 if result.broken else 0


if __name__ == "__main__":
    sys.exit(main())
