"""This node as its peers see it: identity, host keys, addresses, and whom its server lets in."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from controlone_ha import __version__
from controlone_ha.errors import TrustError
from controlone_ha.paths import NodePaths
from controlone_ha.peers import authorized, hostkeys, keys, rotation
from controlone_ha.peers.facts import OwnFacts, PinnedFacts
from controlone_ha.peers.pins import Pin

LEARN_INTERVAL = 2.0

log = logging.getLogger(__name__)


def pinned_facts(pin: Pin) -> PinnedFacts:
    """Return what a handshake checks of a pinned node."""
    return PinnedFacts(
        name=pin.name,
        key_fingerprint=pin.key_fingerprint,
        host_keys=pin.host_key_fingerprints,
        other_key="".join(pin.key_fingerprints[1:]),
    )


class OwnNode:
    """What is said of this node in handshakes and introductions. ``prepare`` comes first."""

    def __init__(
        self,
        *,
        name: str,
        paths: NodePaths,
        authorized_keys: str | None,
        addresses: Sequence[str],
        ssh_port: int,
        own_host_keys: Callable[[], Sequence[str]] | None,
        instance: str,
        versions: tuple[int, int],
    ) -> None:
        self.name = name
        self.identity: keys.Identity | None = None
        self.rotation: rotation.Rotation | None = None
        self.former: tuple[str, ...] = ()
        self.host_keys: tuple[str, ...] = ()
        self._paths = paths
        self._authorized_keys = authorized.authorized_keys_file(authorized_keys)
        self._bridge = authorized.bridge_command(paths.peer_socket)
        self._addresses = dict.fromkeys(addresses)
        self._ssh_port = ssh_port
        self._find_host_keys = own_host_keys or (lambda: hostkeys.own_host_keys(ssh_port))
        self._learned_at = -1e9
        self._instance = instance
        self._versions = versions

    async def prepare(self) -> None:
        """Make or load the identity and learn the host keys; raise ``TrustError``, ``OSError``."""
        await self.read_again()
        await self.learn_host_keys()

    async def read_again(self) -> None:
        """Read the identity anew: the key is being changed. Raises ``TrustError``, ``OSError``."""
        self.identity = await asyncio.to_thread(keys.ensure_identity, self._paths, self.name)
        self.rotation = rotation.load(self._paths)
        accepted = {self.identity.key_fingerprint}
        if self.rotation is not None:
            accepted.add(self.rotation.other.key_fingerprint)
        found = rotation.former_keys(self._paths)
        self.former = tuple(key for key in found if key not in accepted)

    @property
    def other_identity(self) -> keys.Identity | None:
        """The second identity that counts while the key is being changed."""
        return self.rotation.other if self.rotation is not None else None

    @property
    def known_identity(self) -> keys.Identity:
        """The identity, once prepared."""
        assert self.identity is not None, "not prepared"
        return self.identity

    def add_address(self, address: str) -> None:
        """Remember an address at which this node was seen on a link."""
        if address and len(self._addresses) < 16:
            self._addresses.setdefault(address)

    def pin(self) -> Pin:
        """Return what other nodes pin of this one."""
        identity, other = self.known_identity, self.other_identity
        return Pin(
            name=self.name,
            public_key=identity.public_key,
            certificate=identity.certificate,
            host_keys=self.host_keys[:16],
            addresses=tuple(self._addresses)[:16],
            ssh_port=self._ssh_port,
            other_key=other.public_key if other is not None else "",
            other_certificate=other.certificate if other is not None else "",
            until=self.rotation.until if self.rotation is not None else 0.0,
            former=self.former,
        )

    def facts(self, identity: keys.Identity | None = None) -> OwnFacts:
        """Return what this node says of itself in a handshake, with this identity if given."""
        return OwnFacts(
            name=self.name,
            key_fingerprint=(identity or self.known_identity).key_fingerprint,
            host_keys=tuple(keys.ssh_fingerprint(line) for line in self.host_keys),
            instance=self._instance,
            release=__version__,
            versions=self._versions,
        )

    async def learn_host_keys(self) -> None:
        """Ask our own SSH server for its host keys, at most once in ``LEARN_INTERVAL``."""
        now = time.monotonic()
        if now - self._learned_at < LEARN_INTERVAL:
            return
        self._learned_at = now
        found = tuple(await asyncio.to_thread(self._find_host_keys))
        if found:
            self.host_keys = found
        elif not self.host_keys:
            log.warning("the host keys of this node's own SSH server could not be learned")

    async def let_in(self, pins: Mapping[str, Pin]) -> None:
        """Write the lines of authorized_keys; what cannot be written is logged."""
        try:
            if await asyncio.to_thread(authorized.write, self._authorized_keys, pins, self._bridge):
                log.info("%s: %d peers may connect", self._authorized_keys, len(pins))
        except TrustError as error:
            log.error("%s", error)
