"""Figures of the database item beside MongoDB's own replica set of three members.

Both with TLS and login, the same options and the same journal interval, three rounds each in turn.
Ours are two nodes with their synchronisers. *Lag* is from the begin of a write that is acknowledged
when it is journaled (w: 1, j: true) until a change stream on the other node shows it, which it does
when it is journaled there, too. ``python -m tests.bench.database_figures`` prints the table.
"""

from __future__ import annotations

import contextlib
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError
from pymongo.write_concern import WriteConcern

from controlone_ha.lab import parts
from controlone_ha.lab.figures import Figure, figures_table, median_figure
from controlone_ha.paths import NodePaths, node_paths
from controlone_ha.peers.keys import ensure_identity
from controlone_ha.probes.database import DatabaseTarget
from controlone_ha.sync.database.clients import open_client
from controlone_ha.sync.database.documents import RAW
from controlone_ha.sync.database.files import database_files, own_target, peer_target, write_files
from controlone_ha.sync.database.options import command_line, lines
from controlone_ha.sync.database.reconcile import Digests, differences
from controlone_ha.sync.database.settings import Settings
from tests.contract.database_support import Syncer
from tests.ports import free_port
from tests.waiting import wait_for

ROUNDS = 3
WRITES = 150
RATE = 200
RATE_SECONDS = 3.0
INSERTS = 20_000
MANY = 100_000
COMPARISONS = 5
PASSWORD = "bench-password"
NATIVE_USER = "bench"


class Mongod:
    """One mongod with the options of a node."""

    def __init__(self, directory: Path, name: str, port: int) -> None:
        self.name, self.port = name, port
        self.paths: NodePaths = node_paths({"CONTROLONE_STATE_DIR": str(directory / name)})
        self.data = directory / f"{name}.data"
        self.data.mkdir(parents=True)
        self.certificate = ensure_identity(self.paths, name).certificate
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, certificates: dict[str, str], keyfile: Path | None = None) -> None:
        write_files(self.paths, {n: c for n, c in certificates.items() if n != self.name})
        files = database_files(self.paths)
        if keyfile is not None and keyfile != files.keyfile:
            shutil.copy(keyfile, files.keyfile)
        settings = lines(
            node_pem=str(files.node),
            pins_pem=str(files.pins),
            keyfile=str(files.keyfile),
            port=self.port,
        )
        words = [word if word != "0.0.0.0" else "127.0.0.1" for word in command_line(settings)]
        words += ["--tlsAllowInvalidHostnames", "--dbpath", str(self.data), "--nounixsocket"]
        words += ["--wiredTigerCacheSizeGB", "0.25", "--logpath", f"{self.data}/log"]
        words += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
        self.process = subprocess.Popen(
            [str(parts.mongod_path()), *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def client(self, user: str, password: str) -> MongoClient[Any]:
        files = database_files(self.paths)
        target = DatabaseTarget(
            host="127.0.0.1",
            port=self.port,
            user=user,
            password=password,
            ca_file=str(files.pins),
            certificate_key_file=str(files.node),
        )
        return open_client(target, own=True)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def mongods(count: int, *, shared_key: bool) -> Iterator[list[Mongod]]:
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="c1-bench-", dir=place) as directory:
        made = [Mongod(Path(directory), name, free_port()) for name in "abc"[:count]]
        try:
            certificates = {item.name: item.certificate for item in made}
            keyfile = None
            for item in made:
                item.start(certificates, keyfile)
                if shared_key:
                    keyfile = database_files(made[0].paths).keyfile
            yield made
        finally:
            for item in made:
                item.stop()


@contextlib.contextmanager
def native() -> Iterator[tuple[MongoClient[Any], MongoClient[Any]]]:
    """MongoDB's own set of three; yields clients of the primary and of a secondary."""
    with mongods(3, shared_key=True) as made:
        first = made[0].client("", "")
        members = [
            {"_id": n, "host": f"127.0.0.1:{item.port}", "priority": 2 if n == 0 else 0}
            for n, item in enumerate(made)
        ]
        wait_for(lambda: _answers(made[0]) and _answers(made[1]) and _answers(made[2]), 30)
        first.admin.command("replSetInitiate", {"_id": "ha", "members": members})
        wait_for(lambda: first.admin.command("hello")["isWritablePrimary"], 60)
        first.admin.command("createUser", NATIVE_USER, pwd=PASSWORD, roles=["root"])
        clients = [item.client(NATIVE_USER, PASSWORD) for item in made[:2]]
        wait_for(lambda: _is_secondary(clients[1]), 60)
        yield clients[0], clients[1]
        for client in (first, *clients):
            client.close()


def _answers(item: Mongod) -> bool:
    with item.client("", "") as client:
        try:
            client.admin.command("hello")
        except PyMongoError:
            return False
    return True


def _is_secondary(client: MongoClient[Any]) -> bool:
    try:
        return bool(client.admin.command("hello")["secondary"])
    except PyMongoError:
        return False


class Ours:
    """Two nodes with their synchronisers."""

    def __init__(self, made: list[Mongod], directory: Path) -> None:
        self.made = made
        self.syncers: dict[str, Syncer] = {}
        for item in made:
            self.syncers[item.name] = Syncer(self.settings(item), directory / f"{item.name}.log")

    def settings(self, item: Mongod, *, alone: bool = False) -> Settings:
        peers = {}
        for other in self.made:
            target = peer_target(item.paths, other.name, "127.0.0.1", other.port, PASSWORD)
            if other is not item and target is not None and not alone:
                peers[other.name] = target
        return Settings(
            node=item.name,
            own=own_target(item.paths, "127.0.0.1", item.port),
            peers=peers,
            urgent=("app.urgent",),
            reader_password=PASSWORD,
        )

    def clients(self) -> list[MongoClient[Any]]:
        targets = [own_target(item.paths, "127.0.0.1", item.port) for item in self.made]
        return [open_client(target, own=True) for target in targets]

    def wait_in_sync(self, seconds: float = 60.0) -> None:
        def is_in_sync() -> bool:
            said = [item.status()["peers"] for item in self.syncers.values()]
            return all(
                rows and all(r["state"] == "in sync" for r in rows.values()) for rows in said
            )

        wait_for(is_in_sync, seconds)


@contextlib.contextmanager
def ours() -> Iterator[Ours]:
    with mongods(2, shared_key=False) as made, tempfile.TemporaryDirectory() as directory:
        cluster = Ours(made, Path(directory))
        try:
            for syncer in cluster.syncers.values():
                syncer.start()
            cluster.wait_in_sync()
            yield cluster
        finally:
            for syncer in cluster.syncers.values():
                syncer.kill()


class Watch:
    """Notes when a change stream on the other node shows each document."""

    def __init__(self, client: MongoClient[Any], name: str) -> None:
        self.seen: dict[Any, float] = {}
        self._is_open = threading.Event()
        self._ended = threading.Event()
        self._collection = client["app"][name]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._is_open.wait(10.0)

    def _run(self) -> None:
        with self._collection.watch(max_await_time_ms=200) as stream:
            self._is_open.set()
            while not self._ended.is_set():
                event = stream.try_next()
                if event is not None:
                    self.seen[event["documentKey"]["_id"]] = time.perf_counter()

    def end(self) -> None:
        self._ended.set()
        self._thread.join(5.0)


def lags(
    here: MongoClient[Any],
    there: MongoClient[Any],
    *,
    count: int,
    pause: Callable[[int], float],
    name: str = "things",
    until: Callable[[], bool] | None = None,
) -> list[float]:
    """Return the sorted lags, in ms, of single journaled writes."""
    collection = here["app"].get_collection(name, write_concern=WriteConcern(w=1, j=True))
    collection.insert_one({"_id": "first"})
    wait_for(lambda: there["app"][name].find_one({"_id": "first"}), 20)
    watch = Watch(there, name)
    begun: dict[int, float] = {}
    started = time.perf_counter()
    for number in range(count):
        time.sleep(max(0.0, started + pause(number) - time.perf_counter()))
        begun[number] = time.perf_counter()
        collection.insert_one({"_id": number, "text": "x" * 200})
        if until is not None and until():
            break
    wait_for(lambda: len(watch.seen) >= len(begun), 20)
    watch.end()
    collection.delete_many({})
    return sorted((watch.seen[number] - begun[number]) * 1000 for number in begun)


def percentile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))]


def insert_rate(here: MongoClient[Any], there: MongoClient[Any], count: int) -> float:
    """Return inserts of 1 KB a second until all of them are on the other node."""
    documents = [{"_id": f"many {n}", "text": "x" * 950} for n in range(count)]
    before = there["app"]["many"].estimated_document_count()
    started = time.perf_counter()
    here["app"]["many"].insert_many(documents, ordered=False)
    wait_for(lambda: there["app"]["many"].estimated_document_count() >= before + count, 120)
    return count / (time.perf_counter() - started)


def measure_native() -> dict[str, float]:
    with native() as (here, there):
        return _common(here, there)


def _common(here: MongoClient[Any], there: MongoClient[Any]) -> dict[str, float]:
    single = lags(here, there, count=WRITES, pause=lambda number: number * 0.03)
    steady = lags(here, there, count=int(RATE * RATE_SECONDS), pause=lambda number: number / RATE)
    return {
        "p50": percentile(single, 0.5),
        "p99": percentile(single, 0.99),
        "200_p50": percentile(steady, 0.5),
        "inserts": insert_rate(here, there, INSERTS),
    }


def measure_ours() -> dict[str, float]:
    with ours() as cluster:
        here, there = cluster.clients()
        found = _common(here, there)
        found |= _urgent(cluster, here, there)
        found |= _reconcile(cluster, here, there)
        for client in (here, there):
            client.close()
    return found


def _urgent(cluster: Ours, here: MongoClient[Any], there: MongoClient[Any]) -> dict[str, float]:
    """Lag of the urgent collection while 100,000 documents are copied to the other node."""
    _, b = cluster.made
    here["app"]["urgent"].insert_one({"_id": "early"})
    cluster.syncers["b"].configure(cluster.settings(b, alone=True))
    missing = MANY - here["app"]["many"].estimated_document_count()
    for start in range(0, missing, 10_000):
        size = min(10_000, missing - start)
        documents = [{"_id": f"bulk {start + n}", "text": "x" * 200} for n in range(size)]
        here["app"]["many"].insert_many(documents, ordered=False)
    wait_for(lambda: _rows(here) >= MANY, 120)
    cluster.syncers["b"].configure(cluster.settings(b))
    # Once the copy has begun, so that what is measured lies in it.
    low = there["app"]["many"].estimated_document_count()
    wait_for(lambda: there["app"]["many"].estimated_document_count() > low, 60)

    def is_copied() -> bool:
        return there["app"]["many"].estimated_document_count() >= MANY

    values = lags(
        here, there, count=400, pause=lambda number: number * 0.02, name="urgent", until=is_copied
    )
    wait_for(is_copied, 120)
    return {"urgent_p99": percentile(values, 0.99), "urgent_count": len(values)}


def _rows(client: MongoClient[Any]) -> int:
    query = {"s": "app.many"}
    return int(client["controlone_ha"]["versions"].count_documents(query, hint="digest"))


def _reconcile(cluster: Ours, here: MongoClient[Any], there: MongoClient[Any]) -> dict[str, float]:
    """Seconds and bytes of the comparison of 100,000 equal documents, nothing else going on."""
    cluster.wait_in_sync()
    for syncer in cluster.syncers.values():
        syncer.kill()
    nodes = [
        Digests(c["controlone_ha"].get_collection("versions", codec_options=RAW))
        for c in (there, here)
    ]

    def traffic() -> int:
        network = here.admin.command("serverStatus")["network"]
        return int(network["bytesIn"] + network["bytesOut"])

    first = traffic()
    cost_of_asking = traffic() - first
    took, moved = [], []
    for _ in range(COMPARISONS):  # one may meet a heartbeat of another client on the wire
        before = traffic()
        started = time.perf_counter()
        found = sum(len(group) for group in differences(nodes[0], nodes[1], lambda _: True))
        took.append(time.perf_counter() - started)
        moved.append(float(traffic() - before - cost_of_asking))
        assert found == 0, f"{found} documents differ"
    return {"reconcile_s": statistics.median(took), "reconcile_bytes": statistics.median(moved)}


def figures() -> list[Figure]:
    """Measure everything; takes a few minutes."""
    ours_found: list[dict[str, float]] = []
    native_found: list[dict[str, float]] = []
    for _ in range(ROUNDS):
        native_found.append(measure_native())
        ours_found.append(measure_ours())

    def ratio(name: str, key: str, goal: float, *, is_lower_bound: bool = False) -> list[Figure]:
        mine = [round_[key] for round_ in ours_found]
        its = [round_[key] for round_ in native_found]
        unit = "1/s" if is_lower_bound else "ms"
        return [
            median_figure(
                name,
                [one / other for one, other in zip(mine, its, strict=True)],
                "ratio",
                goal=goal,
                is_lower_bound=is_lower_bound,
            ),
            median_figure(
                f"{name.removesuffix('_vs_native')}_{'per_s' if is_lower_bound else 'ms'}",
                mine,
                unit,
                anchor="native replica set",
                anchor_values=its,
                is_lower_bound=is_lower_bound,
            ),
        ]

    def plain(name: str, key: str, unit: str, goal: float) -> Figure:
        return median_figure(name, [round_[key] for round_ in ours_found], unit, goal=goal)

    return [
        *ratio("lag_p50_vs_native", "p50", 2.0),
        *ratio("lag_p99_vs_native", "p99", 2.5),
        *ratio("lag_200ps_p50_vs_native", "200_p50", 3.0),
        plain("urgent_lag_bulk_p99_ms", "urgent_p99", "ms", 100.0),
        *ratio("inserts_vs_native", "inserts", 0.5, is_lower_bound=True),
        plain("reconcile_100k_s", "reconcile_s", "s", 0.2),
        plain("reconcile_100k_bytes", "reconcile_bytes", "bytes", 1000.0),
    ]


if __name__ == "__main__":
    print(figures_table(figures()))
