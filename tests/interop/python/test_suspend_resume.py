"""Suspend and resume."""

from datetime import timedelta

import grpc
from durabletask import task

from sdk import Program, Sdk, Status, eventually, kind, refused, unique

program = Program()


@program.activity
def echo(_, value):
    return value


@program.orchestrator
def collect_three_events(context: task.OrchestrationContext, _):
    values = []
    for _ in range(3):
        values.append((yield context.wait_for_external_event("number")))
    return values


@program.orchestrator
def wait_for_a_timer(context: task.OrchestrationContext, milliseconds):
    yield context.create_timer(timedelta(milliseconds=milliseconds))
    return "fired"


@program.orchestrator
def call_echo(context: task.OrchestrationContext, value):
    return (yield context.call_activity(echo, input=value))


@program.orchestrator
def wait_in_child(context: task.OrchestrationContext, child):
    return (yield context.call_sub_orchestrator(collect_three_events, instance_id=child))


def suspended(sdk: Sdk, instance: str, reason: str | None = None) -> None:
    sdk.client.suspend_orchestration(instance, reason=reason)
    assert sdk.status(instance) == Status.SUSPENDED


def test_events_pile_up_during_a_suspension_and_arrive_in_order_after_it(sdk: Sdk):
    """S-9.2, S-9.3, S-8.7."""
    instance = sdk.start(collect_three_events)
    sdk.until_running(instance)
    suspended(sdk, instance)
    for number in range(3):
        sdk.client.raise_orchestration_event(instance, "number", data=number)
    # A whole other orchestration fits in here, so the events have had their chance.
    assert sdk.run(call_echo, 1) == 1
    assert sdk.status(instance) == Status.SUSPENDED
    assert "EventRaised" not in sdk.kinds(instance)
    sdk.client.resume_orchestration(instance)
    assert sdk.output(instance) == [0, 1, 2]


def test_the_history_marks_each_suspension_with_its_reasons(sdk: Sdk):
    """S-9.5."""
    instance = sdk.start(collect_three_events)
    sdk.until_running(instance)
    suspended(sdk, instance, "lunch")
    sdk.client.resume_orchestration(instance, reason="back")
    assert sdk.status(instance) == Status.RUNNING
    for number in range(3):
        sdk.client.raise_orchestration_event(instance, "number", data=number)
    assert sdk.output(instance) == [0, 1, 2]
    marks = [
        (kind(event), event.input)
        for event in sdk.history(instance)
        if kind(event) in ("ExecutionSuspended", "ExecutionResumed")
    ]
    assert marks == [("ExecutionSuspended", "lunch"), ("ExecutionResumed", "back")]


def test_suspending_twice_and_resuming_twice_leaves_one_pair_of_marks(sdk: Sdk):
    """S-9.6: the SDK fails an orchestration on a stray resume."""
    instance = sdk.start(collect_three_events)
    sdk.until_running(instance)
    sdk.client.resume_orchestration(instance)
    suspended(sdk, instance)
    suspended(sdk, instance)
    sdk.client.resume_orchestration(instance)
    sdk.client.resume_orchestration(instance)
    for number in range(3):
        sdk.client.raise_orchestration_event(instance, "number", data=number)
    assert sdk.output(instance) == [0, 1, 2]
    kinds = sdk.kinds(instance)
    assert (kinds.count("ExecutionSuspended"), kinds.count("ExecutionResumed")) == (1, 1)


def test_a_timer_that_came_due_during_a_suspension_fires_after_it(sdk: Sdk):
    """S-9.3."""
    instance = sdk.start(wait_for_a_timer, 200)
    sdk.until_running(instance)
    suspended(sdk, instance)
    # This timer starts later and is as long, so the first one is due when it has fired.
    assert sdk.run(wait_for_a_timer, 200) == "fired"
    assert sdk.status(instance) == Status.SUSPENDED
    sdk.client.resume_orchestration(instance)
    assert sdk.output(instance) == "fired"


def test_an_instance_that_never_ran_can_be_suspended_and_is_pending_again_afterwards(sdk: Sdk):
    """S-9.2, S-9.4, S-2.3: there is no worker in this hub."""
    with sdk.in_hub("idle") as idle:
        instance = idle.start("nobody_runs_this")
        suspended(idle, instance)
        idle.client.resume_orchestration(instance)
        assert idle.status(instance) == Status.PENDING
        idle.client.terminate_orchestration(instance)


def test_an_instance_suspended_before_its_first_episode_runs_after_the_resume(sdk: Sdk):
    """S-9.4: a generation without a history gets no marks, S-9.5."""
    with sdk.in_hub("second") as second:
        instance = second.start(call_echo, "late")
        suspended(second, instance)
        with second.worker(program):
            assert second.run(call_echo, "other") == "other"
            assert second.status(instance) == Status.SUSPENDED
            second.client.resume_orchestration(instance)
            assert second.output(instance) == "late"
            assert "ExecutionSuspended" not in second.kinds(instance)


def test_children_of_a_suspended_parent_run_on(sdk: Sdk):
    """S-9.6, S-7.9."""
    child = unique("child")
    parent = sdk.start(wait_in_child, child)
    sdk.until_running(child)
    suspended(sdk, parent)
    for number in range(3):
        sdk.client.raise_orchestration_event(child, "number", data=number)
    assert sdk.output(child) == [0, 1, 2]
    assert sdk.status(parent) == Status.SUSPENDED
    sdk.client.resume_orchestration(parent)
    assert sdk.output(parent) == [0, 1, 2]


def test_a_finished_instance_is_left_alone(sdk: Sdk):
    """S-9.6, S-2.10."""
    instance = sdk.start(call_echo, "value")
    before = sdk.finish(instance)
    sdk.client.suspend_orchestration(instance)
    sdk.client.resume_orchestration(instance)
    assert sdk.state(instance) == before


def test_a_missing_instance_is_not_found(sdk: Sdk):
    """S-9.6."""
    instance = unique("nobody")
    with refused(grpc.StatusCode.NOT_FOUND):
        sdk.client.suspend_orchestration(instance)
    with refused(grpc.StatusCode.NOT_FOUND):
        sdk.client.resume_orchestration(instance)


def test_a_wait_for_the_start_is_satisfied_by_a_suspended_instance(sdk: Sdk):
    """S-11.5."""
    with sdk.in_hub("idle") as idle:
        instance = idle.start("nobody_runs_this")
        suspended(idle, instance)
        state = idle.client.wait_for_orchestration_start(instance, timeout=10)
        assert state.runtime_status == Status.SUSPENDED
        idle.client.terminate_orchestration(instance)
        eventually(lambda: idle.status(instance) == Status.TERMINATED, "the end")
