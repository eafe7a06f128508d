"""The init of a lab node: what procd is on OpenWrt. Standard library only.

It runs as PID 1 of the node's PID namespace: starts, respawns and stops the services, reaps every
process that lost its parent, and answers JSON-RPC on ``run_dir/supervisor.sock``. As it is the init
of its namespace, killing it from outside kills every process of the node at once: a node's sudden
death.

Methods: ``list {}``, ``status {name}``, ``start|stop|restart|reload {name}``, ``signal {name,
signal}``, ``hold {name}``, ``release {name}``, ``define {service, start}``, ``remove {name}``,
``shutdown {}``. All return at once, with the status of the service (``list``: of all); as with
procd, `stop` does not wait.

What a service writes goes to ``<log directory>/<name>.log``; a log past ``MAX_LOG`` is cut to
nothing. It is not a general init: no dependencies, no triggers, no user switching.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from controlone_ha.errors import LabError
from controlone_ha.jsonrpc import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    Connection,
    RpcError,
    serve_unix,
)
from controlone_ha.lab.own_load import INTERVAL as LOAD_INTERVAL
from controlone_ha.lab.own_load import OwnLoad
from controlone_ha.lab.service_state import LAUNCH, ServiceDefinition, ServiceState, signal_number

MAX_LOG = 32 << 20
_LOG_CHECK = 10.0


class Supervisor:
    """The services of one node. ``run`` returns when the node shuts down."""

    def __init__(
        self,
        definitions: Sequence[ServiceDefinition],
        *,
        socket: Path,
        log_directory: Path,
        environment: Mapping[str, str],
        own_load: OwnLoad | None = None,
    ) -> None:
        self._services = {item.name: ServiceState(item) for item in definitions}
        self._socket = socket
        self._log_directory = log_directory
        self._environment = dict(environment)
        self._own_load = own_load
        self._by_pid: dict[int, ServiceState] = {}
        self._since: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._over = asyncio.Event()
        self._stopping_all = False

    async def run(self, *, lifeline: int | None = None, ready: int | None = None) -> None:
        """Start what starts at boot; serve until ``shutdown`` or SIGTERM.

        ``lifeline`` is a descriptor whose end of file means that the owner of the lab has died:
        then the node dies as well, at once. A byte is written to ``ready`` when the socket is
        served.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._shut_down)
        if lifeline is not None:
            loop.add_reader(lifeline, _die_with_owner, lifeline)
        self._log_directory.mkdir(parents=True, exist_ok=True)
        server, connections = await serve_unix(self._socket, self._serve)
        for state in list(self._services.values()):
            if state.definition.at_boot:
                self._apply(state, state.start(time.monotonic()))
        loop.call_later(_LOG_CHECK, self._check_logs)
        self._refresh_load()
        if ready is not None:
            os.write(ready, b"ready\n")
            os.close(ready)
        try:
            await self._over.wait()
        finally:
            server.close()
            for connection in list(connections):
                await connection.close()
            self._socket.unlink(missing_ok=True)

    # -- processes ---------------------------------------------------------------------------

    def _apply(self, state: ServiceState, action: int | None) -> None:
        if action == LAUNCH:
            self._launch(state)
        elif action is not None and state.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(state.pid, action)
                if action != signal.SIGKILL and self._stopping_all:
                    os.kill(state.pid, signal.SIGCONT)  # a frozen one could not obey
        self._set_timer()

    def _launch(self, state: ServiceState) -> None:
        definition = state.definition
        now = time.monotonic()
        try:
            with open(self._log_directory / f"{definition.name}.log", "ab") as log:
                process = subprocess.Popen(
                    definition.argv,
                    env={**self._environment, **definition.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    cwd="/",
                )
        except OSError as error:
            self._apply(state, state.failed(now, f"cannot start {definition.argv[0]}: {error}"))
            return
        process.returncode = 0  # reaped by _reap alone: Popen must not wait for it
        state.launched(now, process.pid)
        self._by_pid[process.pid] = state
        self._since[definition.name] = time.time()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            state = self._by_pid.pop(pid, None)
            if state is not None:
                self._since[state.definition.name] = time.time()
                self._apply(state, state.exited(time.monotonic(), status))
        if self._stopping_all and not self._by_pid:
            self._over.set()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadlines = [state.deadline for state in self._services.values() if state.deadline]
        if deadlines:
            delay = max(0.0, min(deadlines) - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = time.monotonic()
        for state in list(self._services.values()):
            self._apply(state, state.tick(now))
        self._set_timer()

    def _shut_down(self) -> None:
        self._stopping_all = True
        for state in reversed(list(self._services.values())):
            self._apply(state, state.stop(time.monotonic()))
        if not self._by_pid:
            self._over.set()

    def _refresh_load(self) -> None:
        if self._own_load is not None:
            self._own_load.refresh()
            asyncio.get_running_loop().call_later(LOAD_INTERVAL, self._refresh_load)

    def _check_logs(self) -> None:
        for path in self._log_directory.glob("*.log"):
            with contextlib.suppress(OSError):
                if path.stat().st_size > MAX_LOG:
                    os.truncate(path, 0)
        asyncio.get_running_loop().call_later(_LOG_CHECK, self._check_logs)

    # -- the socket --------------------------------------------------------------------------

    async def _serve(self, _connection: Connection, method: str, params: dict[str, Any]) -> Any:
        if method == "list":
            return {name: self._status(name) for name in self._services}
        if method == "shutdown":
            asyncio.get_running_loop().call_soon(self._shut_down)
            return {}
        if method == "define":
            definition = ServiceDefinition.from_json(params.get("service") or {})
            return self._define(definition, start=bool(params.get("start")))
        state = self._find(params)
        now = time.monotonic()
        match method:
            case "status":
                pass
            case "start" | "stop" | "restart":
                if self._stopping_all and method != "stop":
                    raise LabError("the node is shutting down")
                self._apply(state, getattr(state, method)(now))
            case "reload":
                if state.definition.reload_signal and state.pid is not None:
                    self._apply(state, signal_number(state.definition.reload_signal))
            case "signal":
                self._apply(state, signal_number(params.get("signal", "")))
            case "hold":
                state.hold()
            case "release":
                state.release()
            case "remove":
                if state.phase in ("running", "stopping"):
                    raise LabError(f"service {state.definition.name} runs; stop it first")
                del self._services[state.definition.name]
                self._set_timer()
                return {}
            case _:
                raise RpcError(METHOD_NOT_FOUND, f"no method {method!r} here")
        return self._status(state.definition.name)

    def _define(self, definition: ServiceDefinition, *, start: bool) -> dict[str, Any]:
        known = self._services.get(definition.name)
        if known is None:
            known = self._services[definition.name] = ServiceState(definition)
        else:
            known.definition = definition  # what runs goes on; the next start uses it
        if start:
            self._apply(known, known.start(time.monotonic()))
        return self._status(definition.name)

    def _find(self, params: Mapping[str, Any]) -> ServiceState:
        name = params.get("name")
        if not isinstance(name, str):
            raise RpcError(INVALID_PARAMS, "the name of a service is missing")
        try:
            return self._services[name]
        except KeyError:
            raise LabError(f"no service {name!r} on this node") from None

    def _status(self, name: str) -> dict[str, Any]:
        return {**self._services[name].status(), "since": self._since.get(name)}


def _die_with_owner(lifeline: int) -> NoReturn:
    """End the node at once: the kernel kills what is left when the init of a namespace exits."""
    del lifeline
    os._exit(1)
