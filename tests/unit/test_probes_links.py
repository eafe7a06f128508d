"""The table of interfaces, and what happened between two snapshots of it."""

from __future__ import annotations

import json

import pytest

from controlone_ha.probes.links import (
    IFF_LOOPBACK,
    IFF_RUNNING,
    IFF_UP,
    InterfaceState,
    LinkSnapshot,
    LinkTable,
    changes,
    snapshot_from_json,
)

UP = IFF_UP | IFF_RUNNING


def table(wanted: list[str] | None = None) -> LinkTable:
    """Return loopback, eth0 with an address and the default route, and eth1 without address."""
    links = LinkTable(wanted)
    links.link(1, "lo", UP | IFF_LOOPBACK)
    links.address(1, "127.0.0.1", 254)
    links.link(2, "eth0", UP)
    links.address(2, "10.0.0.1", 0)
    links.address(2, "fe80::1", 253)
    links.link(3, "eth1", UP)
    links.default_route(2, 2, "10.0.0.254")
    return links


def told(links: LinkTable, before: LinkSnapshot) -> list[str]:
    return [event.text for event in changes(before, links.snapshot())]


def test_only_interfaces_with_addresses_matter_unless_they_are_named() -> None:
    eth0 = InterfaceState(is_up=True, addresses=frozenset({"10.0.0.1"}))
    assert table().snapshot() == LinkSnapshot(interfaces={"eth0": eth0}, has_default_route=True)
    assert set(table(["eth1", "eth9"]).snapshot().interfaces) == {"eth1"}


@pytest.mark.parametrize(
    ("flags", "is_up"), [(UP, True), (IFF_UP, False), (0, False), (IFF_RUNNING, False)]
)
def test_up_means_set_up_and_with_carrier(flags: int, is_up: bool) -> None:
    links = table()
    links.link(2, "eth0", flags)
    assert links.snapshot().interfaces["eth0"].is_up is is_up


def test_F1_a_lost_carrier_takes_the_default_route_along_and_brings_it_back() -> None:
    links = table()
    before = links.snapshot()
    links.link(2, "eth0", IFF_UP)
    assert told(links, before) == ["there is no default route any more", "interface eth0 is down"]
    assert not links.snapshot().has_any_up
    before = links.snapshot()
    links.link(2, "eth0", UP)
    assert told(links, before) == ["interface eth0 is up", "there is a default route"]


def test_an_interface_set_down_loses_its_routes_for_good() -> None:
    links = table()
    links.link(2, "eth0", 0)
    links.link(2, "eth0", UP)
    assert not links.snapshot().has_default_route


def test_F1_addresses_that_come_and_go_are_told() -> None:
    links = table()
    before = links.snapshot()
    links.address_gone(2, "10.0.0.1")
    links.address(2, "10.0.0.2", 0)
    assert told(links, before) == [
        "address 10.0.0.1 is gone from eth0",
        "address 10.0.0.2 is on eth0",
    ]


def test_an_interface_that_has_lost_its_last_address_still_matters() -> None:
    links = table()
    before = links.snapshot()
    links.address_gone(2, "10.0.0.1")
    assert links.snapshot().interfaces["eth0"] == InterfaceState(is_up=True)
    assert told(links, before) == ["address 10.0.0.1 is gone from eth0"]


def test_an_interface_that_is_removed_is_told_once() -> None:
    links = table()
    before = links.snapshot()
    links.address_gone(2, "10.0.0.1")
    links.link_gone(2)
    assert told(links, before) == ["there is no default route any more", "interface eth0 is gone"]
    before = links.snapshot()
    links.link(7, "eth0", UP)
    links.address(7, "10.0.0.1", 0)
    assert told(links, before) == ["interface eth0 has appeared"]


def test_another_default_route_is_as_good() -> None:
    links = table()
    links.address(3, "10.1.0.1", 0)
    links.default_route(2, 3, "10.1.0.254")
    before = links.snapshot()
    links.default_route_gone(2, 2, "10.0.0.254")
    assert told(links, before) == []
    links.replace_default_routes([])
    assert told(links, before) == ["there is no default route any more"]


def test_messages_about_unknown_interfaces_change_nothing() -> None:
    links = table()
    before = links.snapshot()
    links.address(99, "10.9.9.9", 0)
    links.address_gone(99, "10.9.9.9")
    links.link_gone(99)
    links.default_route(2, 99, "")
    assert links.snapshot() == before


def test_a_new_dump_starts_from_nothing() -> None:
    links = table()
    links.clear()
    assert links.snapshot() == LinkSnapshot()


def test_a_snapshot_survives_the_pipe() -> None:
    snapshot = table().snapshot()
    assert snapshot_from_json(json.loads(json.dumps(snapshot.to_json()))) == snapshot
