"""The node's door: what other nodes may ask on TCP/7551 once they have proven who they are.

A node shows its certificate in the TLS handshake; it must be pinned here. Then both ends prove the
cluster's secret: HMAC-SHA256 with the key ``node door`` over role, the certificates of both and a
nonce of each. So neither a stolen certificate nor the secret alone opens it, a proof fits one
connection only, and none can be sent back to who made it. To everybody else these methods do not
exist. `ha` is not needed for any of this, nor need this Console Server serve consoles.

``node.hello {"nonce"}`` → ``{"nonce", "proof"}``; ``node.prove {"proof"}`` → ``{}``; then
``node.follow`` → ``{"calls"}`` with notifications ``node.call``, and ``node.conference {"method",
"params"}``, which carries a request to this node's Conference Server.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from controlone_ha.core.calls import SNAPSHOT
from controlone_ha.errors import PeerError
from controlone_ha.jsonrpc import INVALID_PARAMS, METHOD_NOT_FOUND, RpcError

log = logging.getLogger("server")

Json = dict[str, Any]

NOT_PROVEN = -32006
NO_CONFERENCE = -32020
ALLOWED = frozenset(
    ("dial", "answer", "hold", "resume", "transfer", "add", "remove", "hangup", "record", "calls")
)
"""Methods of a Conference Server that are for other nodes."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """Makes and checks proofs of the secret. ``own``: SHA-256 of this node's certificate."""

    key: bytes
    own: str

    def make(self, role: str, server: str, client_nonce: str, server_nonce: str) -> str:
        """Return this node's proof as ``role``, "client" or "server", towards that server."""
        return self._digest(role, self.own, server, client_nonce, server_nonce)

    def _digest(self, role: str, prover: str, *parts: str) -> str:
        text = "\n".join(("controlone node door, version 1", role, prover, *parts))
        return hmac.new(self.key, text.encode("utf-8", "replace"), "sha256").hexdigest()

    def is_right(
        self, role: str, prover: str, client_nonce: str, server_nonce: str, proof: str
    ) -> bool:
        """Tell whether the other end, whose certificate is ``prover``, has proven the secret."""
        server = self.own if role == "client" else prover
        wanted = self._digest(role, prover, server, client_nonce, server_nonce)
        return hmac.compare_digest(wanted.encode(), proof.encode("utf-8", "replace"))


class Visitor(Protocol):
    """A connection on TCP/7551 as the door sees it."""

    door: Visit | None

    def peer_certificate_sha256(self) -> str: ...

    def notify(self, method: str, params: Json) -> None: ...

    def close(self, cause: str) -> None: ...


class Conference(Protocol):
    """The Conference Server of this node."""

    calls: dict[str, Json]

    async def ask(self, method: str, params: Json) -> Any: ...


@dataclass
class Visit:
    """How far a node has come."""

    node: str
    client_nonce: str
    server_nonce: str
    is_proven: bool = False
    is_following: bool = False


class NodeDoor:
    """Serves the nodes that ``name_of`` knows by their certificates."""

    def __init__(
        self,
        name_of: Callable[[str], str | None],
        proof: Callable[[], Proof],
        conference: Conference,
    ) -> None:
        self._name_of = name_of
        self._proof = proof
        self._conference = conference
        self.followers: set[Visitor] = set()

    async def handle(self, visitor: Visitor, method: str, params: Json) -> Any:
        """Serve one request of a node; raise ``RpcError``."""
        node = self._name_of(visitor.peer_certificate_sha256())
        if node is None:
            raise RpcError(METHOD_NOT_FOUND, f"no method {method[:64]!r} here")
        if method == "node.hello":
            return self._hello(visitor, node, params)
        visit = visitor.door
        if method == "node.prove":
            return self._prove(visitor, visit, params)
        if visit is None or not visit.is_proven or visit.node != node:
            raise RpcError(NOT_PROVEN, "prove the secret first", {"code": "not_proven"})
        if method == "node.follow":
            visit.is_following = True
            self.followers.add(visitor)
            calls = list(self._conference.calls.values())
            for call in calls[SNAPSHOT:]:
                visitor.notify("node.call", call)
            return {"calls": calls[:SNAPSHOT], "all": [call["id"] for call in calls]}
        if method == "node.conference":
            wanted, inner = params.get("method"), params.get("params") or {}
            if wanted not in ALLOWED or not isinstance(inner, dict):
                raise RpcError(INVALID_PARAMS, "method: not one that is for other nodes")
            try:
                return await self._conference.ask(str(wanted), inner)
            except PeerError as error:
                raise RpcError(NO_CONFERENCE, str(error), {"code": "no_conference"}) from error
        raise RpcError(METHOD_NOT_FOUND, f"no method {method[:64]!r} here")

    def _hello(self, visitor: Visitor, node: str, params: Json) -> Json:
        nonce = params.get("nonce")
        if not isinstance(nonce, str) or not 32 <= len(nonce) <= 128:
            raise RpcError(INVALID_PARAMS, "nonce: expected 32 to 128 characters")
        proof = self._proof()
        visit = Visit(node=node, client_nonce=nonce, server_nonce=secrets.token_hex(32))
        visitor.door = visit
        made = proof.make("server", proof.own, nonce, visit.server_nonce)
        return {"nonce": visit.server_nonce, "proof": made}

    def _prove(self, visitor: Visitor, visit: Visit | None, params: Json) -> Json:
        prover = visitor.peer_certificate_sha256()
        if visit is not None and not visit.is_proven:
            given = str(params.get("proof"))
            nonces = visit.client_nonce, visit.server_nonce
            if self._proof().is_right("client", prover, *nonces, given):
                visit.is_proven = True
                log.info("node %s has come through the door", visit.node)
                return {}
        log.warning("node door: %s does not prove the secret", visit.node if visit else "a node")
        visitor.close("does not prove the secret of this cluster")
        raise RpcError(NOT_PROVEN, "this is not the secret of this cluster", {"code": "secret"})

    def call_changed(self, call: Json) -> None:
        """Tell the nodes that follow."""
        for visitor in list(self.followers):
            visitor.notify("node.call", call)

    def check(self) -> None:
        """The pins have changed: whoever is no node any more goes."""
        for visitor in list(self.followers):
            if self._name_of(visitor.peer_certificate_sha256()) is None:
                self.gone(visitor)
                visitor.close("is not pinned any more")

    def gone(self, visitor: Visitor) -> None:
        """Forget a connection that has ended."""
        self.followers.discard(visitor)
