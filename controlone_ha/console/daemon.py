"""The failover client as a process: settings, session, local socket, link events, signals.

SIGTERM ends it in order (the server is told by the closing alert), SIGHUP reads the settings again
and keeps a good connection.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import Any

from controlone_ha.console.links import LinkWatch, has_network
from controlone_ha.console.local import LocalSocket
from controlone_ha.console.session import Session
from controlone_ha.console.settings import ConsoleConfig, load_config
from controlone_ha.console.trust import Credentials, load_credentials, save_credentials
from controlone_ha.errors import ControlOneError, RefusedError
from controlone_ha.logs import hide, start_logging
from controlone_ha.paths import NodePaths, node_paths

log = logging.getLogger("console")


def main() -> int:
    """Run until SIGTERM or SIGINT; return the exit status."""
    start_logging("console")
    paths = node_paths()
    try:
        config = load_config(paths.config_dir)
        credentials = load_credentials(paths.console_credentials)
        hide(credentials.token)
        asyncio.run(_run(config, credentials, paths))
    except (ControlOneError, OSError) as error:
        log.error("%s", error)
        return 1
    return 0


async def _run(config: ConsoleConfig, credentials: Credentials, paths: NodePaths) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def learned(fresh: Credentials) -> None:
        log.info("servers pinned now: %d", len(fresh.pins))
        try:
            save_credentials(paths.console_credentials, fresh)
        except OSError as error:
            log.error("cannot write %s: %s", paths.console_credentials, error)

    session = Session(config, credentials, on_credentials=learned)

    def reload() -> dict[str, Any]:
        try:
            fresh = load_config(paths.config_dir)
            trusted = load_credentials(paths.console_credentials)
        except ControlOneError as error:
            log.error("settings refused, going on with the old ones: %s", error)
            raise RefusedError(str(error)) from error
        hide(trusted.token)
        _tell_problems(fresh)
        session.reload(fresh, trusted)
        return {"servers": list(fresh.rules.servers), "problems": list(fresh.problems)}

    local = LocalSocket(session, paths.console_socket, reload)
    session.on_change = local.changed
    session.on_notify = local.notify

    def hang_up() -> None:
        try:
            reload()
        except RefusedError:
            pass  # said in the log

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    loop.add_signal_handler(signal.SIGHUP, hang_up)
    await local.start()
    watch = LinkWatch(session.network_changed)
    watch.start()
    _tell_problems(config)
    log.info("started as %s; servers: %s", config.name, ", ".join(config.rules.servers))
    session.start()
    if not has_network():
        session.network_changed(False)
    await ended.wait()
    log.info("stopping")
    watch.stop()
    await session.stop()
    await local.stop()
    await asyncio.sleep(0.05)  # the closing alert goes out


def _tell_problems(config: ConsoleConfig) -> None:
    for problem in config.problems:
        log.warning("%s", problem)
