"""Servers killed at random moments while calls come and go: nobody is left in limbo."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from controlone_ha.lab.parts import Asterisk
from tests.contract.takeover_support import started
from tests.soak import call_kills

pytestmark = pytest.mark.contract


def test_A1_A2_after_some_kills_no_phone_is_in_a_call_with_nobody(
    asterisk: Asterisk, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ten seconds are the goal on real nodes, where the failure is noticed first; here it is told.
    monkeypatch.setattr(call_kills, "PAUSE", (0.1, 0.6))
    with started(asterisk, free_port, 3, queues="") as servers:
        run = servers.runner.run(call_kills.soak(servers, 4, seed=5))
    assert run.problems == []
    assert run.counts["calls"] > 0
