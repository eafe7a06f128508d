"""Real Console Server processes for tests and figures: several on one machine, each on an address
of the loopback network of its own, all on one port, as a console's list names them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from controlone_ha import jsonrpc
from controlone_ha.paths import NodePaths, node_paths
from controlone_ha.peers.keys import certificate_sha256, ensure_identity

CHECKOUT = Path(__file__).resolve().parents[1]
PATIENCE = 20.0


class ServerProcess:
    """One server. ``start`` waits until it listens; it then waits for orders as with `ha`."""

    def __init__(self, directory: Path, name: str, address: str, port: int) -> None:
        self.name, self.address, self.port = name, address, port
        self.directory = directory / name
        (self.directory / "config").mkdir(parents=True)
        (self.directory / "run").mkdir()
        self.environment = {
            "UCI_CONFIG_DIR": str(self.directory / "config"),
            "CONTROLONE_STATE_DIR": str(self.directory / "state"),
            "CONTROLONE_RUN_DIR": str(self.directory / "run"),
        }
        self.paths: NodePaths = node_paths(self.environment)
        ensure_identity(self.paths, name)
        self.process: subprocess.Popen[bytes] | None = None
        self.configure()

    def configure(self, *, authentication: str = "optional", max_connections: int = 4000) -> None:
        """Write its settings."""
        (self.directory / "config" / "server").write_text(
            f"config server 'default'\n\toption bind '{self.address}'\n"
            f"\toption port '{self.port}'\n\toption max_connections '{max_connections}'\n"
            f"\toption authentication '{authentication}'\n"
        )
        (self.directory / "config" / "ha").write_text(
            f"config ha 'default'\n\toption name '{self.name}'\n\toption role 'master'\n"
            "\toption database 'none'\n"
        )

    @property
    def pin(self) -> tuple[str, str]:
        """Name and certificate, as a console pins it."""
        return self.name, certificate_sha256(self.paths.certificate_file.read_text())

    @property
    def log(self) -> str:
        """What it wrote."""
        return (self.directory / "log").read_text()

    def start(self, *, serving: bool = True, state: str = "active") -> ServerProcess:
        """Start it and give it its first orders."""
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "controlone_ha.server"],
                env={**os.environ, **self.environment, "PYTHONPATH": str(CHECKOUT)},
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
            )
        end = time.monotonic() + PATIENCE
        while True:
            assert self.process.poll() is None, self.log
            with contextlib.suppress(OSError):
                with socket.create_connection((self.address, self.port), 1.0):
                    pass
                self.order("publish", node=self.name, role="master", state=state)
                break
            assert time.monotonic() < end, self.log
            time.sleep(0.02)
        if serving:
            self.order("enable")
        return self

    def order(self, method: str, **params: Any) -> Any:
        """Ask its control socket."""
        return jsonrpc.call(self.paths.server_socket, method, params, timeout=PATIENCE)

    @property
    def consoles(self) -> int:
        """How many consoles are logged in."""
        return int(self.order("status")["consoles"])

    def end(self, number: int = signal.SIGKILL) -> None:
        """End it, by default without a word."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
            self.process.wait(PATIENCE)

    def freeze(self) -> None:
        """Stop it: its kernel accepts for it, nothing answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo ``freeze``."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)
