"""Instance ids: which are legal, and what happens to one that is used twice."""

import grpc
import pytest
from durabletask import task
from durabletask.client import OrchestrationStatus
from durabletask.internal import orchestrator_service_pb2 as pb

from sdk import Program, Sdk, Status, refused, unique

program = Program()


@program.orchestrator
def wait_for_release(context: task.OrchestrationContext, _):
    return (yield context.wait_for_external_event("release"))


@program.orchestrator
def return_input(_, value):
    return value


@program.orchestrator
def fail_with_input(_, value):
    raise ValueError(value)


def policy(*statuses: OrchestrationStatus) -> pb.OrchestrationIdReusePolicy:
    return pb.OrchestrationIdReusePolicy(replaceableStatus=[status.value for status in statuses])


def test_an_id_in_use_by_an_active_instance_is_refused(sdk: Sdk):
    """S-10.3 step 2, S-10.4."""
    instance = sdk.start(wait_for_release)
    with refused(grpc.StatusCode.ALREADY_EXISTS, "orchestration instance already exists"):
        sdk.start(return_input, 1, instance_id=instance)
    sdk.until_running(instance)
    with refused(grpc.StatusCode.ALREADY_EXISTS, "orchestration instance already exists"):
        sdk.start(return_input, 1, instance_id=instance)
    sdk.client.raise_orchestration_event(instance, "release", data="undisturbed")
    assert sdk.output(instance) == "undisturbed"


def test_an_id_of_a_finished_instance_is_used_again(sdk: Sdk):
    """S-10.3 step 2, S-9.21, S-10.5: nothing of the earlier instance is left."""
    instance = sdk.start(return_input, "first", tags={"run": "1"})
    first = sdk.finish(instance)
    sdk.start(return_input, "second", instance_id=instance)
    second = sdk.finish(instance)
    assert (second.get_input(), second.get_output()) == ("second", "second")
    assert second.created_at > first.created_at
    started = sdk.events(instance, "ExecutionStarted")
    assert [event.tags for event in started] == [None]


def test_failed_and_terminated_instances_are_replaced_as_well(sdk: Sdk):
    """S-10.3 step 2."""
    failed = sdk.start(fail_with_input, "first")
    assert sdk.finish(failed).runtime_status == Status.FAILED
    sdk.start(return_input, "second", instance_id=failed)
    state = sdk.finish(failed)
    assert (state.get_output(), state.failure_details) == ("second", None)
    terminated = sdk.start(wait_for_release)
    sdk.client.terminate_orchestration(terminated)
    sdk.start(return_input, "second", instance_id=terminated)
    assert sdk.output(terminated) == "second"


def test_a_policy_replaces_what_it_lists(sdk: Sdk):
    """S-10.3 step 5."""
    instance = sdk.run_and_keep(return_input, "first")
    sdk.start(return_input, "second", instance_id=instance, reuse_id_policy=policy(Status.COMPLETED))
    assert sdk.output(instance) == "second"


@pytest.mark.parametrize("listed", [(), (Status.FAILED, Status.TERMINATED)], ids=["empty", "others"])
def test_a_policy_refuses_what_it_does_not_list(sdk: Sdk, listed):
    """S-10.3 step 4: a list that is present and empty replaces nothing."""
    instance = sdk.run_and_keep(return_input, "first")
    with refused(grpc.StatusCode.ALREADY_EXISTS, "orchestration instance already exists"):
        sdk.start(return_input, "second", instance_id=instance, reuse_id_policy=policy(*listed))
    assert sdk.output(instance) == "first"


def test_a_policy_that_lists_running_but_not_terminated_is_refused_for_a_running_instance(sdk: Sdk):
    """S-10.3 step 6: with exactly this message."""
    instance = sdk.start(wait_for_release)
    sdk.until_running(instance)
    with refused(
        grpc.StatusCode.INVALID_ARGUMENT,
        "Invalid reusable statuses: cannot exclude 'Terminated' while also allowing reuse of running instances",
    ):
        sdk.start(return_input, 2, instance_id=instance, reuse_id_policy=policy(Status.RUNNING))
    sdk.client.raise_orchestration_event(instance, "release", data="undisturbed")
    assert sdk.output(instance) == "undisturbed"


def test_the_same_policy_is_accepted_where_nothing_active_is_replaced(sdk: Sdk):
    """S-10.3: the check of step 6 comes after the others."""
    running_only = policy(Status.RUNNING)
    fresh = unique()
    sdk.start(return_input, "first", instance_id=fresh, reuse_id_policy=running_only)
    assert sdk.output(fresh) == "first"
    with refused(grpc.StatusCode.ALREADY_EXISTS):
        sdk.start(return_input, "second", instance_id=fresh, reuse_id_policy=running_only)


def test_a_policy_with_running_and_terminated_replaces_a_running_instance(sdk: Sdk):
    """S-10.3 step 6, S-10.5: events for the earlier one are gone with it."""
    instance = sdk.start(wait_for_release)
    sdk.until_running(instance)
    sdk.start(
        wait_for_release,
        instance_id=instance,
        reuse_id_policy=policy(Status.RUNNING, Status.TERMINATED),
    )
    sdk.client.raise_orchestration_event(instance, "release", data="for the second")
    assert sdk.output(instance) == "for the second"


def test_ids_of_up_to_one_hundred_characters_are_legal(sdk: Sdk):
    """S-10.1."""
    longest = unique("long").ljust(100, "x")
    assert sdk.run(return_input, 1, instance_id=longest) == 1
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "100"):
        sdk.start(return_input, 1, instance_id=longest + "x")


def test_the_length_of_an_id_is_counted_in_characters(sdk: Sdk):
    """S-10.1."""
    longest = unique("länge").ljust(100, "é")
    assert sdk.run(return_input, 1, instance_id=longest) == 1
    assert sdk.state(longest).instance_id == longest


@pytest.mark.parametrize("bad", ["@counter@key", "line\nbreak", "bell\x07", "nul\x00"], ids=repr)
def test_ids_of_entities_and_control_characters_are_illegal(sdk: Sdk, bad: str):
    """S-10.1."""
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        sdk.start(return_input, 1, instance_id=bad)


def test_ids_differ_by_case(sdk: Sdk):
    """S-10.1."""
    lower = unique("case")
    sdk.start(return_input, "lower", instance_id=lower)
    sdk.start(return_input, "upper", instance_id=lower.upper())
    assert (sdk.output(lower), sdk.output(lower.upper())) == ("lower", "upper")


@pytest.mark.parametrize("name", ["with space", "sla/sh", "per%cent", "日本語", "a|b", "a:0001", "ü@x"])
def test_unusual_characters_in_ids_make_no_difference(sdk: Sdk, name: str):
    """S-10.1, S-10.6."""
    instance = f"{unique()} {name}"
    assert sdk.start(return_input, name, instance_id=instance) == instance
    assert sdk.output(instance) == name
    assert sdk.kinds(instance)[-1] == "ExecutionCompleted"


def test_an_orchestration_without_a_name_is_refused(sdk: Sdk):
    """S-10.1."""
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        sdk.start("")


def test_the_server_makes_an_id_when_the_request_has_none(managed: Sdk):
    """S-10.1, S-10.6: the SDK's clients always send one, its stub need not."""
    with managed.stub() as (stub, metadata):
        answer = stub.StartInstance(pb.CreateInstanceRequest(name="return_input"), metadata=metadata)
    assert len(answer.instanceId) == 32
    assert int(answer.instanceId, 16) >= 0
    assert managed.output(answer.instanceId) is None
