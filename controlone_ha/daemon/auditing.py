"""The audit: every node keeps a copy of every other's history, and notices what does not fit.

Theory of operation. Linked nodes tell each other where the chains stand that they hold, their own
and the copies (``audit.head``), when a link opens and when one advances; who has less asks for the
lines that follow (``audit.lines``). The lines of a node are taken from the node itself while it is
linked, from others only while it is not: so what a node wrote before it died reaches those that it
was not linked with. A chain is only ever continued. What contradicts a copy is not taken; it is a
problem, shown by `ha audit` and `ha check`, because somebody has changed the one or the other.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from controlone_ha.control.audit import (
    COPY_FILES,
    BrokenChainError,
    Copies,
    hash_at,
    lines_after,
    verify_all,
)
from controlone_ha.control.history import FILES, History
from controlone_ha.core.audit import Link as Chain
from controlone_ha.daemon.findings import Finding, finding
from controlone_ha.errors import ControlOneError, RefusedError
from controlone_ha.peers.pins import is_node_name

if TYPE_CHECKING:
    from controlone_ha.daemon.view import DaemonView
    from controlone_ha.peers.link import Link

log = logging.getLogger("audit")

Json = dict[str, Any]

HEADS = "audit.head"
LINES = "audit.lines"
MAX_HEADS = 512
TIMEOUT = 20.0
MAX_PROBLEMS = 100
OWN_DELAY = 0.1
"""Seconds until peers are told of lines of this node: what is written about goes first."""
RELAY_DELAY = 1.0
"""The same for lines of others, which those have told themselves: together, in one message. Told
one by one they would be as many as nodes to the power of three.
"""


class Auditing:
    """See the module's text. ``problems``: what contradicts, one sentence each."""

    def __init__(self, daemon: DaemonView, history: History) -> None:
        self._daemon = daemon
        self._history = history
        self._loop = asyncio.get_running_loop()
        self._copies = Copies(daemon.paths.state_dir)
        self._heads: dict[str, Chain] = {}
        self._untold: dict[str, str] = {}
        """Node whose chain has advanced -> the peer that gave the last lines, "" for our own."""
        self._telling: dict[bool, asyncio.TimerHandle] = {}
        self._pulling: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.problems: dict[str, str] = {}
        self.held_by: dict[str, int] = {}
        """Up to which line of ours each peer has said to hold."""

    async def start(self) -> None:
        """Find out where every chain stands."""

        def read() -> dict[str, Chain]:
            heads = {node: self._copies.link(node) for node in self._copies.nodes()}
            return {**heads, self._own: self._history.link()}

        self._heads = await asyncio.to_thread(read)
        self._history.on_written = self._written

    def stop(self) -> None:
        """Pull nothing more, and say what has not been said."""
        self._history.on_written = lambda _link: None
        for timer in list(self._telling.values()):
            timer.cancel()
        self._tell(True)
        for task in self._tasks:
            task.cancel()

    @property
    def _own(self) -> str:
        return self._daemon.settings.name

    def _written(self, link: Chain) -> None:
        """In the thread that writes."""
        self._loop.call_soon_threadsafe(self._advanced, self._own, link, "")

    def _advanced(self, node: str, head: Chain, source: str) -> None:
        self._heads[node] = head
        self._untold[node] = source
        is_own = node == self._own
        if is_own not in self._telling:
            delay = OWN_DELAY if is_own else RELAY_DELAY
            self._telling[is_own] = self._loop.call_later(delay, self._tell, is_own)

    def _tell(self, is_own: bool) -> None:
        self._telling.pop(is_own, None)
        nodes = [node for node in self._untold if (node == self._own) is is_own]
        sources = {node: self._untold.pop(node) for node in nodes}
        for link in self._daemon.links.links():
            rows = [
                [node, *self._heads[node].as_json()]
                for node, source in sources.items()
                if link.peer not in (source, node)
            ]
            if rows:
                link.notify(HEADS, {"heads": rows[:MAX_HEADS]})

    def link_up(self, link: Link) -> None:
        """Say where everything stands."""
        rows = [[node, *head.as_json()] for node, head in self._heads.items() if head.n]
        link.notify(HEADS, {"heads": rows[:MAX_HEADS]})

    def notify(self, peer: str, method: str, params: Json) -> None:
        """A peer says where chains stand."""
        heads = params.get("heads")
        if method != HEADS or not isinstance(heads, list) or len(heads) > MAX_HEADS:
            return
        for row in heads:
            if _is_head(row):
                self._spawn(self._told(peer, row[0], Chain(chain=row[1], n=row[2], hash=row[3])))

    async def request(self, method: str, params: Json) -> object:
        """A peer asks for lines."""
        node, chain, after = params.get("node"), params.get("chain"), params.get("after")
        if (
            method != LINES
            or not isinstance(node, str)
            or not is_node_name(node)
            or not isinstance(chain, str)
            or not isinstance(after, int)
        ):
            raise RefusedError(f"{method}: not known here, or with wrong parameters")
        path, files = self._file(node)
        return {"lines": await asyncio.to_thread(lines_after, path, chain, after, files)}

    def _file(self, node: str) -> tuple[str, int]:
        if node == self._own:
            return str(self._daemon.paths.history_file), FILES
        return self._copies.path(node), COPY_FILES

    async def _told(self, peer: str, node: str, head: Chain) -> None:
        mine = self._heads.get(node, Chain())
        if node == self._own:
            await self._compare_own(peer, head)
            return
        if peer != node and self._daemon.links.link(node) is not None:
            return  # it speaks for itself
        if mine.n and head.chain != mine.chain and peer != node:
            return
        if head.chain == mine.chain and head.n <= mine.n:
            path, files = self._file(node)
            known = await asyncio.to_thread(hash_at, path, head.chain, head.n, files)
            if known is not None and known != head.hash:
                self._problem(node, f"line {head.n} of {node} is not what {peer} has as that line")
            elif peer == node and head.n < mine.n:
                self._problem(
                    node,
                    f"{node} has lost lines {head.n + 1} to {mine.n} of its history; they are "
                    "kept here",
                )
            return
        if node not in self._pulling:
            self._pulling.add(node)
            try:
                await self._pull(peer, node, head)
            finally:
                self._pulling.discard(node)

    async def _compare_own(self, peer: str, head: Chain) -> None:
        """A peer says up to where it has our history."""
        mine = self._history.link()
        if head.chain != mine.chain:
            if head.n:
                self._problem(
                    self._own,
                    f"{peer} keeps another history of this node ({head.n} lines): this one was "
                    "begun anew",
                )
            return
        self.held_by[peer] = head.n
        if head.n > mine.n:
            text = f"lines {mine.n + 1} to {head.n} of this node are missing here; {peer} has them"
            self._problem(self._own, text)
            return
        path, files = self._file(self._own)
        known = await asyncio.to_thread(hash_at, path, head.chain, head.n, files)
        if known is not None and known != head.hash:
            text = f"line {head.n} of this node is not what {peer} was told when it was written"
            self._problem(self._own, text)

    async def _pull(self, peer: str, node: str, head: Chain) -> None:
        while True:
            mine = self._heads.get(node, Chain())
            after = mine.n if mine.chain == head.chain else 0
            link = self._daemon.links.link(peer)
            if link is None or (mine.chain == head.chain and mine.n >= head.n):
                return
            params = {"node": node, "chain": head.chain, "after": after}
            try:
                answer = await link.request(LINES, params, timeout=TIMEOUT)
                lines = answer.get("lines") if isinstance(answer, dict) else None
                if not isinstance(lines, list) or not lines:
                    return
                if not all(isinstance(line, str) for line in lines):
                    return
                if mine.n and mine.chain != head.chain:
                    self._problem(node, f"{node} has begun its history anew after line {mine.n}")
                taken = await asyncio.to_thread(self._copies.add, node, head.chain, lines)
            except BrokenChainError as error:
                self._problem(node, f"{error}; {peer} sent it")
                return
            except (ControlOneError, TimeoutError, OSError) as error:
                log.info("history of %s from %s: %s", node, peer, error)
                return
            self._advanced(node, taken, peer)

    def _problem(self, node: str, text: str) -> None:
        if text in self.problems or len(self.problems) >= MAX_PROBLEMS:
            return
        self.problems[text] = node
        log.warning("%s", text)
        self._daemon.record({"kind": "audit", "peer": node, "detail": text})

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task of the audit ended", exc_info=task.exception())

    # -- what is told -------------------------------------------------------------------------

    async def overview(self) -> Json:
        """Verify everything that is kept here; return it with what contradicts."""
        path = self._daemon.paths.history_file
        rows = await asyncio.to_thread(verify_all, path, self._own)
        return {
            "node": self._own,
            "chains": rows,
            "problems": list(self.problems),
            "held_by": dict(sorted(self.held_by.items())),
        }

    def findings(self) -> list[Finding]:
        """Return what contradicts, for status and `ha check`."""
        return [finding("error", "audit", "audit", text=text) for text in self.problems]


def _is_head(row: Any) -> bool:
    return (
        isinstance(row, list)
        and len(row) == 4
        and isinstance(row[0], str)
        and is_node_name(row[0])
        and isinstance(row[1], str)
        and 0 < len(row[1]) <= 64
        and isinstance(row[2], int)
        and not isinstance(row[2], bool)
        and 0 < row[2] < 1 << 53
        and isinstance(row[3], str)
        and len(row[3]) == 64
    )
