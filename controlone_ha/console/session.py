"""The asyncio shell of the failover client: carries out what ``core`` decides.

It owns the connections, one timer and the tasks of tests, and turns what happens on the network
into events of the core. What the operator's software asks (``call``) goes to the active connection;
during a switch it waits for the next one. Nothing here decides which server is used.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Any

from controlone_ha import __version__
from controlone_ha.console.connection import OpenError, ServerConnection, open_connection, result_of
from controlone_ha.console.core import Failover
from controlone_ha.console.rules import (
    Action,
    Cause,
    Changed,
    Drop,
    Health,
    Leave,
    LogIn,
    Lost,
    Open,
    Ping,
    Probe,
    State,
)
from controlone_ha.console.settings import ConsoleConfig
from controlone_ha.console.trust import Credentials
from controlone_ha.jsonrpc import NOT_SERVING, Message, RpcError

log = logging.getLogger("console")

PROTOCOL = 1
MAX_CALLS = 256
NOT_AUTHENTICATED = -32006
PROTOCOL_UNSUPPORTED = -32005
UNAVAILABLE = -32010
INTERRUPTED = -32011
REPEATABLE = frozenset(("ping", "servers", "monitor", "pins"))
"""Methods that may be asked again at the next server: asking twice changes nothing."""

Json = dict[str, Any]


class Session:
    """The console's life with its servers. All methods belong to the loop it was made in."""

    def __init__(
        self,
        config: ConsoleConfig,
        credentials: Credentials,
        *,
        chance: random.Random | None = None,
        on_change: Callable[[], None] = lambda: None,
        on_notify: Callable[[str, Json], None] = lambda method, params: None,
        on_credentials: Callable[[Credentials], None] = lambda credentials: None,
    ) -> None:
        self.config = config
        self.credentials = credentials
        self.queues = list(config.queues)
        self.sip = config.sip
        self.calls: dict[str, None] = {}
        self.known_servers: list[Json] = []
        self.core = Failover(config.rules, chance or random.Random())
        self.on_change = on_change
        self.on_notify = on_notify
        self._on_credentials = on_credentials
        self._loop = asyncio.get_running_loop()
        self._lines: dict[int, ServerConnection] = {}
        self._opening: dict[int, asyncio.Task[None]] = {}
        self._tests: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._lost_calls: tuple[str, ...] = ()
        self._told: State | None = None

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect."""
        self._do(self.core.start(self._loop.time()))

    async def stop(self) -> None:
        """Leave in order."""
        self._do(self.core.stop())
        if self._timer is not None:
            self._timer.cancel()
        tasks = [*self._opening.values(), *self._tests]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for future in self._waiting:
            future.cancel()

    def reload(self, config: ConsoleConfig, credentials: Credentials) -> None:
        """Take new settings; a good connection stays."""
        renamed = config.name != self.config.name
        if config.queues != self.config.queues:
            self.queues = list(config.queues)
            self._tell_queues()
        if config.sip != self.config.sip:
            self.sip = config.sip
        self.config, self.credentials = config, credentials
        if renamed:
            log.warning("the name of this console is in force from the next login on")
        self._do(self.core.configure(self._loop.time(), config.rules))

    def network_changed(self, has_network: bool) -> None:
        """Links or addresses of this machine have changed."""
        self._do(self.core.network(self._loop.time(), has_network))

    def set_busy(self, is_busy: bool) -> None:
        """Whether the operator has a call (beside those the server tells)."""
        self._do(self.core.busy(self._loop.time(), is_busy or bool(self.calls)))

    # -- requests of the operator's software -----------------------------------------------------

    async def call(self, method: str, params: Json, *, timeout: float) -> Any:
        """Ask the server; during a switch wait for the next one.

        Raises ``RpcError``: what the server refuses, ``UNAVAILABLE`` when no server came within
        ``timeout``, ``INTERRUPTED`` when the server went away before it answered and it is not
        known whether it did what was asked.
        """
        end = self._loop.time() + timeout
        while True:
            line = await self._active_line(end)
            future: asyncio.Future[Message | None] = self._loop.create_future()
            line.ask(method, params, lambda answer, f=future: _settle(f, answer))  # type: ignore[misc]
            try:
                answer = await asyncio.wait_for(future, max(0.0, end - self._loop.time()))
            except TimeoutError:
                raise RpcError(
                    INTERRUPTED,
                    f"the server did not answer {method} within {timeout:g} s",
                    {"code": "no_answer"},
                ) from None
            if answer is not None:
                return result_of(answer)
            if method not in REPEATABLE:
                raise RpcError(
                    INTERRUPTED,
                    f"the connection broke before {method} was answered; it may have been done",
                    {"code": "interrupted"},
                )

    async def _active_line(self, end: float) -> ServerConnection:
        while True:
            active = self.core.active
            if active is not None and active.number in self._lines:
                return self._lines[active.number]
            rest = end - self._loop.time()
            if rest <= 0:
                raise RpcError(UNAVAILABLE, "no server at present", {"code": "unavailable"})
            future: asyncio.Future[None] = self._loop.create_future()
            self._waiting.add(future)
            try:
                await asyncio.wait_for(future, rest)
            except TimeoutError:
                continue
            finally:
                self._waiting.discard(future)

    async def monitor(self, queues: list[str], on: bool) -> list[str]:
        """Monitor queues or cease to; in force at this server and at every later one."""
        for queue in queues:
            if on and queue not in self.queues:
                self.queues.append(queue)
            elif not on and queue in self.queues:
                self.queues.remove(queue)
        self._tell_queues()
        return self.queues

    def _tell_queues(self) -> None:
        active = self.core.active
        if active is not None and active.number in self._lines:
            params = {"queues": self.queues, "on": "only"}
            self._lines[active.number].ask("monitor", params, lambda answer: None)

    # -- what the core orders --------------------------------------------------------------------

    def _do(self, actions: list[Action]) -> None:
        changed = False
        for action in actions:
            match action:
                case Open(number=number, server=server):
                    self._opening[number] = self._loop.create_task(self._open(number, server))
                case LogIn(number=number, lost=lost):
                    self._log_in(number, lost)
                case Ping(number=number):
                    if number in self._lines:
                        self._lines[number].ask("ping", {}, lambda answer: None)
                case Leave(number=number):
                    self._close(number, in_order=True)
                case Drop(number=number):
                    self._close(number, in_order=False)
                case Probe(server=server):
                    task = self._loop.create_task(self._test(server))
                    self._tests.add(task)
                    task.add_done_callback(self._tests.discard)
                case Changed():
                    changed = True
        self._arm()
        if changed:
            self._changed()

    def _changed(self) -> None:
        state = self.core.state
        if state is not self._told:
            self._told = state
            where = self.active_name
            text = f" to {where}" if where else f": {self.core.reason.code}"
            log.info("%s%s", state.value, text)
        if state is State.CONNECTED:
            waiting, self._waiting = self._waiting, set()
            for future in waiting:
                if not future.done():
                    future.set_result(None)
        self.on_change()

    def _arm(self) -> None:
        deadline = self.core.deadline
        if self._timer is not None:
            if deadline is not None and self._timer.when() == deadline:
                return
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._timer = self._loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._do(self.core.tick(self._loop.time()))

    def _close(self, number: int, *, in_order: bool) -> None:
        task = self._opening.pop(number, None)
        if task is not None:
            task.cancel()
        line = self._lines.pop(number, None)
        if line is not None:
            # Calls this console had there are what it reports as lost if the server is.
            self._remember_calls()
            if in_order:
                line.leave()
            else:
                line.drop()

    async def _open(self, number: int, server: str) -> None:
        try:
            line = await open_connection(
                server,
                self.config.port,
                self.credentials,
                lambda: self.core.reached(self._loop.time(), number),
            )
        except OpenError as error:
            self._opening.pop(number, None)
            self._do(self.core.ended(self._loop.time(), number, error.cause))
            return
        except asyncio.CancelledError:
            self._opening.pop(number, None)
            raise
        self._opening.pop(number, None)
        self._lines[number] = line
        line.on_end = lambda cause: self._ended(number, cause)
        line.on_heard = lambda: self.core.heard(self._loop.time(), number)
        line.on_notify = lambda method, params: self._notified(number, method, params)
        self._do(self.core.opened(self._loop.time(), number, line.node))

    def _ended(self, number: int, cause: Cause) -> None:
        if self._lines.pop(number, None) is not None:
            self._remember_calls()
            self._do(self.core.ended(self._loop.time(), number, cause))

    def _remember_calls(self) -> None:
        if self.calls:
            self._lost_calls = tuple(self.calls)[:MAX_CALLS]

    # -- login -----------------------------------------------------------------------------------

    def _log_in(self, number: int, lost: Lost | None) -> None:
        line = self._lines.get(number)
        if line is None:
            return
        params: Json = {
            "console": self.config.name,
            "protocol": PROTOCOL,
            "queues": self.queues,
            "software": f"console {__version__}",
            "pins": self.credentials.digest,
        }
        if self.credentials.token:
            params["token"] = self.credentials.token
        if self.sip:
            params["sip"] = self.sip
        if lost is not None:
            params["lost"] = {"server": lost.server, "calls": list(self._lost_calls)}
        line.ask("login", params, lambda answer: self._login_answered(number, answer))

    def _login_answered(self, number: int, answer: Message | None) -> None:
        if answer is None or number not in self._lines:
            return  # the end of the connection is told by itself
        now = self._loop.time()
        try:
            result = result_of(answer)
        except RpcError as error:
            data = error.data if isinstance(error.data, dict) else {}
            code = {NOT_AUTHENTICATED: "token", PROTOCOL_UNSUPPORTED: "protocol"}
            if error.number == NOT_SERVING:
                text = str(data.get("text") or error)
                cause = Cause("not_serving", {"text": text, "reason": str(data.get("code"))})
            else:
                cause = Cause(code.get(error.number, "login"), {"text": str(error)})
            waits = error.number == NOT_SERVING and data.get("code") != "full"
            state = data.get("state")
            self._do(
                self.core.refused(
                    now,
                    number,
                    cause,
                    state=state if isinstance(state, str) else None,
                    waits=waits,
                )
            )
            return
        if not isinstance(result, dict):
            self._lines[number].drop()
            self._close(number, in_order=False)
            cause = Cause("protocol", {"text": "answers the login with something else"})
            self._do(self.core.ended(now, number, cause))
            return
        node = result.get("node")
        self._lost_calls = ()
        self.calls.clear()
        self._learn_servers(result.get("servers"))
        if self.credentials.pins:
            self._learn_pins(result.get("pins"))
        self._do(self.core.logged_in(now, number, node if isinstance(node, str) else None))

    def _learn_servers(self, servers: object) -> None:
        if isinstance(servers, list):
            self.known_servers = [item for item in servers if isinstance(item, dict)]

    def _learn_pins(self, offered: object) -> None:
        learned = self.credentials.introduced(offered)
        if learned.pins != self.credentials.pins:
            self.credentials = learned
            self._on_credentials(learned)

    # -- what the server tells -------------------------------------------------------------------

    def _notified(self, number: int, method: str, params: Json) -> None:
        now = self._loop.time()
        if method == "goodbye":
            reason = params.get("reason")
            reason = reason if isinstance(reason, dict) else {}
            code = "replaced" if reason.get("code") == "replaced" else "goodbye"
            cause = Cause(
                code,
                {"text": str(reason.get("text") or ""), "reason": str(reason.get("code"))},
                is_loss=False,
            )
            self._learn_servers(params.get("servers"))
            line = self._lines.pop(number, None)
            if line is not None:
                self._remember_calls()
                line.leave()
                self._do(self.core.ended(now, number, cause))
            return
        if method == "serving":
            self._do(self.core.invited(now, number))
            return
        if method == "servers":
            self._learn_servers(params.get("servers"))
            self.on_change()
            return
        if method == "call" and isinstance(params.get("id"), str):
            if params.get("state") == "ended":
                self.calls.pop(params["id"], None)
            elif len(self.calls) < MAX_CALLS:
                self.calls[params["id"]] = None
            self._do(self.core.busy(now, bool(self.calls)))
        self.on_notify(method, params)

    # -- tests -----------------------------------------------------------------------------------

    async def _test(self, server: str) -> None:
        """Ask a server for a ping, as its peers do, and tell the core what it is."""
        started = self._loop.time()
        node = state = rtt = None
        health, cause = Health.DOWN, None
        line: ServerConnection | None = None
        try:
            async with asyncio.timeout(self.config.rules.timeout):
                line = await open_connection(server, self.config.port, self.credentials)
                answer = await line.call("ping", {})
            health, cause = _health_of(answer)
            rtt = self._loop.time() - started
            node, state = answer.get("node") or line.node, answer.get("state")
        except TimeoutError:
            cause = Cause("no_answer", {"seconds": self.config.rules.timeout})
        except OpenError as error:
            cause = error.cause
            if cause.code in ("certificate", "protocol"):
                health = Health.REFUSING
        except (RpcError, AttributeError) as error:
            health, cause = Health.REFUSING, Cause("protocol", {"text": str(error)})
        finally:
            if line is not None:
                line.leave()
        self._do(
            self.core.tested(
                self._loop.time(), server, health, cause, node=node, state=state, rtt=rtt
            )
        )

    # -- what people see -------------------------------------------------------------------------

    @property
    def active_name(self) -> str | None:
        """Name of the server this console is logged in to."""
        active = self.core.active
        if active is None:
            return None
        return self.core.servers[active.server].node or active.server

    def status(self) -> Json:
        """Return the status; times are wall-clock seconds. See docs/console.md."""
        from controlone_ha.console.status import status_of

        return status_of(self, now=self._loop.time(), wall=time.time())


def _settle(future: asyncio.Future[Message | None], answer: Message | None) -> None:
    if not future.done():
        future.set_result(answer)


def _health_of(answer: Any) -> tuple[Health, Cause | None]:
    if answer.get("serving"):
        return Health.SERVING, None
    reason = answer.get("reason")
    text = str(reason.get("text") or "") if isinstance(reason, dict) else ""
    if answer.get("state") in ("standby", "starting", None):
        return Health.STANDBY, Cause("standby", {"text": text})
    return Health.REFUSING, Cause("not_serving", {"text": text})
