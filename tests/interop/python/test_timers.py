"""Durable timers: when they fire, in which order, and in which episode."""

from datetime import timedelta
from itertools import pairwise

from durabletask import task

from sdk import Program, Sdk, kind

program = Program()


@program.orchestrator
def sleep_milliseconds(context: task.OrchestrationContext, milliseconds):
    yield context.create_timer(timedelta(milliseconds=milliseconds))
    return "slept"


@program.orchestrator
def two_zero_timers_in_turn(context: task.OrchestrationContext, _):
    yield context.create_timer(timedelta())
    yield context.create_timer(timedelta())
    return "both"


@program.orchestrator
def two_zero_timers_at_once(context: task.OrchestrationContext, _):
    first = context.create_timer(timedelta())
    second = context.create_timer(timedelta())
    winner = yield task.when_any([first, second])
    yield task.when_all([first, second])
    return "first" if winner is first else "second"


@program.orchestrator
def late_timer_first(context: task.OrchestrationContext, _):
    late = context.create_timer(timedelta(milliseconds=400))
    early = context.create_timer(timedelta(milliseconds=100))
    winner = yield task.when_any([late, early])
    yield task.when_all([late, early])
    return "early" if winner is early else "late"


@program.orchestrator
def timer_of_yesterday(context: task.OrchestrationContext, _):
    yield context.create_timer(context.current_utc_datetime - timedelta(days=1))
    return "fired"


@program.orchestrator
def hundred_timers_at_one_instant(context: task.OrchestrationContext, _):
    instant = context.current_utc_datetime + timedelta(milliseconds=200)
    yield task.when_all([context.create_timer(instant) for _ in range(100)])
    return "all"


@program.orchestrator
def finish_before_the_timer(context: task.OrchestrationContext, _):
    context.create_timer(timedelta(hours=1))
    yield context.create_timer(timedelta())
    return "done"


def test_a_timer_fires_at_its_time_or_later_but_never_before(sdk: Sdk):
    """S-6.1: fireAt comes back exactly; S-3.6: the episode's clock lies past it."""
    instance = sdk.start(sleep_milliseconds, 300)
    assert sdk.output(instance) == "slept"
    history = sdk.history(instance)
    created = next(event for event in history if kind(event) == "TimerCreated")
    place = next(n for n, event in enumerate(history) if kind(event) == "TimerFired")
    fired, clock = history[place], history[place - 1]
    assert fired.timer_id == created.event_id
    assert fired.fire_at == created.fire_at
    assert fired.timestamp >= created.fire_at
    assert kind(clock) == "OrchestratorStarted"
    assert clock.timestamp >= fired.fire_at + timedelta(milliseconds=1)


def test_two_zero_timers_in_turn_take_an_episode_each(sdk: Sdk):
    """S-3.5, S-6.2: exactly this history."""
    instance = sdk.start(two_zero_timers_in_turn)
    assert sdk.output(instance) == "both"
    assert sdk.kinds(instance) == [
        "OrchestratorStarted",
        "ExecutionStarted",
        "TimerCreated",
        "OrchestratorStarted",
        "TimerFired",
        "TimerCreated",
        "OrchestratorStarted",
        "TimerFired",
        "ExecutionCompleted",
    ]


def test_two_zero_timers_created_together_fire_in_the_order_of_their_creation(sdk: Sdk):
    """S-6.5."""
    instance = sdk.start(two_zero_timers_at_once)
    assert sdk.output(instance) == "first"
    assert [event.timer_id for event in sdk.events(instance, "TimerFired")] == [1, 2]


def test_the_timer_due_first_fires_first_whatever_the_order_of_creation(sdk: Sdk):
    """S-6.1."""
    instance = sdk.start(late_timer_first)
    assert sdk.output(instance) == "early"
    assert [event.timer_id for event in sdk.events(instance, "TimerFired")] == [2, 1]


def test_a_timer_in_the_past_fires_at_once_in_a_later_episode(sdk: Sdk):
    """S-6.2."""
    instance = sdk.start(timer_of_yesterday)
    assert sdk.output(instance) == "fired"
    assert sdk.kinds(instance).count("OrchestratorStarted") == 2


def test_a_hundred_timers_due_at_one_instant_all_fire_in_the_order_of_their_creation(sdk: Sdk):
    """S-6.5."""
    instance = sdk.start(hundred_timers_at_one_instant)
    assert sdk.output(instance) == "all"
    assert [event.timer_id for event in sdk.events(instance, "TimerFired")] == list(range(1, 101))


def test_a_timer_that_is_still_armed_does_not_hold_up_the_end(sdk: Sdk):
    """S-6.4."""
    assert sdk.run(finish_before_the_timer) == "done"


def test_the_clock_of_an_instance_rises_by_a_millisecond_at_least_from_episode_to_episode(sdk: Sdk):
    """S-3.6, S-0.4."""
    instance = sdk.start(two_zero_timers_in_turn)
    sdk.output(instance)
    clocks = [event.timestamp for event in sdk.events(instance, "OrchestratorStarted")]
    assert len(clocks) == 3
    assert all(later - earlier >= timedelta(milliseconds=1) for earlier, later in pairwise(clocks))
