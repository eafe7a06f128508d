"""What consoles and Console Servers compute alike: verifiers, verification codes, pins. Pure.

A console's credential is a token of 256 random bits; servers keep its SHA-256 only. A server is who
presents a certificate of the cluster. ``verification_code`` is what a person compares when a
console is enrolled: both sides compute it from the certificate that each of them sees, so somebody
between the two is noticed.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable

MAX_PINS = 512
_DIGITS = frozenset("0123456789abcdef")


def pins_digest(pins: Iterable[tuple[str, str]]) -> str:
    """Return the digest of a set of pins, 16 hexadecimal digits."""
    text = "\n".join(f"{name} {pin}" for name, pin in sorted(pins))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse_pins(value: object) -> list[tuple[str, str]]:
    """Return the pins in a message of a server or in the file; what is none is left out."""
    found = []
    for item in value if isinstance(value, list) else []:
        if isinstance(item, dict):
            name, pin = item.get("name"), item.get("certificate_sha256")
            if isinstance(name, str) and 0 < len(name) <= 64 and is_sha256(pin):
                found.append((name, str(pin).lower()))
    return found[:MAX_PINS]


def is_sha256(value: object) -> bool:
    """True for 64 hexadecimal digits."""
    return isinstance(value, str) and len(value) == 64 and _DIGITS.issuperset(value.lower())


def verification_code(console: str, certificate: str, verifier: str) -> str:
    """Return the code that both sides of an enrolment show, such as ``ABCD-EFGH-IJKL-MNOP``.

    80 bits, so that nobody can look for a credential of his own with the same code.
    """
    text = f"controlone console enrolment\n{console}\n{certificate}\n{verifier}"
    letters = base64.b32encode(hashlib.sha256(text.encode()).digest()[:10]).decode()
    return "-".join(letters[index : index + 4] for index in range(0, 16, 4))


def verifier_of(token: str) -> str:
    """Return what a server keeps of a token. A token is 256 random bits: a plain hash will do."""
    return hashlib.sha256(token.encode()).hexdigest()
