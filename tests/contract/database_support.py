"""Real mongods and synchronisers for the tests of the database item.

A ``Base`` is one node's mongod, without TLS and login unless a test is about them; a ``Syncer`` is
the child process as `ha` runs it. Both can be killed and started again.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from controlone_ha.probes.child import child_environment
from controlone_ha.probes.database import DatabaseTarget
from controlone_ha.sync.database.settings import Settings
from tests.waiting import wait_for


class Base:
    """One mongod with one member."""

    def __init__(
        self,
        binary: Path,
        directory: Path,
        port: int,
        *,
        extra: Sequence[str] = (),
        oplog: int = 990,
    ) -> None:
        self.binary, self.directory, self.port = binary, directory, port
        self.extra = tuple(extra)
        self.oplog = oplog
        """Its size in MB."""
        self.environment: dict[str, str] = {}
        (directory / "data").mkdir(parents=True)
        self.process: subprocess.Popen[bytes] | None = None
        self.client: MongoClient[dict[str, Any]] = MongoClient(
            "127.0.0.1", port, directConnection=True, serverSelectionTimeoutMS=20_000
        )

    @property
    def target(self) -> DatabaseTarget:
        return DatabaseTarget(host="127.0.0.1", port=self.port)

    def start(self) -> None:
        at = self.directory
        self.process = subprocess.Popen(
            [
                str(self.binary), "--bind_ip", "127.0.0.1", "--port", str(self.port),
                "--nounixsocket", "--dbpath", f"{at}/data", "--logpath", f"{at}/log",
                "--logappend", "--replSet", "ha", "--wiredTigerCacheSizeGB", "0.25",
                "--oplogSize", str(self.oplog), "--journalCommitInterval", "5", "--setParameter",
                "diagnosticDataCollectionEnabled=false", *self.extra,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **self.environment},
        )  # fmt: skip

    def initiate(self) -> None:
        members = [{"_id": 0, "host": f"localhost:{self.port}"}]
        self.client.admin.command("replSetInitiate", {"_id": "ha", "members": members})

    def wait_writable(self, seconds: float = 30.0) -> None:
        def is_writable() -> bool:
            try:
                return bool(self.client.admin.command("hello")["isWritablePrimary"])
            except PyMongoError:
                return False

        wait_for(is_writable, seconds)

    def kill(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
                self.process.kill()
            self.process.wait()
            self.process = None


class Syncer:
    """One synchroniser process, asked as `ha` asks it."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.settings = settings
        self._log = log
        self._numbers = itertools.count(1)
        self.process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] = {}

    def start(self) -> None:
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "controlone_ha.sync.database", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**child_environment(), **self.environment},
            )
        self.configure(self.settings)

    def configure(self, settings: Settings) -> None:
        self.settings = settings
        self.ask("configure", **settings.to_json())

    def ask(self, method: str, **params: Any) -> Any:
        assert self.process is not None and self.process.stdin and self.process.stdout
        number = next(self._numbers)
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert answer["id"] == number, answer
        if "error" in answer:
            raise AssertionError(answer["error"]["message"])
        return answer["result"]

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("status")
        return found

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
            self.process = None

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")


class Cluster:
    """Nodes a, b (and c), each a mongod with a synchroniser that reads the others."""

    def __init__(self, bases: Mapping[str, Base], directory: Path, **options: Any) -> None:
        self.bases = dict(bases)
        self.options = options
        self._directory = directory
        self.syncers = {
            name: Syncer(self.settings(name), directory / f"{name}.log") for name in bases
        }

    def settings(self, name: str, **changed: Any) -> Settings:
        others = {other: base.target for other, base in self.bases.items() if other != name}
        values = {
            "node": name,
            "own": self.bases[name].target,
            "peers": others,
            **self.options,
            **changed,
        }
        return Settings(**values)

    def start(self, *names: str) -> None:
        for name in names or self.syncers:
            self.syncers[name].start()

    def client(self, name: str) -> MongoClient[dict[str, Any]]:
        return self.bases[name].client

    def collection(self, name: str, namespace: str = "app.things") -> Any:
        database, _, collection = namespace.partition(".")
        return self.client(name)[database][collection]

    def wait_in_sync(self, *names: str, seconds: float = 30.0) -> None:
        """Wait until every node that runs says that it has all of the others that run."""

        def all_in_sync() -> bool:
            running = [name for name in names or self.syncers if self.syncers[name].process]
            for name in running:
                peers = self.syncers[name].status()["peers"]
                if any(
                    peers.get(other, {}).get("state") != "in sync"
                    for other in running
                    if other != name
                ):
                    return False
            return True

        try:
            wait_for(all_in_sync, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.describe()}") from error

    def wait_equal(self, namespace: str = "app.things", seconds: float = 30.0) -> list[Any]:
        """Wait until the collection is the same everywhere; return its documents by id."""

        def contents(name: str) -> list[Any]:
            return sorted(
                self.collection(name, namespace).find(), key=lambda item: repr(item["_id"])
            )

        def all_equal() -> bool:
            first, *others = (contents(name) for name in self.bases)
            return all(other == first for other in others)

        try:
            wait_for(all_equal, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.describe()}") from error
        return contents(next(iter(self.bases)))

    def settle(self, namespace: str = "app.things", seconds: float = 30.0) -> list[Any]:
        """Wait until nothing is on its way any more, then return what all hold."""

        def is_quiet() -> bool:
            for name in self.bases:
                said = self.syncers[name].status()
                if said["state"] != "running" or said["unstamped"]:
                    return False
                if any(
                    peer["backlog"] or peer["state"] != "in sync" for peer in said["peers"].values()
                ):
                    return False
            return True

        found = self.wait_equal(namespace, seconds)
        wait_for(is_quiet, seconds)
        return found

    def describe(self) -> str:
        parts = []
        for name, syncer in self.syncers.items():
            said = json.dumps(syncer.status(), indent=1) if syncer.process else "down"
            parts.append(f"--- {name}: {said}\n{syncer.log()[-3000:]}")
        return "\n".join(parts)

    def clean(self) -> None:
        """End the synchronisers and drop all data."""
        for syncer in self.syncers.values():
            syncer.kill()
        for base in self.bases.values():
            for name in base.client.list_database_names():
                if name not in ("admin", "config", "local"):
                    base.client.drop_database(name)


@contextlib.contextmanager
def bases(
    binary: Path,
    free_port: Callable[[], int],
    count: int,
    *,
    extra: Sequence[str] = (),
    oplog: int = 990,
    prepare: Callable[[Base], object] = lambda _: None,
) -> Iterator[dict[str, Base]]:
    """Running mongods a, b, c in a directory in memory that goes away with them."""
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="c1-mongo-", dir=place) as directory:
        made = {
            name: Base(binary, Path(directory) / name, free_port(), extra=extra, oplog=oplog)
            for name in "abc"[:count]
        }
        try:
            for base in made.values():
                prepare(base)
                base.start()
            for base in made.values():
                base.initiate()
            for base in made.values():
                base.wait_writable()
            yield made
        finally:
            for base in made.values():
                base.client.close()
                base.kill()
