"""Terminate: the instance itself, its children, and what must be left alone."""

from durabletask import task

from sdk import Gates, Program, Sdk, Status, kind, unique

program = Program()
gates = Gates()


@program.activity
def wait_at_gate(_, key):
    gates[key].pass_through()
    return "late"


@program.activity
def echo(_, value):
    return value


@program.orchestrator
def wait_for_release(context: task.OrchestrationContext, _):
    return (yield context.wait_for_external_event("release"))


@program.orchestrator
def call_echo(context: task.OrchestrationContext, value):
    return (yield context.call_activity(echo, input=value))


@program.orchestrator
def wait_for_activity(context: task.OrchestrationContext, _):
    return (yield context.call_activity(wait_at_gate, input=context.instance_id))


@program.orchestrator
def tree(context: task.OrchestrationContext, depth):
    if depth == 0:
        return (yield context.wait_for_external_event("release"))
    children = [
        context.call_sub_orchestrator(tree, input=depth - 1, instance_id=f"{context.instance_id}.{n}")
        for n in range(2)
    ]
    return (yield task.when_all(children))


@program.orchestrator
def tree_with_a_finished_middle(context: task.OrchestrationContext, _):
    yield context.call_sub_orchestrator(leave_a_child, instance_id=f"{context.instance_id}.middle")
    return (yield context.wait_for_external_event("release"))


@program.orchestrator
def leave_a_child(context: task.OrchestrationContext, _):
    context.call_sub_orchestrator(wait_for_release, instance_id=f"{context.instance_id}.leaf")
    return "left"
    yield


def family(root: str) -> tuple[list[str], list[str]]:
    """The inner children and the leaves of a `tree` of depth 2."""
    inner = [f"{root}.{n}" for n in range(2)]
    return inner, [f"{each}.{n}" for each in inner for n in range(2)]


def test_a_running_instance_ends_with_the_given_output(sdk: Sdk):
    """S-9.7."""
    instance = sdk.start(wait_for_release)
    sdk.until_running(instance)
    sdk.client.terminate_orchestration(instance, output={"why": "schluß"})
    state = sdk.state(instance)
    assert state.runtime_status == Status.TERMINATED
    assert state.get_output() == {"why": "schluß"}
    assert state.failure_details is None


def test_the_history_ends_with_the_termination(sdk: Sdk):
    """S-9.7, S-3.14."""
    instance = sdk.start(wait_for_release)
    sdk.until_running(instance)
    sdk.client.terminate_orchestration(instance, output="enough")
    *_, clock, terminated, completed = sdk.history(instance)
    assert [kind(event) for event in (clock, terminated, completed)] == [
        "OrchestratorStarted",
        "ExecutionTerminated",
        "ExecutionCompleted",
    ]
    assert terminated.input == '"enough"'
    assert completed.result == '"enough"'
    assert completed.orchestration_status == Status.TERMINATED.value


def test_a_waiting_client_is_told_of_the_termination(sdk: Sdk):
    """S-9.7."""
    instance = sdk.start(wait_for_release)
    sdk.until_running(instance)
    other = sdk.new_client()
    other.terminate_orchestration(instance)
    assert sdk.finish(instance).runtime_status == Status.TERMINATED


def test_an_instance_that_never_ran_is_terminated_without_a_worker(sdk: Sdk):
    """S-9.7, S-9.1."""
    with sdk.in_hub("idle") as idle:
        instance = idle.start("nobody_runs_this")
        idle.client.terminate_orchestration(instance, output="never ran")
        assert idle.finish(instance).get_output() == "never ran"
        assert [each for each in idle.kinds(instance) if each != "OrchestratorStarted"] == [
            "ExecutionStarted",
            "ExecutionTerminated",
            "ExecutionCompleted",
        ]


def test_a_suspended_instance_can_be_terminated(sdk: Sdk):
    """S-9.10."""
    instance = sdk.start(wait_for_release)
    sdk.until_running(instance)
    sdk.client.suspend_orchestration(instance)
    sdk.client.terminate_orchestration(instance)
    assert sdk.finish(instance).runtime_status == Status.TERMINATED


def test_recursive_termination_reaches_children_and_grandchildren(sdk: Sdk):
    """S-9.8: the call answers once every descendant is terminated."""
    root = sdk.start(tree, 2)
    inner, leaves = family(root)
    for leaf in leaves:
        sdk.until_running(leaf)
    sdk.client.terminate_orchestration(root, output="all of you", recursive=True)
    for instance in [root, *inner, *leaves]:
        state = sdk.state(instance)
        assert state.runtime_status == Status.TERMINATED, instance
        assert state.get_output() == "all of you"


def test_recursive_termination_passes_through_a_finished_child(sdk: Sdk):
    """S-9.8."""
    root = sdk.start(tree_with_a_finished_middle)
    leaf = f"{root}.middle.leaf"
    sdk.until_running(leaf)
    sdk.output(f"{root}.middle")
    sdk.client.terminate_orchestration(root, recursive=True)
    assert sdk.status(leaf) == Status.TERMINATED
    assert sdk.status(f"{root}.middle") == Status.COMPLETED


def test_termination_that_is_not_recursive_leaves_the_children_running(sdk: Sdk):
    """S-9.8, S-7.8."""
    root = sdk.start(tree, 1)
    children = [f"{root}.{n}" for n in range(2)]
    for child in children:
        sdk.until_running(child)
    sdk.client.terminate_orchestration(root, recursive=False)
    assert sdk.finish(root).runtime_status == Status.TERMINATED
    for child in children:
        assert sdk.status(child) == Status.RUNNING
        sdk.client.raise_orchestration_event(child, "release", data="free")
        assert sdk.output(child) == "free"
    assert sdk.kinds(root)[-1] == "ExecutionCompleted"


def test_the_result_of_an_activity_that_outlives_its_orchestration_is_dropped(sdk: Sdk):
    """S-5.7, S-2.10."""
    instance = sdk.start(wait_for_activity)
    gates[instance].wait_until_reached()
    sdk.client.terminate_orchestration(instance)
    before, history = sdk.state(instance), sdk.history(instance)
    gates[instance].open()
    # A whole other orchestration fits in here, so the result has had its chance.
    assert sdk.run(call_echo, 1) == 1
    assert sdk.state(instance) == before
    assert sdk.history(instance) == history


def test_terminating_a_missing_or_finished_instance_is_no_error(sdk: Sdk):
    """S-9.9."""
    missing = unique("nobody")
    sdk.client.terminate_orchestration(missing)
    assert sdk.client.get_orchestration_state(missing) is None
    instance = sdk.start(call_echo, "value")
    before = sdk.finish(instance)
    sdk.client.terminate_orchestration(instance, output="too late")
    assert sdk.state(instance) == before
