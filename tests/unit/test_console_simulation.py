"""A day of random outages, and what the failover client's decisions make of it."""

from __future__ import annotations

from functools import partial

import pytest

from controlone_ha.console.rules import Policy, Rules
from tests.unit.console_world import CUT, DEAD, SERVING, STANDBY, World

DAY = 86400.0


def _trouble(world: World, server: str) -> None:
    """Change one server now and plan its next change."""
    chance = world.chance
    if world.status[server] == SERVING:
        status = chance.choice((STANDBY, DEAD, CUT))
        lasts = chance.choice((0.5, 5.0, 30.0, 300.0)) * chance.uniform(0.2, 2.0)
    else:
        status, lasts = SERVING, chance.choice((3.0, 60.0, 900.0)) * chance.uniform(0.2, 2.0)
    world.turn(server, status)
    world.later(lasts, partial(_trouble, world, server))


@pytest.mark.parametrize("policy", list(Policy))
def test_K1_a_day_of_random_outages_never_gives_two_logins_nor_a_long_time_without_one(
    policy: Policy,
) -> None:
    rules = Rules(servers=("a", "b", "c"), policy=policy)
    world = World(rules, seed=7 + len(policy.value)).start()
    for server in rules.servers:
        world.later(world.chance.uniform(10.0, 300.0), partial(_trouble, world, server))
    world.run(DAY)
    assert world.problems == []
    assert len(world.moves) > 100, "there was trouble, and it was survived"
    assert 0.0 < world.longest_without <= rules.timeout * len(rules.servers)


def test_K3_a_quiet_day_costs_pings_and_tests_only() -> None:
    rules = Rules(servers=("a", "b", "c"))
    world = World(rules, seed=3).start()
    world.run(DAY)
    assert [server for _, server in world.moves] == ["a"]
    assert world.problems == []
    assert world.tests == pytest.approx(2 * DAY / rules.check_interval, rel=0.05)
