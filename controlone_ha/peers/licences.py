"""Licence files: read, verified, installed. The rules are in ``core.licences``.

The vendor signs with Ed25519; the public half is ``VENDOR_KEY``, and a vendor that builds this
product puts its own there (`scripts/licence.py key` makes one). The lab has a key of its own, which
it names in the environment. ``cryptography`` is imported only when a file has to be verified, and a
file that has not changed is not verified again.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path

from controlone_ha.core.licences import (
    MAX_FILE,
    Found,
    Licence,
    LicenceError,
    read_envelope,
    read_licence,
)
from controlone_ha.peers.files import write_atomically

VENDOR_KEY = "iqkCZoWMLwuKW9pfVFkdjHANXWhiMktvCXda1jnX3SE="
"""Base64 of the vendor's public key, 32 bytes."""

KEY_VARIABLE = "CONTROLONE_LICENCE_KEY"
SUFFIX = ".licence"
MAX_FILES = 512

_Signature = tuple[str, int, int, int]


def vendor_key() -> bytes:
    """Return the public key that licences are verified with."""
    return base64.b64decode(os.environ.get(KEY_VARIABLE) or VENDOR_KEY)


def verify(content: bytes, key: bytes) -> Licence:
    """Return the licence in a file; raise ``LicenceError`` (``detail`` of a forged one says so)."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    signed, signature = read_envelope(content)
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, signed)
    except InvalidSignature as error:
        raise ForgedError("the signature is not the vendor's") from error
    except ValueError as error:
        raise LicenceError(f"the vendor's key cannot be used: {error}") from error
    return read_licence(signed)


class ForgedError(LicenceError):
    """The vendor has not signed this."""


def sign(fields: dict[str, object], private_key: bytes) -> bytes:
    """Return a licence file; what the vendor does, and the lab. ``private_key``: 32 bytes."""
    import json

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    text = json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    signature = Ed25519PrivateKey.from_private_bytes(private_key).sign(text.encode())
    envelope = {"format": 1, "licence": text, "signature": base64.b64encode(signature).decode()}
    return json.dumps(envelope, ensure_ascii=False, indent=1).encode() + b"\n"


class LicenceFiles:
    """The licences in a directory. Blocking, a millisecond a file that is new."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._known: dict[_Signature, Found] = {}

    def read(self) -> tuple[Found, ...]:
        """Return every file that ends in ``.licence``, by name."""
        key = vendor_key()
        known: dict[_Signature, Found] = {}
        try:
            entries = sorted(os.scandir(self.directory), key=lambda entry: entry.name)
        except OSError:
            entries = []
        for entry in entries:
            if not entry.name.endswith(SUFFIX) or entry.name.startswith("."):
                continue
            try:
                status = entry.stat()
            except OSError:
                continue
            seen = (entry.name, status.st_ino, status.st_mtime_ns, status.st_size)
            known[seen] = self._known.get(seen) or _look(Path(entry.path), key)
            if len(known) >= MAX_FILES:
                break
        self._known = known
        return tuple(known.values())

    def install(self, content: bytes) -> Licence:
        """Verify a file's content and keep it, under its serial; raise ``LicenceError``.

        Raises ``OSError`` when it cannot be written.
        """
        licence = verify(content, vendor_key())
        self.directory.mkdir(parents=True, exist_ok=True)
        write_atomically(self.directory / f"{licence.serial}{SUFFIX}", content, mode=0o644)
        return licence


def _look(path: Path, key: bytes) -> Found:
    try:
        with open(path, "rb") as stream:
            content = stream.read(MAX_FILE + 1)
        return Found(file=path.name, licence=verify(content, key))
    except ForgedError as error:
        return Found(file=path.name, problem="forged", detail=str(error))
    except (LicenceError, OSError) as error:
        return Found(file=path.name, problem="unreadable", detail=str(error))
