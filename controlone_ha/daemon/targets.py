"""What there is to probe on this node and its peers, as ``Target``s of the prober."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from controlone_ha.core.model import Role, Verdict
from controlone_ha.core.observations import CALL_PROBE_NUMBER, ProbeResult, Service
from controlone_ha.daemon.probing import Target
from controlone_ha.probes.console import probe_console
from controlone_ha.probes.deep import DeepProbeError, deep_probe

if TYPE_CHECKING:
    from controlone_ha.config.settings import ConferenceSettings, HaSettings, ServerSettings
    from controlone_ha.daemon.shell import Shell
    from controlone_ha.probes.sip import SipProber

log = logging.getLogger("probes")

LOOPBACK = "127.0.0.1"
_NEVER = 3600.0 * 24


class Targets:
    """Makes the targets from the settings. Peers use the same ports as this node (cluster
    scope).
    """

    def __init__(
        self,
        shell: Shell,
        sip: SipProber,
        *,
        pin_of: Callable[[str], str | None],
        own_pin: Callable[[], str | None],
    ) -> None:
        self._shell = shell
        self._sip = sip
        self._pin_of = pin_of
        self._own_pin = own_pin
        self._rounds: dict[str, int] = {}
        self._call_every = 0
        self._timeout = 10.0

    def make(
        self,
        settings: HaSettings,
        server: ServerSettings,
        conference: ConferenceSettings,
        addresses: dict[str, str],
    ) -> list[Target]:
        """Return a target for each service of this node and of every peer in ``addresses``."""
        self._timeout = settings.timeout
        self._call_every = settings.call_probe
        found = [
            Target(
                name="own/server",
                probe=partial(self._console, server.bind or LOOPBACK, server.port, self._own_pin),
                rhythm=lambda: self._own_rhythm(settings.interval),
                timeout=lambda: min(2.0, settings.timeout),
                deliver=self._shell.own_probed,
            ),
            Target(
                name="own/conference",
                probe=partial(self._conference, conference.bind or LOOPBACK, conference.port),
                rhythm=lambda: self._own_rhythm(settings.interval, conference=True),
                timeout=lambda: min(2.0, settings.timeout),
                deliver=self._shell.own_probed,
            ),
        ]
        for name, address in addresses.items():
            found += self._of_peer(name, address, server.port, conference.port)
        return found

    def _of_peer(self, name: str, address: str, console_port: int, sip_port: int) -> list[Target]:
        deliver = partial(self._shell.peer_probed, name)
        return [
            Target(
                name=f"{name}/{Service.CONSOLE.value}",
                probe=partial(self._console, address, console_port, lambda: self._pin_of(name)),
                rhythm=lambda: self._peer_rhythm(name, Service.CONSOLE),
                timeout=lambda: self._peer_timeout(name),
                deliver=deliver,
            ),
            Target(
                name=f"{name}/{Service.CONFERENCE.value}",
                probe=partial(self._peer_conference, name, address, sip_port),
                rhythm=lambda: self._peer_rhythm(name, Service.CONFERENCE),
                timeout=lambda: self._peer_timeout(name),
                deliver=deliver,
            ),
        ]

    async def _console(
        self, host: str, port: int, pin: Callable[[], str | None], timeout: float
    ) -> ProbeResult:
        return await probe_console(host, port, timeout=timeout, pinned_sha256=pin())

    async def _conference(self, host: str, port: int, timeout: float) -> ProbeResult:
        return await self._sip.probe(host, port, timeout=timeout)

    async def _peer_conference(
        self, name: str, host: str, port: int, timeout: float
    ) -> ProbeResult:
        """OPTIONS, or a real call where the settings ask for one and nothing is in doubt."""
        count = self._rounds[name] = self._rounds.get(name, 0) + 1
        if self._call_every and count % self._call_every == 0 and not self._is_hurried(name):
            try:
                return await deep_probe(host, port, CALL_PROBE_NUMBER, timeout=timeout)
            except DeepProbeError as error:
                log.warning("no call probe of %s: %s", name, error)
        return await self._conference(host, port, timeout)

    def _is_hurried(self, name: str) -> bool:
        tracker = self._shell.node.trackers.get(name)
        return tracker is not None and tracker.is_probed_fast(self._shell.now)

    def _own_rhythm(self, interval: float, *, conference: bool = False) -> float:
        node = self._shell.node
        decision = node.decision
        if conference and not decision.conference_running:
            return _NEVER
        if node.watch.is_doubtful(self._shell.now):
            return node.settings.timing.fast_interval
        return interval

    def _peer_rhythm(self, name: str, service: Service) -> float:
        """Services that a peer in good order does not run are not asked for."""
        node = self._shell.node
        tracker = node.trackers.get(name)
        if tracker is None:
            return _NEVER
        report = tracker.report
        if report is not None and tracker.is_linked and not node.is_in_doubt(name):
            if report.role is Role.PASSIVE:
                return _NEVER
            if service is Service.CONFERENCE and not report.state.runs_conference:
                return _NEVER
        return node.probe_interval(self._shell.now, name)

    def _peer_timeout(self, name: str) -> float:
        node = self._shell.node
        if self._is_hurried(name):
            return node.settings.timing.fast_timeout
        if node.verdict(name) in (Verdict.SILENT, Verdict.FAILED):
            return min(1.0, self._timeout)
        return self._timeout
