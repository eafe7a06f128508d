"""Frames, the handshake, and the pure decisions about links: no I/O, no clock."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlone_ha.peers import bridge, choose, frames
from controlone_ha.peers.accept import parse_preamble
from controlone_ha.peers.facts import Established, OwnFacts, PinnedFacts, Refusal
from controlone_ha.peers.frames import FrameDecoder, Kind, ProtocolError
from controlone_ha.peers.handshake import AcceptorHandshake, DialerHandshake, chosen_version
from controlone_ha.peers.model import LinkDown
from controlone_ha.peers.notes import Notes

ALFA = OwnFacts(name="alfa", key_fingerprint="KA", host_keys=("HA",), instance="a1")
BETA = OwnFacts(name="beta", key_fingerprint="KB", host_keys=("HB", "HB2"), instance="b1")
PIN_ALFA = PinnedFacts(name="alfa", key_fingerprint="KA", host_keys=("HA",))
PIN_BETA = PinnedFacts(name="beta", key_fingerprint="KB", host_keys=("HB", "HB2"))
KEY = b"k" * 32


def decoded(data: bytes, *, authenticated: bool = False) -> list[frames.Frame]:
    decoder = FrameDecoder()
    if authenticated:
        decoder.authenticated()
    decoder.receive(data)
    found = []
    while (frame := decoder.next_frame()) is not None:
        found.append(frame)
    return found


class TestFrames:
    @given(st.lists(st.binary(max_size=300), max_size=5), st.integers(1, 50))
    def test_frames_survive_any_cutting_of_the_stream(
        self, payloads: list[bytes], step: int
    ) -> None:
        data = b"".join(frames.encode(Kind.NOTIFY, payload) for payload in payloads)
        decoder = FrameDecoder()
        decoder.authenticated()
        found = []
        for start in range(0, len(data), step):
            decoder.receive(data[start : start + step])
            while (frame := decoder.next_frame()) is not None:
                found.append(frame.payload)
        assert found == payloads
        assert decoder.buffered == 0

    @given(st.binary(min_size=5, max_size=200))
    def test_garbage_is_an_error_or_an_incomplete_small_frame(self, garbage: bytes) -> None:
        decoder = FrameDecoder()
        decoder.receive(garbage)
        try:
            while decoder.next_frame() is not None:
                pass
        except ProtocolError as error:
            assert "expected" in str(error)
            with pytest.raises(ProtocolError):
                decoder.next_frame()
            decoder.receive(b"more")
            assert decoder.buffered == 0, "nothing is kept after an error"
        else:
            assert decoder.buffered <= 2053

    @pytest.mark.parametrize("kind", list(Kind))
    def test_every_kind_has_a_limit_that_holds_both_ways(self, kind: Kind) -> None:
        limit = frames.LIMITS[kind]
        with pytest.raises(ValueError, match="do not fit"):
            frames.encode(kind, bytes(limit + 1))
        header = frames.HEADER.pack(limit + 1, kind)
        with pytest.raises(ProtocolError, match="exceeds the limit"):
            decoded(header, authenticated=kind in frames.AFTER_AUTHENTICATION)
        whole = frames.encode(kind, bytes(limit))
        (frame,) = decoded(whole, authenticated=kind in frames.AFTER_AUTHENTICATION)
        assert len(frame.payload) == limit

    def test_X2_before_authentication_only_small_handshake_frames_pass(self) -> None:
        for kind in Kind:
            if kind in frames.BEFORE_AUTHENTICATION:
                assert frames.LIMITS[kind] <= 2048
            else:
                with pytest.raises(ProtocolError, match="before authentication"):
                    decoded(frames.encode(kind, b""))

    def test_a_handshake_frame_on_a_link_is_an_error(self) -> None:
        with pytest.raises(ProtocolError, match="not allowed after authentication"):
            decoded(frames.encode(Kind.HELLO, b"{}"), authenticated=True)

    def test_what_a_shell_says_instead_of_frames_is_quoted(self) -> None:
        with pytest.raises(ProtocolError, match="Welcome to OpenWrt"):
            decoded(b"Welcome to OpenWrt\n")

    @pytest.mark.parametrize("payload", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
    def test_payloads_that_are_no_json_object_are_errors(self, payload: bytes) -> None:
        with pytest.raises(ProtocolError, match="expected"):
            frames.json_object(Kind.NOTIFY, payload)

    def test_the_bridge_speaks_the_same_goodbye(self) -> None:
        (frame,) = decoded(bridge.goodbye("no_daemon", "ha is not running (No such file)"))
        assert frame.kind is Kind.GOODBYE
        assert frame.fields()["code"] == "no_daemon"
        assert bridge.GOODBYE == Kind.GOODBYE

    def test_what_peers_say_is_one_bounded_line(self) -> None:
        assert frames.printable("a\nb\x1b[31m" + "x" * 1000, 10) == "a?b?[31mxx"
        assert frames.printable("") == "(nothing)"


class TestPreamble:
    def test_the_bridge_and_the_daemon_agree(self) -> None:
        line = bridge.preamble("alfa", '192.0.2.1 5000 192.0.2.2 22"}\n')
        assert line.count(b"\n") == 1
        read = parse_preamble(line)
        assert (read.peer, read.remote_address, read.local_address) == (
            "alfa",
            "192.0.2.1",
            "192.0.2.2",
        )

    @pytest.mark.parametrize("line", [b"", b"GET / HTTP/1.1", b"[]", b"{}", b'{"peer": 3}'])
    def test_anything_else_is_an_error(self, line: bytes) -> None:
        with pytest.raises(ProtocolError, match="bridge's line"):
            parse_preamble(line)


class Session:
    """Two handshakes joined; ``tamper`` may change a frame on its way."""

    def __init__(self, **changes: Any) -> None:
        dialer: dict[str, Any] = {
            "own": ALFA,
            "pinned": PIN_BETA,
            "link_key": KEY,
            "nonce": b"1" * 32,
            "host_key": "HB",
        }
        acceptor: dict[str, Any] = {
            "own": BETA,
            "pinned": PIN_ALFA,
            "link_key": KEY,
            "nonce": b"2" * 32,
        }
        for name, value in changes.items():
            side, _, field = name.partition("_")
            {"dialer": dialer, "acceptor": acceptor}[side][field] = value
        self.dialer = DialerHandshake(**dialer)
        self.acceptor = AcceptorHandshake(**acceptor)
        self.sent: list[bytes] = []

    def run(self) -> tuple[Established, Established]:
        """Join them; raises the refusal of the side that refuses first."""
        to_acceptor = self.dialer.start()
        outcome: list[Established] = []
        while len(outcome) < 2:
            self.sent.append(to_acceptor)
            step = self.acceptor.receive(decoded(to_acceptor)[0])
            if step.established:
                outcome.append(step.established)
            self.sent.append(step.send)
            step = self.dialer.receive(decoded(step.send)[0])
            if step.established:
                outcome.append(step.established)
            to_acceptor = step.send
        return outcome[1], outcome[0]

    def refusal(self) -> Refusal:
        with pytest.raises(Refusal) as caught:
            self.run()
        refusal = caught.value
        assert not refusal.by_peer
        # Whoever is told has the same code, and the same sentence.
        for other in (Session().dialer, Session().acceptor):
            if isinstance(other, DialerHandshake):
                other.start()
            with pytest.raises(Refusal) as told:
                other.receive(decoded(refusal.frame())[0])
            assert told.value.code == refusal.code
            assert told.value.by_peer
            assert str(refusal) in str(told.value)
        return refusal


class TestHandshake:
    def test_X2_the_right_secret_establishes_the_same_link_on_both_sides(self) -> None:
        there, back = Session(dialer_ended="previous").run()
        assert (there.peer, back.peer) == ("beta", "alfa")
        assert there.link_id == back.link_id
        assert there.dialer == back.dialer == "alfa"
        assert (there.instance, back.instance) == ("b1", "a1")
        assert there.ended == back.ended == "previous"

    def test_X2_a_wrong_secret_is_refused(self) -> None:
        refusal = Session(dialer_link_key=b"x" * 32).refusal()
        assert refusal.code == "wrong_secret"
        assert str(refusal) == "alfa and beta have different secrets (ha.default.secret)"

    def test_X1_another_key_than_the_pinned_one_is_refused(self) -> None:
        theirs = replace(PIN_BETA, key_fingerprint="other")
        assert Session(dialer_pinned=theirs).refusal().code == "unknown_key"
        theirs = replace(PIN_ALFA, key_fingerprint="other")
        assert Session(acceptor_pinned=theirs).refusal().code == "unknown_key"

    def test_X1_another_host_key_is_refused_from_either_side(self) -> None:
        assert Session(dialer_host_key="other").refusal().code == "unknown_host_key"
        moved = replace(ALFA, host_keys=("new",))
        refusal = Session(dialer_own=moved).refusal()
        assert refusal.code == "unknown_host_key"
        assert "has host key new, beta has pinned HA" in str(refusal)

    def test_a_node_that_cannot_learn_its_host_keys_is_still_believed(self) -> None:
        assert Session(dialer_own=replace(ALFA, host_keys=())).run()

    @pytest.mark.parametrize(
        ("side", "value"),
        [
            ("dialer_own", replace(ALFA, name="gama")),
            ("dialer_pinned", replace(PIN_BETA, name="gama")),
            ("acceptor_own", replace(BETA, name="gama")),
            ("acceptor_pinned", replace(PIN_ALFA, name="gama")),
        ],
    )
    def test_names_that_do_not_fit_are_refused(self, side: str, value: Any) -> None:
        assert Session(**{side: value}).refusal().code == "unknown_node"

    def test_an_unspeakable_version_is_refused_with_both_ranges(self) -> None:
        refusal = Session(dialer_own=replace(ALFA, versions=(2, 3))).refusal()
        assert refusal.code == "version"
        assert "alfa speaks version 2 to 3" in str(refusal)
        assert "beta version 1" in str(refusal)

    @pytest.mark.parametrize(
        ("ours", "theirs", "chosen"),
        [
            ((1, 1), (1, 1), 1),
            ((1, 3), (2, 5), 3),
            ((2, 5), (1, 3), 3),
            ((1, 1), (2, 2), None),
            ((4, 5), (1, 3), None),
        ],
    )
    def test_the_highest_common_version_is_chosen(
        self, ours: tuple[int, int], theirs: tuple[int, int], chosen: int | None
    ) -> None:
        assert chosen_version(ours, theirs) == chosen

    def test_X2_a_recorded_dialer_is_worth_nothing_the_second_time(self) -> None:
        first = Session()
        first.run()
        hello, _, proof, _ = first.sent
        again = Session(acceptor_nonce=b"3" * 32).acceptor
        again.receive(decoded(hello)[0])
        with pytest.raises(Refusal) as caught:
            again.receive(decoded(proof)[0])
        assert caught.value.code == "wrong_secret"

    def test_X2_a_proof_reflected_to_its_sender_is_refused(self) -> None:
        session = Session()
        challenge = session.acceptor.receive(decoded(session.dialer.start())[0]).send
        proof = session.dialer.receive(decoded(challenge)[0]).send
        with pytest.raises(Refusal) as caught:
            session.dialer.receive(decoded(proof)[0])
        assert caught.value.code == "wrong_secret"

    @pytest.mark.parametrize("field", ["nonce", "instance", "ended", "release", "host_keys"])
    def test_X2_whatever_is_changed_on_its_way_spoils_the_proof(self, field: str) -> None:
        session = Session()
        (hello,) = decoded(session.dialer.start())
        fields = hello.fields()
        changed = {"nonce": "00" * 32, "host_keys": ["HA", "more"]}.get(field, "changed")
        assert fields[field] != changed
        tampered = json.dumps({**fields, field: changed}).encode()
        step = session.acceptor.receive(frames.Frame(kind=Kind.HELLO, payload=tampered))
        step = session.dialer.receive(decoded(step.send)[0])
        with pytest.raises(Refusal) as caught:
            session.acceptor.receive(decoded(step.send)[0])
        assert caught.value.code == "wrong_secret"

    def test_X2_nobody_between_can_have_an_older_version_spoken(self) -> None:
        new = {
            "dialer_own": replace(ALFA, versions=(1, 2)),
            "acceptor_own": replace(BETA, versions=(1, 2)),
        }
        assert [end.version for end in Session(**new).run()] == [2, 2]
        session = Session(**new)
        (hello,) = decoded(session.dialer.start())
        tampered = json.dumps({**hello.fields(), "versions": [1, 1]}).encode()
        step = session.acceptor.receive(frames.Frame(kind=Kind.HELLO, payload=tampered))
        with pytest.raises(Refusal) as caught:  # both know 2: the dialer sees it at once
            session.dialer.receive(decoded(step.send)[0])
        assert caught.value.code == "version"
        # And when the answer hides that the acceptor knows it, the proof is spoiled.
        session = Session(**new)
        session.dialer.start()
        step = session.acceptor.receive(frames.Frame(kind=Kind.HELLO, payload=tampered))
        (challenge,) = decoded(step.send)
        hidden = json.dumps({**challenge.fields(), "versions": [1, 1]}).encode()
        step = session.dialer.receive(frames.Frame(kind=Kind.CHALLENGE, payload=hidden))
        with pytest.raises(Refusal) as caught:
            session.acceptor.receive(decoded(step.send)[0])
        assert caught.value.code == "wrong_secret"

    def test_X2_a_session_through_another_host_key_spoils_the_proof(self) -> None:
        """A machine between, with a host key of its own that the dialer somehow believes."""
        session = Session(dialer_host_key="HB2")
        (hello,) = decoded(session.dialer.start())
        relayed = json.dumps({**hello.fields(), "host_key": "HB"}).encode()
        step = session.acceptor.receive(frames.Frame(kind=Kind.HELLO, payload=relayed))
        step = session.dialer.receive(decoded(step.send)[0])
        with pytest.raises(Refusal) as caught:
            session.acceptor.receive(decoded(step.send)[0])
        assert caught.value.code == "wrong_secret"

    def test_the_order_of_frames_is_enforced(self) -> None:
        proof = frames.encode(Kind.PROOF, bytes(32))
        with pytest.raises(ProtocolError, match="expected HELLO"):
            Session().acceptor.receive(decoded(proof)[0])
        dialer = Session().dialer
        dialer.start()
        with pytest.raises(ProtocolError, match="expected CHALLENGE"):
            dialer.receive(decoded(proof)[0])
        with pytest.raises(ProtocolError, match="expected nothing more"):
            dialer.receive(decoded(proof)[0])

    @pytest.mark.parametrize(
        "change",
        [
            {"versions": "1"},
            {"versions": [1]},
            {"versions": [2, 1]},
            {"versions": [True, True]},
            {"nonce": "short"},
            {"from": 3},
            {"key": "x" * 500},
            {"host_key": ""},
            {"host_keys": "HA"},
            {"instance": None},
        ],
    )
    def test_hostile_fields_are_errors(self, change: dict[str, Any]) -> None:
        session = Session()
        (hello,) = decoded(session.dialer.start())
        payload = json.dumps({**hello.fields(), **change}).encode()
        with pytest.raises(ProtocolError):
            session.acceptor.receive(frames.Frame(kind=Kind.HELLO, payload=payload))

    def test_a_daemon_that_does_not_run_is_told_apart(self) -> None:
        dialer = Session().dialer
        dialer.start()
        with pytest.raises(Refusal, match="ha is not running on beta") as caught:
            dialer.receive(decoded(bridge.goodbye("no_daemon", "No such file"))[0])
        assert caught.value.code == "no_daemon"

    def test_the_sentence_of_a_peer_cannot_forge_log_lines(self) -> None:
        frame = Refusal("wrong_secret", "a\nroot: fine").frame()
        dialer = Session().dialer
        dialer.start()
        with pytest.raises(Refusal) as caught:
            dialer.receive(decoded(frame)[0])
        assert "\n" not in str(caught.value)

    def test_every_handshake_frame_fits_even_with_long_names(self) -> None:
        many = tuple("SHA256:" + "x" * 43 for _ in range(8))
        long_name = "n" * 63
        session = Session(
            dialer_own=replace(ALFA, name=long_name, host_keys=("HA", *many)),
            acceptor_pinned=replace(PIN_ALFA, name=long_name),
        )
        assert session.run()


def link(dialer: str, number: int, *, instance: str = "i", ended: str = "") -> Established:
    return Established(
        peer="",
        dialer=dialer,
        version=1,
        link_id=f"{dialer}{number}",
        key="SHA256:of-the-peer",
        instance=instance,
        ended=ended,
        release="",
    )


class TestChoice:
    def test_both_ends_keep_the_same_link_in_every_order_of_simultaneous_dials(self) -> None:
        """Each end hears of up to two links of alfa and one of beta in any order it may happen."""
        alfa_first, beta_first = link("alfa", 1), link("beta", 1)

        def kept(order: tuple[Established, ...]) -> Established:
            current = order[0]
            for new in order[1:]:
                if choose.newer_stays(current, new):
                    current = new
            return current

        orders = list(itertools.permutations([alfa_first, beta_first]))
        assert {kept(order).link_id for order in orders} == {"alfa1"}
        second = link("alfa", 2)
        for order in itertools.permutations([alfa_first, beta_first, second]):
            if order.index(alfa_first) < order.index(second):  # one dialer dials in sequence
                assert kept(order).link_id == "alfa2"

    @pytest.mark.parametrize(
        ("current", "new", "stays"),
        [
            (link("alfa", 1), link("beta", 1), False),
            (link("beta", 1), link("alfa", 1), True),
            (link("alfa", 1), link("alfa", 2), True),
            (link("alfa", 1), link("beta", 1, ended="alfa1"), True),
            (link("alfa", 1), link("beta", 1, ended="alfa0"), False),
            (link("alfa", 1), link("beta", 1, instance="restarted"), True),
        ],
    )
    def test_which_of_two_links_stays(
        self, current: Established, new: Established, stays: bool
    ) -> None:
        assert choose.newer_stays(current, new) is stays

    def test_the_lower_name_dials_first(self) -> None:
        assert choose.first_wait("alfa", "beta") == 0.0
        assert choose.first_wait("beta", "alfa") == pytest.approx(0.3)

    def test_waits_double_to_ten_seconds_with_jitter(self) -> None:
        middle = choose.Backoff(lambda: 0.5)
        waits = [middle.next() for _ in range(9)]
        assert waits == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 10])
        middle.reset()
        assert middle.next() == pytest.approx(0.2)
        assert choose.Backoff(lambda: 0.0).next() == pytest.approx(0.15)
        assert choose.Backoff(lambda: 1.0).next() == pytest.approx(0.25)

    def test_X2_guessing_secrets_gets_slower_however_many_connections_try(self) -> None:
        slow = choose.Slowdown()
        assert slow.wait("alfa", 100.0) == 0.0
        waits = []
        for _ in range(8):
            slow.failed("alfa")
            waits.append(slow.wait("alfa", 100.0))
        assert waits == sorted(waits)
        assert waits[0] == pytest.approx(0.25)
        assert waits[-1] - waits[-2] == pytest.approx(5.0)
        assert slow.wait("beta", 100.0) == 0.0, "others do not pay"
        slow.succeeded("alfa")
        assert slow.wait("alfa", 100.0) == 0.0


class TestNotes:
    def test_a_refusal_is_logged_once_until_it_changes(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        time = [0.0]
        notes = Notes(lambda: time[0])
        for _ in range(5):
            time[0] += 1
            notes.refused("beta", Refusal("wrong_secret", "different secrets"))
        assert len(caplog.records) == 1
        assert notes.status("beta").since == 1.0, "since when, not when last"
        notes.refused("beta", Refusal("unknown_key", "another key"))
        assert len(caplog.records) == 2
        notes.up("beta", "dialed")
        notes.refused("beta", Refusal("wrong_secret", "different secrets"))
        assert len(caplog.records) == 4

    def test_a_refusal_is_not_hidden_by_a_mere_failure_to_connect(self) -> None:
        time = [0.0]
        notes = Notes(lambda: time[0])
        notes.refused("beta", Refusal("wrong_secret", "different secrets"))
        notes.refused("beta", Refusal("unreachable", "Connection refused"))
        assert (notes.status("beta").state, notes.status("beta").code) == (
            "refused",
            "wrong_secret",
        )
        time[0] = 31.0
        notes.refused("beta", Refusal("unreachable", "Connection refused"))
        assert (notes.status("beta").state, notes.status("beta").code) == ("down", "unreachable")

    def test_states_follow_the_life_of_a_peer(self) -> None:
        notes = Notes(lambda: 0.0)
        assert notes.status("beta").state == "connecting"
        notes.unpaired("beta")
        assert notes.status("beta").state == "unpaired"
        notes.connecting("beta")
        assert notes.status("beta").state == "connecting"
        notes.lost("beta", LinkDown(code="silent", sentence="nothing from beta for 10.0 s"))
        notes.connecting("beta")
        assert (notes.status("beta").state, notes.status("beta").code) == ("down", "silent")

    def test_memory_of_peers_and_conflicts_is_bounded(self) -> None:
        notes = Notes(lambda: 0.0)
        for number in range(2000):
            notes.refused(f"peer{number}", Refusal("unknown_node", f"sentence {number}"))
            notes.conflict("beta", f"conflict {number}")
            notes.refused("peer0", Refusal("unknown_node", f"sentence {number}"))
        assert len(notes.conflicts()) == 64
        assert len(notes._status) == 256
        assert sum(map(len, notes._said.values())) < 256 + 32
