"""The packages of `make ipk`: the same bytes each time, what is in them, and their life in a root.

Where CONTROLONE_OPENWRT_ROOT brings an `opkg`, it installs; otherwise what opkg does is done here:
files, the records that the scripts read, and the scripts in opkg's order.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.packages import build, ipk, modules
from tests.package.scratch import CHECKOUT

SITE = "/usr/lib/python3.11/site-packages/"
OURS = "controlone-ha"
Package = tuple[dict[str, tuple[bytes, int]], dict[str, bytes]]

pytestmark = pytest.mark.package


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The feed, modules as sources, so that any interpreter can build and run them."""
    place = tmp_path_factory.mktemp("feed")
    build.build(
        place, python="3.11", bytecode=False, pypi=build.cache_directory() / "python-sources"
    )
    return place


@pytest.fixture(scope="module")
def packages(feed: Path) -> dict[str, Package]:
    """Every package by name: its files and its control part."""
    return {file.name.partition("_")[0]: ipk.read_ipk(file) for file in sorted(feed.glob("*.ipk"))}


def depends_of(package: Package) -> list[str]:
    found = re.search(rb"^Depends: (.*)$", package[1]["control"], re.M)
    return found[1].decode().split(", ") if found else []


def all_depends(packages: dict[str, Package], name: str) -> set[str]:
    """A package and all of ours that it depends on, directly or not."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        item = waiting.pop()
        if item not in found and item in packages:
            found.add(item)
            waiting += depends_of(packages[item])
    return found


def test_the_same_input_gives_the_same_bytes(
    feed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "a" / "longer" / "path"
    shutil.copytree(CHECKOUT / "package", copy / "package")
    for name in ("scripts", "files", "controlone_ha"):
        shutil.copytree(CHECKOUT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    digests: list[dict[str, bytes]] = []
    for script in (CHECKOUT, copy):
        output = tmp_path / f"feed{len(digests)}"
        command = [
            sys.executable,
            "scripts/packages/build.py",
            output,
            "--only",
            "luci-app-controlone-ha",
            "python-pysipp",
        ]
        subprocess.run(list(map(str, command)), cwd=script, check=True, capture_output=True)
        digests.append({file.name: file.read_bytes() for file in sorted(output.iterdir())})
    assert digests[0] == digests[1]
    assert any(name.endswith(".ipk") for name in digests[0])


def test_G6_every_package_the_product_needs_is_built(packages: dict[str, Package]) -> None:
    assert set(packages) == {
        "controlone-common", "controlone-ha", "controlone-ha-init", "controlone-ha-cli",
        "controlone-server", "controlone-conference", "controlone-console",
        "rpcd-mod-controlone-ha", "luci-app-controlone-ha", "luci-i18n-controlone-ha-pt-br",
        "python3-paramiko", "python3-pymongo", "python3-dnspython", "python3-pysipp",
    }  # fmt: skip


def test_no_file_is_in_two_packages(packages: dict[str, Package]) -> None:
    owners: dict[str, str] = {}
    for name, (files, _control) in packages.items():
        for file in files:
            assert file not in owners, f"{file} is in {name} and in {owners[file]}"
            owners[file] = name


def test_every_file_of_the_overlay_is_in_a_package_with_its_bytes(
    packages: dict[str, Package],
) -> None:
    contents = [files for files, _control in packages.values()]
    for source in sorted((CHECKOUT / "files").rglob("*")):
        name = "/" + source.relative_to(CHECKOUT / "files").as_posix()
        if source.is_file() and not name.startswith("/lib/upgrade/keep.d/"):
            holders = [files[name] for files in contents if name in files]
            assert len(holders) == 1, name
            assert holders[0][0] == source.read_bytes()
            assert bool(holders[0][1] & 0o100) == bool(source.stat().st_mode & 0o100), name


def test_every_module_of_the_product_but_the_lab_is_in_a_package(
    packages: dict[str, Package],
) -> None:
    packed = {file.removeprefix(SITE) for files, _control in packages.values() for file in files}
    for path in (CHECKOUT / "controlone_ha").rglob("*.py"):
        name = path.relative_to(CHECKOUT).as_posix()
        left_out = "/lab/" in name or name.endswith(("config/overlay.py", "config/document.py"))
        assert (name in packed) != left_out, name


def test_what_a_package_imports_is_in_it_or_in_what_it_depends_on(
    packages: dict[str, Package],
) -> None:
    lacking = []
    for name in packages:
        if name.startswith(("python3-", "luci-")):
            continue
        within = {file for item in all_depends(packages, name) for file in packages[item][0]}
        for file, (content, _mode) in packages[name][0].items():
            if file.endswith(".py"):
                for target in imported_at_once(content.decode()):
                    place = SITE + target.replace(".", "/")
                    if f"{place}.py" not in within and f"{place}/__init__.py" not in within:
                        lacking.append(f"{name}: {file.removeprefix(SITE)} imports {target}")
    assert lacking == []


def imported_at_once(source: str) -> Iterator[str]:
    """Modules of the product that a module imports when it is imported itself."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            yield from (item.name for item in node.names if item.name.startswith("controlone_ha"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("controlone_ha."):
            yield str(node.module)


def test_K1_a_console_device_needs_no_paramiko_no_pymongo_and_little_space(
    packages: dict[str, Package],
) -> None:
    names = all_depends(packages, "controlone-console")
    assert names == {"controlone-console", "controlone-common"}
    needed = {word for name in names for word in depends_of(packages[name])}
    assert not needed & {"python3-paramiko", "python3-pymongo", "python3-cryptography"}
    size = sum(len(content) for name in names for content, _mode in packages[name][0].values())
    assert size < 1_000_000


@pytest.mark.parametrize("service", ["ha", "server", "conference", "console"])
def test_settings_are_conffiles_and_private(packages: dict[str, Package], service: str) -> None:
    name = "controlone-ha-init" if service == "ha" else f"controlone-{service}"
    files, control = packages[name]
    assert control["conffiles"] == f"/etc/config/{service}\n".encode()
    assert files[f"/etc/config/{service}"][1] == 0o600


def test_the_index_of_the_feed_is_true(feed: Path) -> None:
    import hashlib

    entries = (feed / "Packages").read_text().strip().split("\n\n")
    assert len(entries) == len(list(feed.glob("*.ipk")))
    for entry in entries:
        fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", entry, re.M))
        content = (feed / fields["Filename"]).read_bytes()
        assert fields["Size"] == str(len(content))
        assert fields["SHA256sum"] == hashlib.sha256(content).hexdigest()
        assert fields["Description"]


def test_the_makefiles_version_is_the_products() -> None:
    from controlone_ha import __version__

    for name in (OURS, "luci-app-controlone-ha"):
        text = (CHECKOUT / "package" / name / "Makefile").read_text()
        assert f"PKG_VERSION:={__version__}\n" in text


def test_what_make_installs_from_a_makefile_is_what_the_package_holds(
    packages: dict[str, Package], tmp_path: Path
) -> None:
    makefile = CHECKOUT / "package" / OURS / "Makefile"
    built = build.evaluate(makefile, tmp_path, python="3.11", bytecode=False, pypi=tmp_path)
    for name, directory in built:
        root = directory / "root"
        installed = {
            "/" + path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()
        }
        assert installed == set(packages[name][0]), name
        title = (directory / "meta" / "DEPENDS").read_text()
        assert ["libc", *title.replace("+", "").split()] == depends_of(packages[name])


def test_modules_go_to_the_targets_python_and_can_be_compiled(tmp_path: Path) -> None:
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    base = CHECKOUT / "controlone_ha"
    modules.install([base / "errors.py"], CHECKOUT, tmp_path / "one", bytecode=True)
    modules.install([base / "errors.py"], CHECKOUT, tmp_path / "two", bytecode=True)
    compiled = [tmp_path / name / "controlone_ha/errors.pyc" for name in ("one", "two")]
    assert compiled[0].read_bytes() == compiled[1].read_bytes()
    assert str(CHECKOUT).encode() not in compiled[0].read_bytes()
    assert build.SDK.exists() and own >= "3.11"
