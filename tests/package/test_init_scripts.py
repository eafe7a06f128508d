"""The init scripts as procd meets them: run by BusyBox's ash, their orders recorded."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from controlone_ha.config.overlay import overlay_files
from controlone_ha.config.schema import PACKAGES, SCHEMA, section_types
from controlone_ha.uci import load
from tests.package.scratch import CHECKOUT, ScratchRoot

GOOD = {
    "ha": "config ha 'default'\n\toption role 'master'\n\toption peers '10.71.1.12, 10.71.2.11'\n"
    "\toption secret 'it'\"'\"'s a secret'\n\nconfig peer 's1'\n\toption address '10.71.1.12'\n",
    "console": "config console 'default'\n\toption server '10.71.1.11,10.71.1.12'\n",
    "server": "config server 'default'\n\toption bind '127.0.0.1'\n",
    "conference": "config conference 'default'\n\nconfig gateway 'pstn'\n\toption host '10.0.0.1'\n"
    "\nconfig route 'all'\n\tlist gateways 'pstn'\n",
}
LACKING = "nohup|timeout|stat|hostname|base64|diff|pkill"
"""Programs that OpenWrt 24.10's BusyBox has not."""
ORDERED = {"CONTROLONE_ORDERED_BY": "ha"}
FAKE_HA = '#!/bin/sh\necho "ha $*" >> /tmp/ha-calls\n'

pytestmark = pytest.mark.package


@pytest.fixture
def root(scratch: ScratchRoot) -> ScratchRoot:
    """The root with the overlay and good settings; nothing runs in it."""
    scratch.put_overlay()
    for name, text in GOOD.items():
        scratch.put(f"etc/config/{name}", text.encode(), 0o600)
    scratch.put("usr/sbin/ha", FAKE_HA.encode(), 0o755)
    scratch.forget_all()
    (scratch.path / "tmp/ha-calls").unlink(missing_ok=True)
    return scratch


def service(
    root: ScratchRoot, name: str, action: str, **env: str
) -> subprocess.CompletedProcess[str]:
    done = root.run(f"/etc/init.d/{name}", action, env=env)
    assert "not found" not in done.stderr and "syntax" not in done.stderr, done.stderr
    return done


def instances(root: ScratchRoot) -> dict[str, Any]:
    return dict(root.registered()[-1]["instances"])


def ha_calls(root: ScratchRoot) -> list[str]:
    file = root.path / "tmp/ha-calls"
    return file.read_text().splitlines() if file.exists() else []


def test_the_overlay_is_what_the_schema_makes() -> None:
    for name, text in overlay_files().items():
        committed = CHECKOUT / "files" / name
        assert committed.read_text() == text, (
            f"{committed} is old: python -m controlone_ha.config.overlay files"
        )


def test_every_option_of_the_schema_stands_in_its_file_with_its_default() -> None:
    for row in SCHEMA:
        text = (CHECKOUT / "files/etc/config" / row.package).read_text()
        section = re.split(rf"^#?config {row.section} ", text, flags=re.M)[1]
        lines = section.partition("\n\n")[0] + "\n"
        assert f"option {row.name} '{row.default or ''}'\n" in lines


def test_the_files_as_shipped_are_uci_with_their_sections(tmp_path: Path) -> None:
    for package in PACKAGES:
        shipped = CHECKOUT / "files/etc/config" / package
        whole = tmp_path / package
        whole.write_text(
            re.sub(r"^(\t?)#(config|option) ", r"\1\2 ", shipped.read_text(), flags=re.M)
        )
        assert {item.type for item in load(shipped)} <= set(section_types(package))
        assert {item.type for item in load(whole)} == set(section_types(package))


@pytest.mark.parametrize("name", PACKAGES)
def test_a_service_is_respawned_for_ever_and_writes_to_the_log(
    root: ScratchRoot, name: str
) -> None:
    done = service(root, name, "start", **ORDERED)
    assert done.returncode == 0, done.stderr
    for instance in instances(root).values():
        assert instance["respawn"] == ["3600", "1", "0"]
        assert instance["stdout"] in (True, 1) and instance["stderr"] in (True, 1)
        assert instance["command"][1:3] == ["-P", "-m"]


@pytest.mark.parametrize(
    ("name", "packages"),
    [
        ("ha", ["ha", "conference"]),
        ("server", ["server"]),
        ("conference", ["conference"]),
        ("console", ["console"]),
    ],
)
def test_a_service_is_reloaded_when_its_settings_change(
    root: ScratchRoot, name: str, packages: list[str]
) -> None:
    service(root, name, "start", **ORDERED)
    triggers = [item for item in root.registered()[-1]["triggers"] if item]
    assert [item[0] for item in triggers] == ["config.change"] * len(packages)
    found = [(item[1][1][2], item[1][2][1:]) for item in triggers]
    assert found == [(package, [f"/etc/init.d/{name}", "reload"]) for package in packages]


@pytest.mark.parametrize("name", ["ha", "console"])
def test_a_daemon_that_can_reload_is_signalled_and_not_restarted(
    root: ScratchRoot, name: str
) -> None:
    service(root, name, "start")
    (instance,) = instances(root).values()
    assert instance["reload_signal"] == 1
    assert f"/etc/config/{name}" in instance["file"]


def test_no_change_of_settings_restarts_asterisk(root: ScratchRoot) -> None:
    service(root, "conference", "start", **ORDERED)
    found = instances(root)
    assert list(found) == ["asterisk", "controller"]
    assert "file" not in found["asterisk"] and "netdev" not in found["asterisk"]
    assert found["controller"]["reload_signal"] == 1


def test_the_server_is_bound_to_the_device_of_its_address(root: ScratchRoot) -> None:
    service(root, "server", "start", **ORDERED)
    assert instances(root)["instance1"]["netdev"] == ["lo"]


@pytest.mark.parametrize("name", ["server", "conference"])
@pytest.mark.parametrize("action", ["boot", "start", "restart", "reload"])
def test_only_ha_starts_a_service_that_does_not_run(
    root: ScratchRoot, name: str, action: str
) -> None:
    assert service(root, name, action).returncode == 0
    assert instances(root) == {}


@pytest.mark.parametrize("name", ["server", "conference"])
def test_a_person_may_restart_what_runs(root: ScratchRoot, name: str) -> None:
    service(root, name, "start", **ORDERED)
    root.forget()
    assert service(root, name, "restart").returncode == 0
    assert root.deleted() == [name]
    assert instances(root)


@pytest.mark.parametrize("name", PACKAGES)
@pytest.mark.parametrize("action", ["start", "reload", "boot"])
def test_starting_what_runs_registers_the_same_again(
    root: ScratchRoot, name: str, action: str
) -> None:
    service(root, name, "start", **ORDERED)
    service(root, name, action)
    first, second = root.registered()
    assert first == second and first["instances"]


@pytest.mark.parametrize("name", ["server", "conference"])
def test_without_ha_a_service_starts_as_any_other(root: ScratchRoot, name: str) -> None:
    text = GOOD["ha"].replace("\toption role", "\toption enabled '0'\n\toption role")
    root.put("etc/config/ha", text.encode())
    service(root, name, "start")
    assert instances(root)


@pytest.mark.parametrize("name", ["server", "conference"])
def test_an_upgrade_stops_no_service(root: ScratchRoot, name: str) -> None:
    service(root, name, "start", **ORDERED)
    assert service(root, name, "stop", PKG_UPGRADE="1").returncode == 0
    assert root.deleted() == []


def test_G1_restarting_ha_stops_nothing_but_the_daemon_and_leaves_nobody(root: ScratchRoot) -> None:
    for name in ("ha", "server", "conference"):
        service(root, name, "start", **ORDERED)
    root.forget()
    assert service(root, "ha", "restart").returncode == 0
    assert root.deleted() == ["ha"]
    assert [item["name"] for item in root.registered()] == ["ha"]
    assert ha_calls(root) == []


@pytest.mark.parametrize("action", ["stop", "shutdown"])
def test_stopping_ha_and_shutting_down_leave_first_and_once(root: ScratchRoot, action: str) -> None:
    service(root, "ha", "start")
    root.forget()
    service(root, "ha", action)
    assert ha_calls(root) == ["ha help leave", "ha leave"]
    assert root.deleted() == ["ha"]


def test_an_upgrade_of_ha_does_not_leave(root: ScratchRoot) -> None:
    service(root, "ha", "start")
    service(root, "ha", "stop", PKG_UPGRADE="1")
    assert ha_calls(root) == []
    assert root.deleted() == ["ha"]


def test_switched_off_ha_runs_no_daemon(root: ScratchRoot) -> None:
    root.put(
        "etc/config/ha",
        GOOD["ha"].replace("\toption role", "\toption enabled '0'\n\toption role").encode(),
    )
    assert service(root, "ha", "start").returncode == 0
    assert instances(root) == {}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("'master'", "'mestre'", "role: got 'mestre', expected master, slave or passive"),
        ("\toption role 'master'\n", "", "ha.default.role: missing, expected master"),
        ("option role", "option interval '0.1'\n\toption role", "ha.default.interval: got '0.1'"),
        ("option address '10.71.1.12'", "option monitor 'x'", "ha.s1.monitor: got 'x', expected"),
    ],
)
def test_wrong_settings_are_refused_with_the_schemas_words(
    root: ScratchRoot, old: str, new: str, message: str
) -> None:
    root.put("etc/config/ha", GOOD["ha"].replace(old, new).encode())
    done = service(root, "ha", "start")
    assert message in done.stderr
    assert any(message in " ".join(words) for words in root.recorded("logger"))
    assert instances(root) == {}


@pytest.mark.parametrize("name", PACKAGES)
def test_a_running_daemon_survives_wrong_settings(root: ScratchRoot, name: str) -> None:
    service(root, name, "start", **ORDERED)
    text = f"config {name} 'default'\n\toption timeout 'x'\n\toption port 'x'\n"
    root.put(f"etc/config/{name}", text.encode())
    root.forget()
    assert service(root, name, "reload").returncode == 1
    assert root.registered() == []
    assert service(root, name, "restart").returncode == 1
    assert root.deleted() == []


def test_no_script_needs_what_busybox_of_a_device_lacks() -> None:
    scripts = [
        path
        for path in (CHECKOUT / "files").rglob("*")
        if path.is_file() and path.read_bytes()[:60].startswith((b"#!/bin/sh", b"# shellcheck"))
    ]
    assert len(scripts) > 10
    for path in scripts:
        text = re.sub(r"^\s*#.*", "", path.read_text(), flags=re.M)
        for found in re.finditer(rf"(?:^|[;&|`(]|\bif |\bthen )\s*({LACKING})\b", text, re.M):
            raise AssertionError(f"{path.name}: {found[1]}")
        assert not re.search(r"\bsleep [0-9]*\.|-delete\b|\[\[ |\blocal \w+=\(", text), path.name


def test_the_order_at_boot_and_shutdown_is_ha_after_and_before_its_services(
    root: ScratchRoot,
) -> None:
    for name in PACKAGES:
        service(root, name, "enable")
    links = sorted(link.name for link in (root.path / "etc/rc.d").iterdir())
    assert links == [
        "K05ha", "K10console", "K90conference", "K90server",
        "S94conference", "S94server", "S95console", "S95ha",
    ]  # fmt: skip


def test_X1_the_keys_are_made_once_and_the_section_is_there(root: ScratchRoot) -> None:
    if not root.is_real:
        root.put("usr/bin/uci", b'#!/bin/sh\n[ "$3" = ha.default ] && echo ha\n', 0o755)
    script = "( cd /etc/uci-defaults && . ./80-controlone-ha )"
    assert root.run(script=script).returncode == 0
    key = root.path / "etc/controlone/node.key"
    first = key.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600
    before = (root.path / "etc/config/ha").read_bytes()
    assert root.run(script=script).returncode == 0
    assert key.read_bytes() == first
    assert (root.path / "etc/config/ha").read_bytes() == before
