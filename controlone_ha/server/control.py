"""The control socket of the Console Server: orders of `ha`, and what people and siblings ask.

``enable``, ``disable``, ``publish`` and ``status`` are the orders (docs/console-protocol.md).
``events {"kinds"?}`` subscribes to ``lost`` and ``presence``; ``presence`` is the snapshot to begin
with. ``consoles``, ``approve`` and ``revoke`` are the administration of consoles.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controlone_ha import jsonrpc
from controlone_ha.core.credentials import verification_code
from controlone_ha.errors import RefusedError, TrustError
from controlone_ha.jsonrpc import INVALID_PARAMS, RpcError
from controlone_ha.paths import NodePaths
from controlone_ha.peers.keys import certificate_sha256
from controlone_ha.peers.pins import Pin
from controlone_ha.peers.rotation import own_certificates
from controlone_ha.peers.trust import TrustStore
from controlone_ha.server.book import ConsoleBook

if TYPE_CHECKING:
    from controlone_ha.server.shell import ConsoleService

KINDS = frozenset(("lost", "presence"))

Json = dict[str, Any]


class NodeAccess:
    """Who may log in at this node and which servers it introduces: the book and the pins."""

    def __init__(
        self,
        book: ConsoleBook,
        pins_file: Path,
        certificate: Path,
        node: str,
        paths: NodePaths | None = None,
    ) -> None:
        """``paths``: where a second certificate of this node lies while its key is changed."""
        self.book = book
        self.node = node
        self.own_pin = certificate_sha256(certificate.read_text())
        self._certificate = certificate
        self._paths = paths
        self._trust = TrustStore(pins_file)
        self._pins: list[tuple[str, str]] = []
        self._pinned: Mapping[str, Pin] | None = None
        self._own: list[str] = own_certificates(paths) if paths is not None else []

    def refusal_of(self, name: str, token: str | None) -> tuple[str, str] | None:
        """Return why a login is refused; see ``ConsoleBook``."""
        return self.book.refusal_of(name, token)

    def verifier(self, name: str) -> str | None:
        """Return the verifier of an enrolled console."""
        return self.book.verifier(name)

    def is_expelled(self, address: str) -> bool:
        """Tell whether a node that was expelled from the cluster had this address."""
        try:
            return address in self._trust.expelled_addresses()
        except TrustError:
            return False  # `ha` tells of a file that cannot be read

    def pins(self) -> list[tuple[str, str]]:
        """Return name and certificate of this node and of its peers.

        A second certificate that counts while a node changes its key stands under the node's name,
        a dot and its own beginning: consoles take unknown names, and never another certificate
        for a known one.
        """
        pinned = self._trust.pins()
        if pinned is not self._pinned:
            self._pinned = pinned
            found = {name: pin.certificates_sha256 for name, pin in pinned.items()}
            own = [certificate_sha256(text) for text in self._own]
            found[self.node] = (self.own_pin, *(pin for pin in own if pin != self.own_pin))
            self._pins = sorted(
                (name if number == 0 else f"{name}.{pin[:8]}", pin)
                for name, pins in found.items()
                for number, pin in enumerate(pins)
            )
        return self._pins

    def take_own(self) -> None:
        """Read this node's own certificates again."""
        if self._paths is None:
            return
        try:
            found = own_certificates(self._paths)
        except OSError:
            return  # between two steps of a change: the next look finds it
        if found != self._own:
            self._own = found
            self.own_pin = certificate_sha256(self._certificate.read_text())
            self._pinned = None

    def name_of_certificate(self, sha256: str) -> str | None:
        """Return the peer that is pinned with this certificate."""
        try:
            pinned = self._trust.pins()
        except TrustError:
            return None
        found = (name for name, pin in pinned.items() if sha256 in pin.certificates_sha256)
        return next((name for name in found if name != self.node), None)

    def certificates_of(self, name: str) -> tuple[str, ...]:
        """Return the SHA-256 of the certificates that count of a peer; raise ``TrustError``."""
        pin = self._trust.pins().get(name)
        return pin.certificates_sha256 if pin is not None else ()

    def certificates(self) -> list[str]:
        """Return the certificates of the peers as PEM; none when they cannot be read."""
        try:
            return [text for pin in self._trust.pins().values() for text in pin.certificates]
        except TrustError:
            return []

    def known(self) -> list[str]:
        """Return every certificate that counts, this node's own included, to see changes."""
        self.take_own()
        return [*self._own, *self.certificates()]


class Control:
    """Answers the control socket for ``service``."""

    def __init__(self, service: ConsoleService) -> None:
        self._service = service
        access = service.core.access
        self._access = access if isinstance(access, NodeAccess) else None

    def book_changed(self) -> bool:
        """Tell whether the book of consoles has to be read again."""
        return self._access is not None and self._access.book.changed()

    async def handle(self, connection: jsonrpc.Connection, method: str, params: Json) -> Any:
        """Serve one request."""
        service = self._service
        if method == "status":
            return service.status()
        if method == "events":
            kinds = params.get("kinds")
            if kinds is not None and not (isinstance(kinds, list) and KINDS.issuperset(kinds)):
                raise RpcError(INVALID_PARAMS, f"kinds: expected a list of {sorted(KINDS)}")
            connection.context["events"] = frozenset(kinds or ())
            return service.core.presence()
        if method == "presence":
            return service.core.presence()
        if method == "consoles":
            return self._consoles()
        if method == "approve":
            return self._approve(params)
        if method == "revoke":
            book = self._book()
            book.revoke(_text(params, "console"), by=_text(params, "by"))
            service.check_credentials()
            return self._consoles()
        service.obey(service.core.ordered(method, params, time.time()))
        return service.status()

    def _book(self) -> ConsoleBook:
        if self._access is None:
            raise RefusedError("this server keeps no book of consoles")
        return self._access.book

    def _consoles(self) -> Json:
        book, core, now = self._book(), self._service.core, self._service.loop.time()
        assert self._access is not None
        core.pending.expire(now)
        return {
            "required": book.is_required,
            "problem": book.problem,
            "connected": core.connected_consoles(now),
            "enrolled": [
                {
                    "console": item.name,
                    "enrolled": item.enrolled,
                    "by": item.by,
                    "revoked": item.is_revoked,
                }
                for item in sorted(book.consoles().values(), key=lambda item: item.name)
            ],
            "pending": [
                {
                    "console": item.console,
                    "address": item.address,
                    "software": item.software,
                    "seconds": now - item.since,
                    "asked_seconds_ago": now - item.asked,
                }
                for item in core.pending.all()
            ],
        }

    def _approve(self, params: Json) -> Json:
        """Enrol the console whose code was typed: the code names one request, not only a name."""
        book, core = self._book(), self._service.core
        assert self._access is not None
        name, code, by = (_text(params, field) for field in ("console", "code", "by"))
        requests = core.pending.of(name)
        if not requests:
            raise RefusedError(
                f"{name} does not ask to be enrolled here; run `console enrol` on it"
            )
        wanted = code.replace("-", "").upper()
        for item in requests:
            right = verification_code(name, self._access.own_pin, item.verifier)
            if right.replace("-", "") == wanted:
                book.approve(name, item.verifier, by=by, now=time.time())
                core.pending.settle(name)
                self._service.check_credentials()
                return {"console": name, "replaced": False}
        raise RefusedError(
            f"the code is not that of the request of {name}: typed wrongly, or somebody stands"
            " between the console and this node"
        )


def _text(params: Json, field: str) -> str:
    value = params.get(field)
    if not isinstance(value, str) or not 0 < len(value) <= 128:
        raise RpcError(INVALID_PARAMS, f"{field}: expected a text")
    return value
