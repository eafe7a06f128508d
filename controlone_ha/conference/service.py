"""``run_dir/conference.sock``: what the Console Server, `ha` and the node's door ask for.

JSON-RPC 2.0, one line a message. Methods, parameters and answers: docs/conference.md. A console's
order names the call and the console; it is refused (-32000) with a sentence when it makes no sense.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import re
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from controlone_ha.conference import asterisk, incoming, talking
from controlone_ha.conference.adoption.service import Adoptions
from controlone_ha.conference.ari_engine import AriEngine
from controlone_ha.conference.controller import Controller
from controlone_ha.conference.engine import EngineError, Target
from controlone_ha.conference.followers import SocketFollowers
from controlone_ha.conference.history import History
from controlone_ha.conference.keeper import Keeper
from controlone_ha.conference.live_call import LiveCall
from controlone_ha.conference.presence import Console
from controlone_ha.conference.recordings import Recordings
from controlone_ha.config.settings import load_conference
from controlone_ha.core.calls import call_from_json
from controlone_ha.core.routing import is_dialled_number
from controlone_ha.errors import ControlOneError, RefusedError, ServiceError
from controlone_ha.jsonrpc import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    Connection,
    JsonObject,
    RpcError,
    serve_unix,
)
from controlone_ha.paths import NodePaths
from controlone_ha.probes.child import child_environment
from controlone_ha.records.settings import database_address
from controlone_ha.records.spool import Spool
from controlone_ha.services.console_server import ConsoleServerEvents

log = logging.getLogger("conference")

_SIP = re.compile(r"sips?:[A-Za-z0-9\[\]:.@_+*#%!~$&=?;\-]{1,200}")
_SWEEP_DELAY = 1.0
CONSOLE_SERVER = 0
"""Source of presence that is no connection of ours but the node's Console Server."""


class ConferenceService:
    """The controller process: engine, controller, socket."""

    def __init__(self, paths: NodePaths, node: str) -> None:
        self._paths = paths
        self.node = node
        settings = load_conference(paths.config_dir)
        self.engine = AriEngine(self._access)
        self.spool = Spool(paths.records_dir, "conference", environment=child_environment())
        self.history = History(self.spool)
        self.followers = SocketFollowers(self.history.call_ended)
        directory = paths.asterisk_dir / "spool" / "recording"
        self.recordings = Recordings(self.engine, directory, node)
        self.recordings.on_described = self.history.recorded
        self.controller = Controller(
            self.engine,
            settings,
            node=node,
            keeper=Keeper(paths.run_dir / "conference-calls.jsonl"),
            recordings=self.recordings,
            followers=self.followers,
        )
        self.adoptions = Adoptions(
            self._call_adopted,
            paths.run_dir,
            credentials=self._credentials,
            on_changed=self.controller.adopted_changed,
        )
        self.controller.adopter = self.adoptions
        self._numbers: dict[Connection, int] = {}
        self._number = 0
        self._server: asyncio.AbstractServer | None = None
        self._connections: set[Connection] = set()
        self._stopping = asyncio.Event()
        self._methods: dict[str, Callable[[Connection, JsonObject], Awaitable[Any]]] = {
            "status": self._status,
            "consoles": self._consoles,
            "console": self._console,
            "console_gone": self._console_gone,
            "calls": self._calls,
            "follow": self._follow,
            "peers": self._peers,
            "protected": self._protected,
            "dial": self._dial,
            "answer": self._answer,
            "hold": self._hold,
            "resume": self._resume,
            "transfer": self._transfer,
            "add": self._add,
            "remove": self._remove,
            "hangup": self._hangup,
            "record": self._record,
            "take": self._take,
            "release": self._release,
            "give": self._give,
            "keep": self._keep,
            "order": self._order,
            "reload": self._reload,
        }

    def _access(self) -> asterisk.ControlAccess:
        try:
            return asterisk.control_access(self._paths)
        except ServiceError as error:
            raise EngineError(str(error)) from error

    async def _call_adopted(self, leg: str, uri: str, caller: str, timeout: float) -> None:
        """Have Asterisk call the adoption's user agent, which is no gateway and no console."""
        await self.engine.call(leg, Target(uri=uri), caller=caller, timeout=timeout)

    def _credentials(self, gateway: str) -> tuple[str, str]:
        found = self.controller.settings.gateways.get(gateway)
        return ("", "") if found is None else (found.username, found.password)

    async def _open_adoptions(self) -> None:
        """Open the port of adopted calls; without it, calls are served and replaced as ever."""
        settings = self.controller.settings
        if not settings.adoption_port:
            return
        has_tls = bool(settings.tls_port) and self._paths.key_file.exists()
        try:
            await self.adoptions.start(
                settings.bind,
                settings.adoption_port,
                tls_port=settings.adoption_port + 1 if has_tls else 0,
                certificate=str(self._paths.certificate_file) if has_tls else "",
                key=str(self._paths.key_file) if has_tls else "",
            )
        except OSError as error:
            log.warning("no calls can be adopted: port %d: %s", settings.adoption_port, error)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; calls go on in the engine."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self.controller.spawn(self.reload()))
        await self.start()
        try:
            await self._stopping.wait()
        finally:
            await self.stop()

    async def start(self) -> None:
        """Listen, then lead calls; raise ``RefusedError`` when another controller runs."""
        self._server, self._connections = await serve_unix(
            self._paths.conference_socket, self._handle
        )
        await self._open_adoptions()  # first: their parties may be waiting for an answer
        self._look_for_database()
        self.spool.start()
        await self.controller.start()
        self.controller.spawn(self._sweep())
        console_server = ConsoleServerEvents(
            self._paths.server_socket,
            ("presence",),
            self._console_told,
            self._consoles_told,
            self._consoles_lost,
        )
        self.controller.spawn(console_server.run())
        log.info("started: %s, pid %d", self.node, os.getpid())

    async def stop(self) -> None:
        """Let go of everything; calls stay as they are."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            await connection.close()
        await self.controller.stop()
        self.adoptions.stop()
        await self.recordings.close()
        await self.spool.close()
        self._paths.conference_socket.unlink(missing_ok=True)

    async def _sweep(self) -> None:
        """Repair the recordings that a dead engine left, once those that run are known."""
        while not self.engine.is_up:
            await asyncio.sleep(_SWEEP_DELAY)
        await asyncio.sleep(_SWEEP_DELAY)
        repaired = await asyncio.get_running_loop().run_in_executor(None, self.recordings.sweep)
        for document in repaired:
            self.history.recorded(document)
        if repaired:
            log.info("%d recordings repaired", len(repaired))

    def _look_for_database(self) -> None:
        """Where this node's database is, by its settings."""
        self.spool.address = database_address(self._paths.config_dir)

    async def _handle(self, connection: Connection, method: str, params: JsonObject) -> Any:
        work = self._methods.get(method)
        if work is None:
            raise RpcError(METHOD_NOT_FOUND, f"no method {method!r} here")
        if connection not in self._numbers:
            self._number += 1
            self._numbers[connection] = self._number
            self.controller.spawn(self._watch(connection))
        return await work(connection, params)

    async def _watch(self, connection: Connection) -> None:
        """Clean up behind a connection that ends."""
        with contextlib.suppress(ConnectionError, OSError):
            await connection.writer.wait_closed()
        number = self._numbers.pop(connection, 0)
        self.followers.forget(connection)
        self._source_gone(number)

    def _consoles_told(self, presence: JsonObject) -> None:
        """The Console Server of this node says who is connected."""
        found: dict[str, tuple[set[str], str]] = {}
        for queue, consoles in presence["queues"].items():
            for console in consoles:
                found.setdefault(console["console"], (set(), console["sip"] or ""))[0].add(queue)
        self.controller.presence.replace(
            CONSOLE_SERVER,
            [
                Console(name=name, queues=frozenset(queues), sip=sip if _SIP.fullmatch(sip) else "")
                for name, (queues, sip) in found.items()
            ],
        )
        self.controller.presence_changed()
        log.info("the Console Server is here; %d consoles", len(self.controller.presence))

    def _console_told(self, _kind: str, params: JsonObject) -> None:
        """A console of this node came, changed or went."""
        name, sip = str(params["console"]), str(params.get("sip") or "")
        if params["online"]:
            console = Console(
                name=name,
                queues=frozenset(params["queues"]),
                sip=sip if _SIP.fullmatch(sip) else "",
            )
            self.controller.presence.update(CONSOLE_SERVER, console)
        else:
            self.controller.presence.remove(CONSOLE_SERVER, name)
        self.controller.presence_changed()

    def _consoles_lost(self) -> None:
        self._source_gone(CONSOLE_SERVER)

    def _source_gone(self, source: int) -> None:
        """Who told about consoles has gone; they are coming back, to the same or to another."""
        if self.controller.presence.forget(source):
            self.controller.settle()
            self.controller.presence_changed()
            log.info("a Console Server has gone; %d consoles left", len(self.controller.presence))

    # --- presence --------------------------------------------------------------------------------

    async def _consoles(self, connection: Connection, params: JsonObject) -> JsonObject:
        raw = params.get("consoles")
        if not isinstance(raw, list):
            raise RpcError(INVALID_PARAMS, "consoles: expected a list")
        consoles = [_console_of(item) for item in raw]
        self.controller.presence.replace(self._numbers[connection], consoles)
        self.controller.presence_changed()
        return {"consoles": len(self.controller.presence)}

    async def _console(self, connection: Connection, params: JsonObject) -> JsonObject:
        self.controller.presence.update(self._numbers[connection], _console_of(params))
        self.controller.presence_changed()
        return {"consoles": len(self.controller.presence)}

    async def _console_gone(self, connection: Connection, params: JsonObject) -> JsonObject:
        self.controller.presence.remove(self._numbers[connection], _text(params, "name"))
        self.controller.presence_changed()
        return {"consoles": len(self.controller.presence)}

    # --- what is told ----------------------------------------------------------------------------

    async def _status(self, _connection: Connection, _params: JsonObject) -> JsonObject:
        controller = self.controller
        return {
            "node": self.node,
            "engine": "up" if self.engine.is_up else "down",
            "active": controller.is_ordered_active,
            "reason": controller.order_reason,
            "settling": round(controller.settling_left(), 1),
            "calls": len(controller.calls),
            "lost": len(controller.lost),
            "consoles": len(controller.presence),
            "refused": dict(controller.refused),
            "records_lost": self.spool.lost,
            "protection": self.followers.protection(),
            "pid": os.getpid(),
        }

    async def _calls(self, _connection: Connection, _params: JsonObject) -> list[JsonObject]:
        return [
            {**call.to_json(), "protected": self.followers.is_protected(call)}
            for call in self.controller.documents()
        ]

    async def _follow(self, connection: Connection, _params: JsonObject) -> JsonObject:
        snapshot = self.followers.follow(connection, self.controller.documents())
        return {"node": self.node, **snapshot}

    async def _peers(self, connection: Connection, params: JsonObject) -> None:
        peers = params.get("count")
        if not isinstance(peers, int) or peers < 0:
            raise RpcError(INVALID_PARAMS, "count: expected how many peers can be reached")
        self.followers.protect(connection, peers)

    async def _protected(self, _connection: Connection, params: JsonObject) -> None:
        try:
            self.followers.acknowledged(params["calls"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise RpcError(INVALID_PARAMS, "calls: expected [[call, gen, seq], …]") from error

    # --- orders of consoles ----------------------------------------------------------------------

    async def _take(self, _connection: Connection, params: JsonObject) -> JsonObject:
        raw, ground = params.get("calls"), _text(params, "ground")
        if not isinstance(raw, list):
            raise RpcError(INVALID_PARAMS, "calls: expected a list of documents")
        if not self.engine.is_up or not self.controller.is_ordered_active:
            raise RefusedError("the Conference Server of this node is not active")
        try:
            calls = [call_from_json(item) for item in raw]
        except ValueError as error:
            raise RpcError(INVALID_PARAMS, f"calls: {error}") from error
        asks = params.get("asks_parties") is not False
        return {"accepted": self.controller.takeovers.take(calls, ground, asks_parties=asks)}

    async def _release(self, _connection: Connection, params: JsonObject) -> JsonObject:
        released = []
        for item in params.get("calls") or []:
            match item:
                case [str(call_id), int(generation), str(owner)]:
                    if await self.controller.release(call_id, generation, owner):
                        released.append(call_id)
                case _:
                    raise RpcError(INVALID_PARAMS, "calls: expected [id, generation, owner]")
        return {"released": released}

    async def _give(self, _connection: Connection, params: JsonObject) -> JsonObject:
        handover = self.controller.handover
        if params.get("all") is True:
            return {"given": handover.give_all(str(params.get("reason") or "given away"))}
        return {"given": handover.give_lost()}

    async def _keep(self, _connection: Connection, params: JsonObject) -> JsonObject:
        return {"kept": self.controller.handover.keep(is_active=params.get("active") is True)}

    async def _dial(self, _connection: Connection, params: JsonObject) -> JsonObject:
        console, number = _text(params, "console"), _text(params, "number")
        known = self.controller.presence.get(console)
        sip = params.get("sip") or (known.sip if known else "")
        if not isinstance(sip, str) or not _SIP.fullmatch(sip):
            raise RpcError(INVALID_PARAMS, "sip: expected the SIP address of the console")
        if not is_dialled_number(number):
            raise RpcError(INVALID_PARAMS, f"number: got {number!r}, expected a number")
        if not self.engine.is_up or not self.controller.is_ordered_active:
            raise RefusedError("the Conference Server of this node is not active")
        limit = self.controller.rules.max_calls
        if limit and len(self.controller.calls) >= limit:
            raise RefusedError(f"{limit} calls are up, as many as allowed")
        return self.controller.dial(console, sip, number, str(params.get("queue") or "")).to_json()

    async def _on_call(
        self, params: JsonObject, work: Callable[[Controller, LiveCall], Awaitable[Any]]
    ) -> Any:
        call = self.controller.calls.get(_text(params, "call"))
        if call is None or call.task is None:
            raise RefusedError(f"no call {params['call']!r} here")
        return await self.controller.order(call, functools.partial(work, self.controller, call))

    async def _answer(self, _connection: Connection, params: JsonObject) -> None:
        party = _text(params, "console")
        await self._on_call(
            params, lambda controller, call: incoming.answer(controller, call, party)
        )

    async def _hold(self, _connection: Connection, params: JsonObject) -> None:
        party = _text(params, "console")
        await self._on_call(params, lambda controller, call: talking.hold(controller, call, party))

    async def _resume(self, _connection: Connection, params: JsonObject) -> None:
        party = _text(params, "console")
        await self._on_call(
            params, lambda controller, call: talking.resume(controller, call, party)
        )

    async def _transfer(self, _connection: Connection, params: JsonObject) -> JsonObject:
        party, (console, number) = _text(params, "console"), _destination(params)

        async def work(controller: Controller, call: LiveCall) -> str:
            return await talking.transfer(controller, call, party, console=console, number=number)

        leg = await self._on_call(params, work)
        return {"leg": leg}

    async def _add(self, _connection: Connection, params: JsonObject) -> JsonObject:
        console, number = _destination(params)

        async def work(controller: Controller, call: LiveCall) -> str:
            return await talking.add(controller, call, console=console, number=number)

        leg = await self._on_call(params, work)
        return {"leg": leg}

    async def _remove(self, _connection: Connection, params: JsonObject) -> None:
        leg = _text(params, "leg")
        await self._on_call(params, lambda controller, call: talking.remove(controller, call, leg))

    async def _hangup(self, _connection: Connection, params: JsonObject) -> None:
        await self._on_call(params, talking.end)

    async def _record(self, _connection: Connection, params: JsonObject) -> None:
        is_wanted = params.get("on", True)

        async def work(controller: Controller, call: LiveCall) -> None:
            if not call.document.room:
                raise RefusedError("this call is not up yet")
            if is_wanted:
                await controller.recordings.begin(call)
            else:
                await controller.recordings.finish(call)
                call.publish()

        await self._on_call(params, work)

    # --- orders of `ha` and of people ------------------------------------------------------------

    async def _order(self, _connection: Connection, params: JsonObject) -> JsonObject:
        is_active = params.get("active")
        if not isinstance(is_active, bool):
            raise RpcError(INVALID_PARAMS, "active: expected true or false")
        if is_active and not self.controller.is_ordered_active:
            self.controller.settle()
        self.controller.is_ordered_active = is_active
        self.controller.order_reason = str(params.get("reason") or "")
        self.controller.presence_changed()
        log.info("ordered %s", "active" if is_active else "inactive")
        return {"active": is_active}

    async def _reload(self, _connection: Connection, _params: JsonObject) -> JsonObject:
        return await self.reload()

    async def reload(self) -> JsonObject:
        """Take the settings again; a bad file is refused and the old ones stay."""
        settings = load_conference(self._paths.config_dir)
        self.controller.configure(settings)
        self._look_for_database()
        loop = asyncio.get_running_loop()
        try:
            changed = await loop.run_in_executor(None, asterisk.prepare, self._paths)
            if changed and self.engine.is_up:
                await self.engine.reload()
        except (ControlOneError, OSError) as error:
            raise ServiceError(f"Asterisk keeps its old configuration: {error}") from error
        self.controller.presence_changed()
        return {"reloaded": True, "changed": changed}


def _text(params: JsonObject, name: str) -> str:
    value = params.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 256:
        raise RpcError(INVALID_PARAMS, f"{name}: expected a text of 1 to 256 characters")
    return value


def _destination(params: JsonObject) -> tuple[str, str]:
    """Return (console, number) of ``to``: ``{"console": …}`` or ``{"number": …}``."""
    to = params.get("to")
    if not isinstance(to, dict) or len(to) != 1 or not {"console", "number"} & set(to):
        raise RpcError(INVALID_PARAMS, 'to: expected {"console": NAME} or {"number": NUMBER}')
    if "console" in to:
        return _text(to, "console"), ""
    return "", _text(to, "number")


def _console_of(raw: Any) -> Console:
    if not isinstance(raw, dict):
        raise RpcError(INVALID_PARAMS, "a console is an object")
    queues, sip = raw.get("queues") or [], raw.get("sip") or ""
    if not isinstance(queues, list) or not all(isinstance(item, str) for item in queues):
        raise RpcError(INVALID_PARAMS, "queues: expected a list of texts")
    if not isinstance(sip, str) or (sip and not _SIP.fullmatch(sip)):
        raise RpcError(INVALID_PARAMS, f"sip: got {str(sip)[:80]!r}, expected a SIP URI")
    return Console(name=_text(raw, "name"), queues=frozenset(queues), sip=sip)
