"""The options of synchronisation in `/etc/config/ha`, as rows of the schema."""

from __future__ import annotations

from typing import Any, Final

from controlone_ha.config.kinds import Kind, OptionRow, Scope


def _row(section: str, name: str, kind: Kind, default: str, text: str, **more: Any) -> OptionRow:
    return OptionRow(
        package="ha",
        section=section,
        name=name,
        kind=kind,
        default=default,
        text=text,
        scope=Scope.NODE,
        **more,
    )


SYNC: Final = (
    _row(
        "ha",
        "full_sync",
        Kind.SECONDS,
        "3600",
        "rhythm of the full synchronisation with all peers",
        minimum=5,
        maximum=604800,
        unit="s",
    ),
    _row(
        "ha",
        "max_skew",
        Kind.SECONDS,
        "5",
        "how far clocks may differ before synchronisation is held",
        minimum=0.1,
        maximum=3600,
        unit="s",
    ),
    _row(
        "ha",
        "scrub",
        Kind.SECONDS,
        "604800",
        "rhythm of reading every synchronised file to find damage; 0: never",
        minimum=0,
        maximum=31536000,
        unit="s",
    ),
    _row(
        "peer",
        "sync",
        Kind.BOOLEAN,
        "1",
        "0: nothing is synchronised with that peer",
    ),
    _row(
        "item",
        "paths",
        Kind.PATHS,
        "",
        "files, directories and patterns of the item; empty: as built in",
    ),
    _row(
        "item",
        "exclude",
        Kind.PATTERNS,
        "",
        "names, or whole paths, that are left out",
    ),
    _row(
        "item",
        "reload",
        Kind.TEXT,
        "",
        "command that is run once for each batch of received files",
    ),
    _row(
        "item",
        "direction",
        Kind.CHOICE,
        "both",
        "what this node does: both, only send, only receive, or none",
        choices=("both", "send", "receive", "none"),
    ),
    _row(
        "item",
        "include",
        Kind.PATTERNS,
        "",
        "of the database: collections that are synchronised (database.collection, * allowed); all",
    ),
    _row(
        "item",
        "urgent",
        Kind.PATTERNS,
        "",
        "of the database: collections that never wait behind others",
    ),
    _row(
        "item",
        "horizon",
        Kind.INTEGER,
        "30",
        "of the database: days for which deletes are remembered for a node that is away",
        minimum=1,
        maximum=3650,
    ),
    _row(
        "item",
        "drop_database",
        Kind.BOOLEAN,
        "0",
        "of the database: 1: dropping a whole database spreads; 0: it comes back from the peers",
    ),
    _row(
        "item",
        "max_age",
        Kind.INTEGER,
        "0",
        "days after which files of the item are removed on this node; 0: never",
        minimum=0,
        maximum=36500,
    ),
    _row(
        "item",
        "max_size",
        Kind.INTEGER,
        "0",
        "MB that files of the item may fill on this node, the oldest go first; 0: no limit",
        minimum=0,
        maximum=100000000,
    ),
)
