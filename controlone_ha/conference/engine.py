"""What the Conference Server asks of a call engine, and what the engine tells it.

Small on purpose, so that another engine can stand behind it: legs (one SIP dialog each), rooms (in
which legs hear each other), recordings of rooms, and a survey of what exists, for a controller that
was restarted. Leg, room and recording names are chosen by the caller, except for the legs of
parties that call in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from controlone_ha.core.admission import Refusal
from controlone_ha.core.calls import Leg
from controlone_ha.errors import ControlOneError


class EngineError(ControlOneError):
    """The engine did not do what it was asked; ``status`` is its answer, 0 when there was none."""

    code = "engine"

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status

    @property
    def is_gone(self) -> bool:
        """True when what it was about does not exist (any more)."""
        return self.status == 404


@dataclass(frozen=True, kw_only=True)
class Dialog:
    """Identifiers of a leg's dialog, from our side; empty where the engine cannot tell.
    ``invite_via``, ``invite_cseq``: of the INVITE of a party that called us without a proxy.
    """

    call_id: str = ""
    local_tag: str = ""
    remote_tag: str = ""
    local_uri: str = ""
    remote_uri: str = ""
    remote_target: str = ""
    local_address: str = ""
    remote_address: str = ""
    transport: str = ""
    route_set: tuple[str, ...] = ()
    codec: str = ""
    session_expires: int = 0
    refresher: str = ""
    request_uri: str = ""
    invite_via: str = ""
    invite_cseq: str = ""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Whom to call: a SIP URI, through a gateway or (empty) directly."""

    uri: str
    gateway: str = ""
    answer_at_once: bool = False
    replaces: str = ""


# --- what the engine tells -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Up:
    """The engine is connected. ``identity``: another one means that the engine was started anew, so
    every leg of before is gone. ``age``: seconds since its start.
    """

    identity: str
    age: float


@dataclass(frozen=True, kw_only=True)
class Down:
    """The connection to the engine is lost. ``is_dead``: nothing listens there any more."""

    is_dead: bool


@dataclass(frozen=True, kw_only=True)
class Offered:
    """Somebody calls ``number``; ``gateway`` is empty when the caller's address is no gateway's."""

    leg: str
    number: str
    caller: str
    gateway: str
    dialog: Dialog | None


@dataclass(frozen=True, kw_only=True)
class Ringing:
    """The called party rings or sends early media."""

    leg: str


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The called party has answered."""

    leg: str


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A leg is over. ``status``: SIP status of a refused one as far as known, else 0."""

    leg: str
    status: int
    cause: int


@dataclass(frozen=True, kw_only=True)
class HoldChanged:
    """The party put us on hold, or came back."""

    leg: str
    is_held: bool


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A recording is over. ``seconds`` of audio; ``is_failed``: it could not be made."""

    name: str
    seconds: float
    is_failed: bool


Event = Up | Down | Offered | Ringing | Answered | Ended | HoldChanged | Recorded


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What exists in the engine: leg -> is it answered; room -> its legs; running recordings."""

    legs: Mapping[str, bool] = field(default_factory=dict)
    rooms: Mapping[str, Sequence[str]] = field(default_factory=dict)


class EngineListener(Protocol):
    """Who is told. Must return at once."""

    def on_engine(self, event: Event) -> None: ...


class Engine(Protocol):
    """A call engine. Coroutines raise ``EngineError``; to hang up what is gone is no error."""

    @property
    def is_up(self) -> bool: ...

    async def start(self, listener: EngineListener) -> None: ...

    async def stop(self) -> None: ...

    async def call(self, leg: str, target: Target, *, caller: str, timeout: float) -> None: ...

    async def ring(self, leg: str) -> None: ...

    async def stop_ringing(self, leg: str) -> None: ...

    async def answer(self, leg: str) -> None: ...

    async def hang_up(self, leg: str, refusal: Refusal | None = None) -> None: ...

    async def dialog(self, leg: str) -> Dialog: ...

    async def open_room(self, room: str, legs: Sequence[str]) -> None: ...

    async def join(self, room: str, legs: Sequence[str]) -> None: ...

    async def leave(self, room: str, legs: Sequence[str]) -> None: ...

    async def close_room(self, room: str) -> None: ...

    async def record(self, room: str, name: str) -> None: ...

    async def stop_recording(self, name: str) -> None: ...

    async def copy_audio(self, room: str, leg: str, address: str) -> None: ...

    async def survey(self) -> Survey: ...

    async def reload(self) -> None: ...


# --- dialogs that are adopted instead of replaced ------------------------------------------------


class AdoptionError(ControlOneError):
    """A leg was not adopted. ``outcome``: gone (481), already_taken (500: the party has seen the
    CSeq of a newer generation), unreachable (no answer, no way), cancelled, refused (any other
    ``status``), unusable (the document lacks what it takes), unavailable (no port is open).
    """

    code = "adoption"

    def __init__(self, outcome: str, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.outcome = outcome
        self.status = status


@dataclass(frozen=True, kw_only=True)
class AdoptedLeg:
    """What ``adopt`` gives: the engine's name of the leg, and the document's leg as it is now. Its
    dialog stays the party's: what the engine tells of its own call to us is of no use to a peer, so
    ``Engine.dialog`` must not be asked for such a leg.
    """

    name: str
    leg: Leg


class Adopter(Protocol):
    """Takes dialogs over of parties that do not know Replaces, and leads them to their end."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the legs that are adopted or being so, those of before a restart included."""

    async def adopt(
        self, leg: Leg, generation: int, *, name: str, caller: str = "", timeout: float = 10.0
    ) -> AdoptedLeg:
        """Take the dialog of ``leg`` as the owner of ``generation``; ``name``: of the engine's leg.

        The engine calls an ordinary leg ``name``, which rings, is answered or ends as any called
        one (``Answered`` comes before or after this returns, so the caller has to know the name
        already); hold, hang-up and rooms are the engine's as ever. Returns when the party has
        accepted; raises ``AdoptionError``. ``timeout``: seconds the party has; past it, it is
        cancelled. Hanging the leg up says BYE to the party.
        """

    def leg_of(self, name: str, leg: Leg) -> Leg:
        """Return ``leg`` with what the adopted dialog has become: target, CSeq, SDP, timer."""

    async def end(self, leg: Leg, generation: int) -> None:
        """Say BYE in a dialog that is not taken, as its call is over: its party sits in a call with
        nobody else. Nothing is raised: a party that cannot be reached is not there.
        """

    async def turn_away(self, leg: Leg) -> None:
        """Answer the INVITE of a party that still waits with 503, in the place of the server that
        is gone: its side tries elsewhere at once instead of when it is tired. Nothing is raised.
        """

    def forget(self, name: str) -> None:
        """Another node owns the call: end the engine's leg without a word to the party."""
