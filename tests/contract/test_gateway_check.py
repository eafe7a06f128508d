"""`ha check` asks gateways: made-up ones for every answer, and the real Asterisk and SIPp."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from controlone_ha.config.settings import GatewaySettings
from controlone_ha.daemon.check_gateways import check_gateway
from controlone_ha.lab.parts import Asterisk
from controlone_ha.probes.gateway import (
    GatewayAnswer,
    GatewayQuestion,
    ask_options,
    ask_replaces,
)
from controlone_ha.sip.message import Request, build_response, fault, parse
from tests.contract.conference_support import Server, serving
from tests.contract.test_probes_sip import Answer, responder, status
from tests.phone import Phone
from tests.ports import free_port

pytestmark = pytest.mark.contract

QUICK = 0.6


def gateway(port: int, *, transport: str = "udp", check: bool = True) -> GatewaySettings:
    return GatewaySettings(
        name="east",
        host="127.0.0.1",
        port=port,
        transport=transport,
        username="",
        password="",
        replaces=True,
        check_replaces=check,
    )


def by_method(**answers: int) -> Answer:
    def answer(request: Request, _: int) -> list[bytes]:
        code = answers.get(request.method.lower())
        if code is None:
            return []
        return [build_response(request, code, "Word", to_tag="x").to_bytes()]

    return answer


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"options": 200, "invite": 481}, []),
        ({"options": 404, "invite": 481}, []),
        ({}, ["gateway_silent"]),
        ({"options": 403}, ["gateway_forbids"]),
        ({"options": 401}, ["gateway_forbids"]),
        ({"options": 503}, ["gateway_busy"]),
        ({"options": 200, "invite": 420}, ["gateway_replaces"]),
        ({"options": 200, "invite": 404}, ["gateway_replaces"]),
        ({"options": 200, "invite": 200, "bye": 200}, ["gateway_new_call"]),
        ({"options": 200, "invite": 407}, ["gateway_forbids"]),
        ({"options": 200}, ["gateway_silent"]),
    ],
)
def test_A1_check_tells_what_a_gateway_would_do_on_the_day(
    answers: dict[str, int], expected: list[str]
) -> None:
    async def story() -> None:
        async with responder(by_method(**answers)) as (server, port):
            found = await check_gateway(gateway(port), "127.0.0.1", timeout=QUICK)
            assert [item["code"] for item in found] == expected
            assert all(item["params"]["local"] == "127.0.0.1" for item in found)
            assert [fault(request) for request in server.requests] == [None] * len(server.requests)
            if answers.get("invite") == 200:
                await asyncio.sleep(0.05)
                assert [one.method for one in server.requests][-2:] == ["ACK", "BYE"]

    asyncio.run(story())


def test_A1_the_invite_is_sent_only_to_a_gateway_that_asks_for_it() -> None:
    async def story() -> None:
        async with responder(by_method(options=200, invite=420)) as (server, port):
            assert await check_gateway(gateway(port, check=False), "", timeout=QUICK) == []
            assert {request.method for request in server.requests} == {"OPTIONS"}

    asyncio.run(story())


def test_a_phone_that_rings_is_cancelled_at_once_and_called_a_new_call() -> None:
    async def story() -> None:
        phone = await Phone("victim", answer=None, ignores_require=True).start()
        try:
            question = GatewayQuestion(host="127.0.0.1", port=phone.port, timeout=QUICK)
            result = await ask_replaces(question)
            assert (result.answer, result.status) == (GatewayAnswer.NEW_CALL, 487)
            assert phone.cancelled == 1
        finally:
            phone.stop()

    asyncio.run(story())


def test_credentials_are_given_where_they_are_asked_for() -> None:
    async def story() -> None:
        phone = await Phone("guarded", refuse=481, password="guess", ignores_require=True).start()
        try:
            for password, expected in (
                ("guess", GatewayAnswer.READY),
                ("wrong", GatewayAnswer.FORBIDDEN),
            ):
                question = GatewayQuestion(
                    host="127.0.0.1",
                    port=phone.port,
                    username="site",
                    password=password,
                    timeout=QUICK,
                )
                assert (await ask_replaces(question)).answer is expected
        finally:
            phone.stop()

    asyncio.run(story())


def test_a_closed_tcp_port_and_a_host_that_does_not_exist_are_unreachable() -> None:
    async def story() -> None:
        closed = GatewayQuestion(host="127.0.0.1", port=free_port(), transport="tcp", timeout=QUICK)
        assert (await ask_options(closed)).answer is GatewayAnswer.UNREACHABLE

    asyncio.run(story())


def test_an_answer_that_is_not_sip_or_not_ours_is_none() -> None:
    async def story() -> None:
        def forged(request: Request, _: int) -> list[bytes]:
            other = parse(request.to_bytes())
            assert isinstance(other, Request)
            other.headers = [
                (name, "other" if name == "Call-ID" else value) for name, value in other.headers
            ]
            return [b"hello", build_response(other, 200, "OK", to_tag="x").to_bytes()]

        async with responder(forged) as (_, port):
            question = GatewayQuestion(host="127.0.0.1", port=port, timeout=QUICK)
            assert (await ask_options(question)).answer is GatewayAnswer.SILENT
        async with responder(status(200)) as (_, port):
            question = GatewayQuestion(host="127.0.0.1", port=port, timeout=QUICK)
            assert (await ask_options(question)).answer is GatewayAnswer.READY

    asyncio.run(story())


def test_A1_a_real_asterisk_is_ready_over_udp_and_tcp(
    asterisk: Asterisk, short_directory: Path, free_port: Callable[[], int]
) -> None:
    async def story() -> None:
        server = Server(short_directory, asterisk, free_port)
        async with serving(server):
            for transport in ("udp", "tcp"):
                found = await check_gateway(gateway(server.port, transport=transport), "127.0.0.1")
                assert found == []
                question = GatewayQuestion(
                    host="127.0.0.1", port=server.port, transport=transport, bind="127.0.0.1"
                )
                result = await ask_replaces(question)
                assert (result.answer, result.status) == (GatewayAnswer.READY, 481)
            assert await server.channels() == []

    asyncio.run(story())


def test_A1_a_real_sipp_gateway_takes_the_replacement_for_a_new_call(
    sipp_path: Path, short_directory: Path, free_port: Callable[[], int]
) -> None:
    port = free_port()
    words = [str(sipp_path), "-sn", "uas", "-i", "127.0.0.1", "-p", str(port), "-nostdin"]
    sipp = subprocess.Popen(
        [*words, "-ci", "127.0.0.1", "-m", "1"],
        cwd=short_directory,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:

        async def story() -> None:
            question = GatewayQuestion(host="127.0.0.1", port=port, timeout=QUICK)
            for _ in range(50):
                if (await ask_replaces(question)).answer is GatewayAnswer.NEW_CALL:
                    return
                await asyncio.sleep(0.1)
            raise AssertionError("SIPp did not answer")

        asyncio.run(story())
    finally:
        sipp.kill()
        sipp.wait()
