"""Digest authentication of SIP, the client's side (RFC 3261, 22; RFC 7616; RFC 8760). Pure.

MD5, SHA-256 and SHA-512-256 with ``qop=auth`` or without; no ``auth-int`` and no ``-sess``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from controlone_ha.sip.message import Response

_PARAMETER = re.compile(r'([A-Za-z0-9\-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_ALGORITHMS: Mapping[str, str] = {
    "MD5": "md5",
    "SHA-256": "sha256",
    "SHA-512-256": "sha512_256",
}


def challenge_of(response: Response) -> tuple[str, dict[str, str]] | None:
    """Return the name of the answering header and the challenge's parameters: the first challenge
    of a 401 or 407 that can be met, None without one.
    """
    for asked, answered in (
        ("WWW-Authenticate", "Authorization"),
        ("Proxy-Authenticate", "Proxy-Authorization"),
    ):
        for value in response.all(asked):
            scheme, _, rest = value.strip().partition(" ")
            if scheme.lower() != "digest":
                continue
            found = {
                match[1].lower(): match[2] if match[2] is not None else match[3]
                for match in _PARAMETER.finditer(rest)
            }
            qops = {item.strip() for item in found.get("qop", "auth").split(",")}
            if _algorithm(found) and "auth" in qops and "nonce" in found and "realm" in found:
                return answered, found
    return None


def _algorithm(challenge: Mapping[str, str]) -> str:
    name = _ALGORITHMS.get(challenge.get("algorithm", "MD5").upper(), "")
    return name if name in hashlib.algorithms_available else ""


def credentials(
    challenge: Mapping[str, str],
    *,
    method: str,
    uri: str,
    username: str,
    password: str,
    cnonce: str,
    count: int = 1,
) -> str:
    """Return the value of (Proxy-)Authorization. ``cnonce``: hexadecimal, random."""
    name = _algorithm(challenge)

    def digest(text: str) -> str:
        return hashlib.new(name, text.encode(), usedforsecurity=False).hexdigest()

    realm, nonce = challenge["realm"], challenge["nonce"]
    who = digest(f"{username}:{realm}:{password}")
    what = digest(f"{method}:{uri}")
    fields = [f'username="{username}"', f'realm="{realm}"', f'nonce="{nonce}"', f'uri="{uri}"']
    if "qop" in challenge:
        number = f"{count:08x}"
        response = digest(f"{who}:{nonce}:{number}:{cnonce}:auth:{what}")
        fields += ["qop=auth", f"nc={number}", f'cnonce="{cnonce}"']
    else:
        response = digest(f"{who}:{nonce}:{what}")
    fields.append(f'response="{response}"')
    if "algorithm" in challenge:
        fields.append(f"algorithm={challenge['algorithm']}")
    if "opaque" in challenge:
        fields.append(f'opaque="{challenge["opaque"]}"')
    return "Digest " + ", ".join(fields)
