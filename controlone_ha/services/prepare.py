"""Has the Conference Server's configuration generated ahead, so that a failover starts Asterisk
alone.

A standby does at boot, and after every change of its settings, what would otherwise stand between a
failure and the first answered call. It is a short child process: what it loads leaves with it.
"""

from __future__ import annotations

import asyncio
import logging
import sys

log = logging.getLogger("services")

TIMEOUT = 30.0


async def prepare_conference() -> bool:
    """Run ``controlone_ha.conference prepare``; return whether it succeeded, log why it did not."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "controlone_ha.conference",
        "prepare",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(child.communicate(), TIMEOUT)
    except TimeoutError:
        child.kill()
        await child.wait()
        log.error("conference: not prepared within %g s", TIMEOUT)
        return False
    if child.returncode:
        text = output.decode("utf-8", "replace").strip().rpartition("\n")[2]
        log.error("conference: cannot be prepared: %s", text)
    return child.returncode == 0
