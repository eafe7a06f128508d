"""The Console Server as a process: ``python -m controlone_ha.server``.

Composition only: settings, certificate, limits of the process, kept order, loop, signals. It runs
in the foreground under procd (or the lab's supervisor) and is ended by SIGTERM, upon which it
closes its consoles in order and leaves the kept order where it is.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import sys
import time
from dataclasses import replace

from controlone_ha.errors import ControlOneError, ServiceError
from controlone_ha.logs import start_logging
from controlone_ha.paths import NodePaths, node_paths
from controlone_ha.server import order as orders
from controlone_ha.server.book import ConsoleBook
from controlone_ha.server.control import NodeAccess
from controlone_ha.server.core import ConsoleServer
from controlone_ha.server.joining import context_of, join
from controlone_ha.server.limits import Limits
from controlone_ha.server.settings import StartSettings, load_settings
from controlone_ha.server.shell import ConsoleService

log = logging.getLogger("server")

_OTHER_DESCRIPTORS = 64


def main() -> int:
    """Run until SIGTERM or SIGINT; return the exit status."""
    start_logging("server")
    paths = node_paths()
    try:
        _need_identity(paths)
        settings = load_settings(paths.config_dir)
        for warning in settings.warnings:
            log.warning("%s", warning)
        asyncio.run(_serve(settings, paths))
    except (ControlOneError, OSError) as error:
        log.error("%s", error)
        return 1
    return 0


async def _serve(settings: StartSettings, paths: NodePaths) -> None:
    limits = _allow_descriptors(settings.limits)
    order = orders.first_order(
        orders.load(paths.server_state),
        ha_enabled=settings.ha_enabled,
        node=settings.node,
        now=time.time(),
    )
    book = ConsoleBook(paths.config_dir / "consoles", is_required=settings.needs_token)
    access = NodeAccess(book, paths.pins_file, paths.certificate_file, settings.node, paths)
    try:
        context = context_of(paths, access)
    except OSError as error:
        raise ServiceError(f"{paths.certificate_file}: no usable certificate: {error}") from error
    service = ConsoleService(ConsoleServer(order, limits, access), context, paths)
    service.spool.address = settings.database
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    await service.start(settings.bind, settings.port)
    service.carry(join(service, paths, access, settings.conference, settings.spread))
    state = "serving" if order.serving else "not serving"
    log.info(
        "listening on %s, port %d; %s: %s",
        settings.bind or "all addresses", settings.port, state, order.reason.text,
    )  # fmt: skip
    await ended.wait()
    log.info("stopping; consoles to move: %d", service.core.consoles)
    await service.stop(orders.STOPPING)


def _need_identity(paths: NodePaths) -> None:
    """Make the node's key and certificate if there are none, then start this program over.

    The library that makes keys would stay in the memory of this process for good.
    """
    if paths.key_file.exists() and paths.certificate_file.exists():
        return
    from controlone_ha.peers.keys import ensure_identity

    ensure_identity(paths, load_settings(paths.config_dir).node)
    log.info("made the key and the certificate of this node")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _allow_descriptors(limits: Limits) -> Limits:
    """Raise the limit of open files as far as needed and allowed; return limits that fit it."""
    wanted = limits.max_connections + _OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return limits
    consoles = max(1, soft - _OTHER_DESCRIPTORS - limits.max_anonymous)
    log.warning("open files are limited to %d: at most %d consoles", soft, consoles)
    return replace(limits, max_consoles=consoles)


if __name__ == "__main__":
    sys.exit(main())
