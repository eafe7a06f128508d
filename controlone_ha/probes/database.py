"""Database ping by pymongo: is there a mongod that lets this node in and takes writes.

Blocking; runs in threads of the probe worker (``worker``), never in `ha`, which stays without
pymongo. No replication and no data here.

Theory of operation. The first ping of a target opens a plain TCP connection, since pymongo would
retry a refused port until its time is over; then a client with one connection, which is kept: TLS
and SCRAM cost 12 ms of processor time, a ping over the open connection 0.2 ms. When a kept
connection fails, the ping starts over with a new one within its time, so that a restarted mongod is
no failure. A client lives ``MAX_AGE`` seconds at most: mongod does not end connections whose
certificate was revoked or whose password was changed, so the door is tried again now and then.

Outcomes: ``ANSWERED`` with latency for a writable primary; ``REFUSED``, ``TIMEOUT``,
``UNREACHABLE`` as for every probe; ``REJECTED`` for TLS, authentication and a database that is not
primary, with the word in ``answer["fault"]``: ``tls``, ``closed``, ``auth``, ``not_primary``,
``other``.
"""

from __future__ import annotations

import errno
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from controlone_ha.core.observations import Outcome

MAX_AGE = 600.0
IDLE_AGE = 90.0
_AUTHENTICATION = (11, 13, 18)  # UserNotFound, Unauthorized, AuthenticationFailed


@dataclass(frozen=True, kw_only=True)
class DatabaseTarget:
    """Where and as whom to ping. No ``user``: no authentication; no ``ca_file``: no TLS.

    ``certificate_key_file`` holds this node's certificate and key in one PEM file.
    """

    host: str
    port: int = 27017
    user: str = ""
    password: str = ""
    auth_source: str = "admin"
    ca_file: str = ""
    certificate_key_file: str = ""

    def __repr__(self) -> str:
        return f"DatabaseTarget({self.host}:{self.port})"

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name; carries the password."""
        return asdict(self)


def target_from_json(raw: Mapping[str, Any]) -> DatabaseTarget:
    """Return the target that ``to_json`` made; raises ``TypeError`` for other fields."""
    known = {field.name for field in fields(DatabaseTarget)}
    if set(raw) - known:
        raise TypeError(f"unknown fields: {', '.join(sorted(set(raw) - known))}")
    return DatabaseTarget(**raw)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """How a ping ended; becomes a ``ProbeResult`` on the other side of the pipe."""

    outcome: Outcome
    detail: str
    rtt_ms: float | None = None
    answer: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {
            "outcome": self.outcome.value,
            "detail": self.detail,
            "rtt_ms": self.rtt_ms,
            "answer": dict(self.answer or {}),
        }


class _Kept:
    """A target's client; ``lock`` makes its pings one at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.client: Any = None
        self.made_at = 0.0
        self.used_at = 0.0

    def close(self) -> None:
        if self.client is not None:
            self.client.close()
            self.client = None


class DatabasePinger:
    """Pings databases, keeping one connection to each."""

    def __init__(self) -> None:
        self._kept: dict[DatabaseTarget, _Kept] = {}
        self._lock = threading.Lock()

    def ping(self, target: DatabaseTarget, timeout: float) -> Finding:
        """Ping within ``timeout`` seconds. Raises ``OSError`` or ``ValueError`` when this node's
        own files or settings cannot be used.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            kept = self._kept.setdefault(target, _Kept())
        if not kept.lock.acquire(timeout=timeout):
            return Finding(outcome=Outcome.TIMEOUT, detail="the ping before has not ended")
        try:
            now = time.monotonic()
            kept.used_at = now
            if kept.client is not None and now - kept.made_at > MAX_AGE:
                kept.close()
            is_kept = kept.client is not None
            finding = self._once(kept, target, deadline)
            if is_kept and kept.client is None and time.monotonic() < deadline:
                finding = self._once(kept, target, deadline)
            return finding
        finally:
            kept.lock.release()

    def close_idle(self) -> None:
        """Close clients that nobody has asked for in ``IDLE_AGE`` seconds."""
        now = time.monotonic()
        with self._lock:
            for target, kept in list(self._kept.items()):
                if now - kept.used_at > IDLE_AGE and kept.lock.acquire(blocking=False):
                    kept.close()
                    kept.lock.release()
                    del self._kept[target]

    @property
    def open_clients(self) -> int:
        """Number of kept connections."""
        return sum(kept.client is not None for kept in self._kept.values())

    def close(self) -> None:
        """Close all."""
        for kept in self._kept.values():
            kept.close()
        self._kept.clear()

    def _once(self, kept: _Kept, target: DatabaseTarget, deadline: float) -> Finding:
        if kept.client is None:
            finding = knock(target, deadline)
            if finding is not None:
                return finding
        # Not before: where there is no database, pymongo would cost memory for nothing.
        import pymongo
        from pymongo.errors import PyMongoError

        if kept.client is None:
            kept.client = _client(target)
            kept.made_at = time.monotonic()
        started = time.monotonic()
        try:
            with pymongo.timeout(max(0.001, deadline - started)):
                hello = kept.client.admin.command("hello")
        except PyMongoError as error:
            finding = classify(error, _topology_errors(kept.client))
            kept.close()
            return finding
        return _greeted(hello, (time.monotonic() - started) * 1000)


def _client(target: DatabaseTarget) -> Any:
    from pymongo import MongoClient

    options: dict[str, Any] = {
        "directConnection": True,
        "connect": False,
        "maxPoolSize": 1,
        "retryReads": False,
        # The ping is the monitor: pymongo's own shall sleep.
        "heartbeatFrequencyMS": 3_600_000,
        "serverMonitoringMode": "poll",
        "serverSelectionTimeoutMS": 30_000,  # the time of each ping is set where it is made
        "connectTimeoutMS": 5_000,
        "appname": "controlone-ha probe",
    }
    if target.ca_file:
        options |= {"tls": True, "tlsCAFile": target.ca_file, "tlsAllowInvalidHostnames": True}
        if target.certificate_key_file:
            options["tlsCertificateKeyFile"] = target.certificate_key_file
    if target.user:
        options |= {
            "username": target.user,
            "password": target.password,
            "authSource": target.auth_source,
            "authMechanism": "SCRAM-SHA-256",
        }
    return MongoClient(target.host, target.port, **options)


def knock(target: DatabaseTarget, deadline: float) -> Finding | None:
    """Open and close a TCP connection; return what is wrong with the port, or None."""
    try:
        with socket.create_connection(
            (target.host, target.port), max(0.001, deadline - time.monotonic())
        ):
            return None
    except OSError as error:
        return _network_finding(error) or Finding(
            outcome=Outcome.UNREACHABLE, detail=error.strerror or str(error)
        )


def _topology_errors(client: Any) -> list[BaseException]:
    """Return what pymongo's monitor met; the exception of the ping often says only "no server"."""
    servers = client.topology_description.server_descriptions().values()
    return [server.error for server in servers if server.error is not None]


def classify(error: BaseException, others: list[BaseException]) -> Finding:
    """Return the finding for a failed ping from its exception, its causes and the monitor's."""
    chain = [found for start in (error, *others) for found in _causes(start)]
    for found in chain:
        code = getattr(found, "code", None)
        if isinstance(code, int) and code in _AUTHENTICATION:
            return _rejected("auth", "refuses the login: wrong secret or unknown user")
    for found in chain:
        if isinstance(found, ssl.SSLError) and not isinstance(found, TimeoutError):
            return _rejected("tls", f"no TLS with it: {found.reason or found}")
    for found in chain:
        finding = _network_finding(found)
        if finding is not None:
            return finding
    text = " ".join(str(found) for found in chain)
    if "SSL handshake failed" in text or "certificate verify failed" in text:
        return _rejected("tls", f"no TLS with it: {_first_line(chain[0])}")
    if "connection closed" in text:
        # How mongod refuses a certificate: the reason is in its log only.
        return _rejected("closed", "closes the connection: it may not accept our certificate")
    if "timed out" in text or "Timeout" in text:
        return _TIMEOUT
    return _rejected("other", _first_line(error))


_TIMEOUT = Finding(
    outcome=Outcome.TIMEOUT, detail="accepts connections but does not answer in time"
)


def _network_finding(error: BaseException) -> Finding | None:
    from controlone_ha.probes.addresses import UNREACHABLE

    number = getattr(error, "errno", None)
    if isinstance(error, socket.gaierror):
        return Finding(outcome=Outcome.UNREACHABLE, detail=f"name not resolved: {error}")
    if isinstance(error, ConnectionRefusedError):
        return Finding(outcome=Outcome.REFUSED, detail="connection refused: no database on it")
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return Finding(outcome=Outcome.REFUSED, detail="connection reset")
    if isinstance(error, OSError) and number in UNREACHABLE:
        return Finding(outcome=Outcome.UNREACHABLE, detail=UNREACHABLE[number])
    if isinstance(error, TimeoutError) or number == errno.ETIMEDOUT:
        return Finding(outcome=Outcome.TIMEOUT, detail="no answer in time")
    return None


def _greeted(hello: Mapping[str, Any], rtt_ms: float) -> Finding:
    answer = {
        "set": hello.get("setName", ""),
        "primary": bool(hello.get("isWritablePrimary")),
        "wire": hello.get("maxWireVersion", 0),
    }
    if not answer["primary"]:
        return Finding(
            outcome=Outcome.REJECTED,
            detail="answers, but takes no writes (not primary)",
            rtt_ms=rtt_ms,
            answer={**answer, "fault": "not_primary"},
        )
    return Finding(
        outcome=Outcome.ANSWERED, detail="primary, takes writes", rtt_ms=rtt_ms, answer=answer
    )


def _rejected(fault: str, detail: str) -> Finding:
    return Finding(outcome=Outcome.REJECTED, detail=detail, answer={"fault": fault})


def _first_line(error: BaseException) -> str:
    return str(error).partition(", Timeout:")[0].splitlines()[0][:200] if str(error) else "failed"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
