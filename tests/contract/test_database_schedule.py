"""A short random schedule of faults on three real nodes; ``make soak-database`` has a long one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.database_schedule import FAULTS, MONGOD, SETTINGS, Schedule
from tests.contract.database_support import Cluster, bases

pytestmark = pytest.mark.contract


@pytest.mark.timeout(240)
@pytest.mark.slow
def test_S3_S4_three_nodes_agree_after_a_round_of_every_fault(
    mongod_path: Path, free_port: Callable[[], int], tmp_path: Path
) -> None:
    with bases(mongod_path, free_port, 3, **MONGOD) as three:
        cluster = Cluster(three, tmp_path, **SETTINGS)
        try:
            cluster.start()
            cluster.wait_in_sync()
            schedule = Schedule(cluster, seed=5)
            assert schedule.run(len(FAULTS), FAULTS) == []
            assert schedule.acknowledged > 40 and schedule.kept > 0 and schedule.clashes > 0
        finally:
            cluster.clean()
