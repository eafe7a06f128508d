"""One of the two dialogs of an adopted leg, and an errand of ours in it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from controlone_ha.sip.dialog import Dialog, dialog_from_json
from controlone_ha.sip.events import Client, Server
from controlone_ha.sip.fields import parse_address
from controlone_ha.sip.message import Request
from controlone_ha.sip.session_timer import SessionTimer, session_timer_from_json

if TYPE_CHECKING:
    from controlone_ha.conference.adoption.pair import Pair


@dataclass
class Side:
    """One of the two dialogs. ``server``: an INVITE of the other side that waits for its answer;
    ``client``: one of ours; ``unacknowledged``: ours, whose ACK waits for an answer to its offer.
    """

    name: str
    dialog: Dialog
    timer: SessionTimer = field(default_factory=SessionTimer)
    server: Server | None = None
    client: Client | None = None
    unacknowledged: Client | None = None
    sdp_sent: bytes = b""
    sdp_received: bytes = b""
    refresh_after: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the side as it is kept."""
        return {
            "dialog": self.dialog.to_json(),
            "timer": self.timer.to_json(),
            "sdp_sent": self.sdp_sent.decode("utf-8", "replace"),
            "sdp_received": self.sdp_received.decode("utf-8", "replace"),
        }


def side_from_json(name: str, raw: Mapping[str, Any], now: float) -> Side:
    """Return a kept side; raise ``ValueError``, ``KeyError`` or ``TypeError`` otherwise."""
    return Side(
        name,
        dialog_from_json(raw["dialog"]),
        session_timer_from_json(raw["timer"], now),
        sdp_sent=str(raw["sdp_sent"]).encode(),
        sdp_received=str(raw["sdp_received"]).encode(),
    )


@dataclass
class Errand:
    """A request of ours that is on its way. ``asker`` and ``server``: on whose behalf; None: our
    own. ``is_first``: the INVITE that adopts.
    """

    pair: Pair
    asked: Side
    method: str
    asker: Side | None = None
    server: Server | None = None
    body: bytes = b""
    kind: str = ""
    is_first: bool = False
    is_authenticated: bool = False
    tries: int = 1
    client: Client | None = None


def engine_side(
    request: Request, *, tag: str, contact: str, via: str, transport: str
) -> Side | None:
    """Return the side of an engine that calls; None when its INVITE lacks what a dialog needs."""
    sender, recipient = parse_address(request.get("From")), parse_address(request.get("To"))
    contacts = request.items("Contact")
    target = parse_address(contacts[0]) if contacts else None
    if sender is None or recipient is None or target is None or not sender.tag:
        return None
    dialog = Dialog(
        call_id=request.get("Call-ID"),
        local_tag=tag,
        remote_tag=sender.tag,
        local_uri=recipient.uri,
        remote_uri=sender.uri,
        remote_target=target.uri,
        transport=transport,
        route_set=tuple(request.items("Record-Route")),
        remote_cseq=request.cseq[0],
        contact=contact,
        via=via,
    )
    dialog.refresh_target(request)
    return Side("engine", dialog)
