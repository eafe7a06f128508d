"""All links of a node: dials the configured peers, accepts what the bridge brings, keeps one each.

Theory of operation. For each configured peer one task dials while there is no link (``choose``
says when and how long to wait); the peer bridge connects accepted sessions to ``peer.sock``. Either
way a handshake runs and ``_adopt`` decides which link of the pair stays. A paired peer that our own
list does not name is served all the same: who is replicated to and who is watched differs from node
to node. Everything is keyed by the peer's node name, as pinned; ``name_of`` turns what the
configuration says (a name or an address) into it.

A refusal is noted per peer, shown by ``status`` and logged once until the peer has been linked or
the refusal changes. The pins are looked at once a second, because ``ha pair`` is another process;
after a link is up both ends tell each other whom they know (``roster``).

Not here: threads (``ssh``), decisions (``choose``), what the messages mean (the daemon).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from controlone_ha.errors import TrustError
from controlone_ha.paths import NodePaths
from controlone_ha.peers import choose, keys, ssh
from controlone_ha.peers.changing import KeyChange
from controlone_ha.peers.dialing import prove
from controlone_ha.peers.door import Door, Entry
from controlone_ha.peers.facts import VERSIONS, Refusal, key_id
from controlone_ha.peers.introductions import Introductions
from controlone_ha.peers.link import Link
from controlone_ha.peers.model import LinkDown, LinkHandler, LinkStatus, PeerAddress
from controlone_ha.peers.notes import Notes
from controlone_ha.peers.own import OwnNode, pinned_facts
from controlone_ha.peers.pins import Pin
from controlone_ha.peers.revocations import REVOKED, Revocation
from controlone_ha.peers.roster import ROSTER
from controlone_ha.peers.secret import ClusterKeys, PreviousKeys, cluster_keys, load_previous
from controlone_ha.peers.trust import TrustStore

DIAL_TIMEOUT = 10.0
TRUST_INTERVAL = 1.0

log = logging.getLogger(__name__)


class PeerLinks:
    """See the module's text. ``configure`` may be called before and after ``start``."""

    def __init__(
        self,
        *,
        name: str,
        paths: NodePaths,
        secret: str,
        handler: LinkHandler,
        authorized_keys: str | None = None,
        addresses: Sequence[str] = (),
        ssh_port: int = 22,
        on_trust_changed: Callable[[], None] | None = None,
        own_host_keys: Callable[[], Sequence[str]] | None = None,
        on_expelled: Callable[[Revocation], None] = lambda _record: None,
        on_refused: Callable[[str, str, str], None] = lambda _peer, _code, _sentence: None,
        versions: tuple[int, int] = VERSIONS,
    ) -> None:
        """Prepare the links of node ``name``.

        ``authorized_keys``: file for the peers' keys, None to find it. ``addresses``: where peers
        reach this node, as far as known. ``ssh_port``: of this node's own server. ``own_host_keys``
        returns the host keys of that server (None: ask it). ``on_trust_changed`` is called after a
        node was pinned or unpinned, by whomever; ``on_expelled`` for each key newly expelled,
        ``on_refused`` with peer, code and sentence when a link is refused, once until it changes.
        """
        self.name = name
        self.trust = TrustStore(paths.pins_file)
        self._own = OwnNode(
            name=name,
            paths=paths,
            authorized_keys=authorized_keys,
            addresses=addresses,
            ssh_port=ssh_port,
            own_host_keys=own_host_keys,
            instance=secrets.token_hex(8),
            versions=versions,
        )
        self._paths = paths
        self._secret = secret
        self._handler = handler
        self._on_trust_changed = on_trust_changed
        self._keys: ClusterKeys | None = None
        self._previous: PreviousKeys | None = None
        self._shown_previous: set[str] = set()
        self._heartbeat, self._timeout = 1.0, 10.0
        self._peers: dict[str, PeerAddress] = {}
        self._links: dict[str, Link] = {}
        self._ended: dict[str, str] = {}
        self._notes = Notes(on_refused=on_refused)
        self._introductions = Introductions(
            trust=self.trust,
            own=self._own,
            notes=self._notes,
            on_change=self._trust_changed,
            on_expelled=on_expelled,
        )
        self._change = KeyChange(self._own, paths, self._key_changed)
        self._wake: dict[str, asyncio.Event] = {}
        self._dialers: dict[str, asyncio.Task[None]] = {}
        self._opening: dict[str, asyncio.Task[ssh.SshConnection]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sessions: set[ssh.SshConnection] = set()
        self._watcher: asyncio.TimerHandle | None = None
        self._running = False
        self._door = Door(
            paths.peer_socket,
            name=name,
            own=self._own,
            trust=self.trust,
            notes=self._notes,
            link_key=self._link_key,
            previous_key=self._previous_key,
            enter=self._enter,
            spawn=self._spawn,
        )

    def _link_key(self) -> bytes:
        assert self._keys is not None, "start derives the keys before anything needs them"
        return self._keys.link

    def _previous_key(self) -> bytes | None:
        """Return the key of the secret before the present one, while it is accepted still."""
        previous = self._previous
        if previous is None or time.time() >= previous.until:
            return None
        return previous.link

    # -- life ---------------------------------------------------------------------------------

    def configure(self, peers: Sequence[PeerAddress], *, heartbeat: float, timeout: float) -> None:
        """Link with ``peers``; beat every ``heartbeat`` s; a link silent for ``timeout`` s ends.

        A link with a peer that is no longer named stays until it ends.
        """
        self._heartbeat, self._timeout = heartbeat, timeout
        wanted = {peer.name: peer for peer in peers}
        for name in [name for name, peer in self._peers.items() if wanted.get(name) != peer]:
            del self._peers[name]
            self._wake.pop(name, None)
            task = self._dialers.pop(name, None)
            if task is not None:
                task.cancel()
        self._peers.update(wanted)
        for link in self._links.values():
            link.retime(heartbeat, timeout)
        if self._running:
            self._start_dialers()

    async def start(self) -> None:
        """Make or load the identity, write authorized_keys, serve the bridge, begin to dial.

        Raises ``TrustError`` (key, pins or secret unusable), ``RefusedError`` (another daemon
        serves the socket) or ``OSError``. An authorized_keys file that cannot be written is only
        logged.
        """
        await self._own.prepare()
        self._keys = await asyncio.to_thread(cluster_keys, self._secret)
        self._previous = load_previous(self._paths.state_dir, time.time())
        await self._own.let_in(self._introductions.begin())
        await self._door.open()
        self._running = True
        self._start_dialers()
        self._watch_trust()

    async def stop(self, reason: str = "stopping") -> None:
        """Say goodbye on every link and leave nothing behind: no task, thread, socket or file."""
        self._running = False
        if self._watcher is not None:
            self._watcher.cancel()
        self._door.close()
        tasks = [*self._dialers.values(), *self._tasks]
        for task in tasks:
            task.cancel()
        self._dialers.clear()
        links = list(self._links.values())
        await asyncio.gather(
            *(link.close(f"{self.name}: {reason}", code="stopping") for link in links),
            *tasks,
            return_exceptions=True,
        )
        self._links.clear()
        deadline = time.monotonic() + 3.0
        while any(not session.finished for session in self._sessions):
            if time.monotonic() > deadline - 2.0:
                for session in self._sessions:
                    session.abort()
            if time.monotonic() > deadline:
                log.warning("a session's thread did not end in time")
                break
            await asyncio.sleep(0.01)
        self._sessions.clear()

    async def set_secret(self, secret: str) -> None:
        """Use another cluster secret. Links proven by another one than that, or than the previous
        one while it is accepted (``save_previous``), are closed and made anew.
        """
        derived = await asyncio.to_thread(cluster_keys, secret)
        if derived == self._keys:
            return
        self._secret, self._keys = secret, derived
        self._previous = load_previous(self._paths.state_dir, time.time())
        self._shown_previous.clear()
        await self._close_unproven("the secret was changed")
        self.redial()

    async def _close_unproven(self, why: str) -> None:
        """Close links that neither the present secret nor an accepted one has proven."""
        accepted = {key_id(key) for key in (self._link_key(), self._previous_key()) if key}
        links = [
            link for link in self._links.values() if link.established.secret_id not in accepted
        ]
        await asyncio.gather(*(link.close(why, "secret") for link in links))

    # -- asking -------------------------------------------------------------------------------

    def name_of(self, peer: str) -> str | None:
        """Return the node name of a peer given by name or address; None when it is not paired."""
        if peer in self._links:
            return peer
        configured = self._peers.get(peer)
        with contextlib.suppress(TrustError):
            pin = self.trust.find(peer)
            if pin is None and configured is not None and configured.host:
                pin = self.trust.find(configured.host)
            return pin.name if pin is not None else None
        return None

    def link(self, peer: str) -> Link | None:
        """Return the link that is up with ``peer`` (name or address), else None."""
        return self._links.get(self.name_of(peer) or peer)

    def links(self) -> Sequence[Link]:
        """Return every link that is up, those with peers that our list does not name included."""
        return tuple(self._links.values())

    def status(self, peer: str) -> LinkStatus:
        """Return what to show of the link with ``peer`` (name or address)."""
        name = self.name_of(peer)
        link = self._links.get(name or peer)
        if link is not None:
            return LinkStatus(
                state="up",
                since=link.since,
                direction=link.direction,
                rtt_ms=link.rtt_ms,
                skew_ms=link.skew_ms,
                release=link.established.release,
            )
        return self._notes.status(name or peer)

    def broadcast(self, method: str, params: dict[str, Any]) -> None:
        """Notify every peer with which a link is up."""
        for link in list(self._links.values()):
            link.notify(method, params)

    def check_trust(self) -> None:
        """Look now whether the pins have changed, instead of within a second."""
        if self._running and self._introductions.have_changed():
            self._spawn(self._introductions.act(), "trust")

    def redial(self, peer: str | None = None) -> None:
        """Dial ``peer``, or all, now, without waiting out the back-off: the network has changed."""
        self.check_trust()
        for name, event in self._wake.items():
            if peer is None or peer == name or self.name_of(name) == peer:
                event.set()

    @property
    def identity(self) -> keys.Identity | None:
        """This node's identity; None before ``start``."""
        return self._own.identity

    @property
    def other_identity(self) -> keys.Identity | None:
        """The second identity that counts while this node's key is being changed."""
        return self._own.other_identity

    def own_pin(self) -> Pin:
        """Return what other nodes pin of this one. Only after ``start``."""
        return self._own.pin()

    # -- accepting and dialing ----------------------------------------------------------------

    def _spawn(self, work: Any, name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    def _reap(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=problem)

    # -- dialing ------------------------------------------------------------------------------

    def _start_dialers(self) -> None:
        for name in self._peers:
            if name not in self._dialers:
                self._wake[name] = asyncio.Event()
                task = asyncio.get_running_loop().create_task(
                    self._dial_forever(self._peers[name]), name=f"dial {name}"
                )
                task.add_done_callback(self._reap)
                self._dialers[name] = task

    async def _pause(self, label: str, seconds: float | None) -> bool:
        """Wait, or until woken (True: by ``redial``, a change of trust or of the peer's link)."""
        event = self._wake[label]
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return False
        event.clear()
        return True

    async def _dial_forever(self, address: PeerAddress) -> None:
        """Keep a link with one configured peer."""
        label = address.name
        backoff = choose.Backoff(random.random)
        tries = 0
        waited = False
        while True:
            pin = self._pin_of(address)
            if pin is None or pin.name == self.name:
                await self._pause(label, None)
                continue
            link = self._links.get(pin.name)
            if link is not None:
                waited = False
                await self._pause(label, None)
                if time.monotonic() - link.since >= choose.STABLE:
                    backoff.reset()
                elif pin.name not in self._links:
                    await self._pause(label, backoff.next())
                continue
            if not waited:
                waited = True
                self._notes.connecting(pin.name)
                if await self._pause(label, choose.first_wait(self.name, pin.name)):
                    continue
            try:
                await self._dial_once(address, pin, tries)
            except Refusal as refusal:
                self._notes.refused(pin.name, refusal)
                if refusal.code == "unknown_key":
                    self._change.rejected(pin.name)
                if refusal.code == "wrong_secret" and self._previous_key() is not None:
                    self._shown_previous ^= {pin.name}  # the peer may not have the new one yet
            tries += 1
            if pin.name in self._links:
                continue
            wait = backoff.next()
            if self._notes.status(pin.name).code == "unknown_key":
                wait = max(wait, choose.KEY_REJECTED_WAIT)
            if await self._pause(label, wait):
                backoff.reset()

    def _known_names(self) -> set[str]:
        with contextlib.suppress(TrustError):
            return set(self.trust.pins())
        return set()

    def _pin_of(self, address: PeerAddress) -> Pin | None:
        """Return what is pinned of a configured peer, or note why there is nothing."""
        try:
            pin = self.trust.find(address.name)
            if pin is None and address.host:
                pin = self.trust.find(address.host)
        except TrustError as error:
            self._notes.refused(address.name, Refusal("trust", str(error)))
            return None
        if pin is None:
            record = self.trust.expelled(address.name)
            self._notes.unpaired(address.name, record.sentence() if record is not None else "")
        return pin

    async def _dial_once(self, address: PeerAddress, pin: Pin, tries: int) -> None:
        assert self._keys is not None
        identity = self._change.identity_for(pin.name)
        hosts = [address.host] if address.host else [*pin.addresses, address.name]
        target = ssh.Target(
            peer=pin.name,
            host=hosts[tries % len(hosts)],
            port=address.port or pin.ssh_port,
            user=address.user,
            host_keys=pin.host_keys,
            key_file=identity.key_file,
        )
        ended = self._ended.get(pin.name, "")
        connection = await self._open(target)
        if connection is None:
            return
        self._sessions = {session for session in self._sessions if not session.finished}
        self._sessions.add(connection)
        dialed = await prove(
            connection,
            own=self._own.facts(identity),
            pinned=pinned_facts(pin),
            link_key=(self._previous_key() if pin.name in self._shown_previous else None)
            or self._keys.link,
            ended=ended,
        )
        self._own.add_address(connection.local_address)
        self._adopt(
            Link(
                established=dialed.established,
                direction="dialed",
                reader=connection.reader,
                writer=connection.writer,
                decoder=dialed.decoder,
                handler=self._handler,
                heartbeat=self._heartbeat,
                timeout=self._timeout,
                on_end=self._link_ended,
                session=connection,
                local_address=connection.local_address,
                remote_address=target.host,
            )
        )

    async def _open(self, target: ssh.Target) -> ssh.SshConnection | None:
        """Open the SSH session; give up (None) when the peer's own dial gets through meanwhile.

        Giving up is safe until HELLO is sent: the peer cannot have a link from this session yet.
        """
        opening = asyncio.get_running_loop().create_task(ssh.dial(target, timeout=DIAL_TIMEOUT))
        self._opening[target.peer] = opening
        try:
            return await opening
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return None
        finally:
            self._opening.pop(target.peer, None)

    def _enter(self, entry: Entry) -> None:
        """An accepted session has proven itself: it becomes a link."""
        self._own.add_address(entry.local_address)
        self._adopt(
            Link(
                established=entry.established,
                direction="accepted",
                reader=entry.reader,
                writer=entry.writer,
                decoder=entry.decoder,
                handler=self._handler,
                heartbeat=self._heartbeat,
                timeout=self._timeout,
                on_end=self._link_ended,
                local_address=entry.local_address,
                remote_address=entry.remote_address,
            )
        )

    # -- links --------------------------------------------------------------------------------

    def _adopt(self, link: Link) -> None:
        """Keep one link per peer: this one or the present one."""
        peer = link.peer
        current = self._links.get(peer)
        if not self._running:
            self._spawn(link.close("stopping", code="stopping"), f"close {peer}")
            return
        if current is not None:
            if not choose.newer_stays(current.established, link.established):
                self._spawn(
                    link.close("another link with this peer stays", code="replaced"),
                    f"close {peer}",
                )
                return
            self._spawn(current.close("a newer link took over", code="replaced"), f"close {peer}")
            self._link_ended(
                current, LinkDown(code="replaced", sentence=f"a newer link with {peer} took over")
            )
        self._links[peer] = link
        self._notes.up(peer, link.direction)
        link.start(self._internal)
        self._handler.on_link_up(link)
        self._introduce([link])
        opening = self._opening.get(peer)
        if opening is not None:
            opening.cancel()
        self._wake_dialer(peer)

    def _link_ended(self, link: Link, cause: LinkDown) -> None:
        if self._links.get(link.peer) is not link:
            return
        del self._links[link.peer]
        self._ended[link.peer] = link.established.link_id
        if cause.code != "replaced":
            self._notes.lost(link.peer, cause)
        self._handler.on_link_down(link.peer, cause)
        if self._running:
            self._wake_dialer(link.peer)

    def _wake_dialer(self, peer: str) -> None:
        for label, event in self._wake.items():
            if label == peer or self.name_of(label) == peer:
                event.set()

    # -- trust --------------------------------------------------------------------------------

    def _internal(self, link: Link, method: str, params: dict[str, Any]) -> bool:
        """Take the notifications that are for the links themselves."""
        if method == REVOKED:
            self._spawn(self._introductions.take_revoked(link, params), f"revoked of {link.peer}")
        elif method == ROSTER:
            self._spawn(self._introductions.take(link, params), f"roster of {link.peer}")
        return method in (REVOKED, ROSTER)

    def _introduce(self, links: Iterable[Link]) -> None:
        reached = {
            name: peer.host
            for peer in self._peers.values()
            if peer.host and (name := self.name_of(peer.name)) is not None
        }
        self._introductions.introduce(links, reached)

    def conflicts(self) -> Sequence[str]:
        """Return the sentences about contradictory introductions, for ``ha check``."""
        return self._notes.conflicts()

    def _key_changed(self) -> None:
        """A step of the change of this node's key: the peers are told, and everybody here."""
        self._introduce(self._links.values())
        if self._on_trust_changed is not None:
            self._on_trust_changed()

    def _watch_trust(self) -> None:
        self.check_trust()
        is_linked = self._known_names() <= self._links.keys()
        self._spawn(self._change.look(is_everybody_linked=is_linked), "key")
        if self._previous is not None and self._previous_key() is None:
            self._previous = None
            self._spawn(self._close_unproven("the old secret is no longer accepted"), "old secret")
        self._watcher = asyncio.get_running_loop().call_later(TRUST_INTERVAL, self._watch_trust)

    async def _trust_changed(self, pins: Mapping[str, Pin], came_by: Link | None) -> None:
        """End links that are no longer covered by a pin, and tell everybody."""
        ending = []
        for link in list(self._links.values()):
            pin = pins.get(link.peer)
            if pin is None:
                text = f"{self.name} is no longer paired with {link.peer}"
                ending.append(link.close(text, "unpaired"))
            elif link.established.key not in {*pin.key_fingerprints, *pin.former}:
                text = f"another key is pinned of {link.peer} on {self.name} now"
                ending.append(link.close(text, "unknown_key"))
        await asyncio.gather(*ending)
        self._introduce([link for link in self._links.values() if link is not came_by])
        for event in self._wake.values():
            event.set()
        if self._on_trust_changed is not None:
            self._on_trust_changed()
