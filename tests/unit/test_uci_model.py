"""Packages, sections and options in memory; references into them; delta lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlone_ha.uci import (
    Change,
    ChangeKind,
    Option,
    Package,
    UciInvalidError,
    UciNotFoundError,
    UciParseError,
    export_text,
    loads,
)
from controlone_ha.uci.delta import apply_delta, format_changes, without
from controlone_ha.uci.names import to_bytes, to_text
from controlone_ha.uci.reference import (
    Reference,
    leading_index,
    leading_position,
    parse_reference,
    resolve,
)

names = st.from_regex(r"[A-Za-z0-9_]{1,8}", fullmatch=True)
request_values = st.binary(max_size=30).map(
    lambda data: to_text(bytes(one for one in data if one >= 32 or one in b"\t\n\r"))
)


@pytest.fixture
def package() -> Package:
    """Two types, a list, an anonymous section."""
    return loads(
        "config a 'b'\n\toption x '1'\n\tlist l 'p'\n\tlist l 'q'\nconfig a\n\toption y '2'\n"
        "config t 'c'\n",
        "net",
    )


class TestPackage:
    def test_sections_are_found_by_name_and_by_type(self, package: Package) -> None:
        assert [one.name for one in package.sections("a")] == ["b", "cfg02b606"]
        assert [one.type for one in package.sections()] == ["a", "a", "t"]
        assert package.section("nope") is None
        assert "c" in package and len(package) == 3

    def test_options_read_as_strings_or_lists(self, package: Package) -> None:
        section = package.section("b")
        assert section is not None
        assert section.get("l") == "p q"
        assert section.get_list("l") == ["p", "q"]
        assert section.get_list("x") == ["1"]
        assert section.get_list("nope") == []
        assert section.get("nope", "d") == "d"
        assert section.as_dict() == {"x": "1", "l": ["p", "q"]}
        assert package.get("b", "x") == "1"
        assert package.get("nope", "x", "d") == "d"

    def test_an_empty_section_is_still_true(self, package: Package) -> None:
        section = package.section("c")
        assert section and len(section) == 0

    def test_a_package_is_built_from_nothing(self) -> None:
        package = Package("ha")
        package.add("ha", "default").set("role", "master")
        package.add("peer").set("address", ["10.0.0.2", "10.0.0.3"])
        assert export_text(package) == (
            "package ha\n\nconfig ha 'default'\n\toption role 'master'\n\nconfig peer\n"
            "\tlist address '10.0.0.2'\n\tlist address '10.0.0.3'\n\n"
        )

    def test_setting_nothing_removes(self, package: Package) -> None:
        section = package.section("b")
        assert section is not None
        section.set("x", "")
        section.set("l", [])
        section.set("nope", "")
        assert list(section) == []

    @pytest.mark.parametrize("name", ["", "a-b", "a b", "ã", "a.b", "a\n"])
    def test_a_bad_name_is_refused(self, package: Package, name: str) -> None:
        section = package.section("b")
        assert section is not None
        with pytest.raises(UciInvalidError, match="expected ASCII letters"):
            section.set(name, "1")
        with pytest.raises(UciInvalidError, match="expected ASCII letters"):
            package.add("a", name)

    @pytest.mark.parametrize("value", ["a\0b", "\ud800"])
    def test_a_value_that_cannot_stand_in_a_file_is_refused(
        self, package: Package, value: str
    ) -> None:
        section = package.section("b")
        assert section is not None
        for candidate in (value, ["ok", value]):
            with pytest.raises(UciInvalidError, match="cannot hold"):
                section.set("x", candidate)
        assert section.get("x") == "1"

    @pytest.mark.parametrize("type", ["", "a b", "a'b", "a;b", "a#b", "a\\b", 'a"b', "ã"])
    def test_a_type_that_would_not_survive_is_refused(self, package: Package, type: str) -> None:
        with pytest.raises(UciInvalidError, match="section type"):
            package.add(type)

    def test_a_taken_section_name_is_refused(self, package: Package) -> None:
        with pytest.raises(UciInvalidError, match="there is a section of this name"):
            package.add("a", "b")

    def test_deleting_what_is_missing_says_so(self, package: Package) -> None:
        section = package.section("b")
        assert section is not None
        with pytest.raises(UciNotFoundError):
            section.delete("nope")
        with pytest.raises(UciNotFoundError):
            package.delete("nope")
        section.delete("x")
        package.delete("c")
        assert "x" not in section and "c" not in package

    def test_equality_looks_at_content_and_order_not_at_lines(self, package: Package) -> None:
        same = loads("\n\n" + export_text(package), "net")
        assert same == package
        section = same.section("b")
        assert section is not None
        section.set("x", "2")
        assert same != package
        assert Option("x", "1") == Option("x", "1", line=9)
        assert Option("x", "1") != "x"

    def test_two_sections_of_one_name_show_both_and_find_the_first(self, package: Package) -> None:
        third = package.section("c")
        assert third is not None
        package.rename_section(third, "b")
        assert [one.name for one in package] == ["b", "cfg02b606", "b"]
        first = package.section("b")
        assert first is not None and first.type == "a"
        package.remove_section(first)
        assert package.section("b") is third

    def test_two_options_of_one_name_show_both_and_find_the_first(self, package: Package) -> None:
        section = package.section("b")
        assert section is not None
        second = section.option("l")
        assert second is not None
        section.rename_option(second, "x")
        assert section.get("x") == "1" and len(section) == 2
        first = section.option("x")
        assert first is not None
        section.remove_option(first)
        assert section.option("x") is second

    @pytest.mark.parametrize(
        ("position", "order"),
        [(0, "cba"), (-5, "cba"), (1, "bca"), (2, "bac"), (99, "bac")],
    )
    def test_a_section_moves_to_its_place(self, position: int, order: str) -> None:
        package = loads("config t b\nconfig t a\nconfig t c\n", "net")
        section = package.section("c")
        assert section is not None
        assert package.move_section(section, position) is (order != "bac")
        assert "".join(one.name for one in package) == order


class TestReference:
    @pytest.mark.parametrize(
        ("text", "reference"),
        [
            ("net", Reference("net")),
            ("net.b", Reference("net", "b")),
            ("net.b.x", Reference("net", "b", "x")),
            ("net.b.x=a=b.c", Reference("net", "b", "x", "a=b.c")),
            ("net=1", Reference("net", value="1")),
            ("net.@a[0].x=", Reference("net", "@a[0]", "x", "", extended=True)),
            ("net..x", Reference("net", "", "x", extended=True)),
            ("/etc/x.b", Reference("/etc/x", "b")),
        ],
    )
    def test_it_is_taken_apart(self, text: str, reference: Reference) -> None:
        assert parse_reference(text) == reference

    @pytest.mark.parametrize(
        "text", ["", ".b", "n t", "ã", "net.b.x.y", "net.b.", "net.b.x-y", "net.b.x=\x01", "=1"]
    )
    def test_other_forms_are_refused(self, text: str) -> None:
        with pytest.raises(UciParseError, match="expected package"):
            parse_reference(text)

    @pytest.mark.parametrize(
        ("section", "name"),
        [
            ("@a[0]", "b"), ("@a[-1]", "cfg02b606"), ("@[2]", "c"), ("@a[]", "b"), ("@t[ +0]", "c"),
            ("@a[2]", None), ("@a[-3]", None), ("@a[4294967297]", "cfg02b606"),
        ],
    )  # fmt: skip
    def test_extended_sections_are_counted(
        self, package: Package, section: str, name: str | None
    ) -> None:
        target = resolve(package, Reference("net", section, extended=True))
        assert (target.section.name if target.section else None) == name
        assert target.complete is (name is not None)

    @pytest.mark.parametrize(
        "section", ["", "a-b", "@a", "@a[0", "@a[0]x", "@a[x]", "@a[1x]", "@a b[0]", "[0]", "a[0]"]
    )
    def test_other_extended_forms_are_refused(self, package: Package, section: str) -> None:
        with pytest.raises(UciInvalidError, match="@type"):
            resolve(package, Reference("net", section, extended=True))

    @pytest.mark.parametrize(
        ("text", "index", "position"),
        [
            ("0", 0, 0), ("12x", 12, 12), (" 7", 7, 7), ("-1", -1, -1), ("x", None, 0), ("", -1, 0),
            ("4294967295", -1, -1), ("99999999999999999999", -1, -1), ("+3", 3, 3),
        ],
    )  # fmt: skip
    def test_numbers_read_as_in_c(self, text: str, index: int | None, position: int) -> None:
        assert leading_index(text) == index
        assert leading_position(text) == position


class TestDelta:
    @given(
        st.lists(
            st.builds(
                Change,
                st.sampled_from([ChangeKind.CHANGE, ChangeKind.ADD, ChangeKind.REMOVE]),
                names,
                st.none() | names,
                request_values,
            )
            | st.builds(Change, st.just(ChangeKind.LIST_ADD), names, names, request_values)
            | st.builds(Change, st.just(ChangeKind.RENAME), names, st.none() | names, names)
            | st.builds(Change, st.just(ChangeKind.REMOVE), names, st.none() | names, st.none()),
            max_size=6,
        )
    )
    def test_lines_read_back_as_they_were_written(self, changes: list[Change]) -> None:
        package = Package("net")
        apply_delta(package, format_changes("net", changes))
        assert package.saved == changes

    def test_each_kind_has_its_mark(self) -> None:
        changes = [
            Change(ChangeKind.ADD, "cfg01b606", None, "a"),
            Change(ChangeKind.CHANGE, "b", "x", "it's"),
            Change(ChangeKind.REMOVE, "b", "y"),
            Change(ChangeKind.REMOVE, "b", "l", "0"),
            Change(ChangeKind.RENAME, "b", None, "c"),
            Change(ChangeKind.REORDER, "c", None, "0"),
            Change(ChangeKind.LIST_ADD, "c", "l", "i"),
            Change(ChangeKind.LIST_DEL, "c", "l", "i"),
        ]
        assert format_changes("net", changes).decode() == (
            "+net.cfg01b606='a'\nnet.b.x='it'\\''s'\n-net.b.y\n-net.b.l='0'\n@net.b='c'\n"
            "^net.c='0'\n|net.c.l='i'\n~net.c.l='i'\n"
        )

    def test_a_line_that_cannot_be_read_or_applied_is_passed_over(self, package: Package) -> None:
        data = b"garbage\n-net.nope\nother.b.x='1'\nnet.b.x='9'\nnet.b.z='1' tail\nnet.b.w='1'"
        assert apply_delta(package, data) == 2
        assert package.get("b", "x") == "9" and package.get("b", "w") == "1"
        assert [one.section for one in package.saved] == ["nope", "b", "b"]

    def test_dropping_a_section_or_option_keeps_the_rest(self) -> None:
        data = b"net.b.x='1'\nnet.b.y='2'\nnet.c='t'\n"
        assert without(data, "net", "b", "x") == b"net.b.y='2'\nnet.c='t'\n"
        assert without(data, "net", "b", None) == b"net.c='t'\n"
        assert without(data, "net", None, None) == b""

    def test_a_delta_with_an_unreadable_line_is_left_alone(self) -> None:
        assert without(b"net.b.x='1'\ngarbage\n", "net", "b", "x") is None

    def test_replaying_does_not_stage_again(self, package: Package) -> None:
        package.tracked = True
        apply_delta(package, b"net.b.x='9'\n+net.cfg04b606='a'\n|net.b.l='r'\n-net.c\n")
        assert package.pending == []
        assert to_bytes(export_text(package, header=False)) == (
            b"\nconfig a 'b'\n\toption x '9'\n\tlist l 'p'\n\tlist l 'q'\n\tlist l 'r'\n\n"
            b"config a\n\toption y '2'\n\nconfig a\n\n"
        )
