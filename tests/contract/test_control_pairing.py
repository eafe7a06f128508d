"""`ha pair` and its parts as processes on both sides, over real SSH servers."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlone_ha.paths import node_paths
from controlone_ha.peers.keys import ensure_identity, ssh_fingerprint
from controlone_ha.peers.secret import PREVIOUS_FILE, cluster_keys, load_previous
from controlone_ha.peers.trust import TrustStore
from tests.contract.control_daemon import ENTRY, Daemon, Node
from tests.contract.peers_support import SERVERS, SshServer

pytestmark = pytest.mark.contract


class PairedNode(Node):
    """A node with a configuration file and an SSH server that lets an administrator in."""

    def __init__(self, name: str, root: Path, kind: str, peer: str) -> None:
        root.mkdir()
        super().__init__(root)
        self.name = name
        self.server = SshServer(kind, root)
        self.server.start()
        config = root / "config"
        config.mkdir()
        (config / "ha").write_text(
            f"config ha 'default'\n\toption name '{name}'\n\toption role 'slave'\n"
            f"\toption peers '{peer}'\n\toption secret 'a-long-enough-secret'\n"
            f"\toption address '127.0.0.1'\n\toption ssh_port '{self.server.port}'\n"
            f"\toption authorized_keys '{self.server.authorized_keys}'\n"
        )
        self.environment["UCI_CONFIG_DIR"] = str(config)
        self.paths = node_paths(self.environment)
        self.identity = ensure_identity(self.paths, name)

    def admit(self, public_key: str) -> None:
        """Let an administrator in. The session gets this node's directories, as `sshd` of a real
        node needs none of that; what the client asks to be run stays `ha pair-accept`."""
        script = self.run_dir / "login.sh"
        lines = [f"export {name}={shlex.quote(value)}" for name, value in self.environment.items()]
        lines += [
            'test "$SSH_ORIGINAL_COMMAND" = "ha pair-accept" || exit 99',
            f"exec /bin/sh {ENTRY} pair-accept",
        ]
        script.write_text("\n".join(lines) + "\n")
        with self.server.authorized_keys.open("a") as file:
            file.write(f'command="/bin/sh {script}" {public_key}')

    def pins(self) -> dict[str, str]:
        """Return the pinned fingerprints by name."""
        store = TrustStore(self.paths.pins_file)
        return {name: pin.key_fingerprint for name, pin in store.pins().items()}


@pytest.fixture(params=SERVERS)
def pair_of_nodes(
    request: pytest.FixtureRequest, tmp_path: Path, short_directory: Path
) -> Iterator[tuple[PairedNode, PairedNode, Path]]:
    """Two unpaired nodes, and the key of who may log in to the second."""
    key = tmp_path / "id_ed25519"
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
    subprocess.run(make, check=True)
    made: list[PairedNode] = []
    try:
        for name, peer in (("alfa", "beta"), ("beta", "alfa")):
            made.append(PairedNode(name, short_directory / name, request.param, peer))
        made[1].admit(Path(f"{key}.pub").read_text())
        yield made[0], made[1], key
    finally:
        for node in made:
            node.server.stop()


def host_key_fingerprint(node: PairedNode) -> str:
    return next(ssh_fingerprint(k) for k in node.server.host_keys if k.startswith("ssh-ed25519"))


def test_X1_ha_pair_enrols_both_sides_and_tells_the_daemon(
    pair_of_nodes: tuple[PairedNode, PairedNode, Path],
) -> None:
    alfa, beta, key = pair_of_nodes
    daemon = Daemon(alfa.run_dir)
    target = f"root@127.0.0.1:{beta.server.port}"
    try:
        done = alfa.ha("pair", target, "-i", str(key), "--fingerprint", host_key_fingerprint(beta))
        assert (done.returncode, done.stderr) == (0, "")
        told = daemon.node.calls
    finally:
        daemon.stop()
    assert done.stdout == f"Paired with beta (127.0.0.1), key {beta.identity.key_fingerprint}.\n"
    assert told == [("trust_changed", {})]
    assert alfa.pins() == {"beta": beta.identity.key_fingerprint}
    assert beta.pins() == {"alfa": alfa.identity.key_fingerprint}
    keys = alfa.ha("keys").stdout
    assert alfa.identity.key_fingerprint in keys
    assert f"beta  127.0.0.1\n  key          {beta.identity.key_fingerprint}\n" in keys
    for node in (alfa, beta):  # what an administrator compares before he pairs
        assert f"host key     {host_key_fingerprint(node)}\n" in keys


def test_X1_a_host_key_nobody_confirms_ends_ha_pair(
    pair_of_nodes: tuple[PairedNode, PairedNode, Path],
) -> None:
    alfa, beta, key = pair_of_nodes
    done = alfa.ha("pair", f"127.0.0.1:{beta.server.port}", "--identity", str(key))
    assert (done.returncode, done.stdout) == (1, "")
    assert "shows the host key SHA256:" in done.stderr
    assert "was not confirmed" in done.stderr
    assert (alfa.pins(), beta.pins()) == ({}, {})


def test_X1_offers_carried_by_hand_pair_with_compared_fingerprints(
    pair_of_nodes: tuple[PairedNode, PairedNode, Path], tmp_path: Path
) -> None:
    alfa, beta, _ = pair_of_nodes
    for one, other in ((alfa, beta), (beta, alfa)):
        exported = json.loads(one.ha("pair-export", "--json").stdout)
        file = tmp_path / f"{one.name}.offer"
        file.write_text(exported["offer"])
        unconfirmed = other.ha("pair-import", str(file))
        assert unconfirmed.returncode == 1
        assert f"use --fingerprint {exported['fingerprint']}" in unconfirmed.stderr
        assert other.pins() == {}
        done = other.ha("pair-import", str(file), "--fingerprint", exported["fingerprint"])
        assert (done.returncode, done.stderr) == (0, "")
        assert other.pins() == {one.name: one.identity.key_fingerprint}


def test_X1_unpair_forgets_the_node_and_shuts_its_key_out(
    pair_of_nodes: tuple[PairedNode, PairedNode, Path], tmp_path: Path
) -> None:
    alfa, beta, _ = pair_of_nodes
    exported = json.loads(beta.ha("pair-export", "--json").stdout)
    file = tmp_path / "offer"
    file.write_text(exported["offer"])
    fingerprint = exported["fingerprint"]
    assert alfa.ha("pair-import", str(file), "--fingerprint", fingerprint).returncode == 0
    assert "controlone-ha:beta" in alfa.server.authorized_keys.read_text()
    done = alfa.ha("unpair", "beta", "--here")
    assert (done.returncode, done.stdout) == (0, "beta is no longer trusted by this node.\n")
    assert alfa.pins() == {}
    assert "controlone-ha:beta" not in alfa.server.authorized_keys.read_text()
    again = alfa.ha("unpair", "beta")
    assert (again.returncode, again.stderr) == (1, "ha: no node named 'beta' is paired\n")
    assert alfa.ha("pair-import", str(file), "--fingerprint", fingerprint).returncode == 0
    assert set(alfa.pins()) == {"beta"}


def test_X1_an_expelled_key_is_not_paired_again_but_a_new_one_of_that_node_is(
    pair_of_nodes: tuple[PairedNode, PairedNode, Path], tmp_path: Path
) -> None:
    alfa, beta, _ = pair_of_nodes

    def bring() -> subprocess.CompletedProcess[str]:
        exported = json.loads(beta.ha("pair-export", "--json").stdout)
        file = tmp_path / "offer"
        file.write_text(exported["offer"])
        return alfa.ha("pair-import", str(file), "--fingerprint", exported["fingerprint"])

    assert bring().returncode == 0
    kept = alfa.paths.pins_file.read_bytes()
    done = alfa.ha("unpair", "beta", "--reason", "stolen")
    key = beta.identity.key_fingerprint
    assert (done.returncode, done.stdout) == (
        0,
        f"beta is expelled from the cluster, key {key}.\n",
    )
    assert "controlone-ha:beta" not in alfa.server.authorized_keys.read_text()
    alfa.paths.pins_file.write_bytes(kept)  # a restored backup of the pins
    assert alfa.pins() == {}
    refused = bring()
    assert refused.returncode == 1
    assert "is expelled from the cluster for ever" in refused.stderr and "stolen" in refused.stderr
    shown = alfa.ha("keys").stdout
    assert f"expelled: beta, {key}" in shown and shown.rstrip().endswith(": stolen")
    assert beta.ha("keys", "new").returncode == 1  # nobody there to confirm it
    made = json.loads(beta.ha("keys", "new", "--yes", "--json").stdout)
    assert made["key"] != key
    assert bring().returncode == 0
    assert alfa.pins() == {"beta": made["key"]}


def test_X2_a_new_secret_is_set_and_the_old_one_accepted_for_a_stated_time_without_being_kept(
    pair_of_nodes: tuple[PairedNode, PairedNode, Path],
) -> None:
    alfa = pair_of_nodes[0]
    done = subprocess.run(
        ["/bin/sh", str(ENTRY), "secret", "rotate", "--grace", "2"],
        env=alfa.environment,
        input="quite-Another-11-secret\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "accepted for 2 h" in done.stdout
    assert "quite-Another-11-secret" in (alfa.paths.config_dir / "ha").read_text()
    file = alfa.paths.state_dir / PREVIOUS_FILE
    assert file.stat().st_mode & 0o777 == 0o600
    assert "a-long-enough-secret" not in file.read_text()
    kept = load_previous(alfa.paths.state_dir, time.time())
    assert kept is not None and kept.link == cluster_keys("a-long-enough-secret").link
    assert load_previous(alfa.paths.state_dir, time.time() + 7300) is None
    assert not file.exists()


def test_the_bridge_line_of_the_command_is_the_one_of_the_daemon(
    pair_of_nodes: tuple[PairedNode, PairedNode, Path],
) -> None:
    alfa, beta, key = pair_of_nodes
    target = f"127.0.0.1:{beta.server.port}"
    assert alfa.ha("pair", target, "-i", str(key), "--accept-host-key").returncode == 0
    line = alfa.server.authorized_keys.read_text()
    assert f'restrict,command="{sys.executable} -I -S ' in line
    assert f"bridge.py --socket {alfa.run_dir}/peer.sock beta" in line
