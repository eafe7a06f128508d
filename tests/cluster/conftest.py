"""The standard cluster that most cluster tests share, and how it is brought back to peace.

A test that asks for ``lab`` gets figure 1, calm: what the test before it broke is mended first. A
cluster that does not become calm fails the test that finds it so, and the next one gets a new
cluster. Tests that need other options make a lab of their own (``support.paired_lab``).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from controlone_ha.lab import parts
from controlone_ha.lab.cluster import Lab
from tests.cluster.support import LIMIT, PairedLab, calm, describe, standard_nodes

HERE = Path(__file__).parent


class _Keeper:
    """Holds the one standard cluster from the first test that wants it to the last one here."""

    def __init__(self) -> None:
        self._lab: Lab | None = None

    def calm_lab(self) -> Lab:
        if self._lab is None:
            self._lab = PairedLab(standard_nodes()).up()
        try:
            calm(self._lab, limit=2 * LIMIT)
        except BaseException:
            self.end()
            raise
        return self._lab

    def end(self) -> None:
        lab, self._lab = self._lab, None
        if lab is not None:
            lab.down()


_KEEPER = _Keeper()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this directory, and give it time: real nodes boot and wait."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.cluster)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(300))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Take the standard cluster down after the last test of this directory."""
    if nextitem is None or not nextitem.path.is_relative_to(HERE):
        _KEEPER.end()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the nodes say to the report of a failure, unless its text has it already."""
    report = yield
    lab = getattr(item, "funcargs", {}).get("lab")
    if report.failed and isinstance(lab, Lab) and "\n---" not in str(report.longrepr):
        report.sections.append(("the cluster at that moment", describe(lab)))
    return report


@pytest.fixture
def lab(root: None, sshd_path: Path, asterisk: parts.Asterisk) -> Lab:
    """Figure 1 of the specification, calm: m1, s1 | m2, s2, p1."""
    return _KEEPER.calm_lab()


@pytest.fixture(scope="module")
def real_parts(root: None, sshd_path: Path, asterisk: parts.Asterisk) -> Iterator[None]:
    """What a lab of a module's own needs on this machine."""
    yield
