"""Which files of an item a node no longer keeps: too old, or too many bytes. Pure."""

from __future__ import annotations

from collections.abc import Iterable


def expired(
    files: Iterable[tuple[str, int, float]], *, now: float, max_age_s: float, max_bytes: int
) -> list[str]:
    """Return the paths to remove, the oldest first.

    files: (path, size, mtime in seconds), the oldest first. ``max_age_s`` and ``max_bytes`` 0: no
    limit. A file from the future is as young as one can be.
    """
    known = list(files)
    gone = []
    excess = sum(size for _path, size, _mtime in known) - max_bytes if max_bytes else 0
    for path, size, mtime in known:
        too_old = bool(max_age_s) and now - mtime > max_age_s
        if too_old or excess > 0:
            gone.append(path)
            excess -= size
    return gone
