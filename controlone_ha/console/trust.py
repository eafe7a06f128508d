"""What a console device trusts and is trusted by: the cluster's pins and its own token.

One file, ``console.json`` (mode 0600): ``{"token", "servers": [{"name", "certificate_sha256"}]}``.
A server is whoever presents a certificate of the list; there is no authority, and name, address and
date mean nothing. A server that the console is logged in to may introduce others: names not known
yet are added, a known name never gets another certificate that way.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from controlone_ha.core.credentials import MAX_PINS, parse_pins, pins_digest
from controlone_ha.errors import TrustError


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """``token``: hexadecimal, empty if the console is not enrolled. ``pins``: server name to
    hexadecimal SHA-256 of its certificate; empty: nothing is pinned, any certificate is taken.
    """

    token: str = ""
    pins: tuple[tuple[str, str], ...] = ()

    def name_of(self, certificate: str) -> str | None:
        """Return the name under which a certificate is pinned, None if it is not."""
        return next((name for name, pin in self.pins if pin == certificate), None)

    @property
    def digest(self) -> str:
        """A short text that is equal on both sides when they know the same servers."""
        return pins_digest(self.pins)

    def introduced(self, offered: object) -> Credentials:
        """Return the credentials with the servers that a trusted server introduces, if any."""
        known = dict(self.pins)
        for name, pin in parse_pins(offered):
            if name not in known and len(known) < MAX_PINS:
                known[name] = pin
        return replace(self, pins=tuple(sorted(known.items())))


def load_credentials(path: Path) -> Credentials:
    """Return what is in the file, nothing if there is none; raise ``TrustError`` if it is bad."""
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Credentials()
    except (OSError, ValueError) as error:
        raise TrustError(f"{path}: {error}; restore it or run `console enrol` again") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("token", ""), str):
        raise TrustError(f"{path}: no credentials in it; run `console enrol` again")
    return Credentials(token=raw.get("token", ""), pins=tuple(parse_pins(raw.get("servers"))))


def save_credentials(path: Path, credentials: Credentials) -> None:
    """Replace the file in one step; raise ``OSError``."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    servers = [{"name": name, "certificate_sha256": pin} for name, pin in credentials.pins]
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({"token": credentials.token, "servers": servers}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
