"""The files behind the packages: a configuration directory and the staged changes beside it.

Theory of operation. ``/etc/config/NAME`` holds a package; ``/tmp/.uci/NAME`` holds the changes
staged to it. Loading a package reads the first and replays the second. Changing it appends to the
second. A commit locks the first, reads both again (others may have changed them), writes the
result beside the first, renames it over it and empties the second, so that the `uci` command and
this module can work on the same directories at the same time.

A commit here differs from libuci's in what happens when it is cut short or raced, not in what it
leaves: the staged changes are emptied after the rename, under their lock, instead of before the
write; the lock of the file covers the rename; owner and mode stay; the directory is synced.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from controlone_ha.uci import files, operations
from controlone_ha.uci.delta import apply_delta, format_changes, without
from controlone_ha.uci.errors import (
    UciFault,
    UciInvalidError,
    UciIoError,
    UciNotFoundError,
)
from controlone_ha.uci.model import Change, Package, check_value
from controlone_ha.uci.names import (
    is_name,
    is_package_name,
    is_plain_type,
    is_request_value,
    to_bytes,
)
from controlone_ha.uci.parser import Import
from controlone_ha.uci.reference import Reference, Target, resolve
from controlone_ha.uci.scanner import Scanner, Stream
from controlone_ha.uci.writer import dumps, export_text

CONFIG_DIR = "/etc/config"
SAVE_DIR = "/tmp/.uci"
OVERRIDE_DIR = "/var/run/uci"


class Store:
    """Packages of one configuration directory, with the changes staged in one save directory.

    ``override_dir``: a file of the same name there wins over the configuration directory (libuci's
    ``-C``). ``delta_dirs`` are read for staged changes in this order; ``save_dir`` is written to
    and is the last of them. Not ``strict``: lines that cannot be read are given to ``report`` and
    passed over. ``scanner`` is the place in the text that could not be read, None if all went well.
    """

    def __init__(
        self,
        config_dir: str | os.PathLike[str] = CONFIG_DIR,
        save_dir: str | os.PathLike[str] = SAVE_DIR,
        *,
        override_dir: str | None = OVERRIDE_DIR,
        strict: bool = True,
        report: Callable[[UciFault], None] | None = None,
    ) -> None:
        self.config_dir = os.fspath(config_dir)
        self.save_dir = os.fspath(save_dir)
        self.override_dir = override_dir
        self.delta_dirs = [self.save_dir]
        self.strict = strict
        self.report = report
        self.name_anonymous = False
        self.scanner: Scanner | None = None

    # What other rooms use

    def names(self) -> list[str]:
        """Return the names of all packages, sorted.

        Raises UciNotFoundError if the configuration directory is missing or empty.
        """
        try:
            found = [name for name in os.listdir(self.config_dir) if not name.startswith(".")]
        except OSError as error:
            raise UciNotFoundError(f"{self.config_dir}: {error.strerror}") from None
        if not found:
            raise UciNotFoundError(f"{self.config_dir}: no configuration files")
        return [
            name
            for name in sorted(found, key=os.fsencode)
            if "." not in name
            and is_package_name(name)
            and not os.path.isdir(f"{self.config_dir}/{name}")
        ]

    def package(self, name: str) -> Package:
        """Return a package with its staged changes.

        Raises UciNotFoundError, UciSyntaxError or UciIoError.
        """
        return self.load(name)

    def get(self, package: str, section: str, option: str) -> str | None:
        """Return an option as a string, None if it or its section is missing.

        ``section`` may be ``@type[index]``.
        """
        target = self._target(package, section, option)
        if target.option is None or target.section is None:
            return None
        return target.section.get(option)

    def set(self, package: str, section: str, option: str, value: str | Sequence[str]) -> None:
        """Stage an option, or with a sequence a whole list; nothing in it removes the option.

        Raises UciInvalidError if the section does not exist or a value holds control characters
        other than tab, LF and CR.
        """
        items = [value] if isinstance(value, str) else list(value)
        for item in items:
            _check_value(item)
        target = self._target(package, section, option)
        if target.section is None:
            raise UciInvalidError(f"{package}.{section}: there is no such section")
        if isinstance(value, str):
            target.value = value
            operations.set_value(target)
        else:
            self._set_list(target, items)
        self.save(target.package)

    def set_section(self, package: str, section: str, type: str) -> None:
        """Stage a named section of ``type``, or change the type of an existing one."""
        if not is_plain_type(type):
            raise UciInvalidError(f"{package}.{section}: got section type {type!r}")
        target = self._target(package, section)
        if target.section is None and not is_name(section):
            raise UciInvalidError(f"{package}.{section}: no name for a new section")
        target.value = type
        operations.set_value(target)
        self.save(target.package)

    def add(self, package: str, type: str) -> str:
        """Stage a new anonymous section and return its ``cfg…`` name."""
        if not is_plain_type(type):
            raise UciInvalidError(f"{package}: got section type {type!r}")
        loaded = self.load(package)
        section = operations.add_section(Target(loaded), type)
        self.save(loaded)
        return section.name

    def add_list(self, package: str, section: str, option: str, item: str) -> None:
        """Stage one more item of a list. Raises UciInvalidError if the section is missing."""
        self._stage(package, section, option, item, operations.add_list)

    def del_list(self, package: str, section: str, option: str, item: str) -> None:
        """Stage the removal of all items equal to ``item``."""
        self._stage(package, section, option, item, operations.del_list)

    def delete(self, package: str, section: str, option: str | None = None) -> None:
        """Stage the removal of a section or option. Raises UciNotFoundError if it is missing."""
        target = self._target(package, section, option)
        operations.delete(target)
        self.save(target.package)

    def rename(self, package: str, section: str, option: str | None, name: str) -> None:
        """Stage a new name for a section or option. Raises UciNotFoundError if it is missing."""
        if not is_name(name):
            raise UciInvalidError(f"{package}.{section}: got name {name!r}")
        self._stage(package, section, option, name, operations.rename)

    def reorder(self, package: str, section: str, position: int) -> None:
        """Stage a new position of a section, counted from 0."""
        target = self._target(package, section)
        operations.reorder(target, position)
        self.save(target.package)

    def changes(self, package: str) -> list[Change]:
        """Return what is staged for a package, oldest first."""
        return self.load(package).saved

    def revert(self, package: str, section: str | None = None, option: str | None = None) -> None:
        """Drop what is staged for a package, a section or an option."""
        self.revert_staged(self.load(package), section, option)

    def commit(self, package: str) -> Package:
        """Put the staged changes into the file and return the package as it now is.

        Raises UciSyntaxError or UciIoError; file and staged changes then stay as they were.
        """
        return self.commit_package(self.load(package))

    def write(self, package: Package) -> None:
        """Make ``package`` the content of its file, whatever that held; nothing is staged."""
        package.path = package.path or self.path(package.name)
        self.commit_package(package, overwrite=True)

    def path(self, name: str) -> str:
        """Return where the file of package ``name`` lies. Raises UciInvalidError."""
        if not is_package_name(name):
            raise UciInvalidError(f"got package name {name!r}, expected printable ASCII")
        return f"{self.config_dir}/{name}"

    # What the command is made of

    def load(self, name: str, *, loaded: Sequence[Package] = ()) -> Package:
        """Load a package by name or, with a name starting in ``/`` or ``./``, from that file.

        Such a file has no staged changes. Raises UciNotFoundError, UciSyntaxError, UciIoError.
        """
        override = False
        if name.startswith((".", "/")):
            if name.startswith(".") and not name.startswith("./"):
                raise UciNotFoundError(f"{name}: no such package")
            path, tracked = name, False
            name = name[name.rindex("/") + 1 :]
        else:
            path, tracked = self.path(name), True
            if self.override_dir is not None:
                other = f"{self.override_dir}/{name}"
                if os.path.exists(other):
                    path, override = other, True
        package = self._read(files.read_shared(path), name, path, loaded)
        package.override, package.tracked = override, tracked
        if tracked:
            for directory in self.delta_dirs:
                self._replay(package, f"{directory}/{name}")
        return package

    def import_stream(
        self, stream: Stream, name: str | None, *, merge_into: Package | None = None
    ) -> list[Package]:
        """Read packages from ``stream``: one called ``name``, or those it names itself."""
        run = Import(
            stream,
            name=name,
            single=name is not None,
            merge_into=merge_into,
            strict=self.strict,
            report=self.report,
        )
        self.scanner = run.scanner
        packages = run.run()
        self.scanner = None
        return packages

    def save(self, package: Package) -> None:
        """Stage the pending changes of ``package``; a package without staging is written."""
        if not package.tracked:
            self.commit_package(package)
            return
        if not package.pending:
            return
        files.make_directory(self.save_dir, like=self.config_dir)
        path = f"{self.save_dir}/{package.name}"
        mode = files.mode_of(f"{self.config_dir}/{package.name}")
        with files.locked(path, create_mode=mode) as descriptor:
            files.append(descriptor, format_changes(package.name, package.pending))
        package.pending.clear()

    def commit_package(self, package: Package, *, overwrite: bool = False) -> Package:
        """Write ``package`` with what is staged; see ``commit``. Nothing staged: nothing written.

        ``overwrite`` writes it as it is, without a look at the file.
        """
        if package.path is None and overwrite:
            package.path = self.path(package.name)
        path = package.path
        if path is None:
            raise UciInvalidError(f"{package.name}: there is no file to write to")
        mode = files.mode_of(f"{self.config_dir}/{os.path.basename(path)}")
        with ExitStack() as stack:
            descriptor = stack.enter_context(files.locked(path, create_mode=mode))
            staged: int | None = None
            if package.tracked and not overwrite:
                self.save(package)
                override = package.override
                data = files.read_descriptor(descriptor)
                package = self._read(data, package.name, path, ())
                package.override, package.tracked = override, True
                applied, staged = self._replay_to_commit(stack, package)
                if not applied:
                    return package
            directory = self.override_dir if package.override else self.config_dir
            if directory is None or not os.path.isdir(directory):
                # libuci writes there first, also what belongs elsewhere.
                raise UciIoError(f"{directory}: not a directory")
            text = export_text(package, header=False, name_anonymous=self.name_anonymous)
            files.replace(path, to_bytes(text))
            if staged is not None:
                files.overwrite(staged, b"")
            package.saved.clear()
        return package

    def revert_staged(self, package: Package, section: str | None, option: str | None) -> None:
        """Drop what is staged for a loaded package. Raises UciInvalidError without staging."""
        if not package.tracked:
            raise UciInvalidError(f"{package.path}: nothing is staged for such a file")
        self.save(package)
        self.scanner = None
        path = f"{self.save_dir}/{package.name}"
        if not os.path.exists(path):
            return
        with files.locked(path) as descriptor:
            data = files.read_descriptor(descriptor)
            kept = without(data, package.name, section, option)
            if kept is not None:
                files.overwrite(descriptor, kept)

    def _read(self, data: bytes, name: str, path: str, loaded: Sequence[Package]) -> Package:
        """Read the text of a file as the package ``name``."""
        run = Import(
            Stream(data),
            name=name,
            loaded=[one.name for one in loaded],
            strict=self.strict,
            report=self.report,
            file=path,
        )
        self.scanner = run.scanner
        package = run.run()[0]
        self.scanner = None
        package.path = path
        return package

    def _replay(self, package: Package, path: str) -> int:
        try:
            data = files.read_shared(path)
        except (UciNotFoundError, UciIoError):
            return 0
        return apply_delta(package, data)

    def _replay_to_commit(self, stack: ExitStack, package: Package) -> tuple[int, int | None]:
        """Replay all staged changes; return how many, and the locked file to empty afterwards."""
        applied, staged = 0, None
        for directory in self.delta_dirs:
            path = f"{directory}/{package.name}"
            if directory == self.save_dir and os.path.isfile(path):
                try:
                    staged = stack.enter_context(files.locked(path))
                except UciIoError:
                    # Not ours to write: what can be read still counts, as with libuci.
                    pass
            if staged is not None and directory == self.save_dir:
                applied += apply_delta(package, files.read_descriptor(staged))
            else:
                applied += self._replay(package, path)
        return applied, staged

    def _target(self, package: str, section: str, option: str | None = None) -> Target:
        if option is not None and not is_name(option):
            raise UciInvalidError(f"{package}.{section}: got option name {option!r}")
        loaded = self.load(package)
        extended = not is_name(section)
        return resolve(loaded, Reference(loaded.name, section, option, extended=extended))

    def _stage(
        self,
        package: str,
        section: str,
        option: str | None,
        value: str,
        operation: Callable[[Target], None],
    ) -> None:
        _check_value(value)
        target = self._target(package, section, option)
        target.value = value
        operation(target)
        self.save(target.package)

    def _set_list(self, target: Target, items: list[str]) -> None:
        if target.option is not None:
            if target.option.value == items:
                return
            operations.delete(target)
        for item in items:
            target.value = item
            operations.add_list(target)


def load(path: str | os.PathLike[str]) -> Package:
    """Read one file as a package, without anything staged.

    Raises UciNotFoundError, UciIoError or UciSyntaxError (``path:line: what``).
    """
    text = os.fspath(path)
    run = Import(Stream(files.read_shared(text)), name=os.path.basename(text), file=text)
    package = run.run()[0]
    package.path = text
    return package


def save(path: str | os.PathLike[str], package: Package) -> None:
    """Make ``package`` the content of ``path``: atomically, under its lock, mode and owner kept."""
    text = os.fspath(path)
    with files.locked(text, create_mode=files.FILE_MODE):
        files.replace(text, dumps(package))


def _check_value(value: str) -> None:
    if not is_request_value(value):
        raise UciInvalidError("a value may hold no control characters but tab, LF and CR")
    check_value(value)
