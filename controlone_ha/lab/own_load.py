"""The processor figures of one lab node: a /proc/stat that counts the node's own processes only.

All nodes share the machine's processors, so the real /proc/stat tells every node the load of all of
them, and one busy node would look like five. Here the init adds up what the processes of its PID
namespace have used (children they have waited for included) and writes the file that is mounted
over the node's /proc/stat. The node seems to have all processors of the machine, each as idle as
its own processes leave it. Pure but for reading /proc; the supervisor calls it twice a second.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

INTERVAL = 0.5


def used_ticks(proc: Path = Path("/proc")) -> int:
    """Return the clock ticks used by all processes in ``proc`` (proc(5), stat: 14 to 17)."""
    total = 0
    for entry in os.listdir(proc):
        if entry.isdigit():
            try:
                with open(proc / entry / "stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            total += sum(int(value) for value in fields[11:15])
    return total


def render(real: str, *, processors: int, ticks: int, elapsed_ticks: int) -> str:
    """Return the text of /proc/stat for a node that used ``ticks`` of its time.

    ``real`` is the machine's file, whose other lines are kept. ``elapsed_ticks`` is the time since
    the node's boot, on one processor. Use is spread evenly over the processors.
    """
    ticks = min(ticks, elapsed_ticks * processors)
    idle = elapsed_ticks * processors - ticks
    lines = [f"cpu  {ticks} 0 0 {idle} 0 0 0 0 0 0"]
    lines += [
        f"cpu{number} {ticks // processors} 0 0 {idle // processors} 0 0 0 0 0 0"
        for number in range(processors)
    ]
    lines += [line for line in real.splitlines() if not line.startswith("cpu")]
    return "\n".join(lines) + "\n"


class OwnLoad:
    """Keeps the node's /proc/stat. ``real`` and ``target`` are descriptors: theirs and ours."""

    def __init__(self, real: int, target: int) -> None:
        self._real = real
        self._target = target
        self._tick = os.sysconf("SC_CLK_TCK")
        self._processors = os.cpu_count() or 1
        self._started = time.monotonic()
        self._used = 0
        self._seen = 0

    def refresh(self) -> None:
        """Write the figures of now. They never go back, as those of the kernel do not.

        The sum does, when a process ends whose parent is outside the node.
        """
        seen = used_ticks()
        self._used += max(0, seen - self._seen)
        self._seen = seen
        text = render(
            os.pread(self._real, 1 << 16, 0).decode(),
            processors=self._processors,
            ticks=self._used,
            elapsed_ticks=int((time.monotonic() - self._started) * self._tick),
        ).encode()
        os.pwrite(self._target, text, 0)
        os.ftruncate(self._target, len(text))
