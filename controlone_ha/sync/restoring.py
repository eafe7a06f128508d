"""Putting a conflict copy back: an edit of this node like any other, and what it replaces is kept.

Blocking; runs in the engine's worker. Node-scope options of a UCI file stay as this node has them.
"""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING

from controlone_ha.errors import RefusedError
from controlone_ha.sync import files
from controlone_ha.sync.conflicts import MAX_SHOWN, Copy
from controlone_ha.sync.content import shared_content, with_own_options
from controlone_ha.sync.files import CHUNK, Part
from controlone_ha.sync.items import Item
from controlone_ha.sync.versions import Version

if TYPE_CHECKING:
    from controlone_ha.sync.replica import Replica


def put_back(replica: Replica, name: str) -> tuple[Copy, list[Version]]:
    """Write a copy over its file; return it and the versions that this edit has made.

    Raises ``RefusedError`` when there is no such copy or it does not belong to an item any more,
    ``UciError`` when it cannot be parsed, ``OSError``; the file is then as it was.
    """
    copy = replica.losers.find(name)
    item = replica.items.get(copy.item)
    if item is None or not item.covers(copy.path):
        raise RefusedError(f"{copy.path} is not synchronised on this node any more")
    files.check_place(item, copy.path)
    made = replica.examine([copy.path])
    mine = replica.journal.get(copy.path)
    part = _written(item, copy)
    try:
        part.seal(mode=copy.mode, mtime_ns=time.time_ns(), owner=files.owner_for(copy.path))
        if mine is not None and mine.present:
            replica.losers.keep(mine, mine, "replaced")
        part.put(copy.path)
    finally:
        part.close()
    return copy, [*made, *replica.examine([copy.path])]


def _written(item: Item, copy: Copy) -> Part:
    """Return the content beside its place, complete."""
    if item.is_uci:
        content = files.read_whole(str(copy.file), MAX_SHOWN)
        present = None
        if files.look(copy.path) is not None:
            present = files.read_whole(copy.path, MAX_SHOWN)
        shared = shared_content(copy.path, content)
        content = with_own_options(copy.path, shared, present)
        part = _empty(copy.path, hashlib.sha256(content).hexdigest())
        pieces = iter((content,))
    else:
        part = _empty(copy.path, files.checksum_of(str(copy.file))[0])
        source = os.fdopen(files.open_file(str(copy.file)), "rb")
        pieces = iter(lambda: source.read(CHUNK), b"")
    try:
        for piece in pieces:
            part.append(piece)
    except BaseException:
        part.drop()
        raise
    finally:
        if not item.is_uci:
            source.close()
    return part


def _empty(path: str, checksum: str) -> Part:
    part = Part(path, checksum)
    if part.size:  # what an earlier try has left
        part.drop()
        part = Part(path, checksum)
    return part
