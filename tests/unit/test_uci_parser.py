"""Reading and writing UCI text: libuci's grammar, to the byte."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlone_ha.uci import (
    Option,
    Package,
    UciFault,
    UciInvalidError,
    UciSyntaxError,
    dumps,
    export_text,
    loads,
)
from controlone_ha.uci.names import anonymous_name, to_bytes, to_text
from controlone_ha.uci.parser import Import
from controlone_ha.uci.scanner import Stream
from controlone_ha.uci.writer import quote

DATA = Path(__file__).resolve().parents[1] / "data" / "uci"
EXPECTED: dict[str, Any] = json.loads((DATA / "expected.json").read_text())["parse"]

WORD = string.ascii_letters + string.digits + "_"
names = st.text(WORD, min_size=1, max_size=8)
types = st.text(WORD + "./@:-", min_size=1, max_size=8)
raw_values = st.binary(max_size=40).map(lambda data: to_text(data.replace(b"\0", b"")))
values = raw_values | st.text(
    alphabet=st.sampled_from("ab '\"\\#;\n\r\t=.ãé\x01\udcff"), max_size=30
).map(lambda text: to_text(to_bytes(text)))


@st.composite
def packages(draw: st.DrawFn) -> Package:
    """A package as any sequence of legal steps can make it."""
    package = Package(draw(names))
    for _ in range(draw(st.integers(0, 5))):
        name = draw(st.none() | names)
        if name is not None and name in package:
            continue
        section = package.add(draw(types), name)
        for _ in range(draw(st.integers(0, 5))):
            section.set(draw(names), draw(values | st.lists(values, max_size=4)))
    return package


# Text built from what matters to the grammar, so that quotes open and close by chance.
fragments = st.sampled_from(
    ["config a 'b'\n", "config a\n", "\toption x '1'\n", "\tlist y 'z'\n", "option", "list",
     "config", "package", " ", "\t", "\n", "\r\n", "'", '"', "\\", ";", "#", "x", "''", '"v w"',
     "\\\n", "\0", "ã", "\x0b", "a-b", "option x \"two\" # c\n", "option x bare\n",
     "option 'x' '1'\n"]
)  # fmt: skip
texts = st.lists(fragments, max_size=14).map(lambda parts: "".join(parts).encode())


class LineByLine(Import):
    """The same reader with every line going through the scanner."""

    def _read_plain(self, data: bytes) -> None:
        while not self.stream.at_end:
            self._read_line()


def outcome(run: Import) -> object:
    """What reading led to, error or package, in comparable form."""
    try:
        package = run.run()[0]
    except UciSyntaxError as error:
        return (error.reason, error.line, error.counted_line, error.byte)
    lines = [(section.line, [option.line for option in section]) for section in package]
    return (export_text(package, name_anonymous=True), package.made, lines)


def exported(data: bytes, name: str) -> tuple[int, str, str]:
    """Exit code, output and error text of `uci export`, as the data files hold them."""
    try:
        package = loads(data, name)
    except UciSyntaxError as error:
        place = f"({error.reason}) at line {error.counted_line}, byte {error.byte}"
        return 1, "", f"uci: Parse error {place}\n"
    return 0, to_bytes(export_text(package)).decode("latin-1"), ""


@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_reads_and_exports_as_the_real_uci_did(name: str) -> None:
    step = next(one for one in EXPECTED[name] if one["args"][0] == "export")
    data = (DATA / "inputs" / name).read_bytes()
    assert exported(data, name) == (step["code"], step["stdout"], step["stderr"])


def test_every_input_has_an_expectation() -> None:
    assert {one.name for one in (DATA / "inputs").iterdir()} == set(EXPECTED)
    assert len(EXPECTED) > 50


@given(packages())
def test_what_is_written_reads_back_equal(package: Package) -> None:
    assert loads(dumps(package), package.name) == package
    assert loads(export_text(package), package.name) == package


@given(packages())
def test_a_second_write_changes_nothing(package: Package) -> None:
    assert dumps(loads(dumps(package), package.name)) == dumps(package)


@given(texts)
def test_the_fast_way_reads_what_the_scanner_reads(data: bytes) -> None:
    fast = outcome(Import(Stream(data), name="net"))
    assert fast == outcome(LineByLine(Stream(data), name="net"))


@given(texts)
def test_without_strictness_both_ways_skip_the_same_lines(data: bytes) -> None:
    def skipped(kind: type[Import]) -> tuple[object, list[str]]:
        reports: list[UciFault] = []
        run = kind(Stream(data), name="net", strict=False, report=reports.append)
        return outcome(run), [str(one) for one in reports]

    assert skipped(Import) == skipped(LineByLine)


@given(texts)
def test_a_readable_text_is_stable_after_one_export(data: bytes) -> None:
    try:
        package = loads(data, "net")
    except UciSyntaxError:
        return
    if all("'" not in section.type for section in package):
        again = loads(dumps(package), "net")
        # A list that ended up empty is not written.
        for section in package:
            for option in [one for one in section if one.value == []]:
                section.remove_option(option)
        assert again == package


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("config ha 'default'\n\toption role\n\toption ro-le 'x'\n", "ha:3: invalid character in"),
        ("config a b\n\toption x 'one\ntwo\nthree\n", "ha:2: EOF with unterminated '"),
        ('config a b\n\n\toption x "one', 'ha:3: EOF with unterminated "'),
        ("config a b\noption x '1' y", "ha:2: too many arguments"),
        ("\n\n# c\nfoo", "ha:4: invalid command"),
        ("option x 1\n", "ha:1: option/list command found before the first section"),
        ("config a b\n\toption y 'two\nlines'\n\tlist z 1 2\n", "ha:4: too many arguments"),
    ],
)
def test_an_error_names_file_and_line_as_an_editor_counts(text: str, message: str) -> None:
    with pytest.raises(UciSyntaxError) as caught:
        loads(text, "ha")
    assert str(caught.value).startswith(message)
    assert caught.value.code == "uci"


def test_the_file_name_in_messages_can_be_a_path() -> None:
    with pytest.raises(UciSyntaxError, match=r"^/etc/config/ha:1: invalid command$"):
        loads("frob\n", "ha", file="/etc/config/ha")


def test_sections_and_options_know_their_lines() -> None:
    package = loads(
        "# head\n\nconfig ha 'default'\n\toption a 'two\nlines'\n\toption b bare # c\n"
        "\toption c \"x\\\"y\"\n\n\tlist d '1'\n\tlist d '2'\nconfig peer; option e 1\n"
        "config peer 'p' ; option f '1'\n\toption a2 'x'\\\n'y'\n\toption a3 z\n",
        "ha",
    )
    assert [(one.name, one.line) for one in package] == [
        ("default", 3), (anonymous_name(2, "peer"), 11), ("p", 12)
    ]  # fmt: skip
    default, last = package.section("default"), package.section("p")
    assert default is not None and last is not None
    assert [(one.name, one.line) for one in default] == [("a", 4), ("b", 6), ("c", 7), ("d", 9)]
    assert [(one.name, one.line) for one in last] == [("f", 12), ("a2", 13), ("a3", 15)]


def test_an_option_set_again_carries_the_line_of_its_value() -> None:
    package = loads("config a b\n\toption x 1\n\toption y 2\n\toption x 3\n", "net")
    section = package.section("b")
    assert section is not None
    assert list(section) == [Option("x", "3"), Option("y", "2")]
    assert [one.line for one in section] == [4, 3]


def test_a_value_of_a_megabyte_survives() -> None:
    value = "0123456789abcde\n" * 65536
    for text in (f"config a b\n\toption x '{value}'\n", f'config a b\n\toption x "{value}"\n'):
        package = loads(text, "net")
        assert package.get("b", "x") == value
        assert loads(dumps(package), "net") == package


def test_a_text_full_of_nul_bytes_ends() -> None:
    # Each doubles libuci's buffer; the real one hangs after thirty.
    data = b"config a b\noption x 1\n" + b"# c\0 lost\n" * 200 + b"\noption y 2\n"
    package = loads(data, "net")
    assert package.get("b", "x") == "1" and package.get("b", "y") == "2"


def test_bytes_that_are_no_utf8_survive() -> None:
    data = b"config a b\n\toption x '\xff\xfe S\xe3o'\n\tlist y S\xc3\xa3o\n"
    package = loads(data, "net")
    assert package.get("b", "y") == "São"
    assert (
        dumps(package) == b"\nconfig a 'b'\n\toption x '\xff\xfe S\xe3o'\n\tlist y 'S\xc3\xa3o'\n\n"
    )


def test_text_without_any_newline_or_content_reads() -> None:
    assert list(loads("", "net")) == []
    assert loads("config a", "net").made == 1


@pytest.mark.parametrize("name", ["", "a b", "ã", "a\n"])
def test_an_impossible_package_name_is_refused(name: str) -> None:
    with pytest.raises(UciInvalidError, match="package name"):
        loads("config a b\n", name)


@pytest.mark.parametrize(
    ("number", "type", "name"),
    [
        (1, "a", "cfg01b606"),
        (2, "typ", "cfg02b062"),
        (3, "b", "cfg03b607"),
        (300, "a", "cfg12cb606"),
    ],
)
def test_anonymous_sections_are_named_as_libuci_names_them(
    number: int, type: str, name: str
) -> None:
    assert anonymous_name(number, type) == name


def test_quoting_puts_a_quote_outside_the_quotes() -> None:
    assert quote("it's") == "'it'\\''s'"
    assert loads(f"config a b\noption x {quote(chr(39) * 3)}\n", "n").get("b", "x") == "'''"
