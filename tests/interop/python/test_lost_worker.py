"""Workers that are killed with work in hand: another one does that work."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from durabletask import task

from sdk import Program, Sdk, Status

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


class Holder:
    """The process of `worker_process.py`."""

    def __init__(self, process: "subprocess.Popen[str]"):
        self._process = process

    def wait_until_holding(self, kind: str, count: int) -> list[str]:
        """Reads what the process prints until it holds `count` items of `kind`, and returns their keys."""
        keys: list[str] = []
        while len(keys) < count:
            line = self._process.stdout.readline()
            assert line, "the worker process has ended"
            if line.startswith(f"holding {kind} "):
                keys.append(line.split()[2])
        return keys

    def kill9(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def holder(sdk: Sdk) -> Iterator[Holder]:
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("worker_process.py")), sdk.address, sdk.hub],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield Holder(process)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def lost(managed: Sdk) -> Iterator[Sdk]:
    with managed.in_hub("lost") as hub:
        yield hub


def test_activities_of_a_killed_worker_are_done_by_another(lost: Sdk):
    """S-13.19, S-5.5: each of them has exactly one outcome."""
    with holder(lost) as first:
        instance = lost.start(fan_out_to_held_activities, 5)
        assert sorted(first.wait_until_holding("activity", 5)) == ["0", "1", "2", "3", "4"]
        first.kill9()
        with lost.worker(program):
            assert lost.output(instance) == [0, 1, 2, 3, 4]
    kinds = lost.kinds(instance)
    assert kinds.count("TaskScheduled") == kinds.count("TaskCompleted") == 5


def test_an_episode_of_a_killed_worker_is_done_by_another(lost: Sdk):
    """S-13.19, S-2.4: the instance stays pending while its first episode is in hand."""
    with holder(lost) as first:
        instance = lost.start(held_orchestrator)
        assert first.wait_until_holding("orchestrator", 1) == [instance]
        assert lost.status(instance) == Status.PENDING
        first.kill9()
        with lost.worker(program):
            assert lost.output(instance) == "ran elsewhere"


def test_work_in_the_hands_of_a_living_worker_goes_to_no_other(lost: Sdk):
    """S-13.19, S-0.1: until that one is gone."""
    with holder(lost) as first:
        instance = lost.start(held_orchestrator)
        first.wait_until_holding("orchestrator", 1)
        with lost.worker(program):
            # The slow worker may hold some of these too; those that the second one gets, it does.
            others = [lost.start(fan_out_to_held_activities, 0) for _ in range(4)]
            for each in others:
                assert lost.output(each) == []
            assert lost.status(instance) == Status.PENDING
            first.kill9()
            assert lost.output(instance) == "ran elsewhere"
