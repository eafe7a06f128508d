"""Licences of the lab, signed with the lab's own key: worth nothing outside of it.

The private key follows from a text that everybody can read here; nodes of the lab are told its
public half in their environment, and no other node believes it.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from controlone_ha.core.licences import PRODUCT
from controlone_ha.peers.licences import SUFFIX, sign

LAB_KEY = "2f/p1dwFHTV9vqmmNr/fO5yas8yxuyS1x3NFWQavRxg="
"""Base64 of the public half; a test compares it with the private one."""
PRIVATE_KEY = hashlib.sha256(b"controlone-ha lab vendor").digest()
COUNT = 8


def make(serial: str, **fields: object) -> bytes:
    """Return a licence file of the lab's vendor."""
    return sign(
        {"product": PRODUCT, "serial": serial, "customer": "the lab", **fields}, PRIVATE_KEY
    )


@functools.cache
def _standard() -> tuple[tuple[str, bytes], ...]:
    return tuple((serial, make(serial)) for serial in (f"LAB-{n}" for n in range(1, COUNT + 1)))


def write_licences(directory: Path) -> None:
    """Put as many licences into a node as any cluster of the lab has masters."""
    directory.mkdir(parents=True, exist_ok=True)
    for serial, content in _standard():
        (directory / f"{serial}{SUFFIX}").write_bytes(content)
