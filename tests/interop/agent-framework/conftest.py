"""Schedulers and workers for the tests of this folder, all with one scripted model."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from model import Model
from newsroom import Newsroom
from sdk import Sdk
from server import Server

KINDS = {"durabletask": "plain", "durabletask-azuremanaged": "managed"}
"""The packages that agents can run on, each with a hub of its own."""


@pytest.fixture(scope="session")
def model() -> Iterator[Model]:
    model = Model().start()
    yield model
    model.stop()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("shared"), "--task-hubs", ",".join(KINDS.values())).start()
    yield server
    assert server.is_running(), f"the shared server ended by itself\n{server.log_tail()}"
    server.stop()


@pytest.fixture(scope="session", params=KINDS)
def newsroom(request: pytest.FixtureRequest, server: Server, model: Model) -> Iterator[Newsroom]:
    """On the shared server, with a worker: with each package."""
    newsroom = Newsroom(server, model, Sdk(request.param, "sync", server.address, KINDS[request.param]), server.folder)
    worker = newsroom.start_worker()
    yield newsroom
    was_running = worker.is_running()
    newsroom.close()
    assert was_running, f"the worker ended by itself\n{worker.log_tail()}"


@pytest.fixture
def own(tmp_path: Path, model: Model) -> Iterator[Newsroom]:
    """Of the test's own, without a worker yet: scheduler and workers can be killed."""
    with _running(Server(tmp_path), model) as newsroom:
        yield newsroom


@pytest.fixture
def small(tmp_path: Path, model: Model) -> Iterator[Newsroom]:
    """Of the test's own, with little room for each session, and a worker."""
    with _running(Server(tmp_path, "--payload-bytes-max", "6000"), model) as newsroom:
        newsroom.start_worker()
        yield newsroom


@contextmanager
def _running(server: Server, model: Model) -> Iterator[Newsroom]:
    server.start()
    sdk = Sdk("durabletask-azuremanaged", "sync", server.address, "default", quick_reconnect=True)
    newsroom = Newsroom(server, model, sdk, server.folder)
    try:
        yield newsroom
    finally:
        newsroom.close()
        if server.is_running():
            server.kill9()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    """Shows what the workers of a failed test printed."""
    report = yield
    fixtures = getattr(item, "funcargs", {})
    newsrooms = [fixture for fixture in fixtures.values() if isinstance(fixture, Newsroom)]
    if report.failed:
        for worker in (worker for newsroom in newsrooms for worker in newsroom.workers):
            report.sections.append((f"worker {worker.name}", worker.log_tail()))
    return report
