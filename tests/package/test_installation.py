"""The life of the packages in a root: installed, used, upgraded, removed, installed again."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.packages import build, ipk
from tests.package.opkg import Installer
from tests.package.scratch import ScratchRoot, real_root

pytestmark = pytest.mark.package

SERVER = (
    "controlone-common", "controlone-ha", "controlone-ha-cli", "controlone-server",
    "controlone-ha-init", "controlone-conference", "rpcd-mod-controlone-ha",
    "luci-app-controlone-ha",
)  # fmt: skip
CONSOLE = ("controlone-common", "controlone-console")
PLACES = (
    "etc/config", "etc/init.d", "etc/rc.d", "etc/uci-defaults", "usr/share/controlone",
    "usr/lib/python3.11/site-packages/controlone_ha", "usr/share/luci/menu.d", "usr/share/rpcd",
    "usr/libexec/rpcd", "www", "lib/upgrade/keep.d",
)  # fmt: skip
INSTALLED = {"PYTHONPATH": "/usr/lib/python3.11/site-packages"}


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The packages by name, modules as sources."""
    names = frozenset(("controlone-ha", "luci-app-controlone-ha"))
    place = tmp_path_factory.mktemp("feed")
    files = build.build(place, python="3.11", bytecode=False, pypi=place, only=names)
    return {file.name.partition("_")[0]: file for file in files}


@pytest.fixture(scope="module")
def whole_feed(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Every package, in an order in which each comes after what it depends on."""
    place = tmp_path_factory.mktemp("whole")
    pypi = build.cache_directory() / "python-sources"
    files = build.build(place, python="3.11", bytecode=False, pypi=pypi)
    names = {file.name.partition("_")[0]: file for file in files}
    ordered = [name for name in names if name.startswith("python3-")]
    ordered += [*SERVER, "controlone-console", "luci-i18n-controlone-ha-pt-br"]
    assert sorted(ordered) == sorted(names)
    return [names[name] for name in ordered]


@pytest.fixture
def root() -> Iterator[ScratchRoot]:
    made = ScratchRoot(real_root())
    if not made.is_real:
        made.put("usr/bin/uci", b'#!/bin/sh\n[ "$3" = ha.default ] && echo ha\n', 0o755)
    made.put("etc/init.d/rpcd", b'#!/bin/sh\nlogger -p daemon.info "rpcd $1"\n', 0o755)
    try:
        yield made
    finally:
        made.close()


def ours(root: ScratchRoot) -> set[str]:
    """Every file of the product in the root."""
    found = set()
    for place in PLACES:
        base = root.path / place
        found |= {
            f"/{place}/{path.relative_to(base)}" for path in base.rglob("*") if not path.is_dir()
        }
    return found - {"/etc/init.d/rpcd"}


def snapshot(root: ScratchRoot) -> set[str]:
    """Every file below the places where packages put theirs, opkg's own records included."""
    places = ("etc", "usr/sbin", "usr/share", "usr/libexec", "usr/lib/opkg", "lib/upgrade", "www")
    found = set()
    for place in (*places, "usr/lib/python3.11", "usr/lib/lua"):
        for base, _directories, names in os.walk(root.path / place):
            found |= {f"/{Path(base).relative_to(root.path)}/{name}" for name in names}
    return {name for name in found if "__pycache__" not in name}


@pytest.mark.slow
def test_G6_every_package_is_installed_upgraded_removed_and_installed_again(
    root: ScratchRoot, whole_feed: list[Path]
) -> None:
    installer = Installer(root)
    installer.assume(whole_feed)
    before = snapshot(root)
    contents = {file.name.partition("_")[0]: ipk.read_ipk(file) for file in whole_feed}
    conffiles = {
        place: name
        for name, (_files, control) in contents.items()
        for place in control.get("conffiles", b"").decode().split()
    }
    assert len(conffiles) == 4

    def links() -> list[str]:
        return sorted(link.name for link in (root.path / "etc/rc.d").iterdir())

    def all_there() -> None:
        for files, _control in contents.values():
            for place, (content, mode) in files.items():
                file = root.path / place[1:]
                if place.startswith("/etc/uci-defaults/"):
                    assert not file.exists()  # has run, and is gone
                elif place not in conffiles:
                    assert file.read_bytes() == content, place
                    assert bool(file.stat().st_mode & 0o100) == bool(mode & 0o100), place

    installer.install(*whole_feed)
    all_there()
    enabled = links()
    assert enabled == [
        "K05ha", "K10console", "K90conference", "K90server",
        "S94conference", "S94server", "S95console", "S95ha",
    ]  # fmt: skip

    # What nobody has touched goes without a trace, but for the keys of the node (keep.d says so);
    # the first start may have made the section `ha.default`.
    names = [file.name.partition("_")[0] for file in whole_feed]
    installer.remove(*reversed(names))
    left = {name for name in snapshot(root) - before if not name.startswith("/etc/controlone/")}
    assert left <= {"/etc/config/ha"}
    installer.install(*whole_feed)

    for place in conffiles:
        root.put(place, (root.path / place[1:]).read_bytes() + b"# edited here\n", 0o600)
    edited = {place: (root.path / place[1:]).read_bytes() for place in conffiles}
    if not installer.is_real:  # opkg does nothing when the version is the same
        installer.install(*whole_feed)
        all_there()
    assert links() == enabled
    assert {place: (root.path / place[1:]).read_bytes() for place in conffiles} == edited

    installer.remove(*reversed(names))
    left = {name for name in snapshot(root) - before if not name.startswith("/etc/controlone/")}
    assert left <= {*edited, *(f"{place}-opkg" for place in edited)}
    assert {place: (root.path / place[1:]).read_bytes() for place in conffiles} == edited

    installer.install(*whole_feed)
    all_there()
    assert links() == enabled
    assert {place: (root.path / place[1:]).read_bytes() for place in conffiles} == edited


def test_G6_a_server_node_is_installed_used_upgraded_and_removed(
    root: ScratchRoot, feed: dict[str, Path]
) -> None:
    installer = Installer(root)
    installer.assume(feed.values())
    installer.install(*(feed[name] for name in SERVER))
    links = {link.name for link in (root.path / "etc/rc.d").iterdir()}
    assert {"S95ha", "K05ha", "S94server", "S94conference"} <= links
    assert list((root.path / "etc/uci-defaults").iterdir()) == []
    key = (root.path / "etc/controlone/node.key").read_bytes()
    assert (root.path / "etc/config/ha").stat().st_mode & 0o777 == 0o600
    assert all(not item["instances"] for item in root.registered())  # no role yet: nothing runs

    status = root.run(
        sys.executable, "-P", "-c",
        "import controlone_ha, sys; print(controlone_ha.__file__); "
        "from controlone_ha.control.command import main; sys.exit(main(['status', '--json']))",
        env=INSTALLED,
    )  # fmt: skip
    assert status.stdout.startswith("/usr/lib/python3.11/site-packages/controlone_ha/")
    assert '"cause": "absent"' in status.stdout and status.returncode == 3

    # The entries themselves, by ash: what a person and rpcd start.
    version = root.run("/usr/sbin/ha", "version")
    assert version.returncode == 0 and version.stdout.strip(), version.stderr
    assert "status" in json.loads(root.run("/usr/libexec/rpcd/ha", "list").stdout)

    edited = "config ha 'default'\n\toption role 'master'\n\toption secret 'a long secret'\n"
    root.put("etc/config/ha", edited.encode(), 0o600)
    assert root.run("/etc/init.d/ha", "start").returncode == 0
    assert root.registered()[-1]["instances"]
    assert (
        root.run("/etc/init.d/server", "start", env={"CONTROLONE_ORDERED_BY": "ha"}).returncode == 0
    )
    root.forget()
    if installer.is_real:
        for name in SERVER:
            root.put(f"tmp/{feed[name].name}", feed[name].read_bytes())
            done = installer.opkg("--force-reinstall", "install", f"/tmp/{feed[name].name}")
            assert done.returncode == 0, done.stderr
    else:
        installer.install(*(feed[name] for name in SERVER))
        assert root.deleted() == ["server", "ha"]  # the server's own restart, and the daemon's
    assert (root.path / "etc/config/ha").read_text() == edited
    assert (root.path / "etc/controlone/node.key").read_bytes() == key
    assert root.registered()[-1]["instances"] or root.registered()[-2]["instances"]

    installer.remove(*reversed(SERVER))
    left = {item for item in ours(root) if "__pycache__" not in item}
    assert left <= {
        "/etc/config/ha",
        "/etc/config/ha-opkg",
        "/etc/config/server",
        "/etc/config/conference",
    }
    assert (root.path / "etc/config/ha").read_text() == edited

    installer.install(*(feed[name] for name in SERVER))
    assert (root.path / "etc/config/ha").read_text() == edited
    assert (root.path / "etc/controlone/node.key").read_bytes() == key


def test_G5_a_console_device_is_installed_and_its_client_started(
    root: ScratchRoot, feed: dict[str, Path]
) -> None:
    installer = Installer(root)
    installer.assume(feed.values())
    installer.install(*(feed[name] for name in CONSOLE))
    assert all(not item["instances"] for item in root.registered())
    root.put("etc/config/console", b"config console 'default'\n\toption server 'S1,S2,S3'\n")
    assert root.run("/etc/init.d/console", "restart").returncode == 0
    assert root.registered()[-1]["instances"]["instance1"]["command"][-1] == "run"
    code = "from controlone_ha.console.command import main; import sys; sys.exit(main(['version']))"
    version = root.run(sys.executable, "-P", "-S", "-c", code, env=INSTALLED)
    assert version.stdout.strip() and version.returncode == 0, version.stderr
    assert root.run("/usr/sbin/console", "version").stdout == version.stdout
    installer.remove(*reversed(CONSOLE))
    assert {item for item in ours(root) if "__pycache__" not in item} <= {"/etc/config/console"}
