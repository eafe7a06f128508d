"""The `ha` command as a process, against a real LocalApi over a real socket, and without one."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controlone_ha import paths
from controlone_ha.control import client, command
from controlone_ha.control.history import History
from controlone_ha.control.status_file import read_status, write_status
from controlone_ha.sync.conflicts import Conflicts
from controlone_ha.sync.stamps import Stamp
from controlone_ha.sync.versions import Version
from tests.contract.control_daemon import Daemon, Node, entry, sample_status

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.fixture
def daemon(node: Node) -> Iterator[Daemon]:
    running = Daemon(node.run_dir)
    yield running
    running.stop()


def test_G3_status_shows_own_state_peers_and_the_last_synchronisation(
    node: Node, daemon: Daemon
) -> None:
    done = node.ha("status")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("s1: role slave, ACTIVE for ")
    assert "m1 failed: its services refuse" in done.stdout
    assert re.search(r"^m2 +master +active +.* in sync .* in sync ", done.stdout, re.MULTILINE)
    assert re.search(r"^s2 +slave +standby +.* held .* never$", done.stdout, re.MULTILINE)
    assert "\x1b" not in done.stdout


def test_G3_status_json_is_what_the_api_answers(node: Node, daemon: Daemon) -> None:
    done = node.ha("status", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == sample_status()


def test_status_in_portuguese_by_locale_and_by_option(node: Node, daemon: Daemon) -> None:
    by_option = node.ha("--lang", "pt", "status").stdout
    node.environment["LC_ALL"] = "pt_BR.UTF-8"
    by_locale = node.ha("status").stdout
    for out in (by_option, by_locale):
        assert "s1: função slave, ATIVO há " in out
        assert "m1 falhou: seus serviços recusam conexões e seu `ha` não responde" in out
    assert "role slave" in node.ha("status", "--lang=en").stdout


def test_status_is_0_whatever_it_shows_and_4_only_when_asked_to_judge(
    node: Node, daemon: Daemon
) -> None:
    assert node.ha("status", "-e").returncode == 4
    healthy = daemon.node.state
    healthy["warnings"] = []
    healthy["peers"] = [peer for peer in healthy["peers"] if peer["name"] in ("m2", "p1")]
    assert node.ha("status", "--exit-code").returncode == 0


def test_G3_with_the_daemon_down_status_says_so_and_shows_what_it_wrote_last(node: Node) -> None:
    write_status(node.run_dir / "status.json", sample_status(), now=time.time() - 192)
    done = node.ha("status")
    assert done.returncode == 3
    assert "the daemon is not running" in done.stderr
    assert re.search(r"Last status it wrote, 3 min 1[2-9] s ago", done.stdout)
    assert "s1: role slave, ACTIVE" in done.stdout
    shown = json.loads(node.ha("status", "--json").stdout)
    assert shown.pop("daemon")["running"] is False
    assert shown == sample_status()


def test_with_the_daemon_down_and_nothing_written_status_says_that(node: Node) -> None:
    done = node.ha("status")
    assert (done.returncode, done.stdout) == (3, "")
    assert "has written no status" in done.stderr
    down = json.loads(node.ha("status", "-j").stdout)["daemon"]
    assert down == {"running": False, "cause": "absent", "written": None}


def test_a_torn_status_file_counts_as_none(node: Node) -> None:
    path = node.run_dir / "status.json"
    write_status(path, {"node": "s1"}, now=5.0)
    assert read_status(path) == ({"node": "s1"}, 5.0)
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(path.read_bytes()[:-4])
    assert read_status(path) is None


def test_a_frozen_daemon_is_told_from_an_absent_one(
    node: Node, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_status(node.run_dir / "status.json", sample_status(), now=time.time())
    monkeypatch.setenv("CONTROLONE_RUN_DIR", str(node.run_dir))
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setattr(command, "STATUS_TIMEOUT", 0.2)
    with socket.socket(socket.AF_UNIX) as frozen:
        frozen.bind(str(node.run_dir / "ha.sock"))
        frozen.listen()
        code = command.main(["status"])
    shown = capsys.readouterr()
    assert code == 3
    assert "runs but does not answer" in shown.err
    assert "s1: role slave" in shown.out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["history", "-n", "3"], "m1 failed: its services refuse"),
        (["why"], "· port 7551 refused (direct, 0.2 s before)"),
        (["why", "m1"], "m1: failed"),
        (["why-not", "m1"], "s1 does not take over from m1.\n  · it is paused"),
        (["why_not", "m1"], "s1 does not take over from m1."),
        (["plan", "m1"], "If m1 died now:"),
        (["links"], "m1    10.1.0.1  down"),
        (["probe", "s2"], "server   answered  1.5 ms"),
        (["metrics"], 'controlone_ha_state{controlone_ha_state="active"} 1\n'),
        (["version"], "ControlONE HA "),
        (["help"], "ha why-not PEER"),
        (["status", "--help"], "--exit-code"),
    ],
)
def test_commands_that_are_answered_exit_0(
    node: Node, daemon: Daemon, words: list[str], text: str
) -> None:
    done = node.ha(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert text in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100 or words == ["metrics"]


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["history"],
        ["why"],
        ["why-not", "m1"],
        ["plan", "m1"],
        ["check"],
        ["probe", "s2"],
        ["links"],
        ["force_passive"],
        ["pause"],
        ["resume"],
        ["metrics"],
        ["version"],
    ],
)
def test_G4_every_command_speaks_json(node: Node, daemon: Daemon, words: list[str]) -> None:
    assert isinstance(json.loads(node.ha(*words, "--json").stdout), dict | list)
    assert isinstance(json.loads(node.ha("--json", *words).stdout), dict | list)


@pytest.mark.parametrize("spelling", ["force_passive", "force-passive"])
def test_G4_force_passive_works_in_the_seeds_spelling_and_with_a_hyphen(
    node: Node, daemon: Daemon, spelling: str
) -> None:
    done = node.ha(spelling)
    assert (done.returncode, done.stderr) == (0, "")
    assert "This node is passive." in done.stdout
    assert "forced" in done.stdout
    assert daemon.node.calls == [("force", {"state": "passive", "by": "ana"})]
    assert "Forced    passive, until `ha resume`" in node.ha("status").stdout


def test_G4_force_active_then_resume(node: Node, daemon: Daemon) -> None:
    assert node.ha("force_active").returncode == 0
    assert node.ha("resume").returncode == 0
    assert daemon.node.calls == [
        ("force", {"state": "active", "by": "ana"}),
        ("resume", {"by": "ana"}),
    ]
    assert "Forced" not in node.ha("status").stdout


def test_pause_takes_a_reason_and_says_what_goes_on(node: Node, daemon: Daemon) -> None:
    done = node.ha("pause", "cabling", "work")
    assert done.returncode == 0
    assert "Meanwhile, as before:\n  · synchronisation goes on" in done.stdout
    assert daemon.node.calls == [("pause", {"by": "ana", "reason": "cabling work"})]
    assert ": cabling work" in node.ha("status").stdout


def test_what_the_daemon_refuses_exits_1_with_its_reason(node: Node, daemon: Daemon) -> None:
    for words, text in ((["plan", "nobody"], "nobody is not a peer"), (["reload"], "'mestre'")):
        done = node.ha(*words)
        assert (done.returncode, done.stdout) == (1, "")
        assert text in done.stderr


def test_S3_conflicts_are_listed_compared_and_restored(node: Node, daemon: Daemon) -> None:
    done = node.ha("conflicts")
    assert done.returncode == 0
    assert "0a1b2c3d" in done.stdout
    assert "/etc/config/server" in done.stdout
    assert len(done.stdout.splitlines()) < len(node.ha("conflicts", "--all").stdout.splitlines())
    done = node.ha("conflicts", "diff", "0a1b")
    assert "-    option port '1'\n+    option port '2'\n" in done.stdout
    done = node.ha("conflicts", "restore", "0a1b")
    assert done.stdout.startswith("/etc/config/server is again what s1 made of it at 2025-06-15")
    assert daemon.node.calls == [("restore", {"id": "0a1b", "by": "ana"})]
    for words in (["undo"], ["diff"], ["restore"], ["list", "0a1b"]):
        done = node.ha("conflicts", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert "diff ID or restore ID" in done.stderr


def test_S3_conflicts_are_read_from_their_files_while_the_daemon_is_down(node: Node) -> None:
    store = Conflicts(node.state_dir / "conflicts")
    file = node.state_dir / "server"
    file.write_text("config server 'default'\n\toption port '7552'\n\toption secret 'new'\n")
    loser = Version(
        path=str(file), item="config", stamp=Stamp(1_750_000_000_000_000, 0, "s1"),
        checksum="0" * 64, size=1, mode=0o600, mtime_ns=1,
    )  # fmt: skip
    winner = replace(loser, stamp=Stamp(1_750_000_001_000_000, 0, "m1"))
    lost = b"config server 'default'\n\toption port '7551'\n\toption secret 'old'\n"
    store.keep_content(loser, winner, "conflict", lost)
    done = node.ha("conflicts", "--json")
    assert done.returncode == 3
    (row,) = json.loads(done.stdout)
    assert (row["node"], row["winner_node"]) == ("s1", "m1")
    done = node.ha("conflicts", "diff", row["id"], "--lang", "pt_BR")
    assert done.returncode == 3
    assert "perdeu para a edição de m1" in done.stdout
    assert "-    option port '7551'" in done.stdout
    assert "+    option secret (hidden)" in done.stdout
    assert node.ha("conflicts", "restore", row["id"]).returncode == 3
    assert "7552" in file.read_text()
    done = node.ha("conflicts", "diff", "ffff")
    assert done.returncode == 1
    assert "there is no conflict copy 'ffff'" in done.stderr


def test_check_and_probe_exit_4_when_something_is_wrong(node: Node, daemon: Daemon) -> None:
    done = node.ha("check")
    assert done.returncode == 4
    assert "Error    clock: the clock of s2 differs by 12 s\n" in done.stdout
    assert "→ set up ntpd on both nodes" in done.stdout
    daemon.node.findings = []
    done = node.ha("check")
    assert (done.returncode, done.stdout) == (0, "Nothing is wrong.\n")
    assert node.ha("probe", "m1").returncode == 4


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], ""),
        (["stauts"], "did you mean `status`?"),
        (["status", "--colour"], "`ha status` has no option --colour"),
        (["why-not"], "`ha why-not` needs an argument"),
        (["plan", "m1", "m2"], "'m2' is one argument too many"),
        (["history", "-n", "many"], "expected a number"),
        (["history", "--since", "soon"], "expected 30m, 2h, 1d"),
        (["status", "--json=1"], "--json takes no value"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_wrong(
    node: Node, words: list[str], text: str
) -> None:
    done = node.ha(*words)
    assert done.returncode == 2
    assert text in done.stderr


@pytest.mark.parametrize("words", [["why"], ["force_passive"], ["check"], ["metrics"]])
def test_with_the_daemon_down_every_request_exits_3(node: Node, words: list[str]) -> None:
    done = node.ha(*words)
    assert done.returncode == 3
    assert "the daemon is not running (`service ha start`)" in done.stderr
    assert done.stdout.endswith("controlone_ha_up 0\n# EOF\n") or words != ["metrics"]


def test_C3_history_is_read_from_the_node_itself_when_the_daemon_is_down(node: Node) -> None:
    history = History(paths.node_paths(node.environment).history_file)
    for second in range(3):
        history.append(entry(1_750_000_000.0 + second, peer="m1", to="active"))
    history.append(entry(1_750_000_010.0, peer="m2", kind="peer", reason={}, to="failed"))
    history.close()
    done = node.ha("history", "-n", "2", "--peer", "m1")
    assert done.returncode == 3
    assert "not running" in done.stderr
    assert [line[:19] for line in done.stdout.splitlines() if line.startswith("2025")] == [
        "2025-06-15 15:06:41",
        "2025-06-15 15:06:42",
    ]
    newest = json.loads(node.ha("history", "--json").stdout)[0]
    assert (newest["peer"], newest["to"]) == ("m2", "failed")


def test_the_history_asks_with_the_filters_given(node: Node, daemon: Daemon) -> None:
    assert node.ha("history", "-n5", "--kind", "peer", "--since=1700000000").returncode == 0
    asked = {"limit": 5, "kind": "peer", "peer": None, "since": 1_700_000_000.0}
    assert daemon.node.calls == [("history", asked)]


def test_watch_shows_a_transition_at_once_and_ends_on_sigint(node: Node, daemon: Daemon) -> None:
    with node.start("status", "--json", "-w", "60") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["state"] == "active"
        daemon.node.state["state"] = "standby"
        daemon.publish(entry(1.0, to="standby"))
        assert json.loads(process.stdout.readline())["state"] == "standby"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_watch_goes_on_when_the_daemon_ends_and_comes_back(node: Node) -> None:
    running = Daemon(node.run_dir)
    with node.start("status", "--json", "-w", "0.1") as process:
        assert process.stdout is not None
        assert "daemon" not in json.loads(process.stdout.readline())
        running.stop()
        while "daemon" not in (shown := json.loads(process.stdout.readline())):
            pass
        assert shown["daemon"]["running"] is False
        running = Daemon(node.run_dir)
        while "daemon" in json.loads(process.stdout.readline()):
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    running.stop()


def test_events_follows_the_transitions(node: Node, daemon: Daemon) -> None:
    with node.start("events") as process:
        assert process.stdout is not None
        while not daemon.api.subscribers:
            time.sleep(0.01)
        daemon.publish(entry(1_750_000_000.0, **{"from": "standby", "to": "active"}, by="ana"))
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert line.startswith("2025-06-15 15:06:40  standby → active: m1 failed: its services")
    assert line.endswith("(by ana)\n")


def test_a_reader_that_goes_away_is_no_error(node: Node, daemon: Daemon) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with node.start("status", stdout=write_end) as process:
        os.close(write_end)
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(10) == 0


@pytest.mark.parametrize(("extra", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_only_on_a_terminal_and_not_against_no_color(
    node: Node, daemon: Daemon, extra: dict[str, str], coloured: bool
) -> None:
    node.environment |= {**extra, "TERM": "xterm"}
    leader, follower = pty.openpty()
    with node.start("status", stdout=follower) as process:
        os.close(follower)
        shown = b""
        try:
            while piece := os.read(leader, 65536):
                shown += piece
        except OSError:
            pass  # how Linux ends a terminal whose other side is closed
        assert process.wait(10) == 0
    os.close(leader)
    assert (b"\x1b[32m" in shown) is coloured


def test_a_terminal_without_utf8_still_gets_an_answer(node: Node, daemon: Daemon) -> None:
    node.environment |= {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    assert node.ha("why").returncode == 0


def test_the_light_client_agrees_with_the_shared_ground(node: Node, daemon: Daemon) -> None:
    for environment in ({}, node.environment):
        expected = paths.node_paths(environment)
        with pytest.MonkeyPatch.context() as patch:
            for name in ("CONTROLONE_RUN_DIR", "CONTROLONE_STATE_DIR"):
                patch.delenv(name, raising=False)
                if name in environment:
                    patch.setenv(name, environment[name])
            assert client.run_dir() == str(expected.run_dir)
            assert client.state_dir() == str(expected.state_dir)
    line = client.Client(str(expected.api_socket))
    line.call("events")
    daemon.publish(entry(7.0))
    assert line.wait_event(10)
    assert line.call("status")["node"] == "s1"  # an answer after an event is still the answer
    assert not line.wait_event(0.05)
    assert [item["time"] for item in line.events] == [7.0]
    line.close()


def test_status_loads_nothing_that_makes_it_slow(node: Node, daemon: Daemon) -> None:
    code = (
        "import sys; from controlone_ha.control.command import main; main(['status']);"
        "print(sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={**node.environment, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    heavy = {"asyncio", "typing", "dataclasses", "inspect", "argparse", "pathlib", "logging"}
    assert "'json'" in done.stderr
    assert not [name for name in heavy if f"'{name}'" in done.stderr]


def test_C3_audit_names_the_missing_line(node: Node, daemon: Daemon) -> None:
    done = node.ha("audit")
    assert done.returncode == 4
    assert re.search(r"^s1 +own +1–9 +8 +1 problems$", done.stdout, re.MULTILINE)
    assert "s1: line 7 is missing, between line 6 and line 8" in done.stdout
    assert "m1 (9)" in done.stdout


def test_C3_audit_verifies_the_files_without_the_daemon(node: Node) -> None:
    alone = node.ha("audit")
    assert (alone.returncode, "whole" in alone.stdout) == (3, True)


def test_C6_licence_shows_who_is_covered_and_what_each_file_is_worth(
    node: Node, daemon: Daemon
) -> None:
    done = node.ha("licence")
    assert done.returncode == 4
    assert "Masters: 2 (m1, m2); licences CO-LICE-HA that count: 1." in done.stdout
    assert "nobody takes over from them: m2" in done.stdout
    assert re.search(r"^A-1 +valid +2030-01-31 +City$", done.stdout, re.MULTILINE)
    assert re.search(r"^x.licence +forged +- +the signature", done.stdout, re.MULTILINE)
    assert node.ha("licence", "remove", "x").returncode == 2


def test_X2_a_bundle_is_made_also_without_the_daemon_and_nobody_else_may_read_it(
    node: Node, tmp_path: Path
) -> None:
    file = tmp_path / "bundle.tar.gz"
    done = node.ha("support", str(file))
    assert done.returncode == 0, done.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    again = node.ha("support", str(file))
    assert (again.returncode, "File exists" in again.stderr) == (1, True)
