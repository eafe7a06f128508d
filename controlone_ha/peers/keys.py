"""The identity of this node: one RSA-2048 key, and a self-signed certificate of the same key.

The SSH link uses the key, TLS on TCP/7551 and TCP/27017 the certificate. Both are made at first
start, once, under a lock between processes, and never overwritten: peers have pinned them. There
is no authority and no expiry (1970 to 9999): a board without a clock starts in 1970, and trust ends
by unpinning, not by a date. Names in the certificate are for people; peers compare fingerprints.

Not here: the peers' keys (``trust``). ``cryptography`` is imported only when a key has to be made
or its public half read.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from controlone_ha.errors import TrustError
from controlone_ha.paths import NodePaths
from controlone_ha.peers.files import locked, private_directory, write_atomically

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

KEY_BITS = 2048
LOCK = ".identity.lock"
# One second past the epoch: mongod 6.0 does not take a certificate that begins at zero.
_NOT_BEFORE = datetime.datetime(1970, 1, 1, 0, 0, 1)
_NOT_AFTER = datetime.datetime(9999, 12, 31, 23, 59, 59)
_PEM = re.compile(
    r"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----", re.ASCII
)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The public half of a node's identity, and where the private half lies."""

    key_file: Path
    certificate_file: Path
    public_key: str
    """``ssh-rsa AAAA…``, without comment."""
    certificate: str
    """PEM."""

    @property
    def key_fingerprint(self) -> str:
        """``SHA256:…`` of the SSH public key, as ``ssh-keygen -l`` prints it."""
        return ssh_fingerprint(self.public_key)

    @property
    def certificate_sha256(self) -> str:
        """Hexadecimal SHA-256 of the certificate in DER."""
        return certificate_sha256(self.certificate)


def ssh_fingerprint(public_key: str) -> str:
    """Return ``SHA256:…`` of ``"type base64 [comment]"``; raise ``TrustError`` if it is not one."""
    return blob_fingerprint(key_blob(public_key))


def blob_fingerprint(blob: bytes) -> str:
    """Return ``SHA256:…`` of a public key in SSH wire format (RFC 4253 section 6.6)."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).rstrip(b"=").decode()


def key_blob(public_key: str) -> bytes:
    """Return the wire format of ``"type base64 [comment]"``; raise ``TrustError``."""
    parts = public_key.split()
    try:
        kind, blob = parts[0], base64.b64decode(parts[1], validate=True)
    except (IndexError, binascii.Error, ValueError) as error:
        raise TrustError(f"not an SSH public key: {public_key[:40]!r}") from error
    name = kind.encode()
    if blob[: 4 + len(name)] != len(name).to_bytes(4, "big") + name:
        raise TrustError(f"not an SSH public key of type {kind[:40]!r}: its inside says otherwise")
    return blob


def certificate_der(certificate: str) -> bytes:
    """Return the DER of the one certificate in PEM text; raise ``TrustError``."""
    found = _PEM.findall(certificate)
    if len(found) != 1:
        raise TrustError(f"expected one certificate in PEM, got {len(found)}")
    try:
        return base64.b64decode("".join(found[0].split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise TrustError(f"certificate is not valid PEM: {error}") from error


def certificate_sha256(certificate: str) -> str:
    """Return the hexadecimal SHA-256 of the certificate (PEM); raise ``TrustError``."""
    return hashlib.sha256(certificate_der(certificate)).hexdigest()


def ensure_identity(paths: NodePaths, name: str) -> Identity:
    """Return this node's identity, making what is missing. ``name`` goes into a new certificate.

    Raises ``TrustError`` when an existing file is unusable: it is never replaced, because peers
    have pinned it. Blocks for up to a second or two when it has to make a key.
    """
    private_directory(paths.state_dir)
    with locked(paths.state_dir / LOCK):
        mend(paths)
        if not paths.key_file.exists():
            write_atomically(paths.key_file, _new_key_pem(), mode=0o600)
        else:
            _make_private(paths.key_file)
        key = _load_key(paths.key_file)
        if not paths.certificate_file.exists():
            write_atomically(paths.certificate_file, _new_certificate(key, name), mode=0o644)
    return _read_identity(paths.key_file, paths.certificate_file, key)


def mend(paths: NodePaths) -> None:
    """Complete a change of key that was interrupted after the key and before its certificate."""
    certificate = paths.state_dir / "next.crt"
    if certificate.exists() and not (paths.state_dir / "next.key").exists():
        os.replace(certificate, paths.certificate_file)


def make_identity(key_file: Path, certificate_file: Path, name: str) -> None:
    """Make a key and a certificate of it in files that do not exist; raise ``OSError``."""
    write_atomically(key_file, _new_key_pem(), mode=0o600)
    write_atomically(certificate_file, _new_certificate(_load_key(key_file), name), mode=0o644)


def renew_identity(paths: NodePaths, name: str) -> Identity:
    """Make a new key and certificate in place of the present ones, which are gone for good.

    A person's explicit order: no peer knows the new ones. Processes that run keep the old ones
    until they are restarted. Raises ``TrustError``, ``OSError``.
    """
    private_directory(paths.state_dir)
    with locked(paths.state_dir / LOCK):
        paths.certificate_file.unlink(missing_ok=True)
        write_atomically(paths.key_file, _new_key_pem(), mode=0o600)
    return ensure_identity(paths, name)


def load_identity(
    paths: NodePaths, key_file: Path | None = None, certificate_file: Path | None = None
) -> Identity:
    """Return this node's identity, or the one in these files; raise ``TrustError`` without one."""
    key, certificate = key_file or paths.key_file, certificate_file or paths.certificate_file
    if not (key.exists() and certificate.exists()):
        raise TrustError(f"{key}: this node has no key yet; start ha once")
    return _read_identity(key, certificate, _load_key(key))


def _make_private(path: Path) -> None:
    if path.stat().st_mode & 0o077:
        os.chmod(path, 0o600)


def _read_identity(key_file: Path, certificate_file: Path, key: RSAPrivateKey) -> Identity:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = key.public_key()
    text = certificate_file.read_text(encoding="ascii", errors="replace")
    try:
        certificate = x509.load_der_x509_certificate(certificate_der(text))
    except (ValueError, TrustError) as error:
        raise TrustError(f"{certificate_file}: {error}; remove it and restart") from error
    if certificate.public_key() != public:
        raise TrustError(
            f"{certificate_file} is not of the key in {key_file}; restore the pair "
            "from a backup, or remove both and pair this node anew"
        )
    line = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return Identity(
        key_file=key_file,
        certificate_file=certificate_file,
        public_key=line,
        certificate=text,
    )


def _new_key_pem() -> bytes:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    # The traditional form, because every paramiko, OpenSSL and mongod reads it.
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def _load_key(path: Path) -> RSAPrivateKey:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise TrustError(
            f"{path}: not a private key in PEM; restore it from a backup, or remove it and "
            "pair this node anew"
        ) from error
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size < KEY_BITS:
        raise TrustError(f"{path}: expected an RSA key of at least {KEY_BITS} bits")
    return key


def _new_certificate(key: RSAPrivateKey, name: str) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "ControlONE HA node"),
            x509.NameAttribute(NameOID.COMMON_NAME, name[:64] or "node"),
        ]
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        # Not an authority: who pins this certificate trusts this node alone.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=True,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=False,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
    )
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", name):
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False
        )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
