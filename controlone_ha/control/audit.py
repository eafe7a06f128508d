"""The chains of this node's history and of the copies it keeps of its peers': read and verified.

Blocking. ``Copies`` takes lines of peers only where they continue what is there. The daemon moves
them (``daemon.auditing``); `ha audit` verifies them also while the daemon is down.
"""

from __future__ import annotations

import os

from controlone_ha.control.history import (
    AUDIT,
    FILES,
    append_lines,
    copies,
    last_link,
    lines_backwards,
    lines_forwards,
    rotate,
)
from controlone_ha.core.audit import Link, continues, hash_of, link_of, verify

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Row = dict[str, Any]

COPY_FILES = 3
COPY_BYTES = 2 << 20
MOST_LINES = 500
MOST_BYTES = 256 << 10
OLD_CHAINS = 2


class BrokenChainError(ValueError):
    """Lines do not continue the chain that is there."""


class Copies:
    """Copies of the peers' histories in ``state_dir/audit``."""

    def __init__(self, state_dir: str | os.PathLike[str]) -> None:
        self._state_dir = os.fspath(state_dir)
        self._directory = os.path.join(self._state_dir, AUDIT)
        self._links: dict[str, Link] = {}

    def path(self, node: str) -> str:
        """Return the file of one node; its name is one that ``is_node_name`` accepts."""
        return os.path.join(self._directory, f"{node}.jsonl")

    def nodes(self) -> list[str]:
        """Return the nodes of which there is a copy."""
        names = [os.path.basename(path) for path in copies(self._state_dir)]
        return [name.removesuffix(".jsonl") for name in names if "@" not in name]

    def link(self, node: str) -> Link:
        """Return where the copy stands; ``Link()`` without one."""
        if node not in self._links:
            path = self.path(node)
            found = last_link(path, COPY_FILES) if os.path.exists(path) else Link()
            self._links[node] = found if found.n else Link()
        return self._links[node]

    def add(self, node: str, chain: str, lines: Sequence[str]) -> Link:
        """Append lines that came from a peer; return where the copy then stands.

        Raises ``BrokenChainError`` (nothing, or what came before, was taken) and ``OSError``.
        """
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        before = link = self.link(node)
        if link.chain != chain:
            link = Link()
        data = []
        for text in lines:
            line = text.encode()
            found = link_of(line)
            if b"\n" in line or found is None or found[2] != chain:
                raise BrokenChainError(f"a line of {node} without number or of another chain")
            if link.n and not continues(line, link):
                raise BrokenChainError(
                    f"line {found[0]} of {node} does not follow line {link.n} of its copy here"
                )
            link = Link(chain=chain, n=found[0], hash=hash_of(line))
            data.append(line + b"\n")
        content = b"".join(data)
        path = self.path(node)
        if before.n and before.chain != chain:
            self._put_aside(node, before.chain)
        if os.path.exists(path) and os.stat(path).st_size + len(content) > COPY_BYTES:
            rotate(path, COPY_FILES)
        append_lines(path, content)
        self._links[node] = link
        return link

    def _put_aside(self, node: str, chain: str) -> None:
        """The node has begun another chain: the old one stays, for whoever wants to know."""
        path = self.path(node)
        kept = [name for name in copies(self._state_dir) if f"/{node}@" in name]
        for name in kept[: max(0, len(kept) - OLD_CHAINS + 1)]:
            os.unlink(name)
        os.replace(path, os.path.join(self._directory, f"{node}@{chain}.jsonl"))
        for number in range(1, COPY_FILES):
            if os.path.exists(f"{path}.{number}"):
                os.unlink(f"{path}.{number}")
        self._links.pop(node, None)


def lines_after(path: str, chain: str, after: int, files: int = FILES) -> list[str]:
    """Return the lines of a chain that follow number ``after``, as many as go into one answer."""
    found: list[str] = []
    for line in lines_backwards(path, files):
        link = link_of(line)
        if link is None:
            continue
        if link[0] <= after or link[2] != chain:
            break
        found.append(line.decode("utf-8", "replace"))
    found.reverse()
    size = 0
    for number, text in enumerate(found):
        size += len(text.encode())
        if number >= MOST_LINES or size > MOST_BYTES:
            return found[: max(1, number)]
    return found


def hash_at(path: str, chain: str, number: int, files: int = FILES) -> str | None:
    """Return the hash of one line, None when it is not kept."""
    for line in lines_backwards(path, files):
        link = link_of(line)
        if link is not None and link[2] == chain and link[0] <= number:
            return hash_of(line) if link[0] == number else None
    return None


def verify_all(history_file: str | os.PathLike[str], node: str) -> list[Row]:
    """Return a row for the own history and for each copy: what is there, and what is wrong."""
    path = os.fspath(history_file)
    state_dir = os.path.dirname(path)
    files = [(node, "own", path, FILES)]
    for name in copies(state_dir):
        owner = os.path.basename(name).removesuffix(".jsonl")
        files.append((owner, "copy", name, COPY_FILES))
    rows = []
    for owner, what, file, count in files:
        report = verify(lines_forwards(file, count))
        rows.append(
            {
                "node": owner,
                "what": what,
                "chain": report.chain,
                "first": report.first,
                "last": report.last,
                "lines": report.lines,
                "problems": report.problems,
            }
        )
    return rows
