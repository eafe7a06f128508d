"""Giving a peer the bytes of files it wants: small ones whole, large ones chunk by chunk."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from controlone_ha.errors import PeerError, RefusedError
from controlone_ha.sync import files
from controlone_ha.sync.replica import TROUBLE, Replica, describe

if TYPE_CHECKING:
    from controlone_ha.sync.session import Session

Json = dict[str, Any]


def open_files(replica: Replica, item: str, wanted: list[Any]) -> tuple[list[Json], list[Any]]:
    """Return (results of the answer, what ``stream`` takes). Blocking."""
    results: list[Json] = []
    parts: list[Any] = []
    for entry in wanted:
        path = str(entry.get("path"))
        version = replica.journal.get(path)
        try:
            if version is None or version.item != item or not version.present:
                raise RefusedError(f"{path}: is not here")
            if version.checksum != entry.get("checksum"):
                raise RefusedError(f"{path}: another version is here by now")
            if replica.is_streamed(version):
                offset = min(max(int(entry.get("offset") or 0), 0), version.size)
                parts.append((files.open_file(path), offset, version.size))
                results.append({"size": version.size - offset})
            else:
                content = replica.content(version)
                parts.append(content)
                results.append({"size": len(content), "detail": version.detail})
        except TROUBLE as error:
            results.append({"error": describe(path, error)})
    return results, parts


async def stream(session: Session, parts: list[Any]) -> AsyncIterator[bytes]:
    """Yield the contents one after the other, and close what was opened."""
    try:
        for part in parts:
            if isinstance(part, bytes):
                session.sent(len(part))
                yield part
                continue
            descriptor, offset, size = part
            while offset < size:
                count = min(files.CHUNK, size - offset)
                data = await session.engine.work(os.pread, descriptor, count, offset)
                if not data:
                    raise PeerError("the file became shorter while it was sent")
                offset += len(data)
                yield data
                session.sent(len(data))
    finally:
        for part in parts:
            if not isinstance(part, bytes):
                session.engine.work(os.close, part[0])  # after a read that goes on
