"""What a console says of itself when it logs in: parsed and validated, nothing believed.

Fields this version does not know are ignored, so that a newer console can log in to an older
server (version rule in docs/console-protocol.md).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from controlone_ha.jsonrpc import INVALID_PARAMS, RpcError

MAX_QUEUES = 256
MAX_LOST_CALLS = 256
_NAME = re.compile(r"[^\W_][\w.@+-]{0,63}\Z")
_QUEUE = re.compile(r"[\w.+*#@-]{1,64}\Z")
_SIP = re.compile(r"sips?:[^\s<>\"\x00-\x1f\x7f]{1,250}\Z", re.IGNORECASE)
_TOKEN = re.compile(r"[0-9A-Za-z]{32,256}\Z")
_DIGEST = re.compile(r"[0-9a-f]{16}\Z")
_CALL = re.compile(r"[\x21-\x7e]{1,256}\Z")

JsonObject = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Login:
    """A console: its name, the queues it monitors, its SIP address, and what it lost, if anything.

    ``lost_server`` and ``lost_calls`` (call ids) are reported by a console that comes here because
    another server failed under it.
    """

    console: str
    protocol: int = 1
    queues: tuple[str, ...] = ()
    sip: str | None = None
    lost_server: str | None = None
    lost_calls: tuple[str, ...] = ()
    software: str | None = None
    token: str | None = field(default=None, repr=False)
    pins: str | None = None


def parse_login(params: JsonObject) -> Login:
    """Return the login in ``params``; raise ``RpcError`` (invalid params) naming the field."""
    lost = params.get("lost")
    if lost is None:
        lost = {}
    if not isinstance(lost, dict):
        raise _wrong("lost", "an object with server and calls")
    protocol = params.get("protocol", 1)
    if not isinstance(protocol, int) or isinstance(protocol, bool) or protocol < 1:
        raise _wrong("protocol", "a whole number from 1")
    console = parse_name(params)
    software = params.get("software")
    if software is not None and not (
        isinstance(software, str) and len(software) <= 128 and software.isprintable()
    ):
        raise _wrong("software", "at most 128 printable characters")
    return Login(
        console=console,
        protocol=protocol,
        queues=_texts(params, "queues", _QUEUE, MAX_QUEUES),
        sip=_text(params, "sip", _SIP, "a sip: or sips: URI of at most 255 characters"),
        lost_server=_text(lost, "server", _NAME, "the name of a server", prefix="lost."),
        lost_calls=_texts(lost, "calls", _CALL, MAX_LOST_CALLS, prefix="lost."),
        software=software,
        token=_text(params, "token", _TOKEN, "32 to 256 letters or digits"),
        pins=_text(params, "pins", _DIGEST, "16 hexadecimal digits"),
    )


def parse_name(params: JsonObject) -> str:
    """Return the console's name; raise ``RpcError`` (invalid params)."""
    console = _text(params, "console", _NAME, "1 to 64 letters, digits or . _ @ + -")
    if console is None:
        raise RpcError(INVALID_PARAMS, "console: missing; it carries the console's name")
    return console


def parse_monitor(params: JsonObject, present: tuple[str, ...]) -> tuple[str, ...]:
    """Return the queues monitored from now on: ``on`` true adds ``queues``, false takes them away,
    ``"only"`` replaces what was. Raises ``RpcError`` (invalid params).
    """
    queues, on = _texts(params, "queues", _QUEUE, MAX_QUEUES), params.get("on", True)
    if on is True:
        wanted = tuple(dict.fromkeys((*present, *queues)))
    elif on is False:
        wanted = tuple(queue for queue in present if queue not in queues)
    elif on == "only":
        wanted = queues
    else:
        raise _wrong("on", 'true, false or "only"')
    if len(wanted) > MAX_QUEUES:
        raise _wrong("queues", f"a list of at most {MAX_QUEUES} words")
    return wanted


def _wrong(field: str, expected: str) -> RpcError:
    return RpcError(INVALID_PARAMS, f"{field}: expected {expected}", {"field": field})


def _text(
    params: JsonObject, field: str, pattern: re.Pattern[str], expected: str, prefix: str = ""
) -> str | None:
    value = params.get(field)
    if value is None:
        return None
    if not isinstance(value, str) or not pattern.match(value):
        raise _wrong(prefix + field, expected)
    return value


def _texts(
    params: JsonObject, field: str, pattern: re.Pattern[str], most: int, prefix: str = ""
) -> tuple[str, ...]:
    values = params.get(field)
    if values is None:
        return ()
    if not isinstance(values, list) or len(values) > most:
        raise _wrong(prefix + field, f"a list of at most {most} words")
    for value in values:
        if not isinstance(value, str) or not pattern.match(value):
            raise _wrong(
                prefix + field,
                "words of 1 to 64 letters, digits or . + * # @ - _"
                if pattern is _QUEUE
                else "visible ASCII of 1 to 256 characters",
            )
    return tuple(dict.fromkeys(values))
