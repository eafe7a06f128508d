"""Deliberately broken decisions. The simulator must notice each: that shows that it looks.

A mutant replaces one function of the core inside the running process and puts it back afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

from controlone_ha.core import decide as deciding
from controlone_ha.core import judging, taking
from controlone_ha.core import node as nodes
from controlone_ha.core.model import Decision, Ground, Peer, Snapshot, Verdict
from controlone_ha.core.reasons import Reason, reason

MUTANTS = {
    "silence_suffices": "a silent peer is taken as failed without asking anybody",
    "rank_ignored": "every standby takes over at once",
    "frozen_acts": "a node that stood still acts before it rereads ownership",
    "silence_takes": "calls are taken from a silent node that nobody at its site misses",
}


@contextmanager
def mutant(name: str) -> Iterator[None]:
    """Break the decisions as ``name`` says, for as long as the context lasts."""
    broken = {
        "silence_suffices": _silence,
        "rank_ignored": _rank,
        "frozen_acts": _frozen,
        "silence_takes": _silence_takes,
    }
    with broken[name]():
        yield


def _silence() -> patch:  # type: ignore[valid-type]
    def judge_silence(snapshot: Snapshot, peer: Peer) -> judging.Judgement:
        why = reason("peer_silent", peer=peer.name, witnesses="nobody")
        return judging.Judgement(peer=peer.name, need=judging.Need.YES, reason=why)

    return patch.object(judging, "_judge_silence", judge_silence)


def _rank() -> patch:  # type: ignore[valid-type]
    return patch.object(deciding, "better_candidates", lambda snapshot, failed: [])


def _frozen() -> patch:  # type: ignore[valid-type]
    right = deciding.decide

    def decide(snapshot: Snapshot) -> Decision:
        return right(replace(snapshot, own=replace(snapshot.own, rereading_gap=0.0)))

    return patch.object(nodes, "decide", decide)


def _silence_takes() -> patch:  # type: ignore[valid-type]
    right = taking.ground

    def ground(snapshot: Snapshot, peer: Peer) -> tuple[Ground, Reason]:
        if peer.view.verdict is Verdict.SILENT:
            return Ground.CHOSEN, reason("calls_chosen", peer=peer.name)
        return right(snapshot, peer)

    return patch.object(taking, "ground", ground)
