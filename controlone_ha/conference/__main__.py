"""``python -m controlone_ha.conference``: the controller of the node's Asterisk, and its tools.

``serve`` (without an argument too) leads the calls of the node's Asterisk, whenever that runs.
``prepare`` makes Asterisk ready to be started; it is idempotent, and a sentence on stdout says
whether anything was written.
``launch`` prepares if that is due and becomes Asterisk, for a hand at the console.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
from collections.abc import Sequence

from controlone_ha.conference import asterisk
from controlone_ha.config.settings import load_ha
from controlone_ha.errors import ControlOneError
from controlone_ha.logs import start_logging
from controlone_ha.paths import NodePaths, node_paths


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status: 0 done, 1 not possible (the log says why)."""
    parser = argparse.ArgumentParser(prog="controlone_ha.conference", description=__doc__)
    parser.add_argument(
        "action", nargs="?", default="serve", choices=("serve", "prepare", "launch")
    )
    parser.add_argument("--ari-port", type=int, default=None, metavar="PORT")
    chosen = parser.parse_args(arguments)
    log = start_logging("conference")
    paths = node_paths()
    try:
        if chosen.action == "serve":
            return _serve(paths)
        if chosen.action == "launch":
            words = asterisk.launch_command(paths)
            sys.stdout.flush()
            os.execv(words[0], words)
        changed = asterisk.prepare(paths, ari_port=chosen.ari_port)
    except (ControlOneError, OSError) as error:
        log.error("%s", error)
        return 1
    log.info("%s in %s", "configuration written" if changed else "unchanged", paths.asterisk_dir)
    return 0


def _serve(paths: NodePaths) -> int:
    import asyncio

    from controlone_ha.conference.service import ConferenceService

    node = socket.gethostname().split(".")[0]
    with contextlib.suppress(ControlOneError):
        node = load_ha(paths.config_dir).name

    async def run() -> None:
        await ConferenceService(paths, node).run()

    asyncio.run(run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
