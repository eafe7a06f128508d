"""Reading the command line of `ha`."""

from __future__ import annotations

from typing import Any

import pytest

from controlone_ha.control.arguments import COMMANDS, UsageError, read_arguments


@pytest.mark.parametrize(
    ("line", "command", "options", "arguments"),
    [
        ("status", "status", {}, []),
        ("status -w", "status", {"watch": None}, []),
        ("status -w 5", "status", {"watch": 5.0}, []),
        ("status -w0.5 --json", "status", {"watch": 0.5, "json": True}, []),
        ("status --watch --json", "status", {"watch": None, "json": True}, []),
        ("--json --lang pt status", "status", {"json": True, "lang": "pt"}, []),
        ("history -n 5 --kind=peer", "history", {"limit": 5.0, "kind": "peer"}, []),
        ("force_passive", "force_passive", {}, []),
        ("force-passive", "force_passive", {}, []),
        ("why", "why", {}, []),
        ("why m1", "why", {}, ["m1"]),
        ("why why", "why", {}, ["why"]),
        ("why_not m1", "why_not", {}, ["m1"]),
        ("why-not m1 -j", "why_not", {"json": True}, ["m1"]),
        ("pause for new cables", "pause", {}, ["for", "new", "cables"]),
        ("pause -- --now", "pause", {}, ["--now"]),
        ("pair-import -", "pair_import", {}, ["-"]),
        ("pair m1 --accept-host-key", "pair", {"accept_host_key": True}, ["m1"]),
        ("--version", "version", {}, []),
        ("", "help", {}, []),
        ("help why-not", "help", {}, ["why-not"]),
        ("status -h", "help", {"help": True}, ["status"]),
        ("why-not --help", "help", {"help": True}, ["why_not"]),
    ],
)
def test_G4_what_people_type_is_understood(
    line: str, command: str, options: dict[str, Any], arguments: list[str]
) -> None:
    request = read_arguments(line.split())
    assert (request.command, request.options, request.arguments) == (command, options, arguments)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("stat", "error.unknown_command"),
        ("status --colour", "error.unknown_option"),
        ("status -x", "error.unknown_option"),
        ("status -n 5", "error.unknown_option"),
        ("status extra", "error.too_many"),
        ("plan", "error.missing"),
        ("plan m1 m2", "error.too_many"),
        ("history -n", "error.needs_value"),
        ("history -n 0", "error.number"),
        ("history -n -3", "error.number"),
        ("history -n 1e9", "error.number"),
        ("status -w=0", "error.number"),
        ("status --json=yes", "error.no_value"),
    ],
)
def test_wrong_lines_name_what_is_wrong(line: str, key: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_arguments(line.split())
    assert caught.value.key == key


def test_a_mistyped_command_is_answered_with_the_nearest() -> None:
    for typed, meant in (("statsu", "status"), ("force-pasive", "force_passive"), ("zzz", "")):
        with pytest.raises(UsageError) as caught:
            read_arguments([typed])
        assert caught.value.params["nearest"] == meant


def test_the_seeds_commands_are_there() -> None:
    assert {"status", "force_passive", "force_active"} <= set(COMMANDS)
