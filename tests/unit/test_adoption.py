"""Adopted legs: what each side sees, for everything a dialog can do before its end."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from controlone_ha.conference.adoption.agent import GENERATION_STEP, Place, first_cseq, party_of
from controlone_ha.conference.adoption.pair import PairState
from controlone_ha.conference.adoption.sdp import continued
from controlone_ha.core.calls import Leg
from controlone_ha.sip.uri import Hop
from tests.unit.adoption_world import ANSWER, HOLD, LEG, OFFER, World

PLACE = Place(host="10.0.0.2", port=5070)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def up(world: World) -> World:
    world.adopt()
    world.party.requests.clear()
    world.party.answers.clear()
    world.engine.requests.clear()
    world.engine.answers.clear()
    return world


class TestAdopting:
    def test_A1_the_party_gets_a_reinvite_in_its_old_dialog_with_the_engines_offer(
        self, world: World
    ) -> None:
        world.adopt()
        (invite,) = world.party.got("INVITE")
        assert invite.uri == "sip:trunk@10.0.0.9:5060"
        assert invite.get("Call-ID") == "old@call"
        assert invite.get("From") == "<sip:100@10.0.0.1>;tag=us"
        assert invite.get("To") == "<sip:trunk@10.0.0.9>;tag=them"
        assert invite.cseq == (2 * GENERATION_STEP, "INVITE")
        assert invite.get("Contact") == "<sip:ha@10.0.0.2:5070>"
        assert invite.body == OFFER
        assert world.engine.answers[-1].body == ANSWER
        assert [ack.cseq for ack in world.party.acks] == [(2 * GENERATION_STEP, "ACK")]
        assert (world.told, world.pair.state) == (["taken"], PairState.UP)

    def test_A1_a_party_whose_call_is_over_is_told_by_a_bye_above_all_that_was_used(
        self, world: World
    ) -> None:
        world.agent.end(LEG, 3, PLACE, world.now)
        world.run()
        (bye,) = world.party.got("BYE")
        assert bye.get("To") == "<sip:trunk@10.0.0.9>;tag=them"
        assert bye.cseq == (3 * GENERATION_STEP, "BYE")
        assert world.agent.pairs == {}

    def test_A1_who_is_adopted_here_is_not_told_that_its_call_is_over(self, up: World) -> None:
        up.agent.end(LEG, 2, PLACE, up.now)
        up.run()
        assert up.party.got("BYE") == []
        up.agent.end(LEG, 3, PLACE, up.now)  # the call was over before it was adopted again
        up.run()
        assert len(up.party.got("BYE")) == 1 and up.agent.pairs == {}

    def test_A1_an_older_generation_is_refused_by_the_party_and_ends_nothing(
        self, world: World
    ) -> None:
        world.party.dialog.remote_cseq = 5 * GENERATION_STEP + 3
        world.begin(generation=4)
        world.run()
        assert world.engine.statuses == [500]
        assert world.ended == [("taken", 500)]
        assert world.party.got("BYE") == []
        world.begin(generation=6, name="newer")
        world.run()
        assert world.engine.statuses[-1] == 200

    @pytest.mark.parametrize(("status", "seen"), [(481, 481), (408, 408), (488, 488), (603, 603)])
    def test_A1_a_refusal_reaches_the_engine_and_the_party_is_left_alone(
        self, world: World, status: int, seen: int
    ) -> None:
        world.party.replies["INVITE"] = [status]
        world.begin()
        world.run(40)
        assert world.engine.statuses[-1] == seen
        assert world.ended == [("taken", seen)]
        assert [request.method for request in world.party.requests] == ["INVITE"]
        assert world.agent.pairs == {} and world.kept == {}

    def test_A1_a_party_that_is_silent_is_given_up_after_64_t1(self, world: World) -> None:
        world.party.mute = True
        world.begin()
        world.run(31)
        assert world.ended == []
        world.run(2)
        assert world.ended == [("taken", 408)]
        assert world.engine.statuses == [408]

    def test_glare_with_the_party_is_tried_again(self, world: World) -> None:
        world.party.replies["INVITE"] = [491, 491, 200]
        world.begin()
        world.run()
        assert world.engine.statuses == []
        world.run(5)
        assert world.engine.statuses == [200]
        numbers = [request.cseq[0] for request in world.party.got("INVITE")]
        assert numbers == [2 * GENERATION_STEP + n for n in range(3)]

    def test_glare_does_not_go_on_for_ever(self, world: World) -> None:
        world.party.replies["INVITE"] = [491]
        world.begin()
        world.run(60)
        assert world.engine.statuses == [491]
        assert len(world.party.got("INVITE")) == 6

    def test_a_longer_session_interval_is_agreed_to(self) -> None:
        world = World(replace(LEG, session_expires=120, refresher="uas"))
        world.party.replies["INVITE"] = [(422, (("Min-SE", "600"),)), 200]
        world.adopt()
        first, second = world.party.got("INVITE")
        assert first.get("Session-Expires") == "120;refresher=uac"
        assert second.get("Session-Expires") == "600;refresher=uac"
        assert second.get("Min-SE") == "600"

    def test_a_gateway_that_wants_credentials_gets_them_once(self, world: World) -> None:
        challenge = (("WWW-Authenticate", 'Digest realm="g", nonce="n", qop="auth"'),)
        world.credentials = ("site", "word")
        world.party.replies["INVITE"] = [(401, challenge), 200]
        world.adopt()
        assert "Authorization" in dict(world.party.got("INVITE")[1].headers)
        other = World()
        other.party.replies["INVITE"] = [(401, challenge)]
        other.begin()
        other.run()
        assert other.engine.statuses == [401]

    def test_the_engines_cancel_cancels_a_party_that_rings(self, world: World) -> None:
        world.party.replies["INVITE"] = [180, None]
        client = world.begin()
        world.run()
        world.engine.layer.cancel(client, world.now)
        world.run()
        assert world.engine.statuses == [180, 200, 487]  # 200: of the CANCEL itself
        assert world.ended == [("taken", 487)]
        assert world.party.got("BYE") == []

    def test_a_2xx_that_crosses_the_cancel_is_a_call(self, world: World) -> None:
        world.party.replies["INVITE"] = [None]
        world.party.heeds_cancel = False
        client = world.begin()
        world.run()
        world.engine.layer.cancel(client, world.now)
        world.run(20)
        world.party.say(200)
        world.run()
        assert world.engine.statuses[-1] == 200 and world.pair.state is PairState.UP

    def test_an_answer_that_comes_after_all_was_given_up_is_acknowledged_and_ended(
        self, world: World
    ) -> None:
        world.party.replies["INVITE"] = [None]
        world.party.heeds_cancel = False
        world.begin()
        world.run(5)
        world.agent.forget("taken", world.now)
        world.run(15)
        assert world.agent.pairs == {}
        world.party.say(200)
        world.run(40)
        assert len(world.party.acks) == 1 and len(world.party.got("BYE")) == 1
        assert len(world.agent.layer) == 0

    def test_a_party_that_hangs_up_meanwhile_is_gone(self, world: World) -> None:
        world.party.replies["INVITE"] = [None]
        world.begin()
        world.run()
        world.party.ask("BYE")
        world.run()
        assert world.party.statuses == [200]
        assert world.engine.statuses == [481]
        assert world.ended == [("taken", 481)]

    def test_an_engine_that_never_calls_is_waited_for_30_s(self, world: World) -> None:
        world.agent.prepare("taken", LEG, 2, PLACE, PLACE, world.now)
        world.run(31)
        assert world.ended == [("taken", 408)]
        assert world.party.requests == []

    def test_a_token_is_good_for_one_call_and_strangers_get_404(self, world: World) -> None:
        world.adopt()
        used = world.engine.got("INVITE")
        assert used == []
        target = f"sip:{world.pair.token}@10.0.0.2:5070"
        for uri in (target, "sip:100@10.0.0.2:5070"):
            stranger = World().engine
            dialog = world._engine_dialog(f"stranger-{uri}")
            dialog.remote_target = uri
            stranger.dialog = dialog
            world.engine.dialog = dialog
            world.engine.ask("INVITE", OFFER)
            world.run()
            assert world.engine.statuses[-1] == 404

    def test_the_same_dialog_is_adopted_again_after_the_engine_died(self, world: World) -> None:
        world.adopt(generation=2)
        world.engine.mute = True
        world.run(3)
        world.engine.mute = False
        changed = OFFER.replace(b"10000", b"10002").replace(b"7 7", b"99 99")
        world.begin(generation=3, name="again", body=changed)
        world.run()
        invite = world.party.got("INVITE")[-1]
        assert invite.cseq[0] >= 3 * GENERATION_STEP
        assert b"o=- 7 8 IN IP4" in invite.body and b"10002" in invite.body
        assert world.party.got("BYE") == []
        world.run(40)
        assert set(world.agent.pairs) == {"again"}
        with pytest.raises(ValueError, match="generation 3 already"):
            world.begin(generation=2, name="older")


class TestTalking:
    def test_A1_the_party_holds_and_resumes(self, up: World) -> None:
        up.party.ask("INVITE", HOLD)
        up.run()
        (held,) = up.engine.got("INVITE")
        assert held.body == HOLD
        assert up.party.statuses == [200]
        assert up.party.answers[0].body.startswith(b"v=0\r\no=- 7 7")
        up.party.ask("INVITE", ANSWER)
        up.run()
        assert up.party.statuses == [200, 200]

    def test_an_invite_without_an_offer_gets_the_engines_and_hands_the_answer_back(
        self, up: World
    ) -> None:
        up.party.ask("INVITE")
        up.run()
        assert up.engine.got("INVITE")[0].body == b""
        assert up.party.answers[0].body == OFFER
        assert up.engine.acks[-1].body == ANSWER

    def test_the_engines_own_invite_reaches_the_party_with_a_continued_origin(
        self, up: World
    ) -> None:
        up.engine.ask("INVITE", OFFER.replace(b"7 7", b"7 9") + b"a=inactive\r\n")
        up.run()
        (invite,) = up.party.got("INVITE")
        assert b"o=- 7 8 IN" in invite.body and b"a=inactive" in invite.body
        assert up.engine.statuses == [200]

    def test_glare_of_both_sides_gets_491_on_both(self, up: World) -> None:
        up.party.replies["INVITE"] = [None]
        up.engine.ask("INVITE", OFFER)
        up.run()
        up.party.ask("INVITE", HOLD)
        up.run()
        assert up.party.statuses == [491]
        up.party.say(200)
        up.run()
        assert up.engine.statuses == [200]

    def test_a_second_invite_before_the_first_is_answered_gets_500(self, up: World) -> None:
        up.engine.replies["INVITE"] = [None]
        up.party.ask("INVITE", HOLD)
        up.run()
        up.party.ask("INVITE", ANSWER)
        up.run()
        assert up.party.statuses == [500]
        assert up.party.answers[0].get("Retry-After").isdigit()

    def test_a_refused_change_leaves_the_call_as_it_was(self, up: World) -> None:
        up.engine.replies["INVITE"] = [488]
        up.party.ask("INVITE", HOLD)
        up.run()
        assert up.party.statuses == [488]
        assert up.pair.state is PairState.UP

    @pytest.mark.parametrize(
        ("method", "body", "status", "is_relayed"),
        [
            ("INFO", b"Signal=1", 200, True),
            ("MESSAGE", b"hello", 200, True),
            ("UPDATE", HOLD, 200, True),
            ("UPDATE", b"", 200, False),
            ("OPTIONS", b"", 200, False),
            ("REFER", b"", 405, False),
            ("NOTIFY", b"", 405, False),
        ],
    )
    def test_other_requests(
        self, up: World, method: str, body: bytes, status: int, is_relayed: bool
    ) -> None:
        up.party.ask(method, body)
        up.run()
        assert up.party.statuses == [status]
        assert [one.body for one in up.engine.got(method)] == ([body] if is_relayed else [])
        assert up.pair.state is PairState.UP

    def test_what_must_be_understood_and_is_not_gets_420(self, up: World) -> None:
        up.party.ask("INVITE", HOLD, (("Require", "100rel, timer"),))
        up.run()
        assert up.party.statuses == [420]
        assert up.party.answers[0].get("Unsupported") == "100rel"

    def test_a_lower_cseq_is_out_of_order(self, up: World) -> None:
        up.party.ask("OPTIONS")
        up.run()
        up.party.dialog.local_cseq = 1
        up.party.ask("OPTIONS")
        up.run()
        assert up.party.statuses == [200, 500]

    def test_a_moved_party_is_followed(self, up: World) -> None:
        up.party.dialog.contact = "sip:moved@10.0.0.9:5060"
        up.party.ask("INVITE", HOLD)
        up.run()
        assert up.pair.party.dialog.remote_target == "sip:moved@10.0.0.9:5060"
        assert up.kept["taken"]["party"]["dialog"]["remote_target"].startswith("sip:moved")


class TestEnding:
    def test_A1_the_partys_bye_ends_the_engines_side(self, up: World) -> None:
        up.party.ask("BYE")
        up.run()
        assert up.party.statuses == [200]
        assert len(up.engine.got("BYE")) == 1
        assert up.ended == [("taken", 0)] and up.kept == {}

    def test_A1_the_engines_bye_ends_the_party(self, up: World) -> None:
        up.engine.ask("BYE")
        up.run()
        assert up.engine.statuses == [200]
        assert len(up.party.got("BYE")) == 1
        assert up.ended == [("taken", 0)]

    def test_a_bye_that_a_gateway_challenges_is_sent_again_with_credentials(
        self, up: World
    ) -> None:
        challenge = (("Proxy-Authenticate", 'Digest realm="g", nonce="n"'),)
        up.credentials = ("site", "word")
        up.party.replies["BYE"] = [(407, challenge), 200]
        up.engine.ask("BYE")
        up.run()
        first, second = up.party.got("BYE")
        assert first.get("Proxy-Authorization") == ""
        assert second.get("Proxy-Authorization").startswith('Digest username="site"')
        assert second.cseq[0] == first.cseq[0] + 1
        assert up.ended == [("taken", 0)]

    def test_a_bye_is_repeated_until_it_is_answered(self, up: World) -> None:
        up.lost.add("BYE")
        up.engine.ask("BYE")
        up.run(0.1)
        up.lost.clear()
        up.run(40)
        assert len(up.party.got("BYE")) == 1
        assert up.ended == [("taken", 0)]

    def test_a_bye_that_is_never_answered_ends_after_64_t1(self, up: World) -> None:
        up.engine.ask("BYE")
        up.party.mute = True
        up.run(40)
        assert up.ended == [("taken", 0)]

    def test_A1_a_call_that_another_node_owns_is_dropped_without_a_word_to_the_party(
        self, up: World
    ) -> None:
        up.agent.forget("taken", up.now)
        up.run()
        assert up.party.requests == []
        assert len(up.engine.got("BYE")) == 1
        assert up.ended == [("taken", 0)]

    @pytest.mark.parametrize("status", [481, 408])
    def test_a_dialog_that_the_party_forgot_ends_the_call(self, up: World, status: int) -> None:
        up.party.replies["INVITE"] = [status]
        up.engine.ask("INVITE", OFFER)
        up.run()
        assert up.engine.statuses[0] == status
        assert len(up.engine.got("BYE")) == 1

    def test_an_answer_that_is_never_acknowledged_ends_the_call(self, up: World) -> None:
        up.party.ask("INVITE", HOLD)
        up.lost.add("ACK")
        up.run(70)
        assert len(up.party.got("BYE")) == 1
        assert up.agent.pairs == {}

    def test_a_hang_up_in_the_middle_of_a_change_ends_everything(self, up: World) -> None:
        up.engine.replies["INVITE"] = [None]
        up.party.ask("INVITE", HOLD)
        up.run()
        up.party.ask("BYE")
        up.run(40)
        assert sorted(up.party.statuses) == [200, 487]
        assert len(up.engine.got("BYE")) == 1
        assert up.agent.pairs == {}


class TestSessionTimer:
    @pytest.mark.parametrize(
        ("allow", "method"), [((("Allow", "INVITE, UPDATE"),), "UPDATE"), ((), "INVITE")]
    )
    def test_a_session_that_is_ours_to_refresh_is_refreshed_for_ever(
        self, allow: tuple[tuple[str, str], ...], method: str
    ) -> None:
        world = World(replace(LEG, session_expires=120, refresher="uas"))
        expires = (("Session-Expires", "120;refresher=uac"),)
        world.party.headers = (*allow, *expires)
        world.party.replies["UPDATE"] = [(200, expires)]
        world.adopt()
        world.run(600)
        assert len(world.party.got(method)) in (10, 11)
        assert world.pair.state is PairState.UP
        if method == "INVITE":
            assert {one.body for one in world.party.got("INVITE")} == {OFFER}

    def test_a_session_the_party_does_not_refresh_ends(self) -> None:
        world = World(replace(LEG, session_expires=120, refresher="uac"))
        world.party.headers = (("Session-Expires", "120;refresher=uas"),)
        world.adopt()
        world.run(87)
        assert world.party.got("BYE") == []
        world.run(2)
        assert len(world.party.got("BYE")) == 1 and len(world.engine.got("BYE")) == 1

    def test_a_session_the_party_refreshes_goes_on(self) -> None:
        world = World(replace(LEG, session_expires=120, refresher="uac"))
        world.party.headers = (("Session-Expires", "120;refresher=uas"),)
        world.adopt()
        for _ in range(6):
            world.run(60)
            extra = (("Session-Expires", "120;refresher=uac"), ("Supported", "timer"))
            world.party.ask("UPDATE", headers=extra)
        world.run()
        assert world.party.got("BYE") == []
        assert world.party.answers[-1].get("Session-Expires") == "120;refresher=uac"

    def test_a_party_without_timers_gets_none(self, up: World) -> None:
        up.run(100_000)
        assert up.party.requests == [] and up.engine.requests == []

    def test_too_short_a_session_is_refused(self, up: World) -> None:
        extra = (("Session-Expires", "30"), ("Supported", "timer"))
        up.party.ask("INVITE", HOLD, extra)
        up.party.ask("UPDATE", headers=extra)
        up.run()
        assert up.party.statuses == [422, 422]
        assert up.party.answers[0].get("Min-SE") == "90"

    def test_a_refresh_that_gets_481_ends_the_call(self) -> None:
        world = World(replace(LEG, session_expires=120, refresher="uas"))
        world.party.headers = (("Session-Expires", "120;refresher=uac"), ("Allow", "UPDATE"))
        world.party.replies["UPDATE"] = [481]
        world.adopt()
        world.run(61)
        assert len(world.engine.got("BYE")) == 1 and world.agent.pairs == {}

    def test_an_update_that_is_not_allowed_after_all_becomes_an_invite(self) -> None:
        world = World(replace(LEG, session_expires=120, refresher="uas"))
        world.party.headers = (("Session-Expires", "120;refresher=uac"), ("Allow", "UPDATE"))
        world.party.replies["UPDATE"] = [405]
        world.adopt()
        world.run(62)
        assert len(world.party.got("UPDATE")) == 1 and len(world.party.got("INVITE")) == 2


class TestRestart:
    def test_A1_an_adopted_call_goes_on_after_a_restart_in_every_direction(self, up: World) -> None:
        assert json.loads(json.dumps(up.kept)) == up.kept
        before = up.party.dialog.remote_cseq or 0
        assert up.restart() == 1
        assert up.party.requests == []
        assert [request.method for request in up.engine.requests] == ["OPTIONS"]
        up.party.ask("INVITE", HOLD)
        up.run()
        up.engine.ask("INVITE", OFFER + b"a=inactive\r\n")
        up.run()
        assert (up.party.statuses, up.engine.statuses) == ([200], [200])
        assert up.party.got("INVITE")[0].cseq[0] > before
        up.party.ask("BYE")
        up.run()
        assert len(up.engine.got("BYE")) == 1

    def test_A1_an_engine_that_died_meanwhile_leaves_the_party_to_the_next_adoption(
        self, up: World
    ) -> None:
        up.engine.dialog.call_id = "a new engine knows nothing"
        up.restart()
        up.run(100)
        assert up.party.got("BYE") == []
        up.adopt(generation=3, name="again")
        up.run(200)
        assert set(up.agent.pairs) == {"again"} and up.party.got("BYE") == []

    def test_a_party_whose_engine_died_and_that_nobody_takes_is_ended(self, up: World) -> None:
        up.engine.dialog.call_id = "a new engine knows nothing"
        up.restart()
        up.run(119)
        assert up.party.got("BYE") == []
        up.run(2)
        assert len(up.party.got("BYE")) == 1 and up.kept == {}

    def test_what_was_asked_while_we_were_away_is_answered_when_it_comes_again(
        self, up: World
    ) -> None:
        up.lost.add("BYE")
        up.party.ask("BYE")
        up.run(1)
        up.restart()
        up.lost.clear()
        up.run(10)
        assert up.party.statuses == [200] and len(up.engine.got("BYE")) == 1

    def test_an_end_that_was_begun_is_finished(self, up: World) -> None:
        up.party.mute = True
        up.engine.ask("BYE")
        up.run(1)
        up.party.mute = False
        up.restart()
        up.run(40)
        assert len(up.party.got("BYE")) == 1 and up.agent.pairs == {}

    def test_a_2xx_whose_invite_was_forgotten_is_acknowledged(self, up: World) -> None:
        up.party.replies["INVITE"] = [None]
        up.engine.ask("INVITE", OFFER)
        up.run()
        up.restart()
        up.party.say(200)
        up.run(1)
        assert len(up.party.acks) == 2

    @pytest.mark.parametrize("raw", [{}, {"name": "x"}, {"name": 1, "party": None}, {"party": []}])
    def test_what_cannot_be_read_is_left_out(self, up: World, raw: dict[str, object]) -> None:
        up.kept["broken"] = raw
        assert up.restart() == 1

    def test_the_session_timer_goes_on_counting(self) -> None:
        world = World(replace(LEG, session_expires=120, refresher="uas"))
        world.party.headers = (("Session-Expires", "120;refresher=uac"), ("Allow", "UPDATE"))
        world.adopt()
        world.now += 70  # nobody was there
        world.restart()
        world.run()
        assert len(world.party.got("UPDATE")) == 1


class TestLegs:
    @pytest.mark.parametrize(
        "name",
        ["call_id", "local_tag", "remote_tag", "local_uri", "remote_uri", "remote_target"],
    )
    def test_a_leg_that_lacks_something_is_refused_by_name(self, name: str) -> None:
        for value in ("", "a\r\nb: c"):
            change: dict[str, Any] = {name: value}
            with pytest.raises(ValueError, match=name):
                party_of(replace(LEG, **change), 2, PLACE)

    def test_a_target_that_is_no_sip_uri_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no SIP URI"):
            party_of(replace(LEG, remote_target="tel:+5511"), 2, PLACE)

    @pytest.mark.parametrize(
        ("leg", "hop", "contact"),
        [
            (LEG, Hop("udp", "10.0.0.9", 5060), "sip:ha@10.0.0.2:5070"),
            (
                replace(LEG, transport="tcp"),
                Hop("tcp", "10.0.0.9", 5060),
                "sip:ha@10.0.0.2:5070;transport=tcp",
            ),
            (
                replace(LEG, remote_target="sip:t@10.0.0.9:5061;transport=tls"),
                Hop("tls", "10.0.0.9", 5061),
                "sip:ha@10.0.0.2:5071;transport=tls",
            ),
            (
                replace(LEG, remote_target="sips:t@10.0.0.9"),
                Hop("tls", "10.0.0.9", 5061),
                "sips:ha@10.0.0.2:5071",
            ),
            (
                replace(LEG, route_set=("<sip:proxy:5080;lr;transport=tcp>",)),
                Hop("tcp", "proxy", 5080),
                "sip:ha@10.0.0.2:5070;transport=tcp",
            ),
        ],
    )
    def test_requests_go_by_the_legs_transport_or_its_first_route(
        self, leg: Leg, hop: Hop, contact: str
    ) -> None:
        place = Place(host="10.0.0.2", port=5070, tls_port=5071)
        side = party_of(leg, 2, place)
        assert side.dialog.hop() == hop
        assert side.dialog.contact == contact

    def test_routes_are_loose_or_strict(self) -> None:
        loose = party_of(replace(LEG, route_set=("<sip:p;lr>", "<sip:q;lr>")), 2, PLACE).dialog
        request = loose.request("BYE", "b")
        assert request.uri == LEG.remote_target
        assert request.all("Route") == ["<sip:p;lr>", "<sip:q;lr>"]
        strict = party_of(replace(LEG, route_set=("<sip:p>", "<sip:q;lr>")), 2, PLACE).dialog
        request = strict.request("BYE", "b")
        assert request.uri == "sip:p"
        assert request.all("Route") == ["<sip:q;lr>", f"<{LEG.remote_target}>"]

    @pytest.mark.parametrize(
        ("generation", "known", "expected"),
        [(1, None, 1 << 20), (2, 7, 2 << 20), (2, 5 << 20, (5 << 20) + 1)],
    )
    def test_A1_the_first_cseq_is_above_any_that_can_have_been_used(
        self, generation: int, known: int | None, expected: int
    ) -> None:
        assert first_cseq(generation, known) == expected

    @pytest.mark.parametrize("generation", [0, -1, 2047, 1 << 40])
    def test_generations_without_a_cseq_are_refused(self, generation: int) -> None:
        with pytest.raises(ValueError, match="no CSeq left"):
            first_cseq(generation)


@pytest.mark.parametrize(
    ("previous", "body", "origin"),
    [
        (b"", OFFER, b"o=- 7 7 IN IP4 10.0.0.2"),
        (OFFER, OFFER.replace(b"7 7", b"9 9"), b"o=- 7 7 IN IP4 10.0.0.2"),
        (OFFER, OFFER.replace(b"10000", b"10002"), b"o=- 7 8 IN IP4 10.0.0.2"),
        (b"no description", OFFER, b"o=- 7 7 IN IP4 10.0.0.2"),
        (OFFER.replace(b"\r\n", b"\n"), OFFER, b"o=- 7 7 IN IP4 10.0.0.2"),
    ],
)
def test_the_origin_is_continued_and_its_version_says_whether_anything_changed(
    previous: bytes, body: bytes, origin: bytes
) -> None:
    lines = continued(previous, body).split(b"\r\n")
    assert lines[1] == origin
    assert lines[0] == b"v=0" and lines[2:] == body.split(b"\r\n")[2:]
