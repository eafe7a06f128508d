"""Ended calls, recordings and sessions reach the node's database, whenever that is there."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from controlone_ha.console.connection import client_context
from controlone_ha.lab.parts import Asterisk
from controlone_ha.probes.child import child_environment
from controlone_ha.records.spool import Spool
from tests.console_servers import ServerProcess
from tests.contract.conference_support import Server, phones, serving
from tests.contract.database_support import Base, bases
from tests.phone import Phone
from tests.waiting import until, wait_for

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module")
def base(mongod_path: Path, free_port: Callable[[], int]) -> Iterator[Base]:
    with bases(mongod_path, free_port, 1) as made:
        yield made["a"]


def ha_file(port: int) -> str:
    return (
        "config ha 'default'\n\toption name 'n1'\n\toption role 'master'\n"
        f"\toption database_port '{port}'\n"
    )


def collection(base: Base, name: str) -> Any:
    return base.client["controlone"][name]


def test_A3_an_ended_call_and_its_recording_wait_for_a_database_that_is_down(
    base: Base, asterisk: Asterisk, short_directory: Path, free_port: Callable[[], int]
) -> None:
    server = Server(short_directory, asterisk, free_port)
    server.configure("config queue\n\toption number '100'\n\toption record '1'\n")
    (short_directory / "config" / "ha").write_text(ha_file(base.port))
    spool = server.paths.records_dir
    base.kill()

    async def story() -> str:
        desk, caller = Phone("desk", tone=440), Phone("caller", tone=1000)
        async with phones(desk, caller), serving(server):
            await server.present(desk)
            dialog = caller.dial("100", server.port)
            await asyncio.wait_for(dialog.answered.wait(), 5)
            call_id = str(server.live[0]["id"])
            await until(lambda: caller.media.received > 60, 5)
            caller.hang_up(dialog)
            await server.until_over()
            await until(lambda: "records wait for the database" in server.log, 20)
            # The controller dies with what is queued; the next one sees to it.
            server.kill("controller")
            assert server.connection is not None
            await server.connection.close()
            base.start()
            await asyncio.get_running_loop().run_in_executor(None, base.wait_writable)
            server.start_controller()
            await server.connect()
            history = collection(base, "history")
            await until(lambda: history.find_one({"_id": call_id}) is not None, 20)
            return call_id

    call_id = asyncio.run(story())
    (document,) = collection(base, "history").find()
    assert document["_id"] == call_id and document["reason"] == "hung_up"
    assert {leg["role"] for leg in document["parties"]} == {"gateway", "console"}
    assert abs((datetime.now(UTC) - document["ended"].replace(tzinfo=UTC)).total_seconds()) < 120
    assert document["seconds"] > 0.5
    (recording,) = collection(base, "recordings").find()
    assert recording["call"] == call_id and recording["_id"] == document["recording"]
    assert len(recording["sha256"]) == 64 and recording["seconds"] > 0.5
    wait_for(lambda: not list(spool.glob("*.taken")), 5.0)


def test_G5_logins_and_their_ends_are_in_the_database_for_the_audit(
    base: Base, short_directory: Path, free_port: Callable[[], int]
) -> None:
    server = ServerProcess(short_directory, "n1", "127.0.0.1", free_port())
    (server.directory / "config" / "ha").write_text(ha_file(base.port))
    server.start()

    async def visit() -> None:
        reader, writer = await asyncio.open_connection(
            server.address, server.port, ssl=client_context(), server_hostname=""
        )
        writer.write(b'{"jsonrpc":"2.0","id":1,"method":"login","params":{"console":"desk-9"}}\n')
        assert b'"result"' in await reader.readline()
        writer.close()
        try:
            await writer.wait_closed()
        except (ConnectionError, ssl.SSLError):
            return

    try:
        asyncio.run(visit())
        sessions = collection(base, "sessions")
        wait_for(lambda: sessions.count_documents({"console": "desk-9"}) == 2, 15.0)
        events = [item["event"] for item in sessions.find({"console": "desk-9"}).sort("_id")]
        assert events == ["login", "logout"]
        assert isinstance(sessions.find_one({"event": "login"})["time"], datetime)
        assert "pymongo" not in Path(f"/proc/{server.process.pid}/maps").read_text()  # type: ignore[union-attr]
    finally:
        server.end(signal.SIGTERM)


def test_a_killed_writer_loses_and_doubles_nothing_and_a_spoiled_line_holds_up_nobody(
    base: Base, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.mkdir()
    (config / "ha").write_text(ha_file(base.port))
    environment = {
        **child_environment(),
        "UCI_CONFIG_DIR": str(config),
        "CONTROLONE_STATE_DIR": str(tmp_path / "state"),
    }
    directory = tmp_path / "state" / "records"
    things = base.client["app"]["things"]

    async def story() -> None:
        spool = Spool(directory, "test", environment=environment)
        spool.address = "127.0.0.1", base.port
        spool.start()
        for number in range(3000):
            spool.add("app.things", {"_id": number, "turn": 1})
            if number % 600 == 0:
                spool.flush()
                (directory / "other.jsonl").write_bytes(b'{"in": "x"}\nnonsense\n')
                await asyncio.sleep(0.4)
                if spool._writer is not None and spool._writer.poll() is None:
                    os.kill(spool._writer.pid, signal.SIGKILL)
                    spool._writer.wait()
                await spool._see_to_writer()
        await spool.close()
        await spool._see_to_writer()
        await until(lambda: things.count_documents({}) == 3000, 20)
        assert spool._writer is not None
        spool._writer.kill()
        spool._writer.wait()

    asyncio.run(story())
    assert things.count_documents({"turn": 1}) == 3000
    assert b"nonsense" in (directory / "spoiled.jsonl").read_bytes()


def test_the_queue_is_bounded_and_says_what_it_lost(tmp_path: Path) -> None:
    async def story() -> Spool:
        spool = Spool(tmp_path, "test", command=("false",), max_bytes=2000)
        spool.address = "127.0.0.1", 9
        for number in range(100):
            spool.add("app.things", {"_id": number})
        await spool.close()
        return spool

    spool = asyncio.run(story())
    kept = (tmp_path / "test.jsonl").read_bytes().splitlines()
    assert len(kept) + spool.lost == 100
    assert 0 < sum(len(line) + 1 for line in kept) <= 2000


def test_a_node_without_a_database_keeps_nothing_for_it(tmp_path: Path) -> None:
    async def story() -> None:
        spool = Spool(tmp_path / "records", "test")
        assert spool.address is None
        spool.add("app.things", {"_id": 1})
        await spool.close()

    asyncio.run(story())
    assert not (tmp_path / "records").exists()


def test_a_controller_that_is_told_to_end_leaves_no_record_behind(
    asterisk: Asterisk, short_directory: Path, free_port: Callable[[], int]
) -> None:
    server = Server(short_directory, asterisk, free_port)
    (short_directory / "config" / "ha").write_text(ha_file(free_port()))

    async def story() -> str:
        desk, caller = Phone("desk"), Phone("caller")
        async with phones(desk, caller), serving(server):
            await server.present(desk)
            dialog = caller.dial("100", server.port)
            await asyncio.wait_for(dialog.answered.wait(), 5)
            call_id = str(server.live[0]["id"])
            caller.hang_up(dialog)
            await server.until_over()
            return call_id

    call_id = asyncio.run(story())
    queued = b"".join(path.read_bytes() for path in server.paths.records_dir.glob("conference.*"))
    assert call_id.encode() in queued
