"""The rows of ``/etc/config/conference``: the Conference Server, its queues, gateways and routes.

Part of the one table in ``schema``.
"""

from __future__ import annotations

from typing import Any, Final

from controlone_ha.config.kinds import Kind, OptionRow, Scope


def _row(
    section: str, name: str, kind: Kind, default: str | None, text: str, **more: Any
) -> OptionRow:
    return OptionRow(
        package="conference",
        section=section,
        name=name,
        kind=kind,
        default=default,
        text=text,
        **more,
    )


def _seconds(low: float, high: float) -> dict[str, Any]:
    return {"minimum": low, "maximum": high, "unit": "s"}


_SERVICE: Final = (
    _row(
        "conference",
        "bind",
        Kind.HOST,
        "",
        "address to serve SIP on; empty: all",
        scope=Scope.NODE,
    ),
    _row("conference", "port", Kind.PORT, "5060", "UDP and TCP port of SIP"),
    _row(
        "conference",
        "tls_port",
        Kind.INTEGER,
        "0",
        "TCP port of SIP over TLS with the node's certificate; 0: none",
        minimum=0,
        maximum=65535,
    ),
    _row(
        "conference",
        "adoption_port",
        Kind.INTEGER,
        "5070",
        "UDP and TCP port of SIP for calls taken over from another node without Replaces (TLS: the"
        " next one); 0: none",
        minimum=0,
        maximum=65534,
    ),
    _row(
        "conference",
        "media_address",
        Kind.HOST,
        "",
        "address that media is sent from; empty: the address of SIP",
        scope=Scope.NODE,
    ),
    _row("conference", "codecs", Kind.NAMES, "alaw,ulaw,g722", "codecs offered, best first"),
    _row(
        "conference",
        "max_calls",
        Kind.INTEGER,
        "0",
        "calls at the same time; more are answered 503; 0: no limit",
        minimum=0,
        maximum=100000,
    ),
    _row(
        "conference",
        "settle",
        Kind.SECONDS,
        "5",
        "how long after activation calls wait for consoles that are still arriving",
        **_seconds(0, 60),
    ),
    _row(
        "conference",
        "silence",
        Kind.SECONDS,
        "6",
        "how long a gateway may take to ring before the next one is tried",
        **_seconds(0.5, 60),
    ),
    _row(
        "conference",
        "takeover_sound",
        Kind.CHOICE,
        "ring",
        "what the first party of a call that moves here hears while the others are on their way",
        choices=("ring", "silence"),
    ),
    _row(
        "conference",
        "recordings",
        Kind.PATH,
        "",
        "directory of the recordings; empty: Asterisk's volatile one, lost at a reboot",
        scope=Scope.NODE,
    ),
    _row(
        "conference",
        "recorder",
        Kind.TEXT,
        "",
        "address:port that gets a copy of the audio of recorded calls by RTP; empty: none",
    ),
    _row(
        "conference",
        "recorder_url",
        Kind.TEXT,
        "",
        "HTTP URL that is told of the recorder's sessions; empty: nobody",
    ),
    _row(
        "conference",
        "recorder_source",
        Kind.CHOICE,
        "server",
        "who sends the audio to the recorder: this server, or the consoles by themselves",
        choices=("server", "console"),
    ),
)

_QUEUE: Final = (
    _row("queue", "number", Kind.TEXT, "", "destination number; empty: the name of the section"),
    _row(
        "queue",
        "strategy",
        Kind.CHOICE,
        "all",
        "in which order consoles ring",
        choices=("all", "round_robin", "least_recent"),
    ),
    _row(
        "queue",
        "ring_timeout",
        Kind.SECONDS,
        "60",
        "how long consoles are rung before the overflow",
        **_seconds(1, 3600),
    ),
    _row(
        "queue",
        "ring_step",
        Kind.SECONDS,
        "15",
        "how long each one is rung where one rings after the other",
        **_seconds(1, 600),
    ),
    _row("queue", "overflow", Kind.TEXT, "", "number of the next queue; empty: refuse the call"),
    _row(
        "queue",
        "priority",
        Kind.INTEGER,
        "100",
        "which calls are taken over first: the higher number",
        minimum=0,
        maximum=1000,
    ),
    _row("queue", "record", Kind.BOOLEAN, "0", "1: every call of the queue is recorded"),
)

_GATEWAY: Final = (
    _row("gateway", "host", Kind.HOST, None, "host name or address of the gateway"),
    _row("gateway", "port", Kind.PORT, "5060", "SIP port of the gateway"),
    _row(
        "gateway",
        "transport",
        Kind.CHOICE,
        "udp",
        "how SIP is carried to it",
        choices=("udp", "tcp", "tls"),
    ),
    _row("gateway", "username", Kind.NAME, "", "user for digest authentication; empty: none"),
    _row("gateway", "password", Kind.TEXT, "", "password of that user"),
    _row(
        "gateway",
        "codecs",
        Kind.NAMES,
        "",
        "codecs offered to it, best first; empty: those of the section 'conference'",
    ),
    _row(
        "gateway",
        "replaces",
        Kind.BOOLEAN,
        "1",
        "0: the gateway does not know Replaces; its calls are taken over by adoption",
    ),
    _row(
        "gateway",
        "check_replaces",
        Kind.BOOLEAN,
        "0",
        "1: `ha check` sends it an INVITE that replaces no call, to see that it knows Replaces; one"
        " that does not may ring a phone for a moment",
    ),
)

_ROUTE: Final = (
    _row("route", "prefix", Kind.TEXT, "", "numbers that begin so take this route"),
    _row(
        "route",
        "pattern",
        Kind.TEXT,
        "",
        "numbers like this take it: X 0-9, Z 1-9, N 2-9, [1-5], final . or !; wins over prefix",
    ),
    _row(
        "route",
        "strip",
        Kind.INTEGER,
        "0",
        "characters taken from the front of the number",
        minimum=0,
        maximum=32,
    ),
    _row("route", "add", Kind.TEXT, "", "what is put in front of it then"),
    _row("route", "gateways", Kind.NAMES, None, "gateways in the order in which they are tried"),
)

CONFERENCE: Final = _SERVICE + _QUEUE + _GATEWAY + _ROUTE
