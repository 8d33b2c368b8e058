"""Restart under the same id and under a new one."""

import grpc
from durabletask import task

from sdk import Program, Sdk, Status, Tally, refused, unique

program = Program()
runs = Tally()


@program.activity
def count_run(_, key):
    return runs.add(key)


@program.orchestrator
def count(context: task.OrchestrationContext, key):
    return [key, (yield context.call_activity(count_run, input=key))]


@program.orchestrator
def wait_for_release(context: task.OrchestrationContext, _):
    return (yield context.wait_for_external_event("release"))


@program.orchestrator
def fail_at_once(context: task.OrchestrationContext, message):
    raise ValueError(message)


@program.orchestrator
def second_generation(context: task.OrchestrationContext, number):
    if number == 1:
        context.continue_as_new(2)
        return None
    return number


def test_a_finished_orchestration_runs_again_under_its_id_with_its_input(sdk: Sdk):
    """S-9.19, S-9.20, S-0.6: the wait does not see the end of the earlier run."""
    key = unique("restart")
    instance = sdk.start(count, key, tags={"team": "blue"})
    first = sdk.finish(instance)
    before = sdk.events(instance, "ExecutionStarted")[0]
    assert sdk.client.restart_orchestration(instance) == instance
    second = sdk.finish(instance)
    assert (first.get_output(), second.get_output()) == ([key, 1], [key, 2])
    assert second.created_at > first.created_at, "S-2.6"
    after = sdk.events(instance, "ExecutionStarted")[0]
    assert after.tags == {"team": "blue"}
    assert after.orchestration_instance.execution_id != before.orchestration_instance.execution_id


def test_a_restart_under_a_new_id_leaves_the_first_instance_alone(sdk: Sdk):
    """S-9.19, S-9.20."""
    key = unique("restart")
    instance = sdk.start(count, key)
    before = sdk.finish(instance)
    copy = sdk.client.restart_orchestration(instance, restart_with_new_instance_id=True)
    assert copy != instance
    assert len(copy) == 32
    assert sdk.output(copy) == [key, 2]
    assert sdk.state(copy).name == "count"
    assert sdk.state(instance) == before


def test_a_failed_or_terminated_orchestration_can_be_restarted(sdk: Sdk):
    """S-9.19."""
    instance = sdk.start(fail_at_once, "again")
    assert sdk.finish(instance).runtime_status == Status.FAILED
    sdk.client.restart_orchestration(instance)
    assert sdk.finish(instance).failure_details.message == "again"
    waiting = sdk.start(wait_for_release)
    sdk.client.terminate_orchestration(waiting)
    sdk.client.restart_orchestration(waiting)
    sdk.client.raise_orchestration_event(waiting, "release", data="second run")
    assert sdk.output(waiting) == "second run"


def test_an_active_orchestration_restarts_only_under_a_new_id(sdk: Sdk):
    """S-9.19: a suspended one is active."""
    instance = sdk.start(wait_for_release)
    sdk.until_running(instance)
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        sdk.client.restart_orchestration(instance)
    sdk.client.suspend_orchestration(instance)
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        sdk.client.restart_orchestration(instance)
    sdk.client.resume_orchestration(instance)
    copy = sdk.client.restart_orchestration(instance, restart_with_new_instance_id=True)
    for each in (copy, instance):
        sdk.client.raise_orchestration_event(each, "release", data=each)
        assert sdk.output(each) == each


def test_a_restart_takes_the_input_of_the_current_generation(sdk: Sdk):
    """S-9.20."""
    instance = sdk.start(second_generation, 1)
    assert sdk.output(instance) == 2
    sdk.client.restart_orchestration(instance)
    state = sdk.finish(instance)
    assert (state.get_input(), state.get_output()) == (2, 2)


def test_a_restarted_instance_is_pending_until_a_worker_takes_it(sdk: Sdk):
    """S-2.3, S-0.6: there is no worker in this hub."""
    with sdk.in_hub("idle") as idle:
        instance = idle.start("nobody_runs_this", "input")
        idle.client.terminate_orchestration(instance, output="ended")
        idle.client.restart_orchestration(instance)
        state = idle.state(instance)
        assert state.runtime_status == Status.PENDING
        assert (state.get_input(), state.serialized_output) == ("input", None)
        idle.client.terminate_orchestration(instance)


def test_a_missing_orchestration_cannot_be_restarted(sdk: Sdk):
    """S-9.19."""
    for new_id in (False, True):
        with refused(grpc.StatusCode.NOT_FOUND):
            sdk.client.restart_orchestration(unique("nobody"), restart_with_new_instance_id=new_id)
