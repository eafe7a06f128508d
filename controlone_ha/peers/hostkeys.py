"""The host keys of this node's own SSH server, which peers pin. Blocking; call it from a thread.

Theory of operation: the files of a server's keys say all its keys but not which server is the one
that answers; the server itself shows one key a connection. So one connection to our own port finds
out which server it is, and its files give the rest. Without files every type is asked for.
"""

from __future__ import annotations

import glob
import logging
import socket
import subprocess
from collections.abc import Sequence

from controlone_ha.errors import TrustError
from controlone_ha.peers import keys
from controlone_ha.peers.lean import load_paramiko

OPENSSH_FILES = "/etc/ssh/ssh_host_*_key.pub"
DROPBEAR_FILES = "/etc/dropbear/dropbear_*_host_key"
_TYPES = (
    ("ssh-ed25519",),
    ("rsa-sha2-512", "rsa-sha2-256"),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
)

log = logging.getLogger(__name__)


def own_host_keys(port: int = 22, *, host: str = "127.0.0.1") -> tuple[str, ...]:
    """Return ``type base64`` of each host key of the SSH server on ``port``; empty if not found."""
    by_server = [openssh_keys(), dropbear_keys()]
    try:
        shown = ask(host, port, ())
    except TrustError as error:
        log.debug("own SSH server does not answer: %s", error)
        return tuple(dict.fromkeys(line for lines in by_server for line in lines))
    for lines in by_server:
        if shown in lines:
            return tuple(lines)
    return ask_all(host, port)


def openssh_keys(pattern: str = OPENSSH_FILES) -> list[str]:
    """Return the public host keys in OpenSSH's files."""
    lines = []
    for name in sorted(glob.glob(pattern)):
        try:
            with open(name, encoding="ascii", errors="replace") as stream:
                line = " ".join(stream.readline().split()[:2])
            keys.key_blob(line)
        except (OSError, TrustError) as error:
            log.warning("%s: %s", name, error)
            continue
        lines.append(line)
    return lines


def dropbear_keys(pattern: str = DROPBEAR_FILES) -> list[str]:
    """Return the public host keys in dropbear's files, read by ``dropbearkey -y``."""
    lines = []
    for name in sorted(glob.glob(pattern)):
        try:
            ran = subprocess.run(
                ["dropbearkey", "-y", "-f", name], capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            log.warning("dropbearkey -y -f %s: %s", name, error)
            continue
        for line in ran.stdout.splitlines():
            if line.startswith(("ssh-", "ecdsa-")):
                lines.append(" ".join(line.split()[:2]))
    return lines


def ask_all(host: str, port: int, *, timeout: float = 5.0) -> tuple[str, ...]:
    """Ask a server for its host key of each type; empty when it does not answer."""
    found = []
    for types in _TYPES:
        try:
            found.append(ask(host, port, types, timeout=timeout))
        except TrustError as error:
            log.debug("%s port %s: no %s: %s", host, port, types[0], error)
    return tuple(found)


def ask(host: str, port: int, types: Sequence[str], *, timeout: float = 5.0) -> str:
    """Return the host key, ``type base64``, that a server shows when asked for ``types`` (any: ()).

    A key exchange without a login. Raises ``TrustError``.
    """
    load_paramiko()
    import paramiko

    try:
        raw = socket.create_connection((host, port), timeout)
    except OSError as error:
        raise TrustError(f"cannot reach {host} port {port}: {error.strerror or error}") from error
    transport = paramiko.Transport(raw)
    try:
        transport.banner_timeout = timeout
        if types:
            known = transport._preferred_keys  # type: ignore[attr-defined]
            wanted = tuple(kind for kind in known if kind in types)
            transport.get_security_options().key_types = wanted
        transport.start_client(timeout=timeout)
        shown = transport.get_remote_server_key()
        return f"{shown.get_name()} {shown.get_base64()}"
    except (paramiko.SSHException, EOFError, OSError, ValueError) as error:
        raise TrustError(f"{host} port {port}: no host key learned: {error}") from error
    finally:
        transport.close()
        transport.packetizer.complete_handshake()
        raw.close()
