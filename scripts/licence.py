"""Makes the vendor's key pair and signs licences: for the vendor, never on a customer's machine.

python scripts/licence.py key FILE
    makes a private key (0600) and prints the public one, for ``controlone_ha.peers.licences``
python scripts/licence.py sign FILE SERIAL [--customer NAME] [--node SHA256:…] [--expires DATE]
    prints a licence for one master, signed with the private key in FILE
"""

from __future__ import annotations

import argparse
import base64
import os
import secrets
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from controlone_ha.core.licences import PRODUCT  # noqa: E402
from controlone_ha.peers.licences import sign  # noqa: E402


def public_half(private_key: bytes) -> str:
    """Return base64 of the public key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(private_key).public_key()
    return base64.b64encode(key.public_bytes_raw()).decode()


def main() -> int:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description="The vendor's licences")
    orders = parser.add_subparsers(dest="order", required=True)
    key = orders.add_parser("key")
    key.add_argument("file", type=Path)
    one = orders.add_parser("sign")
    one.add_argument("file", type=Path)
    one.add_argument("serial")
    one.add_argument("--customer", default="")
    one.add_argument("--node", action="append", default=[])
    one.add_argument("--expires", default="")
    given = parser.parse_args()
    if given.order == "key":
        made = secrets.token_bytes(32)
        handle = os.open(given.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(base64.b64encode(made) + b"\n")
        print(public_half(made))
        return 0
    fields = {
        "product": PRODUCT,
        "serial": given.serial,
        "customer": given.customer,
        "nodes": given.node,
        "issued": time.strftime("%Y-%m-%d", time.gmtime()),
        "expires": given.expires,
    }
    sys.stdout.buffer.write(sign(fields, base64.b64decode(given.file.read_bytes())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
