"""The pure part of the lab's supervisor: what becomes of a service."""

from __future__ import annotations

import signal

import pytest

from controlone_ha.errors import LabError, RefusedError
from controlone_ha.lab.service_state import (
    LAUNCH,
    PAUSE_AFTER_QUICK_EXIT,
    Respawn,
    ServiceDefinition,
    ServiceState,
    describe_exit,
    signal_number,
)

KILLED = 9
EXIT_1 = 1 << 8


def make(*, respawn: Respawn | None = None, term_timeout: float = 5.0) -> ServiceState:
    return ServiceState(
        ServiceDefinition(
            name="server", argv=("server",), respawn=respawn, term_timeout=term_timeout
        )
    )


def running(state: ServiceState, now: float = 0.0, pid: int = 10) -> ServiceState:
    assert state.start(now) == LAUNCH
    state.launched(now, pid)
    return state


def test_a_start_launches_and_a_second_start_does_nothing():
    state = running(make())
    assert state.start(1.0) is None
    assert state.status()["phase"] == "running"
    assert state.status()["pid"] == 10


def test_a_stop_sends_the_stop_signal_and_kills_only_after_the_timeout():
    state = running(make(term_timeout=3.0))
    assert state.stop(10.0) == signal.SIGTERM
    assert state.status()["running"], "it lives until it exits"
    assert state.tick(12.9) is None
    assert state.tick(13.0) == signal.SIGKILL
    assert state.exited(13.1, KILLED) is None
    assert state.status()["phase"] == "stopped"


def test_a_stopped_service_is_not_respawned():
    state = running(make(respawn=Respawn(delay=1.0)))
    state.stop(5.0)
    assert state.exited(5.1, 15) is None
    assert state.deadline is None


def test_a_restart_launches_only_after_the_old_process_has_exited():
    state = running(make())
    assert state.restart(1.0) == signal.SIGTERM
    assert state.status()["phase"] == "stopping"
    assert state.exited(4.0, 15) == LAUNCH


def test_a_start_while_it_stops_is_remembered():
    state = running(make())
    state.stop(1.0)
    assert state.start(1.1) is None
    assert state.exited(1.2, 15) == LAUNCH


def test_a_killed_service_is_launched_again_after_the_delay_and_counted():
    state = running(make(respawn=Respawn(delay=1.0)))
    assert state.exited(100.0, KILLED) is None
    assert state.status()["phase"] == "waiting"
    assert not state.status()["running"]
    assert state.tick(100.9) is None
    assert state.tick(101.0) == LAUNCH
    assert state.restarts == 1
    assert state.last_exit == "killed by SIGKILL"


def test_without_delay_it_is_launched_at_once():
    state = running(make(respawn=Respawn(delay=0.0)))
    assert state.exited(100.0, KILLED) == LAUNCH


def test_a_service_that_exits_at_once_does_not_make_a_busy_loop():
    state = running(make(respawn=Respawn(delay=0.0)))
    assert state.exited(0.01, EXIT_1) is None
    assert state.deadline == pytest.approx(0.01 + PAUSE_AFTER_QUICK_EXIT)


def test_a_program_that_cannot_be_started_is_tried_again():
    state = make(respawn=Respawn(delay=1.0))
    assert state.start(0.0) == LAUNCH
    assert state.failed(0.0, "cannot start server: no such file") is None
    assert state.tick(1.0) == LAUNCH
    assert "no such file" in str(state.last_exit)


def test_with_a_retry_limit_it_is_given_up_as_procd_does():
    state = running(make(respawn=Respawn(threshold=60.0, delay=1.0, retry=2)))
    now = 0.0
    for _ in range(2):
        state.exited(now + 2.0, EXIT_1)
        now = state.deadline or 0.0
        assert state.tick(now) == LAUNCH
        state.launched(now, 11)
    assert state.exited(now + 2.0, EXIT_1) is None
    assert state.status()["phase"] == "stopped"
    assert "given up" in str(state.last_exit)


def test_a_long_run_resets_the_retry_count():
    state = running(make(respawn=Respawn(threshold=60.0, delay=1.0, retry=1)))
    state.exited(2.0, EXIT_1)
    assert state.tick(3.0) == LAUNCH
    state.launched(3.0, 11)
    state.exited(100.0, EXIT_1)
    assert state.status()["phase"] == "waiting"


def test_without_respawn_an_exit_is_the_end():
    state = running(make())
    assert state.exited(5.0, EXIT_1) is None
    assert state.status()["phase"] == "stopped"
    assert state.last_exit == "exit code 1"


def test_a_held_service_cannot_be_started_by_anybody_until_it_is_released():
    state = running(make(respawn=Respawn(delay=0.0)))
    state.hold()
    assert state.exited(50.0, KILLED) is None
    with pytest.raises(RefusedError, match="held down"):
        state.start(51.0)
    with pytest.raises(RefusedError, match="held down"):
        state.restart(51.0)
    state.release()
    assert state.start(52.0) == LAUNCH


def test_holding_a_service_that_waits_for_its_respawn_keeps_it_down():
    state = running(make(respawn=Respawn(delay=1.0)))
    state.exited(50.0, KILLED)
    state.hold()
    assert state.tick(60.0) is None
    assert state.status()["phase"] == "stopped"


def test_a_stop_while_it_waits_for_its_respawn_ends_the_waiting():
    state = running(make(respawn=Respawn(delay=1.0)))
    state.exited(50.0, KILLED)
    assert state.stop(50.5) is None
    assert state.tick(60.0) is None


@pytest.mark.parametrize(
    ("status", "text"), [(0, "exit code 0"), (3 << 8, "exit code 3"), (11, "killed by SIGSEGV")]
)
def test_a_wait_status_is_put_in_words(status, text):
    assert describe_exit(status) == text


@pytest.mark.parametrize("name", ["SIGKILL", "KILL", "kill", "9", 9])
def test_a_signal_has_many_spellings(name):
    assert signal_number(name) == 9


@pytest.mark.parametrize("name", ["SIGNONE", "", "0", "-9", 999])
def test_an_unknown_signal_is_refused(name):
    with pytest.raises(LabError, match="no signal"):
        signal_number(name)


def test_a_definition_survives_the_way_over_the_socket():
    definition = ServiceDefinition(
        name="sshd",
        argv=("sshd", "-D", ""),
        environment={"A": "b"},
        respawn=Respawn(threshold=1, delay=2, retry=3),
        stop_signal="SIGINT",
        reload_signal="SIGHUP",
    )
    assert ServiceDefinition.from_json(definition.to_json()) == definition


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"name": "x"},
        {"name": "x", "argv": []},
        {"name": "x", "argv": [""]},
        {"name": "x", "argv": [1]},
        {"name": "../x", "argv": ["a"]},
        {"name": "x", "argv": ["a"], "unknown": 1},
        {"name": "x", "argv": ["a"], "stop_signal": "SIGNONE"},
    ],
)
def test_what_is_no_definition_is_refused(raw):
    with pytest.raises(LabError):
        ServiceDefinition.from_json(raw)
