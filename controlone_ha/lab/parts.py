"""Where the real parts are: mongod, Asterisk, SIPp, sshd, dropbear and BusyBox.

Each part is looked for in this order: an environment variable that names it, the system's PATH (the
sbin directories included), and the cache that `make setup` fills outside the checkout. The shell
scripts know the same cache through scripts/paths.sh. A part that cannot be found is an error that
names the remedy, never something to skip.

Asterisk is more than a binary: the one in the cache runs with the loader and the libraries of its
own folder, and its modules lie there too, so a generated asterisk.conf must be told `astmoddir`.
See docs/asterisk.md.

Not here: starting and stopping, which the lab and the tests do themselves. Standard library only.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from controlone_ha.errors import LabError

REMEDY = "run `make setup`"
"""What to do about a missing part; ends every MissingPartError."""

_SYSTEM_DIRECTORIES = (
    "/usr/local/sbin",
    "/usr/sbin",
    "/sbin",
    "/usr/local/bin",
    "/usr/bin",
    "/bin",
)


class MissingPartError(LabError):
    """A real part is not on this machine; the text says where it was looked for and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Asterisk:
    """An Asterisk that can be run.

    command: what to put before Asterisk's own arguments; loader and library path included.
    module_directory: for `astmoddir` of asterisk.conf.
    data_directory: for `astdatadir`: documentation, sounds.
    """

    command: tuple[str, ...]
    module_directory: Path
    data_directory: Path


def cache_directory() -> Path:
    """Return the folder `make setup` fills; it need not exist."""
    chosen = os.environ.get("CONTROLONE_CACHE")
    if chosen:
        return Path(chosen)
    if os.geteuid() == 0:
        return Path("/var/cache/controlone-ha")
    return Path.home() / ".cache" / "controlone-ha"


def mongod_path() -> Path:
    """Return the mongod binary (CONTROLONE_MONGOD). Raises MissingPartError."""
    return _find("mongod", "CONTROLONE_MONGOD", cache_directory() / "mongod" / "mongod")


def sipp_path() -> Path:
    """Return the sipp binary (CONTROLONE_SIPP). Raises MissingPartError."""
    return _find("sipp", "CONTROLONE_SIPP")


def sshd_path() -> Path:
    """Return OpenSSH's sshd (CONTROLONE_SSHD), absolute as sshd demands. Raises MissingPartError.

    As root it also needs the empty directory /run/sshd: see prepare_sshd().
    """
    return _find("sshd", "CONTROLONE_SSHD")


def prepare_sshd() -> None:
    """Create sshd's privilege separation directory, which a reboot removes. Only root needs it."""
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)


def dropbear_path() -> Path:
    """Return the dropbear server (CONTROLONE_DROPBEAR). Raises MissingPartError."""
    return _find("dropbear", "CONTROLONE_DROPBEAR")


def dropbearkey_path() -> Path:
    """Return dropbear's key tool (CONTROLONE_DROPBEARKEY). Raises MissingPartError."""
    return _find("dropbearkey", "CONTROLONE_DROPBEARKEY")


def busybox_path() -> Path:
    """Return BusyBox (CONTROLONE_BUSYBOX), for its ash. Raises MissingPartError."""
    return _find("busybox", "CONTROLONE_BUSYBOX")


def asterisk() -> Asterisk:
    """Return the Asterisk of this machine. Raises MissingPartError.

    CONTROLONE_ASTERISK names a binary; CONTROLONE_ASTERISK_MODULES and CONTROLONE_ASTERISK_DATA its
    folders where they are not the usual ones.
    """
    named = os.environ.get("CONTROLONE_ASTERISK")
    installed = named or _which("asterisk")
    if installed:
        if named and not _is_program(Path(named)):
            raise MissingPartError(
                f"CONTROLONE_ASTERISK={named} is not a program; correct or unset it"
            )
        return _installed_asterisk(Path(installed).resolve())
    return _cached_asterisk(cache_directory() / "asterisk" / "tree")


def asterisk_command() -> list[str]:
    """Return what to put before Asterisk's arguments, such as `-f -C <asterisk.conf>`."""
    return list(asterisk().command)


def _installed_asterisk(binary: Path) -> Asterisk:
    modules = os.environ.get("CONTROLONE_ASTERISK_MODULES")
    if modules is None:
        prefix = binary.parent.parent
        found = [*prefix.glob("lib/*/asterisk/modules"), prefix / "lib" / "asterisk" / "modules"]
        modules = next((str(place) for place in found if place.is_dir()), None)
    if modules is None:
        raise MissingPartError(
            f"{binary} has no folder of modules beside it: set CONTROLONE_ASTERISK_MODULES"
        )
    data = os.environ.get("CONTROLONE_ASTERISK_DATA", "/usr/share/asterisk")
    return Asterisk(
        command=(str(binary),), module_directory=Path(modules), data_directory=Path(data)
    )


def _cached_asterisk(tree: Path) -> Asterisk:
    binary = tree / "usr" / "sbin" / "asterisk"
    loaders = [*tree.glob("usr/lib/*/ld-linux-*.so.*"), *tree.glob("lib/*/ld-linux-*.so.*")]
    modules = [
        *tree.glob("usr/lib/*/asterisk/modules"),
        *tree.glob("usr/lib/asterisk/modules"),
    ]
    if not (binary.is_file() and loaders and modules):
        raise MissingPartError(
            f"no asterisk in CONTROLONE_ASTERISK, on the PATH or in {tree}: {REMEDY}"
        )
    # Debian 11 has no merged /usr, and keeps Asterisk's own libraries outside the triplet.
    triplet = loaders[0].parent.name
    places = (f"usr/lib/{triplet}", f"lib/{triplet}", "usr/lib", "usr/lib/asterisk")
    libraries = ":".join(f"{tree}/{place}" for place in places)
    return Asterisk(
        command=(str(loaders[0]), "--library-path", libraries, str(binary)),
        module_directory=modules[0],
        data_directory=tree / "usr" / "share" / "asterisk",
    )


def _find(name: str, variable: str, cached: Path | None = None) -> Path:
    named = os.environ.get(variable)
    if named:
        if not _is_program(Path(named)):
            raise MissingPartError(f"{variable}={named} is not a program; correct or unset it")
        return Path(named).absolute()
    installed = _which(name)
    if installed:
        return Path(installed).absolute()
    if cached is not None and _is_program(cached):
        return cached
    places = (
        f"{variable} or on the PATH"
        if cached is None
        else f"{variable}, on the PATH or as {cached}"
    )
    raise MissingPartError(f"no {name} in {places}: {REMEDY}")


def _which(name: str) -> str | None:
    search = os.pathsep.join([os.environ.get("PATH", ""), *_SYSTEM_DIRECTORIES])
    return shutil.which(name, path=search)


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
