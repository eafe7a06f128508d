"""A link that ends while a file is just being put in its place: real files, journal and thread."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controlone_ha.sync import files
from controlone_ha.sync.conflicts import Conflicts
from controlone_ha.sync.engine import Engine, SyncSettings
from controlone_ha.sync.incoming import fetch_batch
from controlone_ha.sync.items import Item
from controlone_ha.sync.journal import Journal
from controlone_ha.sync.replica import Replica
from controlone_ha.sync.session import Session
from tests.waiting import until

CONTENT = os.urandom(300_000)


class Body:
    """An answer with the bytes of one file."""

    def __init__(self) -> None:
        self.result = [{"size": len(CONTENT)}]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(CONTENT), 65536):
            yield CONTENT[start : start + 65536]

    def close(self) -> None:
        self.result = []


class Link:
    """What a session needs of a link whose peer gives one file."""

    peer, direction, skew_ms, down = "m2", "accepted", 0.0, None

    async def fetch(self, *_arguments: Any, **_options: Any) -> Body:
        return Body()

    def notify(self, *_arguments: Any) -> None:
        return


def test_S1_a_file_put_in_place_while_the_link_ends_is_known_and_told_and_no_edit_of_this_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    renamed, go_on = threading.Event(), threading.Event()
    sync_directory = files.sync_directory

    def slow(directory: str) -> None:
        renamed.set()
        assert go_on.wait(5.0)
        sync_directory(directory)

    async def run() -> None:
        told: list[tuple[str, list[str]]] = []
        engine = Engine(
            node="m1",
            state_dir=tmp_path / "state",
            settings=SyncSettings(
                items={"set": Item(name="set", paths=(str(shared),))}, peers=frozenset({"m2"})
            ),
            environment=dict,
            on_applied=lambda item, paths: told.append((item, paths)),
            record=lambda _entry: None,
        )
        await engine.start()
        session = Session(engine, Link())  # type: ignore[arg-type]
        engine.sessions["m2"] = session
        version = await engine.work(_version_of, engine, str(shared / "a"))
        monkeypatch.setattr(files, "sync_directory", slow)
        fetching = asyncio.create_task(fetch_batch(session, [version]))
        await asyncio.to_thread(renamed.wait, 5.0)
        fetching.cancel()
        await asyncio.gather(fetching, return_exceptions=True)
        engine.link_down("m2")
        go_on.set()
        await until(lambda: bool(told))
        monkeypatch.setattr(files, "sync_directory", sync_directory)
        assert told == [("set", [version.path])]
        assert (await engine.work(engine.replica.journal.get, version.path)) == version
        assert await engine.work(engine.replica.scan, "set") == []
        await engine.stop()

    asyncio.run(run())


def test_S7_files_that_arrived_before_a_kill_are_reloaded_after_it(tmp_path: Path) -> None:
    shared, log = tmp_path / "shared", tmp_path / "reloaded"
    shared.mkdir()
    item = Item(name="set", paths=(str(shared),), reload=f"echo $FILES >> {log}")

    async def run(*, is_killed: bool) -> None:
        engine = Engine(
            node="m1",
            state_dir=tmp_path / "state",
            settings=SyncSettings(items={"set": item}),
            environment=dict,
            on_applied=lambda _item, _paths: None,
            record=lambda _entry: None,
        )
        await engine.start()
        if is_killed:
            version = await engine.work(_version_of, engine, str(shared / "a"))
            await engine.work(engine.replica.accept, version, CONTENT)
        else:
            await until(log.exists)
            await asyncio.sleep(0.2)
        await engine.stop()

    asyncio.run(run(is_killed=True))
    assert not log.exists()
    asyncio.run(run(is_killed=False))
    assert log.read_text() == "0\n"
    journal = Journal(tmp_path / "state" / "sync.db")
    assert journal.recall("reload/set", "") == ""  # and not once more
    journal.close()


def _version_of(engine: Engine, path: str) -> Any:
    """Return the version that a peer would have of the file, and forget that it was here."""

    directory = Path(path).parent.parent
    Path(path).write_bytes(CONTENT)
    other = Replica(
        "m2", Journal(directory / "other.db"), Conflicts(directory / "lost"), allowed_skew=5.0
    )
    other.configure(engine.items, 5.0)
    other.open()
    (version,) = other.scan("set")
    other.journal.close()
    Path(path).unlink()
    return version
