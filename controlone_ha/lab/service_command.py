"""`service NAME ACTION` on a lab node: OpenWrt's command, in front of the lab's supervisor.

Exit codes are those of OpenWrt's init scripts: `status` gives 0 running, 3 inactive, 5 started but
not running now; `stop` of a stopped service says "Command failed: Not found" and gives 0; an
unknown action prints the help and gives 0. `stop` and `restart` return before the process has
ended. As in the product's own init scripts, a restart of what runs is refused when the new process
would refuse its settings.
"""

from __future__ import annotations

import sys
from typing import Any

from controlone_ha.config.check import LOADERS, problems
from controlone_ha.jsonrpc import RpcError, call
from controlone_ha.paths import node_paths

ACTIONS = ("start", "stop", "restart", "reload", "status", "running")
HELP = """Syntax: service {name} [command]

Available commands:
\tstart           Start the service
\tstop            Stop the service
\trestart         Restart the service
\treload          Reload configuration files (or restart if service does not implement reload)
\tstatus          Service status
\trunning         Check if service is running
"""


def _ask(method: str, **params: Any) -> Any:
    return call(node_paths().supervisor_socket, method, params, timeout=10.0)


def _state(status: dict[str, Any]) -> tuple[str, int]:
    """Return the word and the exit code of `status`."""
    if status["running"]:
        return "running", 0
    if status["phase"] == "waiting":
        return "not running", 5
    return "inactive", 3


def run(name: str, action: str) -> int:
    """Do one action; return the exit code."""
    status = _ask("status", name=name)
    if action == "status":
        word, code = _state(status)
        print(word)
        return code
    if action == "running":
        return 0 if status["running"] else 1
    if action == "stop" and status["phase"] == "stopped":
        print("Command failed: Not found", file=sys.stderr)
        return 0
    if action == "restart" and status["running"] and name in LOADERS:
        found = problems(name, node_paths().config_dir)
        if found:
            print("\n".join(found), file=sys.stderr)
            return 1
    _ask(action, name=name)
    return 0


def main(arguments: list[str]) -> int:
    """Run the command."""
    try:
        services = _ask("list")
        if not arguments:
            for name, status in sorted(services.items()):
                print(f"{name:<20} {_state(status)[0]}")
            return 0
        name = arguments[0]
        if name not in services:
            print(f'Service "{name}" not found:', file=sys.stderr)
            for known in sorted(services):
                print(known, file=sys.stderr)
            return 1
        if len(arguments) < 2 or arguments[1] not in ACTIONS:
            print(HELP.format(name=name), end="")
            return 0
        return run(name, arguments[1])
    except RpcError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"the supervisor does not answer: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
