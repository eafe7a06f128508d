"""A stolen node is expelled at one node: it is out everywhere at once, and replaced by new keys."""

from __future__ import annotations

import json
import time

import pytest

from controlone_ha.jsonrpc import RpcError
from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.node import LabNode
from tests.cluster.support import calm, ha, history, peer, ping, wait_until

OTHERS = ("m1", "m2", "s1", "p1")
MARK = "controlone-ha:s2"


def _bring(lab: Lab, source: LabNode, target: LabNode) -> None:
    """Pair ``target`` with ``source`` by an offer that a person carries."""
    exported = json.loads(ha(source, "pair-export", "--json").stdout)
    (target.path("/etc/controlone") / "offer").write_text(exported["offer"])
    words = ("pair-import", "/etc/controlone/offer", "--fingerprint", exported["fingerprint"])
    done = ha(target, *words)
    assert done.returncode == 0, done.stderr


def _is_out(node: LabNode) -> bool:
    lines = node.path("/root/.ssh/authorized_keys").read_text()
    return peer(node, "s2")["link"]["code"] == "expelled" and MARK not in lines


def test_X1_a_node_expelled_at_p1_is_dropped_by_all_and_replaced_under_its_name(lab: Lab) -> None:
    stolen = lab.node("s2")
    began = time.time()
    try:
        done = ha(lab.node("p1"), "unpair", "s2", "--reason", "stolen from the van")
        assert done.returncode == 0, done.stderr
        for name in OTHERS:
            wait_until(lab, lambda name=name: _is_out(lab.node(name)), f"{name} drops s2")  # type: ignore[misc]
        seconds = time.time() - began
        assert seconds < 20, "within seconds, on a busy machine, too"
        for name in OTHERS:
            (told,) = history(lab.node(name), "trust", since=began)
            assert (told["peer"], told["to"]) == ("s2", "expelled")
            assert told["by"].endswith(" at p1")
            assert "stolen from the van" in told["reason"]["text"]

        def is_refused(name: str) -> bool:
            return bool(peer(stolen, name)["link"]["code"] == "unknown_key")

        for name in OTHERS:
            # With its keys and the secret it neither links, and so reads and writes nothing, …
            wait_until(lab, lambda name=name: is_refused(name), f"{name} refuses s2")  # type: ignore[misc]
        # … nor is it told anything at the door.
        with pytest.raises(RpcError, match="expelled"):
            ping(lab, "m1", at="s2")
        assert ping(lab, "m1", at="p1")["node"] == "m1"
    finally:
        made = ha(stolen, "keys", "new", "--yes")
        assert made.returncode == 0, made.stderr
        for service in ("ha", "server"):
            stolen.restart_service(service)
        _bring(lab, stolen, lab.node("p1"))
    calm(lab)
    shown = ha(lab.node("m1"), "keys").stdout
    assert "expelled: s2" in shown and "stolen from the van" in shown
