"""Which way an outgoing call takes: routes and gateways, and servers that share the load. Pure.

Theory of operation. The dialplan is a list of routes in the order of the settings. A number takes
every route that matches it, in that order, and in each route its gateways in order: that is the
list of attempts. An attempt that the gateway refuses for a reason of its own (5xx, 403, 408, 603)
or that gets no sign of life is followed by the next; busy (486), an answer, and everything that is
about the number itself end the list. No gateway is asked twice for the same number.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

_CLASSES = {"X": "[0-9]", "Z": "[1-9]", "N": "[2-9]"}
_DIALLED = re.compile(r"[0-9A-Za-z+*#][0-9A-Za-z+*#._\-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Route:
    """One route. It matches by ``pattern``, or by ``prefix`` when that is empty (both empty: all).

    ``strip`` characters are taken from the front of the number, then ``add`` is put there.
    """

    name: str
    gateways: tuple[str, ...]
    prefix: str = ""
    pattern: str = ""
    strip: int = 0
    add: str = ""

    def matches(self, number: str) -> bool:
        """Tell whether this route serves ``number``."""
        if self.pattern:
            return re.fullmatch(pattern_expression(self.pattern), number) is not None
        return number.startswith(self.prefix)

    def number_for(self, number: str) -> str:
        """Return what the gateway is asked for."""
        return self.add + number[self.strip :]


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Ask ``gateway`` for ``number``."""

    route: str
    gateway: str
    number: str


def pattern_expression(pattern: str) -> str:
    """Return the regular expression of a dialplan pattern; raise ``ValueError`` on a bad one.

    X is 0-9, Z 1-9, N 2-9, [15-7] one of these, a final ``.`` one or more characters and a final
    ``!`` any number of them; all else stands for itself.
    """
    found, position = [], 0
    text = pattern.removeprefix("_")
    while position < len(text):
        character = text[position]
        if character == "[":
            end = text.find("]", position)
            inside = text[position + 1 : end] if end > 0 else ""
            if not re.fullmatch(r"([0-9*#](-[0-9])?)+", inside):
                raise ValueError(f"got {pattern!r}, expected digits between [ and ]")
            found.append(f"[{inside}]")
            position = end
        elif character in ".!":
            if position != len(text) - 1:
                raise ValueError(f"got {pattern!r}, expected . and ! at the end only")
            found.append(".+" if character == "." else ".*")
        else:
            found.append(_CLASSES.get(character, re.escape(character)))
        position += 1
    if not found:
        raise ValueError("got an empty pattern")
    return "".join(found)


def is_dialled_number(number: str) -> bool:
    """Tell whether ``number`` may be dialled: it goes into a SIP URI as it is."""
    return _DIALLED.fullmatch(number) is not None


def attempts(
    number: str, routes: Sequence[Route], gateways: Collection[str]
) -> tuple[Attempt, ...]:
    """Return what to try, in order; empty when no route serves the number.

    ``gateways``: those that exist; a route's others are skipped.
    """
    found: list[Attempt] = []
    asked: set[tuple[str, str]] = set()
    for route in routes:
        if not route.matches(number):
            continue
        dialled = route.number_for(number)
        if not is_dialled_number(dialled):
            continue
        for gateway in route.gateways:
            if gateway in gateways and (gateway, dialled) not in asked:
                asked.add((gateway, dialled))
                found.append(Attempt(route=route.name, gateway=gateway, number=dialled))
    return tuple(found)


SILENCE = 0
"""Status of an attempt that got no sign of life."""


def is_next_tried(status: int) -> bool:
    """Tell whether the next gateway is tried after a final answer ``status`` (or ``SILENCE``)."""
    return status in (SILENCE, 403, 408, 603) or 500 <= status < 600


class Spread(StrEnum):
    """How outgoing calls are spread over Conference Servers."""

    LEAST_CALLS = "least_calls"
    ROUND_ROBIN = "round_robin"


def servers_to_try(
    servers: Sequence[str],
    *,
    calls: Mapping[str, int],
    failed: Collection[str] = (),
    strategy: Spread = Spread.LEAST_CALLS,
    last: str = "",
) -> tuple[str, ...]:
    """Return Conference Servers in the order in which to try them; failed ones come last.

    ``calls``: server -> calls it has now, as far as known. ``last``: who got the last call (round
    robin, and between equals). Failed ones are not left out: with nothing else they are the chance.
    """
    order = list(servers)
    if last in order:
        after = order.index(last) + 1
        order = order[after:] + order[:after]
    if strategy is Spread.LEAST_CALLS:
        order.sort(key=lambda name: calls.get(name, 0))
    return tuple(sorted(order, key=lambda name: name in failed))
