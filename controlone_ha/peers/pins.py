"""A pin: what one node knows of another's keys, certificate and addresses; and how pins are merged.

Pure but for the keys' own arithmetic. The file that holds them is ``trust``'s.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from controlone_ha.errors import TrustError
from controlone_ha.peers import keys, succession
from controlone_ha.peers.rsa import rsa_numbers, rsa_subject_key

MAX_PINS = 512
_MAX_LIST = 16
_MAX_TEXT = 8192
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", re.ASCII)
_ADDRESS = re.compile(r"[A-Za-z0-9.:%_-]{1,255}", re.ASCII)
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}", re.ASCII)
_HOST_KEY_TYPES = frozenset(
    {
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
    }
)


def is_node_name(name: str) -> bool:
    """Tell whether ``name`` may name a node: it goes into commands, files and certificates."""
    return _NAME.fullmatch(name) is not None


@dataclass(frozen=True, kw_only=True)
class Pin:
    """What is pinned of one node. Public data only."""

    name: str
    public_key: str
    """``ssh-rsa AAAA…`` without comment: the node's RSA key."""
    certificate: str
    """PEM of the self-signed certificate of the same key."""
    host_keys: tuple[str, ...] = ()
    """``type base64`` of each host key of the node's SSH server."""
    addresses: tuple[str, ...] = ()
    ssh_port: int = 22
    added: str = ""
    """UTC time at which it was pinned here, ISO 8601."""
    other_key: str = ""
    """A second key that is accepted while the node changes its key (``succession``)."""
    other_certificate: str = ""
    until: float = 0.0
    """Seconds since 1970 until which ``other_key`` counts."""
    former: tuple[str, ...] = ()
    """Fingerprints of the keys that the node had before."""

    @property
    def key_fingerprint(self) -> str:
        """``SHA256:…`` of the node's RSA key."""
        return keys.ssh_fingerprint(self.public_key)

    @property
    def public_keys(self) -> tuple[str, ...]:
        """The keys that are accepted: one, or two while the node changes its key."""
        return (self.public_key, self.other_key) if self.other_key else (self.public_key,)

    @property
    def key_fingerprints(self) -> tuple[str, ...]:
        """``SHA256:…`` of each accepted key."""
        return tuple(keys.ssh_fingerprint(key) for key in self.public_keys)

    @property
    def certificates(self) -> tuple[str, ...]:
        """PEM of the certificate of each accepted key."""
        return (self.certificate, self.other_certificate)[: len(self.public_keys)]

    @property
    def certificate_sha256(self) -> str:
        """Hexadecimal SHA-256 of the certificate in DER."""
        return keys.certificate_sha256(self.certificate)

    @property
    def certificates_sha256(self) -> tuple[str, ...]:
        """Hexadecimal SHA-256 of each accepted certificate."""
        return tuple(keys.certificate_sha256(text) for text in self.certificates)

    @property
    def host_key_fingerprints(self) -> tuple[str, ...]:
        """``SHA256:…`` of each host key."""
        return tuple(keys.ssh_fingerprint(line) for line in self.host_keys)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object of this pin, as on disk and on the wire."""
        other = {
            "public_key": self.other_key,
            "certificate": self.other_certificate,
            "until": self.until,
        }
        return {
            "name": self.name,
            "public_key": self.public_key,
            "certificate": self.certificate,
            "host_keys": list(self.host_keys),
            "addresses": list(self.addresses),
            "ssh_port": self.ssh_port,
            "added": self.added,
            **({"other": other} if self.other_key else {}),
            **({"former": list(self.former)} if self.former else {}),
        }


def pin_from_json(raw: object) -> Pin:
    """Return the pin in ``raw``, every field checked; raise ``TrustError`` saying what is wrong."""
    if not isinstance(raw, Mapping):
        raise TrustError(f"expected a JSON object for a node, got {type(raw).__name__}")
    name = _text(raw, "name")
    if not is_node_name(name):
        raise TrustError(f"got node name {name[:80]!r}, expected letters, digits, '.', '_' and '-'")
    public_key, certificate = _key_and_certificate(name, raw)
    other_key, other_certificate, until = "", "", 0.0
    other = raw.get("other")
    if other is not None:
        if not isinstance(other, Mapping):
            raise TrustError(f"{name}: other: expected a JSON object")
        other_key, other_certificate = _key_and_certificate(name, other)
        said = other.get("until")
        if not isinstance(said, int | float) or isinstance(said, bool) or not 0 <= said < 1e12:
            raise TrustError(f"{name}: other: until: expected seconds since 1970")
        until = float(said)
        if other_key == public_key:
            raise TrustError(f"{name}: the same key twice")
    former = _texts(raw, "former")
    if not all(_FINGERPRINT.fullmatch(key) for key in former):
        raise TrustError(f"{name}: former: expected fingerprints")
    host_keys = tuple(" ".join(line.split()[:2]) for line in _texts(raw, "host_keys"))
    for line in host_keys:
        keys.key_blob(line)
        if line.split()[0] not in _HOST_KEY_TYPES:
            raise TrustError(f"{name}: unknown host key type {line.split()[0][:40]!r}")
    addresses = tuple(dict.fromkeys(_texts(raw, "addresses")))
    for address in addresses:
        if not _ADDRESS.fullmatch(address):
            raise TrustError(f"{name}: not an address: {address[:80]!r}")
    port = raw.get("ssh_port", 22)
    if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
        raise TrustError(f"{name}: got ssh_port {port!r}, expected 1 to 65535")
    added = raw.get("added", "")
    return Pin(
        name=name,
        public_key=public_key,
        certificate=certificate,
        host_keys=host_keys,
        addresses=addresses,
        ssh_port=port,
        added=added[:40] if isinstance(added, str) else "",
        other_key=other_key,
        other_certificate=other_certificate,
        until=until,
        former=tuple(former),
    )


def _key_and_certificate(name: str, raw: Mapping[str, Any]) -> tuple[str, str]:
    """Return key and certificate of ``raw``; raise ``TrustError`` when they do not fit."""
    public_key = " ".join(_text(raw, "public_key").split()[:2])
    blob = keys.key_blob(public_key)
    if not public_key.startswith("ssh-rsa "):
        raise TrustError(f"{name}: expected a key of type ssh-rsa, got {public_key.split()[0]!r}")
    exponent, modulus = rsa_numbers(name, blob)
    if modulus.bit_length() < keys.KEY_BITS:
        raise TrustError(
            f"{name}: RSA key of {modulus.bit_length()} bits, expected {keys.KEY_BITS} or more"
        )
    certificate = _text(raw, "certificate")
    if rsa_subject_key(modulus, exponent) not in keys.certificate_der(certificate):
        raise TrustError(f"{name}: the certificate is not of the node's key")
    return public_key, certificate


def _text(raw: Mapping[str, Any], field: str) -> str:
    value = raw.get(field)
    if not isinstance(value, str) or not value or len(value) > _MAX_TEXT:
        raise TrustError(f"{field}: expected a text of at most {_MAX_TEXT} characters")
    return value


def _texts(raw: Mapping[str, Any], field: str) -> list[str]:
    value = raw.get(field, [])
    if not isinstance(value, list) or len(value) > _MAX_LIST:
        raise TrustError(f"{field}: expected a list of at most {_MAX_LIST} texts")
    for item in value:
        if not isinstance(item, str) or not item or len(item) > _MAX_TEXT:
            raise TrustError(f"{field}: expected texts of at most {_MAX_TEXT} characters")
    return value


@dataclass(frozen=True, kw_only=True)
class MergeResult:
    """What an introduction changed: names added, names whose addresses changed, and conflicts."""

    added: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    conflicts: tuple[tuple[str, str], ...] = ()
    """(name of the node, sentence for a person)."""


def merge_pins(
    known: Mapping[str, Pin],
    offered: Iterable[Pin],
    *,
    own_name: str,
    own_key: str,
    introducer: str,
    now: str,
    unpinned: Collection[str] = (),
    own_other: str = "",
) -> tuple[dict[str, Pin], MergeResult]:
    """Apply the merge rule (see the module's text) and return the new pins. Pure.

    ``introducer`` is the authenticated peer that offers, ``own_key`` this node's public key line,
    ``now`` the time to note in new pins, ``unpinned`` the fingerprints of keys not to take back,
    ``own_other`` this node's second key while it changes its key.
    """
    pins = dict(known)
    if introducer not in pins:  # unpinned while its message was on its way
        return pins, MergeResult()
    added: list[str] = []
    updated: list[str] = []
    conflicts: list[tuple[str, str]] = []
    own_keys = [key for key in (own_key, own_other) if key]
    names_of_keys = {key: pin.name for pin in pins.values() for key in pin.public_keys}
    names_of_keys |= dict.fromkeys(own_keys, own_name)
    for pin in offered:
        if pin.name == own_name:
            if pin.public_key not in own_keys:
                sentence = (
                    f"{introducer} knows another key under the name of this node, {own_name}: "
                    f"{pin.key_fingerprint}; two nodes may have the same name"
                )
                conflicts.append((pin.name, sentence))
            continue
        present = pins.get(pin.name)
        if present is None and pin.key_fingerprint in unpinned:
            continue
        if present is None:
            taken = next((key for key in pin.public_keys if key in names_of_keys), None)
            if taken is not None:
                sentence = (
                    f"{introducer} introduces {pin.name} with the key of "
                    f"{names_of_keys[taken]}; not added"
                )
                conflicts.append((pin.name, sentence))
            elif len(pins) >= MAX_PINS:
                sentence = f"{pin.name} not added: {MAX_PINS} nodes are pinned already"
                conflicts.append((pin.name, sentence))
            else:
                pins[pin.name] = replace(pin, added=now)
                names_of_keys |= dict.fromkeys(pin.public_keys, pin.name)
                added.append(pin.name)
        elif not succession.has_same_keys(present, pin) and succession.is_related(present, pin):
            foreign = {names_of_keys.get(key, pin.name) for key in pin.public_keys} - {pin.name}
            if pin.name == introducer and succession.is_continued(present, pin) and not foreign:
                pins[pin.name] = succession.succeeded(present, pin)
                names_of_keys |= dict.fromkeys(pin.public_keys, pin.name)
                updated.append(pin.name)
        elif present.public_key != pin.public_key or (
            keys.certificate_der(present.certificate) != keys.certificate_der(pin.certificate)
        ):
            sentence = (
                f"{introducer} says that {pin.name} has key {pin.key_fingerprint}, pinned here is "
                f"{present.key_fingerprint}; kept what was pinned, run `ha pair {pin.name}` here "
                "if that node was set up anew"
            )
            conflicts.append((pin.name, sentence))
        elif pin.name == introducer and (
            (present.addresses, present.ssh_port) != (pin.addresses, pin.ssh_port)
        ):
            addresses = tuple(dict.fromkeys((*pin.addresses, *present.addresses)))[:_MAX_LIST]
            if (addresses, pin.ssh_port) != (present.addresses, present.ssh_port):
                pins[pin.name] = replace(present, addresses=addresses, ssh_port=pin.ssh_port)
                updated.append(pin.name)
    result = MergeResult(
        added=tuple(added), updated=tuple(updated), conflicts=tuple(dict.fromkeys(conflicts))
    )
    return pins, result


def _identity_of(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return (0, 0, 0)
    return (status.st_ino, status.st_mtime_ns, status.st_size)


def fingerprint_of_certificate(certificate: bytes) -> str:
    """Return the hexadecimal SHA-256 of a certificate in DER, as TLS hands it over."""
    import hashlib

    return hashlib.sha256(certificate).hexdigest()


def host_key_line(kind: str, blob: bytes) -> str:
    """Return ``type base64`` of a host key in wire format."""
    return f"{kind} {base64.b64encode(blob).decode()}"
