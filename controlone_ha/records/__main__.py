"""``python -m controlone_ha.records PARENT``: write the node's queued records, then end."""

from __future__ import annotations

import logging
import signal
import sys
from typing import Any

from controlone_ha.logs import start_logging
from controlone_ha.paths import node_paths
from controlone_ha.probes.child import die_with_parent
from controlone_ha.records.settings import database_address


def main() -> int:
    """Write until there is nothing more; return the exit status."""
    die_with_parent(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    start_logging("records")
    logging.getLogger("pymongo").setLevel(logging.ERROR)
    paths = node_paths()
    address = database_address(paths.config_dir)
    if address is None:
        return 0
    from controlone_ha.records.writer import Writer
    from controlone_ha.sync.database.clients import open_client
    from controlone_ha.sync.database.files import own_target

    def connect() -> Any:
        target = own_target(paths, *address)
        return open_client(target, own=True, name="records")

    Writer(paths.records_dir, connect).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
