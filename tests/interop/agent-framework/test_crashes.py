"""The scheduler and the workers are killed, between turns and in the middle of one: the session goes on.

A turn is one operation of the session's entity. What it says is kept when the scheduler has its outcome; a turn whose
worker or scheduler was killed before is made again from its beginning, so the model may be asked again, but what is
kept is there once.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from newsroom import Newsroom
from sdk import eventually, once_reachable, unique


@pytest.fixture
def beside() -> Iterator[ThreadPoolExecutor]:
    """Where a client waits for its answer while the test goes on."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


def heard(*words: str) -> str:
    return f"heard: {' | '.join(words)}"


def spoken(*words: str) -> list[tuple[str, str]]:
    """The transcript of a session in which the user said these."""
    turns = [(("user", word), ("assistant", heard(*words[: number + 1]))) for number, word in enumerate(words)]
    return [said for turn in turns for said in turn]


def answer(turn: "Future[Any]") -> str:
    return turn.result(60).text


def test_a_session_goes_on_after_the_scheduler_was_killed_between_turns(own: Newsroom):
    """S-0.2, S-12.19: over four kills, with the same worker and the same client."""
    own.start_worker()
    assistant = own.agent("assistant")
    session = assistant.create_session()
    words = [unique(word) for word in ("red", "green", "blue", "grey")]
    for number, word in enumerate(words):
        said = once_reachable(lambda: assistant.run(word, session=session))
        assert said.text == heard(*words[: number + 1])
        own.kill_and_restart()
    assert once_reachable(lambda: own.transcript(session)) == spoken(*words)
    assert [len(own.model.calls(word)) for word in words] == [1, 1, 1, 1]


def test_a_session_goes_on_with_another_worker(own: Newsroom):
    """S-12.9: what was said is kept by the scheduler, not by the worker, which is killed between turns."""
    assistant = own.agent("assistant")
    session = assistant.create_session()
    words = [unique("red"), unique("green")]
    first = own.start_worker()
    assert assistant.run(words[0], session=session).text == heard(words[0])
    first.kill9()
    second = own.start_worker()
    assert assistant.run(words[1], session=session).text == heard(*words)
    calls = [call for word in words for call in own.model.calls(word)]
    assert [call.worker for call in calls] == [first.name, second.name]
    assert own.transcript(session) == spoken(*words)


def test_a_turn_of_a_killed_worker_is_finished_by_a_new_one(own: Newsroom, beside: ThreadPoolExecutor):
    """S-13.19, S-12.20: killed while the model thinks about the second turn."""
    assistant = own.agent("assistant")
    session = assistant.create_session()
    words = [unique("red"), unique("green"), unique("blue")]
    first = own.start_worker()
    assistant.run(words[0], session=session)
    with own.model.holding(words[1]) as gate:
        turn = beside.submit(assistant.run, words[1], session=session)
        gate.wait_until_reached()
        first.kill9()
    second = own.start_worker()
    assert answer(turn) == heard(*words[:2])
    assert [call.worker for call in own.model.calls(words[1])] == [first.name, second.name]
    assert assistant.run(words[2], session=session).text == heard(*words)
    assert own.transcript(session) == spoken(*words)


def test_a_turn_of_a_killed_worker_is_finished_by_one_that_was_there_already(
    own: Newsroom, beside: ThreadPoolExecutor
):
    """S-13.19, S-12.20: no new worker has to come for it."""
    for _ in range(2):
        own.start_worker()
    assistant = own.agent("assistant")
    for _ in range(2):
        session = assistant.create_session()
        words = [unique("red"), unique("green")]
        assistant.run(words[0], session=session)
        with own.model.holding(words[1]) as gate:
            turn = beside.submit(assistant.run, words[1], session=session)
            gate.wait_until_reached()
            [call] = own.model.calls(words[1])
            [holder] = [worker for worker in own.workers if worker.name == call.worker]
            holder.kill9()
        assert answer(turn) == heard(*words)
        assert {call.worker for call in own.model.calls(words[1])} > {holder.name}
        assert own.transcript(session) == spoken(*words)
        own.start_worker()


def test_a_turn_goes_on_when_the_scheduler_is_killed_while_the_model_thinks(
    own: Newsroom, beside: ThreadPoolExecutor
):
    """S-0.2, S-13.21: the worker lives; whichever of its answers counts, what was said is kept once."""
    own.start_worker()
    assistant = own.agent("assistant")
    session = assistant.create_session()
    words = [unique("red"), unique("green"), unique("blue")]
    assistant.run(words[0], session=session)
    with own.model.holding(words[1]) as gate:
        turn = beside.submit(assistant.run, words[1], session=session)
        gate.wait_until_reached()
        own.kill_and_restart()
    assert answer(turn) == heard(*words[:2])
    assert once_reachable(lambda: assistant.run(words[2], session=session)).text == heard(*words)
    assert own.transcript(session) == spoken(*words)


def test_a_turn_is_finished_when_scheduler_and_worker_were_killed_in_its_middle(
    own: Newsroom, beside: ThreadPoolExecutor
):
    """S-0.2: nothing of it was left but what the scheduler had on disk."""
    assistant = own.agent("assistant")
    session = assistant.create_session()
    words = [unique("red"), unique("green")]
    first = own.start_worker()
    assistant.run(words[0], session=session)
    with own.model.holding(words[1]) as gate:
        turn = beside.submit(assistant.run, words[1], session=session)
        gate.wait_until_reached()
        own.server.kill9()
        first.kill9()
    own.server.restart()
    second = own.start_worker()
    assert answer(turn) == heard(*words)
    assert [call.worker for call in own.model.calls(words[1])] == [first.name, second.name]
    assert own.transcript(session) == spoken(*words)


def test_turns_that_were_accepted_before_a_kill_are_made_after_it(own: Newsroom):
    """S-0.2, S-12.10, S-12.37: sent before there is any worker, and in their order."""
    assistant = own.agent("assistant")
    session = assistant.create_session()
    words = [unique("red"), unique("green"), unique("blue")]
    for word in words:
        assistant.run(word, session=session, options={"wait_for_response": False})
    own.kill_and_restart()
    own.start_worker()
    last = unique("last")
    assert assistant.run(last, session=session).text == heard(*words, last)
    assert own.transcript(session) == spoken(*words, last)


def test_an_agent_that_has_answered_its_orchestration_is_not_asked_again(own: Newsroom):
    """S-0.2, S-12.15: worker and scheduler are killed while the second of two agents thinks."""
    subject = unique("subject")
    first = own.start_worker()
    draft, edit = f"write about {subject}", f"edit heard: write about {subject}"
    with own.model.holding(edit) as gate:
        instance = own.sdk.start("write_and_edit", subject)
        gate.wait_until_reached()
        first.kill9()
        own.kill_and_restart()
    own.start_worker()
    assert once_reachable(lambda: own.sdk.output(instance, 60)) == [heard(draft), heard(edit)]
    assert len(own.model.calls(draft)) == 1
    assert len(own.model.calls(edit)) == 2


def test_a_workflow_that_waits_for_a_person_survives_both_kills(own: Newsroom):
    """S-0.2, S-8.1: its question is still there, and is answered once."""
    subject = unique("subject")
    first = own.start_worker()
    workflows = own.workflows()
    instance = workflows.start_workflow(subject, workflow_name="approval")
    [before] = eventually(lambda: workflows.get_pending_hitl_requests(instance), "a question")
    first.kill9()
    own.kill_and_restart()
    [after] = once_reachable(lambda: workflows.get_pending_hitl_requests(instance))
    assert after == before
    own.start_worker()
    workflows.send_hitl_response(instance, after["request_id"], "yes")
    assert workflows.await_workflow_output(instance, timeout_seconds=60) == [f"yes: {heard(subject)}"]
    assert len(own.model.calls(subject)) == 1
