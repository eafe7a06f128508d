"""What ``ha check`` asks of the gateways: would they let this node take calls over?

Asked from the address that this node's Conference Server uses, so on every candidate: an access
list that knows only one of the servers shows before the day it is needed. A passive node asks
nothing, as it never runs a Conference Server.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from controlone_ha.core.model import Role
from controlone_ha.daemon.findings import Finding, finding

if TYPE_CHECKING:
    from controlone_ha.config.settings import GatewaySettings
    from controlone_ha.daemon.view import DaemonView
    from controlone_ha.probes.gateway import GatewayResult

PATIENCE = 2.0
"""Seconds given to a gateway for each question."""


async def check_gateways(daemon: DaemonView) -> list[Finding]:
    """Return what stands between this node and its gateways."""
    if daemon.settings.role == Role.PASSIVE.value:
        return []
    conference = daemon.conference_settings
    found = await asyncio.gather(
        *(check_gateway(gateway, conference.bind) for gateway in conference.gateways.values())
    )
    return [item for items in found for item in items]


async def check_gateway(
    gateway: GatewaySettings, bind: str, *, timeout: float = PATIENCE
) -> list[Finding]:
    """Ask one gateway from ``bind`` (empty: what the route gives); at most twice ``timeout``."""
    from controlone_ha.probes.gateway import (  # needed for a check alone
        GatewayAnswer,
        GatewayQuestion,
        ask_options,
        ask_replaces,
    )

    question = GatewayQuestion(
        host=gateway.host,
        port=gateway.port,
        transport=gateway.transport,
        bind=bind,
        username=gateway.username,
        password=gateway.password,
        timeout=timeout,
    )
    result = await ask_options(question)
    codes = {
        GatewayAnswer.SILENT: "gateway_silent",
        GatewayAnswer.UNREACHABLE: "gateway_silent",
        GatewayAnswer.FORBIDDEN: "gateway_forbids",
        GatewayAnswer.BUSY: "gateway_busy",
    }
    if result.answer in codes:
        return [_finding("error", codes[result.answer], gateway, result)]
    if not gateway.replaces or not gateway.check_replaces:
        return []
    result = await ask_replaces(question)
    codes |= {
        GatewayAnswer.NO_REPLACES: "gateway_replaces",
        GatewayAnswer.NEW_CALL: "gateway_new_call",
    }
    if result.answer in codes:
        return [_finding("warning", codes[result.answer], gateway, result)]
    return []


def _finding(severity: str, code: str, gateway: GatewaySettings, result: GatewayResult) -> Finding:
    return finding(
        severity,
        "gateways",
        code,
        gateway=gateway.name,
        host=gateway.host,
        port=gateway.port,
        transport=gateway.transport,
        local=result.local or "this node",
        why=result.detail,
    )
