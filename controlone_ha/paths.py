"""Where things lie on a node. Standard library only; read once per process through
``node_paths``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class NodePaths:
    """The directories of a node and the files that more than one room needs."""

    config_dir: Path
    save_dir: Path
    state_dir: Path
    run_dir: Path
    hotplug_dir: Path = Path("/etc/hotplug.d/ha")
    licence_dir: Path = Path("/etc/controlone.d/licences")

    @property
    def api_socket(self) -> Path:
        """Unix socket of the local API of `ha`."""
        return self.run_dir / "ha.sock"

    @property
    def peer_socket(self) -> Path:
        """Unix socket that only the peer bridge uses."""
        return self.run_dir / "peer.sock"

    @property
    def server_socket(self) -> Path:
        """Unix socket through which `ha` orders the Console Server."""
        return self.run_dir / "server.sock"

    @property
    def conference_socket(self) -> Path:
        """Unix socket of the Conference Server's controller."""
        return self.run_dir / "conference.sock"

    @property
    def server_state(self) -> Path:
        """Last order given to the Console Server, kept for its respawn."""
        return self.run_dir / "server.state"

    @property
    def status_file(self) -> Path:
        """Last status written by `ha`, shown when the daemon is down."""
        return self.run_dir / "status.json"

    @property
    def supervisor_socket(self) -> Path:
        """Unix socket of the lab's supervisor."""
        return self.run_dir / "supervisor.sock"

    @property
    def asterisk_dir(self) -> Path:
        """Generated configuration and runtime files of the node's Asterisk."""
        return self.run_dir / "asterisk"

    @property
    def console_socket(self) -> Path:
        """Unix socket of the failover client, on a console device."""
        return self.run_dir / "console.sock"

    @property
    def console_credentials(self) -> Path:
        """Token and pinned servers of a console device, mode 0600."""
        return self.state_dir / "console.json"

    @property
    def sessions_file(self) -> Path:
        """Logins and ends of consoles for the audit, one JSON object a line."""
        return self.state_dir / "sessions.jsonl"

    @property
    def records_dir(self) -> Path:
        """What waits for the node's database: ended calls, recordings, sessions of consoles."""
        return self.state_dir / "records"

    @property
    def key_file(self) -> Path:
        """RSA-2048 private key of the node, mode 0600."""
        return self.state_dir / "node.key"

    @property
    def certificate_file(self) -> Path:
        """Self-signed certificate of the same key."""
        return self.state_dir / "node.crt"

    @property
    def pins_file(self) -> Path:
        """Pinned keys and certificates of the peers."""
        return self.state_dir / "pins.json"

    @property
    def state_file(self) -> Path:
        """Forced and paused states and what else survives a reboot."""
        return self.state_dir / "state.json"

    @property
    def history_file(self) -> Path:
        """History of transitions, one JSON object a line."""
        return self.state_dir / "history.jsonl"


def node_paths(environment: Mapping[str, str] | None = None) -> NodePaths:
    """Return the node's paths, each overridable by an environment variable (see the table in
    docs).
    """
    env = os.environ if environment is None else environment
    return NodePaths(
        config_dir=Path(env.get("UCI_CONFIG_DIR", "/etc/config")),
        save_dir=Path(env.get("CONTROLONE_SAVE_DIR", "/tmp/.uci")),
        state_dir=Path(env.get("CONTROLONE_STATE_DIR", "/etc/controlone")),
        run_dir=Path(env.get("CONTROLONE_RUN_DIR", "/var/run/controlone")),
        hotplug_dir=Path(env.get("CONTROLONE_HOTPLUG_DIR", "/etc/hotplug.d/ha")),
        licence_dir=Path(env.get("CONTROLONE_LICENCE_DIR", "/etc/controlone.d/licences")),
    )
