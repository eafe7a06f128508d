"""The enrolled consoles: ``/etc/config/consoles``, a UCI file, so that it reaches every node with
the rest of the configuration.

    config console 'c_5f0c…'
        option name 'desk-4'
        option verifier '…'        SHA-256 of its token
        option enrolled '1795372300'
        option by 'root'
        option revoked '0'

The section's name follows from the console's, so that two nodes that enrol the same console write
the same section. A revoked console stays in the file: what is deleted is not replicated.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path

from controlone_ha.core.credentials import is_sha256, verifier_of
from controlone_ha.errors import RefusedError, UciError
from controlone_ha.uci import Package, load, save


@dataclass(frozen=True, kw_only=True)
class Enrolled:
    """One console of the book. ``enrolled``: Unix time."""

    name: str
    verifier: str
    enrolled: float = 0.0
    by: str = ""
    is_revoked: bool = False


class ConsoleBook:
    """Reads the file when it has changed; writes it whole. Blocking, a millisecond a call."""

    def __init__(self, path: Path, *, is_required: bool) -> None:
        self.path = path
        self.is_required = is_required
        self._consoles: dict[str, Enrolled] = {}
        self._seen: tuple[int, int, int] | None = None
        self.problem = ""

    def changed(self) -> bool:
        """Tell whether the file has changed since it was last read."""
        return self._identity() != self._seen

    def consoles(self) -> dict[str, Enrolled]:
        """Return the consoles by name. A file that cannot be read leaves what was known."""
        identity = self._identity()
        if identity != self._seen:
            try:
                self._consoles = _parse(load(self.path)) if self.path.exists() else {}
                self.problem = ""
            except UciError as error:
                self.problem = str(error)
            self._seen = identity
        return self._consoles

    def refusal_of(self, name: str, token: str | None) -> tuple[str, str] | None:
        """Return code and sentence of the refusal of a login; None: it is who it says it is."""
        known = self.consoles().get(name)
        if known is None:
            if self.is_required:
                return "unknown_console", f"{name} is not enrolled; run `console enrol` on it"
            return None
        if known.is_revoked:
            return "revoked", f"the credential of {name} was revoked"
        if not token:
            return "token_missing", f"{name} is enrolled and has to show its token"
        if not hmac.compare_digest(verifier_of(token), known.verifier):
            return "wrong_token", f"this is not the token of {name}"
        return None

    def verifier(self, name: str) -> str | None:
        """Return what a logged-in console has to match still; None: not enrolled or revoked."""
        known = self.consoles().get(name)
        return None if known is None or known.is_revoked else known.verifier

    def approve(self, name: str, verifier: str, *, by: str, now: float) -> None:
        """Enrol a console, or replace its credential; raise ``UciError``."""
        self._write(
            name,
            {
                "name": name,
                "verifier": verifier,
                "enrolled": str(int(now)),
                "by": by[:64],
                "revoked": "0",
            },
        )

    def revoke(self, name: str, *, by: str) -> None:
        """Make its credential worthless; raise ``RefusedError`` (not enrolled) or ``UciError``."""
        if name not in self.consoles():
            raise RefusedError(f"{name} is not enrolled")
        self._write(name, {"revoked": "1", "by": by[:64]})

    def _write(self, name: str, options: dict[str, str]) -> None:
        package = load(self.path) if self.path.exists() else Package(self.path.name)
        key = "c_" + hashlib.sha256(name.encode()).hexdigest()[:16]
        section = package.section(key) or package.add("console", key)
        for option, value in options.items():
            section.set(option, value)
        save(self.path, package)
        self._seen = None

    def _identity(self) -> tuple[int, int, int]:
        try:
            status = self.path.stat()
        except OSError:
            return (0, 0, 0)
        return (status.st_ino, status.st_mtime_ns, status.st_size)


def _parse(package: Package) -> dict[str, Enrolled]:
    found = {}
    for section in package.sections("console"):
        name, verifier = section.get("name"), section.get("verifier")
        if not name or not is_sha256(verifier):
            continue
        enrolled = section.get("enrolled") or "0"
        found[name] = Enrolled(
            name=name,
            verifier=str(verifier).lower(),
            enrolled=float(enrolled) if enrolled.isdigit() else 0.0,
            by=section.get("by") or "",
            is_revoked=section.get("revoked") == "1",
        )
    return found
