"""A node's links in a process of their own, for tests that kill, freeze or measure it.

Arguments: one JSON object (name, state, run, authorized_keys, port, host_keys, secret, peers).
Prints one line of JSON for each thing it is told; answers ``echo``, ``bytes`` and ``slow``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from controlone_ha.paths import node_paths
from controlone_ha.peers.link import Link
from controlone_ha.peers.links import PeerLinks
from controlone_ha.peers.model import LinkDown, Outgoing, PeerAddress


def tell(what: str, **fields: Any) -> None:
    print(json.dumps({"what": what, **fields}), flush=True)


class Teller:
    def on_link_up(self, link: Link) -> None:
        tell("up", peer=link.peer, direction=link.direction)

    def on_link_down(self, peer: str, cause: LinkDown) -> None:
        tell("down", peer=peer, code=cause.code)

    def on_heartbeat(self, peer: str) -> None:
        pass

    def on_notify(self, peer: str, method: str, params: dict[str, Any]) -> None:
        tell("notify", peer=peer, method=method)

    async def on_request(self, peer: str, method: str, params: dict[str, Any]) -> object:
        if method == "bytes":
            chunk = bytes(65536)
            return Outgoing(result=params, chunks=(chunk for _ in range(params["chunks"])))
        if method == "slow":
            await asyncio.sleep(params["seconds"])
        return params


async def main(arguments: dict[str, Any]) -> None:
    links = PeerLinks(
        name=arguments["name"],
        paths=node_paths(
            {
                "CONTROLONE_STATE_DIR": arguments["state"],
                "CONTROLONE_RUN_DIR": arguments["run"],
            }
        ),
        secret=arguments["secret"],
        handler=Teller(),
        authorized_keys=arguments["authorized_keys"],
        ssh_port=arguments["port"],
        own_host_keys=lambda: arguments["host_keys"],
    )
    links.configure(
        [PeerAddress(**peer) for peer in arguments["peers"]],
        heartbeat=arguments["heartbeat"],
        timeout=arguments["timeout"],
    )
    await links.start()
    tell("started")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
