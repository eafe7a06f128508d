"""Waiting for what happens in its own time, and freezing a process so that it is truly frozen."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def wait_for(is_true: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait, blocking, until ``is_true()``; fail when it does not come true in time."""
    limit = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < limit, f"not within {seconds} s"
        time.sleep(0.01)


async def until(is_true: Callable[[], Any], seconds: float = 30.0) -> float:
    """Wait in the event loop until ``is_true()``; return the seconds it took; fail when late."""
    start = time.monotonic()
    while not is_true():
        assert time.monotonic() - start < seconds, f"not within {seconds} s"
        await asyncio.sleep(0.005)
    return time.monotonic() - start


def freeze(pid: int) -> None:
    """Stop a process and wait until each of its threads stands still (a signal takes its time)."""
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: set(_states(pid)) <= {"T"})


def thaw(pid: int) -> None:
    """Let a frozen process go on."""
    os.kill(pid, signal.SIGCONT)


def _states(pid: int) -> list[str]:
    return [
        stat.read_text().rpartition(")")[2].split()[0]
        for stat in Path(f"/proc/{pid}/task").glob("*/stat")
    ]
