"""Synchronisation with one peer over one link: offers out, wanted files in, full comparison.

Theory of operation. What changed here waits in ``_outbox`` and is offered in batches, one request
under way at a time; a fresh edit takes its bytes along when they are few. The peer answers for each
file: it has it, it wants it, its own is later, or it cannot take it and why. What it wants it
fetches, and says when it is done; until then the file is unconfirmed. In the other direction the
same. A file that came from a third node is offered without its bytes, and later to peers that its
sender has told itself, so that each change crosses each link once.

The requests, all with ``item``: ``sync.offer {files, to}`` and ``sync.fetch {files}`` (an answer
with a body), and the notification ``sync.done {files}``; comparing is in ``comparison``. A version
is as ``versions.Version.to_json`` has it.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from controlone_ha.errors import PeerError, RefusedError
from controlone_ha.peers.model import Outgoing, RemoteError
from controlone_ha.sync import files
from controlone_ha.sync.comparison import Comparison
from controlone_ha.sync.fetches import STALLED, wait_for_event
from controlone_ha.sync.incoming import Arrival, fetch_batch
from controlone_ha.sync.items import BadPathError
from controlone_ha.sync.outgoing import open_files, stream
from controlone_ha.sync.replica import SMALL, TROUBLE, describe
from controlone_ha.sync.versions import (
    Accepted,
    Verdict,
    Version,
    version_from_json,
)

if TYPE_CHECKING:
    from controlone_ha.peers.link import Link
    from controlone_ha.sync.engine import Engine

Json = dict[str, Any]

log = logging.getLogger("sync")

OFFER_FILES: Final = 200
OFFER_BYTES: Final = 256 << 10
LIST_FILES: Final = 1000
LIST_BUCKETS: Final = 16
PASS_ON: Final = 0.03
"""Seconds until what came from one peer is offered to another that its sender cannot reach."""
PASS_ON_LATER: Final = 1.0
"""The same, to a peer whom the sender has told itself."""
ROUNDS: Final = 6
REQUEST_TIMEOUT: Final = 60.0
SKEW_PATIENCE: Final = 1.0
MAX_KNOWN: Final = 2000


class NoItemError(RefusedError):
    """A peer speaks of an item that this node does not synchronise."""

    code = "no_item"


class Session:
    """See the module's text. Ends with its link."""

    def __init__(self, engine: Engine, link: Link) -> None:
        self.engine = engine
        self.link = link
        self.peer = link.peer
        self.hold = "the clocks have not been compared yet"
        self.unconfirmed: dict[str, str] = {}
        self.refused: dict[str, tuple[str, str]] = {}
        """Path -> (item, why): what could not be taken, there or here."""
        self.equal: set[str] = set()
        self.foreign: set[str] = set()
        """Items that the peer does not synchronise."""
        self.files_done = self.bytes_done = self.files_wanted = self.bytes_wanted = 0
        self._outbox: dict[str, tuple[str, bool, float, tuple[str, ...]]] = {}
        self._wants: dict[str, Version] = {}
        self._changed: list[tuple[str, str]] = []
        self._adopted: list[tuple[str, str]] = []
        """(item, path) of what was fetched and has not been told."""
        self._has_stopped = False
        self._asked: set[str] = set()
        """Files of the offer under way."""
        self._known: dict[str, tuple[str, str, int]] = {}
        self._offering: set[str] = set()
        self._fetching: set[str] = set()
        self._opened = asyncio.Event()
        self._has_out = asyncio.Event()
        self._has_wants = asyncio.Event()
        self._moved = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.comparison = Comparison(self)

    # -- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin; whoever dialed the link compares everything once."""
        for work in (self._open(), self._send_loop(), self._fetch_loop()):
            self._tasks.append(self.engine.spawn(work))

    def stop(self) -> None:
        """End: the link is gone. What had arrived of large files stays for the next link."""
        for task in self._tasks:
            task.cancel()
        self._has_stopped = True
        self._tell_arrived()

    async def _open(self) -> None:
        begun = time.monotonic()
        while self.link.skew_ms is None and time.monotonic() - begun < SKEW_PATIENCE:
            await asyncio.sleep(0.01)
        self.judge_clock()
        self._opened.set()
        if self.link.direction == "dialed" and not self.hold:
            await self.compare_all()

    def judge_clock(self) -> None:
        """Hold everything while the clocks differ by more than is safe."""
        skew = self.link.skew_ms
        limit = self.engine.allowed_skew
        before = self.hold
        if skew is not None and abs(skew) > limit * 1000:
            word = "ahead of" if skew > 0 else "behind"
            self.hold = (
                f"the clock of {self.peer} is {abs(skew) / 1000:.1f} s {word} this node's;"
                f" more than {limit:g} s are not safe"
            )
        else:
            self.hold = ""
        if bool(self.hold) != bool(before):
            if self.hold:
                log.warning("%s: held: %s", self.peer, self.hold)
            self._has_out.set()
            self._has_wants.set()
            self.engine.stands_changed(self.peer)

    async def compare_all(self) -> None:
        """Compare every item with the peer."""
        for name in list(self.engine.items):
            await self.engine.compare(self, name)

    # -- state --------------------------------------------------------------------------------

    def waiting(self, item: str, *, passed_on: bool = False) -> int:
        """Return how many files of ``item`` are under way in any direction; ``passed_on``: those
        too that are only mentioned to a peer that most likely has them.
        """
        return (
            sum(entry[0] == item and (entry[1] or passed_on) for entry in self._outbox.values())
            + sum(version.item == item for version in self._wants.values())
            + sum(name == item for name in self.unconfirmed.values())
        )

    def refusals(self, item: str) -> list[str]:
        """Return why files of ``item`` could not be taken."""
        return [why for name, why in list(self.refused.values()) if name == item]

    def _progress(self, item: str) -> None:
        self._moved.set()
        self.engine.stands_changed(self.peer)

    async def settled(self, item: str) -> None:
        """Return when nothing of ``item`` is under way; raise ``TimeoutError`` when it is stuck."""
        while self.waiting(item, passed_on=True):
            self._moved.clear()
            await asyncio.wait_for(self._moved.wait(), REQUEST_TIMEOUT)

    # -- out ----------------------------------------------------------------------------------

    def offer(
        self, version_paths: Iterable[str], item: str, *, direct: bool, told: Iterable[str] = ()
    ) -> None:
        """Have some files offered. ``direct``: at once and with their bytes, an edit of this node;
        else passed on, later to a peer that is among the ``told``.
        """
        delay = 0.0 if direct else PASS_ON_LATER if self.peer in told else PASS_ON
        due = time.monotonic() + delay
        to = self.engine.linked() if direct else ()
        if item in self.foreign:
            return
        for path in version_paths:
            self._outbox[path] = (item, direct, due, to)
        self._has_out.set()
        if direct:
            self._progress(item)

    def offer_again(self, paths: Iterable[str], item: str) -> None:
        """Have versions told back to the peer they came from: here more is known of them."""
        for path in paths:
            self.forget(path)
        self.offer(paths, item, direct=False)

    async def _send_loop(self) -> None:
        while True:
            now = time.monotonic()
            due = [path for path, entry in self._outbox.items() if entry[2] <= now]
            if due and not self.hold:
                try:
                    await self._send(due)
                except RemoteError as error:
                    await self._sent_in_vain(self._outbox[due[0]][0], error)
                except TimeoutError as error:
                    await self._sent_in_vain("", error)
                continue
            self._has_out.clear()
            wait = None
            if self._outbox and not self.hold:
                wait = max(min(entry[2] for entry in self._outbox.values()) - now, 0.0)
            await wait_for_event(self._has_out, wait)

    async def _sent_in_vain(self, item: str, error: Exception) -> None:
        """The peer does not take the item at all, or cannot answer now."""
        if isinstance(error, RemoteError) and error.code == NoItemError.code:
            self.foreign.add(item)
            for path in [path for path, entry in self._outbox.items() if entry[0] == item]:
                del self._outbox[path]
            self._progress(item)
            return
        log.warning("%s: an offer was not answered: %s", self.peer, error or "no answer in time")
        await asyncio.sleep(1.0)

    async def _send(self, due: list[str]) -> None:
        item = self._outbox[due[0]][0]
        chosen = [path for path in due if self._outbox[path][0] == item][:OFFER_FILES]
        taken = {path: self._outbox[path] for path in chosen}
        sent, entries = await self.engine.work(self._load, item, taken)
        answers: list[Any] = []
        self._asked = {entry["path"] for entry in entries}
        if entries:
            answer = await self.link.request(
                "sync.offer",
                {"item": item, "files": entries, "to": list(taken[chosen[0]][3])},
                timeout=REQUEST_TIMEOUT,
            )
            answers = answer.get("results", []) if isinstance(answer, dict) else []
            if len(answers) != len(entries):
                raise PeerError(f"{self.peer} answers an offer of {len(entries)} files otherwise")
        for entry, result in zip(entries, answers, strict=True):
            self._answered(item, entry, str(result[0]), str(result[1]))
        for path in sent:  # what changed meanwhile stays and is offered again
            if self._outbox.get(path) is taken[path]:
                del self._outbox[path]
        self._progress(item)

    def _load(
        self, item: str, taken: dict[str, tuple[str, bool, float, tuple[str, ...]]]
    ) -> tuple[list[str], list[Json]]:
        """Return (paths dealt with, entries to send). In the worker."""
        replica = self.engine.replica
        sent: list[str] = []
        entries: list[Json] = []
        total = 0
        for path, (_item, direct, _due, _to) in taken.items():
            version = replica.journal.get(path)
            if version is None or version.item != item or self._knows(version):
                sent.append(path)
                continue
            entry = version.to_json()
            weight = 400 + len(version.detail)
            if direct and version.present and version.size <= SMALL:
                try:
                    entry["content"] = replica.packed(version)
                    weight += len(entry["content"])
                except TROUBLE:
                    pass  # it has changed again: the next look at it offers the newer one
            if entries and total + weight > OFFER_BYTES:
                break
            total += weight
            sent.append(path)
            entries.append(entry)
        return sent, entries

    def forget(self, path: str) -> None:
        """Offer the file again even if the peer is thought to have it."""
        self._known.pop(path, None)

    def _knows(self, version: Version) -> bool:
        return self._known.get(version.path) == version.identity

    def heard_of(self, version: Version) -> None:
        """Note what the peer is known to have."""
        self._known.pop(version.path, None)
        self._known[version.path] = version.identity
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]

    def _answered(self, item: str, entry: Json, code: str, text: str) -> None:
        path = entry["path"]
        self.unconfirmed.pop(path, None)
        if code != "held":
            self.refused.pop(path, None)
        if code == "want":
            if path in self._asked:
                self.unconfirmed[path] = item
            self.files_wanted += 1
            self.bytes_wanted += int(entry["size"])
        elif code == "held":
            self.refuse(item, path, f"{self.peer}: {text}")
        elif "content" in entry:
            self.count(int(entry["size"]))

    def count(self, size: int) -> None:
        """Note a file that moved along with the news of it."""
        self.files_done += 1
        self.files_wanted += 1
        self.bytes_done += size
        self.bytes_wanted += size

    def refuse(self, item: str, path: str, why: str) -> None:
        """Note that a file could not be taken, here or there."""
        if self.refused.get(path) != (item, why):
            log.error("%s", why)
        self.refused[path] = (item, why)
        self.equal.discard(item)

    def done(self, params: Json) -> None:
        """The peer has dealt with files it had wanted."""
        item = str(params.get("item"))
        for entry in params.get("files") or ():
            path, code, text = (str(field) for field in entry)
            if self.unconfirmed.pop(path, None) is None:
                if path not in self._asked:
                    continue
                self._asked.discard(path)  # dealt with before the offer was answered
            if code == "held":
                self.refuse(item, path, f"{self.peer}: {text}")
            else:
                self.files_done += 1
        self._progress(item)

    # -- in -----------------------------------------------------------------------------------

    async def opened(self) -> None:
        """Return when the clocks have been compared."""
        await self._opened.wait()

    async def offered(self, params: Json) -> Json:
        """Answer an offer: take what came with its bytes, want what is missing."""
        item = self.item_named(params)
        entries = params.get("files")
        if not isinstance(entries, list) or len(entries) > 10 * OFFER_FILES:
            raise RefusedError("an offer without files, or of too many")
        await self.opened()
        if self.hold:
            return {"results": [["held", self.hold]] * len(entries)}
        return await self.engine.finish(self._take_offer(item, entries, params))

    async def _take_offer(self, item: str, entries: list[Any], params: Json) -> Json:
        taken = await self.engine.work(self._take, item, entries)
        results, changed, adopted, wanted, later = taken
        for version in wanted:
            self.want(version)
        told = [str(name) for name in params.get("to") or ()][:64]
        if later:
            self.offer_again(later, item)
            told = []
        if changed:
            self.engine.arrived(item, changed, self.peer, told)
        if adopted:
            self.engine.pass_on(item, adopted, self.peer, told)
        if any(result[0] == "held" for result in results):
            self.engine.stands_changed(self.peer)
        return {"results": results}

    def _take(
        self, item: str, entries: list[Any]
    ) -> tuple[list[tuple[str, str]], list[str], list[str], list[Version], list[str]]:
        """Return (answers, paths that changed, paths of which only the stamp is new, versions to
        fetch, paths of which ours is later). In the worker.
        """
        replica = self.engine.replica
        results: list[tuple[str, str]] = []
        changed: list[str] = []
        adopted: list[str] = []
        wanted: list[Version] = []
        later: list[str] = []
        for entry in entries:
            path = "?"
            try:
                version = version_from_json(entry, item)
                path = version.path
                self.heard_of(version)
                if "content" in entry:
                    content = base64.b64decode(entry["content"], validate=True)
                    accepted = replica.accept(version, content)
                    verdict = accepted.verdict
                    if accepted.adopted:
                        adopted.append(path)
                    if accepted.changed:
                        changed.append(path)
                    if (accepted.changed or accepted.adopted) and accepted.is_other_than(version):
                        later.append(path)
                        self.count(len(content))
                        verdict = Verdict.SAME
                    self.refused.pop(path, None)
                else:
                    verdict = replica.judge(version)
            except (BadPathError, *TROUBLE) as error:
                sentence = describe(path, error)
                self.refuse(item, path, sentence)
                results.append(("held", sentence))
                continue
            if verdict is Verdict.WANT:
                wanted.append(version)
                results.append(("want", ""))
            elif verdict is Verdict.OFFER:
                later.append(path)
                results.append(("later", ""))
            else:
                results.append(("have", ""))
                if verdict is Verdict.ADOPT:
                    adopted.append(path)
        return results, changed, adopted, wanted, later

    def want(self, version: Version) -> None:
        """Have a file fetched from the peer."""
        if version.path not in self._wants:
            self.files_wanted += 1
            self.bytes_wanted += version.size
        self._wants[version.path] = version
        self._has_wants.set()
        self.engine.stands_changed(self.peer)

    async def _fetch_loop(self) -> None:
        fetches = self.engine.fetches
        while True:
            batch = [] if self.hold else self._next_batch()
            if not batch:
                self._has_wants.clear()
                # What comes from another peer is looked at again: that one may have stalled.
                await wait_for_event(self._has_wants, STALLED / 2 if self._wants else None)
                continue
            fetches.begin(self, batch)
            missing = batch
            try:
                here = await self.engine.work(self._have_come, batch)
                missing = [version for version in batch if version.path not in here]
                arrived = await fetch_batch(self, missing) if missing else []
            except (PeerError, TimeoutError) as error:
                if self.link.down is not None:
                    raise
                sentence = f"{self.peer}: {error or 'no answer in time'}"
                arrived = [Arrival(problem=sentence) for _version in missing]
            finally:
                fetches.end(self)
                self.engine.wake_fetching()
            came = dict(zip((version.path for version in missing), arrived, strict=True))
            self._fetched(batch, [came.get(version.path, Arrival()) for version in batch])

    def wake_fetching(self) -> None:
        """Look again at what is wanted."""
        self._has_wants.set()

    def _have_come(self, batch: list[Version]) -> set[str]:
        """Return what another peer has given meanwhile. In the worker."""
        replica = self.engine.replica
        return {
            version.path
            for version in batch
            if version.path not in replica.damaged
            and (known := replica.journal.get(version.path)) is not None
            and known.present
            and known.identity == version.identity
        }

    def _next_batch(self) -> list[Version]:
        """Return small files of one item together, or one large one; none that another peer is
        giving just now.
        """
        chosen: list[Version] = []
        total = 0
        for version in self._wants.values():
            if self.engine.fetches.is_elsewhere(self, version):
                continue
            if self.engine.replica.is_streamed(version):
                if not chosen:
                    return [version]
                continue
            if chosen and version.item != chosen[0].item:
                continue
            if chosen and total + version.size > (1 << 20):
                break
            chosen.append(version)
            total += version.size
            if len(chosen) >= OFFER_FILES // 2:
                break
        return chosen

    def _fetched(self, batch: list[Version], arrived: list[Arrival]) -> None:
        item = batch[0].item
        told = []
        later: list[str] = []
        for version, arrival in zip(batch, arrived, strict=True):
            if self._wants.get(version.path) is version:
                del self._wants[version.path]
            if arrival.problem:
                self.refuse(item, version.path, arrival.problem)
            else:
                self.refused.pop(version.path, None)
                self.files_done += 1
                if arrival.is_later:
                    later.append(version.path)
            told.append([version.path, "held" if arrival.problem else "have", arrival.problem])
        self.link.notify("sync.done", {"item": item, "files": told})
        self._tell_arrived()
        if later:
            self.offer_again(later, item)
        self._progress(item)

    async def accept(self, version: Version, content: bytes | files.Part) -> Accepted:
        """Take a fetched file over and have it told, at the latest when the link has ended."""
        accepted = await self.engine.work(self.engine.replica.accept, version, content)
        if accepted.changed:
            self._changed.append((version.item, version.path))
        elif accepted.adopted:
            self._adopted.append((version.item, version.path))
        if self._has_stopped:
            self._tell_arrived()
        return accepted

    def _tell_arrived(self) -> None:
        """Have what came since the last time passed on and reloaded."""
        changed, self._changed = self._changed, []
        adopted, self._adopted = self._adopted, []
        for item in {name for name, _path in changed}:
            paths = [path for name, path in changed if name == item]
            self.engine.arrived(item, paths, self.peer, ())
        for item in {name for name, _path in adopted}:
            paths = [path for name, path in adopted if name == item]
            self.engine.pass_on(item, paths, self.peer, ())

    # -- giving ---------------------------------------------------------------------------------

    async def fetched(self, params: Json) -> Outgoing:
        """Serve the bytes of some files: sizes in the answer, contents one after the other."""
        item = self.item_named(params)
        wanted = params.get("files")
        if not isinstance(wanted, list) or not 0 < len(wanted) <= OFFER_FILES:
            raise RefusedError("a request without files, or of too many")
        results, parts = await self.engine.work(open_files, self.engine.replica, item, wanted)
        return Outgoing(result=results, chunks=stream(self, parts))

    def sent(self, size: int) -> None:
        """Note bytes of a large file that have gone out."""
        self.bytes_done += size
        self._moved.set()

    # -- equality ------------------------------------------------------------------------------

    def item_named(self, params: Json) -> str:
        """Return the item a request is about; raise ``RefusedError`` when it is none of ours."""
        name = params.get("item")
        if not isinstance(name, str) or name not in self.engine.items:
            raise NoItemError(f"{name!a} is not synchronised on {self.engine.node}")
        self.foreign.discard(name)
        return name

    def level(self, params: Json) -> None:
        """The peer has compared everything and found nothing more to do."""
        item = self.item_named(params)
        if not self.refusals(item):
            self.mark_equal(item)

    def mark_equal(self, item: str) -> None:
        """Both sides have the same of ``item``, as far as that can be."""
        self.equal.add(item)
        for path, (name, _why) in list(self.refused.items()):
            if name == item:
                del self.refused[path]
        self.engine.stands_changed(self.peer, confirmed=item)
