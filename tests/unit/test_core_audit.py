"""The chain of the audit: what is removed, changed, added, moved or torn is told."""

from __future__ import annotations

import json

from controlone_ha.core.audit import Link, chained, continues, hash_of, verify


def lines(count: int, chain: str = "c0ffee00") -> list[bytes]:
    link, made = Link(chain=chain), []
    for number in range(1, count + 1):
        line, link = chained({"time": float(number), "node": "s1", "kind": "force"}, link)
        made.append(line)
    return made


def test_C3_a_whole_chain_has_no_problem_and_says_what_it_is() -> None:
    made = lines(9)
    report = verify(made)
    assert (report.first, report.last, report.lines, report.problems) == (1, 9, 9, [])
    assert (report.chain, report.hash) == ("c0ffee00", hash_of(made[-1]))
    tail = verify(made[4:])
    assert (tail.first, tail.problems) == (5, []), "older lines are no longer kept"


def test_C3_a_removed_line_is_named() -> None:
    made = lines(9)
    assert verify(made[:6] + made[7:]).problems == ["line 7 is missing, between line 6 and line 8"]
    assert verify(made[:2] + made[5:]).problems == [
        "lines 3 to 5 are missing, between line 2 and line 6"
    ]


def test_C3_a_changed_line_is_named() -> None:
    made = lines(9)
    made[3] = made[3].replace(b'"force"', b'"other"')
    assert verify(made).problems == ["line 4 is not what it was: line 5 says otherwise"]


def test_C3_added_and_moved_lines_are_named() -> None:
    made = lines(6)
    assert "added or moved" in verify([*made[:3], made[1], *made[3:]]).problems[0]
    plain = b'{"time": 1, "kind": "force"}\n'
    assert verify([*made[:3], plain, *made[3:]]).problems == [
        "after line 3 stands one without a number: added"
    ]
    assert verify([plain, *made]).problems == [], "of a time without chain"
    assert "another chain begins" in verify([*made, *lines(2, "beef0000")]).problems[0]


def test_a_line_torn_by_a_power_cut_is_no_problem() -> None:
    made = lines(6)
    assert verify([*made[:3], made[3][:20] + b"\n", *made[3:]]).problems == []


def test_only_the_next_line_of_the_same_chain_continues_it() -> None:
    made = lines(4)
    link = Link(chain="c0ffee00", n=2, hash=hash_of(made[1]))
    assert continues(made[2], link)
    assert not continues(made[3], link)
    assert not continues(lines(3, "beef0000")[2], link)
    assert not continues(b"no json", link)
    forged = json.loads(made[2]) | {"prev": "0" * 64}
    assert not continues(json.dumps(forged).encode(), link)
