"""Names and addresses of a lab, and the cluster of figure 1."""

from __future__ import annotations

import pytest

from controlone_ha.errors import LabError
from controlone_ha.lab import topology
from controlone_ha.lab.figure import figure_one
from controlone_ha.lab.topology import NodeSpec


def test_interface_names_fit_into_the_15_characters_of_the_kernel():
    longest = NodeSpec(name="n" * 11, site=254, host=254)
    assert len(longest.port) <= 15
    assert len(topology.bridge(254)) <= 15


@pytest.mark.parametrize("name", ["", "n" * 12, "Node", "-a", "1a", "a.b", "a/b", "router"])
def test_a_bad_node_name_is_refused(name):
    with pytest.raises(LabError, match="node name"):
        NodeSpec(name=name, site=1, host=2)


@pytest.mark.parametrize(("site", "host"), [(0, 2), (255, 2), (1, 1), (1, 255)])
def test_a_place_outside_the_subnets_is_refused(site, host):
    with pytest.raises(LabError, match="site"):
        NodeSpec(name="a", site=site, host=host)


def test_two_nodes_cannot_share_a_name_or_an_address():
    first = NodeSpec(name="a", site=1, host=2)
    with pytest.raises(LabError, match="same name"):
        topology.check_nodes([first, NodeSpec(name="a", site=1, host=3)])
    with pytest.raises(LabError, match="same address"):
        topology.check_nodes([first, NodeSpec(name="b", site=1, host=2)])


@pytest.mark.parametrize("lab_id", ["", "a-b", "A", "a" * 13, "../a"])
def test_a_bad_lab_name_is_refused(lab_id):
    with pytest.raises(LabError, match="lab name"):
        topology.check_lab_id(lab_id)


def test_C1_figure_1_has_two_masters_two_slaves_and_a_passive_node_on_two_sites():
    nodes = {node.name: node for node in figure_one()}
    roles = {name: node.packages["ha"][0].options["role"] for name, node in nodes.items()}
    assert roles == {"m1": "master", "s1": "slave", "m2": "master", "s2": "slave", "p1": "passive"}
    assert {name: node.site for name, node in nodes.items()} == {
        "m1": 1, "s1": 1, "m2": 2, "s2": 2, "p1": 2,
    }  # fmt: skip


def test_C2_options_of_single_nodes_win_over_those_of_all():
    nodes = figure_one(ha={"interval": "1"}, node_ha={"p1": {"interval": "5"}})
    intervals = {node.name: node.packages["ha"][0].options["interval"] for node in nodes}
    assert intervals == {"m1": "1", "s1": "1", "m2": "1", "s2": "1", "p1": "5"}


def test_C2_a_slave_replaces_the_master_of_its_own_site_only():
    slave = next(node for node in figure_one() if node.name == "s1")
    peers = {section.name: section.options for section in slave.packages["ha"][1:]}
    assert peers["m2"]["monitor"] == "0"
    assert "monitor" not in peers["m1"]


def test_every_node_has_all_others_as_peers_with_their_addresses():
    nodes = figure_one()
    addresses = {node.name: node.address for node in nodes}
    for node in nodes:
        main, *peers = node.packages["ha"]
        others = {name: address for name, address in addresses.items() if name != node.name}
        assert list(main.options["peers"]) == list(others)
        assert {section.name: section.options["address"] for section in peers} == others
