"""Logging: one line a transition, to stdout, where procd carries it to syslog.

Secrets are masked here and nowhere else: ``hide(secret)`` registers a value once, and every record
of the process passes through the filter, tracebacks included.
"""

from __future__ import annotations

import logging
import os
import sys

LEVEL = "CONTROLONE_LOG"
"""Environment: `debug` has every process of the product tell more."""
_hidden: set[str] = set()
MASK = "********"


def hide(secret: str) -> None:
    """Never let ``secret`` appear in a log line of this process (shorter than 4: not maskable)."""
    if len(secret) >= 4:
        _hidden.add(secret)


def mask(text: str) -> str:
    """Return ``text`` with every registered secret replaced."""
    for secret in _hidden:
        text = text.replace(secret, MASK)
    return text


class _MaskingFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record))


def wants_debug() -> bool:
    """Tell whether the environment asks for more than what happens."""
    return os.environ.get(LEVEL) == "debug"


def start_logging(process: str, *, verbose: bool = False) -> logging.Logger:
    """Send the process's log to stdout as ``process[level]: text``; return its root logger."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_MaskingFormatter(f"{process}[%(levelname)s] %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose or wants_debug() else logging.INFO)
    logging.getLogger("paramiko").setLevel(logging.ERROR)
    return logging.getLogger(process)
