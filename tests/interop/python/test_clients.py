"""The clients as applications use them: async code on its own loop, and many clients at once."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from durabletask import task
from durabletask.worker import ConcurrencyOptions

from sdk import DEADLINE, Program, Sdk, Status, unique

program = Program()
barrier = threading.Barrier(2)


@program.activity
def add_one(_, number):
    return number + 1


@program.orchestrator
def add_three(context: task.OrchestrationContext, number):
    for _ in range(3):
        number = yield context.call_activity(add_one, input=number)
    return number


@program.orchestrator
def wait_for_release(context: task.OrchestrationContext, _):
    return (yield context.wait_for_external_event("release"))


@program.activity
def meet_at_barrier(_, __):
    barrier.wait(DEADLINE)
    return threading.get_ident()


@program.orchestrator
def two_at_the_barrier(context: task.OrchestrationContext, _):
    return (yield task.when_all([context.call_activity(meet_at_barrier) for _ in range(2)]))


def test_a_whole_life_of_an_orchestration_with_every_client(every_sdk: Sdk):
    """Section 19: start, wait, suspend, resume, event, state, history, restart, terminate, purge."""
    instance = every_sdk.start(wait_for_release)
    every_sdk.until_running(instance)
    every_sdk.client.suspend_orchestration(instance)
    assert every_sdk.status(instance) == Status.SUSPENDED
    every_sdk.client.resume_orchestration(instance)
    every_sdk.client.raise_orchestration_event(instance, "release", data=[1, 2])
    assert every_sdk.output(instance) == [1, 2]
    assert every_sdk.kinds(instance)[-1] == "ExecutionCompleted"
    assert every_sdk.client.restart_orchestration(instance) == instance
    every_sdk.client.terminate_orchestration(instance, output="enough")
    assert every_sdk.finish(instance).runtime_status == Status.TERMINATED
    assert every_sdk.client.purge_orchestration(instance).deleted_instance_count == 1


def test_async_code_runs_a_whole_life_of_an_orchestration(every_sdk: Sdk):
    """Section 19: start, wait, suspend, resume, event, state, history, purge."""

    async def life() -> None:
        client = every_sdk.async_client()
        instance = await client.schedule_new_orchestration(wait_for_release, instance_id=unique())
        state = await client.wait_for_orchestration_start(instance, timeout=DEADLINE)
        assert state.runtime_status == Status.RUNNING
        await client.suspend_orchestration(instance)
        assert (await client.get_orchestration_state(instance)).runtime_status == Status.SUSPENDED
        await client.resume_orchestration(instance)
        await client.raise_orchestration_event(instance, "release", data=[1, 2])
        state = await client.wait_for_orchestration_completion(instance, timeout=DEADLINE)
        assert state.get_output() == [1, 2]
        assert len(await client.get_orchestration_history(instance)) > 5
        assert (await client.purge_orchestration(instance)).deleted_instance_count == 1
        assert await client.get_orchestration_state(instance) is None
        await client.close()

    asyncio.run(life())


def test_a_hundred_orchestrations_are_awaited_at_once_on_one_async_client(every_sdk: Sdk):
    """S-1.17, S-11.7."""

    async def gather() -> list[int]:
        client = every_sdk.async_client()

        async def one(number: int) -> int:
            instance = await client.schedule_new_orchestration(add_three, input=number, instance_id=unique())
            state = await client.wait_for_orchestration_completion(instance, timeout=DEADLINE)
            return state.get_output()

        try:
            return await asyncio.gather(*(one(number) for number in range(100)))
        finally:
            await client.close()

    assert asyncio.run(gather()) == [number + 3 for number in range(100)]


def test_eight_clients_with_twenty_five_orchestrations_each_do_not_mix_them_up(every_sdk: Sdk):
    """S-0.1, S-0.3."""

    def one_client(client_number: int) -> list[int]:
        client = every_sdk.new_client()
        starts = [1_000 * client_number + n for n in range(25)]
        ids = [
            client.schedule_new_orchestration(add_three, input=n, instance_id=unique()) for n in starts
        ]
        states = [client.wait_for_orchestration_completion(each, timeout=DEADLINE) for each in ids]
        return [state.get_output() - n for state, n in zip(states, starts, strict=True)]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(one_client, range(8)))
    assert results == [[3] * 25] * 8


def test_two_workers_of_one_hub_share_the_work(managed: Sdk):
    """S-13.15, S-13.6: each has room for one activity, and both activities must run at once."""
    one = {"concurrency_options": ConcurrencyOptions(maximum_concurrent_activity_work_items=1)}
    with managed.in_hub("second") as hub, hub.worker(program, **one), hub.worker(program, **one):
        assert len(set(hub.run(two_at_the_barrier))) == 2


def test_work_that_waits_for_a_worker_runs_when_one_connects(managed: Sdk):
    """S-2.5, S-3.5."""
    with managed.in_hub("second") as hub:
        instances = [hub.start(add_three, number) for number in range(20)]
        assert {hub.status(each) for each in instances} == {Status.PENDING}
        with hub.worker(program):
            assert [hub.output(each) for each in instances] == [number + 3 for number in range(20)]


def test_a_worker_that_was_stopped_can_be_started_again(managed: Sdk):
    """S-13.4."""
    with managed.in_hub("second") as hub, hub.worker(program) as worker:
        assert hub.run(add_three, 0) == 3
        worker.stop()
        instance = hub.start(add_three, 1)
        worker.start()
        assert hub.output(instance) == 4


def test_two_hundred_orchestrations_on_one_worker_all_finish(managed: Sdk):
    """S-13.15: the kinds of work do not starve each other."""
    instances = [managed.start(add_three, number) for number in range(200)]
    assert [managed.output(each) for each in instances] == [number + 3 for number in range(200)]
