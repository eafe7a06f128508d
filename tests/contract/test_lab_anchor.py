"""keepalived as the anchor of the failover figures: it really fails over, and leaves nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlone_ha.lab import anchor_keepalived, namespaces
from controlone_ha.lab.anchor_keepalived import AnchorError, Kind, idle_cost, measure
from controlone_ha.lab.network import NETNS_DIRECTORY


def _own_namespaces() -> list[str]:
    prefix = f"{anchor_keepalived.PREFIX}{os.getpid()}-"
    return [entry.name for entry in NETNS_DIRECTORY.glob(f"{prefix}*")]


@pytest.fixture(autouse=True)
def _leaves_nothing(root: None) -> Iterator[None]:
    yield
    assert _own_namespaces() == []


@pytest.mark.parametrize("kind", ["crash", "cut"])
def test_the_backup_takes_the_address_after_three_advertisements(kind: Kind) -> None:
    # RFC 5798: three intervals and a skew of up to one more; the upper bound is for a busy machine.
    for seconds in measure(kind, 0.1, 2):
        assert 0.15 < seconds < 3.0


def test_its_cost_at_rest_is_that_of_both_its_processes() -> None:
    cost = idle_cost(0.1, 0.5)
    assert 1.0 < cost["pss_mb"] <= cost["rss_mb"] < 60.0
    assert 0.0 <= cost["cpu_percent"] < 50.0


def test_without_keepalived_the_error_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(anchor_keepalived, "_SBIN", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AnchorError, match="make setup"):
        measure("crash", 0.1, 1)


def test_what_a_killed_run_left_behind_is_removed_by_the_next_one() -> None:
    nobody = 4_200_000  # above the kernel's highest process number, 2^22
    assert not namespaces.is_alive(nobody)
    name = f"{anchor_keepalived.PREFIX}{nobody}-abcd-switch"
    anchor_keepalived._ip("netns", "add", name)
    measure("crash", 0.1, 1)
    assert not (NETNS_DIRECTORY / name).exists()
