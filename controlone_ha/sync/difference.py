"""`ha diff`: what is not the same on a peer, file by file, and line by line for UCI files.

Nothing is changed by looking. Values of secrets are never shown, only that they differ.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

from controlone_ha.errors import ControlOneError, PeerError
from controlone_ha.sync.conflicts import masked
from controlone_ha.sync.incoming import read_content
from controlone_ha.sync.items import BadPathError
from controlone_ha.sync.replica import TROUBLE
from controlone_ha.sync.versions import Version, differing, root_of, version_from_json

if TYPE_CHECKING:
    from controlone_ha.sync.session import Session

Json = dict[str, Any]

MOST_FILES: Final = 500
MOST_TEXTS: Final = 20


async def differences(session: Session, item: str) -> list[Json]:
    """Return a row for each path whose versions differ; raise ``ControlOneError``.

    ``{"item", "path", "what", "here", "there", "lines"?}``: ``what`` is ``only_here``,
    ``only_there``, ``deleted_here``, ``deleted_there``, ``newer_here`` or ``newer_there``;
    ``here`` and ``there`` are null or ``{"time", "node", "size", "checksum", "present"}``.
    """
    engine = session.engine
    buckets = await engine.work(engine.replica.journal.buckets, item)
    answer = await session.comparison.ask("sync.compare", item, root=root_of(buckets))
    if answer.get("equal"):
        return []
    theirs_digests = base64.b64decode(str(answer.get("buckets")))
    rows: list[Json] = []
    for number in differing(buckets, theirs_digests):
        entries, _more = await session.comparison.list_page(item, [number], "")
        theirs: dict[str, Version] = {}
        for entry in entries:
            try:
                version = version_from_json(entry, item)
                theirs[version.path] = version
            except (BadPathError, PeerError):
                continue
        mine = {
            version.path: version
            for version in await engine.work(
                engine.replica.journal.in_buckets, item, [number], "", 10 * MOST_FILES
            )
        }
        for path in sorted({*mine, *theirs}):
            own, other = mine.get(path), theirs.get(path)
            if own is not None and other is not None and own.identity == other.identity:
                continue
            row: Json = {
                "item": item,
                "path": path,
                "what": _what(own, other),
                "here": _side(own),
                "there": _side(other),
            }
            if engine.items[item].is_uci and len(rows) < MOST_TEXTS:
                row["lines"] = await _lines(session, own, other)
            rows.append(row)
            if len(rows) >= MOST_FILES:
                return rows
    return rows


def _what(own: Version | None, other: Version | None) -> str:
    if own is None:
        return "only_there"
    if other is None:
        return "only_here"
    if not own.present:
        return "deleted_here"
    if not other.present:
        return "deleted_there"
    return "newer_here" if own.stamp > other.stamp else "newer_there"


def _side(version: Version | None) -> Json | None:
    if version is None:
        return None
    return {
        "time": version.stamp.wall_us / 1e6,
        "node": version.stamp.node,
        "size": version.size,
        "checksum": version.checksum[:12],
        "present": version.present,
    }


async def _lines(session: Session, own: Version | None, other: Version | None) -> list[str]:
    """Return a unified diff from the peer's text to ours, secrets masked."""
    engine = session.engine
    here = there = b""
    try:
        if own is not None and own.present:
            here = await engine.work(engine.replica.content, own)
        if other is not None and other.present:
            there = await read_content(session, other)
    except (*TROUBLE, ControlOneError) as error:
        return [f"# {error}"]
    return await engine.work(_unified, there, here, session.peer, engine.node)


def _unified(there: bytes, here: bytes, peer: str, node: str) -> list[str]:
    from difflib import unified_diff  # seldom wanted, and 0.3 MB

    before, after = (data.decode("utf-8", "replace").splitlines() for data in (there, here))
    lines = unified_diff(before, after, fromfile=peer, tofile=node, lineterm="", n=2)
    return [masked(line) for line in lines][:400]
