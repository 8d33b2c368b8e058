"""Workers and servers killed while entities are at work: what was accepted is applied, once and in order.

Run as a program, with an address, this file is the worker that is killed: its `hold` operations never end,
and it prints what it does.
"""

import os
import queue
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
import pytest
from durabletask import task
from durabletask.client import OrchestrationQuery
from durabletask.entities import DurableEntity, EntityInstanceId
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.internal import orchestrator_service_pb2_grpc as stubs
from google.protobuf.wrappers_pb2 import StringValue

from sdk import DEADLINE, QUICK_CHANNEL, Program, Sdk, Status, Tally, eventually, once_reachable, unique
from server import Server, binary

HUB = "default"
program = Program()
executed = Tally()
OPERATIONS = "operations of this process"
to_be_killed = False
"""Whether this is the process that is killed."""


def say(line: str) -> None:
    # One write for the whole line: several threads print at once.
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


@program.entity
class Journal(DurableEntity):
    def note(self, text):
        executed.add(OPERATIONS)
        if to_be_killed:
            say(f"noting {text}")
        self.set_state([*self.get_state(list, []), text])

    def note_and_count(self, order):
        self.note(order["text"])
        self.signal_entity(EntityInstanceId("account", order["count"]), "deposit", 1)

    def hold(self, order):
        self.note_and_count(order)
        if to_be_killed:
            say("holding")
            threading.Event().wait()


@program.entity
class Account(DurableEntity):
    def deposit(self, amount):
        executed.add(OPERATIONS)
        balance = self.get_state(int, 0) + amount
        self.set_state(balance)
        return balance

    def balance(self):
        return self.get_state(int, 0)

    def count_down(self, number):
        self.deposit(1)
        if number > 1:
            self.signal_entity(self.entity_context.entity_id, "count_down", number - 1)

    def launch(self, name):
        self.deposit(1)
        return self.schedule_new_orchestration("return_input", 1, instance_id=f"{name}-{uuid.uuid4().hex}")


@program.orchestrator
def return_input(_, value):
    return value


@program.orchestrator
def hold_inside(context: task.OrchestrationContext, keys):
    journal = EntityInstanceId("journal", keys[0])
    with (yield context.lock_entities([journal, EntityInstanceId("account", keys[1])])):
        yield context.call_entity(journal, "hold", {"text": "inside", "count": keys[2]})
        yield context.call_entity(journal, "note", "leaving")
    return "left"


@program.orchestrator
def wait_inside(context: task.OrchestrationContext, keys):
    journal = EntityInstanceId("journal", keys[0])
    with (yield context.lock_entities([journal, EntityInstanceId("account", keys[1])])):
        context.set_custom_status("inside")
        yield context.wait_for_external_event("leave")
        yield context.call_entity(journal, "note", "leaving")
    return "left"


@program.orchestrator
def note_outside(context: task.OrchestrationContext, key):
    yield context.call_entity(EntityInstanceId("journal", key), "note", "outside")
    return "noted"


@program.orchestrator
def deposit_many_times(context: task.OrchestrationContext, order):
    """The balance after each deposit; each is noted with a signal."""
    balances = []
    for number in range(order["times"]):
        context.signal_entity(EntityInstanceId("journal", order["journal"]), "note", number)
        balances.append((yield context.call_entity(EntityInstanceId("account", order["account"]), "deposit", 1)))
    return balances


@program.orchestrator
def launch_many_times(context: task.OrchestrationContext, order):
    launched = []
    for _ in range(order["times"]):
        account = EntityInstanceId("account", order["account"])
        launched.append((yield context.call_entity(account, "launch", order["name"])))
    return launched


@program.orchestrator
def transfer(context: task.OrchestrationContext, order):
    source, target = EntityInstanceId("account", order["from"]), EntityInstanceId("account", order["to"])
    with (yield context.lock_entities([source, target])):
        yield context.call_entity(source, "deposit", -1)
        yield context.call_entity(target, "deposit", 1)
    return "moved"


@program.orchestrator
def audit(context: task.OrchestrationContext, keys):
    accounts = [EntityInstanceId("account", key) for key in keys]
    with (yield context.lock_entities(accounts)):
        balances = yield task.when_all([context.call_entity(each, "balance") for each in accounts])
    return sum(balances)


class KilledWorker:
    """This file as a process."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path):
        self._process = process
        self._log = log
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._forward, daemon=True).start()

    def until_holding(self) -> list[str]:
        """What it printed before it said that it holds."""
        lines: list[str] = []
        while "holding" not in lines:
            try:
                lines.append(self._lines.get(timeout=DEADLINE))
            except queue.Empty:
                raise AssertionError(f"it only printed {lines}\n{self._log.read_text()[-4000:]}") from None
        return lines[:-1]

    def kill9(self) -> None:
        self._process.kill()
        self._process.wait()

    def _forward(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line.strip())


@contextmanager
def killed_worker(server: Server, folder: Path) -> Iterator[KilledWorker]:
    log = folder / "worker.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, __file__, server.address], stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        yield KilledWorker(process, log)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def server(new_server: Callable[..., Server]) -> Iterator[Server]:
    """A server of the test's own, in place of the shared one. Its store is examined at the end."""
    server = new_server("--lease-grace", "200ms")
    yield server
    assert server.stop() == 0
    assert "panicked at" not in server.log_path.read_text(), server.log_tail()
    check = subprocess.run(
        [binary(), "store", "check", "--data-dir", str(server.data_dir)], capture_output=True, text=True, timeout=60
    )
    assert check.returncode == 0, check.stdout + check.stderr


@pytest.fixture
def managed(server: Server) -> Iterator[Sdk]:
    sdk = Sdk("durabletask-azuremanaged", "sync", server.address, HUB, quick_reconnect=True)
    yield sdk
    sdk.close()


def entity(name: str) -> EntityInstanceId:
    return EntityInstanceId(name, unique("key"))


def kill_and_restart(server: Server) -> None:
    server.kill9()
    server.restart()


def output_despite_outages(sdk: Sdk, instance: str) -> Any:
    state = once_reachable(lambda: sdk.finish(instance))
    assert state.runtime_status == Status.COMPLETED, state
    return state.get_output()


def test_the_batch_of_a_killed_worker_is_executed_by_another(managed: Sdk, server: Server, tmp_path: Path):
    """S-12.20, S-12.49, S-12.19, S-13.19: all of it again, and with its effects once."""
    journal, counter = entity("journal"), entity("account")
    for number in range(5):
        order = {"text": number, "count": counter.key}
        managed.client.signal_entity(journal, "hold" if number == 2 else "note_and_count", order)
    with killed_worker(server, tmp_path) as worker:
        assert worker.until_holding() == ["noting 0", "noting 1", "noting 2"]
        managed.client.signal_entity(journal, "note_and_count", {"text": 5, "count": counter.key})
        worker.kill9()
    assert managed.client.get_entity(journal) is None, "nothing of a batch shows before it is complete"
    assert managed.client.get_entity(counter) is None
    with managed.worker(program):
        managed.until_entity_state(journal, list(range(6)))
        managed.until_entity_state(counter, 6)
        assert managed.entity(journal).backlog_queue_size == 0


def test_entities_locked_by_an_orchestration_outlive_the_worker_of_both(
    managed: Sdk, server: Server, tmp_path: Path
):
    """S-12.20, S-12.33: neither the entity at work nor the other one freezes."""
    journal, account, counter = entity("journal"), entity("account"), entity("account")
    with killed_worker(server, tmp_path) as worker:
        holder = managed.start(hold_inside, [journal.key, account.key, counter.key])
        worker.until_holding()
        outside = managed.start(note_outside, journal.key)
        managed.until_running(outside)
        managed.client.signal_entity(account, "deposit", 5)
        worker.kill9()
    with managed.worker(program):
        assert managed.output(holder) == "left"
        assert managed.output(outside) == "noted"
        assert managed.entity_state(journal) == ["inside", "leaving", "outside"]
        managed.until_entity_state(account, 5)
        managed.until_entity_state(counter, 1)
        assert managed.locked_by(journal) is None
        assert managed.locked_by(account) is None


def test_state_queue_locks_and_delayed_signals_survive_a_kill(managed: Sdk, server: Server):
    """S-0.2, S-12.4, S-6.7, S-13.21: all that was answered before the kill is there after it."""
    journal, account, other, reminder = entity("journal"), entity("account"), entity("account"), entity("journal")
    with managed.worker(program):
        managed.client.signal_entity(journal, "note", "before")
        managed.client.signal_entity(account, "deposit", 3)
        managed.until_entity_state(journal, ["before"])
        managed.until_entity_state(account, 3)
        holder = managed.start(wait_inside, [journal.key, account.key])
        eventually(lambda: managed.state(holder).get_custom_status() == "inside", "inside its section")
        managed.client.signal_entity(journal, "note", "signal")
        outside = managed.start(note_outside, journal.key)
        managed.until_running(outside)
    for _ in range(4):
        managed.client.signal_entity(other, "deposit", 1)
    due = datetime.now(timezone.utc) + timedelta(seconds=1)
    for text, seconds in [("far", 3600), ("second", 0.2), ("third", 1.2), ("first", 0)]:
        managed.client.signal_entity(reminder, "note", text, signal_time=due + timedelta(seconds=seconds))
    before = [fields(managed, each) for each in (journal, account)]
    assert [each["locked_by"] for each in before] == [holder, holder]
    server.kill9()
    time.sleep(max(0.0, (due - datetime.now(timezone.utc)).total_seconds() + 0.3))
    server.restart()
    once_reachable(lambda: managed.entity(journal))
    assert [fields(managed, each) for each in (journal, account)] == before
    assert managed.client.get_entity(other) is None
    with managed.worker(program):
        managed.until_entity_state(other, 4)
        managed.until_entity_state(reminder, ["first", "second", "third"])
        assert datetime.now(timezone.utc) >= due + timedelta(seconds=1.2)
        assert managed.locked_by(journal) == holder
        assert managed.entity_state(journal) == ["before"]
        managed.client.raise_orchestration_event(holder, "leave")
        assert managed.output(holder) == "left"
        assert managed.output(outside) == "noted"
        managed.until_entity_state(journal, ["before", "leaving", "signal", "outside"])
        assert managed.locked_by(journal) is None
        managed.client.signal_entity(account, "deposit", 1)
        managed.until_entity_state(account, 4)


def fields(sdk: Sdk, each: EntityInstanceId) -> dict[str, Any]:
    found = sdk.entity(each)
    return {
        "state": found.get_state(),
        "modified": found.last_modified,
        "locked_by": found._locked_by,
        "backlog": found.backlog_queue_size,
    }


def test_a_deleted_entity_stays_deleted_over_a_kill(managed: Sdk, server: Server):
    """S-12.7, S-12.17."""
    account = entity("account")
    with managed.worker(program):
        managed.client.signal_entity(account, "deposit", 3)
        managed.until_entity_state(account, 3)
        managed.client.signal_entity(account, "delete")
        eventually(lambda: managed.client.get_entity(account) is None, f"{account} deleted")
        kill_and_restart(server)
        assert once_reachable(lambda: managed.client.get_entity(account)) is None
        once_reachable(lambda: managed.client.signal_entity(account, "deposit", 1))
        managed.until_entity_state(account, 1)


class Signaller:
    """Signals with ids of the test's choice, made again for as long as the server is away."""

    def __init__(self, server: Server):
        self._channel = grpc.insecure_channel(server.address, options=list(QUICK_CHANNEL.raw_options))
        self._stub = stubs.TaskHubSidecarServiceStub(self._channel)

    def signal(self, target: EntityInstanceId, operation: str, input: str, request_id: str) -> None:
        request = pb.SignalEntityRequest(
            instanceId=str(target), name=operation, input=StringValue(value=input), requestId=request_id
        )
        once_reachable(lambda: self._stub.SignalEntity(request, metadata=[("taskhub", HUB)]))

    def close(self) -> None:
        self._channel.close()


@pytest.fixture
def signaller(server: Server) -> Iterator[Signaller]:
    signaller = Signaller(server)
    yield signaller
    signaller.close()


@pytest.mark.parametrize("request_id", [str(uuid.uuid4()), "no guid"], ids=["guid", "no guid"])
def test_a_signal_repeated_under_its_request_id_is_applied_once(
    managed: Sdk, server: Server, signaller: Signaller, request_id: str
):
    """S-12.37, S-12.51: before and after it was executed, and over a kill; but each entity has ids of its own."""
    account, other = entity("account"), entity("account")
    for _ in range(3):
        signaller.signal(account, "deposit", "1", request_id)
    with managed.worker(program):
        managed.until_entity_state(account, 1)
        signaller.signal(account, "deposit", "1", request_id)
        signaller.signal(account, "deposit", "10", str(uuid.uuid4()))
        managed.until_entity_state(account, 11)
        kill_and_restart(server)
        for _ in range(2):
            signaller.signal(account, "deposit", "1", request_id)
            signaller.signal(other, "deposit", "1", request_id)
        signaller.signal(account, "deposit", "100", str(uuid.uuid4()))
        managed.until_entity_state(account, 111)
        managed.until_entity_state(other, 1)
        assert managed.entity(account).backlog_queue_size == 0


def test_signals_without_a_request_id_are_all_applied(managed: Sdk, signaller: Signaller):
    """S-12.37: the server makes ids for them."""
    account = entity("account")
    for _ in range(3):
        signaller.signal(account, "deposit", "1", "")
    with managed.worker(program):
        managed.until_entity_state(account, 3)


def test_signals_sent_through_kills_arrive_once_and_in_order(managed: Sdk, server: Server, signaller: Signaller):
    """S-1.13, S-12.37, S-12.20: a client that got no answer asks again under the same id."""
    journal = entity("journal")
    sent: list[int] = []

    def send() -> None:
        for number in range(300):
            signaller.signal(journal, "note", str(number), str(uuid.uuid4()))
            sent.append(number)

    with managed.worker(program):
        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        for progress in (60, 140, 220):
            eventually(lambda: len(sent) >= progress, f"{progress} signals")
            kill_and_restart(server)
        sender.join(DEADLINE)
        assert len(sent) == 300
        once_reachable(lambda: managed.until_entity_state(journal, list(range(300))))


def test_work_in_flight_survives_three_kills_with_each_effect_once(managed: Sdk, server: Server):
    """S-0.2, S-12.15, S-12.18, S-12.19, S-12.20, S-13.21: calls, signals, self-signals and started orchestrations."""
    accounts = [entity("account") for _ in range(3)]
    journals = [entity("journal") for _ in range(8)]
    clock, launcher, name = entity("account"), entity("account"), unique("launched")
    with managed.worker(program):
        before = executed[OPERATIONS]
        callers = [
            managed.start(
                deposit_many_times, {"account": accounts[n % 3].key, "journal": journals[n].key, "times": 12}
            )
            for n in range(8)
        ]
        managed.client.signal_entity(clock, "count_down", 60)
        launching = managed.start(launch_many_times, {"account": launcher.key, "name": name, "times": 10})
        for progress in (40, 100, 160):
            eventually(lambda: executed[OPERATIONS] - before >= progress, f"{progress} operations")
            kill_and_restart(server)
        balances = [output_despite_outages(managed, each) for each in callers]
        for number, account in enumerate(accounts):
            seen = [balance for each in balances[number::3] for balance in each]
            assert sorted(seen) == list(range(1, len(seen) + 1))
            assert managed.entity_state(account) == len(seen)
        for each in journals:
            managed.until_entity_state(each, list(range(12)))
        managed.until_entity_state(clock, 60)
        launched = output_despite_outages(managed, launching)
        assert len(set(launched)) == 10
        found = managed.client.get_all_orchestration_states(OrchestrationQuery(instance_id_prefix=name))
        assert sorted(state.instance_id for state in found) == sorted(launched)
        assert {managed.output(each) for each in launched} == {1}


def test_transfers_under_locks_keep_their_total_through_kills(managed: Sdk, server: Server):
    """S-12.27, S-12.32, S-0.2: whatever dies, an auditor that holds all accounts sees the same sum."""
    accounts = [entity("account") for _ in range(4)]
    keys = [each.key for each in accounts]
    with managed.worker(program):
        for each in accounts:
            managed.client.signal_entity(each, "deposit", 100)
        for each in accounts:
            managed.until_entity_state(each, 100)
        before = executed[OPERATIONS]
        transfers, audits = [], []
        for number in range(36):
            order = {"from": keys[number % 4], "to": keys[(number + 1 + number // 4 % 3) % 4]}
            transfers.append(managed.start(transfer, order))
            if number % 6 == 0:
                audits.append(managed.start(audit, keys))
        for progress in (15, 35):
            eventually(lambda: executed[OPERATIONS] - before >= progress, f"{progress} operations")
            kill_and_restart(server)
        holder = once_reachable(lambda: managed.start(wait_inside, [unique("key"), keys[0]]))
        eventually(lambda: managed.state(holder).get_custom_status() == "inside", "inside its section")
        kill_and_restart(server)
        once_reachable(lambda: managed.client.terminate_orchestration(holder))
        assert {output_despite_outages(managed, each) for each in audits} == {400}
        assert {output_despite_outages(managed, each) for each in transfers} == {"moved"}
        assert sum(managed.entity_state(each) for each in accounts) == 400
        assert {managed.locked_by(each) for each in accounts} == {None}


def main(address: str) -> None:
    global to_be_killed
    to_be_killed = True
    sdk = Sdk("durabletask-azuremanaged", "sync", address, HUB)
    with sdk.worker(program):
        threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1])
