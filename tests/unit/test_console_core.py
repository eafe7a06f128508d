"""The failover client's decisions, one rule a test; the day of outages is in another module."""

from __future__ import annotations

import random

from controlone_ha.console.core import Failover
from controlone_ha.console.rules import (
    Action,
    Cause,
    Drop,
    Health,
    Leave,
    LogIn,
    Lost,
    Open,
    Ping,
    Policy,
    Probe,
    Rules,
    State,
)
from tests.unit.console_world import CUT, DEAD, SERVING, STANDBY, World

RULES = Rules(servers=("a", "b", "c"))


def machine(rules: Rules = RULES) -> Failover:
    return Failover(rules, random.Random(5))


def opens(actions: list[Action]) -> list[str]:
    return [action.server for action in actions if isinstance(action, Open)]


def log_in(core: Failover, now: float) -> int:
    """Let the present attempt succeed; return its number."""
    assert core.attempt is not None
    number = core.attempt.number
    assert any(isinstance(item, LogIn) for item in core.opened(now, number, core.attempt.server))
    core.logged_in(now, number)
    return number


def connected(rules: Rules = RULES) -> tuple[Failover, int]:
    core = machine(rules)
    assert opens(core.start(0.0)) == ["a"]
    return core, log_in(core, 0.1)


def pass_time(core: Failover, until: float) -> list[Action]:
    """Let the timers work until then, and nothing else happen; return what they ordered."""
    done: list[Action] = []
    while core.deadline is not None and core.deadline <= until:
        done += core.tick(core.deadline)
    return done


def test_K1_it_begins_with_the_first_and_logs_in_once_it_knows_who_it_is() -> None:
    core = machine()
    (action,) = core.start(0.0)
    assert action == Open(1, "a")
    assert core.opened(0.1, 1, "north") == [LogIn(1, None)]
    core.logged_in(0.2, 1)
    assert core.state is State.CONNECTED
    assert core.servers["a"].node == "north"


def test_K2_a_broken_connection_goes_to_the_second_and_tells_what_was_lost() -> None:
    core, number = connected()
    core.ended(10.0, number, Cause("reset", {"text": "by peer"}))
    assert core.state is State.SWITCHING
    actions = pass_time(core, 10.0 + RULES.jitter)
    assert opens(actions) == ["b"]
    assert Probe("a") in actions, "each new attempt checks the first again"
    assert core.attempt is not None
    assert core.opened(10.2, core.attempt.number) == [LogIn(core.attempt.number, Lost("a"))]
    assert core.reason.params["server"] == "a"


def test_K2_silence_for_the_timeout_is_a_failure_and_an_answer_is_a_fresh_start() -> None:
    core, number = connected()
    pass_time(core, 6.0)
    core.heard(6.0, number)
    assert Drop(number) not in pass_time(core, 15.9)
    assert Drop(number) in pass_time(core, 16.1)
    assert core.reason.code == "silent"


def test_K5_so_many_lost_packets_in_a_row_are_a_failure_before_the_timeout() -> None:
    rules = Rules(servers=("a", "b"), lost_packets=2, ping_interval=1.0)
    core, number = connected(rules)
    actions = pass_time(core, 3.2)
    assert actions.count(Ping(number)) == 2
    assert Drop(number) in actions
    assert core.reason.code == "lost_packets"


def test_K4_an_orderly_goodbye_is_no_loss() -> None:
    core, number = connected()
    core.ended(5.0, number, Cause("goodbye", {"text": "the disk is full"}, is_loss=False))
    pass_time(core, 5.0 + RULES.jitter)
    assert core.attempt is not None and core.attempt.server == "b"
    assert core.opened(5.2, core.attempt.number) == [LogIn(core.attempt.number, None)]


def test_K4_unavailable_only_after_a_whole_round_has_failed() -> None:
    core, number = connected()
    core.ended(5.0, number, Cause("reset"))
    now = 5.0
    for expected in ("b", "c", "a"):
        assert core.state is State.SWITCHING
        now += 0.2
        pass_time(core, now)
        assert core.attempt is not None and core.attempt.server == expected
        core.ended(now, core.attempt.number, Cause("refused"))
    assert core.state is State.UNAVAILABLE
    pass_time(core, now + 10.0)
    assert core.attempt is not None, "it goes on trying"


def test_a_standby_is_waited_for_and_its_word_is_enough_to_log_in_again() -> None:
    core, number = connected()
    core.ended(5.0, number, Cause("reset"))
    pass_time(core, 5.0 + RULES.jitter)
    assert core.attempt is not None
    attempt = core.attempt.number
    core.opened(5.2, attempt, "b")
    core.refused(5.3, attempt, Cause("standby"), state="standby", waits=True)
    assert core.invited(5.9, attempt) == [LogIn(attempt, Lost("a"))]


def test_a_standby_that_stays_one_is_left_for_a_server_that_serves() -> None:
    world = World(Rules(servers=("a", "b", "c"), standby_wait=3.0), seed=1)
    world.turn("b", STANDBY)
    world.start().run(20.0)
    world.turn("a", DEAD)
    world.run(26.0)
    assert [server for _, server in world.moves] == ["a", "c"]
    assert 3.0 < world.moves[1][0] - 20.0 < 3.6


def test_K2_a_silent_server_costs_no_more_than_the_timeout_and_a_moment() -> None:
    world = World(Rules(servers=("a", "b")), seed=2).start().run(33.3)
    world.turn("a", CUT)
    world.run(60.0)
    moment, server = world.moves[1]
    assert server == "b"
    assert moment - 33.3 <= RULES.timeout + 0.5


def test_the_return_leaves_the_old_server_before_it_logs_in_at_the_better_one() -> None:
    rules = Rules(servers=("a", "b"), return_delay=5.0)
    world = World(rules, seed=3)
    world.turn("a", DEAD)
    world.start().run(10.0)
    assert [server for _, server in world.moves] == ["b"]
    world.turn("a", SERVING)
    world.run(40.0)
    assert [server for _, server in world.moves] == ["b", "a"]
    assert world.moves[1][0] - 10.0 >= rules.return_delay
    assert world.problems == []
    assert world.core.reason.code == "returned"


def test_a_better_server_is_tested_soon_after_it_was_left() -> None:
    world = World(Rules(servers=("a", "b"), check_interval=600.0, return_delay=6.0), seed=8)
    world.start().run(30.0)
    world.turn("a", DEAD)
    world.run(31.0)
    world.turn("a", SERVING)
    world.run(60.0)
    assert [server for _, server in world.moves] == ["a", "b", "a"]


def test_the_policies_of_return_when_idle_waits_for_the_call_and_never_stays() -> None:
    for policy, busy_moves, idle_moves in (
        (Policy.AT_ONCE, 2, 2),
        (Policy.IDLE, 1, 2),
        (Policy.NEVER, 1, 1),
    ):
        world = World(Rules(servers=("a", "b"), policy=policy, return_delay=5.0), seed=4)
        world.turn("a", DEAD)
        world.start().run(10.0)
        world.do(world.core.busy(world.now, True))
        world.turn("a", SERVING)
        world.run(60.0)
        assert len(world.moves) == busy_moves, policy
        world.do(world.core.busy(world.now, False))
        world.run(80.0)
        assert len(world.moves) == idle_moves, policy


def test_a_return_that_fails_goes_back_and_the_better_server_is_trusted_less() -> None:
    core, _ = connected(Rules(servers=("a", "b"), return_delay=1.0))
    assert core.active is not None
    core.ended(2.0, core.active.number, Cause("reset"))
    pass_time(core, 2.2)
    log_in(core, 2.3)
    assert core.active is not None and core.active.server == "b"
    core.tested(3.0, "a", Health.SERVING)
    core.tested(4.1, "a", Health.SERVING)
    assert opens(pass_time(core, 6.0)) == ["a"]
    assert core.attempt is not None
    attempt, old = core.attempt.number, core.active.number
    actions = core.opened(6.1, attempt)
    assert actions == [Leave(old), LogIn(attempt, None)]
    again = core.refused(6.2, attempt, Cause("not_serving"), state="standby", waits=True)
    assert opens([*again, *pass_time(core, 6.5)]) == ["b"]
    assert core.servers["a"].damping == 2


def test_a_changed_list_keeps_the_connection_and_a_server_taken_off_is_left_for_an_open_one() -> (
    None
):
    core, number = connected()
    assert not [
        item
        for item in core.configure(3.0, Rules(servers=("c", "a")))
        if isinstance(item, Leave | Drop)
    ]
    assert core.state is State.CONNECTED
    core.configure(4.0, Rules(servers=("c",)))
    actions: list[Action] = []
    for now in range(5, 12):
        actions += pass_time(core, now)
        core.heard(now, number)
    assert opens(actions) == ["c"]
    assert core.active is not None and core.attempt is not None
    assert core.opened(12.1, core.attempt.number)[0] == Leave(number)


def test_a_pause_of_the_process_itself_is_held_against_nobody() -> None:
    core, number = connected()
    assert core.deadline is not None
    actions = core.tick(core.deadline + 60.0)
    assert Drop(number) not in actions
    assert Ping(number) in actions
    assert core.state is State.CONNECTED


def test_a_pulled_cable_is_told_at_once_and_the_connection_may_survive_it() -> None:
    core, number = connected()
    actions = core.network(3.0, False)
    assert not core.has_network
    assert Drop(number) not in actions
    core.heard(4.0, number)
    assert Ping(number) in [*core.network(4.5, True), *core.tick(4.5)]
    assert core.state is State.CONNECTED


def test_a_lost_link_beside_others_makes_the_console_look_at_once() -> None:
    core, number = connected()
    core.network(3.0, True)
    assert Ping(number) in core.tick(3.0)
    assert Drop(number) in pass_time(core, 5.1), "two seconds, not the whole timeout"


def test_two_consoles_of_one_name_do_not_fight() -> None:
    core, number = connected()
    core.ended(5.0, number, Cause("replaced", {"text": "from elsewhere"}, is_loss=False))
    assert opens(pass_time(core, 20.0)) == []
    assert core.state is State.UNAVAILABLE
    assert opens(pass_time(core, 45.0)) != []


def test_five_hundred_consoles_do_not_come_in_the_same_moment() -> None:
    moments = []
    for seed in range(500):
        core = Failover(RULES, random.Random(seed))
        core.start(0.0)
        number = log_in(core, 0.1)
        core.ended(5.0, number, Cause("reset"))
        assert core.deadline is not None
        moments.append(core.deadline)
    assert max(moments) - min(moments) > 0.9 * RULES.jitter
    assert len({round(moment, 3) for moment in moments}) > 50


def test_events_of_connections_that_are_gone_change_nothing() -> None:
    core, number = connected()
    assert core.logged_in(1.0, 99) == [Drop(99)]
    assert core.opened(1.0, 99) == [Drop(99)]
    assert core.ended(1.0, 99, Cause("reset")) == []
    assert core.refused(1.0, 99, Cause("token"), waits=False) == [Drop(99)]
    assert core.invited(1.0, number) == []
    assert core.tested(1.0, "nobody", Health.DOWN) == []
    assert core.state is State.CONNECTED
