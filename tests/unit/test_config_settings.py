"""The settings layer: typed values, errors that say file, line, option, got and expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlone_ha.config.console import load_console
from controlone_ha.config.document import document
from controlone_ha.config.schema import PACKAGES, SCHEMA, Kind, OptionRow, Scope
from controlone_ha.config.settings import (
    load_conference,
    load_ha,
    load_server,
)
from controlone_ha.config.validate import default_of, expectation
from controlone_ha.errors import ConfigError, UciError

SEED = """\
config ha 'default'
	option role 'master'
	option peers 'PEER1,PEER2, PEER3'
	option secret '123456'
"""


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    return tmp_path


def write(config_dir: Path, name: str, text: str) -> None:
    (config_dir / name).write_text(text)


def test_G1_the_three_settings_of_the_specification_are_enough(config_dir: Path) -> None:
    write(config_dir, "ha", SEED)
    settings = load_ha(config_dir)
    assert (settings.role, settings.secret) == ("master", "123456")
    assert [peer.name for peer in settings.peers] == ["PEER1", "PEER2", "PEER3"]
    assert (settings.interval, settings.timeout, settings.failback) == (10.0, 10.0, True)
    assert settings.warnings == ()


def test_C2_peers_may_be_a_list_and_each_may_be_refined(config_dir: Path) -> None:
    write(
        config_dir,
        "ha",
        "config ha 'default'\n\toption role slave\n\toption secret longer-secret\n"
        "\tlist peers a\n\tlist peers b\n"
        "config peer 'b'\n\toption address 10.0.0.2\n\toption monitor 0\n\toption ssh_port 2222\n",
    )
    first, second = load_ha(config_dir).peers
    assert (first.name, first.address, first.ssh_port, first.monitor) == ("a", "a", 22, True)
    assert (second.address, second.ssh_port, second.monitor) == ("10.0.0.2", 2222, False)


def test_a_bad_role_is_refused_with_file_line_got_and_expected(config_dir: Path) -> None:
    write(config_dir, "ha", SEED.replace("'master'", "'mestre'"))
    with pytest.raises(ConfigError) as caught:
        load_ha(config_dir)
    assert str(caught.value) == (
        f"{config_dir}/ha:2: ha.default.role: got 'mestre', expected master, slave or passive"
    )


def test_every_error_of_a_file_is_told_at_once(config_dir: Path) -> None:
    write(
        config_dir,
        "ha",
        SEED + "\toption priority 'high'\n\toption interval '0'\n\toption failback 'maybe'\n",
    )
    with pytest.raises(ConfigError) as caught:
        load_ha(config_dir)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "ha.default.priority",
        "ha.default.interval",
        "ha.default.failback",
    ]
    assert "got 'high', expected a whole number from 0 to 1000" in lines[0]
    assert "got '0', expected a number of seconds from 0.5 to 3600" in lines[1]


def test_a_missing_option_says_what_it_is_for(config_dir: Path) -> None:
    write(config_dir, "ha", "config ha 'default'\n\toption role 'slave'\n")
    with pytest.raises(ConfigError, match=r"ha\.default\.secret: missing, expected the password"):
        load_ha(config_dir)


def test_an_unknown_option_warns_with_the_nearest_name_and_loses_nothing(config_dir: Path) -> None:
    write(config_dir, "ha", SEED + "\toption failbak '0'\n")
    settings = load_ha(config_dir)
    assert settings.failback is True
    assert settings.warnings == (
        f"{config_dir}/ha:5: ha.default.failbak: unknown option (did you mean 'failback'?)",
    )


def test_an_unknown_section_type_warns(config_dir: Path) -> None:
    write(config_dir, "ha", SEED + "config limit\n\toption cpu 50\n")
    assert (
        "unknown section type 'limit' (did you mean 'limits'?)" in load_ha(config_dir).warnings[0]
    )


def test_a_peer_section_that_no_list_names_warns(config_dir: Path) -> None:
    write(config_dir, "ha", SEED + "config peer 'PEER9'\n\toption monitor 0\n")
    assert "PEER9" in load_ha(config_dir).warnings[0]


def test_a_node_may_not_be_its_own_peer(config_dir: Path) -> None:
    write(config_dir, "ha", SEED + "\toption name 'PEER2'\n")
    with pytest.raises(ConfigError, match="own name 'PEER2'"):
        load_ha(config_dir)


def test_X2_no_message_ever_shows_the_secret(config_dir: Path) -> None:
    write(config_dir, "ha", "config ha 'default'\n\toption role 'x'\n\tlist secret 'hush-hush'\n")
    with pytest.raises(ConfigError) as caught:
        load_ha(config_dir)
    assert "ha.default.secret" in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_missing_file_of_a_service_gives_the_defaults(config_dir: Path) -> None:
    server, conference = load_server(config_dir), load_conference(config_dir)
    assert (server.port, server.bind) == (7551, "")
    assert (conference.port, conference.bind) == (5060, "")


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1", "1.5"])
def test_a_port_that_is_none_is_refused(config_dir: Path, port: str) -> None:
    write(config_dir, "server", f"config server 'default'\n\toption port '{port}'\n")
    with pytest.raises(ConfigError, match=f"got '{port}', expected a port from 1 to 65535"):
        load_server(config_dir)


def test_G5_the_console_reads_its_ordered_list(config_dir: Path) -> None:
    write(config_dir, "console", "config console 'default'\n\toption server 'S1,S2,S3'\n")
    settings = load_console(config_dir)
    assert settings.server == ("S1", "S2", "S3")
    assert (settings.timeout, settings.lost_packets) == (10.0, 3)


def test_G5_a_console_without_servers_is_told_what_to_set(config_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"set console\.default\.server"):
        load_console(config_dir)
    write(config_dir, "console", "config console 'default'\n\toption server 'a/b,'\n")
    with pytest.raises(ConfigError, match=r"console\.default\.server: missing"):
        load_console(config_dir)


def test_G5_bad_entries_of_the_list_are_reported_and_skipped(config_dir: Path) -> None:
    write(
        config_dir,
        "console",
        "config console 'default'\n\toption server 'S1, bad/one 2001:db8::7,S1,192.0.2.4'\n",
    )
    settings = load_console(config_dir)
    assert settings.server == ("S1", "2001:db8::7", "192.0.2.4")
    assert len(settings.warnings) == 2
    assert "'bad/one'" in settings.warnings[0] and "skipped" in settings.warnings[0]
    assert "'S1' twice" in settings.warnings[1]
    assert settings.return_policy == "idle"


def test_a_broken_file_is_an_error_with_its_line(config_dir: Path) -> None:
    write(config_dir, "ha", SEED + "\toption\n")
    with pytest.raises(UciError, match="ha:5"):
        load_ha(config_dir)


@pytest.mark.parametrize("host", ["a b;c", "-x", "a/b", "$(id)", "x" * 300])
def test_a_host_that_could_become_part_of_a_command_is_refused(config_dir: Path, host: str) -> None:
    write(
        config_dir,
        "ha",
        SEED + f"config peer 'PEER1'\n\toption address '{host}'\n",
    )
    with pytest.raises(ConfigError, match="expected a host name or an IP address"):
        load_ha(config_dir)


@pytest.mark.parametrize("row", SCHEMA, ids=lambda row: f"{row.package}.{row.section}.{row.name}")
def test_every_row_of_the_schema_is_sound(row: OptionRow) -> None:
    assert row.package in PACKAGES
    assert row.text and expectation(row)
    if not row.is_required:
        default_of(row)  # raises when a default breaks its own rule
    if row.kind is Kind.CHOICE:
        assert len(row.choices) > 1
    if row.name in ("bind", "address", "name", "media_address"):
        assert row.scope is Scope.NODE


def test_the_document_of_options_is_made_from_the_schema() -> None:
    committed = (Path(__file__).parents[2] / "docs" / "options.md").read_text()
    assert committed == document()
