"""What holds for the history of every ended instance, however often the server was killed.

Checked: the order and number of starts and ends, the rising clock, rising ids, one outcome at most for
whatever was asked for, timers that are not early, distinct event times, markers in pairs.
Not checked: whether an orchestration did what its author meant; that shows in its output.
"""

from collections import Counter
from itertools import pairwise

from durabletask.internal import orchestrator_service_pb2 as pb

History = list[pb.HistoryEvent]

MILLISECOND = 1_000_000

OUTCOMES = {
    "taskCompleted": "taskScheduled",
    "taskFailed": "taskScheduled",
    "timerFired": "timerCreated",
    "subOrchestrationInstanceCompleted": "subOrchestrationInstanceCreated",
    "subOrchestrationInstanceFailed": "subOrchestrationInstanceCreated",
}

INBOUND = {
    *OUTCOMES,
    "orchestratorStarted",
    "eventRaised",
    "executionSuspended",
    "executionResumed",
    "executionTerminated",
}
CONFIRMING = {*OUTCOMES.values(), "eventSent", "executionCompleted"}


def kind(event: pb.HistoryEvent) -> str:
    return event.WhichOneof("eventType")


def of_kind(history: History, wanted: str) -> History:
    return [event for event in history if kind(event) == wanted]


def assert_lawful(state: pb.OrchestrationState, history: History) -> None:
    """`state` is terminal and `history` is that of its last generation."""
    try:
        _starts_and_ends_once(state, history)
        _clock_rises(history)
        _ids_rise(history)
        _outcomes_are_single(history)
        _timers_are_not_early(history)
        _event_times_differ(history)
        _suspensions_are_paired(history)
    except AssertionError as error:
        lines = [f"{event.eventId:>3} {event.timestamp.ToJsonString()} {kind(event)}" for event in history]
        raise AssertionError("\n".join([f"{state.instanceId}: {error}", *lines])) from error


def open_tasks(history: History) -> set[tuple[str, int]]:
    """What was asked for and has no outcome."""
    asked = {(kind(event), event.eventId) for event in history if kind(event) in OUTCOMES.values()}
    return asked - {_asked_by(event) for event in history if kind(event) in OUTCOMES}


def _asked_by(outcome: pb.HistoryEvent) -> tuple[str, int]:
    body = getattr(outcome, kind(outcome))
    number = body.timerId if kind(outcome) == "timerFired" else body.taskScheduledId
    return OUTCOMES[kind(outcome)], number


def _starts_and_ends_once(state: pb.OrchestrationState, history: History) -> None:
    """S-3.2, S-3.12, S-3.13, S-3.14, S-3.3."""
    kinds = [kind(event) for event in history]
    assert set(kinds) <= INBOUND | CONFIRMING | {"executionStarted"}, "an event of a kind not used here"
    assert kinds.count("executionStarted") == 1, "not exactly one start"
    assert kinds.count("executionCompleted") == 1, "not exactly one end"
    assert kinds[-1] == "executionCompleted", "the end is not the last event"
    never_ran = kinds.count("orchestratorStarted") == 1 and "executionTerminated" in kinds
    assert "executionStarted" in kinds[:2] if never_ran else kinds[1] == "executionStarted", "late start"
    assert never_ran or kinds[0] == "orchestratorStarted", "no episode opened the history"
    started = of_kind(history, "executionStarted")[0].executionStarted
    assert started.orchestrationInstance.instanceId == state.instanceId, "the start of another instance"
    assert started.orchestrationInstance.executionId == state.executionId, "the start of another generation"
    ended = history[-1].executionCompleted
    assert ended.orchestrationStatus == state.orchestrationStatus, "the end has another status"
    assert ended.result == state.output, "the end has another result"


def _clock_rises(history: History) -> None:
    """S-3.6."""
    clocks = [nanoseconds(event.timestamp) for event in of_kind(history, "orchestratorStarted")]
    assert all(later - earlier >= MILLISECOND for earlier, later in pairwise(clocks)), "the clock did not rise"


def _ids_rise(history: History) -> None:
    """S-3.7."""
    for event in history:
        if kind(event) in INBOUND:
            assert event.eventId == -1, f"a {kind(event)} with the id {event.eventId}"
    ids = [event.eventId for event in history if kind(event) in CONFIRMING]
    assert all(earlier < later for earlier, later in pairwise(ids)), f"ids do not rise: {ids}"


def _outcomes_are_single(history: History) -> None:
    """S-3.9, S-5.5: each outcome follows what asked for it, and is the only one."""
    asked: set[tuple[str, int]] = set()
    answered: Counter[tuple[str, int]] = Counter()
    for event in history:
        if kind(event) in OUTCOMES.values():
            asked.add((kind(event), event.eventId))
        elif kind(event) in OUTCOMES:
            source = _asked_by(event)
            assert source in asked, f"an outcome of {source} before it"
            answered[source] += 1
            assert answered[source] == 1, f"a second outcome of {source}"


def _timers_are_not_early(history: History) -> None:
    """S-6.1, S-3.6: fired at or after its time, in an episode whose clock is past it."""
    due = {event.eventId: event.timerCreated.fireAt for event in of_kind(history, "timerCreated")}
    clock = 0
    for event in history:
        if kind(event) == "orchestratorStarted":
            clock = nanoseconds(event.timestamp)
        elif kind(event) == "timerFired":
            fire_at = event.timerFired.fireAt
            assert fire_at == due[event.timerFired.timerId], "fired for another time than it was created for"
            assert nanoseconds(event.timestamp) >= nanoseconds(fire_at), "fired early"
            assert clock > nanoseconds(fire_at), "the episode's clock is not past the timer"


def _event_times_differ(history: History) -> None:
    """S-3.11."""
    times = [nanoseconds(event.timestamp) for event in of_kind(history, "eventRaised")]
    assert len(times) == len(set(times)), "two events of the same time"


def _suspensions_are_paired(history: History) -> None:
    """S-9.5, S-9.6."""
    markers = [kind(event) for event in history if kind(event) in {"executionSuspended", "executionResumed"}]
    pairs = ["executionSuspended", "executionResumed"] * (len(markers) // 2 + 1)
    assert markers == pairs[: len(markers)], f"unpaired markers: {markers}"


def nanoseconds(timestamp: pb.HistoryEvent) -> int:
    return timestamp.ToNanoseconds()
