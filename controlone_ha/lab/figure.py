"""Figure 1 of the specification: two sites, a master and a slave in each, and a passive node.

    site 1 (10.71.1.0/24): m1 master, s1 slave
    site 2 (10.71.2.0/24): m2 master, s2 slave, p1 passive

Every node has every other in its peers list. A slave replaces the master of its own site only
(`monitor` is 0 for the other one), so that it is clear who takes over from whom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.node_files import prepare_files
from controlone_ha.lab.node_services import DEFAULT_SERVICES, definitions
from controlone_ha.lab.topology import NodeSpec, Options, Section, SshServer

Role = Literal["master", "slave", "passive"]

SECRET = "laboratory-secret"
_SERVER = {"authentication": "optional"}
"""Stopwatches and tests log in under any name; enrolled consoles have to prove who they are."""

_PLACES: Sequence[tuple[str, int, int, Role, str]] = (
    ("m1", 1, 11, "master", "200"),
    ("s1", 1, 12, "slave", "100"),
    ("m2", 2, 11, "master", "190"),
    ("s2", 2, 12, "slave", "90"),
    ("p1", 2, 13, "passive", "10"),
)


def figure_one(
    *,
    ha: Options | None = None,
    node_ha: Mapping[str, Options] | None = None,
    limits: Options | None = None,
    ssh: SshServer | Mapping[str, SshServer] = "openssh",
    database: bool = False,
    services: Sequence[str] = DEFAULT_SERVICES,
    secret: str = SECRET,
    data_disk_mb: int | None = None,
) -> list[NodeSpec]:
    """Return the five nodes.

    ``ha`` are options of ``ha.default`` on every node (such as ``{"interval": "1"}``), ``node_ha``
    those of single nodes by name; both win over what is set here. ``limits`` are the options of
    ``ha.limits``. ``ssh`` is one server for all, or by node name (the others: OpenSSH).
    ``database`` adds a mongod to each node.
    """
    addresses = {name: f"10.71.{site}.{host}" for name, site, host, _role, _priority in _PLACES}
    masters = {site: name for name, site, _host, role, _priority in _PLACES if role == "master"}
    nodes = []
    for name, site, host, role, priority in _PLACES:
        others = [other for other in addresses if other != name]
        options: dict[str, str | Sequence[str]] = {
            "enabled": "1",
            "name": name,
            "role": role,
            "peers": others,
            "secret": secret,
            "priority": priority,
            "site": f"site{site}",
            **(ha or {}),
            **(node_ha or {}).get(name, {}),
        }
        sections = [Section(kind="ha", name="default", options=options)]
        for other in others:
            refined = {"address": addresses[other]}
            if role == "slave" and other in masters.values() and other != masters[site]:
                refined["monitor"] = "0"
            sections.append(Section(kind="peer", name=other, options=refined))
        if limits:
            sections.append(Section(kind="limits", name="limits", options=limits))
        nodes.append(
            NodeSpec(
                name=name,
                site=site,
                host=host,
                ssh=ssh if isinstance(ssh, str) else ssh.get(name, "openssh"),
                packages={
                    "ha": tuple(sections),
                    "server": (Section(kind="server", name="default", options=_SERVER),),
                    "conference": (Section(kind="conference", name="default"),),
                },
                services=(*(["mongod"] if database else []), *services),
                data_disk_mb=data_disk_mb,
            )
        )
    return nodes


def make_lab(
    nodes: Sequence[NodeSpec],
    *,
    lab_id: str | None = None,
    tied: bool = True,
    root_password: str | None = None,
) -> Lab:
    """Return a lab of these nodes with the services and files of real ones; it is not up yet."""
    return Lab(
        nodes,
        lab_id=lab_id,
        tied=tied,
        services=definitions,
        prepare=prepare_files,
        root_password=root_password,
    )
