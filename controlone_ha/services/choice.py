"""Which supervisor this node has: the lab's where its socket is, procd otherwise."""

from __future__ import annotations

from controlone_ha.paths import NodePaths
from controlone_ha.services.manager import ServiceManager


def open_manager(paths: NodePaths) -> ServiceManager:
    """Return the manager of this node's services."""
    if paths.supervisor_socket.exists():
        from controlone_ha.services.lab import LabServiceManager

        return LabServiceManager(paths.supervisor_socket)
    from controlone_ha.services.procd import ProcdServiceManager

    return ProcdServiceManager()
