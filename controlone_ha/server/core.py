"""The console protocol as a pure machine: plain bytes and orders in, effects out.

Theory of operation. A connection is a ``Session``: *anonymous* from the moment its TLS is up until
its ``login`` is accepted, then a *console*. An anonymous session may ``ping`` (the watchdogs of the
peers and the background tests of consoles do nothing else) and lives ``login_timeout`` seconds
after its last complete message; a console lives until it closes, is replaced by a newer login under
the same name, breaks a limit, or the server is told to stop serving. Every line gets exactly one
answer if it carries an id. A console that has proven who it is while the server does not serve is
*waiting*: it is told as soon as the server does, so that after a failover its TLS is up already.
Nothing here blocks, reads a clock or touches a socket: time comes in as
``now`` (monotonic seconds, or Unix seconds where ``since`` is meant), and what is to be done comes
out as a list of ``Effect`` in the order in which it must be done. An effect for a session that has
been closed by an earlier effect does not occur.

Bounds: at most ``max_consoles`` logged in and ``max_anonymous`` not, the longest silent being
pushed out for a newcomer, so that a flood of empty connections cannot hide a serving server from
the peers that ping it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

from controlone_ha.core.credentials import is_sha256, pins_digest
from controlone_ha.jsonrpc import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    NOT_SERVING,
    Message,
    RpcError,
    decode,
    encode_error,
    encode_fault,
    encode_request,
    encode_result,
)
from controlone_ha.server.limits import PROTOCOL, Limits
from controlone_ha.server.login import Login, parse_login, parse_monitor, parse_name
from controlone_ha.server.model import (
    Access,
    Ask,
    Close,
    Effect,
    JsonObject,
    Note,
    OpenAccess,
    Record,
    Send,
    Session,
    Tell,
)
from controlone_ha.server.order import SERVING, Order, Why, parse_reason
from controlone_ha.server.pending import PendingTable

NOT_LOGGED_IN = -32002
ALREADY_LOGGED_IN = -32003
LIMIT_EXCEEDED = -32004
PROTOCOL_UNSUPPORTED = -32005
NOT_AUTHENTICATED = -32006
ENROLMENT_REFUSED = -32007
NO_CONFERENCE = -32020

CALL_METHODS = ("calls", "dial", "answer", "hold", "resume", "transfer", "hangup")

Method = Callable[[Session, JsonObject, list[Effect]], JsonObject]


class ConsoleServer:
    """All sessions of the Console Server, and the order they live under."""

    def __init__(
        self, order: Order, limits: Limits | None = None, access: Access | None = None
    ) -> None:
        self.order = order
        self.limits = limits or Limits()
        self.access = access or OpenAccess()
        self.pending = PendingTable()
        self.is_carrying = False
        """Whether somebody answers what is asked about calls, and what nodes ask."""
        self._sessions: dict[int, Session] = {}
        self._anonymous: OrderedDict[int, float] = OrderedDict()  # number → deadline, soonest first
        self._waiting: OrderedDict[int, float] = OrderedDict()
        self._consoles: dict[str, Session] = {}
        self._queues: dict[str, dict[str, Session]] = {}
        self._last_number = 0
        self._methods: dict[str, Method] = {
            "ping": self._ping,
            "login": self._login,
            "servers": self._servers,
            "monitor": self._monitor,
            "enrol": self._enrol,
            **dict.fromkeys(CALL_METHODS, self._call_control),
        }

    # Orders of `ha` ---------------------------------------------------------------------------

    def ordered(self, method: str, params: JsonObject, wall: float) -> Order:
        """Return the order that ``method`` makes of the present one; change nothing.

        The caller keeps it (``order.save``) and only then lets it take effect with ``obey``.
        Raises ``RpcError``: no such method, or parameters that are not as documented.
        """
        if method == "enable":
            reason = parse_reason(params["reason"]) if params.get("reason") else SERVING
            return self.order.enabled(wall, reason)
        if method == "disable":
            return self.order.disabled(wall, parse_reason(params.get("reason")))
        if method == "publish":
            return self.order.published(params)
        raise RpcError(METHOD_NOT_FOUND, f"no method {method[:64]!r} here")

    def obey(self, order: Order) -> list[Effect]:
        """Take ``order`` as the present one; return what follows from it for the consoles."""
        before, self.order = self.order, order
        if before.serving and not order.serving:
            effects: list[Effect] = [
                Note(f"disabled: {order.reason.text}; consoles to move: {len(self._consoles)}")
            ]
            return effects + self._dismiss(order.reason)
        if order.serving and not before.serving:
            waiting = f"; consoles that wait: {len(self._waiting)}" if self._waiting else ""
            line = encode_request("serving", {"node": order.node}, None)
            note = Note(f"enabled: {order.reason.text}{waiting}")
            return [note, *(Send(number, line) for number in self._waiting)]
        if before.servers != order.servers:
            line = encode_request("servers", {"servers": list(order.servers)}, None)
            return [Send(session.number, line) for session in self._consoles.values()]
        return []

    def stop(self, reason: Why) -> list[Effect]:
        """Return what closes every session in order; consoles are told ``reason``."""
        effects = self._dismiss(reason)
        for number in [*self._anonymous, *self._waiting]:
            effects.append(self._end(self._sessions[number], reason.code))
        return effects

    def _dismiss(self, reason: Why) -> list[Effect]:
        line = self._goodbye(reason)
        effects: list[Effect] = []
        for session in list(self._consoles.values()):
            effects.append(Send(session.number, line))
            self._end_console(session, reason.code, effects)
        return effects

    def check_credentials(self) -> list[Effect]:
        """The book has changed: send away who has been revoked or enrolled anew meanwhile."""
        effects: list[Effect] = []
        why = Why(code="revoked", text="the credential of this console is not valid any more")
        for session in list(self._consoles.values()):
            assert session.login is not None
            if session.verifier is not None and (
                self.access.verifier(session.login.console) != session.verifier
            ):
                effects.append(Note(f"console {session.login.console}: {why.text}"))
                effects.append(Send(session.number, self._goodbye(why)))
                self._end_console(session, why.code, effects)
        return effects

    def _goodbye(self, reason: Why) -> bytes:
        return encode_request(
            "goodbye", {"reason": reason.as_json(), "servers": list(self.order.servers)}, None
        )

    # Connections ------------------------------------------------------------------------------

    def connected(self, address: str, now: float) -> tuple[int, list[Effect]]:
        """Return the number of a new anonymous session, and whom it pushes out."""
        effects: list[Effect] = []
        if len(self._anonymous) >= self.limits.max_anonymous:
            oldest = next(iter(self._anonymous))
            effects.append(self._end(self._sessions[oldest], "pushed out"))
        self._last_number += 1
        session = Session(self._last_number, address, now, self.limits.message_burst)
        self._sessions[session.number] = session
        self._anonymous[session.number] = now + self.limits.login_timeout
        return session.number, effects

    def disconnected(self, number: int, cause: str) -> list[Effect]:
        """Forget a session whose connection has ended, for whatever cause."""
        session = self._sessions.get(number)
        if session is None:
            return []
        self._forget(session)
        if session.login is None:
            return []
        effects: list[Effect] = [Note(f"console {session.login.console} left: {cause}")]
        self._left(session, cause, effects)
        return effects

    def expire(self, now: float) -> list[Effect]:
        """Close what has been without login and silent for too long."""
        effects: list[Effect] = []
        for table in self._tables:
            while table:
                number, deadline = next(iter(table.items()))
                if deadline > now:
                    break
                effects.append(self._end(self._sessions[number], "no login"))
        return effects

    @property
    def next_deadline(self) -> float | None:
        """When ``expire`` has something to do; None: never, as things stand."""
        soonest = [next(iter(table.values())) for table in self._tables if table]
        return min(soonest, default=None)

    @property
    def _tables(self) -> tuple[OrderedDict[int, float], OrderedDict[int, float]]:
        return self._anonymous, self._waiting

    @property
    def consoles(self) -> int:
        """Sessions logged in."""
        return len(self._consoles)

    @property
    def connections(self) -> int:
        """Sessions of both kinds."""
        return len(self._sessions)

    def monitoring(self, queue: str) -> tuple[str, ...]:
        """Return the names of the consoles that monitor ``queue``, in order of login."""
        return tuple(self._queues.get(queue, ()))

    def presence(self) -> JsonObject:
        """Return ``{"queues": {queue: [{"console", "sip"}]}}``: who can be rung for what."""
        return {
            "queues": {
                queue: [
                    {"console": name, "sip": session.login.sip}
                    for name, session in members.items()
                    if session.login is not None
                ]
                for queue, members in self._queues.items()
            }
        }

    def session_of(self, console: str) -> int | None:
        """Return the session of a console that is logged in."""
        session = self._consoles.get(console)
        return None if session is None else session.number

    def connected_consoles(self, now: float) -> list[JsonObject]:
        """Return every console logged in: name, address, queues, for how long, software."""
        return [
            {
                "console": name,
                "address": session.address,
                "queues": list(session.login.queues),
                "seconds": now - session.since,
                "software": session.login.software,
                "enrolled": session.verifier is not None,
            }
            for name, session in self._consoles.items()
            if session.login is not None
        ]

    def _end(self, session: Session, cause: str) -> Close:
        self._forget(session)
        return Close(session.number, cause)

    def _forget(self, session: Session) -> None:
        session.closed = True
        session.buffer.clear()
        self._sessions.pop(session.number, None)
        self._anonymous.pop(session.number, None)
        self._waiting.pop(session.number, None)
        if session.login is not None and self._consoles.get(session.login.console) is session:
            del self._consoles[session.login.console]
            self._leave_queues(session, session.login.queues)

    def _end_console(self, session: Session, cause: str, effects: list[Effect]) -> None:
        effects.append(self._end(session, cause))
        self._left(session, cause, effects)

    def _left(self, session: Session, cause: str, effects: list[Effect]) -> None:
        """Tell that a console is gone: to the record, and to who rings consoles."""
        login = session.login
        if login is None or session.since < 0:
            return
        effects.append(Record(self._entry("logout", session, login.console, cause=cause)))
        effects.append(self._presence_of(session, online=False))
        session.since = -1.0  # once only

    def _presence_of(self, session: Session, *, online: bool) -> Tell:
        assert session.login is not None
        return Tell(
            "presence",
            {
                "console": session.login.console,
                "online": online,
                "queues": list(session.login.queues) if online else [],
                "sip": session.login.sip,
            },
        )

    def _entry(self, event: str, session: Session, console: str, **more: object) -> JsonObject:
        return {
            "event": event,
            "node": self.order.node,
            "console": console,
            "address": session.address,
            "session": session.number,
            **more,
        }

    def _enter_queues(self, session: Session, queues: tuple[str, ...]) -> None:
        assert session.login is not None
        for queue in queues:
            self._queues.setdefault(queue, {})[session.login.console] = session

    def _leave_queues(self, session: Session, queues: tuple[str, ...]) -> None:
        assert session.login is not None
        for queue in queues:
            members = self._queues.get(queue, {})
            if members.get(session.login.console) is session:
                del members[session.login.console]
                if not members:
                    del self._queues[queue]

    # Messages ---------------------------------------------------------------------------------

    def received(self, number: int, data: bytes, now: float) -> list[Effect]:
        """Take plain bytes of a session; return the answers and what else follows."""
        session = self._sessions.get(number)
        if session is None:
            return []
        effects: list[Effect] = []
        buffer = session.buffer
        searched = len(buffer)
        buffer += data
        start = 0
        while not session.closed:
            end = buffer.find(b"\n", max(start, searched))
            length = (len(buffer) if end < 0 else end + 1) - start
            if length > self.limits.max_line:
                self._break_off(
                    session, f"a message longer than {self.limits.max_line} bytes", effects
                )
            elif end < 0:
                break
            else:
                line = bytes(buffer[start:end])
                start = end + 1
                if line.strip():
                    self._line(session, line, now, effects)
        del buffer[:start]
        return effects

    def _line(self, session: Session, line: bytes, now: float, effects: list[Effect]) -> None:
        limits = self.limits
        earned = (now - session.updated) * limits.messages_per_second
        session.allowance = min(limits.message_burst, session.allowance + max(0.0, earned)) - 1.0
        session.updated = now
        if session.allowance < 0.0:
            self._break_off(
                session,
                f"more than {limits.messages_per_second:g} messages a second",
                effects,
            )
            return
        if session.login is None:
            table = self._waiting if session.number in self._waiting else self._anonymous
            table[session.number] = now + limits.login_timeout
            table.move_to_end(session.number)
        try:
            message = decode(line)
            if message.method is None:
                raise RpcError(INVALID_REQUEST, "an answer to nothing that was asked")
        except RpcError as error:
            effects.append(Send(session.number, encode_fault(error)))
            session.faults += 1
            if session.faults >= limits.max_faults:
                self._break_off(session, f"{session.faults} messages that are no request", effects)
            return
        if message.id is not None:  # a notification asks for nothing: no method here needs one
            self._request(session, message, effects)

    def _request(self, session: Session, message: Message, effects: list[Effect]) -> None:
        assert message.method is not None
        method = self._methods.get(message.method)
        if self.is_carrying and (
            message.method.startswith("node.")
            or (message.method in CALL_METHODS and session.login is not None)
        ):
            params = message.params or {}
            effects.append(Ask(session.number, message.id, message.method, params, session.login))
            return
        try:
            if method is None:
                raise RpcError(METHOD_NOT_FOUND, f"no method {message.method[:64]!r} here")
            line = encode_result(message.id, method(session, message.params or {}, effects))
        except RpcError as error:
            line = encode_error(message.id, error.number, str(error), error.data)
        if not session.closed:
            effects.append(Send(session.number, line))

    def _break_off(self, session: Session, fault: str, effects: list[Effect]) -> None:
        effects.append(Send(session.number, encode_error(None, LIMIT_EXCEEDED, fault)))
        name = session.login.console if session.login else session.address
        effects.append(Note(f"closed the connection of {name}: {fault}"))
        self._end_console(session, fault, effects)

    # Methods ----------------------------------------------------------------------------------

    def _ping(self, session: Session, params: JsonObject, effects: list[Effect]) -> JsonObject:
        self._refuse_expelled(session, "ping", effects)
        order = self.order
        return {
            "node": order.node,
            "role": order.role,
            "state": order.state,
            "serving": order.serving,
            "reason": order.reason.as_json(),
            "protocol": PROTOCOL,
            "consoles": len(self._consoles),
        }

    def _refuse_expelled(self, session: Session, what: str, effects: list[Effect]) -> None:
        """A node that was expelled is told nothing; who logs in with a token is no such node."""
        if session.login is not None or not self.access.is_expelled(session.address):
            return
        if session.faults == 0:
            effects.append(Note(f"refused {session.address}: the address of an expelled node"))
            effects.append(Record(self._entry("refused", session, what, cause="expelled")))
        session.faults += 1
        raise RpcError(NOT_AUTHENTICATED, "this node was expelled", {"code": "expelled"})

    def _servers(self, session: Session, params: JsonObject, effects: list[Effect]) -> JsonObject:
        if session.login is None:
            raise RpcError(NOT_LOGGED_IN, "log in first")
        return {"servers": list(self.order.servers)}

    def _login(self, session: Session, params: JsonObject, effects: list[Effect]) -> JsonObject:
        if session.login is not None:
            raise RpcError(ALREADY_LOGGED_IN, f"logged in as {session.login.console} already")
        login = parse_login(params)
        if login.protocol > PROTOCOL:
            raise RpcError(
                PROTOCOL_UNSUPPORTED,
                f"protocol {login.protocol} is not spoken here",
                {"code": "protocol", "supported": [PROTOCOL]},
            )
        self._authenticate(session, login, effects)
        self._take_lost(session, login, effects)
        try:
            self._admit(login)
        except RpcError:
            self._let_wait(session)
            raise
        earlier = self._consoles.get(login.console)
        if earlier is not None:
            why = Why(code="replaced", text=f"{login.console} logged in from {session.address}")
            effects.append(Send(earlier.number, self._goodbye(why)))
            self._end_console(earlier, why.code, effects)
        session.login = login
        session.since = session.updated
        self._anonymous.pop(session.number, None)
        self._waiting.pop(session.number, None)
        self._consoles[login.console] = session
        self._enter_queues(session, login.queues)
        lost = f" after losing {login.lost_server}" if login.lost_server else ""
        effects.append(Note(f"console {login.console} logged in from {session.address}{lost}"))
        more = {"queues": list(login.queues), "lost": login.lost_server}
        effects.append(Record(self._entry("login", session, login.console, **more)))
        effects.append(self._presence_of(session, online=True))
        answer: JsonObject = {
            "protocol": PROTOCOL,
            "node": self.order.node,
            "role": self.order.role,
            "state": self.order.state,
            "servers": list(self.order.servers),
        }
        if login.pins is not None:
            pins = self.access.pins()
            if pins and pins_digest(pins) != login.pins:
                answer["pins"] = _pins_json(pins)
        return answer

    def _authenticate(self, session: Session, login: Login, effects: list[Effect]) -> None:
        """Raise ``RpcError`` unless the console is who it says it is."""
        refusal = self.access.refusal_of(login.console, login.token)
        if refusal is None:
            session.verifier = self.access.verifier(login.console)
            return
        code, text = refusal
        session.faults += 1
        effects.append(Note(f"refused {session.address}: {text}"))
        effects.append(Record(self._entry("refused", session, login.console, cause=code)))
        if session.faults >= self.limits.max_faults:
            self._break_off(session, f"{session.faults} logins refused", effects)
        raise RpcError(NOT_AUTHENTICATED, text, {"code": code})

    def _take_lost(self, session: Session, login: Login, effects: list[Effect]) -> None:
        """Tell `ha` what a console reports as lost, also while its login is not accepted: it is
        evidence against that server.
        """
        if login.lost_server is not None and not session.told_lost:
            session.told_lost = True
            params = {
                "console": login.console,
                "server": login.lost_server,
                "calls": list(login.lost_calls),
            }
            effects.append(Tell("lost", params))

    def _let_wait(self, session: Session) -> None:
        """Count a console that may not log in yet among those that are told when it may."""
        if self.order.serving or session.number not in self._anonymous:
            return
        if len(self._waiting) + len(self._consoles) < self.limits.max_consoles:
            self._waiting[session.number] = self._anonymous.pop(session.number)

    def _monitor(self, session: Session, params: JsonObject, effects: list[Effect]) -> JsonObject:
        if session.login is None:
            raise RpcError(NOT_LOGGED_IN, "log in first")
        queues = parse_monitor(params, session.login.queues)
        self._leave_queues(session, session.login.queues)
        session.login = replace(session.login, queues=queues)
        self._enter_queues(session, queues)
        effects.append(self._presence_of(session, online=True))
        return {"queues": list(queues)}

    def _call_control(
        self, session: Session, params: JsonObject, effects: list[Effect]
    ) -> JsonObject:
        if session.login is None:
            raise RpcError(NOT_LOGGED_IN, "log in first")
        raise RpcError(
            NO_CONFERENCE,
            "no Conference Server is joined to this Console Server",
            {"code": "no_conference"},
        )

    def _enrol(self, session: Session, params: JsonObject, effects: list[Effect]) -> JsonObject:
        name, verifier = parse_name(params), params.get("verifier")
        self._refuse_expelled(session, name, effects)
        if not is_sha256(verifier):
            raise RpcError(
                INVALID_PARAMS,
                "verifier: expected 64 hexadecimal digits",
                {"field": "verifier"},
            )
        verifier = str(verifier).lower()
        if self.access.verifier(name) == verifier:
            return {
                "state": "approved",
                "node": self.order.node,
                "pins": _pins_json(self.access.pins()),
            }
        software = params.get("software")
        text = software[:128] if isinstance(software, str) and software.isprintable() else ""
        is_new = not self.pending.of(name)
        now = session.updated
        if self.pending.ask(name, verifier, session.address, text, now) is None:
            raise RpcError(
                ENROLMENT_REFUSED,
                "too many consoles wait for their approval",
                {"code": "too_many"},
            )
        if is_new:
            effects.append(Note(f"console {name} at {session.address} asks to be enrolled"))
        return {"state": "pending", "node": self.order.node}

    def _admit(self, login: Login) -> None:
        """Raise ``RpcError`` (not serving) with reason and servers unless the login may stay."""
        order = self.order
        if not order.serving:
            reason = order.reason
        elif len(self._consoles) >= self.limits.max_consoles and (
            login.console not in self._consoles
        ):
            reason = Why(code="full", text=f"{self.limits.max_consoles} consoles are connected")
        else:
            return
        data = {
            **reason.as_json(),
            "role": order.role,
            "state": order.state,
            "servers": list(order.servers),
        }
        raise RpcError(NOT_SERVING, f"not serving: {reason.text}", data)


def _pins_json(pins: list[tuple[str, str]]) -> list[JsonObject]:
    return [{"name": name, "certificate_sha256": pin} for name, pin in pins]
