"""Fetching the bytes of wanted files from a peer: small ones together, large ones in chunks that
survive a cut. Never holds more than a chunk of a large file.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from controlone_ha.errors import PeerError
from controlone_ha.peers.model import RemoteError
from controlone_ha.sync.files import CHUNK, Part
from controlone_ha.sync.items import BadPathError
from controlone_ha.sync.replica import MAX_UCI, TROUBLE, describe
from controlone_ha.sync.versions import Version

if TYPE_CHECKING:
    from controlone_ha.sync.session import Session

log = logging.getLogger("sync")

TIMEOUT: Final = 30.0
"""Seconds that a peer may take for its answer and for each chunk."""


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """What became of one wanted file; ``problem`` is empty when it is here. ``is_later``: ours
    turned out to be the later one, or both were merged, and the peer should have the result.
    """

    is_later: bool = False
    problem: str = ""


async def fetch_batch(session: Session, batch: list[Version]) -> list[Arrival]:
    """Fetch some files; one that fails does not stop the others. Raises when the link ends."""
    replica = session.engine.replica
    part: Part | None = None
    if replica.is_streamed(batch[0]):
        try:
            part = await session.engine.work(replica.begin, batch[0])
        except (BadPathError, *TROUBLE) as error:
            return [Arrival(problem=describe(batch[0].path, error))]
    try:
        return await _fetch(session, batch, part)
    except RemoteError as error:
        return [Arrival(problem=f"{session.peer}: {error}") for _version in batch]
    finally:
        if part is not None:
            # After what the worker is doing with it: a link that ends now must not take the
            # descriptor away from a file that is just being put in its place.
            session.engine.work(part.close)


async def _fetch(session: Session, batch: list[Version], part: Part | None) -> list[Arrival]:
    wanted = [
        {"path": version.path, "checksum": version.checksum, "offset": part.size if part else 0}
        for version in batch
    ]
    body = await session.link.fetch(
        "sync.fetch", {"item": batch[0].item, "files": wanted}, timeout=TIMEOUT
    )
    results: Any = body.result
    if not isinstance(results, list) or len(results) != len(batch):
        body.close()
        raise PeerError(f"{session.peer} answers a request for {len(batch)} files otherwise")
    chunks = aiter(body)
    rest = b""
    arrivals = []
    try:
        for version, result in zip(batch, results, strict=True):
            if "error" in result:
                arrivals.append(Arrival(problem=f"{session.peer}: {result['error']}"))
                continue
            size = int(result["size"])
            if part is not None:
                arrivals.append(await _stream(session, version, part, chunks, size))
                break
            if size != version.size or size > MAX_UCI:
                raise PeerError(f"{session.peer}: {version.path}: another size than announced")
            content, rest = await _exactly(chunks, rest, size)
            version = replace(version, detail=str(result.get("detail") or ""))
            arrivals.append(await _accept(session, version, content))
            session.bytes_done += size
    finally:
        body.close()
    return arrivals


async def read_content(session: Session, version: Version) -> bytes:
    """Return the peer's bytes of a small file, only to look at them."""
    if version.size > MAX_UCI:
        raise PeerError(f"{version.path}: too large to be shown")
    wanted = [{"path": version.path, "checksum": version.checksum, "offset": 0}]
    body = await session.link.fetch(
        "sync.fetch", {"item": version.item, "files": wanted}, timeout=TIMEOUT
    )
    try:
        result = body.result[0] if isinstance(body.result, list) and body.result else {}
        if "error" in result:
            raise PeerError(f"{session.peer}: {result['error']}")
        content, _rest = await _exactly(aiter(body), b"", version.size)
        return content
    finally:
        body.close()


async def _exactly(chunks: AsyncIterator[bytes], rest: bytes, size: int) -> tuple[bytes, bytes]:
    parts, count = [rest], len(rest)
    while count < size:
        try:
            chunk = await anext(chunks)
        except StopAsyncIteration:
            raise PeerError("the peer sent less than it announced") from None
        parts.append(chunk)
        count += len(chunk)
    data = b"".join(parts)
    return data[:size], data[size:]


async def _accept(session: Session, version: Version, content: bytes | Part) -> Arrival:
    try:
        accepted = await session.engine.finish(session.accept(version, content))
    except (BadPathError, *TROUBLE) as error:
        return Arrival(problem=describe(version.path, error))
    return Arrival(is_later=accepted.is_other_than(version))


async def _stream(
    session: Session, version: Version, part: Part, chunks: AsyncIterator[bytes], size: int
) -> Arrival:
    """Write a large file while it comes: one piece is on its way to the disk, one being filled."""
    if part.size + size != version.size:
        raise PeerError(f"{session.peer}: {version.path}: another size than announced")
    writing: asyncio.Future[None] | None = None
    pieces: list[bytes] = []
    filled = 0
    try:
        async for chunk in chunks:
            pieces.append(chunk)
            filled += len(chunk)
            session.bytes_done += len(chunk)
            if filled >= CHUNK:
                if writing is not None:
                    await writing
                writing = session.engine.work(part.append, b"".join(pieces))
                pieces, filled = [], 0
        if writing is not None:
            await writing
            writing = None
        if pieces:
            await session.engine.work(part.append, b"".join(pieces))
    except TROUBLE as error:
        if isinstance(error, PeerError):
            raise
        return Arrival(problem=describe(version.path, error))
    finally:
        if writing is not None:
            await asyncio.wait([writing])
            if not writing.cancelled():
                writing.exception()
    return await _accept(session, version, part)
