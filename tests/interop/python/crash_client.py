"""A client that lives through outages, made of the SDK's generated stub alone.

The SDK's own client gives up or replaces its channel while the server is away; here each call says what
an outage means for it: `raise_event_once` tells whether it was answered, all others are made again until
they are, which is safe because each of them is idempotent for its caller.
"""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.internal import orchestrator_service_pb2_grpc as stubs
from google.protobuf.wrappers_pb2 import StringValue

from sdk import QUICK_CHANNEL

PATIENCE = 60.0
"""Seconds after which something that is still not done counts as lost."""

TERMINAL = frozenset(
    {
        pb.ORCHESTRATION_STATUS_COMPLETED,
        pb.ORCHESTRATION_STATUS_FAILED,
        pb.ORCHESTRATION_STATUS_TERMINATED,
        pb.ORCHESTRATION_STATUS_CANCELED,
    }
)


class PatientClient:
    """Calls to one hub, from any number of threads."""

    def __init__(self, address: str, hub: str):
        self._channel = grpc.insecure_channel(address, options=list(QUICK_CHANNEL.raw_options))
        self._stub = stubs.TaskHubSidecarServiceStub(self._channel)
        self._options = {"metadata": [("taskhub", hub)], "wait_for_ready": True}

    def close(self) -> None:
        self._channel.close()

    def start(self, instance: str, name: str, input: Any) -> None:
        """A start without an answer may have been accepted, and may have ended since: S-10.3 would begin
        it anew, so it is only repeated where the instance does not exist."""
        request = pb.CreateInstanceRequest(instanceId=instance, name=name, input=text(input))
        while not self._answered(self._stub.StartInstance, request):
            if self.find(instance) is not None:
                return

    def raise_event_once(self, instance: str, name: str, data: Any) -> bool:
        """Whether the call was answered; without an answer the event may or may not arrive."""
        request = pb.RaiseEventRequest(instanceId=instance, name=name, input=text(data))
        return self._answered(self._stub.RaiseEvent, request)

    def raise_event(self, instance: str, name: str, data: Any) -> None:
        """Until answered, so the event may arrive more than once."""
        while not self.raise_event_once(instance, name, data):
            pass

    def suspend(self, instance: str) -> None:
        self._until_answered(self._stub.SuspendInstance, pb.SuspendRequest(instanceId=instance))

    def resume(self, instance: str) -> None:
        self._until_answered(self._stub.ResumeInstance, pb.ResumeRequest(instanceId=instance))

    def terminate(self, instance: str, output: Any, *, recursive: bool) -> None:
        request = pb.TerminateRequest(instanceId=instance, output=text(output), recursive=recursive)
        self._until_answered(self._stub.TerminateInstance, request)

    def find(self, instance: str) -> pb.OrchestrationState | None:
        request = pb.GetInstanceRequest(instanceId=instance, getInputsAndOutputs=True)
        answer = self._until_answered(self._stub.GetInstance, request)
        return answer.orchestrationState if answer.exists else None

    def state(self, instance: str) -> pb.OrchestrationState:
        state = self.find(instance)
        assert state is not None, f"instance {instance} does not exist"
        return state

    def until_started(self, instance: str) -> None:
        request = pb.GetInstanceRequest(instanceId=instance)
        self._wait(self._stub.WaitForInstanceStart, request)

    def until_ended(self, instance: str) -> pb.OrchestrationState:
        request = pb.GetInstanceRequest(instanceId=instance, getInputsAndOutputs=True)
        return self._wait(self._stub.WaitForInstanceCompletion, request)

    def history(self, instance: str) -> list[pb.HistoryEvent]:
        request = pb.StreamInstanceHistoryRequest(instanceId=instance)

        def read(*arguments: Any, **options: Any) -> list[pb.HistoryEvent]:
            chunks = self._stub.StreamInstanceHistory(*arguments, **options)
            return [event for chunk in chunks for event in chunk.events]

        return self._until_answered(read, request)

    def all_states(self) -> Iterator[pb.OrchestrationState]:
        """Every instance of the hub."""
        query = pb.InstanceQuery(maxInstanceCount=500, fetchInputsAndOutputs=True)
        while True:
            page = self._until_answered(self._stub.QueryInstances, pb.QueryInstancesRequest(query=query))
            yield from page.orchestrationState
            if not page.HasField("continuationToken"):
                return
            query.continuationToken.CopyFrom(page.continuationToken)

    def _wait(self, method: Callable[..., Any], request: pb.GetInstanceRequest) -> pb.OrchestrationState:
        """The answer of a waiting call; one that never comes is told with the state of the instance."""
        try:
            return self._until_answered(method, request).orchestrationState
        except NotAnswered:
            pass
        state = self.find(request.instanceId)
        kinds = [event.WhichOneof("eventType") for event in self.history(request.instanceId)]
        raise AssertionError(f"waited {PATIENCE} s in vain for {state}with the history {kinds}")

    def _until_answered(self, method: Callable[..., Any], request: Any) -> Any:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return method(request, timeout=deadline - time.monotonic(), **self._options)
            except grpc.RpcError as error:
                _assert_outage(error, request)

    def _answered(self, method: Callable[..., Any], request: Any) -> bool:
        try:
            method(request, timeout=PATIENCE, **self._options)
        except grpc.RpcError as error:
            _assert_outage(error, request)
            return False
        return True


class NotAnswered(AssertionError):
    """A call that the server should long have answered."""


def _assert_outage(error: grpc.RpcError, request: Any) -> None:
    """Only a server that is away may fail a call here."""
    name = type(request).__name__
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        raise NotAnswered(f"no answer in {PATIENCE} s to {name} {request}") from error
    assert error.code() == grpc.StatusCode.UNAVAILABLE, f"{name} {request}: {error.code()}: {error.details()}"


def text(value: Any) -> StringValue:
    return StringValue(value=json.dumps(value))
