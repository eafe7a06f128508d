"""What the commands about trust have in common: this node's side, and questions to the person.

Passwords are read from the terminal only. The daemon is told afterwards, so that no restart is
needed. The libraries of the link are imported only where they are used.
"""

from __future__ import annotations

import sys

from controlone_ha.control.client import ApiError, Client, DaemonError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from controlone_ha.config.settings import HaSettings
    from controlone_ha.control.terminal import Terminal
    from controlone_ha.peers.pair import OwnSide


def own_settings() -> HaSettings:
    """Return the settings of `ha`; raise ``ConfigError``."""
    from controlone_ha.config.settings import load_ha
    from controlone_ha.paths import node_paths

    return load_ha(node_paths().config_dir)


def own_side(settings: HaSettings) -> OwnSide:
    """Return what a peer is told about this node when both are paired."""
    from controlone_ha.paths import node_paths
    from controlone_ha.peers.pair import OwnSide

    return OwnSide(
        name=settings.name,
        paths=node_paths(),
        authorized_keys=settings.authorized_keys or None,
        addresses=[settings.address] if settings.address else [],
        ssh_port=settings.ssh_port,
    )


def password_of(prompt: str) -> str | None:
    """Read a password from the terminal; None where there is none."""
    from getpass import getpass

    if not sys.stdin.isatty():
        return None
    try:
        return getpass(prompt)
    except EOFError:
        return None


def confirmed(text: str, terminal: Terminal) -> bool:
    """Ask the person at the terminal; False where there is none."""
    sys.stderr.write(f"{text}\n{terminal.texts('pair.confirm')} ")
    sys.stderr.flush()
    if not sys.stdin.isatty():
        sys.stderr.write("\n")
        return False
    return sys.stdin.readline().strip().lower() in terminal.texts("pair.yes").split()


def tell_daemon() -> bool:
    """Tell the daemon that the pins have changed; False when it does not run."""
    try:
        client = Client()
        try:
            client.call("trust_changed")
        finally:
            client.close()
    except (DaemonError, ApiError):
        return False
    return True
