"""Our `uci` command against what the real one printed, returned and left in its files."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from controlone_ha.uci.command import main

pytestmark = pytest.mark.contract

DATA = Path(__file__).resolve().parents[1] / "data" / "uci"
EXPECTED: dict[str, Any] = json.loads((DATA / "expected.json").read_text())
RECORDED: dict[str, Any] = json.loads((DATA / "recorded.json").read_text())


@pytest.fixture(autouse=True)
def _own_directories(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the machine's own staged changes and overrides out of the picture."""
    monkeypatch.delenv("UCI_CONFIG_DIR", raising=False)
    monkeypatch.setenv("CONTROLONE_SAVE_DIR", str(tmp_path / "default-save"))


def uci(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """Run the command on Latin-1 arguments; exit code, output and error text as Latin-1."""
    output, errors = io.BytesIO(), io.BytesIO()
    code = main(
        [os.fsdecode(one.encode("latin-1")) for one in arguments],
        stdin=io.BytesIO(stdin.encode("latin-1")),
        stdout=output,
        stderr=errors,
    )
    return code, output.getvalue().decode("latin-1"), errors.getvalue().decode("latin-1")


def contents(directory: Path) -> dict[str, str]:
    """Return what the regular files below ``directory`` hold."""
    return {
        str(path.relative_to(directory)): path.read_bytes().decode("latin-1")
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


@pytest.mark.parametrize("name", EXPECTED["parse"])
def test_a_file_shows_and_exports_as_with_the_real_uci(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes((DATA / "inputs" / name).read_bytes())
    for step in EXPECTED["parse"][name]:
        outcome = uci("-c", str(tmp_path), *step["args"])
        assert outcome == (step["code"], step["stdout"], step["stderr"]), step["args"]


@pytest.mark.parametrize("name", EXPECTED["commands"])
def test_commands_do_what_the_real_uci_did(name: str, tmp_path: Path) -> None:
    case = EXPECTED["commands"][name]
    for part in ("c", "p", "t"):
        (tmp_path / part).mkdir()
    file = tmp_path / "c" / "net"
    if case["config"] is not None:
        file.write_bytes(case["config"].encode("latin-1"))
    directories = [f"-c{tmp_path}/c", f"-p{tmp_path}/p", f"-t{tmp_path}/t"]
    for step in case["steps"]:
        outcome = uci(*directories, *step["args"])
        assert outcome == (step["code"], step["stdout"], step["stderr"]), step["args"]
        left = {f"-{one}": text for one, text in contents(tmp_path).items()}
        config = left.pop("-c/net", None)
        assert (left, config) == (step["delta_files"], step["config_file"]), step["args"]


@pytest.mark.parametrize("name", RECORDED["cases"])
def test_a_recorded_session_repeats_to_the_byte(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = RECORDED["cases"][name]
    root = tmp_path / "root"
    for part in ("c", "p", "t", "o", "x"):
        (root / part).mkdir(parents=True)
    for path, content in case["files"].items():
        file = root / os.fsdecode(path.encode())
        file.parent.mkdir(exist_ok=True)
        if isinstance(content, dict):
            file.symlink_to(content["link"])
        else:
            file.write_bytes(content.encode("latin-1"))
    monkeypatch.chdir(root)
    left: dict[str, str] = {}
    for step in case["steps"]:
        arguments = [one.replace("%D", str(root)) for one in step["args"]]
        outcome = uci(*arguments, stdin=step.get("stdin", ""))
        stderr = step["stderr"].replace("{usage}", RECORDED["usage"])
        assert outcome == (step["code"], step["stdout"], stderr), step["args"]
        left = step.get("files", left)
        assert contents(root) == left, step["args"]


def test_the_recorded_sessions_are_many() -> None:
    assert len(RECORDED["cases"]) > 100


def test_G1_the_seeds_lines_set_and_commit_the_role(tmp_path: Path) -> None:
    file = tmp_path / "ha"
    file.write_text("config ha 'default'\n\toption role 'slave'\n")
    environment = {
        **os.environ, "UCI_CONFIG_DIR": str(tmp_path), "CONTROLONE_SAVE_DIR": str(tmp_path / ".s")
    }  # fmt: skip

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "controlone_ha.uci", *arguments],
            env=environment, capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        assert done.stderr == ""
        return done.stdout

    run("set", "ha.default.peers=10.0.0.2,10.0.0.3")
    run("set", "ha.default.role=master")
    run("set", "ha.default.secret=123456")
    assert "role 'slave'" in file.read_text()
    run("commit")
    assert file.read_text() == (
        "\nconfig ha 'default'\n\toption role 'master'\n\toption peers '10.0.0.2,10.0.0.3'\n"
        "\toption secret '123456'\n\n"
    )
    assert run("get", "ha.default.role") == "master\n"
    assert run("changes") == ""


def test_G5_the_seeds_console_line_sets_the_servers(tmp_path: Path) -> None:
    (tmp_path / "console").write_text("config console 'default'\n")
    directories = ("-c", str(tmp_path), "-t", str(tmp_path / ".staged"))
    assert uci(*directories, "set", "console.default.server=S1,S2,S3") == (0, "", "")
    assert uci(*directories, "commit") == (0, "", "")
    assert uci(*directories, "get", "console.default.server") == (0, "S1,S2,S3\n", "")


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "net").write_text("config a b\n" + "\toption x 'y'\n\tlist l 'z'\n" * 50000)
    done = subprocess.run(
        ["sh", "-c", '"$0" -m controlone_ha.uci -c "$1" show | head -n 1',
         sys.executable, str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == "net.b=a\n"
    assert done.stderr == ""


def test_commands_are_read_from_standard_input_as_they_come(tmp_path: Path) -> None:
    (tmp_path / "net").write_text("config a b\n\toption x '1'\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "controlone_ha.uci", "-c", str(tmp_path), "batch"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    with process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("get net.b.x\nexit\n")
        process.stdin.flush()
        assert process.stdout.readline() == "1\n"
        # The end comes from `exit`: standard input is still open.
        assert process.wait(timeout=60) == 0
