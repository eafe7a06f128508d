"""The user's own scripts at every transition: `/etc/hotplug.d/ha/*`, one at a time, in order.

Each script of the directory is run by `sh`, in the order of their names, once for every transition,
with what happened in its environment (as OpenWrt's other hotplug directories have it):

    ACTION=state FROM=standby STATE=active REASON_CODE=peer_failed REASON='m1 failed: …' PEER=m1
    ACTION=peer  FROM=alive   STATE=failed REASON_CODE=failed      REASON='…'            PEER=m1
    and NODE, ROLE, TIME (seconds since 1970) in both

Theory of operation. Transitions wait in a queue; one worker takes them. A script that does not end
within ``TIMEOUT`` is killed with everything it started; one that fails is told in the log and the
next one runs. The daemon never waits for any of this. When more than ``MOST_WAITING`` transitions
wait, the oldest is dropped and said so: the newest state matters more than a complete film.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections import deque
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger("hotplug")

TIMEOUT = 30.0
MOST_WAITING = 100
MOST_OUTPUT = 2000
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class Hotplug:
    """Runs the scripts of one directory; ``call`` returns at once."""

    def __init__(self, directory: Path, *, timeout: float = TIMEOUT) -> None:
        self.directory = directory
        self.timeout = timeout
        self.running: str = ""
        self._waiting: deque[dict[str, str]] = deque()
        self._has_work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work off transitions."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """End the running script and forget what waits."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def call(self, variables: Mapping[str, str]) -> None:
        """Have every script run for a transition described by ``variables``."""
        if len(self._waiting) >= MOST_WAITING:
            dropped = self._waiting.popleft()
            log.warning("scripts are too slow: dropped %s", dropped.get("STATE"))
        self._waiting.append({key: value.replace("\0", "") for key, value in variables.items()})
        self._has_work.set()

    async def _work(self) -> None:
        while True:
            await self._has_work.wait()
            while self._waiting:
                variables = self._waiting.popleft()
                for script in self._scripts():
                    await self._run(script, variables)
            self._has_work.clear()

    def _scripts(self) -> list[Path]:
        try:
            found = sorted(self.directory.iterdir())
        except OSError:
            return []  # no directory: nobody wants to be told
        return [path for path in found if path.is_file() and not path.name.startswith(".")]

    async def _run(self, script: Path, variables: Mapping[str, str]) -> None:
        self.running = script.name
        try:
            process = await asyncio.create_subprocess_exec(
                "/bin/sh",
                str(script),
                env={"PATH": _PATH, **variables},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            log.error("%s: %s", script, error)
            return
        try:
            output = await asyncio.wait_for(_read(process), self.timeout)
            if process.returncode:
                text = output.decode("utf-8", "replace").strip()
                log.error("%s: exit code %d: %s", script, process.returncode, text)
        except TimeoutError:
            log.error("%s: did not end within %g s, killed", script, self.timeout)
        finally:
            self.running = ""
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                await process.wait()


async def _read(process: asyncio.subprocess.Process) -> bytes:
    """Return the end of what the script printed, however much it was, once it has ended."""
    assert process.stdout is not None
    kept = b""
    reader = asyncio.ensure_future(_drain(process.stdout))
    await process.wait()
    # What it left running in the background may hold the pipe open: not waited for.
    with contextlib.suppress(TimeoutError):
        kept = await asyncio.wait_for(asyncio.shield(reader), 0.2)
    reader.cancel()
    return kept[-MOST_OUTPUT:]


async def _drain(stream: asyncio.StreamReader) -> bytes:
    kept = b""
    while data := await stream.read(65536):
        kept = (kept + data)[-MOST_OUTPUT:]
    return kept
