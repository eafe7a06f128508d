"""An RSA public key as SSH writes it, and as a certificate holds it. Standard library only."""

from __future__ import annotations

from controlone_ha.errors import TrustError


def rsa_numbers(name: str, blob: bytes) -> tuple[int, int]:
    """Return exponent and modulus of an ``ssh-rsa`` blob (RFC 4253 section 6.6)."""
    numbers = []
    rest = blob[4 + len(b"ssh-rsa") :]
    for _ in range(2):
        length = int.from_bytes(rest[:4], "big")
        if len(rest) < 4 + length or not 0 < length < 2100:
            raise TrustError(f"{name}: the RSA key is cut short")
        numbers.append(int.from_bytes(rest[4 : 4 + length], "big"))
        rest = rest[4 + length :]
    return numbers[0], numbers[1]


def rsa_subject_key(modulus: int, exponent: int) -> bytes:
    """Return the DER of the RSAPublicKey (RFC 8017 A.1.1) that a certificate of this key holds."""

    def element(tag: int, content: bytes) -> bytes:
        size = len(content)
        if size < 128:
            return bytes([tag, size]) + content
        length = size.to_bytes((size.bit_length() + 7) // 8, "big")
        return bytes([tag, 0x80 | len(length)]) + length + content

    def integer(value: int) -> bytes:
        return element(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))

    return element(0x30, integer(modulus) + integer(exponent))
