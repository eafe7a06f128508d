"""Joins this Console Server to Conference Servers and opens the node's door; composition only."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from controlone_ha.errors import PeerError, UciError
from controlone_ha.logs import hide
from controlone_ha.paths import NodePaths
from controlone_ha.peers.secret import cluster_keys
from controlone_ha.server.calls import CallCarrier
from controlone_ha.server.conference_links import ConferenceLink, Door, LocalLink, RemoteLink
from controlone_ha.server.control import NodeAccess
from controlone_ha.server.door import NodeDoor, Proof
from controlone_ha.server.shell import Calls, ConsoleService
from controlone_ha.server.tls import server_context
from controlone_ha.uci import load

log = logging.getLogger("server")

LOCAL = "local"
PORT = 7551


def join(
    service: ConsoleService,
    paths: NodePaths,
    access: NodeAccess,
    conference: Sequence[str],
    spread: str,
) -> Calls:
    """Return what answers about calls. ``conference``: "local" or names of nodes."""

    def proof() -> Proof:
        return Proof(key=cluster_keys(_secret(paths.config_dir)).node_door, own=access.own_pin)

    local = LocalLink(paths.conference_socket)
    links: list[ConferenceLink] = []
    for name in dict.fromkeys(conference):
        if name in (LOCAL, access.node):
            links.append(local)
        else:
            links.append(_remote(name, service, paths, access, proof))
    carrier = CallCarrier(links, service.tell_console, spread=spread, anchored=(local,))
    door = NodeDoor(access.name_of_certificate, proof, local)
    to_consoles = carrier.call_changed

    def changed(link: ConferenceLink, call: dict[str, Any]) -> None:
        to_consoles(link, call)
        door.call_changed(call)

    local.on_call = changed

    def pins_changed() -> None:
        door.check()
        try:
            service.context = context_of(paths, access)
        except OSError as error:
            log.error("the certificates of the peers are not taken: %s", error)

    return Calls(carrier=carrier, door=door, certificates=access.known, pins_changed=pins_changed)


def _remote(
    name: str, service: ConsoleService, paths: NodePaths, access: NodeAccess, proof: Any
) -> RemoteLink:
    def find() -> Door:
        pins = access.certificates_of(name)
        if not pins:
            raise PeerError(f"{name} is not paired with this node")
        for server in service.core.order.servers:
            if server.get("name") == name and server.get("address"):
                port = int(server.get("port") or PORT)
                return Door(host=str(server["address"]), port=port, certificates_sha256=pins)
        raise PeerError(f"the address of {name} is not known yet")

    def context() -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE  # the pin is checked before anything is said
        made.load_cert_chain(paths.certificate_file, paths.key_file)
        return made

    return RemoteLink(name, find, context, proof)


def context_of(paths: NodePaths, access: NodeAccess) -> ssl.SSLContext:
    """Return the server's TLS context for the present pins. Raises ``OSError``."""
    return server_context(paths.certificate_file, paths.key_file, access.certificates())


def _secret(config_dir: Path) -> str:
    """Return the cluster's secret; the rest of the file is the business of `ha`."""
    try:
        package = load(config_dir / "ha")
    except (UciError, OSError) as error:
        raise PeerError(f"the secret of the cluster cannot be read: {error}") from error
    section = package.section("default") or next(package.sections("ha"), None)
    secret = (section.get("secret") if section is not None else None) or ""
    hide(str(secret))
    return str(secret)
