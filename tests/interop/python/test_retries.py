"""Retry policies: the SDK schedules the attempts, the server carries each of them."""

from datetime import timedelta

from durabletask import task

from sdk import Program, Sdk, Status, Tally

program = Program()
attempts = Tally()
THREE_ATTEMPTS = task.RetryPolicy(first_retry_interval=timedelta(milliseconds=10), max_number_of_attempts=3)


@program.activity
def fail_until(context: task.ActivityContext, good_attempt):
    attempt = attempts.add(context.orchestration_id)
    if attempt < good_attempt:
        raise ValueError(f"attempt {attempt}")
    return attempt


@program.orchestrator
def retry_activity(context: task.OrchestrationContext, good_attempt):
    return (yield context.call_activity(fail_until, input=good_attempt, retry_policy=THREE_ATTEMPTS))


@program.orchestrator
def call_once(context: task.OrchestrationContext, good_attempt):
    return (yield context.call_activity(fail_until, input=good_attempt))


@program.orchestrator
def retry_two_activities_together(context: task.OrchestrationContext, _):
    # Both count in one tally: six calls at most, and the last of them succeed.
    calls = [context.call_activity(fail_until, input=3, retry_policy=THREE_ATTEMPTS) for _ in range(2)]
    results = yield task.when_all(calls)
    return len(results)


@program.orchestrator
def retry_child(context: task.OrchestrationContext, child_id):
    return (
        yield context.call_sub_orchestrator(
            call_once, input=3, instance_id=child_id, retry_policy=THREE_ATTEMPTS
        )
    )


def test_an_activity_that_fails_twice_succeeds_at_the_third_attempt(sdk: Sdk):
    """S-5.4, S-3.8, S-4.13: each attempt is an activity of its own, although all use one task id."""
    instance = sdk.start(retry_activity, 3)
    assert sdk.output(instance) == 3
    assert [event.event_id for event in sdk.events(instance, "TaskScheduled")] == [1, 1, 1]
    assert len(sdk.events(instance, "TaskFailed")) == 2
    assert len(sdk.events(instance, "TaskCompleted")) == 1


def test_an_activity_that_fails_at_every_attempt_fails_the_orchestration(sdk: Sdk):
    """S-5.3, S-5.4."""
    instance = sdk.start(retry_activity, 99)
    state = sdk.finish(instance)
    assert state.runtime_status == Status.FAILED
    assert "attempt 3" in state.failure_details.message
    assert attempts[instance] == 3


def test_the_server_itself_never_repeats_a_failed_activity(sdk: Sdk):
    """S-5.4."""
    instance = sdk.start(call_once, 2)
    assert sdk.finish(instance).runtime_status == Status.FAILED
    assert attempts[instance] == 1


def test_two_retried_activities_do_not_disturb_each_other(sdk: Sdk):
    """S-4.13."""
    assert sdk.run(retry_two_activities_together) == 2


def test_a_failed_child_is_replaced_under_its_own_id_when_it_is_retried(sdk: Sdk):
    """S-7.6."""
    child = f"{sdk.start(call_once, 0)}-child"
    instance = sdk.start(retry_child, child)
    assert sdk.output(instance) == 3
    created = sdk.events(instance, "SubOrchestrationInstanceCreated")
    assert [event.instance_id for event in created] == [child] * 3
    assert len(sdk.events(instance, "SubOrchestrationInstanceFailed")) == 2
    assert sdk.status(child) == Status.COMPLETED


def test_a_retried_child_without_an_id_of_the_users_keeps_the_one_the_sdk_made(sdk: Sdk):
    """S-7.6."""
    instance = sdk.start(retry_child, None)
    assert sdk.output(instance) == 3
    created = sdk.events(instance, "SubOrchestrationInstanceCreated")
    assert [event.instance_id for event in created] == [f"{instance}:0001"] * 3
