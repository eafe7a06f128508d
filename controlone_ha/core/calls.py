"""A live call as a document, and how documents of several senders become one view. Pure.

Theory of operation. The Conference Server that anchors a call owns its document and raises
``sequence`` with every change. Whoever takes the call over claims it: ``generation`` + 1, own name
as ``owner``. Documents are ordered by (generation, sequence) and nothing else: no clock, no last
writer. ``CallTable.merge`` keeps the higher one and discards the rest, whoever sends it, so a
message that was late or that a returned owner repeats undoes nothing. An ended call stays as a
tombstone until ``forget``, for the same reason.

What stands in a leg is what another server needs to take it (RFC 3261 dialogs, RFC 3891 Replaces):
the dialog's identifiers from this side (``local_tag`` is ours), where requests go, and what was
agreed about media and session timer. What the engine cannot know is None: for Asterisk the CSeq
numbers and the SDP texts; an adopter chooses a CSeq far above any that can have been used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

JsonObject = dict[str, Any]

SNAPSHOT = 200
"""Documents in one line of a local socket: of 1.5 to 4 kB each, far from its limit of 1 MiB."""
MAX_LEGS = 64
MAX_TEXT = 1024
MAX_ROUTES = 16


class CallState(StrEnum):
    """RINGING: early; QUEUED: waits for a console; UP: answered; HELD: its parties wait; LOST: the
    engine under it died and nobody has taken it yet; ENDED: over.
    """

    QUEUED = "queued"
    RINGING = "ringing"
    UP = "up"
    HELD = "held"
    LOST = "lost"
    ENDED = "ended"


class LegState(StrEnum):
    """EARLY: no final answer yet; CONFIRMED: answered; ENDED: over."""

    EARLY = "early"
    CONFIRMED = "confirmed"
    ENDED = "ended"


@dataclass(frozen=True, kw_only=True)
class Leg:
    """One dialog of a call, seen from the Conference Server.

    ``hold``: "" nobody, "local" we hold the party, "remote" the party holds us. ``incoming``: the
    party called us, so in an early dialog a replacement (Replaces, ``early-only`` apart) is for the
    party that sent the INVITE; ``invite``: ``request_uri`` and, while it is unanswered and came
    without a proxy, ``via`` and ``cseq`` of that INVITE, so that another can answer it.
    """

    id: str
    role: str
    party: str
    state: LegState = LegState.EARLY
    incoming: bool = False
    call_id: str = ""
    local_tag: str = ""
    remote_tag: str = ""
    local_uri: str = ""
    remote_uri: str = ""
    remote_target: str = ""
    route_set: tuple[str, ...] = ()
    transport: str = ""
    local_address: str = ""
    remote_address: str = ""
    local_cseq: int | None = None
    remote_cseq: int | None = None
    local_sdp: str | None = None
    remote_sdp: str | None = None
    codec: str = ""
    hold: str = ""
    session_expires: int = 0
    refresher: str = ""
    invite: Mapping[str, str] = field(default_factory=dict)
    since: float = 0.0
    gateway: str = ""

    @property
    def is_live(self) -> bool:
        """True until the dialog is over."""
        return self.state is not LegState.ENDED

    @property
    def is_complete(self) -> bool:
        """True when another server could name the dialog."""
        return bool(self.call_id and self.local_tag and self.remote_tag)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One live call. Times are wall-clock seconds; ``recording`` names what is being recorded."""

    id: str
    owner: str
    generation: int = 1
    sequence: int = 1
    queue: str = ""
    state: CallState = CallState.QUEUED
    direction: str = "in"
    number: str = ""
    caller: str = ""
    priority: int = 100
    recording: Mapping[str, Any] | None = None
    created: float = 0.0
    answered: float | None = None
    changed: float = 0.0
    reason: str = ""
    room: str = ""
    legs: tuple[Leg, ...] = ()

    @property
    def version(self) -> tuple[int, int]:
        """What documents are ordered by."""
        return self.generation, self.sequence

    @property
    def is_live(self) -> bool:
        """True until the call is over."""
        return self.state is not CallState.ENDED

    def leg(self, leg_id: str) -> Leg | None:
        """Return a leg by its id."""
        return next((leg for leg in self.legs if leg.id == leg_id), None)

    def live_legs(self, role: str = "") -> tuple[Leg, ...]:
        """Return the legs that are not over, of one role or of all."""
        return tuple(leg for leg in self.legs if leg.is_live and role in ("", leg.role))

    def changed_to(self, now: float, **changes: Any) -> Call:
        """Return the next version of this document."""
        return replace(self, sequence=self.sequence + 1, changed=now, **changes)

    def with_leg(self, now: float, leg: Leg, **changes: Any) -> Call:
        """Return the next version with ``leg`` added, or put in the place of its older self."""
        if self.leg(leg.id) is None:
            legs = (*self.legs, leg)
        else:
            legs = tuple(leg if old.id == leg.id else old for old in self.legs)
        return self.changed_to(now, legs=legs, **changes)

    def claimed_by(self, node: str, now: float) -> Call:
        """Return the document by which ``node`` takes the call."""
        return replace(self, owner=node, generation=self.generation + 1, sequence=1, changed=now)

    def to_json(self) -> JsonObject:
        """Return the document as it travels."""
        document = {item.name: getattr(self, item.name) for item in fields(self)}
        document["state"] = self.state.value
        document["legs"] = [_leg_to_json(leg) for leg in self.legs]
        return document


def _leg_to_json(leg: Leg) -> JsonObject:
    document = {item.name: getattr(leg, item.name) for item in fields(leg)}
    document["state"] = leg.state.value
    document["route_set"] = list(leg.route_set)
    return document


def call_from_json(raw: Any) -> Call:
    """Return the call in ``raw``; raise ``ValueError`` saying what is wrong. Unknown is ignored."""
    if not isinstance(raw, Mapping):
        raise ValueError(f"a call is an object, got {type(raw).__name__}")
    legs = raw.get("legs", [])
    if not isinstance(legs, list) or len(legs) > MAX_LEGS:
        raise ValueError(f"legs: expected a list of up to {MAX_LEGS}")
    values = _read(raw, _CALL_FIELDS)
    if not values.get("id") or not values.get("owner"):
        raise ValueError("a call has an id and an owner")
    if values.get("generation", 1) < 1 or values.get("sequence", 1) < 1:
        raise ValueError("generation and sequence begin with 1")
    return Call(**values, legs=tuple(_leg_from_json(leg) for leg in legs))


def _leg_from_json(raw: Any) -> Leg:
    if not isinstance(raw, Mapping):
        raise ValueError(f"a leg is an object, got {type(raw).__name__}")
    values = _read(raw, _LEG_FIELDS)
    for name in ("id", "role", "party"):
        if not isinstance(values.get(name), str):
            raise ValueError(f"a leg has {name}")
    routes = raw.get("route_set", [])
    if not isinstance(routes, list) or len(routes) > MAX_ROUTES:
        raise ValueError(f"route_set: expected a list of up to {MAX_ROUTES}")
    return Leg(**values, route_set=tuple(_text(route, "route_set") for route in routes))


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError(f"{name}: expected a text of up to {MAX_TEXT} characters")
    return value


def _long_text(value: Any, name: str) -> str | None:
    if value is not None and (not isinstance(value, str) or len(value) > 16 * MAX_TEXT):
        raise ValueError(f"{name}: expected a text or null")
    return value


def _integer(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 1 << 53:
        raise ValueError(f"{name}: expected a whole number")
    return value


def _maybe_integer(value: Any, name: str) -> int | None:
    return None if value is None else _integer(value, name)


def _number(value: Any, name: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e12:
        raise ValueError(f"{name}: expected a number")
    return float(value)


def _maybe_number(value: Any, name: str) -> float | None:
    return None if value is None else _number(value, name)


def _flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name}: expected true or false")
    return value


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or len(value) > 32:
        raise ValueError(f"{name}: expected a small object")
    return {_text(key, name): _scalar(item, name) for key, item in value.items()}


def _maybe_object(value: Any, name: str) -> dict[str, Any] | None:
    return None if value is None else _object(value, name)


def _scalar(value: Any, name: str) -> Any:
    if isinstance(value, str):
        return _text(value, name)
    if value is None or isinstance(value, bool | int | float):
        return value
    raise ValueError(f"{name}: expected texts and numbers")


def _call_state(value: Any, name: str) -> CallState:
    return CallState(_text(value, name))


def _leg_state(value: Any, name: str) -> LegState:
    return LegState(_text(value, name))


_CALL_FIELDS: Mapping[str, Any] = {
    **dict.fromkeys(
        ("id", "owner", "queue", "direction", "number", "caller", "reason", "room"), _text
    ),
    **dict.fromkeys(("generation", "sequence", "priority"), _integer),
    **dict.fromkeys(("created", "changed"), _number),
    "state": _call_state,
    "answered": _maybe_number,
    "recording": _maybe_object,
}

_LEG_FIELDS: Mapping[str, Any] = {
    **dict.fromkeys(
        (
            "id", "role", "party", "call_id", "local_tag", "remote_tag", "local_uri", "remote_uri",
            "remote_target", "transport", "local_address", "remote_address", "codec", "hold",
            "refresher", "gateway",
        ),
        _text,
    ),
    **dict.fromkeys(("local_cseq", "remote_cseq"), _maybe_integer),
    **dict.fromkeys(("local_sdp", "remote_sdp"), _long_text),
    "state": _leg_state,
    "incoming": _flag,
    "session_expires": _integer,
    "since": _number,
    "invite": _object,
}  # fmt: skip


def _read(raw: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    return {name: check(raw[name], name) for name, check in known.items() if name in raw}


class CallTable:
    """Calls by id, each in its newest version; ended ones as tombstones."""

    def __init__(self) -> None:
        self._calls: dict[str, Call] = {}

    def __len__(self) -> int:
        return sum(call.is_live for call in self._calls.values())

    def __iter__(self) -> Iterator[Call]:
        return iter([call for call in self._calls.values() if call.is_live])

    def get(self, call_id: str) -> Call | None:
        """Return a call, tombstones included."""
        return self._calls.get(call_id)

    def merge(self, call: Call) -> bool:
        """Take a document; return whether it was newer than what is here."""
        known = self._calls.get(call.id)
        if known is not None and known.version >= call.version:
            return False
        self._calls[call.id] = call
        return True

    def live_of(self, owner: str) -> tuple[Call, ...]:
        """Return the live calls of one owner."""
        return tuple(call for call in self if call.owner == owner)

    def end_missing(self, owner: str, present: Iterable[str], now: float) -> tuple[Call, ...]:
        """Drop what ``owner`` has no more, by its own complete list; return what was dropped.

        They become tombstones of the version that is known: the owner's next word is newer.
        """
        kept = set(present)
        gone = tuple(call for call in self.live_of(owner) if call.id not in kept)
        for call in gone:
            ended = replace(call, state=CallState.ENDED, reason="not listed", changed=now)
            self._calls[call.id] = ended
        return gone

    def forget(self, before: float) -> int:
        """Remove tombstones older than ``before`` (their ``changed``); return how many."""
        old = [
            call.id for call in self._calls.values() if not call.is_live and call.changed < before
        ]
        for call_id in old:
            del self._calls[call_id]
        return len(old)
