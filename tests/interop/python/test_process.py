"""The server as a process: what it prints, how it is watched, how it ends."""

import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator

import grpc
import pytest
from durabletask import task
from durabletask.internal import orchestrator_service_pb2 as pb
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from sdk import Program, Sdk, Status, once_reachable
from server import STOP_SECONDS, Server

program = Program()


@program.orchestrator
def wait_for_release(context: task.OrchestrationContext, _):
    return (yield context.wait_for_external_event("release"))


@pytest.fixture
def own(new_server: Callable[..., Server]) -> Iterator[tuple[Server, Sdk]]:
    server = new_server()
    sdk = Sdk("durabletask-azuremanaged", "sync", server.address, "default", True)
    yield server, sdk
    sdk.close()


def test_the_connection_string_names_the_bound_address_and_the_default_hub(server: Server):
    """S-1.4."""
    expected = f"Endpoint=http://{server.address};Authentication=None;TaskHub=default"
    assert server.connection_string == expected
    assert not server.address.endswith(":0")


def test_a_ready_server_answers_its_health_check_with_204(server: Server):
    """Section 1.3: readiness for those who do not speak gRPC."""
    with urllib.request.urlopen(f"http://{server.health_address}/healthz", timeout=10) as answer:
        assert answer.status == 204


def test_the_standard_health_service_says_serving(server: Server):
    """Section 1.3: readiness for those who do."""
    with grpc.insecure_channel(server.address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_lists_the_service_without_a_package(server: Server):
    """S-1.1."""
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.insecure_channel(server.address) as channel:
        # The messages of versions v1 and v1alpha are the same on the wire.
        call = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        answer = next(call(iter([request]), timeout=10))
    names = [service.name for service in answer.list_services_response.service]
    assert "TaskHubSidecarService" in names


def test_a_server_that_is_asked_to_stop_exits_with_zero_and_keeps_everything(own):
    """S-1.14, S-0.6: within ten seconds, also with a worker and a waiting client connected."""
    server, sdk = own
    with sdk.worker(program):
        instance = sdk.start(wait_for_release)
        sdk.until_running(instance)
        outcome: list[grpc.StatusCode] = []
        waiter = threading.Thread(target=lambda: outcome.append(wait_for_refusal(sdk, instance)))
        waiter.start()
        assert server.stop() == 0, server.log_tail()
        waiter.join(STOP_SECONDS)
        assert outcome == [grpc.StatusCode.UNAVAILABLE], "S-11.7"
        server.restart()
        state = once_reachable(lambda: sdk.state(instance))
        assert state.runtime_status == Status.RUNNING
        sdk.client.raise_orchestration_event(instance, "release", data="after the restart")
        assert sdk.output(instance) == "after the restart"


def wait_for_refusal(sdk: Sdk, instance: str) -> grpc.StatusCode:
    try:
        sdk.new_client().wait_for_orchestration_completion(instance, timeout=60)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_streams_of_a_stopping_server_end_as_unavailable(own):
    """S-1.14, S-13.2: after a first message that comes at once."""
    server, sdk = own
    with sdk.stub() as (stub, metadata):
        stream = stub.GetWorkItems(pb.GetWorkItemsRequest(), metadata=metadata)
        assert next(stream).WhichOneof("request") == "healthPing"
        assert server.stop() == 0, server.log_tail()
        with pytest.raises(grpc.RpcError) as ended:
            while True:
                assert next(stream).WhichOneof("request") == "healthPing"
    assert ended.value.code() == grpc.StatusCode.UNAVAILABLE


def test_a_second_server_on_the_same_data_folder_is_refused(own):
    """The data of one server belongs to one process."""
    server, sdk = own
    second = Server(server.folder)
    ended = subprocess.run(
        second.command(), capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL, check=False
    )
    assert ended.returncode != 0
    assert str(server.data_dir) in ended.stdout + ended.stderr
    assert sdk.client.get_orchestration_state("still-served") is None
