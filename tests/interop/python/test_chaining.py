"""Activities one after another and side by side."""

from durabletask import task

from sdk import Program, Sdk, Status

program = Program()


@program.activity
def add_one(_, number):
    return number + 1


@program.activity
def echo(_, value):
    return value


@program.activity
def say_nothing(_, __):
    return None


@program.orchestrator
def chain(context: task.OrchestrationContext, length):
    value = 0
    for _ in range(length):
        value = yield context.call_activity(add_one, input=value)
    return value


@program.orchestrator
def fan_out(context: task.OrchestrationContext, width):
    return (yield task.when_all([context.call_activity(echo, input=n) for n in range(width)]))


@program.orchestrator
def return_at_once(_, value):
    return value


@program.orchestrator
def call_without_input(context: task.OrchestrationContext, _):
    return [(yield context.call_activity(say_nothing))]


@program.orchestrator
def leave_work_behind(context: task.OrchestrationContext, _):
    context.call_activity(echo, input="left behind")
    yield context.call_activity(echo, input="awaited")
    return "done"


def test_each_activity_receives_the_result_of_the_one_before(sdk: Sdk):
    """S-3.33, S-5.3."""
    assert sdk.run(chain, 5) == 5


def test_a_chain_of_forty_activities_finishes(managed: Sdk):
    """S-3.1: the whole committed history goes with each episode."""
    assert managed.run(chain, 40) == 40


def test_a_fan_out_of_one_hundred_keeps_the_order_of_its_results(sdk: Sdk):
    """S-5.3, S-3.9: results find their task by its id."""
    assert sdk.run(fan_out, 100) == list(range(100))


def test_a_fan_out_of_one_thousand_keeps_the_order_of_its_results(managed: Sdk):
    """S-3.2, S-5.3; also S-13.6: the worker's limits are below one thousand."""
    instance = managed.start(fan_out, 1_000)
    assert managed.output(instance, timeout=60) == list(range(1_000))
    kinds = managed.kinds(instance)
    assert kinds.count("TaskScheduled") == kinds.count("TaskCompleted") == 1_000


def test_an_orchestrator_that_waits_for_nothing_completes_in_its_first_episode(sdk: Sdk):
    """S-2.3: the first episode may carry the terminal action."""
    instance = sdk.start(return_at_once, {"answer": 42})
    assert sdk.output(instance) == {"answer": 42}
    assert sdk.kinds(instance) == ["OrchestratorStarted", "ExecutionStarted", "ExecutionCompleted"]


def test_absent_inputs_and_outputs_stay_absent(sdk: Sdk):
    """S-11.3, S-0.5."""
    instance = sdk.start(return_at_once)
    state = sdk.finish(instance)
    assert (state.serialized_input, state.serialized_output) == (None, None)
    assert sdk.run(call_without_input) == [None]


def test_an_activity_that_nobody_awaits_does_not_hold_up_the_end(sdk: Sdk):
    """S-4.1, S-5.7."""
    instance = sdk.start(leave_work_behind)
    assert sdk.output(instance) == "done"
    assert len(sdk.events(instance, "TaskScheduled")) == 2
    assert sdk.status(instance) == Status.COMPLETED


def test_the_state_of_a_finished_instance_tells_its_whole_story(sdk: Sdk):
    """S-2.8, S-11.3."""
    instance = sdk.start(chain, 2)
    state = sdk.finish(instance)
    assert state.instance_id == instance
    assert state.name == "chain"
    assert state.get_input() == 2
    assert state.created_at <= state.last_updated_at
    assert state.failure_details is None
