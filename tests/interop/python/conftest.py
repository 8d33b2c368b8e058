"""Servers and SDKs for the tests of this folder.

Most tests share one server per session and tell their instances apart by id. Tests that take a server
down have one of their own.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sdk import ALL_KINDS, KINDS, Sdk
from server import START_SECONDS, Server

HUBS = ["default", "idle", "second", "versions", "filters", "purge", "lists", "lost", "raw", "exports"]
"""`idle` never has a worker, `second` has one where a test starts it; the rest have one topic each."""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("shared"), "--task-hubs", ",".join(HUBS)).start()
    _wait_until_serving(server)
    yield server
    assert server.is_running(), f"the shared server ended by itself\n{server.log_tail()}"
    server.stop()


def _wait_until_serving(server: Server) -> None:
    """A server prints its addresses before its store is open; the health service tells when it is."""
    request = health_pb2.HealthCheckRequest()
    with grpc.insecure_channel(server.address) as channel:
        for answer in health_pb2_grpc.HealthStub(channel).Watch(request, timeout=START_SECONDS):
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Makes servers of the test's own, which are ended with it."""
    servers: list[Server] = []

    def start(*flags: str, environment: dict[str, str] | None = None) -> Server:
        folder = tmp_path / f"server-{len(servers)}"
        folder.mkdir()
        servers.append(Server(folder, *flags, environment=environment))
        return servers[-1].start()

    yield start
    for server in servers:
        if server.is_running():
            server.kill9()


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def sdk(request: pytest.FixtureRequest, server: Server) -> Iterator[Sdk]:
    """The plain package with its sync client, then the managed one with its async client.

    A worker for the module's `program`, if it has one, runs beside it. Plain `durabletask` names no hub.
    """
    yield from _sdk_with_worker(request, server, *request.param)


@pytest.fixture(scope="module", params=ALL_KINDS, ids="-".join)
def every_sdk(request: pytest.FixtureRequest, server: Server) -> Iterator[Sdk]:
    """Each package with each of its clients."""
    yield from _sdk_with_worker(request, server, *request.param)


@pytest.fixture(scope="module")
def managed(request: pytest.FixtureRequest, server: Server) -> Iterator[Sdk]:
    """One kind alone, for what depends on the server's work rather than on the client."""
    yield from _sdk_with_worker(request, server, "durabletask-azuremanaged", "sync")


def _sdk_with_worker(
    request: pytest.FixtureRequest, server: Server, package: str, style: str
) -> Iterator[Sdk]:
    sdk = Sdk(package, style, server.address, None if package == "durabletask" else "default")
    program = getattr(request.module, "program", None)
    try:
        if program is None:
            yield sdk
        else:
            with sdk.worker(program):
                yield sdk
                if gates := getattr(request.module, "gates", None):
                    gates.open_all()
    finally:
        sdk.close()
