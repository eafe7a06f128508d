"""UCI text to packages: statements and what they do. Cutting words is the scanner's business.

Theory of operation. Nearly every file consists of lines in one of a few plain forms. One regular
expression recognises those, any number in a row, and they are put into the model at once. The first
line in any other form (several statements on a line, escapes, joined pieces, ``package``, an
error) goes through the scanner, which knows libuci's grammar to the byte, and the fast way takes up
again behind it. Text is handled as Latin-1, one character a byte; words become real text on
their way into the model.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from controlone_ha.uci import operations
from controlone_ha.uci.errors import (
    UciDuplicateError,
    UciFault,
    UciInvalidError,
    UciSyntaxError,
)
from controlone_ha.uci.model import Option, Package, Section
from controlone_ha.uci.names import (
    is_name,
    is_package_name,
    is_package_word,
    is_type,
    to_bytes,
    to_text,
)
from controlone_ha.uci.reference import Target
from controlone_ha.uci.scanner import ScanError, Scanner, Stream

# A line in one of the plain forms, told apart by the last group that matched: option (1, 2), list
# (3, 4), config with a name (5, 6), config without (7), blank or comment (8), anything else (none).
_PLAIN_LINE = re.compile(
    r"""[ \t]*(?:
      option [ \t]+ ([A-Za-z0-9_]+) [ \t]+ '([^']*)' [ \t\r]* \n
    | list [ \t]+ ([A-Za-z0-9_]+) [ \t]+ '([^']*)' [ \t\r]* \n
    | config [ \t]+ ([!$-&(-:<-\[\]-~]+) [ \t]+ '([A-Za-z0-9_]+)' [ \t\r]* \n
    | config [ \t]+ ([!$-&(-:<-\[\]-~]+) [ \t\r]* \n
    | ([\r\f\v]* (?:\#[^\n]*)? \n)
    | [^\n]* \n
    | [^\n]+
    )""",
    re.VERBOSE | re.ASCII,
)
_OPTION, _LIST, _NAMED, _ANONYMOUS, _NOTHING = 2, 4, 6, 7, 8
# The other common ways to write an option: names in quotes; values with quotes in them as the
# writer leaves them, in double quotes or bare; a comment behind; no newline at the end of the file.
_OTHER_OPTION = re.compile(
    r"""[ \t]*(option|list) [ \t]+ (?:'([A-Za-z0-9_]+)'|([A-Za-z0-9_]+))
        [ \t]+ (?:'([^']*(?:'\\''[^']*)*)'|"([^"\\]*)"|([^\s'"\\;#]+))
        [ \t\r\f\v]* (?:\#[^\n]*)? (?:\n|\Z)""",
    re.VERBOSE | re.ASCII,
)
_PAUSE_FROM = 65536  # bytes
_COMMANDS = {
    b"package": b"p", b"p": b"p",
    b"config": b"c", b"c": b"c",
    b"option": b"o", b"o": b"o",
    b"list": b"l", b"l": b"l",
}  # fmt: skip


@dataclass
class Import:
    """One run of reading UCI text, as libuci's import.

    ``name`` is the package the text is about; with ``single`` it is the only one and ``package``
    lines are ignored. ``merge_into`` makes every statement a recorded change of that package.
    ``loaded`` holds names of packages that must not come up again. Not ``strict``: a bad line is
    given to ``report`` and skipped, extra words are ignored. ``scanner`` is the place in the text,
    also after an error.
    """

    stream: Stream
    name: str | None = None
    single: bool = True
    merge_into: Package | None = None
    loaded: Container[str] = ()
    strict: bool = True
    report: Callable[[UciFault], None] | None = None
    file: str = ""
    scanner: Scanner = field(init=False)
    package: Package | None = field(init=False, default=None)
    packages: list[Package] = field(init=False, default_factory=list)
    section: Section | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.scanner = Scanner(self.stream)
        self.package = self.merge_into if self.single else None

    def run(self) -> list[Package]:
        """Read the whole stream and return its packages in order.

        Raises UciSyntaxError at the first error of a strict run, UciDuplicateError for a package
        that comes twice, UciInvalidError for an impossible package name. Nothing is left half done
        but in a ``merge_into`` package.
        """
        if self.name is not None and not is_package_name(self.name):
            raise UciInvalidError(f"got package name {self.name!r}, expected printable ASCII")
        data = b"" if self.stream.at_end else self.stream.rest()
        if self.merge_into is None and b"\0" not in data:
            with _collector_paused(len(data)):
                self._read_plain(data)
        else:
            while not self.stream.at_end:
                self._read_line()
        if self.package is None and self.name is not None:
            self._open_package(self.name)
        self._close_package()
        return self.packages

    # The fast way

    def _read_plain(self, data: bytes) -> None:
        """Read ``data``, which is the rest of the stream, leaving odd lines to the scanner."""
        text = data.decode("latin-1")
        position, end = 0, len(text)
        while position < end:
            reached = self._read_run(text, position)
            self.scanner.line += text.count("\n", position, reached)
            self.stream.skip(reached - position)
            position = reached
            if position < end:
                before = self.stream.consumed
                self._read_line()
                position += self.stream.consumed - before
        self.stream.at_end = True

    def _read_run(self, text: str, position: int) -> int:
        """Put plain lines from ``position`` on into the model; return where they end."""
        package, section = self.package, self.section
        options = None if section is None else section.by_name
        line = self.scanner.line
        for match in _PLAIN_LINE.finditer(text, position):
            line += 1
            form = match.lastindex
            is_list = False
            leave_at = None
            if form == _OPTION:
                name, value = match.group(1, 2)
                if value and options is not None and name not in options and value.isascii():
                    # By far the most common line.
                    options[name] = Option(name, value, line)
                    if "\n" in value:
                        line += value.count("\n")
                    continue
            elif form == _NOTHING:
                continue
            elif form == _LIST:
                name, value = match.group(3, 4)
                is_list = True
            elif form is not None:
                type, title = match.group(5, 6) if form == _NAMED else (match[7], None)
                if package is None:
                    if self.name is None:
                        return self._leave(section, match.start())
                    package = self._open_package(self.name)
                found = package.by_name.get(title) if title else None
                if found is None:
                    section = package.append_section(type, title, line)
                elif found.type == type:
                    section = found
                else:
                    return self._leave(section, match.start())
                options = section.by_name
                continue
            else:
                other = _OTHER_OPTION.match(text, match.start())
                if other is None:
                    return self._leave(section, match.start())
                kind, name_quoted, name_bare, single, double, bare = other.groups()
                name, is_list = name_quoted or name_bare, kind == "list"
                value = single.replace("'\\''", "'") if single else double or bare or ""
                if other.end() != match.end():
                    leave_at = other.end()
            if section is None:
                return self._leave(section, match.start())
            number = line
            if "\n" in value:
                line += value.count("\n")
            if not value.isascii():
                value = to_text(value.encode("latin-1"))
            if is_list:
                section.append_item(name, value, number)
            elif value:
                option = section.by_name.get(name)
                if option is None:
                    section.by_name[name] = Option(name, value, number)
                else:
                    option.value = value
                    option.line = number
            if leave_at is not None:
                return self._leave(section, leave_at)
        return self._leave(section, len(text))

    def _leave(self, section: Section | None, position: int) -> int:
        """Take leave of the fast way at ``position``, in ``section``."""
        self.section = section
        return position

    # The exact way

    def _read_line(self) -> None:
        """Read one logical line through the scanner."""
        first = self.scanner.line + 1
        if not self.scanner.next_line():
            return
        try:
            self._statements()
        except ScanError as error:
            scanner = self.scanner
            opened = error.reason.startswith("EOF")
            fault = UciSyntaxError(
                file=self.file or self.name or "-",
                line=first if opened else scanner.shown_line,
                reason=error.reason,
                counted_line=scanner.line,
                byte=scanner.byte,
            )
            self._tell(fault)
            if self.strict:
                raise fault from None
        except UciFault as fault:
            self._tell(fault)
            raise

    def _tell(self, fault: UciFault) -> None:
        if self.report is not None:
            self.report(fault)

    def _statements(self) -> None:
        scanner = self.scanner
        scanner.skip_space()
        while (word := scanner.command()) is not None:
            if word.startswith(b"#"):
                return
            match _COMMANDS.get(word):
                case b"p":
                    self._package_statement(word)
                case b"c":
                    self._config_statement(word)
                case b"o":
                    self._option_statement(word, is_list=False)
                case b"l":
                    self._option_statement(word, is_list=True)
                case _:
                    raise scanner.fail("invalid command")

    def _package_statement(self, word: bytes) -> None:
        if not self.scanner.step_behind(word):
            raise self.scanner.fail("package without name")
        name = self._name(is_package_word, required=True)
        self._end_of_statement()
        if not self.single:
            self._open_package(name)

    def _config_statement(self, word: bytes) -> None:
        if self.package is None:
            if self.name is None:
                raise self.scanner.fail("attempting to import a file without a package name")
            self._open_package(self.name)
        package = self.package
        assert package is not None
        if not self.scanner.step_behind(word):
            raise self.scanner.fail("config without name")
        type = self._name(is_type, required=True, reason="invalid character in type field")
        name = self._name(is_name, required=False)
        self._end_of_statement()
        target = Target(package, name or None, value=type)
        replayed = self.merge_into is None
        line = self.scanner.shown_line
        if not name:
            self.section = operations.add_section(target, type, replayed=replayed, line=line)
            return
        target.section = package.section(name)
        if self.strict and target.section is not None and target.section.type != type:
            raise self.scanner.fail(
                "section of different type overwrites prior section with same name"
            )
        operations.set_value(target, replayed=replayed, line=line)
        self.section = target.section

    def _option_statement(self, word: bytes, *, is_list: bool) -> None:
        if self.section is None or self.package is None:
            raise self.scanner.fail("option/list command found before the first section")
        if not self.scanner.step_behind(word):
            raise self.scanner.fail("option without name")
        line = self.scanner.shown_line
        name = self._name(is_name, required=True)
        value = to_text(self.scanner.argument())
        self._end_of_statement()
        target = Target(
            self.package, self.section.name, name, value, self.section, self.section.option(name)
        )
        operation = operations.add_list if is_list else operations.set_value
        operation(target, replayed=self.merge_into is None, line=line)

    def _name(
        self,
        accepts: Callable[[str], bool],
        *,
        required: bool,
        reason: str = "invalid character in name field",
    ) -> str:
        """Read a word that must be a name of some kind, "" if it is missing and may be."""
        word = to_text(self.scanner.argument())
        if not word:
            if required:
                raise self.scanner.fail("insufficient arguments")
        elif not accepts(word):
            raise self.scanner.fail(reason)
        return word

    def _end_of_statement(self) -> None:
        if self.scanner.argument() and self.strict:
            raise self.scanner.fail("too many arguments")

    # Packages

    def _open_package(self, name: str) -> Package:
        """Close the package being read and start ``name``."""
        self._close_package()
        if name in self.loaded or any(one.name == name for one in self.packages):
            raise UciDuplicateError(f"package {name} comes twice")
        self.package = Package(name)
        return self.package

    def _close_package(self) -> None:
        if self.package is not None:
            self.packages.append(self.package)
            self.package = self.section = None


@contextmanager
def _collector_paused(size: int) -> Iterator[None]:
    """Keep the cycle collector from looking through a growing model again and again.

    Nothing in it is a cycle; for megabytes of text the looking takes as long as the reading.
    """
    pause = size >= _PAUSE_FROM and gc.isenabled()
    if pause:
        gc.disable()
    try:
        yield
    finally:
        if pause:
            gc.enable()


def loads(data: bytes | str, name: str, *, file: str = "") -> Package:
    """Read the text of one package, as `uci` reads a file of /etc/config.

    ``file`` is the name used in messages, ``name`` if empty. Raises UciSyntaxError.
    """
    raw = to_bytes(data) if isinstance(data, str) else data
    return Import(Stream(raw), name=name, file=file or name).run()[0]
