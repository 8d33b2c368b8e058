"""Entities: state kept between operations, called and signalled, by clients, orchestrations and each other."""

import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from durabletask import task
from durabletask.entities import DurableEntity, EntityContext, EntityInstanceId
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.serialization import DataConverter
from google.protobuf.wrappers_pb2 import StringValue

from sdk import Gates, Program, RawWorker, Sdk, Status, eventually, unique

PUNCTUAL = 2.0
"""Seconds by which something due may be late on a busy machine."""

program = Program()
gates = Gates()


@program.entity
class Counter(DurableEntity):
    def add(self, amount):
        total = self.get_state(int, 0) + amount
        self.set_state(total)
        return total

    def get(self):
        return self.get_state(int, 0)

    def set(self, value):
        self.set_state(value)

    def forget(self):
        self.set_state(None)

    def hold(self):
        gates[self.entity_context.entity_id.key].pass_through()

    def add_elsewhere(self, order):
        """Adds here, and then each of the amounts to the other one."""
        for amount in order["amounts"]:
            self.signal_entity(EntityInstanceId("counter", order["key"]), "add", amount)
        return self.add(1)

    def count_down(self, number):
        self.add(1)
        if number > 1:
            self.signal_entity(self.entity_context.entity_id, "count_down", number - 1)

    def launch(self, order):
        self.add(1)
        return self.schedule_new_orchestration(order["name"], order["input"], instance_id=order.get("id"))


@program.entity
def tally(context: EntityContext, amount):
    """A function with the operations that `Counter` has as methods."""
    total = context.get_state(int, 0)
    match context.operation:
        case "add":
            context.set_state(total + amount)
            return total + amount
        case "get":
            return total
        case "forget":
            context.set_state(None)
    return None


@program.entity
class Journal(DurableEntity):
    def note(self, text):
        self.set_state([*self.get_state(list, []), text])

    def note_time(self, text):
        """Notes when it ran, in seconds since 1970."""
        self.note([text, time.time()])

    def remind(self, order):
        self.note("asked")
        self.signal_entity(
            self.entity_context.entity_id, "note_time", order["text"], datetime.fromisoformat(order["at"])
        )

    def read(self):
        return self.get_state(list, [])


BOTH = pytest.mark.parametrize("name", ["counter", "tally"])
"""The class and the function."""


@program.orchestrator
def call_once(context: task.OrchestrationContext, call):
    return (yield context.call_entity(EntityInstanceId(call[0], call[1]), call[2], call[3]))


@program.orchestrator
def signal_then_call(context: task.OrchestrationContext, key):
    journal = EntityInstanceId("journal", key)
    for number in range(10):
        context.signal_entity(journal, "note", number)
    yield context.create_timer(timedelta())
    for number in range(10, 20):
        context.signal_entity(journal, "note", number)
    return (yield context.call_entity(journal, "read"))


@program.orchestrator
def signal_later(context: task.OrchestrationContext, order):
    due = context.current_utc_datetime + timedelta(milliseconds=order["milliseconds"])
    context.signal_entity(EntityInstanceId("journal", order["key"]), "note_time", "later", signal_time=due)
    context.signal_entity(EntityInstanceId("journal", order["key"]), "note", "at once")
    yield context.create_timer(timedelta())
    return due.replace(tzinfo=timezone.utc).timestamp()


@program.orchestrator
def call_with_a_name_in_mixed_case(context: task.OrchestrationContext, key):
    entity = EntityInstanceId("counter", key)
    entity.entity = "CoUnTeR"
    context.signal_entity(entity, "add", 2)
    return (yield context.call_entity(entity, "add", 3))


@program.orchestrator
def add_many_times(context: task.OrchestrationContext, order):
    counter = EntityInstanceId("counter", order["key"])
    return (yield task.when_all([context.call_entity(counter, "add", 1) for _ in range(order["times"])]))


@program.orchestrator
def wait_for_release(context: task.OrchestrationContext, name):
    return [name, (yield context.wait_for_external_event("release"))]


@program.orchestrator
def return_input(_, value):
    return value


def entity(name: str) -> EntityInstanceId:
    """One that no other test uses."""
    return EntityInstanceId(name, unique("key"))


def now() -> datetime:
    return datetime.now(timezone.utc)


def noted(sdk: Sdk, journal: EntityInstanceId, count: int) -> list[Any]:
    """The notes of a journal, once there are `count`."""

    def enough() -> list[Any] | None:
        notes = sdk.entity_state(journal)
        return notes if notes is not None and len(notes) >= count else None

    return eventually(enough, f"{count} notes in {journal}")


@BOTH
def test_a_signal_of_a_client_creates_the_entity_and_is_applied(sdk: Sdk, name: str):
    """S-12.41, S-12.7, S-12.38."""
    counter = entity(name)
    assert sdk.client.get_entity(counter) is None
    before = now()
    sdk.client.signal_entity(counter, "add", 5)
    sdk.until_entity_state(counter, 5)
    found = sdk.entity(counter)
    assert found.id == counter
    assert found.backlog_queue_size == 0
    assert sdk.locked_by(counter) is None
    assert before <= found.last_modified <= now()


@BOTH
def test_a_call_of_an_orchestration_returns_what_the_operation_returns(sdk: Sdk, name: str):
    """S-12.42, S-4.11, S-12.15: one confirmation and one response in the history."""
    counter = entity(name)
    instance = sdk.run_and_keep(call_once, [name, counter.key, "add", 5])
    assert sdk.state(instance).get_output() == 5
    assert sdk.kinds(instance) == [
        "OrchestratorStarted",
        "ExecutionStarted",
        "EntityOperationCalled",
        "OrchestratorStarted",
        "EntityOperationCompleted",
        "ExecutionCompleted",
    ]
    (called,) = sdk.events(instance, "EntityOperationCalled")
    (completed,) = sdk.events(instance, "EntityOperationCompleted")
    assert (called.event_id, called.target_instance_id, called.operation, called.input) == (
        1,
        str(counter),
        "add",
        "5",
    )
    assert called.scheduled_time is None
    assert (completed.event_id, completed.request_id, completed.output) == (-1, called.request_id, "5")
    assert sdk.run(call_once, [name, counter.key, "get", None]) == 5


def test_an_operation_that_returns_nothing_completes_its_call(sdk: Sdk):
    """S-12.15."""
    counter = entity("counter")
    assert sdk.run(call_once, ["counter", counter.key, "set", 8]) is None
    assert sdk.entity_state(counter) == 8


def test_signals_of_one_client_are_applied_in_order(sdk: Sdk):
    """S-12.10, S-12.23."""
    journal = entity("journal")
    for number in range(60):
        sdk.client.signal_entity(journal, "note", number)
    sdk.until_entity_state(journal, list(range(60)))


def test_signals_and_a_call_of_one_orchestration_arrive_in_order(sdk: Sdk):
    """S-12.22, S-12.23: across episodes too."""
    key = unique("key")
    instance = sdk.run_and_keep(signal_then_call, key)
    assert sdk.state(instance).get_output() == list(range(20))
    signaled = sdk.events(instance, "EntityOperationSignaled")
    assert [event.input for event in signaled] == [str(number) for number in range(20)]
    assert {event.target_instance_id for event in signaled} == {f"@journal@{key}"}
    assert {event.scheduled_time for event in signaled} == {None}


def test_calls_of_many_orchestrations_are_applied_one_after_the_other(sdk: Sdk):
    """S-0.1, S-12.15: each response is a total that no other call saw."""
    key = unique("key")
    instances = [sdk.start(add_many_times, {"key": key, "times": 5}) for _ in range(12)]
    totals = [total for each in instances for total in sdk.output(each)]
    assert sorted(totals) == list(range(1, 61))
    assert sdk.entity_state(EntityInstanceId("counter", key)) == 60


def test_the_history_of_a_hundred_calls_at_once_has_one_response_each(managed: Sdk):
    """S-12.15, S-12.10: they fill more than one batch."""
    instance = managed.run_and_keep(add_many_times, {"key": unique("key"), "times": 150})
    assert managed.state(instance).get_output() == list(range(1, 151))
    called = [event.request_id for event in managed.events(instance, "EntityOperationCalled")]
    completed = [event.request_id for event in managed.events(instance, "EntityOperationCompleted")]
    assert len(set(called)) == 150
    assert completed == called


def test_a_client_that_asks_right_after_its_signal_sees_the_effect(sdk: Sdk):
    """S-12.38: or else it has been kept waiting for as long as that rule says."""
    counter = entity("counter")
    for number in range(1, 21):
        sdk.client.signal_entity(counter, "add", 1)
        began = time.monotonic()
        state = sdk.entity_state(counter)
        waited = time.monotonic() - began
        if state != number:
            assert waited >= 0.19, f"the answer came after {waited} s and without the effect"
            sdk.until_entity_state(counter, number)


def test_an_entity_with_nothing_to_do_is_read_at_once(managed: Sdk):
    """S-12.38: clients poll it."""
    counter = entity("counter")
    managed.client.signal_entity(counter, "add", 1)
    managed.until_entity_state(counter, 1)
    times = []
    for _ in range(50):
        began = time.monotonic()
        managed.entity(counter)
        times.append(time.monotonic() - began)
    assert sorted(times)[25] < 0.05, times


def test_operations_not_yet_executed_are_the_backlog(sdk: Sdk):
    """S-12.38, S-12.39: the one at work among them; a read tells what is there meanwhile."""
    counter = entity("counter")
    sdk.client.signal_entity(counter, "add", 1)
    sdk.until_entity_state(counter, 1)
    sdk.client.signal_entity(counter, "hold")
    gates[counter.key].wait_until_reached()
    for _ in range(3):
        sdk.client.signal_entity(counter, "add", 1)
    found = sdk.entity(counter)
    assert (found.get_typed_state(), found.backlog_queue_size) == (1, 4)
    gates[counter.key].open()
    sdk.until_entity_state(counter, 4)
    assert sdk.entity(counter).backlog_queue_size == 0


def test_the_state_is_only_told_when_it_is_asked_for(sdk: Sdk):
    """S-12.38."""
    counter = entity("counter")
    assert sdk.run(call_once, ["counter", counter.key, "add", 3]) == 3
    with sdk.stub() as (stub, metadata):
        for asked in (False, True):
            request = pb.GetEntityRequest(instanceId=str(counter), includeState=asked)
            answer = stub.GetEntity(request, metadata=metadata)
            assert answer.exists
            assert answer.entity.HasField("serializedState") == asked
            assert answer.entity.HasField("lastModifiedTime")
            assert not answer.entity.HasField("lockedBy")
    without = sdk.client.get_entity(counter, include_state=False)
    assert (without.includes_state, without.get_state()) == (False, None)


@BOTH
def test_an_entity_without_state_is_gone_and_begins_from_scratch(sdk: Sdk, name: str):
    """S-12.7, S-12.17, S-12.49."""
    counter = entity(name)
    assert sdk.run(call_once, [name, counter.key, "add", 5]) == 5
    assert sdk.run(call_once, [name, counter.key, "forget", None]) is None
    assert sdk.client.get_entity(counter) is None
    sdk.client.signal_entity(counter, "add", 2)
    sdk.until_entity_state(counter, 2)


def test_the_delete_operation_of_a_class_removes_the_entity(sdk: Sdk):
    """S-12.17, S-12.49: also when it comes in one batch with others."""
    counter = entity("counter")
    sdk.run(call_once, ["counter", counter.key, "add", 5])
    sdk.run(call_once, ["counter", counter.key, "delete", None])
    assert sdk.client.get_entity(counter) is None
    sdk.client.signal_entity(counter, "hold")
    gates[counter.key].wait_until_reached()
    for operation, amount in [("add", 5), ("delete", None), ("add", 2)]:
        sdk.client.signal_entity(counter, operation, amount)
    gates[counter.key].open()
    sdk.until_entity_state(counter, 2)


@pytest.mark.parametrize("value", [0, "", False, [], {}], ids=repr)
def test_a_state_that_python_takes_for_false_is_a_state(sdk: Sdk, value: Any):
    """S-12.6."""
    counter = entity("counter")
    sdk.run(call_once, ["counter", counter.key, "set", value])
    found = sdk.entity(counter).get_typed_state()
    assert found == value
    assert type(found) is type(value)


class OpaqueText(DataConverter):
    """Sends text as it is, so that the test decides each byte of a state."""

    def serialize(self, value: Any) -> str | None:
        return value

    def deserialize(self, data: str | None, target_type: type | None = None) -> Any:
        return data

    def coerce(self, value: Any, target_type: type | None = None) -> Any:
        return value


def test_a_state_is_kept_byte_for_byte(managed: Sdk):
    """S-0.5, S-12.6: the text `null` is a state too."""
    opaque = OpaqueText()
    with managed.in_hub("second") as hub, hub.worker(program, data_converter=opaque):
        client = hub.new_client(data_converter=opaque)
        for text in ("null", "{not json", " \r\n\t ß 日本語 \x00"):
            counter = entity("counter")
            client.signal_entity(counter, "set", text)
            eventually(lambda: client.get_entity(counter), f"a state of {counter}")
            assert_state(hub, counter, text)


def assert_state(hub: Sdk, counter: EntityInstanceId, text: str) -> None:
    with hub.stub() as (stub, metadata):
        request = pb.GetEntityRequest(instanceId=str(counter), includeState=True)
        answer = stub.GetEntity(request, metadata=metadata)
    assert answer.exists
    assert answer.entity.HasField("serializedState")
    assert answer.entity.serializedState.value == text


SUCCESS = pb.OperationResult(success=pb.OperationResultSuccess())


def test_names_ignore_case_and_keys_do_not(sdk: Sdk):
    """S-12.2: whatever a client writes, there is one entity for each key."""
    key = unique("Key")
    with sdk.stub() as (stub, metadata):
        for name in ("CounTer", "counter", "COUNTER"):
            request = pb.SignalEntityRequest(
                instanceId=f"@{name}@{key}", name="add", input=StringValue(value="1"), requestId=unique()
            )
            stub.SignalEntity(request, metadata=metadata)
        sdk.until_entity_state(EntityInstanceId("counter", key), 3)
        for name in ("counter", "COUNTER"):
            answer = stub.GetEntity(pb.GetEntityRequest(instanceId=f"@{name}@{key}"), metadata=metadata)
            assert answer.entity.instanceId == f"@counter@{key}"
    assert sdk.client.get_entity(EntityInstanceId("counter", key.lower())) is None


def test_the_history_repeats_an_id_as_the_orchestration_wrote_it(sdk: Sdk):
    """S-12.2, S-4.11: lower case is for finding the entity."""
    key = unique("key")
    instance = sdk.run_and_keep(call_with_a_name_in_mixed_case, key)
    assert sdk.state(instance).get_output() == 5
    assert sdk.entity_state(EntityInstanceId("counter", key)) == 5
    for kind in ("EntityOperationSignaled", "EntityOperationCalled"):
        assert [event.target_instance_id for event in sdk.events(instance, kind)] == [f"@CoUnTeR@{key}"]


def test_a_delayed_signal_of_a_client_comes_when_it_is_due(sdk: Sdk):
    """S-6.7, S-12.44: until then the entity shows nothing of it."""
    journal = entity("journal")
    due = now() + timedelta(seconds=1)
    sdk.client.signal_entity(journal, "note_time", "later", signal_time=due)
    assert sdk.client.get_entity(journal) is None
    sdk.client.signal_entity(journal, "note", "at once")
    sdk.until_entity_state(journal, ["at once"])
    assert sdk.entity(journal).backlog_queue_size == 0
    _, (text, ran) = noted(sdk, journal, 2)
    assert text == "later"
    assert due.timestamp() <= ran < due.timestamp() + PUNCTUAL


def test_delayed_signals_come_in_the_order_of_their_times(sdk: Sdk):
    """S-6.7: those of one time as they were sent; one whose time is over comes at once."""
    journal = entity("journal")
    start = now()
    order = [("fourth", 900), ("second", 600), ("first", 300), ("third", 600), ("at once", -5000)]
    for text, milliseconds in order:
        due = start + timedelta(milliseconds=milliseconds)
        sdk.client.signal_entity(journal, "note", text, signal_time=due)
    assert noted(sdk, journal, 5) == ["at once", "first", "second", "third", "fourth"]


def test_a_delayed_signal_of_an_orchestration_comes_when_it_is_due(sdk: Sdk):
    """S-12.22, S-6.7, S-4.12: the history has it at once, with its time."""
    key = unique("key")
    instance = sdk.run_and_keep(signal_later, {"key": key, "milliseconds": 800})
    due = sdk.state(instance).get_output()
    delayed, immediate = sdk.events(instance, "EntityOperationSignaled")
    assert delayed.scheduled_time.replace(tzinfo=timezone.utc).timestamp() == pytest.approx(due, abs=1e-5)
    assert immediate.scheduled_time is None
    first, (text, ran) = noted(sdk, EntityInstanceId("journal", key), 2)
    assert (first, text) == ("at once", "later")
    assert due <= ran < due + PUNCTUAL


def test_an_entity_reminds_itself_later(sdk: Sdk):
    """S-12.18, S-6.7, S-17.2."""
    journal = entity("journal")
    due = now() + timedelta(milliseconds=700)
    sdk.client.signal_entity(journal, "remind", {"text": "tick", "at": due.isoformat()})
    sdk.until_entity_state(journal, ["asked"])
    _, (text, ran) = noted(sdk, journal, 2)
    assert text == "tick"
    assert due.timestamp() <= ran < due.timestamp() + PUNCTUAL


def test_an_entity_signals_another_in_order(sdk: Sdk):
    """S-12.18, S-12.48, S-12.11."""
    sender, receiver = entity("counter"), entity("counter")
    order = {"key": receiver.key, "amounts": [1, 10, 100]}
    assert sdk.run(call_once, ["counter", sender.key, "add_elsewhere", order]) == 1
    sdk.until_entity_state(receiver, 111)


def test_an_entity_signals_itself(sdk: Sdk):
    """S-12.18, S-17.2."""
    counter = entity("counter")
    sdk.client.signal_entity(counter, "count_down", 12)
    sdk.until_entity_state(counter, 12)
    assert sdk.entity(counter).backlog_queue_size == 0


def test_an_entity_starts_an_orchestration(sdk: Sdk):
    """S-12.18, S-12.48: with an id of the SDK's making, and with one that the entity names."""
    counter = entity("counter")
    named = unique("named")
    for order in ({"name": "return_input", "input": 4}, {"name": "return_input", "input": 5, "id": named}):
        instance = sdk.run(call_once, ["counter", counter.key, "launch", order])
        assert instance == order.get("id", instance)
        assert sdk.output(instance) == order["input"]
        assert sdk.state(instance).name == "return_input"
    assert sdk.entity_state(counter) == 2


def test_an_active_orchestration_of_that_id_silently_stays(sdk: Sdk):
    """S-10.7: and the operation succeeds."""
    counter = entity("counter")
    instance = sdk.start(wait_for_release, "of the client")
    before = sdk.until_running(instance)
    order = {"name": "wait_for_release", "input": "of the entity", "id": instance}
    assert sdk.run(call_once, ["counter", counter.key, "launch", order]) == instance
    assert sdk.state(instance).created_at == before.created_at
    sdk.client.raise_orchestration_event(instance, "release", data="done")
    assert sdk.output(instance) == ["of the client", "done"]


def test_a_finished_orchestration_of_that_id_is_replaced(sdk: Sdk):
    """S-10.7, S-0.6."""
    counter = entity("counter")
    instance = sdk.run_and_keep(return_input, "first")
    before = sdk.state(instance)
    order = {"name": "return_input", "input": "second", "id": instance}
    sdk.run(call_once, ["counter", counter.key, "launch", order])
    after = sdk.finish(instance)
    assert after.get_output() == "second"
    assert after.created_at > before.created_at


@pytest.fixture(scope="module")
def raw(managed: Sdk) -> Iterator[Sdk]:
    """A hub without a worker of the SDK."""
    with managed.in_hub("raw") as hub:
        yield hub


def test_an_orchestration_started_without_an_id_gets_one(raw: Sdk):
    """S-10.7, S-12.48."""
    counter, name = entity("counter"), unique("orchestrator")
    start = pb.StartNewOrchestrationAction(name=name, input=StringValue(value='"in"'))
    with RawWorker(raw) as worker:
        raw.client.signal_entity(counter, "launch")
        _, token = worker.entity_item()
        worker.complete_entity(
            token,
            results=[SUCCESS],
            actions=[pb.OperationAction(startNewOrchestration=start)],
            entityState=StringValue(value="1"),
        )
        states = raw.client.get_all_orchestration_states()
        (started,) = [state for state in states if state.name == name]
        assert started.runtime_status == Status.PENDING
        assert len(started.instance_id) == 32
    raw.client.terminate_orchestration(started.instance_id)


def test_a_batch_holds_all_that_waits_and_each_operation_has_an_id_of_its_own(raw: Sdk):
    """S-12.9, S-12.10, S-12.11, S-12.51: an id that is no GUID is never handed out."""
    counter = entity("counter")
    with raw.stub() as (stub, metadata):
        for number, request_id in enumerate(["no guid", "", "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"]):
            request = pb.SignalEntityRequest(
                instanceId=str(counter), name="add", input=StringValue(value=str(number)), requestId=request_id
            )
            stub.SignalEntity(request, metadata=metadata)
    with RawWorker(raw) as worker:
        batch, token = worker.entity_item()
        assert batch.instanceId == str(counter)
        assert not batch.HasField("entityState"), "S-12.9: unset for an entity without state"
        assert len(batch.executionId) == 32
        events = batch.operationRequests
        assert {event.WhichOneof("eventType") for event in events} == {"entityOperationSignaled"}
        assert {event.eventId for event in events} == {-1}
        assert all(event.HasField("timestamp") for event in events)
        signals = [event.entityOperationSignaled for event in events]
        assert [signal.input.value for signal in signals] == ["0", "1", "2"]
        assert {signal.targetInstanceId.value for signal in signals} == {str(counter)}
        ids = [signal.requestId for signal in signals]
        assert ids[2] == "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"
        assert len(set(ids)) == 3
        for each in ids:
            assert [len(part) for part in each.split("-")] == [8, 4, 4, 4, 12]
        worker.complete_entity(token, results=[SUCCESS] * 3, entityState=StringValue(value="3"))
        raw.client.signal_entity(counter, "add", 9)
        following, token = worker.entity_item()
        assert following.entityState.value == "3"
        assert following.executionId == batch.executionId, "S-12.4"
        worker.complete_entity(token, results=[SUCCESS])
    assert raw.client.get_entity(counter) is None, "S-12.17: a result without a state deletes"


def test_an_empty_state_is_a_state(raw: Sdk):
    """S-0.5, S-12.6, S-12.9: though this SDK's workers take it for none."""
    counter = entity("counter")
    raw.client.signal_entity(counter, "set")
    with RawWorker(raw) as worker:
        _, token = worker.entity_item()
        worker.complete_entity(token, results=[SUCCESS], entityState=StringValue(value=""))
        assert_state(raw, counter, "")
        raw.client.signal_entity(counter, "set")
        batch, token = worker.entity_item()
        assert batch.HasField("entityState")
        worker.complete_entity(token, results=[SUCCESS])


def test_workers_with_filters_receive_the_entities_they_registered(managed: Sdk):
    """S-12.12, S-13.9, S-13.12: what nobody registered waits for one that does."""
    first, second, third = (entity(name) for name in ("larder", "cellar", "attic"))
    with (
        managed.in_hub("filters") as hub,
        hub.worker(storing("Larder"), filters="registered"),
        hub.worker(storing("Cellar"), filters="registered"),
    ):
        for each in (third, first, second):
            hub.client.signal_entity(each, "put")
        hub.until_entity_state(first, "in the Larder")
        hub.until_entity_state(second, "in the Cellar")
        assert hub.client.get_entity(third) is None
        with hub.worker(storing("Attic"), filters="registered"):
            hub.until_entity_state(third, "in the Attic")


def storing(name: str) -> Program:
    """A program with one entity, called `name`."""

    def store(context: EntityContext, _):
        context.set_state(f"in the {name}")

    store.__name__ = name
    program = Program()
    program.entity(store)
    return program


def test_an_entity_is_served_as_soon_as_a_worker_comes(managed: Sdk):
    """S-13.26, S-12.7: signals before that wait."""
    counter = entity("counter")
    with managed.in_hub("second") as hub:
        for _ in range(3):
            hub.client.signal_entity(counter, "add", 1)
        assert hub.client.get_entity(counter) is None
        with hub.worker(program):
            hub.until_entity_state(counter, 3)
            assert hub.run(call_once, ["counter", counter.key, "add", 1]) == 4
