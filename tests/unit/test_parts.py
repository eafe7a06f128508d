"""Finding the real parts: order of the places, and errors that name the remedy."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from controlone_ha.lab import parts

CHECKOUT = Path(__file__).resolve().parents[2]


def _program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def _nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MONGOD", "ASTERISK", "ASTERISK_MODULES", "SIPP", "SSHD", "DROPBEAR"):
        monkeypatch.delenv(f"CONTROLONE_{name}", raising=False)
    monkeypatch.setenv("CONTROLONE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(parts, "_SYSTEM_DIRECTORIES", ())


def test_a_missing_part_is_an_error_that_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(parts.MissingPartError, match="no mongod in .*cache.*make setup"):
        parts.mongod_path()
    with pytest.raises(parts.MissingPartError, match="no sipp in .*make setup"):
        parts.sipp_path()
    with pytest.raises(parts.MissingPartError, match="no asterisk in .*make setup"):
        parts.asterisk()


def test_the_environment_wins_over_the_path_and_the_path_over_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cached = _program(tmp_path / "cache" / "mongod" / "mongod")
    assert parts.mongod_path() == cached
    installed = _program(tmp_path / "bin" / "mongod")
    assert parts.mongod_path() == installed
    named = _program(tmp_path / "mine")
    monkeypatch.setenv("CONTROLONE_MONGOD", str(named))
    assert parts.mongod_path() == named


def test_a_name_in_the_environment_that_is_no_program_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _program(tmp_path / "bin" / "sshd")
    monkeypatch.setenv("CONTROLONE_SSHD", str(tmp_path))
    with pytest.raises(parts.MissingPartError, match="CONTROLONE_SSHD=.* is not a program"):
        parts.sshd_path()


def test_the_cached_asterisk_runs_with_its_own_loader_and_modules(tmp_path: Path) -> None:
    tree = tmp_path / "cache" / "asterisk" / "tree"
    binary = _program(tree / "usr/sbin/asterisk")
    loader = _program(tree / "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
    modules = tree / "usr/lib/x86_64-linux-gnu/asterisk/modules"
    modules.mkdir(parents=True)
    found = parts.asterisk()
    assert found.command[:2] == (str(loader), "--library-path")
    assert found.command[2].split(":")[0] == str(loader.parent)
    assert found.command[3:] == (str(binary),)
    assert found.module_directory == modules
    assert parts.asterisk_command() == list(found.command)


def test_an_installed_asterisk_is_used_with_the_modules_beside_it(tmp_path: Path) -> None:
    binary = _program(tmp_path / "usr/sbin/asterisk")
    (tmp_path / "bin").symlink_to(binary.parent)
    with pytest.raises(parts.MissingPartError, match="CONTROLONE_ASTERISK_MODULES"):
        parts.asterisk()
    modules = tmp_path / "usr/lib/asterisk/modules"
    modules.mkdir(parents=True)
    assert parts.asterisk().command == (str(binary),)
    assert parts.asterisk().module_directory == modules


@pytest.mark.parametrize("cache", ["", "/somewhere/else"])
def test_the_shell_scripts_and_this_module_mean_the_same_cache(
    monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    monkeypatch.setenv("CONTROLONE_CACHE", cache)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    script = f'. "{CHECKOUT}/scripts/paths.sh"; printf %s "$cache"'
    shell = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert shell.stdout == str(parts.cache_directory())
