"""The chain of the audit: each line carries its number and the hash of the line before. Pure.

A line is one JSON object that ends in ``"chain": ID, "n": NUMBER, "prev": HASH``, HASH being the
SHA-256 (hexadecimal) of the line before, byte for byte, without its newline; ``prev`` of the first
line is empty. So a line that was removed, changed, added or moved shows,
unless everything after it was written anew; and that shows too, because other nodes keep copies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

MAX_PROBLEMS = 50


@dataclass(frozen=True, kw_only=True)
class Link:
    """Where a chain stands: its id, the number and the hash of its last line."""

    chain: str = ""
    n: int = 0
    hash: str = ""

    def as_json(self) -> list[Any]:
        """Return it as it goes over a link."""
        return [self.chain, self.n, self.hash]


@dataclass(kw_only=True)
class ChainReport:
    """What verification found. ``first`` and ``last``: numbers of the lines that are there."""

    chain: str = ""
    first: int = 0
    last: int = 0
    lines: int = 0
    hash: str = ""
    problems: list[str] = field(default_factory=list)

    def problem(self, text: str) -> None:
        """Note a problem, up to a limit."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(text)


def hash_of(line: bytes) -> str:
    """Return the hash of a line, its newline left out."""
    return hashlib.sha256(line.rstrip(b"\n")).hexdigest()


def chained(entry: dict[str, Any], before: Link) -> tuple[bytes, Link]:
    """Return the line of ``entry`` with its newline, and where the chain then stands."""
    fields = {key: value for key, value in entry.items() if key not in ("n", "prev", "chain")}
    fields |= {"chain": before.chain, "n": before.n + 1, "prev": before.hash}
    line = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    return line + b"\n", Link(chain=before.chain, n=before.n + 1, hash=hash_of(line))


def link_of(line: bytes) -> tuple[int, str, str] | None:
    """Return number, hash of the line before, and chain of a line; None: not chained."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    number, before, chain = fields.get("n"), fields.get("prev"), fields.get("chain")
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        return None
    if not isinstance(before, str) or not isinstance(chain, str):
        return None
    return number, before, chain


def continues(line: bytes, after: Link) -> bool:
    """Tell whether ``line`` is the one that follows."""
    found = link_of(line)
    return found is not None and found == (after.n + 1, after.hash, after.chain)


def verify(lines: Iterable[bytes]) -> ChainReport:
    """Return what is wrong with the lines of one chain, oldest first.

    Lines without a number before the first one that has one are of a time without chain. A line
    that is no JSON is one torn by a power cut, if the chain goes on without it.
    """
    report = ChainReport()
    torn = 0
    for line in lines:
        if not line.strip():
            continue
        found = link_of(line)
        if found is None:
            if _is_json(line) and report.lines:
                report.problem(f"after line {report.last} stands one without a number: added")
            torn += report.lines > 0
            continue
        number, before, chain = found
        if not report.lines:
            report.first = number
            report.chain = chain
        elif chain != report.chain:
            report.problem(f"after line {report.last} another chain begins: the file was replaced")
            report.first, report.chain = number, chain
        elif number <= report.last:
            report.problem(f"line {number} stands after line {report.last}: added or moved")
        elif number > report.last + 1:
            gone = _range(report.last + 1, number - 1)
            report.problem(f"{gone} missing, between line {report.last} and line {number}")
        elif before != report.hash:
            report.problem(f"line {report.last} is not what it was: line {number} says otherwise")
        report.last, report.hash = number, hash_of(line)
        report.lines += 1
    return report


def _range(first: int, last: int) -> str:
    return f"line {first} is" if first == last else f"lines {first} to {last} are"


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
