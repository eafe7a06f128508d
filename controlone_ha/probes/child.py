"""What the child processes of the probes share: their environment, and that none is left behind."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import controlone_ha

_log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1


def child_environment() -> dict[str, str]:
    """Return the environment in which ``python -m controlone_ha…`` finds this very package."""
    root = str(Path(controlone_ha.__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    # One arena: threads that work now and then shall not cost a heap each.
    return {**os.environ, "PYTHONPATH": path, "MALLOC_ARENA_MAX": "1"}


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies; exit if it has died already."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        _log.warning("prctl: %s", os.strerror(ctypes.get_errno()))
    if os.getppid() != parent:
        os._exit(0)
