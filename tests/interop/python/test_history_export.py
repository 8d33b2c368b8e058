"""The SDK's export of finished histories: an entity for each job, and an orchestration that walks the pages.

The hub `exports` is this file's own; each test looks at what finished after it began.
"""

import gzip
import json
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from durabletask import task
from durabletask.extensions.history_export import (
    ExportDestination,
    ExportFormat,
    ExportFormatKind,
    ExportHistoryClient,
    ExportJobCreationOptions,
    ExportJobDescription,
    ExportJobQuery,
    ExportJobStatus,
    ExportMode,
    orchestrator,
    orchestrator_instance_id_for,
)
from durabletask.worker import TaskHubGrpcWorker

from sdk import DEADLINE, Program, Sdk, Status, eventually, unique

program = Program()


@program.activity
def add_one(_, number):
    return number + 1


@program.orchestrator
def add_in_activity(context: task.OrchestrationContext, number):
    return (yield context.call_activity(add_one, input=number))


@program.orchestrator
def fail_with_input(_, value):
    raise ValueError(value)


@program.orchestrator
def wait_for_release(context: task.OrchestrationContext, _):
    return (yield context.wait_for_external_event("release"))


class Shelf:
    """A destination in memory: what was written, by instance."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.written: dict[str, list[dict[str, Any]]] = {}

    def write(self, *, instance_id: str, payload: bytes, content_encoding: str | None, **_: Any) -> None:
        text = (gzip.decompress(payload) if content_encoding == "gzip" else payload).decode()
        document = [json.loads(line) for line in text.splitlines()]
        with self._lock:
            self.written.setdefault(instance_id, []).extend(document)


class Exports:
    """The hub with a worker for both the program and the export."""

    def __init__(self, hub: Sdk):
        self.hub = hub
        self.shelf = Shelf()
        self.client = ExportHistoryClient(hub.client, self.shelf)

    def extend(self, worker: TaskHubGrpcWorker) -> None:
        self.client.register_worker(worker)

    def begin(self, **options: Any) -> str:
        job = unique("job")
        settings: dict[str, Any] = {
            "mode": ExportMode.BATCH,
            "destination": ExportDestination(container="shelf"),
            "max_instances_per_batch": 2,
            "max_parallel_exports": 2,
            **options,
        }
        self.client.create_job(ExportJobCreationOptions(**settings), job_id=job)
        return job

    def finish(self, job: str) -> ExportJobDescription:
        """The job at its end. Its orchestration ends a little later, and must not fall into a later window."""
        ended = self.client.wait_for_job(job, timeout=DEADLINE, poll_interval=0.02)
        self.hub.finish(orchestrator_instance_id_for(job))
        return ended


@pytest.fixture
def exports(managed: Sdk) -> Iterator[Exports]:
    with managed.in_hub("exports") as hub:
        exports = Exports(hub)
        with_export = Program()
        with_export.orchestrators, with_export.activities = program.orchestrators, program.activities
        with_export.extensions.append(exports.extend)
        with hub.worker(with_export):
            yield exports


def now() -> datetime:
    return datetime.now(timezone.utc)


def test_a_batch_job_exports_what_finished_in_its_window(exports: Exports):
    """S-17.5, S-17.6, S-17.7, S-11.14 to S-11.17: over more pages than one generation of the job takes."""
    hub = exports.hub
    hub.run(add_in_activity, 0)
    since = now()
    finished = [hub.run_and_keep(add_in_activity, number) for number in range(9)]
    finished.append(hub.start(fail_with_input, "failed"))
    assert hub.finish(finished[-1]).runtime_status == Status.FAILED
    finished.append(hub.start(wait_for_release))
    hub.until_running(finished[-1])
    hub.client.terminate_orchestration(finished[-1])
    hub.finish(finished[-1])
    active = hub.start(wait_for_release)
    hub.until_running(active)
    until = now()
    hub.run(add_in_activity, 10)
    job = exports.begin(completed_time_from=since, completed_time_to=until)
    ended = exports.finish(job)
    assert ended.status == ExportJobStatus.COMPLETED, ended.last_error
    assert (ended.scanned_instances, ended.exported_instances, ended.failed_instances) == (11, 11, 0)
    assert sorted(exports.shelf.written) == sorted(finished)
    for instance, (header, *events) in exports.shelf.written.items():
        assert header["metadata"]["runtime_status"] == hub.status(instance).name
        assert [event["event_type"] for event in events] == [type(each).__name__ for each in hub.history(instance)]
        assert all(event["timestamp"] for event in events)
    driver = orchestrator_instance_id_for(job)
    assert hub.finish(driver).runtime_status == Status.COMPLETED
    assert hub.events(driver, "ExecutionStarted")[0].input != "", "S-3.4: the last generation is shown"
    hub.client.terminate_orchestration(active)


def test_a_job_in_json_tells_its_statuses_on_demand_and_can_be_listed(exports: Exports):
    """S-17.5, S-12.39: the entity's name is in mixed case."""
    hub = exports.hub
    since = now()
    hub.run_and_keep(add_in_activity, 1)
    failed = hub.start(fail_with_input, "failed")
    hub.finish(failed)
    job = exports.begin(
        completed_time_from=since,
        completed_time_to=now(),
        runtime_status=[Status.FAILED],
        format=ExportFormat(kind=ExportFormatKind.JSON),
    )
    assert exports.finish(job).status == ExportJobStatus.COMPLETED
    ((instance, (document,)),) = exports.shelf.written.items()
    assert (instance, document["metadata"]["failure_details"]["message"]) == (failed, "failed")
    listed = {each.job_id: each.status for each in exports.client.list_jobs()}
    assert listed[job] == ExportJobStatus.COMPLETED
    recent = ExportJobQuery(status=[ExportJobStatus.COMPLETED], last_modified_from=since, page_size=1)
    assert job in [each.job_id for each in exports.client.list_jobs(recent)]
    assert exports.client.get_job(unique("nobody")) is None


def test_a_continuous_job_exports_what_finishes_later_until_it_is_deleted(
    exports: Exports, monkeypatch: pytest.MonkeyPatch
):
    """S-11.15, S-11.17, S-17.5: each instance once; deletion ends the entity and its orchestration."""
    monkeypatch.setattr(orchestrator, "_CONTINUOUS_IDLE_DELAY_OVERRIDE", timedelta(milliseconds=50))
    hub = exports.hub
    since = now()
    finished = [hub.run_and_keep(add_in_activity, number) for number in range(3)]
    job = exports.begin(mode=ExportMode.CONTINUOUS, completed_time_from=since)
    eventually(lambda: len(exports.shelf.written) == 3, "the first three exported")
    for number in range(3):
        finished.append(hub.run_and_keep(add_in_activity, number))
        eventually(lambda: len(exports.shelf.written) == len(finished), "one more exported")
    assert sorted(exports.shelf.written) == sorted(finished)
    for instance, lines in exports.shelf.written.items():
        assert [line.get("kind") for line in lines].count("metadata") == 1, f"{instance} was exported again"
    assert exports.client.get_job(job).status == ExportJobStatus.ACTIVE
    exports.client.delete_job(job)
    assert exports.client.get_job(job) is None
    assert hub.client.get_orchestration_state(orchestrator_instance_id_for(job)) is None


def test_a_deleted_job_can_be_made_again(exports: Exports):
    """S-17.5, S-10.7, S-11.24: under the same ids."""
    hub = exports.hub
    since = now()
    finished = hub.run_and_keep(add_in_activity, 1)
    job = exports.begin(completed_time_from=since, completed_time_to=now())
    exports.finish(job)
    exports.client.delete_job(job)
    assert exports.client.get_job(job) is None
    options = ExportJobCreationOptions(
        mode=ExportMode.BATCH,
        completed_time_from=since,
        completed_time_to=now(),
        runtime_status=[Status.COMPLETED],
        destination=ExportDestination(container="shelf"),
    )
    exports.client.create_job(options, job_id=job)
    assert exports.finish(job).status == ExportJobStatus.COMPLETED
    assert finished in exports.shelf.written
