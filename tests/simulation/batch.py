"""Many runs on all processors. Children are forked, so that a mutant is broken in them, too."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from functools import partial

from tests.simulation.generate import random_schedule
from tests.simulation.run import Result, run

BATCH = 2000
"""Seeds handed out at a time: a pool takes in all that it is given."""


def run_seed(seed: int, *, size: int | None = None) -> tuple[int, Result]:
    """Run the schedule of one seed."""
    return seed, run(random_schedule(seed, size=size))


def run_seeds(
    seeds: Sequence[int], *, size: int | None = None, jobs: int | None = None
) -> Iterator[tuple[int, Result]]:
    """Yield the result of every seed, in any order; ``jobs`` None: one process per processor."""
    work = partial(run_seed, size=size)
    jobs = jobs or os.cpu_count() or 1
    if jobs == 1:
        yield from map(work, seeds)
        return
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for start in range(0, len(seeds), BATCH):
            yield from pool.imap_unordered(work, seeds[start : start + BATCH], chunksize=4)
