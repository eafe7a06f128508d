"""X1: which certificates are let in at TCP/7551: only a pinned one that is not out of its time."""

from __future__ import annotations

import datetime
import hashlib
import ssl
from pathlib import Path

import pytest

from controlone_ha.paths import NodePaths, node_paths
from controlone_ha.peers import keys
from controlone_ha.peers.keys import Identity
from controlone_ha.server.tls import TlsChannel, TlsError, server_context

EXPIRED = datetime.datetime(1999, 12, 31)


def identity(place: Path, name: str, *, ends: datetime.datetime | None = None) -> Identity:
    """A node's own key and certificate; ``ends``: when the certificate's time is over."""
    paths: NodePaths = node_paths({"CONTROLONE_STATE_DIR": str(place / name)})
    with pytest.MonkeyPatch.context() as patch:
        if ends is not None:
            patch.setattr(keys, "_NOT_AFTER", ends)
        return keys.ensure_identity(paths, "m2")


def shown(server: ssl.SSLContext, client: ssl.SSLContext) -> str:
    """Shake hands in memory; return the SHA-256 of the certificate that was let in, "" for none."""
    channel = TlsChannel(server)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    stream = client.wrap_bio(to_client, to_server)
    for _ in range(6):
        try:
            stream.do_handshake()
        except ssl.SSLWantReadError:
            pass
        channel.receive(to_server.read())
        to_client.write(channel.outgoing())
    assert channel.ready
    found = channel.peer_certificate()
    return hashlib.sha256(found).hexdigest() if found else ""


def client_of(identity: Identity | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if identity is not None:
        context.load_cert_chain(identity.certificate_file, identity.key_file)
    return context


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("identities")


def test_X1_a_pinned_certificate_is_let_in_and_a_console_without_one_too(place: Path) -> None:
    own, peer = identity(place, "own"), identity(place, "peer")
    server = server_context(own.certificate_file, own.key_file, [peer.certificate])
    assert shown(server, client_of(peer)) == peer.certificate_sha256
    assert shown(server, client_of(None)) == ""


def test_X1_a_certificate_of_another_cluster_under_a_known_name_is_refused(place: Path) -> None:
    own, peer, foreign = (identity(place, name) for name in ("own", "peer", "foreign"))
    server = server_context(own.certificate_file, own.key_file, [peer.certificate])
    with pytest.raises(TlsError):
        shown(server, client_of(foreign))


def test_X1_a_pinned_certificate_whose_time_is_over_is_refused(place: Path) -> None:
    own, late = identity(place, "own"), identity(place, "late", ends=EXPIRED)
    server = server_context(own.certificate_file, own.key_file, [late.certificate])
    with pytest.raises(TlsError, match="(?i)certificate.verify.failed"):
        shown(server, client_of(late))


def test_X1_two_certificates_of_one_node_count_while_it_changes_its_key(place: Path) -> None:
    own, peer, following = (identity(place, name) for name in ("own", "peer", "following"))
    pins = [peer.certificate, following.certificate]
    server = server_context(own.certificate_file, own.key_file, pins)
    assert shown(server, client_of(peer)) == peer.certificate_sha256
    assert shown(server, client_of(following)) == following.certificate_sha256
