"""Enrolment: two nodes pin each other's keys, once.

Over an SSH login (``pair_with``): the administrator, on one node, logs in to the other as he would
with ssh, confirms its host key, and ``ha pair-accept`` there takes our offer and gives its own. The
login is the authority; nothing of it is kept. By other means (``export_offer``, ``import_offer``):
the offers are carried by hand, and two people compare one fingerprint each way.

Afterwards both nodes have pinned key, certificate and host keys of the other and let its key start
the peer bridge, and nothing else. The daemons notice by themselves; links introduce the rest of the
cluster. Pairing anew replaces what was pinned under the same name, and says so.

Passwords come from a callback, never from an argument list, and go nowhere but into the login.
Blocking. Not here: reading the terminal, which is the command's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from controlone_ha.errors import RefusedError, TrustError
from controlone_ha.paths import NodePaths
from controlone_ha.peers import authorized, hostkeys, keys
from controlone_ha.peers.frames import printable
from controlone_ha.peers.lean import load_paramiko
from controlone_ha.peers.offer import MAX_OFFER, decode_offer, encode_offer, offer_fingerprint
from controlone_ha.peers.pins import Pin, host_key_line, is_node_name
from controlone_ha.peers.ssh import prefer
from controlone_ha.peers.trust import TrustStore

if TYPE_CHECKING:
    import paramiko

ACCEPT_COMMAND = "ha pair-accept"
_TARGET = re.compile(
    r"(?:(?P<user>[^@\s]+)@)?(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:\s@]+))(?::(?P<port>\d{1,5}))?"
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OwnSide:
    """This node, as far as pairing needs it. ``authorized_keys`` None: find the file."""

    name: str
    paths: NodePaths
    authorized_keys: str | None = None
    addresses: Sequence[str] = ()
    ssh_port: int = 22
    own_host_keys: Callable[[], Sequence[str]] | None = None


@dataclass(frozen=True, kw_only=True)
class HostKeyQuestion:
    """What a person is asked before a host key is believed."""

    host: str
    port: int
    kind: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Login:
    """How the administrator logs in to the peer, and what he believes of its host key.

    ``identity_files``: private keys to try first. ``password``: called with a prompt when keys do
    not suffice; returns None to give up. ``confirm``: asked about an unknown host key, unless
    ``fingerprint`` (``SHA256:…``) says which is right or ``accept_host_key`` believes any.
    """

    identity_files: Sequence[Path] = ()
    password: Callable[[str], str | None] | None = None
    confirm: Callable[[HostKeyQuestion], bool] | None = None
    fingerprint: str = ""
    accept_host_key: bool = False
    use_agent: bool = True
    home: Path | None = None
    """Where ``.ssh`` with default keys and known_hosts lies; None: the user's home."""


@dataclass(frozen=True, kw_only=True)
class Paired:
    """The outcome on this side."""

    peer: Pin
    replaced: Pin | None
    """What was pinned under that name before, if its key was another."""
    said: str = ""
    """What the peer's command said besides, for the person."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A parsed ``[user@]host[:port]``."""

    user: str
    host: str
    port: int


def parse_target(text: str, *, user: str = "root", port: int = 22) -> Target:
    """Return the parts of ``[user@]host[:port]``; an IPv6 address with port stands in brackets."""
    if text.count(":") > 1 and "[" not in text:
        name, _, host = text.rpartition("@")
        return Target(user=name or user, host=host, port=port)
    found = _TARGET.fullmatch(text)
    if found is None or not 0 < int(found["port"] or port) < 65536:
        raise TrustError(f"got {text!r}, expected [user@]host[:port]")
    return Target(
        user=found["user"] or user,
        host=found["six"] or found["host"],
        port=int(found["port"] or port),
    )


# -- offers ---------------------------------------------------------------------------------------


def own_offer(own: OwnSide, *, extra_addresses: Sequence[str] = ()) -> Pin:
    """Return what others pin of this node, making its key if it has none."""
    if not is_node_name(own.name):
        raise TrustError(
            f"got node name {own.name!r}, expected letters, digits, '.', '_' and '-'; set "
            "ha.default.name"
        )
    identity = keys.ensure_identity(own.paths, own.name)
    find = own.own_host_keys or (lambda: hostkeys.own_host_keys(own.ssh_port))
    addresses = [a for a in (*own.addresses, *extra_addresses) if a]
    return Pin(
        name=own.name,
        public_key=identity.public_key,
        certificate=identity.certificate,
        host_keys=tuple(find()),
        addresses=tuple(dict.fromkeys(addresses))[:16],
        ssh_port=own.ssh_port,
    )


def export_offer(own: OwnSide) -> tuple[str, str]:
    """Return (offer, fingerprint) to be carried to another node by hand."""
    pin = own_offer(own)
    if not pin.host_keys:
        raise TrustError("this node's SSH server does not answer, so its host key is not known")
    return encode_offer(pin), offer_fingerprint(pin)


def describe_offer(text: str) -> tuple[Pin, str]:
    """Return (node, fingerprint) of a carried offer, to show before it is taken."""
    pin = decode_offer(text)
    return pin, offer_fingerprint(pin)


def import_offer(text: str, own: OwnSide, *, fingerprint: str) -> Paired:
    """Pin the node of a carried offer whose ``fingerprint`` a person has compared."""
    pin, found = describe_offer(text)
    if fingerprint.strip().rstrip("=") != found:
        raise TrustError(
            f"the offer of {pin.name} has fingerprint {found}, expected {fingerprint.strip()}; "
            "it was changed on its way, or it is another one"
        )
    return _take(own, pin)


def accept_offer(text: str, own: OwnSide, *, ssh_connection: str = "") -> tuple[str, Paired]:
    """Take the offer of a node whose administrator has logged in here; return (our offer, outcome).

    ``ssh_connection`` is the variable SSH_CONNECTION of the login: the addresses at which the two
    nodes see each other.
    """
    words = ssh_connection.split()
    client, server = (words[0], words[2]) if len(words) == 4 else ("", "")
    pin = decode_offer(text)
    if client:
        pin = replace(pin, addresses=tuple(dict.fromkeys((client, *pin.addresses)))[:16])
    offer = own_offer(own, extra_addresses=(server,))
    return encode_offer(offer), _take(own, pin)


def _take(own: OwnSide, pin: Pin) -> Paired:
    """Pin and authorize."""
    identity = keys.ensure_identity(own.paths, own.name)
    if pin.name == own.name or pin.public_key == identity.public_key:
        raise RefusedError(
            f"the other node is named {pin.name} and this one {own.name}"
            + (" and both have the same key" if pin.public_key == identity.public_key else "")
            + "; give each node its own name (ha.default.name) and key"
        )
    if not pin.host_keys:
        raise TrustError(f"{pin.name} offers no host key; is its SSH server running?")
    store = TrustStore(own.paths.pins_file)
    before = store.pin(pin)
    authorized.write(
        authorized.authorized_keys_file(own.authorized_keys),
        store.pins(),
        authorized.bridge_command(own.paths.peer_socket),
    )
    changed = before is not None and before.public_key != pin.public_key
    return Paired(peer=pin, replaced=before if changed else None)


# -- over an SSH login ----------------------------------------------------------------------------


def pair_with(
    target: str,
    own: OwnSide,
    login: Login,
    *,
    command: str = ACCEPT_COMMAND,
    timeout: float = 30.0,
) -> Paired:
    """Pair this node with ``target`` by logging in there; return the outcome.

    Raises ``TrustError`` (host key, login, offer) or ``RefusedError``, each with the remedy.
    """
    where = parse_target(target)
    # A key made now, so that the peer never pins one that a crash then loses.
    keys.ensure_identity(own.paths, own.name)
    with _logged_in(where, own, login, timeout) as (transport, seen, local_address):
        offer = own_offer(own, extra_addresses=(local_address,))
        answer, said = _run(transport, where, command, encode_offer(offer), timeout)
    pin = decode_offer(answer)
    # The key that the login has verified counts, whatever the peer believes of its own server.
    pin = replace(
        pin,
        host_keys=tuple(dict.fromkeys((seen, *pin.host_keys)))[:16],
        addresses=tuple(dict.fromkeys((where.host, *pin.addresses)))[:16],
        ssh_port=where.port,
    )
    return replace(_take(own, pin), said=said)


@contextlib.contextmanager
def _logged_in(
    where: Target, own: OwnSide, login: Login, timeout: float
) -> Iterator[tuple[paramiko.Transport, str, str]]:
    """Log in; yield the transport, the host key that was confirmed, and our address."""
    load_paramiko()
    import paramiko

    try:
        raw = socket.create_connection((where.host, where.port), timeout)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise TrustError(f"cannot reach {where.host} port {where.port}: {reason}") from error
    local_address = str(raw.getsockname()[0])
    transport = paramiko.Transport(raw)
    try:
        transport.banner_timeout = transport.auth_timeout = timeout
        known = _known_host_keys(where, own, login)
        prefer(transport, known)
        try:
            transport.start_client(timeout=timeout)
        except (paramiko.SSHException, EOFError) as error:
            raise TrustError(
                f"{where.host} port {where.port}: no SSH session: {printable(error)}"
            ) from error
        shown = transport.get_remote_server_key()
        seen = host_key_line(shown.get_name(), shown.asbytes())
        _believe(where, seen, known, login)
        _authenticate(transport, where, login)
        yield transport, seen, local_address
    finally:
        transport.close()
        transport.packetizer.complete_handshake()
        raw.close()


def _home(login: Login) -> Path:
    return login.home if login.home is not None else Path(os.path.expanduser("~"))


def _known_host_keys(where: Target, own: OwnSide, login: Login) -> list[str]:
    """Return the host keys already believed of that host: pinned ones, else known_hosts."""
    import paramiko

    with contextlib.suppress(TrustError):
        pin = TrustStore(own.paths.pins_file).find(where.host)
        if pin is not None and pin.host_keys:
            return list(pin.host_keys)
    hosts = paramiko.HostKeys()
    with contextlib.suppress(OSError):
        hosts.load(str(_home(login) / ".ssh" / "known_hosts"))
    label = where.host if where.port == 22 else f"[{where.host}]:{where.port}"
    found = hosts.lookup(label)
    return [host_key_line(kind, found[kind].asbytes()) for kind in found] if found else []


def _believe(where: Target, seen: str, known: Sequence[str], login: Login) -> None:
    """Raise ``TrustError`` unless the host key ``seen`` is to be believed."""
    kind = seen.split(maxsplit=1)[0]
    fingerprint = keys.ssh_fingerprint(seen)
    if login.fingerprint:
        if login.fingerprint.strip().rstrip("=") != fingerprint:
            raise TrustError(
                f"the SSH server of {where.host} has host key {fingerprint} ({kind}), expected "
                f"{login.fingerprint.strip()}"
            )
        return
    if seen in known:
        return
    if known:
        expected = ", ".join(keys.ssh_fingerprint(line) for line in known)
        raise TrustError(
            f"the SSH server of {where.host} has host key {fingerprint} ({kind}), known is "
            f"{expected}; if it was set up anew, say so with --fingerprint {fingerprint}"
        )
    question = HostKeyQuestion(host=where.host, port=where.port, kind=kind, fingerprint=fingerprint)
    if login.accept_host_key or (login.confirm is not None and login.confirm(question)):
        return
    raise TrustError(
        f"the host key {fingerprint} ({kind}) of {where.host} was not confirmed; compare it and "
        f"use --fingerprint {fingerprint}"
    )


def _authenticate(transport: paramiko.Transport, where: Target, login: Login) -> None:
    """Try keys, then the password; raise ``TrustError`` when none is accepted."""
    import paramiko

    tried: list[str] = []
    allowed: Sequence[str] = ("publickey", "password", "keyboard-interactive")
    try:
        transport.auth_none(where.user)
        return  # an account without password, as OpenWrt's root has before it gets one
    except paramiko.BadAuthenticationType as error:
        allowed = error.allowed_types or allowed
    except (paramiko.SSHException, EOFError) as error:
        raise TrustError(f"{where.host}: login ended: {printable(error)}") from error
    if "publickey" in allowed:
        for label, key in _login_keys(login):
            tried.append(label)
            if _try(lambda key=key: transport.auth_publickey(where.user, key), where):  # type: ignore[misc]
                return
    if login.password is not None and {"password", "keyboard-interactive"} & set(allowed):
        for _ in range(3):
            password = login.password(f"{where.user}@{where.host}'s password: ")
            if password is None:
                break
            if "password" not in tried:
                tried.append("password")
            if _try(lambda text=password: transport.auth_password(where.user, text), where):  # type: ignore[misc]
                return
    what = ", ".join(tried) or "nothing to try"
    raise TrustError(
        f"{where.host} does not let {where.user} in ({what}; it allows {', '.join(allowed)})"
    )


def _try(attempt: Callable[[], object], where: Target) -> bool:
    import paramiko

    try:
        return not attempt()  # a list of further methods means: not yet
    except paramiko.AuthenticationException:
        return False
    except (paramiko.SSHException, EOFError) as error:
        raise TrustError(f"{where.host}: login ended: {printable(error)}") from error


def _login_keys(login: Login) -> Iterator[tuple[str, paramiko.PKey]]:
    """Yield the keys to try: those named, the agent's, the user's own."""
    import paramiko

    ssh_directory = _home(login) / ".ssh"
    for file in login.identity_files:
        yield str(file), _load_key(file)
    if login.use_agent and os.environ.get("SSH_AUTH_SOCK"):
        agent = paramiko.Agent()
        try:
            for agent_key in agent.get_keys():
                yield f"agent key {agent_key.get_name()}", agent_key
        finally:
            agent.close()
    for name in ("id_ed25519", "id_ecdsa", "id_rsa", "id_dropbear"):
        file = ssh_directory / name
        if file in login.identity_files or not file.is_file():
            continue
        try:
            yield str(file), _load_key(file)
        except TrustError as error:
            log.debug("%s", error)  # protected by a passphrase, or dropbear's own format


def _load_key(file: Path) -> paramiko.PKey:
    import paramiko

    kinds: tuple[type[paramiko.PKey], ...] = (
        paramiko.Ed25519Key,
        paramiko.ECDSAKey,
        paramiko.RSAKey,
    )
    for kind in kinds:
        try:
            return kind.from_private_key_file(str(file))
        except OSError as error:
            raise TrustError(f"{file}: {error.strerror}") from error
        except (paramiko.SSHException, ValueError, IndexError):
            continue
    raise TrustError(f"{file}: not a private key that can be used without a passphrase")


def _run(
    transport: paramiko.Transport, where: Target, command: str, offer: str, timeout: float
) -> tuple[str, str]:
    """Run ``command`` with ``offer`` on its input; return its last line, and what else it said."""
    import paramiko

    try:
        channel = transport.open_session(timeout=timeout)
        channel.settimeout(timeout)
        channel.exec_command(command)
        with contextlib.suppress(OSError):  # ended without reading: its status tells why
            channel.sendall(offer.encode() + b"\n")
            channel.shutdown_write()
        output = _read(channel.recv)
        said = _read(channel.recv_stderr).decode("utf-8", "replace").strip()
        if not channel.status_event.wait(timeout):
            raise TimeoutError
        status = channel.recv_exit_status()
    except (paramiko.SSHException, EOFError, OSError) as error:
        reason = f"no answer within {timeout:g} s" if isinstance(error, TimeoutError) else error
        raise TrustError(f"{where.host}: {command}: {printable(reason)}") from error
    if status != 0:
        hint = "; is controlone-ha installed there?" if status == 127 else ""
        raise TrustError(
            f"{where.host}: {command} failed with status {status}{hint}: {printable(said)}"
        )
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return (lines[-1] if lines else ""), said


def _read(receive: Callable[[int], bytes]) -> bytes:
    data = b""
    while len(data) <= MAX_OFFER and (more := receive(4096)):
        data += more
    return data
