"""Nothing is fetched from two peers at once, and a peer that stalls holds nobody up."""

from __future__ import annotations

from dataclasses import replace

from controlone_ha.sync.fetches import STALLED, Fetches
from controlone_ha.sync.stamps import Stamp
from controlone_ha.sync.versions import Version


class Giver:
    def __init__(self) -> None:
        self.bytes_done = 0


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def version(number: int) -> Version:
    return Version(
        path="/srv/a", item="set", stamp=Stamp(number, 0, "m1"), checksum=f"{number:064x}",
        size=1, mode=0o644, mtime_ns=0, vector={"m1": number},
    )  # fmt: skip


def test_what_one_peer_gives_is_not_wanted_from_another_until_it_ends() -> None:
    fetches, one, other = Fetches(), Giver(), Giver()
    fetches.begin(one, [version(1)])
    assert fetches.is_elsewhere(other, version(1))
    assert not fetches.is_elsewhere(one, version(1))
    assert not fetches.is_elsewhere(other, version(2))
    assert not fetches.is_elsewhere(other, replace(version(1), path="/srv/b"))
    fetches.end(one)
    assert not fetches.is_elsewhere(other, version(1))


def test_a_peer_that_gives_no_byte_for_a_while_holds_nobody_up() -> None:
    clock = Clock()
    fetches, one, other = Fetches(clock), Giver(), Giver()
    fetches.begin(one, [version(1)])
    clock.now += STALLED - 0.1
    one.bytes_done += 1
    assert fetches.is_elsewhere(other, version(1))
    clock.now += STALLED - 0.1
    assert fetches.is_elsewhere(other, version(1))
    clock.now += 0.2
    assert not fetches.is_elsewhere(other, version(1))
