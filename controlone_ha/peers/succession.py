"""A node's second key while it changes its key: what is believed of it, and of whom. Pure.

Theory of operation. A node that changes its key says so of itself, over links that its present key
has proven: first which key will follow, then, using that one, until when the last one counts. So a
pin has for a while two keys that are accepted alike (``other_key`` beside ``public_key``), and for
ever the fingerprints of those it had before (``former``). Only the node's own word changes its
keys; what others say of them is neither taken nor, while it is about keys known here, a conflict.
An expelled key takes all with it that followed from it.

Not here: the files of the node that changes its key (``rotation``).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controlone_ha.peers.pins import Pin

MAX_FORMER = 16


def has_same_keys(one: Pin, other: Pin) -> bool:
    """Tell whether two pins of a node say the same of its keys."""
    return (one.public_key, one.certificate_sha256, one.other_key, one.until) == (
        other.public_key,
        other.certificate_sha256,
        other.other_key,
        other.until,
    )


def is_continued(present: Pin, said: Pin) -> bool:
    """Tell whether what a node says of its keys follows from what is pinned: a key in common."""
    return bool(set(present.key_fingerprints) & {*said.key_fingerprints, *said.former})


def is_related(present: Pin, said: Pin) -> bool:
    """Tell whether two pins are of one node at different moments of a change of its key."""
    ours = {*present.key_fingerprints, *present.former}
    return bool(ours & set(said.key_fingerprints)) or bool(
        {*said.key_fingerprints, *said.former} & set(present.key_fingerprints)
    )


def succeeded(present: Pin, said: Pin) -> Pin:
    """Return the pin with the keys that its node has named; the rest stays as it was."""
    before = {*present.former, *said.former, *present.key_fingerprints}
    former = sorted(before - set(said.key_fingerprints))
    return replace(
        present,
        public_key=said.public_key,
        certificate=said.certificate,
        other_key=said.other_key,
        other_certificate=said.other_certificate,
        until=said.until,
        former=tuple(former[-MAX_FORMER:]),
    )


def at_time(pin: Pin, now: float) -> Pin:
    """Return the pin without its second key once that one's time is over."""
    if not pin.other_key or now < pin.until:
        return pin
    former = {*pin.former, *pin.key_fingerprints[1:]}
    return replace(
        pin,
        other_key="",
        other_certificate="",
        until=0.0,
        former=tuple(sorted(former)[-MAX_FORMER:]),
    )


def is_expelled(pin: Pin, revoked: Collection[str]) -> bool:
    """Tell whether any key that the node has, or had, is expelled."""
    return any(key in revoked for key in (*pin.key_fingerprints, *pin.former))
