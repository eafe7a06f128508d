"""The local API: JSON-RPC 2.0 on ``run_dir/ha.sock`` (mode 0600), one line a message.

`ha` (the command), the rpcd plug-in and other processes of the node ask the daemon through it. It
decides nothing and holds no state: each method checks its parameters by a table and is handed to
the ``NodeApi`` the daemon passes. Requests run in tasks of their own, so a slow one delays no
other; a subscriber that does not read loses its own connection only.

Methods (``-`` and ``_`` are the same in their names), parameters and answers:

``status {}``
    ``{"node", "role", "state", "since", "reason": REASON, "forced": null | "active" | "passive",
    "paused": null | {"since", "by", "reason"}, "version", "started", "priority", "site", "address",
    "fingerprint", "warnings": [{"code", "text", "remedy", "params"?}],
    "services": [{"name", "running", "pid", "state": "serving" | "disabled" | "stopped" | "frozen" |
    "failed" | "unknown", "since", "restarts", "detail"}],
    "abnormalities": [{"kind", "text", "since", "code"?, "params"?}],
    "peers": [{"name", "address", "role", "state", "since", "reason", "verdict", "verdict_text",
    "verdict_params"?, "verdict_since", "link": {"state", "code", "text", "since", "direction"},
    "rtt_ms", "skew_ms", "sync": {"config": SYNC, "data": SYNC}, "probes": {SERVICE: {"outcome",
    "detail", "rtt_ms", "at"}}}]}``, SYNC = ``{"state": "in sync" | "pending" | "held" | "never",
    "since", "text"}``
``history {"limit": 1…10000 = 20, "kind"?, "peer"?, "since"?, "who"?, "node"?}``
    entries of ``control.history``, newest first; ``node``: another node's, or ``all``
``audit {}``
    ``{"node", "chains": [{"node", "what": "own" | "copy", "chain", "first", "last", "lines",
    "problems": [text]}], "problems": [text], "held_by": {peer: line}}``
``why {"peer"?}``
    ``{"node", "peer", "state", "since", "reason": REASON, "decisions": [history entry, …]}``,
    newest first; with a peer: what this node thinks of it, and the decisions that concern it
``why_not {"peer"}``
    ``{"node", "peer", "would": bool, "reason": REASON, "obstacles": [{"code", "text", "params"}]}``
``plan {"peer"}``
    ``{"peer", "nodes": [{"node", "state", "to", "after_s", "reason": REASON}], "notes": [{"code",
    "text", "params"}]}``: what each node would do if that peer died now
``check {}``
    ``[{"severity": "error" | "warning", "area", "code", "text", "remedy", "params"?}]``
``force {"state": "active" | "passive", "by"}``, ``resume {"by"}``, ``pause {"by", "reason"}``
    ``{"state", "reason": REASON, "forced", "paused", "continues"?: [{"code", "text"}]}``
``probe {"peer"}``
    ``{"peer", "probes": [{"service", "outcome", "detail", "rtt_ms"}]}``
``links {}``
    ``[{"peer", "address", "state", "code", "text", "since", "direction", "rtt_ms", "skew_ms"}]``
``sync {"item"?}``, ``sync_progress {"run"}``
    begins a full synchronisation with every peer, tells how far one is: ``{"run", "done",
    "scanning", "items", "seconds", "peers": [{"peer", "done", "error", "files", "files_total",
    "bytes", "bytes_total"}]}``
``diff {"peer", "item"?}``
    ``{"peer", "files": [{"item", "path", "what", "here", "there", "lines"?}]}``, see
    ``sync.difference``
``live_calls {}``
    ``{"node", "followed": bool, "calls": [{…document of core.calls…, "here": bool,
    "protected_by": [peer, …]}]}``; ``followed``: whether the node's Conference Server is heard
``conflicts {"everything"? = false}``
    conflict copies, the one kept last first: ``[{"id", "path", "item", "why": "conflict" |
    "damaged" | "replaced", "size", "edited", "node", "winner_edited", "winner_node", "kept"}]``;
    ``everything``: those too that were merely replaced
``conflict_diff {"id"}``, ``restore {"id", "by"}``
    that copy; the first with ``"lines"``, from the copy (-) to the file as it is (+)
``database {"order": "status" | "sync" | "diff" | "conflicts" | "forget", "peer"?, "limit"?}``
    what ``sync.database.worker`` answers to that order
``licence {}``
    ``{"masters", "unlicensed", "valid", "directory", "licences": [{"file", "state": "valid" |
    "expired" | "foreign" | "duplicate" | "forged" | "unreadable", "detail", "serial", "customer",
    "expires"}]}``
``metrics {}``
    OpenMetrics text
``reload {}``, ``trust_changed {}``
    what changed, for logs: any object
``events {"kinds"?: [kind, …]}``
    ``{"subscribed": true}``; then notifications ``event`` with one history entry each

REASON = ``{"code", "text", "params", "evidence": [{"text", "path"?, "age"?, "at"?}]}``; ``text`` is
English. Times are wall-clock seconds. Errors: the standard codes of JSON-RPC, and -32000 for a
request that is understood and refused, its text being the reason for the person.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from controlone_ha.jsonrpc import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    Connection,
    JsonObject,
    RpcError,
    serve_unix,
)

log = logging.getLogger("api")

MAX_TEXT = 500


class NodeApi(Protocol):
    """What the daemon offers to the local API; shapes in the module's docstring.

    Methods raise ``RefusedError`` for what is refused (an unknown peer included).
    """

    async def status(self) -> JsonObject: ...

    async def history(
        self,
        limit: int,
        kind: str | None,
        peer: str | None,
        since: float | None,
        who: str | None,
        node: str | None,
    ) -> list[JsonObject]: ...

    async def audit(self) -> JsonObject: ...

    async def why(self, peer: str | None) -> JsonObject: ...

    async def why_not(self, peer: str) -> JsonObject: ...

    async def plan(self, peer: str) -> JsonObject: ...

    async def check(self) -> list[JsonObject]: ...

    async def force(self, state: str, by: str) -> JsonObject: ...

    async def leave(self, by: str) -> JsonObject: ...

    async def resume(self, by: str) -> JsonObject: ...

    async def pause(self, by: str, reason: str) -> JsonObject: ...

    async def probe(self, peer: str) -> JsonObject: ...

    async def links(self) -> list[JsonObject]: ...

    async def sync(self, item: str | None) -> JsonObject: ...

    async def sync_progress(self, run: int) -> JsonObject: ...

    async def diff(self, peer: str, item: str | None) -> JsonObject: ...

    async def live_calls(self) -> JsonObject: ...

    async def conflicts(self, everything: bool) -> list[JsonObject]: ...

    async def conflict_diff(self, id: str) -> JsonObject: ...

    async def restore(self, id: str, by: str) -> JsonObject: ...

    async def database(self, order: str, peer: str | None, limit: int) -> Any: ...

    async def licence(self) -> JsonObject: ...

    async def metrics(self) -> str: ...

    async def reload(self) -> JsonObject: ...

    async def trust_changed(self) -> JsonObject: ...


class _Required:
    """Marks a parameter that has no default."""


REQUIRED = _Required()


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter of a method. ``check`` returns the value to use or raises ``ValueError``."""

    check: Callable[[Any], Any]
    default: Any = REQUIRED


def text(value: Any) -> str:
    """Check a text of 1 to 500 characters."""
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_TEXT:
        raise ValueError(f"a text of 1 to {MAX_TEXT} characters")
    return value.strip()


def any_text(value: Any) -> str:
    """Check a text of up to 500 characters, empty allowed."""
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError(f"a text of up to {MAX_TEXT} characters")
    return value.strip()


def count(value: Any) -> int:
    """Check an integer from 1 to 10000."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 10000:
        raise ValueError("an integer from 1 to 10000")
    return value


def number(value: Any) -> int:
    """Check a positive integer."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 53:
        raise ValueError("a positive integer")
    return value


def moment(value: Any) -> float:
    """Check a point in time, wall-clock seconds."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e12:
        raise ValueError("seconds since 1970")
    return float(value)


def forced_state(value: Any) -> str:
    """Check a state a person may force."""
    if value not in ("active", "passive"):
        raise ValueError("active or passive")
    return str(value)


def kinds(value: Any) -> frozenset[str]:
    """Check a list of kinds of history entries."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("a list of texts")
    return frozenset(value)


def flag(value: Any) -> bool:
    """Check a truth value."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def database_order(value: Any) -> str:
    """Check an order to the synchronisation of the database."""
    if value not in ("status", "sync", "diff", "conflicts", "forget"):
        raise ValueError("status, sync, diff, conflicts or forget")
    return str(value)


NAME = Parameter(check=text)
OPTIONAL_NAME = Parameter(check=text, default=None)
BY = Parameter(check=text)

METHODS: dict[str, dict[str, Parameter]] = {
    "status": {},
    "history": {
        "limit": Parameter(check=count, default=20),
        "kind": OPTIONAL_NAME,
        "peer": OPTIONAL_NAME,
        "since": Parameter(check=moment, default=None),
        "who": OPTIONAL_NAME,
        "node": OPTIONAL_NAME,
    },
    "audit": {},
    "why": {"peer": OPTIONAL_NAME},
    "why_not": {"peer": NAME},
    "plan": {"peer": NAME},
    "check": {},
    "force": {"state": Parameter(check=forced_state), "by": BY},
    "leave": {"by": BY},
    "resume": {"by": BY},
    "pause": {"by": BY, "reason": Parameter(check=any_text, default="")},
    "probe": {"peer": NAME},
    "links": {},
    "sync": {"item": OPTIONAL_NAME},
    "sync_progress": {"run": Parameter(check=number)},
    "diff": {"peer": NAME, "item": OPTIONAL_NAME},
    "conflicts": {"everything": Parameter(check=flag, default=False)},
    "conflict_diff": {"id": NAME},
    "restore": {"id": NAME, "by": BY},
    "database": {
        "order": Parameter(check=database_order),
        "peer": OPTIONAL_NAME,
        "limit": Parameter(check=count, default=20),
    },
    "live_calls": {},
    "licence": {},
    "metrics": {},
    "reload": {},
    "trust_changed": {},
    "events": {"kinds": Parameter(check=kinds, default=None)},
}


def checked_params(method: str, params: Mapping[str, Any]) -> JsonObject:
    """Return the parameters of ``method`` with defaults; raise ``RpcError`` (invalid params)."""
    known = METHODS[method]
    for name in params:
        if name not in known:
            takes = ", ".join(known) or "no parameters"
            raise RpcError(INVALID_PARAMS, f"{method}: unknown parameter {name!r}; takes {takes}")
    values: JsonObject = {}
    for name, parameter in known.items():
        # A null is the absence of a value: what a JSON writer with optional fields sends.
        value = params.get(name)
        if value is None:
            if parameter.default is REQUIRED:
                raise RpcError(INVALID_PARAMS, f"{method}: parameter {name!r} is missing")
            values[name] = parameter.default
            continue
        try:
            values[name] = parameter.check(value)
        except ValueError as error:
            shown = repr(value)[:80]
            raise RpcError(
                INVALID_PARAMS, f"{method}: {name}: got {shown}, expected {error}"
            ) from error
    return values


@dataclass(kw_only=True)
class LocalApi:
    """Serves the local API for ``node`` on the socket ``path``."""

    path: Path
    node: NodeApi
    _server: asyncio.AbstractServer | None = field(default=None, init=False)
    _connections: set[Connection] = field(default_factory=set, init=False)

    async def start(self) -> None:
        """Serve; raise ``RefusedError`` when another daemon serves this node already."""
        self._server, self._connections = await serve_unix(self.path, self._handle)

    async def stop(self) -> None:
        """Stop serving, close every connection and remove the socket. Idempotent."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for connection in list(self._connections):
            await connection.close()
        self.path.unlink(missing_ok=True)

    def publish(self, entry: JsonObject) -> None:
        """Send a history entry to every subscriber; never blocks."""
        for connection in list(self._connections):
            wanted = connection.context.get("events")
            if wanted is not None and (not wanted or entry.get("kind") in wanted):
                connection.notify("event", entry)

    @property
    def subscribers(self) -> int:
        """How many connections get events."""
        return sum("events" in connection.context for connection in self._connections)

    async def _handle(self, connection: Connection, method: str, params: JsonObject) -> Any:
        name = method.replace("-", "_")
        if name not in METHODS:
            raise RpcError(
                METHOD_NOT_FOUND, f"no method {method!r}; there are: {', '.join(METHODS)}"
            )
        values = checked_params(name, params)
        if name == "events":
            connection.context["events"] = values["kinds"] or frozenset()
            return {"subscribed": True}
        if name in ("force", "resume", "pause", "restore"):
            log.info("%s asked by %s", name, values["by"])
        return await getattr(self.node, name)(**values)
