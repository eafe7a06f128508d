"""What a lab node finds in its own directories at its first boot: UCI files and SSH host keys."""

from __future__ import annotations

import subprocess
from pathlib import Path

from controlone_ha.errors import LabError
from controlone_ha.lab import parts
from controlone_ha.lab.licences import write_licences
from controlone_ha.lab.node import LabNode
from controlone_ha.lab.node_services import (
    DATABASE_DIRECTORY,
    DROPBEAR_HOST_KEY,
    SSHD_CONFIG,
    SSHD_HOST_KEY,
)
from controlone_ha.lab.topology import Section

LICENCE_DIRECTORY = "/etc/controlone.d/licences"

_SSHD_SETTINGS = f"""\
Port 22
ListenAddress 0.0.0.0
HostKey {SSHD_HOST_KEY}
PermitRootLogin yes
PasswordAuthentication yes
UsePAM no
UseDNS no
PidFile none
LogLevel VERBOSE
Subsystem sftp internal-sftp
"""


def prepare_files(node: LabNode) -> None:
    """Write the node's UCI files and make its host keys. Called once, before the first boot."""
    for name, sections in node.spec.packages.items():
        write_package(node.path("/etc/config") / name, sections)
    if node.spec.ssh == "openssh":
        _make_key(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", node.name],
            node.path(SSHD_HOST_KEY),
        )
        node.path(SSHD_CONFIG).write_text(_SSHD_SETTINGS)
    elif node.spec.ssh == "dropbear":
        _make_key([str(parts.dropbearkey_path()), "-t", "ed25519"], node.path(DROPBEAR_HOST_KEY))
    node.path(DATABASE_DIRECTORY).mkdir(exist_ok=True)
    write_licences(node.path(LICENCE_DIRECTORY))


def write_package(path: Path, sections: tuple[Section, ...]) -> None:
    """Write a UCI file (mode 0600)."""
    from controlone_ha.uci import Package, save

    package = Package(path.name)
    for section in sections:
        made = package.add(section.kind, section.name)
        for option, value in section.options.items():
            made.set(option, value if isinstance(value, str) else list(value))
    save(path, package)


def _make_key(command: list[str], path: Path) -> None:
    if path.exists():
        return
    try:
        done = subprocess.run(
            [*command, "-f", str(path)], capture_output=True, text=True, timeout=60
        )
    except FileNotFoundError:
        raise LabError(f"{command[0]} is not on this machine: {parts.REMEDY}") from None
    if done.returncode != 0:
        raise LabError(f"{command[0]} gave {done.returncode}: {done.stderr.strip()}")
