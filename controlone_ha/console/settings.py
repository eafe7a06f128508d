"""What the failover client reads from ``/etc/config/console``, in the form its parts use."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from pathlib import Path

from controlone_ha.config.console import ConsoleSettings, load_console
from controlone_ha.console.rules import Policy, Rules
from controlone_ha.errors import ConfigError

_NAME = re.compile(r"[^\W_][\w.@+-]{0,63}\Z")
_QUEUE = re.compile(r"[\w.+*#@-]{1,64}\Z")


@dataclass(frozen=True, kw_only=True)
class ConsoleConfig:
    """Settings of a console. ``problems``: what is wrong with them and was skipped."""

    name: str
    rules: Rules
    port: int = 7551
    queues: tuple[str, ...] = ()
    sip: str = ""
    problems: tuple[str, ...] = ()


def load_config(config_dir: Path) -> ConsoleConfig:
    """Return the settings; raise ``ConfigError`` or ``UciError``. Bad list entries are skipped."""
    return config_of(load_console(config_dir))


def config_of(settings: ConsoleSettings) -> ConsoleConfig:
    """Return what the client works with; raise ``ConfigError`` for a name no server would take."""
    name = settings.name or socket.gethostname().split(".")[0]
    if not _NAME.match(name):
        raise ConfigError(
            f"console.default.name: got {name!r}, expected 1 to 64 letters, digits or . _ @ + -"
        )
    problems = list(settings.warnings)
    queues = []
    for queue in dict.fromkeys(item for item in re.split(r"[,\s]+", settings.queues) if item):
        if _QUEUE.match(queue):
            queues.append(queue)
        else:
            problems.append(f"console.default.queues: got {queue!r}, no queue; skipped")
    return ConsoleConfig(
        name=name,
        rules=Rules(
            servers=settings.server,
            timeout=settings.timeout,
            lost_packets=settings.lost_packets,
            ping_interval=settings.ping_interval,
            check_interval=settings.check_interval,
            policy=Policy(settings.return_policy),
            return_delay=settings.return_delay,
            standby_wait=settings.standby_wait,
            jitter=settings.jitter,
        ),
        port=settings.port,
        queues=tuple(queues),
        sip=settings.sip,
        problems=tuple(problems),
    )
