"""Conflict copies: what lost is put away before another version is renamed over it. Blocking.

Theory of operation. Below one directory (mode 0700) each copy is a file ``MOMENT-NAME`` with the
content, and ``MOMENT-NAME.json`` beside it that says what it is; the content is on stable storage
before the note, and the note before the winner replaces the file. So a note always has its copy,
and a copy without a note (a crash in between) is only swept away. ``why`` is ``conflict`` (the
winner's author did not know it), ``damaged`` (the disk had changed it), or ``replaced`` (an older
version, or what a restored copy took the place of). Copies that were merely replaced have a quota
of their own and never push out the others. A copy is known to people by the first letters of NAME.

Reading needs no daemon: ``ha conflicts`` lists and compares also when it is down.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from controlone_ha.errors import RefusedError, UciError
from controlone_ha.sync.content import shared_content
from controlone_ha.sync.files import CHUNK, open_file, read_whole, sync_directory
from controlone_ha.sync.stamps import Stamp
from controlone_ha.sync.versions import Version

Json = dict[str, Any]

MAX_REPLACED: Final = 64 << 20
"""Bytes up to which a file that was merely replaced is kept."""
KEPT_CONFLICTS: Final = 1000
KEPT_REPLACED: Final = 200
KEPT_BYTES_REPLACED: Final = 256 << 20
KEPT_SECONDS: Final = 90 * 86400.0
PRUNE_EVERY: Final = 16
"""Merely replaced versions kept between two looks at what is too old or too much."""
MAX_SHOWN: Final = 512 << 10
MAX_NOTE: Final = 64 << 20
MAX_LOST: Final = 20
"""Sentences kept about what lost."""
_SECRET: Final = re.compile(
    r"^([ +-]\s*(?:option|list)\s+\S*(?:secret|password|passwd|key|token)\S*\s+).*$", re.IGNORECASE
)
SHORT: Final = 8
"""Letters of a copy's name that are shown."""


@dataclass(frozen=True, kw_only=True)
class Copy:
    """One copy: whose version of what it is, which one won, and since when it is kept.

    ``lost``: of a UCI file, what of it lost and to whom, a sentence each (``uci_merge``).
    """

    id: str
    file: Path
    path: str
    item: str
    why: str
    size: int
    mode: int
    loser: Stamp
    winner: Stamp
    kept: float
    lost: tuple[str, ...] = ()

    def to_json(self) -> Json:
        """Return what is listed: times in seconds."""
        return {
            "id": self.id[:SHORT],
            "path": self.path,
            "item": self.item,
            "why": self.why,
            "size": self.size,
            "edited": self.loser.wall_us / 1e6,
            "node": self.loser.node,
            "winner_edited": self.winner.wall_us / 1e6,
            "winner_node": self.winner.node,
            "kept": self.kept,
            "lost": list(self.lost),
        }


class Conflicts:
    """The copies below ``directory``; ``wall`` is the wall clock. Raises ``OSError``."""

    def __init__(self, directory: Path, *, wall: Callable[[], float] = time.time) -> None:
        self.directory = directory
        self._wall = wall
        self._unpruned = PRUNE_EVERY - 1

    # -- keeping ------------------------------------------------------------------------------

    def keep(self, loser: Version, winner: Version, why: str, lost: Sequence[str] = ()) -> None:
        """Put the present content of ``loser.path`` away, on stable storage, before it is lost."""
        if why == "replaced" and loser.size > MAX_REPLACED:
            return
        target = self._place(loser)
        descriptor = open_file(loser.path)
        try:
            target.unlink(missing_ok=True)
            try:
                # The winner is renamed over the name, so the content stays with this one.
                os.link(loser.path, target)
                if why != "replaced":
                    os.fsync(descriptor)
            except OSError:
                _copy(descriptor, target)  # another file system, or one without links
        finally:
            os.close(descriptor)
        self._note(loser, winner, why, target, lost)

    def keep_content(
        self,
        loser: Version,
        winner: Version,
        why: str,
        content: bytes,
        lost: Sequence[str] = (),
    ) -> None:
        """Put a version away that was never a file here: what a peer's edit said and lost."""
        target = self._place(loser)
        _write(target, content)
        self._note(loser, winner, why, target, lost)

    def _place(self, loser: Version) -> Path:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = hashlib.sha256(f"{loser.path}\0{loser.stamp.text()}\0{loser.checksum}".encode())
        return self.directory / f"{loser.stamp.wall_us:016d}-{name.hexdigest()[:24]}"

    def _note(
        self, loser: Version, winner: Version, why: str, target: Path, lost: Sequence[str]
    ) -> None:
        said = {
            "why": why,
            "item": loser.item,
            "path": loser.path,
            "mode": loser.mode,
            "loser": loser.stamp.text(),
            "winner": winner.stamp.text(),
            "kept": self._wall(),
            "lost": list(lost)[:MAX_LOST],
        }
        note = target.with_name(target.name + ".json")
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if why == "replaced":  # it had been a conflict before: it stays one
                before = _read(note)
                said["why"], said["lost"] = before.why, list(before.lost)
        fresh = target.with_name(target.name + ".new")
        # An older version that is merely replaced is known to peers, too: a power cut within the
        # next seconds may take its copy, and every change is spared three waits for the disk.
        is_durable = said["why"] != "replaced"
        _write(fresh, json.dumps(said).encode(), is_durable=is_durable)
        os.replace(fresh, note)
        if is_durable:
            sync_directory(str(self.directory))
        self._unpruned += PRUNE_EVERY if is_durable else 1

    def tidy(self) -> None:
        """Prune when enough has been kept since the last time. To be called when nobody waits:
        every note is read for it.
        """
        if self._unpruned >= PRUNE_EVERY:
            self.prune()

    def prune(self) -> None:
        """Remove what is too old or too much, the oldest first."""
        self._unpruned = 0
        now = self._wall()
        replaced, total, others = 0, 0, 0
        for copy in self.list():
            if copy.why == "replaced":
                replaced, total = replaced + 1, total + copy.size
                is_over = replaced > KEPT_REPLACED or total > KEPT_BYTES_REPLACED
            else:
                others += 1
                is_over = others > KEPT_CONFLICTS
            if is_over or now - copy.kept > KEPT_SECONDS:
                with contextlib.suppress(OSError):
                    copy.file.with_name(copy.file.name + ".json").unlink(missing_ok=True)
                    copy.file.unlink(missing_ok=True)

    # -- reading ------------------------------------------------------------------------------

    def list(self, *, everything: bool = True) -> list[Copy]:
        """Return the copies, the one kept last first; without ``everything`` none that was merely
        replaced. A note that cannot be read is left out.
        """
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self.directory) as entries:
            for entry in entries:
                if entry.name.endswith(".json"):
                    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                        found.append(_read(Path(entry.path)))
        found.sort(key=lambda copy: (copy.kept, copy.id), reverse=True)
        return [copy for copy in found if everything or copy.why != "replaced"]

    def find(self, name: str) -> Copy:
        """Return the copy whose name begins so; raise ``RefusedError`` for none or several."""
        found = [copy for copy in self.list() if name and copy.id.startswith(name)]
        if len(found) == 1:
            return found[0]
        if not found:
            raise RefusedError(f"there is no conflict copy {name!r}; `ha conflicts` lists them")
        raise RefusedError(f"{name!r} may be any of {len(found)} conflict copies: type more of it")

    def diff(self, name: str) -> Json:
        """Return the copy and ``lines``: from the copy (-) to the file as it is (+)."""
        copy = self.find(name)
        sides = (_text(file, copy) for file in (copy.file, Path(copy.path)))
        return {**copy.to_json(), "lines": compared(*sides)}

    def restore(self, name: str) -> bytes:
        """Return the content of a copy of at most ``MAX_SHOWN`` bytes; larger ones: ``file``."""
        return read_whole(str(self.find(name).file), MAX_SHOWN)


def compared(copy: list[str] | str, present: list[str] | str) -> list[str]:
    """Return the differing lines of two texts; of what is no text, one line about each."""
    if isinstance(copy, str) or isinstance(present, str):
        sides = (("-", copy), ("+", present))
        return [
            f"{mark} {side if isinstance(side, str) else f'{len(side)} lines of text'}"
            for mark, side in sides
        ]
    import difflib  # only for a person who asks

    lines = list(difflib.unified_diff(copy, present, n=1, lineterm=""))[2:]
    return [masked(line) for line in lines]


def masked(line: str) -> str:
    """Return a line of a diff of UCI files without the value of a secret."""
    return _SECRET.sub(r"\1(hidden)", line)


def _text(file: Path, copy: Copy) -> list[str] | str:
    try:
        content = read_whole(str(file), MAX_SHOWN)
    except FileNotFoundError:
        return []
    except OSError:
        return "too large to be shown"
    if b"\0" in content:
        return f"{len(content)} bytes, no text"
    if copy.item == "config":
        # A copy may be what a peer sent, which never holds this node's own options.
        with contextlib.suppress(UciError):
            content = shared_content(copy.path, content)
    return content.decode("utf-8", "replace").splitlines()


def _read(note: Path) -> Copy:
    said = json.loads(read_whole(str(note), MAX_NOTE))
    file = note.with_name(note.name.removesuffix(".json"))
    return Copy(
        id=file.name.partition("-")[2],
        file=file,
        path=str(said["path"]),
        item=str(said["item"]),
        why=str(said["why"]),
        size=file.stat().st_size,
        mode=int(said["mode"]),
        loser=Stamp.parse(said["loser"]),
        winner=Stamp.parse(said["winner"]),
        kept=float(said["kept"]),
        lost=tuple(str(sentence) for sentence in said.get("lost") or ()),
    )


def _write(target: Path, content: bytes, *, is_durable: bool = True) -> None:
    with open(target, "wb") as out:
        os.fchmod(out.fileno(), 0o600)
        out.write(content)
        out.flush()
        if is_durable:
            os.fsync(out.fileno())


def _copy(descriptor: int, target: Path) -> None:
    with open(target, "wb") as out:
        os.fchmod(out.fileno(), 0o600)
        while data := os.read(descriptor, CHUNK):
            out.write(data)
        out.flush()
        os.fsync(out.fileno())
