"""The licences of the cluster as this node sees them: files, keys and masters put together.

Looks at the directory and the date every ``LOOK`` seconds, and at once when told. The rules are in
``core.licences``; here is only where their facts come from. A key of this cluster is one that is
pinned, our own, one that was, or one that was expelled: replacing a node takes no licence away.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from controlone_ha.core.licences import Found, Standing, judge
from controlone_ha.core.model import Report, Role
from controlone_ha.daemon.findings import Finding, finding
from controlone_ha.errors import ControlOneError
from controlone_ha.peers.licences import LicenceFiles
from controlone_ha.peers.rotation import former_keys

if TYPE_CHECKING:
    from controlone_ha.daemon.view import DaemonView

log = logging.getLogger("licence")

Json = dict[str, Any]

LOOK = 3.0
SOON = 30 * 86400.0
"""Seconds before its end from which a licence is warned about."""


class Licensing:
    """See the module's text. ``count`` is what the core decides with."""

    def __init__(
        self, daemon: DaemonView, *, on_change: Callable[[], None], now: Callable[[], float]
    ) -> None:
        self._daemon = daemon
        self._files = LicenceFiles(daemon.paths.licence_dir)
        self._found: tuple[Found, ...] = self._files.read()
        self._on_change = on_change
        self._now = now
        self._others: dict[str, Role] = {}
        self._told: object = None
        self.standing = Standing()
        self.count = 0
        self._judge()

    async def run(self) -> None:
        """Look again and again."""
        while True:
            await asyncio.sleep(LOOK)
            await self.look()

    async def look(self) -> None:
        """Look now."""
        self._found = await asyncio.to_thread(self._files.read)
        self._judge()

    def reported(self, report: Report) -> None:
        """A linked node says what it is; one that our own list does not name counts, too."""
        if self._others.get(report.node) is not report.role:
            self._others[report.node] = report.role
            self._judge()

    @property
    def other_masters(self) -> frozenset[str]:
        """Masters among all nodes that have been linked with this one and are still trusted."""
        pins = self._daemon.trust.pins()
        return frozenset(
            name for name, role in self._others.items() if role is Role.MASTER and name in pins
        )

    def _judge(self) -> None:
        try:
            keys = self._keys()
        except ControlOneError as error:
            log.error("%s", error)
            return
        today = time.strftime("%Y-%m-%d", time.gmtime(self._now()))
        self.standing = Standing(files=judge(self._found, keys=keys, today=today))
        self.count = self.standing.count
        state = (self.count, self.other_masters, [item.state for item in self.standing.files])
        if state != self._told:
            is_first, self._told = self._told is None, state
            if not is_first:
                self._on_change()

    def _keys(self) -> set[str]:
        daemon = self._daemon
        pins = daemon.trust.pins().values()
        keys = {key for pin in pins for key in (*pin.key_fingerprints, *pin.former)}
        keys |= {*daemon.trust.revoked(), *former_keys(daemon.paths)}
        own = daemon.own_key()
        return keys | ({own} if own else set())

    # -- what is told -------------------------------------------------------------------------

    def overview(self) -> Json:
        """Return what `ha licence` shows."""
        standing = self._complete()
        return {
            "masters": list(standing.masters),
            "unlicensed": sorted(standing.unlicensed),
            "valid": standing.count,
            "directory": str(self._files.directory),
            "licences": [
                {
                    "file": item.found.file,
                    "state": item.state,
                    "detail": item.found.detail,
                    "serial": item.found.licence.serial if item.found.licence else None,
                    "customer": item.found.licence.customer if item.found.licence else None,
                    "expires": item.found.licence.expires if item.found.licence else None,
                }
                for item in standing.files
            ],
        }

    def findings(self) -> list[Finding]:
        """Return what is wrong, for status and `ha check`."""
        standing = self._complete()
        found = []
        missing = standing.unlicensed
        if missing:
            found.append(
                finding(
                    "warning",
                    "licence",
                    "licences_missing",
                    masters=len(standing.masters),
                    valid=standing.count,
                    names=", ".join(sorted(missing)),
                )
            )
        for item in standing.files:
            licence = item.found.licence
            if not item.is_valid:
                found.append(
                    finding(
                        "warning",
                        "licence",
                        f"licence_{item.state}",
                        file=item.found.file,
                        detail=item.found.detail or (licence.expires if licence else "") or "-",
                    )
                )
            elif licence is not None and licence.expires and self._ends_soon(licence.expires):
                found.append(
                    finding(
                        "warning",
                        "licence",
                        "licence_ends",
                        file=item.found.file,
                        date=licence.expires,
                    )
                )
        return found

    def _ends_soon(self, date: str) -> bool:
        return date <= time.strftime("%Y-%m-%d", time.gmtime(self._now() + SOON))

    def _complete(self) -> Standing:
        masters = tuple(sorted(self._daemon.shell.node.masters()))
        return Standing(files=self.standing.files, masters=masters)
