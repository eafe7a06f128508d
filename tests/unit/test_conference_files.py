"""The texts of the node's Asterisk configuration, and how its program is found. No process."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from controlone_ha.conference.asterisk import AsteriskProgram, command, find_program, launch_command
from controlone_ha.conference.asterisk_files import EngineSettings, file_texts
from controlone_ha.errors import ConfigError, ServiceError
from controlone_ha.paths import node_paths


def settings(bind: str = "", media_address: str = "") -> EngineSettings:
    return EngineSettings(
        bind=bind,
        port=5060,
        media_address=media_address,
        ari_port=8088,
        ari_password="a-password",
        directory=Path("/run/asterisk"),
        module_directory=Path("/modules"),
        data_directory=Path("/data"),
    )


def texts(**more: str) -> dict[str, str]:
    return dict(file_texts(settings(**more), "[modules]\nautoload=no\n"))


def test_everything_asterisk_writes_lies_in_its_own_directory() -> None:
    lines = texts()["asterisk.conf"].splitlines()
    places = dict(line.split(" => ") for line in lines if " => " in line)
    assert places.pop("astmoddir") == "/modules"
    assert places.pop("astdatadir") == "/data"
    assert len(places) == 9
    assert all(place.startswith("/run/asterisk/") for place in places.values())


@pytest.mark.parametrize(
    ("bind", "written"),
    [
        ("", "bind=0.0.0.0:5060"),
        ("10.0.0.1", "bind=10.0.0.1:5060"),
        ("fd00::1", "bind=[fd00::1]:5060"),
    ],
)
def test_sip_listens_where_the_settings_say_over_udp_and_tcp(bind: str, written: str) -> None:
    pjsip = texts(bind=bind)["pjsip.conf"]
    assert pjsip.count(written + "\n") == 2
    assert "protocol=udp" in pjsip
    assert "protocol=tcp" in pjsip


def test_media_leaves_from_its_address_or_from_that_of_sip() -> None:
    assert (
        "media_address=10.0.0.9\n" in texts(bind="10.0.0.1", media_address="10.0.0.9")["pjsip.conf"]
    )
    assert "media_address=10.0.0.1\n" in texts(bind="10.0.0.1")["pjsip.conf"]
    assert "media_address" not in texts()["pjsip.conf"]


def test_the_control_interface_is_on_loopback_only_and_its_password_in_one_file() -> None:
    files = texts()
    assert "bindaddr=127.0.0.1\n" in files["http.conf"]
    assert [name for name, text in files.items() if "a-password" in text] == ["ari.conf"]


def test_a_burst_on_the_control_interface_drops_no_calls_and_lines_are_not_reinvited() -> None:
    pjsip = texts()["pjsip.conf"]
    assert "taskprocessor_overload_trigger=pjsip_only\n" in pjsip
    assert "send_connected_line=no\n" in pjsip


@pytest.mark.parametrize("option", ["bind", "media_address"])
def test_a_name_instead_of_an_address_is_refused_because_nothing_is_looked_up(option: str) -> None:
    with pytest.raises(ConfigError, match=rf"conference\.default\.{option}: got 'sip\.lan'"):
        settings(**{option: "sip.lan"})


def _make_program(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize(
    "modules", ["lib/asterisk/modules", "lib/x86_64-linux-gnu/asterisk/modules"]
)
def test_an_installed_asterisk_is_found_with_its_modules(tmp_path: Path, modules: str) -> None:
    _make_program(tmp_path / "usr/sbin/asterisk")
    (tmp_path / "usr" / modules).mkdir(parents=True)
    program = find_program({"PATH": str(tmp_path / "usr/sbin")})
    assert program.command == (str(tmp_path / "usr/sbin/asterisk"),)
    assert program.module_directory == tmp_path / "usr" / modules
    assert program.data_directory == Path("/usr/share/asterisk")


def test_a_program_without_modules_is_refused(tmp_path: Path) -> None:
    _make_program(tmp_path / "usr/sbin/asterisk")
    with pytest.raises(ServiceError, match="no folder of modules"):
        find_program({"PATH": str(tmp_path / "usr/sbin")})


def test_another_process_finds_the_same_program_by_the_environment() -> None:
    program = AsteriskProgram(
        command=("/lib/ld.so", "--library-path", "/a b:/c", "/usr/sbin/asterisk"),
        module_directory=Path("/modules"),
        data_directory=Path("/data"),
    )
    assert find_program(program.environment()) == program


def test_what_is_run_is_asterisk_in_the_foreground_on_our_configuration() -> None:
    paths = node_paths({"CONTROLONE_RUN_DIR": "/run/c1"})
    program = AsteriskProgram(
        command=("/usr/sbin/asterisk",), module_directory=Path("/m"), data_directory=Path("/d")
    )
    words = command(paths, program)
    assert words[:4] == ["/usr/sbin/asterisk", "-f", "-C", "/run/c1/asterisk/etc/asterisk.conf"]
    assert launch_command(paths)[:2] == ["/bin/sh", "-c"]
