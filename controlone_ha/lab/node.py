"""One node of a lab, from outside: boot it, run commands in it, break it, look at it.

A ``LabNode`` holds no state of its own: what it knows it reads from the node's directory and from
the supervisor's socket, so that any process can use it (the test that built the lab, or a command
later).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal as signals
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from controlone_ha.errors import LabError
from controlone_ha.jsonrpc import RpcError, call
from controlone_ha.lab import namespaces
from controlone_ha.lab.init import PATH, BootSpec, log_directory, outside
from controlone_ha.lab.licences import LAB_KEY
from controlone_ha.lab.network import LabNetwork
from controlone_ha.lab.service_state import ServiceDefinition
from controlone_ha.lab.shims import PACKAGE_PARENT
from controlone_ha.lab.topology import NodeSpec
from controlone_ha.peers.licences import KEY_VARIABLE

SPEC_FILE = "spec.json"
INIT_FILE = "init.json"
INIT_LOG = "init.log"
BOOT_TIMEOUT = 90.0


def node_environment() -> dict[str, str]:
    """Return the environment of everything that runs in a node."""
    environment = {
        "PATH": PATH,
        "HOME": "/root",
        "USER": "root",
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
        "TERM": os.environ.get("TERM", "dumb"),
        "PYTHONPATH": str(PACKAGE_PARENT),
        "PYTHONUNBUFFERED": "1",
        KEY_VARIABLE: LAB_KEY,
    }
    for name, value in os.environ.items():
        if name.startswith("CONTROLONE_") and not name.endswith("_DIR"):
            environment[name] = value  # where the real parts are
    return environment


class LabNode:
    """A node that may be up or down. All times in seconds; errors are ``LabError``."""

    def __init__(self, spec: NodeSpec, directory: Path, network: LabNetwork) -> None:
        self.spec = spec
        self.directory = directory
        self._network = network

    def __repr__(self) -> str:
        return f"LabNode({self.name!r}, {self.address})"

    @property
    def name(self) -> str:
        """The node's name, which is its host name too."""
        return self.spec.name

    @property
    def address(self) -> str:
        """The node's IPv4 address."""
        return self.spec.address

    # -- life of the node --------------------------------------------------------------------

    @property
    def init(self) -> tuple[int, int] | None:
        """PID (seen from outside) and start time of the node's init; None when the node is down."""
        try:
            record = json.loads((self.directory / INIT_FILE).read_text())
        except (OSError, ValueError):
            return None
        pid, started = record["pid"], record["started"]
        return (pid, started) if namespaces.is_alive(pid, started) else None

    @property
    def is_up(self) -> bool:
        """Whether the node runs (a frozen one does)."""
        return self.init is not None

    def _running_init(self) -> int:
        init = self.init
        if init is None:
            raise LabError(f"node {self.name} is down; boot it first")
        return init[0]

    def prepare(self, boot: BootSpec) -> None:
        """Write down how the node boots, for now and for every later boot."""
        self.directory.mkdir(parents=True, exist_ok=True)
        spec_file = self.directory / SPEC_FILE
        spec_file.touch(mode=0o600)
        spec_file.write_text(json.dumps(boot.to_json(), indent=1))

    def boot_spec(self) -> BootSpec:
        """Return how the node boots."""
        try:
            return BootSpec.from_json(json.loads((self.directory / SPEC_FILE).read_text()))
        except FileNotFoundError:
            raise LabError(f"node {self.name} has never been prepared") from None

    def set_services(self, services: Sequence[ServiceDefinition]) -> None:
        """Change what starts at the next boot."""
        self.prepare(replace(self.boot_spec(), services=tuple(services)))

    def start_booting(self, lifeline: int | None = None) -> subprocess.Popen[str]:
        """Begin to boot; pass what is returned to ``finish_booting``. Nodes boot in parallel so.

        ``lifeline``: a descriptor (of a pipe's reading end); the node dies when its writers are
        gone.
        """
        if self.is_up:
            raise LabError(f"node {self.name} is up already")
        (self.directory / INIT_FILE).unlink(missing_ok=True)
        command = [sys.executable, "-P", "-m", "controlone_ha.lab.init"]
        command.append(str(self.directory / SPEC_FILE))
        if lifeline is not None:
            command += ["--lifeline", str(lifeline)]
        environment = {**os.environ, "PYTHONPATH": str(PACKAGE_PARENT), "PYTHONUNBUFFERED": "1"}
        with open(self.directory / INIT_LOG, "a", encoding="utf-8") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                pass_fds=() if lifeline is None else (lifeline,),
                start_new_session=True,
                text=True,
            )

    def finish_booting(self, process: subprocess.Popen[str]) -> None:
        """Wait until the node's supervisor answers; raise ``LabError`` with the reason if not."""
        try:
            code = process.wait(BOOT_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self.kill()
            raise LabError(f"node {self.name} did not boot in {BOOT_TIMEOUT:.0f} s") from None
        if code != 0:
            lines = (self.directory / INIT_LOG).read_text().strip().splitlines()
            raise LabError(f"node {self.name} did not boot: {lines[-1] if lines else code}")

    def boot(self, lifeline: int | None = None) -> None:
        """Boot the node, as after a power cut: persistent directories kept, /run and /tmp empty."""
        self.finish_booting(self.start_booting(lifeline))

    def kill(self) -> None:
        """End every process of the node at once (SIGKILL); returns when they are gone."""
        init = self.init
        if init is not None and not namespaces.kill_and_wait(init[0], started=init[1]):
            raise LabError(f"node {self.name} (init {init[0]}) does not die")

    def shut_down(self, timeout: float = 15.0) -> None:
        """Let the supervisor stop the services one by one, then end the node."""
        descriptor = os.pidfd_open(self._running_init())
        try:
            self.call("shutdown")
            select.select([descriptor], [], [], timeout)
        finally:
            os.close(descriptor)
        self.kill()

    # -- its cable -----------------------------------------------------------------------------

    def cut(self) -> None:
        """Pull the node's cable: silence for the others, carrier lost for the node."""
        self._network.cut(self.name)

    def heal(self) -> None:
        """Put the cable back."""
        self._network.heal(self.name)

    def impair(
        self, *, delay_ms: float = 0.0, jitter_ms: float = 0.0, loss_percent: float = 0.0
    ) -> None:
        """Give the node a bad cable: each way late, and lossy. All 0: a good one again."""
        self._network.impair(
            self.name, delay_ms=delay_ms, jitter_ms=jitter_ms, loss_percent=loss_percent
        )

    @property
    def is_cut(self) -> bool:
        """Whether the cable is pulled."""
        return self._network.is_cut(self.name)

    # -- running something in it -------------------------------------------------------------

    def spawn(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[Any]:
        """Start a program in all namespaces of the node; ``options`` are those of ``Popen``.

        ``kill`` of what is returned ends the program. It runs in a session of its own:
        ``os.killpg(process.pid, …)`` reaches what it has started too.
        """
        init = self._running_init()
        command = ["nsenter", "-t", str(init), "-m", "-u", "-i", "-n", "-p", "--"]
        # nsenter waits for the program: who kills nsenter (``Popen.kill``) means the program.
        command += ["setpriv", "--pdeathsig", "KILL", "--", *argv]
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("start_new_session", True)
        return subprocess.Popen(command, env={**node_environment(), **(env or {})}, **options)

    def exec(
        self,
        argv: Sequence[str],
        *,
        input: str | None = None,
        timeout: float = 30.0,
        env: Mapping[str, str] | None = None,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the node to its end and return what it printed (text).

        Raises ``LabError`` when it takes longer than ``timeout`` (it is killed then) and, with
        ``check``, when it fails.
        """
        process = self.spawn(
            argv,
            env=env,
            stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            output, errors = process.communicate(input, timeout)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signals.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=5.0)
            raise LabError(
                f"{self.name}: {' '.join(argv)} did not end within {timeout:g} s"
            ) from None
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signals.SIGKILL)
            process.wait()
            raise
        done = subprocess.CompletedProcess(list(argv), process.returncode, output, errors)
        if check and done.returncode != 0:
            detail = (errors or output).strip() or "no output"
            raise LabError(f"{self.name}: {' '.join(argv)} gave {done.returncode}: {detail}")
        return done

    # -- its services ------------------------------------------------------------------------

    def call(self, method: str, *, timeout: float = 10.0, **params: Any) -> Any:
        """Ask the node's supervisor; raise ``LabError``."""
        socket = outside(self.directory, "/var/run/controlone/supervisor.sock")
        try:
            return call(socket, method, params, timeout=timeout)
        except RpcError as error:
            raise LabError(f"{self.name}: {error}") from error
        except OSError as error:
            raise LabError(
                f"{self.name}: the supervisor does not answer ({error}); is the node up?"
            ) from error

    def services(self) -> dict[str, dict[str, Any]]:
        """Return the status of every service, by name."""
        found: dict[str, dict[str, Any]] = self.call("list")
        return found

    def service_status(self, name: str) -> dict[str, Any]:
        """Return running, phase, pid (in the node), since (Unix), restarts, last_exit, held."""
        found: dict[str, Any] = self.call("status", name=name)
        return found

    def start_service(self, name: str) -> None:
        """Start a service."""
        self.call("start", name=name)

    def stop_service(self, name: str) -> None:
        """Order a service to stop; it may take up to its ``term_timeout``."""
        self.call("stop", name=name)

    def restart_service(self, name: str) -> None:
        """Order a service to restart."""
        self.call("restart", name=name)

    def define_service(self, definition: ServiceDefinition, *, start: bool = True) -> None:
        """Add or replace a service until the next boot."""
        self.call("define", service=definition.to_json(), start=start)

    def kill_service(self, name: str, signal: str = "SIGKILL") -> None:
        """Send a signal to the service's main process; the supervisor respawns it as defined."""
        self.call("signal", name=name, signal=signal)

    def hold(self, name: str) -> None:
        """Kill a service for good: nobody can start it until ``release``."""
        self.call("hold", name=name)
        self.call("signal", name=name, signal="SIGKILL")

    def release(self, name: str, *, start: bool = True) -> None:
        """Undo ``hold``, and start the service."""
        self.call("release", name=name)
        if start:
            self.call("start", name=name)

    def freeze(self, name: str | None = None) -> None:
        """SIGSTOP the main process of a service, or with no name every process of the node."""
        self._stop_or_continue(name, signals.SIGSTOP)

    def thaw(self, name: str | None = None) -> None:
        """Undo ``freeze``."""
        self._stop_or_continue(name, signals.SIGCONT)

    def _stop_or_continue(self, name: str | None, number: signals.Signals) -> None:
        if name is not None:
            self.call("signal", name=name, signal=number.name)
            return
        init = self._running_init()
        pids = namespaces.processes_in(Path(f"/proc/{init}/ns/pid_for_children"), "pid")
        # The init goes first when freezing and last when thawing: it respawns nothing in between.
        ordered = sorted(pids, key=lambda pid: (pid == init) == (number == signals.SIGCONT))
        for pid in ordered:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    # -- looking at it -----------------------------------------------------------------------

    def path(self, inside: str) -> Path:
        """Return where a path of the node's own directories (``init.PERSISTENT``) lies outside."""
        return outside(self.directory, inside)

    def log_path(self, name: str) -> Path:
        """Return the file with what a service wrote."""
        return log_directory(self.directory) / f"{name}.log"

    def read_log(self, name: str) -> str:
        """Return what a service wrote since the lab was made; empty if it never ran."""
        try:
            return self.log_path(name).read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def listens(self, port: int) -> bool:
        """Return whether something listens on a TCP port of the node, without connecting."""
        init = self._running_init()
        suffix = f":{port:04X}"
        for table in ("tcp", "tcp6"):
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{init}/net/{table}").read_text().splitlines()[1:]:
                    fields = line.split()
                    if fields[3] == "0A" and fields[1].endswith(suffix):
                        return True
        return False

    def wait_until_listening(self, port: int, timeout: float = 20.0) -> None:
        """Return when something listens on a TCP port; raise ``LabError`` after ``timeout``."""
        limit = time.monotonic() + timeout
        while not self.listens(port):
            if time.monotonic() > limit:
                raise LabError(f"{self.name}: nothing listens on TCP/{port} after {timeout:g} s")
            time.sleep(0.02)
