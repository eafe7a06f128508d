"""The probe worker as a real child process: its life, and link events in a namespace."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from controlone_ha.core.observations import Outcome, Service
from controlone_ha.probes.database import DatabaseTarget
from controlone_ha.probes.links import LinkEvent, LinkSnapshot
from controlone_ha.probes.worker_client import ProbeWorker, ProbeWorkerError, pause_after
from tests.waiting import freeze, until

pytestmark = pytest.mark.contract

WORKER = (sys.executable, "-m", "controlone_ha.probes.worker")
CHECKOUT = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def working(**options: object) -> AsyncIterator[ProbeWorker]:
    worker = ProbeWorker(**options)  # type: ignore[arg-type]
    try:
        yield worker
    finally:
        await worker.close()


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


class TestLife:
    def test_it_starts_with_the_first_request_and_ends_when_closed(self) -> None:
        async def story() -> None:
            async with working() as worker:
                assert worker.pid is None
                status = await worker.status()
                pid = worker.pid
                assert pid is not None and status["pid"] == pid
                assert status["rss_kib"] < 40_000  # neither library is imported yet
            assert not is_alive(pid)
            with pytest.raises(ProbeWorkerError, match="closed"):
                await worker.status()

        asyncio.run(story())

    def test_a_killed_worker_is_started_again_after_a_pause(self) -> None:
        async def story() -> None:
            async with working(first_pause=1.0) as worker:
                await worker.status()
                first = worker.pid
                assert first is not None
                os.kill(first, signal.SIGKILL)
                await until(lambda: worker.pid is None)
                with pytest.raises(ProbeWorkerError, match=r"the next is started in [01]\.\d s"):
                    await worker.status()
                await asyncio.sleep(1.05)
                status = await worker.status()
                assert status["pid"] != first
                assert status["restarts"] == 1

        asyncio.run(story())

    def test_a_worker_that_dies_at_once_is_not_started_in_a_loop(self) -> None:
        async def story() -> None:
            async with working(command=("false",), first_pause=20.0) as worker:
                with pytest.raises(ProbeWorkerError, match="ended during"):
                    await worker.status()
                for _ in range(3):
                    with pytest.raises(ProbeWorkerError, match="has ended 1 times; the next is"):
                        await worker.status()
                assert worker.restarts == 1

        asyncio.run(story())

    def test_the_pause_doubles_up_to_half_a_minute(self) -> None:
        assert [pause_after(n) for n in (1, 2, 3, 6, 7, 8, 10**6)] == [0.5, 1, 2, 16, 30, 30, 30]

    def test_a_program_that_is_missing_is_told(self) -> None:
        async def story() -> None:
            async with working(command=("/nonexistent/python",)) as worker:
                with pytest.raises(ProbeWorkerError, match="cannot be started"):
                    await worker.status()

        asyncio.run(story())

    def test_a_request_in_flight_fails_when_the_worker_dies(self) -> None:
        async def story() -> None:
            async with working() as worker:
                await worker.status()
                assert worker.pid is not None
                freeze(worker.pid)
                request = asyncio.ensure_future(worker.status())
                await asyncio.sleep(0.05)
                os.kill(worker.pid, signal.SIGKILL)
                with pytest.raises(ProbeWorkerError, match="ended during status"):
                    await request

        asyncio.run(story())

    def test_no_worker_outlives_a_killed_parent(self) -> None:
        script = (
            "import asyncio\n"
            "from controlone_ha.probes.worker_client import ProbeWorker\n"
            "async def story():\n"
            "    worker = ProbeWorker()\n"
            "    print((await worker.status())['pid'], flush=True)\n"
            "    await asyncio.sleep(60)\n"
            "asyncio.run(story())\n"
        )
        parent = subprocess.Popen(
            [sys.executable, "-c", script], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
        )
        try:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            assert is_alive(pid)
        finally:
            parent.kill()
            parent.communicate()
        deadline = time.monotonic() + 5
        while is_alive(pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not is_alive(pid)

    def test_nonsense_on_its_input_is_answered_and_survived(self) -> None:
        answers = subprocess.run(
            [*WORKER, str(os.getpid())],
            cwd=CHECKOUT,
            input=b'nonsense\n{"method":"sing","id":1}\n{"method":"status","id":2}\n',
            capture_output=True,
            timeout=30,
        ).stdout.splitlines()
        assert [b'"code":-32700' in answers[0], b'"code":-32601' in answers[1]] == [True, True]
        assert b'"rss_kib"' in answers[2]


class Namespace:
    """A network namespace held by a sleeping process; it ends with it."""

    def __init__(self) -> None:
        self.holder = subprocess.Popen(["unshare", "--net", "sleep", "600"])
        own = os.readlink("/proc/self/ns/net")
        deadline = time.monotonic() + 5
        while os.readlink(f"/proc/{self.holder.pid}/ns/net") == own:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    @property
    def enter(self) -> tuple[str, ...]:
        return ("nsenter", f"--target={self.holder.pid}", "--net")

    def ip(self, *lines: str) -> None:
        for line in lines:
            subprocess.run([*self.enter, "ip", *line.split()], check=True)

    def close(self) -> None:
        self.holder.kill()
        self.holder.wait()


@pytest.fixture
def namespace(root: None) -> Iterator[Namespace]:
    made = Namespace()
    try:
        made.ip(
            "link set lo up",
            "link add eth0 type veth peer name far0",
            "link set far0 up",
            "link set eth0 up",
            "addr add 10.77.0.1/24 dev eth0",
            "route add default via 10.77.0.254",
        )
        yield made
    finally:
        made.close()


class Events:
    """Collects what the callback is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.snapshot: LinkSnapshot | None = None

    def __call__(self, snapshot: LinkSnapshot, events: Sequence[LinkEvent]) -> None:
        self.texts.extend(event.text for event in events)
        self.snapshot = snapshot

    async def expect(self, *texts: str) -> None:
        await until(lambda: set(texts) <= set(self.texts))
        self.texts.clear()


class TestLinks:
    def test_F1_what_happens_to_the_network_is_told_as_it_happens(
        self, namespace: Namespace
    ) -> None:
        async def story() -> None:
            events = Events()
            async with working(command=(*namespace.enter, *WORKER)) as worker:
                first = await worker.watch_links(events)
                assert first.to_json() == {
                    "interfaces": {"eth0": {"up": True, "addresses": ["10.77.0.1"]}},
                    "default_route": True,
                }
                assert events.texts == []

                namespace.ip("link set far0 down")  # the cable is pulled
                await events.expect("interface eth0 is down", "there is no default route any more")
                assert events.snapshot is not None and not events.snapshot.has_any_up
                namespace.ip("link set far0 up")
                await events.expect("interface eth0 is up", "there is a default route")

                namespace.ip("addr add 10.77.0.2/24 dev eth0")
                await events.expect("address 10.77.0.2 is on eth0")
                namespace.ip("addr del 10.77.0.2/24 dev eth0")
                await events.expect("address 10.77.0.2 is gone from eth0")

                namespace.ip("route del default")
                await events.expect("there is no default route any more")
                namespace.ip("route add default via 10.77.0.254")
                await events.expect("there is a default route")

                namespace.ip("link set eth0 down")  # IPv4 drops the route without a word
                await events.expect("interface eth0 is down", "there is no default route any more")
                namespace.ip("link set eth0 up")
                await events.expect("interface eth0 is up")
                assert worker.links is not None and not worker.links.has_default_route

                namespace.ip("link del eth0")
                await events.expect("interface eth0 is gone")

        asyncio.run(story())

    def test_F3_a_pulled_cable_is_known_at_once(self, namespace: Namespace) -> None:
        async def story() -> float:
            told = asyncio.get_running_loop().create_future()

            def on_links(snapshot: LinkSnapshot, events: Sequence[LinkEvent]) -> None:
                if not told.done():
                    told.set_result(time.monotonic())

            async with working(command=(*namespace.enter, *WORKER)) as worker:
                await worker.watch_links(on_links)
                namespace.ip("link set far0 down")
                pulled = time.monotonic()
                return float(await asyncio.wait_for(told, 10.0)) - pulled

        assert asyncio.run(story()) < 1.0  # milliseconds, where nothing else runs

    def test_interfaces_can_be_chosen_and_changed(self, namespace: Namespace) -> None:
        async def story() -> None:
            events = Events()
            async with working(command=(*namespace.enter, *WORKER)) as worker:
                first = await worker.watch_links(events, ["far0"])
                assert set(first.interfaces) == {"far0"}
                second = await worker.watch_links(events, ["eth0", "far0"])
                assert set(second.interfaces) == {"eth0", "far0"}
                assert events.texts == []

        asyncio.run(story())

    def test_what_happened_while_the_worker_was_dead_is_told_by_the_next(
        self, namespace: Namespace
    ) -> None:
        async def story() -> None:
            events = Events()
            command = (*namespace.enter, *WORKER)
            async with working(command=command, first_pause=0.1) as worker:
                await worker.watch_links(events)
                assert worker.pid is not None
                os.kill(worker.pid, signal.SIGKILL)
                namespace.ip("link set far0 down")
                await events.expect("interface eth0 is down")
                namespace.ip("link set far0 up")
                await events.expect("interface eth0 is up")
                assert worker.restarts == 1

        asyncio.run(story())


class TestDatabaseWithoutServer:
    """What needs no mongod; the rest is in test_probes_database.py."""

    def test_F3_a_port_without_database_refuses_at_once(self, free_port: Callable[[], int]) -> None:
        async def story() -> None:
            async with working() as worker:
                started = time.monotonic()
                result = await worker.ping_database(
                    DatabaseTarget(host="127.0.0.1", port=free_port()), timeout=10.0
                )
                assert time.monotonic() - started < 5.0
                assert result.service is Service.DATABASE
                assert result.outcome is Outcome.REFUSED
                assert result.detail == "connection refused: no database on it"
                # Nodes without a database do not pay for pymongo.
                modules = Path(f"/proc/{worker.pid}/maps").read_text()
                assert "_cbson" not in modules

        asyncio.run(story())

    def test_F3_a_database_that_is_mute_or_speaks_something_else_is_told_apart(self) -> None:
        async def story() -> None:
            async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                with suppress(OSError):
                    await reader.read()

            async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                with suppress(OSError):
                    await reader.read(16)
                writer.close()

            outcomes = {}
            async with working() as worker:
                for serve in (mute, closing):
                    server = await asyncio.start_server(serve, "127.0.0.1", 0)
                    port = server.sockets[0].getsockname()[1]
                    result = await worker.ping_database(
                        DatabaseTarget(host="127.0.0.1", port=port), timeout=1.0
                    )
                    outcomes[serve.__name__] = result.outcome
                    server.close()
            assert outcomes["mute"] is Outcome.TIMEOUT
            assert outcomes["closing"] in (Outcome.REJECTED, Outcome.REFUSED)  # FIN or RST

        asyncio.run(story())

    def test_a_certificate_of_ours_that_is_missing_is_no_finding_about_the_peer(self) -> None:
        async def story() -> None:
            server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            async with working() as worker:
                with pytest.raises(ProbeWorkerError, match="/nonexistent/ca"):
                    await worker.ping_database(
                        DatabaseTarget(host="127.0.0.1", port=port, ca_file="/nonexistent/ca")
                    )
            server.close()

        asyncio.run(story())
