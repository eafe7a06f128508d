"""The bad cable: what is lost and what arrives when."""

from __future__ import annotations

import random

from controlone_ha.lab.wire import QUEUE, Cable


def test_a_frame_arrives_after_the_delay_and_not_before():
    arrived: list[bytes] = []
    cable = Cable(delay=0.1, jitter=0.0, loss=0.0)
    cable.put(5.0, b"x", arrived.append)
    wait = cable.deliver(5.05)
    assert arrived == []
    assert wait is not None
    assert abs(wait - 0.05) < 1e-9
    assert cable.deliver(5.1) is None
    assert arrived == [b"x"]


def test_without_jitter_frames_keep_their_order():
    arrived: list[bytes] = []
    cable = Cable(delay=0.1, jitter=0.0, loss=0.0)
    for number in range(50):
        cable.put(1.0, bytes([number]), arrived.append)
    cable.deliver(2.0)
    assert arrived == [bytes([number]) for number in range(50)]


def test_jitter_adds_up_to_its_amount_and_reorders():
    arrived: list[bytes] = []
    cable = Cable(delay=0.1, jitter=0.1, loss=0.0, random=random.Random(1))
    for number in range(50):
        cable.put(1.0, bytes([number]), arrived.append)
    cable.deliver(1.1)
    assert arrived == []
    cable.deliver(1.2)
    assert sorted(arrived) == [bytes([number]) for number in range(50)]
    assert arrived != sorted(arrived)


def test_the_given_part_is_lost():
    arrived: list[bytes] = []
    cable = Cable(delay=0.0, jitter=0.0, loss=0.3, random=random.Random(1))
    for _ in range(10_000):
        cable.put(1.0, b"x", arrived.append)
    cable.deliver(1.0)
    assert 6_800 < len(arrived) < 7_200


def test_a_cable_holds_a_bounded_number_of_frames():
    arrived: list[bytes] = []
    cable = Cable(delay=1.0, jitter=0.0, loss=0.0)
    for _ in range(QUEUE + 100):
        cable.put(1.0, b"x", arrived.append)
    cable.deliver(3.0)
    assert len(arrived) == QUEUE


def test_an_end_that_is_down_loses_the_frame_and_no_more():
    arrived: list[bytes] = []

    def down(_frame: bytes) -> None:
        raise OSError(100, "Network is down")

    cable = Cable(delay=0.0, jitter=0.0, loss=0.0)
    cable.put(1.0, b"x", down)
    cable.put(1.0, b"y", arrived.append)
    assert cable.deliver(1.0) is None
    assert arrived == [b"y"]
