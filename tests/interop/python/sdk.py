"""The published SDKs behind one face, so that each behaviour is written once and proven with both.

`Sdk` is one package (`durabletask` or `durabletask-azuremanaged`) with its sync or its async client,
bound to one server and one task hub. It adds no behaviour of its own: it names ids, waits with deadlines
and reads histories.
"""

import asyncio
import itertools
import queue
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from durabletask.azuremanaged.client import AsyncDurableTaskSchedulerClient, DurableTaskSchedulerClient
from durabletask.azuremanaged.worker import DurableTaskSchedulerWorker
from durabletask.client import (
    AsyncTaskHubGrpcClient,
    OrchestrationState,
    OrchestrationStatus,
    TaskHubGrpcClient,
)
from durabletask.entities import EntityInstanceId, EntityMetadata
from durabletask.grpc_options import GrpcChannelOptions, GrpcWorkerResiliencyOptions
from durabletask.history import HistoryEvent
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.internal import orchestrator_service_pb2_grpc as stubs
from durabletask.worker import TaskHubGrpcWorker, VersioningOptions, WorkItemFilters

DEADLINE = 30.0
"""Seconds after which a condition that should come true soon counts as never coming true."""

FALLBACK_HUB = "default"
"""The hub of calls that name none, S-1.6."""

Status = OrchestrationStatus

KINDS = [("durabletask", "sync"), ("durabletask-azuremanaged", "async")]
"""Packages and clients that most tests run with: each of both once."""

ALL_KINDS = [*KINDS, ("durabletask", "async"), ("durabletask-azuremanaged", "sync")]

QUICK_CHANNEL = GrpcChannelOptions(
    raw_options=[
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.min_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 200),
    ]
)
QUICK_WORKER = GrpcWorkerResiliencyOptions(
    reconnect_backoff_base_seconds=0.05, reconnect_backoff_cap_seconds=0.2
)


class Program:
    """The orchestrators, activities and entities of one test file, registered with each worker started for it.

    `extensions` are called with each such worker before it starts.
    """

    def __init__(self) -> None:
        self.orchestrators: list[Callable[..., Any]] = []
        self.activities: list[Callable[..., Any]] = []
        self.entities: list[Callable[..., Any]] = []
        self.extensions: list[Callable[[TaskHubGrpcWorker], None]] = []

    def orchestrator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        self.orchestrators.append(function)
        return function

    def activity(self, function: Callable[..., Any]) -> Callable[..., Any]:
        self.activities.append(function)
        return function

    def entity(self, entity: Callable[..., Any]) -> Callable[..., Any]:
        """A class or a function; it is known by its name in lower case."""
        self.entities.append(entity)
        return entity


class Gate:
    """Where an activity waits until the test lets it through; both sides give up after the deadline."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._opened = threading.Event()

    def pass_through(self) -> None:
        self._reached.set()
        if not self._opened.wait(DEADLINE):
            raise TimeoutError("the gate was never opened")

    def wait_until_reached(self) -> None:
        assert self._reached.wait(DEADLINE), "the gate was never reached"

    def open(self) -> None:
        self._opened.set()


class Gates(defaultdict[str, Gate]):
    """Gates by key, usually the instance id."""

    def __init__(self) -> None:
        super().__init__(Gate)

    def open_all(self) -> None:
        """So that a failed test leaves no activity behind that waits."""
        for gate in list(self.values()):
            gate.open()


class Tally:
    """Counts what activities did, by key; they run on threads of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: defaultdict[Any, int] = defaultdict(int)

    def add(self, key: Any) -> int:
        with self._lock:
            self._counts[key] += 1
            return self._counts[key]

    def __getitem__(self, key: Any) -> int:
        with self._lock:
            return self._counts[key]

    def total(self) -> int:
        with self._lock:
            return sum(self._counts.values())


class BlockingClient:
    """An async client called like the sync one: each call runs to its end on one private event loop."""

    def __init__(self, make: Callable[[], AsyncTaskHubGrpcClient]):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

        async def create() -> AsyncTaskHubGrpcClient:
            return make()

        self._client = asyncio.run_coroutine_threadsafe(create(), self._loop).result()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(method(*arguments, **options), self._loop).result()

        return call

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass
class Sdk:
    """One package and client style against one server and hub. `hub=None`: no hub is named at all.

    `quick_reconnect` is for tests that take the server away: it shortens the waiting between attempts of
    clients and workers, and nothing else.
    """

    package: str
    style: str
    address: str
    hub: str | None = None
    quick_reconnect: bool = False
    _closing: list[Callable[[], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client = self.new_client()
        self._history_client = self.client
        if self.style == "async" and self.hub not in (None, FALLBACK_HUB):
            # The async clients put their metadata on unary calls alone: grpc.aio files an interceptor under the
            # first kind that it implements. So they name no hub when they ask for a history, which is a stream.
            self._history_client = self.sync_client()
            self._closing.append(self._history_client.close)

    def new_client(self, **options: Any) -> Any:
        """A further client with its own options; closed together with this object."""
        client = BlockingClient(lambda: self.async_client(**options)) if self.style == "async" \
            else self.sync_client(**options)
        self._closing.append(client.close)
        return client

    def sync_client(self, **options: Any) -> TaskHubGrpcClient:
        if self.package == "durabletask":
            return TaskHubGrpcClient(**self._plain(), **options)
        return DurableTaskSchedulerClient(**self._managed(), **options)

    def async_client(self, **options: Any) -> AsyncTaskHubGrpcClient:
        if self.package == "durabletask":
            return AsyncTaskHubGrpcClient(**self._plain(), **options)
        return AsyncDurableTaskSchedulerClient(**self._managed(), **options)

    def new_worker(self, **options: Any) -> TaskHubGrpcWorker:
        if self.quick_reconnect:
            options["resiliency_options"] = QUICK_WORKER
        if self.package == "durabletask":
            return TaskHubGrpcWorker(**self._plain(), **options)
        return DurableTaskSchedulerWorker(**self._managed(), **options)

    @contextmanager
    def worker(
        self,
        program: Program,
        *,
        versioning: VersioningOptions | None = None,
        filters: WorkItemFilters | str | None = None,
        **options: Any,
    ) -> Iterator[TaskHubGrpcWorker]:
        """A running worker for `program`; `filters="registered"` asks for just what is registered."""
        worker = self.new_worker(**options)
        for orchestrator in program.orchestrators:
            worker.add_orchestrator(orchestrator)
        for activity in program.activities:
            worker.add_activity(activity)
        for entity in program.entities:
            worker.add_entity(entity)
        for extend in program.extensions:
            extend(worker)
        if versioning is not None:
            worker.use_versioning(versioning)
        if filters == "registered":
            worker.use_work_item_filters()
        elif filters is not None:
            worker.use_work_item_filters(filters)
        worker.start()
        try:
            yield worker
        finally:
            worker.stop()

    @contextmanager
    def in_hub(self, hub: str | None) -> Iterator["Sdk"]:
        """The same package and style in another hub."""
        other = Sdk(self.package, self.style, self.address, hub, self.quick_reconnect)
        try:
            yield other
        finally:
            other.close()

    @contextmanager
    def stub(self) -> Iterator[tuple[stubs.TaskHubSidecarServiceStub, list[tuple[str, str]]]]:
        """The SDK's own generated stub with the metadata of this hub, for what its clients hide."""
        with grpc.insecure_channel(self.address) as channel:
            yield stubs.TaskHubSidecarServiceStub(channel), self.metadata() or []

    def start(self, orchestrator: Callable[..., Any] | str, input: Any = None, **options: Any) -> str:
        options.setdefault("instance_id", unique())
        return self.client.schedule_new_orchestration(orchestrator, input=input, **options)

    def state(self, instance_id: str) -> OrchestrationState:
        state = self.client.get_orchestration_state(instance_id)
        assert state is not None, f"instance {instance_id} does not exist"
        return state

    def status(self, instance_id: str) -> OrchestrationStatus:
        return self.state(instance_id).runtime_status

    def until_running(self, instance_id: str) -> OrchestrationState:
        state = self.client.wait_for_orchestration_start(instance_id, timeout=DEADLINE)
        assert state is not None and state.runtime_status == Status.RUNNING, state
        return state

    def finish(self, instance_id: str, timeout: float = DEADLINE) -> OrchestrationState:
        state = self.client.wait_for_orchestration_completion(instance_id, timeout=timeout)
        assert state is not None, f"instance {instance_id} does not exist"
        return state

    def output(self, instance_id: str, timeout: float = DEADLINE) -> Any:
        """Waits for the end, which must be COMPLETED, and returns the output."""
        state = self.finish(instance_id, timeout)
        assert state.runtime_status == Status.COMPLETED, state
        return state.get_output()

    def run(self, orchestrator: Callable[..., Any] | str, input: Any = None, **options: Any) -> Any:
        return self.output(self.start(orchestrator, input, **options))

    def run_and_keep(self, orchestrator: Callable[..., Any] | str, input: Any = None, **options: Any) -> str:
        """Runs to COMPLETED and returns the id."""
        instance = self.start(orchestrator, input, **options)
        self.output(instance)
        return instance

    def history(self, instance_id: str, **options: Any) -> list[HistoryEvent]:
        return self._history_client.get_orchestration_history(instance_id, **options)

    def kinds(self, instance_id: str) -> list[str]:
        """The history as event names, such as `TaskScheduled`."""
        return [kind(event) for event in self.history(instance_id)]

    def events(self, instance_id: str, wanted: str) -> list[Any]:
        return [event for event in self.history(instance_id) if kind(event) == wanted]

    def entity(self, entity: EntityInstanceId) -> EntityMetadata:
        metadata = self.client.get_entity(entity)
        assert metadata is not None, f"entity {entity} does not exist"
        return metadata

    def entity_state(self, entity: EntityInstanceId) -> Any:
        """None for an entity that does not exist."""
        metadata = self.client.get_entity(entity)
        return None if metadata is None else metadata.get_typed_state()

    def until_entity_state(self, entity: EntityInstanceId, wanted: Any) -> None:
        """Asks until the entity has just this state, of just this type."""
        deadline = time.monotonic() + DEADLINE
        while True:
            state = self.entity_state(entity)
            if state == wanted and type(state) is type(wanted):
                return
            assert time.monotonic() < deadline, f"{entity} is {state!r} after {DEADLINE} s, not {wanted!r}"
            time.sleep(0.01)

    def locked_by(self, entity: EntityInstanceId) -> str | None:
        """The holder of the entity's lock. `EntityMetadata.get_locked_by` fails for the ids of orchestrations."""
        return self.entity(entity)._locked_by or None

    def metadata(self) -> list[tuple[str, str]] | None:
        return None if self.hub is None else [("taskhub", self.hub)]

    def close(self) -> None:
        while self._closing:
            self._closing.pop()()

    def _plain(self) -> dict[str, Any]:
        return {"host_address": self.address, "metadata": self.metadata(), **self._channel()}

    def _managed(self) -> dict[str, Any]:
        return {
            "host_address": self.address,
            "taskhub": self.hub,
            "token_credential": None,
            "secure_channel": False,
            **self._channel(),
        }

    def _channel(self) -> dict[str, Any]:
        return {"channel_options": QUICK_CHANNEL} if self.quick_reconnect else {}


class RawWorker:
    """A stream of work items that the test answers itself, for answers that the SDK's workers never give."""

    def __init__(self, sdk: Sdk):
        self._channel = grpc.insecure_channel(sdk.address)
        self.stub = stubs.TaskHubSidecarServiceStub(self._channel)
        self.metadata = sdk.metadata() or []
        self._items: queue.Queue[pb.WorkItem] = queue.Queue()
        self._stream = self.stub.GetWorkItems(pb.GetWorkItemsRequest(), metadata=self.metadata)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "RawWorker":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.cancel()
        self._reader.join()
        self._channel.close()

    def entity_item(self) -> tuple[pb.EntityRequest, str]:
        """The next work item, which must be a batch of an entity (S-12.8), and its completion token."""
        try:
            item = self._items.get(timeout=DEADLINE)
        except queue.Empty:
            raise AssertionError(f"no work item in {DEADLINE} s") from None
        assert item.WhichOneof("request") == "entityRequestV2", item
        return item.entityRequestV2, item.completionToken

    def complete_entity(self, token: str, **result: Any) -> None:
        self.stub.CompleteEntityTask(pb.EntityBatchResult(completionToken=token, **result), metadata=self.metadata)

    def abandon_entity(self, token: str) -> None:
        self.stub.AbandonTaskEntityWorkItem(
            pb.AbandonEntityTaskRequest(completionToken=token), metadata=self.metadata
        )

    def _read(self) -> None:
        try:
            for item in self._stream:
                if item.WhichOneof("request") != "healthPing":
                    self._items.put(item)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.CANCELLED, f"{error.code()}: {error.details()}"


_numbers = itertools.count(1)
_run = uuid.uuid4().hex[:8]


def unique(name: str = "instance") -> str:
    """An instance id that no other test uses."""
    return f"{name}-{_run}-{next(_numbers)}"


def kind(event: HistoryEvent) -> str:
    return type(event).__name__.removesuffix("Event")


def eventually(condition: Callable[[], Any], what: str, seconds: float = DEADLINE) -> Any:
    """Returns the first true value of `condition`, asked again and again; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def once_reachable(call: Callable[[], Any], seconds: float = DEADLINE) -> Any:
    """What `call` returns, made again for as long as the server is away."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE, f"{error.code()}: {error.details()}"
            assert time.monotonic() < deadline, f"not back within {seconds} s: {error.details()}"
            time.sleep(0.02)


class Refusal:
    """The error that `refused` caught."""

    def __init__(self) -> None:
        self.error: grpc.RpcError | None = None

    def details(self) -> str:
        assert self.error is not None, "nothing has been refused yet"
        return self.error.details()


@contextmanager
def refused(code: grpc.StatusCode, *words: str) -> Iterator[Refusal]:
    """The calls inside must be refused with `code` and a message that holds each of `words`."""
    refusal = Refusal()
    try:
        yield refusal
    except grpc.RpcError as error:
        assert error.code() == code, f"{error.code()}: {error.details()}"
        for word in words:
            assert word.lower() in error.details().lower(), error.details()
        refusal.error = error
    else:
        raise AssertionError(f"nothing was refused, {code} was due")
