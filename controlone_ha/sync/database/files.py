"""The files a node's mongod and its clients need: certificates, keyfile, the own user's password.

In ``state_dir/database`` (0700): ``node.pem`` (key and certificate of the node, for both ends of
TLS), ``pins.pem`` (whose certificates the mongod accepts: all pins and our own), ``pin-NAME.pem``
(one peer's: the only one that is accepted from that peer), ``keyfile`` (between members of a
replica set; there is one member, so nobody needs to know it), ``own.password``. Written when they
are missing or when pins have changed. Standard library only.

``python -m controlone_ha.sync.database.files`` writes them; a mongod is started after that.
"""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlone_ha.paths import NodePaths, node_paths
from controlone_ha.peers.files import private_directory, write_atomically
from controlone_ha.peers.rotation import own_certificates
from controlone_ha.probes.database import DatabaseTarget
from controlone_ha.sync.database.settings import OWN_USER, USER

OWNERS = ("mongodb", "mongod")
"""Users as which mongod runs where it does not run as root; the files it reads become theirs."""


@dataclass(frozen=True, kw_only=True)
class DatabaseFiles:
    """Where the files of this node are."""

    directory: Path

    @property
    def node(self) -> Path:
        """Key and certificate of this node."""
        return self.directory / "node.pem"

    @property
    def pins(self) -> Path:
        """Certificates that this node's mongod accepts."""
        return self.directory / "pins.pem"

    @property
    def keyfile(self) -> Path:
        """mongod's ``keyFile``."""
        return self.directory / "keyfile"

    @property
    def password(self) -> Path:
        """Password of the own user."""
        return self.directory / "own.password"

    def pin_of(self, peer: str) -> Path:
        """The certificate of one peer."""
        return self.directory / f"pin-{peer}.pem"

    def is_complete(self) -> bool:
        """Tell whether they have been written."""
        return all(path.exists() for path in (self.node, self.pins, self.keyfile, self.password))


def database_files(paths: NodePaths) -> DatabaseFiles:
    """Return the places for a node."""
    return DatabaseFiles(directory=paths.state_dir / "database")


def write_files(paths: NodePaths, certificates: Mapping[str, str]) -> bool:
    """Write what is missing or has changed; return whether the certificates have changed.

    ``certificates``: PEM of each pinned peer, by name, one after the other while that peer changes
    its key. The node's own identity must exist.
    """
    files = database_files(paths)
    private_directory(paths.state_dir)
    private_directory(files.directory)
    own, *others = own_certificates(paths)
    key = paths.key_file.read_text(encoding="ascii")
    if not files.keyfile.exists():
        _write(files.keyfile, base64.b64encode(secrets.token_bytes(96)).decode() + "\n")
    if not files.password.exists():
        _write(files.password, secrets.token_urlsafe(32) + "\n")
    changed = _update(files.node, _lines(key) + _lines(own))
    everybody = [own, *others, *(certificates[name] for name in sorted(certificates))]
    changed |= _update(files.pins, "".join(map(_lines, everybody)))
    for name, certificate in certificates.items():
        changed |= _update(files.pin_of(name), _lines(certificate))
    for path in files.directory.glob("pin-*.pem"):
        if path.stem.removeprefix("pin-") not in certificates:
            path.unlink()
    _give_away(files)
    return changed


def own_target(paths: NodePaths, host: str, port: int, *, as_user: bool = True) -> DatabaseTarget:
    """Return how this node reaches its own database: with TLS and login once it has the files."""
    files = database_files(paths)
    if not files.is_complete():
        return DatabaseTarget(host=host, port=port)
    return DatabaseTarget(
        host=host,
        port=port,
        user=OWN_USER if as_user else "",
        password=files.password.read_text(encoding="ascii").strip() if as_user else "",
        ca_file=str(files.pins),
        certificate_key_file=str(files.node),
    )


def peer_target(
    paths: NodePaths, peer: str, host: str, port: int, password: str
) -> DatabaseTarget | None:
    """Return how a peer's database is reached; None before files and pin are there: never plain."""
    files = database_files(paths)
    if not files.is_complete() or not files.pin_of(peer).exists():
        return None
    return DatabaseTarget(
        host=host,
        port=port,
        user=USER,
        password=password,
        ca_file=str(files.pin_of(peer)),
        certificate_key_file=str(files.node),
    )


def _lines(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"


def _update(path: Path, text: str) -> bool:
    try:
        if path.read_text(encoding="ascii") == text:
            return False
    except FileNotFoundError:
        pass
    _write(path, text)
    return True


def _write(path: Path, text: str) -> None:
    write_atomically(path, text.encode("ascii"), mode=0o600)


def _give_away(files: DatabaseFiles) -> None:
    """Let mongod read its files where it runs as a user of its own."""
    import pwd

    if os.geteuid() != 0:
        return
    for name in OWNERS:
        try:
            owner = pwd.getpwnam(name)
        except KeyError:
            continue
        files.directory.chmod(0o711)
        files.directory.parent.chmod(0o711)
        for path in (files.node, files.pins, files.keyfile):
            os.chown(path, owner.pw_uid, owner.pw_gid)
        return


def main() -> None:
    """Write the files of this node, making its identity if it has none."""
    from controlone_ha.config.settings import load_ha
    from controlone_ha.peers.keys import ensure_identity
    from controlone_ha.peers.trust import TrustStore

    paths = node_paths()
    ensure_identity(paths, load_ha(paths.config_dir).name)
    pins: Mapping[str, Any] = TrustStore(paths.pins_file).pins()
    write_files(paths, {name: "\n".join(pin.certificates) for name, pin in pins.items()})


if __name__ == "__main__":
    main()
