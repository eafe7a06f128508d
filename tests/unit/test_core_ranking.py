"""Who is eligible, who ranks before whom, who has claimed: from published reports only (C2)."""

from __future__ import annotations

from typing import Any

import pytest

from controlone_ha.core.model import Role, State, Verdict
from controlone_ha.core.ranking import (
    better_candidates,
    covering_node,
    ineligibility,
    is_candidate,
    own_rank_key,
)
from controlone_ha.core.reasons import reason
from tests.unit.core_builders import ABNORMAL, make_own, make_peer, make_report, make_snapshot

M1 = frozenset({"m1"})


def test_rank_is_priority_then_master_before_slave_then_name() -> None:
    reports = [
        make_report("d", Role.SLAVE, priority=200),
        make_report("c", Role.MASTER),
        make_report("a", Role.SLAVE),
        make_report("b", Role.SLAVE),
    ]
    ordered = sorted(reports, key=lambda item: item.rank_key)
    assert [item.node for item in ordered] == ["d", "c", "a", "b"]


@pytest.mark.parametrize("role", [Role.MASTER, Role.SLAVE])
def test_a_node_ranks_itself_as_the_others_rank_its_report(role: Role) -> None:
    assert (
        own_rank_key(make_own("x", role, priority=7)) == make_report("x", role, priority=7).rank_key
    )


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"role": Role.PASSIVE}, "own_passive"),
        ({"forced": "passive"}, "own_passive"),
        ({"forced": "active"}, None),
        ({"paused_by": "root"}, "own_paused"),
        ({"has_network": False}, "own_links"),
        ({"is_late": True}, "own_late"),
        ({"is_licensed": False}, "not_licensed"),
        ({"abnormalities": (ABNORMAL,)}, "own_abnormal"),
    ],
)
def test_C6_eligibility_is_one_reason_or_none(changes: dict[str, Any], code: str | None) -> None:
    found = ineligibility(make_own(**changes))
    assert (found.code if found else None) == code


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"state": State.ACTIVE}, False),
        ({"state": State.PASSIVE}, False),
        ({"covers": frozenset({"m2"})}, False),
        ({"ineligible": reason("own_paused")}, False),
        ({"verdict": Verdict.NO_DAEMON}, False),
        ({"verdict": Verdict.SUSPECT, "is_linked": True}, False),
    ],
)
def test_a_candidate_is_a_linked_eligible_standby_node_that_covers_the_failed_one(
    changes: dict[str, Any], expected: bool
) -> None:
    peer = make_peer("s0", **{"role": Role.SLAVE, "covers": M1, **changes})
    assert is_candidate(peer, "m1") is expected


def test_C2_only_better_ranked_candidates_are_waited_for_best_first() -> None:
    snapshot = make_snapshot(
        make_own("s2"),
        make_peer("s3", Role.SLAVE, covers=M1),
        make_peer("s1", Role.SLAVE, covers=M1),
        make_peer("s9", Role.SLAVE, covers=M1, priority=150),
    )
    assert better_candidates(snapshot, "m1") == ["s9", "s1"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"state": State.ACTIVE}, "s0"),
        ({"state": State.DEGRADED}, "s0"),
        ({"state": State.DISABLED}, None),
        ({"state": State.STANDBY}, None),
        ({"state": State.ACTIVE, "verdict": Verdict.SILENT}, None),
        ({"state": State.ACTIVE, "verdict": Verdict.NO_DAEMON}, "s0"),
    ],
)
def test_a_claim_counts_while_its_node_is_reached_and_serves(
    changes: dict[str, Any], expected: str | None
) -> None:
    peer = make_peer("s0", **{"role": Role.SLAVE, "covering": M1, **changes})
    assert covering_node(make_snapshot(make_own("s2"), peer), "m1") == expected
