"""Oddities of the field with the shipped client and real servers: clocks that jump, and two devices
of one name.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controlone_ha.console.rules import Policy, Rules
from controlone_ha.console.session import Session
from controlone_ha.console.settings import ConsoleConfig
from controlone_ha.console.trust import Credentials
from controlone_ha.jsonrpc import call
from tests.console_servers import ServerProcess
from tests.contract.test_console_client import Client
from tests.contract.test_database_clock import WrongClock
from tests.waiting import until, wait_for

pytestmark = pytest.mark.contract

DAY = 86400.0


@pytest.fixture
def pair(short_directory: Path, free_port: Callable[[], int]) -> Iterator[list[ServerProcess]]:
    port = free_port()
    made = [
        ServerProcess(short_directory, name, address, port)
        for name, address in (("a", "127.0.0.1"), ("b", "127.0.0.2"))
    ]
    yield made
    for server in made:
        server.end()


def test_a_clock_that_jumps_moves_no_console_and_ends_no_connection(
    pair: list[ServerProcess], short_directory: Path
) -> None:
    clock = WrongClock(short_directory / "clock")
    for server in pair:
        server.environment |= clock.environment
        server.start()
    device = short_directory / "device"
    device.mkdir()
    client = Client(
        device,
        "config console 'default'\n\toption server '127.0.0.1,127.0.0.2'\n\toption name 'desk-4'\n"
        f"\toption timeout '1'\n\toption check_interval '1'\n\toption port '{pair[0].port}'\n",
    )
    client.environment |= clock.environment
    client.start()
    try:
        client.wait_for("connected on a")
        for jump in (DAY, -DAY, 0.0):
            clock.set(jump)
            time.sleep(1.5)  # longer than the timeout: whoever measured by the clock would act now
            status = call(device / "console.sock", "status", {}, timeout=10.0)
            assert (status["state"], status["node"]) == ("connected", "a")
            said = pair[0].order("status")
            assert (said["consoles"], said["serving"]) == (1, True)
        record = pair[0].paths.sessions_file
        wait_for(record.exists, 5.0)
        assert [line for line in record.read_text().splitlines() if '"logout"' in line] == []
        # And what is due is still done: a server that dies is left at once.
        clock.set(-DAY)
        pair[0].end()
        client.wait_for("connected on b")
    finally:
        assert client.process is not None
        client.process.terminate()
        client.process.wait(10)
    said = pair[0].log + pair[1].log + (device / "log").read_text()
    assert "Traceback" not in said, said


def test_two_devices_of_one_name_do_not_fight_and_the_one_sent_away_says_why(
    pair: list[ServerProcess],
) -> None:
    server = pair[0].start()

    def device() -> Session:
        rules = Rules(servers=(server.address,), timeout=1.0, policy=Policy.NEVER)
        config = ConsoleConfig(name="desk-4", rules=rules, port=server.port, queues=("190",))
        return Session(config, Credentials(pins=(server.pin,)))

    async def story() -> None:
        first, second = device(), device()
        try:
            first.start()
            await until(lambda: first.active_name == "a", 10)
            second.start()
            await until(lambda: second.active_name == "a" and first.active_name is None, 10)
            assert first.core.reason.code == "replaced"
            await asyncio.sleep(2.0)
            assert (first.active_name, second.active_name) == (None, "a")
        finally:
            await first.stop()
            await second.stop()

    asyncio.run(story())
    record = server.paths.sessions_file
    wait_for(lambda: record.exists() and record.read_text().count('"login"') == 2, 5.0)
