"""The disk below the own database: that it is why mongod has ended, and before it does.

mongod ends when it cannot write, and says why in its own log alone. So its directory is asked for
while it answers, and looked at when it does not. A database on another machine is not looked at.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pymongo.errors import PyMongoError

from controlone_ha.probes.database import DatabaseTarget

if TYPE_CHECKING:
    from pymongo import MongoClient

FULL = 110 << 20
"""Bytes without which mongod does not start: it prepares a journal of 100 MB."""
NEARLY_FULL = 256 << 20
_DEFAULT_DIRECTORY = "/data/db"


def data_directory(target: DatabaseTarget, client: MongoClient[Any]) -> str:
    """Return where the database keeps its files (``storage.dbPath``); empty if it cannot be told.

    It needs the role ``clusterMonitor``.
    """
    if target.host not in ("127.0.0.1", "::1", "localhost"):
        return ""
    try:
        parsed = client.admin.command("getCmdLineOpts").get("parsed", {})
    except PyMongoError:
        return ""
    return str(parsed.get("storage", {}).get("dbPath", _DEFAULT_DIRECTORY))


def why_down(directory: str) -> str:
    """Return why a mongod with its files there cannot run; empty if its disk is well."""
    system = _look(directory)
    if system is None:
        return ""
    if system.f_flag & os.ST_RDONLY:
        return f"the disk of {directory} is read-only: mount it for writing and start mongod again"
    free = system.f_bavail * system.f_frsize
    if free < FULL:
        return (
            f"the disk of {directory} is full, {free >> 20} MB are left: "
            "make room and start mongod again"
        )
    return ""


def warnings(directory: str) -> list[str]:
    """Return what a person should know of the disk while the database still runs."""
    system = _look(directory)
    if system is None or (free := system.f_bavail * system.f_frsize) >= NEARLY_FULL:
        return []
    return [f"the disk of {directory} has {free >> 20} MB left: mongod ends when it is full"]


def _look(directory: str) -> os.statvfs_result | None:
    try:
        return os.statvfs(directory) if directory else None
    except OSError:
        return None
