"""Databases under random faults: ``python -m tests.soak.database_faults [ROUNDS] [SEED]``.

Three real mongods with their synchronisers and the schedule of ``tests/contract/
database_schedule.py``: partitions, kill -9 of either, oplogs that roll over. Exit code 1 when a
round was wrong. Two or three seconds a round.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

from controlone_ha.lab import parts
from tests.contract.database_schedule import FAULTS, MONGOD, SETTINGS, Schedule
from tests.contract.database_support import Cluster, bases
from tests.ports import free_port


def main(arguments: list[str]) -> int:
    """Run the rounds and print what was found."""
    rounds = int(arguments[0]) if arguments else 200
    seed = int(arguments[1]) if len(arguments) > 1 else 1
    print(f"{rounds} rounds, seed {seed}", flush=True)
    done: Counter[str] = Counter()
    with (
        bases(parts.mongod_path(), free_port, 3, **MONGOD) as three,
        tempfile.TemporaryDirectory() as directory,
    ):
        cluster = Cluster(three, Path(directory), **SETTINGS)
        try:
            cluster.start()
            cluster.wait_in_sync()
            schedule = Schedule(cluster, seed)
            for number in range(1, rounds + 1):
                fault = schedule.chance.choice(FAULTS)
                problems = schedule.run(1, [fault])
                done[fault] += 1
                for problem in problems:
                    print(problem, flush=True)
                if problems:
                    print(cluster.describe())
                    return 1
                if number % 10 == 0 or number == rounds:
                    print(
                        f"{number} rounds ({dict(done)}): {schedule.acknowledged} writes, "
                        f"{schedule.kept} losers kept, {schedule.clashes} of them by clashes",
                        flush=True,
                    )
        finally:
            cluster.clean()
    print("all nodes equal after each round, the last writers won, nothing was lost")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
