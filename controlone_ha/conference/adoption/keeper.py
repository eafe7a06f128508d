"""The adopted legs on disk, for a controller that is restarted with calls up.

One JSON line for each change, appended; the file is rewritten with what is live when it has grown.
It lies in the run directory (memory on OpenWrt), as ``conference.keeper`` says.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

MANY_LINES = 2000


class AdoptionKeeper:
    """Keeps documents by name. A disk that cannot be written loses the copy, not the calls."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._documents: dict[str, Mapping[str, Any]] = {}
        self._lines = 0
        self._file: IO[bytes] | None = None

    def load(self) -> tuple[Mapping[str, Any], ...]:
        """Return what was live when the last controller ended; lines that are none are skipped."""
        try:
            lines = self._path.read_bytes().splitlines()
        except OSError:
            lines = []
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                if "over" in entry:
                    self._documents.pop(str(entry["over"]), None)
                else:
                    self._documents[str(entry["name"])] = entry
        self._rewrite()
        return tuple(self._documents.values())

    def save(self, document: Mapping[str, Any]) -> None:
        """Keep the newest state of a leg."""
        self._documents[str(document["name"])] = document
        self._append(document)

    def remove(self, name: str) -> None:
        """Note that a leg is over."""
        if self._documents.pop(name, None) is not None:
            self._append({"over": name})

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, entry: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):
            if self._file is None:
                self._file = self._open(self._path)
            self._write(self._file, entry)
            self._lines += 1
        if self._lines > MANY_LINES + 4 * len(self._documents):
            self._rewrite()

    @staticmethod
    def _open(path: Path) -> IO[bytes]:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        return os.fdopen(os.open(path, flags, 0o600), "ab", buffering=0)

    @staticmethod
    def _write(file: IO[bytes], entry: Mapping[str, Any]) -> None:
        file.write(json.dumps(entry, separators=(",", ":")).encode() + b"\n")

    def _rewrite(self) -> None:
        self.close()
        self._lines = 0
        temporary = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
            with self._open(temporary) as file:
                for document in self._documents.values():
                    self._write(file, document)
            os.replace(temporary, self._path)
