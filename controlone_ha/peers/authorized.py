"""The node's lines in ``authorized_keys``: each peer's key, tied to the peer bridge alone.

Theory of operation: a managed line ends in the comment ``controlone-ha:NAME`` and begins with
``restrict,command="<bridge> NAME"``, which OpenSSH (7.2 or later) and dropbear (2020.79 or later)
honour: no terminal, no forwarding, no other command. ``write`` makes the managed lines equal to the
pins, in one atomic replacement that keeps mode and owner; all other lines stay, byte for byte.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from controlone_ha.errors import TrustError
from controlone_ha.peers import bridge
from controlone_ha.peers.files import locked, write_atomically
from controlone_ha.peers.pins import Pin, is_node_name

MARK = "controlone-ha:"
DROPBEAR_FILE = Path("/etc/dropbear/authorized_keys")
OPENSSH_FILE = Path("/root/.ssh/authorized_keys")


def authorized_keys_file(configured: str | None = None) -> Path:
    """Return where root's keys are: ``configured`` (UCI), else dropbear's file if it is the server.

    Only OpenWrt's dropbear reads ``/etc/dropbear/authorized_keys``, so that file is used when
    ``/etc/dropbear`` exists and no OpenSSH server is installed.
    """
    if configured:
        return Path(configured)
    search = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin"
    has_openssh = shutil.which("sshd", path=search) is not None
    has_dropbear = shutil.which("dropbear", path=search) is not None
    if DROPBEAR_FILE.parent.is_dir() and has_dropbear and not has_openssh:
        return DROPBEAR_FILE
    return OPENSSH_FILE


def bridge_command(socket_path: Path) -> str:
    """Return the shell words of the forced command, without the peer's name.

    The bridge runs as a file, isolated (``-I -S``), so that it starts fast, stays small and obeys
    no variable of the session.
    """
    words = [sys.executable or "python3", "-I", "-S", str(Path(bridge.__file__).resolve())]
    return shlex.join([*words, "--socket", str(socket_path)])


def managed_line(pin: Pin, command: str, public_key: str = "") -> str:
    """Return the line that lets ``pin``'s node, by its key or that one, start ``command NAME``."""
    if not is_node_name(pin.name):
        raise TrustError(f"not a node name: {pin.name!r}")
    if "\n" in command or '"' in command:
        raise TrustError("the bridge command may not hold a newline or a double quote")
    return (
        f'restrict,command="{command} {pin.name}" {public_key or pin.public_key} {MARK}{pin.name}'
    )


def is_managed(line: str) -> bool:
    """Tell whether ``line`` is one of ours."""
    return line.rstrip().rpartition(" ")[2].startswith(MARK) and not line.lstrip().startswith("#")


def rendered(content: bytes, pins: Mapping[str, Pin], command: str) -> bytes:
    """Return ``content`` with the managed lines made equal to ``pins``. Pure."""
    foreign = [
        line
        for line in content.splitlines(keepends=True)
        if not is_managed(line.decode("utf-8", "replace"))
    ]
    if foreign and not foreign[-1].endswith(b"\n") and pins:
        foreign[-1] += b"\n"
    ours = [
        managed_line(pins[name], command, key).encode() + b"\n"
        for name in sorted(pins)
        for key in pins[name].public_keys
    ]
    return b"".join([*foreign, *ours])


def write(path: Path, pins: Mapping[str, Pin], command: str) -> bool:
    """Make the managed lines of ``path`` equal to ``pins``; return False if they were already.

    Raises ``TrustError`` when the file cannot be written.
    """
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(path.parent / ".controlone-ha.lock"):
            try:
                status = path.stat()
                content = path.read_bytes()
            except FileNotFoundError:
                status, content = None, b""
            wanted = rendered(content, pins, command)
            if wanted == content:
                return False
            write_atomically(
                path.resolve(),
                wanted,
                mode=status.st_mode & 0o7777 if status is not None else 0o600,
                owner=(status.st_uid, status.st_gid) if status is not None else None,
            )
            return True
    except OSError as error:
        raise TrustError(f"{path}: {error.strerror or error}; peers cannot connect") from error
