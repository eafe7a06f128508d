"""Giving memory back to the system that a burst of work has left behind.

glibc keeps what was freed in the middle of its heap: after the keys of the links were exchanged and
the files were looked at for the first time, that is more than a megabyte. musl (OpenWrt) gives it
back by itself and has no such function.
"""

from __future__ import annotations

import ctypes
import gc


def trim() -> bool:
    """Collect garbage and give free pages back; False where the C library has no way to ask."""
    gc.collect()
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release is None:
        return False
    release(0)
    return True
