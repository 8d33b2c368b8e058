"""Orchestrations that call agents, and workflows of the framework, which run as orchestrations."""

import asyncio

from newsroom import Newsroom
from sdk import eventually, unique


def test_one_agent_works_on_what_another_has_answered(newsroom: Newsroom):
    subject = unique("subject")
    draft, edit = f"write about {subject}", f"edit heard: write about {subject}"
    assert newsroom.sdk.run("write_and_edit", subject) == [f"heard: {draft}", f"heard: {edit}"]
    [first], [second] = newsroom.model.calls(draft), newsroom.model.calls(edit)
    assert (first.instructions, second.instructions) == ("You write.", "You edit what others write.")
    assert second.said == [edit]


def test_two_turns_of_one_orchestration_share_a_session(newsroom: Newsroom):
    subject = unique("subject")
    assert newsroom.sdk.run("write_twice", subject) == f"heard: write about {subject} | say it shorter, {subject}"


def test_two_agents_are_asked_at_a_time(newsroom: Newsroom):
    subject = unique("subject")
    with newsroom.model.holding(f"about {subject}") as gate:
        instance = newsroom.sdk.start("ask_both", subject)
        calls = newsroom.model.until_called(f"about {subject}", 2)
        gate.open()
        assert newsroom.sdk.output(instance) == [f"heard: about {subject}"] * 2
    assert sorted(call.instructions for call in calls) == ["You edit what others write.", "You write."]


def test_an_answer_of_a_type_decides_what_is_done(newsroom: Newsroom):
    good, bad = unique("good"), unique("bad")
    assert newsroom.sdk.run("judge", good) == f"published: {good}"
    assert newsroom.sdk.run("judge", bad) == "thrown away"


def test_a_person_has_the_agent_write_again(newsroom: Newsroom):
    subject, opinion = unique("subject"), unique("longer")
    instance = newsroom.sdk.start("write_until_approved", subject)
    for said, answer in [
        (opinion, f"heard: write about {subject}"),
        ("approved", f"heard: write about {subject} | {opinion}"),
    ]:
        eventually(lambda: newsroom.sdk.state(instance).get_custom_status() == answer, answer)
        newsroom.sdk.client.raise_orchestration_event(instance, "opinion", data=said)
    assert newsroom.sdk.output(instance) == f"published: heard: write about {subject} | {opinion}"


def test_a_workflow_of_agents_and_code_runs_to_its_output(newsroom: Newsroom):
    subject = unique("subject")
    workflows = newsroom.workflows()
    instance = workflows.start_workflow(subject, workflow_name="magazine")
    output = workflows.await_workflow_output(instance, timeout_seconds=30)
    assert output == [f"printed: heard: heard: {subject}"]
    assert workflows.get_runtime_status(instance, workflow_name="magazine") == "COMPLETED"
    assert workflows.get_runtime_status(instance, workflow_name="approval") is None


def test_what_happens_in_a_workflow_is_streamed(newsroom: Newsroom):
    workflows = newsroom.workflows()

    async def happened() -> list[tuple[str, str | None]]:
        instance = await workflows.run_workflow(unique("subject"), workflow_name="magazine", wait=False)
        stream = workflows.stream_workflow(instance, poll_interval_seconds=0.05, timeout_seconds=30)
        return [(event.type, event.executor_id) async for event in stream]

    events = asyncio.run(happened())
    assert [who for what, who in events if what == "executor_completed"] == ["writer", "editor", "print"]
    assert [who for what, who in events if what == "output"] == ["print"]


def test_a_workflow_asks_a_person_from_inside_another(newsroom: Newsroom):
    """S-7.1: the inner one is a child orchestration, whose question its client finds and answers."""
    subject = unique("subject")
    workflows = newsroom.workflows()
    instance = workflows.start_workflow(subject, workflow_name="outer")
    [question] = eventually(lambda: workflows.get_pending_hitl_requests(instance), "a question")
    assert question["data"] == f"heard: {subject}"
    workflows.send_hitl_response(instance, question["request_id"], "yes")
    assert workflows.await_workflow_output(instance, timeout_seconds=30) == [f"kept: yes: heard: {subject}"]
