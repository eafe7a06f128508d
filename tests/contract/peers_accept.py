"""What `ha pair-accept` does, for the contract tests: a peer's half, on stdin and stdout.

Arguments: one JSON object (name, state, run, authorized_keys, port, host_keys).
"""

from __future__ import annotations

import json
import os
import sys

from controlone_ha.errors import ControlOneError
from controlone_ha.paths import node_paths
from controlone_ha.peers.pair import OwnSide, accept_offer


def main(arguments: dict) -> int:
    own = OwnSide(
        name=arguments["name"],
        paths=node_paths(
            {
                "CONTROLONE_STATE_DIR": arguments["state"],
                "CONTROLONE_RUN_DIR": arguments["run"],
            }
        ),
        authorized_keys=arguments["authorized_keys"],
        ssh_port=arguments["port"],
        own_host_keys=lambda: arguments["host_keys"],
    )
    try:
        answer, paired = accept_offer(
            sys.stdin.read(), own, ssh_connection=os.environ.get("SSH_CONNECTION", "")
        )
    except ControlOneError as error:
        print(error, file=sys.stderr)
        return 1
    if paired.replaced is not None:
        print(f"replaced the key of {paired.peer.name}", file=sys.stderr)
    print(answer)
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
