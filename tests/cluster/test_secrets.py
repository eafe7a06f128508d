"""X2: after a cluster has done everything, its secret is nowhere but in its configuration file."""

from __future__ import annotations

import tarfile
from pathlib import Path

from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.node import LabNode
from controlone_ha.peers.secret import cluster_keys
from tests.cluster.support import Console, calm, ha, set_option, wait_for_state

PLACES = ("/etc/controlone", "/var/run/controlone", "/var/lib/controlone", "/tmp")
DERIVED = ("own.password", "previous-secret.json")
"""What is on disk by design, 0600: the local password of mongod, and the link key of the secret
before the present one while that is accepted.
"""


def files_of(node: LabNode) -> dict[str, bytes]:
    """Return the files in which a secret might be left; not what a database keeps for itself."""
    found = {}
    for place in PLACES:
        inside = "/run/controlone" if place.startswith("/var/run") else place
        for file in sorted(node.path(inside).rglob("*")):
            if file.is_file() and file.name not in DERIVED:
                found[f"{place}: {file.name}"] = file.read_bytes()
    return found


def processes_of(node: LabNode) -> dict[str, bytes]:
    """Return what /proc shows of every process of the node, as anybody on it can read it."""
    listing = node.exec(
        ["sh", "-c", "for p in /proc/[0-9]*; do cat $p/cmdline $p/environ; done 2>/dev/null"]
    )
    return {"cmdline and environ": listing.stdout.encode()}


def bundle_of(node: LabNode) -> dict[str, bytes]:
    """Return the files of the bundle that `ha support` makes."""
    inside = "/etc/controlone/support.tar.gz"
    done = ha(node, "support", inside)
    assert done.returncode == 0, done.stderr
    file = Path(node.path("/etc/controlone")) / "support.tar.gz"
    assert file.stat().st_mode & 0o777 == 0o600
    try:
        with tarfile.open(file) as archive:
            found = {}
            for member in archive.getmembers():
                stream = archive.extractfile(member)
                assert stream is not None
                found[f"support: {member.name}"] = stream.read()
    finally:
        file.unlink()
    assert any(name.endswith("/config/ha") for name in found)
    assert any(name.endswith("/status.json") for name in found)
    return found


def test_X2_the_secret_is_in_no_log_bundle_process_or_file_of_any_node(lab: Lab) -> None:
    secret = lab.node("m1").exec(["uci", "get", "ha.default.secret"], check=True).stdout.strip()
    assert len(secret) >= 6
    # Everything that a demonstration does: takeover, return, orders, an edit, a login.
    lab.node("m1").kill()
    wait_for_state(lab, "s1", "active")
    calm(lab)
    with Console(lab, "m1") as console:
        console.login("desk-7")
    assert ha(lab.node("s2"), "force-passive").returncode == 0
    assert ha(lab.node("s2"), "resume").returncode == 0
    set_option(lab.node("s2"), "ha.default.priority", "101")
    set_option(lab.node("s2"), "ha.default.priority", "100")
    calm(lab)
    keys = cluster_keys(secret)
    hidden = (secret.encode(), keys.database_password.encode(), keys.link.hex().encode())
    for node in lab.nodes.values():
        logs = {
            f"log: {service}": node.read_log(service).encode()
            for service in ("ha", "server", "controller", "conference", "sshd")
        }
        for place, content in {
            **logs,
            **processes_of(node),
            **files_of(node),
            **bundle_of(node),
        }.items():
            for number, value in enumerate(hidden):
                assert value not in content, f"{node.name}: {place} has secret {number}"
