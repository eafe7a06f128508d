"""Pins every node of a lab on every other, as if `ha pair` had been run: for runs that are not
about pairing. The daemons notice the new pins by themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.node import LabNode
from controlone_ha.lab.node_services import DROPBEAR_HOST_KEY, SSHD_HOST_KEY
from controlone_ha.paths import NodePaths

if TYPE_CHECKING:
    from controlone_ha.peers.pins import Pin


def pin_everybody(lab: Lab) -> None:
    """Make what is missing of the nodes' identities and pin each on all the others."""
    from controlone_ha.peers.trust import TrustStore

    pins = {name: _pin_of(node) for name, node in lab.nodes.items()}
    for name, node in lab.nodes.items():
        store = TrustStore(_paths(node).pins_file)
        for other, pin in pins.items():
            if other != name:
                store.pin(pin)


def _paths(node: LabNode) -> NodePaths:
    return NodePaths(
        config_dir=node.path("/etc/config"),
        save_dir=node.path("/tmp"),
        state_dir=node.path("/etc/controlone"),
        run_dir=node.path("/var/run/controlone"),
    )


def _pin_of(node: LabNode) -> Pin:
    from controlone_ha.peers.keys import ensure_identity
    from controlone_ha.peers.pins import Pin

    identity = ensure_identity(_paths(node), node.name)
    return Pin(
        name=node.name,
        public_key=identity.public_key,
        certificate=identity.certificate,
        host_keys=tuple(_host_keys(node)),
        addresses=(node.address,),
    )


def _host_keys(node: LabNode) -> list[str]:
    """Return the host keys as their SSH server offers them."""
    import subprocess

    from controlone_ha.lab import parts

    if node.spec.ssh == "openssh":
        text = Path(f"{node.path(SSHD_HOST_KEY)}.pub").read_text()
    else:
        command = [str(parts.dropbearkey_path()), "-y", "-f", str(node.path(DROPBEAR_HOST_KEY))]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line.split() for line in text.splitlines()]
    return [f"{words[0]} {words[1]}" for words in lines if words and words[0].startswith("ssh-")]
