"""Task hubs: separate name spaces, chosen by the metadata of each call."""

import grpc
import pytest
from durabletask import task
from durabletask.client import OrchestrationQuery
from durabletask.internal import orchestrator_service_pb2 as pb
from google.protobuf.empty_pb2 import Empty

from sdk import ALL_KINDS, Program, Sdk, Status, refused, unique

program = Program()


@program.orchestrator
def wait_for_release(context: task.OrchestrationContext, _):
    return (yield context.wait_for_external_event("release"))


@program.orchestrator
def return_input(_, value):
    return value


def test_an_unknown_hub_is_not_found_by_any_call(sdk: Sdk):
    """S-1.7: the message names the hub."""
    with sdk.in_hub("nowhere") as nowhere:
        client = nowhere.client
        calls = [
            lambda: client.schedule_new_orchestration("any", instance_id="a"),
            lambda: client.get_orchestration_state("a"),
            lambda: client.wait_for_orchestration_start("a", timeout=10),
            lambda: client.wait_for_orchestration_completion("a", timeout=10),
            lambda: client.get_all_orchestration_states(),
            lambda: client.list_instance_ids(),
            lambda: client.raise_orchestration_event("a", "event"),
            lambda: client.suspend_orchestration("a"),
            lambda: client.resume_orchestration("a"),
            lambda: client.terminate_orchestration("a"),
            lambda: client.rewind_orchestration("a"),
            lambda: client.restart_orchestration("a"),
            lambda: client.purge_orchestration("a"),
            lambda: client.purge_orchestrations_by(runtime_status=[Status.FAILED]),
            lambda: nowhere.history("a"),
        ]
        for call in calls:
            with refused(grpc.StatusCode.NOT_FOUND, "nowhere"):
                call()


def test_an_unknown_hub_is_not_found_by_a_worker(managed: Sdk):
    """S-1.7, S-1.10."""
    with managed.in_hub("nowhere") as nowhere, nowhere.stub() as (stub, metadata):
        with refused(grpc.StatusCode.NOT_FOUND, "nowhere"):
            stub.Hello(Empty(), metadata=metadata)
        with refused(grpc.StatusCode.NOT_FOUND, "nowhere"):
            next(stub.GetWorkItems(pb.GetWorkItemsRequest(), metadata=metadata))


def test_two_hubs_have_instances_of_one_id_that_know_nothing_of_each_other(sdk: Sdk):
    """S-1.6, S-0.2: events, ends, queries and purges stay within their hub."""
    instance = unique("twin")
    with sdk.in_hub("second") as second, second.worker(program):
        sdk.start(wait_for_release, instance_id=instance)
        second.start(wait_for_release, instance_id=instance)
        sdk.client.raise_orchestration_event(instance, "release", data="first")
        assert sdk.output(instance) == "first"
        assert second.until_running(instance).runtime_status == Status.RUNNING
        query = OrchestrationQuery(instance_id_prefix=instance, runtime_status=[Status.RUNNING])
        assert sdk.client.get_all_orchestration_states(query) == []
        assert len(second.client.get_all_orchestration_states(query)) == 1
        assert sdk.client.purge_orchestration(instance).deleted_instance_count == 1
        second.client.raise_orchestration_event(instance, "release", data="second")
        assert second.output(instance) == "second"
        assert sdk.client.get_orchestration_state(instance) is None


def test_a_worker_receives_nothing_from_another_hub(sdk: Sdk):
    """S-13.1, S-2.5: the worker beside these tests is in another hub."""
    with sdk.in_hub("idle") as idle:
        instance = idle.start(return_input, 1)
        assert sdk.run(return_input, 2) == 2
        assert idle.status(instance) == Status.PENDING
        idle.client.terminate_orchestration(instance)


def test_the_name_of_a_hub_is_found_whatever_its_case(sdk: Sdk):
    """S-1.6."""
    with sdk.in_hub("SeConD") as mixed, sdk.in_hub("second") as lower:
        instance = mixed.start("nobody_runs_this")
        assert lower.status(instance) == Status.PENDING
        lower.client.terminate_orchestration(instance)


def test_a_call_without_a_hub_goes_to_the_default_one(managed: Sdk):
    """S-1.6, S-1.3: as plain packages send it; the worker beside this test names the hub."""
    unnamed = Sdk("durabletask", "sync", managed.address)
    try:
        instance = unnamed.start(return_input, 1)
        assert managed.output(instance) == 1
    finally:
        unnamed.close()


@pytest.mark.parametrize("package,style", ALL_KINDS)
def test_with_hubs_on_demand_an_unknown_hub_is_an_empty_one(new_server, package: str, style: str):
    """S-1.16, S-1.7."""
    server = new_server("--dynamic-task-hubs")
    fresh = Sdk(package, style, server.address, "made-on-demand")
    try:
        assert fresh.client.get_orchestration_state("a") is None
        assert fresh.client.get_all_orchestration_states() == []
        with fresh.worker(program):
            assert fresh.run(return_input, "hello") == "hello"
            with fresh.in_hub("another") as another:
                assert another.client.get_all_orchestration_states() == []
    finally:
        fresh.close()


def test_hubs_can_be_named_by_the_environment(new_server):
    """S-1.3."""
    server = new_server(environment={"DTS_TASK_HUB_NAMES": "alpha,beta"})
    for hub in ("alpha", "beta"):
        sdk = Sdk("durabletask-azuremanaged", "sync", server.address, hub)
        assert sdk.client.get_orchestration_state("a") is None
        sdk.close()
    other = Sdk("durabletask-azuremanaged", "sync", server.address, "gamma")
    with refused(grpc.StatusCode.NOT_FOUND, "gamma"):
        other.client.get_orchestration_state("a")
    other.close()
