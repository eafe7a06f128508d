"""What the lab's supervisor knows and decides about one service. Pure: no process is touched here.

It behaves as procd does (see OpenWrt's procd, service/instance.c, for the facts): only the main
process is signalled; stop sends the stop signal and SIGKILL after ``term_timeout``; restart starts
the new process only after the old one has exited; a process that exits by itself is started again
after ``respawn.delay`` seconds, and given up when it exits more than ``respawn.retry`` times in a
row sooner than ``respawn.threshold`` seconds (retry 0: never given up).

Theory of operation. ``ServiceState`` is in one phase:

    stopped ──start──▶ running ──stop──▶ stopping ──exit──▶ stopped
                         │  ▲                │ exit, start wanted
                       exit │ delay over     ▼
                         └▶ waiting ◀──── running

Each method returns what must be done now: ``LAUNCH`` (then call ``launched`` or ``failed``), a
signal number for the process, or None. Time comes in as seconds of any monotonic clock.
``deadline`` tells when ``tick`` wants to be called.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from controlone_ha.errors import LabError, RefusedError

Phase = Literal["stopped", "running", "stopping", "waiting"]
LAUNCH: Final = 0
"""The action "start the process"; every other action is a signal number, which is never 0."""

QUICK_EXIT = 1.0
PAUSE_AFTER_QUICK_EXIT = 0.2
"""A process that lived less than QUICK_EXIT seconds is never respawned sooner: no busy loop."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}")


@dataclass(frozen=True, kw_only=True)
class Respawn:
    """procd's ``respawn`` triple: threshold in seconds, delay in seconds, retry (0: for ever)."""

    threshold: float = 3600.0
    delay: float = 1.0
    retry: int = 0


@dataclass(frozen=True, kw_only=True)
class ServiceDefinition:
    """How a service is run: what an init script tells procd.

    ``argv[0]`` is an absolute path or found on the PATH. ``environment`` is added to the node's.
    ``reload_signal`` is what `reload` sends; without one, reload does nothing.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    respawn: Respawn | None = field(default_factory=Respawn)
    stop_signal: str = "SIGTERM"
    term_timeout: float = 5.0
    reload_signal: str | None = None
    at_boot: bool = True

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise LabError(f"service name {self.name!r}: expected a-z, 0-9, _ . and -")
        if not all(isinstance(part, str) for part in self.argv) or not any(self.argv[:1]):
            raise LabError(f"service {self.name}: argv must be texts, a program first")
        for name in (self.stop_signal, self.reload_signal):
            if name is not None:
                signal_number(name)

    def to_json(self) -> dict[str, Any]:
        """Return the definition as it travels over the supervisor's socket."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> ServiceDefinition:
        """Return the definition in ``raw``; raise ``LabError`` when it is none."""
        values = dict(raw)
        try:
            values["argv"] = tuple(values["argv"])
            if values.get("respawn") is not None:
                values["respawn"] = Respawn(**values["respawn"])
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise LabError(f"not a service definition: {error}") from error


def signal_number(name: str | int) -> int:
    """Return the number of a signal given as ``SIGTERM``, ``TERM`` or a number."""
    try:
        if isinstance(name, int) or name.isdigit():
            return int(signal.Signals(int(name)))
        upper = name.upper()
        return int(signal.Signals[upper if upper.startswith("SIG") else f"SIG{upper}"])
    except (KeyError, ValueError):
        raise LabError(f"no signal {name!r}") from None


def describe_exit(status: int) -> str:
    """Return what a wait status (as of waitpid) says, in words."""
    if status & 0x7F:
        return f"killed by {signal.Signals(status & 0x7F).name}"
    return f"exit code {status >> 8}"


class ServiceState:
    """One service: its definition and what became of it."""

    def __init__(self, definition: ServiceDefinition) -> None:
        self.definition = definition
        self.phase: Phase = "stopped"
        self.pid: int | None = None
        self.held = False
        self.restarts = 0
        self.last_exit: str | None = None
        self.deadline: float | None = None
        self.launched_at: float | None = None
        self._start_again = False
        self._quick_exits = 0

    # -- what is asked -----------------------------------------------------------------------

    def start(self, now: float) -> int | None:
        """Ask it to run; nothing to do when it does. Raises ``RefusedError`` when it is held."""
        if self.held:
            raise RefusedError(f"service {self.definition.name} is held down; release it first")
        if self.phase == "running":
            return None
        if self.phase == "stopping":
            self._start_again = True
            return None
        self._quick_exits = 0
        return self._launch()

    def stop(self, now: float) -> int | None:
        """Ask it to end."""
        self._start_again = False
        if self.phase == "waiting":
            self._rest()
            return None
        if self.phase != "running":
            return None
        self.phase = "stopping"
        self.deadline = now + self.definition.term_timeout
        return signal_number(self.definition.stop_signal)

    def restart(self, now: float) -> int | None:
        """Ask it to end and to run again, or just to run."""
        if self.phase in ("running", "stopping"):
            action = self.stop(now)
            if self.held:
                raise RefusedError(f"service {self.definition.name} is held down; release it first")
            self._start_again = True
            return action
        return self.start(now)

    def hold(self) -> None:
        """Never start it again, whoever asks, until ``release``. What runs goes on running."""
        self.held = True
        self._start_again = False
        if self.phase == "waiting":
            self._rest()

    def release(self) -> None:
        """Undo ``hold``; it stays stopped until it is started."""
        self.held = False

    # -- what happened -----------------------------------------------------------------------

    def launched(self, now: float, pid: int) -> None:
        """The process runs."""
        self.phase = "running"
        self.pid = pid
        self.deadline = None
        self.launched_at = now

    def failed(self, now: float, text: str) -> int | None:
        """The process could not even be started; treated as one that exited at once."""
        self.last_exit = text
        return self._ended(now, ran=0.0)

    def exited(self, now: float, status: int) -> int | None:
        """The process ended with this wait status."""
        self.last_exit = describe_exit(status)
        wanted = self.phase == "stopping"
        ran = now - (self.launched_at if self.launched_at is not None else now)
        self.pid = None
        if wanted:
            self._rest()
            if self._start_again:
                self._start_again = False
                return self._launch()
            return None
        return self._ended(now, ran=ran)

    def tick(self, now: float) -> int | None:
        """The deadline may have passed."""
        if self.deadline is None or now < self.deadline:
            return None
        self.deadline = None
        if self.phase == "stopping":
            return int(signal.SIGKILL)
        if self.phase == "waiting":
            self.restarts += 1
            return self._launch()
        return None

    # -- helpers -----------------------------------------------------------------------------

    def _launch(self) -> int:
        self.deadline = None
        return LAUNCH

    def _rest(self) -> None:
        self.phase = "stopped"
        self.pid = None
        self.deadline = None
        self.launched_at = None

    def _ended(self, now: float, *, ran: float) -> int | None:
        respawn = self.definition.respawn
        self._rest()
        if respawn is None or self.held:
            return None
        self._quick_exits = self._quick_exits + 1 if ran < respawn.threshold else 0
        if respawn.retry and self._quick_exits > respawn.retry:
            self.last_exit = f"{self.last_exit}; given up after {respawn.retry} restarts in a row"
            return None
        self.phase = "waiting"
        pause = PAUSE_AFTER_QUICK_EXIT if ran < QUICK_EXIT else 0.0
        self.deadline = now + max(respawn.delay, pause)
        return self.tick(now)  # a delay of 0 means at once

    def status(self) -> dict[str, Any]:
        """Return what the supervisor tells about it; it adds ``since`` from the wall clock."""
        return {
            "running": self.phase in ("running", "stopping"),
            "phase": self.phase,
            "pid": self.pid,
            "restarts": self.restarts,
            "held": self.held,
            "last_exit": self.last_exit,
        }
