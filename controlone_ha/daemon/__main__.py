"""``python -m controlone_ha.daemon``: the HA daemon in the foreground, as procd starts it.

Exit codes: 0 told to end; 1 refused to start (the reason is the last line); 0 with a note when UCI
``ha.default.enabled`` is 0.
"""

from __future__ import annotations

import asyncio
import sys

from controlone_ha.config.settings import load_ha
from controlone_ha.errors import ControlOneError
from controlone_ha.logs import start_logging
from controlone_ha.paths import node_paths


def main() -> int:
    """Run the daemon until it is told to end."""
    log = start_logging("ha", verbose="-v" in sys.argv[1:])
    paths = node_paths()
    try:
        if not load_ha(paths.config_dir).enabled:
            log.info("ha.default.enabled is 0: nothing to do")
            return 0
        asyncio.run(_run(paths))
    except ControlOneError as error:
        for line in str(error).splitlines():
            log.error("%s", line)
        log.error("not started: correct the above, then `service ha start`")
        return 1
    return 0


async def _run(paths: object) -> None:
    from controlone_ha.daemon.daemon import Daemon
    from controlone_ha.paths import NodePaths

    assert isinstance(paths, NodePaths)
    await Daemon(paths).run()


if __name__ == "__main__":
    sys.exit(main())
