"""A node's watch over its own services (F1)."""

from __future__ import annotations

import pytest

from controlone_ha.core.observations import Outcome, Service
from controlone_ha.core.selfwatch import GRACE, PATIENCE, RESTART_EVERY, SelfWatch
from tests.unit.core_builders import probe


def running(now: float = 0.0) -> SelfWatch:
    watch = SelfWatch()
    for service in (Service.CONSOLE, Service.CONFERENCE):
        watch.expect(now, service, True)
        watch.probed(now + 1, probe(service))
    return watch


def codes(watch: SelfWatch, now: float) -> list[str]:
    return [item.code for item in watch.abnormalities(now)]


def test_nothing_is_abnormal_while_both_services_answer() -> None:
    watch = running()
    assert codes(watch, 2.0) == [] and not watch.is_doubtful(2.0)


def test_F1_a_service_that_ended_is_abnormal_at_once_and_the_detail_says_how() -> None:
    watch = running()
    watch.ended(2.0, Service.CONFERENCE, "signal 9")
    (found,) = watch.abnormalities(2.0)
    assert found.code == "conference_down" and "signal 9" in found.text()
    assert found.evidence[0].path == "own"


def test_F1_a_service_that_does_not_answer_is_abnormal_after_three_probes_in_a_row() -> None:
    watch = running()
    for number in range(3):
        assert codes(watch, 2.0) == []
        watch.probed(2.0 + number, probe(Service.CONSOLE, Outcome.TIMEOUT))
    assert codes(watch, 5.0) == ["console_mute"]


def test_one_answer_between_failures_starts_the_count_anew() -> None:
    watch = running()
    for outcome in (Outcome.TIMEOUT, Outcome.TIMEOUT, Outcome.ANSWERED, Outcome.TIMEOUT):
        watch.probed(2.0, probe(Service.CONSOLE, outcome))
    assert codes(watch, 5.0) == []


def test_an_abnormality_lasts_until_the_service_has_answered_again() -> None:
    watch = running()
    watch.ended(2.0, Service.CONSOLE, "exit 1")
    assert codes(watch, 60.0) == ["console_down"]
    watch.probed(61.0, probe(Service.CONSOLE))
    assert codes(watch, 61.0) == []


def test_a_service_just_ordered_to_start_has_its_grace() -> None:
    watch = SelfWatch()
    watch.expect(0.0, Service.CONFERENCE, True)
    for _ in range(9):
        watch.probed(1.0, probe(Service.CONFERENCE, Outcome.REFUSED))
    assert codes(watch, GRACE - 0.1) == [] and watch.is_doubtful(1.0)
    assert codes(watch, GRACE) == ["conference_mute"]


def test_a_service_that_should_not_run_is_not_watched() -> None:
    watch = running()
    watch.expect(2.0, Service.CONFERENCE, False)
    watch.ended(2.1, Service.CONFERENCE, "signal 15")
    watch.probed(2.2, probe(Service.CONFERENCE, Outcome.REFUSED))
    assert codes(watch, 60.0) == [] and not watch.is_doubtful(60.0)


def test_the_database_is_no_service_of_this_watch() -> None:
    watch = running()
    for _ in range(9):
        watch.probed(2.0, probe(Service.DATABASE, Outcome.TIMEOUT))
    assert codes(watch, 60.0) == []


def test_a_node_that_stood_still_forgives_its_own_services() -> None:
    watch = running()
    for _ in range(3):
        watch.probed(2.0, probe(Service.CONSOLE, Outcome.TIMEOUT))
    watch.forgive()
    assert codes(watch, 3.0) == []


@pytest.mark.parametrize("service", list(PATIENCE))
def test_a_mute_service_is_restarted_when_its_time_is_up_and_not_soon_again(
    service: Service,
) -> None:
    """With a Conference Server end its calls: it is given time to come to itself."""
    watch = running()
    for _ in range(3):
        watch.probed(2.0, probe(service, Outcome.TIMEOUT))
    due = 2.0 + PATIENCE[service]
    assert PATIENCE[service] == 0 or watch.due_restart(due - 0.1) is None
    assert watch.due_restart(due) is service
    assert watch.due_restart(due) is None
    assert watch.due_restart(due + RESTART_EVERY - 0.1) is None
    assert watch.due_restart(due + RESTART_EVERY) is service


def test_a_mute_service_that_is_killed_for_it_stays_mute_until_it_answers() -> None:
    watch = running()
    for _ in range(3):
        watch.probed(-9.0, probe(Service.CONFERENCE, Outcome.TIMEOUT))
    watch.due_restart(5.0)
    assert not watch.ended(5.1, Service.CONFERENCE, "signal 9")
    assert codes(watch, 5.2) == ["conference_mute"]
    watch.probed(6.0, probe(Service.CONFERENCE, Outcome.ANSWERED))
    assert codes(watch, 6.0) == []
    assert watch.ended(7.0, Service.CONFERENCE, "signal 11")
    assert codes(watch, 7.0) == ["conference_down"]


def test_a_mute_service_that_cannot_be_started_again_is_down() -> None:
    watch = running()
    for _ in range(3):
        watch.probed(-9.0, probe(Service.CONFERENCE, Outcome.TIMEOUT))
    watch.due_restart(5.0)
    watch.ended(5.1, Service.CONFERENCE, "signal 9")
    assert watch.ended(5.2, Service.CONFERENCE, "service conference did not start")
    assert codes(watch, 5.3) == ["conference_down"]


def test_a_service_that_ended_is_left_to_its_supervisor() -> None:
    watch = running()
    watch.ended(2.0, Service.CONFERENCE, "signal 9")
    assert watch.due_restart(60.0) is None


@pytest.mark.parametrize("failures", [1, 2, 5])
def test_the_count_of_failures_is_the_setting(failures: int) -> None:
    watch = running()
    watch.failures = failures
    for _ in range(failures - 1):
        watch.probed(2.0, probe(Service.CONSOLE, Outcome.TIMEOUT))
    assert codes(watch, 9.0) == []
    watch.probed(3.0, probe(Service.CONSOLE, Outcome.TIMEOUT))
    assert codes(watch, 9.0) == ["console_mute"]
