"""The last status, kept in ``run_dir/status.json`` (volatile) for when the daemon is down.

The daemon writes it at every change; `ha status` reads it and says how old it is. Standard library
only and light: the command imports it.
"""

from __future__ import annotations

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

WRITTEN = "written"


def write_status(path: str | os.PathLike[str], status: Mapping[str, Any], *, now: float) -> None:
    """Replace the file by ``status`` and the time ``now`` (wall clock) under the key ``written``.

    Mode 0600, by rename: a reader sees the old or the new one, never half. Raises ``OSError``.
    Not synced to storage: the directory is volatile.
    """
    temporary = f"{os.fspath(path)}.new"
    data = json.dumps({**status, WRITTEN: now}, separators=(",", ":"), ensure_ascii=False)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(data)
    os.replace(temporary, path)


def read_status(path: str | os.PathLike[str]) -> tuple[dict[str, Any], float] | None:
    """Return the last written status and when it was written; None when there is none.

    A file of another origin or torn counts as none.
    """
    try:
        with open(path, encoding="utf-8") as file:
            status = json.load(file)
            written = os.fstat(file.fileno()).st_mtime
    except (OSError, ValueError):
        return None
    if not isinstance(status, dict):
        return None
    stamp = status.pop(WRITTEN, None)
    return status, float(stamp) if isinstance(stamp, int | float) else written
