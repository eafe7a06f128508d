"""How the Console Server follows a controller, over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from controlone_ha.server.conference_links import LocalLink
from tests.waiting import until

pytestmark = pytest.mark.contract


def test_L3_a_call_that_ends_while_its_list_is_read_is_over(short_directory: Path) -> None:
    """The list and what changed after it can arrive together; the change is the younger word."""
    live: dict[str, Any] = {"id": "m1-1", "state": "up", "legs": []}
    stays: dict[str, Any] = {"id": "m1-2", "state": "up", "legs": []}

    async def controller(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = json.loads(await reader.readline())
        listed = {"calls": [live, stays], "all": ["m1-1", "m1-2"]}
        answer = {"jsonrpc": "2.0", "id": question["id"], "result": listed}
        change = {"jsonrpc": "2.0", "method": "call", "params": {**live, "state": "ended"}}
        writer.write(b"".join(json.dumps(line).encode() + b"\n" for line in (answer, change)))
        await reader.read()
        writer.close()

    async def story() -> None:
        path = short_directory / "conference.sock"
        link = LocalLink(path)
        async with await asyncio.start_unix_server(controller, path):
            task = asyncio.create_task(link.run())
            await until(lambda: link.is_up, 5)
            await asyncio.sleep(0.05)
            assert set(link.calls) == {"m1-2"}
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    asyncio.run(story())
