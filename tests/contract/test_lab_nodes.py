"""A lab node, on real namespaces: its processes, its files, its services, its sudden death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlone_ha.errors import LabError
from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.node import LabNode
from controlone_ha.lab.node_files import prepare_files
from controlone_ha.lab.node_services import definitions
from controlone_ha.lab.service_state import Respawn, ServiceDefinition
from controlone_ha.lab.topology import NodeSpec, Section
from tests.waiting import wait_for

pytestmark = pytest.mark.contract

NODES = [
    NodeSpec(
        name="a",
        site=1,
        host=11,
        packages={
            "ha": (Section(kind="ha", name="default", options={"secret": "x", "peers": ["b"]}),)
        },
        data_disk_mb=4,
    ),
    NodeSpec(name="b", site=2, host=11, ssh="dropbear"),
]
PASSWORD = "a password"

# Accepts connections on TCP/7000, greets, and never closes.
GREETER = """
import socket, time
s = socket.create_server(("0.0.0.0", 7000))
streams = []
while True:
    stream, _ = s.accept()
    stream.sendall(b"hello\\n")
    streams.append(stream)
"""

RELOADABLE = """
import signal, time
signal.signal(signal.SIGHUP, lambda *_: print("reloaded"))
print("up")
while True:
    time.sleep(60)
"""


def services(node: NodeSpec) -> list[ServiceDefinition]:
    soon = Respawn(delay=0.2)
    return [
        *definitions(node),
        ServiceDefinition(name="greeter", argv=(sys.executable, "-c", GREETER), respawn=soon),
        ServiceDefinition(
            name="ha", argv=(sys.executable, "-c", RELOADABLE), respawn=soon, reload_signal="SIGHUP"
        ),
        ServiceDefinition(name="off", argv=("sleep", "600"), respawn=soon, at_boot=False),
        ServiceDefinition(
            name="stubborn",
            argv=("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"),
            at_boot=False,
            term_timeout=0.5,
        ),
    ]


@pytest.fixture(scope="module")
def lab(root: None, sshd_path: Path, dropbear_path: Path) -> Iterator[Lab]:
    lab = Lab(NODES, services=services, prepare=prepare_files, root_password=PASSWORD)
    with lab:
        yield lab


@pytest.fixture
def a(lab: Lab) -> LabNode:
    if not lab.node("a").is_up:
        lab.boot("a")
    lab.node("a").wait_until_listening(7000)
    return lab.node("a")


# -- what a node is ----------------------------------------------------------------------------


def test_a_node_is_a_machine_of_its_own(a):
    assert a.exec(["hostname"], check=True).stdout == "a\n"
    seen = a.exec(["sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '; ls /sys/class/net"], check=True)
    assert "controlone_ha.lab.init" in seen.stdout
    assert seen.stdout.split()[-2:] == ["eth0", "lo"]
    assert a.exec(["sh", "-c", "echo $$"], check=True).stdout != f"{os.getpid()}\n"


def test_nodes_know_each_other_by_name(a):
    script = "import socket; print(socket.gethostbyname('b'))"
    assert a.exec([sys.executable, "-c", script], check=True).stdout == "10.71.2.11\n"


def test_what_a_node_writes_stays_in_the_node(a):
    for path in ("/etc/only-in-a", "/root/only-in-a", "/var/tmp/only-in-a", "/tmp/only-in-a"):
        a.exec(["touch", path], check=True)
        assert not Path(path).exists()
        assert a.exec(["test", "-e", path]).returncode == 0


def test_G1_the_uci_files_of_a_node_are_where_they_belong_and_the_secret_is_private(a):
    done = a.exec(["cat", "/etc/config/ha"], check=True)
    assert "config ha 'default'" in done.stdout
    assert "list peers 'b'" in done.stdout
    assert a.path("/etc/config/ha").stat().st_mode & 0o777 == 0o600


def test_run_directories_are_seen_from_outside_too(a):
    a.exec(["sh", "-c", "echo here >/var/run/controlone/file"], check=True)
    assert a.path("/var/run/controlone/file").read_text() == "here\n"


# -- running something in it -------------------------------------------------------------------


def test_exec_gives_output_errors_and_the_exit_code(a):
    done = a.exec(["sh", "-c", "cat; echo oops >&2; exit 7"], input="text")
    assert (done.stdout, done.stderr, done.returncode) == ("text", "oops\n", 7)


def test_exec_kills_what_takes_too_long(a):
    with pytest.raises(LabError, match=r"did not end within 0\.3 s"):
        a.exec(["sh", "-c", "sleep 61 & sleep 61"], timeout=0.3)
    wait_for(lambda: "sleep 61" not in a.exec(["ps", "ax"], check=True).stdout)


def test_killing_what_was_spawned_kills_the_program_in_the_node(a):
    process = a.spawn(["sleep", "607"])
    wait_for(lambda: "sleep 607" in a.exec(["ps", "ax"], check=True).stdout)
    process.kill()
    process.wait(5)
    wait_for(lambda: "sleep 607" not in a.exec(["ps", "ax"], check=True).stdout)


def test_a_program_that_is_not_there_gives_127(a):
    done = a.exec(["nosuch-program"])
    assert done.returncode == 127
    assert "nosuch-program" in done.stderr


def test_exec_with_check_says_what_failed(a):
    with pytest.raises(LabError, match="a: sh -c .* gave 3: no luck"):
        a.exec(["sh", "-c", "echo no luck >&2; exit 3"], check=True)


def test_orphans_are_reaped(a):
    a.exec(["sh", "-c", "(sh -c 'sleep 0.2; exit 3' &) ; true"], check=True)

    def states() -> str:
        return a.exec(["ps", "-eo", "stat=,args="], check=True).stdout

    wait_for(lambda: "sleep 0.2" not in states())
    wait_for(lambda: "\nZ" not in states())


def test_a_node_sees_the_load_of_its_own_processes_only(lab, a):
    script = "import psutil; print(psutil.cpu_percent(2.0))"
    hogs = [a.spawn([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        other = float(lab.node("b").exec([sys.executable, "-c", script], check=True).stdout)
        own = float(a.exec([sys.executable, "-c", script], check=True).stdout)
    finally:
        for hog in hogs:
            os.killpg(hog.pid, signal.SIGKILL)
            hog.wait()
    assert own > 2 * other  # however little the machine has left for both
    assert own > 2.0


def test_the_data_disk_of_a_node_can_be_full(a):
    fill = "dd if=/dev/zero of=/var/lib/controlone/fill bs=1M count=8"
    done = a.exec(["sh", "-c", fill])
    assert "No space left on device" in done.stderr
    a.exec(["rm", "/var/lib/controlone/fill"], check=True)
    a.exec(["sh", "-c", "echo fits >/var/lib/controlone/small"], check=True)


# -- services ----------------------------------------------------------------------------------


def test_a_killed_service_is_respawned(a):
    before = a.service_status("greeter")
    a.kill_service("greeter")
    wait_for(lambda: a.service_status("greeter")["restarts"] == before["restarts"] + 1)
    after = a.service_status("greeter")
    assert after["running"]
    assert after["pid"] != before["pid"]
    assert after["last_exit"] == "killed by SIGKILL"


def test_a_held_service_stays_dead_until_it_is_released(a):
    a.hold("greeter")
    wait_for(lambda: not a.service_status("greeter")["running"])
    time.sleep(0.5)
    assert not a.service_status("greeter")["running"]
    with pytest.raises(LabError, match="held down"):
        a.start_service("greeter")
    assert a.exec(["service", "greeter", "start"]).returncode == 1
    a.release("greeter")
    assert a.service_status("greeter")["running"]


def test_F3_a_frozen_service_accepts_and_stays_silent_and_goes_on_when_thawed(lab, a):
    script = (
        "import socket, sys\n"
        "with socket.create_connection((sys.argv[1], 7000), timeout=1) as s:\n"
        "    try: print(s.recv(64))\n"
        "    except TimeoutError: print('silence')\n"
    )
    ask = [sys.executable, "-c", script, a.address]
    a.freeze("greeter")
    assert lab.node("b").exec(ask, check=True).stdout == "silence\n"
    assert a.service_status("greeter")["running"]
    a.thaw("greeter")
    assert lab.node("b").exec(ask, check=True).stdout == "b'hello\\n'\n"


def test_a_frozen_node_stands_still_and_goes_on_when_thawed(a):
    init = a.init
    assert init is not None
    a.freeze()
    try:
        stat = Path(f"/proc/{init[0]}/stat")
        wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
        with pytest.raises(LabError, match="does not answer"):
            a.call("list", timeout=0.3)
    finally:
        a.thaw()
    wait_for(lambda: a.service_status("greeter")["running"])
    assert a.service_status("greeter")["restarts"] >= 0


def test_a_service_that_ignores_the_stop_signal_is_killed_after_its_timeout(a):
    a.start_service("stubborn")
    time.sleep(0.2)
    a.stop_service("stubborn")
    assert a.service_status("stubborn")["phase"] == "stopping"
    wait_for(lambda: a.service_status("stubborn")["phase"] == "stopped")
    assert a.service_status("stubborn")["last_exit"] == "killed by SIGKILL"


def test_G1_service_behaves_as_the_one_of_openwrt(a):
    def service(*words: str) -> tuple[int, str, str]:
        done = a.exec(["service", *words])
        return done.returncode, done.stdout, done.stderr

    assert service("off", "status") == (3, "inactive\n", "")
    assert service("off", "stop") == (0, "", "Command failed: Not found\n")
    assert service("off", "start") == (0, "", "")
    assert service("off", "status") == (0, "running\n", "")
    first = a.service_status("off")["pid"]
    assert service("off", "start") == (0, "", "")
    assert a.service_status("off")["pid"] == first
    assert service("off", "restart") == (0, "", "")
    wait_for(lambda: a.service_status("off")["pid"] not in (None, first))
    assert service("off", "stop") == (0, "", "")
    code, output, _ = service("off", "dance")
    assert code == 0
    assert "Available commands:" in output
    code, _, errors = service("nosuch", "start")
    assert code == 1
    assert 'Service "nosuch" not found' in errors


def test_reload_config_reloads_the_service_whose_file_changed(a):
    a.exec(["reload_config"], check=True)  # the first run only records
    before = a.read_log("ha").count("reloaded")
    a.exec(["reload_config"], check=True)
    assert a.read_log("ha").count("reloaded") == before
    a.exec(["sh", "-c", "echo '# changed' >>/etc/config/ha"], check=True)
    a.exec(["reload_config"], check=True)
    wait_for(lambda: a.read_log("ha").count("reloaded") == before + 1)


def test_a_service_can_be_added_to_a_running_node(a):
    a.define_service(
        ServiceDefinition(name="extra", argv=("sh", "-c", "echo from extra; sleep 600"))
    )
    wait_for(lambda: a.read_log("extra") == "from extra\n")
    assert a.service_status("extra")["running"]


@pytest.mark.parametrize("name", ["a", "b"])
def test_root_can_log_in_to_either_ssh_server_with_the_password(lab, a, name):
    script = (
        "import paramiko, sys\n"
        "client = paramiko.SSHClient()\n"
        "client.set_missing_host_key_policy(paramiko.AutoAddPolicy())\n"
        "client.connect(sys.argv[1], username='root', password=sys.argv[2], timeout=10,\n"
        "               allow_agent=False, look_for_keys=False)\n"
        "words = 'hostname; for name in ha uci service; do command -v $name; done'\n"
        "print(client.exec_command(words)[1].read().decode())\n"
    )
    node = lab.node(name)
    node.wait_until_listening(22)
    # What the machine's own root starts its shell with is no part of the node.
    node.exec(["sh", "-c", "echo 'echo start-up file' >>/root/.bashrc"], check=True)
    done = lab.node("b").exec([sys.executable, "-c", script, node.address, PASSWORD], check=True)
    assert done.stdout.split() == [name, "/usr/sbin/ha", "/usr/sbin/uci", "/usr/sbin/service"]


# -- sudden death and return -------------------------------------------------------------------


def test_C4_killing_a_node_resets_its_connections_and_refuses_new_ones_at_once(lab, a):
    script = (
        "import socket, sys, time\n"
        "s = socket.create_connection((sys.argv[1], 7000), timeout=5)\n"
        "s.recv(64); s.sendall(b'unread'); print('open', flush=True)\n"
        "try: print('end' if s.recv(64) == b'' else 'data', flush=True)\n"
        "except OSError as error: print(type(error).__name__, flush=True)\n"
        # The kernel ends a node's processes one after the other: the one that listens may be last.
        "end = time.monotonic() + 1\n"
        "answer = 'connected'\n"
        "while answer != 'ConnectionRefusedError' and time.monotonic() < end:\n"
        "    try: socket.create_connection((sys.argv[1], 7000), timeout=5).close()\n"
        "    except OSError as error: answer = type(error).__name__\n"
        "print(answer)\n"
    )
    process = lab.node("b").spawn(
        [sys.executable, "-c", script, a.address], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "open\n"
        time.sleep(0.1)
        init = a.init
        started = time.monotonic()
        a.kill()
        assert process.stdout.readline() == "ConnectionResetError\n"
        assert process.stdout.readline() == "ConnectionRefusedError\n"
        assert time.monotonic() - started < 2.0
    assert init is not None
    assert not a.is_up


def test_killing_a_node_leaves_no_process_of_it(lab, a):
    hidden = a.spawn(["setsid", "sleep", "602"])
    wait_for(lambda: "sleep 602" in a.exec(["ps", "ax"], check=True).stdout)
    a.kill()
    hidden.wait(5)
    with pytest.raises(LabError, match="node a is down"):
        a.exec(["true"])
    running = subprocess.run(["ps", "ax"], capture_output=True, text=True, check=True).stdout
    assert "sleep 602" not in running


def test_a_node_boots_again_with_its_files_and_without_its_volatile_ones(lab, a):
    kept = (
        "/etc/config/kept",
        "/etc/controlone/kept",
        "/root/.ssh/kept",
        "/var/lib/controlone/kept",
    )
    lost = ("/tmp/lost", "/var/run/controlone/lost", "/etc/lost")
    a.exec(["touch", *kept, *lost], check=True)
    key = a.path("/etc/ssh/ssh_host_ed25519_key.pub").read_text()
    a.kill()
    lab.boot("a")
    a.exec(["ls", *kept], check=True)
    for path in lost:
        assert a.exec(["test", "-e", path]).returncode == 1, path
    assert a.path("/etc/ssh/ssh_host_ed25519_key.pub").read_text() == key
    a.wait_until_listening(22)


def test_a_node_that_shuts_down_stops_its_services_first(lab, a):
    a.define_service(
        ServiceDefinition(
            name="polite",
            argv=(
                "sh",
                "-c",
                "trap 'echo stopped in order; exit 0' TERM; while :; do sleep 0.05; done",
            ),
        )
    )
    wait_for(lambda: a.service_status("polite")["running"])
    time.sleep(0.2)
    a.shut_down()
    assert not a.is_up
    assert a.read_log("polite") == "stopped in order\n"


def test_booting_a_node_that_runs_is_refused(lab, a):
    with pytest.raises(LabError, match="up already"):
        lab.boot("a")
