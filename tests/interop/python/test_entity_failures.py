"""Operations that fail, answers that are not what they should be, and ids and payloads beyond their limits."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from durabletask import task
from durabletask.entities import DurableEntity, EntityContext, EntityInstanceId
from durabletask.internal import orchestrator_service_pb2 as pb
from google.protobuf.wrappers_pb2 import StringValue

from sdk import Gates, Program, RawWorker, Sdk, Status, refused, unique

LIMIT = 1_048_576
"""Bytes of one payload, S-14.1; a JSON string is two quotes longer than its text."""

ID_LIMIT = 100
"""Characters of an id, S-12.1."""

program = Program()
gates = Gates()


@program.entity
class Account(DurableEntity):
    def deposit(self, amount):
        balance = self.get_state(int, 0) + amount
        self.set_state(balance)
        return balance

    def balance(self):
        return self.get_state(int, 0)

    def overdraw(self, amount):
        self.set_state(self.get_state(int, 0) - amount)
        raise ValueError(f"{amount} is more than there is")

    def fail_with_cause(self):
        try:
            raise OSError("disk on fire")
        except OSError as error:
            raise RuntimeError("cannot go on") from error

    def send_start_and_fail(self, order):
        self.deposit(1000)
        self.signal_entity(EntityInstanceId("account", order["key"]), "deposit", 1000)
        self.schedule_new_orchestration("return_input", 1, instance_id=order["instance"])
        raise ValueError("after all that")

    def hold(self):
        gates[self.entity_context.entity_id.key].pass_through()


@program.entity
def broken(context: EntityContext, message):
    context.set_state("never kept")
    raise LookupError(message)


@program.entity
class Text(DurableEntity):
    def fill(self, length):
        self.set_state("t" * length)
        return length

    def length(self):
        return len(self.get_state(str, ""))

    def fill_and_return(self, length):
        self.set_state("r")
        return "r" * length

    def fill_and_send(self, order):
        self.set_state("s")
        self.signal_entity(EntityInstanceId("text", order["key"]), "fill", "s" * order["length"])

    def fill_and_start(self, order):
        self.set_state("o")
        self.schedule_new_orchestration("return_input", "o" * order["length"], instance_id=order["instance"])

    def hold(self):
        gates[self.entity_context.entity_id.key].pass_through()


@program.orchestrator
def return_input(_, value):
    return value


@program.orchestrator
def call_each(context: task.OrchestrationContext, calls):
    """Sends all calls at once, and returns for each its result or its failure, outermost first."""
    sent = [context.call_entity(EntityInstanceId(*call[:2]), *call[2:]) for call in calls]
    outcomes = []
    for each in sent:
        try:
            outcomes.append((yield each))
        except task.TaskFailedError as error:
            outcomes.append(tell(error.details))
    return outcomes


@program.orchestrator
def call_one(context: task.OrchestrationContext, call):
    return (yield context.call_entity(EntityInstanceId(*call[:2]), *call[2:]))


@program.orchestrator
def send_a_large_input(context: task.OrchestrationContext, order):
    context.signal_entity(EntityInstanceId("text", order["key"]), "fill", "i" * order["length"])
    yield context.call_entity(EntityInstanceId("text", order["key"]), "length")


@program.orchestrator
def signal_an_illegal_id(context: task.OrchestrationContext, key):
    context.signal_entity(EntityInstanceId("account", key), "deposit", 1)
    return "signalled"
    yield


@program.orchestrator
def lock_an_illegal_id(context: task.OrchestrationContext, key):
    with (yield context.lock_entities([EntityInstanceId("account", key)])):
        return "locked"


def tell(details: task.FailureDetails) -> list[list[str]]:
    chain = []
    while details is not None:
        chain.append([details.error_type.rsplit(".", 1)[-1], details.message])
        details = details.inner_failure
    return chain


def entity(name: str) -> EntityInstanceId:
    return EntityInstanceId(name, unique("key"))


def calls(target: EntityInstanceId, *operations: Any) -> list[list[Any]]:
    """The input of `call_each`: an operation is a name, or a name with an input."""
    return [
        [target.entity, target.key, *(operation if isinstance(operation, tuple) else (operation,))]
        for operation in operations
    ]


def one_batch(sdk: Sdk, target: EntityInstanceId, *operations: Any) -> list[Any]:
    """The outcomes of calls that wait together until the entity is free, so that they make one batch."""
    sdk.client.signal_entity(target, "hold")
    gates[target.key].wait_until_reached()
    instance = sdk.start(call_each, calls(target, *operations))
    sdk.until_running(instance)
    gates[target.key].open()
    return sdk.output(instance)


def test_the_type_and_message_of_a_failure_reach_the_caller(sdk: Sdk):
    """S-12.15, S-7.10: the server passes the details on as they are."""
    account = entity("account")
    instance = sdk.run_and_keep(call_each, calls(account, ("overdraw", 5), "fail_with_cause"))
    first, second = sdk.state(instance).get_output()
    assert first[0][0] == "EntityOperationFailedException"
    assert first[1:] == [["ValueError", "5 is more than there is"]]
    assert second[1][0] == "RuntimeError"
    overdrawn, caused = (event.failure_details for event in sdk.events(instance, "EntityOperationFailed"))
    assert (overdrawn.error_type, overdrawn.message) == ("builtins.ValueError", "5 is more than there is")
    assert "overdraw" in overdrawn.stack_trace
    assert caused.inner_failure.error_type == "builtins.OSError"
    assert caused.inner_failure.message == "disk on fire"
    called = {event.request_id for event in sdk.events(instance, "EntityOperationCalled")}
    assert {event.request_id for event in sdk.events(instance, "EntityOperationFailed")} == called


def test_a_failure_that_nobody_catches_fails_the_orchestration(sdk: Sdk):
    """S-12.15, S-4.14."""
    account = entity("account")
    state = sdk.finish(sdk.start(call_one, ["account", account.key, "overdraw", 5]))
    assert state.runtime_status == Status.FAILED
    assert "5 is more than there is" in state.failure_details.message


def test_a_failed_operation_leaves_no_trace(sdk: Sdk):
    """S-12.17, S-12.43: in state, signals and started orchestrations; and the entity goes on."""
    account, other, instance = entity("account"), entity("account"), unique()
    order = {"key": other.key, "instance": instance}
    outcomes = sdk.run(
        call_each, calls(account, ("deposit", 5), ("send_start_and_fail", order), "balance", ("deposit", 2))
    )
    assert outcomes[1][1] == ["ValueError", "after all that"]
    assert [outcomes[0], outcomes[2], outcomes[3]] == [5, 5, 7]
    assert sdk.entity_state(account) == 7
    assert sdk.client.get_entity(other) is None
    assert sdk.client.get_orchestration_state(instance) is None


def test_a_failure_in_the_middle_of_a_batch_spares_its_neighbours(sdk: Sdk):
    """S-12.43, S-12.13: each outcome goes to its own call."""
    account = entity("account")
    outcomes = one_batch(sdk, account, ("deposit", 9), ("overdraw", 3), "balance", ("deposit", 1))
    assert [outcomes[0], outcomes[2], outcomes[3]] == [9, 9, 10]
    assert outcomes[1][1] == ["ValueError", "3 is more than there is"]
    assert sdk.entity_state(account) == 10


def test_a_failed_signal_is_dropped_and_the_entity_goes_on(sdk: Sdk):
    """S-12.15."""
    account = entity("account")
    for operation, amount in [("deposit", 5), ("overdraw", 3), ("no_such_operation", 1), ("deposit", 1)]:
        sdk.client.signal_entity(account, operation, amount)
    sdk.until_entity_state(account, 6)
    assert sdk.entity(account).backlog_queue_size == 0


def test_an_entity_whose_first_operation_fails_does_not_exist(sdk: Sdk):
    """S-12.7, S-12.17: a function this time."""
    target = entity("broken")
    (outcome,) = sdk.run(call_each, [["broken", target.key, "any", "nothing works"]])
    assert outcome[1] == ["LookupError", "nothing works"]
    assert sdk.client.get_entity(target) is None


def test_a_call_of_an_entity_or_operation_that_the_worker_lacks_fails(sdk: Sdk):
    """S-12.12."""
    outcomes = sdk.run(
        call_each, [["nowhere_registered", unique("key"), "any"], ["account", unique("key"), "no_such_operation"]]
    )
    assert outcomes[0][1][0] == "EntityNotRegisteredError"
    assert "nowhere_registered" in outcomes[0][1][1]
    assert outcomes[1][1][0] == "AttributeError"
    assert "no_such_operation" in outcomes[1][1][1]


def key_for(name: str, length: int) -> str:
    """A key that makes an id of `length` characters with the name."""
    key = unique("k")
    return key + "x" * (length - len(f"@{name}@{key}"))


def test_an_id_of_a_hundred_characters_is_accepted_and_a_longer_one_refused(sdk: Sdk):
    """S-12.1: the message names the limit."""
    longest = EntityInstanceId("account", key_for("account", ID_LIMIT))
    assert len(str(longest)) == ID_LIMIT
    sdk.client.signal_entity(longest, "deposit", 1)
    sdk.until_entity_state(longest, 1)
    too_long = EntityInstanceId("account", longest.key + "x")
    with refused(grpc.StatusCode.INVALID_ARGUMENT, str(ID_LIMIT)):
        sdk.client.signal_entity(too_long, "deposit", 1)
    with refused(grpc.StatusCode.INVALID_ARGUMENT, str(ID_LIMIT)):
        sdk.client.get_entity(too_long)


@pytest.mark.parametrize("malformed", ["", "account", "account@key", "@account", "@@key", "@"], ids=repr)
def test_a_malformed_id_is_refused(managed: Sdk, malformed: str):
    """S-12.1."""
    with managed.stub() as (stub, metadata):
        with refused(grpc.StatusCode.INVALID_ARGUMENT):
            request = pb.SignalEntityRequest(instanceId=malformed, name="deposit", requestId=unique())
            stub.SignalEntity(request, metadata=metadata)
        with refused(grpc.StatusCode.INVALID_ARGUMENT):
            stub.GetEntity(pb.GetEntityRequest(instanceId=malformed), metadata=metadata)


def test_a_call_of_an_id_that_is_too_long_fails(sdk: Sdk):
    """S-4.18: it never blocks the orchestration."""
    key = key_for("account", ID_LIMIT + 1)
    instance = sdk.run_and_keep(call_each, [["account", key, "deposit", 1]])
    ((_, (error_type, message)),) = sdk.state(instance).get_output()
    assert error_type == "InvalidArgument"
    assert str(ID_LIMIT) in message
    assert sdk.kinds(instance).count("EntityOperationCalled") == 1


def test_a_signal_to_an_id_that_is_too_long_is_dropped(sdk: Sdk):
    """S-4.18."""
    instance = sdk.run_and_keep(signal_an_illegal_id, key_for("account", ID_LIMIT + 1))
    assert sdk.state(instance).get_output() == "signalled"
    assert sdk.kinds(instance).count("EntityOperationSignaled") == 1


def test_a_lock_request_with_an_id_that_is_too_long_fails_the_orchestration(sdk: Sdk):
    """S-4.18."""
    state = sdk.finish(sdk.start(lock_an_illegal_id, key_for("account", ID_LIMIT + 1)))
    assert state.runtime_status == Status.FAILED
    assert state.failure_details.error_type == "InvalidArgument"


def test_a_state_of_exactly_the_limit_is_kept(sdk: Sdk):
    """S-14.2."""
    text = entity("text")
    assert sdk.run(call_one, ["text", text.key, "fill", LIMIT - 2]) == LIMIT - 2
    assert sdk.entity(text).get_state() == '"' + "t" * (LIMIT - 2) + '"'
    assert sdk.run(call_one, ["text", text.key, "length"]) == LIMIT - 2


@pytest.mark.parametrize("surplus", [1, 2 * LIMIT], ids=["by one byte", "three times"])
def test_an_operation_whose_state_is_too_large_fails(sdk: Sdk, surplus: int):
    """S-14.4: with limit and size named, and the state stays; the entity goes on.

    One call after the other, as the state within a batch is the worker's own business.
    """
    text = entity("text")
    assert sdk.run(call_each, calls(text, ("fill", 3))) == [3]
    (outcome,) = sdk.run(call_each, calls(text, ("fill", LIMIT - 2 + surplus)))
    assert_too_large(outcome, LIMIT + surplus)
    assert sdk.entity_state(text) == "ttt"
    assert sdk.run(call_each, calls(text, "length", ("fill", 4))) == [3, 4]
    assert sdk.entity_state(text) == "tttt"


def assert_too_large(outcome: list[list[str]], size: int) -> None:
    _, (error_type, message) = outcome
    assert error_type == "PayloadTooLarge"
    assert str(LIMIT) in message
    assert str(size) in message


def test_only_the_operation_that_is_too_large_fails_in_its_batch(sdk: Sdk):
    """S-14.4: the batch is sent again one operation at a time."""
    text = entity("text")
    outcomes = one_batch(sdk, text, ("fill", 2), ("fill", LIMIT), "length", ("fill", 5), ("fill", LIMIT), "length")
    assert [outcomes[n] for n in (0, 2, 3, 5)] == [2, 2, 5, 5]
    assert_too_large(outcomes[1], LIMIT + 2)
    assert_too_large(outcomes[4], LIMIT + 2)
    assert sdk.entity_state(text) == "ttttt"


def test_an_operation_whose_result_or_action_is_too_large_fails(sdk: Sdk):
    """S-14.4: without state change or actions."""
    text, other, instance = entity("text"), entity("text"), unique()
    outcomes = sdk.run(
        call_each,
        calls(
            text,
            ("fill", 1),
            ("fill_and_return", LIMIT),
            ("fill_and_send", {"key": other.key, "length": LIMIT}),
            ("fill_and_start", {"instance": instance, "length": LIMIT}),
            "length",
        ),
    )
    for outcome in outcomes[1:4]:
        assert_too_large(outcome, LIMIT + 2)
    assert (outcomes[0], outcomes[4]) == (1, 1)
    assert sdk.entity_state(text) == "t"
    assert sdk.client.get_entity(other) is None
    assert sdk.client.get_orchestration_state(instance) is None


def test_a_signal_whose_input_is_too_large_is_refused(sdk: Sdk):
    """S-14.3: the message names limit and size."""
    text = entity("text")
    with refused(grpc.StatusCode.INVALID_ARGUMENT, str(LIMIT), str(LIMIT + 1)):
        sdk.client.signal_entity(text, "fill", "i" * (LIMIT - 1))
    assert sdk.client.get_entity(text) is None
    sdk.client.signal_entity(text, "fill", 2)
    sdk.until_entity_state(text, "tt")


def test_an_orchestration_that_sends_an_input_that_is_too_large_fails(sdk: Sdk):
    """S-14.4."""
    text = entity("text")
    state = sdk.finish(sdk.start(send_a_large_input, {"key": text.key, "length": LIMIT}))
    assert state.runtime_status == Status.FAILED
    assert state.failure_details.error_type == "PayloadTooLarge"
    assert sdk.client.get_entity(text) is None


@pytest.fixture(scope="module")
def raw(managed: Sdk) -> Iterator[Sdk]:
    """A hub without a worker of the SDK."""
    with managed.in_hub("raw") as hub:
        yield hub


SUCCESS = pb.OperationResult(success=pb.OperationResultSuccess())


def test_operations_without_a_result_are_sent_again_with_the_new_state(raw: Sdk):
    """S-12.14, S-12.49."""
    counter = entity("counter")
    for number in range(5):
        raw.client.signal_entity(counter, "add", number)
    with RawWorker(raw) as worker:
        batch, token = worker.entity_item()
        assert len(batch.operationRequests) == 5
        worker.complete_entity(token, results=[SUCCESS] * 2, entityState=StringValue(value="1"))
        rest, token = worker.entity_item()
        assert rest.operationRequests == batch.operationRequests[2:]
        assert rest.entityState.value == "1"
        assert raw.entity(counter).backlog_queue_size == 3
        # One result too many is ignored.
        worker.complete_entity(token, results=[SUCCESS] * 4, entityState=StringValue(value="10"))
    raw.until_entity_state(counter, 10)
    assert raw.entity(counter).backlog_queue_size == 0


def test_an_abandoned_batch_or_one_that_failed_as_a_whole_is_sent_again(raw: Sdk):
    """S-12.16, S-12.20, S-13.18: nothing is consumed, and the state stays as it was."""
    counter = entity("counter")
    raw.client.signal_entity(counter, "add", 1)
    with RawWorker(raw) as worker:
        first, token = worker.entity_item()
        worker.abandon_entity(token)
        second, second_token = worker.entity_item()
        assert second == first
        assert second_token != token
        failure = pb.TaskFailureDetails(errorType="Framework", errorMessage="no such entity here")
        worker.complete_entity(second_token, failureDetails=failure, entityState=StringValue(value="7"))
        third, third_token = worker.entity_item()
        assert third == first
        # The tokens of earlier deliveries are worth nothing, and no error: S-4.4.
        worker.complete_entity(token, results=[SUCCESS], entityState=StringValue(value="8"))
        worker.complete_entity(third_token, results=[SUCCESS], entityState=StringValue(value="9"))
        worker.complete_entity(third_token, results=[SUCCESS], entityState=StringValue(value="10"))
    raw.until_entity_state(counter, 9)
