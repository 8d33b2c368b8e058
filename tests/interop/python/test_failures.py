"""Failures and their details, from the activity to the client."""

from datetime import timedelta

from durabletask import task

from sdk import Program, Sdk, Status

program = Program()


class OutOfStock(Exception):
    def __init__(self, article: str, missing: int):
        super().__init__(f"{missing} of {article} are missing")
        self.article = article
        self.missing = missing


class StockProperties:
    """Gives the fields of an OutOfStock to its failure details."""

    def get_exception_properties(self, exception: Exception):
        if isinstance(exception, OutOfStock):
            return {"article": exception.article, "missing": exception.missing, "shelves": ["A", None]}
        return None


@program.activity
def fail_plainly(_, message):
    raise KeyError(message)


@program.activity
def fail_with_causes(_, __):
    try:
        try:
            raise OSError("disk on fire")
        except OSError as error:
            raise ValueError("cannot read") from error
    except ValueError as error:
        raise RuntimeError("cannot go on") from error


@program.activity
def run_out_of_stock(_, article):
    raise OutOfStock(article, 3)


@program.orchestrator
def call_by_name(context: task.OrchestrationContext, call):
    return (yield context.call_activity(call[0], input=call[1]))


@program.orchestrator
def catch_and_tell(context: task.OrchestrationContext, call):
    try:
        yield context.call_activity(call[0], input=call[1])
    except task.TaskFailedError as error:
        return tell(error.details)
    return "no failure"


@program.orchestrator
def catch_and_compensate(context: task.OrchestrationContext, _):
    try:
        yield context.call_activity(fail_plainly, input="first try")
    except task.TaskFailedError:
        yield context.create_timer(timedelta())
        return "compensated"


@program.orchestrator
def fail_at_once(_, message):
    raise ZeroDivisionError(message)


@program.orchestrator
def fail_one_of_five(context: task.OrchestrationContext, _):
    good = [context.call_sub_orchestrator(return_input, input=n) for n in range(4)]
    bad = context.call_activity(fail_plainly, input="the fifth")
    yield task.when_all([*good, bad])


@program.orchestrator
def return_input(_, value):
    return value


@program.orchestrator
def call_child_that_runs_out(context: task.OrchestrationContext, article):
    try:
        yield context.call_sub_orchestrator(call_by_name, input=["run_out_of_stock", article])
    except task.TaskFailedError as error:
        return tell(error.details)


def tell(details: task.FailureDetails) -> list:
    """The chain of a failure, outermost first, as JSON can carry it."""
    chain = []
    while details is not None:
        chain.append([details.error_type.rsplit(".", 1)[-1], details.message, details.properties])
        details = details.inner_failure
    return chain


def test_the_type_message_and_stack_of_an_activitys_failure_reach_the_client(sdk: Sdk):
    """S-5.3, S-4.14."""
    state = sdk.finish(sdk.start(call_by_name, ["fail_plainly", "no such key"]))
    assert state.runtime_status == Status.FAILED
    assert state.serialized_output is None
    cause = state.failure_details.inner_failure
    assert cause.is_caused_by(KeyError)
    assert "no such key" in cause.message
    assert "fail_plainly" in cause.stack_trace


def test_causes_of_causes_reach_the_orchestrator_and_the_client(sdk: Sdk):
    """S-5.3, S-4.14: nested details are handed on verbatim."""
    chain = [
        ["RuntimeError", "cannot go on", None],
        ["ValueError", "cannot read", None],
        ["OSError", "disk on fire", None],
    ]
    assert sdk.run(catch_and_tell, ["fail_with_causes", None]) == chain
    state = sdk.finish(sdk.start(call_by_name, ["fail_with_causes", None]))
    assert tell(state.failure_details.inner_failure) == chain


def test_an_orchestrator_that_catches_a_failure_goes_on(sdk: Sdk):
    """S-5.3."""
    assert sdk.run(catch_and_compensate) == "compensated"


def test_an_orchestrator_that_raises_fails_with_its_own_details(sdk: Sdk):
    """S-4.14."""
    instance = sdk.start(fail_at_once, "by zero")
    state = sdk.finish(instance)
    assert state.runtime_status == Status.FAILED
    assert state.failure_details.is_caused_by(ZeroDivisionError)
    assert state.failure_details.message == "by zero"
    completed = sdk.events(instance, "ExecutionCompleted")[0]
    assert completed.failure_details == state.failure_details
    assert completed.orchestration_status == Status.FAILED.value


def test_one_failure_among_five_fails_the_orchestration_after_all_of_them(sdk: Sdk):
    """S-5.3, S-7.4."""
    instance = sdk.start(fail_one_of_five)
    state = sdk.finish(instance)
    assert state.runtime_status == Status.FAILED
    assert "the fifth" in state.failure_details.message
    assert len(sdk.events(instance, "SubOrchestrationInstanceCompleted")) == 4


def test_custom_properties_of_a_failure_reach_orchestrator_parent_and_client(sdk: Sdk):
    """S-5.3, S-7.4, S-4.14."""
    properties = {"article": "bolts", "missing": 3, "shelves": ["A", None]}
    failure = ["OutOfStock", "3 of bolts are missing", properties]
    with (
        sdk.in_hub("second") as hub,
        hub.worker(program, exception_properties_provider=StockProperties()),
    ):
        assert hub.run(catch_and_tell, ["run_out_of_stock", "bolts"]) == [failure]
        assert hub.run(call_child_that_runs_out, "bolts")[-1] == failure
        state = hub.finish(hub.start(call_by_name, ["run_out_of_stock", "bolts"]))
        assert tell(state.failure_details)[-1] == failure


def test_an_activity_that_is_not_registered_fails(sdk: Sdk):
    """S-5.9."""
    chain = sdk.run(catch_and_tell, ["no_such_activity", None])
    assert chain[0][0] == "ActivityNotRegisteredError"


def test_an_orchestrator_that_is_not_registered_fails(sdk: Sdk):
    """S-2.3, S-4.14."""
    state = sdk.finish(sdk.start("no_such_orchestrator"))
    assert state.runtime_status == Status.FAILED
    assert "no_such_orchestrator" in state.failure_details.message
