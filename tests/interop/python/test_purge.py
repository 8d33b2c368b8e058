"""Purge by id, by filter, with and without children."""

from collections.abc import Iterator
from datetime import timedelta

import grpc
import pytest
from durabletask import task
from durabletask.internal import orchestrator_service_pb2 as pb

from sdk import Program, Sdk, Status, refused, unique

program = Program()


@program.orchestrator
def return_input(_, value):
    return value


@program.orchestrator
def fail_with_input(_, value):
    raise ValueError(value)


@program.orchestrator
def wait_for_release(context: task.OrchestrationContext, _):
    return (yield context.wait_for_external_event("release"))


@program.orchestrator
def call_child(context: task.OrchestrationContext, depth):
    if depth == 0:
        return "bottom"
    return (
        yield context.call_sub_orchestrator(
            call_child, input=depth - 1, instance_id=f"{context.instance_id}.c"
        )
    )


@program.orchestrator
def leave_a_waiting_child(context: task.OrchestrationContext, _):
    context.call_sub_orchestrator(wait_for_release, instance_id=f"{context.instance_id}.c")
    return "left"
    yield


@pytest.fixture(scope="module")
def alone(managed: Sdk) -> Iterator[Sdk]:
    """A hub where a purge by filter meets nobody else's instances."""
    with managed.in_hub("purge") as hub, hub.worker(program):
        yield hub


def is_gone(sdk: Sdk, instance: str) -> bool:
    return sdk.client.get_orchestration_state(instance) is None


def test_a_purged_instance_is_gone_with_its_history(sdk: Sdk):
    """S-11.18, S-11.22, S-11.24."""
    instance = sdk.run_and_keep(return_input, "value")
    result = sdk.client.purge_orchestration(instance)
    assert (result.deleted_instance_count, result.is_complete) == (1, True)
    assert is_gone(sdk, instance)
    with refused(grpc.StatusCode.NOT_FOUND):
        sdk.history(instance)


def test_the_id_of_a_purged_instance_is_free(sdk: Sdk):
    """S-11.24."""
    instance = sdk.run_and_keep(return_input, "first")
    sdk.client.purge_orchestration(instance)
    assert sdk.run(return_input, "second", instance_id=instance) == "second"


def test_purging_a_missing_instance_deletes_nothing(sdk: Sdk):
    """S-11.18, S-11.22."""
    result = sdk.client.purge_orchestration(unique("nobody"))
    assert (result.deleted_instance_count, result.is_complete) == (0, True)


def test_an_active_instance_is_not_purged(sdk: Sdk):
    """S-11.18."""
    instance = sdk.start(wait_for_release)
    sdk.until_running(instance)
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        sdk.client.purge_orchestration(instance)
    sdk.client.raise_orchestration_event(instance, "release", data="alive")
    assert sdk.output(instance) == "alive"


def test_a_recursive_purge_deletes_all_descendants_and_counts_them(sdk: Sdk):
    """S-11.19."""
    root = sdk.run_and_keep(call_child, 2)
    assert sdk.client.purge_orchestration(root, recursive=True).deleted_instance_count == 3
    assert all(is_gone(sdk, each) for each in (root, f"{root}.c", f"{root}.c.c"))


def test_a_purge_that_is_not_recursive_deletes_exactly_one(sdk: Sdk):
    """S-11.19."""
    root = sdk.run_and_keep(call_child, 1)
    assert sdk.client.purge_orchestration(root, recursive=False).deleted_instance_count == 1
    assert is_gone(sdk, root)
    assert sdk.state(f"{root}.c").get_output() == "bottom"


def test_a_recursive_purge_deletes_nothing_while_a_descendant_is_active(sdk: Sdk):
    """S-11.19."""
    root = sdk.run_and_keep(leave_a_waiting_child)
    child = f"{root}.c"
    sdk.until_running(child)
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        sdk.client.purge_orchestration(root, recursive=True)
    assert not is_gone(sdk, root)
    sdk.client.terminate_orchestration(child)
    assert sdk.client.purge_orchestration(root, recursive=True).deleted_instance_count == 2


def test_a_recursive_purge_skips_descendants_that_are_gone_already(sdk: Sdk):
    """S-11.19."""
    root = sdk.run_and_keep(call_child, 1)
    sdk.client.purge_orchestration(f"{root}.c")
    assert sdk.client.purge_orchestration(root, recursive=True).deleted_instance_count == 1


def test_a_purge_by_status_deletes_the_finished_instances_in_it(alone: Sdk):
    """S-11.20."""
    completed = alone.run_and_keep(return_input, 1)
    failed = alone.start(fail_with_input, "x")
    alone.finish(failed)
    result = alone.client.purge_orchestrations_by(
        created_time_from=alone.state(completed).created_at, runtime_status=[Status.FAILED]
    )
    assert (result.deleted_instance_count, result.is_complete) == (1, True)
    assert is_gone(alone, failed)
    assert not is_gone(alone, completed)


def test_a_purge_by_creation_time_includes_both_bounds(alone: Sdk):
    """S-11.20, S-11.9."""
    ids = [alone.run_and_keep(return_input, n) for n in range(4)]
    created = [alone.state(each).created_at for each in ids]
    result = alone.client.purge_orchestrations_by(
        created_time_from=created[1], created_time_to=created[2] + timedelta(microseconds=1)
    )
    assert result.deleted_instance_count == 2
    assert [is_gone(alone, each) for each in ids] == [False, True, True, False]


def test_a_purge_by_filter_spares_active_instances_whatever_it_lists(alone: Sdk):
    """S-11.20."""
    waiting = alone.start(wait_for_release)
    since = alone.until_running(waiting).created_at
    finished = alone.run_and_keep(return_input, 1)
    result = alone.client.purge_orchestrations_by(
        created_time_from=since, runtime_status=[Status.RUNNING, Status.COMPLETED]
    )
    assert result.deleted_instance_count == 1
    assert is_gone(alone, finished)
    assert alone.status(waiting) == Status.RUNNING
    alone.client.terminate_orchestration(waiting)


def test_a_recursive_purge_by_filter_takes_the_children_of_its_matches(alone: Sdk):
    """S-11.19, S-11.20: the children were created later than the window."""
    root = alone.run_and_keep(call_child, 2)
    created = alone.state(root).created_at
    result = alone.client.purge_orchestrations_by(
        created_time_from=created, created_time_to=created + timedelta(microseconds=1), recursive=True
    )
    assert result.deleted_instance_count == 3
    assert all(is_gone(alone, each) for each in (root, f"{root}.c", f"{root}.c.c"))


def test_a_purge_by_filter_skips_a_match_with_an_active_descendant(alone: Sdk):
    """S-11.19: that is no error."""
    root = alone.run_and_keep(leave_a_waiting_child)
    alone.until_running(f"{root}.c")
    created = alone.state(root).created_at
    result = alone.client.purge_orchestrations_by(
        created_time_from=created, created_time_to=created + timedelta(microseconds=1), recursive=True
    )
    assert result.deleted_instance_count == 0
    assert not is_gone(alone, root)
    alone.client.terminate_orchestration(f"{root}.c")


def test_a_purge_with_time_enough_reports_that_it_is_complete(alone: Sdk):
    """S-11.20, S-11.22."""
    instance = alone.run_and_keep(return_input, 1)
    result = alone.client.purge_orchestrations_by(
        created_time_from=alone.state(instance).created_at, timeout=timedelta(minutes=1)
    )
    assert (result.deleted_instance_count, result.is_complete) == (1, True)


def test_a_batch_skips_missing_and_active_instances(alone: Sdk):
    """S-11.21: the SDK's stub has it, its clients have not."""
    finished = [alone.run_and_keep(return_input, n) for n in range(3)]
    waiting = alone.start(wait_for_release)
    alone.until_running(waiting)
    batch = pb.InstanceBatch(instanceIds=[*finished, waiting, unique("nobody")])
    with alone.stub() as (stub, metadata):
        answer = stub.PurgeInstances(pb.PurgeInstancesRequest(instanceBatch=batch), metadata=metadata)
    assert answer.deletedInstanceCount == 3
    assert answer.HasField("isComplete") and answer.isComplete.value
    assert alone.status(waiting) == Status.RUNNING
    alone.client.terminate_orchestration(waiting)


def test_a_batch_of_more_than_five_hundred_ids_is_refused(alone: Sdk):
    """S-11.21."""
    batch = pb.InstanceBatch(instanceIds=[f"nobody-{n}" for n in range(501)])
    with alone.stub() as (stub, metadata), refused(grpc.StatusCode.INVALID_ARGUMENT):
        stub.PurgeInstances(pb.PurgeInstancesRequest(instanceBatch=batch), metadata=metadata)
