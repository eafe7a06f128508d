"""Stamped UCI packages: laws of merging, what loses, what never leaves, hostile input."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from controlone_ha.config.schema import Scope
from controlone_ha.errors import UciError
from controlone_ha.sync.content import shared_content
from controlone_ha.sync.stamps import Clock, Stamp
from controlone_ha.sync.uci_merge import FIRST, SECOND, Merged, merge, stamp_package
from controlone_ha.sync.uci_state import StampedPackage, joined
from controlone_ha.uci import UciSyntaxError, dumps, loads
from controlone_ha.uci.model import Package

INPUTS = Path(__file__).resolve().parents[1] / "data" / "uci" / "inputs"

VOICE = b"""
config line 'a'
\toption number '100'
\toption name 'Front desk'
\tlist codec 'alaw'
\tlist codec 'ulaw'

config line 'b'
\toption number '200'

config tone 'busy'
\toption cadence '500/500'

"""

CONFERENCE = b"""
config conference 'default'

config gateway 'gw1'
\toption address '10.0.0.9'

config gateway 'gw2'
\toption address '10.0.0.10'

config route 'out'
\toption pattern '_9X.'
\tlist gateways 'gw1'

"""


def at(wall: int, node: str = "a") -> Stamp:
    return Stamp(wall, 0, node)


def edited(state: StampedPackage, stamp: Stamp, *changes: tuple[str, ...]) -> StampedPackage:
    """Return the state after (section, option, value…) changes; no value deletes."""
    package = state.package()
    for section, *rest in changes:
        if not rest:
            package.delete(section)
        elif len(rest) == 1:
            found = package.section(section)
            assert found is not None
            found.delete(rest[0])
        else:
            one = package.section(section)
            if one is None:
                one = package.add("line", section)
            one.set(rest[0], rest[1] if len(rest) == 2 else rest[1:])
    return stamp_package(state, dumps(package), stamp)


def value(merged: Merged | StampedPackage, section: str, option: str) -> str | None:
    state = merged.package if isinstance(merged, Merged) else merged
    return state.package().get(section, option)


@pytest.fixture
def base() -> StampedPackage:
    return stamp_package(None, VOICE, at(1), name="voice")


# -- what merging does ---------------------------------------------------------------------------


def test_S3_edits_of_different_options_and_sections_on_two_sides_are_all_kept(
    base: StampedPackage,
) -> None:
    mine = edited(base, at(5, "a"), ("a", "number", "101"), ("new", "number", "300"))
    theirs = edited(base, at(6, "b"), ("a", "name", "Reception"), ("busy", "cadence", "1/1"))
    merged = merge(mine, theirs)
    assert value(merged, "a", "number") == "101"
    assert value(merged, "a", "name") == "Reception"
    assert value(merged, "busy", "cadence") == "1/1"
    assert value(merged, "new", "number") == "300"
    assert merged.conflicts == ()


def test_S3_the_same_option_edited_on_two_sides_is_a_conflict_that_the_later_edit_wins(
    base: StampedPackage,
) -> None:
    mine = edited(base, at(5, "a"), ("a", "number", "101"))
    theirs = edited(base, at(6, "b"), ("a", "number", "102"), ("b", "number", "201"))
    merged = merge(mine, theirs)
    assert value(merged, "a", "number") == "102"
    (conflict,) = merged.conflicts
    assert (conflict.side, conflict.section, conflict.option) == (FIRST, "a", "number")
    assert (conflict.loser, conflict.winner) == (at(5, "a"), at(6, "b"))
    assert conflict.text == "voice.a.number was changed by a and, later, by b"
    assert merge(theirs, mine).losers == {SECOND}


def test_a_later_edit_by_who_knew_the_earlier_one_is_no_conflict(base: StampedPackage) -> None:
    mine = edited(base, at(5, "a"), ("a", "number", "101"))
    theirs = edited(merge(base, mine).package, at(9, "b"), ("a", "number", "102"))
    merged = merge(mine, theirs)
    assert value(merged, "a", "number") == "102"
    assert merged.conflicts == ()


def test_both_sides_setting_one_value_is_no_conflict(base: StampedPackage) -> None:
    mine = edited(base, at(5, "a"), ("a", "number", "101"))
    theirs = edited(base, at(6, "b"), ("a", "number", "101"))
    assert merge(mine, theirs).conflicts == ()


def test_a_deleted_option_stays_deleted_against_older_states(base: StampedPackage) -> None:
    mine = edited(base, at(5, "a"), ("a", "name"))
    merged = merge(base, mine)
    assert value(merged, "a", "name") is None
    assert merged.conflicts == ()


def test_a_section_deleted_after_an_edit_in_it_is_gone_and_the_edit_is_a_conflict(
    base: StampedPackage,
) -> None:
    mine = edited(base, at(5, "a"), ("a", "number", "101"))
    theirs = edited(base, at(6, "b"), ("a",))
    merged = merge(mine, theirs)
    assert merged.package.package().section("a") is None
    assert merged.losers == {FIRST}
    assert merged.conflicts[0].code == "section_deleted"


def test_an_edit_after_the_section_was_deleted_elsewhere_brings_back_all_of_it(
    base: StampedPackage,
) -> None:
    mine = edited(base, at(7, "a"), ("a", "number", "101"))
    theirs = edited(base, at(6, "b"), ("a",))
    merged = merge(mine, theirs)
    assert value(merged, "a", "number") == "101"
    assert value(merged, "a", "name") == "Front desk"
    assert merged.package.package().section("a").get_list("codec") == ["alaw", "ulaw"]  # type: ignore[union-attr]
    assert merged.losers == {SECOND}


def test_a_section_of_one_name_made_on_two_sides_is_the_later_one_whole(
    base: StampedPackage,
) -> None:
    mine = edited(base, at(5, "a"), ("n", "number", "1"), ("n", "name", "x"))
    theirs = edited(base, at(6, "b"), ("n", "number", "2"))
    merged = merge(mine, theirs)
    assert merged.package.package().section("n").as_dict() == {"number": "2"}  # type: ignore[union-attr]
    assert merged.losers == {FIRST}


@pytest.mark.parametrize("first_is_later", [True, False])
def test_S3_of_two_edits_in_a_file_with_anonymous_sections_the_later_file_wins_whole(
    first_is_later: bool,
) -> None:
    text = VOICE + b"config rule\n\toption from 'x'\n\n"
    base = stamp_package(None, text, at(1), name="voice")
    mine = edited(base, at(9 if first_is_later else 5, "a"), ("a", "number", "101"))
    theirs = edited(base, at(6, "b"), ("b", "number", "201"))
    merged = merge(mine, theirs)
    assert merged.text == (mine if first_is_later else theirs).text()
    assert merged.losers == {SECOND if first_is_later else FIRST}
    assert merged.conflicts[0].code == "written_whole"


def test_S3_a_reordered_file_wins_whole_over_an_earlier_edit(base: StampedPackage) -> None:
    package = base.package()
    package.move_section(package.section("busy"), 0)  # type: ignore[arg-type]
    mine = stamp_package(base, dumps(package), at(6, "a"))
    theirs = edited(base, at(5, "b"), ("b", "number", "201"))
    merged = merge(mine, theirs)
    assert [section.name for section in merged.package.package()] == ["busy", "a", "b"]
    assert merged.text == mine.text()
    assert merged.losers == {SECOND}


def test_an_edit_later_than_a_rewriting_of_the_file_is_kept_on_top_of_it(
    base: StampedPackage,
) -> None:
    mine = stamp_package(base, base.text() + b"config rule\n\toption x '1'\n", at(5, "a"))
    theirs = edited(base, at(6, "b"), ("b", "number", "201"))
    merged = merge(mine, theirs)
    assert value(merged, "b", "number") == "201"
    assert len(list(merged.package.package().sections("rule"))) == 1


def test_a_result_that_the_schema_refuses_is_the_later_file_whole() -> None:
    base = stamp_package(None, CONFERENCE, at(1), name="conference")
    mine = edited(base, at(5, "a"), ("gw2",))
    theirs = edited(base, at(6, "b"), ("out", "gateways", "gw1", "gw2"))
    merged = merge(mine, theirs)
    assert merged.text == theirs.text()
    assert merged.losers == {FIRST}
    assert {conflict.code for conflict in merged.conflicts} == {"refused"}
    assert merge(theirs, mine).text == merged.text
    assert merge(merged.package, mine).text == merged.text
    assert merge(mine, merged.package).conflicts == ()


def test_new_sections_and_options_stand_where_they_were_written(base: StampedPackage) -> None:
    text = VOICE.replace(
        b"config line 'b'", b"config line 'ab'\n\toption number '1'\n\nconfig line 'b'"
    )
    text = text.replace(b"\toption name", b"\toption pin '9'\n\toption name")
    mine = stamp_package(base, text, at(5, "a"))
    assert mine.text() == text
    theirs = edited(base, at(6, "b"), ("z", "number", "1"))
    merged = merge(mine, theirs)
    assert [section.name for section in merged.package.package()] == ["a", "ab", "b", "busy", "z"]
    assert mine.epoch == base.epoch


def test_nothing_changed_gives_the_same_state(base: StampedPackage) -> None:
    assert stamp_package(base, b"# a comment\n" + VOICE, at(9)) is base
    assert base.describes(b"# a comment\n" + VOICE)
    assert not base.describes(VOICE + b"config line 'q'\n")


def test_a_stamp_that_is_not_later_is_refused(base: StampedPackage) -> None:
    with pytest.raises(ValueError, match="is not later than"):
        stamp_package(base, VOICE + b"config line 'q'\n", at(1))


def test_two_packages_are_never_merged(base: StampedPackage) -> None:
    other = stamp_package(None, VOICE, at(1), name="other")
    with pytest.raises(ValueError, match="two packages"):
        merge(base, other)


# -- node scope ----------------------------------------------------------------------------------

SERVER = b"config server 'default'\n\toption bind '10.0.0.1'\n\toption port '7551'\n"


def test_S1_node_scope_options_never_leave_the_node() -> None:
    state = stamp_package(None, SERVER, at(1), name="server")
    assert b"10.0.0.1" not in state.text()
    assert b"10.0.0.1" not in state.to_bytes()
    again = stamp_package(state, SERVER.replace(b"10.0.0.1", b"10.0.0.77"), at(2))
    assert again is state
    changed = stamp_package(state, SERVER.replace(b"7551", b"7552"), at(3))
    assert b"bind" not in changed.to_bytes() + merge(state, changed).text
    assert value(merge(state, changed), "default", "port") == "7552"


def test_S1_every_node_scope_row_of_the_schema_is_left_out() -> None:
    from controlone_ha.config.schema import SCHEMA

    rows = [row for row in SCHEMA if row.scope is Scope.NODE]
    assert rows
    for row in rows:
        text = f"config {row.section} 's'\n\toption {row.name} 'mine'\n".encode()
        assert b"mine" not in stamp_package(None, text, at(1), name=row.package).to_bytes()


# -- laws ----------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "busy", "n1", "n2"])
OPTIONS = st.sampled_from(["number", "name", "codec", "pin"])
VALUES = st.one_of(
    st.sampled_from(["1", "2", "it's", "ção", "x y", "\udcff", "line\nline"]),
    st.lists(st.sampled_from(["p", "q"]), min_size=1, max_size=2),
)
EDITS = st.one_of(
    st.tuples(st.just("set"), NAMES, OPTIONS, VALUES),
    st.tuples(st.just("delete_option"), NAMES, OPTIONS),
    st.tuples(st.just("delete"), NAMES),
    st.tuples(st.just("retype"), NAMES),
)
RARE_EDITS = st.one_of(
    st.tuples(st.just("anonymous"), VALUES),
    st.tuples(st.just("no_anonymous")),
    st.tuples(st.just("reorder"), NAMES, st.integers(0, 4)),
)
ALL_EDITS = st.one_of(EDITS, EDITS, EDITS, RARE_EDITS)


def apply(package: Package, edit: tuple[Any, ...]) -> None:
    """Do one random edit, if it can be done."""
    kind, *rest = edit
    section = package.section(rest[0]) if rest and isinstance(rest[0], str) else None
    if kind == "set":
        (section or package.add("line", rest[0])).set(rest[1], rest[2])
    elif kind == "delete_option" and section is not None and rest[1] in section:
        section.delete(rest[1])
    elif kind == "delete" and section is not None:
        package.delete(rest[0])
    elif kind == "retype" and section is not None:
        package.retype_section(section, "tone" if section.type == "line" else "line")
    elif kind == "anonymous":
        package.add("rule").set("from", rest[0])
    elif kind == "no_anonymous":
        for one in [one for one in package if one.anonymous]:
            package.remove_section(one)
    elif kind == "reorder" and section is not None:
        package.move_section(section, rest[1])


@st.composite
def histories(draw: st.DrawFn) -> list[StampedPackage]:
    """Three states of one package that edits and merges on three nodes have led to."""
    base = stamp_package(None, VOICE, at(1), name="voice")
    states = {"a": base, "b": base, "c": base}
    wall = 10
    for _step in range(draw(st.integers(1, 12))):
        node = draw(st.sampled_from("abc"))
        wall += draw(st.integers(1, 3))
        if draw(st.booleans()):
            package = states[node].package()
            apply(package, draw(ALL_EDITS))
            late = max(wall, states[node].latest.wall_us + 1)
            states[node] = stamp_package(states[node], dumps(package), at(late, node))
        else:
            states[node] = merge(states[node], states[draw(st.sampled_from("abc"))]).package
    return list(states.values())


@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(histories())
def test_S3_merging_is_commutative_associative_and_idempotent_and_mints_no_stamps(
    states: list[StampedPackage],
) -> None:
    for first, second in itertools.permutations(states, 2):
        one, other = merge(first, second), merge(second, first)
        assert one.package == other.package
        assert one.text == other.text
        assert len(one.conflicts) == len(other.conflicts)
        assert merge(one.package, first).package == one.package
        assert set(one.package.seen.values()) <= {*first.seen.values(), *second.seen.values()}
        assert merge(one.package, second).conflicts == ()
    for state in states:
        merged = merge(state, state)
        assert merged.package == state
        assert merged.conflicts == ()
    results = {merge(merge(x, y).package, z).text for x, y, z in itertools.permutations(states)}
    results |= {merge(x, merge(y, z).package).text for x, y, z in itertools.permutations(states)}
    assert len(results) == 1


@settings(max_examples=60)
@given(histories())
def test_a_state_comes_back_from_its_bytes_and_is_never_three_times_its_text(
    states: list[StampedPackage],
) -> None:
    for state in states:
        raw = state.to_bytes()
        assert StampedPackage.from_bytes(raw) == state
        assert raw.isascii()
        assert len(raw) <= 3 * len(state.text()) + 12_000


def test_the_state_of_a_large_file_edited_option_by_option_stays_under_three_times_its_text() -> (
    None
):
    text = b"".join(
        b"config line 'l%d'\n\toption number '%d'\n\toption name 'n %d'\n\n" % (n, n, n)
        for n in range(150)
    )
    state = stamp_package(None, text, at(1_700_000_000_000_000), name="voice")
    assert len(state.to_bytes()) <= 2 * len(text)
    for number in range(150):
        stamp = at(1_700_000_000_000_000 + 7_919_333 * (number + 1), "ab"[number % 2])
        state = edited(state, stamp, (f"l{number}", "name", f"m{number}"))
    assert len(state.to_bytes()) <= 3 * len(text)
    assert StampedPackage.from_bytes(state.to_bytes()) == state


def test_what_was_deleted_is_not_remembered_without_end() -> None:
    text = b"".join(b"config line 'l%d'\n\toption number '%d'\n\n" % (n, n) for n in range(400))
    state = stamp_package(None, text, at(1), name="voice")
    for number in range(39):
        package = state.package()
        for one in range(10):
            package.delete(f"l{number * 10 + one}")
        state = stamp_package(state, dumps(package), at(number + 2))
        assert len(state.to_bytes()) <= 3 * len(state.text()) + 12_000
    assert len(state.package()) == 10


# -- real and hostile texts ----------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(INPUTS.iterdir()), ids=lambda path: path.name)
def test_every_recorded_uci_file_is_stamped_as_it_is_or_refused_with_a_reason(path: Path) -> None:
    text = path.read_bytes()
    try:
        package = loads(text, "voice")
    except UciError:
        with pytest.raises(UciSyntaxError):
            stamp_package(None, text, at(1), name="voice")
        return
    try:
        state = stamp_package(None, text, at(1), name="voice")
    except UciError as error:
        assert "cannot be written" in str(error)
        return
    assert state.package() == package
    assert StampedPackage.from_bytes(state.to_bytes()) == state
    assert state.describes(text)


@settings(max_examples=150)
@given(st.binary(max_size=300))
def test_hostile_bytes_are_no_state(raw: bytes) -> None:
    with pytest.raises(ValueError, match="state of a UCI file"):
        StampedPackage.from_bytes(raw)
    with pytest.raises(ValueError, match="state of a UCI file"):
        StampedPackage.from_bytes(b"z" + raw)


JUNK = st.recursive(
    st.one_of(st.none(), st.integers(-3, 5), st.text(max_size=4), st.booleans()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=150)
@given(st.data(), JUNK)
def test_a_damaged_state_is_refused_or_harmless(data: st.DataObject, junk: object) -> None:
    base = stamp_package(None, VOICE, at(1), name="voice")
    raw = json.loads(edited(base, at(2, "b"), ("a", "name"), ("b",)).to_bytes())
    place = raw
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        place[key] = junk
        break
    try:
        state = StampedPackage.from_bytes(json.dumps(raw).encode())
    except ValueError:
        return
    assert loads(state.text(), state.name) == state.package()
    assert merge(base, state).text == merge(state, base).text if state.name == "voice" else True


@pytest.mark.parametrize(
    "change",
    [
        {"sections": [["x y", ["line", 1, 0], 0, -1, []]]},
        {"sections": [["x", ["li'ne", 1, 0], 0, -1, []]]},
        {"sections": [["x", ["line", 1, 0], 0, -1, [["o", "nul\0"]]]]},
        {"sections": [["x", ["line", 1, 9], 0, -1, []]]},
        {"sections": [["x", ["line", 1, -1], 0, -1, []]]},
        {"stamps": [[1, 0, 0], [99, 0, 0]]},
        {"head": [0]},
        {"package": "../x"},
    ],
)
def test_a_state_that_lies_is_refused(change: dict[str, object]) -> None:
    raw = json.loads(stamp_package(None, VOICE, at(1), name="voice").to_bytes())
    with pytest.raises(ValueError, match="no state of a UCI file"):
        StampedPackage.from_bytes(json.dumps({**raw, **change}).encode())


def test_a_packed_state_that_swells_is_refused() -> None:
    import base64
    import zlib

    bomb = b"z" + base64.b85encode(zlib.compress(b" " * (64 << 20)))
    with pytest.raises(ValueError, match="too long"):
        StampedPackage.from_bytes(bomb)


# -- three nodes ---------------------------------------------------------------------------------

SKEW_US = 5_000_000


class ModelNode:
    """A node: its file with an option of its own, its state, its clock, what it has kept."""

    def __init__(self, name: str, text: bytes) -> None:
        self.name = name
        self.offset = 0
        self.clock = Clock(name)
        self.state = stamp_package(None, text, at(1, "a"), name="server")
        self.copies: list[Package] = []


Settings = dict[tuple[str, str | None], object]


def settings_of(package: Package) -> Settings:
    found: Settings = {}
    for number, section in enumerate(package):
        name = f"@{number}" if section.anonymous else section.name
        found[(name, None)] = section.type
        for option in section:
            found[(name, option.name)] = option.value
    return found


class ThreeNodes(RuleBasedStateMachine):
    """Edits, deletions, partitions, restarts and skewed clocks; see ``teardown`` for the end."""

    @initialize()
    def start(self) -> None:
        self.now = 1_000_000_000
        self.nodes = [ModelNode(name, VOICE) for name in "abc"]
        self.cut: set[frozenset[int]] = set()
        self.made: list[tuple[Stamp, tuple[str, str | None], object]] = []
        self.replaced: set[tuple[tuple[str, str | None], str]] = set()

    @rule(which=st.integers(0, 2), edits=st.lists(ALL_EDITS, min_size=1, max_size=3))
    def edit(self, which: int, edits: list[tuple[Any, ...]]) -> None:
        node = self.nodes[which]
        before, package = settings_of(node.state.package()), node.state.package()
        self.now += 1000
        for one in edits:
            if one[0] == "set":  # a value of its own: no other edit's can be taken for it
                one = (*one[:3], f"{one[3]} {self.now}")
            apply(package, one)
        stamp = node.clock.next(self.now + node.offset)
        node.state = stamp_package(node.state, dumps(package), stamp)
        after = settings_of(node.state.package())
        for key in {*before, *after}:
            if before.get(key) != after.get(key):
                if before.get(key) is not None:
                    self.replaced.add((key, repr(before[key])))
                if after.get(key) is not None:
                    self.made.append((stamp, key, after[key]))

    @rule(to=st.integers(0, 2), of=st.integers(0, 2))
    def receive(self, to: int, of: int) -> None:
        if to == of or frozenset((to, of)) in self.cut:
            return
        node, peer = self.nodes[to], self.nodes[of]
        theirs = StampedPackage.from_bytes(peer.state.to_bytes())
        self.now += 1000
        node.clock.observe(theirs.latest, self.now + node.offset, SKEW_US)
        merged = merge(node.state, theirs)
        if FIRST in merged.losers:
            node.copies.append(node.state.package())
        if SECOND in merged.losers:
            node.copies.append(theirs.package())
        node.state = merged.package

    @rule(one=st.integers(0, 2), other=st.integers(0, 2))
    def part(self, one: int, other: int) -> None:
        if one != other:
            self.cut.add(frozenset((one, other)))

    @precondition(lambda self: self.cut)
    @rule()
    def heal(self) -> None:
        self.cut.clear()

    @rule(which=st.integers(0, 2))
    def restart(self, which: int) -> None:
        node = self.nodes[which]
        node.state = StampedPackage.from_bytes(node.state.to_bytes())
        node.clock = Clock(node.name, node.state.latest)

    @rule(which=st.integers(0, 2), offset=st.integers(-2_000_000, 2_000_000))
    def skew(self, which: int, offset: int) -> None:
        self.nodes[which].offset = offset

    @invariant()
    def every_file_is_one_that_can_be_read(self) -> None:
        for node in getattr(self, "nodes", ()):
            assert loads(node.state.text(), "server") == node.state.package()

    def teardown(self) -> None:
        if not hasattr(self, "nodes"):
            return
        self.cut.clear()
        for to, of in [(0, 1), (1, 2), (2, 0), (0, 1), (1, 2), (2, 0)]:
            self.receive(to, of)
        assert len({node.state.text() for node in self.nodes}) == 1
        assert self.nodes[0].state == self.nodes[1].state == self.nodes[2].state
        final = settings_of(self.nodes[0].state.package())
        copies = [settings_of(copy) for node in self.nodes for copy in node.copies]
        for stamp, key, made in self.made:
            # In force, kept as a conflict copy, or replaced by somebody who had it before them.
            assert (
                final.get(key) == made
                or any(copy.get(key) == made for copy in copies)
                or (key, repr(made)) in self.replaced
            ), (stamp, key, made)


TestThreeNodes = ThreeNodes.TestCase
TestThreeNodes.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)


def test_joining_is_what_merging_does_without_a_schema() -> None:
    base = stamp_package(None, VOICE, at(1), name="voice")
    mine = edited(base, at(5, "a"), ("a", "number", "101"))
    theirs = edited(base, at(6, "b"), ("b", "number", "201"))
    assert merge(mine, theirs).package == joined(mine, theirs)


def test_shared_content_and_state_agree_on_what_peers_share() -> None:
    state = stamp_package(None, SERVER, at(1), name="server")
    assert loads(shared_content("server", SERVER), "server") == state.package()
