"""`reload_config` on a lab node: tells the services whose configuration file has changed to reload.

As OpenWrt's: a service `X` is concerned by `/etc/config/X`, and a file seen for the first time is
only recorded. The checksums lie in /var/run, so they are forgotten at a boot.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

from controlone_ha.jsonrpc import RpcError, call
from controlone_ha.paths import node_paths


def checksums(config_dir: Path) -> dict[str, str]:
    """Return the checksum of each configuration file, by name."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(config_dir.iterdir())
        if path.is_file()
    }


def changed(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Return the files that were known and are different now."""
    return [name for name, checksum in now.items() if before.get(name, checksum) != checksum]


def main() -> int:
    """Run the command."""
    paths = node_paths()
    record = paths.run_dir / "config.checksums"
    before = json.loads(record.read_text()) if record.exists() else {}
    now = checksums(paths.config_dir)
    temporary = record.with_suffix(".new")
    temporary.write_text(json.dumps(now))
    os.replace(temporary, record)
    try:
        services = call(paths.supervisor_socket, "list")
        for name in changed(before, now):
            if name in services:
                call(paths.supervisor_socket, "reload", {"name": name})
    except (OSError, RpcError) as error:
        print(f"reload_config: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
