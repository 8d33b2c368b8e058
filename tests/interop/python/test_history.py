"""The history as clients read it."""

from datetime import datetime, timedelta, timezone

import grpc
from durabletask import task

from sdk import Program, Sdk, eventually, kind, refused, unique

program = Program()


@program.activity
def echo(_, value):
    return value


@program.orchestrator
def return_input(_, value):
    return value


@program.orchestrator
def activity_timer_child(context: task.OrchestrationContext, _):
    yield context.call_activity(echo, input="a", tags={"stage": "first"})
    yield context.create_timer(timedelta())
    return (yield context.call_sub_orchestrator(return_input, input="c"))


@program.orchestrator
def wait_for_release(context: task.OrchestrationContext, _):
    return (yield context.wait_for_external_event("release"))


@program.orchestrator
def collect_bulk(context: task.OrchestrationContext, sizes):
    calls = [context.call_activity(echo, input="x" * size) for size in sizes]
    return sum(len(each) for each in (yield task.when_all(calls)))


@program.orchestrator
def many_rounds(context: task.OrchestrationContext, rounds):
    for number in range(rounds):
        yield context.call_activity(echo, input=number)
    return rounds


def test_activity_timer_and_child_leave_exactly_these_twelve_events(sdk: Sdk):
    """S-3.13."""
    instance = sdk.start(activity_timer_child)
    assert sdk.output(instance) == "c"
    assert sdk.kinds(instance) == [
        "OrchestratorStarted",
        "ExecutionStarted",
        "TaskScheduled",
        "OrchestratorStarted",
        "TaskCompleted",
        "TimerCreated",
        "OrchestratorStarted",
        "TimerFired",
        "SubOrchestrationInstanceCreated",
        "OrchestratorStarted",
        "SubOrchestrationInstanceCompleted",
        "ExecutionCompleted",
    ]


def test_confirming_events_carry_the_ids_of_their_actions_and_all_others_minus_one(sdk: Sdk):
    """S-3.7, S-3.9."""
    instance = sdk.start(activity_timer_child)
    sdk.output(instance)
    history = sdk.history(instance)
    assert [event.event_id for event in history] == [-1, 0, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4]
    assert history[4].task_scheduled_id == 1
    assert history[7].timer_id == 2
    assert history[10].task_scheduled_id == 3


def test_every_event_has_a_timestamp_of_today(sdk: Sdk):
    """S-3.10, S-17.7."""
    instance = sdk.start(activity_timer_child)
    sdk.output(instance)
    now = datetime.now(timezone.utc)
    for event in sdk.history(instance):
        assert abs(now - event.timestamp) < timedelta(minutes=5), event


def test_the_events_hold_what_was_asked_and_answered(sdk: Sdk):
    """S-3.16, S-4.10, S-5.3, S-4.8."""
    instance = sdk.start(activity_timer_child, "input", tags={"team": "blue"}, version="7")
    sdk.output(instance)
    events = {kind(event): event for event in sdk.history(instance)}
    started = events["ExecutionStarted"]
    assert (started.name, started.input, started.version) == ("activity_timer_child", '"input"', "7")
    assert started.tags == {"team": "blue"}
    assert started.orchestration_instance.instance_id == instance
    assert len(started.orchestration_instance.execution_id) == 32
    assert started.parent_instance is None
    scheduled = events["TaskScheduled"]
    assert (scheduled.name, scheduled.input, scheduled.tags) == ("echo", '"a"', {"stage": "first"})
    assert events["TaskCompleted"].result == '"a"'
    created = events["SubOrchestrationInstanceCreated"]
    assert (created.name, created.input, created.instance_id) == ("return_input", '"c"', f"{instance}:0003")
    assert events["SubOrchestrationInstanceCompleted"].result == '"c"'
    assert events["ExecutionCompleted"].result == '"c"'


def test_the_history_of_a_running_instance_grows(sdk: Sdk):
    """S-3.27, S-3.14."""
    instance = sdk.start(wait_for_release)
    sdk.until_running(instance)
    assert sdk.kinds(instance) == ["OrchestratorStarted", "ExecutionStarted"]
    sdk.client.raise_orchestration_event(instance, "release", data=1)
    sdk.output(instance)
    assert sdk.kinds(instance)[2:] == ["OrchestratorStarted", "EventRaised", "ExecutionCompleted"]


def test_the_history_is_complete_as_soon_as_the_wait_ends(sdk: Sdk):
    """S-17.6."""
    for number in range(20):
        assert sdk.kinds(sdk.run_and_keep(return_input, number))[-1] == "ExecutionCompleted"


def test_a_pending_instance_has_no_history_to_speak_of(sdk: Sdk):
    """S-3.29."""
    with sdk.in_hub("idle") as idle:
        instance = idle.start("nobody_runs_this")
        assert idle.kinds(instance) in ([], ["ExecutionStarted"])
        idle.client.terminate_orchestration(instance)


def test_the_history_of_a_missing_instance_is_not_found(sdk: Sdk):
    """S-3.28."""
    with refused(grpc.StatusCode.NOT_FOUND):
        sdk.history(unique("nobody"))


def test_a_history_can_be_asked_for_by_its_execution(sdk: Sdk):
    """S-3.27."""
    instance = sdk.run_and_keep(return_input, 1)
    execution = sdk.events(instance, "ExecutionStarted")[0].orchestration_instance.execution_id
    history = sdk.history(instance, execution_id=execution)
    assert history == sdk.history(instance)
    with refused(grpc.StatusCode.NOT_FOUND):
        sdk.history(instance, execution_id="0" * 32)


def test_a_history_of_several_megabytes_arrives_whole(managed: Sdk):
    """S-3.27: in chunks below one MiB; an event larger than most is a chunk of its own."""
    sizes = [150_000] * 10 + [900_000]
    instance = managed.start(collect_bulk, sizes)
    # Scheduled and completed payloads together are above the 4 MiB that one message may have.
    eventually(lambda: len(managed.events(instance, "TaskScheduled")) == len(sizes), "the first episode")
    managed.client.terminate_orchestration(instance, output="enough")
    scheduled = managed.events(instance, "TaskScheduled")
    assert sorted(len(event.input) - 2 for event in scheduled) == sorted(sizes)


def test_a_history_of_a_thousand_events_keeps_its_order(managed: Sdk):
    """S-3.12, S-3.27."""
    instance = managed.start(many_rounds, 300)
    assert managed.output(instance, timeout=60) == 300
    kinds = managed.kinds(instance)
    episode = ["OrchestratorStarted", "TaskCompleted", "TaskScheduled"]
    assert kinds == [
        "OrchestratorStarted",
        "ExecutionStarted",
        "TaskScheduled",
        *episode * 299,
        "OrchestratorStarted",
        "TaskCompleted",
        "ExecutionCompleted",
    ]
