"""The life of a lab: made, found again, removed completely, also after its owner was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controlone_ha.errors import LabError
from controlone_ha.lab import cluster, namespaces, network, topology
from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.command import main
from controlone_ha.lab.service_state import Respawn, ServiceDefinition
from controlone_ha.lab.topology import NodeSpec
from tests.waiting import wait_for

pytestmark = pytest.mark.contract

NODES = [NodeSpec(name="a", site=1, host=11, ssh="none", data_disk_mb=1)]
NODES.append(NodeSpec(name="b", site=2, host=11, ssh="none"))
REPOSITORY = Path(cluster.__file__).resolve().parent.parent.parent

# Makes a lab, says so, and waits to be killed.
OWNER = """
import sys, time
from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.topology import NodeSpec
node = NodeSpec(name="a", site=1, host=11, ssh="none")
lab = Lab([node], lab_id=sys.argv[1], tied=sys.argv[2] == "tied")
lab.up()
lab.node("a").spawn(["sleep", "603"])
lab.node("a").impair(delay_ms=1)
print("up", flush=True)
time.sleep(60)
"""


def sleepers(_node: NodeSpec) -> list[ServiceDefinition]:
    return [ServiceDefinition(name="sleeper", argv=("sleep", "604"), respawn=Respawn(delay=0))]


class Traces:
    """What a lab has on the machine, as it is now; ``left`` tells what of it is still there."""

    def __init__(self, lab_id: str) -> None:
        self.directory = cluster.BASE / lab_id
        self.prefix = topology.namespace(lab_id, "")
        self.processes = {
            pid: namespaces.start_time(pid)
            for name in network.namespace_names(self.prefix)
            for pid in namespaces.processes_in(network.NETNS_DIRECTORY / name)
        }

    def left(self) -> list[str]:
        found = [str(self.directory)] if self.directory.exists() else []
        found += network.namespace_names(self.prefix)
        found += [
            f"process {pid}"
            for pid, started in self.processes.items()
            if namespaces.is_alive(pid, started)
        ]
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        return found + [line for line in mounts if f"{self.directory}/" in line]


@pytest.fixture
def lab_id(root: None) -> Iterator[str]:
    name = f"t{os.urandom(3).hex()}"
    yield name
    Lab(NODES, lab_id=name).down()


@pytest.fixture
def start_owner(lab_id: str) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(kind: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER, lab_id, kind],
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_C4_a_lab_leaves_nothing_behind(lab_id):
    with Lab(NODES, lab_id=lab_id, services=sleepers) as lab:
        lab.node("a").spawn(["setsid", "sleep", "605"])
        lab.node("b").impair(delay_ms=1)
        traces = Traces(lab_id)
        assert len(traces.processes) >= 5
        assert len(traces.left()) >= 1 + 3 + 4 + 1, "directory, namespaces, processes, data disk"
    assert traces.left() == []


def test_C4_a_lab_leaves_nothing_behind_when_its_user_fails(lab_id):
    with pytest.raises(ZeroDivisionError):
        with Lab(NODES, lab_id=lab_id, services=sleepers) as lab:
            lab.node("a").freeze()
            lab.node("b").kill()
            traces = Traces(lab_id)
            raise ZeroDivisionError
    assert traces.left() == []


def test_a_lab_that_cannot_be_prepared_leaves_nothing_behind(lab_id):
    def fail(node: object) -> None:
        raise LabError("no luck")

    with pytest.raises(LabError, match="no luck"):
        Lab(NODES, lab_id=lab_id, prepare=fail).up()
    assert Traces(lab_id).left() == []


def test_a_node_that_cannot_boot_says_why_and_leaves_nothing_behind(lab_id):
    def break_run(node: object) -> None:
        from controlone_ha.lab.node import LabNode

        assert isinstance(node, LabNode)
        spec = json.loads((node.directory / "spec.json").read_text())
        spec["persistent"] = ["/dev/null/impossible"]
        (node.directory / "spec.json").write_text(json.dumps(spec))

    with pytest.raises(LabError, match="node a did not boot: .*impossible"):
        Lab(NODES[:1], lab_id=lab_id, prepare=break_run).up()
    assert Traces(lab_id).left() == []


def test_the_nodes_of_a_tied_lab_die_with_their_owner_and_the_next_lab_removes_the_rest(
    lab_id, start_owner
):
    owner = start_owner("tied")
    traces = Traces(lab_id)
    assert len(traces.processes) >= 3
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    alive = lambda: [line for line in traces.left() if line.startswith("process")]  # noqa: E731
    wait_for(lambda: not alive())
    cluster.remove_leftovers()  # as `up` does; that of somebody else may have been quicker
    assert traces.left() == []


def test_a_lab_in_use_is_no_leftover(lab_id, start_owner):
    start_owner("tied")
    assert lab_id not in cluster.remove_leftovers()
    assert Lab.attach(lab_id).node("a").is_up


def test_a_lab_that_is_not_tied_outlives_its_maker_and_any_process_can_use_and_remove_it(
    lab_id, start_owner
):
    owner = start_owner("free")
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert lab_id not in cluster.remove_leftovers()
    lab = Lab.attach(lab_id)
    assert lab.node("a").exec(["hostname"], check=True).stdout == "a\n"
    assert lab.node("a").spec == NodeSpec(name="a", site=1, host=11, ssh="none")
    traces = Traces(lab_id)
    lab.down()
    assert traces.left() == []


@pytest.fixture
def own_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Other names than those of real labs: nobody removes ours, and we remove nobody's."""
    monkeypatch.setattr(cluster, "BASE", tmp_path / "labs")
    monkeypatch.setattr(topology, "NAMESPACE_PREFIX", "c1test-")


def test_namespaces_without_a_lab_are_removed_too(own_machine, lab_id):
    network.LabNetwork(lab_id, NODES).build()
    assert Traces(lab_id).left() != []
    assert lab_id in cluster.remove_leftovers()
    assert Traces(lab_id).left() == []


def test_remove_all_removes_labs_in_use_and_nothing_but_labs(own_machine, lab_id):
    other = subprocess.Popen(["sleep", "606"])
    try:
        with Lab(NODES, lab_id=lab_id, services=sleepers, tied=False):
            traces = Traces(lab_id)
            assert len(traces.processes) >= 4
            assert cluster.remove_all() == [lab_id]
            assert traces.left() == []
        assert other.poll() is None
        assert cluster.remove_all() == []
    finally:
        other.kill()
        other.wait()


def test_a_name_that_is_taken_is_refused_and_the_lab_that_has_it_stays(lab_id):
    with Lab(NODES, lab_id=lab_id) as lab:
        with pytest.raises(LabError, match="up already"):
            Lab(NODES, lab_id=lab_id).up()
        assert lab.node("a").is_up


def test_attaching_to_no_lab_says_which_there_are(lab_id):
    with Lab(NODES, lab_id=lab_id):
        with pytest.raises(LabError, match=f"no lab 'nosuch' is up .*{lab_id}"):
            Lab.attach("nosuch")


def test_the_command_works_on_a_running_lab_from_other_processes(lab_id, capfd):
    def run(*words: str) -> tuple[int, str, str]:
        code = main(["--lab", lab_id, *words])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    with Lab(NODES, lab_id=lab_id, services=sleepers, tied=False) as lab:
        code, output, _ = run("status")
        assert code == 0
        assert output.splitlines()[0].split() == ["a", "10.71.1.11", "up"]
        assert "sleeper      running, pid" in output
        assert run("exec", "b", "hostname") == (0, "b\n", "")
        assert run("exec", "b", "sh", "-c", "exit 5")[0] == 5
        assert run("kill", "a", "sleeper", "--hold")[0] == 0
        wait_for(lambda: not lab.node("a").service_status("sleeper")["running"])
        assert "held down, last: killed by SIGKILL" in run("status")[1]
        assert run("release", "a", "sleeper")[0] == 0
        assert lab.node("a").service_status("sleeper")["running"]
        assert run("cut", "a")[0] == 0
        assert "cable pulled" in run("status")[1]
        assert run("heal")[0] == 0
        assert not lab.node("a").is_cut
        assert run("partition")[0] == 0
        assert run("heal")[0] == 0
        assert run("impair", "a", "--delay", "5", "--loss", "1") == (0, "", "")
        assert run("impair", "a") == (0, "", "")
        assert run("freeze", "a")[0] == 0
        assert run("thaw", "a")[0] == 0
        assert run("logs", "a", "sleeper") == (0, "", "")
        code, _, errors = run("logs", "a", "nosuch")
        assert (code, errors) == (1, "lab: a: no log of 'nosuch' (there are: sleeper)\n")
        assert run("kill", "a")[0] == 0
        assert run("status")[1].splitlines()[0].split() == ["a", "10.71.1.11", "down"]
        code, _, errors = run("exec", "a", "true")
        assert (code, errors) == (1, "lab: node a is down; boot it first\n")
        assert run("boot", "a")[0] == 0
        assert lab.node("a").is_up
        traces = Traces(lab_id)
        assert run("down")[0] == 0
        assert traces.left() == []
        assert run("down")[0] == 1


def test_without_root_the_command_says_so():
    script = (
        "import os, sys\n"
        "from controlone_ha.lab.command import main\n"  # before: nobody may not read our Python
        "os.setuid(65534)\n"
        "sys.exit(main(['status']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 1
    assert done.stderr.startswith("lab: the lab needs root")


def test_the_capabilities_that_are_missing_are_named(lab_id):
    script = (
        "import ctypes, sys\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.prctl(24, 21, 0, 0, 0)\n"  # drop CAP_SYS_ADMIN from the bounding set
        "import os\n"
        "command = [sys.executable, '-m', 'controlone_ha.lab', '--lab', sys.argv[1], 'up']\n"
        "os.execv(sys.executable, command)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, lab_id], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.returncode == 1
    assert "CAP_SYS_ADMIN" in done.stderr
    assert "Traceback" not in done.stderr
