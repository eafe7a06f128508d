"""How trust spreads: linked nodes introduce whom they know, and changed pins take effect.

Theory of operation: when a link is up both ends say whom they have pinned (``roster``), themselves
included; what is new is pinned by the merge rule of ``trust`` and told to the other links. The pins
are looked at every ``TRUST_INTERVAL`` seconds as well, because `ha pair` and `ha unpair` are other
processes. Whoever changed them, ``on_change`` then follows. Expelled keys travel the same way and
before the roster, so that a node that was away hears of them before it hears of anybody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from controlone_ha.errors import TrustError
from controlone_ha.peers.link import Link
from controlone_ha.peers.notes import Notes
from controlone_ha.peers.own import OwnNode
from controlone_ha.peers.pins import Pin
from controlone_ha.peers.revocations import (
    REVOKED,
    Revocation,
    read_revocations,
    revocation_messages,
)
from controlone_ha.peers.roster import ROSTER, read_roster, roster_messages
from controlone_ha.peers.trust import TrustStore

log = logging.getLogger(__name__)


class Introductions:
    """See the module's text. ``on_change`` is awaited with the pins and the link they came by."""

    def __init__(
        self,
        *,
        trust: TrustStore,
        own: OwnNode,
        notes: Notes,
        on_change: Callable[[Mapping[str, Pin], Link | None], Awaitable[None]],
        on_expelled: Callable[[Revocation], None] = lambda _record: None,
    ) -> None:
        self._trust = trust
        self._own = own
        self._notes = notes
        self._on_change = on_change
        self._on_expelled = on_expelled
        self._known: Mapping[str, Pin] = {}
        self._expelled: frozenset[str] = frozenset()
        self._lock = asyncio.Lock()

    def begin(self) -> Mapping[str, Pin]:
        """Read the pins for the first time; raise ``TrustError``."""
        self._known = self._trust.pins()
        self._expelled = frozenset(self._trust.revoked())
        return self._known

    def have_changed(self) -> bool:
        """Tell whether the pins are others than those last acted upon."""
        try:
            return self._trust.pins() is not self._known
        except TrustError as error:
            self._notes.conflict("", str(error))
            return False

    async def act(self, came_by: Link | None = None) -> None:
        """Act upon the present pins."""
        try:
            pins = self._trust.pins()
        except TrustError as error:
            self._notes.conflict("", str(error))
            return
        for name in {*pins, *self._known}:
            if pins.get(name) != self._known.get(name):
                self._notes.settled(name)
        self._known = pins
        for key, record in self._trust.revoked().items():
            if key not in self._expelled:
                log.warning("%s", record.sentence())
                self._on_expelled(record)
        self._expelled = frozenset(self._trust.revoked())
        await self._own.let_in(pins)
        await self._on_change(pins, came_by)

    def introduce(self, links: Iterable[Link], reached_at: Mapping[str, str]) -> None:
        """Tell ``links`` whom this node knows, with the hosts at which it reaches them itself."""
        try:
            pins = list(self._trust.pins().values())
            expelled = list(self._trust.revoked().values())
        except TrustError as error:
            self._notes.conflict("", str(error))
            return
        for link in links:
            for message in revocation_messages(expelled):
                link.notify(REVOKED, message)
            known = [_with(pin, reached_at) for pin in pins if pin.name != link.peer]
            for message in roster_messages([self._own.pin(), *known]):
                link.notify(ROSTER, message)

    async def take(self, link: Link, params: dict[str, Any]) -> None:
        """Take what the peer of ``link`` introduces."""
        try:
            offered = read_roster(params)
        except TrustError as error:
            self._notes.conflict(link.peer, f"{link.peer} introduces nodes wrongly: {error}")
            return
        other = self._own.other_identity
        async with self._lock:
            try:
                result = await asyncio.to_thread(
                    self._trust.merge,
                    offered,
                    own_name=self._own.name,
                    own_key=self._own.known_identity.public_key,
                    own_other=other.public_key if other is not None else "",
                    introducer=link.peer,
                )
            except (TrustError, OSError) as error:
                log.error("pins: %s", error)
                return
        for name, sentence in result.conflicts:
            self._notes.conflict(name, sentence)
        if result.added:
            log.info("%s introduced %s", link.peer, ", ".join(result.added))
        if result.added or result.updated:
            await self.act(link)

    async def take_revoked(self, link: Link, params: dict[str, Any]) -> None:
        """Take what the peer of ``link`` knows of expelled keys, and pass on what is new."""
        try:
            records = read_revocations(params)
        except TrustError as error:
            self._notes.conflict(link.peer, f"{link.peer} tells of expelled keys wrongly: {error}")
            return
        other = self._own.other_identity
        async with self._lock:
            if link.established.key in self._trust.revoked():
                return  # what an expelled node still had to say
            try:
                added = await asyncio.to_thread(
                    self._trust.take_revoked,
                    records,
                    own_key=self._own.known_identity.key_fingerprint,
                    own_other=other.key_fingerprint if other is not None else "",
                )
            except (TrustError, OSError) as error:
                log.error("expelled keys: %s", error)
                return
        if added:
            await self.act(link)


def _with(pin: Pin, reached_at: Mapping[str, str]) -> Pin:
    host = reached_at.get(pin.name)
    if host is None or host in pin.addresses:
        return pin
    return replace(pin, addresses=(*pin.addresses, host)[:16])
