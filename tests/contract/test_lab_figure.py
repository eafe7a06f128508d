"""Figure 1 of the specification in the lab: files that the product reads, and real parts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlone_ha.config.settings import load_conference, load_ha, load_server
from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.figure import SECRET, figure_one, make_lab
from controlone_ha.lab.node_files import write_package

pytestmark = pytest.mark.contract

# A client without TLS, and one with TLS that has no certificate.
STRANGER = """
import sys, socket, pymongo
socket.create_connection((sys.argv[1], 27017), 5).close()
print("reached")
for options in {}, {"tls": True, "tlsAllowInvalidCertificates": True}:
    client = pymongo.MongoClient(
        sys.argv[1], directConnection=True, serverSelectionTimeoutMS=1000, **options
    )
    try:
        print(client.admin.command("ping")["ok"])
    except pymongo.errors.ServerSelectionTimeoutError as error:
        print("refused")
"""

# What listens on the node, by its own /proc/net.
LISTENING = """
ports = set()
for table in ("tcp", "tcp6"):
    for line in open(f"/proc/net/{table}").readlines()[1:]:
        fields = line.split()
        if fields[3] == "0A":
            ports.add(int(fields[1].rpartition(":")[2], 16))
print(*sorted(ports))
"""


@pytest.fixture(scope="module")
def lab(root: None, sshd_path: Path, dropbear_path: Path, mongod_path: Path) -> Iterator[Lab]:
    nodes = [node for node in figure_one(database=True, services=()) if node.name in ("m1", "s2")]
    with make_lab(nodes) as lab:
        for node in lab.nodes.values():
            node.wait_until_listening(22)
            node.wait_until_listening(27017)
        yield lab


def test_G1_the_files_of_every_node_are_valid_settings_without_warnings(tmp_path):
    for node in figure_one(ha={"interval": "1"}, limits={"cpu": "80"}):
        directory = tmp_path / node.name
        directory.mkdir()
        for name, sections in node.packages.items():
            write_package(directory / name, sections)
        settings = load_ha(directory)
        assert settings.warnings == ()
        assert settings.name == node.name
        assert settings.secret == SECRET
        assert settings.interval == 1.0
        assert settings.limits["cpu"] == 80
        assert len(settings.peers) == 4
        assert load_server(directory).port == 7551
        assert load_conference(directory).port == 5060


def test_C5_a_node_without_our_services_listens_on_ssh_and_database_only(lab):
    for node in lab.nodes.values():
        done = node.exec([sys.executable, "-c", LISTENING], check=True)
        assert done.stdout.split() == ["22", "27017"]


def test_C5_X2_the_database_is_reached_from_the_other_site_and_answers_no_stranger(lab):
    ask = [sys.executable, "-c", STRANGER, lab.node("m1").address]
    done = lab.node("s2").exec(ask, check=True)
    assert done.stdout.split() == ["reached", "refused", "refused"]
