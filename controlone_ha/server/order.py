"""What `ha` last ordered of the Console Server, and the file that carries it over a respawn.

The order is the whole persistent state of the server: serve or not, for what reason, since when,
and what to tell about the node and its peers. It is written before it is obeyed and acknowledged,
so a server that is killed and respawned while `ha` is down goes on as ordered. The file lies in
the volatile run directory: after a reboot there is no order, and the server waits for `ha`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from controlone_ha.jsonrpc import INVALID_PARAMS, RpcError

MAX_SERVERS = 256
_MAX_CODE = 64
_MAX_TEXT = 1000
_SERVER_FIELDS = ("name", "address", "role", "state", "text")

JsonObject = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Why:
    """Reason of an order: stable ``code`` and one sentence, as consoles and peers get it."""

    code: str
    text: str

    def as_json(self) -> JsonObject:
        """Return the wire form."""
        return {"code": self.code, "text": self.text}


WAITING = Why(code="waiting_for_ha", text="waiting for ha")
STANDALONE = Why(code="standalone", text="high availability is switched off on this node")
SERVING = Why(code="serving", text="this server serves consoles")
STOPPING = Why(code="stopping", text="the Console Server of this node is being stopped")


@dataclass(frozen=True, kw_only=True)
class Order:
    """The last order; immutable. ``since``: Unix time, seconds, of the last change of serving."""

    serving: bool = False
    reason: Why = WAITING
    since: float = 0.0
    node: str | None = None
    role: str | None = None
    state: str | None = None
    servers: tuple[JsonObject, ...] = ()

    def enabled(self, now: float, reason: Why = SERVING) -> Order:
        """Return the order to serve; ``since`` moves only when serving changes."""
        return replace(self, serving=True, reason=reason, since=self.since if self.serving else now)

    def disabled(self, now: float, reason: Why) -> Order:
        """Return the order not to serve."""
        return replace(
            self, serving=False, reason=reason, since=now if self.serving else self.since or now
        )

    def published(self, params: JsonObject) -> Order:
        """Return the order with what ``publish`` tells; absent fields stay; raise ``RpcError``."""
        return replace(
            self,
            node=_word(params, "node", self.node),
            role=_word(params, "role", self.role),
            state=_word(params, "state", self.state),
            servers=parse_servers(params["servers"]) if "servers" in params else self.servers,
        )

    def as_json(self) -> JsonObject:
        """Return the form kept in ``server.state``."""
        return {
            "serving": self.serving,
            "reason": self.reason.as_json(),
            "since": self.since,
            "node": self.node,
            "role": self.role,
            "state": self.state,
            "servers": list(self.servers),
        }


def parse_reason(value: object) -> Why:
    """Return the reason in a parameter ``{"code", "text"}``, whose other fields are not kept.

    Raises ``RpcError`` (invalid params) naming what was got and what was expected.
    """
    if not isinstance(value, dict):
        raise RpcError(
            INVALID_PARAMS, f"reason: got {_kind(value)}, expected an object with code and text"
        )
    code, text = value.get("code"), value.get("text")
    if not isinstance(code, str) or not 0 < len(code) <= _MAX_CODE:
        raise RpcError(INVALID_PARAMS, f"reason.code: expected a word of 1 to {_MAX_CODE}")
    if not isinstance(text, str) or not text:
        raise RpcError(INVALID_PARAMS, "reason.text: expected a sentence")
    return Why(code=code, text=_clip(text))


def parse_servers(value: object) -> tuple[JsonObject, ...]:
    """Return the list of servers told to consoles: objects with ``name`` and optional words.

    Each has ``name`` and, as far as known, ``address``, ``port``, ``role``, ``state``, ``text``
    and ``serving``. Raises ``RpcError`` (invalid params).
    """
    if not isinstance(value, list) or len(value) > MAX_SERVERS:
        raise RpcError(INVALID_PARAMS, f"servers: expected a list of at most {MAX_SERVERS} objects")
    servers = []
    for index, raw in enumerate(value):
        where = f"servers[{index}]"
        if not isinstance(raw, dict):
            raise RpcError(INVALID_PARAMS, f"{where}: got {_kind(raw)}, expected an object")
        server: JsonObject = {}
        for field in _SERVER_FIELDS:
            word = raw.get(field)
            if word is None:
                continue
            if not isinstance(word, str):
                raise RpcError(INVALID_PARAMS, f"{where}.{field}: got {_kind(word)}, expected text")
            server[field] = _clip(word)
        if not server.get("name"):
            raise RpcError(INVALID_PARAMS, f"{where}.name: missing")
        port = raw.get("port")
        if port is not None:
            if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
                raise RpcError(INVALID_PARAMS, f"{where}.port: got {port!r}, expected 1 to 65535")
            server["port"] = port
        serving = raw.get("serving")
        if serving is not None:
            if not isinstance(serving, bool):
                raise RpcError(INVALID_PARAMS, f"{where}.serving: expected true or false")
            server["serving"] = serving
        servers.append(server)
    return tuple(servers)


def first_order(kept: Order | None, *, ha_enabled: bool, node: str, now: float) -> Order:
    """Return what a starting server obeys: see the module's docstring.

    With HA switched off in the settings nobody would ever enable the server, so it serves and
    what an earlier `ha` ordered is void. ``node``: its name, until one is published.
    """
    if not ha_enabled:
        return Order(node=node).enabled(now, STANDALONE)
    if kept is None:
        return Order(since=now, node=node)
    return kept if kept.node else replace(kept, node=node)


def save(order: Order, path: Path) -> None:
    """Replace the kept order in one step; raise ``OSError``."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(order.as_json(), file, ensure_ascii=False)
    temporary.replace(path)


def load(path: Path) -> Order | None:
    """Return the kept order; None when there is none or the file is not one (then: no order)."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        since = raw["since"]
        if not isinstance(raw["serving"], bool) or not isinstance(since, int | float):
            return None
        reason = parse_reason(raw["reason"])
        told = {key: raw[key] for key in ("node", "role", "state") if raw.get(key) is not None}
        told["servers"] = raw["servers"]
        order = Order(serving=raw["serving"], reason=reason, since=since)
        return order.published(told)
    except (OSError, ValueError, KeyError, TypeError, RpcError):
        return None


def _word(params: JsonObject, field: str, current: str | None) -> str | None:
    if field not in params:
        return current
    value = params[field]
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= 64:
        raise RpcError(INVALID_PARAMS, f"{field}: got {_kind(value)}, expected a word of 1 to 64")
    return value


def _clip(text: str) -> str:
    """Return ``text``, cut if too long: an order must not fail for a long sentence."""
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


def _kind(value: object) -> str:
    return repr(value) if isinstance(value, str | int | float) else type(value).__name__
