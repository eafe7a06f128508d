"""Services under procd: driven by ``/etc/init.d/NAME``, seen by ``ubus call service list``.

Facts relied on (OpenWrt 24.10): an init script's ``stop`` and ``restart`` return at once and the
old process may live until ``term_timeout``; ``stop`` of a stopped service prints "Command failed:
Not found" and returns 0; ``service list`` shows every instance with ``running``, and with ``pid``
or ``exit_code``. procd counts no respawns and tells no times: restarts are counted here, from PIDs
that changed, and ``since`` is taken from the process itself. A service with several instances runs
when all of them do; the PID is that of the first.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from controlone_ha.errors import ServiceError
from controlone_ha.services.manager import ServiceManager, ServiceStatus

TIMEOUT = 10.0

ORDERED = {"CONTROLONE_ORDERED_BY": "ha"}
"""Tells the init scripts of Console Server and Conference Server that `ha` itself orders: they
start nothing that does not run for anybody else."""


class ProcdServiceManager(ServiceManager):
    """Drives procd. Programs are run without a shell and killed when they hang."""

    def __init__(
        self, *, init_directory: Path = Path("/etc/init.d"), ubus: Sequence[str] = ("ubus",)
    ) -> None:
        super().__init__()
        self._init_directory = init_directory
        self._ubus = tuple(ubus)
        self._pids: dict[str, int] = {}
        self._restarts: dict[str, int] = {}

    async def _order(self, name: str, verb: str) -> None:
        script = self._init_directory / name
        if not script.exists():
            raise ServiceError(f"no service {name!r}: {script} does not exist")
        if verb in ("start", "restart"):
            self._pids.pop(name, None)  # the new process is ordered, no respawn
        code, _output, errors = await _run((str(script), verb), {**os.environ, **ORDERED})
        if code != 0:
            raise ServiceError(f"{script} {verb} gave {code}: {errors.strip() or 'no message'}")

    async def status(self, name: str) -> ServiceStatus:
        """Return the state of a service; one with a script that procd does not know is off."""
        code, output, errors = await _run(
            (*self._ubus, "call", "service", "list", json.dumps({"name": name}))
        )
        if code != 0:
            raise ServiceError(f"ubus call service list gave {code}: {errors.strip()}")
        status = parse_service_list(output, name)
        if status is None:
            if not (self._init_directory / name).exists():
                raise ServiceError(f"no service {name!r}: procd does not know it")
            return ServiceStatus(running=False)
        return self._completed(name, status)

    def _completed(self, name: str, status: ServiceStatus) -> ServiceStatus:
        if status.pid is not None:
            before = self._pids.get(name)
            if before is not None and before != status.pid:
                self._restarts[name] = self._restarts.get(name, 0) + 1
            self._pids[name] = status.pid
        return ServiceStatus(
            running=status.running,
            pid=status.pid,
            since=_started(status.pid) if status.pid is not None else None,
            restarts=self._restarts.get(name, 0),
            detail=status.detail,
        )


def parse_service_list(text: str, name: str) -> ServiceStatus | None:
    """Return what ``ubus call service list`` says of a service; None if procd does not know it.

    Raises ``ServiceError`` when the text is not what procd prints.
    """
    try:
        known = json.loads(text or "{}").get(name)
        if known is None:
            return None
        instances: list[dict[str, Any]] = list(known.get("instances", {}).values())
        if not instances:
            return ServiceStatus(running=False)
        running = [instance for instance in instances if instance.get("running")]
        codes = [item["exit_code"] for item in instances if item.get("exit_code") is not None]
        return ServiceStatus(
            running=len(running) == len(instances),
            pid=int(running[0]["pid"]) if running else None,
            detail=_describe(int(codes[0])) if codes else "",
        )
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ServiceError(f"ubus call service list: not understood: {error}") from error


def _describe(code: int) -> str:
    """Return procd's ``exit_code`` in words; it reports 128 + signal, as a shell does."""
    if code > 128:
        import signal

        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(code - 128).name}"
    return f"exit code {code}"


def _started(pid: int) -> float | None:
    """Return the Unix time at which a process started; None if it is gone (proc(5), stat)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return time.time() - uptime + int(fields[19]) / os.sysconf("SC_CLK_TCK")


async def _run(
    argv: Sequence[str], environment: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    """Run a program to its end; raise ``ServiceError`` if it cannot be started or hangs."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise ServiceError(f"cannot run {argv[0]}: {error.strerror}") from error
    try:
        output, errors = await asyncio.wait_for(process.communicate(), TIMEOUT)
    except TimeoutError:
        raise ServiceError(f"{' '.join(argv)} did not end within {TIMEOUT:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace"), errors.decode(errors="replace")
