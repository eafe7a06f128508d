"""The kernel's word about files: nothing of it is lost when the settings are read again."""

from __future__ import annotations

import asyncio
from pathlib import Path

from controlone_ha.sync.watch import Watch
from tests.waiting import until


def test_S1_an_edit_made_just_before_the_settings_are_read_again_is_told(tmp_path: Path) -> None:
    async def run() -> None:
        told: set[str] = set()
        watch = Watch(told.update, lambda: None)
        roots = [(str(tmp_path), True)]
        watch.configure(roots)
        (tmp_path / "a").write_bytes(b"content")
        watch.configure(roots)  # the kernel's queue has not been read yet
        await until(lambda: str(tmp_path / "a") in told, 5.0)
        watch.close()

    asyncio.run(run())
