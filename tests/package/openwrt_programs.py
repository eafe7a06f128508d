"""Stand-ins for the programs that OpenWrt's shell files call; run as ``PROGRAM ARGUMENTS``.

``ubus`` and ``logger`` only record what they are told and answer what a test laid down; they stand
in even beside OpenWrt's real shell files, as there is no procd to tell.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

RECORD = Path("/tmp/recorded.jsonl")
RUNNING = Path("/tmp/running.json")


def record(program: str, arguments: list[str]) -> None:
    """Add a line to what was called."""
    with RECORD.open("a") as stream:
        stream.write(json.dumps({"program": program, "arguments": arguments}) + "\n")


def ubus(arguments: list[str]) -> int:
    """Answer ``service list`` from what the test laid down, keep it true, record all else."""
    words = [word for word in arguments if word != "-S"]
    if words[:2] != ["call", "service"]:
        record("ubus", arguments)
        return 0
    message = json.loads(words[3]) if len(words) > 3 else {}
    known = json.loads(RUNNING.read_text()) if RUNNING.exists() else {}
    if words[2] == "list":
        name = message.get("name")
        print(json.dumps({name: known[name]} if name in known else {}))
        return 0
    record("ubus", words[2:])
    if words[2] == "set":
        known[message["name"]] = {
            "instances": {name: {"running": True, "pid": 4711} for name in message["instances"]}
        }
    if words[2] == "delete":
        known.pop(message["name"], None)
    RUNNING.write_text(json.dumps(known))
    return 0


def logger(arguments: list[str]) -> int:
    """Record a message for the system's log."""
    record("logger", [*arguments, sys.stdin.read() if arguments[-1].startswith("daemon") else ""])
    return 0


PROGRAMS = {
    "ubus": ubus,
    "logger": logger,
}

if __name__ == "__main__":
    sys.exit(PROGRAMS[sys.argv[1]](sys.argv[2:]))
