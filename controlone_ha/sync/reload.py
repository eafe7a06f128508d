"""Reload commands of the items: one run for a batch of files, never two of an item at once.

The command is run by `sh` and finds in its environment: ITEM, FILES (how many; 0: the state of the
node has changed), NODE, ROLE, STATE. A job that only the active node may run looks at STATE.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from typing import Final

from controlone_ha.sync.items import Item

log = logging.getLogger("sync")

GATHER: Final = 0.1
"""Seconds that a command waits for further files of the same batch."""
TIMEOUT: Final = 60.0


class Reloads:
    """Runs the commands; ``problems`` (item -> sentence) is what the last run left. ``on_done`` is
    told the name of an item for which nothing more is to be run.
    """

    def __init__(
        self,
        environment: Callable[[], dict[str, str]],
        on_done: Callable[[str], object] = lambda _name: None,
    ) -> None:
        self.problems: dict[str, str] = {}
        self._on_done = on_done
        self._environment = environment
        self._needed: dict[str, tuple[Item, int]] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    def need(self, item: Item, paths: list[str]) -> None:
        """Have the item's command run soon."""
        if not item.reload:
            return
        _item, before = self._needed.get(item.name, (item, 0))
        self._needed[item.name] = (item, before + len(paths))
        if item.name not in self._running:
            self._running[item.name] = asyncio.get_running_loop().create_task(self._work(item.name))

    async def stop(self) -> None:
        """End what runs."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, name: str) -> None:
        try:
            while name in self._needed:
                await asyncio.sleep(GATHER)
                item, count = self._needed.pop(name)
                problem = await self._run(item, count)
                if problem:
                    self.problems[name] = problem
                    log.error("%s", problem)
                else:
                    self.problems.pop(name, None)
            self._on_done(name)
        finally:
            self._running.pop(name, None)

    async def _run(self, item: Item, count: int) -> str:
        try:
            process = await asyncio.create_subprocess_exec(
                "/bin/sh",
                "-c",
                item.reload,
                env={
                    **os.environ,
                    **self._environment(),
                    "ITEM": item.name,
                    "FILES": str(count),
                },
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            return f"{item.name}: `{item.reload}` cannot be run: {error.strerror}"
        try:
            code = await asyncio.wait_for(process.wait(), TIMEOUT)
        except TimeoutError:
            return f"{item.name}: `{item.reload}` did not end within {TIMEOUT:g} s, killed"
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
        return f"{item.name}: `{item.reload}` gave {code}" if code else ""
