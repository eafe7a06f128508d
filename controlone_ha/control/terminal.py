"""Where the `ha` command writes, what its exit codes are, and what it says of the daemon."""

from __future__ import annotations

import json
import os
import sys

from controlone_ha.control.client import ABSENT, DENIED, DaemonError
from controlone_ha.control.language import Texts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DONE, FAILED, USAGE, DAEMON_DOWN, NOT_HEALTHY = 0, 1, 2, 3, 4
COLUMNS = 100


class Terminal:
    """Texts, colours and width of this run of the command."""

    def __init__(self, texts: Texts, *, is_json: bool = False) -> None:
        self.texts = texts
        self.is_json = is_json
        self.is_terminal = sys.stdout.isatty()
        self.colour = self.is_terminal and not os.environ.get("NO_COLOR")
        self.columns = COLUMNS
        if self.is_terminal:
            try:
                columns = os.get_terminal_size().columns
            except OSError:
                columns = 0  # a serial line knows no size: the usual width then
            if columns:
                self.columns = min(COLUMNS, max(40, columns))

    def write(self, text: str) -> None:
        """Write ``text`` and a newline to stdout."""
        sys.stdout.write(text + "\n")

    def write_json(self, value: Any, *, line: bool = False) -> None:
        """Write ``value`` as JSON, indented unless ``line``."""
        self.write(json.dumps(value, indent=None if line else 2, ensure_ascii=False))

    def complain(self, text: str) -> None:
        """Write ``text`` to stderr as the message of this command."""
        sys.stdout.flush()
        sys.stderr.write(f"ha: {text}\n")

    def daemon_down(self, error: DaemonError) -> None:
        """Say why the daemon cannot be asked; raise the error again where there is no help."""
        if error.cause == DENIED:
            raise error
        self.complain(daemon_sentence(error, self.texts))


def daemon_sentence(error: DaemonError, texts: Texts) -> str:
    """Return why the daemon could not be asked."""
    if error.cause == DENIED:
        return texts("daemon.denied")
    return texts("daemon.absent" if error.cause == ABSENT else "daemon.silent")
