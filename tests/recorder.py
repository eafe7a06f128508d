"""An external recorder: counts the RTP it gets, and keeps what it is told of sessions by HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from tests.phone import Phone, header


class Recorder:
    """``told``: the notifications, in order; ``options``: the lines of UCI that lead to it."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.audio = Phone("recorder")
        self._port = 0

    @property
    def received(self) -> int:
        """RTP packets so far."""
        return self.audio.media.received

    @property
    def options(self) -> str:
        return (
            f"\toption recorder '127.0.0.1:{self.audio.media.port}'\n"
            f"\toption recorder_url 'http://127.0.0.1:{self._port}/sessions'\n"
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        web = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self._port = web.sockets[0].getsockname()[1]
        await self.audio.start()
        try:
            async with web:
                yield
        finally:
            self.audio.stop()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(header(head, "Content-Length"))
        self.told.append(json.loads(await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        writer.close()
