"""Database pings against a real mongod with TLS, client certificates and SCRAM."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from controlone_ha.core.observations import Outcome, ProbeResult
from controlone_ha.probes.database import DatabasePinger, DatabaseTarget
from controlone_ha.probes.worker_client import ProbeWorker
from tests.waiting import freeze, thaw

pytestmark = pytest.mark.contract

USER, PASSWORD = "ha-probe", "right secret"


def make_certificate(path: Path, name: str) -> bytes:
    """Write key and self-signed certificate in one file; return the certificate in PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # mongod does not start with a certificate that begins at the very start of 1970.
        .not_valid_before(datetime.datetime(1970, 1, 2))
        .not_valid_after(datetime.datetime(9999, 12, 31))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + pem
    )
    return pem


class Mongod:
    """A mongod as a node runs it: one member, TLS and login required."""

    def __init__(self, binary: Path, directory: Path, port: int) -> None:
        self.binary, self.directory, self.port = binary, directory, port
        pins = make_certificate(directory / "node.pem", "node")
        pins += make_certificate(directory / "client.pem", "client")
        (directory / "pins.pem").write_bytes(pins)
        make_certificate(directory / "stranger.pem", "client")
        (directory / "key").write_bytes(b"c2VjcmV0" * 16)
        (directory / "key").chmod(0o600)
        (directory / "data").mkdir()
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        at = str(self.directory)
        return subprocess.Popen(
            [
                str(self.binary), "--bind_ip", "127.0.0.1", "--port", str(self.port),
                "--nounixsocket", "--dbpath", f"{at}/data", "--logpath", f"{at}/log",
                "--replSet", "ha1", "--keyFile", f"{at}/key", "--auth",
                "--tlsMode", "requireTLS", "--tlsCertificateKeyFile", f"{at}/node.pem",
                "--tlsCAFile", f"{at}/pins.pem",
                "--setParameter", "authenticationMechanisms=SCRAM-SHA-256",
                "--setParameter", "diagnosticDataCollectionEnabled=false",
                "--wiredTigerCacheSizeGB", "0.25",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def target(self, **changed: str) -> DatabaseTarget:
        values = {
            "user": USER,
            "password": PASSWORD,
            "ca_file": str(self.directory / "pins.pem"),
            "certificate_key_file": str(self.directory / "client.pem"),
            **changed,
        }
        return DatabaseTarget(host="127.0.0.1", port=self.port, **values)

    def initiate(self) -> None:
        client: MongoClient[dict[str, object]] = MongoClient(
            "127.0.0.1",
            self.port,
            directConnection=True,
            tls=True,
            tlsCAFile=str(self.directory / "pins.pem"),
            tlsCertificateKeyFile=str(self.directory / "client.pem"),
        )
        with client:
            members = [{"_id": 0, "host": f"127.0.0.1:{self.port}"}]
            client.admin.command("replSetInitiate", {"_id": "ha1", "members": members})
            deadline = time.monotonic() + 30
            while not client.admin.command("hello")["isWritablePrimary"]:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            client.admin.command("createUser", USER, pwd=PASSWORD, roles=["clusterMonitor"])

    def restart(self) -> None:
        self.stop()
        self.process = self._start()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def mongod(
    mongod_path: Path, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mongod]:
    made = Mongod(mongod_path, tmp_path_factory.mktemp("mongod"), free_port())
    try:
        # The first contact waits for the start, so that it is asked for by its outcome.
        pinger = DatabasePinger()
        deadline = time.monotonic() + 30
        while pinger.ping(made.target(user=""), 5.0).outcome is Outcome.REFUSED:
            assert made.process.poll() is None, (made.directory / "log").read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        pinger.close()
        made.initiate()
        yield made
    except PyMongoError:
        pytest.fail((made.directory / "log").read_text()[-2000:])
    finally:
        made.stop()


@pytest.fixture
def pinger() -> Iterator[DatabasePinger]:
    made = DatabasePinger()
    yield made
    made.close()


class TestPing:
    def test_F1_a_writable_primary_answers_with_its_latency(self, mongod: Mongod) -> None:
        async def story() -> ProbeResult:
            worker = ProbeWorker()
            try:
                return await worker.ping_database(mongod.target(), timeout=20.0)
            finally:
                await worker.close()

        result = asyncio.run(story())
        assert result.outcome is Outcome.ANSWERED, result.detail
        assert result.detail == "primary, takes writes"
        assert result.rtt_ms is not None and result.rtt_ms > 0
        assert result.answer["set"] == "ha1" and result.answer["primary"] is True

    @pytest.mark.parametrize(
        ("changed", "fault", "detail"),
        [
            ({"password": "wrong secret"}, "auth", "refuses the login"),
            ({"user": "nobody"}, "auth", "refuses the login"),
            ({"certificate_key_file": "stranger.pem"}, "closed", "our certificate"),
            ({"certificate_key_file": ""}, "closed", "our certificate"),
            ({"ca_file": "stranger.pem"}, "tls", "no TLS with it"),
            ({"ca_file": ""}, "closed", "closes the connection"),
        ],
    )
    def test_X2_key_and_secret_must_both_be_right_and_what_is_wrong_is_told(
        self,
        mongod: Mongod,
        pinger: DatabasePinger,
        changed: dict[str, str],
        fault: str,
        detail: str,
    ) -> None:
        files = {
            name: str(mongod.directory / value) if value.endswith(".pem") else value
            for name, value in changed.items()
        }
        finding = pinger.ping(mongod.target(**files), 3.0)
        assert finding.outcome is Outcome.REJECTED, finding
        assert finding.answer is not None and finding.answer["fault"] == fault, finding
        assert detail in finding.detail
        assert PASSWORD not in finding.detail and "wrong secret" not in repr(mongod.target())

    def test_the_connection_is_kept_and_closed_when_nobody_asks(
        self, mongod: Mongod, pinger: DatabasePinger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = pinger.ping(mongod.target(), 10.0)
        before = time.process_time()
        for _ in range(20):
            assert pinger.ping(mongod.target(), 10.0).outcome is first.outcome
        assert (time.process_time() - before) / 20 < 0.01
        assert pinger.open_clients == 1
        pinger.close_idle()
        assert pinger.open_clients == 1
        monkeypatch.setattr("controlone_ha.probes.database.IDLE_AGE", -1.0)
        pinger.close_idle()
        assert pinger.open_clients == 0

    def test_F3_a_stopped_database_is_a_timeout_and_answers_again_when_it_goes_on(
        self, mongod: Mongod, pinger: DatabasePinger
    ) -> None:
        assert pinger.ping(mongod.target(), 10.0).outcome is Outcome.ANSWERED
        freeze(mongod.process.pid)
        try:
            started = time.monotonic()
            kept, fresh = (pinger.ping(mongod.target(), 0.5) for _ in range(2))
            assert time.monotonic() - started < 3.0
        finally:
            thaw(mongod.process.pid)
        assert (kept.outcome, fresh.outcome) == (Outcome.TIMEOUT, Outcome.TIMEOUT)
        assert pinger.ping(mongod.target(), 10.0).outcome is Outcome.ANSWERED

    def test_F3_a_killed_database_refuses_and_a_restarted_one_is_no_failure(
        self, mongod: Mongod, pinger: DatabasePinger
    ) -> None:
        assert pinger.ping(mongod.target(), 10.0).outcome is Outcome.ANSWERED
        mongod.stop()
        started = time.monotonic()
        assert pinger.ping(mongod.target(), 10.0).outcome is Outcome.REFUSED
        assert time.monotonic() - started < 5.0
        mongod.restart()
        seen: list[Outcome] = []
        deadline = time.monotonic() + 30
        while not seen or seen[-1] is not Outcome.ANSWERED:
            finding = pinger.ping(mongod.target(), 10.0)
            if finding.outcome is Outcome.REJECTED:
                # Between its start and its election it answers, and says that it takes no writes.
                assert finding.answer is not None
                assert finding.answer["fault"] == "not_primary", finding
            seen.append(finding.outcome)
            assert time.monotonic() < deadline, seen
            time.sleep(0.02)
        assert Outcome.REFUSED in seen or Outcome.REJECTED in seen
