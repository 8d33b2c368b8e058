"""Scheduled tasks of the SDK: recurring orchestrations on a grid of due times.

The SDK makes them of an entity for each schedule, signals that the entity sends to itself, and orchestrations
that the entity starts; an orchestration's id ends with the due time it was started for.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone

import pytest
from durabletask import task
from durabletask.client import OrchestrationQuery, OrchestrationState
from durabletask.entities import EntityInstanceId
from durabletask.scheduled import (
    AsyncScheduledTaskClient,
    ScheduleClient,
    ScheduleCreationOptions,
    ScheduledTaskClient,
    ScheduleQuery,
    ScheduleStatus,
    ScheduleUpdateOptions,
)

from sdk import DEADLINE, Program, Sdk, Status, Tally, eventually, once_reachable, unique
from server import Server

INTERVAL = timedelta(seconds=1)
"""The shortest that the SDK allows."""

LATE = 1.0
"""Seconds by which a start may come after its due time."""

program = Program()
program.extensions.append(lambda worker: worker.configure_scheduled_tasks())
runs = Tally()


@program.activity
def count_run(_, key):
    return runs.add(key)


@program.orchestrator
def scheduled(context: task.OrchestrationContext, key):
    yield context.call_activity(count_run, input=key)
    return key


@program.orchestrator
def wait_for_release(context: task.OrchestrationContext, _):
    return (yield context.wait_for_external_event("release"))


@program.orchestrator
def sleep_seconds(context: task.OrchestrationContext, seconds):
    """So that a due time has passed when it ends."""
    yield context.create_timer(timedelta(seconds=seconds))


def now() -> datetime:
    return datetime.now(timezone.utc)


def soon(seconds: float = 0.6) -> datetime:
    """The start of a grid that is not that of whole seconds."""
    return now() + timedelta(seconds=seconds)


class Schedules:
    """The SDK's client for schedules, which deletes at the end what it made."""

    def __init__(self, sdk: Sdk):
        self.sdk = sdk
        self.client = ScheduledTaskClient(sdk.client, operation_timeout=DEADLINE)
        self._created: list[str] = []

    def create(self, *, start_at: datetime | None = None, **options: object) -> ScheduleClient:
        name = unique("schedule")
        self._created.append(name)
        settings = {"orchestration_name": "scheduled", "orchestration_input": name, "interval": INTERVAL, **options}
        return self.client.create_schedule(
            ScheduleCreationOptions(schedule_id=name, start_at=start_at or soon(), **settings)
        )

    def started(self, schedule: ScheduleClient) -> dict[datetime, OrchestrationState]:
        """What the schedule has started, by due time, in that order."""
        prefix = f"{schedule.schedule_id}-"
        states = self.sdk.client.get_all_orchestration_states(OrchestrationQuery(instance_id_prefix=prefix))
        due = {datetime.fromisoformat(state.instance_id.removeprefix(prefix)): state for state in states}
        assert len(due) == len(states)
        return dict(sorted(due.items()))

    def until_started(self, schedule: ScheduleClient, count: int) -> dict[datetime, OrchestrationState]:
        def enough() -> dict[datetime, OrchestrationState] | None:
            started = self.started(schedule)
            return started if len(started) >= count else None

        return eventually(enough, f"{count} runs of {schedule.schedule_id}")

    def delete_all(self) -> None:
        for each in self._created:
            if self.client.get_schedule(each) is not None:
                self.client.get_schedule_client(each).delete()


@pytest.fixture
def schedules(managed: Sdk) -> Iterator[Schedules]:
    schedules = Schedules(managed)
    yield schedules
    schedules.delete_all()


@pytest.fixture
def schedules_of_each(sdk: Sdk) -> Iterator[Schedules]:
    """With each package."""
    schedules = Schedules(sdk)
    yield schedules
    schedules.delete_all()


def assert_on_grid(started: dict[datetime, OrchestrationState], start: datetime, interval: timedelta) -> None:
    """Each due time is one of the grid, none is left out, and each start was punctual."""
    steps = [(due - start) / interval for due in started]
    assert steps == [float(round(steps[0]) + number) for number in range(len(steps))], steps
    assert_punctual(started)


def assert_punctual(started: dict[datetime, OrchestrationState]) -> None:
    for due, state in started.items():
        late = (created_at(state) - due).total_seconds()
        assert 0 <= late <= LATE, f"{state.instance_id} was started {late} s after it was due"


def created_at(state: OrchestrationState) -> datetime:
    return state.created_at.replace(tzinfo=timezone.utc)


def test_a_schedule_starts_one_orchestration_at_each_due_time(schedules_of_each: Schedules):
    """S-17.2, S-17.3, S-6.7, S-12.18."""
    schedules = schedules_of_each
    start = soon()
    schedule = schedules.create(start_at=start)
    described = schedule.describe()
    assert described.schedule_id == schedule.schedule_id
    assert described.orchestration_name == "scheduled"
    assert described.orchestration_input == schedule.schedule_id
    assert (described.interval, described.start_at) == (INTERVAL, start)
    assert described.status == ScheduleStatus.ACTIVE
    schedules.until_started(schedule, 3)
    schedule.delete()
    started = schedules.started(schedule)
    assert next(iter(started)) == start
    assert_on_grid(started, start, INTERVAL)
    for state in started.values():
        assert schedules.sdk.output(state.instance_id) == schedule.schedule_id
    assert runs[schedule.schedule_id] == len(started)


def test_schedules_are_found_by_id_prefix_and_status(schedules_of_each: Schedules):
    """S-17.2, S-12.39."""
    schedules = schedules_of_each
    first = schedules.create(start_at=now() + timedelta(days=1))
    second = schedules.create(start_at=now() + timedelta(days=1))
    second.pause()
    client = schedules.client
    assert client.get_schedule(first.schedule_id).status == ScheduleStatus.ACTIVE
    assert client.get_schedule(unique("nobody")) is None
    listed = {each.schedule_id: each.status for each in client.list_schedules()}
    assert listed[first.schedule_id] == ScheduleStatus.ACTIVE
    assert listed[second.schedule_id] == ScheduleStatus.PAUSED
    prefixed = client.list_schedules(ScheduleQuery(schedule_id_prefix=first.schedule_id, page_size=1))
    assert [each.schedule_id for each in prefixed] == [first.schedule_id]
    paused = client.list_schedules(ScheduleQuery(status=ScheduleStatus.PAUSED, page_size=1))
    assert second.schedule_id in [each.schedule_id for each in paused]
    assert first.schedule_id not in [each.schedule_id for each in paused]


def test_a_paused_schedule_starts_nothing_and_goes_on_on_its_grid(schedules: Schedules):
    """S-17.1, S-17.2: superseded signals are told apart."""
    start = soon()
    schedule = schedules.create(start_at=start)
    schedules.until_started(schedule, 1)
    schedule.pause()
    assert schedule.describe().status == ScheduleStatus.PAUSED
    before = schedules.started(schedule)
    schedules.sdk.run(sleep_seconds, 1.5)
    assert list(schedules.started(schedule)) == list(before)
    resumed = now()
    schedule.resume()
    assert schedule.describe().status == ScheduleStatus.ACTIVE
    schedules.until_started(schedule, len(before) + 2)
    schedule.delete()
    later = {due: state for due, state in schedules.started(schedule).items() if due not in before}
    assert next(iter(later)) > resumed
    assert_on_grid(later, start, INTERVAL)


def test_an_updated_schedule_has_a_new_grid_and_input(schedules: Schedules):
    """S-17.1."""
    start = soon()
    schedule = schedules.create(start_at=start, interval=timedelta(hours=1))
    (first,) = schedules.until_started(schedule, 1)
    assert first == start
    schedule.update(ScheduleUpdateOptions(interval=timedelta(seconds=1.5), orchestration_input="changed"))
    described = schedule.describe()
    assert (described.interval, described.orchestration_input) == (timedelta(seconds=1.5), "changed")
    schedules.until_started(schedule, 2)
    schedule.delete()
    later = {due: state for due, state in schedules.started(schedule).items() if due != first}
    assert_on_grid(later, start, timedelta(seconds=1.5))
    assert {schedules.sdk.output(state.instance_id) for state in later.values()} == {"changed"}


def test_a_deleted_schedule_is_gone_and_can_be_made_again(schedules: Schedules):
    """S-17.2, S-12.17: its signals that are still to come change nothing."""
    schedule = schedules.create()
    schedules.until_started(schedule, 1)
    schedule.delete()
    assert schedules.client.get_schedule(schedule.schedule_id) is None
    query = ScheduleQuery(schedule_id_prefix=schedule.schedule_id)
    assert schedules.client.list_schedules(query) == []
    before = schedules.started(schedule)
    schedules.sdk.run(sleep_seconds, 1.5)
    assert list(schedules.started(schedule)) == list(before)
    assert schedules.client.get_schedule(schedule.schedule_id) is None
    again = ScheduleCreationOptions(
        schedule_id=schedule.schedule_id, orchestration_name="scheduled", interval=INTERVAL, start_at=soon()
    )
    schedule.create(again)
    schedules.until_started(schedule, len(before) + 1)


def test_an_operation_that_the_status_forbids_is_told(schedules: Schedules):
    """S-12.15, S-17.1: by way of the orchestration that calls the entity."""
    schedule = schedules.create(start_at=now() + timedelta(days=1))
    with pytest.raises(RuntimeError, match="resume_schedule"):
        schedule.resume()
    missing = schedules.client.get_schedule_client(unique("nobody"))
    with pytest.raises(RuntimeError, match="pause_schedule"):
        missing.pause()
    assert schedule.describe().status == ScheduleStatus.ACTIVE


def test_a_run_that_is_still_active_is_not_overlapped(schedules: Schedules):
    """S-17.2, S-10.7: the active instance silently wins, a finished one is replaced."""
    instance = unique("fixed")
    schedule = schedules.create(orchestration_name="wait_for_release", orchestration_instance_id=instance)
    sdk = schedules.sdk
    first = eventually(lambda: sdk.client.get_orchestration_state(instance), f"{instance} started")
    ran = schedule.describe().last_run_at
    eventually(lambda: (schedule.describe().last_run_at - ran) >= 2 * INTERVAL, "two more due times")
    assert sdk.state(instance).created_at == first.created_at
    sdk.client.raise_orchestration_event(instance, "release", data="released")
    eventually(lambda: sdk.state(instance).created_at > first.created_at, f"{instance} replaced")
    schedule.delete()
    sdk.client.terminate_orchestration(instance)


def test_a_schedule_that_is_late_may_start_at_once_and_then_keeps_its_grid(schedules: Schedules):
    """S-17.2: a self-signal without a delay."""
    start = now() - timedelta(seconds=100.4)
    schedule = schedules.create(start_at=start, start_immediately_if_late=True)
    schedules.until_started(schedule, 3)
    schedule.delete()
    started = schedules.started(schedule)
    later = dict(list(started.items())[1:])
    assert_on_grid(later, start, INTERVAL)
    assert_punctual(started)


def test_a_schedule_ends_at_its_end(schedules: Schedules):
    """S-17.2, S-12.18: the entity signals its own deletion."""
    start = soon()
    schedule = schedules.create(start_at=start, end_at=start + timedelta(seconds=1.5))
    eventually(lambda: schedules.client.get_schedule(schedule.schedule_id) is None, "the schedule ended")
    started = schedules.started(schedule)
    assert list(started) == [start, start + INTERVAL]
    assert_on_grid(started, start, INTERVAL)


def test_the_async_client_manages_schedules_too(managed: Sdk):
    """S-17.1, S-17.2."""
    name = unique("schedule")
    changed = f"{name} changed"

    async def manage() -> None:
        client = managed.async_client()
        try:
            schedules = AsyncScheduledTaskClient(client, operation_timeout=DEADLINE)
            options = ScheduleCreationOptions(
                schedule_id=name, orchestration_name="scheduled", interval=INTERVAL, start_at=soon()
            )
            schedule = await schedules.create_schedule(options)
            listed = await schedules.list_schedules(ScheduleQuery(schedule_id_prefix=name))
            assert [each.schedule_id for each in listed] == [name]
            await schedule.pause()
            assert (await schedules.get_schedule(name)).status == ScheduleStatus.PAUSED
            await schedule.update(ScheduleUpdateOptions(orchestration_input=changed))
            await schedule.resume()
            assert (await schedule.describe()).orchestration_input == changed
            deadline = time.monotonic() + DEADLINE
            while not runs[changed]:
                assert time.monotonic() < deadline, "no run of the changed schedule"
                await asyncio.sleep(0.05)
            await schedule.delete()
            assert await schedules.get_schedule(name) is None
        finally:
            await client.close()

    asyncio.run(manage())


@pytest.fixture
def own(new_server: Callable[..., Server]) -> Iterator[tuple[Server, Schedules]]:
    """A server of the test's own with the client of its schedules."""
    server = new_server()
    sdk = Sdk("durabletask-azuremanaged", "sync", server.address, "default", quick_reconnect=True)
    yield server, Schedules(sdk)
    sdk.close()


def test_a_schedule_goes_on_on_its_grid_after_a_kill(own: tuple[Server, Schedules]):
    """S-17.2, S-17.3, S-6.7, S-10.7: each due time starts one orchestration at most; one that passed while the
    server was away is made up for once."""
    server, schedules = own
    with schedules.sdk.worker(program):
        start = soon()
        schedule = schedules.create(start_at=start)
        paused = schedules.create(start_at=now() + timedelta(days=1))
        paused.pause()
        schedules.until_started(schedule, 2)
        killed = now()
        server.kill9()
        # So that two due times pass without a server.
        time.sleep(2 * INTERVAL.total_seconds())
        server.restart()
        back = now()
        seen = once_reachable(lambda: schedules.started(schedule))
        running = once_reachable(lambda: schedules.until_started(schedule, len(seen) + 3))
        assert schedule.describe().status == ScheduleStatus.ACTIVE
        assert paused.describe().status == ScheduleStatus.PAUSED
        paused.resume()
        assert paused.describe().status == ScheduleStatus.ACTIVE
        schedule.delete()
        started = schedules.started(schedule)
        for due, state in (seen | running).items():
            assert started[due].created_at == state.created_at, f"{due} was started more than once"
        missed = {due: state for due, state in started.items() if killed <= due <= back}
        assert len(missed) <= 1, missed
        assert all(((due - start) / INTERVAL).is_integer() for due in started), list(started)
        assert_on_grid({due: state for due, state in started.items() if due < killed}, start, INTERVAL)
        assert_on_grid({due: state for due, state in started.items() if due > back}, start, INTERVAL)
        for state in started.values():
            assert schedules.sdk.finish(state.instance_id).runtime_status == Status.COMPLETED
            assert schedules.sdk.kinds(state.instance_id).count("ExecutionStarted") == 1
        schedules.delete_all()


def test_a_schedule_made_for_a_far_year_waits(schedules: Schedules):
    """S-17.3, S-6.3: delays of years work, and can be given up."""
    schedule = schedules.create(start_at=now() + timedelta(days=365 * 20))
    assert schedules.started(schedule) == {}
    entity = EntityInstanceId("schedule", schedule.schedule_id)
    assert schedules.sdk.entity(entity).backlog_queue_size == 0
    schedule.delete()
    assert schedules.client.get_schedule(schedule.schedule_id) is None
