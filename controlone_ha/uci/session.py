"""One run of the `uci` command: carrying out commands and printing what libuci's tool prints.

What a command means lies in ``operations`` and ``store``; here are the order of things, the output
and the habits of the command-line tool that show in it, two of them odd: every error message ends
with one newline more than the one before, and the place of the last syntax error is repeated behind
later errors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from controlone_ha.uci import operations
from controlone_ha.uci.errors import Status, UciFault, UciNotFoundError
from controlone_ha.uci.model import ChangeKind, Option, Package, Section
from controlone_ha.uci.names import to_bytes, to_text
from controlone_ha.uci.reference import (
    Target,
    leading_index,
    leading_position,
    parse_reference,
    resolve,
)
from controlone_ha.uci.scanner import Scanner, Stream
from controlone_ha.uci.store import Store
from controlone_ha.uci.writer import export_text, quote

_USAGE = """\
Usage: uci [<options>] <command> [<arguments>]

Commands:
	batch
	export     [<config>]
	import     [<config>]
	changes    [<config>]
	commit     [<config>]
	add        <config> <section-type>
	add_list   <config>.<section>.<option>=<string>
	del_list   <config>.<section>.<option>=<string>
	show       [<config>[.<section>[.<option>]]]
	get        <config>.<section>[.<option>]
	set        <config>.<section>[.<option>]=<value>
	delete     <config>[.<section>[[.<option>][=<id>]]]
	rename     <config>.<section>[.<option>]=<name>
	revert     <config>[.<section>[.<option>]]
	reorder    <config>.<section>=<position>

Options:
	-c <path>  set the search path for config files (default: /etc/config)
	-C <path>  set the search path for config override files (default: /var/run/uci)
	-d <str>   set the delimiter for list values in uci show
	-f <file>  use <file> as input instead of stdin
	-m         when importing, merge data into an existing package
	-n         name unnamed sections on export (default)
	-N         don't name unnamed sections
	-p <path>  add a search path for config change files
	-P <path>  add a search path for config change files and use as default
	-t <path>  set save path for config change files
	-q         quiet mode (don't print error messages)
	-s         force strict mode (stop on parser errors, default)
	-S         disable strict mode
	-X         do not use extended syntax on 'show'

"""
SHOW_USAGE = 255
"""The exit code that asks for the usage text."""
_EXIT_BATCH = 254
_MAX_BATCH_ARGUMENTS = 4
_MAX_PLACE = 126
_BLANKS = frozenset(" \t\r\n")
_SECTION_COMMANDS = {
    "get": "get", "set": "set", "add_list": "add_list", "del_list": "del_list",
    "del": "delete", "delete": "delete", "ren": "rename", "rename": "rename",
    "revert": "revert", "reorder": "reorder",
}  # fmt: skip
_TAKES_VALUE = frozenset({"set", "delete", "add_list", "del_list", "rename", "reorder"})
_PACKAGE_COMMANDS = frozenset({"show", "export", "commit", "changes"})


@dataclass
class Session:
    """One run of the command: its settings, its streams and the packages it has loaded."""

    store: Store
    input: Stream
    output: BinaryIO
    errors: BinaryIO
    delimiter: str = " "
    merge: bool = False
    quiet: bool = False
    no_commit: bool = False
    extended: bool = True
    loaded: list[Package] = field(default_factory=list)
    _in_batch: bool = False
    _place: str = ""

    def run(self, arguments: Sequence[str]) -> int:
        """Carry out one command and return its exit code; 255 asks for the usage text."""
        word = arguments[0].lower()
        if word == "batch" and not self._in_batch:
            return self._batch()
        if word in _SECTION_COMMANDS:
            return self._section_command(_SECTION_COMMANDS[word], arguments)
        if word in _PACKAGE_COMMANDS:
            return self._package_command(word, arguments)
        match word:
            case "import":
                return self._import(arguments)
            case "add":
                return self._add(arguments)
            case "help":
                self.print_usage()
                return 0
        return SHOW_USAGE

    def print_usage(self) -> None:
        """Print the usage text, as errors are printed."""
        self.errors.write(_USAGE.encode())

    def print_error(self, text: str) -> None:
        """Print ``text`` as it is, unless quiet."""
        if not self.quiet:
            self.errors.write(to_bytes(text))

    def report(self, fault: UciFault) -> None:
        """Print a skipped error; quiet or not, and without a name before it."""
        self._print_fault(fault, "")

    def _fail(self, fault: UciFault) -> int:
        if not self.quiet:
            self._print_fault(fault, "uci: ")
        return 1

    def _print_fault(self, fault: UciFault, prefix: str) -> None:
        scanner = self.store.scanner
        if fault.status is Status.PARSE and scanner is not None:
            reason = scanner.reason or "unknown"
            place = f" ({reason}) at line {scanner.line}, byte {scanner.byte}"
            self._place = place[:_MAX_PLACE]
        self._place += "\n"
        self.errors.write(to_bytes(prefix + fault.text + self._place))

    def _print(self, text: str) -> None:
        self.output.write(to_bytes(text))

    # Looking up

    def _look_up(self, text: str) -> Target:
        """Find what ``text`` names, loading its package if need be."""
        reference = parse_reference(text)
        package = next((one for one in self.loaded if one.name == reference.package), None)
        if package is None:
            package = self._load(reference.package)
        return resolve(package, reference)

    def _load(self, name: str) -> Package:
        package = self.store.load(name, loaded=self.loaded)
        self.loaded.append(package)
        return package

    def _unload(self, package: Package) -> None:
        self.loaded[:] = [one for one in self.loaded if one is not package]

    # Commands on sections and options

    def _section_command(self, word: str, arguments: Sequence[str]) -> int:
        if len(arguments) != 2:
            return SHOW_USAGE
        try:
            target = self._look_up(arguments[1])
            if target.value is not None and word not in _TAKES_VALUE:
                return 1
            return self._carry_out(word, target)
        except UciFault as fault:
            return self._fail(fault)

    def _carry_out(self, word: str, target: Target) -> int:
        operation: Callable[[Target], None]
        match word:
            case "get":
                return self._get(target)
            case "revert":
                return self._revert(target)
            case "reorder":
                if target.section is None or target.value is None:
                    raise UciNotFoundError("no section or no position is named")
                operations.reorder(target, leading_position(target.value))
                self.store.save(target.package)
                return 0
            case "delete":
                if target.value is not None and leading_index(target.value) is None:
                    return 1
                operation = operations.delete
            case "rename":
                operation = operations.rename
            case "add_list":
                operation = operations.add_list
            case "del_list":
                operation = operations.del_list
            case _:
                operation = operations.set_value
        operation(target)
        self.store.save(target.package)
        return 0

    def _get(self, target: Target) -> int:
        if not target.complete:
            raise UciNotFoundError("there is no such entry")
        if target.option is not None:
            self._print(self._value(target.option, quoted=False) + "\n")
        elif target.section is not None:
            self._print(target.section.type + "\n")
        return 0

    def _revert(self, target: Target) -> int:
        try:
            self.store.revert_staged(target.package, target.section_name, target.option_name)
            self._unload(target.package)
            self._load(target.package.name)
        except UciFault:
            # The command says nothing about what goes wrong here.
            pass
        return 0

    # Commands on packages

    def _package_command(self, word: str, arguments: Sequence[str]) -> int:
        if len(arguments) > 2:
            return SHOW_USAGE
        if len(arguments) == 2:
            return self._one_package(word, arguments[1])
        try:
            names = self.store.names()
        except UciFault as fault:
            return self._fail(fault)
        for name in names:
            self._one_package(word, name)
        return 0

    def _one_package(self, word: str, text: str) -> int:
        try:
            target = self._look_up(text)
        except UciFault as fault:
            return self._fail(fault)
        package = target.package
        try:
            match word:
                case "changes":
                    self._print_changes(package)
                case "export":
                    self._print(export_text(package, name_anonymous=self.store.name_anonymous))
                case "show":
                    self._show(target)
                case _:
                    if not self.no_commit:
                        self.store.commit_package(package)
        except UciFault as fault:
            return self._fail(fault)
        finally:
            self._unload(package)
        return 0

    def _show(self, target: Target) -> None:
        if not target.complete:
            raise UciNotFoundError("there is no such entry")
        if target.option is not None and target.section is not None:
            section = target.section
            self._print(self._option_line(target.package, section.name, target.option))
        elif target.section is not None:
            self._print(self._section_lines(target.package, target.section, target.section.name))
        else:
            counts: dict[str, int] = {}
            for section in target.package:
                name = section.name
                index = counts.get(section.type, 0)
                counts[section.type] = index + 1
                if section.anonymous and self.extended:
                    name = f"@{section.type}[{index}]"
                self._print(self._section_lines(target.package, section, name))

    def _section_lines(self, package: Package, section: Section, name: str) -> str:
        lines = [f"{package.name}.{name}={section.type}\n"]
        lines.extend(self._option_line(package, name, option) for option in section)
        return "".join(lines)

    def _option_line(self, package: Package, section: str, option: Option) -> str:
        value = self._value(option, quoted=True)
        return f"{package.name}.{section}.{option.name}={value}\n"

    def _value(self, option: Option, *, quoted: bool) -> str:
        if not isinstance(option.value, list):
            return quote(option.value) if quoted else option.value
        return self.delimiter.join(
            quote(item) if quoted or not _BLANKS.isdisjoint(item) else item for item in option.value
        )

    def _print_changes(self, package: Package) -> None:
        for change in package.saved:
            mark, equals = "", "="
            if change.kind is ChangeKind.REMOVE:
                mark = "-"
            elif change.kind is ChangeKind.LIST_ADD:
                equals = "+="
            elif change.kind is ChangeKind.LIST_DEL:
                equals = "-="
            path = f"{mark}{package.name}.{change.section}"
            if change.option is not None:
                path += f".{change.option}"
            value = "" if mark else equals + quote(change.value or "")
            self._print(f"{path}{value}\n")

    # The other commands

    def _add(self, arguments: Sequence[str]) -> int:
        if len(arguments) != 3:
            return SHOW_USAGE
        try:
            target = Target(self._load(arguments[1]))
            section = operations.add_section(target, arguments[2])
            self.store.save(target.package)
        except UciFault as fault:
            self._fail(fault)
            return int(fault.status)
        self._print(section.name + "\n")
        return 0

    def _import(self, arguments: Sequence[str]) -> int:
        if len(arguments) > 2 or (len(arguments) == 1 and self.merge):
            return SHOW_USAGE
        name = arguments[1] if len(arguments) == 2 else None
        existing: Package | None = None
        if self.merge and name is not None:
            try:
                existing = self._load(name)
            except UciFault:
                existing = None
        failed: UciFault | None = None
        try:
            packages = self.store.import_stream(self.input, name, merge_into=existing)
            if existing is not None:
                self.store.save(existing)
                return 0
        except UciFault as fault:
            return self._fail(fault)
        for package in packages:
            try:
                self.store.commit_package(package, overwrite=True)
                failed = None
            except UciFault as fault:
                failed = fault
        return 0 if failed is None else self._fail(failed)

    def _batch(self) -> int:
        self._in_batch = True
        while not self.input.at_end:
            code = self._batch_line()
            if code == _EXIT_BATCH:
                return 0
            if code == SHOW_USAGE:
                self.print_error("Unknown command\n")
            self.loaded.clear()
        self._in_batch = False
        return 0

    def _batch_line(self) -> int:
        """Read one line of commands and carry it out."""
        scanner = self.store.scanner
        if scanner is None or scanner.stream is not self.input:
            scanner = self.store.scanner = Scanner(self.input)
        scanner.next_line()
        arguments: list[str] = []
        try:
            while word := scanner.argument():
                arguments.append(to_text(word))
                if len(arguments) == _MAX_BATCH_ARGUMENTS:
                    self.print_error("Too many arguments\n")
                    return 1
        except UciFault as fault:
            self._fail(fault)
            return 0
        if not arguments:
            return 0
        if arguments[0].lower() == "exit":
            return _EXIT_BATCH
        return self.run(arguments)
