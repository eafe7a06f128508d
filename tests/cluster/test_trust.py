"""Wrong key, wrong secret, unknown host key: refused, told on both sides, logged once, mended.

The other links of the two nodes stay up all the while, and nobody takes a refusal for a failure.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.node import LabNode
from controlone_ha.lab.node_services import SSHD_HOST_KEY
from controlone_ha.paths import node_paths
from controlone_ha.peers.keys import ensure_identity
from controlone_ha.peers.trust import TrustStore
from tests.cluster.support import (
    HEALTHY,
    Json,
    calm,
    ha,
    peer,
    status,
    transitions,
    wait_until,
)

ATTEMPTS = 3
"""How often a refused link is tried before the lines of the log are counted."""


class _Logs:
    """What the nodes have logged since this was made."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._began = {
            (name, service): len(node.read_log(service))
            for name, node in lab.nodes.items()
            for service in ("ha", "sshd")
        }

    def lines(self, name: str, text: str, service: str = "ha") -> list[str]:
        """Return the lines with ``text``."""
        log = self._lab.node(name).read_log(service)[self._began[name, service] :]
        return [line for line in log.splitlines() if text in line]

    def refusals(self, name: str, peer_name: str) -> list[str]:
        """Return what a node has logged of the refusals between it and a peer."""
        lines = self.lines(name, f"no link with {peer_name}: ")
        return [line for line in lines if line.startswith("ha[WARNING]")]

    def attempts(self, one: str, other: str) -> int:
        """Return how many SSH sessions the two nodes have begun with each other."""
        return sum(
            len(self.lines(to, f"Connection from {self._lab.node(by).address} ", "sshd"))
            for by, to in ((one, other), (other, one))
        )


@contextmanager
def _mended(lab: Lab, mend: Callable[[], None]) -> Iterator[_Logs]:
    """Run the block; mend what it broke; all is as before, and nobody has changed its state."""
    began = time.time()
    try:
        yield _Logs(lab)
    finally:
        mend()
    calm(lab)
    for node in lab.nodes.values():
        changed = {step[:2] for step in transitions(node, since=began)}
        assert changed <= {("starting", HEALTHY[node.name])}, f"{node.name} changed its state"


def _refused(lab: Lab, observer: str, name: str, code: str) -> Json | None:
    seen = peer(lab.node(observer), name)
    return seen if seen["link"]["state"] == "refused" and seen["link"]["code"] == code else None


def _wait_for_refusal(lab: Lab, logs: _Logs, one: str, other: str, code: str) -> None:
    """Both sides show the refusal and its reason, and go on trying without going on logging."""
    for observer, name in ((one, other), (other, one)):
        wait_until(
            lab,
            lambda observer=observer, name=name: _refused(lab, observer, name, code),  # type: ignore[misc]
            f"{observer} shows {name} as refused: {code}",
        )
    wait_until(lab, lambda: logs.attempts(one, other) >= ATTEMPTS, f"{ATTEMPTS} more attempts")
    for observer, name in ((one, other), (other, one)):
        seen = _refused(lab, observer, name, code)
        assert seen is not None
        assert seen["verdict"] == "refused"
        assert seen["verdict_text"] == seen["link"]["text"]
        shown = ha(lab.node(observer), "status").stdout
        assert "refused" in shown
        lines = logs.refusals(observer, name)
        # One for each way in which it is refused: by either end of a link, and by an SSH server.
        assert 1 <= len(lines) <= 2 and len(set(lines)) == len(lines), lines


def _others_are_up(lab: Lab, broken: set[frozenset[str]]) -> None:
    for node in lab.nodes.values():
        for seen in status(node)["peers"]:
            if frozenset((node.name, seen["name"])) not in broken:
                assert seen["link"]["state"] == "up", (node.name, seen["name"], seen["link"])


def _store(node: LabNode) -> TrustStore:
    return TrustStore(node.path("/etc/controlone/pins.json"))


def test_X1_a_wrong_key_is_refused_on_both_sides_and_mended_by_the_right_pin(
    lab: Lab, tmp_path: Path
) -> None:
    store = _store(lab.node("s2"))
    right = store.pins()["m1"]
    other = ensure_identity(node_paths({"CONTROLONE_STATE_DIR": str(tmp_path)}), "m1")

    def mend() -> None:
        store.pin(right)

    with _mended(lab, mend) as logs:
        store.pin(
            type(right)(
                name="m1",
                public_key=other.public_key,
                certificate=other.certificate,
                host_keys=right.host_keys,
                addresses=right.addresses,
            )
        )
        _wait_for_refusal(lab, logs, "s2", "m1", "unknown_key")
        text = peer(lab.node("s2"), "m1")["link"]["text"]
        assert right.key_fingerprint in text and "ha pair m1" in text
        _others_are_up(lab, {frozenset(("s2", "m1"))})
        # The key that the others know of m1 is not taken from them in silence.
        assert store.pins()["m1"].public_key == other.public_key


def test_X2_a_wrong_secret_is_refused_on_both_sides_and_mended_by_the_users_commands(
    lab: Lab,
) -> None:
    node = lab.node("s1")
    right = node.exec(["uci", "get", "ha.default.secret"], check=True).stdout.strip()

    def set_secret(secret: str) -> None:
        node.exec(["uci", "set", f"ha.default.secret={secret}"], check=True)
        node.exec(["uci", "commit"], check=True)
        node.exec(["service", "ha", "restart"], check=True)

    with _mended(lab, lambda: set_secret(right)) as logs:
        set_secret("another-secret-than-the-others")
        for name in ("m1", "m2", "s2", "p1"):
            _wait_for_refusal(lab, logs, "s1", name, "wrong_secret")
            text = peer(lab.node(name), "s1")["link"]["text"]
            assert "different secrets (ha.default.secret)" in text
            assert len(logs.refusals(name, "s1")) == len(logs.refusals("s1", name)) == 1
        _others_are_up(lab, {frozenset(("s1", name)) for name in ("m1", "m2", "s2", "p1")})
        for other in lab.nodes.values():
            for secret in (right, "another-secret-than-the-others"):
                assert secret not in other.read_log("ha")
        found = json.loads(ha(node, "check", "--json").stdout)
        remedies = [item["remedy"] for item in found if item["code"] == "wrong_secret"]
        assert len(remedies) == 4 and "ha.default.secret" in remedies[0]


def test_X1_an_unknown_host_key_is_refused_on_both_sides_and_mended_by_the_right_one(
    lab: Lab,
) -> None:
    node = lab.node("m2")
    files = [node.path(SSHD_HOST_KEY), node.path(f"{SSHD_HOST_KEY}.pub")]
    right = [file.read_bytes() for file in files]

    def restart() -> None:
        node.restart_service("sshd")
        node.restart_service("ha")

    def mend() -> None:
        for file, content in zip(files, right, strict=True):
            file.write_bytes(content)
        restart()

    with _mended(lab, mend) as logs:
        for file in files:
            file.unlink()
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", SSHD_HOST_KEY]
        node.exec(words, check=True)
        restart()
        for name in ("m1", "s1", "s2", "p1"):
            _wait_for_refusal(lab, logs, "m2", name, "unknown_host_key")
            text = peer(lab.node(name), "m2")["link"]["text"]
            assert "host key" in text and "ha pair m2" in text
        _others_are_up(lab, {frozenset(("m2", name)) for name in ("m1", "s1", "s2", "p1")})
        # Its services go on; a refused link is no failure of the node.
        assert status(lab.node("s2"))["state"] == "standby"


@pytest.mark.parametrize("name", ["m1"])
def test_X1_an_unpaired_node_is_shown_with_the_command_that_pairs_it(lab: Lab, name: str) -> None:
    store = _store(lab.node("p1"))
    right = store.pins()[name]
    with _mended(lab, lambda: (store.pin(right), None)[1]):
        assert store.unpin(name)
        found = wait_until(
            lab,
            lambda: (seen := peer(lab.node("p1"), name))["link"]["state"] == "unpaired" and seen,
            f"p1 shows {name} as unpaired",
        )
        assert f"ha pair {name}" in found["link"]["text"]
        wait_until(
            lab,
            lambda: peer(lab.node(name), "p1")["link"]["state"] in ("refused", "down"),
            f"{name} has no link with p1",
        )
        _others_are_up(lab, {frozenset(("p1", name))})
