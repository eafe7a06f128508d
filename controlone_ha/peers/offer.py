"""The offer by which a node asks to be pinned: one JSON object. Sans-I/O.

``{"controlone_pair": 1, "release": "…", "node": {name, public_key, certificate, host_keys,
addresses, ssh_port}}``. Its fingerprint covers all that is trusted afterwards (name, key,
certificate and host keys, but not addresses), so two people can compare one short text when an
offer travels by other means than an SSH login.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace

from controlone_ha import __version__
from controlone_ha.errors import TrustError
from controlone_ha.peers import keys
from controlone_ha.peers.pins import Pin, pin_from_json

OFFER_VERSION = 1
MAX_OFFER = 1 << 16


def encode_offer(pin: Pin) -> str:
    """Return the offer of the node that ``pin`` describes, one line."""
    node = pin.as_json()
    del node["added"]
    return json.dumps({"controlone_pair": OFFER_VERSION, "release": __version__, "node": node})


def decode_offer(text: str) -> Pin:
    """Return the node in an offer; raise ``TrustError`` saying what is wrong with it."""
    if len(text) > MAX_OFFER:
        raise TrustError(f"offer of {len(text)} characters, expected at most {MAX_OFFER}")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TrustError(f"expected an offer in JSON, got {text[:60]!r}") from error
    if not isinstance(fields, dict) or "controlone_pair" not in fields:
        raise TrustError(f"not an offer of a ControlONE node: {text[:60]!r}")
    version = fields["controlone_pair"]
    if version != OFFER_VERSION:
        raise TrustError(
            f"offer of version {version!r}, this node understands {OFFER_VERSION}; "
            "upgrade the older one"
        )
    return replace(pin_from_json(fields.get("node")), added="")


def offer_fingerprint(pin: Pin) -> str:
    """Return ``SHA256:…`` over everything of an offer that is trusted once it is taken."""
    parts = [
        pin.name.encode(),
        keys.key_blob(pin.public_key),
        keys.certificate_der(pin.certificate),
        *sorted(keys.key_blob(line) for line in pin.host_keys),
    ]
    whole = b"controlone-ha offer" + b"".join(len(p).to_bytes(4, "big") + p for p in parts)
    return "SHA256:" + base64.b64encode(hashlib.sha256(whole).digest()).rstrip(b"=").decode()
