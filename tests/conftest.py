"""Fixtures that any test may use: the real parts, short temporary directories, free ports.

A missing part fails the test and names the remedy. Nothing is skipped: a test that did not run
proved nothing.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import hypothesis
import pytest

from controlone_ha.lab import parts
from tests import ports

Part = TypeVar("Part")

# The same examples in every run: a failure must be there again when somebody looks at it.
hypothesis.settings.register_profile("house", deadline=None, database=None, derandomize=True)
hypothesis.settings.load_profile("house")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the files of each directory over the whole run: clusters of real nodes load the
    machine most, and three files of them at once would make each other late.
    """
    rooms: dict[Path, dict[Path, None]] = {}
    for item in items:
        rooms.setdefault(item.path.parent, {})[item.path] = None
    place: dict[Path, tuple[float, str]] = {}
    for room in rooms.values():
        for index, file in enumerate(room):
            place[file] = ((index + 0.5) / len(room), str(file))
    items.sort(key=lambda item: place[item.path])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell what failed at the first try: a test that needs two is a fault somewhere."""
    again = terminalreporter.getreports("rerun")
    if again:
        terminalreporter.section("failed at the first try")
        for report in again:
            terminalreporter.line(report.nodeid)
            terminalreporter.line("    " + "\n    ".join(report.longreprtext.splitlines()[-40:]))


def _require(find: Callable[[], Part]) -> Part:
    try:
        return find()
    except parts.MissingPartError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def mongod_path() -> Path:
    """The mongod binary."""
    return _require(parts.mongod_path)


@pytest.fixture(scope="session")
def asterisk() -> parts.Asterisk:
    """An Asterisk: command prefix, module directory, data directory."""
    return _require(parts.asterisk)


@pytest.fixture(scope="session")
def sipp_path() -> Path:
    """The sipp binary."""
    return _require(parts.sipp_path)


@pytest.fixture(scope="session")
def sshd_path() -> Path:
    """OpenSSH's sshd, ready to be started."""
    path = _require(parts.sshd_path)
    parts.prepare_sshd()
    return path


@pytest.fixture(scope="session")
def dropbear_path() -> Path:
    """The dropbear server."""
    return _require(parts.dropbear_path)


@pytest.fixture(scope="session")
def dropbearkey_path() -> Path:
    """dropbear's key tool."""
    return _require(parts.dropbearkey_path)


@pytest.fixture(scope="session")
def busybox_path() -> Path:
    """BusyBox, for its ash."""
    return _require(parts.busybox_path)


@pytest.fixture(scope="session")
def root() -> None:
    """For tests that make namespaces: fails when they are not run as root."""
    if os.geteuid() != 0:
        pytest.fail("this test makes network namespaces: run it as root", pytrace=False)


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """A directory of this test alone, gone afterwards; its path is short enough for Unix sockets.

    Anybody may pass through it, so that a part that runs as another user can reach what it owns.
    """
    path = Path(tempfile.mkdtemp(prefix="c1-", dir="/tmp"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def free_port() -> ports.PortAllocator:
    """Call it for a port of 127.0.0.1 that is free for TCP and UDP: `port = free_port()`."""
    return ports.free_port
