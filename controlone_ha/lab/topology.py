"""What a lab consists of: nodes, sites, addresses. Pure data; builds and starts nothing.

Names of network namespaces and of interfaces are made here, as every module must agree on them. Two
labs use the same addresses without meeting: their namespaces carry the identifier of the lab.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from controlone_ha.errors import LabError

NAMESPACE_PREFIX = "c1lab-"
"""The network namespaces of all labs begin so, and nothing else does: leftovers are found by it."""

ROUTER = "router"
NODE_INTERFACE = "eth0"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,10}")
_LAB_ID = re.compile(r"[a-z0-9]{1,12}")

Options = Mapping[str, str | Sequence[str]]
SshServer = Literal["openssh", "dropbear", "none"]


@dataclass(frozen=True, kw_only=True)
class Section:
    """One UCI section: ``config <kind> '<name>'``; an option with a list value makes a UCI list."""

    kind: str
    name: str
    options: Options = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class NodeSpec:
    """One node of a lab.

    ``site`` chooses the subnet (10.71.<site>.0/24), ``host`` the last octet. ``packages`` are the
    files in the node's /etc/config, by name. ``ssh`` is the server on TCP/22; ``services`` are the
    services started at boot, by their names in ``node_services``. ``data_disk_mb`` gives
    /var/lib/controlone a file system of its own of that size, in memory, that can be filled.
    """

    name: str
    site: int
    host: int
    ssh: SshServer = "openssh"
    packages: Mapping[str, tuple[Section, ...]] = field(default_factory=dict)
    services: tuple[str, ...] = ()
    data_disk_mb: int | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name == ROUTER:
            raise LabError(
                f"node name {self.name!r}: expected up to 11 of a-z, 0-9 and -, a letter first"
            )
        if not 1 <= self.site <= 254 or not 2 <= self.host <= 254:
            raise LabError(f"node {self.name}: site must be 1 to 254 and host 2 to 254")

    @property
    def address(self) -> str:
        """The node's IPv4 address."""
        return f"10.71.{self.site}.{self.host}"

    @property
    def mac(self) -> str:
        """The node's Ethernet address: fixed, so that the router needs no ARP."""
        return f"02:71:00:00:{self.site:02x}:{self.host:02x}"

    @property
    def port(self) -> str:
        """Name of the router's interface (bridge port) to this node; at most 15 characters."""
        return f"to-{self.name}"

    @property
    def tap(self) -> str:
        """Name of the interface that stands in for the port while the cable is a bad one."""
        return f"bad-{self.name}"


def subnet(site: int) -> str:
    """Return the network of a site, such as ``10.71.1.0/24``."""
    return f"10.71.{site}.0/24"


def gateway(site: int) -> str:
    """Return the router's address in a site."""
    return f"10.71.{site}.1"


def gateway_mac(site: int) -> str:
    """Return the Ethernet address of the router in a site."""
    return f"02:71:00:00:{site:02x}:01"


def bridge(site: int) -> str:
    """Return the name of the site's bridge in the router's namespace."""
    return f"site{site}"


def namespace(lab_id: str, node: str) -> str:
    """Return the name of the network namespace of a node (or of the router) of a lab."""
    return f"{NAMESPACE_PREFIX}{lab_id}-{node}"


def check_lab_id(lab_id: str) -> str:
    """Return ``lab_id`` if it may name a lab; raise ``LabError``."""
    if not _LAB_ID.fullmatch(lab_id):
        raise LabError(f"lab name {lab_id!r}: expected 1 to 12 of a-z and 0-9")
    return lab_id


def check_nodes(nodes: Sequence[NodeSpec]) -> None:
    """Raise ``LabError`` when two nodes share a name or an address, or when there is none."""
    if not nodes:
        raise LabError("a lab needs at least one node")
    for what, values in (
        ("name", [node.name for node in nodes]),
        ("address", [node.address for node in nodes]),
    ):
        twice = {value for value in values if values.count(value) > 1}
        if twice:
            raise LabError(f"two nodes have the same {what}: {', '.join(sorted(twice))}")
