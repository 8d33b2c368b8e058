"""Child orchestrations: ids, parents, results and failures."""

from durabletask import task

from sdk import Program, Sdk, Status, unique

program = Program()


@program.activity
def break_down(_, message):
    raise ValueError(message)


@program.orchestrator
def double(context: task.OrchestrationContext, number):
    return number * 2


@program.orchestrator
def tell_parent(context: task.OrchestrationContext, _):
    return context.parent_instance_id


@program.orchestrator
def wait_for_release(context: task.OrchestrationContext, _):
    return (yield context.wait_for_external_event("release"))


@program.orchestrator
def fail_by_activity(context: task.OrchestrationContext, message):
    yield context.call_activity(break_down, input=message)


@program.orchestrator
def call_double(context: task.OrchestrationContext, child_id):
    return (yield context.call_sub_orchestrator(double, input=21, instance_id=child_id))


@program.orchestrator
def call_many(context: task.OrchestrationContext, count):
    return (yield task.when_all([context.call_sub_orchestrator(double, input=n) for n in range(count)]))


@program.orchestrator
def ask_child_for_parent(context: task.OrchestrationContext, _):
    return (yield context.call_sub_orchestrator(tell_parent))


@program.orchestrator
def descend(context: task.OrchestrationContext, depth):
    if depth == 0:
        return ["bottom"]
    below = yield context.call_sub_orchestrator(descend, input=depth - 1)
    return [depth, *below]


@program.orchestrator
def let_child_fail(context: task.OrchestrationContext, message):
    return (yield context.call_sub_orchestrator(fail_by_activity, input=message))


@program.orchestrator
def report_child_failure(context: task.OrchestrationContext, call):
    try:
        result = yield context.call_sub_orchestrator(
            call["name"], input=call.get("input"), instance_id=call.get("id")
        )
        return ["completed", result]
    except task.TaskFailedError as error:
        return [error.details.error_type, error.details.message]


@program.orchestrator
def start_and_leave(context: task.OrchestrationContext, child_id):
    context.call_sub_orchestrator(double, input=1, instance_id=child_id)
    return "left"
    yield


def test_a_child_runs_under_the_id_its_parent_chose(sdk: Sdk):
    """S-7.1, S-7.4."""
    child = unique("child")
    instance = sdk.start(call_double, child)
    assert sdk.output(instance) == 42
    assert sdk.state(child).get_output() == 42
    assert sdk.state(child).name == "double"


def test_a_child_without_a_chosen_id_runs_under_the_id_the_sdk_made(sdk: Sdk):
    """S-1.4 matrix: parent id and action id."""
    instance = sdk.start(call_double)
    assert sdk.output(instance) == 42
    assert sdk.state(f"{instance}:0001").get_output() == 42


def test_twenty_children_side_by_side_return_their_results_in_order(sdk: Sdk):
    """S-7.4, S-7.5."""
    assert sdk.run(call_many, 20) == [number * 2 for number in range(20)]


def test_a_child_knows_its_parent(sdk: Sdk):
    """S-7.1: id, name, task id and generation of the parent."""
    instance = sdk.start(ask_child_for_parent)
    assert sdk.output(instance) == instance
    started = sdk.events(f"{instance}:0001", "ExecutionStarted")[0]
    mine = sdk.events(instance, "ExecutionStarted")[0]
    assert started.parent_instance.name == "ask_child_for_parent"
    assert started.parent_instance.task_scheduled_id == 1
    assert started.parent_instance.orchestration_instance == mine.orchestration_instance


def test_children_nest_four_levels_deep(sdk: Sdk):
    """S-7.4."""
    assert sdk.run(descend, 4) == [4, 3, 2, 1, "bottom"]


def test_a_failed_child_fails_its_parent_with_the_details_nested(sdk: Sdk):
    """S-7.4, S-4.14."""
    instance = sdk.start(let_child_fail, "the cause")
    state = sdk.finish(instance)
    assert state.runtime_status == Status.FAILED
    failure, causes = state.failure_details, []
    while failure is not None:
        causes.append(failure)
        failure = failure.inner_failure
    assert causes[-1].is_caused_by(ValueError)
    assert causes[-1].message == "the cause"
    assert len(causes) == 3, "parent, child and activity each add a layer"


def test_a_parent_can_catch_the_failure_of_its_child(sdk: Sdk):
    """S-7.4."""
    error_type, message = sdk.run(report_child_failure, {"name": "fail_by_activity", "input": "caught"})
    assert error_type.endswith("TaskFailedError")
    assert "caught" in message


def test_a_child_id_in_use_by_an_active_instance_fails_the_call_and_spares_that_instance(sdk: Sdk):
    """S-7.6."""
    occupant = sdk.start(wait_for_release)
    sdk.until_running(occupant)
    error_type, _ = sdk.run(report_child_failure, {"name": "double", "input": 1, "id": occupant})
    assert error_type == "OrchestrationAlreadyExists"
    sdk.client.raise_orchestration_event(occupant, "release", data="undisturbed")
    assert sdk.output(occupant) == "undisturbed"


def test_a_child_id_of_a_finished_instance_is_used_again(sdk: Sdk):
    """S-7.6."""
    child = sdk.start(double, 1)
    assert sdk.output(child) == 2
    assert sdk.run(call_double, child) == 42
    assert sdk.state(child).get_output() == 42


def test_a_terminated_child_fails_the_call_with_its_name_and_reason(sdk: Sdk):
    """S-7.4, S-7.10."""
    child = unique("child")
    instance = sdk.start(report_child_failure, {"name": "wait_for_release", "id": child})
    sdk.until_running(child)
    sdk.client.terminate_orchestration(child, output="no longer needed")
    error_type, message = sdk.output(instance)
    assert error_type == "SubOrchestrationTerminated"
    assert child in message
    assert "no longer needed" in message


def test_an_id_too_long_for_a_child_fails_the_call(sdk: Sdk):
    """S-4.18, S-10.1."""
    result = sdk.run(report_child_failure, {"name": "double", "input": 1, "id": "x" * 101})
    assert result[0] != "completed"
    assert result[1], "the failure carries a message"


def test_a_child_started_in_the_last_episode_runs_although_nobody_waits(sdk: Sdk):
    """S-7.7, S-4.1."""
    child = unique("child")
    assert sdk.run(start_and_leave, child) == "left"
    assert sdk.output(child) == 2
