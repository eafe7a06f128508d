"""Adoption against what nobody sends on purpose: damaged messages, and any order of events."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from controlone_ha.conference.adoption.pair import PairState
from controlone_ha.conference.adoption.sdp import continued
from controlone_ha.sip.digest import challenge_of
from controlone_ha.sip.message import (
    Response,
    SipSyntaxError,
    build_request,
    build_response,
    fault,
    parse,
)
from controlone_ha.sip.session_timer import SessionTimer, read_expires
from controlone_ha.sip.uri import Hop, parse_uri
from tests.unit.adoption_world import HOLD, LEG, OFFER, PARTY, World

METHODS = ("INVITE", "ACK", "BYE", "CANCEL", "UPDATE", "INFO", "OPTIONS", "PRACK", "REFER")


def message_of(world: World, kind: str, method: str) -> bytes:
    """Return a message of the dialog that is up."""
    request = world.party.dialog.request(method, world.token(), body=HOLD)
    if kind == "request":
        return request.to_bytes()
    sent = world.party.requests[-1]
    return build_response(sent, int(kind), "Word", to_tag="them", body=HOLD).to_bytes()


@settings(max_examples=120)
@given(
    kind=st.sampled_from(["request", "180", "200", "401", "422", "481", "491", "603"]),
    method=st.sampled_from(METHODS),
    edits=st.lists(
        st.tuples(st.integers(0, 900), st.integers(0, 12), st.binary(max_size=12)), max_size=4
    ),
)
def test_a_damaged_message_never_breaks_the_agent(
    kind: str, method: str, edits: list[tuple[int, int, bytes]]
) -> None:
    world = World()
    world.adopt()
    data = message_of(world, kind, method)
    for place, length, new in edits:
        data = data[:place] + new + data[place + length :]
    try:
        message = parse(data)
    except SipSyntaxError:
        return
    if fault(message) is not None:
        return
    world.agent.receive(message, PARTY, world.now)
    world.run(200)
    assert all(
        pair.state in (PairState.UP, PairState.ENDING) for pair in world.agent.pairs.values()
    )


@settings(max_examples=120)
@given(
    name=st.sampled_from(
        ["Session-Expires", "Min-SE", "Contact", "Allow", "Require", "Record-Route", "Supported"]
    ),
    value=st.text(st.characters(blacklist_characters="\r\n", max_codepoint=300), max_size=40),
    method=st.sampled_from(["INVITE", "UPDATE"]),
)
def test_no_header_of_the_party_breaks_the_agent_or_gets_a_line_break_out(
    name: str, value: str, method: str
) -> None:
    world = World()
    world.adopt()
    request = world.party.dialog.request(method, world.token(), body=HOLD)
    request.headers.append((name, value))
    message = parse(request.to_bytes())
    if fault(message) is not None:
        return
    world.agent.receive(message, PARTY, world.now)
    world.run(200)
    assert world.agent.pairs or world.ended


ACTIONS = st.sampled_from(
    [
        "party invites", "engine invites", "party offers nothing", "party updates",
        "engine updates", "party sends info", "restart", "lose", "find", "party is away",
        "party is back", "engine is away", "engine is back", "second", "minute", "party refuses",
        "party agrees", "party glares", "adopt again",
    ]
)  # fmt: skip


WAITS = st.sampled_from([0.0, 0.05, 0.6, 5.0])
TIMED = st.sampled_from([(0, "uac", "uac"), (90, "uac", "uas"), (120, "uas", "uac")])


@settings(max_examples=250)
@given(
    actions=st.lists(st.tuples(ACTIONS, WAITS), max_size=18),
    timer=TIMED,
    by=st.sampled_from(["party", "engine"]),
)
def test_A1_whatever_happened_a_hang_up_ends_both_sides_and_leaves_nothing(
    actions: list[tuple[str, float]], timer: tuple[int, str, str], by: str
) -> None:
    seconds, refresher, answered = timer
    world = World(replace(LEG, session_expires=seconds, refresher=refresher))
    if seconds:
        world.party.headers = (("Session-Expires", f"{seconds};refresher={answered}"),)
    world.adopt()
    generation = 2
    for action, wait in actions:
        generation = act(world, action, generation)
        world.run(wait)
    world.lost.clear()
    world.party.mute = world.engine.mute = False
    for ua in (world.party, world.engine):
        ua.replies.clear()
    world.run(80)
    # An engine whose last adoption failed has no dialog to end.
    (world.engine if by == "engine" and world.engine.dialog.remote_tag else world.party).ask("BYE")
    world.run(300)
    assert world.agent.pairs == {} and world.kept == {}
    assert len(world.agent.layer) == 0
    assert world.agent.next_due() is None


def act(world: World, action: str, generation: int) -> int:
    match action:
        case "party invites":
            world.party.ask("INVITE", HOLD)
        case "party offers nothing":
            world.party.ask("INVITE")
        case "engine invites" | "engine updates" if world.engine.dialog.remote_tag:
            world.engine.ask("INVITE" if action == "engine invites" else "UPDATE", OFFER)
        case "party updates":
            world.party.ask("UPDATE", HOLD)
        case "party sends info":
            world.party.ask("INFO", b"1")
        case "restart":
            world.restart()
        case "lose":
            world.lost |= {"INVITE", "ACK", "BYE", "UPDATE", "INFO"}
        case "find":
            world.lost.clear()
        case "party is away" | "party is back":
            world.party.mute = action.endswith("away")
        case "engine is away" | "engine is back":
            world.engine.mute = action.endswith("away")
        case "second" | "minute":
            world.run(1 if action == "second" else 60)
        case "party refuses" | "party agrees" | "party glares":
            status = {"party refuses": 488, "party agrees": 200, "party glares": 491}[action]
            world.party.replies["INVITE"] = [status]
        case "adopt again":
            generation += 1
            world.begin(generation, name=f"taken-{generation}")
    return generation


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes_can_be_a_description(previous: bytes, body: bytes) -> None:
    assert isinstance(continued(previous, body), bytes)
    assert continued(b"", body) == body


@given(st.text(max_size=60))
def test_any_text_can_be_a_uri_a_timer_or_a_challenge(text: str) -> None:
    uri = parse_uri(text)
    assert uri is None or isinstance(uri.hop(), Hop)
    response = Response([("Session-Expires", text), ("Min-SE", text)], b"", 422, "")
    response.headers.append(("WWW-Authenticate", f"Digest {text}"))
    found = read_expires(response)
    assert found is None or found[0] >= 0
    assert SessionTimer(interval=0).too_small(response) is False
    challenge = challenge_of(response)
    assert challenge is None or {"nonce", "realm"} <= set(challenge[1])


def test_build_request_refuses_a_target_with_a_line_break() -> None:
    try:
        build_request("BYE", "sip:a\r\nb: c", [])
    except ValueError:
        return
    raise AssertionError("a header could be smuggled in")
