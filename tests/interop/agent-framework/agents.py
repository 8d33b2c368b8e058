"""Agents of Microsoft's Agent Framework, and orchestrations that call them.

Run as a program, this file is a worker with all of them. Arguments: package, address, hub, address of the model.
"""

import sys
import threading
from datetime import timedelta

from pydantic import BaseModel

from agent_framework import (
    Agent,
    AgentExecutorResponse,
    Executor,
    Workflow,
    WorkflowBuilder,
    WorkflowContext,
    WorkflowExecutor,
    handler,
    response_handler,
)
from agent_framework.openai import OpenAIChatCompletionClient
from agent_framework_durabletask import DurableAIAgentOrchestrationContext, DurableAIAgentWorker
from durabletask import task
from durabletask.worker import TaskHubGrpcWorker

from sdk import Sdk

INSTRUCTIONS = {
    "assistant": "You remember what you are told.",
    "writer": "You write.",
    "editor": "You edit what others write.",
}


class Verdict(BaseModel):
    good: bool


def look_up(word: str) -> str:
    """What is known about a word."""
    return f"{word} has {len(word)} letters"


def publish(_: task.ActivityContext, text: str) -> str:
    return f"published: {text}"


def write_and_edit(context: task.OrchestrationContext, subject: str):
    """One agent after the other, each in a session of this orchestration."""
    agents = DurableAIAgentOrchestrationContext(context)
    draft = yield agents.get_agent("writer").run(f"write about {subject}")
    final = yield agents.get_agent("editor").run(f"edit {draft.text}")
    return [draft.text, final.text]


def write_twice(context: task.OrchestrationContext, subject: str):
    """Two turns of one session."""
    writer = DurableAIAgentOrchestrationContext(context).get_agent("writer")
    session = writer.create_session()
    yield writer.run(f"write about {subject}", session=session)
    return (yield writer.run(f"say it shorter, {subject}", session=session)).text


def ask_both(context: task.OrchestrationContext, subject: str):
    """Two agents at a time."""
    agents = DurableAIAgentOrchestrationContext(context)
    answers = yield task.when_all([agents.get_agent(name).run(f"about {subject}") for name in ("writer", "editor")])
    return [answer.text for answer in answers]


def judge(context: task.OrchestrationContext, subject: str):
    """An answer of a type decides what is done."""
    editor = DurableAIAgentOrchestrationContext(context).get_agent("editor")
    verdict = (yield editor.run(f"judge {subject}", options={"response_format": Verdict})).value
    return (yield context.call_activity(publish, input=subject)) if verdict.good else "thrown away"


def write_until_approved(context: task.OrchestrationContext, subject: str):
    """A person says what is wrong, in the writer's session, until the draft is approved."""
    writer = DurableAIAgentOrchestrationContext(context).get_agent("writer")
    session = writer.create_session()
    draft = yield writer.run(f"write about {subject}", session=session)
    while True:
        context.set_custom_status(draft.text)
        opinion = context.wait_for_external_event("opinion")
        if (yield task.when_any([opinion, context.create_timer(timedelta(hours=72))])) != opinion:
            return "nobody answered"
        if opinion.get_result() == "approved":
            return (yield context.call_activity(publish, input=draft.text))
        draft = yield writer.run(opinion.get_result(), session=session)


class Print(Executor):
    """The end of a workflow: what the last agent said is its output."""

    @handler
    async def print(self, said: AgentExecutorResponse, context: WorkflowContext[str, str]) -> None:
        await context.yield_output(f"printed: {said.agent_response.text}")


class Ask(Executor):
    """Asks a person about what the agent before it said."""

    @handler
    async def ask(self, said: AgentExecutorResponse, context: WorkflowContext[str, str]) -> None:
        await context.request_info(said.agent_response.text, str)

    @response_handler
    async def answered(self, question: str, answer: str, context: WorkflowContext[str, str]) -> None:
        await context.yield_output(f"{answer}: {question}")


class Keep(Executor):
    """The end of a workflow that has another one inside."""

    @handler
    async def keep(self, words: str, context: WorkflowContext[str, str]) -> None:
        await context.yield_output(f"kept: {words}")


def workflows(agents: dict[str, Agent]) -> list[Workflow]:
    writer, editor, end, ask = agents["writer"], agents["editor"], Print(id="print"), Ask(id="ask")
    magazine = WorkflowBuilder(name="magazine", start_executor=writer, output_from=[end])
    approval = WorkflowBuilder(name="approval", start_executor=writer, output_from=[ask]).add_edge(writer, ask).build()
    inner, keep = WorkflowExecutor(approval, id="inner"), Keep(id="keep")
    outer = WorkflowBuilder(name="outer", start_executor=inner, output_from=[keep])
    return [
        magazine.add_edge(writer, editor).add_edge(editor, end).build(),
        approval,
        outer.add_edge(inner, keep).build(),
    ]


def register(worker: TaskHubGrpcWorker, model: str) -> None:
    """Registers everything of this file with a worker that has not started; `model` is the address of the model."""
    client = OpenAIChatCompletionClient(model="scripted", api_key="none", base_url=model)
    agents = {
        name: Agent(client=client, name=name, instructions=words, tools=[look_up] if name == "assistant" else None)
        for name, words in INSTRUCTIONS.items()
    }
    host = DurableAIAgentWorker(worker)
    for agent in agents.values():
        host.add_agent(agent)
    for workflow in workflows(agents):
        host.configure_workflow(workflow)
    for orchestrator in (write_and_edit, write_twice, ask_both, judge, write_until_approved):
        worker.add_orchestrator(orchestrator)
    worker.add_activity(publish)


def main(package: str, address: str, hub: str, model: str) -> None:
    worker = Sdk(package, "sync", address, hub, quick_reconnect=True).new_worker()
    register(worker, model)
    worker.start()
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
