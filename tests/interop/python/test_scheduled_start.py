"""Orchestrations that start at a given time."""

from datetime import datetime, timedelta, timezone

from durabletask import task

from sdk import Program, Sdk, Status

program = Program()


@program.orchestrator
def return_input(_, value):
    return value


@program.orchestrator
def wait_for_release(context: task.OrchestrationContext, _):
    return (yield context.wait_for_external_event("release"))


def soon(milliseconds: int) -> datetime:
    return datetime.now(timezone.utc) + timedelta(milliseconds=milliseconds)


def test_a_scheduled_orchestration_is_pending_at_once_and_starts_at_its_time(sdk: Sdk):
    """S-6.6, S-3.16."""
    start_at = soon(600)
    instance = sdk.start(return_input, 1, start_at=start_at)
    assert sdk.status(instance) == Status.PENDING
    # Another orchestration of the same worker runs to its end before.
    assert sdk.run(return_input, 2) == 2
    assert sdk.status(instance) == Status.PENDING
    assert sdk.output(instance) == 1
    clock, started = sdk.history(instance)[:2]
    assert clock.timestamp >= start_at
    assert started.scheduled_start_timestamp == start_at
    assert started.timestamp < start_at, "S-3.10: the time of its creation"


def test_events_raised_before_the_start_time_wait_for_it(sdk: Sdk):
    """S-6.6."""
    start_at = soon(400)
    instance = sdk.start(wait_for_release, start_at=start_at)
    sdk.client.raise_orchestration_event(instance, "release", data="early")
    assert sdk.output(instance) == "early"
    assert sdk.history(instance)[0].timestamp >= start_at


def test_an_orchestration_can_be_terminated_before_its_start_time(sdk: Sdk):
    """S-6.6, S-9.7."""
    instance = sdk.start(return_input, 1, start_at=soon(3_600_000))
    sdk.client.terminate_orchestration(instance, output="never mind")
    state = sdk.finish(instance)
    assert (state.runtime_status, state.get_output()) == (Status.TERMINATED, "never mind")


def test_a_start_time_in_the_past_counts_as_none(sdk: Sdk):
    """S-6.6."""
    instance = sdk.start(return_input, 1, start_at=soon(-60_000))
    assert sdk.output(instance) == 1
    assert sdk.events(instance, "ExecutionStarted")[0].scheduled_start_timestamp is None


def test_scheduled_orchestrations_start_in_the_order_of_their_times(sdk: Sdk):
    """S-6.6."""
    late = sdk.start(return_input, "late", start_at=soon(600))
    early = sdk.start(return_input, "early", start_at=soon(200))
    assert sdk.output(early) == "early"
    assert sdk.status(late) == Status.PENDING
    assert sdk.output(late) == "late"
