"""Rewind of failed orchestrations."""

import grpc
from durabletask import task

from sdk import Program, Sdk, Status, Tally, refused, unique

program = Program()
calls = Tally()
broken: set[str] = set()


@program.activity
def succeed(context: task.ActivityContext, value):
    calls.add((context.orchestration_id, "succeed"))
    return value


@program.activity
def fail_while_broken(context: task.ActivityContext, key):
    calls.add((context.orchestration_id, "fail_while_broken"))
    if key in broken:
        raise ValueError(f"{key} is broken")
    return "repaired"


@program.orchestrator
def work(context: task.OrchestrationContext, key):
    before = yield context.call_activity(succeed, input="before")
    middle = yield context.call_activity(fail_while_broken, input=key)
    after = yield context.call_activity(succeed, input="after")
    return [before, middle, after]


@program.orchestrator
def work_through_child(context: task.OrchestrationContext, key):
    before = yield context.call_activity(succeed, input="parent")
    child = yield context.call_sub_orchestrator(work, input=key, instance_id=f"{key}-child")
    return [before, *child]


@program.orchestrator
def two_steps(context: task.OrchestrationContext, key):
    first = yield context.call_activity(fail_while_broken, input=f"{key}/1")
    second = yield context.call_activity(fail_while_broken, input=f"{key}/2")
    return [first, second]


@program.orchestrator
def wait_for_release(context: task.OrchestrationContext, _):
    return (yield context.wait_for_external_event("release"))


def failed(sdk: Sdk, orchestrator, key: str) -> str:
    """An instance, named like its key, that has failed because something was broken."""
    instance = sdk.start(orchestrator, key, instance_id=key)
    assert sdk.finish(instance).runtime_status == Status.FAILED
    return instance


def test_a_rewound_orchestration_repeats_only_the_activity_that_failed(sdk: Sdk):
    """S-9.13: status, output and failure details of the failure are gone, its history rewritten."""
    key = unique("rewind")
    broken.add(key)
    instance = failed(sdk, work, key)
    execution = sdk.events(instance, "ExecutionStarted")[0].orchestration_instance.execution_id
    broken.remove(key)
    sdk.client.rewind_orchestration(instance, reason="repaired by hand")
    state = sdk.finish(instance)
    assert state.runtime_status == Status.COMPLETED
    assert state.get_output() == ["before", "repaired", "after"]
    assert state.failure_details is None
    assert calls[(instance, "succeed")] == 2
    assert calls[(instance, "fail_while_broken")] == 2
    assert "TaskFailed" not in sdk.kinds(instance)
    started = sdk.events(instance, "ExecutionStarted")
    assert len(started) == 1
    assert started[0].orchestration_instance.execution_id != execution


def test_a_rewind_leaves_a_mark_with_its_reason(sdk: Sdk):
    """S-9.13."""
    key = unique("rewind")
    broken.add(key)
    instance = failed(sdk, work, key)
    broken.remove(key)
    sdk.client.rewind_orchestration(instance, reason="repaired by hand")
    sdk.output(instance)
    assert [event.reason for event in sdk.events(instance, "ExecutionRewound")] == ["repaired by hand"]


def test_a_failed_child_is_rewound_with_its_parent(sdk: Sdk):
    """S-9.13."""
    key = unique("rewind")
    broken.add(key)
    parent = failed(sdk, work_through_child, key)
    child = f"{key}-child"
    assert sdk.status(child) == Status.FAILED
    broken.remove(key)
    sdk.client.rewind_orchestration(parent)
    assert sdk.output(parent) == ["parent", "before", "repaired", "after"]
    assert sdk.output(child) == ["before", "repaired", "after"]
    assert calls[(parent, "succeed")] == 1
    assert calls[(child, "succeed")] == 2
    assert len(sdk.events(parent, "SubOrchestrationInstanceCreated")) == 1


def test_a_purged_child_is_started_again_by_the_rewind_of_its_parent(sdk: Sdk):
    """S-9.13 step 6."""
    key = unique("rewind")
    broken.add(key)
    parent = failed(sdk, work_through_child, key)
    broken.remove(key)
    assert sdk.client.purge_orchestration(f"{key}-child").deleted_instance_count == 1
    sdk.client.rewind_orchestration(parent)
    assert sdk.output(parent) == ["parent", "before", "repaired", "after"]


def test_an_orchestration_can_be_rewound_again_after_another_failure(sdk: Sdk):
    """S-9.13: marks accumulate."""
    key = unique("rewind")
    broken.update((f"{key}/1", f"{key}/2"))
    instance = failed(sdk, two_steps, key)
    broken.remove(f"{key}/1")
    sdk.client.rewind_orchestration(instance, reason="first")
    assert sdk.finish(instance).runtime_status == Status.FAILED
    broken.remove(f"{key}/2")
    sdk.client.rewind_orchestration(instance, reason="second")
    assert sdk.output(instance) == ["repaired", "repaired"]
    reasons = [event.reason for event in sdk.events(instance, "ExecutionRewound")]
    assert reasons == ["first", "second"]


def test_a_rewound_instance_is_running_as_soon_as_the_call_has_answered(sdk: Sdk):
    """S-9.13 step 5, S-0.6: there is no worker in this hub any more."""
    key = unique("rewind")
    broken.add(key)
    with sdk.in_hub("second") as second:
        with second.worker(program):
            instance = failed(second, work, key)
        second.client.rewind_orchestration(instance)
        state = second.state(instance)
        assert state.runtime_status == Status.RUNNING
        assert (state.failure_details, state.serialized_output) == (None, None)
        broken.remove(key)
        with second.worker(program):
            assert second.output(instance) == ["before", "repaired", "after"]


def test_only_a_failed_orchestration_can_be_rewound(sdk: Sdk):
    """S-9.12."""
    running = sdk.start(wait_for_release)
    sdk.until_running(running)
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        sdk.client.rewind_orchestration(running)
    sdk.client.raise_orchestration_event(running, "release", data="unharmed")
    assert sdk.output(running) == "unharmed"
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as refusal:
        sdk.client.rewind_orchestration(running)
    message = refusal.details()
    assert "precondition" in message or "not allowed" in message, message


def test_a_missing_orchestration_cannot_be_rewound(sdk: Sdk):
    """S-9.12."""
    with refused(grpc.StatusCode.NOT_FOUND):
        sdk.client.rewind_orchestration(unique("nobody"))
