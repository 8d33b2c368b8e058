"""One hub, four languages: programs with the published Python, JavaScript, Java and Go SDKs work on the same instances.

INTEROP_JAVA_CLASSPATH and INTEROP_GO_PROGRAM name the programs that the Java and Go suites beside this folder have built.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from durabletask import task
from durabletask.entities import EntityInstanceId

from sdk import Program, Sdk
from server import REPOSITORY, Server

PATIENCE = 60
CLIENTS = ["python", "js", "java", "go"]


class Programs:
    """Runs the program of each language against one server."""

    def __init__(self, server: Server, hub: str):
        host, port = server.address.split(":")
        self._commands = {
            "js": ["node", str(REPOSITORY / "tests/interop/js/program.mjs"), server.address, hub],
            "java": ["java", "-cp", os.environ["INTEROP_JAVA_CLASSPATH"], "mainspring.Program", host, port, hub],
            "go": [os.environ["INTEROP_GO_PROGRAM"], host, port, hub],
        }

    def run(self, language: str, *arguments: str) -> str:
        """Lets a client do one thing, and returns what it printed."""
        ran = subprocess.run(
            [*self._commands[language], *arguments], capture_output=True, text=True, timeout=PATIENCE + 30
        )
        assert ran.returncode == 0, f"{language} {arguments}: {ran.stderr}"
        return ran.stdout.strip()

    @contextmanager
    def worker(self, language: str, *arguments: str) -> Iterator[subprocess.Popen]:
        """A worker process that has said that it works; killed at the end."""
        process = subprocess.Popen(
            [*self._commands[language], "work", *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            assert process.stdout.readline() == "working\n"
            yield process
        finally:
            process.kill()
            process.wait()


def until(what: str, is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_true():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.01)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path).start()
    yield server
    if server.is_running():
        server.stop()


@pytest.fixture
def sdk(server: Server) -> Iterator[Sdk]:
    sdk = Sdk("durabletask-azuremanaged", "sync", server.address, "default")
    yield sdk
    sdk.close()


def order_program() -> Program:
    program = Program()

    @program.orchestrator
    def order(context: task.OrchestrationContext, text):
        first = yield context.call_activity("python_step", input=text)
        second = yield context.call_activity("js_step", input=first)
        heard = yield context.wait_for_external_event("go")
        third = yield context.call_activity("js_step", input=heard)
        return [second, third]

    @program.activity
    def python_step(_, text):
        return f"{text} python"

    return program


def test_one_orchestration_goes_through_four_languages_and_a_kill_of_the_server(server: Server, sdk: Sdk):
    """Workers with filters share the hub (S-13.9); every client sees the same (S-0.5)."""
    programs = Programs(server, "default")
    with sdk.worker(order_program(), filters="registered"), programs.worker("js"):
        assert programs.run("java", "start", "order", "one", "begin") == "one"
        until("both first steps are done", lambda: sdk.kinds("one").count("TaskCompleted") == 2)
        server.kill9()
        server.restart()
        programs.run("go", "event", "one", "go", "on")
        output = '["begin python js", "on js"]'
        assert sdk.finish("one").serialized_output == output
        for language in CLIENTS[1:]:
            assert programs.run(language, "wait", "one") == output, language
        assert programs.run("js", "query", "one") == "COMPLETED"
        assert programs.run("go", "query", "one") == "ORCHESTRATION_STATUS_COMPLETED"
        assert programs.run("java", "query", "on") == "one"
        assert sdk.state("one").runtime_status.name == "COMPLETED"


@pytest.mark.parametrize("starter", CLIENTS)
def test_each_language_starts_what_another_runs(server: Server, sdk: Sdk, starter: str):
    programs = Programs(server, "default")
    with sdk.worker(order_program(), filters="registered"), programs.worker("js"):
        if starter == "python":
            sdk.client.schedule_new_orchestration("order", input="grüße", instance_id="it")
        else:
            assert programs.run(starter, "start", "order", "it", "grüße") == "it"
        for_event = CLIENTS[(CLIENTS.index(starter) + 1) % len(CLIENTS)]
        if for_event == "python":
            sdk.client.raise_orchestration_event("it", "go", data="世界")
        else:
            programs.run(for_event, "event", "it", "go", "世界")
        assert sdk.output("it") == ["grüße python js", "世界 js"]


@pytest.mark.parametrize("language", ["java", "go"])
def test_work_for_an_entity_waits_for_a_worker_that_can_take_it(
    server: Server, sdk: Sdk, language: str, tmp_path: Path
):
    """S-13.8: Java and Go workers would swallow it without an answer."""
    program = Program()

    @program.entity
    def counter(context, amount):
        context.set_state((context.get_state(int, 0) or 0) + amount)

    programs = Programs(server, "default")
    with programs.worker(language, str(tmp_path)) as worker:
        entity = EntityInstanceId("counter", "a")
        for _ in range(5):
            sdk.client.signal_entity(entity, "add", 2)
        # It has been offered what is there by the time that it has done something else.
        programs.run("go", "start", "two_steps", "beside", "x")
        assert programs.run("go", "wait", "beside") == "3"
        assert sdk.client.get_entity(entity) is None
        with sdk.worker(program, filters="registered"):
            sdk.until_entity_state(entity, 10)
        assert worker.poll() is None
