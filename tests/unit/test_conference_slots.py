"""How many calls are taken at the same time. No process."""

from __future__ import annotations

import asyncio

import pytest

from controlone_ha.conference import slots
from controlone_ha.conference.slots import Slots


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "QUIET", 0.2)


def course(places: Slots, lasting: dict[str, float]) -> list[str]:
    """Take calls that last so many seconds; return what began and ended, in order."""
    told: list[str] = []

    async def take(name: str, seconds: float) -> None:
        async with places.one():
            told.append(f"+{name}")
            await asyncio.sleep(seconds)
        told.append(f"-{name}")

    async def all_of_them() -> None:
        await asyncio.gather(*(take(name, seconds) for name, seconds in lasting.items()))

    asyncio.run(all_of_them())
    return told


def test_no_more_than_the_count_are_taken_at_the_same_time() -> None:
    assert course(Slots(1), {"a": 0.05, "b": 0.01, "c": 0}) == ["+a", "-a", "+b", "-b", "+c", "-c"]


def test_A1_a_call_that_stays_quiet_gives_its_place_back_once() -> None:
    told = course(Slots(1), {"silent": 0.6, "b": 0.05, "c": 0.05})
    assert told == ["+silent", "+b", "-b", "+c", "-c", "-silent"]


def test_where_everything_takes_long_a_call_keeps_its_place_for_longer() -> None:
    places = Slots(1)
    for _ in range(30):
        places.note(0.1)
    assert course(places, {"slow": 0.4, "b": 0}) == ["+slow", "-slow", "+b", "-b"]
