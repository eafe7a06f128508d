"""Services under the lab's supervisor: ``ServiceManager`` over ``run_dir/supervisor.sock``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from controlone_ha.errors import PeerError, ServiceError
from controlone_ha.jsonrpc import RpcError, connect_unix
from controlone_ha.services.manager import ServiceManager, ServiceStatus

TIMEOUT = 5.0


class LabServiceManager(ServiceManager):
    """Drives the supervisor of a lab node. One request is one connection."""

    def __init__(self, socket: Path) -> None:
        super().__init__()
        self._socket = socket

    async def _order(self, name: str, verb: str) -> None:
        await self._ask(verb, name)

    async def status(self, name: str) -> ServiceStatus:
        """Return the state of a service."""
        answer = await self._ask("status", name)
        return ServiceStatus(
            running=answer["running"],
            pid=answer["pid"],
            since=answer["since"],
            restarts=answer["restarts"],
            detail=answer["last_exit"] or "",
        )

    async def _ask(self, method: str, name: str) -> dict[str, Any]:
        try:
            connection = await connect_unix(self._socket)
        except OSError as error:
            raise ServiceError(f"the lab's supervisor does not answer: {error}") from error
        try:
            answer: dict[str, Any] = await connection.call(method, {"name": name}, timeout=TIMEOUT)
            return answer
        except (RpcError, PeerError) as error:
            raise ServiceError(f"the lab's supervisor: {error}") from error
        except TimeoutError as error:
            raise ServiceError(
                f"the lab's supervisor did not answer within {TIMEOUT:g} s"
            ) from error
        finally:
            await connection.close()
