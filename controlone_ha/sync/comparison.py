"""Full comparison of an item with a peer: digests of everything, of buckets, then versions.

Theory of operation. One digest of everything says "equal" in some hundred bytes. Else the digests
of 256 buckets tell which ones differ, and the versions in those are listed; each side then fetches
and offers what the other lacks. It ends when both sides have the same, or when nothing can be done
about what differs (a file deleted on one side, a refusal). The requests, with ``item``:
``sync.compare {root}``, ``sync.list {buckets, after}``, and the notification ``sync.level``.
"""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any, Final

from controlone_ha.errors import PeerError, RefusedError
from controlone_ha.sync.items import BadPathError
from controlone_ha.sync.replica import TROUBLE, describe
from controlone_ha.sync.versions import (
    Verdict,
    Version,
    compare,
    differing,
    root_of,
    version_from_json,
)

if TYPE_CHECKING:
    from controlone_ha.sync.session import Session

Json = dict[str, Any]

LIST_FILES: Final = 1000
LIST_BUCKETS: Final = 16
ROUNDS: Final = 6
REQUEST_TIMEOUT: Final = 60.0


class Comparison:
    """Compares with the peer of one session, one item at a time."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._comparing = asyncio.Lock()

    async def compared(self, params: Json) -> Json:
        """Answer a comparison: equal, or the digests of the buckets."""
        item = self.session.item_named(params)
        await self.session.opened()
        if self.session.hold:
            raise RefusedError(self.session.hold)
        buckets = await self.session.engine.work(self.session.engine.replica.journal.buckets, item)
        if params.get("root") == root_of(buckets):
            self.session.mark_equal(item)
            return {"equal": True}
        return {"equal": False, "buckets": base64.b64encode(buckets).decode()}

    async def listed(self, params: Json) -> Json:
        """List the versions of some buckets, a page at a time."""
        item, buckets = self.session.item_named(params), params.get("buckets")
        after = params.get("after")
        if not isinstance(buckets, list) or len(buckets) > LIST_BUCKETS or not buckets:
            raise RefusedError(f"a list of 1 to {LIST_BUCKETS} buckets is expected")
        numbers = [int(number) for number in buckets]
        found = await self.session.engine.work(
            self.session.engine.replica.journal.in_buckets,
            item,
            numbers,
            str(after or ""),
            LIST_FILES,
        )
        entries = [version.to_json() for version in found]
        for entry in entries:
            entry.pop("detail", None)
        return {"files": entries, "more": len(found) == LIST_FILES}

    async def compare(self, item: str) -> None:
        """Make both sides equal as far as they can be; raise when that fails."""
        async with self._comparing:
            if self.session.hold:
                raise RefusedError(self.session.hold)
            for _round in range(ROUNDS):
                buckets = await self.session.engine.work(
                    self.session.engine.replica.journal.buckets, item
                )
                answer = await self.ask("sync.compare", item, root=root_of(buckets))
                if answer.get("equal"):
                    self.session.mark_equal(item)
                    return
                theirs = base64.b64decode(str(answer.get("buckets")))
                acted = await self._level(item, differing(buckets, theirs))
                await self.session.settled(item)
                if not acted:
                    break
            if not self.session.refusals(item):  # what differs is what was deleted on one side
                self.session.mark_equal(item)
                self.session.link.notify("sync.level", {"item": item})

    async def _level(self, item: str, numbers: list[int]) -> int:
        acted = 0
        for start in range(0, len(numbers), LIST_BUCKETS):
            chosen = numbers[start : start + LIST_BUCKETS]
            theirs: dict[str, Version] = {}
            after, more = "", True
            while more:
                entries, more = await self.list_page(item, chosen, after)
                for entry in entries:
                    after = str(entry.get("path")) if isinstance(entry, dict) else ""
                    try:
                        version = version_from_json(entry, item)
                        theirs[version.path] = version
                    except BadPathError as error:
                        self.session.refuse(item, after, f"{self.session.peer}: {error}")
            wanted, offered, adopted = await self.session.engine.work(
                self._plan, item, chosen, theirs
            )
            if adopted:
                self.session.engine.pass_on(item, adopted, self.session.peer, ())
            for version in wanted:
                self.session.want(version)
            if offered:
                self.session.offer(offered, item, direct=False)
            acted += len(wanted) + len(offered) + len(adopted)
        return acted

    async def list_page(self, item: str, buckets: list[int], after: str) -> tuple[list[Any], bool]:
        """Return (a page of the peer's versions in some buckets, are there more)."""
        page = await self.ask("sync.list", item, buckets=buckets, after=after)
        entries = page.get("files")
        if not isinstance(entries, list):
            raise PeerError(f"{self.session.peer} answers sync.list with nonsense")
        return entries, bool(page.get("more")) and bool(entries)

    def _plan(
        self, item: str, numbers: list[int], theirs: dict[str, Version]
    ) -> tuple[list[Version], list[str], list[str]]:
        """Return (versions to fetch, paths to offer, paths adopted). In the worker."""
        replica = self.session.engine.replica
        wanted: list[Version] = []
        offered: list[str] = []
        adopted: list[str] = []
        after, mine = "", set()
        own = self.session.engine.items[item]
        while page := replica.journal.in_buckets(item, numbers, after, LIST_FILES):
            after = page[-1].path
            for version in page:
                mine.add(version.path)
                if version.path not in theirs and version.present and own.sends:
                    self.session.forget(version.path)
                    offered.append(version.path)
        for path, version in theirs.items():
            try:
                verdict = replica.judge(version) if own.receives else Verdict.NOTHING
            except (BadPathError, *TROUBLE) as error:
                self.session.refuse(item, path, describe(path, error))
                continue
            if verdict is Verdict.WANT:
                wanted.append(version)
            elif verdict is Verdict.ADOPT:
                adopted.append(path)
            elif own.sends and (
                verdict is Verdict.OFFER
                or (
                    not own.receives
                    and compare(replica.journal.get(path), version) is Verdict.OFFER
                )
            ):
                self.session.forget(path)
                offered.append(path)
        return wanted, offered, adopted

    async def ask(self, method: str, item: str, **params: Any) -> Json:
        """Ask the peer about an item; raise ``PeerError`` or ``TimeoutError``."""
        answer = await self.session.link.request(
            method, {"item": item, **params}, timeout=REQUEST_TIMEOUT
        )
        if not isinstance(answer, dict):
            raise PeerError(f"{self.session.peer} answers {method} with nonsense")
        return answer
