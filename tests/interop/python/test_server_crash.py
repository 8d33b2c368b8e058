"""The server is killed at bad moments and started again; clients and workers are not told."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from itertools import pairwise

import grpc
import pytest
from durabletask import task
from durabletask.client import OrchestrationState

from sdk import Gates, Program, Sdk, Status, Tally, eventually, kind, once_reachable, unique
from server import Server

program = Program()
gates = Gates()
executed = Tally()
ADD_ONE = "calls of add_one"


@program.activity
def add_step(context: task.ActivityContext, call):
    executed.add(context.orchestration_id)
    if call["step"] == call.get("gated"):
        gates[context.orchestration_id].pass_through()
    return call["total"] + call["step"]


@program.activity
def add_one(_, number):
    executed.add(ADD_ONE)
    return number + 1


@program.orchestrator
def add_steps(context: task.OrchestrationContext, plan):
    total = 0
    for step in range(1, plan["steps"] + 1):
        total = yield context.call_activity(
            add_step, input={"step": step, "total": total, "gated": plan["gated"]}
        )
    return total


@program.orchestrator
def add_three(context: task.OrchestrationContext, number):
    for _ in range(3):
        number = yield context.call_activity(add_one, input=number)
    return number


@program.orchestrator
def add_three_in_child(context: task.OrchestrationContext, number):
    return (yield context.call_sub_orchestrator(add_three, input=number))


@program.orchestrator
def sleep_milliseconds(context: task.OrchestrationContext, milliseconds):
    yield context.create_timer(timedelta(milliseconds=milliseconds))
    return "slept"


@program.orchestrator
def collect_events(context: task.OrchestrationContext, count):
    context.set_custom_status("collecting")
    values = []
    for _ in range(count):
        values.append((yield context.wait_for_external_event("number")))
    return values


@program.orchestrator
def wait_for_child(context: task.OrchestrationContext, child):
    return (yield context.call_sub_orchestrator(collect_events, input=1, instance_id=child))


@program.orchestrator
def send_number(context: task.OrchestrationContext, target):
    context.send_event(target, "number", data="from the other")
    yield context.create_timer(timedelta())


@pytest.fixture
def server(new_server: Callable[..., Server]) -> Server:
    """A server of the test's own, in place of the shared one."""
    return new_server()


@pytest.fixture(params=["durabletask", "durabletask-azuremanaged"])
def sdk(request: pytest.FixtureRequest, server: Server) -> Iterator[Sdk]:
    yield from connected(request.param, server)


@pytest.fixture
def managed(server: Server) -> Iterator[Sdk]:
    yield from connected("durabletask-azuremanaged", server)


def connected(package: str, server: Server) -> Iterator[Sdk]:
    sdk = Sdk(package, "sync", server.address, None if package == "durabletask" else "default", True)
    yield sdk
    gates.open_all()
    sdk.close()


def finish_despite_outages(sdk: Sdk, instance: str) -> OrchestrationState:
    return once_reachable(lambda: sdk.finish(instance))


def assert_lawful(sdk: Sdk, instance: str) -> None:
    """What holds for every history: one start, one end, one outcome for each activity, a rising clock."""
    history = sdk.history(instance)
    kinds = [kind(event) for event in history]
    assert kinds[:2] == ["OrchestratorStarted", "ExecutionStarted"]
    assert kinds.count("ExecutionStarted") == kinds.count("ExecutionCompleted") == 1
    assert kinds[-1] == "ExecutionCompleted"
    scheduled = [event.event_id for event in history if kind(event) == "TaskScheduled"]
    completed = [event.task_scheduled_id for event in history if kind(event) == "TaskCompleted"]
    assert scheduled == sorted(set(scheduled))
    assert sorted(completed) == scheduled
    clocks = [event.timestamp for event in history if kind(event) == "OrchestratorStarted"]
    assert all(earlier < later for earlier, later in pairwise(clocks))


@pytest.mark.parametrize("answer", ["during_the_outage", "after_the_restart"])
def test_a_chain_goes_on_after_a_kill_in_its_middle(sdk: Sdk, server: Server, answer: str):
    """S-0.2, S-13.21, S-13.4: the activity in hand ends while the server is away, or just after."""
    with sdk.worker(program):
        instance = sdk.start(add_steps, {"steps": 6, "gated": 3})
        gates[instance].wait_until_reached()
        server.kill9()
        if answer == "during_the_outage":
            gates[instance].open()
        server.restart()
        gates[instance].open()
        assert finish_despite_outages(sdk, instance).get_output() == 1 + 2 + 3 + 4 + 5 + 6
        assert_lawful(sdk, instance)
        assert 6 <= executed[instance] <= 7, "only the activity in hand may run twice"


def test_two_hundred_orchestrations_in_flight_survive_three_kills(managed: Sdk, server: Server):
    """S-0.2, S-0.3, S-13.21."""
    with managed.worker(program):
        before = executed[ADD_ONE]
        orchestrators = [add_three, add_three_in_child]
        instances = [managed.start(orchestrators[n % 2], n) for n in range(200)]
        for progress in (100, 250, 400):
            eventually(lambda: executed[ADD_ONE] - before >= progress, f"{progress} activities")
            server.kill9()
            server.restart()
        states = [finish_despite_outages(managed, each) for each in instances]
        assert [state.get_output() for state in states] == [n + 3 for n in range(200)]
        for each in instances:
            assert_lawful(managed, each)


def test_whatever_was_answered_before_a_kill_is_there_after_it(managed: Sdk, server: Server):
    """S-0.6, S-10.8, S-8.1, S-9.2, S-9.7, S-11.24: the kill follows the last answer at once."""
    with managed.worker(program):
        running = managed.start(collect_events, 3)
        managed.until_running(running)
        finished = managed.run_and_keep(add_three, 1)
        purged = managed.run_and_keep(add_three, 2)
    managed.client.raise_orchestration_event(running, "number", data=1)
    managed.client.suspend_orchestration(running)
    managed.client.raise_orchestration_event(running, "number", data=2)
    pending = managed.start(add_three, 10, tags={"team": "blue"}, version="1")
    terminated = managed.start(add_three, 11)
    managed.client.terminate_orchestration(terminated, output="enough")
    later = managed.start(add_three, 12, start_at=datetime.now(timezone.utc) + timedelta(hours=1))
    before = [managed.state(each) for each in (running, finished, pending, terminated, later)]
    history = managed.history(finished)
    managed.client.purge_orchestration(purged)
    server.kill9()
    server.restart()
    once_reachable(lambda: managed.state(running))
    assert [managed.state(each) for each in (running, finished, pending, terminated, later)] == before
    assert managed.history(finished) == history
    assert managed.client.get_orchestration_state(purged) is None
    with managed.worker(program):
        assert managed.output(pending) == 13
        assert managed.events(pending, "ExecutionStarted")[0].tags == {"team": "blue"}
        assert managed.status(running) == Status.SUSPENDED
        managed.client.resume_orchestration(running)
        managed.client.raise_orchestration_event(running, "number", data=3)
        assert managed.output(running) == [1, 2, 3]
        assert managed.status(later) == Status.PENDING


def test_timers_that_came_due_while_the_server_was_away_fire_after_it_is_back(
    managed: Sdk, server: Server
):
    """S-6.1: each of them once, none of them before its time."""
    with managed.worker(program):
        instances = [managed.start(sleep_milliseconds, 50 * n) for n in range(30)]
        for each in instances:
            managed.client.wait_for_orchestration_start(each, timeout=10)
        server.kill9()
        server.restart()
        for each in instances:
            assert finish_despite_outages(managed, each).get_output() == "slept"
            created, fired = managed.events(each, "TimerCreated"), managed.events(each, "TimerFired")
            assert [event.fire_at for event in fired] == [event.fire_at for event in created]
            assert all(event.timestamp >= event.fire_at for event in fired)


def test_instances_at_rest_over_a_restart_are_woken_by_other_instances(managed: Sdk, server: Server):
    """S-3.5, S-7.4, S-8.2: a parent by its child's end, a receiver by an event that another sends."""
    with managed.worker(program):
        child = unique("child")
        parent = managed.start(wait_for_child, child)
        receiver = managed.start(collect_events, 1)
        managed.until_running(child)
        managed.until_running(receiver)
        server.kill9()
        server.restart()
        once_reachable(lambda: managed.client.raise_orchestration_event(child, "number", data="go"))
        assert managed.output(child) == ["go"]
        managed.run(send_number, receiver)
        assert managed.output(parent, timeout=10) == ["go"]
        assert managed.output(receiver, timeout=10) == ["from the other"]


def test_starts_repeated_after_an_outage_lead_to_one_orchestration_each(managed: Sdk, server: Server):
    """S-1.13, S-10.3: a client that got no answer asks again under the same id."""
    ids = [unique("start") for _ in range(120)]
    accepted: list[str] = []

    def start_all(mine: list[str]) -> None:
        client = managed.new_client()
        for each in mine:
            while each not in accepted:
                try:
                    client.schedule_new_orchestration(add_three, input=1, instance_id=each)
                    accepted.append(each)
                except grpc.RpcError as error:
                    if error.code() == grpc.StatusCode.ALREADY_EXISTS:
                        accepted.append(each)
                    else:
                        assert error.code() == grpc.StatusCode.UNAVAILABLE, error.details()
                        time.sleep(0.02)

    threads = [threading.Thread(target=start_all, args=(ids[n::4],), daemon=True) for n in range(4)]
    for thread in threads:
        thread.start()
    for progress in (30, 70):
        eventually(lambda: len(accepted) >= progress, f"{progress} starts accepted")
        server.kill9()
        server.restart()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(accepted) == sorted(ids)
    with managed.worker(program):
        for each in ids:
            assert finish_despite_outages(managed, each).get_output() == 4
            assert_lawful(managed, each)
