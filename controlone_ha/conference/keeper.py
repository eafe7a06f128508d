"""The node's own live calls on disk, for a controller that is restarted with calls up.

One JSON line for each change, appended; the file is rewritten with the live calls alone when it has
grown. It lies in the run directory (memory on OpenWrt): it has to outlive this process, not the
machine, and flash must not be written with every call.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import IO

from controlone_ha.core.calls import Call, CallState, call_from_json

MANY_LINES = 2000


class Keeper:
    """Keeps the calls of this node. A disk that cannot be written loses the copy, not the calls."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._calls: dict[str, Call] = {}
        self._lines = 0
        self._file: IO[bytes] | None = None
        self.engine = ""
        """Identity of the engine the calls are in."""

    def load(self) -> tuple[Call, ...]:
        """Return the calls that were live when the last controller ended."""
        try:
            lines = self._path.read_bytes().splitlines()
        except OSError:
            lines = []
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                if "engine" in entry:
                    self.engine = str(entry["engine"])
                    continue
                self._take(call_from_json(entry))
        self._rewrite()
        return tuple(self._calls.values())

    def set_engine(self, identity: str) -> None:
        """Note which engine the calls are in from now on."""
        self.engine = identity
        self._append({"engine": identity})

    def save(self, call: Call) -> None:
        """Keep the newest version of a call; one that has ended is dropped."""
        self._take(call)
        self._append(call.to_json())
        if self._lines > MANY_LINES + 4 * len(self._calls):
            self._rewrite()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _take(self, call: Call) -> None:
        if call.state is CallState.ENDED:
            self._calls.pop(call.id, None)
        else:
            self._calls[call.id] = call

    def _append(self, entry: object) -> None:
        with contextlib.suppress(OSError):
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
                self._file = os.fdopen(os.open(self._path, flags, 0o600), "ab", buffering=0)
            self._file.write(json.dumps(entry, separators=(",", ":")).encode() + b"\n")
            self._lines += 1

    def _rewrite(self) -> None:
        self.close()
        self._lines = 0
        temporary = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
            path, self._path = self._path, temporary
            try:
                self._append({"engine": self.engine})
                for call in self._calls.values():
                    self._append(call.to_json())
            finally:
                self._path = path
                self.close()
            os.replace(temporary, self._path)
