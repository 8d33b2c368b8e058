"""Reading one instance, waiting for it, and querying many."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import grpc
import pytest
from durabletask import task
from durabletask.client import OrchestrationQuery
from durabletask.internal import orchestrator_service_pb2 as pb
from google.protobuf.wrappers_pb2 import StringValue

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
    context.set_custom_status("waiting")
    return (yield context.wait_for_external_event("release"))


def start_many(sdk: Sdk, prefix: str, count: int) -> list[str]:
    """Instances of an orchestration that no worker runs."""
    ids = [f"{prefix}/{number:04}" for number in range(count)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda each: sdk.start("nobody_runs_this", instance_id=each), ids))
    return ids


def pages(sdk: Sdk, **query) -> list[list[str]]:
    """The ids of each page of one query, as the wire has them."""
    found, token = [], None
    with sdk.stub() as (stub, metadata):
        while True:
            request = pb.InstanceQuery(continuationToken=token, **query)
            answer = stub.QueryInstances(pb.QueryInstancesRequest(query=request), metadata=metadata)
            found.append([state.instanceId for state in answer.orchestrationState])
            if not answer.HasField("continuationToken"):
                return found
            assert answer.continuationToken.value, "S-11.12: a token is never empty"
            token = answer.continuationToken


def ids_of(states) -> list[str]:
    return [state.instance_id for state in states]


def test_a_missing_instance_reads_as_none(sdk: Sdk):
    """S-11.1."""
    assert sdk.client.get_orchestration_state(unique("nobody")) is None
    assert sdk.client.get_orchestration_state("@counter@key") is None


def test_payloads_and_failure_details_come_only_when_asked_for(sdk: Sdk):
    """S-11.2, S-11.4."""
    completed, failed = sdk.start(return_input, "value"), sdk.start(fail_with_input, "reason")
    for instance in (completed, failed):
        sdk.finish(instance)
        bare = sdk.client.get_orchestration_state(instance, fetch_payloads=False)
        assert (bare.serialized_input, bare.serialized_output, bare.failure_details) == (None,) * 3
    assert sdk.state(completed).get_output() == "value"
    assert sdk.state(failed).failure_details.message == "reason"
    assert sdk.state(failed).serialized_output is None


def test_a_wait_for_the_start_ends_with_the_first_episode(sdk: Sdk):
    """S-11.5, S-2.4."""
    instance = sdk.start(wait_for_release)
    assert sdk.until_running(instance).serialized_input is None
    state = sdk.client.wait_for_orchestration_start(instance, fetch_payloads=True, timeout=10)
    assert state.get_custom_status() == "waiting"
    sdk.client.terminate_orchestration(instance)


def test_waits_time_out_at_the_callers_deadline(sdk: Sdk):
    """S-11.7."""
    with sdk.in_hub("idle") as idle:
        instance = idle.start("nobody_runs_this")
        with pytest.raises(TimeoutError):
            idle.client.wait_for_orchestration_start(instance, timeout=0.2)
        with pytest.raises(TimeoutError):
            idle.client.wait_for_orchestration_completion(instance, timeout=0.2)
        idle.client.terminate_orchestration(instance)


def test_a_wait_for_a_missing_instance_goes_on_until_it_exists_and_ends(sdk: Sdk):
    """S-11.6."""
    instance = unique("later")
    with pytest.raises(TimeoutError):
        sdk.client.wait_for_orchestration_completion(instance, timeout=0.2)
    outcome = []
    client = sdk.new_client()
    waiter = threading.Thread(
        target=lambda: outcome.append(client.wait_for_orchestration_completion(instance, timeout=20))
    )
    waiter.start()
    sdk.start(return_input, "here now", instance_id=instance)
    waiter.join()
    assert outcome[0].get_output() == "here now"


def test_fifty_clients_wait_for_one_instance_and_all_are_told(managed: Sdk):
    """S-11.7, S-1.17."""
    instance = managed.start(wait_for_release)
    with ThreadPoolExecutor(50) as pool:
        waits = [pool.submit(managed.finish, instance) for _ in range(50)]
        managed.until_running(instance)
        managed.client.raise_orchestration_event(instance, "release", data="all of you")
        assert {wait.result().get_output() for wait in waits} == {"all of you"}


def test_a_query_by_status_finds_exactly_the_instances_in_it(sdk: Sdk):
    """S-11.9."""
    prefix = unique("query")
    completed = sdk.start(return_input, 1, instance_id=f"{prefix}/completed")
    failed = sdk.start(fail_with_input, "x", instance_id=f"{prefix}/failed")
    running = sdk.start(wait_for_release, instance_id=f"{prefix}/running")
    sdk.finish(completed)
    sdk.finish(failed)
    sdk.until_running(running)

    def found(*statuses: Status) -> list[str]:
        query = OrchestrationQuery(runtime_status=list(statuses) or None, instance_id_prefix=prefix)
        return ids_of(sdk.client.get_all_orchestration_states(query))

    assert found() == [completed, failed, running]
    assert found(Status.COMPLETED) == [completed]
    assert found(Status.FAILED, Status.RUNNING) == [failed, running]
    assert found(Status.SUSPENDED) == []
    sdk.client.suspend_orchestration(running)
    assert found(Status.SUSPENDED) == [running], "S-0.6: no index lags"
    sdk.client.terminate_orchestration(running)
    assert found(Status.TERMINATED) == [running]


def test_a_query_by_creation_time_includes_both_bounds(sdk: Sdk):
    """S-11.9, S-2.11: the SDK keeps microseconds, the server may keep more."""
    prefix = unique("query")
    ids = [sdk.start(return_input, n, instance_id=f"{prefix}/{n}") for n in range(5)]
    created = [sdk.finish(each).created_at for each in ids]
    assert created == sorted(created)
    query = OrchestrationQuery(
        created_time_from=created[1],
        created_time_to=created[3] + timedelta(microseconds=1),
        instance_id_prefix=prefix,
    )
    assert ids_of(sdk.client.get_all_orchestration_states(query)) == ids[1:4]


def test_a_prefix_is_case_sensitive_and_found_at_the_start_alone(sdk: Sdk):
    """S-11.9."""
    prefix = unique("query")
    instance = sdk.run_and_keep(return_input, 1, instance_id=f"{prefix}/a")
    for pattern, expected in [(prefix, [instance]), (prefix.upper(), []), (prefix[1:], [])]:
        query = OrchestrationQuery(instance_id_prefix=pattern)
        assert ids_of(sdk.client.get_all_orchestration_states(query)) == expected


def test_a_query_returns_payloads_only_when_asked_for(sdk: Sdk):
    """S-11.13, S-2.8."""
    prefix = unique("query")
    sdk.run_and_keep(return_input, "value", instance_id=f"{prefix}/a")
    bare, full = (
        sdk.client.get_all_orchestration_states(
            OrchestrationQuery(instance_id_prefix=prefix, fetch_inputs_and_outputs=fetch)
        )[0]
        for fetch in (False, True)
    )
    assert (bare.serialized_input, bare.serialized_output) == (None, None)
    assert (full.get_input(), full.get_output()) == ("value", "value")
    assert bare.name == full.name == "return_input"
    assert bare.runtime_status == Status.COMPLETED


def test_paging_through_a_thousand_instances_finds_each_of_them_once_in_order(managed: Sdk):
    """S-11.10, S-11.11."""
    with managed.in_hub("idle") as idle:
        prefix = unique("page")
        ids = start_many(idle, prefix, 1_000)
        for size in (100, 333, (1 << 31) - 1):
            states = idle.client.get_all_orchestration_states(
                OrchestrationQuery(instance_id_prefix=prefix, max_instance_count=size)
            )
            assert sorted(ids_of(states)) == ids
            keys = [(state.created_at, state.instance_id) for state in states]
            assert keys == sorted(keys)


def test_only_the_last_page_is_short_and_it_has_no_token(managed: Sdk):
    """S-11.10, S-11.12."""
    with managed.in_hub("idle") as idle:
        prefix = unique("page")
        start_many(idle, prefix, 20)
        query = {"instanceIdPrefix": StringValue(value=prefix)}
        sizes = {size: [len(each) for each in pages(idle, maxInstanceCount=size, **query)] for size in (5, 7, 0)}
        assert sizes == {5: [5, 5, 5, 5], 7: [7, 7, 6], 0: [20]}
        start_many(idle, f"{prefix}/more", 1)
        assert [len(each) for each in pages(idle, maxInstanceCount=5, **query)] == [5, 5, 5, 5, 1]


def test_a_token_that_the_server_never_gave_is_refused(managed: Sdk):
    """S-11.12."""
    with managed.stub() as (stub, metadata), refused(grpc.StatusCode.INVALID_ARGUMENT):
        query = pb.InstanceQuery(continuationToken=StringValue(value="garbage \u2620"))
        stub.QueryInstances(pb.QueryInstancesRequest(query=query), metadata=metadata)


def test_an_empty_token_starts_from_the_beginning(managed: Sdk):
    """S-11.12."""
    prefix = unique("query")
    instance = managed.run_and_keep(return_input, 1, instance_id=f"{prefix}/a")
    query = pb.InstanceQuery(
        continuationToken=StringValue(value=""), instanceIdPrefix=StringValue(value=prefix)
    )
    with managed.stub() as (stub, metadata):
        answer = stub.QueryInstances(pb.QueryInstancesRequest(query=query), metadata=metadata)
    assert [state.instanceId for state in answer.orchestrationState] == [instance]
