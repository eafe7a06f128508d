"""The services of a lab node: what each one's init script tells procd, as one table.

`server` and `conference` are not started at boot: `ha` brings them to what its state asks for.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping

from controlone_ha.conference.asterisk import AsteriskProgram, launch_command
from controlone_ha.errors import LabError
from controlone_ha.lab import parts
from controlone_ha.lab.parts import MissingPartError
from controlone_ha.lab.service_state import Respawn, ServiceDefinition
from controlone_ha.lab.topology import NodeSpec
from controlone_ha.paths import node_paths
from controlone_ha.sync.database.files import database_files
from controlone_ha.sync.database.options import command_line, lines

DATABASE_DIRECTORY = "/var/lib/controlone/database"
SSHD_CONFIG = "/etc/ssh/sshd_config"
SSHD_HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"
DROPBEAR_HOST_KEY = "/etc/dropbear/dropbear_ed25519_host_key"

RESPAWN = Respawn(threshold=3600, delay=1, retry=0)

ONE_HEAP: Mapping[str, str] = {"MALLOC_ARENA_MAX": "1"}
"""Environment of `ha` in its init script, too: glibc gives each of its threads, which mostly sleep,
a heap of its own otherwise, 1.5 MB in all. musl has one anyway."""


def _ha(_node: NodeSpec) -> ServiceDefinition:
    return ServiceDefinition(
        name="ha",
        argv=(sys.executable, "-P", "-m", "controlone_ha.daemon"),
        environment={**_asterisk_program().environment(), **ONE_HEAP},
        respawn=RESPAWN,
        reload_signal="SIGHUP",
    )


def _server(_node: NodeSpec) -> ServiceDefinition:
    return ServiceDefinition(
        name="server",
        argv=(sys.executable, "-P", "-m", "controlone_ha.server"),
        respawn=RESPAWN,
        at_boot=False,
    )


def _conference(_node: NodeSpec) -> ServiceDefinition:
    return ServiceDefinition(
        name="conference",
        argv=tuple(launch_command(node_paths({}))),
        environment=_asterisk_program().environment(),
        respawn=RESPAWN,
        at_boot=False,
    )


def _controller(_node: NodeSpec) -> ServiceDefinition:
    """The Conference Server's controller: warm on every node that may serve, beside Asterisk."""
    return ServiceDefinition(
        name="controller",
        argv=(sys.executable, "-P", "-m", "controlone_ha.conference"),
        environment=_asterisk_program().environment(),
        respawn=RESPAWN,
        reload_signal="SIGHUP",
    )


def _asterisk_program() -> AsteriskProgram:
    found = parts.asterisk()
    return AsteriskProgram(
        command=found.command,
        module_directory=found.module_directory,
        data_directory=found.data_directory,
    )


def _ssh(node: NodeSpec) -> ServiceDefinition:
    argv: tuple[str, ...]
    if node.ssh == "dropbear":
        program = str(parts.dropbear_path())
        argv = (program, "-F", "-E", "-p", "22", "-r", DROPBEAR_HOST_KEY)
    else:
        argv = (str(parts.sshd_path()), "-D", "-e", "-f", SSHD_CONFIG)
    return ServiceDefinition(name="sshd", argv=argv, respawn=RESPAWN)


def _mongod(_node: NodeSpec) -> ServiceDefinition:
    files = database_files(node_paths({}))
    settings = lines(node_pem=str(files.node), pins_pem=str(files.pins), keyfile=str(files.keyfile))
    command = [
        str(parts.mongod_path()),
        "--quiet",
        "--nounixsocket",
        *("--dbpath", DATABASE_DIRECTORY),
        *("--wiredTigerCacheSizeGB", "0.25"),
        *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        *command_line(settings),
    ]
    # Certificates first: a mongod that requires TLS does not start without.
    prepare = shlex.join([sys.executable, "-P", "-m", "controlone_ha.sync.database.files"])
    return ServiceDefinition(
        name="mongod",
        argv=("/bin/sh", "-c", f"{prepare} && exec {shlex.join(command)}"),
        respawn=RESPAWN,
        term_timeout=15.0,
    )


SERVICES: Mapping[str, Callable[[NodeSpec], ServiceDefinition]] = {
    "mongod": _mongod,
    "ha": _ha,
    "server": _server,
    "conference": _conference,
    "controller": _controller,
}
"""Services by name, in the order in which they start; `sshd` (``NodeSpec.ssh``) comes first."""

DEFAULT_SERVICES = ("ha", "server", "conference")


def definitions(node: NodeSpec) -> list[ServiceDefinition]:
    """Return the services of a node; raise ``LabError`` for an unknown or a missing part."""
    unknown = [name for name in node.services if name not in SERVICES]
    if unknown:
        raise LabError(f"node {node.name}: no service {unknown[0]!r} ({', '.join(SERVICES)})")
    try:
        found = [] if node.ssh == "none" else [_ssh(node)]
        return found + [make(node) for name, make in SERVICES.items() if name in node.services]
    except MissingPartError as error:
        raise LabError(str(error)) from error
