"""One licence for two masters: who is covered, who is not, and a licence installed anywhere."""

from __future__ import annotations

import time
from functools import partial

from controlone_ha.lab import licences
from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.node_files import LICENCE_DIRECTORY
from tests.cluster.support import (
    SLOTS,
    accepts_login,
    ask,
    calm,
    ha,
    peer,
    status,
    wait_for_state,
    wait_until,
)


def _count(lab: Lab, wanted: int) -> bool:
    return all(ask(node, "licence")["valid"] == wanted for node in lab.nodes.values() if node.is_up)


def test_C6_a_master_without_licence_is_not_replaced_until_one_is_installed_on_any_node(
    lab: Lab,
) -> None:
    try:
        for node in lab.nodes.values():
            for file in node.path(LICENCE_DIRECTORY).glob("*.licence"):
                if file.name != "LAB-1.licence":
                    file.unlink()
        wait_until(lab, partial(_count, lab, 1), "one licence is left")
        for node in lab.nodes.values():
            (told,) = [
                item for item in status(node)["warnings"] if item["code"] == "licences_missing"
            ]
            assert "nobody takes over from m2" in told["text"]
        shown = ha(lab.node("p1"), "licence")
        assert (shown.returncode, "Masters: 2 (m1, m2)" in shown.stdout) == (4, True)
        # Masters serve without a licence, and nothing that runs was stopped.
        assert accepts_login(lab, "m1") and accepts_login(lab, "m2")

        lab.node("m1").kill()
        wait_for_state(lab, "s1", "active")
        lab.node("m2").kill()

        def is_missed() -> bool:
            seen = peer(lab.node("s2"), "m2")
            return seen["verdict"] == "failed" and time.time() - seen["verdict_since"] > SLOTS

        wait_until(lab, is_missed, "s2 has missed m2 for long")
        said = status(lab.node("s2"))
        assert (said["state"], said["reason"]["code"]) == ("standby", "peer_not_licensed")
        assert "CO-LICE-HA" in ha(lab.node("s2"), "why-not", "m2").stdout

        # A forged one changes nothing; the vendor's, on a node that is passive, reaches s2.
        where = lab.node("p1").path("/etc/controlone") / "new"
        where.write_bytes(licences.make("NEW-2").replace(b"NEW-2", b"NEW-9"))
        refused = ha(lab.node("p1"), "licence", "install", "/etc/controlone/new")
        assert refused.returncode == 1 and "not the vendor's" in refused.stderr
        where.write_bytes(licences.make("NEW-2"))
        done = ha(lab.node("p1"), "licence", "install", "/etc/controlone/new")
        assert done.returncode == 0, done.stderr
        wait_for_state(lab, "s2", "active")

        # The last licence goes while two slaves serve: they go on.
        for node in lab.nodes.values():
            for file in node.path(LICENCE_DIRECTORY).glob("*.licence"):
                file.unlink()
        wait_until(lab, partial(_count, lab, 0), "no licence is left")
        time.sleep(1.0)
        assert [status(lab.node(name))["state"] for name in ("s1", "s2")] == ["active", "active"]
        assert accepts_login(lab, "s1") and accepts_login(lab, "s2")
    finally:
        for node in lab.nodes.values():
            (node.path(LICENCE_DIRECTORY) / "NEW-2.licence").unlink(missing_ok=True)
            licences.write_licences(node.path(LICENCE_DIRECTORY))
    calm(lab)
