"""Versions: what two nodes do about them, and the digests by which they compare."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlone_ha.errors import PeerError
from controlone_ha.sync.items import BadPathError, Item, check_path, make_items
from controlone_ha.sync.retention import expired
from controlone_ha.sync.stamps import Stamp
from controlone_ha.sync.versions import (
    BUCKETS,
    DIGEST_BYTES,
    EMPTY,
    Verdict,
    Version,
    bucket_of,
    combined,
    compare,
    differing,
    digest_of,
    is_conflict,
    joined,
    version_from_json,
)


def made(
    wall: int = 5, content: str = "a", node: str = "m1", *, present: bool = True, mode: int = 0o600
) -> Version:
    return Version(
        path="/s/f",
        item="sounds",
        stamp=Stamp(wall, 0, node),
        checksum=content * 64,
        size=1,
        mode=mode,
        mtime_ns=0,
        vector={node: wall},
        present=present,
    )


versions = st.builds(
    made,
    st.integers(1, 3),
    st.sampled_from("ab"),
    st.sampled_from(("m1", "m2")),
    present=st.booleans(),
    mode=st.sampled_from((0o600, 0o644)),
)


@pytest.mark.parametrize(
    ("mine", "theirs", "verdict"),
    [
        (None, None, Verdict.NOTHING),
        (None, made(), Verdict.WANT),
        (None, made(present=False), Verdict.NOTHING),
        (made(), None, Verdict.OFFER),
        (made(present=False), None, Verdict.NOTHING),
        (made(), made(), Verdict.SAME),
        (made(present=False), made(), Verdict.SAME),
        (made(5), made(6, "b"), Verdict.WANT),
        (made(6), made(5, "b"), Verdict.OFFER),
        (made(5), made(6), Verdict.ADOPT),
        (made(6), made(5), Verdict.OFFER),
        (made(5), made(6, "b", present=False), Verdict.NOTHING),
        (made(5, present=False), made(6, "b"), Verdict.WANT),
    ],
)
def test_S3_the_later_stamp_decides_and_a_deleted_file_comes_back_only_when_changed(
    mine: Version | None, theirs: Version | None, verdict: Verdict
) -> None:
    assert compare(mine, theirs) is verdict


@given(versions, versions)
def test_two_nodes_never_both_want_and_never_both_offer(first: Version, second: Version) -> None:
    pair = (compare(first, second), compare(second, first))
    assert pair.count(Verdict.WANT) + pair.count(Verdict.ADOPT) <= 1
    assert pair.count(Verdict.OFFER) <= 1
    assert (Verdict.SAME in pair) == (first.identity == second.identity)


def test_a_loser_that_the_winner_had_seen_is_history_and_no_conflict() -> None:
    old, new = made(5), replace(made(6, "b", "m2"), vector={"m1": 5, "m2": 6})
    assert not is_conflict(old, new)
    assert is_conflict(old, made(6, "b", "m2"))
    assert not is_conflict(old, made(6, "a", "m2"))


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)),
)
def test_joining_vectors_is_commutative_and_contains_both(
    first: dict[str, int], second: dict[str, int]
) -> None:
    both = joined(first, second)
    assert both == joined(second, first)
    assert all(both[node] >= count for part in (first, second) for node, count in part.items())


@given(st.lists(versions, max_size=5))
def test_a_digest_is_the_same_in_any_order_and_forgets_what_is_taken_out(
    found: list[Version],
) -> None:
    forward = backward = EMPTY
    for version in found:
        forward = combined(forward, digest_of(version))
    for version in reversed(found):
        backward = combined(backward, digest_of(version))
    assert forward == backward
    for version in found:
        forward = combined(forward, digest_of(version))
    assert forward == EMPTY


def test_differing_names_the_buckets_and_refuses_another_shape() -> None:
    mine = bytearray(BUCKETS * DIGEST_BYTES)
    number = bucket_of("/s/f")
    mine[number * DIGEST_BYTES] = 1
    assert differing(bytes(mine), bytes(BUCKETS * DIGEST_BYTES)) == [number]
    with pytest.raises(PeerError):
        differing(bytes(mine), b"short")


@given(versions)
def test_a_version_survives_the_wire(version: Version) -> None:
    assert version_from_json(version.to_json(), "sounds") == version


@pytest.mark.parametrize(
    "damage",
    [
        {"checksum": "short"},
        {"size": -1},
        {"mode": "x"},
        {"vector": []},
        {"vector": {"m1": "x"}},
        {"stamp": "later"},
        {"mtime_ns": 1 << 70},
    ],
)
def test_nonsense_of_a_peer_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises(PeerError):
        version_from_json({**made().to_json(), **damage}, "sounds")


@pytest.mark.parametrize(
    "path",
    [
        "s/f",
        "/s/../etc/shadow",
        "/s//f",
        "/s/./f",
        "//s",
        "/s/\nf",
        "/s/\udcff",
        "/s/" + "x" * 2000,
    ],
)
def test_a_path_that_leads_elsewhere_or_cannot_be_shown_is_refused(path: str) -> None:
    with pytest.raises(BadPathError):
        check_path(path)


def test_S7_an_item_covers_its_paths_and_nothing_of_one_node_alone() -> None:
    items = make_items({}, config_dir="/etc/config", recordings="/rec")
    config = items["config"]
    covered = ("/etc/config/server", "/etc/config/conference")
    assert all(config.covers(path) for path in covered)
    for name in ("ha", "network", "dropbear", "firewall", ".server.uci-1", "server-opkg", "a.b"):
        assert not config.covers(f"/etc/config/{name}"), name
    assert not config.covers("/etc/config/sub/server")
    assert items["recordings"].covers("/rec/2026/a.wav")
    assert not items["recordings"].covers("/recordings/a.wav")


def test_an_item_section_changes_what_is_built_in_and_adds_sets_of_its_own() -> None:
    items = make_items(
        {
            "sounds": {"direction": "none"},
            "own": {"paths": ("/x/*.wav",), "exclude": ("tmp*",), "direction": "send"},
        },
        config_dir="/etc/config",
    )
    assert "sounds" not in items and "recordings" not in items
    own = items["own"]
    assert own.covers("/x/a.wav") and not own.covers("/x/tmp.wav") and not own.covers("/x/y/a.wav")
    assert own.sends and not own.receives
    assert own.roots() == (("/x", False),)
    assert Item(name="deep", paths=("/a/*/b.wav",)).roots() == (("/a", True),)


def test_retention_takes_the_oldest_until_age_and_size_fit() -> None:
    files = [("/r/1", 50, 0.0), ("/r/2", 30, 90.0), ("/r/3", 30, 99.0)]
    assert expired(files, now=100.0, max_age_s=50.0, max_bytes=0) == ["/r/1"]
    assert expired(files, now=100.0, max_age_s=0.0, max_bytes=60) == ["/r/1"]
    assert expired(files, now=100.0, max_age_s=0.0, max_bytes=59) == ["/r/1", "/r/2"]
    assert expired(files, now=100.0, max_age_s=0.0, max_bytes=0) == []
