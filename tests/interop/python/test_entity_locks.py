"""Entity locks: critical sections over several entities, who waits for them, and how they end."""

import random
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from durabletask import task
from durabletask.entities import DurableEntity, EntityInstanceId
from durabletask.internal import orchestrator_service_pb2 as pb

from sdk import Program, Sdk, Status, eventually, refused, unique

program = Program()
broken: set[str] = set()
"""Keys for which an activity fails."""


@program.entity
class Account(DurableEntity):
    def deposit(self, amount):
        balance = self.get_state(int, 0) + amount
        if balance < 0:
            raise ValueError(f"{-balance} are missing")
        self.set_state(balance)
        return balance

    def balance(self):
        return self.get_state(int, 0)


@program.entity
class Journal(DurableEntity):
    def note(self, text):
        self.set_state([*self.get_state(list, []), text])

    def read(self):
        return self.get_state(list, [])


@program.entity
def register(context, number):
    """The name sorts after the others'."""
    context.set_state(context.get_state(int, 0) + number)
    return context.get_state(int)


class AsGiven(EntityInstanceId):
    """An id that the SDK neither sorts nor takes for equal to another one, so that lock sets, which it tidies
    up, reach the server as they were written. Other SDKs leave duplicates in, and sort otherwise."""

    def __lt__(self, other: object) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__


def leave_without_unlocking(context: task.OrchestrationContext) -> None:
    """Makes the SDK forget the section, so that it sends no unlocks and the server has to end it alone."""
    context._entity_context.critical_section_id = None


@program.orchestrator
def hold(context: task.OrchestrationContext, ids):
    """Locks `ids`, as written, until the event `leave`."""
    locked = [AsGiven(*each) for each in ids]
    with (yield context.lock_entities(locked)):
        context.set_custom_status("inside")
        yield context.wait_for_external_event("leave")
    return "left"


@program.orchestrator
def note_inside(context: task.OrchestrationContext, order):
    journal = EntityInstanceId("journal", order["key"])
    with (yield context.lock_entities([journal])):
        context.set_custom_status("inside")
        if order.get("waits"):
            yield context.wait_for_external_event("leave")
        yield context.call_entity(journal, "note", order["text"])
        yield context.call_entity(journal, "note", order["text"])
    return order["text"]


@program.orchestrator
def note_outside(context: task.OrchestrationContext, order):
    yield context.call_entity(EntityInstanceId("journal", order["key"]), "note", order["text"])
    return order["text"]


@program.orchestrator
def end_inside(context: task.OrchestrationContext, order):
    """Ends its generation inside the section, with and without the SDK's own unlocks."""
    if order["generation"] == 2:
        # Not the generation that held the lock, so this waits if the lock is still there.
        return (yield context.call_entity(EntityInstanceId("account", order["keys"][0]), "balance"))
    locked = [EntityInstanceId("account", key) for key in order["keys"]]
    yield context.lock_entities(locked)
    for each in locked:
        yield context.call_entity(each, "deposit", 1)
    if not order["unlocks"]:
        leave_without_unlocking(context)
    if order["by"] == "failing":
        raise ValueError("inside")
    if order["by"] == "continuing as new":
        context.continue_as_new({**order, "generation": 2})
    return "ended inside"


@program.orchestrator
def deposit(context: task.OrchestrationContext, order):
    return (yield context.call_entity(EntityInstanceId("account", order[0]), "deposit", order[1]))


@program.orchestrator
def fail_and_go_on_inside(context: task.OrchestrationContext, key):
    account = EntityInstanceId("account", key)
    with (yield context.lock_entities([account])):
        try:
            yield context.call_entity(account, "deposit", -1)
        except task.TaskFailedError:
            return (yield context.call_entity(account, "deposit", 5))


@program.orchestrator
def lock_as_given(context: task.OrchestrationContext, ids):
    """Calls each of the entities once, whatever the order and the repetitions of `ids`."""
    locked = [AsGiven(*each) for each in ids]
    with (yield context.lock_entities(locked)):
        for each in {str(each): each for each in locked}.values():
            yield context.call_entity(each, "add" if each.entity == "register" else "deposit", 1)
    return "left"


@program.orchestrator
def lock_in_two_cases(context: task.OrchestrationContext, key):
    upper, lower = AsGiven("account", key), AsGiven("account", key)
    upper.entity = "Account"
    with (yield context.lock_entities([upper, lower])):
        return [str(upper), str(lower)]


@program.orchestrator
def note_deposit_inside(context: task.OrchestrationContext, key):
    account = EntityInstanceId("account", key)
    with (yield context.lock_entities([account])):
        return (yield context.call_entity(account, "deposit", 3))


@program.orchestrator
def wait_for_release(context: task.OrchestrationContext, _):
    yield context.wait_for_external_event("release")


@program.activity
def fail_while_broken(_, key):
    if key in broken:
        raise ValueError("broken")
    return "repaired"


@program.orchestrator
def deposit_and_fail(context: task.OrchestrationContext, key):
    account = EntityInstanceId("account", key)
    context.signal_entity(account, "deposit", 10)
    with (yield context.lock_entities([account])):
        balance = yield context.call_entity(account, "deposit", 1)
    return [balance, (yield context.call_activity(fail_while_broken, input=key))]


@program.orchestrator
def call_beside_a_failure(context: task.OrchestrationContext, key):
    balance = context.call_entity(EntityInstanceId("account", key), "balance")
    repaired = yield context.call_activity(fail_while_broken, input=key)
    return [(yield balance), repaired]


@program.orchestrator
def transfer(context: task.OrchestrationContext, order):
    source, target = EntityInstanceId("account", order["from"]), EntityInstanceId("account", order["to"])
    with (yield context.lock_entities([source, target])):
        if (yield context.call_entity(source, "balance")) < order["amount"]:
            return 0
        yield context.call_entity(source, "deposit", -order["amount"])
        yield context.call_entity(target, "deposit", order["amount"])
    return order["amount"]


@program.orchestrator
def audit(context: task.OrchestrationContext, keys):
    accounts = [EntityInstanceId("account", key) for key in keys]
    with (yield context.lock_entities(accounts)):
        balances = yield task.when_all([context.call_entity(each, "balance") for each in accounts])
    return sum(balances)


def open_accounts(sdk: Sdk, count: int, balance: int) -> list[EntityInstanceId]:
    accounts = [EntityInstanceId("account", unique("key")) for _ in range(count)]
    for each in accounts:
        sdk.client.signal_entity(each, "deposit", balance)
    for each in accounts:
        sdk.until_entity_state(each, balance)
    return accounts


def open_journal(sdk: Sdk) -> EntityInstanceId:
    journal = EntityInstanceId("journal", unique("key"))
    sdk.client.signal_entity(journal, "note", "opened")
    sdk.until_entity_state(journal, ["opened"])
    return journal


def pairs(accounts: list[EntityInstanceId]) -> list[list[str]]:
    return [[each.entity, each.key] for each in accounts]


def start_and_enter(sdk: Sdk, orchestrator: Callable[..., Any], input: Any) -> str:
    instance = sdk.start(orchestrator, input)
    until_inside(sdk, instance)
    return instance


def until_inside(sdk: Sdk, instance: str) -> None:
    eventually(lambda: sdk.state(instance).get_custom_status() == "inside", f"{instance} inside its section")


def start_and_queue(sdk: Sdk, orchestrator: Callable[..., Any], input: Any) -> str:
    """Started, and its first episode is committed: what it sent lies in the entity's queue."""
    instance = sdk.start(orchestrator, input)
    sdk.until_running(instance)
    return instance


def leave(sdk: Sdk, instance: str) -> None:
    sdk.client.raise_orchestration_event(instance, "leave")


def test_a_critical_section_over_two_entities_is_told_in_the_history(sdk: Sdk):
    """S-12.45, S-12.25, S-12.35: one request, one grant, and an unlock for each entity."""
    source, target = open_accounts(sdk, 2, 10)
    instance = sdk.run_and_keep(transfer, {"from": source.key, "to": target.key, "amount": 4})
    assert sdk.state(instance).get_output() == 4
    assert (sdk.entity_state(source), sdk.entity_state(target)) == (6, 14)
    (requested,) = sdk.events(instance, "EntityLockRequested")
    (granted,) = sdk.events(instance, "EntityLockGranted")
    unlocks = sdk.events(instance, "EntityUnlockSent")
    assert (requested.event_id, requested.position, granted.event_id) == (1, 0, -1)
    assert sorted(requested.lock_set) == sorted([str(source), str(target)])
    assert sorted(each.target_instance_id for each in unlocks) == sorted(requested.lock_set)
    sections = {each.critical_section_id for each in [requested, granted, *unlocks]}
    assert len(sections) == 1
    assert {each.parent_instance_id for each in [requested, *unlocks]} == {instance}
    kinds = sdk.kinds(instance)
    assert kinds[:5] == [
        "OrchestratorStarted",
        "ExecutionStarted",
        "EntityLockRequested",
        "OrchestratorStarted",
        "EntityLockGranted",
    ]
    assert kinds[-3:] == ["EntityUnlockSent", "EntityUnlockSent", "ExecutionCompleted"]


def test_the_holder_is_told_while_it_holds_and_no_more_once_it_has_ended(sdk: Sdk):
    """S-12.36, S-12.32: cleared before any waiter for the holder is answered."""
    accounts = open_accounts(sdk, 3, 1)
    holder = start_and_enter(sdk, hold, pairs(accounts))
    assert [sdk.locked_by(each) for each in accounts] == [holder] * 3
    leave(sdk, holder)
    assert sdk.output(holder) == "left"
    assert [sdk.locked_by(each) for each in accounts] == [None] * 3


def test_all_others_wait_and_then_go_on_in_the_order_of_their_arrival(sdk: Sdk):
    """S-12.46, S-12.24, S-12.29, S-12.31: a signal, a lock and a call."""
    journal = open_journal(sdk)
    first = start_and_enter(sdk, note_inside, {"key": journal.key, "text": "first", "waits": True})
    sdk.client.signal_entity(journal, "note", "signal")
    second = start_and_queue(sdk, note_inside, {"key": journal.key, "text": "second"})
    third = start_and_queue(sdk, note_outside, {"key": journal.key, "text": "third"})
    sdk.client.signal_entity(journal, "note", "late signal")
    found = sdk.entity(journal)
    assert found.get_typed_state() == ["opened"]
    assert found.backlog_queue_size >= 3
    assert sdk.locked_by(journal) == first
    assert {sdk.status(each) for each in (first, second, third)} == {Status.RUNNING}
    leave(sdk, first)
    assert [sdk.output(each) for each in (first, second, third)] == ["first", "second", "third"]
    sdk.until_entity_state(
        journal, ["opened", "first", "first", "signal", "second", "second", "third", "late signal"]
    )
    assert sdk.locked_by(journal) is None


def test_locks_are_granted_in_the_order_they_were_asked_for(sdk: Sdk):
    """S-12.27, S-12.31."""
    journal = open_journal(sdk)
    first = start_and_enter(sdk, note_inside, {"key": journal.key, "text": 0, "waits": True})
    others = [start_and_queue(sdk, note_inside, {"key": journal.key, "text": n}) for n in range(1, 7)]
    leave(sdk, first)
    for each in (first, *others):
        sdk.output(each)
    assert sdk.entity_state(journal) == ["opened", *[n for n in range(7) for _ in range(2)]]


def test_sections_of_orchestrations_that_meet_do_not_mix(managed: Sdk):
    """S-12.29: both notes of a section stand side by side, with signals and calls from outside around."""
    journal = open_journal(managed)
    instances = []
    for number in range(10):
        instances.append(managed.start(note_inside, {"key": journal.key, "text": number}))
        instances.append(managed.start(note_outside, {"key": journal.key, "text": "call"}))
        managed.client.signal_entity(journal, "note", "signal")
    for each in instances:
        managed.output(each)
    eventually(lambda: managed.entity(journal).backlog_queue_size == 0, "all is noted")
    notes = managed.entity_state(journal)
    assert len(notes) == 1 + 20 + 10 + 10
    for number in range(10):
        place = notes.index(number)
        assert notes[place : place + 2] == [number, number], notes


@pytest.mark.parametrize(
    "written",
    [[2, 1, 0], [0, 0], [1, 0, 1, 2, 0, 2, 2], [2, 2, 1, 1, 0, 0]],
    ids=["unsorted", "twice the same", "shuffled with duplicates", "sorted backwards with duplicates"],
)
def test_a_lock_set_may_be_unsorted_and_hold_duplicates(sdk: Sdk, written: list[int]):
    """S-12.26, S-12.25, S-12.30, S-12.35: the history keeps it as it was sent, with one unlock for each action."""
    accounts = open_accounts(sdk, 3, 0)
    instance = sdk.run_and_keep(lock_as_given, pairs([accounts[n] for n in written]))
    assert sdk.state(instance).get_output() == "left"
    (requested,) = sdk.events(instance, "EntityLockRequested")
    assert requested.lock_set == [str(accounts[n]) for n in written]
    assert {sdk.entity_state(accounts[n]) for n in set(written)} == {1}
    assert {sdk.locked_by(each) for each in accounts} == {None}
    assert len(sdk.events(instance, "EntityUnlockSent")) == len(written)


def test_one_entity_named_in_two_cases_is_locked_once(sdk: Sdk):
    """S-12.26, S-12.2."""
    (account,) = open_accounts(sdk, 1, 0)
    instance = start_and_enter(sdk, hold, pairs([account]))
    waiting = start_and_queue(sdk, lock_in_two_cases, account.key)
    leave(sdk, instance)
    assert sdk.output(waiting) == [f"@Account@{account.key}", f"@account@{account.key}"]
    assert sdk.locked_by(account) is None


def test_crossing_lock_sets_of_many_orchestrations_do_not_deadlock(managed: Sdk):
    """S-12.26, S-12.27: each set is written in an order of its own, some with duplicates."""
    chance = random.Random(20)
    accounts = open_accounts(managed, 5, 0)
    entities = [*pairs(accounts), ["register", unique("key")]]
    wanted = {str(each): 0 for each in map(tuple, entities)}
    instances = []
    for _ in range(40):
        chosen = [chance.choice(entities) for _ in range(chance.randint(2, 5))]
        for each in {tuple(each) for each in chosen}:
            wanted[str(each)] += 1
        instances.append(managed.start(lock_as_given, chosen))
    assert {managed.output(each) for each in instances} == {"left"}
    for name, key in entities:
        entity = EntityInstanceId(name, key)
        assert managed.entity_state(entity) == wanted[str((name, key))]
        assert managed.locked_by(entity) is None


@pytest.mark.parametrize("unlocks", [True, False], ids=["with the SDK's unlocks", "without"])
@pytest.mark.parametrize("by", ["returning", "failing", "continuing as new"])
def test_a_lock_ends_with_the_generation_of_its_holder(sdk: Sdk, by: str, unlocks: bool):
    """S-12.32, S-12.30, S-3.20: unlocks that come besides change nothing."""
    accounts = open_accounts(sdk, 2, 0)
    keys = [each.key for each in accounts]
    instance = sdk.start(end_inside, {"keys": keys, "by": by, "unlocks": unlocks, "generation": 1})
    state = sdk.finish(instance)
    assert [sdk.locked_by(each) for each in accounts] == [None, None]
    if by == "failing":
        assert state.runtime_status == Status.FAILED
        assert state.failure_details.message == "inside"
    else:
        assert state.get_output() == ("ended inside" if by == "returning" else 1)
    assert [sdk.run(deposit, [key, 10]) for key in keys] == [11, 11]


def test_the_lock_of_a_terminated_holder_is_released(sdk: Sdk):
    """S-12.32, S-9.7: and what waited goes on, without any worker's help for the holder."""
    accounts = open_accounts(sdk, 2, 0)
    holder = start_and_enter(sdk, hold, pairs(accounts))
    waiting = start_and_queue(sdk, deposit, [accounts[1].key, 5])
    sdk.client.signal_entity(accounts[0], "deposit", 7)
    sdk.client.terminate_orchestration(holder)
    assert sdk.finish(holder).runtime_status == Status.TERMINATED
    assert [sdk.locked_by(each) for each in accounts] == [None, None]
    assert sdk.output(waiting) == 5
    sdk.until_entity_state(accounts[0], 7)


def test_one_terminated_while_it_waits_for_its_second_lock_leaves_nothing_behind(sdk: Sdk):
    """S-12.47, S-12.28: the first entity is free at once, and its entry at the second one is gone."""
    first, second = sorted(open_accounts(sdk, 2, 0))
    holder = start_and_enter(sdk, hold, pairs([second]))
    waiting = sdk.start(hold, pairs([first, second]))
    eventually(lambda: sdk.locked_by(first) == waiting, f"{first} locked")
    behind = start_and_queue(sdk, note_deposit_inside, second.key)
    sdk.client.terminate_orchestration(waiting)
    sdk.finish(waiting)
    assert sdk.locked_by(first) is None
    assert sdk.run(deposit, [first.key, 1]) == 1
    assert sdk.locked_by(second) == holder
    leave(sdk, holder)
    assert sdk.output(behind) == 3
    assert sdk.locked_by(second) is None


def test_the_lock_of_a_replaced_holder_is_released(managed: Sdk):
    """S-10.5, S-12.32: the new generation holds nothing."""
    (account,) = open_accounts(managed, 1, 0)
    holder = start_and_enter(managed, hold, pairs([account]))
    statuses = [status.value for status in (Status.RUNNING, Status.TERMINATED)]
    policy = pb.OrchestrationIdReusePolicy(replaceableStatus=statuses)
    managed.start(deposit, [account.key, 5], instance_id=holder, reuse_id_policy=policy)
    assert managed.output(holder) == 5
    assert managed.locked_by(account) is None


def test_a_rewind_repeats_no_entity_operation_that_was_answered(sdk: Sdk):
    """S-9.13: nor a signal or a section that is over."""
    (account,) = open_accounts(sdk, 1, 0)
    broken.add(account.key)
    instance = sdk.start(deposit_and_fail, account.key)
    assert sdk.finish(instance).runtime_status == Status.FAILED
    broken.remove(account.key)
    sdk.client.rewind_orchestration(instance)
    assert sdk.output(instance) == [11, "repaired"]
    assert sdk.run(deposit, [account.key, 100]) == 111


def test_a_rewind_sends_a_call_without_an_answer_again(sdk: Sdk):
    """S-9.13 step 6: the answer to the earlier generation is dropped, S-0.3."""
    (account,) = open_accounts(sdk, 1, 7)
    holder = start_and_enter(sdk, hold, pairs([account]))
    broken.add(account.key)
    instance = sdk.start(call_beside_a_failure, account.key)
    assert sdk.finish(instance).runtime_status == Status.FAILED
    broken.remove(account.key)
    sdk.client.rewind_orchestration(instance)
    leave(sdk, holder)
    assert sdk.output(instance) == [7, "repaired"]
    assert len(sdk.events(instance, "EntityOperationCompleted")) == 1


def test_an_orchestration_that_failed_inside_its_section_is_not_rewound(sdk: Sdk):
    """S-9.16: its lock is gone, as the server released it."""
    (account,) = open_accounts(sdk, 1, 0)
    order = {"keys": [account.key], "by": "failing", "unlocks": False, "generation": 1}
    instance = sdk.start(end_inside, order)
    before = sdk.finish(instance)
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        sdk.client.rewind_orchestration(instance)
    assert sdk.state(instance) == before
    assert sdk.locked_by(account) is None


def test_a_suspended_holder_keeps_its_lock(sdk: Sdk):
    """S-12.33."""
    (account,) = open_accounts(sdk, 1, 0)
    holder = start_and_enter(sdk, hold, pairs([account]))
    sdk.client.suspend_orchestration(holder)
    waiting = start_and_queue(sdk, deposit, [account.key, 5])
    leave(sdk, holder)
    assert sdk.locked_by(account) == holder
    assert (sdk.status(holder), sdk.status(waiting)) == (Status.SUSPENDED, Status.RUNNING)
    assert sdk.entity_state(account) == 0
    sdk.client.resume_orchestration(holder)
    assert sdk.output(waiting) == 5
    assert sdk.output(holder) == "left"


def test_a_holder_is_not_ended_by_the_call_that_skips_graceful_ends(managed: Sdk):
    """S-9.11."""
    (account,) = open_accounts(managed, 1, 0)
    holder = start_and_enter(managed, hold, pairs([account]))
    other = start_and_queue(managed, wait_for_release, None)
    with managed.stub() as (stub, metadata):
        batch = pb.InstanceBatch(instanceIds=[holder, other, str(account)])
        request = pb.SkipGracefulOrchestrationTerminationsRequest(instanceBatch=batch)
        answer = stub.SkipGracefulOrchestrationTerminations(request, metadata=metadata)
    assert sorted(answer.unterminatedInstanceIds) == sorted([holder, str(account)])
    assert managed.status(other) == Status.TERMINATED
    leave(managed, holder)
    assert managed.output(holder) == "left"


def test_a_failed_operation_inside_leaves_the_section_intact(sdk: Sdk):
    """S-12.15, S-12.29."""
    (account,) = open_accounts(sdk, 1, 0)
    assert sdk.run(fail_and_go_on_inside, account.key) == 5
    assert sdk.locked_by(account) is None
    assert sdk.run(deposit, [account.key, 1]) == 6


def test_an_entity_behind_a_lock_is_read_at_once(managed: Sdk):
    """S-12.38: what waits behind a lock keeps no reader waiting."""
    (account,) = open_accounts(managed, 1, 3)
    holder = start_and_enter(managed, hold, pairs([account]))
    managed.client.signal_entity(account, "deposit", 1)
    times = []
    for _ in range(20):
        before = managed.client.get_entity(account)
        assert before.get_typed_state() == 3
        times.append(timed(lambda: managed.client.get_entity(account)))
    assert sorted(times)[10] < 0.1, times
    leave(managed, holder)
    managed.until_entity_state(account, 4)


def timed(call: Callable[[], Any]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def test_transfers_under_locks_never_show_an_auditor_another_total(managed: Sdk):
    """S-12.27, S-12.29, S-12.24."""
    chance = random.Random(7)
    accounts = open_accounts(managed, 5, 100)
    keys = [each.key for each in accounts]
    transfers, audits = [], []
    for number in range(40):
        source, target = chance.sample(keys, 2)
        transfers.append(managed.start(transfer, {"from": source, "to": target, "amount": chance.randint(1, 150)}))
        if number % 5 == 0:
            audits.append(managed.start(audit, chance.sample(keys, len(keys))))
    assert {managed.output(each, timeout=60) for each in audits} == {500}
    moved = [managed.output(each, timeout=60) for each in transfers]
    assert any(moved)
    balances = [managed.entity_state(each) for each in accounts]
    assert sum(balances) == 500
    assert min(balances) >= 0
    assert {managed.locked_by(each) for each in accounts} == {None}
