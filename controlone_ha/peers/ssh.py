"""One SSH session to a peer's own server, as an ordinary asyncio stream pair. Dialing side only.

Theory of operation. paramiko is blocking, so a session has threads of its own: paramiko's reader,
and two pumps that copy between the channel of the forced command and one end of a socket pair; the
event loop holds the other end. When a peer does not read, its own pump blocks, and then the write
buffer of its own ``StreamWriter`` grows; nobody else notices. Every wait of those threads ends when
the TCP socket is shut down, which ``SshConnection.abort`` does without blocking, so that no thread
and no descriptor outlives its session.

paramiko looks ten times a second whether it should stop; ``_PatientSocket`` makes that once in
``PATIENCE`` seconds, as shutting the socket down wakes its reader anyway.

Only pinned host keys are accepted, and only algorithms for which one is pinned are offered, so that
a server with several host keys shows one that is known. Ciphers: AES-GCM first, for speed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controlone_ha.peers import keys
from controlone_ha.peers.facts import Refusal
from controlone_ha.peers.frames import printable
from controlone_ha.peers.lean import load_paramiko

if TYPE_CHECKING:
    import paramiko

PATIENCE = 5.0
WINDOW = 4 << 20
CHUNK = 1 << 18
STREAM_LIMIT = 1 << 18
# What waits unsent in the kernel delays every frame behind it; this much keeps a fast line full.
UNSENT_LOWAT = 1 << 18
_TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)
_CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
_ALGORITHMS = {
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
}

log = logging.getLogger(__name__)


class Unreachable(Refusal):
    """No SSH session came about for a reason that is nobody's refusal."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where to dial, who must be there, and who we are."""

    peer: str
    host: str
    port: int
    user: str
    host_keys: tuple[str, ...]
    """Pinned host keys, ``type base64``."""
    key_file: Path


class _PatientSocket:
    """What paramiko takes for its socket: polls rarely once told so, wakes its reader on close."""

    def __init__(self, raw: socket.socket) -> None:
        self.raw = raw
        self.broken: OSError | None = None
        self.ended = False
        self._patient = False

    def be_patient(self) -> None:
        self._patient = True
        self.settimeout(0.1)

    def settimeout(self, timeout: float | None) -> None:
        if self._patient and timeout is not None:
            timeout = max(timeout, PATIENCE)
        self.raw.settimeout(timeout)

    def recv(self, size: int) -> bytes:
        try:
            data = self.raw.recv(size)
        except TimeoutError:
            raise
        except OSError as error:
            self.broken = self.broken or error
            raise
        if not data:
            self.ended = True
        return data

    def send(self, data: bytes) -> int:
        try:
            return self.raw.send(data)
        except TimeoutError:
            raise
        except OSError as error:
            self.broken = self.broken or error
            raise

    def wake(self) -> None:
        """End every wait on the socket, from any thread, without blocking."""
        with contextlib.suppress(OSError):
            self.raw.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.wake()
        self.raw.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


class SshConnection:
    """An established session: ``reader`` and ``writer`` carry the bytes of the forced command."""

    def __init__(self, session: _Session) -> None:
        self._session = session
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    @property
    def host_key(self) -> str:
        """Fingerprint of the host key that the server has proven."""
        return self._session.host_key

    @property
    def local_address(self) -> str:
        """Our address on this connection."""
        return self._session.local_address

    @property
    def cipher(self) -> str:
        """Cipher in use, for people."""
        return self._session.cipher

    def ending(self) -> tuple[str, str]:
        """Return (code, sentence) of the end: ``closed``, ``reset`` or ``no_bridge``."""
        return self._session.ending()

    def abort(self) -> None:
        """Drop the session at once. Idempotent, never blocks."""
        self._session.abort()

    @property
    def finished(self) -> bool:
        """True once every thread of the session has ended."""
        return not any(thread.is_alive() for thread in self._session.threads)


async def dial(target: Target, *, timeout: float) -> SshConnection:
    """Open a session and start the forced command; raise ``Refusal`` with a code for each cause.

    Codes: ``unreachable``, ``unknown_host_key``, ``unknown_key``, ``no_bridge``, ``ssh`` (anything
    else that SSH said). ``timeout`` in seconds bounds the whole. Cancelling it leaves nothing open.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            raw = await _connect(target)
            session = _Session(target, raw, timeout)
            done: asyncio.Future[Refusal | None] = loop.create_future()

            def finish(problem: Refusal | None) -> None:
                if not done.done():
                    done.set_result(problem)

            def report(problem: Refusal | None) -> None:
                loop.call_soon_threadsafe(finish, problem)

            session.start(report)
            try:
                problem = await done
                if problem is not None:
                    raise problem
                connection = SshConnection(session)
                connection.reader, connection.writer = await asyncio.open_connection(
                    sock=session.outer, limit=STREAM_LIMIT
                )
            except BaseException:
                session.abort()
                session.outer.close()
                raise
            return connection
    except TimeoutError:
        raise Unreachable(
            "unreachable", f"{target.peer} ({target.host}) did not answer within {timeout:g} s"
        ) from None


async def _connect(target: Target) -> socket.socket:
    """Open the TCP connection, trying each address of the host."""
    loop = asyncio.get_running_loop()
    where = f"{target.peer} ({target.host} port {target.port})"
    try:
        found = await _addresses(target)
    except OSError as error:
        raise Unreachable("unreachable", f"{where}: {error.strerror or error}") from error
    problem: OSError | None = None
    for family, kind, protocol, _, address in found:
        raw = socket.socket(family, kind, protocol)
        try:
            raw.setblocking(False)
            await loop.sock_connect(raw, address)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT_LOWAT)
            return raw
        except OSError as error:
            raw.close()
            problem = error
        except BaseException:
            raw.close()
            raise
    reason = os.strerror(problem.errno or 0) if problem is not None else "it has no address"
    raise Unreachable("unreachable", f"cannot reach {where}: {reason}") from problem


async def _addresses(target: Target) -> list[Any]:
    """Resolve the host, without a thread when it is an address already."""
    try:
        return socket.getaddrinfo(
            target.host, target.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    except socket.gaierror:
        loop = asyncio.get_running_loop()
        return await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)


class _Session:
    """The blocking half: paramiko's transport, the channel, and the two pumps."""

    def __init__(self, target: Target, raw: socket.socket, timeout: float) -> None:
        self.target = target
        self.timeout = timeout
        self.socket = _PatientSocket(raw)
        self.local_address = str(raw.getsockname()[0])
        self.outer, self.inner = socket.socketpair()
        for end in (self.outer, self.inner):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CHUNK)
        self.inner.setblocking(True)
        self.outer.setblocking(False)
        self.host_key = ""
        self.cipher = ""
        self.threads: list[threading.Thread] = []
        self._transport: paramiko.Transport | None = None
        self._channel: paramiko.Channel | None = None
        self._ending: tuple[str, str] | None = None
        self._aborted = False
        self._in_ended = threading.Event()
        self._lock = threading.Lock()

    def start(self, report: Callable[[Refusal | None], None]) -> None:
        """Run the session in threads; ``report`` is called once, from one of them."""
        thread = threading.Thread(
            target=self._run, args=(report,), name=f"ssh {self.target.peer} in", daemon=True
        )
        self.threads.append(thread)
        thread.start()

    def abort(self) -> None:
        """Wake every thread of the session; they clean up. Callable from any thread."""
        self._aborted = True
        self.socket.wake()
        with contextlib.suppress(OSError):
            self.inner.shutdown(socket.SHUT_RDWR)

    def ending(self) -> tuple[str, str]:
        return self._ending or ("closed", f"the SSH session to {self.target.peer} ended")

    def _run(self, report: Callable[[Refusal | None], None]) -> None:
        problem: Refusal | None = None
        try:
            problem = self._open()
            if problem is None:
                up = threading.Thread(
                    target=self._pump_out, name=f"ssh {self.target.peer} out", daemon=True
                )
                self.threads.append(up)
                up.start()
                report(None)
                self._pump_in()
        except Exception as error:  # a thread's wrapper: paramiko lets anything through
            log.warning("session to %s", self.target.peer, exc_info=True)
            problem = Refusal("ssh", f"SSH to {self.target.peer} failed: {printable(error)}")
        finally:
            self._tear_down()
            if problem is not None:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    report(problem)

    def _open(self) -> Refusal | None:
        load_paramiko()
        import paramiko

        target = self.target
        transport = paramiko.Transport(
            self.socket,  # type: ignore[arg-type]
            default_window_size=WINDOW,
        )
        with self._lock:
            self._transport = transport
            self.threads.append(transport)
        transport.banner_timeout = self.timeout
        transport.auth_timeout = self.timeout
        transport.channel_timeout = self.timeout
        prefer(transport, target.host_keys)
        try:
            transport.start_client(timeout=self.timeout)
        except (paramiko.SSHException, EOFError, OSError) as error:
            return self._open_failed(error)
        shown = transport.get_remote_server_key()
        self.host_key = keys.blob_fingerprint(shown.asbytes())
        if f"{shown.get_name()} {shown.get_base64()}" not in target.host_keys:
            return Refusal("unknown_host_key", host_key_mismatch(target, self.host_key))
        try:
            transport.auth_publickey(
                target.user, paramiko.RSAKey.from_private_key_file(str(target.key_file))
            )
        except paramiko.AuthenticationException:
            return Refusal(
                "unknown_key",
                f"the SSH server of {target.peer} does not know this node's key for user "
                f"{target.user}; run `ha pair {target.peer}` again",
            )
        except (paramiko.SSHException, EOFError, OSError) as error:
            return Refusal(
                "ssh", f"{target.peer} ended the SSH session at login: {printable(error)}"
            )
        try:
            channel = transport.open_session(
                window_size=WINDOW, max_packet_size=32768, timeout=self.timeout
            )
            self._channel = channel
            channel.exec_command("controlone-ha link")  # the forced command runs, whatever is asked
        except (paramiko.SSHException, EOFError, OSError) as error:
            return Refusal(
                "no_bridge", f"{target.peer} did not start its peer bridge: {printable(error)}"
            )
        self.cipher = str(transport.remote_cipher)  # type: ignore[attr-defined]
        self.socket.be_patient()
        return None

    def _open_failed(self, error: Exception) -> Refusal:
        import paramiko

        target = self.target
        if isinstance(error, paramiko.ssh_exception.IncompatiblePeer) and "host key" in str(error):
            return Refusal(
                "unknown_host_key",
                f"the SSH server of {target.peer} ({target.host}) has no host key of a type that "
                f"is pinned; if it was set up anew, run `ha pair {target.peer}`",
            )
        return Unreachable(
            "unreachable",
            f"no SSH server answers properly on {target.peer} ({target.host} port {target.port}): "
            f"{printable(error)}",
        )

    def _pump_in(self) -> None:
        """Copy from the channel to the event loop until the channel or the loop ends."""
        channel = self._channel
        assert channel is not None
        try:
            while data := channel.recv(CHUNK):
                self.inner.sendall(data)
        except OSError:
            pass  # the loop's end is closed, or the channel broke: ``_find_ending`` tells which
        self._in_ended.set()
        self._ending = self._find_ending()

    def _pump_out(self) -> None:
        """Copy from the event loop to the channel; when the loop closes its end, end all."""
        channel, transport = self._channel, self._transport
        assert channel is not None and transport is not None
        try:
            while data := self._from_loop():
                channel.sendall(data)
            # Said its last word: let it arrive before the connection goes.
            channel.shutdown_write()
            self._in_ended.wait(1.0)
        except (OSError, EOFError):
            pass  # socket.error and its kin: the session is over either way
        finally:
            self.socket.wake()

    def _from_loop(self) -> bytes:
        try:
            return self.inner.recv(CHUNK)
        except ConnectionResetError:
            return b""  # closed with something unread

    def _find_ending(self) -> tuple[str, str]:
        """Tell a peer's daemon that ended from a connection that broke."""
        peer, channel = self.target.peer, self._channel
        assert channel is not None
        if self._aborted:
            return "closed", f"the link to {peer} was closed here"
        broken = self.socket.broken
        if broken is not None:
            name = errno.errorcode.get(broken.errno or 0, "?")
            return "reset", f"the connection to {peer} broke: {broken.strerror} ({name})"
        if self.socket.ended:
            return "reset", f"the SSH connection to {peer} ended without a goodbye"
        said = ""
        with contextlib.suppress(OSError):
            if channel.recv_stderr_ready():
                said = printable(channel.recv_stderr(500).decode("utf-8", "replace").strip())
        # The exit status follows the end of the output, if it comes at all.
        channel.status_event.wait(0.2)
        status = channel.exit_status
        if status > 3:
            detail = f": {said}" if said else ""
            return "no_bridge", f"the peer bridge of {peer} failed with status {status}{detail}"
        return "closed", f"ha on {peer} ended (its SSH server goes on)"

    def _tear_down(self) -> None:
        with self._lock:
            transport = self._transport
        if transport is not None:
            transport.close()
            # Else the timer of a handshake that failed lives on for its full time.
            transport.packetizer.complete_handshake()
            if transport.is_alive():
                self.socket.close()
                transport.join(1.0)
        self.socket.close()
        with contextlib.suppress(OSError):
            self.inner.shutdown(socket.SHUT_RDWR)
        current = threading.current_thread()
        for thread in self.threads:
            if thread is not current and thread is not transport:
                thread.join(2.0)
        self.inner.close()


def prefer(transport: paramiko.Transport, host_keys: Sequence[str]) -> None:
    """Offer fast ciphers first, and only host key algorithms of the keys given (all if none)."""
    options = transport.get_security_options()
    known = set(transport._cipher_info)  # type: ignore[attr-defined]
    options.ciphers = tuple(cipher for cipher in _CIPHERS if cipher in known)
    kinds = [line.split()[0] for line in host_keys]
    wanted = [name for kind in kinds for name in _ALGORITHMS.get(kind, ())]
    usable = [name for name in transport._preferred_keys if name in wanted]  # type: ignore[attr-defined]
    if usable:
        options.key_types = tuple(usable)


def host_key_mismatch(target: Target, shown: str) -> str:
    """Return the sentence for a server that showed host key ``shown`` instead of a pinned one."""
    pinned = ", ".join(keys.ssh_fingerprint(line) for line in target.host_keys) or "none"
    return (
        f"the SSH server of {target.peer} ({target.host}) has host key {shown}, pinned is "
        f"{pinned}; if that server was set up anew, run `ha pair {target.peer}`"
    )
