"""A lab: a whole cluster on this machine, made, broken and removed by one object.

    with Lab(nodes) as lab:
        lab.node("m1").exec(["ha", "status"])
        lab.node("m1").kill()
        lab.partition(1, 2)

Theory of operation. A lab lives in one directory (``BASE/<id>``), in network namespaces
whose names carry its id, and in the processes of its nodes. A *tied* lab (the default for programs)
belongs to the process that made it: the nodes hold the reading end of a pipe and die when the owner
dies, however it dies; the directory and the namespaces it left are removed when the next lab is
made. A lab that is not tied (`python -m controlone_ha.lab up`) stays until `down`; other processes
reach it by ``Lab.attach``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from controlone_ha.errors import LabError
from controlone_ha.lab import namespaces, network, topology
from controlone_ha.lab.init import BootSpec, prepare_directories
from controlone_ha.lab.network import LabNetwork
from controlone_ha.lab.node import INIT_FILE, LabNode, node_environment
from controlone_ha.lab.parts import cache_directory
from controlone_ha.lab.service_state import ServiceDefinition
from controlone_ha.lab.shims import PACKAGE_PARENT, all_shims
from controlone_ha.lab.topology import NodeSpec

LAB_FILE = "lab.json"
BASE = Path("/var/lib/controlone-lab")
"""The directory of all labs; one for the machine, as with namespaces: leftovers need both."""
LOCK = Path("/run/controlone-lab.lock")


class Lab:
    """A cluster in network namespaces. Use it as a context manager, or ``up`` and ``down``."""

    def __init__(
        self,
        nodes: Sequence[NodeSpec],
        *,
        lab_id: str | None = None,
        tied: bool = True,
        services: Callable[[NodeSpec], Sequence[ServiceDefinition]] | None = None,
        prepare: Callable[[LabNode], None] | None = None,
        root_password: str | None = None,
    ) -> None:
        """Describe the lab; nothing is made before ``up``.

        ``services`` gives the services of a node, ``prepare`` writes what else belongs in its
        directories before the first boot (called in a thread), ``root_password`` lets root log in
        over SSH with it.
        """
        topology.check_nodes(nodes)
        self.id = topology.check_lab_id(lab_id or secrets.token_hex(3))
        self.tied = tied
        self.directory = BASE / self.id
        self.network = LabNetwork(self.id, nodes)
        self.nodes = {
            spec.name: LabNode(spec, self.directory / "nodes" / spec.name, self.network)
            for spec in nodes
        }
        self._services = services
        self._prepare = prepare
        self._root_hash = _hash_password(root_password)
        self._lifeline: tuple[int, int] | None = None

    # -- life of the lab ---------------------------------------------------------------------

    @classmethod
    def attach(cls, lab_id: str) -> Lab:
        """Return the running lab of that name; raise ``LabError`` when there is none.

        The nodes' ``packages`` are not known any more: their files are in the nodes.
        """
        record = _read_record(BASE / topology.check_lab_id(lab_id))
        if record is None:
            others = ", ".join(lab_names()) or "none"
            raise LabError(f"no lab {lab_id!r} is up (up: {others})")
        nodes = [
            NodeSpec(**{**values, "services": tuple(values["services"])})
            for values in record["nodes"]
        ]
        return cls(nodes, lab_id=lab_id, tied=record["tied"])

    def up(self) -> Lab:
        """Make the network, prepare and boot every node; on failure remove everything again."""
        namespaces.require_root()
        with _base_lock():
            _remove_leftovers()
            self._claim_directory()
        try:
            self.network.build()
            if self.tied:
                self._lifeline = os.pipe()
                self.network.lifeline = self._lifeline[0]
            with ThreadPoolExecutor(max_workers=4) as pool:
                list(pool.map(self._prepare_node, self.nodes.values()))
            self.boot_all()
        except BaseException:
            self.down()
            raise
        return self

    def _claim_directory(self) -> None:
        if self.directory.exists():
            raise LabError(f"lab {self.id!r} is up already; take it down first")
        record = {
            "tied": self.tied,
            "owner": [os.getpid(), namespaces.start_time(os.getpid())],
            "nodes": [
                {
                    "name": node.spec.name,
                    "site": node.spec.site,
                    "host": node.spec.host,
                    "ssh": node.spec.ssh,
                    "services": node.spec.services,
                    "data_disk_mb": node.spec.data_disk_mb,
                }
                for node in self.nodes.values()
            ],
        }
        new = self.directory.with_name(f".{self.id}.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        (new / LAB_FILE).write_text(json.dumps(record))
        new.rename(self.directory)

    def _prepare_node(self, node: LabNode) -> None:
        definitions = self._services(node.spec) if self._services else ()
        boot = BootSpec(
            name=node.name,
            directory=node.directory,
            namespace=self.network.namespace_path(node.name),
            hosts={other.name: other.address for other in self.nodes.values()},
            keep=_kept_directories(),
            shims=all_shims(),
            environment=node_environment(),
            services=tuple(definitions),
            root_password=self._root_hash,
        )
        node.prepare(boot)
        prepare_directories(boot)
        if node.spec.data_disk_mb is not None:
            disk, size = node.path("/var/lib/controlone"), f"size={node.spec.data_disk_mb}m"
            namespaces.mount("tmpfs", disk, "tmpfs", data=size)
        if self._prepare is not None:
            self._prepare(node)

    def boot_all(self) -> None:
        """Boot every node that is down, all at the same time."""
        booting: list[tuple[LabNode, subprocess.Popen[str]]] = []
        try:
            for node in self.nodes.values():
                if not node.is_up:
                    booting.append((node, node.start_booting(self._lifeline_end())))
        finally:
            failures = []
            for node, process in booting:
                try:
                    node.finish_booting(process)
                except LabError as error:
                    failures.append(str(error))
        if failures:
            raise LabError("; ".join(failures))

    def boot(self, name: str) -> None:
        """Boot one node again after ``kill`` or ``shut_down``; its directories are as it left."""
        self.node(name).boot(self._lifeline_end())

    def _lifeline_end(self) -> int | None:
        return self._lifeline[0] if self._lifeline is not None else None

    def down(self) -> None:
        """Remove the lab: processes, namespaces, directory. May be repeated."""
        if self._lifeline is not None:
            for descriptor in self._lifeline:
                os.close(descriptor)
            self._lifeline = None
            self.network.lifeline = None
        with _base_lock():
            _destroy(self.id)
        self.network.remove()

    def __enter__(self) -> Lab:
        return self.up()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()

    # -- its nodes and its network -----------------------------------------------------------

    def node(self, name: str) -> LabNode:
        """Return a node; raise ``LabError`` with the names there are."""
        try:
            return self.nodes[name]
        except KeyError:
            raise LabError(
                f"no node {name!r} in this lab; it has {', '.join(self.nodes)}"
            ) from None

    def partition(self, site: int = 1, other: int = 2) -> None:
        """Drop, in silence, everything between two sites."""
        self.network.partition(site, other)

    def heal(self, site: int = 1, other: int = 2) -> None:
        """End a partition."""
        self.network.heal_partition(site, other)

    def cut_one_way(self, sender: str, receiver: str) -> None:
        """Lose, in silence, what one node sends to another; not what comes back."""
        self.network.cut_one_way(sender, receiver)

    def heal_one_way(self, sender: str, receiver: str) -> None:
        """Undo ``cut_one_way``."""
        self.network.heal_one_way(sender, receiver)


# -- all labs of this machine ------------------------------------------------------------------


def lab_names() -> list[str]:
    """Return the names of the labs that exist."""
    try:
        return sorted(
            entry.name
            for entry in BASE.iterdir()
            if entry.is_dir() and not entry.name.startswith(".")
        )
    except FileNotFoundError:
        return []


def remove_leftovers() -> list[str]:
    """Remove labs whose owner has died, and namespaces without a lab; return their names."""
    with _base_lock():
        return _remove_leftovers()


def remove_all() -> list[str]:
    """Remove every lab of this machine, in use or not; return their names."""
    with _base_lock():
        names = sorted({*lab_names(), *_named_by_namespaces()})
        for name in names:
            _destroy(name)
        return names


def _remove_leftovers() -> list[str]:
    abandoned = []
    for name in sorted({*lab_names(), *_named_by_namespaces()}):
        record = _read_record(BASE / name)
        if record is None or (record["tied"] and not namespaces.is_alive(*record["owner"])):
            _destroy(name)
            abandoned.append(name)
    for half_made in BASE.glob(".*.new"):
        shutil.rmtree(half_made, ignore_errors=True)
    return abandoned


def _named_by_namespaces() -> set[str]:
    names = network.namespace_names()
    return {name.removeprefix(topology.NAMESPACE_PREFIX).split("-")[0] for name in names}


def _destroy(lab_id: str) -> None:
    """Remove what is left of a lab: processes first, then what they hold. Under the lock."""
    directory = BASE / lab_id
    for record_file in directory.glob(f"nodes/*/{INIT_FILE}"):
        with contextlib.suppress(OSError, ValueError):
            record = json.loads(record_file.read_text())
            namespaces.kill_and_wait(record["pid"], started=record["started"])
    prefix = topology.namespace(lab_id, "")
    for name in network.namespace_names(prefix):
        for pid in namespaces.processes_in(network.NETNS_DIRECTORY / name):
            namespaces.kill_and_wait(pid)
    network.remove_namespaces(prefix)
    for mounted in _mounted_in(directory):
        namespaces.unmount(mounted)
    shutil.rmtree(directory, ignore_errors=True)


def _mounted_in(directory: Path) -> list[str]:
    """Return what is mounted below a lab's directory, innermost first."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    places = [line.split()[1] for line in lines]
    return [place for place in reversed(places) if place.startswith(f"{directory}/")]


def _read_record(directory: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads((directory / LAB_FILE).read_text())
    except (OSError, ValueError):
        return None
    return record


@contextlib.contextmanager
def _base_lock() -> Iterator[None]:
    """Let one process at a time make a lab's directory, look for leftovers or remove a lab."""
    with open(LOCK, "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        BASE.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                BASE.rmdir()  # the last lab leaves nothing behind


def _kept_directories() -> tuple[Path, ...]:
    """Return what the nodes' processes need of this machine, wherever it lies."""
    wanted = {Path(sys.prefix), Path(sys.base_prefix), PACKAGE_PARENT, cache_directory()}
    return tuple(sorted(path.resolve() for path in wanted if path.is_dir()))


def _hash_password(password: str | None) -> str | None:
    """Return a crypt(3) hash for /etc/shadow, by the C library's own function (not for threads)."""
    if password is None:
        return None
    import ctypes

    try:
        crypt = ctypes.CDLL("libcrypt.so.1").crypt
    except OSError as error:
        raise LabError(f"cannot give root a password: {error}") from error
    crypt.restype = ctypes.c_char_p
    hashed = crypt(password.encode(), f"$6${secrets.token_hex(8)}$".encode())
    if not hashed:
        raise LabError("cannot give root a password: crypt(3) refused")
    return bytes(hashed).decode()
