"""Versions of documents: which wins, what is kept, when to wait; and that all orders end equal."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlone_ha.sync.database.judge import (
    Reader,
    Standing,
    Verdict,
    has_gone_back,
    hold_for_skew,
    judge,
    may_expire,
)
from controlone_ha.sync.database.namespaces import BULK, CONFLICTS, URGENT, Namespaces
from controlone_ha.sync.database.versions import (
    Row,
    content_hash,
    is_stamped_already,
    local_write,
    removed,
    time_of,
)

NOW = 1_800_000_000_000
KEY = b"k" * 16


def write(node: str, wall: int, text: bytes | None, before: Row | None = None) -> Row:
    return local_write(
        key=KEY,
        namespace="app.things",
        identity=1,
        node=node,
        wall_milliseconds=wall,
        content=content_hash(text) if text is not None else None,
        size=len(text or b""),
        before=before,
    )


def verdict(remote: Row, own: Row | None, content: bytes | None) -> Verdict:
    return judge(remote, own, content, now_ms=NOW, allowed_skew_ms=5000)


class TestJudge:
    def test_a_version_that_knew_ours_is_applied(self) -> None:
        ours = write("a", NOW - 2000, b"one")
        theirs = write("b", NOW - 1000, b"two", ours)
        assert verdict(theirs, ours, ours.content) is Verdict.APPLY

    def test_S3_a_later_version_that_did_not_know_ours_wins_a_conflict(self) -> None:
        ours = write("a", NOW - 2000, b"one")
        theirs = write("b", NOW - 1000, b"two")
        assert verdict(theirs, ours, ours.content) is Verdict.CONFLICT
        assert verdict(ours, theirs, theirs.content) is Verdict.OLDER

    def test_a_write_that_has_no_stamp_yet_is_waited_for(self) -> None:
        ours = write("a", NOW - 2000, b"one")
        theirs = write("b", NOW - 1000, b"two")
        assert verdict(theirs, ours, content_hash(b"being written")) is Verdict.UNSTAMPED
        assert verdict(theirs, None, content_hash(b"being written")) is Verdict.UNSTAMPED
        assert verdict(theirs, ours, None) is Verdict.UNSTAMPED

    def test_a_version_from_the_future_is_refused(self) -> None:
        assert verdict(write("b", NOW + 4900, b"x"), None, None) is Verdict.APPLY
        assert verdict(write("b", NOW + 5100, b"x"), None, None) is Verdict.FUTURE

    def test_equal_contents_are_no_conflict(self) -> None:
        ours, theirs = write("a", NOW - 9, b"same"), write("b", NOW - 8, b"same")
        assert verdict(theirs, ours, ours.content) is Verdict.APPLY

    def test_a_later_write_of_a_node_is_later_whatever_its_clock_says(self) -> None:
        first = write("a", NOW, b"one")
        second = write("a", NOW - 60_000, b"two", first)
        assert second.order > first.order and second.knows(first)

    def test_a_replayed_event_is_known_by_content_and_time(self) -> None:
        row = write("a", NOW, b"one")
        assert is_stamped_already(row, row.content, NOW)
        assert not is_stamped_already(row, row.content, NOW + 1)
        assert not is_stamped_already(row, None, NOW)
        assert not is_stamped_already(None, None, NOW)

    def test_the_tombstone_of_a_lost_clash_is_the_same_on_every_node(self) -> None:
        row = write("a", NOW, b"one")
        assert removed(row) == removed(row) and removed(row).knows(row)
        assert removed(row).order > row.order


operations = st.lists(
    st.tuples(
        st.sampled_from(["write", "delete", "pull"]),
        st.integers(0, 2),
        st.integers(0, 2),
        st.integers(-3, 3),
    ),
    max_size=30,
)


class TestConvergence:
    @settings(max_examples=300)
    @given(operations)
    def test_S3_whatever_the_order_all_nodes_end_with_the_last_write_and_no_loser_is_lost(
        self, schedule: list[tuple[str, int, int, int]]
    ) -> None:
        names = "abc"
        rows: list[Row | None] = [None, None, None]
        made: list[Row] = []
        kept: set[bytes] = set()

        def pull(to: int, source: int) -> None:
            theirs, ours = rows[source], rows[to]
            if theirs is None:
                return
            found = judge(
                theirs,
                ours,
                ours.content if ours else None,
                now_ms=NOW + 10_000,
                allowed_skew_ms=10_000,
            )
            assert found not in (Verdict.UNSTAMPED, Verdict.FUTURE)
            if found is Verdict.CONFLICT:
                assert ours is not None and ours.content is not None
                kept.add(ours.content)
            if found in (Verdict.APPLY, Verdict.CONFLICT):
                rows[to] = theirs.merged(ours) if ours is not None else theirs

        for step, (kind, one, other, drift) in enumerate(schedule):
            if kind == "pull":
                pull(one, other)
                continue
            text = None if kind == "delete" else f"{step}".encode()
            row = write(names[one], NOW + step + drift, text, rows[one])
            rows[one] = row
            made.append(row)
        for _ in range(3):
            for one in range(3):
                for other in range(3):
                    pull(one, other)
        orders = {row.order if row else None for row in rows}
        assert len(orders) == 1
        final = rows[0]
        if final is None:
            assert not made
            return
        assert final.order == max(row.order for row in made)
        # Each content is the winner, was replaced by a write that knew it, or is kept.
        for row in made:
            is_replaced = any(other is not row and other.knows(row) for other in made)
            is_final = row.order == final.order
            assert row.is_deleted or is_final or is_replaced or row.content in kept


class TestHolding:
    def test_a_peer_is_held_beyond_the_limit_and_let_go_well_below_it(self) -> None:
        assert hold_for_skew(5001, 5000, False) and not hold_for_skew(4999, 5000, False)
        assert hold_for_skew(-4500, 5000, True) and not hold_for_skew(-3900, 5000, True)
        assert hold_for_skew(None, 5000, True) and not hold_for_skew(None, 5000, False)

    @pytest.mark.parametrize(
        ("age_ms", "position", "expected"),
        [(2000, 10, True), (2000, 9, False), (500, 10, False)],
    )
    def test_a_tombstone_goes_when_it_is_old_and_every_peer_has_it(
        self, age_ms: int, position: int, expected: bool
    ) -> None:
        readers = [
            Reader(peer="b", position={BULK: 10}, seen_ms=NOW),
            Reader(peer="c", position={BULK: position}, seen_ms=NOW),
        ]
        found = may_expire(
            time=time_of(NOW - age_ms),
            lane=BULK,
            sequence=10,
            now_ms=NOW,
            horizon_ms=1000,
            readers=readers,
        )
        assert found is expected

    def test_a_node_whose_peers_have_read_more_than_it_has_is_an_old_image(self) -> None:
        own = Standing(incarnation="x", position={BULK: 10})
        assert has_gone_back(own, Standing(incarnation="x", position={BULK: 11}))
        assert not has_gone_back(own, Standing(incarnation="x", position={BULK: 10}))
        assert not has_gone_back(own, Standing(incarnation="y", position={BULK: 11}))
        assert not has_gone_back(own, None)


class TestNamespaces:
    @pytest.mark.parametrize(
        ("namespace", "chosen"),
        [
            ("app.things", True),
            ("app.fs.files", True),
            ("other.things", False),
            ("app.cache", False),
            ("app.system.views", False),
            ("admin.system.users", False),
            ("local.oplog.rs", False),
            ("controlone_ha.versions", False),
            (CONFLICTS, True),
        ],
    )
    def test_patterns_choose_and_the_systems_own_is_never_chosen(
        self, namespace: str, chosen: bool
    ) -> None:
        names = Namespaces(include=("app", "admin", "controlone_ha"), exclude=("app.cache*",))
        assert names.is_chosen(namespace) is chosen

    def test_urgent_collections_have_their_own_lane(self) -> None:
        names = Namespaces(urgent=("app.calls", "live"))
        lanes = [names.lane(name) for name in ("app.calls", "live.any", "app.things", CONFLICTS)]
        assert lanes == [URGENT, URGENT, BULK, BULK]
        assert names.lanes() == (BULK, URGENT) and Namespaces().lanes() == (BULK,)
