"""C6: one CO-LICE-HA for each master; what counts, whom it covers, and that nothing is stopped."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from controlone_ha.core.decide import decide, why_not
from controlone_ha.core.effects import Remembered
from controlone_ha.core.licences import Found, Licence, LicenceError, judge, unlicensed
from controlone_ha.core.model import Ground, Role, Snapshot, State, Verdict, Yielding
from controlone_ha.core.node import Node
from controlone_ha.core.node_settings import NodeSettings
from controlone_ha.core.taking import takings
from controlone_ha.core.yielding import grants
from controlone_ha.lab import licences as lab
from controlone_ha.peers.licences import ForgedError, LicenceFiles, vendor_key, verify
from scripts.licence import public_half
from tests.unit.core_builders import make_own, make_peer, make_report, make_snapshot

KEY = "SHA256:" + "A" * 43
OTHER = "SHA256:" + "B" * 43
LAB_KEY = base64.b64decode(lab.LAB_KEY)


def found(serial: str, file: str = "", **fields: object) -> Found:
    return Found(file=file or f"{serial}.licence", licence=Licence(serial=serial, **fields))  # type: ignore[arg-type]


def states(*files: Found, keys: tuple[str, ...] = (KEY,), today: str = "2026-06-15") -> list[str]:
    return [item.state for item in judge(files, keys=keys, today=today)]


class TestWhatCounts:
    def test_C6_a_licence_is_valid_up_to_its_last_day(self) -> None:
        item = found("a", expires="2026-06-15")
        assert states(item) == ["valid"]
        assert states(item, today="2026-06-16") == ["expired"]
        assert states(item, today="1970-01-01") == ["valid"], "a board without a clock"

    def test_C6_a_licence_of_another_cluster_is_foreign(self) -> None:
        item = found("a", nodes=frozenset({OTHER}))
        assert states(item) == ["foreign"]
        assert states(item, keys=(KEY, OTHER)) == ["valid"], "one known key suffices"
        assert states(found("a")) == ["valid"], "issued for any cluster"

    def test_C6_a_serial_counts_once_whatever_its_files_are_called(self) -> None:
        assert states(found("a", "1"), found("a", "2"), found("b", "3")) == [
            "valid",
            "duplicate",
            "valid",
        ]
        gone = found("a", "1", expires="2020-01-01")
        assert states(gone, found("a", "2")) == ["expired", "valid"], "its successor counts"

    def test_C6_forged_and_unreadable_files_count_for_nothing(self) -> None:
        assert states(Found(file="1", problem="forged"), Found(file="2")) == [
            "forged",
            "unreadable",
        ]


class TestWhomItCovers:
    def test_C6_with_too_few_the_first_masters_by_name_are_covered_on_every_node(self) -> None:
        assert unlicensed(["m2", "m1", "m3"], 2) == {"m3"}
        assert unlicensed(["m1"], 0) == {"m1"}
        assert unlicensed(["m1", "m2"], 5) == frozenset()
        assert unlicensed(["m1"], None) == frozenset()

    def test_C6_a_master_that_is_named_twice_counts_once(self) -> None:
        assert unlicensed(["m1", "m1", "m2"], 2) == frozenset()

    def test_C6_both_halves_of_a_cut_cluster_count_the_masters_they_no_longer_reach(self) -> None:
        def node(name: str) -> Node:
            settings = NodeSettings(
                name=name, role=Role.SLAVE, monitored={"m1": True, "m2": True}, licences=1
            )
            made = Node(settings, now=0.0, incarnation=1)
            for master in ("m1", "m2"):
                made.reported(1.0, make_report(master, incarnation=1))
            return made

        north, south = node("s1"), node("s2")
        before = [item.snapshot(2.0).own.unlicensed for item in (north, south)]
        north.link_down(3.0, "m2", "cut")
        south.link_down(3.0, "m1", "cut")
        after = [item.snapshot(500.0).own.unlicensed for item in (north, south)]
        assert before == after == [{"m2"}, {"m2"}]
        again = Node(north.settings, now=600.0, incarnation=2, remembered=_kept(north))
        assert again.snapshot(601.0).own.unlicensed == {"m2"}, "after a restart in the cut, too"


def _kept(node: Node) -> Remembered:
    node.step(550.0)
    return node.remembered


DEAD = make_peer("m1", verdict=Verdict.FAILED, is_refused=True)


class TestWhatFollows:
    def test_C6_a_standby_does_not_become_active_for_a_master_without_licence(self) -> None:
        def shot(*names: str) -> Snapshot:
            return make_snapshot(make_own(unlicensed=frozenset(names)), DEAD)

        assert decide(shot()).state is State.ACTIVE
        decision = decide(shot("m1"))
        assert decision.state is State.STANDBY
        assert decision.reason.code == "peer_not_licensed"
        assert decide(shot("m2")).state is State.ACTIVE
        assert "peer_not_licensed" in [item.code for item in why_not(shot("m1"), "m1")]

    def test_C6_its_calls_are_not_taken_either(self) -> None:
        gives = make_peer("m1", releases=True)
        active = make_own(state=State.ACTIVE)
        assert takings(make_snapshot(active, gives), State.ACTIVE).takes == {"m1": Ground.RELEASED}
        barred = make_own(state=State.ACTIVE, unlicensed=frozenset({"m1"}))
        assert takings(make_snapshot(barred, gives), State.ACTIVE).takes == {}

    def test_C6_what_runs_goes_on_when_the_last_licence_ends(self) -> None:
        none = frozenset({"m1", "m2"})
        covering = make_own(
            state=State.ACTIVE, covering=frozenset({"m1"}), unlicensed=none, calls=3
        )
        assert decide(make_snapshot(covering, DEAD)).state is State.ACTIVE
        for state in (State.ACTIVE, State.STARTING):
            master = make_own("m1", Role.MASTER, state=state, unlicensed=none)
            assert decide(make_snapshot(master)).state is State.ACTIVE

    def test_C6_an_abnormal_master_without_licence_is_offered_no_substitute(self) -> None:
        ill = make_peer("m1", yielding=Yielding.ASKING)
        assert grants(make_snapshot(make_own(), ill), Yielding.NO).offers == {"m1"}
        barred = make_own(unlicensed=frozenset({"m1"}))
        answer = grants(make_snapshot(barred, ill), Yielding.NO)
        assert answer.offers == frozenset()
        assert answer.consents == {"m1"}


class TestFiles:
    def test_C6_a_signed_file_is_read_and_a_changed_one_is_forged(self) -> None:
        content = lab.make("X-1", nodes=[KEY], expires="2030-12-31")
        licence = verify(content, LAB_KEY)
        assert licence.serial == "X-1" and licence.nodes == {KEY}
        envelope = json.loads(content)
        envelope["licence"] = envelope["licence"].replace("2030", "2090")
        with pytest.raises(ForgedError):
            verify(json.dumps(envelope).encode(), LAB_KEY)
        with pytest.raises(ForgedError):
            verify(content, vendor_key())
        assert public_half(lab.PRIVATE_KEY) == lab.LAB_KEY

    @pytest.mark.parametrize(
        ("content", "text"),
        [
            (b"", "not JSON"),
            (b"[]", "JSON object"),
            (b'{"format": 2}', "format"),
            (b'{"format": 1, "licence": "{}", "signature": "?"}', "base64"),
            (b"[" * 20000, "at most"),
            (b'{"format": 1, "licence": 5, "signature": ""}', "texts"),
        ],
    )
    def test_what_is_no_licence_is_told(self, content: bytes, text: str) -> None:
        with pytest.raises(LicenceError, match=text):
            verify(content, LAB_KEY)

    @pytest.mark.parametrize(
        "fields",
        [
            {"product": "CO-OTHER"},
            {"serial": "../../etc/passwd"},
            {"expires": "tomorrow"},
            {"nodes": ["m1"]},
            {"customer": "a\nb"},
        ],
    )
    def test_a_signed_file_with_odd_fields_is_none(self, fields: dict[str, object]) -> None:
        whole = {"serial": "X-1", **fields}
        with pytest.raises(LicenceError):
            verify(lab.make(**whole), LAB_KEY)  # type: ignore[arg-type]

    def test_installed_files_are_found_and_damaged_ones_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CONTROLONE_LICENCE_KEY", lab.LAB_KEY)
        files = LicenceFiles(tmp_path / "licences")
        assert files.read() == ()
        assert files.install(lab.make("X-1")).serial == "X-1"
        (files.directory / "bad.licence").write_text("no")
        (files.directory / "readme.txt").write_text("no licence")
        read = {item.file: item.problem for item in files.read()}
        assert read == {"X-1.licence": "", "bad.licence": "unreadable"}
        with pytest.raises(ForgedError):
            files.install(lab.make("X-2").replace(b'"X-2', b'"X-3').replace(b"X-2", b"X-3"))
