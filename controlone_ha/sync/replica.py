"""This node's replica of the items: the files and the journal, kept equal. Blocking.

Theory of operation. ``examine`` looks at single paths (what the kernel told), ``scan`` at a whole
item; both compare signatures, read only what looks changed, and make a version of an edit of this
node. ``accept`` takes a version of a peer: it looks at the file first, so that an edit nobody has
noticed yet is not overwritten unseen, decides, checks, writes, keeps what loses, and renames.
Everything runs in one worker thread; ``problems`` (path -> sentence) is what could not be done.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from controlone_ha.errors import ControlOneError
from controlone_ha.sync import files, merging, retention
from controlone_ha.sync.conflicts import Conflicts
from controlone_ha.sync.content import shared_content, with_own_options
from controlone_ha.sync.files import Part
from controlone_ha.sync.items import BadPathError, Item, check_path, item_of
from controlone_ha.sync.journal import Journal, Signature
from controlone_ha.sync.stamps import Clock, FutureStamp, Stamp
from controlone_ha.sync.versions import (
    Accepted,
    Verdict,
    Version,
    compare,
    contains,
    is_conflict,
    version_from_json,
)

log = logging.getLogger("sync")

MAX_UCI: Final = 512 << 10
"""Bytes of a UCI file: it travels, and is parsed, as a whole."""

SMALL: Final = 64 << 10
"""Bytes up to which a file is sent along with the news of it."""

PACKED: Final = 4
"""How many of these are kept: every peer gets the same."""

TROUBLE: Final = (OSError, ControlOneError, sqlite3.Error, ValueError)
"""What may go wrong with one file and must not stop the others."""


class Replica:
    """See the module's text. ``wall`` is the wall clock in seconds."""

    def __init__(
        self,
        node: str,
        journal: Journal,
        losers: Conflicts,
        *,
        allowed_skew: float,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.node = node
        self.journal = journal
        self.losers = losers
        self.items: dict[str, Item] = {}
        self.problems: dict[str, tuple[str, str]] = {}
        self.damaged: dict[str, Signature] = {}
        self.allowed_skew_us = int(allowed_skew * 1e6)
        self._wall = wall
        self._clock = Clock(node)
        self._hashed: dict[str, tuple[Signature | None, str, int]] = {}
        self._packed: dict[tuple[str, str], str] = {}
        self._incarnation = 1
        self._issued = 0

    def configure(self, items: Mapping[str, Item], allowed_skew: float) -> None:
        """Use other items from now on."""
        self.items = dict(items)
        self.allowed_skew_us = int(allowed_skew * 1e6)
        self.problems = {
            path: found for path, found in self.problems.items() if found[0] in self.items
        }

    def open(self) -> None:
        """Go on with the clock where it was, and settle what a crash has interrupted."""
        self._incarnation = int(self.journal.recall("incarnation", "1"))
        self._issued = int(self.journal.recall("issued", "0"))
        self._start_clock()
        for path in self.journal.intended():
            self._settle(path)

    @property
    def stamp_name(self) -> str:
        """Who this node is in stamps: another one after it was restored from an old image."""
        return self.node if self._incarnation == 1 else f"{self.node}#{self._incarnation}"

    def _start_clock(self) -> None:
        limit = self._now_us + self.allowed_skew_us
        wall = min(max(self.journal.latest_wall(limit), self._issued), limit)
        self._clock = Clock(self.stamp_name, Stamp(wall, 1 << 20, self.stamp_name))

    @property
    def _now_us(self) -> int:
        return int(self._wall() * 1e6)

    # -- own edits ----------------------------------------------------------------------------

    def examine(self, paths: Iterable[str]) -> list[Version]:
        """Look at some paths; return the versions that edits of this node have made."""
        made = []
        for path in paths:
            item = item_of(self.items.values(), path)
            if item is not None:
                version = self._examine(item, path)
                if version is not None:
                    made.append(version)
        return made

    def examine_hashed(
        self, path: str, signature: Signature, checksum: str, size: int
    ) -> list[Version]:
        """Look at a large file whose content another thread has read under that signature."""
        self._hashed[path] = (signature, checksum, size)
        try:
            return self.examine([path])
        finally:
            self._hashed.pop(path, None)

    def scan(self, name: str, *, everything: bool = False) -> list[Version]:
        """Look at every file of an item; ``everything``: read those that look unchanged, too."""
        item = self.items[name]
        made: list[Version] = []
        visited: set[str] = set()
        for key, found in list(self.problems.items()):
            is_here = item.covers(key) and os.path.lexists(key)
            # Why a directory could not be listed (directory/) is seen anew below.
            if found[0] == name and (key.endswith("/") or not is_here):
                del self.problems[key]
        for directory, entries, refusals in files.walk(item):
            visited.add(directory)
            for path, sentence in refusals.items():
                self.problems[path] = (name, sentence)
            known = self.journal.seen_in(name, directory)
            for entry in entries:
                seen = known.pop(entry.path, None)
                if seen is not None and not everything:
                    try:
                        now = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue
                    if seen == (now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino):
                        continue
                version = self._examine(item, entry.path, read=everything)
                if version is not None:
                    made.append(version)
            for path in known:
                self._examine(item, path)
        for directory in self.journal.parents(name) - visited:
            for path in self.journal.seen_in(name, directory):
                self._examine(item, path)
        return made

    def _examine(self, item: Item, path: str, *, read: bool = False) -> Version | None:
        try:
            check_path(path)
            version = self._look(item, path, read=read)
        except TROUBLE as error:
            if os.path.lexists(path):
                self._trouble(item, path, error)
            else:
                self.problems.pop(path, None)
            return None
        return version

    def _look(self, item: Item, path: str, *, read: bool = False) -> Version | None:
        known = self.journal.get(path)
        if known is None and os.path.isdir(path) and not os.path.islink(path):
            self.problems.pop(path, None)  # what stood in its place is gone, and no file was there
            return None
        found = files.look(path)
        if found is None:
            self.problems.pop(path, None)
            if known is not None and known.present:
                self.journal.lose(path)
                log.info("%s: deleted here; peers keep theirs", path)
            return None
        signature, mode = found
        if not read and known is not None and self.journal.signature(path) == signature:
            return None
        shared = self._shared(item, path)
        if shared is None:
            seen, checksum, size = self._hashed.pop(path, (None, "", 0))
            if seen != signature:
                checksum, size = files.checksum_of(path)
        else:
            checksum, size = hashlib.sha256(shared).hexdigest(), len(shared)
        again = files.look(path)
        if again is None or again[0] != signature:
            return None  # it is being written: the kernel will tell when that ends
        self.problems.pop(path, None)
        with self.journal.transaction():
            if known is not None and known.checksum == checksum and known.mode == mode:
                if known.present and read and self.journal.signature(path) == signature:
                    return None
                self.journal.see(path, signature)
                return None
            if read and known is not None and self.journal.signature(path) == signature:
                sentence = f"{path}: damaged: other bytes under the same size and times"
                self.damaged[path] = signature
                self.problems[path] = (item.name, sentence)
                log.error("%s", sentence)
                return None
            version = self._stamped(item, path, known, checksum, size, mode, signature)
            if shared is not None:
                detail = merging.edited_detail(path, known, shared, version.stamp)
                version = replace(version, detail=detail)
            self.journal.put(version, signature)
            self._issue(version.stamp)
        log.info("%s: changed here, %d bytes", path, size)
        return version

    def _shared(self, item: Item, path: str) -> bytes | None:
        """Return what peers share of a UCI file, None for any other."""
        if not item.is_uci:
            return None
        return shared_content(path, files.read_whole(path, MAX_UCI))

    def _issue(self, stamp: Stamp) -> None:
        if stamp.wall_us > self._issued:
            self._issued = stamp.wall_us
            self.journal.remember("issued", str(self._issued))

    def _stamped(
        self,
        item: Item,
        path: str,
        known: Version | None,
        checksum: str,
        size: int,
        mode: int,
        signature: Signature,
    ) -> Version:
        """Return a new version of this node. An edit nobody saw happen is as old as its mtime."""
        now = self._now_us
        edited = min(signature.mtime // 1000, now)
        if now - edited < 2_000_000:
            edited = now
        if known is not None and known.stamp.wall_us <= now + self.allowed_skew_us:
            edited = max(edited, known.stamp.wall_us + 1)
            self._observe(known.stamp)
        if edited >= now:
            stamp = self._clock.next(now)
        else:
            stamp = Stamp(edited, 0, self.stamp_name)
        vector = dict(known.vector) if known is not None else {}
        vector[stamp.node] = max(stamp.wall_us, vector.get(stamp.node, 0) + 1)
        return Version(
            path=path,
            item=item.name,
            stamp=stamp,
            checksum=checksum,
            size=size,
            mode=mode,
            mtime_ns=signature.mtime,
            vector=vector,
        )

    def _observe(self, stamp: Stamp) -> None:
        self._clock.observe(stamp, self._now_us, self.allowed_skew_us)

    def _trouble(self, item: Item, path: str, error: BaseException) -> None:
        sentence = describe(path, error)
        if self.problems.get(path) != (item.name, sentence):
            log.error("%s", sentence)
        self.problems[path] = (item.name, sentence)

    def _settle(self, path: str) -> None:
        """After a crash: find out which of two versions lies there."""
        intent = self.journal.intent(path)
        if intent is None:
            return
        try:
            item = self.items.get(intent[0])
            version = version_from_json(json.loads(intent[1]), intent[0])
            found = files.look(path)
            if item is not None and found is not None:
                shared = self._shared(item, path)
                checksum = files.checksum_of(path)[0]
                if shared is not None:
                    checksum = hashlib.sha256(shared).hexdigest()
                if checksum == version.checksum and found[1] == version.mode:
                    self.journal.put(version, found[0])
                    self.journal.remember(f"reload/{item.name}", "1")
        except TROUBLE as error:
            log.error("%s: what a crash has interrupted is unclear: %s", path, error)
        self.journal.settle(path)

    def restamp(self) -> list[Version]:
        """Give what this node stamped in the future a stamp of now: its clock was repaired."""
        self._issued = min(self._issued, self._now_us)
        self._start_clock()
        made = []
        for name, item in self.items.items():
            for version in self.journal.all_of(name):
                limit = self._now_us + self.allowed_skew_us
                if version.stamp.node != self.stamp_name or version.stamp.wall_us <= limit:
                    continue
                fresh = self._clock.next(self._now_us)
                vector = {**version.vector, fresh.node: fresh.wall_us}
                again = replace(version, stamp=fresh, vector=vector)
                if item.is_uci and version.present:
                    try:
                        shared = self.content(version)
                    except TROUBLE:
                        continue  # it has changed meanwhile, and gets a stamp for that
                    detail = merging.restamped_detail(version.path, shared, fresh)
                    again = replace(again, detail=detail)
                self.journal.put(again, self.journal.signature(version.path))
                log.warning("%s: stamped in the future by this node, stamped anew", version.path)
                made.append(again)
        return made

    # -- retention ----------------------------------------------------------------------------

    def expire(self, name: str) -> int:
        """Remove what the item's retention no longer covers; return how many files went.

        Their versions stay known, so that nothing comes back from peers.
        """
        item = self.items[name]
        if not item.max_age and not item.max_size:
            return 0
        removed = 0
        for path in retention.expired(
            self.journal.present_files(name),
            now=self._wall(),
            max_age_s=item.max_age * 86400.0,
            max_bytes=item.max_size * 1_000_000,
        ):
            try:
                self._look(item, path)  # an edit that nobody has noticed is no old file
                version = self.journal.get(path)
                if version is None or not version.present:
                    continue
                os.unlink(path)
            except TROUBLE as error:
                self._trouble(item, path, error)
                continue
            self.journal.lose(path)
            removed += 1
        if removed:
            log.info("%s: %d files removed by the retention of this node", name, removed)
        return removed

    # -- versions of peers ----------------------------------------------------------------------

    def judge(self, theirs: Version) -> Verdict:
        """Return what to do about a peer's version; adopt it at once when no bytes are needed.

        Raises ``ControlOneError``, ``BadPathError`` or ``OSError`` with the reason it is refused.
        """
        item = self._receiving(theirs)
        self._look(item, theirs.path)
        self._remember_self(theirs)
        mine = self.journal.get(theirs.path)
        verdict = compare(mine, theirs, merges=item.is_uci)
        if verdict is Verdict.ADOPT and item.is_uci and not theirs.detail and theirs.present:
            verdict = Verdict.WANT  # what is known of its options has to be joined, too
        if verdict in (Verdict.WANT, Verdict.ADOPT):
            self._observe(theirs.stamp)
        if verdict is Verdict.SAME and theirs.path in self.damaged and theirs.present:
            return Verdict.WANT
        if verdict is Verdict.ADOPT:
            assert mine is not None
            self._adopt(mine, theirs)
        return verdict

    def _remember_self(self, theirs: Version) -> None:
        """A peer knows edits of this node that it has forgotten: it was restored from an image.

        What it does from now on is stamped under another name, so that nobody takes it for
        something that followed what was forgotten.
        """
        known = theirs.vector.get(self.stamp_name, 0)
        if known <= self._issued or known > self._now_us + self.allowed_skew_us:
            return
        self._incarnation += 1
        self._issued = 0
        self.journal.remember("incarnation", str(self._incarnation))
        self.journal.remember("issued", "0")
        self._start_clock()
        log.warning(
            "a peer knows edits of this node that it has forgotten (restored from an old image?);"
            " what peers know better wins, and edits are stamped as %s from now on",
            self.stamp_name,
        )

    def _receiving(self, theirs: Version) -> Item:
        item = self.items.get(theirs.item)
        if item is None or not item.receives:
            raise BadPathError(f"{theirs.path}: this node does not take {theirs.item}")
        if not item.covers(theirs.path):
            raise BadPathError(f"{theirs.path}: not part of {theirs.item} on this node")
        return item

    def _adopt(self, mine: Version, theirs: Version) -> None:
        signature = self.journal.signature(mine.path)
        if mine.present and mine.mode != theirs.mode:
            os.chmod(mine.path, theirs.mode)
            found = files.look(mine.path)
            signature = found[0] if found is not None else None
        together = merging.merged(mine, theirs)
        detail = together.version.detail if together is not None else theirs.detail or mine.detail
        self.journal.put(
            replace(
                mine,
                stamp=theirs.stamp,
                mode=theirs.mode,
                vector=theirs.vector,
                detail=detail,
            ),
            signature,
        )

    def accept(self, theirs: Version, content: bytes | Part) -> Accepted:
        """Take a peer's version with its bytes; raise one of ``TROUBLE`` and leave all as it was.

        ``content`` is what peers share of a small file, or a complete ``Part``.
        """
        verdict = self.judge(theirs)
        if verdict is not Verdict.WANT:
            if isinstance(content, Part):
                content.drop()
            return Accepted(version=self.journal.get(theirs.path), verdict=verdict)
        item, mine = self.items[theirs.item], self.journal.get(theirs.path)
        if item.is_uci and mine is not None and mine.present and isinstance(content, bytes):
            if hashlib.sha256(content).hexdigest() != theirs.checksum:
                raise OSError(f"{theirs.path}: the content that arrived has another checksum")
            # Whoever knew ours when he edited has it in his: nothing is to be merged.
            together = None if contains(theirs, mine) else merging.merged(mine, theirs)
            if together is not None:
                return self._accept_merged(item, mine, theirs, together, content)
        return self._put(item, mine, theirs, content)

    def _accept_merged(
        self,
        item: Item,
        mine: Version,
        theirs: Version,
        together: merging.Together,
        content: bytes,
    ) -> Accepted:
        """Take the merger of both over; what lost of either side is kept first."""
        version = together.version
        if version.identity == theirs.identity:
            version = replace(version, vector=theirs.vector)  # nothing of ours is in it
        for sentence in (*together.mine_said, *together.theirs_said):
            log.warning("conflict: %s", sentence)
        if together.theirs_lost:
            self.losers.keep_content(theirs, version, "conflict", content, together.theirs_said)
        if version.checksum == mine.checksum:
            self._adopt(mine, version)
            verdict = Verdict.SAME if version.identity == theirs.identity else Verdict.OFFER
            return Accepted(version=self.journal.get(mine.path), verdict=verdict, adopted=True)
        why = "conflict" if together.mine_lost else "replaced"
        lost = together.mine_said
        return self._put(item, mine, version, together.text, why=why, lost=lost)

    def _put(
        self,
        item: Item,
        mine: Version | None,
        theirs: Version,
        content: bytes | Part,
        *,
        why: str = "",
        lost: Sequence[str] = (),
    ) -> Accepted:
        """Put a version in place of ``mine``, all or nothing."""
        part = self._written(item, theirs, content)
        try:
            part.seal(
                mode=theirs.mode,
                # A time in the future would move the clock of a board that has none at its boot.
                mtime_ns=min(theirs.mtime_ns, int(self._wall() * 1e9)),
                owner=files.owner_for(theirs.path),
            )
            # With the vector of its author: what he did not know he does not follow, even if it has
            # lost here. Else his next edit would pass for a conflict with that, again and again.
            version = replace(theirs, present=True)
            if mine is not None and mine.present:
                why = why or ("conflict" if is_conflict(mine, theirs) else "replaced")
                if theirs.path in self.damaged:
                    why = "damaged"
                self.losers.keep(mine, theirs, why, lost)
            self.journal.intend(version)
            signature = part.put(theirs.path)
        except BaseException:
            if isinstance(content, Part):
                part.close()
            else:
                part.drop()
            raise
        with self.journal.transaction():
            self.journal.put(version, signature)
            self.journal.settle(theirs.path)
            if item.reload:
                self.journal.remember(f"reload/{item.name}", "1")
        self.problems.pop(theirs.path, None)
        self.damaged.pop(theirs.path, None)
        return Accepted(version=version, verdict=Verdict.WANT, changed=True)

    def _written(self, item: Item, theirs: Version, content: bytes | Part) -> Part:
        """Return the new file beside its place, complete."""
        if isinstance(content, Part):
            return content
        if hashlib.sha256(content).hexdigest() != theirs.checksum:
            raise OSError(f"{theirs.path}: the content that arrived has another checksum")
        files.check_place(item, theirs.path)
        if item.is_uci:
            present = None
            if files.look(theirs.path) is not None:
                present = files.read_whole(theirs.path, MAX_UCI)
            content = with_own_options(theirs.path, content, present)
        part = Part(theirs.path, hashlib.sha256(content).hexdigest())
        try:
            if part.size:  # what an earlier try has left
                part.drop()
                part = Part(theirs.path, part.checksum)
            part.append(content)
        except BaseException:
            part.drop()
            raise
        return part

    def begin(self, theirs: Version) -> Part:
        """Return where a large file arrives, with what has arrived of it before."""
        item = self._receiving(theirs)
        files.check_place(item, theirs.path)
        part = Part(theirs.path, theirs.checksum)
        if part.size > theirs.size:
            part.drop()
            part = Part(theirs.path, theirs.checksum)
        return part

    # -- for peers ----------------------------------------------------------------------------

    def content(self, version: Version) -> bytes:
        """Return what peers share of a small file; raise ``OSError`` when it is that no longer."""
        item = self.items[version.item]
        content = files.read_whole(version.path, max(version.size, MAX_UCI))
        if item.is_uci:
            content = shared_content(version.path, content)
        if hashlib.sha256(content).hexdigest() != version.checksum:
            raise OSError(f"{version.path}: has changed meanwhile")
        return content

    def packed(self, version: Version) -> str:
        """Return ``content`` as it is sent along with the news of it; kept for the next peer."""
        key = (version.path, version.checksum)
        found = self._packed.get(key)
        if found is None:
            found = base64.b64encode(self.content(version)).decode()
            self._packed[key] = found
            if len(self._packed) > PACKED:
                del self._packed[next(iter(self._packed))]
        return found

    def is_streamed(self, version: Version) -> bool:
        """Tell whether a file moves as a body of its own, chunk by chunk."""
        return version.size > SMALL and not self.items[version.item].is_uci


def describe(path: str, error: BaseException) -> str:
    """Return one sentence about what went wrong with a file."""
    if not path.isprintable():
        path = ascii(path)
    if isinstance(error, FutureStamp):
        return f"{path}: {error}"
    if isinstance(error, OSError) and error.errno:
        return f"{path}: {os.strerror(error.errno)}"
    text = str(error) or type(error).__name__
    return text if path in text else f"{path}: {text}"
