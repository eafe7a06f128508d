"""Blocking client of the local API, light enough for a command that must start at once.

It speaks what ``controlone_ha.jsonrpc`` documents (JSON-RPC 2.0, one line a message) over a Unix
socket, but imports neither asyncio, dataclasses nor pathlib: these cost more than the question.
A test holds it against the real server, and its paths against ``controlone_ha.paths``.
"""

from __future__ import annotations

import json
import os
import socket

from controlone_ha.errors import ControlOneError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ABSENT = "absent"
SILENT = "silent"
DENIED = "denied"
REFUSED = -32000
MAX_LINE = 64 << 20


class ApiError(ControlOneError):
    """The daemon answered with an error: ``number`` is the JSON-RPC code, ``data`` its details."""

    code = "api"

    def __init__(self, number: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.number = number
        self.data = data


class DaemonError(ControlOneError):
    """No answer: ``cause`` is ABSENT (nobody serves), SILENT (no answer in time) or DENIED."""

    code = "daemon"

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


def run_dir() -> str:
    """Return the volatile directory of this node, as ``paths.node_paths().run_dir``."""
    return os.environ.get("CONTROLONE_RUN_DIR", "/var/run/controlone")


def state_dir() -> str:
    """Return the persistent directory of this node, as ``paths.node_paths().state_dir``."""
    return os.environ.get("CONTROLONE_STATE_DIR", "/etc/controlone")


class Client:
    """One connection to the daemon; several calls may follow each other on it."""

    def __init__(self, path: str | None = None, *, timeout: float = 10.0) -> None:
        """Connect; raise ``DaemonError``. ``timeout`` in seconds bounds each call."""
        self._path = path or run_dir() + "/ha.sock"
        self._timeout = timeout
        self._next_id = 0
        self._received = bytearray()
        self.events: list[dict[str, Any]] = []
        self._stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._stream.settimeout(timeout)
        try:
            self._stream.connect(self._path)
        except OSError as error:
            self._stream.close()
            raise self._failed(error) from error

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def call(self, method: str, params: dict[str, Any] | None = None) -> Any:
        """Ask and return the result; raise ``ApiError`` or ``DaemonError``.

        Notifications ``event`` that arrive meanwhile are appended to ``events``.
        """
        self._next_id += 1
        request = {"jsonrpc": "2.0", "id": self._next_id, "method": method, "params": params or {}}
        try:
            self._stream.settimeout(self._timeout)
            self._stream.sendall(json.dumps(request).encode() + b"\n")
            while True:
                message = json.loads(self._line())
                if self._keep_event(message) or message.get("id") != self._next_id:
                    continue
                error = message.get("error")
                if error is not None:
                    raise ApiError(
                        error.get("code", 0), error.get("message", ""), error.get("data")
                    )
                return message.get("result")
        except (OSError, ValueError) as error:
            self.close()
            raise self._failed(error) from error

    def wait_event(self, seconds: float) -> bool:
        """Wait for a notification up to ``seconds``; True when one came. Raise ``DaemonError``."""
        try:
            self._stream.settimeout(seconds)
            return self._keep_event(json.loads(self._line()))
        except TimeoutError:
            return False
        except (OSError, ValueError) as error:
            self.close()
            raise self._failed(error) from error

    def _keep_event(self, message: Any) -> bool:
        if message.get("method") != "event":
            return False
        self.events.append(message.get("params") or {})
        return True

    def _line(self) -> bytes:
        # What arrived of an unfinished line is kept: a timeout must not tear the next message.
        while b"\n" not in self._received:
            piece = self._stream.recv(65536)
            if not piece:
                raise ConnectionResetError("closed before the answer")
            self._received += piece
            if len(self._received) > MAX_LINE:
                raise ValueError("answer too long")
        line, _, rest = bytes(self._received).partition(b"\n")
        self._received = bytearray(rest)
        return line

    def _failed(self, error: Exception) -> DaemonError:
        if isinstance(error, PermissionError):
            return DaemonError(DENIED, f"{self._path}: permission denied")
        if isinstance(error, TimeoutError):
            return DaemonError(SILENT, f"{self._path}: no answer within {self._timeout:g} s")
        return DaemonError(ABSENT, f"{self._path}: {error}")
