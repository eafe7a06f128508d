"""The mutual challenge that proves the cluster secret at both ends of an SSH session. Sans-I/O.

Theory of operation. By the time it runs, SSH has proven the dialer's key to the acceptor (the
forced command says whose it is) and the acceptor's host key to the dialer. Four frames follow:

    dialer   → HELLO      versions, both names, nonce, key and host keys of the dialer,
                          the acceptor's host key as the dialer has verified it
    acceptor → CHALLENGE  version chosen, both names, nonce, key of the acceptor
    dialer   → PROOF      HMAC-SHA256(link key, "dialer" + transcript)
    acceptor → PROOF      HMAC-SHA256(link key, "acceptor" + transcript)

The transcript holds the version, both names, the dialer's key as pinned here (not as claimed), the
acceptor's key, the host key that SSH has verified, and hashes of HELLO and CHALLENGE, in which
both nonces are. So a proof is worth nothing in another session, at another node, in the other
direction or a second time. Either end may answer REFUSED with a code and a sentence instead; both
ends then know the same. The dialer proves first: who guesses secrets with a stolen key learns one
bit a try, and the acceptor's caller makes the tries slow (``links``).

Each end also checks what the other says of itself against its own pins, so that a node that was set
up anew is refused with the true reason whichever end dialed:
``unknown_node``, ``unknown_key``, ``unknown_host_key``, ``version``, ``wrong_secret``.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace
from typing import Any

from controlone_ha.peers.facts import (
    REFUSAL_CODES,
    Established,
    OwnFacts,
    PinnedFacts,
    Refusal,
    Step,
    key_id,
)
from controlone_ha.peers.frames import Frame, Kind, ProtocolError, encode, printable

NONCE_BYTES = 32
_CONTEXT = b"controlone-ha link"


def chosen_version(ours: tuple[int, int], theirs: tuple[int, int]) -> int | None:
    """Return the highest version in both ranges, None if there is none."""
    highest = min(ours[1], theirs[1])
    return highest if highest >= max(ours[0], theirs[0]) else None


def _range(fields: dict[str, Any], kind: Kind) -> tuple[int, int]:
    value = fields.get("versions")
    if (
        not isinstance(value, list)
        or len(value) != 2
        or not all(isinstance(item, int) and not isinstance(item, bool) for item in value)
        or not 0 < value[0] <= value[1] < 1 << 31
    ):
        raise ProtocolError(f"{kind.name}: versions: got {value!r}, expected [lowest, highest]")
    return value[0], value[1]


def _string(fields: dict[str, Any], name: str, kind: Kind, *, optional: bool = False) -> str:
    value = fields.get(name, "" if optional else None)
    if not isinstance(value, str) or len(value) > 128 or (not value and not optional):
        raise ProtocolError(f"{kind.name}: {name}: expected a text of at most 128 characters")
    return value


def _nonce(fields: dict[str, Any], kind: Kind) -> None:
    value = fields.get("nonce")
    if not isinstance(value, str) or len(value) != 2 * NONCE_BYTES:
        raise ProtocolError(f"{kind.name}: nonce: expected {NONCE_BYTES} bytes in hexadecimal")


def _range_text(versions: tuple[int, int]) -> str:
    low, high = versions
    return str(low) if low == high else f"{low} to {high}"


def _version_refusal(
    first: str, first_range: tuple[int, int], second: str, second_range: tuple[int, int]
) -> Refusal:
    return Refusal(
        "version",
        f"{first} speaks version {_range_text(first_range)} of the link, "
        f"{second} version {_range_text(second_range)}; upgrade the older one",
    )


def _told_refusal(frame: Frame, peer: str) -> Refusal:
    fields = frame.fields()
    code = fields.get("code")
    if code not in REFUSAL_CODES:
        code = "refused"
    return Refusal(code, f"{peer} refuses: {printable(fields.get('sentence', ''))}", by_peer=True)


def _told_goodbye(frame: Frame, peer: str) -> Refusal:
    fields = frame.fields()
    code = fields.get("code")
    text = printable(fields.get("sentence", ""))
    if code == "no_daemon":
        return Refusal("no_daemon", f"ha is not running on {peer} ({text})", by_peer=True)
    return Refusal("stopping", f"{peer} ended the handshake: {text}", by_peer=True)


class _Handshake:
    def __init__(self, own: OwnFacts, pinned: PinnedFacts, link_key: bytes, nonce: bytes) -> None:
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"nonce of {len(nonce)} bytes, expected {NONCE_BYTES}")
        self.own = own
        self.pinned = pinned
        self._link_key = link_key
        self._nonce = nonce
        self._expected: Kind | None = None
        self._transcript = b""

    def _next(self, frame: Frame) -> None:
        """Let only the expected frame pass; after an error nothing more is expected."""
        expected, self._expected = self._expected, None
        if frame.kind is Kind.REFUSED:
            raise _told_refusal(frame, self.pinned.name)
        if frame.kind is Kind.GOODBYE:
            raise _told_goodbye(frame, self.pinned.name)
        if frame.kind is not expected:
            wanted = expected.name if expected is not None else "nothing more"
            raise ProtocolError(f"got {frame.kind.name} in the handshake, expected {wanted}")

    def _set_transcript(
        self,
        *,
        version: int,
        dialer: str,
        acceptor: str,
        dialer_key: str,
        acceptor_key: str,
        host_key: str,
        hello: bytes,
        challenge: bytes,
    ) -> None:
        parts = [
            _CONTEXT,
            str(version).encode(),
            dialer.encode(),
            acceptor.encode(),
            dialer_key.encode(),
            acceptor_key.encode(),
            host_key.encode(),
            hashlib.sha256(hello).digest(),
            hashlib.sha256(challenge).digest(),
        ]
        self._transcript = b"".join(len(part).to_bytes(4, "big") + part for part in parts)

    def _proof(self, direction: bytes) -> bytes:
        return hmac.digest(self._link_key, direction + b"\0" + self._transcript, "sha256")

    def _link_id(self) -> str:
        return hashlib.sha256(b"link id\0" + self._transcript).hexdigest()[:32]

    def _check_names(self, fields: dict[str, Any], kind: Kind) -> None:
        sender, receiver = _string(fields, "from", kind), _string(fields, "to", kind)
        if sender != self.pinned.name:
            raise Refusal(
                "unknown_node",
                f"the node that {self.own.name} has pinned as {self.pinned.name} calls itself "
                f"{printable(sender)}; run `ha pair` again",
            )
        if receiver != self.own.name:
            raise Refusal(
                "unknown_node",
                f"{sender} looks for a node named {printable(receiver)}, this one is "
                f"{self.own.name}",
            )

    def _check_key(self, fields: dict[str, Any], kind: Kind) -> None:
        claimed = _string(fields, "key", kind)
        if self.pinned.other_key and claimed == self.pinned.other_key:
            self.pinned = replace(self.pinned, key_fingerprint=claimed)
        if claimed != self.pinned.key_fingerprint:
            raise Refusal(
                "unknown_key",
                f"{self.pinned.name} uses key {printable(claimed, 60)}, {self.own.name} has pinned "
                f"{self.pinned.key_fingerprint}; run `ha pair {self.pinned.name}` on "
                f"{self.own.name} if {self.pinned.name} was set up anew",
            )


class DialerHandshake(_Handshake):
    """The end that opened the SSH session. ``host_key``: the fingerprint that SSH has verified."""

    def __init__(
        self,
        *,
        own: OwnFacts,
        pinned: PinnedFacts,
        link_key: bytes,
        nonce: bytes,
        host_key: str,
        ended: str = "",
    ) -> None:
        super().__init__(own, pinned, link_key, nonce)
        self._host_key = host_key
        self._ended = ended
        self._hello = b""
        self._established: Established | None = None

    def start(self) -> bytes:
        """Return the HELLO to send."""
        hello = {
            "versions": list(self.own.versions),
            "from": self.own.name,
            "to": self.pinned.name,
            "nonce": self._nonce.hex(),
            "instance": self.own.instance,
            "key": self.own.key_fingerprint,
            "host_key": self._host_key,
            "host_keys": list(self.own.host_keys[:8]),
            "ended": self._ended,
            "release": self.own.release,
        }
        self._hello = json.dumps(hello, separators=(",", ":")).encode()
        self._expected = Kind.CHALLENGE
        return encode(Kind.HELLO, self._hello)

    def receive(self, frame: Frame) -> Step:
        """Take a frame; raise ``Refusal`` (tell the peer unless ``by_peer``), ``ProtocolError``."""
        self._next(frame)
        if frame.kind is Kind.CHALLENGE:
            return self._challenged(frame)
        if not hmac.compare_digest(frame.payload, self._proof(b"acceptor")):
            raise Refusal("wrong_secret", _secret_sentence(self.own.name, self.pinned.name))
        return Step(established=self._established)

    def _challenged(self, frame: Frame) -> Step:
        fields = frame.fields()
        theirs = _range(fields, frame.kind)
        version = fields.get("version")
        if version is None or version != chosen_version(self.own.versions, theirs):
            raise _version_refusal(self.own.name, self.own.versions, self.pinned.name, theirs)
        self._check_names(fields, frame.kind)
        self._check_key(fields, frame.kind)
        _nonce(fields, frame.kind)
        self._set_transcript(
            version=version,
            dialer=self.own.name,
            acceptor=self.pinned.name,
            dialer_key=self.own.key_fingerprint,
            acceptor_key=self.pinned.key_fingerprint,
            host_key=self._host_key,
            hello=self._hello,
            challenge=frame.payload,
        )
        self._established = Established(
            peer=self.pinned.name,
            dialer=self.own.name,
            version=version,
            link_id=self._link_id(),
            key=self.pinned.key_fingerprint,
            instance=_string(fields, "instance", frame.kind),
            ended=self._ended,
            release=printable(_string(fields, "release", frame.kind, optional=True), 40),
            secret_id=key_id(self._link_key),
        )
        self._expected = Kind.PROOF
        return Step(send=encode(Kind.PROOF, self._proof(b"dialer")))


class AcceptorHandshake(_Handshake):
    """The end that the SSH session came to. ``pinned`` is who the forced command says is there."""

    def __init__(
        self,
        *,
        own: OwnFacts,
        pinned: PinnedFacts,
        link_key: bytes,
        nonce: bytes,
        previous_key: bytes | None = None,
    ) -> None:
        super().__init__(own, pinned, link_key, nonce)
        self._previous_key = previous_key
        self._established: Established | None = None
        self._expected = Kind.HELLO

    def receive(self, frame: Frame) -> Step:
        """Take a frame; raise ``Refusal`` (tell the peer unless ``by_peer``), ``ProtocolError``."""
        self._next(frame)
        if frame.kind is Kind.HELLO:
            return self._greeted(frame)
        for link_key in filter(None, (self._link_key, self._previous_key)):
            self._link_key = link_key
            if hmac.compare_digest(frame.payload, self._proof(b"dialer")):
                assert self._established is not None
                return Step(
                    send=encode(Kind.PROOF, self._proof(b"acceptor")),
                    established=replace(self._established, secret_id=key_id(link_key)),
                )
        raise Refusal("wrong_secret", _secret_sentence(self.own.name, self.pinned.name))

    def _greeted(self, frame: Frame) -> Step:
        fields = frame.fields()
        theirs = _range(fields, frame.kind)
        version = chosen_version(self.own.versions, theirs)
        if version is None:
            raise _version_refusal(self.pinned.name, theirs, self.own.name, self.own.versions)
        self._check_names(fields, frame.kind)
        self._check_key(fields, frame.kind)
        _nonce(fields, frame.kind)
        host_key = _string(fields, "host_key", frame.kind)
        if host_key not in self.own.host_keys:
            raise Refusal(
                "unknown_host_key",
                f"{self.pinned.name} reached {self.own.name} through host key "
                f"{printable(host_key, 60)}, which is none of the SSH server of {self.own.name}",
            )
        self._check_host_keys(fields)
        challenge = {
            "version": version,
            "versions": list(self.own.versions),
            "from": self.own.name,
            "to": self.pinned.name,
            "nonce": self._nonce.hex(),
            "instance": self.own.instance,
            "key": self.own.key_fingerprint,
            "release": self.own.release,
        }
        payload = json.dumps(challenge, separators=(",", ":")).encode()
        self._set_transcript(
            version=version,
            dialer=self.pinned.name,
            acceptor=self.own.name,
            dialer_key=self.pinned.key_fingerprint,
            acceptor_key=self.own.key_fingerprint,
            host_key=host_key,
            hello=frame.payload,
            challenge=payload,
        )
        self._established = Established(
            peer=self.pinned.name,
            dialer=self.pinned.name,
            version=version,
            link_id=self._link_id(),
            key=self.pinned.key_fingerprint,
            instance=_string(fields, "instance", frame.kind),
            ended=_string(fields, "ended", frame.kind, optional=True),
            release=printable(_string(fields, "release", frame.kind, optional=True), 40),
        )
        self._expected = Kind.PROOF
        return Step(send=encode(Kind.CHALLENGE, payload))

    def _check_host_keys(self, fields: dict[str, Any]) -> None:
        """Refuse a dialer none of whose host keys is pinned: dialing it would fail as well."""
        claimed = fields.get("host_keys", [])
        if not isinstance(claimed, list) or not all(isinstance(item, str) for item in claimed):
            raise ProtocolError("HELLO: host_keys: expected a list of fingerprints")
        if claimed and not set(claimed) & set(self.pinned.host_keys):
            raise Refusal(
                "unknown_host_key", host_key_sentence(self.own.name, self.pinned, claimed)
            )


def host_key_sentence(own_name: str, pinned: PinnedFacts, seen: list[str]) -> str:
    """Return the sentence for a peer whose host keys, ``seen``, are none of those pinned."""
    got = ", ".join(printable(item, 60) for item in seen[:4])
    expected = ", ".join(pinned.host_keys) or "none"
    return (
        f"the SSH server of {pinned.name} has host key {got}, {own_name} has pinned {expected}; "
        f"if that server was set up anew, run `ha pair {pinned.name}` on {own_name}"
    )


def _secret_sentence(one: str, other: str) -> str:
    first, second = sorted((one, other))
    return f"{first} and {second} have different secrets (ha.default.secret)"
