"""What follows from what is known of the servers: the order to try them in, and which is better.

Pure functions over ``Server`` records; the events that change them are in ``core``.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from controlone_ha.console.rules import Health, Policy, Rules, Server

FIRST_TESTS = 5.0
"""Seconds within which a server that is new in the list is tested for the first time."""


def take_list(
    rules: Rules,
    servers: Mapping[str, Server],
    active: str | None,
    now: float,
    chance: random.Random,
) -> dict[str, Server]:
    """Return the records for the list of ``rules``; what is known stays, also of the active server
    when it is not in the list any more.
    """
    records: dict[str, Server] = {}
    for key in rules.servers:
        server = servers.get(key)
        if server is None:
            # Spread: consoles that start together do not test together.
            spread = chance.uniform(0.2, 1.0) * min(FIRST_TESTS, rules.check_interval)
            server = Server(key, next_test=now + spread)
        records[key] = server
    if active is not None and active not in records:
        records[active] = servers[active]
    return records


def order(
    rules: Rules,
    servers: Mapping[str, Server],
    *,
    last: str | None = None,
    exclude: str | None = None,
) -> list[str]:
    """Return the servers of a round: as listed, those of which little is to be expected (down,
    refusing, and ``last`` of all the one that has just failed) at its end.
    """

    def hope(key: str) -> int:
        if key == last:
            return 2
        return 1 if servers[key].health in (Health.DOWN, Health.REFUSING) else 0

    return sorted((key for key in rules.servers if key != exclude), key=hope)


def test_interval(rules: Rules, active: str | None, key: str) -> float:
    """Return how often to test ``key``: a server better than the active one is waited for."""
    listed = rules.servers
    if active in listed and key in listed and listed.index(key) < listed.index(active):
        return max(0.5, min(rules.check_interval, rules.return_delay / 3))
    return rules.check_interval


def hasten_tests(rules: Rules, servers: Mapping[str, Server], active: str, now: float) -> None:
    """Bring the next tests forward to what their interval is now that ``active`` is the server."""
    for key in rules.servers:
        server = servers[key]
        server.next_test = min(server.next_test, now + test_interval(rules, active, key))


def better_than(rules: Rules, servers: Mapping[str, Server], active: str, now: float) -> str | None:
    """Return the server to go to from ``active``: the first of the list that has served for long
    enough, or any when ``active`` is not in the list any more; None: this one is right.
    """
    if active not in rules.servers:
        return next((key for key in rules.servers if servers[key].may_serve), None)
    if rules.policy is Policy.NEVER:
        return None
    for key in rules.servers[: rules.servers.index(active)]:
        since = servers[key].serving_since
        if since is not None and now - since >= rules.return_delay * servers[key].damping:
            return key
    return None
