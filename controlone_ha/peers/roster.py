"""The message by which linked nodes introduce whom they know, so that pairing with one suffices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from controlone_ha.errors import TrustError
from controlone_ha.peers.pins import MAX_PINS, Pin, pin_from_json

ROSTER = "links.roster"
NODES_PER_MESSAGE = 32


def roster_messages(pins: Sequence[Pin]) -> Iterator[dict[str, Any]]:
    """Return the params of as many notifications as ``pins`` need to fit into frames."""
    for start in range(0, len(pins), NODES_PER_MESSAGE):
        yield {"nodes": [pin.as_json() for pin in pins[start : start + NODES_PER_MESSAGE]]}


def read_roster(params: dict[str, Any]) -> list[Pin]:
    """Return the pins in a message; raise ``TrustError``."""
    nodes = params.get("nodes")
    if not isinstance(nodes, list) or len(nodes) > MAX_PINS:
        raise TrustError(f"nodes: expected a list of at most {MAX_PINS}")
    return [pin_from_json(node) for node in nodes]
