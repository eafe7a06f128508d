"""pymongo clients for the own database and the peers'."""

from __future__ import annotations

import time
from typing import Any

from pymongo import MongoClient

from controlone_ha.probes.database import DatabaseTarget, Finding, classify, knock

CONNECT_MS = 5_000
KNOCK = 2.0
SELECT_MS = 2_000
SOCKET_MS = 30_000


def open_client(target: DatabaseTarget, *, own: bool, name: str = "") -> MongoClient[Any]:
    """Return a client that connects with its first command. Raises ``OSError`` for files of ours.

    The peers' are read only, by three threads; the own one is used by all.
    """
    options: dict[str, Any] = {
        "directConnection": True,
        "connect": False,
        "retryWrites": False,  # rows have numbers: a write that may have happened is looked for
        "retryReads": False,
        "connectTimeoutMS": CONNECT_MS,
        "serverSelectionTimeoutMS": SELECT_MS,
        "socketTimeoutMS": SOCKET_MS if not own else 2 * SOCKET_MS,
        "maxPoolSize": 60 if own else 8,
        "heartbeatFrequencyMS": 10_000,
        "serverMonitoringMode": "poll",
        "appname": f"controlone-ha {name}".strip(),
    }
    if target.ca_file:
        options |= {"tls": True, "tlsCAFile": target.ca_file, "tlsAllowInvalidHostnames": True}
        if target.certificate_key_file:
            options["tlsCertificateKeyFile"] = target.certificate_key_file
    if target.user:
        options |= {
            "username": target.user,
            "password": target.password,
            "authSource": target.auth_source,
            "authMechanism": "SCRAM-SHA-256",
        }
    return MongoClient(target.host, target.port, **options)


def find_trouble(target: DatabaseTarget, client: MongoClient[Any], error: BaseException) -> Finding:
    """Return the word and the sentence for what ended a connection; may take two seconds.

    pymongo tells a refused port as a text only, so the port is tried.
    """
    finding = knock(target, time.monotonic() + KNOCK)
    if finding is not None:
        return finding
    servers = client.topology_description.server_descriptions().values()
    return classify(error, [item.error for item in servers if item.error is not None])
