"""One test class for every supervisor that `ha` may find: the lab's own, and procd.

The lab's supervisor is the real one, as a process of its own. procd is a stand-in made of real
shell scripts, one for each init script and one for `ubus`; real procd is met by the package tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket as socketlib
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from controlone_ha.errors import ServiceError
from controlone_ha.jsonrpc import call
from controlone_ha.paths import node_paths
from controlone_ha.services.choice import open_manager
from controlone_ha.services.lab import LabServiceManager
from controlone_ha.services.manager import ServiceManager, ServiceStatus
from controlone_ha.services.procd import ProcdServiceManager
from tests.waiting import freeze, wait_for

pytestmark = pytest.mark.contract

Test = Callable[[ServiceManager], Coroutine[Any, Any, None]]

SUPERVISOR = """
import asyncio, json, sys
from pathlib import Path
from controlone_ha.lab.service_state import Respawn, ServiceDefinition
from controlone_ha.lab.supervisor import Supervisor
directory = Path(sys.argv[1])
common = {"respawn": Respawn(delay=0.2), "term_timeout": 1.0, "at_boot": False}
supervisor = Supervisor(
    [
        ServiceDefinition(name=name, argv=tuple(argv), **common)
        for name, argv in json.loads(sys.argv[2]).items()
    ],
    socket=directory / "supervisor.sock",
    log_directory=directory,
    environment={"PATH": "/bin:/usr/bin"},
)
asyncio.run(supervisor.run())
"""

# Starts what it is told to, again and again, until `stop`; answers as procd does.
INIT_SCRIPT = """#!/bin/sh
state=STATE/NAME; mkdir -p "$state"
case "$1" in
start)
    [ -e "$state/loop" ] && exit 0
    rm -f "$state/over" "$state/code"; touch "$state/loop"
    (
        while [ ! -e "$state/over" ]; do
            set -- COMMAND
            # procd sees that nothing could be executed before anybody can ask for the pid.
            if command -v "$1" >/dev/null; then
                "$@" & echo $! >"$state/new"; mv "$state/new" "$state/pid"
                wait $!; code=$?
            else code=127; fi
            echo $code >"$state/new"; mv "$state/new" "$state/code"; rm -f "$state/pid"; sleep 0.2
        done
        rm -f "$state/loop"
    ) >/dev/null 2>&1 &
    while [ ! -e "$state/pid" ] && [ ! -e "$state/code" ]; do sleep 0.02; done ;;
stop)
    [ -e "$state/loop" ] || { echo "Command failed: Not found" >&2; exit 0; }
    touch "$state/over"
    pid=$(cat "$state/pid" 2>/dev/null) || exit 0
    kill "$pid"
    (sleep 1; kill -9 "$pid") >/dev/null 2>&1 & ;;
restart)
    "$0" stop 2>/dev/null
    (while [ -e "$state/loop" ]; do sleep 0.02; done; "$0" start) >/dev/null 2>&1 & ;;
esac
exit 0
"""

UBUS = """#!/bin/sh
[ "$1 $2 $3" = "call service list" ] || { echo "Command failed: Invalid argument" >&2; exit 2; }
name=$(echo "$4" | sed 's/.*"name": *"\\([a-z]*\\)".*/\\1/')
state=STATE/$name
[ -d "$state" ] || { echo "{"; echo "}"; exit 0; }
if pid=$(cat "$state/pid" 2>/dev/null); then what="\\"running\\": true, \\"pid\\": $pid"
elif code=$(cat "$state/code" 2>/dev/null); then what="\\"running\\": false, \\"exit_code\\": $code"
else echo "{ \\"$name\\": {} }"; exit 0; fi
echo "{ \\"$name\\": { \\"instances\\": { \\"instance1\\": { $what } } } }"
"""

SERVICES = {
    "sleeper": ["sleep", "600"],
    "stubborn": ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"],
    "broken": ["/nonexistent/program"],
}


@contextlib.contextmanager
def lab_manager(directory: Path) -> Iterator[LabServiceManager]:
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(directory), json.dumps(SERVICES)]
    )
    socket = directory / "supervisor.sock"
    try:
        wait_for(lambda: is_served(socket))
        yield LabServiceManager(socket)
        call(socket, "shutdown")
        process.wait(10)
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def procd_manager(directory: Path) -> Iterator[ProcdServiceManager]:
    state, scripts = directory / "state", directory / "init.d"
    state.mkdir()
    scripts.mkdir()
    for name, argv in SERVICES.items():
        words = " ".join(
            f"'{word.replace(chr(39), chr(39) + chr(92) + chr(39) * 2)}'" for word in argv
        )
        text = INIT_SCRIPT.replace("STATE", str(state)).replace("NAME", name)
        write_script(scripts / name, text.replace("COMMAND", words))
    ubus = directory / "ubus"
    write_script(ubus, UBUS.replace("STATE", str(state)))
    try:
        yield ProcdServiceManager(init_directory=scripts, ubus=(str(ubus),))
    finally:
        for name in SERVICES:
            subprocess.run([str(scripts / name), "stop"], capture_output=True, timeout=10)
        wait_for(lambda: not list(state.glob("*/loop")))


def write_script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def is_served(path: Path) -> bool:
    with socketlib.socket(socketlib.AF_UNIX, socketlib.SOCK_STREAM) as probe:
        return probe.connect_ex(str(path)) == 0


async def until(
    manager: ServiceManager, name: str, is_true: Callable[[ServiceStatus], bool]
) -> None:
    async with asyncio.timeout(10):
        while not is_true(await manager.status(name)):
            await asyncio.sleep(0.02)


@pytest.fixture(params=[lab_manager, procd_manager], ids=["lab", "procd"])
def run(request: pytest.FixtureRequest, short_directory: Path) -> Iterator[Callable[[Test], None]]:
    """Call it with a coroutine function that takes a manager."""
    with request.param(short_directory) as manager:

        async def whole(test: Test) -> None:
            try:
                await test(manager)
            finally:
                await manager.close()

        yield lambda test: asyncio.run(whole(test))


class TestServiceManager:
    def test_a_started_service_runs_and_has_a_living_process(self, run):
        async def test(manager: ServiceManager) -> None:
            before = await manager.status("sleeper")
            assert (before.running, before.pid) == (False, None)
            await manager.start("sleeper")
            status = await manager.status("sleeper")
            assert status.running
            assert status.pid is not None
            os.kill(status.pid, 0)
            assert status.since == pytest.approx(time.time(), abs=2.0)

        run(test)

    def test_starting_twice_changes_nothing(self, run):
        async def test(manager: ServiceManager) -> None:
            await manager.start("sleeper")
            first = await manager.status("sleeper")
            await manager.start("sleeper")
            assert (await manager.status("sleeper")).pid == first.pid

        run(test)

    def test_a_stopped_service_is_gone_when_stop_returns_and_stays_away(self, run):
        async def test(manager: ServiceManager) -> None:
            await manager.start("sleeper")
            pid = (await manager.status("sleeper")).pid
            assert pid is not None
            await manager.stop("sleeper")
            assert not Path(f"/proc/{pid}").exists()
            await asyncio.sleep(0.5)
            assert not (await manager.status("sleeper")).running

        run(test)

    def test_stopping_a_stopped_service_is_no_error(self, run):
        async def test(manager: ServiceManager) -> None:
            await manager.stop("sleeper")
            assert not (await manager.status("sleeper")).running

        run(test)

    def test_a_process_that_ignores_the_stop_signal_is_killed(self, run):
        async def test(manager: ServiceManager) -> None:
            await manager.start("stubborn")
            await asyncio.sleep(0.2)
            started = time.monotonic()
            await manager.stop("stubborn")
            assert not (await manager.status("stubborn")).running
            assert 0.5 < time.monotonic() - started < 10.0

        run(test)

    def test_a_restart_gives_a_new_process(self, run):
        async def test(manager: ServiceManager) -> None:
            await manager.start("sleeper")
            first = (await manager.status("sleeper")).pid
            await manager.restart("sleeper")
            second = await manager.status("sleeper")
            assert second.running
            assert second.pid != first

        run(test)

    def test_a_killed_process_is_respawned_and_counted(self, run):
        async def test(manager: ServiceManager) -> None:
            await manager.start("sleeper")
            first = (await manager.status("sleeper")).pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
            await until(manager, "sleeper", lambda now: now.running and now.pid != first)
            assert (await manager.status("sleeper")).restarts == 1

        run(test)

    def test_F1_an_exit_is_noticed_at_once(self, run):
        async def test(manager: ServiceManager) -> None:
            await manager.start("sleeper")
            pid = (await manager.status("sleeper")).pid
            assert pid is not None
            ended: asyncio.Future[ServiceStatus] = asyncio.get_running_loop().create_future()
            manager.watch("sleeper", ended.set_result)
            await asyncio.sleep(0.3)
            assert not ended.done()
            killed = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            status = await asyncio.wait_for(ended, 5)
            assert time.monotonic() - killed < 1.0
            assert not status.running
            assert status.pid is None
            assert status.detail == "killed by SIGKILL"

        run(test)

    def test_a_watch_on_a_stopped_service_calls_at_once_and_only_once(self, run):
        async def test(manager: ServiceManager) -> None:
            seen: list[ServiceStatus] = []
            watch = manager.watch("sleeper", seen.append)
            async with asyncio.timeout(5):
                while not watch.done:
                    await asyncio.sleep(0.01)
            assert [status.running for status in seen] == [False]

        run(test)

    def test_a_cancelled_watch_never_calls(self, run):
        async def test(manager: ServiceManager) -> None:
            await manager.start("sleeper")
            seen: list[ServiceStatus] = []
            manager.watch("sleeper", seen.append).cancel()
            await manager.stop("sleeper")
            await asyncio.sleep(0.1)
            assert seen == []

        run(test)

    def test_an_unknown_service_is_an_error_that_names_it(self, run):
        async def test(manager: ServiceManager) -> None:
            for method in (manager.start, manager.stop, manager.status):
                with pytest.raises(ServiceError, match="nosuch"):
                    await method("nosuch")

        run(test)

    def test_a_program_that_is_not_there_is_an_error_in_time(self, run, monkeypatch):
        monkeypatch.setattr("controlone_ha.services.manager.START_TIMEOUT", 0.5)

        async def test(manager: ServiceManager) -> None:
            with pytest.raises(ServiceError, match=r"broken did not start within 0\.5 s"):
                await manager.start("broken")

        run(test)


def test_the_lab_manager_says_when_there_is_no_supervisor(short_directory):
    manager = LabServiceManager(short_directory / "supervisor.sock")
    with pytest.raises(ServiceError, match="supervisor does not answer"):
        asyncio.run(manager.status("ha"))


def test_a_hanging_supervisor_is_an_error_in_time(short_directory, monkeypatch):
    monkeypatch.setattr("controlone_ha.services.lab.TIMEOUT", 0.3)
    with lab_manager(short_directory) as manager:
        pid = int(call(short_directory / "supervisor.sock", "start", {"name": "sleeper"})["pid"])
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        freeze(parent)
        try:
            with pytest.raises(ServiceError, match="did not answer"):
                asyncio.run(manager.status("sleeper"))
        finally:
            os.kill(parent, signal.SIGCONT)


def test_a_hanging_init_script_is_an_error_in_time(short_directory, monkeypatch):
    monkeypatch.setattr("controlone_ha.services.procd.TIMEOUT", 0.3)
    write_script(short_directory / "slow", "#!/bin/sh\nexec sleep 60\n")
    manager = ProcdServiceManager(init_directory=short_directory, ubus=("false",))
    with pytest.raises(ServiceError, match=r"did not end within 0\.3 s"):
        asyncio.run(manager.start("slow"))


def test_the_manager_is_chosen_by_the_socket_of_the_supervisor(short_directory):
    paths = node_paths({"CONTROLONE_RUN_DIR": str(short_directory)})
    assert isinstance(open_manager(paths), ProcdServiceManager)
    (short_directory / "supervisor.sock").touch()
    assert isinstance(open_manager(paths), LabServiceManager)
