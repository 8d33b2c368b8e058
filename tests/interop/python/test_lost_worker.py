"""Workers that are killed with work in hand: another one does that work."""

import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from durabletask import task

from sdk import DEADLINE, Program, Sdk, Status

program = Program()


@program.activity
def held_activity(_, number):
    return number


@program.orchestrator
def fan_out_to_held_activities(context: task.OrchestrationContext, count):
    return (yield task.when_all([context.call_activity(held_activity, input=n) for n in range(count)]))


@program.orchestrator
def held_orchestrator(context: task.OrchestrationContext, _):
    return "ran elsewhere"


@program.orchestrator
def return_at_once(_, value):
    return value


class Holder:
    """The process of `worker_process.py`."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path):
        self._process = process
        self._log = log
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._forward, daemon=True).start()

    def wait_until_holding(self, kind: str, count: int) -> list[str]:
        """Reads what the process prints until it holds `count` items of `kind`, and returns their keys."""
        keys: list[str] = []
        while len(keys) < count:
            try:
                line = self._lines.get(timeout=DEADLINE)
            except queue.Empty:
                raise AssertionError(f"holds only {keys}\n{self._log.read_text()[-4000:]}") from None
            if line.startswith(f"holding {kind} "):
                keys.append(line.split()[2])
        return keys

    def kill9(self) -> None:
        self._process.kill()
        self._process.wait()

    def _forward(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line)


@contextmanager
def holder(sdk: Sdk, folder: Path) -> Iterator[Holder]:
    log = folder / "worker.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("worker_process.py")), sdk.address, sdk.hub],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        yield Holder(process, log)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def lost(managed: Sdk) -> Iterator[Sdk]:
    with managed.in_hub("lost") as hub:
        yield hub


def test_activities_of_a_killed_worker_are_done_by_another(lost: Sdk, tmp_path: Path):
    """S-13.19, S-5.5: each of them has exactly one outcome."""
    with holder(lost, tmp_path) as first:
        instance = lost.start(fan_out_to_held_activities, 5)
        assert sorted(first.wait_until_holding("activity", 5)) == ["0", "1", "2", "3", "4"]
        first.kill9()
        with lost.worker(program):
            assert lost.output(instance) == [0, 1, 2, 3, 4]
    kinds = lost.kinds(instance)
    assert kinds.count("TaskScheduled") == kinds.count("TaskCompleted") == 5


def test_an_episode_of_a_killed_worker_is_done_by_another(lost: Sdk, tmp_path: Path):
    """S-13.19, S-2.4: the instance stays pending while its first episode is in hand."""
    with holder(lost, tmp_path) as first:
        instance = lost.start(held_orchestrator)
        assert first.wait_until_holding("orchestrator", 1) == [instance]
        assert lost.status(instance) == Status.PENDING
        first.kill9()
        with lost.worker(program):
            assert lost.output(instance) == "ran elsewhere"


def test_work_in_the_hands_of_a_living_worker_goes_to_no_other(lost: Sdk, tmp_path: Path):
    """S-13.19, S-0.1: until that one is gone."""
    with holder(lost, tmp_path) as first:
        instance = lost.start(held_orchestrator)
        first.wait_until_holding("orchestrator", 1)
        with lost.worker(program):
            # A second worker is there and busy, so the held item could have gone to it.
            assert [lost.run(return_at_once, n) for n in range(4)] == [0, 1, 2, 3]
            assert lost.status(instance) == Status.PENDING
            first.kill9()
            assert lost.output(instance) == "ran elsewhere"
