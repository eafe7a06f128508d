"""What is derived from the cluster secret (UCI ``ha.default.secret``), and whether it is weak.

The one place of the product that does this. Theory of operation: scrypt (RFC 7914) stretches the
secret to a 32-byte master; HMAC-SHA256 with one label per use (the expand step of HKDF, RFC 5869)
gives independent keys, so that a database password that leaks says nothing about the link key.

Cost: N=2^14, r=8, p=1, which takes 16 MiB and about 50 ms of a desktop core, some 0.5 s of a
router's, once per start, because the result is cached. More memory would not fit small boards;
less would make a guess cheap for who has recorded a proof. The salt is a fixed text because every
node has to derive the same from the same secret without having spoken to any other.

Not here: who uses the keys (``handshake``, the database item, the node door on TCP/7551).
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
from dataclasses import dataclass
from pathlib import Path

from controlone_ha.errors import TrustError

SCRYPT_N = 1 << 14
SCRYPT_R = 8
SCRYPT_P = 1
_SALT = b"controlone-ha cluster secret, version 1"

_COMMON = frozenset(
    "123456 1234567 12345678 123456789 1234567890 111111 000000 abc123 abcdef admin admin123 "
    "asterisk cluster controlone default iloveyou letmein master mudar123 openwrt passw0rd "
    "password password1 qwerty qwerty123 root secret secret123 senha senha123 teste welcome "
    "brasil 654321 123123 123321 112233 1q2w3e4r 102030 changeme".split()
)
PREVIOUS_FILE = "previous-secret.json"
LONGEST_GRACE = 31 * 86400.0
_MINIMUM_LENGTH = 12
_MINIMUM_DISTINCT = 6


@dataclass(frozen=True, kw_only=True)
class ClusterKeys:
    """The independent keys of one cluster secret; not shown by ``repr``."""

    link: bytes
    """32 bytes: HMAC key of the challenge on the link between nodes."""
    database_password: str
    """43 characters of base64url: password of the replication user of the database."""
    node_door: bytes
    """32 bytes: HMAC key with which nodes authenticate on TCP/7551."""

    def __repr__(self) -> str:
        return "ClusterKeys(…)"


def cluster_keys(secret: str) -> ClusterKeys:
    """Derive the keys of ``secret``; raise ``TrustError`` when it is empty. Cached per process."""
    if not secret:
        raise TrustError("ha.default.secret is empty; set the same secret on every node")
    return _derive(secret)


@functools.lru_cache(maxsize=4)
def _derive(secret: str) -> ClusterKeys:
    master = hashlib.scrypt(
        secret.encode(), salt=_SALT, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P, dklen=32
    )
    return ClusterKeys(
        link=_labelled(master, b"link challenge"),
        database_password=base64.urlsafe_b64encode(_labelled(master, b"database password"))
        .rstrip(b"=")
        .decode(),
        node_door=_labelled(master, b"node door"),
    )


def _labelled(master: bytes, label: bytes) -> bytes:
    return hmac.digest(master, b"controlone-ha " + label + b"\x01", "sha256")


@dataclass(frozen=True, kw_only=True)
class PreviousKeys:
    """What is accepted beside the present secret while a change of it goes round the nodes."""

    link: bytes
    until: float
    """Seconds since 1970."""

    def __repr__(self) -> str:
        return f"PreviousKeys(until={self.until})"


def save_previous(state_dir: Path, secret: str, until: float) -> None:
    """Go on accepting what follows from ``secret`` until then; the secret itself is not kept."""
    from controlone_ha.peers.files import private_directory, write_atomically

    private_directory(state_dir)
    content = {"link": cluster_keys(secret).link.hex(), "until": until}
    write_atomically(state_dir / PREVIOUS_FILE, json.dumps(content).encode(), mode=0o600)


def load_previous(state_dir: Path, now: float) -> PreviousKeys | None:
    """Return what is accepted beside the present secret, None once its time is over."""
    path = state_dir / PREVIOUS_FILE
    try:
        raw = json.loads(path.read_bytes())
        found = PreviousKeys(link=bytes.fromhex(raw["link"]), until=float(raw["until"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # nothing but a convenience: without it the present secret counts alone
    if now >= found.until or len(found.link) != 32 or found.until - now > LONGEST_GRACE:
        path.unlink(missing_ok=True)
        return None
    return found


def weak_secret_reason(secret: str) -> str | None:
    """Say why ``secret`` is easy to guess, or None. A weak secret works and is warned about."""
    if secret.lower() in _COMMON:
        return "the secret is one of the most common passwords"
    if len(secret) < _MINIMUM_LENGTH:
        return f"the secret has {len(secret)} characters, use at least {_MINIMUM_LENGTH}"
    if len(set(secret)) < _MINIMUM_DISTINCT:
        return f"the secret repeats {len(set(secret))} characters, use more different ones"
    if secret.isdigit():
        return "the secret has only digits, use letters too"
    return None
