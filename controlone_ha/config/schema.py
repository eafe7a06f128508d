"""The one table of options: what feeds validation, documentation, init scripts and the web form.

A row says where an option stands (package, section type, name), what it may be, its default, its
unit and whether it belongs to the cluster or to the node. Node-scope options (addresses, bind,
names) are outside synchronisation: no peer ever overwrites them. Nothing here reads a file.
"""

from __future__ import annotations

from typing import Final

from controlone_ha.config.conference_rows import CONFERENCE
from controlone_ha.config.kinds import Kind, OptionRow, Scope
from controlone_ha.config.sync_rows import SYNC

__all__ = ["PACKAGES", "SCHEMA", "Kind", "OptionRow", "Scope", "rows_of", "section_types"]


def _ha(name: str, kind: Kind, default: str | None, text: str, **more: object) -> OptionRow:
    return OptionRow(
        package="ha",
        section="ha",
        name=name,
        kind=kind,
        default=default,
        text=text,
        scope=Scope.NODE,
        **more,  # type: ignore[arg-type]
    )


def _seconds(low: float, high: float) -> dict[str, object]:
    return {"minimum": low, "maximum": high, "unit": "s"}


_HA: Final = (
    _ha("enabled", Kind.BOOLEAN, "1", "0 switches high availability off on this node"),
    _ha("name", Kind.NAME, "", "name of this node; empty: the host name"),
    _ha(
        "role",
        Kind.CHOICE,
        None,
        "master starts active, slave starts standby, passive holds data only",
        choices=("master", "slave", "passive"),
    ),
    _ha("peers", Kind.HOSTS, "", "the other nodes that this one monitors and synchronises with"),
    _ha("secret", Kind.SECRET, None, "password of the cluster, the same on every node"),
    _ha(
        "priority",
        Kind.INTEGER,
        "100",
        "who takes over first: the higher number",
        minimum=0,
        maximum=1000,
    ),
    _ha("site", Kind.NAME, "", "site of this node: nodes of one site may fall silent together"),
    _ha("address", Kind.HOST, "", "address of this node as its peers reach it; empty: as found"),
    _ha(
        "interval",
        Kind.SECONDS,
        "10",
        "rhythm of the watchdog: SIP, console and host checks",
        **_seconds(0.5, 3600),
    ),
    _ha(
        "heartbeat",
        Kind.SECONDS,
        "0",
        "rhythm of heartbeats on a link; 0: a tenth of interval, from 0.1 to 1 s",
        **_seconds(0, 60),
    ),
    _ha(
        "timeout",
        Kind.SECONDS,
        "10",
        "how long an answer may take, and when a silent link is closed",
        **_seconds(0.2, 600),
    ),
    _ha(
        "failures",
        Kind.INTEGER,
        "3",
        "unanswered probes in a row before a service counts as failed",
        minimum=1,
        maximum=100,
    ),
    _ha("failback", Kind.BOOLEAN, "1", "1: a slave returns to standby when the others are back"),
    _ha(
        "failback_delay",
        Kind.SECONDS,
        "30",
        "how long they must have been back by then",
        **_seconds(0, 86400),
    ),
    _ha(
        "failback_damping",
        Kind.INTEGER,
        "16",
        "a node that keeps failing must be back for longer: the delay doubles with each return of"
        " the last ten minutes, up to this many times; 1: never",
        minimum=1,
        maximum=1024,
    ),
    _ha(
        "stable",
        Kind.SECONDS,
        "30",
        "how long a node must be free of abnormality before its Console Server comes back",
        **_seconds(0, 86400),
    ),
    _ha(
        "takeover_on_silence",
        Kind.CHOICE,
        "confirm",
        "confirm: live calls of a silent node are taken only when somebody at its site confirms it;"
        " take: this node's silence suffices (two nodes in all; a cut between them may end calls"
        " that went on)",
        choices=("confirm", "take"),
    ),
    _ha(
        "own_recovery",
        Kind.SECONDS,
        "3",
        "how long a node whose Asterisk died has to take its own live calls up again before others"
        " may; 0: others take them at once",
        **_seconds(0, 60),
    ),
    _ha(
        "slot",
        Kind.SECONDS,
        "0",
        "how long each rank waits for the one before it; 0: one heartbeat, at least 0.25 s",
        **_seconds(0, 600),
    ),
    _ha("ssh_user", Kind.NAME, "root", "user that peers log in as on this cluster's nodes"),
    _ha("ssh_port", Kind.PORT, "22", "TCP port of SSH on the peers"),
    _ha(
        "authorized_keys",
        Kind.PATH,
        "",
        "file that this node's SSH server reads keys from; empty: as found",
    ),
    _ha(
        "call_probe",
        Kind.INTEGER,
        "0",
        "every so many SIP checks of a peer, one is a real call (needs sipp); 0: never",
        minimum=0,
        maximum=10000,
    ),
    _ha("database", Kind.HOST, "127.0.0.1", "host of this node's database; none: it has none"),
    _ha("database_port", Kind.PORT, "27017", "TCP port of this node's database"),
    OptionRow(
        package="ha",
        section="peer",
        name="address",
        kind=Kind.HOST,
        default="",
        text="address of the peer; empty: its name",
        scope=Scope.NODE,
    ),
    OptionRow(
        package="ha",
        section="peer",
        name="monitor",
        kind=Kind.BOOLEAN,
        default="1",
        text="0: this node never replaces that peer",
        scope=Scope.NODE,
    ),
    OptionRow(
        package="ha",
        section="peer",
        name="ssh_port",
        kind=Kind.PORT,
        default="",
        text="TCP port of SSH on that peer; empty: ha.default.ssh_port",
        scope=Scope.NODE,
    ),
    OptionRow(
        package="ha",
        section="peer",
        name="ssh_user",
        kind=Kind.NAME,
        default="",
        text="user on that peer; empty: ha.default.ssh_user",
        scope=Scope.NODE,
    ),
)


def _limit(name: str, default: str, text: str, kind: Kind = Kind.PERCENT) -> OptionRow:
    return OptionRow(
        package="ha",
        section="limits",
        name=name,
        kind=kind,
        default=default,
        text=text,
        scope=Scope.NODE,
        minimum=0,
        maximum=100 if kind is Kind.PERCENT else 100000,
        unit="%" if kind is Kind.PERCENT else "",
    )


_LIMITS: Final = (
    _limit("cpu", "95", "processor use that harms operation; 0: not watched"),
    _limit("cpu_duration", "30", "for so many seconds", Kind.SECONDS),
    _limit("memory", "95", "memory use that harms operation; 0: not watched"),
    _limit("memory_duration", "10", "for so many seconds", Kind.SECONDS),
    _limit("disk", "95", "use of a file system that harms operation; 0: not watched"),
    _limit("disk_duration", "10", "for so many seconds", Kind.SECONDS),
    _limit("load", "0", "load average per processor that harms operation; 0: off", Kind.NUMBER),
    _limit("load_duration", "60", "for so many seconds", Kind.SECONDS),
    _limit("temperature", "90", "degrees Celsius that harm operation; 0: off", Kind.NUMBER),
    _limit("temperature_duration", "30", "for so many seconds", Kind.SECONDS),
    OptionRow(
        package="ha",
        section="limits",
        name="disk_paths",
        kind=Kind.PATHS,
        default="/",
        text="file systems that are watched, by any path on them",
        scope=Scope.NODE,
    ),
)

_CONSOLE: Final = (
    OptionRow(
        package="console",
        section="console",
        name="server",
        kind=Kind.HOSTS,
        default=None,
        text="Console Servers in order of preference",
    ),
    OptionRow(
        package="console",
        section="console",
        name="timeout",
        kind=Kind.SECONDS,
        default="10",
        text="how long an answer may take before the next server is tried",
        minimum=0.2,
        maximum=600,
        unit="s",
    ),
    OptionRow(
        package="console",
        section="console",
        name="lost_packets",
        kind=Kind.INTEGER,
        default="3",
        text="unanswered requests in a row before the next server is tried",
        minimum=1,
        maximum=100,
    ),
    OptionRow(
        package="console",
        section="console",
        name="check_interval",
        kind=Kind.SECONDS,
        default="30",
        text="rhythm of the tests of the other servers",
        minimum=1,
        maximum=3600,
        unit="s",
    ),
    OptionRow(
        package="console",
        section="console",
        name="ping_interval",
        kind=Kind.SECONDS,
        default="0",
        text="rhythm of the requests on the active connection; 0: timeout / (lost_packets + 1)",
        minimum=0,
        maximum=600,
        unit="s",
    ),
    OptionRow(
        package="console",
        section="console",
        name="return",
        kind=Kind.CHOICE,
        default="idle",
        text="when to go back to a better server of the list that is well again",
        choices=("at_once", "idle", "never"),
    ),
    OptionRow(
        package="console",
        section="console",
        name="return_delay",
        kind=Kind.SECONDS,
        default="30",
        text="how long that server must have been well by then",
        minimum=0,
        maximum=86400,
        unit="s",
    ),
    OptionRow(
        package="console",
        section="console",
        name="standby_wait",
        kind=Kind.SECONDS,
        default="3",
        text="how long to wait for a standby to become active before the next server is tried",
        minimum=0,
        maximum=600,
        unit="s",
    ),
    OptionRow(
        package="console",
        section="console",
        name="jitter",
        kind=Kind.SECONDS,
        default="0.1",
        text="the first attempt after a failure comes at any moment within this time",
        minimum=0,
        maximum=60,
        unit="s",
    ),
    OptionRow(
        package="console",
        section="console",
        name="port",
        kind=Kind.PORT,
        default="7551",
        text="TCP port of the servers",
    ),
    OptionRow(
        package="console",
        section="console",
        name="name",
        kind=Kind.TEXT,
        default="",
        text="name of this console; empty: the host name",
        scope=Scope.NODE,
    ),
    OptionRow(
        package="console",
        section="console",
        name="queues",
        kind=Kind.TEXT,
        default="",
        text="queues monitored from the login on, separated by commas or blanks",
        scope=Scope.NODE,
    ),
    OptionRow(
        package="console",
        section="console",
        name="sip",
        kind=Kind.TEXT,
        default="",
        text="SIP address of this console, a sip: or sips: URI",
        scope=Scope.NODE,
    ),
)

_SERVER: Final = (
    OptionRow(
        package="server",
        section="server",
        name="bind",
        kind=Kind.HOST,
        default="",
        text="address to listen on; empty: all",
        scope=Scope.NODE,
    ),
    OptionRow(
        package="server",
        section="server",
        name="port",
        kind=Kind.PORT,
        default="7551",
        text="TCP port of the Console Server",
    ),
    OptionRow(
        package="server",
        section="server",
        name="max_connections",
        kind=Kind.INTEGER,
        default="4000",
        text="connections served at the same time",
        minimum=1,
        maximum=100000,
    ),
    OptionRow(
        package="server",
        section="server",
        name="authentication",
        kind=Kind.CHOICE,
        default="required",
        text="required: only enrolled consoles log in; optional: unknown ones, too",
        choices=("required", "optional"),
    ),
    OptionRow(
        package="server",
        section="server",
        name="conference",
        kind=Kind.NAMES,
        default="local",
        text="Conference Servers for the calls that consoles make: local, or names of nodes",
    ),
    OptionRow(
        package="server",
        section="server",
        name="spread",
        kind=Kind.CHOICE,
        default="least_calls",
        text="how such calls are spread over them",
        choices=("least_calls", "round_robin"),
    ),
)

SCHEMA: Final[tuple[OptionRow, ...]] = _HA + _LIMITS + SYNC + _CONSOLE + _SERVER + CONFERENCE

PACKAGES: Final = ("ha", "console", "server", "conference")


def rows_of(package: str, section: str) -> dict[str, OptionRow]:
    """Return the rows of a section type by option name; empty when the type is unknown."""
    return {row.name: row for row in SCHEMA if row.package == package and row.section == section}


def section_types(package: str) -> tuple[str, ...]:
    """Return the section types that ``package`` may hold."""
    return tuple(dict.fromkeys(row.section for row in SCHEMA if row.package == package))
