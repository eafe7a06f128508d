"""To which Conference Server a console's call goes, and what a console is told of its calls."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controlone_ha.errors import PeerError
from controlone_ha.jsonrpc import RpcError
from controlone_ha.server.calls import CallCarrier, view_of
from controlone_ha.server.conference_links import ConferenceLink
from controlone_ha.server.door import Proof


class Link(ConferenceLink):
    """A Conference Server that answers as told."""

    def __init__(self, name: str, calls: int = 0, *, answer: Exception | None = None) -> None:
        super().__init__(name)
        self.calls = {f"{name}-{number}": document(f"{name}-{number}") for number in range(calls)}
        self.answer = answer
        self.asked: list[str] = []

    @property
    def is_up(self) -> bool:
        return True

    async def _connect(self) -> Any:
        raise PeerError("not used")

    async def ask(self, method: str, params: dict[str, Any]) -> Any:
        self.asked.append(method)
        if self.answer is not None:
            raise self.answer
        return document(f"{self.name}-new{len(self.asked)}", direction="out")


def document(call_id: str, **more: Any) -> dict[str, Any]:
    leg = {"id": "l", "role": "console", "party": "desk", "state": "confirmed", "hold": "",
           "since": 5.0}  # fmt: skip
    return {
        "id": call_id, "direction": "in", "state": "up", "queue": "100", "number": "100",
        "caller": "5511", "legs": [leg], **more,
    }  # fmt: skip


def dial(carrier: CallCarrier) -> str:
    answer = asyncio.run(carrier.handle("desk", "sip:d@h", "dial", {"number": "123"}))
    return str(answer["id"]).partition("-")[0]


def test_L3_the_server_with_the_fewest_calls_is_asked_first() -> None:
    links = [Link("a", 3), Link("b", 1), Link("c", 2)]
    carrier = CallCarrier(links, lambda console, call: None)
    assert [dial(carrier) for _ in range(3)] == ["b", "b", "c"]


def test_L3_each_in_turn_where_that_is_wanted() -> None:
    links = [Link("a", 3), Link("b"), Link("c")]
    carrier = CallCarrier(links, lambda console, call: None, spread="round_robin")
    assert [dial(carrier) for _ in range(4)] == ["a", "b", "c", "a"]


@pytest.mark.parametrize("answer", [PeerError("gone"), RpcError(-32000, "not active")])
def test_L3_one_that_is_gone_or_refuses_is_skipped(answer: Exception) -> None:
    links = [Link("a", answer=answer), Link("b", 5)]
    assert dial(CallCarrier(links, lambda console, call: None)) == "b"
    assert links[0].asked == ["dial"]


def test_L3_one_that_does_not_answer_may_have_done_it_so_nobody_else_is_asked() -> None:
    links = [Link("a", answer=TimeoutError()), Link("b", 5)]
    with pytest.raises(RpcError) as refused:
        dial(CallCarrier(links, lambda console, call: None))
    assert refused.value.number == -32022
    assert links[1].asked == []


def test_a_console_is_told_of_its_own_calls_once_for_each_change() -> None:
    told: list[tuple[str, str]] = []
    link = Link("a")
    carrier = CallCarrier([link], lambda console, call: told.append((console, call["state"])))
    leg = document("x")["legs"][0]
    for change in (
        {"state": "ringing", "legs": [{**leg, "state": "early"}]},
        {"state": "ringing", "legs": [{**leg, "state": "early"}], "priority": 7},
        {},
        {"legs": [{**leg, "hold": "local"}]},
        {"legs": [{**leg, "state": "ended"}]},
        {"legs": [{**leg, "state": "ended"}]},
    ):
        carrier.call_changed(link, document("x", **change))
    assert told == [("desk", state) for state in ("ringing", "up", "held", "ended")]
    assert view_of(document("x"), "somebody") is None


def test_X1_a_proof_of_the_secret_fits_one_role_one_pair_of_nodes_and_one_connection() -> None:
    server, client = Proof(key=b"k" * 32, own="S"), Proof(key=b"k" * 32, own="C")
    proof = client.make("client", "S", "n1", "n2")
    assert server.is_right("client", "C", "n1", "n2", proof)
    assert not server.is_right("client", "C", "n1", "n3", proof)
    assert not server.is_right("client", "X", "n1", "n2", proof)
    assert not client.is_right("server", "S", "n1", "n2", proof)
    assert not Proof(key=b"x" * 32, own="S").is_right("client", "C", "n1", "n2", proof)
    answer = server.make("server", "S", "n1", "n2")
    assert client.is_right("server", "S", "n1", "n2", answer)
    assert not server.is_right("client", "C", "n1", "n2", answer)
