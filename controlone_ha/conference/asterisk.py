"""The Asterisk of this node on disk: found, prepared, and how to start it.

Theory of operation. Starting the Conference Server is on the failover path, so all work that can
be done before is done by ``prepare``: at boot and whenever ``/etc/config/conference`` has changed.
It writes Asterisk's configuration and a two-line shell file ``start``; at failover nothing but
Asterisk is started (``launch_command`` first compares the settings with the copy that ``prepare``
left, by ``cmp``, and prepares only if they differ). Files are rewritten only when their text
changes, each whole or not at all; the password of the control interface is made once per boot and
is readable by root and Asterisk's own user alone.

Asterisk runs as the user ``asterisk``, or ``nobody`` where there is none; when this is not run as
root, as whoever runs it.

Not here: the texts (``asterisk_files``), what is loaded (``asterisk_modules``). Standard library
only.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import json
import os
import pwd
import secrets
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from controlone_ha import __version__
from controlone_ha.conference import asterisk_modules
from controlone_ha.conference.asterisk_files import (
    ARI_USER,
    PASSWORDS,
    TLS_CERTIFICATE,
    TLS_KEY,
    EngineSettings,
    Gateway,
    file_texts,
)
from controlone_ha.config.settings import load_conference
from controlone_ha.errors import ServiceError
from controlone_ha.paths import NodePaths

ARI_PORT = 8088
USERS = ("asterisk", "nobody")
_SEARCH = ("/usr/sbin", "/usr/local/sbin", "/sbin", "/usr/bin", "/usr/local/bin")
_SECRET_FILES = {"ari.conf", PASSWORDS}


@dataclass(frozen=True, kw_only=True)
class AsteriskProgram:
    """An Asterisk that can be run: what stands before its arguments, its modules and its data."""

    command: tuple[str, ...]
    module_directory: Path
    data_directory: Path

    def environment(self) -> dict[str, str]:
        """Return the variables by which ``find_program`` of another process finds this one."""
        return {
            "CONTROLONE_ASTERISK_COMMAND": shlex.join(self.command),
            "CONTROLONE_ASTERISK_MODULES": str(self.module_directory),
            "CONTROLONE_ASTERISK_DATA": str(self.data_directory),
        }


@dataclass(frozen=True, kw_only=True)
class ControlAccess:
    """How to reach the control interface (ARI) of the node's Asterisk."""

    port: int
    user: str
    password: str


def find_program(environment: Mapping[str, str] | None = None) -> AsteriskProgram:
    """Return the Asterisk of this machine: named by the environment, or installed.

    ``CONTROLONE_ASTERISK_COMMAND`` (shell words), ``CONTROLONE_ASTERISK_MODULES`` and
    ``CONTROLONE_ASTERISK_DATA`` override what is found. Raises ``ServiceError``.
    """
    env = os.environ if environment is None else environment
    command = shlex.split(env.get("CONTROLONE_ASTERISK_COMMAND", ""))
    if not command:
        search = os.pathsep.join([env.get("PATH", ""), *_SEARCH])
        found = shutil.which("asterisk", path=search)
        if found is None:
            raise ServiceError("no asterisk is installed on this node; install the package")
        command = [found]
    modules = env.get("CONTROLONE_ASTERISK_MODULES")
    if modules is None:
        prefix = Path(command[-1]).resolve().parent.parent
        places = [prefix / "lib/asterisk/modules", *prefix.glob("lib/*/asterisk/modules")]
        modules = next((str(place) for place in places if place.is_dir()), None)
        if modules is None:
            raise ServiceError(f"{command[-1]} has no folder of modules below {prefix / 'lib'}")
    return AsteriskProgram(
        command=tuple(command),
        module_directory=Path(modules),
        data_directory=Path(env.get("CONTROLONE_ASTERISK_DATA", "/usr/share/asterisk")),
    )


def command(paths: NodePaths, program: AsteriskProgram | None = None) -> list[str]:
    """Return the argument list that runs the prepared Asterisk in the foreground."""
    program = program or find_program()
    words = [*program.command, "-f", "-C", str(paths.asterisk_dir / "etc" / "asterisk.conf")]
    account = _account()
    if account is not None:
        words += ["-U", account.pw_name, "-G", grp.getgrgid(account.pw_gid).gr_name]
    return words


def launch_command(paths: NodePaths) -> list[str]:
    """Return what an init script or a supervisor runs: prepare if that is due, then Asterisk.

    No interpreter but the shell is started when nothing has changed. ``prepare`` finds the program
    by the environment (``AsteriskProgram.environment``) or where packages put it. If it fails, with
    bad settings say, the log says why and the configuration prepared before stays in force.
    """
    source = shlex.quote(str(paths.config_dir / "conference"))
    kept = shlex.quote(str(_kept(paths)))
    prepare_words = shlex.join([sys.executable, "-m", "controlone_ha.conference", "prepare"])
    start = shlex.quote(str(paths.asterisk_dir / "start"))
    script = (
        f"c={source}; [ -f $c ] || c=/dev/null; cmp -s $c {kept} || {prepare_words}; "
        f"[ -f {start} ] && exec /bin/sh {start}"
    )
    return ["/bin/sh", "-c", script]


def prepare(
    paths: NodePaths, program: AsteriskProgram | None = None, *, ari_port: int | None = None
) -> bool:
    """Write what Asterisk needs; return whether any file changed (then restart a running one).

    Raises ``ConfigError`` or ``UciError`` (bad settings), ``ServiceError`` (no Asterisk), and
    ``OSError``. ``ari_port``: port of the control interface; None: as before, or 8088.
    """
    program = program or find_program()
    paths.asterisk_dir.mkdir(parents=True, exist_ok=True)
    # One at a time: at the first start `ha` and the launcher may both be here, and a password that
    # one has written for Asterisk must be the one that the other has kept for the controller.
    with open(paths.asterisk_dir / "prepare.lock", "a", opener=_private) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _prepare(paths, program, ari_port)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _prepare(paths: NodePaths, program: AsteriskProgram, ari_port: int | None) -> bool:
    source = paths.config_dir / "conference"
    source_bytes = source.read_bytes() if source.exists() else b""
    settings = load_conference(paths.config_dir)
    base = paths.asterisk_dir
    account = _account()
    _make_directories(base, account)
    access = _control_access(base, ari_port)
    engine = EngineSettings(
        bind=settings.bind,
        port=settings.port,
        media_address=settings.media_address,
        ari_port=access.port,
        ari_password=access.password,
        directory=base,
        module_directory=program.module_directory,
        data_directory=_data_directory(program, base / "data"),
        codecs=settings.codecs,
        gateways=tuple(
            Gateway(
                name=gateway.name,
                host=gateway.host,
                port=gateway.port,
                transport=gateway.transport,
                username=gateway.username,
                password=gateway.password,
                codecs=gateway.codecs,
            )
            for gateway in settings.gateways.values()
        ),
        tls_port=settings.tls_port if paths.key_file.exists() else 0,
    )
    texts = file_texts(engine, asterisk_modules.modules_file(program.module_directory))
    changed = False
    for name, text in texts.items():
        if name in _SECRET_FILES:
            changed |= _write(base / "etc" / name, text.encode(), 0o600, account)
        else:
            changed |= _write(base / "etc" / name, text.encode(), 0o644, None)
    if engine.tls_port:
        certificate, key = paths.certificate_file.read_bytes(), paths.key_file.read_bytes()
        changed |= _write(base / "etc" / TLS_CERTIFICATE, certificate, 0o644, None)
        changed |= _write(base / "etc" / TLS_KEY, key, 0o600, account)
    if settings.recordings:
        _make_recordings(base / "spool" / "recording", Path(settings.recordings), account)
    line = f"#!/bin/sh\nexec {shlex.join(command(paths, program))}\n"
    changed |= _write(base / "start", line.encode(), 0o755, None)
    _write(_kept(paths), source_bytes, 0o600, None)  # last: it says that all else is there
    return changed


def control_access(paths: NodePaths) -> ControlAccess:
    """Return the access to the control interface; raise ``ServiceError`` before ``prepare``."""
    access = _read_access(paths.asterisk_dir / "control.json")
    if access is None:
        raise ServiceError(f"{paths.asterisk_dir}: the Conference Server is not prepared yet")
    return access


def _kept(paths: NodePaths) -> Path:
    """Copy of the settings that ``prepare`` worked from; another version of us keeps another."""
    return paths.asterisk_dir / f"prepared-{__version__}"


def _account() -> pwd.struct_passwd | None:
    """Return the user that Asterisk shall run as; None: the present one."""
    if os.geteuid() != 0:
        return None
    for name in USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return None


def _make_directories(base: Path, account: pwd.struct_passwd | None) -> None:
    (base / "etc").mkdir(parents=True, exist_ok=True)
    for path in (base, base / "etc"):  # what Asterisk obeys is root's, and it may only read it
        os.chmod(path, 0o755)
    if account is not None:
        os.chmod(base.parent, base.parent.stat().st_mode & 0o7777 | 0o111)  # let its user through
    for name in ("lib", "cache", "spool", "run", "log"):
        _make_directory(base / name, account)
    for name in asterisk_modules.SPOOL_DIRECTORIES:
        if not (base / "spool" / name).is_symlink():
            _make_directory(base / "spool" / name, account)


def _make_recordings(link: Path, directory: Path, account: pwd.struct_passwd | None) -> None:
    """Have Asterisk record into ``directory``; where that cannot be, into its volatile spool."""
    try:
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        if account is not None and directory.stat().st_uid != account.pw_uid:
            os.chown(directory, account.pw_uid, account.pw_gid)
    except OSError:
        return
    if link.is_symlink() and Path(os.readlink(link)) == directory:
        return
    if link.is_symlink():
        link.unlink()
    elif link.is_dir():
        with contextlib.suppress(OSError):
            link.rmdir()
        if link.exists():
            return  # recordings of before lie there: they are not lost for a link
    link.symlink_to(directory)


def _make_directory(path: Path, account: pwd.struct_passwd | None) -> None:
    """Make a directory that only Asterisk's user and root see into."""
    path.mkdir(mode=0o700, exist_ok=True)
    if account is not None and path.stat().st_uid != account.pw_uid:
        os.chown(path, account.pw_uid, account.pw_gid)


def _control_access(base: Path, port: int | None) -> ControlAccess:
    """Return the kept access, or make it; a running Asterisk keeps its password so."""
    path = base / "control.json"
    kept = _read_access(path)
    if kept is not None and port in (None, kept.port):
        return kept
    access = ControlAccess(
        port=port or ARI_PORT,
        user=ARI_USER,
        password=kept.password if kept else secrets.token_urlsafe(24),
    )
    text = json.dumps({"port": access.port, "user": access.user, "password": access.password})
    _write(path, text.encode(), 0o600, None)
    return access


def _read_access(path: Path) -> ControlAccess | None:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return ControlAccess(
            port=int(raw["port"]), user=str(raw["user"]), password=str(raw["password"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _data_directory(program: AsteriskProgram, target: Path) -> Path:
    """Return the reduced data directory; a quick start is worth much, but not the service."""
    try:
        return asterisk_modules.reduced_data_directory(program.data_directory, target)
    except (OSError, ElementTree.ParseError):
        return program.data_directory


def _write(path: Path, content: bytes, mode: int, account: pwd.struct_passwd | None) -> bool:
    """Replace a file in one step unless it is as wanted already; return whether it was not."""
    with contextlib.suppress(OSError):
        status = path.stat()
        is_owner_right = account is None or status.st_uid == account.pw_uid
        if is_owner_right and status.st_mode & 0o777 == mode and path.read_bytes() == content:
            return False
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), mode)
            if account is not None:
                os.fchown(stream.fileno(), account.pw_uid, account.pw_gid)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return True
