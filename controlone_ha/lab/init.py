"""Makes a lab node and becomes its init: ``python -m controlone_ha.lab.init SPEC [--lifeline FD]``.

Theory of operation. This process enters the node's network namespace, asks for a PID namespace and
forks: the child is PID 1 of the node. The child takes mount, UTS and IPC namespaces, lays the
node's own directories over the machine's and turns into the supervisor; the parent waits until the
socket answers, writes ``init.json`` (the PID as seen from outside, and its start time) and exits,
so that the node outlives the command that booted it.

What a node sees is the machine's file system, with these differences:

- ``OVERLAYS`` are writable overlays whose changes live in memory: what a node writes there reaches
  neither the machine nor the next boot. They also provide mount points that the machine does not
  have.
- ``PERSISTENT`` are the node's own directories; they outlive a boot. Outside they lie in ``<node
  directory>/root/<same path>``.
- ``VOLATILE`` likewise, emptied at every boot, as a tmpfs would be.
- /proc (with the processor figures of the node alone), /sys and /dev/shm are the node's own; the
  host name is the node's; /etc/hosts knows all nodes.
- the commands of ``shims`` lie in /usr/sbin, so that an SSH session finds them too; root's shell is
  /bin/sh.

Standard library only. It holds no policy: what is mounted and started stands in the ``BootSpec``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import shutil
import socket
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controlone_ha.errors import ControlOneError, LabError
from controlone_ha.lab import namespaces
from controlone_ha.lab.own_load import OwnLoad
from controlone_ha.lab.service_state import ServiceDefinition
from controlone_ha.lab.supervisor import Supervisor
from controlone_ha.paths import NodePaths, node_paths

OVERLAYS = ("/etc", "/root", "/var", "/usr/sbin")
PERSISTENT = (
    "/etc/config",
    "/etc/controlone",
    "/etc/controlone.d",
    "/etc/ssh",
    "/etc/dropbear",
    "/etc/hotplug.d/ha",
    "/root/.ssh",
    "/var/lib/controlone",
)
PRIVATE = ("/etc/controlone", "/root/.ssh")
VOLATILE = ("/run", "/tmp")
LOGS = "/var/log/controlone"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BOOT_TIMEOUT = 60.0


@dataclass(frozen=True, kw_only=True)
class BootSpec:
    """What the init of a node must know.

    ``directory`` is the node's own outside; ``namespace`` the file of its network namespace;
    ``hosts`` goes to /etc/hosts (name to address); ``keep`` are directories that must stay visible
    (interpreter, package, parts); ``shims`` are scripts for /usr/sbin (name to content);
    ``root_password`` is a crypt(3) hash.
    """

    name: str
    directory: Path
    namespace: Path
    hosts: Mapping[str, str]
    keep: tuple[Path, ...]
    shims: Mapping[str, str]
    environment: Mapping[str, str]
    services: tuple[ServiceDefinition, ...]
    root_password: str | None = None
    persistent: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Return what goes to the spec file."""
        return {
            "name": self.name,
            "directory": str(self.directory),
            "namespace": str(self.namespace),
            "hosts": dict(self.hosts),
            "keep": [str(path) for path in self.keep],
            "shims": dict(self.shims),
            "environment": dict(self.environment),
            "services": [service.to_json() for service in self.services],
            "root_password": self.root_password,
            "persistent": list(self.persistent),
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> BootSpec:
        """Return the spec that ``to_json`` wrote."""
        return cls(
            name=raw["name"],
            directory=Path(raw["directory"]),
            namespace=Path(raw["namespace"]),
            hosts=raw["hosts"],
            keep=tuple(Path(path) for path in raw["keep"]),
            shims=raw["shims"],
            environment=raw["environment"],
            services=tuple(ServiceDefinition.from_json(item) for item in raw["services"]),
            root_password=raw["root_password"],
            persistent=tuple(raw["persistent"]),
        )


def outside(directory: Path, inside: str) -> Path:
    """Return where a path of a node's persistent or volatile directories lies outside the node."""
    path = inside.removeprefix("/var") if inside.startswith("/var/run/") else inside
    return directory / "root" / path.lstrip("/")


def log_directory(directory: Path) -> Path:
    """Return where the logs of a node's services lie outside; inside it is ``LOGS``."""
    return directory / "log"


# -- the node's view of the file system --------------------------------------------------------


class _Sources:
    """Directories as they were before anything was laid over them, held open."""

    def __init__(self) -> None:
        self._descriptors: list[int] = []

    def hold(self, path: Path) -> str:
        """Return a name for ``path`` that stays right whatever is mounted over it later."""
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        self._descriptors.append(descriptor)
        return f"/proc/self/fd/{descriptor}"

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)


def prepare_directories(spec: BootSpec) -> None:
    """Make the node's own directories outside, the volatile ones empty."""
    for inside in (*PERSISTENT, *spec.persistent):
        path = outside(spec.directory, inside)
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700 if inside in PRIVATE else 0o755)
    for inside in VOLATILE:
        path = outside(spec.directory, inside)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        path.chmod(0o1777 if inside == "/tmp" else 0o755)
    for name in ("sshd", "controlone", "lock"):
        (outside(spec.directory, "/run") / name).mkdir(mode=0o755)
    log_directory(spec.directory).mkdir(exist_ok=True)
    (spec.directory / "stage").mkdir(exist_ok=True)


def _lay_file_systems(spec: BootSpec) -> OwnLoad:
    namespaces.unshare(namespaces.CLONE_NEWNS | namespaces.CLONE_NEWUTS | namespaces.CLONE_NEWIPC)
    namespaces.make_mounts_private()
    sources = _Sources()
    own = {
        inside: sources.hold(outside(spec.directory, inside))
        for inside in (*PERSISTENT, *spec.persistent, *VOLATILE)
    }
    own[LOGS] = sources.hold(log_directory(spec.directory))
    kept = {path: sources.hold(path) for path in spec.keep if path.is_dir()}
    stage = spec.directory / "stage"
    namespaces.mount("tmpfs", stage, "tmpfs", data="mode=755")
    layers = Path(sources.hold(stage))  # the stage itself may lie under one of the overlays
    for lower in OVERLAYS:
        name = lower.strip("/").replace("/", "-")
        upper, work = layers / name / "upper", layers / name / "work"
        upper.mkdir(parents=True)
        work.mkdir()
        shutil.copymode(lower, upper)
        data = f"lowerdir={lower},upperdir={upper},workdir={work}"
        namespaces.mount("overlay", lower, "overlay", data=data)
    for inside, source in own.items():
        os.makedirs(inside, exist_ok=True)
        namespaces.mount(source, inside, flags=namespaces.MS_BIND)
    if not os.path.islink("/var/run"):
        namespaces.bind("/run", "/var/run")
    for path, source in kept.items():
        if not path.is_dir():
            path.mkdir(parents=True)
            namespaces.mount(source, path, flags=namespaces.MS_BIND)
    flags = namespaces.MS_NOSUID | namespaces.MS_NODEV | namespaces.MS_NOEXEC
    namespaces.mount("tmpfs", "/dev/shm", "tmpfs", data="mode=1777")
    namespaces.mount("sysfs", "/sys", "sysfs", flags=flags)
    stat = layers / "proc-stat"
    stat.touch()
    own_stat = sources.hold(stat)
    stat_file = os.open(own_stat, os.O_WRONLY | os.O_CLOEXEC)
    namespaces.mount("proc", "/proc", "proc", flags=flags)
    # The new /proc names this process otherwise, but its descriptors are the same.
    real_stat = os.open("/proc/stat", os.O_RDONLY | os.O_CLOEXEC)
    namespaces.mount(own_stat, "/proc/stat", flags=namespaces.MS_BIND)
    sources.close()
    return OwnLoad(real_stat, stat_file)


def _write_system_files(spec: BootSpec) -> None:
    socket.sethostname(spec.name)
    hosts = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in spec.hosts.items())]
    _replace("/etc/hosts", "\n".join(hosts) + "\n")
    _replace("/etc/hostname", f"{spec.name}\n")
    _replace("/etc/resolv.conf", "")  # the lab reaches nothing outside; nobody shall wait for it
    # As OpenWrt's ash, this shell runs no start-up file for the command of an SSH session. Those of
    # the machine's own root (of version managers, say) are neither the node's nor quick.
    _change_root("/etc/passwd", 6, "/bin/sh")
    if spec.root_password is not None:
        _change_root("/etc/shadow", 1, spec.root_password)
    for name, content in spec.shims.items():
        _replace(f"/usr/sbin/{name}", content, mode=0o755)


def _replace(path: str, content: str, mode: int = 0o644) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # it may be a symbolic link to somewhere else
    with open(path, "w", encoding="utf-8") as file:
        file.write(content)
    os.chmod(path, mode)


def _change_root(file: str, index: int, value: str) -> None:
    """Set one field of root's line in a file such as /etc/passwd (passwd(5), shadow(5))."""
    lines = []
    for line in Path(file).read_text().splitlines():
        fields = line.split(":")
        if fields[0] == "root":
            fields[index] = value
        lines.append(":".join(fields))
    Path(file).write_text("\n".join(lines) + "\n")


# -- becoming the init -------------------------------------------------------------------------


def _become_init(spec: BootSpec, lifeline: int | None, ready: int) -> int:
    """Run as PID 1 of the node until it shuts down; return the exit code."""
    paths: NodePaths = node_paths({})
    try:
        own_load = _lay_file_systems(spec)
        _write_system_files(spec)
        os.chdir("/")
        supervisor = Supervisor(
            spec.services,
            socket=paths.supervisor_socket,
            log_directory=Path(LOGS),
            environment=spec.environment,
            own_load=own_load,
        )
        asyncio.run(supervisor.run(lifeline=lifeline, ready=ready))
    except ControlOneError as error:
        with contextlib.suppress(OSError):
            os.write(ready, f"{error}\n".encode())
        return 1
    except OSError as error:
        traceback.print_exc()
        with contextlib.suppress(OSError):
            os.write(ready, f"{error}\n".encode())
        return 1
    return 0


def boot(spec: BootSpec, lifeline: int | None) -> str | None:
    """Make the node; return None when its supervisor answers, else what went wrong.

    Returns in the parent only; the child never returns from here.
    """
    namespaces.require_root()
    prepare_directories(spec)
    namespaces.set_namespace(spec.namespace, namespaces.CLONE_NEWNET)
    namespaces.unshare(namespaces.CLONE_NEWPID)  # for the child; this process stays where it is
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.setsid()
        os._exit(_become_init(spec, lifeline, writing))
    os.close(writing)
    record = {"pid": child, "started": namespaces.start_time(child)}
    (spec.directory / "init.json").write_text(json.dumps(record))
    answer = b""
    if select.select([reading], [], [], BOOT_TIMEOUT)[0]:
        answer = os.read(reading, 4096)
    if answer == b"ready\n":
        return None
    namespaces.kill_and_wait(child)
    return answer.decode().strip() or "the node's init ended or did not answer; see init.log"


def main(arguments: list[str]) -> int:
    """Boot the node that the spec file describes; print what went wrong on stderr."""
    spec = BootSpec.from_json(json.loads(Path(arguments[0]).read_text()))
    lifeline = int(arguments[2]) if arguments[1:2] == ["--lifeline"] else None
    try:
        failure = boot(spec, lifeline)
    except LabError as error:
        failure = str(error)
    if failure is not None:
        print(failure, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
