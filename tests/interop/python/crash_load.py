"""Continuous load for the crash tests, and the record of all that the server has answered to it.

Each driver thread runs one case after the other. A case starts an orchestration of `crash_worker.py`,
does to it what its kind is about, waits for its end and knows the only right output. Whatever the server
has answered with OK becomes a promise in the `Ledger`, which the test checks after each restart.
"""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from durabletask.internal import orchestrator_service_pb2 as pb

import crash_worker
from crash_client import PATIENCE, TERMINAL, PatientClient, text
from lawful_history import History, assert_lawful, nanoseconds, of_kind, open_tasks

ANY_STATUS = frozenset(pb.OrchestrationStatus.values())
SUSPENDED = frozenset({pb.ORCHESTRATION_STATUS_SUSPENDED})
TERMINATED = frozenset({pb.ORCHESTRATION_STATUS_TERMINATED})


@dataclass(frozen=True)
class Promise:
    """What an instance must be from now on: it exists, has one of `statuses`, and once ended it is `ended`."""

    statuses: frozenset[int]
    ended: pb.OrchestrationState | None = None

    def breach(self, found: pb.OrchestrationState | None) -> str | None:
        if found is None:
            return "is gone"
        if found.orchestrationStatus not in self.statuses:
            return f"is {pb.OrchestrationStatus.Name(found.orchestrationStatus)}"
        if self.ended is not None and found != self.ended:
            return f"changed after its end, from\n{self.ended}to\n{found}"
        return None


class Ledger:
    """The promises, by instance. Each is checked over one restart at least."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._promises: dict[str, Promise] = {}
        self._ended_before: set[str] = set()

    def __len__(self) -> int:
        return len(self._promises)

    def note(self, instance: str, promise: Promise) -> None:
        with self._lock:
            self._promises[instance] = promise

    def check(self, client: PatientClient) -> int:
        """Compares the promises of active and of newly ended instances with what is there; how many."""
        with self._lock:
            due = [(key, each) for key, each in self._promises.items() if key not in self._ended_before]
        for instance, promise in due:
            breach = promise.breach(client.find(instance))
            with self._lock:
                # One that was replaced meanwhile says nothing on what was just read.
                if breach and self._promises[instance] is promise:
                    raise AssertionError(f"promised before the restart, now {instance} {breach}")
        self._ended_before |= {instance for instance, promise in due if promise.ended is not None}
        return len(due)

    def ended(self) -> dict[str, pb.OrchestrationState]:
        return {key: each.ended for key, each in self._promises.items() if each.ended is not None}


class Load:
    """`drivers` threads that run cases until `stop`. A failed case ends its thread and is kept."""

    def __init__(self, client: PatientClient, seed: int, drivers: int):
        self.client = client
        self.ledger = Ledger()
        self.ended: Counter[str] = Counter()
        self.unanswered = 0
        self.failures: list[BaseException] = []
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._drive, args=(number, random.Random(f"{seed}/{number}")), daemon=True)
            for number in range(drivers)
        ]

    def start(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        """Lets each driver finish the case it is at."""
        self._stopping.set()
        deadline = time.monotonic() + 2 * PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self.assert_well()
        assert not any(thread.is_alive() for thread in self._threads), "a driver hangs"

    def assert_well(self) -> None:
        if self.failures:
            raise self.failures[0]

    def assert_nothing_lost_or_changed(self) -> None:
        """After `stop`: all instances of the hub ended, none but the expected exist, all are lawful."""
        seen = self.ledger.ended()
        assert len(seen) == len(self.ledger), "a driver left an instance active"
        expected = set(seen)
        found = {state.instanceId: state for state in self.client.all_states()}
        for instance, state in found.items():
            assert state.orchestrationStatus in TERMINAL, f"not ended:\n{state}"
            history = self.client.history(instance)
            assert_lawful(state, history)
            if state.orchestrationStatus == pb.ORCHESTRATION_STATUS_COMPLETED:
                assert not open_tasks(history), f"{instance} completed without {open_tasks(history)}"
            for created in of_kind(history, "subOrchestrationInstanceCreated"):
                expected.add(created.subOrchestrationInstanceCreated.instanceId)
        assert set(found) == expected, f"unlike what was started: {set(found) ^ expected}"
        for instance, state in seen.items():
            assert found[instance] == state, f"changed after its end:\n{state}{found[instance]}"

    def _drive(self, number: int, choices: random.Random) -> None:
        count = 0
        try:
            while not self._stopping.is_set():
                count += 1
                kind = choices.choice(KINDS)
                kind(Case(self, f"{kind.__name__}-{number}-{count}", choices))
                self.ended[kind.__name__] += 1
        except BaseException as error:
            self.failures.append(error)


class Case:
    """One orchestration and its client; `choices` decides whatever is left to chance."""

    def __init__(self, load: Load, instance: str, choices: random.Random):
        self.load = load
        self.client = load.client
        self.instance = instance
        self.choices = choices

    def start(self, orchestrator: Callable[..., Any], input: Any, instance: str | None = None) -> None:
        instance = instance or self.instance
        self.client.start(instance, orchestrator.__name__, input)
        self.load.ledger.note(instance, Promise(ANY_STATUS))

    def end(self, output: Any) -> History:
        """Waits for the end, which must be a completion with this output."""
        state = self.finish(self.instance)
        assert state.orchestrationStatus == pb.ORCHESTRATION_STATUS_COMPLETED, state
        assert state.output == text(output), f"{self.instance}: {state.output}, not {output}"
        return self.client.history(self.instance)

    def finish(self, instance: str) -> pb.OrchestrationState:
        state = self.client.until_ended(instance)
        self.load.ledger.note(instance, Promise(TERMINAL, state))
        return state

    def numbers(self, smallest: int, largest: int) -> list[int]:
        return [self.choices.randrange(1000) for _ in range(self.choices.randint(smallest, largest))]

    def pause(self, seconds: float) -> None:
        time.sleep(self.choices.uniform(0, seconds))

    def raise_values(self, count: int) -> tuple[list[int], set[int]]:
        """Sends `count` values, one after the other: those sent, in order, and those answered."""
        answered = {value for value in range(count) if self.client.raise_event_once(self.instance, "value", value)}
        self.load.unanswered += count - len(answered)
        return list(range(count)), answered


def chain(case: Case) -> None:
    numbers = case.numbers(1, 6)
    case.start(crash_worker.chain, numbers)
    case.end(sum(numbers))


def fan_out(case: Case) -> None:
    numbers = case.numbers(2, 8)
    case.start(crash_worker.fan_out, numbers)
    case.end([number + 1 for number in numbers])


def lingering(case: Case) -> None:
    milliseconds = [case.choices.randrange(50, 250) for _ in range(2)]
    case.start(crash_worker.lingering, milliseconds)
    case.end(milliseconds)


def timers(case: Case) -> None:
    """The machine's clock, read after each timer, shows the same as the history: none was early."""
    milliseconds = [case.choices.randrange(50, 300) for _ in range(case.choices.randint(1, 3))]
    case.start(crash_worker.timers, milliseconds)
    state = case.finish(case.instance)
    assert state.orchestrationStatus == pb.ORCHESTRATION_STATUS_COMPLETED, state
    woken = json.loads(state.output.value)
    history = case.client.history(case.instance)
    fired = of_kind(history, "timerFired")
    assert len(woken) == len(fired) == len(milliseconds)
    for time_of_activity, event in zip(woken, fired, strict=True):
        assert time_of_activity >= nanoseconds(event.timerFired.fireAt), f"{case.instance} woke early"


def children(case: Case) -> None:
    chains = [case.numbers(1, 3) for _ in range(case.choices.randint(1, 3))]
    case.start(crash_worker.children, chains)
    history = case.end([sum(numbers) for numbers in chains])
    for created in of_kind(history, "subOrchestrationInstanceCreated"):
        child = case.finish(created.subOrchestrationInstanceCreated.instanceId)
        assert child.parentInstanceId.value == case.instance, child


def generations(case: Case) -> None:
    count = case.choices.randint(2, 6)
    case.start(crash_worker.generations, [count, 0])
    history = case.end(count * (count + 1) // 2)
    assert len(of_kind(history, "taskScheduled")) == 1, "only the last generation is shown (S-3.22)"


def events(case: Case) -> None:
    _collect(case, crash_worker.collect, None)


def events_over_generations(case: Case) -> None:
    _collect(case, crash_worker.collect_over_generations, [])


def _collect(case: Case, orchestrator: Callable[..., Any], input: Any) -> None:
    """S-8.1, S-8.2, S-3.18: what was answered arrives once and in order; the rest once or not at all."""
    case.start(orchestrator, input)
    sent, answered = case.raise_values(case.choices.randint(1, 12))
    case.client.raise_event(case.instance, "value", crash_worker.END)
    _assert_received(case, sent, answered)


def _assert_received(case: Case, sent: list[int], answered: set[int]) -> History:
    state = case.finish(case.instance)
    assert state.orchestrationStatus == pb.ORCHESTRATION_STATUS_COMPLETED, state
    received = json.loads(state.output.value)
    assert received == sorted(set(received)), f"{case.instance}: repeated or out of order: {received}"
    assert answered <= set(received) <= set(sent), f"{case.instance}: answered {answered}, got {received}"
    return case.client.history(case.instance)


def suspended(case: Case) -> None:
    """S-9.2 to S-9.6: a suspension without an answer is asked for again, and still counts once."""
    case.start(crash_worker.collect, None)
    runs_first = case.choices.random() < 0.7
    if runs_first:
        case.client.until_started(case.instance)
    case.client.suspend(case.instance)
    case.load.ledger.note(case.instance, Promise(SUSPENDED))
    sent, answered = case.raise_values(case.choices.randint(1, 4))
    case.pause(0.3)
    case.load.ledger.note(case.instance, Promise(ANY_STATUS))
    case.client.resume(case.instance)
    case.client.raise_event(case.instance, "value", crash_worker.END)
    history = _assert_received(case, sent, answered)
    markers = len(of_kind(history, "executionSuspended")), len(of_kind(history, "executionResumed"))
    assert markers == (1, 1) or (markers == (0, 0) and not runs_first), f"{case.instance}: {markers} markers"


def terminated(case: Case) -> None:
    """S-9.7: at once, also before the first episode."""
    case.start(crash_worker.wait_for_ever, None)
    case.pause(0.1)
    case.client.terminate(case.instance, case.instance, recursive=False)
    case.load.ledger.note(case.instance, Promise(TERMINATED))
    assert case.finish(case.instance).output == text(case.instance)


def terminated_with_its_child(case: Case) -> None:
    """S-9.8: the answer comes when both have ended."""
    child = f"{case.instance}-child"
    case.start(crash_worker.wait_for_child, child)
    case.client.until_started(case.instance)
    case.load.ledger.note(child, Promise(ANY_STATUS))
    case.client.terminate(case.instance, case.instance, recursive=True)
    for instance in (case.instance, child):
        case.load.ledger.note(instance, Promise(TERMINATED))
        assert case.finish(instance).output == text(case.instance)


def sent_by_another(case: Case) -> None:
    """S-8.2: what one orchestration sends another arrives once and in order."""
    count = case.choices.randint(1, 4)
    case.start(crash_worker.collect, None)
    sender = f"{case.instance}-sender"
    case.start(crash_worker.send_values, {"target": case.instance, "count": count}, sender)
    case.end(list(range(count)))
    assert case.finish(sender).orchestrationStatus == pb.ORCHESTRATION_STATUS_COMPLETED


KINDS = [
    chain,
    fan_out,
    lingering,
    timers,
    children,
    generations,
    events,
    events_over_generations,
    suspended,
    terminated,
    terminated_with_its_child,
    sent_by_another,
]
