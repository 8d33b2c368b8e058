"""External events: before the start, while waiting, in a race with a timer, from one instance to another."""

from datetime import timedelta

import grpc
from durabletask import task

from sdk import Program, Sdk, Status, refused, unique

program = Program()


@program.orchestrator
def wait_for_events(context: task.OrchestrationContext, count):
    values = []
    for _ in range(count):
        values.append((yield context.wait_for_external_event("number")))
    return values


@program.orchestrator
def wait_for_approval(context: task.OrchestrationContext, _):
    return (yield context.wait_for_external_event("approval"))


@program.orchestrator
def wait_after_a_signal(context: task.OrchestrationContext, _):
    yield context.wait_for_external_event("go")
    return (yield task.when_all([context.wait_for_external_event("number") for _ in range(3)]))


@program.orchestrator
def race_event_against_timer(context: task.OrchestrationContext, milliseconds):
    approval = context.wait_for_external_event("approval")
    timeout = context.create_timer(timedelta(milliseconds=milliseconds))
    winner = yield task.when_any([approval, timeout])
    return approval.get_result() if winner is approval else "timed out"


@program.orchestrator
def wait_for_two_names(context: task.OrchestrationContext, _):
    left = context.wait_for_external_event("left")
    right = context.wait_for_external_event("right")
    return (yield task.when_all([left, right]))


@program.orchestrator
def send_numbers(context: task.OrchestrationContext, target):
    for number in range(10):
        context.send_event(target, "number", data=number)
    yield context.create_timer(timedelta())
    return "sent"


@program.orchestrator
def finish_at_once(_, value):
    return value


def test_an_event_wakes_the_orchestration_that_waits_for_it(sdk: Sdk):
    """S-8.1."""
    instance = sdk.start(wait_for_approval)
    sdk.until_running(instance)
    sdk.client.raise_orchestration_event(instance, "approval", data={"by": "Ada"})
    assert sdk.output(instance) == {"by": "Ada"}


def test_events_raised_right_after_the_start_arrive_in_order(sdk: Sdk):
    """S-8.2, S-2.9: they are queued behind ExecutionStarted."""
    instance = sdk.start(wait_for_events, 20)
    for number in range(20):
        sdk.client.raise_orchestration_event(instance, "number", data=number)
    assert sdk.output(instance) == list(range(20))
    assert sdk.kinds(instance)[:2] == ["OrchestratorStarted", "ExecutionStarted"]


def test_events_raised_before_anyone_waits_are_buffered_in_order(sdk: Sdk):
    """S-8.2, S-8.3."""
    instance = sdk.start(wait_after_a_signal)
    sdk.until_running(instance)
    for number in range(3):
        sdk.client.raise_orchestration_event(instance, "number", data=number)
    sdk.client.raise_orchestration_event(instance, "go")
    assert sdk.output(instance) == [0, 1, 2]


def test_a_hundred_events_to_a_waiting_orchestration_keep_their_order(managed: Sdk):
    """S-8.2, S-3.11: and no two of them carry the same timestamp."""
    instance = managed.start(wait_for_events, 100)
    managed.until_running(instance)
    for number in range(100):
        managed.client.raise_orchestration_event(instance, "number", data=number)
    assert managed.output(instance) == list(range(100))
    stamps = [event.timestamp for event in managed.events(instance, "EventRaised")]
    assert len(set(stamps)) == 100


def test_an_event_beats_a_timer_that_is_due_later(sdk: Sdk):
    """S-8.1, S-6.4."""
    instance = sdk.start(race_event_against_timer, 3_600_000)
    sdk.until_running(instance)
    sdk.client.raise_orchestration_event(instance, "approval", data="yes")
    assert sdk.output(instance) == "yes"


def test_a_timer_beats_an_event_that_never_comes(sdk: Sdk):
    """S-6.1."""
    assert sdk.run(race_event_against_timer, 100) == "timed out"


def test_events_of_two_names_reach_the_waiter_of_their_name(sdk: Sdk):
    """S-8.3."""
    instance = sdk.start(wait_for_two_names)
    sdk.client.raise_orchestration_event(instance, "right", data="R")
    sdk.client.raise_orchestration_event(instance, "left", data="L")
    assert sdk.output(instance) == ["L", "R"]


def test_the_name_of_an_event_is_stored_as_it_was_given(sdk: Sdk):
    """S-8.1: the SDK ignores case when it matches, the server keeps it."""
    instance = sdk.start(wait_for_approval)
    sdk.client.raise_orchestration_event(instance, "ApProVaL", data=1)
    assert sdk.output(instance) == 1
    assert [event.name for event in sdk.events(instance, "EventRaised")] == ["ApProVaL"]


def test_an_event_without_data_arrives_without_data(sdk: Sdk):
    """S-0.5."""
    instance = sdk.start(wait_for_events, 1)
    sdk.client.raise_orchestration_event(instance, "number")
    assert sdk.output(instance) == [None]
    assert [event.input for event in sdk.events(instance, "EventRaised")] == [None]


def test_an_event_to_a_missing_instance_is_dropped_without_an_error(sdk: Sdk):
    """S-8.4, S-8.5: an instance that gets this id later does not see it."""
    instance = unique()
    sdk.client.raise_orchestration_event(instance, "approval", data="too early")
    sdk.start(wait_for_approval, instance_id=instance)
    sdk.client.raise_orchestration_event(instance, "approval", data="in time")
    assert sdk.output(instance) == "in time"


def test_an_event_to_a_finished_instance_changes_nothing(sdk: Sdk):
    """S-8.4, S-2.10."""
    instance = sdk.start(finish_at_once, 7)
    before = sdk.finish(instance)
    history = sdk.history(instance)
    sdk.client.raise_orchestration_event(instance, "approval", data="too late")
    assert sdk.state(instance) == before
    assert sdk.history(instance) == history


def test_an_orchestration_sends_events_to_another_in_order(sdk: Sdk):
    """S-4.8, S-4.9, S-8.2."""
    receiver = sdk.start(wait_for_events, 10)
    sender = sdk.start(send_numbers, receiver)
    assert sdk.output(sender) == "sent"
    assert sdk.output(receiver) == list(range(10))
    sent = sdk.events(sender, "EventSent")
    assert {(event.instance_id, event.name) for event in sent} == {(receiver, "number")}
    assert [event.input for event in sent] == [str(number) for number in range(10)]


def test_an_event_sent_by_an_orchestration_to_a_missing_instance_is_dropped(sdk: Sdk):
    """S-8.4."""
    assert sdk.run(send_numbers, unique("nobody")) == "sent"


def test_an_event_without_a_name_is_refused(sdk: Sdk):
    """S-8.8."""
    instance = sdk.start(wait_for_approval)
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        sdk.client.raise_orchestration_event(instance, "")
    sdk.client.raise_orchestration_event(instance, "approval", data="named")
    assert sdk.output(instance) == "named"


def test_an_event_to_the_id_of_an_entity_is_refused(sdk: Sdk):
    """S-8.8."""
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        sdk.client.raise_orchestration_event("@counter@key", "approval")


def test_one_event_wakes_only_the_instance_it_is_addressed_to(sdk: Sdk):
    """S-8.1."""
    waiting = [sdk.start(wait_for_approval) for _ in range(3)]
    sdk.client.raise_orchestration_event(waiting[1], "approval", data="you")
    assert sdk.output(waiting[1]) == "you"
    for other in (waiting[0], waiting[2]):
        assert sdk.until_running(other).runtime_status == Status.RUNNING
        sdk.client.terminate_orchestration(other)
